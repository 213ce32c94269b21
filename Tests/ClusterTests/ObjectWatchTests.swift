import Cluster
import Fetch
import Foundation
import Logging
import Series
import Synchronization
import TestSupport
import Testing

/// A time that goes on when somebody sleeps: tests never wait.
private final class LeapingClock: TimeSource {
    private let state = Mutex((nowMs: Int64(1_000_000), slept: [Int64]()))

    var nowMs: Int64 { state.withLock { $0.nowMs } }
    var slept: [Int64] { state.withLock { $0.slept } }

    func sleep(untilMs: Int64) async throws {
        try Task.checkCancellation()
        state.withLock { state in
            state.slept.append(untilMs - state.nowMs)
            state.nowMs = max(state.nowMs, untilMs)
        }
        await Task.yield()
    }
}

/// What a watch has told so far; a test waits on it for a state.
private actor Notes {
    private(set) var observer = ClusterObserver(startMs: 0)
    private(set) var failures: [String] = []
    private var waiters: [(done: @Sendable ([LedgerEntry]) -> Bool, continuation: CheckedContinuation<Void, Never>)] =
        []
    private var rows: [String: LedgerEntry] = [:]
    private var atMs: Int64 = 1_000_000

    func take(_ observation: ObjectObservation) {
        // Events come close together; between lists there is time.
        if case .listed = observation { atMs += 20_000 } else { atMs += 100 }
        if case .failed(let words) = observation { failures.append(words) }
        observer.observe(observation, atMs: atMs)
        let given = observer.takeEntries(atMs: atMs)
        for row in given.new {
            #expect(rows[row.id] == nil, "\(row.id) was given twice")
            rows[row.id] = row
        }
        for row in given.changed { rows[row.id] = row }
        let all = Array(rows.values)
        for waiter in waiters where waiter.done(all) { waiter.continuation.resume() }
        waiters.removeAll { $0.done(all) }
    }

    func wait(until done: @escaping @Sendable ([LedgerEntry]) -> Bool) async {
        if done(Array(rows.values)) { return }
        await withCheckedContinuation { waiters.append((done, $0)) }
    }

    var removals: [String] { rows.values.filter { $0.kind != .exit }.map(\.id) }
    var exits: [String] { rows.values.filter { $0.kind == .exit }.map(\.id).sorted() }
}

/// Answers of a server, one connection after another.
private final class Script: Sendable {
    typealias Answer = @Sendable (String, RawServer.Connection) -> Void
    private let answers: Mutex<[Answer]>
    private let last: Answer

    /// - Parameter last: what answers when the script is at its end.
    init(_ answers: [Answer], last: @escaping Answer) {
        self.answers = Mutex(answers)
        self.last = last
    }

    func answer(_ head: String, _ connection: RawServer.Connection) {
        let next = answers.withLock { $0.isEmpty ? nil : $0.removeFirst() }
        (next ?? last)(head, connection)
    }
}

private func pod(_ version: Int, restarts: Int, ended: String?, name: String = "web-0", extra: String = "") -> String {
    let last = ended.map {
        #","lastState":{"terminated":{"exitCode":1,"reason":"Error","finishedAt":"1970-01-01T00:20:00Z","containerID":"containerd://\#($0)"}}"#
    }
    return
        #"{"metadata":{"name":"\#(name)","namespace":"default","uid":"uid-\#(name)","resourceVersion":"\#(version)"\#(extra)},"spec":{"nodeName":"n1"},"status":{"containerStatuses":[{"name":"app","restartCount":\#(restarts),"state":{}\#(last ?? "")}]}}"#
}

private func event(_ type: String, _ object: String) -> String { #"{"type":"\#(type)","object":\#(object)}"# + "\n" }

private func list(_ version: Int, _ items: [String], next: String = "") -> String {
    #"{"kind":"PodList","metadata":{"resourceVersion":"\#(version)","continue":"\#(next)"},"items":[\#(items.joined(separator: ","))]}"#
}

/// Writes a watch's head, and chunks as they come.
private func stream(_ connection: RawServer.Connection, _ parts: [String]) {
    connection.write(
        Array("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".utf8))
    for part in parts where !part.isEmpty {
        connection.write(Array((String(part.utf8.count, radix: 16) + "\r\n" + part + "\r\n").utf8))
    }
}

private func endStream(_ connection: RawServer.Connection) { connection.write(Array("0\r\n\r\n".utf8)) }

@Suite struct ObjectWatchTests {
    /// Runs a watch of pods against a script until the rows are those wanted.
    private func run(
        _ script: Script, until done: @escaping @Sendable ([LedgerEntry]) -> Bool
    ) async -> (notes: Notes, clock: LeapingClock, heads: [String], counters: WatchCounters) {
        let server = RawServer { script.answer($0, $1) }
        let clock = LeapingClock()
        let notes = Notes()
        let counted = Counted()
        let api = KubernetesAPI(endpoint: KubernetesEndpoint(server: server.url), client: HTTPClient(), time: clock)
        var quiet = Logger(label: "test")
        quiet.logLevel = .critical
        let task = Task { [quiet] in
            await ObjectObservation.watch(
                .pods, api: api, time: clock, logger: quiet, count: { counted.set($0) },
                observe: { await notes.take($0) })
        }
        await notes.wait(until: done)
        task.cancel()
        await task.value
        return (notes, clock, server.heads, counted.value)
    }

    private final class Counted: Sendable {
        private let state = Mutex(WatchCounters())
        func set(_ value: WatchCounters) { state.withLock { $0 = value } }
        var value: WatchCounters { state.withLock { $0 } }
    }

    private func isDone(_ ids: String...) -> @Sendable ([LedgerEntry]) -> Bool {
        { @Sendable rows in Set(rows.filter { $0.kind == .exit }.map(\.id)).isSuperset(of: ids) }
    }

    private let hold: Script.Answer = { _, connection in
        stream(connection, [event("BOOKMARK", #"{"metadata":{"resourceVersion":"9999"}}"#)])
        // The other side ends the connection.
        _ = (0..<200).first { _ in
            Thread.sleep(forTimeInterval: 0.01)
            return !connection.write(Array("1\r\n\n\r\n".utf8))
        }
    }

    @Test func pages_areReadToTheEnd_andTheWatchGoesOnFromThem() async throws {
        let script = Script(
            [
                { _, connection in connection.answer(list(5, [pod(1, restarts: 0, ended: nil)], next: "abc+/=")) },
                { _, connection in
                    connection.answer(list(5, [pod(2, restarts: 1, ended: "b1", name: "web-1")]))
                },
                { _, connection in
                    stream(connection, [event("MODIFIED", pod(6, restarts: 1, ended: "c1"))])
                    endStream(connection)
                },
            ], last: hold)
        let (notes, _, heads, counters) = await run(script, until: isDone("b1", "c1"))
        #expect(await notes.exits == ["b1", "c1"])
        #expect(heads[0].hasPrefix("GET /api/v1/pods?limit=500 "))
        #expect(heads[1].hasPrefix("GET /api/v1/pods?limit=500&continue=abc%2B/%3D "))
        #expect(heads[2].contains("watch=1&allowWatchBookmarks=true&resourceVersion=5&timeoutSeconds=300"))
        #expect(counters.lists == 1 && counters.errors == 0)
    }

    @Test func brokenConnections_loseAndDoubleNothing() async throws {
        let half = event("MODIFIED", pod(7, restarts: 2, ended: "c2"))
        let script = Script(
            [
                { _, connection in connection.answer(list(5, [pod(1, restarts: 0, ended: nil)])) },
                // Ends in the middle of an object.
                { _, connection in
                    stream(connection, [event("MODIFIED", pod(6, restarts: 1, ended: "c1")), String(half.prefix(90))])
                },
                // Closes without a word.
                { _, _ in },
                // Tells again what it told already, and then the rest.
                { _, connection in
                    stream(connection, [event("MODIFIED", pod(6, restarts: 1, ended: "c1")), half])
                    endStream(connection)
                },
            ], last: hold)
        let (notes, _, heads, counters) = await run(script, until: isDone("c1", "c2"))
        #expect(await notes.exits == ["c1", "c2"])
        #expect(heads[3].contains("resourceVersion=6&"))
        #expect(counters.lists == 1 && counters.errors == 2)
    }

    @Test func gone_isANewList_whichTellsOfWhatWasMissed() async throws {
        let script = Script(
            [
                { _, connection in connection.answer(list(5, [pod(1, restarts: 0, ended: nil)])) },
                { _, connection in
                    stream(
                        connection,
                        [event("ERROR", #"{"kind":"Status","code":410,"reason":"Expired","message":"too old"}"#)])
                },
                // Twice restarted in the meantime: one end is not seen by any status.
                { _, connection in connection.answer(list(50, [pod(40, restarts: 2, ended: "c2")])) },
                { _, connection in
                    connection.answer(
                        #"{"kind":"Status","code":410,"message":"too old"}"#, status: "410 Gone")
                },
                { _, connection in
                    connection.answer(
                        list(
                            60,
                            [pod(40, restarts: 2, ended: "c2"), pod(55, restarts: 1, ended: "d1", name: "web-1")]))
                },
            ], last: hold)
        let (notes, _, _, counters) = await run(script, until: isDone("c2", "uid-web-0/app/0", "d1"))
        #expect(await notes.exits == ["c2", "d1", "uid-web-0/app/0"])
        #expect(counters.lists >= 2 && counters.errors == 1)
    }

    @Test func overloadedServer_isLeftInPeaceAsLongAsItAsks() async throws {
        let script = Script(
            [
                { _, connection in
                    connection.answer("{}", status: "429 Too Many Requests", headers: "Retry-After: 17\r\n")
                },
                { _, connection in connection.answer("oops", status: "500 Internal Server Error") },
                { _, connection in connection.answer("<html>") },
                { _, connection in connection.answer(list(5, [pod(1, restarts: 1, ended: "c1")])) },
            ], last: hold)
        let (notes, clock, _, counters) = await run(script, until: isDone("c1"))
        #expect(Array(clock.slept.prefix(3)) == [17_000, 1000, 2000])
        #expect(counters.errors == 3)
        let failures = await notes.failures
        #expect(failures.count == 3)
        #expect(failures[1] == "/api/v1/pods: status 500: oops")
    }

    @Test func oddObjects_areReadOrPassedOver() async throws {
        let large = pod(
            6, restarts: 1, ended: "c1", extra: #","annotations":{"big":"\#(String(repeating: "x", count: 5 << 20))"}"#)
        let script = Script(
            [
                { _, connection in
                    connection.answer(
                        list(5, [pod(1, restarts: 0, ended: nil), #"{"metadata":7}"#, #"{"new":{"field":[1]}}"#]))
                },
                { _, connection in
                    stream(
                        connection,
                        [
                            event("MODIFIED", large),
                            event("MODIFIED", pod(7, restarts: 2, ended: "c2", extra: #","unheard":{"of":[{}]}"#)),
                            #"{"type":"MODIFIED","object":{"metadata":{"na"# + "\n",
                        ])
                },
                { _, connection in connection.answer(list(9, [pod(8, restarts: 3, ended: "c3")])) },
            ], last: hold)
        let (notes, _, _, counters) = await run(script, until: isDone("c1", "c2", "c3"))
        #expect(await notes.exits == ["c1", "c2", "c3"])
        #expect(counters.unreadable == 3)
        #expect(counters.lists == 2)
    }

    @Test func podThatCannotBeRead_isNotGone() async throws {
        let script = Script(
            [
                { _, connection in
                    connection.answer(
                        list(5, [pod(1, restarts: 0, ended: nil), pod(2, restarts: 0, ended: nil, name: "web-1")]))
                },
                { _, connection in
                    stream(connection, [event("ERROR", #"{"code":410}"#)])
                },
                { _, connection in
                    let broken = pod(2, restarts: 0, ended: nil, name: "web-1")
                        .replacing(#""restartCount":0"#, with: #""restartCount":null"#)
                    connection.answer(list(9, [pod(8, restarts: 1, ended: "c1"), broken]))
                },
            ], last: hold)
        let (notes, _, _, counters) = await run(script, until: isDone("c1"))
        #expect(await notes.removals.isEmpty)
        #expect(counters.unreadable == 1)
    }

    @Test func listsAfterLists_comeWithGrowingPauses() async throws {
        let gone: Script.Answer = { _, connection in stream(connection, [event("ERROR", #"{"code":410}"#)]) }
        var answers: [Script.Answer] = []
        for number in 0..<4 {
            answers.append { _, connection in
                connection.answer(list(5 + number, [pod(1, restarts: 0, ended: nil)]))
            }
            answers.append(gone)
        }
        answers.append { _, connection in connection.answer(list(50, [pod(40, restarts: 1, ended: "c1")])) }
        let (_, clock, _, _) = await run(Script(answers, last: hold), until: isDone("c1"))
        #expect(Array(clock.slept.prefix(4)) == [500, 1000, 2000, 4000])
    }

    @Test func eventsOutOfOrder_loseAndDoubleNothing() async throws {
        let script = Script(
            [
                { _, connection in connection.answer(list(5, [pod(1, restarts: 0, ended: nil)])) },
                { _, connection in
                    stream(
                        connection,
                        [
                            event("MODIFIED", pod(8, restarts: 3, ended: "c3")),
                            event("MODIFIED", pod(6, restarts: 1, ended: "c1")),
                            event("MODIFIED", pod(7, restarts: 2, ended: "c2")),
                            event("DELETED", pod(9, restarts: 3, ended: "c3")),
                            event("MODIFIED", pod(8, restarts: 3, ended: "c3")),
                            event("MODIFIED", pod(10, restarts: 1, ended: "d1", name: "web-1")),
                        ])
                    endStream(connection)
                },
            ], last: hold)
        let (notes, _, _, _) = await run(script, until: isDone("c1", "c2", "c3", "d1"))
        #expect(await notes.exits == ["c1", "c2", "c3", "d1"])
    }
}
