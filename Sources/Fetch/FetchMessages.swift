import Foundation

/// One request, with the limits that its answer must keep.
package struct FetchRequest: Sendable {
    package var url: String
    package var method = "GET"
    package var headers: [(name: String, value: String)] = []
    package var body: [UInt8]?
    /// From the start of the connection to the last byte of the body.
    package var timeoutMs: Int64 = 10_000
    /// A transfer that brings nothing for so long has failed; nil: only the timeout counts.
    package var idleTimeoutMs: Int64?
    /// Of the body after decompression.
    package var maxBodyBytes = 64 << 20
    /// Ask for a compressed body.
    package var compression = true
    package var client: ClientOptions
    /// When it is begun, where as many are under way as may be.
    package var turn = Turn.first

    /// An order of requests that wait: what came first of each is begun first.
    package enum Turn: Int, Sendable, CaseIterable {
        /// Few, and somebody waits for them: the cluster's API, webhooks.
        case first
        /// Scrapes.
        case usual
        /// Scrapes of targets that did not answer the last time: so many may wait out their timeouts that there is no room for
        /// others. They take half of it at most.
        case last
    }

    package init(url: String, client: ClientOptions = ClientOptions()) {
        self.url = url
        self.client = client
    }

    /// Scheme, host and port, and what comes behind them; nil where the URL has no authority.
    package var parts: (scheme: Substring, host: Substring, port: Substring, rest: Substring)? {
        guard let scheme = url.range(of: "://") else { return nil }
        let end = url[scheme.upperBound...].firstIndex { "/?#".contains($0) } ?? url.endIndex
        var authority = url[scheme.upperBound..<end]
        if let at = authority.lastIndex(of: "@") { authority = authority[authority.index(after: at)...] }
        let name = url[..<scheme.lowerBound]
        // In an IPv6 address in brackets there are colons as well.
        if let colon = authority.lastIndex(of: ":"), !authority[colon...].contains("]") {
            return (name, authority[..<colon], authority[authority.index(after: colon)...], url[end...])
        }
        return (name, authority, name.lowercased() == "https" ? "443" : "80", url[end...])
    }

    /// A hash of scheme, host and port: equal for requests that may share a connection.
    var serverHash: Int {
        var hasher = Hasher()
        var slashes = 0
        for byte in url.utf8 {
            if byte == UInt8(ascii: "/") { slashes += 1 }
            if slashes == 3 { break }
            hasher.combine(byte)
        }
        return hasher.finalize()
    }

    /// Parameters of an address or a form, percent-encoded but for what is unreserved (RFC 3986, section 2.3).
    package static func form(_ parameters: [(String, String)]) -> String {
        parameters.map { "\(escaped($0.0))=\(escaped($0.1))" }.joined(separator: "&")
    }

    static func escaped(_ text: String) -> String {
        // Of a set only what is ASCII is left as it is.
        let allowed = CharacterSet.alphanumerics.union(CharacterSet(charactersIn: "-._~"))
        return text.addingPercentEncoding(withAllowedCharacters: allowed) ?? ""
    }

    /// The most redirects that are followed.
    package static let maxRedirects = 10

    /// The URL without user, password and query: what may be shown in errors and logs.
    package static func redacted(_ url: String) -> String {
        var shown = url
        if let scheme = shown.range(of: "://") {
            let authority = shown[scheme.upperBound...].prefix { !"/?#".contains($0) }
            if let at = authority.lastIndex(of: "@") {
                shown.removeSubrange(scheme.upperBound...at)
            }
        }
        if let query = shown.firstIndex(where: { $0 == "?" || $0 == "#" }) {
            shown = String(shown[..<query])
        }
        return shown
    }
}

/// An answer, whatever its status.
package struct FetchResponse: Sendable {
    package var status: Int
    package var headers: FetchHeaders
    package var body: [UInt8]
    /// From the request's start to the last byte.
    package var durationSeconds: Double
}

/// The header fields of an answer, read when they are asked for.
package struct FetchHeaders: Sendable {
    /// The lines as they came, the last of them with what is behind it.
    private var bytes: [UInt8] = []

    /// What more comes is passed over.
    private static let mostBytes = 64 << 10

    package init() {}

    mutating func append(_ line: UnsafeRawBufferPointer) {
        if bytes.count + line.count <= FetchHeaders.mostBytes { bytes.append(contentsOf: line) }
    }

    /// The value of a field without the blanks around it; of a repeated one the last.
    ///
    /// - Parameter name: in any case (RFC 9110, section 5.1).
    /// - Complexity: O(size of all fields).
    package subscript(name: String) -> String? {
        let name = name.lowercased().utf8
        for line in bytes.split(separator: UInt8(ascii: "\n")).reversed() {
            guard let colon = line.firstIndex(of: UInt8(ascii: ":")),
                line[..<colon].lazy.map({ $0 >= 65 && $0 <= 90 ? $0 | 0x20 : $0 }).elementsEqual(name)
            else { continue }
            let value = line[(colon + 1)...]
            let end = value.lastIndex { $0 > 32 }.map { $0 + 1 } ?? value.startIndex
            return String(decoding: value[..<end].drop { $0 <= 32 }, as: UTF8.self)
        }
        return nil
    }
}

/// A request without an answer.
package struct FetchError: Error, Equatable, CustomStringConvertible {
    package enum Code: Sendable, Equatable {
        /// Not a URL that can be asked, or a scheme other than http and https.
        case invalidURL
        /// No connection: refused, unreachable, unknown name.
        case unreachable
        case timedOut
        /// The body passed ``FetchRequest/maxBodyBytes``.
        case bodyTooLarge
        case tooManyRedirects
        /// The certificate does not verify, or TLS failed otherwise.
        case tls
        /// A file with a certificate, key, password or token can't be read, or holds what can't be sent.
        case file
        /// A token was asked for and not given.
        case unauthorized
        case cancelled
        /// The connection broke, or the answer is not HTTP.
        case broken
    }

    package var code: Code
    /// Without secrets.
    package var url: String
    package var reason: String

    /// Of a request that was ended from our side.
    static func cancelled(_ request: FetchRequest, _ reason: String) -> FetchError {
        FetchError(code: .cancelled, url: FetchRequest.redacted(request.url), reason: reason)
    }

    package var description: String { "\(url): \(reason)" }
}
