import Foundation
import PromQL
import Series

/// Prometheus' JSON for answers of its HTTP API (prometheus.io/docs/prometheus/latest/querying/api).
package enum QueryJSON {
    /// `{"status":"success","data":{"resultType":…,"result":…}}`.
    package static func response(_ result: QueryResult) -> String {
        let seconds = time(result.timestampMs)
        let data: String
        switch result.value {
        case .scalar(let value): data = "{\"resultType\":\"scalar\",\"result\":[\(seconds),\"\(GoFloat.text(value))\"]}"
        case .string(let text): data = "{\"resultType\":\"string\",\"result\":[\(seconds),\(string(text))]}"
        case .vector(let vector):
            let rows = vector.map {
                "{\"metric\":\(labels($0.labels)),\"value\":[\(seconds),\"\(GoFloat.text($0.value))\"]}"
            }
            data = "{\"resultType\":\"vector\",\"result\":[\(rows.joined(separator: ","))]}"
        case .matrix(let matrix):
            let rows = matrix.map { series in
                let points = zip(series.timestampsMs, series.values).map { "[\(time($0)),\"\(GoFloat.text($1))\"]" }
                return "{\"metric\":\(labels(series.labels)),\"values\":[\(points.joined(separator: ","))]}"
            }
            data = "{\"resultType\":\"matrix\",\"result\":[\(rows.joined(separator: ","))]}"
        }
        var extra = ""
        for (name, level) in [("warnings", Annotation.Level.warning), ("infos", .info)] {
            let list = result.annotations.filter { $0.level == level }.map { string($0.text) }
            if !list.isEmpty { extra += ",\"\(name)\":[\(list.joined(separator: ","))]" }
        }
        return success(data, extra: extra)
    }

    static func success(_ data: String, extra: String = "") -> String {
        "{\"status\":\"success\",\"data\":\(data)\(extra)}"
    }

    static func labels(_ labels: Labels) -> String {
        "{" + labels.pairs.map { "\(string($0.name)):\(string($0.value))" }.joined(separator: ",") + "}"
    }

    static func strings(_ list: [String]) -> String { "[" + list.map(string).joined(separator: ",") + "]" }

    /// Seconds with milliseconds where there are any, as Prometheus writes times.
    static func time(_ ms: Int64) -> String {
        let whole = ms / 1000
        let rest = abs(ms % 1000)
        if rest == 0 { return String(whole) }
        var digits = String(rest)
        digits = String(repeating: "0", count: 3 - digits.count) + digits
        while digits.hasSuffix("0") { digits.removeLast() }
        return "\(ms < 0 && whole == 0 ? "-" : "")\(whole).\(digits)"
    }

    /// A JSON string.
    static func string(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\t": out += "\\t"
            case "\r": out += "\\r"
            case _ where scalar.value < 0x20:
                let hex = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }
}
