import Algorithms
import Foundation
import HTTPTypes
import Hummingbird
import PromQL
import Series

extension WebAPI {
    /// The routes that read series.
    static func queries(_ router: Router<BasicRequestContext>, _ context: WebContext) {
        both(router, "/api/v1/query", context) { try await instant($0, context) }
        both(router, "/api/v1/query_range", context) { try await range($0, context) }
        both(router, "/api/v1/series", context) { parameters in
            guard !parameters.all("match[]").isEmpty else {
                throw PromQLError(.badData, "no match[] parameter provided")
            }
            return listed(
                try await select(parameters, context) { $0.map(QueryJSON.labels) }, limit: try parameters.limit())
        }
        both(router, "/api/v1/labels", context) { parameters in
            let names = try await select(parameters, context) { found in
                Set(found.lazy.flatMap { $0.pairs.map(\.name) }).sorted().map(QueryJSON.string)
            }
            return listed(names, limit: try parameters.limit())
        }
        both(router, "/api/v1/format_query", context) { parameters in
            let expression = try Parser.parse(parameters["query"] ?? "", features: context.engine.features)
            return json(QueryJSON.success(QueryJSON.string(expression.lines)))
        }
        router.get("/api/v1/label/:name/values") { request, routed in
            await answering {
                let name = try routed.parameters.require("name")
                let parameters = try await RequestParameters(request, nowMs: context.time.nowMs)
                guard let decoded = labelName(name) else {
                    throw PromQLError(.badData, "invalid label name: \(Labels.quoted(name))")
                }
                let values = try await select(parameters, context) { found in
                    Set(found.lazy.compactMap { $0[decoded] }).sorted().map(QueryJSON.string)
                }
                return listed(values, limit: try parameters.limit())
            }
        }
        router.get("/api/v1/metadata") { request, _ in
            await answering {
                let parameters = try await RequestParameters(request, nowMs: context.time.nowMs)
                var entries = try context.source.metadata()
                if let metric = parameters["metric"], !metric.isEmpty { entries.removeAll { $0.name != metric } }
                let limit = try parameters.limit()
                if limit > 0 { entries = Array(entries.prefix(limit)) }
                let rows = entries.map { entry in
                    "\(QueryJSON.string(entry.name)):[{\"type\":\(QueryJSON.string(entry.type)),"
                        + "\"help\":\(QueryJSON.string(entry.help)),\"unit\":\(QueryJSON.string(entry.unit))}]"
                }
                return json(QueryJSON.success("{" + rows.joined(separator: ",") + "}"))
            }
        }
    }

    /// A route that takes its parameters from the address or from a form.
    private static func both(
        _ router: Router<BasicRequestContext>, _ path: RouterPath, _ context: WebContext,
        _ body: @escaping @Sendable (RequestParameters) async throws -> Response
    ) {
        let handler: @Sendable (Request, BasicRequestContext) async -> Response = { request, _ in
            await answering { try await body(RequestParameters(request, nowMs: context.time.nowMs)) }
        }
        router.get(path, use: handler)
        router.post(path, use: handler)
    }

    /// A list of values that are JSON already, cut to a limit.
    private static func listed(_ rows: [String], limit: Int) -> Response {
        let isCut = limit > 0 && rows.count > limit
        let shown = isCut ? Array(rows.prefix(limit)) : rows
        return json(
            QueryJSON.success(
                "[" + shown.joined(separator: ",") + "]",
                extra: isCut ? ",\"warnings\":[\"results truncated due to limit\"]" : ""))
    }

    /// A label's name as a path has it: percent-encoded, or with what is not a letter as `U__` and hexadecimal digits
    /// between underscores (the escaping scheme `values` of OpenMetrics names).
    private static func labelName(_ text: String) -> String? {
        let name = text.removingPercentEncoding ?? text
        guard name.hasPrefix("U__") else { return name.isEmpty ? nil : name }
        var out = ""
        var rest = name.dropFirst(3)
        while let next = rest.popFirst() {
            guard next == "_" else {
                out.append(next)
                continue
            }
            if rest.first == "_" {
                rest = rest.dropFirst()
                out.append("_")
                continue
            }
            guard let end = rest.firstIndex(of: "_"), let code = UInt32(rest[..<end], radix: 16),
                let scalar = Unicode.Scalar(code)
            else { return nil }
            out.unicodeScalars.append(scalar)
            rest = rest[rest.index(after: end)...]
        }
        return out
    }

    // MARK: Queries

    /// The engine as a request asks for it, and the time that the query may take.
    private static func setting(
        _ parameters: RequestParameters, _ context: WebContext
    ) throws -> (engine: QueryEngine, timeoutMs: Int64) {
        var engine = context.engine
        engine.maxSamples = context.runner.limits.maxSamples
        // 0 stands for the default.
        let lookbackMs = try parameters.durationMs("lookback_delta") ?? 0
        engine.lookbackMs = lookbackMs > 0 ? lookbackMs : context.runner.limits.lookbackMs
        return (engine, try timeoutMs(parameters, context))
    }

    private static func timeoutMs(_ parameters: RequestParameters, _ context: WebContext) throws -> Int64 {
        min(try parameters.durationMs("timeout") ?? .max, context.runner.limits.timeoutMs)
    }

    private static func instant(_ parameters: RequestParameters, _ context: WebContext) async throws -> Response {
        let query = parameters["query"] ?? ""
        let atMs = try parameters.time("time") ?? parameters.nowMs
        return try await answer(parameters, context) { engine, control in
            try engine.instant(query, atMs: atMs, source: context.source, control: control)
        }
    }

    private static func range(_ parameters: RequestParameters, _ context: WebContext) async throws -> Response {
        let query = parameters["query"] ?? ""
        let startMs = try parameters.required("start", try parameters.time("start"))
        let endMs = try parameters.required("end", try parameters.time("end"))
        guard endMs >= startMs else {
            throw parameters.invalid("end", "end timestamp must not be before start time")
        }
        let stepMs = try parameters.required("step", try parameters.durationMs("step"))
        guard stepMs > 0 else {
            throw parameters.invalid(
                "step", "zero or negative query resolution step widths are not accepted. Try a positive integer")
        }
        return try await answer(parameters, context) { engine, control in
            try engine.range(
                query, startMs: startMs, endMs: endMs, stepMs: stepMs, source: context.source, control: control)
        }
    }

    private static func answer(
        _ parameters: RequestParameters, _ context: WebContext,
        _ body: @escaping @Sendable (QueryEngine, QueryControl) throws -> QueryResult
    ) async throws -> Response {
        let (engine, timeoutMs) = try setting(parameters, context)
        let limit = try parameters.limit()
        let wantsStatistics = !(parameters["stats"] ?? "").isEmpty
        let time = context.time
        let askedMs = time.nowMs
        let (result, stats) = try await context.runner.run(timeoutMs: timeoutMs) { control in
            let beganMs = time.nowMs
            do {
                let result = try body(engine, control)
                let stats = statistics(control, askedMs: askedMs, beganMs: beganMs, endedMs: time.nowMs)
                return (result, wantsStatistics ? stats : "")
            } catch var error as PromQLError where error.line != nil {
                error.parameter = "query"
                throw error
            }
        }
        return streamed(QueryJSON.Pieces(result, limit: limit, stats: stats))
    }

    private static func statistics(
        _ control: QueryControl, askedMs: Int64, beganMs: Int64, endedMs: Int64
    ) -> String {
        let (queued, ran) = (Double(beganMs - askedMs) / 1000, Double(endedMs - beganMs) / 1000)
        return ",\"stats\":{\"timings\":{\"evalTotalTime\":\(ran),\"resultSortTime\":0,\"queryPreparationTime\":0,"
            + "\"innerEvalTime\":\(ran),\"execQueueTime\":\(queued),\"execTotalTime\":\(queued + ran)},"
            + "\"samples\":{\"totalQueryableSamples\":\(control.samplesRead),\"peakSamples\":\(control.peakSamples)}}"
    }

    /// An answer that is made while it is sent; one of a single piece goes in one go.
    private static func streamed(_ pieces: QueryJSON.Pieces) -> Response {
        var pieces = pieces
        let first = ByteBuffer(bytes: pieces.next() ?? [])
        var fields = HTTPFields()
        fields[.contentType] = "application/json"
        guard !pieces.isOver else { return Response(status: .ok, headers: fields, body: .init(byteBuffer: first)) }
        return Response(
            status: .ok, headers: fields,
            body: .init { [pieces] writer in
                try await writer.write(first)
                for piece in pieces { try await writer.write(ByteBuffer(bytes: piece)) }
                try await writer.finish(nil)
            })
    }

    /// Reads what series there are beside the server's own threads, as queries are read: those that `match[]`, `start` and
    /// `end` choose.
    static func select<Result: Sendable>(
        _ parameters: RequestParameters, _ context: WebContext, _ body: @escaping @Sendable ([Labels]) -> Result
    ) async throws -> Result {
        let fromMs = try parameters.time("start") ?? .min
        let throughMs = try parameters.time("end") ?? .max
        let selectors = try selectors(parameters)
        let source = context.source
        return try await context.runner.run(timeoutMs: try timeoutMs(parameters, context)) { control in
            guard selectors.count != 1 else {
                return body(try source.labels(selectors[0], fromMs: fromMs, throughMs: throughMs))
            }
            var found: Set<Labels> = []
            for selector in selectors {
                try control.check()
                found.formUnion(try source.labels(selector, fromMs: fromMs, throughMs: throughMs))
            }
            return body(found.sorted())
        }
    }

    /// What each `match[]` says, once; without one there is one selector that takes all.
    private static func selectors(_ parameters: RequestParameters) throws -> [[LabelMatcher]] {
        let texts = Array(parameters.all("match[]").uniqued())
        do {
            return texts.isEmpty ? [[]] : try texts.map { try Parser.parseSelector($0) }
        } catch var error as PromQLError {
            error.parameter = "match[]"
            throw error
        }
    }
}
