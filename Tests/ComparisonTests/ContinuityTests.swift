import Cluster
import Comparison
import Foundation
import Series
import StrictYAML
import Testing

/// A cluster of 1.10 that becomes 1.17 after an hour: its metrics have other names, units and labels from there on.
private struct OldLab {
    let store = MemorySeries()
    let startMs: Int64 = 1_700_000_000_000
    var stepMs: Int64 { startMs + 3_600_000 }
    var endMs: Int64 { startMs + 7_200_000 }

    /// Adds a counter that runs at a rate from a time to another, as each scrape sees it.
    func counter(_ labels: Labels, old: Bool, job: String, _ perSecond: Double) {
        var labels = labels
        labels["job"] = job
        labels["instance"] = "i"
        var value = 0.0
        for atMs in stride(from: startMs, through: endMs, by: 15_000) where (atMs < stepMs) == old {
            value += perSecond * 15
            store.append([(labels, value)], atMs: atMs)
        }
    }

    func up() {
        for job in ["kube-apiserver", "kubelet"] {
            for atMs in stride(from: startMs, through: endMs, by: 15_000) {
                store.append([(["__name__": "up", "job": job, "instance": "i"], 1)], atMs: atMs)
            }
        }
    }

    func assess(_ yaml: String) throws -> Assessment {
        let steps = ["kube-apiserver", "kubelet"].map {
            UpgradeStep(
                atMs: stepMs, component: $0, instance: "i", node: $0 == "kubelet" ? "n" : nil, from: "v1.10.5",
                to: "v1.17.17")
        }
        return try Comparison.assess(
            ComparisonInput(
                cluster: "lab", source: store,
                upgrade: Upgrade(
                    id: "u", from: "v1.10.5", to: "v1.17.17", startedMs: stepMs, finishedMs: stepMs, steps: steps,
                    detectedBy: "metrics", rolledBackMs: nil), nowMs: endMs, baselineMs: 86_400_000,
                soakMs: 86_400_000, signals: try Signal.load(YAMLDocument(text: yaml, file: "s.yaml")), ledger: [],
                logEvidence: { _ in [] }))
    }

    func result(_ signal: String) throws -> SignalResult {
        try #require(try assess("signals:\n- {\(signal)}").signals.first)
    }
}

@Suite struct ContinuityTests {
    @Test func countersUnderAnOlderName_areTheSameCounter() throws {
        let lab = OldLab()
        lab.up()
        for (name, old) in [("apiserver_request_count", true), ("apiserver_request_total", false)] {
            let base: Labels = ["__name__": name, "verb": "GET", "resource": "pods"]
            lab.counter(base.merging(["code": "200"]), old: old, job: "kube-apiserver", 98)
            lab.counter(base.merging(["code": "500"]), old: old, job: "kube-apiserver", 2)
        }
        let result = try lab.result(
            "name: e, component: kube-apiserver, kind: ratio, numerator: 'apiserver_request_total{code=~\"5..\"}', denominator: apiserver_request_total, unit: ratio, floors: {relative: 1.25, absolute: 0.001}, critical: true"
        )
        #expect(result.status == .ok)
        #expect(abs((result.baseline?.value ?? 0) - 0.02) < 0.0005)
        #expect(abs((result.soak?.value ?? 0) - 0.02) < 0.0005)
    }

    @Test func microseconds_areSeconds_andOtherBuckets_areComparedOnCommonBounds() throws {
        let lab = OldLab()
        lab.up()
        // All requests take between 125 and 250 ms; the new version has a bound more there.
        let shares: [(Bool, String, [(String, Double)])] = [
            (
                true, "apiserver_request_latencies",
                [("125000", 0), ("250000", 10), ("500000", 10), ("1e+06", 10), ("+Inf", 10)]
            ),
            (
                false, "apiserver_request_duration_seconds",
                [("0.125", 0), ("0.2", 5), ("0.25", 10), ("0.5", 10), ("1", 10), ("+Inf", 10)]
            ),
        ]
        for (old, name, buckets) in shares {
            for (le, rate) in buckets {
                lab.counter(
                    ["__name__": name + "_bucket", "verb": "GET", "le": le], old: old, job: "kube-apiserver", rate)
            }
            lab.counter(["__name__": name + "_count", "verb": "GET"], old: old, job: "kube-apiserver", 10)
            lab.counter(
                ["__name__": name + "_sum", "verb": "GET"], old: old, job: "kube-apiserver", old ? 1_800_000 : 1.8)
        }
        // The summary of the same requests, which stood beside the histogram, does not count them again.
        lab.counter(
            ["__name__": "apiserver_request_latencies_summary_count", "verb": "GET"], old: true, job: "kube-apiserver",
            10)
        lab.counter(
            ["__name__": "apiserver_request_latencies_summary_sum", "verb": "GET"], old: true, job: "kube-apiserver",
            1_800_000)
        let quantile = try lab.result(
            "name: l, component: kube-apiserver, kind: quantile, quantile: 0.5, histogram: apiserver_request_duration_seconds_bucket, unit: seconds, min_events: 1, floors: {relative: 1.05, absolute: 0.001}"
        )
        #expect(quantile.status == .ok)
        #expect(abs((quantile.baseline?.value ?? 0) - 0.1875) < 0.001)
        #expect(abs((quantile.soak?.value ?? 0) - 0.1875) < 0.001)
        let rate = try lab.result(
            "name: r, component: kube-apiserver, kind: rate, counter: apiserver_request_duration_seconds_count, unit: 1/s"
        )
        #expect(abs((rate.baseline?.value ?? 0) - 10) < 0.2)
        let seconds = try lab.result(
            "name: s, component: kube-apiserver, kind: rate, counter: apiserver_request_duration_seconds_sum, unit: 1/s"
        )
        #expect(abs((seconds.baseline?.value ?? 0) - 1.8) < 0.05 && abs((seconds.soak?.value ?? 0) - 1.8) < 0.05)
    }

    @Test func summaryThatBecameAHistogram_isComparedByItsMean() throws {
        let lab = OldLab()
        lab.up()
        let old = "kubelet_docker_operations_latency_microseconds"
        let new = "kubelet_docker_operations_duration_seconds"
        lab.counter(["__name__": old + "_count"], old: true, job: "kubelet", 10)
        lab.counter(["__name__": old + "_sum"], old: true, job: "kubelet", 200_000)
        lab.counter(["__name__": new + "_count"], old: false, job: "kubelet", 10)
        lab.counter(["__name__": new + "_sum"], old: false, job: "kubelet", 0.6)
        for (le, rate) in [("0.05", 0.0), ("0.1", 10), ("+Inf", 10)] {
            lab.counter(["__name__": new + "_bucket", "le": le], old: false, job: "kubelet", rate)
        }
        let result = try lab.result(
            "name: d, component: kubelet, kind: quantile, quantile: 0.99, histogram: \(new)_bucket, unit: seconds, min_events: 1"
        )
        #expect(result.status == .worse)
        #expect(abs((result.baseline?.value ?? 0) - 0.02) < 0.001)
        #expect(abs((result.soak?.value ?? 0) - 0.06) < 0.001)
    }

    /// Also where nothing that is asked for names a label.
    @Test(arguments: [
        "kind: gauge, expression: 'sum by (pod) (rate(container_cpu_usage_seconds_total{container=\"app\"}[5m]))', unit: cores",
        "kind: rate, counter: container_cpu_usage_seconds_total, by: [pod], unit: 1/s, floors: {relative: 1.5, absolute: 0.01}",
    ])
    func labelsUnderOlderNames_areTheSameLabels(signal: String) throws {
        let lab = OldLab()
        lab.up()
        let name = "container_cpu_usage_seconds_total"
        lab.counter(["__name__": name, "pod_name": "web-1", "container_name": "app"], old: true, job: "kubelet", 0.5)
        lab.counter(["__name__": name, "pod": "web-1", "container": "app"], old: false, job: "kubelet", 0.5)
        let result = try lab.result("name: c, component: kubelet, " + signal)
        #expect(result.status == .ok)
        #expect(abs((result.baseline?.value ?? 0) - 0.5) < 0.02)
        #expect(abs((result.soak?.value ?? 0) - 0.5) < 0.02)
    }

    /// What ran under the older name between two attempts is part of the history.
    @Test func attemptThatWasRolledBack_takesNothingFromTheBaseline() throws {
        let lab = OldLab()
        lab.up()
        var last = ""
        var value = 0.0
        for atMs in stride(from: lab.startMs, through: lab.endMs, by: 15_000) {
            let isNew = atMs >= lab.stepMs || (20..<40).contains((atMs - lab.startMs) / 60_000)
            let name = isNew ? "apiserver_request_total" : "apiserver_request_count"
            // Each process counts from zero.
            value = name == last ? value + 1500 : 1500
            last = name
            let labels: Labels = ["__name__": name, "code": "200", "job": "kube-apiserver", "instance": "i"]
            lab.store.append([(labels, value)], atMs: atMs)
        }
        let result = try lab.result(
            "name: r, component: kube-apiserver, kind: rate, counter: apiserver_request_total, unit: 1/s, floors: {relative: 1.05, absolute: 0.001}"
        )
        #expect(abs((result.baseline?.value ?? 0) - 100) < 1)
        #expect(abs((result.soak?.value ?? 0) - 100) < 1)
    }

    @Test func metricWithoutAnEqual_isChanged_andNoRegression() throws {
        let lab = OldLab()
        lab.up()
        lab.counter(["__name__": "reflector_lists_total"], old: true, job: "kubelet", 5)
        let assessment = try lab.assess(
            "signals:\n- {name: r, component: kubelet, kind: rate, counter: reflector_lists_total, unit: 1/s, direction: down}"
        )
        #expect(assessment.signals.map(\.status) == [.changed])
        #expect(assessment.signals.first?.needs?.contains("not exposed by default since 1.15") == true)
        let finding = try #require(assessment.findings.first)
        #expect(assessment.findings.count == 1 && finding.signal == "metrics_changed" && finding.isExpected)
        #expect(finding.summary == "1 metrics of kubelet are not exposed any more: removed: 1")
    }

    @Test func fates_areToldThroughAllVersionsOfTheWay() throws {
        let version = { (text: String) in try #require(KubernetesVersion(text)) }
        let continuity = MetricContinuity(path: UpgradePath(from: try version("1.25.10"), to: try version("1.33.5")))
        for (old, new) in [
            ("apiserver_request_slo_duration_seconds", "apiserver_request_sli_duration_seconds"),
            ("scheduler_pod_scheduling_duration_seconds", "scheduler_pod_scheduling_sli_duration_seconds"),
            ("etcd_db_total_size_in_bytes", "apiserver_storage_size_bytes"),
            ("scheduler_scheduler_goroutines", "scheduler_goroutines"),
        ] {
            #expect(continuity.fate(of: old).kind == .successor)
            #expect(continuity.fate(of: old).successor == new)
            #expect(continuity.predecessors(of: new).contains { $0.old == old })
        }
        #expect(continuity.fate(of: "go_memstats_lookups_total").kind == .runtime)
        #expect(continuity.fate(of: "deployment_controller_rate_limiter_use").kind == .removed)
        #expect(continuity.fate(of: "kubelet_run_podsandbox_duration_seconds").kind == .quiet)
        #expect(continuity.fate(of: "nobody_knows_it").kind == .unknown)
        // A shorter way leaves the name as it is.
        let short = MetricContinuity(path: UpgradePath(from: try version("1.25.10"), to: try version("1.26.0")))
        #expect(short.fate(of: "apiserver_request_slo_duration_seconds").kind == .quiet)
        #expect(short.fate(of: "etcd_db_total_size_in_bytes").successor == "apiserver_storage_db_total_size_in_bytes")
    }
}
