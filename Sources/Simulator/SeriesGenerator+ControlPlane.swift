import Cluster
import Foundation
import PromQL
import Series

/// The series of what is of no node.
extension SeriesGenerator {
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

    func apiserver(_ index: Int) {
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
                (0.02 * webhooks.ratio(timeMs(tick)) / 60 * minutes + perTick * 0.05 * load[tick] * part),
                dispersion: phi)
        }
    }

    func etcd(_ index: Int) {
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

    func controllers() {
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
    func clients() {
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

    func dns() {
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
