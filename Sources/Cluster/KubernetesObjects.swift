import Foundation
import Series

/// One observation of the Kubernetes API.
package enum ObjectObservation: Sendable {
    /// Pods as they are now, or as they were when they were deleted.
    case pods([PodObject], deleted: Bool)
    case nodes([NodeObject], deleted: Bool)
    case events([EventObject])
    case namespaces([NamespaceObject], deleted: Bool)
    case customResourceDefinitions([CustomResourceDefinitionObject], deleted: Bool)
    case apiServices([APIServiceObject], deleted: Bool)
    case replicaSets([ReplicaSetObject], deleted: Bool)
    case leases([LeaseObject], deleted: Bool)
    /// A list of a kind was read to its end: what is known and not among these is gone.
    ///
    /// The identities are UIDs of pods, and names of what has no namespace; the version is the list's, where it is a
    /// number.
    case listed(kind: String, identities: Set<String>, version: UInt64?)
    /// The watch failed; it is taken up again.
    case failed(String)
    /// A kind that nothing is read of yet.
    case other
}

/// The fields of `v1.Pod` that are read.
package struct PodObject: Decodable, Sendable {
    package struct Metadata: Decodable, Sendable {
        package var name: String
        package var namespace: String?
        package var uid: String?
        package var resourceVersion: String?
        package var labels: Labels?
        package var annotations: Annotations?
        package var ownerReferences: [Owner]?
        package var deletionTimestamp: String?
        package var deletionGracePeriodSeconds: Int64?
    }
    /// The labels by which controllers tell the revisions of a workload apart.
    package struct Labels: Decodable, Sendable {
        package var podTemplateHash: String?
        package var controllerRevisionHash: String?

        enum CodingKeys: String, CodingKey {
            case podTemplateHash = "pod-template-hash"
            case controllerRevisionHash = "controller-revision-hash"
        }
    }
    /// What makes a pod a static one's mirror.
    package struct Annotations: Decodable, Sendable {
        package var configHash: String?
        package var configMirror: String?

        enum CodingKeys: String, CodingKey {
            case configHash = "kubernetes.io/config.hash"
            case configMirror = "kubernetes.io/config.mirror"
        }
    }
    package struct Owner: Decodable, Sendable {
        package var kind: String
        package var name: String
        package var controller: Bool?
    }
    package struct Spec: Decodable, Sendable {
        package var nodeName: String?
        package var restartPolicy: String?
        package var containers: [Container]?
        package var initContainers: [Container]?
    }
    package struct Container: Decodable, Sendable {
        package var name: String
        package var image: String?
        /// Of an init container: `Always` makes it a sidecar (KEP-753).
        package var restartPolicy: String?
    }
    package struct Terminated: Decodable, Sendable {
        package var exitCode: Int
        package var reason: String?
        package var finishedAt: String?
        package var containerID: String?
    }
    package struct State: Decodable, Sendable { package var terminated: Terminated? }
    package struct ContainerStatus: Decodable, Sendable {
        package var name: String
        package var restartCount: Int
        package var state: State?
        package var lastState: State?

        /// The restart count, as far as a container can be restarted.
        var restarts: Int { max(0, min(restartCount, Int(Int32.max))) }
    }
    package struct Status: Decodable, Sendable {
        package var phase: String?
        package var reason: String?
        package var message: String?
        package var conditions: [ObjectCondition]?
        package var containerStatuses: [ContainerStatus]?
        package var initContainerStatuses: [ContainerStatus]?
        package var ephemeralContainerStatuses: [ContainerStatus]?
    }

    package var metadata: Metadata
    package var spec: Spec?
    package var status: Status?

    /// The UID; of an object without one its namespace and name.
    var uid: String { metadata.uid ?? "\(metadata.namespace ?? "")/\(metadata.name)" }

    /// Of all its containers, init and ephemeral ones too.
    var containerStatuses: [ContainerStatus] {
        (status?.containerStatuses ?? []) + (status?.initContainerStatuses ?? [])
            + (status?.ephemeralContainerStatuses ?? [])
    }

    /// Whether a container is one that runs to its end before, or beside, the others, and is no sidecar.
    func isInitContainer(_ name: String) -> Bool {
        if status?.ephemeralContainerStatuses?.contains(where: { $0.name == name }) == true { return true }
        guard status?.initContainerStatuses?.contains(where: { $0.name == name }) == true else { return false }
        return spec?.initContainers?.first { $0.name == name }?.restartPolicy != "Always"
    }

    /// When its deletion was asked for; nil where it was not.
    var deletionAskedMs: Int64? {
        metadata.deletionTimestamp.flatMap { TimeFormat.milliseconds(rfc3339: $0) }
            .map { $0 - min(max(metadata.deletionGracePeriodSeconds ?? 0, 0), 86_400) * 1000 }
    }

    /// Whether the kubelet runs it from a file, so that this is only its mirror.
    var isStatic: Bool { metadata.annotations?.configMirror != nil }

    /// The revision of the workload that it belongs to.
    var revision: String? {
        if isStatic { return metadata.annotations?.configHash }
        return metadata.labels?.podTemplateHash ?? metadata.labels?.controllerRevisionHash
    }

    /// Whether its containers stay ended when they end well.
    var endsByItself: Bool {
        if let policy = spec?.restartPolicy, policy != "Always" { return true }
        return workload.kind == "Job" || workload.kind == "CronJob"
    }

    /// Kind and name of what the pod belongs to: the Deployment behind a ReplicaSet, the CronJob behind a Job.
    package var workload: (kind: String, name: String) {
        if isStatic { return ("StaticPod", metadata.name) }
        guard let owner = metadata.ownerReferences?.controller else {
            return ("Pod", metadata.name)
        }
        if owner.kind == "ReplicaSet", let hash = metadata.labels?.podTemplateHash, owner.name.hasSuffix("-" + hash) {
            return ("Deployment", String(owner.name.dropLast(hash.count + 1)))
        }
        if owner.kind == "Job", let cronJob = PodObject.cronJob(ofJob: owner.name) { return ("CronJob", cronJob) }
        if owner.kind == "Node" { return ("StaticPod", metadata.name) }
        return (owner.kind, owner.name)
    }

    /// A CronJob names its Jobs by the minute they are due.
    private static func cronJob(ofJob name: String) -> String? {
        guard let dash = name.lastIndex(of: "-"), name[name.index(after: dash)...].allSatisfy(\.isNumber),
            name.distance(from: dash, to: name.endIndex) > 8
        else { return nil }
        return String(name[..<dash])
    }

    /// What a pod belongs to as far as its name tells: controllers add suffixes of an alphabet without vowels
    /// (`k8s.io/apimachinery/pkg/util/rand`), stateful sets numbers.
    static func workload(guessedFrom pod: String, node: String = "") -> (kind: String, name: String) {
        if !node.isEmpty, pod.hasSuffix("-" + node) { return ("StaticPod", pod) }
        let parts = pod.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count > 1, let last = parts.last else { return ("Pod", pod) }
        if last.allSatisfy(\.isNumber), last.count < 5 {
            return ("StatefulSet", parts.dropLast().joined(separator: "-"))
        }
        guard last.count == 5, last.allSatisfy(isRandom) else { return ("Pod", pod) }
        let owner = parts.dropLast().joined(separator: "-")
        if let cronJob = cronJob(ofJob: owner) { return ("CronJob", cronJob) }
        if let hash = parts.dropLast().last, parts.count > 2, (8...10).contains(hash.count), hash.allSatisfy(isRandom) {
            return ("Deployment", parts.dropLast(2).joined(separator: "-"))
        }
        return ("DaemonSet", owner)
    }

    private static func isRandom(_ character: Character) -> Bool { "bcdfghjklmnpqrstvwxz2456789".contains(character) }
}

extension [PodObject.Owner] {
    /// The one that made the object and keeps it; nil where nothing does.
    var controller: PodObject.Owner? { first { $0.controller ?? false } }
}

/// The fields of `v1.Node` that are read.
package struct NodeObject: Decodable, Sendable {
    package struct Metadata: Decodable, Sendable {
        package var name: String
        package var labels: Labels?
    }
    /// Where the node is.
    package struct Labels: Decodable, Sendable {
        package var zone: String?
        /// The zone's label before v1.17.
        package var betaZone: String?

        enum CodingKeys: String, CodingKey {
            case zone = "topology.kubernetes.io/zone"
            case betaZone = "failure-domain.beta.kubernetes.io/zone"
        }
    }
    package struct Address: Decodable, Sendable {
        package var type: String
        package var address: String
    }
    package struct NodeInfo: Decodable, Sendable {
        package var kubeletVersion: String
        package var bootID: String?
        package var containerRuntimeVersion: String?
    }
    package struct Spec: Decodable, Sendable { package var unschedulable: Bool? }
    package struct Status: Decodable, Sendable {
        package var addresses: [Address]?
        package var nodeInfo: NodeInfo?
        package var conditions: [ObjectCondition]?
    }

    package var metadata: Metadata
    package var spec: Spec?
    package var status: Status?
}

/// The name of an object without a namespace.
package struct NameOnly: Decodable, Sendable { package var name: String }

/// A condition of an object's status.
package struct ObjectCondition: Decodable, Sendable {
    package var type: String
    package var status: String
    package var reason: String?
    package var message: String?
}

/// The fields of `v1.Namespace` that are read.
package struct NamespaceObject: Decodable, Sendable {
    package struct Status: Decodable, Sendable {
        package var phase: String?
        package var conditions: [ObjectCondition]?
    }
    package var metadata: NameOnly
    package var status: Status?

    /// What is wrong with it; nil for nothing.
    ///
    /// One that is being deleted tells by its conditions what is in the way.
    var problem: String? {
        guard status?.phase == "Terminating" else { return nil }
        let blocking = (status?.conditions ?? []).filter { $0.status == "True" }
            .map { "\($0.reason ?? $0.type): \($0.message ?? "")" }
        return (["Terminating"] + blocking).joined(separator: "; ")
    }
}

/// The fields of `apiextensions.k8s.io/v1` `CustomResourceDefinition` that are read.
package struct CustomResourceDefinitionObject: Decodable, Sendable {
    package struct Version: Decodable, Sendable {
        package var name: String
        package var served: Bool
    }
    package struct Spec: Decodable, Sendable { package var versions: [Version]? }
    package struct Status: Decodable, Sendable { package var storedVersions: [String]? }
    package var metadata: NameOnly
    package var spec: Spec?
    package var status: Status?

    /// What is wrong with it: objects are stored in a version that is not served, as a rollback leaves them behind.
    var problem: String? {
        let served = Set((spec?.versions ?? []).filter(\.served).map(\.name))
        let lost = (status?.storedVersions ?? []).filter { !served.contains($0) }
        return lost.isEmpty
            ? nil : "objects are stored in the version \(lost.joined(separator: ", ")), which is not served"
    }
}

/// The fields of `apiregistration.k8s.io/v1` `APIService` that are read.
package struct APIServiceObject: Decodable, Sendable {
    package struct Status: Decodable, Sendable { package var conditions: [ObjectCondition]? }
    package var metadata: NameOnly
    package var status: Status?

    /// What is wrong with it: its API can't be discovered or asked.
    var problem: String? {
        guard let condition = status?.conditions?.first(where: { $0.type == "Available" && $0.status == "False" })
        else {
            return nil
        }
        return "not available: \(condition.reason ?? ""): \(condition.message ?? "")"
    }
}

/// The fields of `apps/v1` `ReplicaSet` that are read.
package struct ReplicaSetObject: Decodable, Sendable {
    package struct Metadata: Decodable, Sendable {
        package var name: String
        package var namespace: String?
        package var ownerReferences: [PodObject.Owner]?
    }
    package var metadata: Metadata

    /// What it belongs to; itself where nothing owns it.
    var owner: (kind: String, name: String) {
        metadata.ownerReferences?.controller.map { ($0.kind, $0.name) }
            ?? ("ReplicaSet", metadata.name)
    }
}

/// The fields of `coordination.k8s.io/v1` `Lease` that are read: who leads, and how often that changed.
package struct LeaseObject: Decodable, Sendable {
    package struct Metadata: Decodable, Sendable {
        package var name: String
        package var namespace: String?
    }
    package struct Spec: Decodable, Sendable {
        package var holderIdentity: String?
        package var leaseTransitions: Int?
    }
    package var metadata: Metadata
    package var spec: Spec?
}

/// The fields of an event that are read: of `v1.Event`, and of `events.k8s.io/v1` `Event`, which names them
/// otherwise.
package struct EventObject: Decodable, Sendable {
    package struct Metadata: Decodable, Sendable {
        package var uid: String?
        package var creationTimestamp: String?
    }
    package struct Reference: Decodable, Sendable {
        package var kind: String?
        package var namespace: String?
        package var name: String?
        package var uid: String?
        package var fieldPath: String?
    }
    package struct Source: Decodable, Sendable {
        package var host: String?
        package var component: String?
    }
    package struct Series: Decodable, Sendable {
        package var count: Int?
        package var lastObservedTime: String?
    }

    package var metadata: Metadata
    private var involvedObject: Reference?
    private var regarding: Reference?
    package var reason: String?
    private var message: String?
    private var note: String?
    private var source: Source?
    private var deprecatedSource: Source?
    private var firstTimestamp: String?
    private var lastTimestamp: String?
    private var deprecatedLastTimestamp: String?
    private var eventTime: String?
    private var count: Int?
    private var deprecatedCount: Int?
    private var series: Series?
    private var reportingComponent: String?
    private var reportingController: String?

    /// What it is about.
    package var about: Reference? { involvedObject ?? regarding }

    package var text: String { message ?? note ?? "" }

    /// The node that told it; empty for none.
    package var host: String { (source ?? deprecatedSource)?.host ?? "" }

    /// What told it: `kubelet`, `default-scheduler`; empty where it does not say.
    package var reporter: String {
        [reportingController, reportingComponent, (source ?? deprecatedSource)?.component].lazy.compactMap { $0 }
            .first { !$0.isEmpty } ?? ""
    }

    /// How often it happened so far.
    package var repetitions: Int { series?.count ?? count ?? deprecatedCount ?? 1 }

    /// When it last happened.
    package var timestampMs: Int64? {
        [
            series?.lastObservedTime, lastTimestamp, deprecatedLastTimestamp, eventTime, firstTimestamp,
            metadata.creationTimestamp,
        ].lazy.compactMap { $0 }.first.flatMap { TimeFormat.milliseconds(rfc3339: $0) }
    }
}
