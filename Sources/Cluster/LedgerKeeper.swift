import Foundation
import Series

/// Brings together what objects, events, logs and audited requests tell of one end, and decides on its cause.
///
/// A pure state machine. Reports of one end may come by every way, in any order, and again: they make one row. A row
/// is given out at once, so that nothing is lost, and again whenever later evidence changes it; after ``settleMs`` it
/// counts with the cause that it then has.
struct LedgerKeeper {
    struct ContainerKey: Hashable {
        var podUID: String
        var container: String
    }

    /// A pod as far as the ledger needs it.
    private struct Pod {
        var namespace: String
        var name: String
        var node: String
        var workloadKind: String
        var workload: String
        /// Whether its containers are not started again when they end well.
        var endsByItself: Bool
        var isFinished = false
        /// The hash of the template that it was made from, or of the manifest of a static pod.
        var revision: String?
        var isStatic: Bool
        var resourceVersion: UInt64?
        /// The containers whose end is known, by their IDs.
        var ended: [String] = []
        /// How many ends its containers' statuses have told of.
        var ends: [String: Int] = [:]
    }

    private struct Draft {
        var entry: LedgerEntry
        var evidence: [LedgerEvidence]
        var firstSeenMs: Int64
        /// Whether the time is the runtime's own, not that of a report.
        var isTimeExact: Bool
        /// Whether it was given out to be written down.
        var isGiven = false
        /// Whether the ledger did not have it before.
        var isNew = false
        var isCounted = false
        var isChanged = true
    }

    /// Evidence that waits for the end that it speaks of.
    private struct Hint {
        var atMs: Int64
        var evidence: LedgerEvidence
    }

    /// What happened on a node that ends many containers at once.
    private struct NodeChange {
        var atMs: Int64
        var cause: LedgerCause
        var text: String
        /// Of a new kubelet: why it restarts containers; nil where it does not.
        var restart: VersionCatalogue.RestartCause?
    }

    /// The newest revision of a workload, and when it replaced another.
    private struct Revision {
        var name: String
        var changedMs: Int64?
    }

    /// How long an end waits for the evidence of its cause: events, statuses and logs come by different ways.
    private static let settleMs: Int64 = 15_000
    /// How long a row takes in evidence after it was first told of.
    private static let openMs: Int64 = 600_000
    /// A `Killing` event explains an end that follows it within this time: the longest usual grace period and some.
    private static let killWindowMs: Int64 = 90_000
    /// A new revision of a workload explains removals of its pods from this long before it was seen.
    private static let rolloutMs: Int64 = 600_000
    /// A change of a node explains the ends that come this long before it was noticed: a booting node is silent.
    private static let nodeChangeMs: Int64 = 900_000
    /// A new kubelet goes over the containers of its node within this time of its node's new version.
    private static let stepMs: Int64 = 120_000
    private static let maxEvidence = 10
    /// Memory is bounded, whatever the logs hold: the oldest hints about pods go first.
    private static let maxHints = 50_000

    private var pods: [String: Pod] = [:]
    private var drafts: [String: Draft] = [:]
    /// The drafts of a pod, by its UID and by its namespace and name, so that evidence finds them.
    private var draftsOfPod: [String: Set<String>] = [:]
    private var killings: [ContainerKey: [Hint]] = [:]
    /// Requests and log lines about the removal of a pod, by namespace and name.
    private var removalHints: [String: [Hint]] = [:]
    private var nodeChanges: [String: [NodeChange]] = [:]
    private var unschedulable: Set<String> = []
    private var revisions: [String: Revision] = [:]
    /// What logs tell of pods that no object is known of.
    private var logPods: [String: (namespace: String, name: String)] = [:]
    private var logUIDs: [String: String] = [:]
    private var logContainers: [String: Set<String>] = [:]
    private var sandboxes: Set<String> = []
    /// Nodes whose kubelet says `container finished`, so that other lines need not be trusted for it.
    private var nodesThatFinish: Set<String> = []
    private(set) var hasObjects = false
    private var hasEvents = false
    /// The UIDs of mirror pods by the hash that the kubelet takes for the UID of a static pod.
    private var mirrors: [String: String] = [:]
    /// What replica sets belong to, by their namespace and name.
    private var replicaSets: [String: (kind: String, name: String)] = [:]
    /// Pods that are gone, with their last version.
    private var removedPods: [String: UInt64] = [:]

    // MARK: Pods

    /// Takes in a replica set, by which a pod's Deployment is known.
    mutating func see(_ set: ReplicaSetObject, deleted: Bool) {
        replicaSets[set.identity] = deleted ? nil : set.owner
    }

    /// The replica sets of a whole list.
    mutating func keepReplicaSets(_ names: Set<String>) { replicaSets = replicaSets.filter { names.contains($0.key) } }

    /// What a pod belongs to, through its replica set where that is known.
    func workload(of pod: PodObject) -> (kind: String, name: String) {
        if let owner = pod.metadata.ownerReferences?.controller, owner.kind == "ReplicaSet",
            let known = replicaSets["\(pod.metadata.namespace ?? "")/\(owner.name)"]
        {
            return known
        }
        return pod.workload
    }

    /// Whether a pod is there.
    func knows(_ uid: String) -> Bool { pods[uid] != nil }

    /// Takes in a pod as it is, or was: a watch that is taken up again may tell of the past.
    ///
    /// - Returns: Whether it is the newest that is known of the pod.
    @discardableResult
    mutating func see(_ pod: PodObject, atMs: Int64) -> Bool {
        hasObjects = true
        let uid = pod.uid
        let version = pod.metadata.resourceVersion.flatMap { UInt64($0) }
        if let version, let removed = removedPods[uid], version <= removed { return false }
        let workload = workload(of: pod)
        var known =
            pods[uid]
            ?? Pod(
                namespace: pod.metadata.namespace ?? "", name: pod.metadata.name, node: "", workloadKind: workload.kind,
                workload: workload.name, endsByItself: pod.endsByItself, revision: pod.revision,
                isStatic: pod.isStatic, resourceVersion: nil)
        if let hash = pod.metadata.annotations?.configHash, pod.isStatic {
            if mirrors.count > LedgerKeeper.maxHints { mirrors.removeAll() }
            mirrors[hash] = uid
        }
        let isNew = pods[uid] == nil
        let isNewest = version.map { $0 >= known.resourceVersion ?? 0 } ?? true
        known.node = pod.spec?.nodeName ?? known.node
        known.resourceVersion = max(version ?? 0, known.resourceVersion ?? 0)
        known.isFinished = pod.status?.phase == "Succeeded" || pod.status?.phase == "Failed"
        if isNew { noteRevision(known, atMs: atMs) }
        let askedMs = pod.deletionAskedMs
        let statuses = pod.containerStatuses
        for status in statuses {
            var shown = 0
            for (terminated, number) in [
                (status.lastState?.terminated, status.restarts - 1), (status.state?.terminated, status.restarts),
            ] {
                guard let terminated else { continue }
                // A container that the kubelet lost has no ID; it is the n-th to end.
                let id =
                    terminated.containerID.flatMap { $0.isEmpty ? nil : LedgerKeeper.plainID($0) }
                    ?? "\(uid):\(status.name):\(number)"
                guard !known.ended.contains(id) else { continue }
                if known.ended.count >= max(16, 4 * statuses.count) { known.ended.removeFirst() }
                known.ended.append(id)
                pods[uid] = known
                shown += 1
                if !isNewest { forgetUnseenEnd(of: status.name, uid: uid) }
                let staysEnded = known.endsByItself || pod.isInitContainer(status.name)
                ended(
                    status.name, terminated, id: id, uid: uid, known, staysEnded: staysEnded, askedMs: askedMs,
                    atMs: atMs)
            }
            guard isNewest else { continue }
            // Each restart is an end, and so is a state that is terminated now.
            let told = status.restarts + (status.state?.terminated == nil ? 0 : 1)
            if !isNew, let before = known.ends[status.name], told - before > shown {
                unseenEnds(
                    status.name, numbers: before..<min(told - shown, before + LedgerKeeper.maxUnseen), uid: uid, known,
                    atMs: atMs)
            }
            // A container that waits for its next start has an end less in its state than when it had just ended; a count
            // that falls further begins anew.
            let before = known.ends[status.name] ?? told
            known.ends[status.name] = told < before - 1 ? told : max(told, before)
        }
        pods[uid] = known
        seeRemoval(pod, uid: uid, known, atMs: atMs)
        return isNewest
    }

    /// Makes rows of ends that no status showed: a restart count that grew by two tells of one more than the last
    /// state does, where the watch was interrupted in between.
    ///
    /// Where the node's log is read, it tells of them better.
    private mutating func unseenEnds(
        _ container: String, numbers: Range<Int>, uid: String, _ pod: Pod, atMs: Int64
    ) {
        guard !nodesThatFinish.contains(pod.node) else { return }
        for number in numbers {
            add(
                LedgerEntry(
                    kind: .exit, atMs: atMs, node: pod.node, namespace: pod.namespace, pod: pod.name, podUID: uid,
                    container: container, workloadKind: pod.workloadKind, workload: pod.workload,
                    containerID: "\(uid)/\(container)/\(number)"),
                LedgerEvidence(
                    source: .object,
                    text:
                        "the restart count of \(container) tells of an end after \(number) others that no status showed",
                    cause: .unknown),
                isTimeExact: false, atMs: atMs)
        }
    }

    private static let maxUnseen = 20

    /// An end that was not seen is shown by a status that came late.
    private mutating func forgetUnseenEnd(of container: String, uid: String) {
        let prefix = "\(uid)/\(container)/"
        guard let id = (draftsOfPod[uid] ?? []).filter({ $0.hasPrefix(prefix) }).min(), let draft = drafts[id],
            !draft.isGiven
        else { return }
        forget(id, draft)
    }

    private mutating func ended(
        _ container: String, _ terminated: PodObject.Terminated, id: String, uid: String, _ pod: Pod, staysEnded: Bool,
        askedMs: Int64?, atMs: Int64
    ) {
        let reason = terminated.reason ?? ""
        let finishedMs = terminated.finishedAt.flatMap { TimeFormat.milliseconds(rfc3339: $0) }
        let cause: LedgerCause?
        switch reason {
        case "OOMKilled": cause = .outOfMemory
        case "ContainerStatusUnknown": cause = .kubeletRestart
        default:
            // What ends once its pod's deletion was asked for ends of that.
            if let askedMs, (finishedMs ?? atMs) >= askedMs - 1000 {
                cause = .podDeleted
            } else {
                cause = terminated.exitCode == 0 && staysEnded ? .jobCompletion : .applicationExit
            }
        }
        let entry = LedgerEntry(
            kind: .exit, atMs: finishedMs ?? atMs, node: pod.node, namespace: pod.namespace, pod: pod.name, podUID: uid,
            container: container, workloadKind: pod.workloadKind, workload: pod.workload, containerID: id,
            exitCode: terminated.exitCode, reason: reason)
        let evidence = LedgerEvidence(
            source: .object,
            text: "pod \(pod.namespace)/\(pod.name) container \(container) exit code \(terminated.exitCode) \(reason)",
            cause: cause)
        add(entry, evidence, isTimeExact: finishedMs != nil, atMs: atMs)
    }

    /// What a pod's own fields say of its removal (`DisruptionTarget`, KEP-3329; `status.reason`).
    private mutating func seeRemoval(_ pod: PodObject, uid: String, _ known: Pod, atMs: Int64) {
        var found: LedgerEvidence?
        if let condition = pod.status?.conditions?.first(where: { $0.type == "DisruptionTarget" && $0.status == "True" }
        ), let reason = condition.reason, let cause = LedgerKeeper.disruptions[reason] {
            found = LedgerEvidence(
                source: .object, text: "condition DisruptionTarget: \(reason): \(condition.message ?? "")",
                cause: cause, detail: cause == .pressureEviction ? LedgerKeeper.resource(pod.status?.message) : "")
        }
        switch pod.status?.reason {
        case "Evicted":
            let message = pod.status?.message ?? ""
            found = LedgerEvidence(
                source: .object, text: "status Evicted: \(message)", cause: .pressureEviction,
                detail: LedgerKeeper.resource(message))
        case "Terminated", "Shutdown", "NodeShutdown":
            found = LedgerEvidence(
                source: .object, text: "status \(pod.status?.reason ?? ""): \(pod.status?.message ?? "")",
                cause: .nodeReboot, detail: "graceful node shutdown")
        default: break
        }
        guard let found else { return }
        // The condition stays while the pod ends: one row, and nothing new to say.
        if let draft = drafts["pod/" + uid], draft.evidence.contains(found) { return }
        removed(uid, known, found, atMs: atMs)
    }

    private static let disruptions: [String: LedgerCause] = [
        "DeletionByTaintManager": .taintEviction, "DeletionByDeviceTaintManager": .taintEviction,
        "DeletionByPodGC": .podGarbageCollected, "EvictionByEvictionAPI": .apiEviction,
        "PreemptionByKubeScheduler": .preemption, "PreemptionByScheduler": .preemption,
        "TerminationByKubelet": .pressureEviction,
    ]

    /// The resource of `The node was low on resource: memory. …`.
    private static func resource(_ message: String?) -> String {
        guard let message, let range = message.range(of: "resource: ") ?? message.range(of: "condition: ") else {
            return ""
        }
        return String(message[range.upperBound...].prefix { $0.isLetter || $0.isNumber || "-_[]".contains($0) })
    }

    /// A pod is gone.
    mutating func remove(uid: String, atMs: Int64, text: String) {
        guard let pod = pods.removeValue(forKey: uid) else { return }
        if removedPods.count > LedgerKeeper.maxHints { removedPods.removeAll() }
        removedPods[uid] = pod.resourceVersion
        let isDone = pod.endsByItself && pod.isFinished
        removed(
            uid, pod, LedgerEvidence(source: .object, text: text, cause: isDone ? .jobCompletion : .podDeleted),
            atMs: atMs)
        // What ended with the pod has its cause from the removal.
        for id in draftsOfPod[uid] ?? [] { drafts[id]?.isChanged = true }
    }

    /// The pods of a whole list: what is known and not on it is gone.
    ///
    /// - Parameter version: the list's `resourceVersion`: a pod that is newer is not missing from it.
    mutating func keep(_ uids: Set<String>, version: UInt64?, atMs: Int64) {
        for (uid, pod) in pods where !uids.contains(uid) {
            if let version, let own = pod.resourceVersion, own > version { continue }
            remove(uid: uid, atMs: atMs, text: "pod \(pod.namespace)/\(pod.name) is not on the list any more")
        }
    }

    /// The time of a removal is that of the first word of it: an evicted pod is deleted later.
    private mutating func removed(_ uid: String, _ pod: Pod, _ evidence: LedgerEvidence, atMs: Int64) {
        let entry = LedgerEntry(
            kind: .deletion, atMs: atMs, node: pod.node, namespace: pod.namespace, pod: pod.name, podUID: uid,
            workloadKind: pod.workloadKind, workload: pod.workload)
        add(entry, evidence, isTimeExact: false, atMs: atMs)
    }

    private mutating func noteRevision(_ pod: Pod, atMs: Int64) {
        guard let revision = pod.revision else { return }
        let key = LedgerKeeper.revisionKey(
            pod.namespace, kind: pod.workloadKind, pod.workload)
        guard let known = revisions[key] else {
            revisions[key] = Revision(name: revision, changedMs: nil)
            return
        }
        guard known.name != revision else { return }
        revisions[key] = Revision(name: revision, changedMs: atMs)
        for (id, draft) in drafts where draft.entry.namespace == pod.namespace && draft.entry.workload == pod.workload {
            drafts[id]?.isChanged = true
        }
    }

    private static func revisionKey(_ namespace: String, kind: String, _ workload: String) -> String {
        "\(namespace)/\(kind)/\(workload)"
    }

    // MARK: Events

    /// Takes in an event of a pod, once.
    mutating func see(_ event: EventObject, about object: EventObject.Reference, atMs: Int64) {
        hasEvents = true
        guard let told = object.uid, let reason = event.reason else { return }
        let uid = mirrors[told] ?? told
        let message = event.text
        let text = "\(reason) \(message)"
        switch reason {
        case "Killing":
            guard let path = object.fieldPath, let open = path.firstIndex(of: "{"), path.hasSuffix("}")
            else { return }
            let key = ContainerKey(podUID: uid, container: String(path[path.index(after: open)...].dropLast()))
            let evidence = LedgerEvidence(source: .event, text: text, cause: LedgerKeeper.cause(killing: message))
            LedgerKeeper.append(Hint(atMs: atMs, evidence: evidence), to: &killings[key, default: []])
            for id in draftsOfPod[uid] ?? [] { drafts[id]?.isChanged = true }
        case "TaintManagerEviction" where message.hasPrefix("Cancelling"): break
        // Others use the word too: what the kubelet evicts, it evicts under pressure.
        case "Evicted" where !event.reporter.isEmpty && event.reporter != "kubelet": break
        case "Evicted", "TaintManagerEviction", "Preempted":
            let cause: LedgerCause =
                reason == "Evicted" ? .pressureEviction : reason == "Preempted" ? .preemption : .taintEviction
            let evidence = LedgerEvidence(
                source: .event, text: text, cause: cause,
                detail: cause == .pressureEviction ? LedgerKeeper.resource(message) : "")
            let pod =
                pods[uid]
                ?? unknownPod(
                    namespace: object.namespace ?? "", name: object.name ?? "", node: event.host)
            removed(uid, pod, evidence, atMs: atMs)
        case "SandboxChanged":
            let key = ContainerKey(podUID: uid, container: "")
            let evidence = LedgerEvidence(source: .event, text: text, cause: .runtimeRestart)
            LedgerKeeper.append(Hint(atMs: atMs, evidence: evidence), to: &killings[key, default: []])
            for id in draftsOfPod[uid] ?? [] { drafts[id]?.isChanged = true }
        default: break
        }
    }

    /// Keeps what came last: the oldest of many goes.
    private static func append<Element>(_ element: Element, to list: inout [Element]) {
        list.append(element)
        if list.count > 8 { list.removeFirst() }
    }

    /// What a `Killing` event or the kubelet's log gives as the reason (kuberuntime's `computePodActions`; the words
    /// of 1.13 and before told nothing of a deletion).
    static func cause(killing message: String) -> LedgerCause? {
        if message.contains("definition changed") || message.contains("spec hash changed") { return .definitionChanged }
        if message.contains("liveness probe") || message.contains("startup probe") { return .probeFailed }
        return message.contains("Stopping container") ? .podDeleted : nil
    }

    // MARK: Nodes

    /// Takes in that something happened to a node as a whole.
    mutating func nodeChanged(
        _ node: String, _ cause: LedgerCause, _ text: String, restart: VersionCatalogue.RestartCause? = nil, atMs: Int64
    ) {
        let change = NodeChange(atMs: atMs, cause: cause, text: text, restart: restart)
        LedgerKeeper.append(change, to: &nodeChanges[node, default: []])
        for (id, draft) in drafts where draft.entry.node == node { drafts[id]?.isChanged = true }
    }

    /// Takes in whether a node takes new pods.
    mutating func cordoned(_ node: String, _ isCordoned: Bool) {
        if isCordoned { unschedulable.insert(node) } else { unschedulable.remove(node) }
    }

    // MARK: Logs and requests

    /// Takes in what a line of a log tells.
    mutating func see(_ clue: LogClue, node: String, atMs: Int64) {
        switch clue {
        case .pod(let uid, let namespace, let name):
            learn(uid, namespace: namespace, name: name)
        case .containerOf(let uid, let container):
            learn(uid, container: container)
        case .sandbox(let id):
            if sandboxes.count > LedgerKeeper.maxHints { sandboxes.removeAll() }
            sandboxes.insert(id)
            if let draft = drafts[id], !draft.isGiven { forget(id, draft) }
        case .finished(let uid, let id, let exitCode, let line):
            nodesThatFinish.insert(node)
            logged(uid, id: id, container: nil, exitCode: exitCode, node: node, line, cause: nil, atMs: atMs)
        case .died(let uid, let id, let line):
            guard !nodesThatFinish.contains(node) || drafts[id] != nil, !sandboxes.contains(id) else { return }
            logged(uid, id: id, container: nil, exitCode: nil, node: node, line, cause: nil, atMs: atMs)
        case .willRestart(let uid, let id, let container, let message, let line):
            if let uid { learn(uid, container: container) }
            logged(
                uid ?? "", id: id, container: container, exitCode: nil, node: node, line,
                cause: LedgerKeeper.cause(killing: message), atMs: atMs)
        case .killing(let uid, let id, let container, let line):
            learn(uid, container: container)
            logged(uid, id: id, container: container, exitCode: nil, node: node, line, cause: .podDeleted, atMs: atMs)
        case .removal(let namespace, let name, let cause, let detail, let line):
            hint(
                namespace + "/" + name,
                LedgerEvidence(source: .log, text: line, cause: cause, detail: detail), node: node, atMs: atMs)
        case .gone(let namespace, let name, let line):
            guard !hasObjects else { return }
            let uid = logUIDs[namespace + "/" + name] ?? "\(namespace)/\(name)"
            let pod = unknownPod(namespace: namespace, name: name, node: node)
            removed(
                uid, pod,
                LedgerEvidence(source: .log, text: line, cause: pod.endsByItself ? .jobCompletion : .podDeleted),
                atMs: atMs)
        case .reclaims: break
        case .requested(let namespace, let name, let isEviction, let user, let line):
            let (cause, detail) = LedgerKeeper.cause(user: user, isEviction: isEviction)
            guard let cause else { return }
            hint(
                namespace + "/" + name,
                LedgerEvidence(source: .audit, text: line, cause: cause, detail: detail), node: "", atMs: atMs)
        }
    }

    /// Who deletes pods, by the accounts of the control plane's parts.
    private static func cause(user: String, isEviction: Bool) -> (LedgerCause?, String) {
        if isEviction { return (.apiEviction, user) }
        switch user.split(separator: ":").last.map(String.init) ?? user {
        case "node-controller", "taint-eviction-controller": return (.taintEviction, "")
        case "pod-garbage-collector": return (.podGarbageCollected, "")
        case "replicaset-controller", "statefulset-controller", "daemon-set-controller", "replication-controller":
            return (.rollout, "")
        case "job-controller", "cronjob-controller", "ttl-after-finished-controller": return (.jobCompletion, "")
        case "kube-scheduler": return (.preemption, "")
        // The controller manager may act with one account for all its controllers, and the garbage collector deletes
        // for whoever deleted the owner: neither tells why.
        case "kube-controller-manager", "generic-garbage-collector": return (nil, "")
        default: return user.hasPrefix("system:node:") ? (nil, "") : (.podDeleted, user)
        }
    }

    /// Takes in a restart that metrics tell of, where nothing better tells of the node's.
    mutating func see(_ restart: MetricExits.Restart, atMs: Int64) {
        guard !hasObjects, !nodesThatFinish.contains(restart.node) else { return }
        let pod = unknownPod(namespace: restart.namespace, name: restart.pod, node: restart.node)
        let name = "\(restart.namespace)/\(restart.pod)"
        add(
            LedgerEntry(
                kind: .exit, atMs: restart.atMs, node: restart.node, namespace: restart.namespace, pod: restart.pod,
                podUID: logUIDs[name] ?? name, container: restart.container, workloadKind: pod.workloadKind,
                workload: pod.workload, containerID: "\(name)/\(restart.container)/\(restart.atMs / 1000)"),
            restart.evidence, isTimeExact: true, atMs: atMs)
    }

    private mutating func learn(_ uid: String, namespace: String, name: String) {
        guard logPods[uid] == nil else { return }
        if logPods.count > LedgerKeeper.maxHints {
            logPods.removeAll()
            logUIDs.removeAll()
        }
        logPods[uid] = (namespace, name)
        logUIDs[namespace + "/" + name] = uid
    }

    private mutating func learn(_ uid: String, container: String) {
        guard logContainers[uid]?.contains(container) != true else { return }
        if logContainers.count > LedgerKeeper.maxHints { logContainers.removeAll() }
        logContainers[uid, default: []].insert(container)
        for id in draftsOfPod[uid] ?? [] where drafts[id]?.entry.container.isEmpty == true {
            drafts[id]?.isChanged = true
        }
    }

    private mutating func logged(
        _ uid: String, id: String, container: String?, exitCode: Int?, node: String, _ line: String,
        cause: LedgerCause?, atMs: Int64
    ) {
        guard !sandboxes.contains(id) else { return }
        let uid = mirrors[uid] ?? uid
        // The containers of a pod that is known from the API have their ends in its status: a line of an end that the
        // status told of long ago, as a restarted kubelet writes them, is no news.
        if drafts[id] == nil, let pod = pods[uid], pod.ended.contains(id) { return }
        var entry = LedgerEntry(
            kind: .exit, atMs: atMs, node: node, podUID: uid, container: container ?? "", containerID: id,
            exitCode: exitCode)
        if let pod = pods[uid] {
            entry.namespace = pod.namespace
            entry.pod = pod.name
            entry.workload = pod.workload
            entry.workloadKind = pod.workloadKind
        }
        add(entry, LedgerEvidence(source: .log, text: line, cause: cause), isTimeExact: false, atMs: atMs)
    }

    private mutating func hint(_ name: String, _ evidence: LedgerEvidence, node: String, atMs: Int64) {
        if removalHints.count > LedgerKeeper.maxHints { removalHints.removeAll() }
        LedgerKeeper.append(Hint(atMs: atMs, evidence: evidence), to: &removalHints[name, default: []])
        for id in draftsOfPod[name] ?? [] { drafts[id]?.isChanged = true }
        guard !hasObjects, let cause = evidence.cause, cause.isEviction else { return }
        let parts = name.split(separator: "/", maxSplits: 1).map(String.init)
        guard parts.count == 2 else { return }
        let pod = unknownPod(namespace: parts[0], name: parts[1], node: node)
        removed(logUIDs[name] ?? name, pod, evidence, atMs: atMs)
    }

    /// A pod of which nothing but its name is known.
    private func unknownPod(namespace: String, name: String, node: String) -> Pod {
        let workload = PodObject.workload(guessedFrom: name, node: node)
        return Pod(
            namespace: namespace, name: name, node: node, workloadKind: workload.kind, workload: workload.name,
            endsByItself: workload.kind == "CronJob", revision: nil, isStatic: false, resourceVersion: nil)
    }

    /// `containerd://abc` without the runtime's name.
    static func plainID(_ id: String) -> String {
        guard let range = id.range(of: "://") else { return id }
        return String(id[range.upperBound...])
    }

    // MARK: Drafts

    private mutating func add(_ entry: LedgerEntry, _ evidence: LedgerEvidence, isTimeExact: Bool, atMs: Int64) {
        let id = entry.id
        guard var draft = drafts[id] else {
            drafts[id] = Draft(entry: entry, evidence: [evidence], firstSeenMs: atMs, isTimeExact: isTimeExact)
            index(id, entry)
            return
        }
        if isTimeExact, !draft.isTimeExact {
            draft.entry.atMs = entry.atMs
            draft.isTimeExact = true
        }
        for field in [
            \LedgerEntry.node, \.podUID, \.namespace, \.pod, \.container, \.workloadKind, \.workload, \.reason,
        ] where draft.entry[keyPath: field].isEmpty {
            draft.entry[keyPath: field] = entry[keyPath: field]
        }
        if draft.entry.exitCode == nil { draft.entry.exitCode = entry.exitCode }
        if !draft.evidence.contains(evidence), draft.evidence.count < LedgerKeeper.maxEvidence {
            draft.evidence.append(evidence)
        }
        draft.isChanged = true
        drafts[id] = draft
        index(id, draft.entry)
    }

    private mutating func index(_ id: String, _ entry: LedgerEntry) {
        if !entry.podUID.isEmpty { draftsOfPod[entry.podUID, default: []].insert(id) }
        if !entry.pod.isEmpty { draftsOfPod[entry.namespace + "/" + entry.pod, default: []].insert(id) }
    }

    private mutating func forget(_ id: String, _ draft: Draft) {
        drafts[id] = nil
        for key in [draft.entry.podUID, draft.entry.namespace + "/" + draft.entry.pod] {
            draftsOfPod[key]?.remove(id)
            if draftsOfPod[key]?.isEmpty == true { draftsOfPod[key] = nil }
        }
    }

    /// The rows that were not given out yet, and those that changed since they were.
    ///
    /// - Parameter isLast: whether nothing more will come: what waits is given out too.
    mutating func take(atMs: Int64, isLast: Bool = false) -> (new: [LedgerEntry], changed: [LedgerEntry]) {
        forgetDrafts(beforeMs: atMs - LedgerKeeper.openMs)
        var new: [LedgerEntry] = []
        var changed: [LedgerEntry] = []
        // Removals first: the containers that ended with a pod ask for its cause.
        let due = drafts.filter(\.value.isChanged)
        for (id, draft) in due where draft.entry.kind != .exit {
            give(id, draft, &new, &changed)
            for exit in draftsOfPod[draft.entry.podUID] ?? [] { drafts[exit]?.isChanged = true }
        }
        for (id, draft) in drafts where draft.isChanged && draft.entry.kind == .exit {
            let waitedMs = isLast ? .max : atMs - draft.firstSeenMs
            // A status that shows an end which seems lost may come late.
            if LedgerKeeper.isUnseen(id), waitedMs < LedgerKeeper.settleMs { continue }
            // A line that says that a container will be killed is not its end yet.
            let hasEnded = draft.evidence.contains { $0.source == .object || $0.cause == nil }
            if !hasEnded, waitedMs < LedgerKeeper.killWindowMs { continue }
            give(id, draft, &new, &changed)
        }
        forgetHints(beforeMs: atMs - LedgerKeeper.openMs)
        let order = { (a: LedgerEntry, b: LedgerEntry) in (a.atMs, a.id) < (b.atMs, b.id) }
        return (new.sorted(by: order), changed.sorted(by: order))
    }

    private mutating func give(
        _ id: String, _ draft: Draft, _ new: inout [LedgerEntry], _ changed: inout [LedgerEntry]
    ) {
        let entry = explained(draft)
        drafts[id]?.isChanged = false
        if draft.isGiven, entry == draft.entry { return }
        drafts[id]?.entry = entry
        drafts[id]?.isGiven = true
        index(id, entry)
        if draft.isGiven { changed.append(entry) } else { new.append(entry) }
    }

    /// Whether an end is known from a restart count alone.
    private static func isUnseen(_ id: String) -> Bool { id.contains("/") }

    /// Rows that ``take(atMs:isLast:)`` gave are in the ledger now, and were not before.
    mutating func added(_ entries: [LedgerEntry]) {
        for entry in entries { drafts[entry.id]?.isNew = true }
    }

    /// The new rows that have waited for their evidence, each once.
    mutating func settled(atMs: Int64) -> [LedgerEntry] {
        var settled: [LedgerEntry] = []
        for (id, draft) in drafts
        where draft.isNew && !draft.isCounted && draft.firstSeenMs + LedgerKeeper.settleMs <= atMs {
            drafts[id]?.isCounted = true
            settled.append(draft.entry)
        }
        return settled
    }

    private mutating func forgetDrafts(beforeMs: Int64) {
        for (id, draft) in drafts
        where draft.isGiven && draft.firstSeenMs < beforeMs && (draft.isCounted || !draft.isNew) {
            forget(id, draft)
        }
    }

    private mutating func forgetHints(beforeMs: Int64) {
        for (key, list) in killings where list.last.map({ $0.atMs < beforeMs }) ?? true { killings[key] = nil }
        for (key, list) in removalHints where list.last.map({ $0.atMs < beforeMs }) ?? true { removalHints[key] = nil }
    }

    /// A draft with its cause, from all that is known now.
    private func explained(_ draft: Draft) -> LedgerEntry {
        var entry = draft.entry
        if entry.pod.isEmpty, let pod = logPods[entry.podUID] {
            entry.namespace = pod.namespace
            entry.pod = pod.name
            (entry.workloadKind, entry.workload) = PodObject.workload(guessedFrom: pod.name, node: entry.node)
        }
        if entry.kind == .exit, entry.container.isEmpty, let names = logContainers[entry.podUID], names.count == 1 {
            entry.container = names.first ?? ""
        }
        var evidence = draft.evidence
        if entry.kind == .exit { evidence += aboutExit(entry, evidence) }
        evidence += aboutRemoval(entry)
        // A job's last container ends before its pod is deleted: the deletion says nothing of the end.
        if entry.kind == .exit, let removal = drafts["pod/" + entry.podUID], removal.isGiven,
            removal.entry.cause.strength > LedgerCause.podDeleted.strength, removal.entry.cause != .jobCompletion,
            // What ended before anybody wanted the pod to go ended for its own reason.
            evidence.contains(where: { $0.cause == .podDeleted })
                ? abs(entry.atMs - removal.entry.atMs) < LedgerKeeper.openMs
                : entry.atMs >= removal.entry.atMs - 2000
        {
            let cause = removal.entry.cause == .drain ? .apiEviction : removal.entry.cause
            evidence += removal.entry.evidence.filter { $0.cause == cause }.prefix(1)
        }
        let order = LedgerEvidence.Source.allCases
        let ranked = evidence.enumerated().sorted { a, b in
            let left = a.element.cause?.strength ?? -1
            let right = b.element.cause?.strength ?? -1
            if left != right { return left > right }
            let (first, second) = (order.firstIndex(of: a.element.source), order.firstIndex(of: b.element.source))
            return (first ?? 0, a.offset) < (second ?? 0, b.offset)
        }.map(\.element)
        entry.cause = ranked.first?.cause ?? .unknown
        entry.detail = ranked.first { $0.cause == entry.cause && !$0.detail.isEmpty }?.detail ?? ""
        // A node may take pods again while the row is still open.
        if entry.cause == .apiEviction, unschedulable.contains(entry.node) || draft.entry.cause == .drain {
            entry.cause = .drain
        }
        if entry.kind != .exit { entry.kind = entry.cause.isEviction ? .eviction : .deletion }
        entry.evidence = Array(ranked.prefix(LedgerKeeper.maxEvidence))
        return entry
    }

    private func aboutExit(_ entry: LedgerEntry, _ known: [LedgerEvidence]) -> [LedgerEvidence] {
        var found: [LedgerEvidence] = []
        let key = ContainerKey(podUID: entry.podUID, container: entry.container)
        // A killing ends the container once: the first end that follows it is its.
        let others = ends(of: entry)
        let killing = killings[key]?.last { killing in
            killing.atMs <= entry.atMs + 2000 && entry.atMs - killing.atMs < LedgerKeeper.killWindowMs
                && !others.contains { $0 + 2000 >= killing.atMs && $0 < entry.atMs }
        }
        if let killing { found.append(killing.evidence) }
        let isWell = entry.exitCode == 0
        if entry.reason.isEmpty, entry.exitCode != nil {
            // Only a log told of the end.
            let endsByItself = entry.workloadKind == "CronJob" || entry.workloadKind == "Job"
            found.append(
                LedgerEvidence(
                    source: .log, text: "exit code \(entry.exitCode ?? 0)",
                    cause: isWell && endsByItself ? .jobCompletion : .applicationExit))
        }
        // A sandbox is made anew after the last end in the old one.
        let sandbox = killings[ContainerKey(podUID: entry.podUID, container: "")]?.last { sandbox in
            entry.atMs <= sandbox.atMs + 2000 && sandbox.atMs - entry.atMs < LedgerKeeper.nodeChangeMs
                && !others.contains { $0 > entry.atMs && $0 <= sandbox.atMs + 2000 }
        }
        if let sandbox { found.append(sandbox.evidence) }
        let wasKilled = (known + found).contains { ($0.cause?.strength ?? 0) >= LedgerCause.podDeleted.strength }
        for change in nodeChanges[entry.node] ?? [] {
            guard entry.atMs <= change.atMs + LedgerKeeper.stepMs, entry.atMs > change.atMs - LedgerKeeper.nodeChangeMs
            else {
                continue
            }
            // Without events and without the kubelet's log nobody tells of a killing: a container that was told to stop
            // when its kubelet began to compute another hash was told so by it.
            if let restart = change.restart, !hasEvents, !nodesThatFinish.contains(entry.node), !wasKilled,
                [0, 137, 143].contains(entry.exitCode), entry.workloadKind != "Job", entry.workloadKind != "CronJob",
                abs(entry.atMs - change.atMs) < LedgerKeeper.stepMs,
                !others.contains(where: { $0 < entry.atMs && abs($0 - change.atMs) < LedgerKeeper.stepMs })
            {
                found.append(
                    LedgerEvidence(
                        source: .object, text: "\(change.text); since \(restart.version) \(restart.why)",
                        cause: .definitionChanged))
            }
            // A container that was told to stop for another reason, or ended while the node ran, ended of that.
            guard !wasKilled || sandbox != nil else { continue }
            let isLost = entry.reason == "ContainerStatusUnknown" || entry.reason == "Unknown" || sandbox != nil
            guard isLost || (change.cause == .nodeReboot && (entry.exitCode ?? 0) > 128) else { continue }
            found.append(LedgerEvidence(source: .object, text: change.text, cause: change.cause))
        }
        return found
    }

    /// When the same container ended otherwise.
    private func ends(of entry: LedgerEntry) -> [Int64] {
        (draftsOfPod[entry.podUID] ?? []).compactMap { id in
            guard id != entry.id, let other = drafts[id]?.entry, other.kind == .exit, other.container == entry.container
            else { return nil }
            return other.atMs
        }
    }

    private func aboutRemoval(_ entry: LedgerEntry) -> [LedgerEvidence] {
        guard entry.kind != .exit else { return [] }
        let name = entry.namespace + "/" + entry.pod
        // A pod of a stateful set comes again under its name: a request removes the next to go, once.
        let others = (draftsOfPod[name] ?? []).compactMap { id -> Int64? in
            guard id != entry.id, let other = drafts[id]?.entry, other.kind != .exit else { return nil }
            return other.atMs
        }
        var found = (removalHints[name] ?? []).filter { hint in
            hint.atMs <= entry.atMs + 5000 && entry.atMs - hint.atMs < LedgerKeeper.openMs
                && !others.contains { $0 + 5000 >= hint.atMs && $0 < entry.atMs }
        }.map(\.evidence)
        let key = LedgerKeeper.revisionKey(entry.namespace, kind: entry.workloadKind, entry.workload)
        if let revision = revisions[key], let changedMs = revision.changedMs,
            abs(changedMs - entry.atMs) < LedgerKeeper.rolloutMs
        {
            let isStatic = entry.workloadKind == "StaticPod"
            found.append(
                LedgerEvidence(
                    source: .object,
                    text: "\(entry.workloadKind) \(entry.workload) is now of the revision \(revision.name)",
                    cause: isStatic ? .staticPodChanged : .rollout))
        }
        return found
    }
}
