import Series

/// What an upgrade does by itself to containers and pods: by this a row of the ledger is expected or not.
///
/// Expected is what must happen on the way from one version to another, once, where and when its step was: a restart
/// of every container on a node whose new kubelet computes another hash, the recreation of drained pods, the
/// replacement of static pods. Expected is also what workloads do of themselves: jobs that complete, roll-outs, pods
/// that their users delete. Too many, too late, twice, or on a node without a step is not.
package struct Expectation: Sendable {
    /// Whether a row is expected, and why.
    package struct Judgement: Sendable, Equatable {
        package var isExpected: Bool
        package var why: String
    }

    private let upgrade: Upgrade
    /// The versions on the way whose kubelets compute another hash.
    package let hashChanges: [VersionCatalogue.RestartCause]

    /// A step is seen this long after it was done, at most: two scrapes and a list of nodes.
    private static let earlyMs: Int64 = 120_000
    /// A restart belongs to its node's step for so long.
    private static let lateMs: Int64 = 900_000
    /// A node is drained, and rebooted, so long before its kubelet's step.
    package static let drainMs: Int64 = 2 * 3_600_000

    package init(upgrade: Upgrade, catalogue: VersionCatalogue = .builtIn) {
        self.upgrade = upgrade
        hashChanges =
            UpgradePath(upgrade).map { path in
                catalogue.restartCauses.filter { path.crossesEitherWay($0.version) }
            } ?? []
    }

    /// Judges rows.
    ///
    /// - Parameter rows: in order of time.
    /// - Returns: A judgement for each.
    package func judge(_ rows: [LedgerEntry]) -> [Judgement] {
        var seen: Set<String> = []
        return rows.map { row in
            var judgement = judge(row)
            // A step restarts a container once: the second time is a fault.
            if judgement.isExpected, isOnce(row.cause) {
                let step = step(of: row).map { "\($0.atMs)" } ?? ""
                let who = row.kind == .exit ? "\(row.podUID)/\(row.container)" : "\(row.namespace)/\(row.pod)"
                if !seen.insert("\(row.kind)/\(row.cause.rawValue)/\(who)/\(step)").inserted {
                    judgement = Judgement(
                        isExpected: false, why: "it happened before since the same step: once is expected")
                }
            }
            return judgement
        }
    }

    private func isOnce(_ cause: LedgerCause) -> Bool {
        switch cause {
        case .definitionChanged, .kubeletRestart, .nodeReboot, .runtimeRestart, .staticPodChanged: true
        default: false
        }
    }

    /// The last step of the row's node that it can belong to.
    private func step(of row: LedgerEntry) -> UpgradeStep? {
        upgrade.steps.last { $0.isNode && $0.node == row.node && $0.atMs - Expectation.earlyMs <= row.atMs }
    }

    private func judge(_ row: LedgerEntry) -> Judgement {
        switch row.cause {
        case .definitionChanged: definitionChanged(row)
        case .kubeletRestart, .runtimeRestart, .nodeReboot, .drain: withItsNode(row)
        case .staticPodChanged, .podGarbageCollected:
            isDuringUpgrade(row)
                ? Judgement(isExpected: true, why: "the upgrade replaces it")
                : Judgement(isExpected: false, why: "no upgrade was under way")
        case .rollout:
            Judgement(
                isExpected: true,
                why: row.namespace == "kube-system" && isDuringUpgrade(row)
                    ? "an add-on was upgraded" : "the workload was changed")
        case .jobCompletion: Judgement(isExpected: true, why: "it was done")
        case .podDeleted: Judgement(isExpected: true, why: "the pod was deleted")
        case .taintEviction:
            Judgement(isExpected: false, why: "no step takes so long that a node's pods must go")
        case .pressureEviction, .apiEviction, .preemption, .outOfMemory, .probeFailed, .applicationExit, .unknown:
            Judgement(isExpected: false, why: "no upgrade does this")
        }
    }

    private func definitionChanged(_ row: LedgerEntry) -> Judgement {
        guard let change = hashChanges.last else {
            return Judgement(
                isExpected: false,
                why:
                    "no version from \(upgrade.from) to \(upgrade.to) computes another hash of a container's definition"
            )
        }
        guard let step = step(of: row) else {
            let hasStep = upgrade.steps.contains { $0.isNode && $0.node == row.node }
            return Judgement(
                isExpected: false,
                why: hasStep ? "it came before the step of \(row.node)" : "\(row.node) was not upgraded")
        }
        guard row.atMs <= step.atMs + Expectation.lateMs else {
            return Judgement(
                isExpected: false,
                why:
                    "it came \(TimeFormat.duration(ms: (row.atMs - step.atMs) / 60_000 * 60_000)) after the step of \(row.node)"
            )
        }
        return Judgement(isExpected: true, why: "since \(change.version) \(change.why)")
    }

    private func withItsNode(_ row: LedgerEntry) -> Judgement {
        let near = upgrade.steps.contains {
            $0.isNode && $0.node == row.node && row.atMs >= $0.atMs - Expectation.drainMs
                && row.atMs <= $0.atMs + Expectation.lateMs
        }
        if near { return Judgement(isExpected: true, why: "\(row.node) was upgraded") }
        if row.cause == .drain, isDuringUpgrade(row) {
            return Judgement(isExpected: true, why: "\(row.node) is drained, its step is still to come")
        }
        return Judgement(isExpected: false, why: "\(row.node) had no step at the time")
    }

    private func isDuringUpgrade(_ row: LedgerEntry) -> Bool {
        row.atMs >= upgrade.startedMs - Expectation.lateMs
            && row.atMs <= (upgrade.finishedMs ?? .max - Expectation.lateMs) + Expectation.lateMs
    }
}
