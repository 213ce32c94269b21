import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import StrictYAML
import TestSupport
import Testing
import WebAPI

/// What a web configuration file asks for is asked, and nothing of it is passed over.
@Suite struct WebSecurityTests {
    /// Of "s3cret", by libxcrypt's bcrypt.
    private static let hash = "$2b$10$cx4rWE.Tl7cgjBTX8biY2uV3GKflVlhsGRwHNeRvwXVMoT7dR8Vqy"
    private static let users = "basic_auth_users: {ada: \"\(hash)\"}\n"

    private func config(_ text: String, _ directory: TemporaryDirectory = TemporaryDirectory()) throws -> WebConfigFile
    {
        try WebConfigFile.load(YAMLDocument(text: text, file: "web.yml"), folder: directory.path)
    }

    private func status(
        _ client: some TestClientProtocol, _ path: String = "/-/healthy", _ authorization: String? = nil
    ) async throws -> HTTPResponse {
        var headers = HTTPFields()
        headers[.authorization] = authorization
        return try await client.execute(uri: path, method: .get, headers: headers) { $0.head }
    }

    private func basic(_ text: String) -> String { "Basic " + Data(text.utf8).base64EncodedString() }

    @Test func users_areAskedForTheirPassword() async throws {
        var context = try QueryAPITests().context()
        context.web = try config(Self.users + "http_server_config: {headers: {X-Frame-Options: deny}}\n")
        try await Application(router: WebAPI.router(context)).test(.router) { client in
            let cases: [(String?, Int)] = [
                (nil, 401), (basic("ada:s3cret"), 200), (basic("ada:S3cret"), 401), (basic("ada:"), 401),
                (basic("bob:s3cret"), 401), (basic("ada"), 401), ("Basic %%%", 401), ("Bearer s3cret", 401),
                ("ada:s3cret", 401), (basic("ada:s3cret"), 200), (basic("ada:s3cre"), 401),
            ]
            for (authorization, expected) in cases {
                let head = try await status(client, "/-/healthy", authorization)
                let frame = HTTPField.Name("X-Frame-Options").flatMap { head.headerFields[$0] }
                #expect(head.status.code == expected, "\(authorization ?? "no authorization")")
                #expect(head.headerFields[.wwwAuthenticate] == (expected == 401 ? "Basic" : nil))
                #expect(frame == "deny")
            }
            // What is not there is nobody's business either.
            let closed = try await status(client, "/nowhere").status.code
            let open = try await status(client, "/nowhere", basic("ada:s3cret")).status.code
            #expect(closed == 401 && open == 404)
        }
    }

    @Test func token_opensToo() async throws {
        let directory = TemporaryDirectory()
        _ = try directory.write("token", "t0ken\n")
        var context = try QueryAPITests().context()
        context.web = try config("bearer_token_file: token\n", directory)
        try await Application(router: WebAPI.router(context)).test(.router) { client in
            let right = try await status(client, "/metrics", "Bearer t0ken")
            let wrong = try await status(client, "/metrics", "Bearer t0ke")
            #expect(right.status.code == 200 && wrong.status.code == 401)
            #expect(wrong.headerFields[.wwwAuthenticate] == "Bearer")
        }
    }

    @Test(arguments: [
        ("tls_server_config: {cert_file: no.pem, key_file: no.pem}", "web.yml:1:20: tls_server_config: "),
        ("tls_server_config: {cert_file: a}", "the field \"key_file\" is missing"),
        (
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAnyClientCert}",
            "client_auth_type \"RequireAnyClientCert\" is not supported; known are NoClientCert"
        ),
        (
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAndVerifyClientCert}",
            "needs a client_ca_file"
        ),
        ("tls_server_config: {cert_file: a, key_file: b, client_ca_file: c}", "has no effect without"),
        ("tls_server_config: {cert_file: a, key_file: b, client_allowed_sans: [x]}", "unknown field"),
        ("tls_server_config: {cert_file: a, key_file: b, min_version: SSL3}", "min_version: unknown version \"SSL3\""),
        ("tls_server_config: {cert_file: a, key_file: b, cipher_suites: [RC4]}", "cipher_suites: unknown \"RC4\""),
        ("basic_auth_users: {ada: s3cret}", "what stands for \"ada\" is no bcrypt hash"),
        ("bearer_token_file: nowhere", "no token in"),
        ("basic_auth_user: {}", "did you mean \"basic_auth_users\"?"),
    ]) func faults_areTold(text: String, message: String) throws {
        let error = #expect(throws: (any Error).self) { try config(text) }
        let told = "\(error.map { "\($0)" } ?? "")"
        #expect(told.contains(message))
        #expect(!told.contains("s3cret"))
    }

    @Test func answers_areCompressed_forThoseWhoCanReadIt() async throws {
        var context = try QueryAPITests().context()
        let text = String(repeating: "up 1\n", count: 4000)
        context.metrics = { text }
        let directory = TemporaryDirectory()
        try await Application(router: WebAPI.router(context)).test(.router) { client in
            for (accepted, isCompressed) in [
                ("gzip", true), ("deflate, gzip;q=0.5", true), ("*", true), ("br", false), ("gzip;q=0, *", false),
                ("", false),
            ] {
                try await client.execute(uri: "/metrics", method: .get, headers: [.acceptEncoding: accepted]) {
                    answer in
                    #expect(answer.headers[.contentEncoding] == (isCompressed ? "gzip" : nil), "\(accepted)")
                    #expect(answer.headers[.vary] == "Accept-Encoding")
                    guard isCompressed else { return #expect(String(buffer: answer.body) == text) }
                    #expect(answer.body.readableBytes < text.utf8.count / 20)
                    let file = directory.path + "/body.gz"
                    try Data(answer.body.readableBytesView).write(to: URL(fileURLWithPath: file))
                    #expect(try Program.run("/bin/gzip", ["-dc", file], in: directory.path).output == text)
                }
            }
            // What is short, and what has no body, is sent as it is.
            try await client.execute(uri: "/-/healthy", method: .get, headers: [.acceptEncoding: "gzip"]) { answer in
                #expect(answer.headers[.contentEncoding] == nil)
            }
        }
    }
}
