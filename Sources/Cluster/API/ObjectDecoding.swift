import Foundation
import Series

/// A kind of objects as observations have it.
private protocol ObservedObject: Decodable, Sendable {
    /// What names it in a list.
    var identity: String { get }
    static func observation(_ objects: [Self], deleted: Bool) -> ObjectObservation
}

extension PodObject: ObservedObject {
    var identity: String { uid }
    static func observation(_ objects: [PodObject], deleted: Bool) -> ObjectObservation {
        .pods(objects, deleted: deleted)
    }
}

extension NodeObject: ObservedObject {
    var identity: String { metadata.name }
    static func observation(_ objects: [NodeObject], deleted: Bool) -> ObjectObservation {
        .nodes(objects, deleted: deleted)
    }
}

extension NamespaceObject: ObservedObject {
    var identity: String { metadata.name }
    static func observation(_ objects: [NamespaceObject], deleted: Bool) -> ObjectObservation {
        .namespaces(objects, deleted: deleted)
    }
}

extension CustomResourceDefinitionObject: ObservedObject {
    var identity: String { metadata.name }
    static func observation(_ objects: [CustomResourceDefinitionObject], deleted: Bool) -> ObjectObservation {
        .customResourceDefinitions(objects, deleted: deleted)
    }
}

extension APIServiceObject: ObservedObject {
    var identity: String { metadata.name }
    static func observation(_ objects: [APIServiceObject], deleted: Bool) -> ObjectObservation {
        .apiServices(objects, deleted: deleted)
    }
}

extension ReplicaSetObject: ObservedObject {
    var identity: String { "\(metadata.namespace ?? "")/\(metadata.name)" }
    static func observation(_ objects: [ReplicaSetObject], deleted: Bool) -> ObjectObservation {
        .replicaSets(objects, deleted: deleted)
    }
}

extension LeaseObject: ObservedObject {
    var identity: String { "\(metadata.namespace ?? "")/\(metadata.name)" }
    static func observation(_ objects: [LeaseObject], deleted: Bool) -> ObjectObservation {
        .leases(objects, deleted: deleted)
    }
}

extension EventObject: ObservedObject {
    var identity: String { metadata.uid ?? "" }
    // An event that is deleted is too old to be kept: nothing happened.
    static func observation(_ objects: [EventObject], deleted: Bool) -> ObjectObservation {
        deleted ? .other : .events(objects)
    }
}

private func type(ofKind kind: String) -> (any ObservedObject.Type)? {
    switch kind {
    case "pods": PodObject.self
    case "nodes": NodeObject.self
    case "events": EventObject.self
    case "namespaces": NamespaceObject.self
    case "customresourcedefinitions": CustomResourceDefinitionObject.self
    case "apiservices": APIServiceObject.self
    case "replicasets": ReplicaSetObject.self
    case "leases": LeaseObject.self
    default: nil
    }
}

/// An element of a list that is nil where it can't be read, so that the others still are.
private struct Lenient<Value: Decodable>: Decodable {
    var value: Value?

    init(from decoder: any Decoder) throws { value = try? Value(from: decoder) }
}

private struct ListMetadata: Decodable {
    var resourceVersion: String?
    var next: String?

    enum CodingKeys: String, CodingKey {
        case resourceVersion
        case next = "continue"
    }
}

private struct List<Object: ObservedObject>: Decodable {
    var metadata: ListMetadata?
    var items: [Lenient<Object>]?

    var objects: [Object] { (items ?? []).compactMap(\.value) }
}

/// One page of a list.
struct ObjectPage {
    var observation: ObjectObservation
    var identities: Set<String>
    var version: String
    /// nil for the last page.
    var continuation: String?
    /// Items that could not be read.
    var unreadable: Int

    /// - Throws: ``KubernetesAPIError`` for a body that is no list.
    static func decode(_ body: [UInt8], kind: String, path: String) throws -> ObjectPage {
        guard let type = type(ofKind: kind) else {
            return ObjectPage(observation: .other, identities: [], version: "", continuation: nil, unreadable: 0)
        }
        return try decode(body, type, path)
    }

    private static func decode<Object: ObservedObject>(
        _ body: [UInt8], _ type: Object.Type, _ path: String
    ) throws -> ObjectPage {
        let list: List<Object>
        do {
            list = try JSONDecoder().decode(List<Object>.self, from: Data(body))
        } catch {
            throw KubernetesAPIError(path: path, status: 200, message: "the answer is no list: \(error)")
        }
        guard let version = list.metadata?.resourceVersion else {
            throw KubernetesAPIError(path: path, status: 200, message: "the list has no resourceVersion")
        }
        let objects = list.objects
        return ObjectPage(
            observation: Object.observation(objects, deleted: false), identities: Set(objects.map(\.identity)),
            version: version, continuation: list.metadata?.next.flatMap { $0.isEmpty ? nil : $0 },
            unreadable: (list.items?.count ?? 0) - objects.count)
    }
}

/// One line of a watch (meta/v1 `WatchEvent`).
enum WatchLine {
    case object(ObjectObservation, version: String?)
    case bookmark(version: String)
    case error(status: Int, message: String)
    case unreadable(String)

    static func decode(_ line: [UInt8], kind: String) -> WatchLine {
        guard let type = type(ofKind: kind) else { return .object(.other, version: nil) }
        return decode(line, type)
    }

    private static func decode<Object: ObservedObject>(_ line: [UInt8], _ type: Object.Type) -> WatchLine {
        do {
            return try JSONDecoder().decode(Wire<Object>.self, from: Data(line)).line
        } catch {
            return .unreadable("\(error)")
        }
    }

    private struct Wire<Object: ObservedObject>: Decodable {
        struct Version: Decodable {
            struct Metadata: Decodable { var resourceVersion: String? }
            var metadata: Metadata
        }
        struct Status: Decodable {
            var code: Int?
            var message: String?
        }
        enum CodingKeys: CodingKey { case type, object }

        var line: WatchLine

        init(from decoder: any Decoder) throws {
            let fields = try decoder.container(keyedBy: CodingKeys.self)
            let type = try fields.decode(String.self, forKey: .type)
            switch type {
            case "ADDED", "MODIFIED", "DELETED":
                let version = try fields.decode(Version.self, forKey: .object).metadata.resourceVersion
                let object = try fields.decode(Object.self, forKey: .object)
                line = .object(Object.observation([object], deleted: type == "DELETED"), version: version)
            case "BOOKMARK":
                line = .bookmark(
                    version: try fields.decode(Version.self, forKey: .object).metadata.resourceVersion ?? "")
            case "ERROR":
                let status = try fields.decode(Status.self, forKey: .object)
                line = .error(status: status.code ?? 500, message: status.message ?? "")
            default: line = .unreadable("unknown type \(Labels.quoted(type))")
            }
        }
    }
}

extension ObjectObservation {
    /// Reads a line of a recording's `objects` file.
    ///
    /// - Returns: What it says, in order: a list is its objects and its end.
    /// - Throws: `DecodingError` for a line that is not of the format.
    package static func decode(_ line: UnsafeRawBufferPointer, kind: String) throws -> [ObjectObservation] {
        guard let type = type(ofKind: kind) else { return [.other] }
        return try decode(Data(line), type, kind)
    }

    private struct RecordedLine<Object: ObservedObject>: Decodable {
        struct Watched: Decodable {
            var type: String
            var object: Object
        }
        var watch: Watched?
        var list: List<Object>?
        var error: String?
    }

    private static func decode<Object: ObservedObject>(
        _ data: Data, _ type: Object.Type, _ kind: String
    ) throws -> [ObjectObservation] {
        let line = try JSONDecoder().decode(RecordedLine<Object>.self, from: data)
        if let error = line.error { return [.failed(error)] }
        if let watch = line.watch {
            return [Object.observation([watch.object], deleted: watch.type == "DELETED")]
        }
        let objects = line.list?.objects ?? []
        return [
            Object.observation(objects, deleted: false),
            .listed(
                kind: kind, identities: Set(objects.map(\.identity)),
                version: line.list?.metadata?.resourceVersion.flatMap { UInt64($0) }),
        ]
    }
}
