import Alerting
import Discovery
import Fetch
import Logging
import Scrape
import Series
import ServiceLifecycle
import Synchronization

/// Finds the Alertmanagers of the configuration and tells each of the alerts, apart from all else: one that hangs holds
/// nobody up.
struct AlertmanagerService: Service {
    let config: AlertingConfig
    let watcher: Watcher
    let board: AlertmanagerBoard
    let context: DiscoveryContext
    /// A clock that only its differences matter of.
    let seconds: @Sendable () -> Double

    private static let pollMs: Int64 = 1000
    /// The longest pause after failures.
    private static let maxBackoffMs: Int64 = 60_000

    private var time: any TimeSource { context.time }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            await withTaskGroup(of: Void.self) { group in
                for (entry, alertmanagers) in config.alertmanagers.enumerated() {
                    for (number, discovery) in alertmanagers.discoveries.enumerated() {
                        group.addTask {
                            await discovery.run(context) { [board] groups, isWhole in
                                board.update(entry, discovery: number, groups, isWhole: isWhole)
                            }
                        }
                    }
                }
                group.addTask { await tellAll() }
            }
        }
    }

    /// Keeps a task for each Alertmanager that is there.
    private func tellAll() async {
        var lanes: [AlertmanagerBoard.Key: Task<Void, Never>] = [:]
        while !Task.isCancelled {
            let wanted = board.active
            for key in lanes.keys where !wanted.contains(key) { lanes.removeValue(forKey: key)?.cancel() }
            for key in wanted where lanes[key] == nil { lanes[key] = Task { await tell(key) } }
            try? await time.sleep(untilMs: time.nowMs + AlertmanagerService.pollMs)
        }
        for lane in lanes.values { lane.cancel() }
        for lane in lanes.values { await lane.value }
    }

    private func tell(_ key: AlertmanagerBoard.Key) async {
        let entry = config.alertmanagers[key.entry]
        let alertmanager = Alertmanager(url: key.url, timeoutMs: entry.timeoutMs, client: entry.client)
        let rules = config.relabelRules + entry.alertRelabelRules
        var schedule = AlertSchedule()
        var failures = 0
        while !Task.isCancelled {
            let alerts = await watcher.alerts.compactMap { AlertmanagerService.relabelled($0, rules) }
            let nowMs = time.nowMs
            var due = schedule.due(alerts, atMs: nowMs)[...]
            while !due.isEmpty, !Task.isCancelled {
                let batch = due.prefix(Alertmanager.maxAlerts)
                let start = seconds()
                let outcome = await alertmanager.send(batch, by: context.client)
                guard !Task.isCancelled else { return }
                let problem = board.note(outcome, of: batch.count, seconds: seconds() - start, to: key)
                if let problem {
                    context.logger.warning(
                        "Alertmanager", metadata: ["url": "\(FetchRequest.redacted(key.url))", "error": "\(problem)"])
                }
                if case .failed = outcome {
                    failures += 1
                    break
                }
                // What it can't read, it can't read the next time either: it is due again when all are.
                failures = 0
                schedule.tell(batch, atMs: nowMs)
                due = due.dropFirst(batch.count)
            }
            let backoff = min(AlertmanagerService.maxBackoffMs, AlertmanagerService.pollMs << Int64(min(failures, 6)))
            try? await time.sleep(untilMs: time.nowMs + backoff)
        }
    }

    /// nil where a rule drops the alert.
    private static func relabelled(_ alert: Alert, _ rules: [RelabelRule]) -> Alert? {
        guard !rules.isEmpty else { return alert }
        let labels = Labels(alert.labels)
        guard let kept = RelabelRule.apply(rules, to: labels) else { return nil }
        var alert = alert
        alert.labels = kept.values
        return alert
    }
}

/// The Alertmanagers of a configuration that are known, and what they were told since it came up.
final class AlertmanagerBoard: Sendable {
    /// One of an entry of `alerting.alertmanagers`.
    struct Key: Hashable {
        var entry: Int
        var url: String
    }

    struct Counters {
        /// Alerts that it took.
        var sent = 0
        /// Alerts that it could not read.
        var refused = 0
        /// Requests that failed.
        var failed = 0
        var requests = 0
        var seconds = 0.0
        /// Of the last request; empty where it went well.
        var problem = ""

        static func += (left: inout Counters, right: Counters) {
            left.sent += right.sent
            left.refused += right.refused
            left.failed += right.failed
            left.requests += right.requests
            left.seconds += right.seconds
        }
    }

    private struct GroupKey: Hashable {
        var entry: Int
        /// The entry's static targets have the number -1, the others are counted from 0.
        var discovery: Int
        var source: String
    }

    private struct State {
        var groups: [GroupKey: (active: [String], dropped: [String])] = [:]
        var counters: [Key: Counters] = [:]
    }

    private let entries: [AlertmanagerConfig]
    private let state = Mutex(State())

    /// Begins with the Alertmanagers that the configuration names itself.
    init(_ entries: [AlertmanagerConfig]) {
        self.entries = entries
        for (entry, config) in entries.enumerated() {
            update(entry, discovery: -1, [TargetGroup(source: "", targets: config.staticTargets)], isWhole: true)
        }
    }

    /// Takes what a discovery of an entry found, as `ScrapeManager.update` does.
    func update(_ entry: Int, discovery: Int, _ groups: [TargetGroup], isWhole: Bool) {
        state.withLock { state in
            if isWhole {
                state.groups = state.groups.filter { $0.key.entry != entry || $0.key.discovery != discovery }
            }
            for group in groups {
                let key = GroupKey(entry: entry, discovery: discovery, source: group.source)
                let found = AlertmanagerBoard.addresses(group, entries[entry])
                state.groups[key] = found.active.isEmpty && found.dropped.isEmpty ? nil : found
            }
            // What is gone is counted no more: there is no end to the addresses of pods.
            let known = AlertmanagerBoard.keys(state)
            state.counters = state.counters.filter { known.contains($0.key) }
        }
    }

    private static func addresses(
        _ group: TargetGroup, _ config: AlertmanagerConfig
    ) -> (active: [String], dropped: [String]) {
        var found: (active: [String], dropped: [String]) = ([], [])
        for discovered in group.targets {
            let labels = config.completed(discovered)
            if let url = RelabelRule.apply(config.relabelRules, to: labels).flatMap(AlertmanagerConfig.url) {
                found.active.append(url)
            } else if let url = AlertmanagerConfig.url(of: labels) {
                found.dropped.append(url)
            }
        }
        return found
    }

    private static func keys(_ state: State) -> Set<Key> {
        Set(state.groups.flatMap { key, found in found.active.map { Key(entry: key.entry, url: $0) } })
    }

    /// Those that are to be told, each once.
    var active: Set<Key> { state.withLock { AlertmanagerBoard.keys($0) } }

    /// The addresses of those that relabelling drops.
    var dropped: [String] { state.withLock { $0.groups.values.flatMap(\.dropped).sorted() } }

    /// What each address was told, also where several entries name it, in the order of the addresses.
    var counters: [(url: String, counters: Counters)] {
        state.withLock { state in
            var sums: [String: Counters] = [:]
            for key in AlertmanagerBoard.keys(state) {
                sums[key.url, default: Counters()] += state.counters[key] ?? Counters()
            }
            return sums.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
        }
    }

    /// Notes how a request with so many alerts went.
    ///
    /// - Returns: what is wrong, where that is new.
    func note(_ outcome: DeliveryOutcome, of alerts: Int, seconds: Double, to key: Key) -> String? {
        state.withLock { state in
            var counters = state.counters[key] ?? Counters()
            let before = counters.problem
            counters.requests += 1
            counters.seconds += seconds
            switch outcome {
            case .delivered:
                counters.sent += alerts
                counters.problem = ""
            case .refused(let reason):
                counters.refused += alerts
                counters.problem = reason
            case .failed(let reason):
                counters.failed += 1
                counters.problem = reason
            }
            state.counters[key] = counters
            return counters.problem == before || counters.problem.isEmpty ? nil : counters.problem
        }
    }
}
