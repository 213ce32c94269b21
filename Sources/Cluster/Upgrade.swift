import Series

/// What an upgrade is doing.
package enum UpgradePhase: String, Sendable, Codable {
    /// No step yet.
    case baseline
    case upgrading
    /// No step for a while, and components of the old version are left.
    case paused
    /// Every component has the new version; the time of observation runs.
    case soaking
    /// The time of observation is over.
    case done
    /// Components go back to the old version.
    case rollingBack = "rolling_back"
    /// Every component that was upgraded is back at the old version.
    case rolledBack = "rolled_back"
}

/// One component, of one node where it runs on one, going from one version to another.
package struct UpgradeStep: Sendable, Equatable, Codable {
    /// Milliseconds since the epoch: the first sign of the new version.
    package var atMs: Int64
    package var component: String
    /// The target's `instance`, nil for a step seen in an object or said by hand.
    package var instance: String?
    package var node: String?
    package var from: String
    package var to: String
    /// Counted from 1; steps of a batch lie close together in time and are all of the control plane or all of nodes.
    package var batch: Int

    package init(
        atMs: Int64, component: String, instance: String?, node: String?, from: String, to: String, batch: Int = 1
    ) {
        self.atMs = atMs
        self.component = component
        self.instance = instance
        self.node = node
        self.from = from
        self.to = to
        self.batch = batch
    }

    /// Whether the step is a node's, not the control plane's.
    package var isNode: Bool { Upgrade.nodeComponents.contains(component) }
}

/// A change of the cluster's version, as far as it has come.
package struct Upgrade: Sendable, Equatable, Codable {
    package var id: String
    package var from: String
    package var to: String
    package var startedMs: Int64
    /// The last step's time once no component of the old version is left, or as said by hand.
    package var finishedMs: Int64?
    package var steps: [UpgradeStep]
    /// `metrics`, `objects` or `marks`: what told of the first step.
    package var detectedBy: String
    package var rolledBackMs: Int64?
    /// How much longer than planned it is observed, as said by hand.
    package var extendedMs: Int64?

    package init(
        id: String, from: String, to: String, startedMs: Int64, finishedMs: Int64?, steps: [UpgradeStep],
        detectedBy: String, rolledBackMs: Int64?
    ) {
        self.id = id
        self.from = from
        self.to = to
        self.startedMs = startedMs
        self.finishedMs = finishedMs
        self.steps = steps
        self.detectedBy = detectedBy
        self.rolledBackMs = rolledBackMs
    }

    /// The components that run on every node.
    package static let nodeComponents: Set<String> = ["kubelet", "kube-proxy"]

    /// The components of the control plane that have Kubernetes' own version.
    package static let controlPlane: Set<String> = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"]

    /// A roll-out without a step for so long is paused.
    package static let pauseMs: Int64 = 1_800_000

    /// The phase at a time, for a soak of a length.
    package func phase(atMs: Int64, soakMs: Int64) -> UpgradePhase {
        if let rolledBackMs, atMs >= rolledBackMs { return isBack(atMs: atMs) ? .rolledBack : .rollingBack }
        guard let finishedMs, let untilMs = soakUntilMs(soakMs: soakMs), atMs >= finishedMs else {
            let last = steps.last { $0.atMs <= atMs }?.atMs ?? startedMs
            return atMs - last > Upgrade.pauseMs ? .paused : .upgrading
        }
        return atMs < untilMs ? .soaking : .done
    }

    /// Until when it is observed, for a soak of a length; nil: the soak has not begun.
    package func soakUntilMs(soakMs: Int64) -> Int64? {
        finishedMs.map { $0 + soakMs + (extendedMs ?? 0) }
    }

    /// Whether nothing has the new version any more.
    private func isBack(atMs: Int64) -> Bool {
        var versions: [String: String] = [:]
        for step in steps where step.atMs <= atMs {
            versions["\(step.component)/\(step.node ?? step.instance ?? "")"] = step.to
        }
        return !versions.values.contains(to)
    }

    /// The step that most likely set something off: the last one at or before a time, of the component and node
    /// where such a step exists, else of any.
    ///
    /// - Parameter slackMs: how much earlier than its step an effect may seem to begin, for the width of a bin.
    package func step(before atMs: Int64, component: String?, node: String?, slackMs: Int64) -> Int? {
        let earlier = steps.indices.filter { steps[$0].atMs <= atMs + slackMs }
        let own = earlier.filter { index in
            (component == nil || steps[index].component == component) && (node == nil || steps[index].node == node)
        }
        return own.last ?? (node == nil && component == nil ? earlier.last : nil)
    }
}

/// A step, start, finish, rollback or longer observation that was said by hand.
package struct UpgradeMark: Sendable, Equatable, Codable {
    package enum Kind: String, Sendable, Codable, CaseIterable {
        case start, step, finish, rollback, extend
    }

    package var kind: Kind
    package var atMs: Int64
    package var component: String?
    package var node: String?
    package var from: String?
    package var to: String?
    package var note: String?
    /// By how much an `extend` makes the soak longer.
    package var byMs: Int64?

    /// By how much a soak may be made longer at once, in milliseconds.
    package static let extensions: ClosedRange<Int64> = 1...60 * 86_400_000

    package init(
        kind: Kind, atMs: Int64, component: String? = nil, node: String? = nil, from: String? = nil, to: String? = nil,
        note: String? = nil, byMs: Int64? = nil
    ) {
        self.kind = kind
        self.atMs = atMs
        self.component = component
        self.node = node
        self.from = from
        self.to = to
        self.note = note
        self.byMs = byMs
    }
}
