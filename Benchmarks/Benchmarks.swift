import Exposition
import Foundation
import LogWatch
import PromQL
import Recording
import Scrape
import Series
import Storage

/// Measures what is done for every byte, sample and line, on the recorded data.
///
/// Figures are the best of several rounds: on a shared machine the fastest is the one least disturbed.
@main
enum Benchmarks {
    static func main() async {
        do {
            try await run()
        } catch {
            FileHandle.standardError.write(Data("benchmarks: \(error)\n".utf8))
            exit(1)
        }
    }

    private static let usage = """
        usage: benchmarks                    all that needs no other server
               benchmarks judgement [NODES…] [--history SECONDS]  evaluations, for some numbers of nodes; the history's
                                             samples are so far apart (60)
               benchmarks store [SERIES [DAYS]]      a store that is fed for days of simulated time
               benchmarks churn [SERIES [MINUTES]]   one whose series come and go
               benchmarks cluster            the observation of a cluster's objects
               benchmarks queries [TARGETS [HOURS [ROUNDS]]]   queries beside Prometheus
               benchmarks agreement [QUERIES [SEED]]           answers beside Prometheus'
        They read demo/ and config/: run them from the project's directory.

        """

    private static func run() async throws {
        if CommandLine.arguments.contains(where: { ["-h", "--help", "help"].contains($0) }) {
            print(usage, terminator: "")
            return
        }
        guard FileManager.default.fileExists(atPath: "config/signals.yaml") else { throw WrongDirectory() }
        if CommandLine.arguments.contains("cluster") {
            try await ClusterBenchmark.run(row: row)
            return
        }
        func numbers(after word: String) -> [Int]? {
            guard let place = CommandLine.arguments.firstIndex(of: word) else { return nil }
            return CommandLine.arguments[(place + 1)...].prefix { Int($0) != nil }.compactMap(Int.init).filter {
                $0 > 0
            }
        }
        if let sizes = numbers(after: "judgement") {
            try JudgementBenchmark.run(
                sizes: sizes.isEmpty ? JudgementBenchmark.sizes : sizes.sorted(),
                historyMs: Int64(numbers(after: "--history")?.first ?? 60) * 1000, row: row)
            return
        }
        if let numbers = numbers(after: "store") {
            try StoreBenchmark.run(
                series: numbers.first ?? 100_000, days: numbers.dropFirst().first ?? 30, row: row)
            return
        }
        if let numbers = numbers(after: "churn") {
            try StoreBenchmark.churn(
                series: numbers.first ?? 100_000, minutes: numbers.dropFirst().first ?? 60, row: row)
            return
        }
        if let place = CommandLine.arguments.firstIndex(of: "queries") {
            try await PeerQueryBenchmark.run(Array(CommandLine.arguments[(place + 1)...]), row: row)
            return
        }
        if let place = CommandLine.arguments.firstIndex(of: "agreement") {
            try await PeerAgreement.run(Array(CommandLine.arguments[(place + 1)...]), row: row)
            return
        }
        let root = FileManager.default.currentDirectoryPath
        var player = try RecordingPlayer(directory: root + "/demo/recording")
        var bodies: [[UInt8]] = []
        var lines: [[UInt8]] = []
        let target = player.manifest.targets.firstIndex { $0.job == "kube-apiserver" }
        let logs = player.manifest.logs.indices.filter { player.manifest.logs[$0].component == "kubelet" }
        while bodies.count < 12 || lines.count < 2000, let (_, event) = player.next() {
            switch event {
            case .scrape(let index, 200, let body) where index == target && bodies.count < 12: bodies.append(body)
            case .logLine(let index, let line, _) where logs.contains(index): lines.append(line)
            default: break
            }
        }
        try exposition(bodies)
        try ingest(bodies)
        try blocks()
        try StoreBenchmark.run(series: 100_000, days: 1, row: row)
        try query()
        try logRules(lines, root: root)
        try JudgementBenchmark.run(row: row)
        try await ClusterBenchmark.run(row: row)
    }

    /// The shortest of several rounds, in seconds.
    private static func best(_ rounds: Int = 7, _ body: () throws -> Void) rethrows -> Double {
        var best = Double.infinity
        for _ in 0..<rounds {
            let start = DispatchTime.now().uptimeNanoseconds
            try body()
            best = min(best, Double(DispatchTime.now().uptimeNanoseconds - start) / 1e9)
        }
        return best
    }

    private static func row(_ name: String, _ figures: String) {
        print(name.padding(toLength: 28, withPad: " ", startingAt: 0) + figures)
        fflush(nil)
    }

    private static func exposition(_ bodies: [[UInt8]]) throws {
        let body = bodies[0]
        var samples = 0
        let seconds = try best {
            samples = try body.withUnsafeBufferPointer { try ExpositionParser.parse($0).count }
        }
        let rate = String(
            format: "%.2f GB/s, %.0f ns a sample", Double(body.count) / seconds / 1e9, seconds / Double(samples) * 1e9)
        row("exposition, apiserver", rate)
    }

    private static func ingest(_ bodies: [[UInt8]]) throws {
        var samples = 0
        var times: [Double] = []
        let sink = NullSink()
        var session = ScrapeSession(target: ScrapeTarget(labels: ["job": "a", "instance": "b"], url: ""), sink: sink)
        for (index, body) in bodies.enumerated() {
            let start = DispatchTime.now().uptimeNanoseconds
            samples = try session.ingest(body, format: .prometheus, atMs: Int64(index) * 15_000, durationSeconds: 0)
                .kept
            times.append(Double(DispatchTime.now().uptimeNanoseconds - start) / 1e9)
        }
        let again = times.dropFirst().min() ?? 0
        row("scrape, first", String(format: "%.0f ns a sample", times[0] / Double(samples) * 1e9))
        row("scrape, next", String(format: "%.0f ns a sample", again / Double(samples) * 1e9))
    }

    private static func blocks() throws {
        let count = 240
        let times = (0..<count).map { Int64($0) * 15_000 + 1_795_450_676_665 }
        let counter = (0..<count).map { Double($0 * 137 + $0 % 7) }
        let gauge = (0..<count).map { sin(Double($0)) * 1_000_000 }
        for (name, values) in [("counter", counter), ("gauge", gauge)] {
            let series = (0..<64).map { slot in
                BlockCodec.Columns(slot: slot, timestampsMs: times, values: values.map { $0 + Double(slot) })
            }
            var bytes: [UInt8] = []
            let encode = try best(50) { bytes = try BlockCodec.frame(of: series, rows: times) }
            let decode = try best(50) { _ = try BlockCodec.columns(ofFrame: bytes, rows: times) }
            let each = { (seconds: Double) in seconds / Double(count * series.count) * 1e9 }
            row(
                "block, \(name)",
                String(
                    format: "%.2f bytes before zstd, %.1f ns to write, %.1f ns to read a sample",
                    Double(bytes.count) / Double(count * series.count), each(encode), each(decode)))
        }
    }

    private static func query() throws {
        let store = MemorySeries()
        for series in 0..<200 {
            let id = store.ids(for: [["__name__": "requests_total", "verb": "v\(series % 5)", "n": "\(series)"]])[0]
            var batch = SampleBatch()
            for step in 0..<1440 {
                batch.append(id, timestampMs: Int64(step) * 60_000, value: Double(step * (series + 1)))
            }
            _ = store.append(batch)
        }
        let engine = QueryEngine()
        let seconds = try best(5) {
            _ = try engine.range(
                "sum by (verb) (rate(requests_total[5m]))", startMs: 600_000, endMs: 1439 * 60_000, stepMs: 60_000,
                source: store)
        }
        row("sum by (rate), a day", String(format: "%.1f ms for 200 series at 1430 steps", seconds * 1000))
    }

    private static func logRules(_ lines: [[UInt8]], root: String) throws {
        let rules = try LogRule.load(file: root + "/config/log-rules.yaml")
        let source = LogSource(component: "kubelet", node: "n", format: .klog)
        let bytes = lines.reduce(0) { $0 + $1.count }
        let seconds = best {
            var tally = LogTally(rules: rules)
            for line in lines {
                line.withUnsafeBytes { bytes in
                    let head = LogLineHead(bytes, format: .klog, nearMs: 1_795_450_676_665)
                    tally.add(bytes, of: source, severity: head.severity, atMs: head.timestampMs ?? 0)
                }
            }
        }
        row(
            "log rules, kubelet",
            String(
                format: "%.0f lines a second, %.0f MB/s, %d rules", Double(lines.count) / seconds,
                Double(bytes) / seconds / 1e6, rules.count))
    }
}

/// The memory of this process.
enum ProcessMemory {
    static var residentBytes: Int {
        let text = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
        return (text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 4096
    }
}

/// Takes samples and keeps nothing.
private final class NullSink: SampleSink {
    func ids(for labels: [Labels]) -> [SeriesID] { labels.indices.map { SeriesID(rawValue: Int64($0)) } }
    func append(_ batch: SampleBatch) -> AppendResult { AppendResult(accepted: batch.count) }
    func setMetadata(_ metadata: [MetricMetadata]) {}
}

/// The files that are measured on are not where they are looked for.
private struct WrongDirectory: Error, CustomStringConvertible {
    var description: String {
        "there is no config/signals.yaml in \(FileManager.default.currentDirectoryPath): run it from the project's directory"
    }
}
