import Series

/// Follows nodes, pods and events, and tells from them which containers ended and why.
///
/// A pure state machine: observations in order of time in, ledger rows and samples out.
package struct ClusterObserver {
    private struct ContainerKey: Hashable {
        var podUID: String
        var container: String
    }

    private struct Killing {
        var atMs: Int64
        var message: String
    }

    private struct Restarts {
        var labels: Labels
        var count: Int
    }

    package static let nodeInfoMetric = "upgrade_watch_node_info"
    package static let nodeReadyMetric = "upgrade_watch_node_ready"
    package static let restartsMetric = "upgrade_watch_pod_container_restarts_total"
    package static let exitsMetric = "upgrade_watch_container_exits_total"
    package static let evictionsMetric = "upgrade_watch_pod_evictions_total"

    /// How long an end waits for the event that tells its cause: events and statuses come by different watches.
    private static let settleMs: Int64 = 10_000
    /// A `Killing` event explains an end that follows it within this time: the longest usual grace period and some.
    private static let killWindowMs: Int64 = 90_000

    private var nodes: [String: (version: String, ready: Bool)] = [:]
    private var nodesSeenMs: Int64?
    private var nodesEmittedMs: Int64?
    private var restarts: [ContainerKey: Restarts] = [:]
    /// The containers whose end is known, by the runtime's names.
    private var ended: [ContainerKey: Set<String>] = [:]
    private var killings: [ContainerKey: [Killing]] = [:]
    private var seenEvents: Set<String> = []
    private var pending: [LedgerEntry] = []
    private var evicted: Set<String> = []
    private var counters: [Labels: Double] = [:]
    private var emitter = CounterEmitter()
    private var startMs: Int64?
    private var knownNodeInfo: Set<Labels> = []

    package init() {}

    /// Takes in an observation.
    package mutating func observe(_ observation: ObjectObservation, atMs: Int64) {
        if startMs == nil { startMs = atMs }
        switch observation {
        case .nodes(let list):
            nodesSeenMs = atMs
            for node in list {
                let ready = node.status?.conditions?.first { $0.type == "Ready" }?.status == "True"
                nodes[node.metadata.name] = (node.status?.nodeInfo?.kubeletVersion ?? "", ready)
            }
        case .events(let list):
            for event in list { observe(event, atMs: atMs) }
        case .pods(let list, let isList, let deleted):
            if isList { forgetPods(except: Set(list.compactMap(\.metadata.uid))) }
            for pod in list { observe(pod, atMs: atMs, deleted: deleted) }
        case .failed, .other: break
        }
    }

    private mutating func forgetPods(except uids: Set<String>) {
        for key in Array(restarts.keys) where !uids.contains(key.podUID) {
            restarts[key] = nil
            ended[key] = nil
            killings[key] = nil
        }
    }

    private mutating func observe(_ event: EventObject, atMs: Int64) {
        guard event.involvedObject.kind == "Pod", let uid = event.involvedObject.uid, let reason = event.reason else {
            return
        }
        // A repeated event is the same object with a higher count.
        let identity = "\(event.metadata.uid ?? "")/\(event.count ?? 1)"
        guard seenEvents.insert(identity).inserted else { return }
        if seenEvents.count > 200_000 { seenEvents.removeAll() }
        let happenedMs = event.timestampMs ?? atMs
        switch reason {
        case "Killing":
            guard let path = event.involvedObject.fieldPath, let open = path.firstIndex(of: "{"), path.hasSuffix("}")
            else {
                return
            }
            let key = ContainerKey(podUID: uid, container: String(path[path.index(after: open)...].dropLast()))
            killings[key, default: []].append(Killing(atMs: happenedMs, message: event.message ?? ""))
            if let count = killings[key]?.count, count > 8 { killings[key]?.removeFirst() }
        case "Evicted", "TaintManagerEviction", "Preempted":
            guard happenedMs >= (startMs ?? 0), evicted.insert(uid).inserted else { return }
            let cause: LedgerCause =
                reason == "Evicted" ? .pressureEviction : reason == "Preempted" ? .preemption : .taintEviction
            pending.append(
                LedgerEntry(
                    kind: .eviction, atMs: happenedMs, node: event.source?.host ?? "",
                    namespace: event.involvedObject.namespace ?? "", pod: event.involvedObject.name ?? "", podUID: uid,
                    container: "", workloadKind: "", workload: "", containerID: "", exitCode: nil, reason: reason,
                    cause: cause, evidence: ["event: \(reason) \(event.message ?? "")"]))
        default: break
        }
    }

    private mutating func observe(_ pod: PodObject, atMs: Int64, deleted: Bool) {
        let uid = pod.metadata.uid ?? "\(pod.metadata.namespace ?? "")/\(pod.metadata.name)"
        let workload = pod.workload
        for status in pod.status?.containerStatuses ?? [] {
            let key = ContainerKey(podUID: uid, container: status.name)
            let isNew = restarts[key] == nil
            var labels: Labels = [
                "container": status.name, "namespace": pod.metadata.namespace ?? "", "pod": pod.metadata.name,
                "workload": workload.name, "workload_kind": workload.kind, "job": "kubernetes-objects",
            ]
            labels["node"] = pod.spec?.nodeName
            labels[Labels.metricName] = ClusterObserver.restartsMetric
            restarts[key] = Restarts(labels: labels, count: status.restartCount)
            for terminated in [status.lastState?.terminated, status.state?.terminated] {
                guard let terminated, let id = terminated.containerID, !(ended[key]?.contains(id) ?? false) else {
                    continue
                }
                ended[key, default: []].insert(id)
                let endedMs = terminated.finishedAt.flatMap { TimeFormat.milliseconds(rfc3339: $0) } ?? atMs
                // What ended before the watch began is history, not news.
                if isNew, endedMs < (startMs ?? atMs) { continue }
                pending.append(
                    LedgerEntry(
                        kind: .exit, atMs: endedMs, node: pod.spec?.nodeName ?? "",
                        namespace: pod.metadata.namespace ?? "", pod: pod.metadata.name, podUID: uid,
                        container: status.name, workloadKind: workload.kind, workload: workload.name, containerID: id,
                        exitCode: terminated.exitCode, reason: terminated.reason ?? "", cause: .unknown,
                        evidence: [
                            "object: pod \(pod.metadata.namespace ?? "")/\(pod.metadata.name) container \(status.name) "
                                + "exit code \(terminated.exitCode) \(terminated.reason ?? "")"
                        ]))
            }
        }
        if deleted {
            for key in Array(restarts.keys) where key.podUID == uid {
                restarts[key] = nil
                ended[key] = nil
            }
        }
    }

    /// The ledger rows whose cause is settled by now, and no longer held here.
    package mutating func takeEntries(atMs: Int64) -> [LedgerEntry] {
        var settled: [LedgerEntry] = []
        var rest: [LedgerEntry] = []
        for var entry in pending {
            guard entry.atMs + ClusterObserver.settleMs <= atMs else {
                rest.append(entry)
                continue
            }
            if entry.kind == .exit { explain(&entry) }
            count(entry)
            settled.append(entry)
        }
        pending = rest
        return settled
    }

    private func explain(_ entry: inout LedgerEntry) {
        let key = ContainerKey(podUID: entry.podUID, container: entry.container)
        let killing = killings[key]?.last {
            $0.atMs <= entry.atMs + 2000 && entry.atMs - $0.atMs < ClusterObserver.killWindowMs
        }
        if let killing { entry.evidence.append("event: Killing \(killing.message)") }
        if entry.reason == "OOMKilled" {
            entry.cause = .outOfMemory
        } else if let message = killing?.message {
            if message.contains("definition changed") || message.contains("spec hash changed") {
                entry.cause = .definitionChanged
            } else if message.contains("probe") {
                entry.cause = .probeFailed
            } else {
                entry.cause = .podDeleted
            }
        } else if entry.workloadKind == "Job" || entry.workloadKind == "CronJob", entry.exitCode == 0 {
            entry.cause = .jobCompletion
        } else if entry.reason == "Error" || entry.reason == "Completed" {
            entry.cause = .applicationExit
        }
    }

    private mutating func count(_ entry: LedgerEntry) {
        var labels: Labels = [
            "cause": entry.cause.rawValue, "namespace": entry.namespace, "node": entry.node,
            "job": "kubernetes-objects",
            "workload": entry.workload, "workload_kind": entry.workloadKind, "container": entry.container,
        ]
        labels[Labels.metricName] =
            entry.kind == .exit ? ClusterObserver.exitsMetric : ClusterObserver.evictionsMetric
        counters[labels, default: 0] += 1
    }

    /// Appends what is known as samples at a time.
    package mutating func emit(to sink: any SampleSink, atMs: Int64) {
        guard startMs != nil else { return }
        emitter.emit(counters, to: sink, atMs: atMs)
        sink.append(restarts.values.map { ($0.labels, Double($0.count)) }, atMs: atMs)
        emitNodes(to: sink)
    }

    /// The nodes as they were when they were last seen: an object that was read half a minute ago says nothing of now.
    private mutating func emitNodes(to sink: any SampleSink) {
        guard let atMs = nodesSeenMs, atMs != nodesEmittedMs else { return }
        nodesEmittedMs = atMs
        var samples: [(labels: Labels, value: Double)] = []
        var info: Set<Labels> = []
        for (name, node) in nodes {
            let base: Labels = ["node": name, "job": "kubernetes-objects"]
            info.insert(
                base.merging([Labels.metricName: ClusterObserver.nodeInfoMetric, "kubelet_version": node.version]))
            samples.append((base.merging([Labels.metricName: ClusterObserver.nodeReadyMetric]), node.ready ? 1 : 0))
        }
        for labels in info { samples.append((labels, 1)) }
        for labels in knownNodeInfo.subtracting(info) { samples.append((labels, staleMarker)) }
        knownNodeInfo = info
        sink.append(samples, atMs: atMs)
    }
}
