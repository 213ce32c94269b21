import Cluster
import Series

/// What the ledger tells of an upgrade: the containers that new kubelets recreated, and the figures of all ends.
struct RestartFindings {
    private(set) var findings: [Finding] = []
    private(set) var summary = LedgerSummary()

    /// The minor versions whose kubelet computes another hash of a container's definition than the one before, so
    /// that it restarts every container that it finds running.
    static let hashChanges = ["1.16", "1.31"]

    /// The most lines of evidence of one finding.
    private static let maxEvidence = 100

    init(input: ComparisonInput, upgrade: Upgrade, windows: Windows) throws {
        let from = KubernetesVersion(upgrade.from)
        let to = KubernetesVersion(upgrade.to)
        let crossed = RestartFindings.hashChanges.first { text in
            guard let from, let to, let minor = KubernetesVersion(text) else { return false }
            return KubernetesVersion.path(from: from, to: to, crosses: minor)
        }
        let since = windows.baseline.throughMs
        let rows = input.ledger.filter { $0.atMs > since && $0.atMs <= windows.nowMs }
        summarise(rows, hashChanged: crossed != nil)
        let recreated = rows.filter { $0.kind == .exit && $0.cause == .definitionChanged }
        let lines = try input.logEvidence([
            .equal(Labels.metricName, "upgrade_watch_log_matches_total"),
            .equal("rule", "container_definition_changed"),
        ])
        let nodes = Set(recreated.map(\.node) + lines.compactMap { $0.labels["node"] }).sorted()
        for node in nodes {
            let rows = recreated.filter { $0.node == node }
            let logged = lines.filter { $0.labels["node"] == node && ($0.evidence.lastMs ?? 0) > since }
            guard !rows.isEmpty || !logged.isEmpty else { continue }
            findings.append(RestartFindings.recreated(node, rows, logged, upgrade, crossed: crossed))
        }
    }

    private static func recreated(
        _ node: String, _ rows: [LedgerEntry], _ logged: [(labels: Labels, evidence: Evidence)], _ upgrade: Upgrade,
        crossed: String?
    ) -> Finding {
        var evidence = rows.map { row in
            Evidence(
                kind: .event,
                text: "\(row.namespace)/\(row.pod) container \(row.container): "
                    + (row.evidence.last { $0.hasPrefix("event:") } ?? row.evidence.first ?? ""),
                count: 1, firstMs: row.atMs, lastMs: row.atMs)
        }
        evidence += logged.map(\.evidence)
        let count = rows.isEmpty ? logged.reduce(0) { $0 + $1.evidence.count } : rows.count
        let onset = (rows.map(\.atMs) + logged.compactMap(\.evidence.firstMs)).min()
        let step = upgrade.step(before: onset ?? .max, component: "kubelet", node: node, slackMs: 60_000)
        let batch = step.map { upgrade.steps[$0].batch }
        let words = step.map { index in
            "the kubelet of \(node) went from \(upgrade.steps[index].from) to \(upgrade.steps[index].to)"
        }
        let why = crossed.map { "; since \($0) the kubelet computes another hash of a container's definition" } ?? ""
        return Finding(
            signal: "containers_recreated", severity: crossed == nil ? .critical : .warning,
            summary: "\(count) containers on \(node) were killed and started again by the new kubelet: "
                + "container definition changed",
            scope: FindingScope(component: "kubelet", node: node, batch: batch), unit: "containers", before: 0,
            after: Double(count), effect: nil, onsetMs: onset, isExpected: crossed != nil,
            cause: FindingCause(
                kind: step == nil ? .unknown : .upgradeStep, step: step,
                explanation: (words ?? "no step of the node is known") + why),
            evidence: Array(evidence.prefix(maxEvidence)))
    }

    private mutating func summarise(_ rows: [LedgerEntry], hashChanged: Bool) {
        for row in rows {
            switch row.kind {
            case .exit where row.isRestart:
                summary.restarts.total += 1
                summary.restarts.byCause[row.cause.rawValue, default: 0] += 1
                if row.cause == .definitionChanged, hashChanged { summary.restarts.expected += 1 }
            case .eviction:
                summary.evictions.total += 1
                summary.evictions.byCause[row.cause.rawValue, default: 0] += 1
            default: break
            }
        }
    }
}
