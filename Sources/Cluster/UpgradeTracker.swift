import Foundation
import Series

/// A sign of which version runs where.
package struct VersionSighting: Sendable, Equatable {
    package var atMs: Int64
    package var component: String
    package var instance: String?
    package var node: String?
    package var version: String
    /// `metrics` or `objects`.
    package var origin: String
    /// When the process began that has the version, by its own clock; nil where that is not known.
    package var startedMs: Int64?

    package init(
        atMs: Int64, component: String, instance: String?, node: String?, version: String, origin: String
    ) {
        self.atMs = atMs
        self.component = component
        self.instance = instance
        self.node = node
        self.version = version
        self.origin = origin
    }

    /// What changes its version as one: a node's kubelet whoever tells of it, else the target.
    var subject: Subject { Subject(component: component, place: node ?? instance ?? "") }

    struct Subject: Hashable, Sendable, Codable {
        var component: String
        var place: String
    }
}

/// Finds upgrades and their steps in what is seen of versions, and in marks.
///
/// A pure state machine: sightings in order of time in, upgrades out. The same sighting seen again, or the same step
/// told by a target and by an object, changes nothing.
package struct UpgradeTracker: Sendable, Codable {
    private struct Current: Sendable, Codable {
        var version: String
        var sinceMs: Int64
        var lastSeenMs: Int64
        /// What told of the version, and which one it was before.
        var origin: String
        var previous: String?
    }

    /// What every component of Kubernetes tells its version by.
    package static let versionMetric = "kubernetes_build_info"
    /// What tells since when it has it.
    package static let startMetric = "process_start_time_seconds"
    /// How long the other origin may still tell of the version before: a node object is updated some time after its
    /// kubelet answers, and the reverse.
    private static let disagreementMs: Int64 = 120_000

    /// Steps further apart than this are of different batches.
    private let batchGapMs: Int64
    /// A component that was not seen for this long is gone, and does not keep an upgrade from being finished.
    private let forgetMs: Int64
    private var versions: [VersionSighting.Subject: Current] = [:]
    private var marks: [UpgradeMark] = []
    package private(set) var upgrades: [Upgrade] = []
    /// Sightings up to this time were taken in.
    package private(set) var throughMs = Int64.min

    /// How far ``follow(_:marks:throughMs:)`` looks back behind what it saw: a scrape's samples carry the time at which
    /// it began, and arrive when it has ended.
    private static let overlapMs: Int64 = 120_000
    /// The most time that is read at once when much is to be caught up with.
    private static let chunkMs: Int64 = 6 * 3_600_000

    package init(batchGapMs: Int64 = 300_000, forgetMs: Int64 = 3_600_000) {
        self.batchGapMs = batchGapMs
        self.forgetMs = forgetMs
    }

    /// Takes in what a store has of versions since the last call, and the marks.
    ///
    /// - Throws: the source's error.
    package mutating func follow(
        _ source: (any SeriesSource)?, marks: [UpgradeMark], throughMs end: Int64
    ) throws {
        if let source, let range = try source.timeRange() {
            var fromMs = max(range.lowerBound, throughMs == .min ? .min : throughMs - UpgradeTracker.overlapMs)
            while fromMs <= end {
                let throughMs = min(end, fromMs + UpgradeTracker.chunkMs)
                let sightings = try UpgradeTracker.sightings(
                    in: source, fromMs: fromMs, throughMs: throughMs, readsStarts: true)
                for sighting in sightings {
                    observe(sighting)
                }
                fromMs = throughMs + 1
            }
        }
        throughMs = max(throughMs, end)
        for mark in marks where mark.atMs <= end { observe(mark) }
    }

    /// Takes in a sighting; sightings of one subject must come in order of time.
    package mutating func observe(_ sighting: VersionSighting) {
        let subject = sighting.subject
        guard var current = versions[subject] else {
            versions[subject] = Current(
                version: sighting.version, sinceMs: sighting.atMs, lastSeenMs: sighting.atMs, origin: sighting.origin,
                previous: nil)
            return
        }
        guard sighting.atMs >= current.lastSeenMs else { return }
        if sighting.version == current.version {
            current.lastSeenMs = sighting.atMs
            versions[subject] = current
            return
        }
        let isLate = sighting.origin != current.origin && sighting.version == current.previous
        if isLate, sighting.atMs - current.sinceMs < UpgradeTracker.disagreementMs { return }
        // Between two sightings the process knows best; one whose clock is wrong is not believed.
        let startedMs = sighting.startedMs.flatMap { current.lastSeenMs < $0 && $0 <= sighting.atMs ? $0 : nil }
        let step = UpgradeStep(
            atMs: startedMs ?? sighting.atMs, component: sighting.component, instance: sighting.instance,
            node: sighting.node, from: current.version, to: sighting.version)
        versions[subject] = Current(
            version: sighting.version, sinceMs: sighting.atMs, lastSeenMs: sighting.atMs, origin: sighting.origin,
            previous: current.version)
        add(step, detectedBy: sighting.origin)
        finishIfComplete(atMs: sighting.atMs)
    }

    /// Takes in a mark; the same one again changes nothing.
    package mutating func observe(_ mark: UpgradeMark) {
        guard !marks.contains(mark) else { return }
        marks.append(mark)
        switch mark.kind {
        case .start:
            if let open = openIndex, upgrades[open].startedMs >= mark.atMs {
                upgrades[open].startedMs = mark.atMs
            } else if openIndex == nil {
                upgrades.append(
                    Upgrade(
                        id: UpgradeTracker.id(mark.atMs, mark.from ?? commonVersion ?? "?", mark.to ?? "?"),
                        from: mark.from ?? commonVersion ?? "?", to: mark.to ?? "?", startedMs: mark.atMs,
                        finishedMs: nil, steps: [], detectedBy: "marks", rolledBackMs: nil))
            }
        case .step:
            let component = mark.component ?? "unknown"
            let known = upgrades.contains { upgrade in
                upgrade.steps.contains {
                    $0.component == component && $0.node == mark.node && abs($0.atMs - mark.atMs) < batchGapMs
                }
            }
            if !known {
                let open = openIndex.map { upgrades[$0] }
                add(
                    UpgradeStep(
                        atMs: mark.atMs, component: component, instance: nil, node: mark.node,
                        from: mark.from ?? open?.from ?? commonVersion ?? "?", to: mark.to ?? open?.to ?? "?"),
                    detectedBy: "marks")
            }
        case .finish:
            if let last = upgrades.indices.last { upgrades[last].finishedMs = mark.atMs }
        case .rollback:
            if let last = upgrades.indices.last { upgrades[last].rolledBackMs = mark.atMs }
        case .extend:
            if let last = upgrades.indices.last {
                upgrades[last].extendedMs = (upgrades[last].extendedMs ?? 0) + (mark.byMs ?? 0)
            }
        }
    }

    /// The version that most of what is seen has.
    private var commonVersion: String? {
        Dictionary(grouping: versions.values, by: \.version).max { $0.value.count < $1.value.count }?.key
    }

    /// The upgrade that a further step belongs to: the last one, while it is not finished or the step is of the same
    /// way.
    private var openIndex: Int? {
        guard let last = upgrades.indices.last, upgrades[last].finishedMs == nil else { return nil }
        return last
    }

    private mutating func add(_ step: UpgradeStep, detectedBy: String) {
        var index = openIndex
        if index == nil, let last = upgrades.indices.last,
            upgrades[last].to == step.to || upgrades[last].from == step.to
        {
            index = last
        }
        guard let index else {
            upgrades.append(
                Upgrade(
                    id: UpgradeTracker.id(step.atMs, step.from, step.to), from: step.from, to: step.to,
                    startedMs: step.atMs, finishedMs: nil, steps: [step], detectedBy: detectedBy, rolledBackMs: nil))
            return
        }
        if upgrades[index].steps.isEmpty {
            if upgrades[index].from == "?" { upgrades[index].from = step.from }
            if upgrades[index].to == "?" { upgrades[index].to = step.to }
        }
        if let from = KubernetesVersion(step.from), let to = KubernetesVersion(step.to), to < from,
            upgrades[index].rolledBackMs == nil, upgrades[index].steps.contains(where: { $0.to == step.from })
        {
            upgrades[index].rolledBackMs = step.atMs
        }
        upgrades[index].steps.append(step)
        upgrades[index].steps.sort { $0.atMs < $1.atMs }
        upgrades[index].startedMs = min(upgrades[index].startedMs, upgrades[index].steps[0].atMs)
        if upgrades[index].finishedMs != nil { upgrades[index].finishedMs = step.atMs }
        number(index)
    }

    /// Numbers the batches: a new one where the gap is wide, or where the control plane's steps end and nodes' begin.
    private mutating func number(_ index: Int) {
        var batch = 0
        var last: UpgradeStep?
        for at in upgrades[index].steps.indices {
            let step = upgrades[index].steps[at]
            if last.map({ step.atMs - $0.atMs > batchGapMs || step.isNode != $0.isNode }) ?? true { batch += 1 }
            upgrades[index].steps[at].batch = batch
            last = step
        }
    }

    private mutating func finishIfComplete(atMs: Int64) {
        guard let open = openIndex else { return }
        let upgrade = upgrades[open]
        let waiting = versions.contains { _, current in
            current.version == upgrade.from && atMs - current.lastSeenMs < forgetMs
        }
        if !waiting, let last = upgrade.steps.last { upgrades[open].finishedMs = last.atMs }
    }

    private static func id(_ atMs: Int64, _ from: String, _ to: String) -> String {
        let stamp = TimeFormat.rfc3339(ms: atMs / 1000 * 1000).filter { $0 != "-" && $0 != ":" }
        return "\(stamp)-\(from)-\(to)"
    }
}

extension UpgradeTracker {
    /// The sightings in a stretch of stored samples: `kubernetes_build_info` of every target, and the node objects'
    /// kubelet versions.
    ///
    /// - Parameter readsStarts: whether to tell when the processes began, which takes another read.
    /// - Returns: In order of time; one a sample.
    /// - Throws: the source's error.
    package static func sightings(
        in source: any SeriesSource, fromMs: Int64, throughMs: Int64, readsStarts: Bool = false
    ) throws -> [VersionSighting] {
        var sightings: [VersionSighting] = []
        /// The nodes by their addresses: a target of the control plane is often known by its address alone.
        var nodes: [String: String] = [:]
        for series in try source.select(
            [.equal(Labels.metricName, ClusterObserver.nodeInfoMetric)], fromMs: fromMs, throughMs: throughMs)
        {
            guard let version = series.labels["kubelet_version"], let node = series.labels["node"] else { continue }
            nodes[node] = node
            if let address = series.labels["internal_ip"] { nodes[address] = node }
            for (atMs, value) in zip(series.timestampsMs, series.values) where value == 1 {
                sightings.append(
                    VersionSighting(
                        atMs: atMs, component: "kubelet", instance: nil, node: node, version: version,
                        origin: "objects"))
            }
        }
        // A static pod's image has the version before its component answers.
        for series in try source.select(
            [.equal(Labels.metricName, ClusterObserver.imageMetric)], fromMs: fromMs, throughMs: throughMs)
        {
            guard let image = series.labels["image"], let tag = image.split(separator: ":").last.map(String.init),
                tag.hasPrefix("v"), KubernetesVersion(tag) != nil, let component = series.labels["component"],
                Upgrade.controlPlane.contains(component)
            else { continue }
            for (atMs, value) in zip(series.timestampsMs, series.values) where value == 1 {
                sightings.append(
                    VersionSighting(
                        atMs: atMs, component: component, instance: nil, node: series.labels["node"],
                        version: tag.prefix { $0 != "@" }.description, origin: "objects"))
            }
        }
        let target = { (labels: Labels) in [labels["job"], labels["instance"]] }
        let told =
            readsStarts
            ? try source.select(
                [.equal(Labels.metricName, UpgradeTracker.startMetric)], fromMs: fromMs, throughMs: throughMs) : []
        let starts = Dictionary(told.map { (target($0.labels), $0) }, uniquingKeysWith: { first, _ in first })
        for series in try source.select(
            [.equal(Labels.metricName, UpgradeTracker.versionMetric)], fromMs: fromMs, throughMs: throughMs)
        {
            // The label was gitVersion before 1.19.
            guard let version = series.labels["git_version"] ?? series.labels["gitVersion"] else { continue }
            let component = series.labels["component"] ?? series.labels["job"] ?? "unknown"
            let instance = series.labels["instance"]
            let host = instance.map { text in text.lastIndex(of: ":").map { String(text[..<$0]) } ?? text } ?? ""
            let node = series.labels["node"] ?? nodes[host.trimmingCharacters(in: CharacterSet(charactersIn: "[]"))]
            let started = starts[target(series.labels)]
            var next = 0
            for (atMs, value) in zip(series.timestampsMs, series.values) where value == 1 {
                var sighting = VersionSighting(
                    atMs: atMs, component: component, instance: instance, node: node, version: version,
                    origin: "metrics")
                if let started {
                    // One scrape's samples have one time.
                    let times = started.timestampsMs
                    while next < times.count, times[next] < atMs { next += 1 }
                    if next < times.count, times[next] == atMs {
                        sighting.startedMs = Int64(exactly: (started.values[next] * 1000).rounded())
                    }
                }
                sightings.append(sighting)
            }
        }
        return sightings.sorted { $0.atMs < $1.atMs }
    }

    /// What the version-skew policy (kubernetes.io/releases/version-skew-policy) says against versions that run side by
    /// side: kubelets at most three minor versions older than the oldest API server, two before 1.28, and never newer;
    /// controller manager and scheduler at most one older, and not newer.
    package static func skew(of sightings: [VersionSighting]) -> [String] {
        var latest: [VersionSighting.Subject: VersionSighting] = [:]
        for sighting in sightings { latest[sighting.subject] = sighting }
        let seen = latest.values.compactMap { sighting in
            KubernetesVersion(sighting.version).map { (sighting: sighting, version: $0) }
        }
        let servers = seen.filter { $0.sighting.component == "kube-apiserver" }.map(\.version)
        guard let oldest = servers.min(), let newest = servers.max() else { return [] }
        var words: [String] = []
        if newest.minor - oldest.minor > 1 {
            words.append(
                "API servers of \(oldest) and \(newest) run side by side: at most one minor version apart is supported")
        }
        for (sighting, version) in seen {
            let place = sighting.node ?? sighting.instance ?? ""
            let allowed: Int
            switch sighting.component {
            case "kubelet", "kube-proxy": allowed = newest.minor >= 28 ? 3 : 2
            case "kube-controller-manager", "kube-scheduler": allowed = 1
            default: continue
            }
            if newest.minor - version.minor > allowed {
                words.append(
                    "\(sighting.component) \(place) of \(version) is older than an API server of \(newest) allows: "
                        + "at most \(allowed) minor versions")
            } else if version.minor > oldest.minor {
                words.append("\(sighting.component) \(place) of \(version) is newer than the API server of \(oldest)")
            }
        }
        return words.sorted()
    }
}
