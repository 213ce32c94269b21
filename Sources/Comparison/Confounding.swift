import Cluster
import Series

/// What else than its step may have made a finding: no statistic tells apart what happened to the same nodes in the same
/// minutes, so it is said.
struct Confounding {
    private let upgrade: Upgrade
    private let rollouts: [LedgerEntry]
    /// The zone of each node that has one.
    private let zones: [String: String]

    /// What lies no further apart than this is of the same minutes.
    private static let sameTimeMs: Int64 = 600_000
    /// A load this many times as high, or as low, is said.
    static let loadRatio = 1.5

    /// - Throws: the source's error.
    init(_ input: ComparisonInput, upgrade: Upgrade, windows: Windows) throws {
        self.upgrade = upgrade
        rollouts = input.ledger.filter { $0.cause == .rollout }
        var zones: [String: String] = [:]
        for labels in try input.source.labels(
            [.equal(Labels.metricName, ClusterObserver.nodeInfoMetric)], fromMs: windows.baseline.fromMs,
            throughMs: windows.nowMs)
        {
            if let node = labels["node"], let zone = labels["zone"] { zones[node] = zone }
        }
        self.zones = zones
    }

    /// One sentence for each; none where the finding is not blamed on a step.
    func caveats(of finding: Finding) -> [String] {
        guard finding.cause.kind == .upgradeStep, let index = finding.cause.step else { return [] }
        let step = upgrade.steps[index]
        return [otherSteps(step, finding), zone(step), rollout(finding)].compactMap { $0 }
    }

    private func otherSteps(_ step: UpgradeStep, _ finding: Finding) -> String? {
        // What a component shows of itself is its own doing.
        guard finding.scope.component != step.component else { return nil }
        let others = upgrade.steps.filter {
            $0.component != step.component && abs($0.atMs - step.atMs) <= Confounding.sameTimeMs
        }
        let names = Set(others.map(\.component)).sorted()
        guard !names.isEmpty else { return nil }
        return "\(names.joined(separator: ", ")) went over in the same minutes: it may be "
            + (names.count == 1 ? "its" : "their") + " doing"
    }

    private func zone(_ step: UpgradeStep) -> String? {
        guard step.isNode, Set(zones.values).count > 1 else { return nil }
        let nodes = Set(upgrade.steps.filter { $0.isNode && $0.batch == step.batch }.compactMap(\.node))
        let ofBatch = Set(nodes.compactMap { zones[$0] })
        guard nodes.count > 1, ofBatch.count == 1, let zone = ofBatch.first else { return nil }
        return "batch \(step.batch) is of zone \(zone) alone: what befalls the zone looks the same"
    }

    private func rollout(_ finding: Finding) -> String? {
        guard let workload = finding.scope.workload, let onset = finding.onsetMs else { return nil }
        let same = rollouts.first {
            $0.workload == workload && finding.scope.namespace ?? $0.namespace == $0.namespace
                && abs($0.atMs - onset) <= Confounding.sameTimeMs
        }
        return same.map {
            "\($0.workloadKind) \($0.namespace)/\(workload) was rolled out at "
                + "\(TimeFormat.rfc3339(ms: $0.atMs / 1000 * 1000)): it may be the workload's doing"
        }
    }
}

extension SignalTable {
    /// What its events or values hang on, a bin, after in parts of before; nil where that is not known.
    ///
    /// - Parameter first: the first bin of what is judged.
    func loadChange(baseline: Int, first: Int, count: Int) -> Double? {
        var load = [Double](repeating: 0, count: count)
        switch signal.kind {
        case .ratio, .mean:
            for cell in cells {
                for index in 0..<min(count, cell.weights.count) { load[index] += Double(cell.weights[index]) }
            }
        default: for index in 0..<min(count, self.load.count) { load[index] = Double(self.load[index]) }
        }
        guard baseline > 0, first < count else { return nil }
        let before = load[..<baseline].reduce(0, +) / Double(baseline)
        let after = load[first...].reduce(0, +) / Double(count - first)
        return before > 0 ? after / before : nil
    }
}
