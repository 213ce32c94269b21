import Cluster
import Fetch
import Foundation
import Logging
import Series
import Synchronization
import TestSupport

/// Lists and watches the objects of a large cluster from a server on loopback: memory, time, and how far the watch
/// lags behind a thousand changes a second.
enum ClusterBenchmark {
    static let pods = 100_000
    static let nodes = 10_000
    static let changesPerSecond = 1000
    static let seconds = 10

    static func run(row: (String, String) -> Void) async throws {
        let written = Written()
        let server = RawServer { head, connection in serve(head, connection, written) }
        let before = ProcessMemory.residentBytes
        let seen = Seen()
        let client = HTTPClient()
        let api = KubernetesAPI(
            endpoint: KubernetesEndpoint(server: server.url), client: client, time: UptimeClock())
        var quiet = Logger(label: "benchmark")
        quiet.logLevel = .critical
        let start = now()
        for kind in [WatchedKind.nodes, .pods] {
            let task = Task { [quiet] in
                await ObjectObservation.watch(
                    kind, api: api, time: UptimeClock(), logger: quiet, observe: { await seen.take($0) })
            }
            await seen.listed(kind.name)
            if kind == .nodes { task.cancel() }
            if kind == .nodes { continue }
            let seconds = now() - start
            let listed = ProcessMemory.residentBytes - before
            row(
                "list of \(pods) pods",
                String(
                    format: "%.1f s with %d nodes, %.0f MB resident, %.0f bytes a pod", seconds, nodes,
                    Double(listed) / 1e6, Double(listed) / Double(pods)))
            await seen.changes(changesPerSecond * ClusterBenchmark.seconds)
            let lags = await seen.lags(written).sorted()
            row(
                "watch, \(changesPerSecond) changes/s",
                String(
                    format: "lag %.0f ms at the median, %.0f ms at most; %.0f MB resident, %d rows",
                    (lags.isEmpty ? 0 : lags[lags.count / 2]) * 1000, (lags.last ?? 0) * 1000,
                    Double(ProcessMemory.residentBytes - before) / 1e6, await seen.rows))
            task.cancel()
        }
    }

    private final class Written: Sendable {
        private let times = Mutex<[Double]>([])
        func note(_ at: Double) { times.withLock { $0.append(at) } }
        var all: [Double] { times.withLock { $0 } }
    }

    private actor Seen {
        private var observer = ClusterObserver(startMs: 0)
        private var times: [Double] = []
        private var lists: Set<String> = []
        private var waiters: [CheckedContinuation<Void, Never>] = []
        private(set) var rows = 0

        func take(_ observation: ObjectObservation) {
            let atMs = Int64(now() * 1000)
            observer.observe(observation, atMs: atMs)
            if case .listed(let kind, _, _) = observation { lists.insert(kind) }
            if case .pods(let pods, _) = observation, pods.count == 1 {
                times.append(now())
                if times.count % 1000 == 0 { rows += observer.takeEntries(atMs: atMs).new.count }
            }
            for waiter in waiters { waiter.resume() }
            waiters = []
        }

        func listed(_ kind: String) async { while !lists.contains(kind) { await next() } }
        func changes(_ count: Int) async { while times.count < count { await next() } }
        private func next() async { await withCheckedContinuation { waiters.append($0) } }
        func lags(_ written: Written) -> [Double] { zip(times, written.all).map { $0 - $1 } }
    }

    private struct UptimeClock: TimeSource {
        var nowMs: Int64 { Int64(now() * 1000) }
        func sleep(untilMs: Int64) async throws { try await Task.sleep(for: .milliseconds(max(0, untilMs - nowMs))) }
    }

    private static func now() -> Double { Double(DispatchTime.now().uptimeNanoseconds) / 1e9 }

    // MARK: The server

    private static func serve(_ head: String, _ connection: RawServer.Connection, _ written: Written) {
        let path = head.split(separator: " ").dropFirst().first.map(String.init) ?? ""
        if path.contains("watch=1") {
            connection.write(
                Array("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".utf8))
            guard path.hasPrefix("/api/v1/pods") else {
                while connection.write(Array("1\r\n\n\r\n".utf8)) { Thread.sleep(forTimeInterval: 0.1) }
                return
            }
            let start = now()
            for change in 0..<changesPerSecond * seconds {
                let due = start + Double(change) / Double(changesPerSecond)
                if due > now() { Thread.sleep(forTimeInterval: due - now()) }
                let object = pod(change * 7 % pods, version: 1_000_000 + change, ended: "container-\(change)")
                let line = #"{"type":"MODIFIED","object":"# + object + "}\n"
                written.note(now())
                connection.write(Array((String(line.utf8.count, radix: 16) + "\r\n" + line + "\r\n").utf8))
            }
            while connection.write(Array("1\r\n\n\r\n".utf8)) { Thread.sleep(forTimeInterval: 0.1) }
            return
        }
        let from = path.range(of: "continue=").flatMap { Int(path[$0.upperBound...]) } ?? 0
        let isPods = path.hasPrefix("/api/v1/pods")
        let total = isPods ? pods : nodes
        let to = min(from + 500, total)
        let items = (from..<to).map { isPods ? pod($0, version: $0 + 1, ended: nil) : node($0) }
        let next = to < total ? String(to) : ""
        connection.answer(
            #"{"metadata":{"resourceVersion":"500000","continue":"\#(next)"},"items":[\#(items.joined(separator: ","))]}"#
        )
    }

    /// A pod of the size that pods have: most of it is managed fields and specification.
    private static func pod(_ number: Int, version: Int, ended: String?) -> String {
        let last = ended.map {
            #","lastState":{"terminated":{"exitCode":1,"reason":"Error","finishedAt":"2026-11-23T16:20:00Z","containerID":"containerd://\#($0)"}}"#
        }
        return
            #"{"metadata":{"name":"workload-\#(number / 20)-647d7d7d54-x\#(number)","namespace":"namespace-\#(number / 500)","uid":"dc38e27a-90d6-4b93-9d5b-\#(100_000_000_000 + number)","resourceVersion":"\#(version)","labels":{"app":"workload","pod-template-hash":"647d7d7d54"},"ownerReferences":[{"kind":"ReplicaSet","name":"workload-\#(number / 20)-647d7d7d54","controller":true}],"managedFields":\#(managed)},"spec":{"nodeName":"node-\#(number / 10)","restartPolicy":"Always","containers":[{"name":"app","image":"registry/app:v1"}]},"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}],"containerStatuses":[{"name":"app","restartCount":\#(ended == nil ? 0 : 1),"state":{"running":{}}\#(last ?? "")}]}}"#
    }

    private static let managed: String = {
        let field =
            #"{"manager":"kubelet","operation":"Update","fieldsV1":{"f:status":{"f:conditions":{".":{}},"f:phase":{},"f:podIP":{},"f:startTime":{}}}}"#
        return "[" + Array(repeating: field, count: 24).joined(separator: ",") + "]"
    }()

    private static func node(_ number: Int) -> String {
        #"{"metadata":{"name":"node-\#(number)","uid":"n\#(number)","resourceVersion":"1","managedFields":\#(managed)},"spec":{},"status":{"nodeInfo":{"kubeletVersion":"v1.31.0","bootID":"b","containerRuntimeVersion":"containerd://1.7"},"conditions":[{"type":"Ready","status":"True"}]}}"#
    }
}
