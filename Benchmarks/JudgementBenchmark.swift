import Cluster
import Comparison
import Foundation
import Series

/// The evaluations of a running comparison, from 50 to 10,000 nodes with 50 series each: time, and the memory of the
/// process with all that it keeps.
enum JudgementBenchmark {
    static let sizes = [50, 500, 5000, 10_000]
    private static let hourMs: Int64 = 3_600_000

    /// - Parameters:
    ///   - sizes: in rising order: what smaller ones leave in memory is counted with the next.
    ///   - historyMs: between two samples of the history.
    static func run(sizes: [Int] = sizes, historyMs: Int64 = 60_000, row: (String, String) -> Void) throws {
        let signals = try Signal.load(file: FileManager.default.currentDirectoryPath + "/config/signals.yaml")
        for size in sizes {
            let source = Fleet(nodes: size, intervalMs: historyMs)
            let upgrade = source.upgrade
            var tables = ComparisonTables()
            /// Evaluates as a service does, until all is read: how long each call takes.
            func evaluate(_ upgrade: Upgrade, _ atMs: Int64) throws -> [Double] {
                var seconds: [Double] = []
                var isBehind = true
                while isBehind {
                    let start = DispatchTime.now().uptimeNanoseconds
                    let assessment = try Comparison.assess(
                        ComparisonInput(
                            cluster: "fleet", source: source, upgrade: upgrade, nowMs: atMs, baselineMs: 72 * hourMs,
                            soakMs: 24 * hourMs, signals: signals, ledger: [], accountsForMetrics: false,
                            mostNodeMinutes: ComparisonTables.portion, logEvidence: { _ in [] }), tables: &tables)
                    seconds.append(Double(DispatchTime.now().uptimeNanoseconds - start) / 1e9)
                    isBehind = assessment.readThroughMs != nil
                }
                return seconds
            }
            func text(_ seconds: [Double]) -> String {
                seconds.count == 1
                    ? String(format: "%.2f s", seconds[0])
                    : String(
                        format: "%.1f s in %d evaluations of at most %.1f s", seconds.reduce(0, +), seconds.count,
                        seconds.max() ?? 0)
            }
            // A service follows the upgrade from the control plane's step on, when no node has gone over.
            var begun = upgrade
            begun.steps = [
                UpgradeStep(
                    atMs: upgrade.startedMs, component: "apiserver", instance: "i", node: nil, from: upgrade.from,
                    to: upgrade.to)
            ]
            begun.finishedMs = nil
            let atStep = try evaluate(begun, upgrade.startedMs + 60_000)
            let endMs = upgrade.startedMs + 20 * hourMs
            let later = try evaluate(upgrade, endMs)
            // A minute later, each series has one new sample.
            source.intervalMs = 60_000
            let next = try (1...3).flatMap { try evaluate(upgrade, endMs + Int64($0) * 60_000) }
            row(
                "judgement, \(size) nodes",
                "\(size * Fleet.perNode) series: at the first step \(text(atStep)); 20 hours later \(text(later)); "
                    + String(
                        format: "each next %.2f s, %.0f MB resident", next.min() ?? 0,
                        Double(ProcessMemory.residentBytes) / 1e6))
        }
    }

    /// Series of nodes that are made when they are asked for, so that the memory measured is the judgement's.
    private final class Fleet: SeriesSource, @unchecked Sendable {
        static let perNode = 50
        let upgrade: Upgrade
        /// The time between two samples.
        var intervalMs: Int64
        private let fromMs: Int64 = 1_767_571_200_000
        private let nodes: Int
        /// A sine by table: making the samples is none of the judgement's time.
        private let waves = (0..<4096).map { sin(Double($0) * 2 * .pi / 4096) }
        private var labels: [String: [(labels: Labels, perHour: Double, isGauge: Bool)]] = [:]

        init(nodes: Int, intervalMs: Int64) {
            self.nodes = nodes
            self.intervalMs = intervalMs
            let startMs = fromMs + 72 * hourMs
            let steps = (0..<nodes).map { index in
                UpgradeStep(
                    atMs: startMs + Int64(index) * 2 * hourMs / Int64(nodes), component: "kubelet",
                    instance: "node-\(index):10250", node: "node-\(index)", from: "v1.32.9", to: "v1.33.5",
                    batch: 1 + 4 * index / nodes)
            }
            upgrade = Upgrade(
                id: "fleet", from: "v1.32.9", to: "v1.33.5", startedMs: startMs,
                finishedMs: steps[steps.count - 1].atMs, steps: steps, detectedBy: "metrics", rolledBackMs: nil)
            for index in 0..<nodes { add(node: "node-\(index)") }
        }

        private func add(node: String) {
            let base: Labels = ["job": "kubelet", "instance": "\(node):10250", "node": node]
            func add(_ name: String, _ more: Labels, _ perHour: Double, isGauge: Bool = false) {
                var all = base.merging(more)
                all[Labels.metricName] = name
                labels[name, default: []].append((all, perHour, isGauge))
            }
            add("up", [:], 1, isGauge: true)
            add("upgrade_watch_node_ready", [:], 1, isGauge: true)
            for kind in ["run_podsandbox", "pull_image", "list", "status", "start", "stop", "remove", "create"] {
                add("kubelet_runtime_operations_total", ["operation_type": kind], 600)
                add("kubelet_runtime_operations_errors_total", ["operation_type": kind], 1)
            }
            for name in ["kubelet_pleg_relist", "kubelet_pod_start"] {
                add("\(name)_duration_seconds_count", [:], 3600)
                add("\(name)_duration_seconds_sum", [:], 360)
            }
            for kind in ["mount", "unmount", "attach"] {
                add("storage_operation_duration_seconds_count", ["operation_name": kind, "status": "success"], 30)
                add("storage_operation_duration_seconds_sum", ["operation_name": kind, "status": "success"], 18)
            }
            for name in ["process_resident_memory_bytes", "go_goroutines", "process_open_fds"] {
                add(name, [:], 1e8, isGauge: true)
            }
            add("process_cpu_seconds_total", [:], 100)
            for workload in 0..<7 {
                add(
                    "upgrade_watch_container_exits_total",
                    ["workload": "app-\(workload)", "namespace": "team", "cause": "application exit"], 0.05)
                add("upgrade_watch_pod_container_restarts_total", ["pod": "app-\(workload)"], 0.05)
            }
            add("upgrade_watch_pod_evictions_total", ["cause": "taint"], 0.1)
            for severity in ["info", "warning", "error", "fatal"] {
                add("upgrade_watch_log_lines_total", ["component": "kubelet", "severity": severity], 10)
            }
        }

        private func wave(_ x: Double) -> Double { waves[Int(x * 651.9) & 4095] }

        func select(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [SeriesSamples] {
            try selection(matchers, fromMs: fromMs, throughMs: throughMs).samples()
        }

        func selection(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> SeriesSelection {
            let first = max(self.fromMs, fromMs)
            let start = (first + intervalMs - 1) / intervalMs * intervalMs
            guard let name = matchers.first(where: { $0.name == Labels.metricName }), start <= throughMs else {
                return SeriesSelection([])
            }
            let times = Array(stride(from: start, through: throughMs, by: Int(intervalMs)))
            let hours = times.map { Double($0 - self.fromMs) / Double(hourMs) }
            let found = labels.filter { name.accepts([Labels.metricName: $0.key]) }.flatMap(\.value)
                .filter { one in matchers.allSatisfy { $0.accepts(one.labels) } }
            return SeriesSelection(labels: found.map(\.labels)) { [self] places, body in
                var values = [Double](repeating: 0, count: times.count)
                for place in places {
                    let one = found[place]
                    // Noise that the time alone gives.
                    let seed = Double(one.labels["node"].map { $0.count + (Int($0.dropFirst(5)) ?? 0) } ?? 0)
                    for index in hours.indices {
                        values[index] =
                            one.isGauge
                            ? one.perHour == 1 ? 1 : one.perHour * (1 + 0.02 * wave(hours[index] * 7 + seed))
                            : (one.perHour * (hours[index] + 0.3 * wave(hours[index] * 5 + seed)) + 1).rounded(.down)
                    }
                    try times.withUnsafeBufferPointer { times in
                        try values.withUnsafeBufferPointer { try body(place, times, $0) }
                    }
                }
            }
        }

        func labels(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [Labels] { [] }
        func metadata() throws -> [MetricMetadata] { [] }
        func timeRange() throws -> ClosedRange<Int64>? { fromMs...(upgrade.startedMs + 30 * hourMs) }
    }
}
