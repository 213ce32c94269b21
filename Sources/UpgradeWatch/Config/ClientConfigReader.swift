import Fetch
import Series
import StrictYAML

/// Reads Prometheus' HTTP client configuration, whose fields stand in scrape configurations, in `http_config`, and wherever
/// else a server is named.
package struct ClientConfigReader {
    /// What relative paths are relative to.
    let folder: String

    package init(folder: String) { self.folder = folder }

    package func read(_ fields: inout YAMLFields) -> ClientOptions {
        var client = ClientOptions()
        client.tls = tls(&fields)
        client.authentication = authentication(&fields)
        client.proxy = proxy(&fields)
        if let value = fields.take("http_headers") { client.headers = headers(value) }
        client.followRedirects = fields.bool("follow_redirects") ?? true
        client.offersHTTP2 = fields.bool("enable_http2") ?? true
        return client
    }

    /// A path, relative to the folder unless it begins with a slash.
    func resolve(_ path: String) -> String { path.hasPrefix("/") ? path : folder + "/" + path }

    /// The scheme of servers that are named by their addresses.
    static func scheme(_ fields: inout YAMLFields) -> String {
        let value = fields.take("scheme")
        let scheme = value?.string ?? "http"
        if let value, scheme != "http", scheme != "https" {
            value.report("\(value.path): \(Labels.quoted(scheme)) is neither http nor https")
        }
        return scheme
    }

    static func checkURL(_ text: String, _ value: YAMLValue) {
        guard !text.hasPrefix("http://"), !text.hasPrefix("https://") else { return }
        value.report("\(value.path): \(Labels.quoted(FetchRequest.redacted(text))) is not a URL of http or https")
    }

    /// A text that stands under a name, or in the file that is named by the name with `_file`; nil where neither is there.
    private func secret(_ name: String, _ fields: inout YAMLFields) -> SecretSource? {
        let text = fields.take(name)
        let file = fields.take(name + "_file")
        if text != nil, let file { file.report("\(file.path): at most one of \(name) and \(name)_file may be there") }
        if let path = file?.string { return .file(resolve(path)) }
        return text?.string.map { .text($0) }
    }

    private func tls(_ fields: inout YAMLFields) -> TLSOptions {
        var tls = TLSOptions()
        fields.take("tls_config")?.fields { fields in
            for (name, text, file) in [
                ("ca", \TLSOptions.ca, \TLSOptions.caFile), ("cert", \.cert, \.certFile), ("key", \.key, \.keyFile),
            ] {
                switch secret(name, &fields) {
                case .text(let secret): tls[keyPath: text] = secret
                case .file(let path): tls[keyPath: file] = path
                case nil: break
                }
            }
            if (tls.cert == nil && tls.certFile == nil) != (tls.key == nil && tls.keyFile == nil) {
                fields.value.report("\(fields.value.path): a certificate and its key must be there together")
            }
            tls.serverName = fields.string("server_name")
            tls.insecureSkipVerify = fields.bool("insecure_skip_verify") ?? false
            tls.minVersion = fields.take("min_version").flatMap(version)
            tls.maxVersion = fields.take("max_version").flatMap(version)
        }
        return tls
    }

    private func version(_ value: YAMLValue) -> TLSOptions.Version? {
        guard let text = value.string else { return nil }
        if let known = TLSOptions.Version(rawValue: text) { return known }
        let known = TLSOptions.Version.allCases.map(\.rawValue).joined(separator: ", ")
        value.report("\(value.path): \(Labels.quoted(text)) is none of \(known)")
        return nil
    }

    private func authentication(_ fields: inout YAMLFields) -> Authentication {
        var found: [Authentication] = []
        fields.take("basic_auth")?.fields { fields in
            let username = secret("username", &fields) ?? .text("")
            found.append(.basic(username: username, password: secret("password", &fields) ?? .text("")))
        }
        fields.take("authorization")?.fields { fields in
            let type = fields.take("type")
            if type?.string?.lowercased() == "basic" {
                type?.report("authorization.type: for Basic there is basic_auth")
            }
            if let credentials = secret("credentials", &fields) {
                found.append(.authorization(type: type?.string ?? "Bearer", credentials: credentials))
            }
        }
        if let token = secret("bearer_token", &fields) {
            found.append(.authorization(type: "Bearer", credentials: token))
        }
        fields.take("oauth2")?.fields { fields in
            if let options = oauth2(&fields) { found.append(.oauth2(options)) }
        }
        if found.count > 1 {
            fields.value.report(
                "\(fields.value.path): at most one of basic_auth, authorization, oauth2 and bearer_token may be there")
        }
        return found.first ?? .none
    }

    private func oauth2(_ fields: inout YAMLFields) -> OAuth2Options? {
        let id = fields.required("client_id")
        let url = fields.required("token_url")
        let secret = secret("client_secret", &fields)
        if secret == nil { fields.value.report("\(fields.value.path): client_secret or client_secret_file is missing") }
        var options = OAuth2Options(
            tokenURL: url?.string ?? "", clientID: id?.string ?? "", clientSecret: secret ?? .text(""))
        if let url { ClientConfigReader.checkURL(options.tokenURL, url) }
        options.scopes = fields.stringList("scopes")
        options.parameters = Dictionary(fields.strings("endpoint_params").map { ($0.name, $0.value) }) { $1 }
        options.tls = tls(&fields)
        options.proxy = proxy(&fields)
        return id == nil || url == nil || secret == nil ? nil : options
    }

    private func proxy(_ fields: inout YAMLFields) -> ProxyOptions {
        var proxy = ProxyOptions()
        let url = fields.take("proxy_url")
        let exceptions = fields.take("no_proxy")
        let environment = fields.take("proxy_from_environment")
        if let url, let text = url.string, !text.isEmpty {
            if let known = ProxyOptions(url: text) {
                proxy = known
            } else {
                url.report(
                    "\(url.path): \(Labels.quoted(FetchRequest.redacted(text))) is not the address of a proxy; it begins "
                        + "with http://, https:// or socks5://")
            }
        }
        if environment?.bool == true {
            for (name, other) in [("proxy_url", url), ("no_proxy", exceptions)] {
                other?.report("proxy_from_environment is true: \(name) must not be there")
            }
            proxy.choice = .environment
        } else if let exceptions, let text = exceptions.string {
            if url == nil {
                exceptions.report("\(exceptions.path): there is no proxy_url that this is an exception of")
            }
            // The host itself is never reached by way of a proxy, as in Go's httpproxy.
            proxy.exceptions = text + ",localhost,127.0.0.0/8,::1"
        }
        if let value = fields.take("proxy_connect_header") {
            value.fields { fields in
                for name in fields.names {
                    let values = fields.stringList(name).map { SecretSource.text($0) }
                    proxy.connectHeaders.append(HeaderField(name: name, values: values))
                }
            }
            if url == nil { value.report("\(value.path): there is no proxy_url whose requests could have it") }
        }
        return proxy
    }

    /// What the client says itself, and what makes a request one (Prometheus' `common/config`, `reservedHeaders`).
    private static let reserved: Set<String> = [
        "accept-encoding", "authorization", "connection", "content-encoding", "content-length", "content-type", "host",
        "keep-alive", "proxy-authenticate", "proxy-authorization", "user-agent", "www-authenticate",
        "x-prometheus-remote-read-version", "x-prometheus-remote-write-version", "x-prometheus-scrape-timeout-seconds",
    ]

    private func headers(_ value: YAMLValue) -> [HeaderField] {
        var found: [HeaderField] = []
        value.fields { fields in
            for name in fields.names {
                guard let value = fields.take(name) else { continue }
                let isToken = name.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != UInt8(ascii: ":") }
                if name.isEmpty || !isToken {
                    value.report("\(value.path): \(Labels.quoted(name)) is not the name of a header field")
                }
                if ClientConfigReader.reserved.contains(name.lowercased()) {
                    value.report("\(value.path): the header field \(name) is set by the client itself")
                }
                value.fields { fields in
                    var values = (fields.stringList("values") + fields.stringList("secrets")).map {
                        SecretSource.text($0)
                    }
                    values += fields.stringList("files").map { .file(resolve($0)) }
                    found.append(HeaderField(name: name, values: values))
                }
            }
        }
        return found
    }
}
