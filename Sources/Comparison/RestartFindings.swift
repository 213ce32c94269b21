import Cluster
import Series

/// What the ledger tells of an upgrade: the containers that new kubelets recreated, and the figures of all ends.
struct RestartFindings {
    private(set) var findings: [Finding] = []
    private(set) var summary = LedgerSummary()

    /// The most lines of evidence of one finding.
    private static let maxEvidence = 100

    init(input: ComparisonInput, upgrade: Upgrade, windows: Windows) throws {
        let expectation = Expectation(upgrade: upgrade)
        let since = windows.baseline.throughMs
        let all = input.ledger.filter { $0.atMs <= windows.nowMs }
        // The first node is drained before the first step.
        let isOfUpgrade = { (row: LedgerEntry) in
            row.atMs > since || (row.cause == .drain && row.atMs > since - Expectation.drainMs)
        }
        let rows = all.filter(isOfUpgrade)
        let judged = Array(zip(rows, expectation.judge(rows)))
        summary.rows = all.filter { !isOfUpgrade($0) }.map { .init(entry: $0, judgement: nil) }
        summary.rows += judged.map { .init(entry: $0, judgement: $1) }
        summary.rows.sort { $0.entry.atMs < $1.entry.atMs }
        summarise(judged)
        let recreated = judged.filter {
            $0.0.kind == .exit && $0.0.cause == .definitionChanged && $0.1.isExpected
        }.map(\.0)
        let lines = try input.logEvidence([
            .equal(Labels.metricName, "upgrade_watch_log_matches_total"),
            .equal("rule", "container_definition_changed"),
        ])
        for node in Set(recreated.map(\.node)).sorted() {
            let logged = lines.filter { $0.labels["node"] == node && ($0.evidence.lastMs ?? 0) > since }
            findings.append(
                RestartFindings.recreated(
                    node, recreated.filter { $0.node == node }, logged, upgrade, expectation.hashChanges.last))
        }
        findings += RestartFindings.unexpected(judged, upgrade)
    }

    /// Restarts of the kind that upgrades make, and that this one should not have made.
    ///
    /// They are too many, too late, or elsewhere. What applications and evictions do is for the signals to judge.
    private static func unexpected(
        _ rows: [(LedgerEntry, Expectation.Judgement)], _ upgrade: Upgrade
    ) -> [Finding] {
        let causes: Set<LedgerCause> = [
            .definitionChanged, .kubeletRestart, .nodeReboot, .runtimeRestart, .staticPodChanged, .drain,
        ]
        let odd = rows.filter { causes.contains($0.0.cause) && !$0.1.isExpected }
        let groups = Dictionary(grouping: odd) { [$0.0.node, $0.0.cause.rawValue, $0.1.why] }
        return groups.sorted { $0.key.lexicographicallyPrecedes($1.key) }.map { key, rows in
            let first = rows.map(\.0.atMs).min() ?? 0
            let step = upgrade.step(before: first, component: "kubelet", node: key[0], slackMs: 60_000)
            return Finding(
                signal: "unexpected_restarts", severity: .critical,
                summary: "\(rows.count) unexpected ends on \(key[0]): \(key[1])",
                scope: FindingScope(
                    component: "kubelet", node: key[0], batch: step.map { upgrade.steps[$0].batch },
                    labels: ["cause": key[1], "why": key[2]]),
                unit: "containers", before: nil, after: Double(rows.count), effect: nil, onsetMs: first,
                isExpected: false,
                cause: FindingCause(kind: step == nil ? .unknown : .upgradeStep, step: step, explanation: key[2]),
                evidence: rows.prefix(maxEvidence).map { evidence($0.0) })
        }
    }

    private static func evidence(_ row: LedgerEntry) -> Evidence {
        let shown = row.evidence.first
        return Evidence(
            kind: shown.flatMap { Evidence.Kind(rawValue: $0.source.rawValue) } ?? .object,
            text: "\(row.namespace)/\(row.pod) container \(row.container): \(shown?.text ?? "")", count: 1,
            firstMs: row.atMs, lastMs: row.atMs)
    }

    private static func recreated(
        _ node: String, _ rows: [LedgerEntry], _ logged: [(labels: Labels, evidence: Evidence)], _ upgrade: Upgrade,
        _ change: VersionCatalogue.RestartCause?
    ) -> Finding {
        var evidence = rows.map(evidence)
        evidence += logged.map(\.evidence)
        let count = rows.count
        let onset = rows.map(\.atMs).min()
        let step = upgrade.step(before: onset ?? .max, component: "kubelet", node: node, slackMs: 60_000)
        let batch = step.map { upgrade.steps[$0].batch }
        let words = step.map { index in
            "the kubelet of \(node) went from \(upgrade.steps[index].from) to \(upgrade.steps[index].to)"
        }
        let why = change.map { "; since \($0.version) the kubelet computes another hash: \($0.why)" } ?? ""
        return Finding(
            signal: "containers_recreated", severity: .warning,
            summary: "\(count) containers on \(node) were killed and started again by the new kubelet: "
                + "container definition changed",
            scope: FindingScope(component: "kubelet", node: node, batch: batch), unit: "containers", before: 0,
            after: Double(count), effect: nil, onsetMs: onset, isExpected: true,
            cause: FindingCause(
                kind: step == nil ? .unknown : .upgradeStep, step: step,
                explanation: (words ?? "no step of the node is known") + why),
            evidence: Array(evidence.prefix(maxEvidence)))
    }

    private mutating func summarise(_ rows: [(LedgerEntry, Expectation.Judgement)]) {
        var nodes: [String: LedgerSummary.Node] = [:]
        for (row, judgement) in rows {
            let total: WritableKeyPath<LedgerSummary, LedgerSummary.Total>
            let ofNode: WritableKeyPath<LedgerSummary.Node, LedgerSummary.Total>
            if row.isRestart {
                (total, ofNode) = (\.restarts, \.restarts)
            } else if row.kind == .eviction {
                (total, ofNode) = (\.evictions, \.evictions)
            } else {
                continue
            }
            summary[keyPath: total].add(row.cause, isExpected: judgement.isExpected)
            nodes[row.node, default: LedgerSummary.Node(name: row.node)][keyPath: ofNode]
                .add(row.cause, isExpected: judgement.isExpected)
        }
        summary.nodes = nodes.values.sorted { $0.name < $1.name }
    }
}
