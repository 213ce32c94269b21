import Cluster
import Comparison
import Foundation
import PromQL
import Series

/// Makes the series of a simulated cluster, target by target.
final class SeriesGenerator {
    let scenario: Scenario
    let seed: UInt64
    let nodes: [SimulatedCluster.Node]
    let upgrade: Upgrade
    let effects: Effects
    let startMs: Int64
    let endMs: Int64

    let ticks: Int
    let minutes: Double
    /// By tick: the load, and what all nodes of a zone have in common.
    private(set) var load: [Double] = []
    private var shocks: [[Double]] = []
    private(set) var churn: [Double] = []
    private var made: [SeriesSamples] = []
    let controlPlaneStepMs: Int64?
    /// What the metrics were called before the upgrade.
    private let continuity: MetricContinuity?

    init(
        scenario: Scenario, seed: UInt64, nodes: [SimulatedCluster.Node], upgrade: Upgrade, effects: Effects,
        startMs: Int64, endMs: Int64
    ) {
        self.scenario = scenario
        self.seed = seed
        self.nodes = nodes
        self.upgrade = upgrade
        self.effects = effects
        self.startMs = startMs
        self.endMs = endMs
        ticks = Int((endMs - startMs) / scenario.scrapeMs)
        minutes = Double(scenario.scrapeMs) / 60_000
        controlPlaneStepMs = upgrade.steps.first { !$0.isNode }?.atMs
        continuity = UpgradePath(upgrade).map { MetricContinuity(path: $0) }
        makeLoad()
    }

    func random(_ stream: String) -> SimulatedRandom { SimulatedRandom(seed: seed, stream: stream) }

    private func makeLoad() {
        let perHour = Double(scenario.scrapeMs) / 3_600_000
        let memory = pow(0.98, minutes)
        var noise = SlowNoise(random("load"), memory: memory, deviation: scenario.load.noise)
        load = (0..<ticks).map { tick in
            let atMs = startMs + Int64(tick) * scenario.scrapeMs
            let hours = Double(atMs - SimulatedCluster.epochMs) / 3_600_000
            var value = 1 + scenario.load.daily * sin(2 * .pi * (hours - 8) / 24)
            value *= 1 + scenario.load.weekly * sin(2 * .pi * hours / 168)
            value *= exp(noise.next())
            for case .traffic(let factor, let from, let duration) in scenario.disturbances
            where atMs >= upgrade.startedMs + from && atMs < upgrade.startedMs + from + duration {
                value *= factor
            }
            return value
        }
        shocks = (0..<scenario.topology.zones).map { zone in
            var noise = SlowNoise(random("zone \(zone)"), memory: memory, deviation: scenario.noise.zoneShocks)
            return (0..<ticks).map { _ in exp(noise.next()) }
        }
        churn = [Double](repeating: 1, count: ticks)
        for case .churn(let share, let at) in scenario.disturbances {
            let first = Int((upgrade.startedMs + at - startMs) / scenario.scrapeMs)
            for tick in max(0, first)..<min(ticks, max(0, first) + Int(0.5 / perHour)) { churn[tick] += 20 * share }
        }
    }

    // MARK: Targets

    /// What is scraped together: when, and when its process began anew.
    struct Target {
        var labels: Labels
        var times: [Int64]
        /// The ticks whose scrape came.
        var ticks: [Int]
        var resets: Set<Int>
        /// When it goes over; nil: it does not.
        var stepMs: Int64?
        /// Whether upgrade-watch counts itself: a new counter of its own gets a zero before its first count.
        var isOwn = false
    }

    func target(job: String, instance: String, node: String?, stepMs: Int64?) -> Target {
        var random = random("target \(job) \(instance)")
        let phase = Int64(random.uniform() * Double(scenario.scrapeMs))
        var labels: Labels = ["job": job, "instance": instance]
        labels["node"] = node
        var skew: Int64 = 0
        var gaps = 0.0
        var perTick = 0.0
        var blindFromMs = Int64.max
        for disturbance in scenario.disturbances {
            switch disturbance {
            case .clockSkew(let ms): skew = Int64((2 * random.uniform() - 1) * Double(ms))
            case .scrapeGaps(let share): gaps = share
            case .counterResets(let perDay): perTick = perDay * Double(scenario.scrapeMs) / 86_400_000
            case .blind(let blind) where blind == job: blindFromMs = stepMs ?? upgrade.startedMs
            default: break
            }
        }
        var target = Target(labels: labels, times: [], ticks: [], resets: [], stepMs: stepMs)
        var up: [Double] = []
        var upTimes: [Int64] = []
        for tick in 0..<ticks {
            let atMs = max(startMs, startMs + Int64(tick) * scenario.scrapeMs + phase + skew)
            let isDown = stepMs.map { atMs >= $0 && atMs < $0 + 90_000 } ?? false
            if isDown || random.uniform() < perTick { target.resets.insert(tick) }
            let fails = isDown || random.uniform() < gaps || atMs >= blindFromMs
            guard upTimes.last.map({ $0 < atMs }) ?? true else { continue }
            upTimes.append(atMs)
            up.append(fails ? 0 : 1)
            guard !fails else { continue }
            target.ticks.append(tick)
            target.times.append(atMs)
        }
        var named = labels
        named[Labels.metricName] = "up"
        made.append(SeriesSamples(labels: named, timestampsMs: upTimes, values: up))
        return target
    }

    /// What is told through the API's objects or logs, once a tick.
    func objects(_ job: String) -> Target {
        Target(
            labels: ["job": job, "instance": "upgrade-watch"],
            times: (0..<ticks).map { startMs + Int64($0) * scenario.scrapeMs + 1000 }, ticks: Array(0..<ticks),
            resets: [], isOwn: true)
    }

    private func named(_ name: String, _ target: Target, _ more: Labels) -> Labels {
        var labels = target.labels.merging(more)
        labels[Labels.metricName] = name
        return labels
    }

    /// A counter; `amount` is what each tick adds.
    ///
    /// - Parameter isLazy: it is not there until it counts.
    func counter(
        _ name: String, _ target: Target, _ more: Labels = [:], isLazy: Bool = false, _ amount: (Int) -> Double
    ) {
        var value = 0.0
        var values: [Double] = []
        values.reserveCapacity(target.ticks.count)
        var next = 0
        var firstIndex: Int?
        for (index, tick) in target.ticks.enumerated() {
            while next <= tick {
                if target.resets.contains(next) { value = 0 }
                value += amount(next)
                next += 1
            }
            values.append(value)
            if value > 0, firstIndex == nil { firstIndex = index }
        }
        append(name, target, more, values, from: isLazy ? firstIndex.map { target.isOwn ? max(0, $0 - 1) : $0 } : 0)
    }

    func gauge(_ name: String, _ target: Target, _ more: Labels = [:], _ value: (Int) -> Double) {
        append(name, target, more, target.ticks.map(value), from: 0)
    }

    /// Adds a series from its first value on: before the target's step under the names of the old version.
    private func append(_ name: String, _ target: Target, _ more: Labels, _ values: [Double], from: Int?) {
        guard let from, from < values.count else { return }
        func add(_ labels: Labels, _ range: Range<Int>, factor: Double = 1) {
            guard !range.isEmpty else { return }
            made.append(
                SeriesSamples(
                    labels: labels,
                    timestampsMs: range.count == target.times.count ? target.times : Array(target.times[range]),
                    values: factor == 1 && range.count == values.count ? values : values[range].map { $0 * factor }))
        }
        let (family, suffix) = VersionCatalogue.family(of: name)
        let olds = continuity?.predecessors(of: family) ?? []
        let old = olds.first { $0.kind == .rename } ?? olds.first { $0.kind == .summaryToHistogram }
        guard let stepMs = target.stepMs, let old else { return add(named(name, target, more), from..<values.count) }
        let cut = max(from, target.times.firstIndex { $0 >= stepMs } ?? values.count)
        add(named(name, target, more), cut..<values.count)
        // A summary has no buckets.
        guard old.kind == .rename || suffix != "_bucket" else { return }
        var labels = named(old.old + suffix, target, more)
        for (before, after) in old.labels {
            guard let value = labels[after] else { continue }
            labels[after] = nil
            labels[before] = value
        }
        if let bound = labels["le"].flatMap({ ClassicHistogram.bound($0) }) {
            labels["le"] = GoFloat.text(bound / old.factor)
        }
        add(labels, from..<cut, factor: suffix == "_count" || suffix == "_bucket" ? 1 : 1 / old.factor)
    }

    func timeMs(_ tick: Int) -> Int64 { startMs + Int64(tick) * scenario.scrapeMs }

    // MARK: All

    func series() -> [SeriesSamples] {
        for index in nodes.indices { node(index) }
        pods()
        for index in 0..<scenario.topology.controlPlanes { apiserver(index) }
        for index in 0..<scenario.topology.controlPlanes { etcd(index) }
        controllers()
        clients()
        dns()
        return made
    }

    private func node(_ index: Int) {
        let node = nodes[index]
        let target = target(
            job: "kubelet", instance: "\(node.name):10250", node: node.name, stepMs: node.stepMs)
        let shock = shocks[node.zone - 1]
        let phi = scenario.noise.dispersion
        let (minutes, churn) = (minutes, churn)
        // What fails among operations of a kind.
        func operations(_ kind: String, _ process: Process, perMinute: Double, share: Double) {
            var random = random("\(kind) \(node.name)")
            let changes = effects.changes(process, node: index)
            var failed = [Double](repeating: 0, count: ticks)
            let total = (0..<ticks).map { tick -> Double in
                let isOfPods = kind != "container_status"
                let count = random.poisson(perMinute * minutes * (isOfPods ? churn[tick] : 1))
                let atMs = timeMs(tick)
                let part = min(1, share * node.trouble * shock[tick] * changes.ratio(atMs) + changes.added(atMs))
                failed[tick] = min(count, random.bursts(count * part, dispersion: part > 0.1 ? 1 : phi))
                return count
            }
            counter("kubelet_runtime_operations_total", target, ["operation_type": kind]) { total[$0] }
            counter("kubelet_runtime_operations_errors_total", target, ["operation_type": kind], isLazy: true) {
                failed[$0]
            }
        }
        operations("container_status", .runtimeErrors, perMinute: 8, share: 0.001)
        operations("run_podsandbox", .sandboxFailures, perMinute: 0.2, share: 0.004)
        operations("pull_image", .imagePullFailures, perMinute: 0.2, share: 0.01)
        func durations(
            _ name: String, _ process: Process, perMinute: Double, mean: Double, spread: Double, _ more: Labels = [:]
        ) {
            var random = random("\(name) \(node.name)")
            let changes = effects.changes(process, node: index)
            var slow = SlowNoise(self.random("\(name) slow \(node.name)"), memory: pow(0.9, minutes), deviation: 0.05)
            let own = exp(scenario.noise.nodeSpread * random.normal())
            var sums = [Double](repeating: 0, count: ticks)
            let counts = (0..<ticks).map { tick -> Double in
                let count = random.poisson(perMinute * minutes * (process == .plegLatency ? 1 : churn[tick]))
                guard count > 0 else { return 0 }
                let level = mean * own * shock[tick] * exp(slow.next()) * changes.ratio(timeMs(tick))
                // The mean of so many lognormal durations.
                let noise = spread / count.squareRoot() * random.normal()
                sums[tick] = count * level * exp(noise - noise * noise / 2)
                return count
            }
            counter(name + "_count", target, more) { counts[$0] }
            counter(name + "_sum", target, more) { sums[$0] }
        }
        durations("kubelet_pleg_relist_duration_seconds", .plegLatency, perMinute: 60, mean: 0.15, spread: 0.5)
        durations("kubelet_pod_start_duration_seconds", .podStartLatency, perMinute: 0.2, mean: 4, spread: 0.6)
        durations(
            "storage_operation_duration_seconds", .volumeLatency, perMinute: 0.5, mean: 0.6, spread: 0.6,
            ["operation_name": "volume_mount", "status": "success"])
        memory(target, 150e6, .kubeletMemory, node: index)
        let cpuChanges = effects.changes(.kubeletCPU, node: index)
        var cpu = SlowNoise(random("cpu \(node.name)"), memory: pow(0.9, minutes), deviation: 0.05)
        counter("process_cpu_seconds_total", target) { tick in
            60 * minutes * 0.03 * shock[tick] * exp(cpu.next()) * cpuChanges.ratio(timeMs(tick))
        }
        var evicted = random("pressure \(node.name)")
        let pressure = effects.changes(.pressureEvictions, node: index)
        counter("kubelet_evictions", target, ["eviction_signal": "memory.available"], isLazy: true) { tick in
            let hourly = 0.002 * node.trouble * pressure.ratio(timeMs(tick)) + pressure.added(timeMs(tick))
            return evicted.bursts(hourly * minutes / 60, dispersion: phi)
        }
    }

    func memory(_ target: Target, _ mean: Double, _ process: Process, node: Int?) {
        let name = target.labels["instance"] ?? ""
        let changes = effects.changes(process, node: node)
        var random = random("memory \(name)")
        let own = exp(0.1 * random.normal())
        var slow = SlowNoise(self.random("memory slow \(name)"), memory: pow(0.9, minutes), deviation: 0.03)
        let period = 200 + Int(random.uniform() * 400)
        let phase = Int(random.uniform() * Double(period))
        gauge("process_resident_memory_bytes", target) { tick in
            // The heap grows until it is collected.
            let tooth = 0.04 * Double((tick + phase) % period) / Double(period)
            return (mean * own * exp(slow.next()) * (1 + tooth) * changes.ratio(timeMs(tick))).rounded()
        }
    }

    /// What is known of pods and nodes through the API's objects, and of kubelets through their logs.
    private func pods() {
        let target = objects("kubernetes-objects")
        let phi = scenario.noise.dispersion
        let (minutes, ticks) = (minutes, ticks)
        let workloads = scenario.topology.workloads
        func spread(
            _ name: String, _ process: Process, hourly: Double, _ labels: (inout SimulatedRandom) -> Labels
        ) {
            for (index, node) in nodes.enumerated() {
                var random = random("\(name) \(node.name)")
                let changes = effects.changes(process, node: index)
                let shock = shocks[node.zone - 1]
                var events: [(tick: Int, labels: Labels, count: Double)] = []
                for tick in 0..<ticks {
                    let atMs = timeMs(tick)
                    let rate = hourly * node.trouble * shock[tick] * changes.ratio(atMs) + changes.added(atMs)
                    let count = random.bursts(rate * minutes / 60, dispersion: phi)
                    if count > 0 { events.append((tick, labels(&random), count)) }
                }
                for (labels, list) in Dictionary(grouping: events, by: \.labels).sorted(by: { $0.key < $1.key }) {
                    var byTick: [Int: Double] = [:]
                    for event in list { byTick[event.tick, default: 0] += event.count }
                    var more = labels
                    more["node"] = node.name
                    counter(name, target, more, isLazy: true) { byTick[$0] ?? 0 }
                }
            }
        }
        spread("upgrade_watch_container_exits_total", .containerExits, hourly: 0.3) { random in
            let workload = Int(random.uniform() * Double(workloads))
            return [
                "cause": "application exit", "namespace": "team-\(workload % 5)", "workload": "app-\(workload)",
                "workload_kind": "Deployment", "container": "app",
            ]
        }
        spread("upgrade_watch_pod_evictions_total", .evictions, hourly: 0.2) { _ in ["cause": "taint"] }
        for (index, node) in nodes.enumerated() {
            gauge("upgrade_watch_node_info", target, ["node": node.name, "zone": "zone-\(node.zone)"]) { _ in 1 }
            var random = random("ready \(node.name)")
            let flaps = effects.changes(.nodeFlaps, node: index)
            var downUntil = Int64.min
            gauge("upgrade_watch_node_ready", target, ["node": node.name]) { tick in
                let atMs = timeMs(tick)
                let hourly = 0.001 * node.trouble * flaps.ratio(atMs) + flaps.added(atMs)
                if atMs > downUntil + 120_000, random.uniform() < hourly * minutes / 60 { downUntil = atMs + 120_000 }
                let steps = node.stepMs.map { atMs >= $0 && atMs < $0 + 90_000 } ?? false
                return steps || atMs < downUntil ? 0 : 1
            }
            gauge("upgrade_watch_pod_container_restarts_total", target, ["node": node.name, "pod": "agent"]) { _ in 0 }
            // What a drain moves is expected.
            if let stepMs = node.stepMs {
                counter(
                    "upgrade_watch_pod_evictions_total", target, ["cause": "drain", "node": node.name], isLazy: true
                ) {
                    abs(timeMs($0) - stepMs) < scenario.scrapeMs ? 5 : 0
                }
            }
            let logs = objects("logs")
            let more: Labels = ["component": "kubelet", "node": node.name]
            var lines = self.random("lines \(node.name)")
            counter("upgrade_watch_log_lines_total", logs, more.merging(["severity": "info"])) { _ in
                lines.poisson(20 * minutes)
            }
            let errors = effects.changes(.logErrors, node: index)
            let shock = shocks[node.zone - 1]
            var bad = self.random("error lines \(node.name)")
            counter("upgrade_watch_log_lines_total", logs, more.merging(["severity": "error"])) { tick in
                let rate =
                    0.5 * node.trouble * shock[tick] * errors.ratio(timeMs(tick)) + errors.added(timeMs(tick)) / 60
                return bad.bursts(rate * minutes, dispersion: phi)
            }
        }
    }
}
