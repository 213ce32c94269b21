import Series

/// Series as test files write them: `name{labels} 1 2+3x4 _x2 stale`
/// (prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules, `series`).
package enum SeriesNotation {
    /// The labels and a value a step, nil where there is none.
    ///
    /// - Returns: nil for a line that is no series, native histograms included.
    package static func parse(_ line: String) -> (labels: Labels, values: [Double?])? {
        let end = endOfName(line)
        let name = String(line[..<end])
        var labels = Labels()
        if name != "{}" {
            guard let matchers = try? Parser.parseSelector(name) else { return nil }
            labels = Labels(matchers.map { Label($0.name, $0.value) })
        }
        guard let values = values(String(line[end...])) else { return nil }
        return (labels, values)
    }

    /// A value a step.
    package static func values(_ text: String) -> [Double?]? {
        var values: [Double?] = []
        for item in text.split(whereSeparator: \.isWhitespace) {
            guard let expanded = expand(String(item)) else { return nil }
            values += expanded
        }
        return values
    }

    private static func endOfName(_ line: String) -> String.Index {
        var depth = 0
        var quote: Character?
        var isEscaped = false
        for index in line.indices {
            let character = line[index]
            if isEscaped {
                isEscaped = false
            } else if let open = quote {
                if character == open { quote = nil }
                isEscaped = character == "\\" && open != "`"
            } else if character == "\"" || character == "'" || character == "`" {
                quote = character
            } else if character == "{" {
                depth += 1
            } else if character == "}" {
                depth -= 1
            } else if character.isWhitespace, depth == 0 {
                return index
            }
        }
        return line.endIndex
    }

    private static func expand(_ item: String) -> [Double?]? {
        if item == "_" { return [nil] }
        if item == "stale" { return [staleMarker] }
        var base = item
        var count: Int?
        if let x = item.lastIndex(of: "x"), let number = Int(item[item.index(after: x)...]) {
            count = number
            base = String(item[..<x])
        }
        if base == "_", let count { return [Double?](repeating: nil, count: count) }
        if base == "stale", let count { return [Double?](repeating: staleMarker, count: count + 1) }
        guard let count else { return number(base).map { [$0] } }
        // a+bxn counts up from a by b, axn repeats a: in both n more times.
        for index in base.indices.dropFirst().reversed() where base[index] == "+" || base[index] == "-" {
            let before = base[base.index(before: index)]
            if before == "e" || before == "E" { continue }
            guard let start = number(String(base[..<index])),
                let step = number(String(base[base.index(after: index)...]))
            else { continue }
            let signed = base[index] == "-" ? -step : step
            return (0...count).map { start + Double($0) * signed }
        }
        guard let value = number(base) else { return nil }
        return [Double?](repeating: value, count: count + 1)
    }

    static func number(_ text: String) -> Double? {
        switch text.lowercased() {
        case "inf", "+inf": .infinity
        case "-inf": -.infinity
        case "nan": .nan
        default: Double(text)
        }
    }
}
