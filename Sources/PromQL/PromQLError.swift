/// An expression that can't be parsed or evaluated.
package struct PromQLError: Error, Equatable, CustomStringConvertible {
    /// Which of Prometheus' error types it is (`errorType` of its HTTP API).
    package enum Kind: String, Sendable {
        case badData = "bad_data"
        case execution
        case timeout
        case canceled
    }

    package var kind: Kind
    package var reason: String
    /// Counted from 1; nil where no place in the expression is to blame.
    package var line: Int?
    /// In bytes, counted from 1.
    package var column: Int?
    /// The parameter of the HTTP API that the expression came with.
    package var parameter: String?

    /// An error at a place of the expression, in bytes from its start.
    init(_ reason: String, at range: Range<Int>, in source: String) {
        kind = .badData
        self.reason = reason
        let place = PromQLError.place(of: range.lowerBound, in: source)
        (line, column) = (place.line, place.column)
    }

    /// Line and column of an offset in bytes, both counted from 1.
    static func place(of offset: Int, in source: String) -> (line: Int, column: Int) {
        let before = source.utf8.prefix(offset)
        let lineStart = before.lastIndex(of: 10).map { before.distance(from: before.startIndex, to: $0) + 1 } ?? 0
        return (before.count { $0 == 10 } + 1, before.count - lineStart + 1)
    }

    package init(_ kind: Kind, _ reason: String) {
        self.kind = kind
        self.reason = reason
    }

    package var description: String {
        let prefix = parameter.map { "invalid parameter \"\($0)\": " } ?? ""
        guard let line, let column else { return prefix + reason }
        return "\(prefix)\(line):\(column): parse error: \(reason)"
    }
}
