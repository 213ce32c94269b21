import Cluster
import Series

/// What an upgrade, or the way back from one, leaves behind in objects, and versions that should not run side by side.
enum ObjectFindings {
    /// A problem that lasts so long is none of the upgrade's passing disturbances.
    private static let lastingMs: Int64 = 300_000

    /// Objects that something is wrong with since the upgrade began: namespaces that don't go, API services that don't
    /// answer, stored versions that are not served.
    static func findings(_ source: any SeriesSource, upgrade: Upgrade, windows: Windows) throws -> [Finding] {
        var found: [String: (first: Int64, last: Int64, labels: Labels)] = [:]
        for series in try source.select(
            [.equal(Labels.metricName, ClusterObserver.problemMetric)], fromMs: windows.baseline.fromMs,
            throughMs: windows.nowMs)
        {
            guard let first = series.timestampsMs.first, let last = series.timestampsMs.last else { continue }
            let key = "\(series.labels["kind"] ?? "")/\(series.labels["name"] ?? "")"
            let known = found[key]
            // The words may change while it lasts: the latest count.
            let labels = (known?.last ?? .min) > last ? known?.labels ?? series.labels : series.labels
            found[key] = (min(first, known?.first ?? first), max(last, known?.last ?? last), labels)
        }
        return found.sorted { $0.key < $1.key }.compactMap { _, one in
            let isNow = windows.nowMs - one.last < 120_000
            guard isNow, one.last - one.first >= lastingMs else { return nil }
            let isOld = one.first <= windows.baseline.throughMs
            let kind = one.labels["kind"] ?? ""
            let name = one.labels["name"] ?? ""
            let problem = one.labels["problem"] ?? ""
            let step = isOld ? nil : upgrade.step(before: one.first, component: nil, node: nil, slackMs: 60_000)
            let back = upgrade.rolledBackMs.map { one.first >= $0 } ?? false
            return Finding(
                signal: "object_problems", severity: isOld ? .info : .warning,
                summary: "\(kind) \(name): \(problem)" + (isOld ? "; it was so before the upgrade" : ""),
                scope: FindingScope(
                    namespace: kind == "Namespace" ? name : nil, labels: ["kind": kind, "name": name]),
                unit: "objects", before: isOld ? 1 : 0, after: 1, effect: nil, onsetMs: one.first, isExpected: false,
                cause: FindingCause(
                    kind: isOld ? .preexisting : step == nil ? .unknown : .upgradeStep, step: step,
                    explanation: isOld
                        ? "it was so before the upgrade began"
                        : back
                            ? "began after the roll-back: the old version does not know what the new one left"
                            : "began after the upgrade did"),
                evidence: [
                    Evidence(
                        kind: .object, text: "\(kind) \(name): \(problem)", count: 1, firstMs: one.first,
                        lastMs: one.last)
                ])
        }
    }

    /// Versions that the version-skew policy does not allow side by side, as they are now.
    static func skew(_ source: any SeriesSource, windows: Windows) throws -> [Finding] {
        let sightings = try UpgradeTracker.sightings(
            in: source, fromMs: windows.nowMs - 300_000, throughMs: windows.nowMs)
        let words = UpgradeTracker.skew(of: sightings)
        guard !words.isEmpty else { return [] }
        return [
            Finding(
                signal: "version_skew", severity: .warning,
                summary: words.count == 1
                    ? words[0] : "\(words.count) components have versions that should not run side by side",
                scope: FindingScope(), unit: "components", before: nil, after: Double(words.count), effect: nil,
                onsetMs: nil, isExpected: false,
                cause: FindingCause(
                    kind: .unknown, step: nil,
                    explanation: "the version-skew policy: kubernetes.io/releases/version-skew-policy"),
                evidence: words.prefix(100).map {
                    Evidence(kind: .metric, text: $0, count: 1, firstMs: nil, lastMs: windows.nowMs)
                })
        ]
    }
}
