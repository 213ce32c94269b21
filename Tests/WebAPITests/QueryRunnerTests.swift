import PromQL
import Series
import Synchronization
import Testing
import WebAPI

/// A clock that a test moves on.
private final class MovedClock: TimeSource {
    private struct State {
        var nowMs: Int64 = 0
        var sleepers: [(untilMs: Int64, continuation: AsyncStream<Never>.Continuation)] = []
    }

    private let state = Mutex(State())

    var nowMs: Int64 { state.withLock { $0.nowMs } }

    func sleep(untilMs: Int64) async throws {
        let (stream, continuation) = AsyncStream<Never>.makeStream()
        let isOver = state.withLock { state in
            if untilMs > state.nowMs { state.sleepers.append((untilMs, continuation)) }
            return untilMs <= state.nowMs
        }
        if !isOver { for await _ in stream {} }
        try Task.checkCancellation()
    }

    func move(toMs: Int64) {
        let awake = state.withLock { state in
            state.nowMs = toMs
            let awake = state.sleepers.filter { $0.untilMs <= toMs }
            state.sleepers.removeAll { $0.untilMs <= toMs }
            return awake
        }
        for sleeper in awake { sleeper.continuation.finish() }
    }
}

@Suite struct QueryRunnerTests {
    /// A query that goes on until it is stopped: how it ended.
    private static func endless(_ runner: QueryRunner, timeoutMs: Int64) async -> PromQLError? {
        do {
            return try await runner.run(timeoutMs: timeoutMs) { control in
                while true { _ = try QueryEngine().instant("1", atMs: 0, source: MemorySeries(), control: control) }
            }
        } catch { return error as? PromQLError }
    }

    @Test func queries_endWhenTheirTimeIsOver_theShorterOneFirst() async throws {
        let clock = MovedClock()
        let runner = QueryRunner(time: clock)
        async let long = Self.endless(runner, timeoutMs: 2000)
        while runner.counts.running < 1 { await Task.yield() }
        async let short = Self.endless(runner, timeoutMs: 1000)
        while runner.counts.running < 2 { await Task.yield() }
        clock.move(toMs: 1000)
        #expect(await short?.description == "query timed out in expression evaluation")
        #expect(runner.counts.running == 1)
        clock.move(toMs: 2000)
        #expect(await long?.kind == .timeout)
        #expect(runner.counts.running == 0)
    }

    @Test func queriesThatWait_endWhenTheirTimeIsOver_andTheOthersGetTheirTurn() async throws {
        let clock = MovedClock()
        var limits = QueryRunner.Limits()
        limits.maxConcurrency = 1
        let runner = QueryRunner(limits: limits, time: clock)
        async let running = Self.endless(runner, timeoutMs: 2000)
        while runner.counts.running < 1 { await Task.yield() }
        async let patient = Self.endless(runner, timeoutMs: 3000)
        async let hasty = Self.endless(runner, timeoutMs: 1000)
        while runner.counts.waiting < 2 { await Task.yield() }
        clock.move(toMs: 1000)
        #expect(await hasty?.description == "query timed out in query queue")
        #expect(runner.counts == (1, 1, 0))
        clock.move(toMs: 2000)
        #expect(await running?.kind == .timeout)
        while runner.counts.waiting > 0 { await Task.yield() }
        clock.move(toMs: 3000)
        #expect(await patient?.description == "query timed out in expression evaluation")
        #expect(runner.counts == (0, 0, 0))
    }

    /// What came before leaves nobody who would not look any more.
    @Test func queriesAfterOthers_endAsWell() async throws {
        let clock = MovedClock()
        let runner = QueryRunner(time: clock)
        for round in 1...3 {
            #expect(try await runner.run(timeoutMs: 5000) { _ in round } == round)
            async let next = Self.endless(runner, timeoutMs: 1000)
            while runner.counts.running < 1 { await Task.yield() }
            clock.move(toMs: Int64(round) * 1000)
            #expect(await next?.kind == .timeout)
        }
    }

    @Test func callerWhoGoes_endsTheQuery() async throws {
        let runner = QueryRunner(time: MovedClock())
        let query = Task { await Self.endless(runner, timeoutMs: 1000) }
        while runner.counts.running < 1 { await Task.yield() }
        query.cancel()
        #expect(await query.value?.kind == .canceled)
    }
}
