import Series

/// A word of an expression, with where it stands.
struct Token {
    enum Kind: Equatable {
        case identifier(String)
        case string(String)
        case number(Double)
        /// A duration literal, in milliseconds.
        case duration(Int64)
        /// An operator or bracket, as written.
        case symbol(String)
        /// What can't be read, in Prometheus' words; nothing follows.
        case error(String)
        case end
    }

    var kind: Kind
    /// Offsets in bytes from the expression's start.
    var range: Range<Int>

    /// The words of the language that are neither operators nor aggregations.
    static let keywords: Set<String> = [
        "anchored", "bool", "by", "fill", "fill_left", "fill_right", "group_left", "group_right", "ignoring", "offset",
        "on", "smoothed", "without",
    ]

    /// The token as Prometheus' messages show it (`promql/parser/lex.go`, `Item.desc`).
    ///
    /// - Parameters:
    ///   - source: the expression.
    ///   - asLabel: within braces no word has a meaning of its own.
    func words(in source: String, asLabel: Bool) -> String {
        let written = String(decoding: Array(source.utf8)[range], as: UTF8.self)
        let quoted = Labels.quoted(written)
        let short = written.count > 10 ? "\(Labels.quoted(String(written.prefix(10))))..." : quoted
        switch kind {
        case .end, .error: return "end of input"
        case .string: return "string \(short)"
        case .number: return "number \(short)"
        case .duration: return "duration \(short)"
        case .symbol(let symbol):
            return BinaryOperator(rawValue: symbol) != nil || ["@", "=~", "!~"].contains(symbol)
                ? "<op:\(symbol)>" : quoted
        case .identifier(let name):
            let word = name.lowercased()
            if asLabel { return "identifier \(quoted)" }
            if BinaryOperator(rawValue: word) != nil { return "<op:\(name)>" }
            if AggregateOperator(rawValue: word) != nil { return "<aggr:\(name)>" }
            if Token.keywords.contains(word) { return "<\(name)>" }
            if word == "inf" || word == "nan" { return "number \(quoted)" }
            if ["start", "end", "step", "range"].contains(word) { return quoted }
            return name.contains(":") ? "metric identifier \(quoted)" : "identifier \(quoted)"
        }
    }
}
