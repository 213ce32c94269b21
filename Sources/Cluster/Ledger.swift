import Series

/// Why a container ended or a pod was taken away.
package enum LedgerCause: String, Sendable, Codable, CaseIterable {
    case definitionChanged = "container definition changed"
    case applicationExit = "application exit"
    case jobCompletion = "job completion"
    case outOfMemory = "OOM kill"
    case probeFailed = "liveness probe"
    case podDeleted = "pod deleted"
    case pressureEviction = "pressure eviction"
    case taintEviction = "taint eviction"
    case preemption
    case unknown
}

/// One row of the ledger: the end of one container, or the eviction of one pod.
package struct LedgerEntry: Sendable, Equatable {
    package enum Kind: String, Sendable { case exit, eviction }

    package var kind: Kind
    package var atMs: Int64
    package var node: String
    package var namespace: String
    package var pod: String
    package var podUID: String
    /// Empty for an eviction.
    package var container: String
    package var workloadKind: String
    package var workload: String
    /// The runtime's name of the container that ended: one end, one row.
    package var containerID: String
    package var exitCode: Int?
    package var reason: String
    package var cause: LedgerCause
    /// The texts that show it, each with its origin: `event: …`, `object: …`.
    package var evidence: [String]

    /// Whether the container is started again after such an end.
    package var isRestart: Bool { kind == .exit && cause != .jobCompletion && cause != .podDeleted }
}
