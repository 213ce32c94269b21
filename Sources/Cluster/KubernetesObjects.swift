import Foundation
import Series

/// One observation of the Kubernetes API: an event of a watch, or a whole list.
package enum ObjectObservation {
    case pods([PodObject], isList: Bool, deleted: Bool)
    case nodes([NodeObject])
    case events([EventObject])
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
        package var labels: [String: String]?
        package var ownerReferences: [Owner]?
        package var deletionTimestamp: String?
    }
    package struct Owner: Decodable, Sendable {
        package var kind: String
        package var name: String
        package var controller: Bool?
    }
    package struct Spec: Decodable, Sendable { package var nodeName: String? }
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
    }
    package struct Status: Decodable, Sendable {
        package var phase: String?
        package var reason: String?
        package var message: String?
        package var containerStatuses: [ContainerStatus]?
    }

    package var metadata: Metadata
    package var spec: Spec?
    package var status: Status?

    /// Kind and name of what the pod belongs to: the Deployment behind a ReplicaSet, the CronJob behind a Job.
    package var workload: (kind: String, name: String) {
        guard let owner = metadata.ownerReferences?.first(where: { $0.controller ?? false }) else {
            return ("Pod", metadata.name)
        }
        if owner.kind == "ReplicaSet", let hash = metadata.labels?["pod-template-hash"],
            owner.name.hasSuffix("-" + hash)
        {
            return ("Deployment", String(owner.name.dropLast(hash.count + 1)))
        }
        // A CronJob names its Jobs by the minute they are due.
        if owner.kind == "Job", let dash = owner.name.lastIndex(of: "-"),
            owner.name[owner.name.index(after: dash)...].allSatisfy(\.isNumber),
            owner.name.distance(from: dash, to: owner.name.endIndex) > 8
        {
            return ("CronJob", String(owner.name[..<dash]))
        }
        if owner.kind == "Node" { return ("StaticPod", metadata.name) }
        return (owner.kind, owner.name)
    }
}

/// The fields of `v1.Node` that are read.
package struct NodeObject: Decodable, Sendable {
    package struct Metadata: Decodable, Sendable { package var name: String }
    package struct NodeInfo: Decodable, Sendable { package var kubeletVersion: String }
    package struct Condition: Decodable, Sendable {
        package var type: String
        package var status: String
    }
    package struct Status: Decodable, Sendable {
        package var nodeInfo: NodeInfo?
        package var conditions: [Condition]?
    }

    package var metadata: Metadata
    package var status: Status?
}

/// The fields of `v1.Event` that are read.
package struct EventObject: Decodable, Sendable {
    package struct Metadata: Decodable, Sendable { package var uid: String? }
    package struct Involved: Decodable, Sendable {
        package var kind: String?
        package var namespace: String?
        package var name: String?
        package var uid: String?
        package var fieldPath: String?
    }
    package struct Source: Decodable, Sendable {
        package var component: String?
        package var host: String?
    }

    package var metadata: Metadata
    package var involvedObject: Involved
    package var reason: String?
    package var message: String?
    package var source: Source?
    package var firstTimestamp: String?
    package var lastTimestamp: String?
    package var eventTime: String?
    package var count: Int?

    /// When it last happened.
    package var timestampMs: Int64? {
        (lastTimestamp ?? eventTime ?? firstTimestamp).flatMap { TimeFormat.milliseconds(rfc3339: $0) }
    }
}

extension ObjectObservation {
    private struct Line<Object: Decodable>: Decodable {
        struct Watch: Decodable {
            var type: String
            var object: Object
        }
        struct List: Decodable { var items: [Object]? }
        var watch: Watch?
        var list: List?
        var error: String?
    }

    /// Reads a line of a recording's `objects` file.
    ///
    /// - Throws: `DecodingError` for a line that is not of the format.
    package static func decode(_ line: UnsafeRawBufferPointer, kind: String) throws -> ObjectObservation {
        let data = Data(line)
        switch kind {
        case "pods":
            let decoded = try JSONDecoder().decode(Line<PodObject>.self, from: data)
            if let error = decoded.error { return .failed(error) }
            if let watch = decoded.watch {
                return .pods([watch.object], isList: false, deleted: watch.type == "DELETED")
            }
            return .pods(decoded.list?.items ?? [], isList: true, deleted: false)
        case "nodes":
            let decoded = try JSONDecoder().decode(Line<NodeObject>.self, from: data)
            if let error = decoded.error { return .failed(error) }
            return .nodes(decoded.watch.map { [$0.object] } ?? decoded.list?.items ?? [])
        case "events":
            let decoded = try JSONDecoder().decode(Line<EventObject>.self, from: data)
            if let error = decoded.error { return .failed(error) }
            return .events(decoded.watch.map { [$0.object] } ?? decoded.list?.items ?? [])
        default: return .other
        }
    }
}
