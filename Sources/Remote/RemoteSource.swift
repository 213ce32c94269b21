import Fetch
import Foundation
import Series
import Synchronization

/// Where another server's series are read.
package struct RemoteReadConfig: Sendable, Equatable {
    /// How its samples are asked for.
    package enum Kind: String, Sendable, CaseIterable {
        /// Prometheus' remote read, `/api/v1/read`.
        case read
        /// VictoriaMetrics' `/api/v1/export`.
        case export
    }

    /// The address that the API's paths follow.
    package var url: String
    package var kind = Kind.read
    package var timeoutMs: Int64 = 60_000
    package var client = ClientOptions()
    /// The most samples of one answer: it is held in memory.
    package var maxSamples = 50_000_000

    package init(url: String) { self.url = url }
}

/// What Prometheus' API wraps its answers in.
private struct Envelope<D: Decodable>: Decodable {
    var data: D
}

/// The series of a server with Prometheus' API: the history that somebody has already.
///
/// Each call asks the server and holds its thread until the answer is there.
package final class RemoteSource: SeriesSource {
    private let config: RemoteReadConfig
    private let client: HTTPClient
    private let time: any TimeSource
    /// How far back the oldest sample is looked for.
    private let reachMs: Int64
    private let oldest = Mutex<(askedMs: Int64, oldestMs: Int64?)?>(nil)

    /// The largest answer, compressed or not.
    private static let maxBodyBytes = 1 << 30
    /// For how long the time of the oldest sample is taken as it was found.
    private static let oldestKeptMs: Int64 = 600_000

    /// - Parameter reachMs: how far back the oldest sample is looked for; more than 0.
    package init(_ config: RemoteReadConfig, client: HTTPClient, time: any TimeSource, reachMs: Int64) {
        self.config = config
        self.client = client
        self.time = time
        self.reachMs = reachMs
    }

    package func select(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [SeriesSamples] {
        let (from, through) = (max(0, fromMs), min(throughMs, time.nowMs + 3_600_000))
        guard from <= through else { return [] }
        let found =
            switch config.kind {
            case .read: try read(matchers, from, through)
            case .export: try export(matchers, from, through)
            }
        let count = found.reduce(0) { $0 + $1.values.count }
        guard count <= config.maxSamples else {
            throw RemoteError(
                .tooMuch,
                "\(shown): the answer has \(count) samples, more than the \(config.maxSamples) that are taken")
        }
        return found.filter { !$0.values.isEmpty }.sorted { $0.labels < $1.labels }
    }

    /// Reads a range in pieces, the oldest first.
    ///
    /// What is too much at once, or takes too long, is asked for in halves, down to a minute.
    ///
    /// - Parameters:
    ///   - pieceMs: so much is asked for at first; more than 0.
    ///   - body: is given each piece.
    /// - Throws: `RemoteError`, `FetchError`, and what `body` throws.
    package func select(
        _ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64, pieceMs: Int64,
        _ body: ([SeriesSamples]) throws -> Void
    ) throws {
        let mostMs = pieceMs
        var (fromMs, pieceMs) = (fromMs, pieceMs)
        while fromMs <= throughMs {
            let endMs = throughMs - fromMs < pieceMs ? throughMs : fromMs + pieceMs - 1
            let piece: [SeriesSamples]
            do {
                piece = try select(matchers, fromMs: fromMs, throughMs: endMs)
            } catch let error where RemoteSource.isTooMuch(error) && endMs - fromMs >= 2 * RemoteSource.leastPieceMs {
                pieceMs = (endMs - fromMs + 1) / 2
                continue
            }
            try body(piece)
            guard endMs < throughMs else { return }
            fromMs = endMs + 1
            // What was too much may have been an hour, or a fault that is over.
            pieceMs = min(mostMs, pieceMs * 2)
        }
    }

    private static let leastPieceMs: Int64 = 60_000

    private static func isTooMuch(_ error: any Error) -> Bool {
        switch error {
        case let error as RemoteError: error.code == .tooMuch
        case let error as FetchError: error.code == .bodyTooLarge || error.code == .timedOut
        default: false
        }
    }

    package func labels(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [Labels] {
        let rows: [[String: String]] = try json(
            "/api/v1/series",
            [
                ("match[]", selector(matchers)), ("start", seconds(max(0, fromMs))),
                ("end", seconds(min(throughMs, time.nowMs))),
            ])
        return rows.map { Labels($0) }.sorted()
    }

    package func metadata() throws -> [MetricMetadata] {
        struct Entry: Decodable {
            var type: String
            var help: String?
            var unit: String?
        }
        let table: [String: [Entry]] = try json("/api/v1/metadata", [])
        return table.sorted { $0.key < $1.key }.compactMap { name, entries in
            entries.first.map { MetricMetadata(name: name, type: $0.type, help: $0.help ?? "", unit: $0.unit ?? "") }
        }
    }

    /// From the oldest `up` within reach, to a thousandth of it, until now.
    package func timeRange() throws -> ClosedRange<Int64>? {
        let nowMs = time.nowMs
        if let known = oldest.withLock({ $0 }), nowMs - known.askedMs < RemoteSource.oldestKeptMs {
            return known.oldestMs.map { $0...max($0, nowMs) }
        }
        struct Answer: Decodable {
            struct Row: Decodable {
                /// Times and values; only the times are read.
                var values: [[Item]]
            }
            enum Item: Decodable {
                case time(Double), value
                init(from decoder: any Decoder) throws {
                    let container = try decoder.singleValueContainer()
                    self = (try? container.decode(Double.self)).map { .time($0) } ?? .value
                }
            }
            var result: [Row]
        }
        let stepMs = max(60_000, reachMs / 1000)
        let answer: Answer = try json(
            "/api/v1/query_range",
            [
                ("query", "count(up)"), ("start", seconds(nowMs - reachMs)), ("end", seconds(nowMs)),
                ("step", seconds(stepMs)),
            ])
        var oldestMs: Int64?
        if case .time(let first)? = answer.result.first?.values.first?.first {
            oldestMs = Int64(exactly: (first * 1000).rounded()).map { max(0, min(max(0, $0), nowMs) - stepMs) }
        }
        oldest.withLock { $0 = (nowMs, oldestMs) }
        return oldestMs.map { $0...max($0, nowMs) }
    }

    // MARK: Samples

    private func read(_ matchers: [LabelMatcher], _ fromMs: Int64, _ throughMs: Int64) throws -> [SeriesSamples] {
        var request = request("/api/v1/read", [])
        request.method = "POST"
        request.headers = [
            ("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy"),
            ("X-Prometheus-Remote-Read-Version", "0.1.0"),
        ]
        let all = matchers.isEmpty ? [try LabelMatcher(Labels.metricName, .matches, ".+")] : matchers
        request.body = Snappy.compress(ReadRequest(matchers: all, fromMs: fromMs, throughMs: throughMs).encoded())
        // Snappy is the message's own; curl has nothing to decompress.
        request.compression = false
        let body = try answer(request)
        do {
            return try ReadResponse.decode(try Snappy.decompress(body, most: RemoteSource.maxBodyBytes))
        } catch {
            throw RemoteError(error.code, "\(shown)/api/v1/read: \(error.reason)")
        }
    }

    /// One JSON object a line, for each series or a part of one.
    private func export(_ matchers: [LabelMatcher], _ fromMs: Int64, _ throughMs: Int64) throws -> [SeriesSamples] {
        struct Row: Decodable {
            var metric: [String: String]
            var values: [Number]
            var timestamps: [Int64]
        }
        /// A number, or null for what is none.
        struct Number: Decodable {
            var value: Double
            init(from decoder: any Decoder) throws {
                let container = try decoder.singleValueContainer()
                if let number = try? container.decode(Double.self) {
                    value = number
                } else if let text = try? container.decode(String.self) {
                    value = Double(text) ?? .nan
                } else {
                    value = .nan
                }
            }
        }
        let body = try answer(
            request(
                "/api/v1/export",
                [
                    ("match[]", selector(matchers)), ("start", seconds(fromMs)), ("end", seconds(throughMs)),
                    ("reduce_mem_usage", "1"),
                ]))
        var parts: [Labels: SeriesSamples] = [:]
        for line in body.split(separator: UInt8(ascii: "\n")) {
            guard let row = try? JSONDecoder().decode(Row.self, from: Data(line)),
                row.values.count == row.timestamps.count
            else { throw RemoteError(.malformed, "\(shown)/api/v1/export: a line is not of the format") }
            let labels = Labels(row.metric)
            parts[labels, default: SeriesSamples(labels: labels)].timestampsMs += row.timestamps
            parts[labels]?.values += row.values.map(\.value)
        }
        return parts.values.map { series in
            guard zip(series.timestampsMs, series.timestampsMs.dropFirst()).contains(where: { $0 >= $1 }) else {
                return series
            }
            return JoinedSource.merged(series, SeriesSamples(labels: series.labels))
        }
    }

    // MARK: Requests

    private var base: String { config.url.hasSuffix("/") ? String(config.url.dropLast()) : config.url }
    private var shown: String { FetchRequest.redacted(base) }

    private func selector(_ matchers: [LabelMatcher]) -> String {
        "{" + (matchers.isEmpty ? "__name__=~\".+\"" : matchers.map(\.description).joined(separator: ",")) + "}"
    }

    private func seconds(_ ms: Int64) -> String { "\(ms / 1000).\(String(ms % 1000 + 1000).dropFirst())" }

    private func request(_ path: String, _ parameters: [(String, String)]) -> FetchRequest {
        let query = parameters.isEmpty ? "" : "?" + FetchRequest.form(parameters)
        var request = FetchRequest(url: base + path + query, client: config.client)
        request.timeoutMs = config.timeoutMs
        request.maxBodyBytes = RemoteSource.maxBodyBytes
        return request
    }

    private func answer(_ request: FetchRequest) throws -> [UInt8] {
        let response = try client.fetchBlocking(request)
        guard response.status == 200 else {
            let text = String(decoding: response.body.prefix(300), as: UTF8.self)
            // Prometheus refuses with the first, VictoriaMetrics with the second; the others are of proxies and gateways.
            let isTooMuch =
                response.status == 400 ? text.contains("limit") : [422, 413, 503, 504].contains(response.status)
            throw RemoteError(
                isTooMuch ? .tooMuch : .unavailable,
                "\(FetchRequest.redacted(request.url)): HTTP status \(response.status): "
                    + text.trimmingCharacters(in: .whitespacesAndNewlines))
        }
        return response.body
    }

    /// The data of an answer in Prometheus' envelope.
    private func json<T: Decodable>(_ path: String, _ parameters: [(String, String)]) throws -> T {
        let body = try answer(request(path, parameters))
        do {
            return try JSONDecoder().decode(Envelope<T>.self, from: Data(body)).data
        } catch {
            throw RemoteError(.malformed, "\(shown)\(path): the answer is not Prometheus' JSON")
        }
    }
}
