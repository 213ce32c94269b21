import Foundation
import Logging
import Series

/// A kind of objects as observations have it.
private protocol ObservedObject: APIObject {
    static func observation(_ objects: [Self], deleted: Bool) -> ObjectObservation
}

extension PodObject: ObservedObject {
    package var identity: String { uid }
    static func observation(_ objects: [PodObject], deleted: Bool) -> ObjectObservation {
        .pods(objects, deleted: deleted)
    }
}

extension NodeObject: ObservedObject {
    package var identity: String { metadata.name }
    static func observation(_ objects: [NodeObject], deleted: Bool) -> ObjectObservation {
        .nodes(objects, deleted: deleted)
    }
}

extension NamespaceObject: ObservedObject {
    package var identity: String { metadata.name }
    static func observation(_ objects: [NamespaceObject], deleted: Bool) -> ObjectObservation {
        .namespaces(objects, deleted: deleted)
    }
}

extension CustomResourceDefinitionObject: ObservedObject {
    package var identity: String { metadata.name }
    static func observation(_ objects: [CustomResourceDefinitionObject], deleted: Bool) -> ObjectObservation {
        .customResourceDefinitions(objects, deleted: deleted)
    }
}

extension APIServiceObject: ObservedObject {
    package var identity: String { metadata.name }
    static func observation(_ objects: [APIServiceObject], deleted: Bool) -> ObjectObservation {
        .apiServices(objects, deleted: deleted)
    }
}

extension ReplicaSetObject: ObservedObject {
    package var identity: String { "\(metadata.namespace ?? "")/\(metadata.name)" }
    static func observation(_ objects: [ReplicaSetObject], deleted: Bool) -> ObjectObservation {
        .replicaSets(objects, deleted: deleted)
    }
}

extension LeaseObject: ObservedObject {
    package var identity: String { "\(metadata.namespace ?? "")/\(metadata.name)" }
    static func observation(_ objects: [LeaseObject], deleted: Bool) -> ObjectObservation {
        .leases(objects, deleted: deleted)
    }
}

extension EventObject: ObservedObject {
    package var identity: String { metadata.uid ?? "" }
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

private struct List<Object: APIObject>: Decodable {
    var metadata: ListMetadata?
    var items: [Lenient<Object>]?

    var objects: [Object] { (items ?? []).compactMap(\.value) }
}

/// One page of a list.
struct ObjectPage<Object: APIObject> {
    var objects: [Object]
    var version: String
    /// nil for the last page.
    var continuation: String?
    /// Items that could not be read.
    var unreadable: Int

    /// - Throws: ``KubernetesAPIError`` for a body that is no list.
    init(_ body: [UInt8], path: String) throws {
        let list: List<Object>
        do {
            list = try JSONDecoder().decode(List<Object>.self, from: Data(body))
        } catch {
            throw KubernetesAPIError(path: path, status: 200, message: "the answer is no list: \(error)")
        }
        guard let version = list.metadata?.resourceVersion else {
            throw KubernetesAPIError(path: path, status: 200, message: "the list has no resourceVersion")
        }
        objects = list.objects
        self.version = version
        continuation = list.metadata?.next.flatMap { $0.isEmpty ? nil : $0 }
        unreadable = (list.items?.count ?? 0) - objects.count
    }
}

/// One line of a watch (meta/v1 `WatchEvent`).
enum WatchLine<Object: APIObject> {
    case object(ObjectEvent<Object>, version: String?)
    case bookmark(version: String)
    case error(status: Int, message: String)
    case unreadable(String)

    init(_ line: [UInt8]) {
        do {
            self = try JSONDecoder().decode(Wire.self, from: Data(line)).line
        } catch {
            self = .unreadable("\(error)")
        }
    }

    private struct Version: Decodable {
        struct Metadata: Decodable { var resourceVersion: String? }
        var metadata: Metadata
    }

    private struct Status: Decodable {
        var code: Int?
        var message: String?
    }

    private enum Fields: CodingKey { case type, object }

    private struct Wire: Decodable {
        var line: WatchLine

        init(from decoder: any Decoder) throws {
            let fields = try decoder.container(keyedBy: Fields.self)
            let type = try fields.decode(String.self, forKey: .type)
            switch type {
            case "ADDED", "MODIFIED", "DELETED":
                let version = try fields.decode(Version.self, forKey: .object).metadata.resourceVersion
                let object = try fields.decode(Object.self, forKey: .object)
                line = .object(type == "DELETED" ? .deleted(object) : .present([object]), version: version)
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
    /// Watches a kind of objects until the task is cancelled.
    ///
    /// - Parameters:
    ///   - count: gets the counters when they change.
    ///   - observe: gets what was seen, in order; the watch goes on when it returns.
    package static func watch(
        _ kind: WatchedKind, api: KubernetesAPI, time: any TimeSource, logger: Logger,
        count: @escaping @Sendable (WatchCounters) -> Void = { _ in },
        observe: @escaping @Sendable (ObjectObservation) async -> Void
    ) async {
        guard let type = type(ofKind: kind.name) else { return }
        await watch(type, kind, api, time, logger, count, observe)
    }

    private static func watch<Object: ObservedObject>(
        _ type: Object.Type, _ kind: WatchedKind, _ api: KubernetesAPI, _ time: any TimeSource, _ logger: Logger,
        _ count: @escaping @Sendable (WatchCounters) -> Void,
        _ observe: @escaping @Sendable (ObjectObservation) async -> Void
    ) async {
        await ObjectWatch<Object>(kind, api: api, time: time, logger: logger, count: count) { event in
            switch event {
            case .present(let objects): await observe(Object.observation(objects, deleted: false))
            case .deleted(let object): await observe(Object.observation([object], deleted: true))
            case .listed(let identities, let version):
                await observe(.listed(kind: kind.name, identities: identities, version: version))
            case .failed(let reason): await observe(.failed(reason))
            }
        }.run()
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
