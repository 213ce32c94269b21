import Fetch
import Foundation
import Synchronization
import TestSupport
import Testing

@Suite struct FetchTests {
    private let client = HTTPClient()
    private let directory = TemporaryDirectory()

    private func error(_ request: FetchRequest) async -> FetchError? {
        do throws(FetchError) {
            _ = try await client.fetch(request)
            return nil
        } catch {
            return error
        }
    }

    @Test func answer_hasStatusHeadersAndBody() async throws {
        let server = RawServer { _, connection in
            connection.answer("hello", status: "404 Not Found", headers: "X-Thing: a\r\nContent-Type: text/plain\r\n")
        }
        let response = try await client.fetch(FetchRequest(url: server.url + "/path"))
        #expect(response.status == 404)
        #expect(response.headers["x-thing"] == "a")
        #expect(String(decoding: response.body, as: UTF8.self) == "hello")
        #expect(server.heads.first?.hasPrefix("GET /path HTTP/1.1") == true)
    }

    @Test func servers_areAskedOnOneConnectionEach_whicheverHandleDrivesIt() async throws {
        let many = HTTPClient(maxConnections: 4096)
        let accepted = Mutex<[Int: Int]>([:])
        let servers = (0..<24).map { number in
            RawServer { _, connection in
                accepted.withLock { $0[number, default: 0] += 1 }
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Number:  \(number) \r\n\r\nok"
                repeat { connection.write(Array(answer.utf8)) } while !connection.readHead().isEmpty
            }
        }
        for _ in 0..<3 {
            let answers = try await withThrowingTaskGroup(of: (Int, String?).self) { group in
                for (number, server) in servers.enumerated() {
                    let request = FetchRequest(url: server.url + "/metrics")
                    group.addTask { (number, try await many.fetch(request).headers["X-number"]) }
                }
                return try await group.reduce(into: [Int: String?]()) { $0[$1.0] = $1.1 }
            }
            #expect(answers == Dictionary(uniqueKeysWithValues: (0..<24).map { ($0, "\($0)") }))
        }
        #expect(accepted.withLock { $0 } == Dictionary(uniqueKeysWithValues: (0..<24).map { ($0, 1) }))
    }

    @Test(arguments: [
        ("gzip", "H4sIAAAAAAACAystUDDkAgBykOqCBQAAAA=="), ("zstd", "KLUv/QRYKQAAdXAgMQqlCXsy"),
    ])
    func compressedBodies_areUnpacked(encoding: String, base64: String) async throws {
        let packed = Data(base64Encoded: base64)
        let bytes = [UInt8](try #require(packed))
        let server = RawServer { _, connection in
            connection.write(
                Array("HTTP/1.1 200 OK\r\nContent-Encoding: \(encoding)\r\nContent-Length: \(bytes.count)\r\n\r\n".utf8)
                    + bytes)
        }
        let response = try await client.fetch(FetchRequest(url: server.url))
        #expect(String(decoding: response.body, as: UTF8.self) == "up 1\n")
        #expect(server.heads.first?.contains(encoding) == true)
    }

    @Test func serverThatNeverEnds_timesOut() async {
        let server = RawServer { _, connection in
            connection.write(Array("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n".utf8))
            for _ in 0..<1000 {
                guard connection.write(Array("up 1\n".utf8)) else { return }
                usleep(20_000)
            }
        }
        var request = FetchRequest(url: server.url + "/metrics?token=secret")
        request.timeoutMs = 300
        let failure = await error(request)
        #expect(failure?.code == .timedOut)
        #expect(failure?.url == server.url + "/metrics")
        #expect(failure?.reason.hasPrefix("Operation timed out after ") == true)
    }

    @Test func bodyOverTheLimit_isCutOff_alsoAfterUnpacking() async {
        let server = RawServer { _, connection in
            connection.write(Array("HTTP/1.1 200 OK\r\nContent-Length: 209715200\r\n\r\n".utf8))
            let chunk = [UInt8](repeating: 120, count: 1 << 20)
            for _ in 0..<200 where !connection.write(chunk) { return }
        }
        var request = FetchRequest(url: server.url)
        request.maxBodyBytes = 1 << 20
        let failure = await error(request)
        #expect(failure?.description == "\(server.url): the body is larger than the limit of 1048576 bytes")
        #expect(failure?.code == .bodyTooLarge)
    }

    @Test func noServer_isUnreachable() async {
        let failure = await error(FetchRequest(url: "http://127.0.0.1:1/"))
        #expect(failure?.code == .unreachable)
        // The milliseconds in between are the machine's.
        #expect(failure?.reason.hasPrefix("Failed to connect to 127.0.0.1 port 1 after ") == true)
        #expect(failure?.reason.hasSuffix(" ms: Couldn't connect to server") == true)
    }

    @Test(arguments: ["file:///etc/passwd", "ftp://127.0.0.1/", "nonsense://x", ""])
    func otherSchemes_areRefused(url: String) async {
        #expect(await error(FetchRequest(url: url))?.code == .invalidURL)
    }

    @Test func redirects_areFollowed_butNotForEver() async throws {
        let server = RawServer { head, connection in
            if head.hasPrefix("GET /once") {
                connection.answer("", status: "302 Found", headers: "Location: /there\r\n")
            } else if head.hasPrefix("GET /there") {
                connection.answer("arrived")
            } else {
                connection.answer("", status: "302 Found", headers: "Location: /ever\r\n")
            }
        }
        #expect(try await client.fetch(FetchRequest(url: server.url + "/once")).body == Array("arrived".utf8))
        #expect(await error(FetchRequest(url: server.url + "/ever"))?.code == .tooManyRedirects)
        var request = FetchRequest(url: server.url + "/once")
        request.client.followRedirects = false
        #expect(try await client.fetch(request).status == 302)
    }

    @Test func credentials_areSent_andATokenFileIsReadAgain() async throws {
        let server = RawServer { _, connection in connection.answer("ok") }
        var request = FetchRequest(url: server.url)
        request.client.authentication = .basic(username: .text("user"), password: .text("pass"))
        _ = try await client.fetch(request)
        let token = try directory.write("token", "first\n")
        request.client.authentication = .authorization(type: "Bearer", credentials: .file(token))
        _ = try await client.fetch(request)
        _ = try directory.write("token", "second\n")
        _ = try await client.fetch(request)
        let sent = server.heads.compactMap { head in
            head.split(separator: "\r\n").first { $0.hasPrefix("Authorization:") }
        }
        #expect(
            sent == [
                "Authorization: Basic dXNlcjpwYXNz", "Authorization: Bearer first", "Authorization: Bearer second",
            ])
        request.client.authentication = .authorization(type: "Bearer", credentials: .file(directory.path + "/missing"))
        let failure = await error(request)
        #expect(failure?.reason == "the file \(directory.path)/missing with the credentials can't be read")
        #expect("\(Secret("pass"))" == "<secret>")
    }

    @Test func headers_areSent_andNeverMoreThanTheirLines() async throws {
        let server = RawServer { _, connection in connection.answer("ok") }
        var request = FetchRequest(url: server.url)
        let file = try directory.write("h", "from-a-file\n")
        request.client.headers = [HeaderField(name: "X-Scope", values: [.text("one"), .file(file)])]
        _ = try await client.fetch(request)
        let sent = try #require(server.heads.first)
        #expect(sent.contains("X-Scope: one\r\n") && sent.contains("X-Scope: from-a-file\r\n"))
        _ = try directory.write("h", "a\nX-Other: b\n")
        let failure = await error(request)
        #expect(failure?.code == .file && failure?.reason.contains("have a line feed") == true)
        #expect(server.heads.count == 1)
    }

    @Test func proxy_isAsked_butForItsExceptions() async throws {
        let proxy = RawServer { _, connection in connection.answer("by way of the proxy") }
        let server = RawServer { _, connection in connection.answer("direct") }
        func body(_ url: String, _ options: ProxyOptions) async throws -> String {
            var request = FetchRequest(url: url)
            request.client.proxy = options
            return String(decoding: try await client.fetch(request).body, as: UTF8.self)
        }
        var options = ProxyOptions(.server(Secret(proxy.url.replacing("http://", with: "http://user:pass@"))))
        #expect(try await body("http://nowhere.example:9100/metrics", options) == "by way of the proxy")
        let head = try #require(proxy.heads.first)
        #expect(head.hasPrefix("GET http://nowhere.example:9100/metrics HTTP/1.1\r\n"))
        #expect(head.contains("Proxy-Authorization: Basic dXNlcjpwYXNz\r\n"))
        options.exceptions = "example,127.0.0.0/8"
        #expect(try await body(server.url, options) == "direct")
        #expect(try await body(server.url, ProxyOptions()) == "direct")
    }

    /// What a tunnel's server is told beside what the proxy is told.
    @Test func connectHeaders_areThoseOfTheProxy() async {
        let proxy = RawServer { _, connection in connection.answer("", status: "403 Forbidden") }
        var request = FetchRequest(url: "https://nowhere.example/")
        request.client.proxy = ProxyOptions(.server(Secret(proxy.url)))
        request.client.proxy.connectHeaders = [HeaderField(name: "X-Tenant", values: [.text("a")])]
        request.client.headers = [HeaderField(name: "X-Scope", values: [.text("secret")])]
        #expect(await error(request)?.code == .broken)
        let head = proxy.heads.first ?? ""
        #expect(head.hasPrefix("CONNECT nowhere.example:443 HTTP/1.1\r\n") && head.contains("X-Tenant: a\r\n"))
        #expect(!head.contains("secret"))
    }

    @Test func oauth2_asksForATokenOnce_andAgainWhereItIsRefused() async throws {
        let given = Mutex(0)
        let issuer = RawServer { head, connection in
            // This one wants the credentials in the form.
            guard head.contains("client_id=id&client_secret=s%26t") else {
                return connection.answer("", status: "401 Unauthorized")
            }
            let number = given.withLock { number in
                number += 1
                return number
            }
            connection.answer(#"{"access_token":"token-\#(number)","token_type":"bearer","expires_in":"3600"}"#)
        }
        let server = RawServer { head, connection in
            let isGood = !head.contains("token-1\r\n") || head.hasPrefix("GET /first")
            connection.answer("ok", status: isGood ? "200 OK" : "401 Unauthorized")
        }
        var options = OAuth2Options(tokenURL: issuer.url + "/token", clientID: "id", clientSecret: .text("s&t"))
        options.scopes = ["read", "write"]
        options.parameters = ["audience": "a b"]
        var request = FetchRequest(url: server.url + "/first")
        request.client.authentication = .oauth2(options)
        let first = request
        try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<8 { group.addTask { [client] in try await client.fetch(first).status } }
            for try await status in group { #expect(status == 200) }
        }
        #expect(given.withLock { $0 } == 1)
        let asked = try #require(issuer.heads.first)
        #expect(asked.hasPrefix("POST /token HTTP/1.1\r\n") && asked.contains("Authorization: Basic aWQ6cyUyNnQ=\r\n"))
        #expect(asked.hasSuffix("grant_type=client_credentials&audience=a%20b&scope=read%20write"))
        request.url = server.url + "/second"
        #expect(try await client.fetch(request).status == 401)
        #expect(try await client.fetch(request).status == 200)
        #expect(server.heads.last?.contains("Authorization: Bearer token-2\r\n") == true)
        #expect(try client.fetchBlocking(request).status == 200)
        #expect(given.withLock { $0 } == 2)
    }

    @Test func oauth2_thatGivesNoToken_isToldWithoutSecrets() async {
        let issuer = RawServer { _, connection in connection.answer(#"{"error":"x"}"#) }
        var request = FetchRequest(url: "http://127.0.0.1:1/")
        request.client.authentication = .oauth2(
            OAuth2Options(tokenURL: issuer.url + "/t?key=secret", clientID: "id", clientSecret: .text("secret")))
        let failure = await error(request)
        #expect(failure?.code == .unauthorized)
        #expect(failure.map { "\($0)" } == "\(issuer.url)/t: the answer has no access_token")
    }

    /// Who is cancelled does not wait for a server that gives no token; others do, and ask only once.
    @Test func oauth2_thatHangs_holdsNobodyWhoIsCancelled() async throws {
        let isAsked = DispatchSemaphore(value: 0)
        let issuer = RawServer { _, connection in
            isAsked.signal()
            _ = connection.readHead()
        }
        var request = FetchRequest(url: "http://127.0.0.1:1/")
        request.client.authentication = .oauth2(
            OAuth2Options(tokenURL: issuer.url, clientID: "id", clientSecret: .text("secret")))
        let waiting = (0..<3).map { [request] _ in Task { try await client.fetch(request) } }
        await withCheckedContinuation { continuation in
            DispatchQueue.global().async {
                isAsked.wait()
                continuation.resume()
            }
        }
        for task in waiting { task.cancel() }
        for task in waiting {
            let failure = await #expect(throws: FetchError.self) { try await task.value }
            #expect(failure?.code == .cancelled)
        }
        #expect(issuer.heads.count == 1)
    }

    @Test func oldVersionsOfTLS_canBeRefused() async throws {
        let server = try TLSServer(directory: directory)
        defer { server.stop() }
        try await server.ready(client)
        var request = FetchRequest(url: server.url)
        request.client.tls.insecureSkipVerify = true
        request.client.tls.minVersion = .tls13
        #expect(try await client.fetch(request).status == 200)
        request.client.tls.minVersion = .tls10
        request.client.tls.maxVersion = .tls11
        #expect(await error(request)?.code == .tls)
    }

    @Test func body_isPosted() async throws {
        let server = RawServer { _, connection in connection.answer("ok") }
        var request = FetchRequest(url: server.url)
        request.method = "POST"
        request.body = Array("{\"a\":1}".utf8)
        request.headers = [("Content-Type", "application/json")]
        _ = try await client.fetch(request)
        let head = try #require(server.heads.first)
        #expect(head.hasPrefix("POST / HTTP/1.1"))
        #expect(head.hasSuffix("\r\n\r\n{\"a\":1}"))
        #expect(head.contains("Content-Type: application/json"))
    }

    @Test func cancellation_endsTheTransfer() async {
        let server = RawServer { _, _ in sleep(120) }
        var request = FetchRequest(url: server.url)
        request.timeoutMs = 120_000
        let task = Task { [request] in await error(request) }
        while server.heads.isEmpty { await Task.yield() }
        task.cancel()
        #expect(await task.value?.code == .cancelled)
    }

    @Test func certificateThatDoesNotVerify_isRefused_unlessItsAuthorityIsKnown() async throws {
        let server = try TLSServer(directory: directory)
        defer { server.stop() }
        try await server.ready(client)
        var request = FetchRequest(url: server.url)
        let failure = await error(request)
        #expect(
            failure?.description
                == "\(server.url): SSL certificate problem: self-signed certificate; name the authority that signed it with ca_file under tls_config"
        )
        #expect(failure?.code == .tls)
        request.client.tls.caFile = server.certificate
        #expect(try await client.fetch(request).status == 200)
        request.client.tls.caFile = nil
        request.client.tls.insecureSkipVerify = true
        #expect(try await client.fetch(request).status == 200)
    }

    @Test func certificateOfAnotherName_isTaken_whereItIsSaid() async throws {
        let server = try TLSServer(directory: directory, name: "kubelet.internal")
        defer { server.stop() }
        try await server.ready(client)
        var request = FetchRequest(url: server.url)
        request.client.tls.caFile = server.certificate
        #expect(await error(request)?.code == .tls)
        request.client.tls.serverName = "kubelet.internal"
        #expect(try await client.fetch(request).status == 200)
        request.client.tls.serverName = "other.internal"
        #expect(await error(request)?.code == .tls)
    }

    @Test(arguments: [
        ("https://[fd00::1]:10250/m?a=b", "https|[fd00::1]|10250|/m?a=b"), ("https://u:p@host/", "https|host|443|/"),
        ("http://host:1", "http|host|1|"), ("HTTPS://[fd00::1]", "HTTPS|[fd00::1]|443|"),
    ])
    func addresses_haveParts(url: String, parts: String) {
        let found = FetchRequest(url: url).parts
        #expect(found.map { "\($0.scheme)|\($0.host)|\($0.port)|\($0.rest)" } == parts)
    }

    /// Servers that do not answer take half of the room at most; others, and those that somebody waits for, go before them.
    @Test func requestsThatMayWaitLong_leaveRoomForOthers() async throws {
        // Answers nothing until the client goes.
        let silent = RawServer { _, connection in _ = connection.readHead() }
        let quick = RawServer { _, connection in connection.answer("ok") }
        let client = HTTPClient(maxTransfers: 2)
        func request(_ server: RawServer, _ turn: FetchRequest.Turn) -> FetchRequest {
            var request = FetchRequest(url: server.url)
            request.turn = turn
            request.timeoutMs = 60_000
            return request
        }
        let hanging = (0..<4).map { _ in Task { try await client.fetch(request(silent, .last)) } }
        while client.counts.waiting != 3 { await Task.yield() }
        #expect(client.counts.active == 1)
        #expect(try await client.fetch(request(quick, .usual)).status == 200)
        let other = Task { try await client.fetch(request(silent, .usual)) }
        while client.counts.active != 2 { await Task.yield() }
        let first = Task { try await client.fetch(request(quick, .first)) }
        while client.counts.waiting != 4 { await Task.yield() }
        // Whichever ends gives its room to the one that came last and goes first.
        other.cancel()
        #expect(try await first.value.status == 200)
        for task in hanging { task.cancel() }
        for task in hanging { await #expect(throws: FetchError.self) { try await task.value } }
        #expect(try await client.fetch(request(quick, .last)).status == 200)
    }

    @Test func moreRequestsThanAtOnce_waitForEachOther_andMayBeCancelledMeanwhile() async throws {
        let busy = Mutex(0)
        let server = RawServer { head, connection in
            let now = busy.withLock { busy in
                busy += 1
                return busy
            }
            if head.contains("/slow") { sleep(120) }
            for _ in 0..<100 { sched_yield() }
            busy.withLock { $0 -= 1 }
            connection.answer("\(now)")
        }
        let client = HTTPClient(maxTransfers: 1)
        let answers = try await withThrowingTaskGroup(of: String.self) { group in
            for _ in 0..<20 {
                group.addTask {
                    String(decoding: try await client.fetch(FetchRequest(url: server.url)).body, as: UTF8.self)
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(answers == Array(repeating: "1", count: 20))
        var slow = FetchRequest(url: server.url + "/slow")
        slow.timeoutMs = 120_000
        let first = Task { [slow] in try await client.fetch(slow) }
        while !server.heads.contains(where: { $0.contains("/slow") }) { await Task.yield() }
        let second = Task { () -> FetchError.Code? in
            do throws(FetchError) {
                _ = try await client.fetch(FetchRequest(url: server.url))
                return nil
            } catch {
                return error.code
            }
        }
        await Task.yield()
        second.cancel()
        #expect(await second.value == .cancelled)
        first.cancel()
        _ = await first.result
    }

    @Test func certificates_areTakenAsText() async throws {
        let directory = TemporaryDirectory()
        let server = try TLSServer(directory: directory)
        defer { server.stop() }
        let client = HTTPClient()
        try await server.ready(client)
        var request = FetchRequest(url: server.url)
        request.client.tls.ca = Secret(try String(contentsOfFile: server.certificate, encoding: .utf8))
        request.client.tls.cert = request.client.tls.ca
        request.client.tls.key = Secret(try String(contentsOfFile: directory.path + "/key.pem", encoding: .utf8))
        #expect(try await client.fetch(request).status == 200)
        request.client.tls.key = Secret("no key")
        let error = await #expect(throws: FetchError.self) { try await client.fetch(request) }
        #expect(error?.code == .tls && !"\(error.map { "\($0)" } ?? "")".contains("no key"))
    }

    @Test func pipe_bringsAllBytes_howeverSlowItsReader() async throws {
        let line = String(repeating: "x", count: 9_999) + "\n"
        let server = RawServer { head, connection in
            guard !head.contains("/refused") else {
                connection.answer("no", status: "403 Forbidden")
                return
            }
            connection.answer(String(repeating: line, count: 2000))
        }
        let client = HTTPClient()
        let pipe = BytePipe(limit: 100_000)
        var request = FetchRequest(url: server.url)
        // Other tests may keep the machine busy meanwhile.
        request.timeoutMs = 120_000
        async let transfer = client.stream(request, into: pipe)
        var splitter = LineSplitter(maxLineBytes: 20_000)
        var lines = 0
        var largest = 0
        while let bytes = await pipe.next() {
            largest = max(largest, bytes.count)
            lines += splitter.add(bytes).count
            await Task.yield()
        }
        #expect(try await transfer.status == 200)
        #expect(lines == 2000)
        // What waits for the reader is bounded: the limit, and what curl brings at once.
        #expect(largest <= 100_000 + 64 * 1024)
        let refused = BytePipe()
        let answer = try await client.stream(FetchRequest(url: server.url + "/refused"), into: refused)
        #expect(answer.status == 403 && String(decoding: answer.body, as: UTF8.self) == "no")
        #expect(await refused.next() == nil)
    }

    @Test func lines_areCutHoweverTheBytesCome_andOneThatIsTooLongIsLeftOut() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        let wanted = (0..<50).map { _ in String(repeating: "y", count: Int.random(in: 0...30, using: &random)) }
        var rest = Array((wanted.joined(separator: "\n") + "\n").utf8)
        var splitter = LineSplitter(maxLineBytes: 1000)
        var lines: [String] = []
        while !rest.isEmpty {
            let count = min(rest.count, Int.random(in: 1...40, using: &random))
            lines += splitter.add(Array(rest.prefix(count))).map { String(decoding: $0, as: UTF8.self) }
            rest.removeFirst(count)
        }
        #expect(lines == wanted.filter { !$0.isEmpty }, "seed \(seed)")
        var short = LineSplitter(maxLineBytes: 10)
        let chunks = ["ab\ncccccc", "ccccccccc", "ccc\nde", "f\n"]
        #expect(
            chunks.flatMap { short.add(Array($0.utf8)) }.map { String(decoding: $0, as: UTF8.self) } == ["ab", "def"])
        #expect(short.tooLong == 1)
    }

    @Test(arguments: [
        ("http://u:p@host:1/path?token=x#y", "http://host:1/path"), ("https://host", "https://host"),
        ("http://host/a@b", "http://host/a@b"),
    ])
    func shownAddresses_haveNoSecrets(url: String, shown: String) { #expect(FetchRequest.redacted(url) == shown) }
}

/// OpenSSL's own test server with a certificate that it signed itself.
private struct TLSServer {
    let url: String
    let certificate: String
    private let program: Program

    /// - Parameter name: what the certificate names instead of the address; nil: the address.
    init(directory: TemporaryDirectory, name: String? = nil) throws {
        certificate = directory.path + "/cert.pem"
        let key = directory.path + "/key.pem"
        let openssl = "/usr/bin/openssl"
        _ = try Program.run(
            openssl,
            [
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
                "subjectAltName=" + (name.map { "DNS:" + $0 } ?? "IP:127.0.0.1"), "-keyout", key, "-out", certificate,
            ], in: directory.path)
        // A port that was free a moment ago: s_server does not tell in time which one it took.
        let port = RawServer { _, _ in }.port
        program = try Program(
            openssl, ["s_server", "-accept", "127.0.0.1:\(port)", "-cert", certificate, "-key", key, "-www"],
            in: directory.path)
        url = "https://127.0.0.1:\(port)"
    }

    /// Returns once the server answers.
    func ready(_ client: HTTPClient) async throws {
        var request = FetchRequest(url: url)
        request.client.tls.insecureSkipVerify = true
        for _ in 0..<200 {
            if (try? await client.fetch(request)) != nil { return }
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    func stop() {
        program.send(SIGKILL)
        program.wait()
    }
}
