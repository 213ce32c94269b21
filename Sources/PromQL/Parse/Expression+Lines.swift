/// A long expression over lines, as Prometheus' `/api/v1/format_query` and `promtool promql format` break it
/// (`promql/parser/prettier.go`).
extension Expression {
    /// The longest line that is not broken, without its indent, in characters.
    private static let longest = 100

    /// The expression in its one form, with what is longer than a line broken where it has parts.
    package var lines: String { lines(level: 0) }

    private func lines(level: Int) -> String {
        let indent = String(repeating: "  ", count: level)
        let plain = description
        guard plain.count > Expression.longest else { return indent + plain }
        switch kind {
        case .number, .string, .selector, .rangeSelector: return indent + plain
        case .subquery(let subquery): return subquery.inner.lines(level: level) + subquery.times
        case .call(let function, let arguments):
            let inner = arguments.map { $0.lines(level: level + 1) }.joined(separator: ",\n")
            return "\(indent)\(function.name)(\n\(inner)\n\(indent))"
        case .binary(let binary):
            let (left, right) = (binary.left.lines(level: level + 1), binary.right.lines(level: level + 1))
            return "\(left)\n\(indent)\(binary.operation)\n\(right)"
        case .aggregate(let aggregate):
            let parameter = aggregate.parameter.map { $0.lines(level: level + 1) + ",\n" } ?? ""
            return
                "\(indent)\(aggregate.operation)(\n\(parameter)\(aggregate.inner.lines(level: level + 1))\n\(indent))"
        case .negate(let inner): return "\(indent)-\(inner.lines(level: level).drop { $0 == " " })"
        case .parentheses(let inner): return "\(indent)(\n\(inner.lines(level: level + 1))\n\(indent))"
        }
    }
}
