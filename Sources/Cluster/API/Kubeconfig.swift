import Fetch
import Foundation
import Yams

/// Where an API server is and what opens it.
package struct KubernetesEndpoint: Sendable {
    /// Without a slash at the end.
    package var server: String
    package var client: ClientOptions
    /// A program that gives credentials; nil for none.
    package var exec: ExecPlugin?

    package init(server: String, client: ClientOptions = ClientOptions(), exec: ExecPlugin? = nil) {
        self.server = server.hasSuffix("/") ? String(server.dropLast()) : server
        self.client = client
        self.exec = exec
    }
}

/// A program that prints credentials (client.authentication.k8s.io `ExecCredential`).
package struct ExecPlugin: Sendable, Equatable {
    package var command: String
    package var arguments: [String]
    package var environment: [String: String]
    package var apiVersion: String
    /// What to tell a user who does not have the program.
    package var installHint: String
}

/// Something in a kubeconfig, or of a service account, that can't be used.
package struct KubernetesConfigError: Error, Equatable, CustomStringConvertible {
    package var file: String
    package var reason: String

    package init(file: String, reason: String) {
        self.file = file
        self.reason = reason
    }

    package var description: String { "\(file): \(reason)" }
}

/// A kubeconfig file, as kubectl reads it; what is not needed to connect is passed over.
package struct Kubeconfig: Sendable {
    private struct File: Decodable {
        struct Named<Value: Decodable>: Decodable {
            var name: String
            var value: Value

            init(from decoder: any Decoder) throws {
                let container = try decoder.container(keyedBy: Key.self)
                name = try container.decode(String.self, forKey: Key(stringValue: "name"))
                guard let key = container.allKeys.first(where: { $0.stringValue != "name" }) else {
                    throw DecodingError.dataCorrupted(
                        .init(codingPath: decoder.codingPath, debugDescription: "the entry has nothing but its name"))
                }
                value = try container.decode(Value.self, forKey: key)
            }
        }
        struct Key: CodingKey {
            var stringValue: String
            var intValue: Int? { nil }
            init(stringValue: String) { self.stringValue = stringValue }
            init?(intValue: Int) { nil }
        }
        struct Context: Decodable {
            var cluster: String
            var user: String?
        }
        struct Cluster: Decodable {
            var server: String
            var certificateAuthority: String?
            var certificateAuthorityData: String?
            var insecureSkipTLSVerify: Bool?
            var tlsServerName: String?
            var proxyURL: String?

            enum CodingKeys: String, CodingKey {
                case server
                case certificateAuthority = "certificate-authority"
                case certificateAuthorityData = "certificate-authority-data"
                case insecureSkipTLSVerify = "insecure-skip-tls-verify"
                case tlsServerName = "tls-server-name"
                case proxyURL = "proxy-url"
            }
        }
        struct User: Decodable {
            struct Variable: Decodable {
                var name: String
                var value: String
            }
            struct Exec: Decodable {
                var apiVersion: String?
                var command: String
                var args: [String]?
                var env: [Variable]?
                var installHint: String?
            }
            struct Provider: Decodable { var name: String? }
            var clientCertificate: String?
            var clientCertificateData: String?
            var clientKey: String?
            var clientKeyData: String?
            var token: String?
            var tokenFile: String?
            var username: String?
            var password: String?
            var exec: Exec?
            var authProvider: Provider?

            enum CodingKeys: String, CodingKey {
                case token, tokenFile, username, password, exec
                case clientCertificate = "client-certificate"
                case clientCertificateData = "client-certificate-data"
                case clientKey = "client-key"
                case clientKeyData = "client-key-data"
                case authProvider = "auth-provider"
            }
        }
        var currentContext: String?
        var contexts: [Named<Context>]?
        var clusters: [Named<Cluster>]?
        var users: [Named<User>]?

        enum CodingKeys: String, CodingKey {
            case contexts, clusters, users
            case currentContext = "current-context"
        }
    }

    /// Reads the endpoint of a context.
    ///
    /// - Parameters:
    ///   - path: paths in the file are relative to its folder.
    ///   - context: nil: the file's current context.
    /// - Throws: ``KubernetesConfigError``.
    package static func endpoint(path: String, context: String? = nil) throws -> KubernetesEndpoint {
        func fail(_ reason: String) -> KubernetesConfigError { KubernetesConfigError(file: path, reason: reason) }
        guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
            throw fail("can't be read; name a kubeconfig with kubernetes.kubeconfig")
        }
        if text.allSatisfy(\.isWhitespace) { throw fail("is empty") }
        let file: File
        do {
            file = try YAMLDecoder().decode(File.self, from: text)
        } catch let error as DecodingError {
            throw fail("is no kubeconfig: \(Kubeconfig.words(error))")
        } catch {
            throw fail("is no kubeconfig: \(error)")
        }
        let known = (file.contexts ?? []).map(\.name)
        guard let name = context ?? file.currentContext, !name.isEmpty else {
            throw fail("has no current-context; name one of its contexts: \(known.joined(separator: ", "))")
        }
        guard let chosen = file.contexts?.first(where: { $0.name == name })?.value else {
            throw fail("has no context \(name); it has \(known.isEmpty ? "none" : known.joined(separator: ", "))")
        }
        guard let cluster = file.clusters?.first(where: { $0.name == chosen.cluster })?.value else {
            throw fail("the context \(name) names the cluster \(chosen.cluster), which is not there")
        }
        var user: File.User?
        if let userName = chosen.user, !userName.isEmpty {
            guard let found = file.users?.first(where: { $0.name == userName })?.value else {
                throw fail("the context \(name) names the user \(userName), which is not there")
            }
            user = found
        }
        if let provider = user?.authProvider {
            throw fail(
                "auth-provider \(provider.name ?? "") is not supported, as in kubectl since 1.26; use an exec plugin")
        }
        let folder = URL(fileURLWithPath: path).deletingLastPathComponent().path
        let resolve = { (path: String) in path.hasPrefix("/") ? path : folder + "/" + path }
        func pem(_ data: String?, _ field: String) throws -> Secret? {
            guard let data, !data.isEmpty else { return nil }
            guard let bytes = Data(base64Encoded: data, options: .ignoreUnknownCharacters) else {
                throw fail("\(field) is not base64")
            }
            return Secret(String(decoding: bytes, as: UTF8.self))
        }
        var client = ClientOptions()
        client.proxy = try proxy(cluster.proxyURL, fail)
        client.tls.ca = try pem(cluster.certificateAuthorityData, "certificate-authority-data")
        client.tls.caFile = client.tls.ca == nil ? cluster.certificateAuthority.map(resolve) : nil
        client.tls.serverName = cluster.tlsServerName
        client.tls.insecureSkipVerify = cluster.insecureSkipTLSVerify ?? false
        client.tls.cert = try pem(user?.clientCertificateData, "client-certificate-data")
        client.tls.certFile = client.tls.cert == nil ? user?.clientCertificate.map(resolve) : nil
        client.tls.key = try pem(user?.clientKeyData, "client-key-data")
        client.tls.keyFile = client.tls.key == nil ? user?.clientKey.map(resolve) : nil
        if let file = user?.tokenFile {
            client.authentication = .authorization(type: "Bearer", credentials: .file(resolve(file)))
        } else if let token = user?.token {
            client.authentication = .authorization(type: "Bearer", credentials: .text(token))
        } else if let username = user?.username {
            client.authentication = .basic(username: .text(username), password: .text(user?.password ?? ""))
        }
        let exec = user?.exec.map { exec in
            // A command with a slash is relative to the kubeconfig, as kubectl has it.
            ExecPlugin(
                command: exec.command.contains("/") ? resolve(exec.command) : exec.command,
                arguments: exec.args ?? [],
                environment: Dictionary((exec.env ?? []).map { ($0.name, $0.value) }) { $1 },
                apiVersion: exec.apiVersion ?? "client.authentication.k8s.io/v1", installHint: exec.installHint ?? "")
        }
        return KubernetesEndpoint(server: cluster.server, client: client, exec: exec)
    }

    /// A cluster's `proxy-url`; without one the environment's, as client-go does.
    private static func proxy(
        _ url: String?, _ fail: (String) -> KubernetesConfigError
    ) throws -> ProxyOptions {
        guard let url, !url.isEmpty else { return ProxyOptions(.environment) }
        guard let proxy = ProxyOptions(url: url) else {
            throw fail("proxy-url is \(FetchRequest.redacted(url)); it must begin with http://, https:// or socks5://")
        }
        return proxy
    }

    private static func words(_ error: DecodingError) -> String {
        switch error {
        case .keyNotFound(let key, let context):
            "\(place(context))\(key.stringValue) is missing"
        case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context):
            "\(place(context))\(context.debugDescription)"
        @unknown default: "\(error)"
        }
    }

    private static func place(_ context: DecodingError.Context) -> String {
        let path = context.codingPath.map(\.stringValue).joined(separator: ".")
        return path.isEmpty ? "" : path + ": "
    }

    /// The endpoint of the cluster that the process runs in.
    ///
    /// - Parameters:
    ///   - environment: of the process.
    ///   - root: of the file system.
    /// - Returns: nil where the process does not run in a cluster.
    package static func inCluster(environment: [String: String], root: String = "") -> KubernetesEndpoint? {
        let folder = root + "/var/run/secrets/kubernetes.io/serviceaccount"
        guard let host = environment["KUBERNETES_SERVICE_HOST"], let port = environment["KUBERNETES_SERVICE_PORT"],
            FileManager.default.fileExists(atPath: folder + "/token")
        else { return nil }
        var client = ClientOptions()
        client.tls.caFile = folder + "/ca.crt"
        client.authentication = .authorization(type: "Bearer", credentials: .file(folder + "/token"))
        client.proxy = ProxyOptions(.environment)
        let name = host.contains(":") ? "[\(host)]" : host
        return KubernetesEndpoint(server: "https://\(name):\(port)", client: client)
    }
}
