import Dispatch
import PromQL
import Series
import Synchronization

/// Runs queries beside the server's own threads: so many at a time, each no longer than it may.
package final class QueryRunner: Sendable {
    /// The limits, named as Prometheus' flags `--query.*`.
    package struct Limits: Sendable {
        package var timeoutMs: Int64 = 120_000
        package var maxConcurrency = 20
        package var maxSamples = 50_000_000
        package var lookbackMs: Int64 = 300_000

        package init() {}
    }

    /// The most queries that wait for others to end.
    private static let maxWaiting = 1000

    private enum Ticket { case granted, expired }

    private struct State {
        var running = 0
        /// When the time of each query that runs is over.
        var deadlines: [ObjectIdentifier: (atMs: Int64, control: QueryControl)] = [:]
        /// Those that wait for their turn, and when their time is over.
        var waiting: [(untilMs: Int64, continuation: CheckedContinuation<Ticket, Never>)] = []
        /// Who looks next at whose time is over, and when; nil: nobody.
        var looking: (atMs: Int64, task: Task<Void, any Error>)?
        var refused = 0
    }

    package let limits: Limits
    private let time: any TimeSource
    private let budget: QueryBudget
    private let state = Mutex(State())

    package init(limits: Limits = Limits(), time: any TimeSource) {
        self.limits = limits
        self.time = time
        // Two queries as large as any may be: all others must be smaller meanwhile.
        budget = QueryBudget(samples: limits.maxSamples.multipliedReportingOverflow(by: 2).partialValue)
    }

    /// How many queries run, wait, and were refused because too many waited.
    package var counts: (running: Int, waiting: Int, refused: Int) {
        state.withLock { ($0.running, $0.waiting.count, $0.refused) }
    }

    /// Runs one query on a thread of its own.
    ///
    /// - Parameter timeoutMs: of waiting and running together.
    /// - Throws: ``PromQLError`` for a query whose time is over or that too many wait before; what `body` throws.
    package func run<Result: Sendable>(
        timeoutMs: Int64, _ body: @escaping @Sendable (QueryControl) throws -> Result
    ) async throws -> Result {
        let control = QueryControl(budget: budget)
        let deadlineMs = time.nowMs + timeoutMs
        guard try await enter(deadlineMs: deadlineMs) == .granted else {
            throw PromQLError(.timeout, "query timed out in query queue")
        }
        defer { leave() }
        expire(control, atMs: deadlineMs)
        defer { state.withLock { _ = $0.deadlines.removeValue(forKey: ObjectIdentifier(control)) } }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                Concurrent.queue.async { continuation.resume(with: Swift.Result { try body(control) }) }
            }
        } onCancel: {
            control.cancel()
        }
    }

    /// Ends a query at a time, where it still runs.
    ///
    /// One task waits for all: most queries are over in less time than a task of their own takes to begin.
    private func expire(_ control: QueryControl, atMs: Int64) {
        state.withLock { state in
            state.deadlines[ObjectIdentifier(control)] = (atMs, control)
            look(atMs, &state)
        }
    }

    /// Sees to it that somebody looks at a time, or before.
    private func look(_ atMs: Int64, _ state: inout State) {
        if let looking = state.looking, looking.atMs <= atMs { return }
        state.looking?.task.cancel()
        let task = Task { [time] in
            try await time.sleep(untilMs: atMs)
            let expired = self.state.withLock { state in
                // Where a shorter time was asked for meanwhile, another task looks.
                guard state.looking?.atMs == atMs else { return [CheckedContinuation<Ticket, Never>]() }
                for (key, query) in state.deadlines where query.atMs <= atMs {
                    query.control.expire()
                    state.deadlines[key] = nil
                }
                let expired = state.waiting.filter { $0.untilMs <= atMs }.map(\.continuation)
                state.waiting.removeAll { $0.untilMs <= atMs }
                state.looking = nil
                let next = (state.deadlines.values.map(\.atMs) + state.waiting.map(\.untilMs)).min()
                if let next { self.look(next, &state) }
                return expired
            }
            for continuation in expired { continuation.resume(returning: .expired) }
        }
        state.looking = (atMs, task)
    }

    private func enter(deadlineMs: Int64) async throws -> Ticket {
        let isFree = try state.withLock { state in
            if state.running < limits.maxConcurrency {
                state.running += 1
                return true
            }
            guard state.waiting.count < QueryRunner.maxWaiting else {
                state.refused += 1
                throw PromQLError(.timeout, "too many queries wait for their turn")
            }
            return false
        }
        guard !isFree else { return .granted }
        return await withCheckedContinuation { continuation in
            let isFree = state.withLock { state in
                if state.running < limits.maxConcurrency {
                    state.running += 1
                    return true
                }
                state.waiting.append((deadlineMs, continuation))
                look(deadlineMs, &state)
                return false
            }
            if isFree { continuation.resume(returning: .granted) }
        }
    }

    private func leave() {
        state.withLock { state -> CheckedContinuation<Ticket, Never>? in
            guard !state.waiting.isEmpty else {
                state.running -= 1
                return nil
            }
            return state.waiting.removeFirst().continuation
        }?.resume(returning: .granted)
    }
}
