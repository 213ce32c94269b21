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

@Suite struct ObserverTests {
    private func observe(_ observer: inout ClusterObserver, _ json: String, _ kind: String, atMs: Int64) throws {
        let observation = try Array(json.utf8).withUnsafeBytes { try ObjectObservation.decode($0, kind: kind) }
        observer.observe(observation, atMs: atMs)
    }

    private func pod(
        _ restarts: Int, ended: String?, exitCode: Int = 1, reason: String = "Error",
        at: String = "1970-01-01T00:16:40Z"
    ) -> String {
        let state =
            ended.map {
                #","lastState":{"terminated":{"exitCode":\#(exitCode),"reason":"\#(reason)","finishedAt":"\#(at)","containerID":"\#($0)"}}"#
            } ?? ""
        return
            #"{"t":1,"watch":{"type":"MODIFIED","object":{"metadata":{"name":"web-abc-x","namespace":"default","uid":"u1","labels":{"pod-template-hash":"abc"},"ownerReferences":[{"kind":"ReplicaSet","name":"web-abc","controller":true}]},"spec":{"nodeName":"n1"},"status":{"containerStatuses":[{"name":"app","restartCount":\#(restarts),"state":{}\#(state)}]}}}}"#
    }

    @Test func oneEnd_isOneRow_howeverOftenItIsTold() throws {
        var observer = ClusterObserver()
        try observe(&observer, pod(0, ended: nil), "pods", atMs: 900_000)
        for atMs: Int64 in [1_001_000, 1_002_000, 1_003_000] {
            try observe(&observer, pod(1, ended: "c1"), "pods", atMs: atMs)
        }
        #expect(observer.takeEntries(atMs: 1_005_000).isEmpty)
        let rows = observer.takeEntries(atMs: 1_020_000)
        #expect(rows.count == 1)
        #expect(rows.first?.cause == .applicationExit)
        #expect(rows.first?.workload == "web" && rows.first?.workloadKind == "Deployment")
        #expect(observer.takeEntries(atMs: 1_040_000).isEmpty)
    }

    @Test func eventThatTellsWhy_isTheCause_alsoWhenItComesLate() throws {
        var observer = ClusterObserver()
        try observe(&observer, pod(0, ended: nil), "pods", atMs: 900_000)
        try observe(&observer, pod(1, ended: "c1", exitCode: 0, reason: "Completed"), "pods", atMs: 1_001_000)
        try observe(
            &observer,
            #"{"t":1,"watch":{"type":"ADDED","object":{"metadata":{"uid":"e"},"involvedObject":{"kind":"Pod","uid":"u1","fieldPath":"spec.containers{app}"},"reason":"Killing","message":"Container app definition changed, will be restarted","lastTimestamp":"1970-01-01T00:16:39Z"}}}"#,
            "events", atMs: 1_002_000)
        let rows = observer.takeEntries(atMs: 1_020_000)
        #expect(rows.map(\.cause) == [.definitionChanged])
        #expect(
            rows.first?.evidence.contains("event: Killing Container app definition changed, will be restarted") == true)
    }

    @Test func whatEndedBeforeTheWatch_isHistory() throws {
        var observer = ClusterObserver()
        try observe(&observer, pod(3, ended: "c0"), "pods", atMs: 1_500_000)
        #expect(observer.takeEntries(atMs: 2_000_000).isEmpty)
    }

    @Test func outOfMemory_isTold() throws {
        var observer = ClusterObserver()
        try observe(&observer, pod(0, ended: nil), "pods", atMs: 900_000)
        try observe(&observer, pod(1, ended: "c1", exitCode: 137, reason: "OOMKilled"), "pods", atMs: 1_001_000)
        #expect(observer.takeEntries(atMs: 1_020_000).map(\.cause) == [.outOfMemory])
    }

    @Test func ledger_keepsARowOnce() throws {
        let queue = try DatabaseQueue()
        var migrator = DatabaseMigrator()
        ClusterStore.registerMigrations(&migrator)
        try migrator.migrate(queue)
        let store = ClusterStore(queue)
        var observer = ClusterObserver()
        try observe(&observer, pod(0, ended: nil), "pods", atMs: 900_000)
        try observe(&observer, pod(1, ended: "c1"), "pods", atMs: 1_001_000)
        let rows = observer.takeEntries(atMs: 1_020_000)
        try store.add(rows)
        try store.add(rows)
        #expect(try store.ledger(fromMs: 0, throughMs: .max) == rows)
        let mark = UpgradeMark(kind: .finish, atMs: 5)
        try store.add(mark)
        try store.add(mark)
        #expect(try store.marks() == [mark])
    }
}
