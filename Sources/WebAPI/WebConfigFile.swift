import Foundation
import HTTPTypes
import NIOSSL
import Series
import StrictYAML

/// How the HTTP API is secured, as a web configuration file says it: Prometheus' format (exporter-toolkit,
/// `web-configuration.md`), with `bearer_token_file` beside its users.
package struct WebConfigFile: Sendable {
    /// What a server shows of itself and asks of those who connect.
    package struct TLS: Sendable, Equatable {
        package var certFile = ""
        package var keyFile = ""
        package var clientCAFile: String?
        package var clientAuth = ClientAuth.none
        package var minVersion = TLSVersion.tlsv12
        package var maxVersion: TLSVersion?
        package var ciphers: [NIOTLSCipher] = []
        package var curves: [NIOTLSCurve] = []
    }

    /// Go's names of what is asked of clients; those that take a certificate without a look are not built.
    package enum ClientAuth: String, Sendable, CaseIterable {
        case none = "NoClientCert"
        case verifyIfGiven = "VerifyClientCertIfGiven"
        case require = "RequireAndVerifyClientCert"
    }

    /// nil: plain HTTP.
    package var tls: TLS?
    /// Bcrypt hashes by name.
    package var users: [String: String] = [:]
    /// Who shows this token needs no user.
    package var token: String?
    /// Fields that every answer has.
    package var headers = HTTPFields()

    package init() {}

    /// Whether requests have to say who sends them.
    package var asksForCredentials: Bool { !users.isEmpty || token != nil }

    /// - Throws: `YAMLProblems` with the place of every fault; files that it names are read, and faults of them told.
    package static func load(file: String) throws -> WebConfigFile {
        return try load(YAMLDocument(file: file), folder: file.folderOfPath)
    }

    /// - Parameter folder: what relative paths are relative to.
    package static func load(_ document: YAMLDocument, folder: String) throws -> WebConfigFile {
        var config = WebConfigFile()
        var place: (file: String, line: Int, column: Int)?
        // An empty file asks for nothing.
        if !document.root.isNull { document.root.fields { place = config.read(&$0, folder) } }
        try document.finish()
        if let tls = config.tls, let place {
            do { _ = try tls.configuration() } catch {
                throw YAMLProblems([
                    YAMLProblem(
                        file: place.file, line: place.line, column: place.column,
                        reason: "tls_server_config: \(error)")
                ])
            }
        }
        return config
    }

    // MARK: Fields

    /// - Returns: the place of `tls_server_config`.
    private mutating func read(
        _ fields: inout YAMLFields, _ folder: String
    ) -> (file: String, line: Int, column: Int)? {
        func resolve(_ path: String) -> String { path.hasPrefix("/") ? path : folder + "/" + path }
        let secured = fields.take("tls_server_config")
        secured?.fields { fields in tls = WebConfigFile.tls(&fields, resolve) }
        fields.take("http_server_config")?.fields { fields in
            // Only HTTP/1.1 is spoken, and no other is offered.
            _ = fields.bool("http2")
            for (name, value) in fields.strings("headers") {
                guard let field = HTTPField.Name(name) else { continue }
                headers[field] = value
            }
        }
        if let value = fields.take("basic_auth_users") {
            for (name, hash) in value.strings {
                // The offending text is a secret in part: only the user is told.
                if !WebConfigFile.isBcrypt(hash) {
                    value.report(
                        "basic_auth_users: what stands for \(Labels.quoted(name)) is no bcrypt hash, as htpasswd -nB makes it"
                    )
                }
                users[name] = hash
            }
        }
        if let value = fields.take("bearer_token_file"), let path = value.string {
            let text = (try? String(contentsOfFile: resolve(path), encoding: .utf8)) ?? ""
            let token = text.trimmingCharacters(in: .whitespacesAndNewlines)
            if token.isEmpty { value.report("bearer_token_file: no token in \(resolve(path)), or it can't be read") }
            self.token = token
        }
        return secured?.place
    }

    private static func isBcrypt(_ hash: String) -> Bool {
        let parts = hash.split(separator: "$", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0].isEmpty && ["2a", "2b", "2y"].contains(parts[1]) && parts[2].count == 2
            && (4...31).contains(Int(parts[2]) ?? 0) && parts[3].count == 53
    }

    private static func tls(_ fields: inout YAMLFields, _ resolve: (String) -> String) -> TLS {
        var tls = TLS()
        tls.certFile = fields.required("cert_file")?.string.map(resolve) ?? ""
        tls.keyFile = fields.required("key_file")?.string.map(resolve) ?? ""
        tls.clientCAFile = fields.string("client_ca_file").map(resolve)
        if let value = fields.take("client_auth_type"), let text = value.string {
            if let known = ClientAuth(rawValue: text) {
                tls.clientAuth = known
                if known != .none, tls.clientCAFile == nil {
                    value.report("client_auth_type \(text) needs a client_ca_file")
                }
            } else {
                value.report(
                    "client_auth_type \(Labels.quoted(text)) is not supported; known are "
                        + ClientAuth.allCases.map(\.rawValue).joined(separator: ", "))
            }
        } else if tls.clientCAFile != nil {
            fields.value.report("client_ca_file has no effect without a client_auth_type")
        }
        tls.minVersion = version(&fields, "min_version") ?? tls.minVersion
        tls.maxVersion = version(&fields, "max_version")
        tls.ciphers = names(&fields, "cipher_suites", ciphers)
        tls.curves = names(&fields, "curve_preferences", curves)
        // Go has given up on its meaning; it is accepted for old files.
        _ = fields.bool("prefer_server_cipher_suites")
        return tls
    }

    private static func version(_ fields: inout YAMLFields, _ name: String) -> TLSVersion? {
        guard let value = fields.take(name), let text = value.string else { return nil }
        if let known = versions[text] { return known }
        value.report(
            "\(name): unknown version \(Labels.quoted(text)); known are \(versions.keys.sorted().joined(separator: ", "))"
        )
        return nil
    }

    private static func names<T>(_ fields: inout YAMLFields, _ name: String, _ known: [String: T]) -> [T] {
        fields.list(name).compactMap { value in
            guard let text = value.string else { return nil }
            if let one = known[text] { return one }
            value.report(
                "\(name): unknown \(Labels.quoted(text)); known are \(known.keys.sorted().joined(separator: ", "))")
            return nil
        }
    }

    private static let versions: [String: TLSVersion] = [
        "TLS10": .tlsv1, "TLS11": .tlsv11, "TLS12": .tlsv12, "TLS13": .tlsv13,
    ]
    private static let curves: [String: NIOTLSCurve] = [
        "CurveP256": .secp256r1, "CurveP384": .secp384r1, "CurveP521": .secp521r1, "X25519": .x25519,
    ]
    private static let ciphers: [String: NIOTLSCipher] = [
        "TLS_AES_128_GCM_SHA256": .TLS_AES_128_GCM_SHA256,
        "TLS_AES_256_GCM_SHA384": .TLS_AES_256_GCM_SHA384,
        "TLS_CHACHA20_POLY1305_SHA256": .TLS_CHACHA20_POLY1305_SHA256,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": .TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": .TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": .TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": .TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": .TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": .TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ]
}

extension WebConfigFile.TLS {
    /// - Throws: what is wrong with a certificate or key, with its file.
    package func configuration() throws -> TLSConfiguration {
        func reading<T>(_ file: String, _ read: () throws -> T) throws -> T {
            do { return try read() } catch {
                throw WebConfigError(description: "\(file) can't be read as PEM: \(error)")
            }
        }
        let chain = try reading(certFile) { try NIOSSLCertificate.fromPEMFile(certFile) }
        let key = try reading(keyFile) { try NIOSSLPrivateKey(file: keyFile, format: .pem) }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
        configuration.minimumTLSVersion = minVersion
        configuration.maximumTLSVersion = maxVersion
        if !ciphers.isEmpty { configuration.cipherSuiteValues = ciphers }
        if !curves.isEmpty { configuration.curves = curves }
        if let clientCAFile {
            configuration.trustRoots = .certificates(
                try reading(clientCAFile) { try NIOSSLCertificate.fromPEMFile(clientCAFile) })
        }
        switch clientAuth {
        case .none: configuration.certificateVerification = .none
        case .verifyIfGiven: configuration.certificateVerification = .optionalVerification
        case .require: configuration.certificateVerification = .noHostnameVerification
        }
        configuration.applicationProtocols = ["http/1.1"]
        // A key that is not the certificate's is told now, not to the first who connects.
        _ = try reading(keyFile) { try NIOSSLContext(configuration: configuration) }
        return configuration
    }
}

/// What is wrong with a file that a web configuration names.
struct WebConfigError: Error, CustomStringConvertible {
    let description: String
}
