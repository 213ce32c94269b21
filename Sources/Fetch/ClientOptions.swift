import Foundation

/// How servers are reached and what they are shown: Prometheus' HTTP client configuration, which scrapes, discoveries,
/// webhooks and remote stores share (prometheus.io/docs, "Configuration", `<http_config>`).
package struct ClientOptions: Sendable, Hashable {
    package var tls = TLSOptions()
    package var authentication = Authentication.none
    /// What requests have beside their own header fields.
    package var headers: [HeaderField] = []
    package var proxy = ProxyOptions()
    package var followRedirects = true
    /// Whether HTTP/2 is offered over TLS.
    package var offersHTTP2 = true

    /// The files that are read for a request.
    package var files: [String] {
        var sources = (headers + proxy.connectHeaders).flatMap(\.values)
        var found = tls.files
        switch authentication {
        case .none: break
        case .basic(let username, let password): sources += [username, password]
        case .authorization(_, let credentials): sources.append(credentials)
        case .oauth2(let options):
            sources.append(options.clientSecret)
            found += options.tls.files
        }
        for case .file(let path) in sources { found.append(path) }
        return found
    }

    package init() {}
}

/// How a server's certificate is judged and which one is shown to it; the fields of Prometheus' `tls_config`.
package struct TLSOptions: Sendable, Hashable {
    /// As `min_version` and `max_version` name them.
    package enum Version: String, Sendable, CaseIterable {
        case tls10 = "TLS10"
        case tls11 = "TLS11"
        case tls12 = "TLS12"
        case tls13 = "TLS13"
    }

    /// Those of the three below that are named.
    package var files: [String] { [caFile, certFile, keyFile].compactMap(\.self) }

    /// PEM files.
    package var caFile: String?
    package var certFile: String?
    package var keyFile: String?
    /// The same as PEM text, which comes before the file.
    package var ca: Secret?
    package var cert: Secret?
    package var key: Secret?
    /// The name that the server's certificate must have, and that is asked for (SNI); nil: that of the URL.
    package var serverName: String?
    /// Accepts any certificate: only where the user says so.
    package var insecureSkipVerify = false
    /// nil: what OpenSSL is set to.
    package var minVersion: Version?
    package var maxVersion: Version?

    package init() {}
}

/// Which proxy requests take.
package struct ProxyOptions: Sendable, Hashable {
    package enum Choice: Sendable, Hashable {
        case none
        /// What the variables `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` say, as libcurl reads them.
        case environment
        /// The URL of a proxy, which may have a password in it.
        case server(Secret)
    }

    package var choice = Choice.none
    /// Hosts that are reached without the proxy: names, whose subdomains count too, addresses and networks, with commas
    /// between them (libcurl, `CURLOPT_NOPROXY`).
    package var exceptions = ""
    /// Header fields of `CONNECT` requests.
    package var connectHeaders: [HeaderField] = []

    package init(_ choice: Choice = .none) { self.choice = choice }

    /// The proxy at an address of `http`, `https` or `socks5`; nil for any other.
    package init?(url: String) {
        guard ["http://", "https://", "socks5://"].contains(where: url.hasPrefix) else { return nil }
        choice = .server(Secret(url))
    }
}

/// A header field, once for each of its values.
package struct HeaderField: Sendable, Hashable {
    package var name: String
    package var values: [SecretSource]

    package init(name: String, values: [SecretSource]) {
        self.name = name
        self.values = values
    }
}

/// What proves to a server who asks.
package enum Authentication: Sendable, Hashable {
    case none
    case basic(username: SecretSource, password: SecretSource)
    /// An `Authorization` header of this type, `Bearer` for tokens.
    case authorization(type: String, credentials: SecretSource)
    /// A bearer token that another server gives out.
    case oauth2(OAuth2Options)
}

/// Where a token is asked for (RFC 6749, section 4.4, "Client Credentials Grant").
package struct OAuth2Options: Sendable, Hashable {
    package var tokenURL: String
    package var clientID: String
    package var clientSecret: SecretSource
    package var scopes: [String] = []
    /// Further parameters of the request for a token.
    package var parameters: [String: String] = [:]
    package var tls = TLSOptions()
    package var proxy = ProxyOptions()

    package init(tokenURL: String, clientID: String, clientSecret: SecretSource) {
        self.tokenURL = tokenURL
        self.clientID = clientID
        self.clientSecret = clientSecret
    }
}

/// A text that is not to be seen, or the file that holds it, which is read for every request, so that a rotated one is used
/// at once.
package enum SecretSource: Sendable, Hashable {
    case text(Secret)
    case file(String)

    package static func text(_ text: String) -> SecretSource { .text(Secret(text)) }

    /// The text; of a file without blanks and line feeds around it.
    ///
    /// - Parameter url: for whose sake it is read.
    /// - Throws: ``FetchError`` where the file can't be read.
    func value(for url: String) throws(FetchError) -> String {
        switch self {
        case .text(let secret): return secret.value
        case .file(let path):
            guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
                throw FetchError(
                    code: .file, url: FetchRequest.redacted(url),
                    reason: "the file \(path) with the credentials can't be read")
            }
            return text.trimmingCharacters(in: .whitespacesAndNewlines)
        }
    }
}

/// A text that is never printed.
package struct Secret: Sendable, Hashable, CustomStringConvertible, CustomDebugStringConvertible {
    package let value: String

    package init(_ value: String) { self.value = value }

    package var description: String { "<secret>" }
    package var debugDescription: String { "<secret>" }
}
