import Foundation
import PromQL
import Series

/// Prometheus' JSON for answers of its HTTP API (prometheus.io/docs/prometheus/latest/querying/api).
package enum QueryJSON {
    /// `{"status":"success","data":{"resultType":…,"result":…}}` in pieces of some ten thousand bytes, so that a large
    /// answer is never held whole.
    ///
    /// - Parameter limit: how many series are told; a warning says so where there are more. 0: all.
    package struct Pieces: Sequence, IteratorProtocol, Sendable {
        private enum Place { case start, series(Int), end, over }

        private static let size = 64 << 10

        private let result: QueryResult
        private let stats: String
        private let count: Int
        private let isLimited: Bool
        private var place = Place.start

        package init(_ result: QueryResult, limit: Int = 0, stats: String = "") {
            self.result = result
            self.stats = stats
            let all =
                switch result.value {
                case .vector(let vector): vector.count
                case .matrix(let matrix): matrix.count
                case .scalar, .string: 0
                }
            isLimited = limit > 0 && all > limit
            count = isLimited ? limit : all
        }

        /// Whether the last piece was given.
        var isOver: Bool {
            if case .over = place { return true }
            return false
        }

        package mutating func next() -> [UInt8]? {
            var out: [UInt8] = []
            out.reserveCapacity(QueryJSON.Pieces.size + 4096)
            while out.count < QueryJSON.Pieces.size {
                switch place {
                case .start:
                    begin(&out)
                    place = count > 0 ? .series(0) : .end
                case .series(let index):
                    if index > 0 { out.append(UInt8(ascii: ",")) }
                    series(index, &out)
                    place = index + 1 < count ? .series(index + 1) : .end
                case .end:
                    end(&out)
                    place = .over
                case .over: return out.isEmpty ? nil : out
                }
            }
            return out
        }

        private func begin(_ out: inout [UInt8]) {
            out += "{\"status\":\"success\",\"data\":{\"resultType\":".utf8
            switch result.value {
            case .scalar(let value):
                out += "\"scalar\",\"result\":".utf8
                PointText.append(result.timestampMs, value, to: &out)
            case .string(let text):
                out += "\"string\",\"result\":[".utf8
                PointText.append(time: result.timestampMs, to: &out)
                out.append(UInt8(ascii: ","))
                QueryJSON.string(text, to: &out)
                out.append(UInt8(ascii: "]"))
            case .vector: out += "\"vector\",\"result\":[".utf8
            case .matrix: out += "\"matrix\",\"result\":[".utf8
            }
        }

        private func series(_ index: Int, _ out: inout [UInt8]) {
            switch result.value {
            case .vector(let vector):
                QueryJSON.metric(vector[index].labels, to: &out)
                out += "\"value\":".utf8
                PointText.append(result.timestampMs, vector[index].value, to: &out)
                out.append(UInt8(ascii: "}"))
            case .matrix(let matrix):
                let series = matrix[index]
                QueryJSON.metric(series.labels, to: &out)
                out += "\"values\":[".utf8
                PointText.append(series.timestampsMs, series.values, to: &out)
                out += "]}".utf8
            case .scalar, .string: break
            }
        }

        private func end(_ out: inout [UInt8]) {
            switch result.value {
            case .vector, .matrix: out.append(UInt8(ascii: "]"))
            case .scalar, .string: break
            }
            out += "\(stats)}".utf8
            var warnings = Annotation.shown(result.annotations, .warning)
            if isLimited { warnings.append("results truncated due to limit") }
            let infos = Annotation.shown(result.annotations, .info)
            if !warnings.isEmpty { out += ",\"warnings\":\(QueryJSON.strings(warnings))".utf8 }
            if !infos.isEmpty { out += ",\"infos\":\(QueryJSON.strings(infos))".utf8 }
            out.append(UInt8(ascii: "}"))
        }
    }

    /// The whole answer.
    package static func response(_ result: QueryResult) -> String {
        String(decoding: Pieces(result).reduce(into: [UInt8]()) { $0 += $1 }, as: UTF8.self)
    }

    static func success(_ data: String, extra: String = "") -> String {
        "{\"status\":\"success\",\"data\":\(data)\(extra)}"
    }

    static func labels(_ labels: Labels) -> String {
        var out: [UInt8] = []
        object(labels, to: &out)
        return String(decoding: out, as: UTF8.self)
    }

    private static func metric(_ labels: Labels, to out: inout [UInt8]) {
        out += "{\"metric\":".utf8
        object(labels, to: &out)
        out.append(UInt8(ascii: ","))
    }

    private static func object(_ labels: Labels, to out: inout [UInt8]) {
        out.append(UInt8(ascii: "{"))
        for (index, label) in labels.pairs.enumerated() {
            if index > 0 { out.append(UInt8(ascii: ",")) }
            string(label.name, to: &out)
            out.append(UInt8(ascii: ":"))
            string(label.value, to: &out)
        }
        out.append(UInt8(ascii: "}"))
    }

    static func strings(_ list: [String]) -> String { "[" + list.map(string).joined(separator: ",") + "]" }

    /// A JSON string.
    static func string(_ text: String) -> String {
        var out: [UInt8] = []
        string(text, to: &out)
        return String(decoding: out, as: UTF8.self)
    }

    private static func string(_ text: String, to out: inout [UInt8]) {
        out.append(UInt8(ascii: "\""))
        var text = text
        text.withUTF8 { bytes in
            // Most texts have nothing to escape.
            if !bytes.contains(where: { $0 < 0x20 || $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\\") }) {
                out.append(contentsOf: bytes)
                return
            }
            for byte in bytes {
                switch byte {
                case UInt8(ascii: "\""), UInt8(ascii: "\\"): out += [UInt8(ascii: "\\"), byte]
                case UInt8(ascii: "\n"): out += "\\n".utf8
                case UInt8(ascii: "\t"): out += "\\t".utf8
                case UInt8(ascii: "\r"): out += "\\r".utf8
                case 0..<0x20:
                    out += "\\u00".utf8
                    for digit in [byte >> 4, byte & 15] {
                        out.append(digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10)
                    }
                default: out.append(byte)
                }
            }
        }
        out.append(UInt8(ascii: "\""))
    }
}
