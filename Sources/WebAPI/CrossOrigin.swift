import HTTPTypes
import Hummingbird
import Series

/// Lets pages of other origins read the API (Prometheus' `--web.cors.origin`).
struct CrossOrigin: RouterMiddleware {
    typealias Context = BasicRequestContext

    /// Which origins may.
    let origins: Pattern

    func handle(
        _ request: Request, context: BasicRequestContext,
        next: (Request, BasicRequestContext) async throws -> Response
    ) async throws -> Response {
        let isAsked = request.method == .options
        var response = isAsked ? Response(status: .noContent) : try await next(request, context)
        guard let origin = request.headers[.origin] else { return response }
        response.headers[.vary] = "Origin"
        guard origins.matches(origin) else { return response }
        response.headers[.accessControlAllowHeaders] = "Accept, Authorization, Content-Type, Origin"
        response.headers[.accessControlAllowMethods] = "GET, POST, OPTIONS"
        response.headers[.accessControlAllowOrigin] = origin
        response.headers[.accessControlExposeHeaders] = "Date"
        return response
    }
}
