import Foundation
import HTTPTypes
import Hummingbird

/// Asks every request for a user's password or the token, and gives every answer the configured fields.
struct Gatekeeper: RouterMiddleware {
    typealias Context = BasicRequestContext

    private let config: WebConfigFile
    private let passwords: PasswordCheck

    init(_ config: WebConfigFile) {
        self.config = config
        passwords = PasswordCheck(users: config.users)
    }

    func handle(
        _ request: Request, context: BasicRequestContext,
        next: (Request, BasicRequestContext) async throws -> Response
    ) async throws -> Response {
        var response: Response
        switch config.asksForCredentials ? await answer(request.headers[.authorization]) : .right {
        case .right: response = try await next(request, context)
        case .busy:
            response = WebAPI.text("Too many passwords are being checked\n", status: .tooManyRequests)
        case .wrong:
            response = WebAPI.text("Unauthorized\n", status: .unauthorized)
            response.headers[.wwwAuthenticate] = config.users.isEmpty ? "Bearer" : "Basic"
        }
        for field in config.headers { response.headers[field.name] = field.value }
        return response
    }

    private func answer(_ authorization: String?) async -> PasswordCheck.Answer {
        guard let authorization, let space = authorization.firstIndex(of: " ") else { return .wrong }
        let scheme = authorization[..<space].lowercased()
        let rest = authorization[space...].trimmingCharacters(in: .whitespaces)
        switch scheme {
        case "bearer":
            return config.token.map { ConstantTime.areEqual($0, rest) } ?? false ? .right : .wrong
        case "basic":
            guard !config.users.isEmpty, let data = Data(base64Encoded: rest),
                let text = String(data: data, encoding: .utf8), let colon = text.firstIndex(of: ":")
            else { return .wrong }
            return await passwords.check(
                user: String(text[..<colon]), password: String(text[text.index(after: colon)...]))
        default: return .wrong
        }
    }
}
