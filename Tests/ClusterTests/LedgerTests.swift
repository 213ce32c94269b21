import Cluster
import Foundation
import GRDB
import Series
import Testing

/// An observer with the tables that it fills, and words to tell it what happens.
private final class Scene {
    var observer = ClusterObserver(startMs: 900_000)
    let store: ClusterStore
    var samples = MemorySeries()

    init() throws {
        let queue = try DatabaseQueue()
        var migrator = DatabaseMigrator()
        ClusterStore.registerMigrations(&migrator)
        try migrator.migrate(queue)
        store = ClusterStore(queue)
    }

    func see(_ json: String, _ kind: String, atMs: Int64, type: String = "MODIFIED") throws {
        let line = #"{"t":1,"watch":{"type":"\#(type)","object":\#(json)}}"#
        try observeLine(line, kind, atMs: atMs)
    }

    func list(_ objects: [String], _ kind: String, version: Int, atMs: Int64) throws {
        let items = objects.joined(separator: ",")
        try observeLine(
            #"{"t":1,"list":{"metadata":{"resourceVersion":"\#(version)"},"items":[\#(items)]}}"#, kind, atMs: atMs)
    }

    private func observeLine(_ line: String, _ kind: String, atMs: Int64) throws {
        for observation in try Array(line.utf8).withUnsafeBytes({ try ObjectObservation.decode($0, kind: kind) }) {
            observer.observe(observation, atMs: atMs)
        }
    }

    func log(_ line: String, _ component: String = "kubelet", node: String = "n1", atMs: Int64) {
        Array(line.utf8).withUnsafeBytes {
            observer.observe(line: $0, component: component, node: node, atMs: atMs)
        }
    }

    /// All rows, written down as the watcher does.
    func rows(atMs: Int64 = 2_000_000) throws -> [LedgerEntry] {
        let rows = observer.takeEntries(atMs: atMs)
        observer.added(try store.write(new: rows.new, changed: rows.changed))
        observer.emit(to: samples, atMs: atMs)
        return try store.ledger(fromMs: .min, throughMs: .max)
    }

    /// What the counters of exits and evictions say, by cause.
    func counted() -> [String: Double] {
        var counts: [String: Double] = [:]
        for name in [ClusterObserver.exitsMetric, ClusterObserver.evictionsMetric] {
            let series = (try? samples.select([.equal(Labels.metricName, name)], fromMs: 0, throughMs: .max)) ?? []
            for one in series { counts[one.labels["cause"] ?? "", default: 0] += one.values.last ?? 0 }
        }
        return counts
    }
}

private let uid = "d6449aa3-ab61-454a-b989-1bfab223ef13"
private let containerID = "c0d978cb58b903bcd2ccd186ba0859dcabda4f7b17f9da80ab0a22ef81b00003"

private func pod(
    restarts: Int = 0, ended: String? = nil, exitCode: Int = 1, reason: String = "Error", owner: String = "ReplicaSet",
    hash: String = "66dc77c8bf", name: String = "web-66dc77c8bf-h22sk", uid: String = uid, version: Int = 10,
    status: String = "", annotations: String = "", policy: String = "Always"
) -> String {
    let state =
        ended.map {
            #","lastState":{"terminated":{"exitCode":\#(exitCode),"reason":"\#(reason)","finishedAt":"1970-01-01T00:16:40Z","containerID":"containerd://\#($0)"}}"#
        } ?? ""
    let ownerName = owner == "ReplicaSet" ? "web-\(hash)" : owner == "Job" ? "tick-29924178" : "web"
    return
        #"{"metadata":{"name":"\#(name)","namespace":"default","uid":"\#(uid)","resourceVersion":"\#(version)","labels":{"pod-template-hash":"\#(hash)"},"annotations":{\#(annotations)},"ownerReferences":[{"kind":"\#(owner)","name":"\#(ownerName)","controller":true}]},"spec":{"nodeName":"n1","restartPolicy":"\#(policy)"},"status":{"phase":"Running"\#(status),"containerStatuses":[{"name":"app","restartCount":\#(restarts),"state":{}\#(state)}]}}"#
}

private func event(_ reason: String, _ message: String, container: String? = "app", at: String = "00:16:39") -> String {
    let path = container.map { #","fieldPath":"spec.containers{\#($0)}""# } ?? ""
    return
        #"{"metadata":{"uid":"\#(reason)\#(at)"},"involvedObject":{"kind":"Pod","namespace":"default","name":"web-66dc77c8bf-h22sk","uid":"\#(uid)"\#(path)},"reason":"\#(reason)","message":"\#(message)","lastTimestamp":"1970-01-01T\#(at)Z"}"#
}

@Suite struct LedgerTests {
    @Test func oneEnd_isOneRow_howeverOftenAndByWhateverWayItIsTold() throws {
        let scene = try Scene()
        try scene.see(pod(), "pods", atMs: 900_000)
        for atMs: Int64 in [1_001_000, 1_002_000] {
            try scene.see(pod(restarts: 1, ended: containerID), "pods", atMs: atMs)
            scene.log(
                #"I0101 00:16:41.0 1 generic.go:296] "Generic (PLEG): container finished" podID=\#(uid) containerID="\#(containerID)" exitCode=1"#,
                atMs: atMs)
            _ = try scene.rows(atMs: atMs)
        }
        try scene.list([pod(restarts: 1, ended: containerID)], "pods", version: 20, atMs: 1_500_000)
        // A restarted kubelet tells of the end again, long after the row was closed.
        _ = try scene.rows(atMs: 1_900_000)
        scene.log(
            #"I0101 00:31:41.0 1 generic.go:358] "Generic (PLEG): container finished" podID="\#(uid)" containerID="\#(containerID)" exitCode=1"#,
            atMs: 1_901_000)
        let rows = try scene.rows()
        #expect(rows.count == 1)
        #expect(rows.first?.cause == .applicationExit)
        #expect(rows.first?.atMs == 1_000_000)
        #expect(rows.first?.workload == "web" && rows.first?.workloadKind == "Deployment")
        #expect(rows.first?.evidence.map(\.source) == [.object, .log])
        #expect(scene.counted() == ["application exit": 1])
    }

    @Test func theStrongestEvidence_isTheCause_andWhatDisagreesStays() throws {
        let scene = try Scene()
        try scene.see(pod(), "pods", atMs: 900_000)
        try scene.see(pod(restarts: 1, ended: containerID, exitCode: 0, reason: "Completed"), "pods", atMs: 1_001_000)
        #expect(try scene.rows(atMs: 1_002_000).map(\.cause) == [.applicationExit])
        try scene.see(
            event("Killing", "Container app definition changed, will be restarted"), "events", atMs: 1_003_000)
        let rows = try scene.rows()
        #expect(rows.map(\.cause) == [.definitionChanged])
        #expect(rows.first?.evidence.map(\.cause) == [.definitionChanged, .applicationExit])
        #expect(scene.counted() == ["container definition changed": 1])
    }

    @Test(arguments: [
        ("OOMKilled", 137, "Always", "ReplicaSet", LedgerCause.outOfMemory),
        ("Completed", 0, "OnFailure", "Job", .jobCompletion), ("Error", 1, "OnFailure", "Job", .applicationExit),
        ("ContainerStatusUnknown", 137, "Always", "ReplicaSet", .kubeletRestart),
    ])
    func status_tells(reason: String, code: Int, policy: String, owner: String, cause: LedgerCause) throws {
        let scene = try Scene()
        try scene.see(
            pod(restarts: 1, ended: containerID, exitCode: code, reason: reason, owner: owner, policy: policy), "pods",
            atMs: 1_001_000)
        #expect(try scene.rows().map(\.cause) == [cause])
    }

    @Test(arguments: [
        ("Container app failed liveness probe, will be restarted", LedgerCause.probeFailed),
        ("Stopping container app", .podDeleted),
        ("Killing container with id docker://app:Container spec hash changed (1 vs 2).", .definitionChanged),
    ])
    func killingEvent_tells(message: String, cause: LedgerCause) throws {
        let scene = try Scene()
        try scene.see(event("Killing", message), "events", atMs: 999_500)
        try scene.see(pod(restarts: 1, ended: containerID, exitCode: 137), "pods", atMs: 1_001_000)
        #expect(try scene.rows().map(\.cause) == [cause])
    }

    @Test func whatEndedBeforeTheWatch_isInTheLedger_andDoesNotCount() throws {
        let scene = try Scene()
        scene.observer = ClusterObserver(startMs: 1_400_000)
        try scene.see(pod(restarts: 3, ended: containerID), "pods", atMs: 1_500_000)
        #expect(try scene.rows().count == 1)
        #expect(scene.counted().isEmpty)
    }

    @Test func processThatStartsAgain_countsNothingTwice_andForgetsNothing() throws {
        let scene = try Scene()
        try scene.see(pod(restarts: 1, ended: containerID), "pods", atMs: 1_001_000)
        _ = try scene.rows()
        #expect(scene.counted() == ["application exit": 1])
        scene.observer = ClusterObserver(startMs: 900_000)
        scene.samples = MemorySeries()
        try scene.list([pod(restarts: 1, ended: containerID)], "pods", version: 3, atMs: 1_010_000)
        #expect(try scene.rows().count == 1)
        #expect(scene.counted().isEmpty)
    }

    @Test func crashLoop_isCountedByItsEnds_alsoWhereOnlyStatusesTellOfIt() throws {
        let scene = try Scene()
        let status = { (restarts: Int, state: String, last: String) in
            #"{"metadata":{"name":"p","namespace":"d","uid":"u","resourceVersion":"1"},"spec":{"nodeName":"n1"},"status":{"containerStatuses":[{"name":"app","restartCount":\#(restarts),"state":{\#(state)},"lastState":{\#(last)}}]}}"#
        }
        let ended = { (id: String) in
            #""terminated":{"exitCode":1,"reason":"Error","finishedAt":"1970-01-01T00:16:40Z","containerID":"\#(id)"}"#
        }
        let running = #""running":{}"#
        for (restarts, state, last) in [
            (0, running, ""), (0, ended("c0"), ""), (0, #""waiting":{}"#, ended("c0")), (1, running, ended("c0")),
            (1, ended("c1"), ended("c0")), (1, #""waiting":{}"#, ended("c1")), (2, running, ended("c1")),
        ] {
            try scene.see(status(restarts, state, last), "pods", atMs: 1_001_000)
        }
        #expect(try scene.rows().map(\.id).sorted() == ["c0", "c1"])
    }

    @Test func killing_explainsOneEnd_notTheCrashesAfterIt() throws {
        let scene = try Scene()
        try scene.see(pod(), "pods", atMs: 900_000)
        try scene.see(event("Killing", "Container app definition changed, will be restarted"), "events", atMs: 999_000)
        for (number, second) in [40, 45, 59].enumerated() {
            let json = pod(restarts: number + 1, ended: "c\(number)", exitCode: number == 0 ? 0 : 1)
                .replacing("00:16:40Z", with: "00:16:\(second)Z")
            try scene.see(json, "pods", atMs: 1_000_000 + Int64(number) * 7000)
        }
        #expect(try scene.rows().map(\.cause) == [.definitionChanged, .applicationExit, .applicationExit])
    }

    @Test func initContainers_areRead_andEndWell() throws {
        let scene = try Scene()
        let pod = { (code: Int, policy: String) in
            #"{"metadata":{"name":"p","namespace":"d","uid":"u\#(code)\#(policy.count)"},"spec":{"nodeName":"n1","initContainers":[{"name":"init"\#(policy)}]},"status":{"initContainerStatuses":[{"name":"init","restartCount":0,"state":{"terminated":{"exitCode":\#(code),"reason":"x","finishedAt":"1970-01-01T00:16:40Z","containerID":"c\#(code)\#(policy.count)"}}}]}}"#
        }
        try scene.see(pod(0, ""), "pods", atMs: 1_001_000)
        try scene.see(pod(3, ""), "pods", atMs: 1_001_000)
        try scene.see(pod(0, #","restartPolicy":"Always""#), "pods", atMs: 1_001_000)
        let causes = Dictionary(uniqueKeysWithValues: try scene.rows().map { ($0.id, $0.cause) })
        #expect(causes == ["c00": .jobCompletion, "c30": .applicationExit, "c025": .applicationExit])
    }

    @Test func deletionThatWasAskedFor_isTheCauseOfWhatEndsAfterIt_withoutAnyEvent() throws {
        let scene = try Scene()
        try scene.see(pod(), "pods", atMs: 900_000)
        let deleting = pod(ended: containerID, exitCode: 137).replacing(
            #""resourceVersion""#,
            with: #""deletionTimestamp":"1970-01-01T00:17:05Z","deletionGracePeriodSeconds":30,"resourceVersion""#)
        try scene.see(deleting, "pods", atMs: 1_001_000)
        #expect(try scene.rows().map(\.cause) == [.podDeleted])
        // What ended before it was asked for did so by itself.
        let early = try Scene()
        try early.see(deleting.replacing("00:17:05Z", with: "00:19:05Z"), "pods", atMs: 1_001_000)
        #expect(try early.rows().map(\.cause) == [.applicationExit])
    }

    @Test func containersOfAnEvictedPod_haveTheEvictionsCause_alsoWhenTheyEndAfterIt() throws {
        let scene = try Scene()
        try scene.see(pod(), "pods", atMs: 900_000)
        let evicted = pod(
            status: #","reason":"Evicted","message":"The node was low on resource: memory. x""#)
        try scene.see(evicted, "pods", atMs: 998_000)
        _ = try scene.rows(atMs: 998_000)
        try scene.see(event("Killing", "Stopping container app"), "events", atMs: 998_500)
        try scene.see(pod(ended: containerID, exitCode: 137), "pods", atMs: 1_001_000)
        let rows = try scene.rows()
        #expect(rows.map(\.cause) == [.pressureEviction, .pressureEviction])
        #expect(rows.map(\.detail) == ["memory", "memory"])
    }

    @Test func containerWithoutAnID_isARow_once() throws {
        let scene = try Scene()
        let lost = pod(restarts: 1, ended: "x", exitCode: 137, reason: "ContainerStatusUnknown")
            .replacing(#","containerID":"containerd://x""#, with: "")
        try scene.see(pod(), "pods", atMs: 900_000)
        for atMs: Int64 in [1_001_000, 1_002_000] { try scene.see(lost, "pods", atMs: atMs) }
        let rows = try scene.rows()
        #expect(rows.map(\.id) == ["\(uid):app:0"])
        #expect(rows.map(\.cause) == [.kubeletRestart] && rows.first?.exitCode == 137)
    }

    @Test func staticPod_isOneForItsKubeletAndForTheAPI() throws {
        let scene = try Scene()
        let hash = "0123456789abcdef0123456789abcdef"
        let mirror = { (uid: String, hash: String) in
            pod(
                owner: "Node", name: "etcd-n1", uid: uid,
                annotations: #""kubernetes.io/config.mirror":"m","kubernetes.io/config.hash":"\#(hash)""#)
        }
        try scene.see(mirror("u1", hash), "pods", atMs: 900_000)
        scene.log(
            #"I1 kuberuntime_container.go:864] "Killing container with a grace period" pod="kube-system/etcd-n1" podUID="\#(hash)" containerName="app" containerID="containerd://\#(containerID)" gracePeriod=30"#,
            atMs: 1_000_000)
        scene.log(
            #"I1 generic.go:358] "Generic (PLEG): container finished" podID="\#(hash)" containerID="\#(containerID)" exitCode=0"#,
            atMs: 1_000_500)
        try scene.see(mirror("u1", hash), "pods", atMs: 1_001_000, type: "DELETED")
        try scene.see(mirror("u2", "ffff"), "pods", atMs: 1_002_000)
        let rows = try scene.rows()
        #expect(rows.map(\.cause) == [.staticPodChanged, .staticPodChanged])
        #expect(rows.allSatisfy { $0.podUID == "u1" && $0.workloadKind == "StaticPod" })
    }

    @Test func evictedByOthers_isNoPressure_andARequestRemovesOnePod() throws {
        let scene = try Scene()
        try scene.see(pod(), "pods", atMs: 900_000)
        let karpenter = event("Evicted", "Evicted pod: Drifted", container: nil)
            .replacing(#""reason""#, with: #""source":{"component":"karpenter"},"reason""#)
        try scene.see(karpenter, "events", atMs: 999_000)
        #expect(try scene.rows().isEmpty)
        let request = { (query: String) in
            #"{"kind":"Event","stage":"ResponseComplete","requestURI":"/x\#(query)","verb":"create","user":{"username":"admin"},"objectRef":{"resource":"pods","namespace":"default","name":"db-0","subresource":"eviction"},"responseStatus":{"code":201}}"#
        }
        let again = try Scene()
        for uid in ["a", "b", "c"] {
            let atMs: Int64 = uid == "a" ? 1_000_000 : uid == "b" ? 1_060_000 : 1_120_000
            try again.see(pod(name: "db-0", uid: uid), "pods", atMs: atMs - 50_000)
            if uid == "a" { again.log(request(""), "audit", atMs: atMs - 1000) }
            if uid == "c" { again.log(request("?dryRun=All"), "audit", atMs: atMs - 1000) }
            try again.see(pod(name: "db-0", uid: uid), "pods", atMs: atMs, type: "DELETED")
        }
        #expect(try again.rows().map(\.cause) == [.apiEviction, .podDeleted, .podDeleted])
    }

    @Test func withoutEvents_theStepOfTheNodeTells_once() throws {
        let node = { (version: String) in
            #"{"metadata":{"name":"n1"},"status":{"nodeInfo":{"kubeletVersion":"\#(version)"}}}"#
        }
        for (to, cause) in [("v1.31.0", LedgerCause.definitionChanged), ("v1.30.5", .applicationExit)] {
            let scene = try Scene()
            try scene.see(node("v1.30.0"), "nodes", atMs: 900_000)
            try scene.see(pod(), "pods", atMs: 900_000)
            try scene.see(pod(restarts: 1, ended: "c0", exitCode: 0, reason: "Completed"), "pods", atMs: 1_001_000)
            try scene.see(node(to), "nodes", atMs: 1_003_000)
            let again = pod(restarts: 2, ended: "c1", exitCode: 137).replacing("00:16:40Z", with: "00:16:59Z")
            try scene.see(again, "pods", atMs: 1_020_000)
            #expect(try scene.rows().map(\.cause) == [cause, .applicationExit])
        }
    }

    @Test func absurdNumbers_areTaken() throws {
        let scene = try Scene()
        for count in [Int.min, 0, Int.max, 3] {
            let json = pod(restarts: count, ended: containerID)
                .replacing(#""state":{}"#, with: #""state":{"terminated":{"exitCode":\#(count)}}"#)
            try scene.see(json, "pods", atMs: 1_001_000)
        }
        #expect(try scene.rows().count > 0)
    }

    // MARK: Removals

    @Test(arguments: [
        ("DeletionByTaintManager", LedgerCause.taintEviction), ("EvictionByEvictionAPI", .apiEviction),
        ("PreemptionByScheduler", .preemption), ("DeletionByPodGC", .podGarbageCollected),
    ])
    func disruptionTarget_tellsWhoRemovedAPod(reason: String, cause: LedgerCause) throws {
        let scene = try Scene()
        try scene.see(pod(), "pods", atMs: 900_000)
        let condition = #","conditions":[{"type":"DisruptionTarget","status":"True","reason":"\#(reason)"}]"#
        try scene.see(pod(status: condition), "pods", atMs: 1_000_000)
        try scene.see(pod(status: condition), "pods", atMs: 1_030_000, type: "DELETED")
        let rows = try scene.rows()
        #expect(rows.map(\.cause) == [cause])
        #expect(rows.map(\.kind) == [cause == .podGarbageCollected ? .deletion : .eviction])
        #expect(rows.map(\.atMs) == [1_000_000])
    }

    @Test func evictionFromACordonedNode_isADrain_andItsContainersEndsAreItsToo() throws {
        let scene = try Scene()
        try scene.see(pod(), "pods", atMs: 900_000)
        try scene.see(#"{"metadata":{"name":"n1"},"spec":{"unschedulable":true}}"#, "nodes", atMs: 950_000)
        scene.log(
            #"{"kind":"Event","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/default/pods/web-66dc77c8bf-h22sk/eviction","verb":"create","user":{"username":"admin","groups":[]},"userAgent":"kubectl","objectRef":{"resource":"pods","namespace":"default","name":"web-66dc77c8bf-h22sk","apiVersion":"v1","subresource":"eviction"},"responseStatus":{"metadata":{},"status":"Success","code":201}}"#,
            "audit", node: "master", atMs: 998_000)
        try scene.see(event("Killing", "Stopping container app"), "events", atMs: 999_000)
        try scene.see(pod(ended: containerID, exitCode: 0, reason: "Completed"), "pods", atMs: 1_001_000)
        try scene.see(pod(), "pods", atMs: 1_002_000, type: "DELETED")
        let rows = try scene.rows()
        #expect(rows.map(\.kind) == [.exit, .eviction])
        #expect(rows.map(\.cause) == [.drain, .drain])
        #expect(rows.last?.detail == "admin")
        #expect(rows.first?.isRestart == false)
    }

    @Test func pressureEviction_namesItsResource() throws {
        let scene = try Scene()
        try scene.see(pod(), "pods", atMs: 900_000)
        try scene.see(
            pod(
                status:
                    #","reason":"Evicted","message":"The node was low on resource: memory. Threshold quantity: 100Mi""#
            ), "pods", atMs: 1_000_000)
        try scene.see(
            event("Evicted", "The node was low on resource: memory.", container: nil), "events", atMs: 1_001_000)
        let rows = try scene.rows()
        #expect(rows.map(\.cause) == [.pressureEviction] && rows.map(\.detail) == ["memory"])
        #expect(scene.counted() == ["pressure eviction": 1])
    }

    @Test func taintManager_andItsSuccessor_areKnownByTheirLines() throws {
        for line in [
            #"I1 taint_manager.go:107] "NoExecuteTaintManager is deleting pod" pod="default/web-66dc77c8bf-h22sk""#,
            "I1 taint_manager.go:107] NoExecuteTaintManager is deleting Pod: default/web-66dc77c8bf-h22sk",
            #"I1 taint_eviction.go:111] "Deleting pod" logger="taint-eviction-controller" controller="taint-eviction-controller" pod="default/web-66dc77c8bf-h22sk""#,
        ] {
            let scene = try Scene()
            try scene.see(pod(), "pods", atMs: 900_000)
            scene.log(line, "kube-controller-manager", node: "master", atMs: 999_000)
            try scene.see(pod(), "pods", atMs: 1_000_000, type: "DELETED")
            #expect(try scene.rows().map(\.cause) == [.taintEviction])
        }
        let scene = try Scene()
        try scene.see(
            event("TaintManagerEviction", "Cancelling deletion of Pod", container: nil), "events", atMs: 1_000_000)
        #expect(try scene.rows().isEmpty)
    }

    @Test func newTemplateHash_isARollout() throws {
        let scene = try Scene()
        try scene.see(pod(), "pods", atMs: 900_000)
        try scene.see(pod(hash: "5f9d8c7b64", name: "web-5f9d8c7b64-x2x2x", uid: "u2"), "pods", atMs: 1_000_000)
        try scene.see(pod(), "pods", atMs: 1_005_000, type: "DELETED")
        #expect(try scene.rows().map(\.cause) == [.rollout])
    }

    @Test func changedManifest_ofAStaticPod_isTold() throws {
        let scene = try Scene()
        let static1 = #""kubernetes.io/config.mirror":"a","kubernetes.io/config.hash":"a""#
        let static2 = #""kubernetes.io/config.mirror":"b","kubernetes.io/config.hash":"b""#
        try scene.see(pod(owner: "Node", name: "etcd-m1", annotations: static1), "pods", atMs: 900_000)
        try scene.see(
            pod(owner: "Node", name: "etcd-m1", annotations: static1), "pods", atMs: 1_000_000, type: "DELETED")
        #expect(try scene.rows(atMs: 1_000_500).map(\.cause) == [.podDeleted])
        try scene.see(pod(owner: "Node", name: "etcd-m1", uid: "u2", annotations: static2), "pods", atMs: 1_001_000)
        #expect(try scene.rows().map(\.cause) == [.staticPodChanged])
    }

    @Test func podThatIsMissingFromAList_isGone_butNotOneThatIsNewerThanTheList() throws {
        let scene = try Scene()
        try scene.see(pod(version: 10), "pods", atMs: 900_000)
        try scene.see(pod(name: "web-66dc77c8bf-zzzzz", uid: "u2", version: 30), "pods", atMs: 900_000)
        try scene.list([], "pods", version: 20, atMs: 1_000_000)
        #expect(try scene.rows().map(\.podUID) == [uid])
    }

    @Test func reboot_explainsLostContainers() throws {
        let scene = try Scene()
        let node = { (boot: String) in
            #"{"metadata":{"name":"n1"},"status":{"nodeInfo":{"kubeletVersion":"v1.2.3","bootID":"\#(boot)"}}}"#
        }
        try scene.see(node("one"), "nodes", atMs: 900_000)
        try scene.see(pod(), "pods", atMs: 900_000)
        try scene.see(node("two"), "nodes", atMs: 1_100_000)
        try scene.see(
            event("SandboxChanged", "Pod sandbox changed", container: nil, at: "00:18:20"), "events", atMs: 1_101_000)
        try scene.see(pod(restarts: 1, ended: containerID, exitCode: 255, reason: "Unknown"), "pods", atMs: 1_102_000)
        #expect(try scene.rows().map(\.cause) == [.nodeReboot])
    }

    // MARK: Logs alone

    @Test func logsAlone_tellExits_sandboxesAreNone() throws {
        let scene = try Scene()
        let sandbox = String(repeating: "ab", count: 32)
        scene.log(
            #"I1123 16:18:14.184101 1 generic.go:296] "Generic (PLEG): container finished" podID=\#(uid) containerID="\#(containerID)" exitCode=1"#,
            atMs: 1_000_000)
        for id in [containerID, sandbox] {
            scene.log(
                #"I1123 16:18:14.184181 1 kubelet.go:2157] "SyncLoop (PLEG): event for pod" pod="default/flaky-66dc77c8bf-h22sk" event=&{ID:\#(uid) Type:ContainerDied Data:\#(id)}"#,
                atMs: 1_000_000)
        }
        scene.log(
            #"E1123 16:18:14.185814 1 pod_workers.go:965] "Error syncing pod, skipping" err="failed to \"StartContainer\" for \"flaky\" with CrashLoopBackOff: \"back-off 1m20s restarting failed container=flaky pod=flaky-66dc77c8bf-h22sk_default(\#(uid))\"" pod="default/flaky-66dc77c8bf-h22sk" podUID=\#(uid)"#,
            atMs: 1_000_001)
        let rows = try scene.rows()
        #expect(rows.count == 1)
        #expect(rows.first?.cause == .applicationExit && rows.first?.exitCode == 1)
        #expect(rows.first?.namespace == "default" && rows.first?.pod == "flaky-66dc77c8bf-h22sk")
        #expect(rows.first?.container == "flaky" && rows.first?.node == "n1")
        #expect(rows.first?.workloadKind == "Deployment" && rows.first?.workload == "flaky")
    }

    @Test func oldKubelets_wordsAreKnown() throws {
        let scene = try Scene()
        scene.log(
            #"I0101 1 kuberuntime_manager.go:513] Container "web" ({"docker" "\#(containerID)"}) of pod web-1_shop(\#(uid)): Container spec hash changed (123 vs 456).. Container will be killed and recreated."#,
            atMs: 1_000_000)
        scene.log(
            #"I0101 1 kubelet.go:1919] SyncLoop (PLEG): "web-1_shop(\#(uid))", event: &pleg.PodLifecycleEvent{ID:"\#(uid)", Type:"ContainerDied", Data:"\#(containerID)"}"#,
            atMs: 1_001_000)
        let rows = try scene.rows()
        #expect(rows.map(\.cause) == [.definitionChanged])
        #expect(rows.first?.pod == "web-1" && rows.first?.namespace == "shop" && rows.first?.container == "web")
    }

    @Test func evictionManager_namesPodAndResource() throws {
        let scene = try Scene()
        scene.log(
            #"W1 eviction_manager.go:361] "Eviction manager: attempting to reclaim" resourceName="memory""#,
            atMs: 999_000)
        scene.log(
            #"I1 eviction_manager.go:592] "Eviction manager: pod is evicted successfully" pod="default/web-66dc77c8bf-h22sk""#,
            atMs: 1_000_000)
        let rows = try scene.rows()
        #expect(rows.map(\.kind) == [.eviction] && rows.map(\.detail) == ["memory"])
    }

    @Test func ledgerOfTheFirstLayout_isKept() throws {
        let queue = try DatabaseQueue()
        var migrator = DatabaseMigrator()
        ClusterStore.registerMigrations(&migrator)
        try migrator.migrate(queue, upTo: "cluster-1")
        try queue.write { db in
            try db.execute(
                sql: """
                    INSERT INTO ledger VALUES ('exit', 'u', 'app', 'containerd://abc', 5, 'n', 'ns', 'p', 'Deployment',
                        'w', 1, 'Error', 'application exit', '["object: pod ns/p: exit code 1"]')
                    """)
        }
        try migrator.migrate(queue)
        let row = try #require(try ClusterStore(queue).ledger(fromMs: 0, throughMs: 9).first)
        #expect(row.id == "abc" && row.cause == .applicationExit)
        #expect(row.evidence == [LedgerEvidence(source: .object, text: "pod ns/p: exit code 1", cause: nil)])
    }

    @Test func marks_areKeptOnce() throws {
        let scene = try Scene()
        let mark = UpgradeMark(kind: .finish, atMs: 5)
        try scene.store.add(mark)
        try scene.store.add(mark)
        #expect(try scene.store.marks() == [mark])
    }
}

@Suite struct ExpectationTests {
    private func upgrade(_ from: String, _ to: String) -> Upgrade {
        Upgrade(
            id: "u", from: from, to: to, startedMs: 0, finishedMs: 1_000_000,
            steps: [
                UpgradeStep(
                    atMs: 500_000, component: "kubelet", instance: nil, node: "n1", from: from, to: to, batch: 1)
            ], detectedBy: "metrics", rolledBackMs: nil)
    }

    private func exit(_ container: String, node: String = "n1", atMs: Int64) -> LedgerEntry {
        LedgerEntry(
            kind: .exit, atMs: atMs, node: node, podUID: "p", container: container, containerID: "\(container)\(atMs)",
            cause: .definitionChanged)
    }

    @Test func oneRestartPerContainer_whereTheHashChanges_isExpected() {
        let rows = [
            exit("a", atMs: 480_000), exit("b", atMs: 510_000), exit("a", atMs: 520_000),
            exit("c", node: "n2", atMs: 520_000), exit("d", atMs: 500_000 + 1_000_000), exit("e", atMs: 100_000),
        ]
        let judged = Expectation(upgrade: upgrade("v1.30.2", "v1.31.0")).judge(rows)
        #expect(judged.map(\.isExpected) == [true, true, false, false, false, false])
        #expect(judged[2].why.contains("once is expected"))
        #expect(judged[3].why == "n2 was not upgraded")
        #expect(judged[4].why == "it came 16m after the step of n1")
        #expect(judged[5].why == "it came before the step of n1")
        // The way back computes the old hash again.
        #expect(Expectation(upgrade: upgrade("v1.31.0", "v1.30.2")).judge([rows[0]]).map(\.isExpected) == [true])
        let none = Expectation(upgrade: upgrade("v1.31.0", "v1.33.5")).judge([rows[0]])
        #expect(none.map(\.isExpected) == [false])
    }

    @Test func whatWorkloadsDo_isExpected_whatHurtsThem_isNot() {
        let judge = { (cause: LedgerCause) in
            Expectation(upgrade: upgrade("v1.30.2", "v1.31.0")).judge([
                LedgerEntry(kind: .exit, atMs: 500_000, node: "n1", podUID: "p", container: "c", cause: cause)
            ]).first?.isExpected
        }
        for cause: LedgerCause in [.jobCompletion, .rollout, .podDeleted, .drain, .nodeReboot, .staticPodChanged] {
            #expect(judge(cause) == true, "\(cause)")
        }
        for cause: LedgerCause in [.outOfMemory, .applicationExit, .taintEviction, .pressureEviction, .preemption] {
            #expect(judge(cause) == false, "\(cause)")
        }
    }
}
