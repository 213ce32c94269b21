import ArgumentParser
import Fetch
import Foundation
import PromQL
import Series
import Storage
import WebAPI

/// `upgrade-watch query`.
struct QueryCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "query",
        abstract: "Evaluate a PromQL expression.",
        discussion: """
            Example:
              upgrade-watch query 'sum by (job) (up)' --store ./data
              upgrade-watch query 'rate(apiserver_request_total[5m])' --start -1h --end now --step 1m --format json
            """)

    enum Format: String, ExpressibleByArgument, CaseIterable {
        case table, chart, json
    }

    @Argument(help: "The expression.")
    var expression: String

    @OptionGroup var stored: StoreOptions

    @OptionGroup var server: ServerOptions

    @Option(
        parsing: .unconditional,
        help:
            "Evaluate at this time: RFC 3339, Unix seconds, or relative to the newest data as in -5m. Default: the newest data."
    )
    var time: String?

    @Option(parsing: .unconditional, help: "The start of a range, as --time.")
    var start: String?

    @Option(parsing: .unconditional, help: "The end of a range, as --time. Default: the newest data.")
    var end: String?

    @Option(help: "The step of a range, as in 1m.")
    var step: String?

    @Option(help: "The form of the answer. Default: a chart for a range on a terminal, else a table.")
    var format: Format?

    @OptionGroup var language: FeatureOptions

    func validate() throws {
        if stored.isGiven, server.url != nil { throw ValidationError("--url excludes --store and --config") }
        if start != nil, step == nil { throw ValidationError("a range needs --step, as in --step 1m") }
        if step != nil, start == nil { throw ValidationError("--step needs --start") }
        if let step, TimeFormat.durationMs(step) == nil { throw ValidationError("--step \(step) is not a duration") }
        if time != nil, start != nil { throw ValidationError("--time and --start exclude each other") }
        try QueryCommand.check(times: [time, start, end])
    }

    /// - Throws: `ValidationError` for the first that is no time.
    static func check(times: [String?]) throws {
        for text in times.compactMap({ $0 }) where parse(text, nowMs: 0) == nil {
            throw ValidationError("\(text) is not a time; write RFC 3339, Unix seconds, now, or -5m")
        }
    }

    func run() async throws {
        let text = try await reporting { server.url == nil ? try local() : try await remote() }
        Output.text(text)
    }

    private func local() throws -> String {
        let (directory, joining) = try stored.resolved()
        let source = joining(try Store(directory: directory, readOnly: true))
        let nowMs = try source.timeRange()?.upperBound ?? 0
        let engine = QueryEngine(features: language.features)
        let result: QueryResult
        if let start, let step, let stepMs = TimeFormat.durationMs(step) {
            result = try engine.range(
                expression, startMs: QueryCommand.parse(start, nowMs: nowMs) ?? nowMs,
                endMs: end.flatMap { QueryCommand.parse($0, nowMs: nowMs) } ?? nowMs, stepMs: stepMs, source: source)
        } else {
            result = try engine.instant(
                expression, atMs: time.flatMap { QueryCommand.parse($0, nowMs: nowMs) } ?? nowMs, source: source)
        }
        for annotation in result.annotations { Output.error(annotation.text) }
        if shown == .chart, case .matrix(let matrix) = result.value { return QueryChart.render(matrix) }
        return shown == .json ? QueryJSON.response(result) + "\n" : QueryTable.render(result)
    }

    private var shown: Format {
        if let format { return format }
        return start != nil && isatty(STDOUT_FILENO) == 1 ? .chart : .table
    }

    private func remote() async throws -> String {
        let nowMs = WallClock().nowMs
        var parameters = [("query", expression)]
        if let start, let step {
            parameters.append(("start", "\(Double(QueryCommand.parse(start, nowMs: nowMs) ?? nowMs) / 1000)"))
            parameters.append(
                ("end", "\(Double(end.flatMap { QueryCommand.parse($0, nowMs: nowMs) } ?? nowMs) / 1000)"))
            parameters.append(("step", step))
        } else if let time {
            parameters.append(("time", "\(Double(QueryCommand.parse(time, nowMs: nowMs) ?? nowMs) / 1000)"))
        }
        var request = try server.request(start == nil ? "/api/v1/query" : "/api/v1/query_range")
        request.method = "POST"
        request.headers = [("Content-Type", "application/x-www-form-urlencoded")]
        request.body = Array(FetchRequest.form(parameters).utf8)
        request.timeoutMs = 120_000
        let response = try await HTTPClient().fetch(request)
        let text = String(decoding: response.body, as: UTF8.self)
        guard response.status == 200 else {
            throw ServerError(
                description:
                    "\(FetchRequest.redacted(request.url)): HTTP status \(response.status): \(text.prefix(300))")
        }
        switch shown {
        case .json: return text + "\n"
        case .table: return try QueryTable.render(json: response.body)
        case .chart: return QueryChart.render(try QueryTable.matrix(json: response.body))
        }
    }

    /// Milliseconds of a time as a person writes it.
    static func parse(_ text: String, nowMs: Int64) -> Int64? {
        if text == "now" { return nowMs }
        if text.hasPrefix("-"), let ms = TimeFormat.durationMs(String(text.dropFirst())) { return nowMs - ms }
        if let seconds = Double(text), abs(seconds) < 9e12 { return Int64((seconds * 1000).rounded()) }
        return TimeFormat.milliseconds(rfc3339: text)
    }
}

/// Results as lines of text.
enum QueryTable {
    static func render(_ result: QueryResult) -> String {
        switch result.value {
        case .scalar(let value): return GoFloat.text(value) + "\n"
        case .string(let text): return text + "\n"
        case .vector(let vector):
            let width = vector.map { $0.labels.description.count }.max() ?? 0
            return vector.map {
                $0.labels.description.padding(toLength: width, withPad: " ", startingAt: 0)
                    + "  \(GoFloat.text($0.value))\n"
            }.joined()
        case .matrix(let matrix):
            return matrix.map { series in
                "\(series.labels)\n"
                    + zip(series.timestampsMs, series.values)
                    .map { "  \(TimeFormat.rfc3339(ms: $0))  \(GoFloat.text($1))\n" }.joined()
            }.joined()
        }
    }

    private struct Answer: Decodable {
        struct Series: Decodable {
            struct Point: Decodable {
                var seconds: Double
                var value: String

                init(from decoder: any Decoder) throws {
                    var container = try decoder.unkeyedContainer()
                    seconds = try container.decode(Double.self)
                    value = try container.decode(String.self)
                }
            }
            var metric: [String: String]
            var value: Point?
            var values: [Point]?
        }
        struct Payload: Decodable {
            var resultType: String
            var result: [Series]
        }
        var data: Payload
    }

    /// The same of an answer of Prometheus' HTTP API.
    static func render(json: [UInt8]) throws -> String {
        guard let answer = try? JSONDecoder().decode(Answer.self, from: Data(json)) else {
            return String(decoding: json, as: UTF8.self) + "\n"
        }
        return answer.data.result.map { series in
            let labels = Labels(series.metric)
            if let point = series.value { return "\(labels)  \(point.value)\n" }
            return "\(labels)\n"
                + (series.values ?? []).map { "  \(TimeFormat.rfc3339(ms: Int64($0.seconds * 1000)))  \($0.value)\n" }
                .joined()
        }.joined()
    }

    /// The series of an answer of Prometheus' HTTP API.
    static func matrix(json: [UInt8]) throws -> [SeriesSamples] {
        try JSONDecoder().decode(Answer.self, from: Data(json)).data.result.map { series in
            let points = series.values ?? []
            return SeriesSamples(
                labels: Labels(series.metric),
                timestampsMs: points.map { Int64($0.seconds * 1000) }, values: points.map { Double($0.value) ?? .nan })
        }
    }
}
