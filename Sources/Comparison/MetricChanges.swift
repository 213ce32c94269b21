import Cluster
import Series

/// Accounts for every metric that a target exposed before an upgrade and does not afterwards.
///
/// None of them is a regression: each has a successor, was removed, belongs to the language's runtime, or has not
/// counted yet.
enum MetricChanges {
    private static let maxEvidence = 500
    /// A target that did not answer for so long is gone.
    private static let lateMs: Int64 = 3_600_000

    static func findings(
        _ source: any SeriesSource, continuity: MetricContinuity, upgrade: Upgrade, windows: Windows
    ) throws -> [Finding] {
        let afterMs = (upgrade.finishedMs ?? upgrade.steps.last?.atMs ?? upgrade.startedMs) + Comparison.settleMs
        guard afterMs < windows.nowMs else { return [] }
        let known = Set(try source.metadata().map(\.name))
        let family = { (name: String) in known.contains(name) ? name : VersionCatalogue.family(of: name).name }
        let all: [LabelMatcher] = [try LabelMatcher("instance", .matches, ".+")]
        func families(_ fromMs: Int64) throws -> [String: Set<String>] {
            var found: [String: Set<String>] = [:]
            for labels in try source.labels(all, fromMs: fromMs, throughMs: windows.nowMs) {
                let job = labels["job"] ?? ""
                found[job, default: []].insert("\(labels["instance"] ?? "")\u{1f}\(family(labels.name))")
            }
            return found
        }
        let before = try families(windows.baseline.fromMs)
        let after = try families(afterMs)
        let answering = try instances(source, fromMs: max(afterMs, windows.nowMs - lateMs), throughMs: windows.nowMs)
        return before.sorted { $0.key < $1.key }.compactMap { job, names in
            // A target that answers no more is no matter of its metrics.
            let answering = answering[job] ?? []
            let gone = names.subtracting(after[job] ?? []).filter {
                answering.contains(String($0.prefix { $0 != "\u{1f}" }))
            }
            let metrics = Set(gone.map { String($0.drop { $0 != "\u{1f}" }.dropFirst()) })
                .filter { !$0.hasPrefix("upgrade_watch_") && !$0.hasPrefix("ALERTS") }
            return metrics.isEmpty ? nil : finding(job, metrics.sorted(), continuity, upgrade)
        }
    }

    /// The instances of each job that answered a scrape.
    private static func instances(
        _ source: any SeriesSource, fromMs: Int64, throughMs: Int64
    ) throws -> [String: Set<String>] {
        let up = try source.selection([.equal(Labels.metricName, "up")], fromMs: fromMs, throughMs: throughMs)
        var found: [String: Set<String>] = [:]
        try up.readAll { place, _, values in
            guard values.contains(1) else { return }
            found[up.labels[place]["job"] ?? "", default: []].insert(up.labels[place]["instance"] ?? "")
        }
        return found
    }

    private static func finding(
        _ job: String, _ metrics: [String], _ continuity: MetricContinuity, _ upgrade: Upgrade
    ) -> Finding {
        let words: [(kind: MetricFate.Kind, words: String)] = [
            (.successor, "with a successor"), (.removed, "removed"), (.unknown, "gone without a known reason"),
            (.quiet, "nothing counted yet"), (.runtime, "of the Go runtime"),
        ]
        let all = metrics.map { ($0, continuity.fate(of: $0)) }
        let fates = words.flatMap { word in all.filter { $0.1.kind == word.kind } }
        let parts = words.compactMap { kind, words in
            let count = all.count { $0.1.kind == kind }
            return count == 0 ? nil : "\(words): \(count)"
        }
        let step = upgrade.steps.lastIndex { $0.component == job }
        return Finding(
            signal: "metrics_changed", severity: .info,
            summary: "\(metrics.count) metrics of \(job) are not exposed any more: \(parts.joined(separator: ", "))",
            scope: FindingScope(component: job), unit: "metrics", before: nil, after: Double(metrics.count),
            effect: nil,
            onsetMs: step.map { upgrade.steps[$0].atMs }, isExpected: true,
            cause: FindingCause(
                kind: step == nil ? .unknown : .upgradeStep, step: step,
                explanation: "metrics change with versions; what can't be compared is no regression"),
            evidence: fates.prefix(maxEvidence).map { name, fate in
                Evidence(kind: .metric, text: "\(name): \(fate.explanation)", count: 1, firstMs: nil, lastMs: nil)
            })
    }
}
