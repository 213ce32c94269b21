import Fetch
import Foundation
import Logging
import Series
import Synchronization

/// The jobs with their targets: begins a loop for each target that is found, and ends those of targets that are gone.
///
/// It lives as long as the process: a new configuration changes what it has to, and the loops of jobs that stay as they
/// were go on. What relabelling drops is counted and, but for some that can be shown, forgotten: of a cluster's pods
/// most are dropped.
package final class ScrapeManager: Sendable {
    /// What a job's discovery came to.
    package struct PoolStatus: Sendable {
        package var job: String
        package var active = 0
        package var dropped = 0
        package var targetLimit = 0
        /// The labels of some that were dropped, as they were discovered.
        package var droppedTargets: [Labels] = []
        /// Why none of the targets is scraped; nil where they are.
        package var refusal: String?
    }

    private let client: HTTPClient
    private let sink: any SampleSink
    private let time: any TimeSource
    private let logger: Logger
    private let shared = SharedArrays()
    private let state = Mutex(State())

    package init(client: HTTPClient, sink: any SampleSink, time: any TimeSource, logger: Logger) {
        self.client = client
        self.sink = sink
        self.time = time
        self.logger = logger
    }

    /// A group by its discovery: the job's static targets have the number -1, the others are counted from 0.
    private struct GroupKey: Hashable {
        var discovery: Int
        var source: String
    }

    /// What makes two targets of a job the same one.
    private struct TargetKey: Hashable {
        var labels: Labels
        var url: String
        var intervalMs: Int64
        var timeoutMs: Int64
    }

    private struct Running {
        var row: TargetRow
        var loop: Task<ScrapeSession, Never>
        /// How many discovered targets it stands for.
        var count: Int
        /// In which order the targets were found.
        var number: Int
    }

    private struct Group {
        var targets: [TargetKey] = []
        var dropped: [Labels] = []
        var droppedCount = 0
    }

    /// Why a pool's targets are not scraped.
    private final class Gate: Sendable {
        private let words = Mutex<String?>(nil)

        var refusal: String? { words.withLock { $0 } }

        func set(_ refusal: String?) { words.withLock { $0 = refusal } }
    }

    private struct Pool {
        var job: ScrapeJob
        var groups: [GroupKey: Group] = [:]
        var running: [TargetKey: Running] = [:]
        let gate = Gate()
    }

    private struct State {
        var pools: [Pool] = []
        var found = 0
        var endings: [Int: Task<Void, Never>] = [:]
        var isStopped = false
    }

    // MARK: What is to be scraped

    /// Takes the jobs of a configuration: those that are new begin, those that are gone end, those with other settings
    /// begin anew, and the others are left alone.
    package func apply(_ jobs: [ScrapeJob]) {
        state.withLock { state in
            var before = state.pools
            state.pools = []
            for job in jobs {
                if let index = before.firstIndex(where: { $0.job.name == job.name && $0.job.settings == job.settings })
                {
                    state.pools.append(before.remove(at: index))
                } else {
                    state.pools.append(Pool(job: job))
                    let group = TargetGroup(source: "", targets: job.staticTargets)
                    replace([group], discovery: -1, inPool: state.pools.count - 1, &state)
                }
            }
            for pool in before { for running in pool.running.values { end(running, &state) } }
        }
    }

    /// Takes what a discovery of a job found.
    ///
    /// - Parameters:
    ///   - discovery: which of the job's, counted from 0.
    ///   - groups: each in place of the one with its source; one without targets ends those it had.
    ///   - isWhole: whether these are all groups of the discovery: the others are gone.
    package func update(_ job: String, discovery: Int, _ groups: [TargetGroup], isWhole: Bool) {
        state.withLock { state in
            guard let index = state.pools.firstIndex(where: { $0.job.name == job }) else { return }
            var groups = groups
            if isWhole {
                let sources = Set(groups.map(\.source))
                for key in state.pools[index].groups.keys
                where key.discovery == discovery && !sources.contains(key.source) {
                    groups.append(TargetGroup(source: key.source, targets: []))
                }
            }
            replace(groups, discovery: discovery, inPool: index, &state)
        }
    }

    private func replace(_ groups: [TargetGroup], discovery: Int, inPool index: Int, _ state: inout State) {
        guard !state.isStopped else { return }
        let job = state.pools[index].job
        for group in groups {
            let key = GroupKey(discovery: discovery, source: group.source)
            let old = state.pools[index].groups[key]?.targets ?? []
            var new = Group()
            // The new ones first: a target that stays is not ended in between.
            for discovered in group.targets {
                if let target = job.target(of: discovered) {
                    new.targets.append(begin(target, discovered, inPool: index, &state))
                } else {
                    new.droppedCount += 1
                    if new.dropped.count < job.keptDroppedTargets { new.dropped.append(job.completed(discovered)) }
                }
            }
            for one in old { release(one, inPool: index, &state) }
            state.pools[index].groups[key] = new.targets.isEmpty && new.droppedCount == 0 ? nil : new
        }
        let (count, limit) = (state.pools[index].running.count, job.targetLimit)
        state.pools[index].gate.set(
            limit > 0 && count > limit
                ? "the job has \(count) targets, more than the target_limit of \(limit)" : nil)
    }

    /// Begins to scrape a target, where it is not scraped already.
    private func begin(
        _ target: ScrapeTarget, _ discovered: Labels, inPool index: Int, _ state: inout State
    ) -> TargetKey {
        let key = TargetKey(
            labels: target.labels, url: target.url, intervalMs: target.intervalMs, timeoutMs: target.timeoutMs)
        if state.pools[index].running[key] != nil {
            state.pools[index].running[key]?.count += 1
            return key
        }
        // Of the pool only what is needed: while a copy of it is held, the change below copies its targets.
        let (job, gate) = (state.pools[index].job, state.pools[index].gate)
        let row = TargetRow(TargetStatus(job: job.name, target: target, discovered: job.completed(discovered)))
        let loop = ScrapeLoop(
            row, client: client, sink: sink, time: time, logger: logger, shared: shared, refusal: { gate.refusal })
        state.found += 1
        state.pools[index].running[key] = Running(
            row: row, loop: Task(executorPreference: client.executor) { await loop.run() }, count: 1,
            number: state.found)
        return key
    }

    private func release(_ key: TargetKey, inPool index: Int, _ state: inout State) {
        guard let running = state.pools[index].running[key] else { return }
        if running.count > 1 {
            state.pools[index].running[key]?.count -= 1
        } else {
            state.pools[index].running[key] = nil
            end(running, &state)
        }
    }

    /// Ends a target's loop, and then its series.
    ///
    /// As in Prometheus (`scrape/scrape.go`, `endOfRunStaleness`): the markers have the time at which the next scrape
    /// was due, and are written an interval later. Where the same series come from another target by then, the markers
    /// are older than its samples and refused.
    private func end(_ running: Running, _ state: inout State) {
        running.loop.cancel()
        let number = running.number
        let target = running.row.status.target
        state.endings[number] = Task { [time] in
            var session = await running.loop.value
            let goneMs = ScrapeGrid(target).next(afterMs: time.nowMs)
            do {
                try await time.sleep(untilMs: goneMs + target.intervalMs + target.intervalMs / 10)
                session.end(atMs: goneMs)
            } catch {
                // The process stops: what it would have said, the next one may.
            }
            self.state.withLock { _ = $0.endings.removeValue(forKey: number) }
        }
    }

    /// Ends all loops, and waits for them; the series go on.
    package func stop() async {
        let (loops, endings) = state.withLock { state in
            state.isStopped = true
            return (state.pools.flatMap { $0.running.values.map(\.loop) }, Array(state.endings.values))
        }
        for loop in loops { loop.cancel() }
        for ending in endings { ending.cancel() }
        for loop in loops { _ = await loop.value }
        for ending in endings { await ending.value }
    }

    // MARK: What is shown

    /// All targets: job by job, in the order in which they were found.
    package var statuses: [TargetStatus] {
        let rows = state.withLock { state in
            state.pools.flatMap { $0.running.values.sorted { $0.number < $1.number }.map(\.row) }
        }
        return rows.map(\.status)
    }

    package var pools: [PoolStatus] {
        state.withLock { state in
            state.pools.map { pool in
                var status = PoolStatus(job: pool.job.name, active: pool.running.count)
                status.targetLimit = pool.job.targetLimit
                status.refusal = pool.gate.refusal
                for group in pool.groups.values {
                    status.dropped += group.droppedCount
                    status.droppedTargets += group.dropped.prefix(
                        max(0, pool.job.keptDroppedTargets - status.droppedTargets.count))
                }
                return status
            }
        }
    }
}
