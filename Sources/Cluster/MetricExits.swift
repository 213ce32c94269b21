import Series

/// Restarts of containers that metrics tell of, for nodes that neither objects nor logs tell of.
///
/// A container whose start time (`container_start_time_seconds` of the kubelet's `/metrics/resource`, KEP-727, or of
/// cAdvisor) is another one than before was started again. Why, metrics do not say; but a restart that comes with a new
/// kubelet that computes another hash of the container's definition is that kubelet's doing.
package struct MetricExits {
    /// A restart, as the ledger takes it in.
    struct Restart: Equatable {
        var namespace: String
        var pod: String
        var container: String
        var node: String
        var atMs: Int64
        var evidence: LedgerEvidence
    }

    private struct Key: Hashable {
        var namespace: String
        var pod: String
        var container: String
    }

    private struct Kubelet {
        var version: String
        /// Which one it replaced, and when.
        var previous: String?
        var changedMs: Int64 = 0
    }

    /// How far back samples are read: the kubelet gives a start time the time of the start, not that of the scrape.
    private static let lookbackMs: Int64 = 660_000
    /// A restart so close to when a new kubelet of its node was seen is that kubelet's doing: it goes over all containers
    /// when it starts.
    private static let nearMs: Int64 = 120_000
    /// When each container began, as cAdvisor tells it.
    package static let startMetric = "container_start_time_seconds"
    private static let maxContainers = 500_000

    private var starts: [Key: Double] = [:]
    private var kubelets: [String: Kubelet] = [:]
    /// The steps by which the last restart of a container was explained: a step restarts it once.
    private var explained: [Key: Int64] = [:]
    private let catalogue: VersionCatalogue

    init(catalogue: VersionCatalogue = .builtIn) { self.catalogue = catalogue }

    /// The restarts that stored samples tell of since the last call.
    ///
    /// - Throws: the source's error.
    mutating func follow(_ source: any SeriesSource, atMs: Int64) throws -> [Restart] {
        let fromMs = atMs - MetricExits.lookbackMs
        for sighting in try UpgradeTracker.sightings(in: source, fromMs: fromMs, throughMs: atMs)
        where sighting.component == "kubelet" {
            guard let node = sighting.node else { continue }
            let known = kubelets[node]
            guard known?.version != sighting.version, sighting.atMs > known?.changedMs ?? 0 else { continue }
            kubelets[node] = Kubelet(version: sighting.version, previous: known?.version, changedMs: sighting.atMs)
        }
        var restarts: [Restart] = []
        if starts.count > MetricExits.maxContainers {
            starts.removeAll()
            explained.removeAll()
        }
        for series in try source.select(
            [.equal(Labels.metricName, MetricExits.startMetric)], fromMs: fromMs, throughMs: atMs)
        {
            let labels = series.labels
            let name = labels["container"] ?? labels["container_name"] ?? ""
            guard !name.isEmpty, name != "POD", let pod = labels["pod"] ?? labels["pod_name"] else { continue }
            let key = Key(namespace: labels["namespace"] ?? "", pod: pod, container: name)
            for value in series.values where value.isFinite && value > 0 {
                guard let known = starts[key] else {
                    starts[key] = value
                    continue
                }
                // The same start, told by two endpoints, differs by the rounding of one.
                guard value > known + 1 else { continue }
                starts[key] = value
                restarts.append(restart(key, node: labels["node"] ?? "", startMs: Int64(value * 1000)))
            }
        }
        return restarts
    }

    private mutating func restart(_ key: Key, node: String, startMs: Int64) -> Restart {
        var cause: LedgerCause?
        var text = "container \(key.container) was started again"
        if let kubelet = kubelets[node], let previous = kubelet.previous,
            let from = KubernetesVersion(previous), let to = KubernetesVersion(kubelet.version),
            abs(startMs - kubelet.changedMs) < MetricExits.nearMs, explained[key] != kubelet.changedMs
        {
            let path = UpgradePath(from: from, to: to)
            if let change = catalogue.restartCauses.last(where: { path.crossesEitherWay($0.version) }) {
                cause = .definitionChanged
                explained[key] = kubelet.changedMs
                text += " with the step of its kubelet from \(from) to \(to); since \(change.version) \(change.why)"
            }
        }
        return Restart(
            namespace: key.namespace, pod: key.pod, container: key.container, node: node, atMs: startMs,
            evidence: LedgerEvidence(source: .metric, text: text, cause: cause))
    }
}
