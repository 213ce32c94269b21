import Foundation
import Series

/// What counts of an event of the audit log (audit.k8s.io/v1 `Event`).
package struct AuditEvent: Sendable {
    /// The client's name: see ``client(userAgent:)``.
    package var client: String
    /// Who asked, as the server knows them.
    package var user: String
    package var verb: String
    /// The path of the request without its query, the names of namespace and object as placeholders.
    package var path: String
    /// The path as it was asked for, without its query.
    package var requestPath: String
    package var group: String
    package var version: String
    package var resource: String
    package var code: Int
    /// The server's words, empty where it said none.
    package var message: String
    package var timestampMs: Int64

    private struct Wire: Decodable {
        struct ObjectReference: Decodable {
            var resource: String?
            var subresource: String?
            var namespace: String?
            var name: String?
            var apiGroup: String?
            var apiVersion: String?
        }
        struct User: Decodable { var username: String? }
        struct Status: Decodable {
            var code: Int?
            var message: String?
        }
        var stage: String?
        var requestURI: String
        var verb: String
        var user: User?
        var userAgent: String?
        var objectRef: ObjectReference?
        var responseStatus: Status?
        var requestReceivedTimestamp: String
    }

    /// Reads a line.
    ///
    /// - Returns: nil for a line that is no event, or not the last one of its request (stage `ResponseComplete`, or
    ///   `Panic`).
    package init?(_ line: UnsafeRawBufferPointer) {
        guard let wire = try? JSONDecoder().decode(Wire.self, from: Data(line)),
            wire.stage == "ResponseComplete" || wire.stage == "Panic",
            let timestampMs = TimeFormat.milliseconds(rfc3339: wire.requestReceivedTimestamp)
        else { return nil }
        let object = wire.objectRef
        client = AuditEvent.client(userAgent: wire.userAgent ?? "")
        user = wire.user?.username ?? ""
        verb = wire.verb
        requestPath = String(wire.requestURI.prefix { $0 != "?" })
        path = AuditEvent.template(requestPath, namespace: object?.namespace, name: object?.name)
        group = object?.apiGroup ?? ""
        version = object?.apiVersion ?? ""
        resource = [object?.resource, object?.subresource].compactMap { $0 }.joined(separator: "/")
        code = wire.responseStatus?.code ?? 0
        message = wire.responseStatus?.message ?? ""
        self.timestampMs = timestampMs
    }

    /// The name by which a client is known across an upgrade: the first word of its user agent, and of a part of
    /// Kubernetes itself the name alone, whose version changes with every upgrade.
    package static func client(userAgent: String) -> String {
        guard let word = userAgent.split(separator: " ").first else { return "unknown" }
        let parts = word.split(separator: "/", maxSplits: 1)
        guard parts.count == 2 else { return String(word) }
        let version = parts[1]
        let isKubernetes =
            version.hasPrefix("v") && version.dropFirst().first?.isNumber == true
            && userAgent.contains("kubernetes/")
        guard isKubernetes else { return String(word) }
        var name = String(parts[0])
        if name.hasSuffix("-" + version) { name.removeLast(version.count + 1) }
        return name
    }

    private static func template(_ path: String, namespace: String?, name: String?) -> String {
        var parts = path.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        if let at = parts.firstIndex(of: "namespaces"), at + 1 < parts.count, namespace != nil {
            parts[at + 1] = "{namespace}"
        }
        if let name, let at = parts.lastIndex(of: name), at >= 3 { parts[at] = "{name}" }
        return parts.joined(separator: "/")
    }
}
