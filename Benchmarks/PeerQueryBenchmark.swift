import Exposition
import Fetch
import Foundation
import Recording
import Remote
import Scrape
import Series
import TestSupport

/// Queries over a day of a fleet, beside the Prometheus of the machine, which got the same samples by remote write.
///
/// `benchmarks queries [targets] [hours] [rounds] [directory]`; ends both servers, and removes what they wrote where no
/// directory is named. What a named one holds from an earlier run is not written again.
enum PeerQueryBenchmark {
    private static let stepMs: Int64 = 60_000
    /// The samples of one series that go with a request: half an hour.
    private static let chunk = 30
    private static let startMs: Int64 = 1_795_392_000_000

    private struct Query {
        var name: String
        var path: String
        var parameters: [(String, String)]
    }

    static func run(_ arguments: [String], row: (String, String) -> Void) async throws {
        let targets = arguments.first.flatMap(Int.init) ?? 200
        let hours = arguments.dropFirst().first.flatMap(Int.init) ?? 24
        let rounds = arguments.dropFirst(2).first.flatMap(Int.init) ?? 20
        let temporary = TemporaryDirectory()
        let directory = arguments.count > 3 ? arguments[3] : temporary.path
        let client = HTTPClient()
        let servers = try await PeerServer.startBoth(directory, temporary, client)
        defer {
            for server in servers { server.stop() }
        }
        let series = try kubeletSeries()
        let mark = directory + "/filled"
        if !FileManager.default.fileExists(atPath: mark) {
            try await fill(servers, series, targets: targets, hours: hours, client)
            try "".write(toFile: mark, atomically: true, encoding: .utf8)
        }
        row("series", "\(series.count * targets) of \(targets) targets, \(hours) hours")
        // What is compacted in the background is none of the queries'.
        try await Task.sleep(for: .seconds(60))
        for query in queries(hours: hours, series) {
            try await compare(query, servers, rounds: rounds, client, row)
        }
    }

    // MARK: Series

    /// The series of a recorded kubelet.
    private static func kubeletSeries() throws -> [Labels] {
        let root = FileManager.default.currentDirectoryPath
        var player = try RecordingPlayer(directory: root + "/demo/recording")
        let target = player.manifest.targets.firstIndex { $0.job == "kubelet" && $0.metricsPath == "/metrics" }
        while let (_, event) = player.next() {
            guard case .scrape(let index, 200, let body) = event, index == target else { continue }
            return try body.withUnsafeBufferPointer { bytes in
                let parsed = try ExpositionParser.parse(bytes)
                return try (0..<parsed.count).prefix(900).map { place in
                    try ExpositionParser.labels(
                        of: UnsafeBufferPointer(rebasing: bytes[Int(parsed.starts[place])..<Int(parsed.ends[place])]))
                }
            }
        }
        return []
    }

    /// The value of a series at a minute: counters and buckets that go on, gauges that wander.
    private static func value(_ number: Int, _ minute: Int, isCounter: Bool) -> Double {
        var mixed = UInt64(number &* 1_000_003 &+ minute) &* 0x9e37_79b9_7f4a_7c15
        mixed ^= mixed >> 31
        let noise = Double(mixed % 1000) / 1000
        return isCounter
            ? Double(minute * (number % 7 + 1)) + (noise * 3).rounded(.down) : 1e6 * (1 + noise * 0.1)
    }

    private static func fill(
        _ servers: [PeerServer], _ series: [Labels], targets: Int, hours: Int, _ client: HTTPClient
    ) async throws {
        let isCounter = series.map { labels in
            ScrapeSession.counted.contains { labels.name.hasSuffix($0) }
        }
        for start in stride(from: 0, to: hours * 60, by: chunk) {
            for target in 0..<targets {
                var request = WriteRequest()
                for (number, own) in series.enumerated() {
                    var labels = own
                    labels["job"] = "kubelet"
                    labels["instance"] = "node-\(target):10250"
                    labels["node"] = "node-\(target)"
                    request.series.append(
                        SeriesSamples(
                            labels: labels,
                            timestampsMs: (0..<chunk).map {
                                startMs + Int64(start + $0) * stepMs + Int64(target * 251 % 60_000)
                            },
                            values: (0..<chunk).map {
                                value(target * 1000 + number, start + $0, isCounter: isCounter[number])
                            }))
                }
                let body = Snappy.compress(request.encoded())
                for server in servers { try await server.write(body, client) }
            }
        }
    }

    // MARK: Queries

    private static func queries(hours: Int, _ series: [Labels]) -> [Query] {
        let end = startMs / 1000 + Int64(hours) * 3600 - 60
        func range(_ name: String, _ text: String) -> Query {
            Query(
                name: name, path: "/api/v1/query_range",
                parameters: [
                    ("query", text), ("start", "\(end - Int64(hours) * 3600 + 60)"), ("end", "\(end)"), ("step", "60"),
                ])
        }
        func instant(_ name: String, _ text: String) -> Query {
            Query(name: name, path: "/api/v1/query", parameters: [("query", text), ("time", "\(end)")])
        }
        let rate = "rate(rest_client_request_duration_seconds_bucket[5m])"
        return [
            range("sum by (verb) of rates", "sum by (verb) (\(rate))"),
            range("histogram_quantile of it", "histogram_quantile(0.99, sum by (verb, le) (\(rate)))"),
            range("topk of rates", "topk(5, rate(kubelet_runtime_operations_total[5m]))"),
            range(
                "one series",
                "kubelet_runtime_operations_total{instance=\"node-7:10250\",operation_type=\"list_containers\"}"),
            instant("a name alone, instant", "kubelet_runtime_operations_duration_seconds_bucket"),
            range("a name alone, range", "kubelet_runtime_operations_total"),
            instant("count by (job) of all", "count by (job) ({__name__=~\".+\"})"),
            range("count by (job), range", "count by (job) (rest_client_request_duration_seconds_bucket)"),
        ]
    }

    private static func compare(
        _ query: Query, _ servers: [PeerServer], rounds: Int, _ client: HTTPClient, _ row: (String, String) -> Void
    ) async throws {
        var seconds = [[Double]](repeating: [], count: servers.count)
        var peaks = [Double](repeating: 0, count: servers.count)
        var sizes = [Int](repeating: 0, count: servers.count)
        for round in 0...rounds {
            for (index, server) in servers.enumerated() {
                try "5".write(toFile: "/proc/\(server.program.pid)/clear_refs", atomically: false, encoding: .utf8)
                let before = memory(server, "VmRSS")
                let start = DispatchTime.now().uptimeNanoseconds
                let answer = try await server.ask(query.path, query.parameters, client)
                let elapsed = Double(DispatchTime.now().uptimeNanoseconds - start) / 1e9
                guard answer.status == 200 else {
                    throw ProgramError(
                        description:
                            "\(server.name): \(query.name): \(String(decoding: answer.body.prefix(300), as: UTF8.self))"
                    )
                }
                sizes[index] = answer.body.count
                // The first round warms up.
                guard round > 0 else { continue }
                seconds[index].append(elapsed)
                peaks[index] = max(peaks[index], memory(server, "VmHWM") - before)
            }
        }
        let median = seconds.map { $0.sorted()[$0.count / 2] }
        row(
            query.name,
            String(
                format: "%.2f ms : %.2f ms = %.2f   %.0f MB : %.0f MB   %d : %d kB of JSON", median[0] * 1000,
                median[1] * 1000, median[0] / median[1], peaks[0], peaks[1], sizes[0] / 1000, sizes[1] / 1000))
    }

    /// Megabytes that the kernel counts for a server's process.
    private static func memory(_ server: PeerServer, _ field: String) -> Double {
        let text = (try? String(contentsOfFile: "/proc/\(server.program.pid)/status", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix(field + ":") } ?? ""
        return (line.split(separator: " ").dropFirst().first.flatMap { Double($0) } ?? 0) / 1024
    }
}
