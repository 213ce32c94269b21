import Series

/// An expression as text, in the one form that Prometheus prints it in (`promql/parser/printer.go`): the same for all
/// ways of writing it.
extension Expression: CustomStringConvertible {
    package var description: String { kind.description }
}

extension ExpressionKind: CustomStringConvertible {
    package var description: String {
        switch self {
        case .number(let value): GoFloat.text(value)
        case .string(let text): Labels.quoted(text)
        case .selector(let selector): selector.description + selector.edges.suffix + selector.shift.description
        case .rangeSelector(let selector, let rangeMs):
            "\(selector)[\(TimeFormat.duration(ms: rangeMs))]\(selector.edges.suffix)\(selector.shift)"
        case .subquery(let subquery):
            "\(subquery.inner)\(subquery.times)"
        case .call(let function, let arguments):
            "\(function.name)(\(arguments.map(\.description).joined(separator: ", ")))"
        case .binary(let binary):
            "\(binary.left) \(binary.operation) \(binary.right)"
        case .aggregate(let aggregate): aggregate.description
        case .negate(let inner): "-\(inner)"
        case .parentheses(let inner): "(\(inner))"
        }
    }
}

extension Selector: CustomStringConvertible {
    /// The name and the conditions, without the times.
    package var description: String {
        let named = matchers.first { $0.name == Labels.metricName && $0.operator == .equal }?.value ?? ""
        let isPlain =
            !named.isEmpty && named.utf8.allSatisfy { Labels.isNameByte($0) }
            && !(48...57).contains(named.utf8.first ?? 48)
        let rest = matchers.filter { !isPlain || $0.name != Labels.metricName || $0.operator != .equal }
        let conditions = rest.map(\.description).sorted().joined(separator: ",")
        return (isPlain ? named : "") + (conditions.isEmpty && isPlain ? "" : "{\(conditions)}")
    }
}

extension RangeEdges {
    var suffix: String { self == .plain ? "" : " \(rawValue)" }
}

extension TimeShift: CustomStringConvertible {
    package var description: String {
        let place =
            switch at {
            case .timestampMs(let ms):
                " @ \(ms < 0 ? "-" : "")\(abs(ms) / 1000).\(String(abs(ms) % 1000 + 1000).dropFirst())"
            case .start: " @ start()"
            case .end: " @ end()"
            case nil: ""
            }
        if offsetMs == 0 { return place }
        return "\(place) offset \(offsetMs < 0 ? "-" : "")\(TimeFormat.duration(ms: abs(offsetMs)))"
    }
}

extension VectorMatching: CustomStringConvertible {
    /// With a space before it; empty where all labels match.
    package var description: String {
        var text = ""
        let list = { (names: [String]) in names.map(Labels.shown).joined(separator: ", ") }
        if isOn || !labels.isEmpty { text += " \(isOn ? "on" : "ignoring") (\(list(labels)))" }
        switch cardinality {
        case .oneToOne: break
        case .manyToOne: text += " group_left (\(list(include)))"
        case .oneToMany: text += " group_right (\(list(include)))"
        }
        switch (fillLeft, fillRight) {
        case (let left?, let right?) where left == right || left.isNaN && right.isNaN:
            text += " fill (\(GoFloat.text(left)))"
        default:
            if let fillLeft { text += " fill_left (\(GoFloat.text(fillLeft)))" }
            if let fillRight { text += " fill_right (\(GoFloat.text(fillRight)))" }
        }
        return text
    }
}

extension Binary {
    /// The operator with its modifiers.
    var operation: String { "\(`operator`.rawValue)\(returnsBool ? " bool" : "")\(matching)" }
}

extension Subquery {
    /// What stands behind the inner expression.
    var times: String {
        "[\(TimeFormat.duration(ms: rangeMs)):\(stepMs.map { TimeFormat.duration(ms: $0) } ?? "")]\(shift)"
    }
}

extension Aggregate: CustomStringConvertible {
    package var description: String {
        "\(operation)(\(parameter.map { "\($0), " } ?? "")\(inner))"
    }

    /// The operator with its grouping.
    var operation: String {
        let names = grouping.map(Labels.shown).joined(separator: ", ")
        let by = isWithout ? " without (\(names)) " : grouping.isEmpty ? "" : " by (\(names)) "
        return "\(`operator`.rawValue)\(by)"
    }
}

extension Labels {
    /// A label's name as it stands in an expression.
    static func shown(_ name: String) -> String { isLabelName(name) ? name : quoted(name) }

    /// Whether a byte may stand in a metric's name without quotes.
    static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "_"), UInt8(ascii: ":"):
            true
        default: false
        }
    }
}
