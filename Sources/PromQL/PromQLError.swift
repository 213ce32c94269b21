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

    /// An error at a place of the expression, in bytes from its start.
    init(_ reason: String, at range: Range<Int>, in source: String) {
        kind = .badData
        self.reason = reason
        let before = source.utf8.prefix(range.lowerBound)
        line = before.count { $0 == 10 } + 1
        column =
            before.count - (before.lastIndex(of: 10).map { before.distance(from: before.startIndex, to: $0) + 1 } ?? 0)
            + 1
    }

    package init(_ kind: Kind, _ reason: String) {
        self.kind = kind
        self.reason = reason
    }

    package var description: String {
        guard let line, let column else { return reason }
        return "\(line):\(column): parse error: \(reason)"
    }
}
