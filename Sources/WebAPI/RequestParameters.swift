import Foundation
import Hummingbird
import PromQL
import Series

/// The parameters of a request, from its address and from a form in its body, read as Prometheus does.
struct RequestParameters: Sendable {
    private let list: [(name: String, value: String)]
    let nowMs: Int64

    /// The largest form that is read.
    private static let maxFormBytes = 1 << 20

    init(_ request: Request, nowMs: Int64) async throws {
        var list = request.uri.queryParameters.map { (name: String($0.key), value: String($0.value)) }
        if request.method == .post {
            guard let body = try? await request.body.collect(upTo: RequestParameters.maxFormBytes) else {
                throw PromQLError(.badData, "error parsing form values: the form is larger than 1 MiB")
            }
            for pair in String(buffer: body).split(separator: "&") {
                let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                let decoded = parts.map {
                    $0.replacingOccurrences(of: "+", with: " ").removingPercentEncoding ?? String($0)
                }
                if decoded.count == 2 { list.append((decoded[0], decoded[1])) }
            }
        }
        self.list = list
        self.nowMs = nowMs
    }

    subscript(_ name: String) -> String? { list.first { $0.name == name }?.value }

    func all(_ name: String) -> [String] { list.filter { $0.name == name }.map(\.value) }

    /// Milliseconds of a time in seconds or RFC 3339.
    func time(_ name: String) throws -> Int64? {
        guard let text = self[name], !text.isEmpty else { return nil }
        if let seconds = Double(text), abs(seconds) < 9e12 { return Int64((seconds * 1000).rounded()) }
        if let ms = TimeFormat.milliseconds(rfc3339: text) { return ms }
        throw invalid(name, "cannot parse \(Labels.quoted(text)) to a valid timestamp")
    }

    /// Milliseconds of a duration in seconds or as Prometheus writes them.
    func durationMs(_ name: String) throws -> Int64? {
        guard let text = self[name], !text.isEmpty else { return nil }
        let longest = Double(TimeFormat.longestMs)
        if let seconds = Double(text), abs(seconds * 1000) <= longest { return Int64((seconds * 1000).rounded()) }
        if let ms = TimeFormat.durationMs(text) { return ms }
        throw invalid(name, "cannot parse \(Labels.quoted(text)) to a valid duration")
    }

    /// A number that is not negative; 0 where there is none, which stands for no limit.
    func limit(_ name: String = "limit") throws -> Int {
        guard let text = self[name], !text.isEmpty else { return 0 }
        guard let limit = Int(text) else { throw invalid(name, "cannot parse \(Labels.quoted(text)) to a number") }
        guard limit >= 0 else { throw invalid(name, "limit must be non-negative") }
        return limit
    }

    func required<T>(_ name: String, _ value: T?) throws -> T {
        guard let value else {
            throw invalid(name, "cannot parse \"\" to a valid \(name == "step" ? "duration" : "timestamp")")
        }
        return value
    }

    func invalid(_ name: String, _ reason: String) -> PromQLError {
        PromQLError(.badData, "invalid parameter \"\(name)\": \(reason)")
    }
}
