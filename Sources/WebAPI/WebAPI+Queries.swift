import Foundation
import Hummingbird
import PromQL
import Series

extension WebAPI {
    /// The routes that read series.
    static func queries(_ router: Router<BasicRequestContext>, _ context: WebContext) {
        for path in ["/api/v1/query", "/api/v1/query_range"] {
            let handler: @Sendable (Request, BasicRequestContext) async -> Response = { request, _ in
                await answering {
                    let parameters = Parameters(list: try await parameters(request), nowMs: context.time.nowMs)
                    return try path.hasSuffix("range") ? range(parameters, context) : instant(parameters, context)
                }
            }
            router.get(RouterPath(path), use: handler)
            router.post(RouterPath(path), use: handler)
        }
        let series: @Sendable (Request, BasicRequestContext) async -> Response = { request, _ in
            await answering {
                let parameters = Parameters(list: try await parameters(request), nowMs: context.time.nowMs)
                let found = try select(parameters, context, needsMatch: true)
                return json(QueryJSON.success("[" + found.map(QueryJSON.labels).joined(separator: ",") + "]"))
            }
        }
        router.get("/api/v1/series", use: series)
        router.post("/api/v1/series", use: series)
        router.get("/api/v1/labels") { request, _ in
            await answering {
                let parameters = Parameters(list: try await parameters(request), nowMs: context.time.nowMs)
                let names = Set(try select(parameters, context, needsMatch: false).flatMap { $0.pairs.map(\.name) })
                return json(QueryJSON.success(QueryJSON.strings(names.sorted())))
            }
        }
        router.get("/api/v1/label/:name/values") { request, routed in
            await answering {
                let name = try routed.parameters.require("name")
                let parameters = Parameters(list: try await parameters(request), nowMs: context.time.nowMs)
                let values = Set(try select(parameters, context, needsMatch: false).compactMap { $0[name] })
                return json(QueryJSON.success(QueryJSON.strings(values.sorted())))
            }
        }
        router.get("/api/v1/metadata") { _, _ in
            await answering {
                let rows = try context.source.metadata().map { entry in
                    "\(QueryJSON.string(entry.name)):[{\"type\":\(QueryJSON.string(entry.type)),"
                        + "\"help\":\(QueryJSON.string(entry.help)),\"unit\":\(QueryJSON.string(entry.unit))}]"
                }
                return json(QueryJSON.success("{" + rows.joined(separator: ",") + "}"))
            }
        }
    }

    /// The parameters of a request, read as Prometheus does.
    private struct Parameters {
        var list: [(name: String, value: String)]
        var nowMs: Int64

        subscript(_ name: String) -> String? { list.first { $0.name == name }?.value }

        func all(_ name: String) -> [String] { list.filter { $0.name == name }.map(\.value) }

        func time(_ name: String) throws -> Int64? {
            guard let text = self[name] else { return nil }
            if let seconds = Double(text), abs(seconds) < 9e12 { return Int64((seconds * 1000).rounded()) }
            if let ms = TimeFormat.milliseconds(rfc3339: text) { return ms }
            throw PromQLError(
                .badData, "invalid parameter \"\(name)\": cannot parse \(Labels.quoted(text)) to a valid timestamp")
        }

        func durationMs(_ name: String) throws -> Int64? {
            guard let text = self[name] else { return nil }
            if let seconds = Double(text), abs(seconds) < 9e12 { return Int64((seconds * 1000).rounded()) }
            if let ms = TimeFormat.durationMs(text) { return ms }
            throw PromQLError(
                .badData, "invalid parameter \"\(name)\": cannot parse \(Labels.quoted(text)) to a valid duration")
        }

        func required<T>(_ name: String, _ value: T?) throws -> T {
            guard let value else { throw PromQLError(.badData, "invalid parameter \"\(name)\": it is missing") }
            return value
        }
    }

    private static func instant(_ parameters: Parameters, _ context: WebContext) throws -> Response {
        let query = parameters["query"] ?? ""
        let atMs = try parameters.time("time") ?? parameters.nowMs
        return json(QueryJSON.response(try context.engine.instant(query, atMs: atMs, source: context.source)))
    }

    private static func range(_ parameters: Parameters, _ context: WebContext) throws -> Response {
        let result = try context.engine.range(
            parameters["query"] ?? "", startMs: try parameters.required("start", try parameters.time("start")),
            endMs: try parameters.required("end", try parameters.time("end")),
            stepMs: try parameters.required("step", try parameters.durationMs("step")), source: context.source)
        return json(QueryJSON.response(result))
    }

    private static func select(_ parameters: Parameters, _ context: WebContext, needsMatch: Bool) throws -> [Labels] {
        let matches = parameters.all("match[]")
        if needsMatch, matches.isEmpty { throw PromQLError(.badData, "no match[] parameter provided") }
        let fromMs = try parameters.time("start") ?? .min
        let throughMs = try parameters.time("end") ?? .max
        guard !matches.isEmpty else { return try context.source.labels([], fromMs: fromMs, throughMs: throughMs) }
        var found: Set<Labels> = []
        for match in matches {
            found.formUnion(
                try context.source.labels(try Parser.parseSelector(match), fromMs: fromMs, throughMs: throughMs))
        }
        return found.sorted()
    }
}
