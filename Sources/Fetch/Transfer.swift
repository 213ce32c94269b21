import CCurl
import Foundation

/// One request under way: curl's easy handle and what has come in.
///
/// Lives on the client's thread.
final class Transfer {
    let id: UInt64
    /// The handle that drives it.
    let multi: Multi
    let easy: UnsafeMutableRawPointer
    let completion: @Sendable (Result<FetchResponse, FetchError>) -> Void
    /// Set where the transfer was ended from our side.
    var failure: FetchError?

    private static let readBytes = 128 << 10

    var turn: FetchRequest.Turn { request.turn }

    private let request: FetchRequest
    private let pipe: BytePipe?
    private let resume: @Sendable () -> Void
    private var headerList: UnsafeMutablePointer<curl_slist>?
    private var connectList: UnsafeMutablePointer<curl_slist>?
    private var proxyHeaderList: UnsafeMutablePointer<curl_slist>?
    private var body: [UInt8] = []
    private var headers = FetchHeaders()
    private let errorText = UnsafeMutablePointer<CChar>.allocate(capacity: Int(CURL_ERROR_SIZE))
    private let upload: UnsafeMutablePointer<CChar>?

    /// - Parameter easy: a handle without settings, which stays the caller's.
    init(
        id: UInt64, easy: UnsafeMutableRawPointer, on multi: Multi, request: FetchRequest, pipe: BytePipe?,
        resume: @escaping @Sendable () -> Void,
        completion: @escaping @Sendable (Result<FetchResponse, FetchError>) -> Void
    ) throws(FetchError) {
        self.id = id
        self.multi = multi
        self.easy = easy
        self.completion = completion
        self.request = request
        self.pipe = pipe
        self.resume = resume
        errorText[0] = 0
        if let bytes = request.body {
            let copy = UnsafeMutablePointer<CChar>.allocate(capacity: max(1, bytes.count))
            for (index, byte) in bytes.enumerated() { copy[index] = CChar(bitPattern: byte) }
            upload = copy
        } else {
            upload = nil
        }
        try setUp()
    }

    deinit {
        curl_slist_free_all(headerList)
        curl_slist_free_all(connectList)
        curl_slist_free_all(proxyHeaderList)
        errorText.deallocate()
        upload?.deallocate()
    }

    private func setUp() throws(FetchError) {
        set(CURLOPT_URL, request.url)
        set(CURLOPT_NOSIGNAL, 1)
        uw_easy_setopt_pointer(easy, CURLOPT_PRIVATE, UnsafeMutableRawPointer(bitPattern: UInt(id)))
        uw_easy_setopt_pointer(easy, CURLOPT_ERRORBUFFER, errorText)
        set(CURLOPT_PROTOCOLS_STR, "http,https")
        set(CURLOPT_REDIR_PROTOCOLS_STR, "http,https")
        set(CURLOPT_TIMEOUT_MS, Int(request.timeoutMs))
        if let idle = request.idleTimeoutMs {
            set(CURLOPT_LOW_SPEED_LIMIT, 1)
            set(CURLOPT_LOW_SPEED_TIME, Int(idle / 1000))
        }
        set(CURLOPT_FOLLOWLOCATION, request.client.followRedirects ? 1 : 0)
        set(CURLOPT_MAXREDIRS, FetchRequest.maxRedirects)
        set(CURLOPT_TCP_KEEPALIVE, 1)
        // Connections are kept; for another one a name is asked for again. curl looks through all names that it knows
        // whenever a transfer ends.
        set(CURLOPT_DNS_CACHE_TIMEOUT, 0)
        // The largest that curl reads at once: an exposition is some hundred kilobytes.
        set(CURLOPT_BUFFERSIZE, Transfer.readBytes)
        set(CURLOPT_HTTP_VERSION, Int(request.client.offersHTTP2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1))
        set(CURLOPT_USERAGENT, "upgrade-watch")
        // The empty string asks for every encoding that curl was built with, gzip and zstd among them.
        if request.compression { set(CURLOPT_ACCEPT_ENCODING, "") }
        var headers = request.headers
        switch request.method {
        case "GET": break
        case "HEAD": set(CURLOPT_NOBODY, 1)
        default: set(CURLOPT_CUSTOMREQUEST, request.method)
        }
        if let body = request.body, let upload {
            uw_easy_setopt_off(easy, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(body.count))
            uw_easy_setopt_pointer(easy, CURLOPT_POSTFIELDS, upload)
            // Without this curl asks for permission first, and waits a second where the server does not know how.
            headers.append(("Expect", ""))
        }
        setUpTLS(request.client.tls)
        if let name = request.client.tls.serverName { setServerName(name, &headers) }
        try setUpProxy(request.client.proxy)
        headers += try lines(of: request.client.headers)
        try authenticate(&headers)
        headerList = Transfer.list(headers)
        uw_easy_setopt_list(easy, CURLOPT_HTTPHEADER, headerList)
        let context = Unmanaged.passUnretained(self).toOpaque()
        uw_easy_setopt_pointer(easy, CURLOPT_WRITEDATA, context)
        uw_easy_setopt_data(easy, CURLOPT_WRITEFUNCTION) { data, _, count, context in
            guard let data, let context else { return 0 }
            let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
            return transfer.receive(UnsafeRawBufferPointer(start: data, count: count))
        }
        uw_easy_setopt_pointer(easy, CURLOPT_HEADERDATA, context)
        uw_easy_setopt_data(easy, CURLOPT_HEADERFUNCTION) { data, size, count, context in
            guard let data, let context else { return 0 }
            let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
            transfer.receiveHeader(UnsafeRawBufferPointer(start: data, count: size * count))
            return size * count
        }
    }

    private func setUpTLS(_ tls: TLSOptions) {
        if let file = tls.caFile { set(CURLOPT_CAINFO, file) }
        if let file = tls.certFile { set(CURLOPT_SSLCERT, file) }
        if let file = tls.keyFile { set(CURLOPT_SSLKEY, file) }
        for (text, option) in [
            (tls.ca, CURLOPT_CAINFO_BLOB), (tls.cert, CURLOPT_SSLCERT_BLOB), (tls.key, CURLOPT_SSLKEY_BLOB),
        ] {
            guard let text else { continue }
            let bytes = Array(text.value.utf8)
            uw_easy_setopt_blob(easy, option, bytes, bytes.count)
        }
        if tls.insecureSkipVerify {
            set(CURLOPT_SSL_VERIFYPEER, 0)
            set(CURLOPT_SSL_VERIFYHOST, 0)
        }
        let versions = Transfer.number(tls.minVersion) | Transfer.number(tls.maxVersion) << 16
        if versions != 0 { set(CURLOPT_SSLVERSION, versions) }
    }

    /// As CURLOPT_SSLVERSION has a version; 0 is the default.
    private static func number(_ version: TLSOptions.Version?) -> Int {
        switch version {
        case nil: 0
        case .tls10: Int(CURL_SSLVERSION_TLSv1_0)
        case .tls11: Int(CURL_SSLVERSION_TLSv1_1)
        case .tls12: Int(CURL_SSLVERSION_TLSv1_2)
        case .tls13: Int(CURL_SSLVERSION_TLSv1_3)
        }
    }

    private func setUpProxy(_ proxy: ProxyOptions) throws(FetchError) {
        switch proxy.choice {
        case .environment: return
        // Said so, curl does not look into the environment.
        case .none: return set(CURLOPT_PROXY, "")
        case .server(let url): set(CURLOPT_PROXY, url.value)
        }
        set(CURLOPT_NOPROXY, proxy.exceptions)
        guard !proxy.connectHeaders.isEmpty else { return }
        proxyHeaderList = Transfer.list(try lines(of: proxy.connectHeaders))
        set(CURLOPT_HEADEROPT, Int(CURLHEADER_SEPARATE))
        uw_easy_setopt_list(easy, CURLOPT_PROXYHEADER, proxyHeaderList)
    }

    private func lines(of fields: [HeaderField]) throws(FetchError) -> [(name: String, value: String)] {
        var lines: [(name: String, value: String)] = []
        for field in fields {
            for value in field.values { lines.append((field.name, try text(of: value))) }
        }
        return lines
    }

    /// A list whose fields may have no value.
    private static func list(_ lines: [(name: String, value: String)]) -> UnsafeMutablePointer<curl_slist>? {
        lines.reduce(nil) { list, line in
            curl_slist_append(list, line.value.isEmpty ? "\(line.name):" : "\(line.name): \(line.value)")
        }
    }

    /// Asks the URL's server under another name: curl takes the one that a certificate must have from the URL, so the URL
    /// gets it, and the server's own address says where to connect to.
    private func setServerName(_ name: String, _ headers: inout [(name: String, value: String)]) {
        guard let parts = request.parts, parts.scheme.lowercased() == "https" else { return }
        set(CURLOPT_URL, "https://\(name):\(parts.port)\(parts.rest)")
        connectList = curl_slist_append(connectList, "\(name):\(parts.port):\(parts.host):\(parts.port)")
        uw_easy_setopt_list(easy, CURLOPT_CONNECT_TO, connectList)
        headers.append(("Host", parts.port == "443" ? "\(parts.host)" : "\(parts.host):\(parts.port)"))
    }

    private func authenticate(_ headers: inout [(name: String, value: String)]) throws(FetchError) {
        switch request.client.authentication {
        // What a server gives out is asked for before (``OAuth2Tokens``).
        case .none, .oauth2: break
        case .basic(let username, let password):
            set(CURLOPT_HTTPAUTH, 1)
            set(CURLOPT_USERNAME, try text(of: username))
            set(CURLOPT_PASSWORD, try text(of: password))
        case .authorization(let type, let credentials):
            headers.append(("Authorization", "\(type) \(try text(of: credentials))"))
        }
    }

    private func text(of source: SecretSource) throws(FetchError) -> String {
        let text = try source.value(for: request.url)
        // A second line would be a header field of its own.
        guard !text.utf8.contains(where: { $0 < 32 && $0 != 9 }) else {
            throw error(
                .file, "credentials, or a header's value, have a line feed or another control character in them")
        }
        return text
    }

    private func set(_ option: CURLoption, _ value: Int) { uw_easy_setopt_long(easy, option, value) }
    private func set(_ option: CURLoption, _ value: String) { uw_easy_setopt_string(easy, option, value) }

    /// - Returns: what curl's write callback returns: the bytes that were taken.
    private func receive(_ data: UnsafeRawBufferPointer) -> Int {
        if let pipe {
            var status = 0
            uw_easy_getinfo_long(easy, CURLINFO_RESPONSE_CODE, &status)
            if status == 200 { return pipe.push(data, resume: resume) ? data.count : uw_write_pause() }
        }
        guard body.count + data.count <= request.maxBodyBytes else {
            failure = error(.bodyTooLarge, "the body is larger than the limit of \(request.maxBodyBytes) bytes")
            return 0
        }
        if body.isEmpty {
            // Told how much comes, the body does not grow step by step; a number that is a lie takes little.
            var length: curl_off_t = 0
            uw_easy_getinfo_off(easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length)
            body.reserveCapacity(min(max(Int(length), data.count), request.maxBodyBytes, 16 << 20))
        }
        body.append(contentsOf: data)
        return data.count
    }

    private func receiveHeader(_ line: UnsafeRawBufferPointer) {
        if line.starts(with: "HTTP/".utf8) {
            // The head of the answer after a redirect or a 100 Continue: the one before does not count.
            headers = FetchHeaders()
            body.removeAll()
        } else {
            headers.append(line)
        }
    }

    func error(_ code: FetchError.Code, _ reason: String) -> FetchError {
        FetchError(code: code, url: FetchRequest.redacted(request.url), reason: reason)
    }

    /// What the caller gets, once curl is done with the handle.
    func result(_ code: CURLcode) -> Result<FetchResponse, FetchError> {
        if let failure { return .failure(failure) }
        guard code == CURLE_OK else {
            let own = String(cString: errorText)
            var reason = own.isEmpty ? String(cString: curl_easy_strerror(code)) : own
            if code == CURLE_PEER_FAILED_VERIFICATION {
                reason += "; name the authority that signed it with ca_file under tls_config"
            }
            return .failure(error(Transfer.code(code), reason))
        }
        var status = 0
        uw_easy_getinfo_long(easy, CURLINFO_RESPONSE_CODE, &status)
        var microseconds: curl_off_t = 0
        uw_easy_getinfo_off(easy, CURLINFO_TOTAL_TIME_T, &microseconds)
        return .success(
            FetchResponse(
                status: status, headers: headers, body: body, durationSeconds: Double(microseconds) / 1_000_000))
    }

    private static func code(_ code: CURLcode) -> FetchError.Code {
        switch code {
        case CURLE_URL_MALFORMAT, CURLE_UNSUPPORTED_PROTOCOL: .invalidURL
        case CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY, CURLE_COULDNT_CONNECT: .unreachable
        case CURLE_OPERATION_TIMEDOUT: .timedOut
        case CURLE_TOO_MANY_REDIRECTS: .tooManyRedirects
        case CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CONNECT_ERROR, CURLE_SSL_CERTPROBLEM, CURLE_SSL_CIPHER,
            CURLE_SSL_CACERT_BADFILE, CURLE_SSL_ISSUER_ERROR:
            .tls
        default: .broken
        }
    }
}
