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
