import Series

/// Why a container ended or a pod was taken away.
///
/// What did it names the cause: the taint manager or its successor, the kubelet, the eviction API, the scheduler.
package enum LedgerCause: String, Sendable, Codable, CaseIterable {
    /// The new kubelet computes another hash of the container's definition.
    case definitionChanged = "container definition changed"
    /// The kubelet lost sight of the container while it was restarted.
    case kubeletRestart = "kubelet restart"
    case nodeReboot = "node reboot"
    /// An eviction through the API from a node that takes no new pods.
    case drain
    /// A `NoExecute` taint; the detail is the taint or the node's state.
    case taintEviction = "taint eviction"
    /// The kubelet needed a resource back; the detail is the resource.
    case pressureEviction = "pressure eviction"
    /// An eviction through the API from a node that was not drained.
    case apiEviction = "API eviction"
    case preemption
    case outOfMemory = "OOM kill"
    case probeFailed = "liveness probe"
    case applicationExit = "application exit"
    /// The workload got another template, or another size.
    case rollout
    case jobCompletion = "job completion"
    case staticPodChanged = "static pod manifest changed"
    case runtimeRestart = "runtime restart"
    /// The pod's node is gone: the pod garbage collector took the pod.
    case podGarbageCollected = "pod garbage collection"
    /// Somebody deleted the pod; the detail is who, where that is known.
    case podDeleted = "pod deleted"
    case unknown

    /// How much a piece of evidence for the cause weighs.
    ///
    /// What says precisely what was done wins over what follows from it: a killed container also has an exit code; a drained pod's containers are also told to stop.
    var strength: Int {
        switch self {
        case .outOfMemory: 95
        case .pressureEviction, .taintEviction, .preemption: 92
        case .definitionChanged, .probeFailed, .staticPodChanged: 90
        case .drain: 86
        case .apiEviction, .podGarbageCollected: 85
        case .nodeReboot: 80
        case .runtimeRestart: 75
        case .rollout: 65
        case .jobCompletion: 62
        case .podDeleted: 60
        case .kubeletRestart: 50
        case .applicationExit: 30
        case .unknown: 0
        }
    }

    /// Whether a pod that was removed for the cause was evicted: not by its own workload or its user.
    package var isEviction: Bool {
        switch self {
        case .drain, .taintEviction, .pressureEviction, .apiEviction, .preemption: true
        default: false
        }
    }
}

/// Something that tells of an end, with the cause that it speaks for.
package struct LedgerEvidence: Sendable, Equatable, Codable {
    /// Where it was seen, the most reliable first.
    package enum Source: String, Sendable, Codable, CaseIterable { case object, event, log, audit, metric }

    package var source: Source
    package var text: String
    /// nil: it shows the end and says nothing of why.
    package var cause: LedgerCause?
    /// The taint, the resource, the user; empty for none.
    package var detail: String

    package init(source: Source, text: String, cause: LedgerCause?, detail: String = "") {
        self.source = source
        self.text = String(text.prefix(LedgerEvidence.maxCharacters))
        self.cause = cause
        self.detail = detail
    }

    private static let maxCharacters = 400
}

/// One row of the ledger: the end of one container, or the removal of one pod.
package struct LedgerEntry: Sendable, Equatable {
    package enum Kind: String, Sendable {
        case exit
        /// A pod was deleted by its user, its workload or with its node.
        case deletion
        /// A pod was removed by the kubelet, the taint manager, the scheduler or the eviction API.
        case eviction
    }

    package var kind: Kind
    package var atMs: Int64
    package var node: String
    package var namespace: String
    package var pod: String
    package var podUID: String
    /// Empty for a pod's removal, and where no source names it.
    package var container: String
    package var workloadKind: String
    package var workload: String
    /// The runtime's name of the container that ended, without the runtime's; empty for a pod's removal.
    package var containerID: String
    package var exitCode: Int?
    package var reason: String
    package var cause: LedgerCause
    /// The taint, the resource, the user; empty for none.
    package var detail: String
    /// The strongest first; what disagrees with the cause stays, with its own.
    package var evidence: [LedgerEvidence]

    package init(
        kind: Kind, atMs: Int64, node: String = "", namespace: String = "", pod: String = "", podUID: String = "",
        container: String = "", workloadKind: String = "", workload: String = "", containerID: String = "",
        exitCode: Int? = nil, reason: String = "", cause: LedgerCause = .unknown, detail: String = "",
        evidence: [LedgerEvidence] = []
    ) {
        self.kind = kind
        self.atMs = atMs
        self.node = node
        self.namespace = namespace
        self.pod = pod
        self.podUID = podUID
        self.container = container
        self.workloadKind = workloadKind
        self.workload = workload
        self.containerID = containerID
        self.exitCode = exitCode
        self.reason = reason
        self.cause = cause
        self.detail = detail
        self.evidence = evidence
    }

    /// What names the row: a container ends once, a pod is removed once.
    package var id: String { kind == .exit ? containerID : "pod/" + podUID }

    /// Whether the container is started again after such an end.
    package var isRestart: Bool {
        guard kind == .exit else { return false }
        switch cause {
        case .jobCompletion, .podDeleted, .rollout, .podGarbageCollected: return false
        default: return !cause.isEviction
        }
    }
}
