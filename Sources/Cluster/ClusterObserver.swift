import Series

/// Follows nodes, pods and events, and with the logs tells from them which containers ended and why.
///
/// A pure state machine: observations and log lines in order of time in, ledger rows and samples out.
package struct ClusterObserver {
    private struct Node {
        var version: String
        var isReady: Bool
        var bootID: String?
        var runtime: String?
        var address: String
        var zone: String?
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
    package static let imageMetric = "upgrade_watch_static_pod_info"

    /// 1 for each object that something is wrong with: `kind`, `name` and `problem` tell what.
    package static let problemMetric = "upgrade_watch_object_problem"

    package static let eventsMetric = "upgrade_watch_pod_events_total"
    package static let leaseMetric = "upgrade_watch_lease_transitions_total"

    private static let kindsWithProblems = [
        "namespaces": "Namespace", "customresourcedefinitions": "CustomResourceDefinition",
        "apiservices": "APIService",
    ]

    private var keeper = LedgerKeeper()
    private var clues = LogClueReader()
    private var metrics = MetricExits()
    private var metricsReadMs = Int64.min
    private var nodes: [String: Node] = [:]
    private var nodesSeenMs: Int64?
    private var nodesEmittedMs: Int64?
    /// Restart counts by pod and container.
    private var restarts: [String: [String: Restarts]] = [:]
    private var staticPods: [String: Labels] = [:]
    /// Who holds a lease, and how often it changed hands, by namespace and name.
    private var leases: [String: (holder: String, transitions: Int)] = [:]
    /// What is wrong with objects, by kind and name.
    private var problems: [String: String] = [:]
    private var seenEvents: Set<String> = []
    private var eventsSeen = 0
    private var counters: [Labels: Double] = [:]
    private var emitter = CounterEmitter()
    private var startMs: Int64?
    private var knownNodeInfo: Set<Labels> = []

    /// - Parameter startMs: since when the cluster is watched, also by processes before this one; nil: from the first
    ///   observation on. What ended earlier is in the ledger and is not counted.
    package init(startMs: Int64? = nil) { self.startMs = startMs }

    /// Since when the cluster is watched; nil before the first observation.
    package var watchedSinceMs: Int64? { startMs }

    // MARK: What comes in

    /// Takes in an observation.
    package mutating func observe(_ observation: ObjectObservation, atMs: Int64) {
        if startMs == nil { startMs = atMs }
        switch observation {
        case .nodes(let list, let deleted):
            nodesSeenMs = atMs
            for node in list { observe(node, deleted: deleted, atMs: atMs) }
        case .events(let list):
            for event in list { observe(event, atMs: atMs) }
        case .pods(let list, let deleted):
            for pod in list { observe(pod, deleted: deleted, atMs: atMs) }
        case .namespaces(let list, let deleted):
            for one in list { note(one.problem, "Namespace", one.metadata.name, deleted: deleted) }
        case .customResourceDefinitions(let list, let deleted):
            for one in list { note(one.problem, "CustomResourceDefinition", one.metadata.name, deleted: deleted) }
        case .apiServices(let list, let deleted):
            for one in list { note(one.problem, "APIService", one.metadata.name, deleted: deleted) }
        case .replicaSets(let list, let deleted):
            for one in list { keeper.see(one, deleted: deleted) }
        case .leases(let list, let deleted):
            for one in list {
                let name = "\(one.metadata.namespace ?? "")/\(one.metadata.name)"
                leases[name] = deleted ? nil : (one.spec?.holderIdentity ?? "", one.spec?.leaseTransitions ?? 0)
            }
        case .listed("replicasets", let names, _): keeper.keepReplicaSets(names)
        case .listed("leases", let names, _): leases = leases.filter { names.contains($0.key) }
        case .listed("pods", let uids, let version):
            keeper.keep(uids, version: version, atMs: atMs)
            restarts = restarts.filter { keeper.knows($0.key) }
            staticPods = staticPods.filter { keeper.knows($0.key) }
        case .listed("nodes", let names, _):
            nodesSeenMs = atMs
            nodes = nodes.filter { names.contains($0.key) }
        case .listed(let plural, let names, _) where ClusterObserver.kindsWithProblems[plural] != nil:
            let prefix = (ClusterObserver.kindsWithProblems[plural] ?? "") + "/"
            problems = problems.filter { key, _ in
                !key.hasPrefix(prefix) || names.contains(String(key.dropFirst(prefix.count)))
            }
        case .listed, .failed, .other: break
        }
    }

    /// Takes in a line of a component's log, `audit` for the API server's audit log.
    package mutating func observe(
        line: UnsafeRawBufferPointer, component: String, node: String, atMs: Int64
    ) {
        for clue in clues.read(line, component: component, node: node) {
            if startMs == nil { startMs = atMs }
            keeper.see(clue, node: node, atMs: atMs)
        }
    }

    private mutating func observe(_ object: NodeObject, deleted: Bool, atMs: Int64) {
        let name = object.metadata.name
        if deleted {
            nodes[name] = nil
            return
        }
        let info = object.status?.nodeInfo
        let node = Node(
            version: info?.kubeletVersion ?? "",
            isReady: object.status?.conditions?.first { $0.type == "Ready" }?.status == "True",
            bootID: info?.bootID, runtime: info?.containerRuntimeVersion,
            address: object.status?.addresses?.first { $0.type == "InternalIP" }?.address ?? "",
            zone: object.metadata.labels?.zone ?? object.metadata.labels?.betaZone)
        if let before = nodes[name] {
            if let boot = node.bootID, let old = before.bootID, boot != old {
                keeper.nodeChanged(name, .nodeReboot, "node \(name) has the boot ID \(boot)", atMs: atMs)
            } else if let runtime = node.runtime, let old = before.runtime, runtime != old {
                keeper.nodeChanged(name, .runtimeRestart, "node \(name) went from \(old) to \(runtime)", atMs: atMs)
            } else if node.version != before.version {
                let path = KubernetesVersion(before.version).flatMap { from in
                    KubernetesVersion(node.version).map { UpgradePath(from: from, to: $0) }
                }
                keeper.nodeChanged(
                    name, .kubeletRestart, "kubelet of \(name) went from \(before.version) to \(node.version)",
                    restart: path.flatMap { path in
                        VersionCatalogue.builtIn.restartCauses.last { path.crossesEitherWay($0.version) }
                    }, atMs: atMs)
            }
        }
        nodes[name] = node
        keeper.cordoned(name, object.spec?.unschedulable ?? false)
    }

    private mutating func note(_ problem: String?, _ kind: String, _ name: String, deleted: Bool) {
        problems["\(kind)/\(name)"] = deleted ? nil : problem
    }

    private mutating func observe(_ event: EventObject, atMs: Int64) {
        guard let object = event.about, object.kind == "Pod" else { return }
        // A repeated event is the same object with a higher count.
        eventsSeen += 1
        let uid = event.metadata.uid ?? "\(object.uid ?? "")/\(event.reason ?? "")/\(event.timestampMs ?? 0)"
        let identity = "\(uid)/\(event.repetitions)"
        guard seenEvents.insert(identity).inserted else { return }
        if seenEvents.count > 200_000 { seenEvents.removeAll() }
        keeper.see(event, about: object, atMs: event.timestampMs ?? atMs)
    }

    private mutating func observe(_ pod: PodObject, deleted: Bool, atMs: Int64) {
        let isNewest = keeper.see(pod, atMs: atMs)
        let uid = pod.uid
        if deleted {
            keeper.remove(
                uid: uid, atMs: atMs, text: "pod \(pod.metadata.namespace ?? "")/\(pod.metadata.name) was deleted")
            restarts[uid] = nil
            staticPods[uid] = nil
            return
        }
        guard isNewest else { return }
        let workload = keeper.workload(of: pod)
        for status in pod.containerStatuses {
            if restarts[uid]?[status.name]?.count == status.restarts { continue }
            var labels: Labels = [
                "container": status.name, "namespace": pod.metadata.namespace ?? "", "pod": pod.metadata.name,
                "workload": workload.name, "workload_kind": workload.kind, "job": "kubernetes-objects",
            ]
            labels["node"] = pod.spec?.nodeName
            labels[Labels.metricName] = ClusterObserver.restartsMetric
            restarts[uid, default: [:]][status.name] = Restarts(labels: labels, count: status.restarts)
        }
        if pod.isStatic, let node = pod.spec?.nodeName, let image = pod.spec?.containers?.first?.image {
            var labels: Labels = [
                "component": pod.spec?.containers?.first?.name ?? "", "node": node, "image": image,
                "job": "kubernetes-objects", "hash": pod.revision ?? "",
            ]
            labels[Labels.metricName] = ClusterObserver.imageMetric
            staticPods[uid] = labels
        }
    }

    /// Looks in stored metrics for restarts that neither objects nor logs tell of, once a minute.
    ///
    /// - Throws: the source's error.
    package mutating func follow(_ source: any SeriesSource, atMs: Int64) throws {
        guard !keeper.hasObjects, atMs - max(metricsReadMs, 0) >= ClusterObserver.metricsMs else { return }
        metricsReadMs = atMs
        for restart in try metrics.follow(source, atMs: atMs) {
            if startMs == nil { startMs = atMs }
            keeper.see(restart, atMs: atMs)
        }
    }

    private static let metricsMs: Int64 = 60_000
    private static let nodesMs: Int64 = 60_000
    private static let nodesSilentMs: Int64 = 360_000

    // MARK: What comes out

    /// The ledger rows to be written down: new ones, and those given before that later evidence has changed.
    ///
    /// - Parameter isLast: whether nothing more will come: what waits is given out too.
    package mutating func takeEntries(
        atMs: Int64, isLast: Bool = false
    ) -> (new: [LedgerEntry], changed: [LedgerEntry]) {
        keeper.take(atMs: atMs, isLast: isLast)
    }

    /// Takes in which of the new rows the ledger did not have before: those will count.
    package mutating func added(_ entries: [LedgerEntry]) { keeper.added(entries) }

    private mutating func count(_ entry: LedgerEntry) {
        guard entry.atMs >= startMs ?? .min, entry.kind != .deletion else { return }
        var labels: Labels = [
            "cause": entry.cause.rawValue, "namespace": entry.namespace, "node": entry.node,
            "job": "kubernetes-objects",
            "workload": entry.workload, "workload_kind": entry.workloadKind, "container": entry.container,
        ]
        labels[Labels.metricName] = entry.kind == .exit ? ClusterObserver.exitsMetric : ClusterObserver.evictionsMetric
        counters[labels, default: 0] += 1
    }

    /// Appends what is known as samples at a time.
    package mutating func emit(to sink: any SampleSink, atMs: Int64) {
        guard startMs != nil else { return }
        for entry in keeper.settled(atMs: atMs) { count(entry) }
        if eventsSeen > 0 {
            counters[[Labels.metricName: ClusterObserver.eventsMetric, "job": "kubernetes-objects"]] = Double(
                eventsSeen)
        }
        emitter.emit(counters, to: sink, atMs: atMs)
        sink.append(
            restarts.values.flatMap { $0.values.map { ($0.labels, Double($0.count)) } }, atMs: atMs)
        sink.append(staticPods.values.map { ($0, 1) }, atMs: atMs)
        sink.append(
            leases.map { name, lease in
                let parts = name.split(separator: "/", maxSplits: 1).map(String.init)
                var labels: Labels = [
                    "namespace": parts.first ?? "", "lease": parts.last ?? "", "job": "kubernetes-objects",
                ]
                labels[Labels.metricName] = ClusterObserver.leaseMetric
                return (labels, Double(lease.transitions))
            }, atMs: atMs)
        sink.append(
            problems.map { key, problem in
                let parts = key.split(separator: "/", maxSplits: 1).map(String.init)
                var labels: Labels = [
                    "kind": parts.first ?? "", "name": parts.last ?? "", "problem": String(problem.prefix(300)),
                    "job": "kubernetes-objects",
                ]
                labels[Labels.metricName] = ClusterObserver.problemMetric
                return (labels, 1)
            }, atMs: atMs)
        emitNodes(to: sink, nowMs: atMs)
    }

    /// The nodes as they were when they were last seen: an object that was read half a minute ago says nothing of now.
    ///
    /// A watch tells only of changes, and of a node that is well every five minutes: in between it is as it was.
    private mutating func emitNodes(to sink: any SampleSink, nowMs: Int64) {
        guard let seenMs = nodesSeenMs else { return }
        let atMs: Int64
        if seenMs > nodesEmittedMs ?? .min {
            atMs = seenMs
        } else if nowMs - (nodesEmittedMs ?? 0) >= ClusterObserver.nodesMs,
            nowMs - seenMs < ClusterObserver.nodesSilentMs
        {
            atMs = nowMs
        } else {
            return
        }
        nodesEmittedMs = atMs
        var samples: [(labels: Labels, value: Double)] = []
        var info: Set<Labels> = []
        for (name, node) in nodes {
            let base: Labels = ["node": name, "job": "kubernetes-objects"]
            let place: Labels = node.zone.map { ["zone": $0] } ?? Labels()
            info.insert(
                base.merging(place).merging([
                    Labels.metricName: ClusterObserver.nodeInfoMetric, "kubelet_version": node.version,
                    "internal_ip": node.address,
                ]))
            samples.append((base.merging([Labels.metricName: ClusterObserver.nodeReadyMetric]), node.isReady ? 1 : 0))
        }
        for labels in info { samples.append((labels, 1)) }
        for labels in knownNodeInfo.subtracting(info) { samples.append((labels, staleMarker)) }
        knownNodeInfo = info
        sink.append(samples, atMs: atMs)
    }
}
