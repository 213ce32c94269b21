import Foundation

/// Bearer tokens that servers give out for a client's own credentials (RFC 6749, section 4.4), each kept until shortly
/// before it expires.
actor OAuth2Tokens {
    typealias Send = @Sendable (FetchRequest) async -> Result<FetchResponse, FetchError>
    typealias Answer = Result<Authentication, FetchError>

    /// A server's answer (RFC 6749, section 5.1).
    private struct Grant: Decodable {
        var type: String?
        var token: String
        /// Some servers write the number as a text.
        var seconds: Double?

        private enum CodingKeys: String, CodingKey {
            case type = "token_type"
            case token = "access_token"
            case seconds = "expires_in"
        }

        init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            type = try container.decodeIfPresent(String.self, forKey: .type)
            token = try container.decode(String.self, forKey: .token)
            seconds =
                (try? container.decodeIfPresent(Double.self, forKey: .seconds))
                ?? (try? container.decodeIfPresent(String.self, forKey: .seconds)).flatMap { Double($0) }
        }
    }

    private struct Kept {
        var authentication: Authentication
        /// Of ``Sleeper/now``.
        var until: UInt64
    }

    private var kept: [OAuth2Options: Kept] = [:]
    /// Those who wait for a token that is asked for, by their numbers.
    private var waiting: [OAuth2Options: [Int: CheckedContinuation<Answer, Never>]] = [:]
    private var lastNumber = 0
    private let send: Send

    /// Asked for again so long before one expires, as golang.org/x/oauth2 does.
    private static let marginSeconds = 10.0
    private static let timeoutMs: Int64 = 30_000
    private static let maxBytes = 1 << 20

    init(send: @escaping Send) { self.send = send }

    /// Takes in that a server did not take the token: the next request asks for another.
    func forget(_ options: OAuth2Options) { kept[options] = nil }

    /// What proves to a server who asks, once a token is there.
    ///
    /// - Parameter now: of ``Sleeper/now``.
    /// - Throws: ``FetchError``; cancelling the task ends the wait with the code `cancelled`, and not the request, for which
    ///   others may wait.
    func authentication(_ options: OAuth2Options, now: UInt64) async throws(FetchError) -> Authentication {
        if let one = kept[options], one.until > now { return one.authentication }
        lastNumber += 1
        let number = lastNumber
        let answer = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                guard !Task.isCancelled else {
                    return continuation.resume(returning: OAuth2Tokens.cancelled(options))
                }
                let isFirst = waiting[options] == nil
                waiting[options, default: [:]][number] = continuation
                if isFirst { Task { await ask(options, now) } }
            }
        } onCancel: {
            Task { await leave(options, number) }
        }
        return try answer.get()
    }

    /// Asks for a token, and tells all who wait for it.
    private func ask(_ options: OAuth2Options, _ now: UInt64) async {
        let granted: Result<Grant, FetchError>
        do throws(FetchError) {
            granted = .success(try await OAuth2Tokens.grant(options, send))
        } catch {
            granted = .failure(error)
        }
        let answer = granted.map { keep($0, options, now) }
        for continuation in (waiting.removeValue(forKey: options) ?? [:]).values {
            continuation.resume(returning: answer)
        }
    }

    private func leave(_ options: OAuth2Options, _ number: Int) {
        waiting[options]?.removeValue(forKey: number)?.resume(returning: OAuth2Tokens.cancelled(options))
    }

    private static func cancelled(_ options: OAuth2Options) -> Answer {
        .failure(FetchError(code: .cancelled, url: FetchRequest.redacted(options.tokenURL), reason: "cancelled"))
    }

    private func keep(_ grant: Grant, _ options: OAuth2Options, _ now: UInt64) -> Authentication {
        // A server that does not say when a token expires is asked again once it is refused.
        let seconds = grant.seconds.map { max(0, min($0, 1e9) - OAuth2Tokens.marginSeconds) }
        let isBearer = grant.type?.lowercased() ?? "bearer" == "bearer"
        let authentication = Authentication.authorization(
            type: isBearer ? "Bearer" : grant.type ?? "", credentials: .text(grant.token))
        kept[options] = Kept(authentication: authentication, until: seconds.map { now + UInt64($0 * 1e9) } ?? .max)
        return authentication
    }

    /// Asks for a token: with the credentials in the header, as servers must know it (RFC 6749, section 2.3.1), and in
    /// the form where that is refused.
    private static func grant(_ options: OAuth2Options, _ send: Send) async throws(FetchError) -> Grant {
        let secret = try options.clientSecret.value(for: options.tokenURL)
        var form = options.parameters.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
        form.insert(("grant_type", "client_credentials"), at: 0)
        if !options.scopes.isEmpty { form.append(("scope", options.scopes.joined(separator: " "))) }
        var request = FetchRequest(url: options.tokenURL)
        request.client.tls = options.tls
        request.client.proxy = options.proxy
        request.client.authentication = .basic(
            username: .text(FetchRequest.escaped(options.clientID)), password: .text(FetchRequest.escaped(secret)))
        request.method = "POST"
        request.headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")]
        request.timeoutMs = timeoutMs
        request.maxBodyBytes = maxBytes
        request.body = Array(FetchRequest.form(form).utf8)
        var answer = try await send(request).get()
        if answer.status == 400 || answer.status == 401 {
            request.client.authentication = .none
            let credentials = [("client_id", options.clientID), ("client_secret", secret)]
            request.body = Array(FetchRequest.form(form + credentials).utf8)
            answer = try await send(request).get()
        }
        guard answer.status / 100 == 2 else {
            throw refused(options, "no token is given: HTTP status \(answer.status)")
        }
        guard let grant = try? JSONDecoder().decode(Grant.self, from: Data(answer.body)), !grant.token.isEmpty else {
            throw refused(options, "the answer has no access_token")
        }
        return grant
    }

    private static func refused(_ options: OAuth2Options, _ reason: String) -> FetchError {
        FetchError(code: .unauthorized, url: FetchRequest.redacted(options.tokenURL), reason: reason)
    }
}
