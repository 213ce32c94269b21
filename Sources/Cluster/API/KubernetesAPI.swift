import Fetch
import Foundation
import Series

/// Asks a Kubernetes API server.
package struct KubernetesAPI: Sendable {
    private let endpoint: KubernetesEndpoint
    private let client: HTTPClient
    private let time: any TimeSource
    private let exec: ExecCredentials?

    package init(endpoint: KubernetesEndpoint, client: HTTPClient, time: any TimeSource) {
        self.endpoint = endpoint
        self.client = client
        self.time = time
        exec = endpoint.exec.map { ExecCredentials($0) }
    }

    /// The server's address, without secrets.
    package var server: String { FetchRequest.redacted(endpoint.server) }

    /// Asks for a path.
    ///
    /// - Throws: ``KubernetesAPIError``.
    package func get(_ path: String, query: [(String, String)] = [], timeoutMs: Int64 = 60_000) async throws -> [UInt8]
    {
        var request = FetchRequest(url: url(path, query))
        request.timeoutMs = timeoutMs
        request.maxBodyBytes = 256 << 20
        let answer = try await send(&request) { [client] in try await client.fetch($0) }
        guard answer.status == 200 else { throw KubernetesAPIError(path: path, answer) }
        return answer.body
    }

    /// Opens a watch whose events go into a pipe, a line each, until the server or the connection ends it.
    ///
    /// - Throws: ``KubernetesAPIError``; the pipe has ended then.
    package func watch(_ path: String, query: [(String, String)], timeoutMs: Int64, into pipe: BytePipe) async throws {
        // Also where the request can't be made at all, for want of credentials say.
        defer { pipe.finish() }
        var request = FetchRequest(url: url(path, query))
        request.timeoutMs = timeoutMs
        request.idleTimeoutMs = KubernetesAPI.idleMs
        let answer = try await send(&request) { [client] in try await client.stream($0, into: pipe) }
        guard answer.status == 200 else { throw KubernetesAPIError(path: path, answer) }
    }

    /// A watch on which nothing comes for so long is taken for dead: the server sends a bookmark every minute (KEP-956).
    private static let idleMs: Int64 = 180_000

    private func url(_ path: String, _ query: [(String, String)]) -> String {
        var parts = URLComponents()
        parts.queryItems = query.map { URLQueryItem(name: $0.0, value: $0.1) }
        // A plus sign is a space to servers, and URLComponents leaves it.
        let text = (parts.percentEncodedQuery ?? "").replacing("+", with: "%2B")
        return endpoint.server + path + (text.isEmpty ? "" : "?" + text)
    }

    private func send(
        _ request: inout FetchRequest, _ run: (FetchRequest) async throws -> FetchResponse
    ) async throws -> FetchResponse {
        request.headers = [("Accept", "application/json")]
        request.client = endpoint.client
        if let exec { request = try await exec.applied(to: request, nowMs: time.nowMs) }
        let answer = try await run(request)
        if answer.status == 401 { await exec?.forget() }
        return answer
    }
}

/// An answer of the API server that is not what was asked for (meta/v1 `Status`).
package struct KubernetesAPIError: Error, CustomStringConvertible {
    package var path: String
    package var status: Int
    package var message: String
    /// How long the server asks to wait; nil: it does not say.
    package var retryAfterMs: Int64?

    private struct Status: Decodable {
        struct Details: Decodable { var retryAfterSeconds: Int64? }
        var code: Int?
        var message: String?
        var details: Details?
    }

    init(path: String, _ answer: FetchResponse) {
        self.path = path
        status = answer.status
        let told = try? JSONDecoder().decode(Status.self, from: Data(answer.body.prefix(65_536)))
        message = told?.message ?? String(decoding: answer.body.prefix(200), as: UTF8.self)
        let seconds = answer.headers["retry-after"].flatMap { Int64($0) } ?? told?.details?.retryAfterSeconds
        retryAfterMs = seconds.map { min(max($0, 0), 600) * 1000 }
    }

    init(path: String, status: Int, message: String) {
        self.path = path
        self.status = status
        self.message = message
    }

    package var description: String { "\(path): status \(status): \(message)" }
}
