import Exposition
import Fetch
import Foundation
import Recording
import Remote
import Series
import TestSupport

/// Whether generated queries over the recorded series give what the Prometheus of the machine gives, which got the same
/// samples by remote write.
///
/// `benchmarks agreement [queries] [seed]` prints each query whose answers differ, and how many agree.
enum PeerAgreement {
    private struct Generator {
        var random: SeededRandom
        let counters: [String]
        let gauges: [String]

        mutating func pick(_ list: [String]) -> String { list[Int.random(in: 0..<list.count, using: &random)] }

        mutating func counter() -> String {
            pick(counters) + pick(["", "", "{job=\"kubelet\"}", "{instance!~\"master.*\"}"])
        }
        mutating func gauge() -> String { pick(gauges) + pick(["", "", "{job!=\"etcd\"}", "{instance=~\".+\"}"]) }

        mutating func range() -> String { pick(["90s", "2m", "5m", "7m"]) }

        /// A vector of some depth.
        mutating func vector(_ depth: Int) -> String {
            guard depth > 0 else {
                return switch Int.random(in: 0..<4, using: &random) {
                case 0: "rate(\(counter())[\(range())])"
                case 1: counter()
                default: gauge()
                }
            }
            switch Int.random(in: 0..<9, using: &random) {
            case 0:
                let op = pick(["sum", "avg", "count", "min", "max", "stddev", "stdvar", "group"])
                let by = pick(["", " by (job)", " by (instance)", " without (instance, node)", " by (job, instance)"])
                return "\(op)\(by) (\(vector(depth - 1)))"
            case 1:
                let op = pick([
                    "abs", "ceil", "floor", "exp", "ln", "log2", "log10", "sqrt", "sgn", "sin", "cos", "tan", "asin",
                    "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "deg", "rad", "minute", "hour",
                    "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year", "timestamp",
                    "-", "+",
                ])
                return "\(op)(\(vector(depth - 1)))"
            case 2:
                let function = pick([
                    "rate", "increase", "delta", "irate", "idelta", "deriv", "changes", "resets", "avg_over_time",
                    "sum_over_time", "min_over_time", "max_over_time", "count_over_time", "last_over_time",
                    "present_over_time", "stddev_over_time", "stdvar_over_time",
                ])
                return "\(function)(\(counter())[\(range())])"
            case 3:
                let op = pick([
                    "+", "-", "*", "/", "%", "^", "==", "!=", ">", "<", ">=", "<=", "> bool", "== bool", "atan2",
                ])
                return "(\(vector(depth - 1)) \(op) \(pick(["2", "0.5", "100", "-1", "1e3"])))"
            case 4:
                let (left, right) = (vector(depth - 1), vector(depth - 1))
                let op = pick(["+", "-", "*", "/", ">", "<=", "and", "or", "unless"])
                return "(sum by (job, instance) (\(left)) \(op) on (job, instance) sum by (job, instance) (\(right)))"
            case 5:
                let many = gauge()
                let group = pick(["* on (job, instance) group_left", "/ on (instance, job) group_left ()"])
                return "\(many) \(group) sum by (job, instance) (\(vector(depth - 1)))"
            case 6:
                return pick([
                    "quantile by (job) (0.9, \(vector(depth - 1)))",
                    "count_values by (job) (\"v\", round(\(gauge()), 10))",
                    "clamp(\(vector(depth - 1)), 1, 100)", "clamp_min(\(vector(depth - 1)), 2)",
                    "clamp_max(\(vector(depth - 1)), 2)", "round(\(vector(depth - 1)), 0.25)",
                    "label_replace(\(gauge()), \"to\", \"$1-x\", \"instance\", \"(.*):.*\")",
                    "label_join(\(gauge()), \"to\", \"/\", \"job\", \"instance\")", "absent(\(gauge()))",
                    "absent(none{job=\"x\"})", "absent_over_time(none[5m])", "vector(\(pick(["1", "time()", "pi()"])))",
                    "scalar(sum(\(vector(depth - 1)))) + \(gauge())",
                ])
            case 7:
                return pick([
                    "quantile_over_time(0.3, \(gauge())[\(range())])", "predict_linear(\(gauge())[\(range())], 600)",
                    "max_over_time(rate(\(counter())[2m])[5m:1m])", "avg_over_time((\(gauge()))[4m:30s])",
                    "\(gauge()) offset 3m", "\(gauge()) @ end()", "rate(\(counter())[\(range())] offset 2m)",
                    "sum_over_time(\(gauge())[\(range())] @ start())", "last_over_time(\(gauge())[\(range())])",
                ])
            default:
                return pick([
                    "histogram_quantile(0.9, sum by (job, le) (rate(apiserver_request_duration_seconds_bucket[\(range())])))",
                    "histogram_quantile(0.5, rate(etcd_disk_wal_fsync_duration_seconds_bucket[\(range())]))",
                    "histogram_quantile(0.99, sum by (instance, le) (rest_client_request_duration_seconds_bucket))",
                    "topk by (job) (3, \(vector(depth - 1)))", "bottomk(2, \(vector(depth - 1)))",
                    "sort(\(vector(depth - 1)))", "sort_desc(\(vector(depth - 1)))",
                ])
            }
        }
    }

    static func run(_ arguments: [String], row: (String, String) -> Void) async throws {
        let count = arguments.first.flatMap(Int.init) ?? 300
        let seed = arguments.dropFirst().first.flatMap(UInt64.init) ?? 1
        let temporary = TemporaryDirectory()
        let client = HTTPClient()
        let servers = try await PeerServer.startBoth(temporary.path, temporary, client)
        defer { for server in servers { server.stop() } }
        let (counters, gauges, span) = try await fill(servers, client)
        row("series names", "\(counters.count) of counters, \(gauges.count) of gauges; seed \(seed)")
        var generator = Generator(random: SeededRandom(seed: seed), counters: counters, gauges: gauges)
        var agreed = 0
        var both = 0
        for number in 0..<count {
            let text = generator.vector(number % 4)
            // Between scrapes: which of two samples at the very edge counts is another question in version 2.
            let end = span.upperBound / 1000 - Int64.random(in: 60...300, using: &generator.random)
            let parameters: [(String, String)] =
                number % 2 == 0
                ? [("query", text), ("time", "\(end)")]
                : [("query", text), ("start", "\(end - 420)"), ("end", "\(end)"), ("step", "37")]
            let path = number % 2 == 0 ? "/api/v1/query" : "/api/v1/query_range"
            let ours = try await servers[0].ask(path, parameters, client)
            let theirs = try await servers[1].ask(path, parameters, client)
            if ours.status != 200, theirs.status != 200 {
                both += 1
                continue
            }
            if let difference = difference(ours, theirs) {
                row(number % 2 == 0 ? "instant" : "range", "\(text)  at \(end)\n    \(difference)")
            } else {
                agreed += 1
            }
        }
        row("agreement", "\(agreed) of \(count) answers are the same, \(both) are errors in both")
    }

    /// The recorded expositions of all targets, scrape by scrape.
    private static func fill(
        _ servers: [PeerServer], _ client: HTTPClient
    ) async throws -> (counters: [String], gauges: [String], span: ClosedRange<Int64>) {
        let root = FileManager.default.currentDirectoryPath
        var player = try RecordingPlayer(directory: root + "/demo/recording")
        let targets = player.manifest.targets
        var counters: Set<String> = []
        var gauges: Set<String> = []
        var span: ClosedRange<Int64>?
        while let (atMs, event) = player.next() {
            guard case .scrape(let index, 200, let body) = event else { continue }
            var request = WriteRequest()
            try body.withUnsafeBufferPointer { bytes in
                let parsed = try ExpositionParser.parse(bytes)
                for entry in parsed.metadata {
                    switch entry.type {
                    case "counter": counters.insert(entry.name)
                    case "gauge": gauges.insert(entry.name)
                    case "histogram": counters.formUnion([entry.name + "_count", entry.name + "_sum"])
                    default: break
                    }
                }
                for place in 0..<parsed.count {
                    var labels = try ExpositionParser.labels(
                        of: UnsafeBufferPointer(rebasing: bytes[Int(parsed.starts[place])..<Int(parsed.ends[place])]))
                    labels["job"] = targets[index].job
                    labels["instance"] = targets[index].instance
                    labels["metrics_path"] = targets[index].metricsPath
                    request.series.append(
                        SeriesSamples(labels: labels, timestampsMs: [atMs], values: [parsed.values[place]]))
                }
            }
            let message = Snappy.compress(request.encoded())
            for server in servers { try await server.write(message, client) }
            span = min(span?.lowerBound ?? atMs, atMs)...max(span?.upperBound ?? atMs, atMs)
        }
        return (counters.sorted(), gauges.sorted(), span ?? 0...0)
    }

    // MARK: Comparing

    /// What differs first between two answers; nil where nothing does.
    private static func difference(_ ours: FetchResponse, _ theirs: FetchResponse) -> String? {
        guard ours.status == theirs.status else {
            let bodies = [ours, theirs].map { String(decoding: $0.body.prefix(200), as: UTF8.self) }
            return "status \(ours.status) : \(theirs.status)  \(bodies[0]) : \(bodies[1])"
        }
        guard let left = series(ours), let right = series(theirs) else { return "an answer can't be read" }
        for (name, points) in left {
            guard let other = right[name] else { return "only here: \(name)" }
            guard points.count == other.count else { return "\(name): \(points.count) : \(other.count) points" }
            for (a, b) in zip(points, other) where a.0 != b.0 || !areEqual(a.1, b.1) {
                return "\(name): at \(a.0) \(a.1), at \(b.0) \(b.1)"
            }
        }
        return right.keys.first { left[$0] == nil }.map { "only there: \($0)" }
    }

    private static func areEqual(_ a: Double, _ b: Double) -> Bool {
        a == b || a.isNaN && b.isNaN || abs(a - b) <= 1e-9 * max(abs(a), abs(b))
    }

    private static func series(_ answer: FetchResponse) -> [String: [(Double, Double)]]? {
        guard let root = try? JSONSerialization.jsonObject(with: Data(answer.body)) as? [String: Any],
            let data = root["data"] as? [String: Any]
        else { return nil }
        func point(_ value: Any?) -> (Double, Double)? {
            guard let pair = value as? [Any], pair.count == 2, let time = pair[0] as? Double,
                let text = pair[1] as? String
            else { return nil }
            let number = text == "+Inf" ? .infinity : text == "-Inf" ? -.infinity : Double(text) ?? .nan
            return (time, number)
        }
        if data["resultType"] as? String == "scalar" { return ["": [point(data["result"])].compactMap { $0 }] }
        guard let rows = data["result"] as? [[String: Any]] else { return nil }
        var out: [String: [(Double, Double)]] = [:]
        for row in rows {
            let labels = (row["metric"] as? [String: String] ?? [:]).sorted { $0.key < $1.key }
            let points = row["value"].map { [$0] } ?? row["values"] as? [Any] ?? []
            out["\(labels.map { "\($0.key)=\($0.value)" })"] = points.compactMap { point($0) }
        }
        return out
    }
}
