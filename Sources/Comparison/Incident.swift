import Cluster
import Statistics

/// Findings that most likely have one cause: of the same control plane or the same batch of nodes, begun about together.
package struct Incident: Sendable, Equatable {
    /// When the first of them began; nil where none knows.
    package var onsetMs: Int64?
    /// nil: of no batch.
    package var batch: Int?
    /// The number of the step within the upgrade that the first finding is blamed on; nil: none is.
    package var step: Int?
    /// Whether any of them fails the upgrade.
    package var failsUpgrade: Bool
    /// The identifiers of its findings, the one that tells most first.
    package var findings: [String]
    /// The first finding's words.
    package var summary: String

    /// How much later than an incident's first finding the others may begin.
    private static let lengthMs: Int64 = 1_800_000

    /// Folds findings into incidents, the worst first.
    ///
    /// What is expected or was there before takes no part.
    static func fold(_ findings: [Finding], _ upgrade: Upgrade) -> [Incident] {
        var groups: [(batch: Int?, isNode: Bool, findings: [Finding])] = []
        let open = findings.filter { !$0.isExpected && $0.cause.kind != .preexisting && $0.severity != .info }
        for finding in open.sorted(by: { $0.onsetMs ?? .max < $1.onsetMs ?? .max }) {
            let step = finding.cause.step.map { upgrade.steps[$0] }
            let batch = finding.scope.batch ?? step?.batch
            let isNode = step?.isNode ?? false
            let known = groups.firstIndex { group in
                guard group.batch == batch, group.isNode == isNode, batch != nil else { return false }
                guard let first = group.findings[0].onsetMs, let onset = finding.onsetMs else { return true }
                return onset - first <= lengthMs
            }
            if let known {
                groups[known].findings.append(finding)
            } else {
                groups.append((batch, isNode, [finding]))
            }
        }
        let incidents = groups.map { group in
            let ranked = group.findings.enumerated().sorted { left, right in
                let (a, b) = (weight(left.element), weight(right.element))
                return a == b ? left.offset < right.offset : a > b
            }.map(\.element)
            return Incident(
                onsetMs: group.findings.compactMap(\.onsetMs).min(), batch: group.batch, step: ranked[0].cause.step,
                failsUpgrade: ranked.contains(where: \.failsUpgrade), findings: ranked.map(\.id),
                summary: ranked[0].summary)
        }
        return incidents.enumerated().sorted { left, right in
            let (a, b) = (left.element, right.element)
            if a.failsUpgrade != b.failsUpgrade { return a.failsUpgrade }
            if a.findings.count != b.findings.count { return a.findings.count > b.findings.count }
            return left.offset < right.offset
        }.map(\.element)
    }

    /// What fails the upgrade tells most, then what is surest to be large.
    private static func weight(_ finding: Finding) -> Double {
        var weight = finding.failsUpgrade ? 1e6 : 0
        if let effect = finding.effect, effect.kind == .rateRatio { weight += min(1e3, max(0, effect.interval.low)) }
        return weight
    }
}
