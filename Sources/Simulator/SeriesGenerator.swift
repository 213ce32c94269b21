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

    private let ticks: Int
    private let minutes: Double
    /// By tick: the load, and what all nodes of a zone have in common.
    private var load: [Double] = []
    private var shocks: [[Double]] = []
    private var churn: [Double] = []
    private var made: [SeriesSamples] = []
    private let controlPlaneStepMs: Int64?
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

    private func random(_ stream: String) -> SimulatedRandom { SimulatedRandom(seed: seed, stream: stream) }

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
    private struct Target {
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

    private func target(job: String, instance: String, node: String?, stepMs: Int64?) -> Target {
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
    private func objects(_ job: String) -> Target {
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
    private func counter(
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

    private func gauge(_ name: String, _ target: Target, _ more: Labels = [:], _ value: (Int) -> Double) {
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
        let (family, suffix) = MetricContinuity.family(of: name)
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

    private func timeMs(_ tick: Int) -> Int64 { startMs + Int64(tick) * scenario.scrapeMs }

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
            var slow = SlowNoise(self.random("\(name) slow \(node.name)"), memory: 0.9, deviation: 0.05)
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
        var cpu = SlowNoise(random("cpu \(node.name)"), memory: 0.9, deviation: 0.05)
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

    private func memory(_ target: Target, _ mean: Double, _ process: Process, node: Int?) {
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

    // MARK: The control plane

    /// The buckets of a histogram of lognormal durations.
    private func histogram(
        _ name: String, _ target: Target, _ more: Labels, bounds: [Double], spread: Double,
        _ perTick: (Int) -> (count: Double, median: Double)
    ) {
        var random = random("\(name) \(target.labels["instance"] ?? "") \(more)")
        var columns = [[Double]](repeating: [Double](repeating: 0, count: ticks), count: bounds.count + 1)
        var sums = [Double](repeating: 0, count: ticks)
        for tick in 0..<ticks {
            let (count, median) = perTick(tick)
            let middle = log(median)
            // Multinomial: bucket after bucket, of those that are left.
            var left = count
            var below = 0.0
            var cumulative = 0.0
            for (index, bound) in bounds.enumerated() {
                let share = 0.5 * erfc(-(log(bound) - middle) / spread / 2.0.squareRoot())
                let part = below < 1 ? (share - below) / (1 - below) : 0
                let mean = left * part
                let draw =
                    mean > 30 && left - mean > 30
                    ? (mean + (mean * (1 - part)).squareRoot() * random.normal()).rounded() : random.poisson(mean)
                let taken = min(left, max(0, draw))
                cumulative += taken
                left -= taken
                below = share
                columns[index][tick] = cumulative
            }
            columns[bounds.count][tick] = count
            sums[tick] = count * median * exp(spread * spread / 2)
        }
        let changes = scenario.disturbances.contains { if case .bucketChange = $0 { true } else { false } }
        for (index, bound) in (bounds + [.infinity]).enumerated() {
            // After the upgrade every third bound is another.
            if changes, index % 3 == 1, let stepMs = controlPlaneStepMs, bound.isFinite {
                let cut = target.times.firstIndex { $0 >= stepMs } ?? target.times.count
                var old = target
                old.times = Array(target.times[..<cut])
                old.ticks = Array(target.ticks[..<cut])
                counter(name + "_bucket", old, more.merging(["le": GoFloat.text(bound)])) { columns[index][$0] }
                continue
            }
            let le = bound.isFinite ? GoFloat.text(bound) : "+Inf"
            counter(name + "_bucket", target, more.merging(["le": le])) { columns[index][$0] }
        }
        counter(name + "_count", target, more) { columns[bounds.count][$0] }
        counter(name + "_sum", target, more) { sums[$0] }
    }

    private static let requestBounds = [
        0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
    ]
    private static let diskBounds = (0..<14).map { 0.001 * pow(2, Double($0)) }

    private func apiserver(_ index: Int) {
        let instance = "master-\(index + 1):6443"
        let step = upgrade.steps.first { $0.instance == instance }?.atMs
        let target = target(job: "kube-apiserver", instance: instance, node: nil, stepMs: step)
        let phi = scenario.noise.dispersion
        let perTick = scenario.load.requestsPerSecond * 60 * minutes
        let (load, ticks) = (load, ticks)
        var requests = [Double](repeating: 0, count: ticks)
        let latency = effects.changes(.apiserverLatency)
        for (verb, share, median) in [("GET", 0.5, 0.06), ("LIST", 0.2, 0.08), ("POST", 0.3, 0.08)] {
            var random = random("\(instance) \(verb)")
            let total = (0..<ticks).map { random.poisson(perTick * share * load[$0]) }
            var good = total
            let errors: [(code: String, process: Process, share: Double)] = [
                ("500", .apiserverErrors, 0.0005), ("401", .unauthorized, 0.0005), ("404", .notFound, 0.01),
            ]
            for (code, process, share) in errors {
                let changes = effects.changes(process)
                let failed = (0..<ticks).map { tick -> Double in
                    let part = min(1, share * changes.ratio(timeMs(tick)) + changes.added(timeMs(tick)))
                    let count = min(good[tick], random.bursts(total[tick] * part, dispersion: phi))
                    good[tick] -= count
                    return count
                }
                counter("apiserver_request_total", target, ["verb": verb, "code": code], isLazy: true) { failed[$0] }
            }
            counter("apiserver_request_total", target, ["verb": verb, "code": "200"]) { good[$0] }
            for tick in 0..<ticks { requests[tick] += total[tick] }
            var slow = SlowNoise(self.random("latency \(verb)"), memory: pow(0.95, minutes), deviation: 0.04)
            histogram(
                "apiserver_request_duration_seconds", target, ["verb": verb], bounds: SeriesGenerator.requestBounds,
                spread: 0.8
            ) { tick in
                let queueing = exp(0.25 * (load[tick] - 1))
                return (total[tick], median * queueing * exp(slow.next()) * latency.ratio(timeMs(tick)))
            }
        }
        let etcd = effects.changes(.etcdLatency)
        var slow = SlowNoise(random("etcd latency"), memory: pow(0.95, minutes), deviation: 0.04)
        histogram(
            "etcd_request_duration_seconds", target, ["operation": "get"], bounds: SeriesGenerator.requestBounds,
            spread: 0.7
        ) { tick in
            (requests[tick], 0.02 * exp(0.2 * (load[tick] - 1)) * exp(slow.next()) * etcd.ratio(timeMs(tick)))
        }
        let cpuChanges = effects.changes(.apiserverCPU)
        var cpu = SlowNoise(random("cpu \(instance)"), memory: pow(0.95, minutes), deviation: 0.02)
        counter("process_cpu_seconds_total", target) { tick in
            requests[tick] * 0.004 * exp(cpu.next()) * cpuChanges.ratio(timeMs(tick)) + 0.5 * minutes
        }
        memory(target, 2e9, .apiserverMemory, node: nil)
        let webhooks = effects.changes(.webhookFailures)
        var random = random("webhooks \(instance)")
        counter(
            "apiserver_admission_webhook_rejection_count", target,
            ["name": "policy.example.org", "error_type": "calling_webhook_error"], isLazy: true
        ) { tick in
            let part = webhooks.added(timeMs(tick))
            return random.bursts(
                (0.02 * webhooks.ratio(timeMs(tick)) / 60 + perTick * 0.05 * load[tick] * part), dispersion: phi)
        }
    }

    private func etcd(_ index: Int) {
        let target = target(job: "etcd", instance: "master-\(index + 1):2381", node: nil, stepMs: nil)
        let changes = effects.changes(.etcdFsync)
        let load = load
        var slow = SlowNoise(random("fsync \(index)"), memory: pow(0.95, minutes), deviation: 0.05)
        var random = random("fsync count \(index)")
        histogram(
            "etcd_disk_wal_fsync_duration_seconds", target, [:], bounds: SeriesGenerator.diskBounds, spread: 0.5
        ) { tick in
            let count = random.poisson(scenario.load.requestsPerSecond * 18 * minutes * load[tick])
            return (count, 0.004 * exp(0.1 * (load[tick] - 1)) * exp(slow.next()) * changes.ratio(timeMs(tick)))
        }
        counter("etcd_server_leader_changes_seen_total", target) { _ in 0 }
    }

    private func controllers() {
        let (load, minutes, phi) = (load, minutes, scenario.noise.dispersion)
        func step(_ component: String) -> Int64? { upgrade.steps.first { $0.component == component }?.atMs }
        let manager = target(
            job: "kube-controller-manager", instance: "master-1:10257", node: nil,
            stepMs: step("kube-controller-manager"))
        let retries = effects.changes(.queueRetries)
        var random = random("retries")
        var adding = self.random("adds")
        for name in ["deployment", "endpoint_slice"] {
            let again = (0..<ticks).map { tick in
                random.bursts(5 * minutes * load[tick] * retries.ratio(timeMs(tick)), dispersion: phi)
            }
            counter("workqueue_retries_total", manager, ["name": name]) { again[$0] }
            counter("workqueue_adds_total", manager, ["name": name]) { tick in
                again[tick] + adding.poisson(100 * minutes * load[tick])
            }
            gauge("workqueue_depth", manager, ["name": name]) { _ in random.poisson(0.5) }
        }
        let scaling = effects.changes(.autoscalerErrors)
        var computed = self.random("autoscaler")
        let counts = (0..<ticks).map { _ in computed.poisson(40 * minutes) }
        let failed = (0..<ticks).map { tick in
            let part = min(1, 0.01 * scaling.ratio(timeMs(tick)) + scaling.added(timeMs(tick)))
            return min(counts[tick], computed.bursts(counts[tick] * part, dispersion: part > 0.1 ? 1 : phi))
        }
        let metric = "horizontal_pod_autoscaler_controller_metric_computation_total"
        counter(metric, manager, ["error": "none"]) { counts[$0] - failed[$0] }
        counter(metric, manager, ["error": "internal"], isLazy: true) { failed[$0] }
        let scheduler = target(
            job: "kube-scheduler", instance: "master-1:10259", node: nil, stepMs: step("kube-scheduler"))
        let slower = effects.changes(.schedulerLatency)
        var slow = SlowNoise(self.random("scheduler"), memory: pow(0.9, minutes), deviation: 0.06)
        var attempts = self.random("attempts")
        let churn = churn
        var sums = [Double](repeating: 0, count: ticks)
        let attempted = (0..<ticks).map { tick -> Double in
            let count = attempts.poisson(30 * minutes * load[tick] * churn[tick])
            let noise = 0.8 / max(1, count).squareRoot() * attempts.normal()
            sums[tick] = count * 0.02 * exp(slow.next() + noise) * slower.ratio(timeMs(tick))
            return count
        }
        counter("scheduler_schedule_attempts_total", scheduler, ["result": "scheduled"]) { attempted[$0] }
        counter("scheduler_scheduling_attempt_duration_seconds_count", scheduler) { attempted[$0] }
        counter("scheduler_scheduling_attempt_duration_seconds_sum", scheduler) { sums[$0] }
        let waiting = effects.changes(.unschedulablePods)
        gauge("scheduler_pending_pods", scheduler, ["queue": "unschedulable"]) { tick in
            let mean = 0.3 * waiting.ratio(timeMs(tick)) + waiting.added(timeMs(tick))
            return attempts.poisson(mean)
        }
    }

    /// Requests as the audit log tells them: a few clients, each with one path.
    private func clients() {
        let target = objects("audit")
        let changes = effects.changes(.clientFailures)
        let minutes = minutes
        for (index, client) in ["argocd", "prometheus", "kubectl", "autoscaler", "backup"].enumerated() {
            var random = random("client \(client)")
            let counts = (0..<ticks).map { random.poisson((4 + Double(index)) * minutes * load[$0]) }
            let failed = (0..<ticks).map { tick in
                // One of them asks for what the new version does not serve.
                let atMs = timeMs(tick)
                let part = index == 3 ? min(1, 0.005 * changes.ratio(atMs) + changes.added(atMs)) : 0.005
                return min(
                    counts[tick], part > 0.1 ? (counts[tick] * part).rounded() : random.poisson(counts[tick] * part))
            }
            let more: Labels = [
                "client": "\(client)/1.0", "verb": "list", "path": "/apis/\(client).example.org/v1beta1/things",
                "group": "\(client).example.org", "version": "v1beta1", "resource": "things",
            ]
            counter("upgrade_watch_audit_requests_total", target, more.merging(["code": "200"])) {
                counts[$0] - failed[$0]
            }
            counter("upgrade_watch_audit_requests_total", target, more.merging(["code": "404"]), isLazy: true) {
                failed[$0]
            }
        }
    }

    private func dns() {
        let changes = effects.changes(.dnsErrors)
        let (load, minutes, phi) = (load, minutes, scenario.noise.dispersion)
        for index in 0..<2 {
            let target = target(job: "coredns", instance: "coredns-\(index):9153", node: nil, stepMs: nil)
            var random = random("dns \(index)")
            let counts = (0..<ticks).map { random.poisson(6000 * minutes * load[$0]) }
            let failed = (0..<ticks).map { tick in
                let part = min(1, 0.0005 * changes.ratio(timeMs(tick)) + changes.added(timeMs(tick)))
                return min(counts[tick], random.bursts(counts[tick] * part, dispersion: phi))
            }
            counter("coredns_dns_responses_total", target, ["rcode": "NOERROR"]) { counts[$0] - failed[$0] }
            counter("coredns_dns_responses_total", target, ["rcode": "SERVFAIL"], isLazy: true) { failed[$0] }
        }
    }
}
