import Cluster
import Foundation
import GRDB
import Series
import Testing

private func sighting(
    _ atMs: Int64, _ component: String, _ version: String, node: String? = nil, origin: String = "metrics"
) -> VersionSighting {
    VersionSighting(
        atMs: atMs, component: component, instance: node == nil ? "m:1" : "\(node ?? ""):10250", node: node,
        version: version, origin: origin)
}

@Suite struct TrackerTests {
    @Test func stepsBatchesAndTheEnd_areFound() throws {
        var tracker = UpgradeTracker()
        let minute: Int64 = 60_000
        for (at, api, first, second) in [
            (1, "v1.25.1", "v1.25.1", "v1.25.1"), (2, "v1.33.5", "v1.25.1", "v1.25.1"),
            (3, "v1.33.5", "v1.33.5", "v1.25.1"), (20, "v1.33.5", "v1.33.5", "v1.33.5"),
        ] {
            let atMs = Int64(at) * minute
            tracker.observe(sighting(atMs, "kube-apiserver", api))
            tracker.observe(sighting(atMs, "kubelet", first, node: "n1"))
            tracker.observe(sighting(atMs, "kubelet", second, node: "n2"))
        }
        let upgrade = try #require(tracker.upgrades.first)
        #expect(tracker.upgrades.count == 1)
        #expect(upgrade.from == "v1.25.1" && upgrade.to == "v1.33.5")
        #expect(upgrade.steps.map(\.component) == ["kube-apiserver", "kubelet", "kubelet"])
        #expect(upgrade.steps.map(\.batch) == [1, 2, 3])
        #expect(upgrade.steps.map(\.atMs) == [2 * minute, 3 * minute, 20 * minute])
        #expect(upgrade.finishedMs == 20 * minute)
        #expect(upgrade.phase(atMs: 19 * minute, soakMs: minute) == .upgrading)
        #expect(upgrade.phase(atMs: 20 * minute, soakMs: minute) == .soaking)
        #expect(upgrade.phase(atMs: 21 * minute, soakMs: minute) == .done)
    }

    /// A step is when the new process began, where that can be: between the last sight of the old version and the first of
    /// the new one.
    @Test(arguments: [(95, 95), (60, 60), (58, 180), (181, 180), (nil, 180)] as [(Int64?, Int64)])
    func step_isWhenTheProcessBegan(started: Int64?, step: Int64) throws {
        let source = MemorySeries()
        let labels: Labels = ["job": "apiserver", "instance": "10.0.0.1:6443"]
        for (atMs, version, startedMs) in [(59, "v1.32.1", 1), (180, "v1.33.5", started)] as [(Int64, String, Int64?)] {
            var named = labels
            named["__name__"] = "kubernetes_build_info"
            named["git_version"] = version
            _ = source.append([(named, 1)], atMs: atMs * 1000)
            guard let startedMs else { continue }
            var start = labels
            start["__name__"] = "process_start_time_seconds"
            _ = source.append([(start, Double(startedMs) + 0.25)], atMs: atMs * 1000)
        }
        var tracker = UpgradeTracker()
        try tracker.follow(source, marks: [], throughMs: 200_000)
        let upgrade = try #require(tracker.upgrades.first)
        let wanted = step == 180 ? 180_000 : step * 1000 + 250
        #expect(upgrade.steps.map(\.atMs) == [wanted] && upgrade.startedMs == wanted)
    }

    @Test func targetAndObject_tellOfOneStep_whoeverComesFirst() {
        var tracker = UpgradeTracker()
        tracker.observe(sighting(0, "kubelet", "v1", node: "n", origin: "objects"))
        tracker.observe(sighting(1000, "kubelet", "v2", node: "n"))
        tracker.observe(sighting(2000, "kubelet", "v1", node: "n", origin: "objects"))
        tracker.observe(sighting(40_000, "kubelet", "v2", node: "n", origin: "objects"))
        tracker.observe(sighting(45_000, "kubelet", "v2", node: "n"))
        #expect(tracker.upgrades.map(\.steps.count) == [1])
    }

    @Test func goingBack_isARollback() {
        var tracker = UpgradeTracker()
        for (at, version) in [(0, "v1.25.0"), (1, "v1.26.0"), (300, "v1.25.0")] {
            tracker.observe(sighting(Int64(at) * 1000, "kube-apiserver", version))
        }
        #expect(tracker.upgrades.count == 1)
        #expect(tracker.upgrades[0].rolledBackMs == 300_000)
        #expect(tracker.upgrades[0].phase(atMs: 400_000, soakMs: 1) == .rolledBack)
    }

    @Test func marks_countOnce_andDoNotDoubleWhatWasSeen() {
        var tracker = UpgradeTracker()
        tracker.observe(sighting(0, "kubelet", "v1.1.0", node: "n"))
        let start = UpgradeMark(kind: .start, atMs: 500, from: "v1.1.0", to: "v1.2.0")
        tracker.observe(start)
        tracker.observe(start)
        tracker.observe(sighting(1000, "kubelet", "v1.2.0", node: "n"))
        tracker.observe(UpgradeMark(kind: .step, atMs: 2000, component: "kubelet", node: "n"))
        tracker.observe(UpgradeMark(kind: .step, atMs: 3000, component: "kube-proxy", node: "n", to: "v1.2.0"))
        tracker.observe(UpgradeMark(kind: .finish, atMs: 4000))
        #expect(tracker.upgrades.count == 1)
        #expect(tracker.upgrades[0].startedMs == 500)
        #expect(tracker.upgrades[0].steps.map(\.component) == ["kubelet", "kube-proxy"])
        #expect(tracker.upgrades[0].finishedMs == 4000)
    }

    @Test func state_goesThroughJSON() throws {
        var tracker = UpgradeTracker()
        tracker.observe(sighting(0, "kubelet", "v1.1.0", node: "n"))
        var copy = try JSONDecoder().decode(UpgradeTracker.self, from: JSONEncoder().encode(tracker))
        tracker.observe(sighting(1000, "kubelet", "v1.2.0", node: "n"))
        copy.observe(sighting(1000, "kubelet", "v1.2.0", node: "n"))
        #expect(copy.upgrades == tracker.upgrades)
        #expect(copy.upgrades.count == 1)
    }

    @Test func versions_areOrderedByNumbers() throws {
        let parse = { (text: String) in try #require(KubernetesVersion(text)) }
        #expect(try parse("v1.9.3") < parse("1.10.0"))
        #expect(try parse("v1.27.3-gke.100").minor == 27)
        #expect(KubernetesVersion("nonsense") == nil)
        #expect(try KubernetesVersion.path(from: parse("v1.25.0"), to: parse("v1.33.5"), crosses: parse("1.31")))
        #expect(try !KubernetesVersion.path(from: parse("v1.31.0"), to: parse("v1.33.5"), crosses: parse("1.31")))
    }
}

@Suite struct SightingTests {
    private let minute: Int64 = 60_000

    private func append(_ store: MemorySeries, _ labels: Labels, _ minutes: ClosedRange<Int64>) {
        for at in minutes { store.append([(labels, 1)], atMs: at * minute) }
    }

    @Test func controlPlane_isToldByPodsAndTargets_memberByMember_once() throws {
        let store = MemorySeries()
        for (node, address) in [("m1", "10.0.0.1"), ("m2", "10.0.0.2")] {
            append(
                store,
                [
                    "__name__": "upgrade_watch_node_info", "node": node, "internal_ip": address,
                    "kubelet_version": "v1.30.1",
                ],
                0...60)
        }
        for (node, address, step) in [("m1", "10.0.0.1", Int64(10)), ("m2", "10.0.0.2", 20)] {
            let pod: Labels = [
                "__name__": "upgrade_watch_static_pod_info", "component": "kube-apiserver", "node": node,
            ]
            append(store, pod.merging(["image": "registry.k8s.io/kube-apiserver:v1.30.1"]), 0...(step - 1))
            append(store, pod.merging(["image": "registry.k8s.io/kube-apiserver:v1.31.0"]), step...60)
            let target: Labels = [
                "__name__": "kubernetes_build_info", "job": "kube-apiserver", "instance": "\(address):6443",
            ]
            append(store, target.merging(["git_version": "v1.30.1"]), 0...step)
            append(store, target.merging(["git_version": "v1.31.0"]), (step + 1)...60)
        }
        var tracker = UpgradeTracker()
        try tracker.follow(store, marks: [], throughMs: 60 * minute)
        let upgrade = try #require(tracker.upgrades.first)
        #expect(upgrade.steps.map(\.node) == ["m1", "m2"])
        #expect(upgrade.steps.map { $0.atMs / minute } == [10, 20])
        #expect(upgrade.steps.map(\.batch) == [1, 2])
        #expect(upgrade.finishedMs == nil)
        #expect(upgrade.phase(atMs: 30 * minute, soakMs: minute) == .upgrading)
        #expect(upgrade.phase(atMs: 51 * minute, soakMs: minute) == .paused)
    }

    @Test func rollback_isUnderWay_untilNothingHasTheNewVersion() {
        var tracker = UpgradeTracker()
        for (at, first, second) in [
            (0, "v1.30.0", "v1.30.0"), (1, "v1.33.1", "v1.30.0"), (2, "v1.33.1", "v1.33.1"), (8, "v1.30.0", "v1.33.1"),
            (9, "v1.30.0", "v1.30.0"),
        ] as [(Int64, String, String)] {
            tracker.observe(sighting(at * minute, "kubelet", first, node: "n1"))
            tracker.observe(sighting(at * minute, "kubelet", second, node: "n2"))
        }
        #expect(tracker.upgrades.count == 1)
        let upgrade = tracker.upgrades[0]
        #expect(upgrade.from == "v1.30.0" && upgrade.to == "v1.33.1")
        #expect(upgrade.phase(atMs: 8 * minute, soakMs: minute) == .rollingBack)
        #expect(upgrade.phase(atMs: 9 * minute, soakMs: minute) == .rolledBack)
    }

    @Test func extension_makesTheSoakLonger_alsoOnceItIsOver() throws {
        var tracker = UpgradeTracker()
        tracker.observe(UpgradeMark(kind: .start, atMs: 0, from: "v1.32.1", to: "v1.33.5"))
        tracker.observe(UpgradeMark(kind: .finish, atMs: 10 * minute))
        #expect(tracker.upgrades[0].phase(atMs: 40 * minute, soakMs: 30 * minute) == .done)
        let mark = UpgradeMark(kind: .extend, atMs: 45 * minute, byMs: 60 * minute)
        tracker.observe(mark)
        tracker.observe(mark)
        #expect(tracker.upgrades[0].phase(atMs: 99 * minute, soakMs: 30 * minute) == .soaking)
        #expect(tracker.upgrades[0].soakUntilMs(soakMs: 30 * minute) == 100 * minute)
        // Again at another time: by as much once more.
        tracker.observe(UpgradeMark(kind: .extend, atMs: 46 * minute, byMs: 60 * minute))
        #expect(tracker.upgrades[0].phase(atMs: 159 * minute, soakMs: 30 * minute) == .soaking)
        #expect(tracker.upgrades[0].phase(atMs: 160 * minute, soakMs: 30 * minute) == .done)
    }

    @Test func skew_isToldByThePolicy() {
        let told = { (versions: [(String, String)]) in
            UpgradeTracker.skew(
                of: versions.enumerated().map { sighting(0, $1.0, $1.1, node: "n\($0)") })
        }
        #expect(told([("kube-apiserver", "v1.30.0"), ("kubelet", "v1.27.0"), ("kube-scheduler", "v1.29.0")]).isEmpty)
        #expect(
            told([("kube-apiserver", "v1.33.5"), ("kubelet", "v1.25.10")]) == [
                "kubelet n1 of v1.25.10 is older than an API server of v1.33.5 allows: at most 3 minor versions"
            ])
        #expect(
            told([("kube-apiserver", "v1.27.0"), ("kubelet", "v1.28.0")])
                == ["kubelet n1 of v1.28.0 is newer than the API server of v1.27.0"])
        #expect(told([("kube-apiserver", "v1.27.0"), ("kubelet", "v1.24.0")]).count == 1)
        #expect(told([("kube-apiserver", "v1.27.0"), ("kube-apiserver", "v1.29.0")]).count == 1)
    }
}
