/// A condition on one label of a series, as in a PromQL selector.
///
/// A series without the label is matched as if it had it with an empty value.
package struct LabelMatcher: Sendable, CustomStringConvertible {
    /// The operator between name and value.
    package enum Operator: String, Sendable {
        case equal = "="
        case notEqual = "!="
        case matches = "=~"
        case notMatches = "!~"
    }

    package let name: String
    package let `operator`: Operator
    package let value: String
    private let pattern: Pattern?
    /// What the pattern has been asked about.
    private var known: [String: Bool] = [:]

    /// - Throws: ``PatternError`` where the operator takes a regular expression and `value` is none.
    package init(_ name: String, _ operator: Operator, _ value: String) throws(PatternError) {
        self.name = name
        self.operator = `operator`
        self.value = value
        switch `operator` {
        case .equal, .notEqual: pattern = nil
        case .matches, .notMatches: pattern = try Pattern(value, mode: .anchored)
        }
    }

    /// The condition that a label has just this value.
    package static func equal(_ name: String, _ value: String) -> LabelMatcher {
        LabelMatcher(equal: name, value)
    }

    private init(equal name: String, _ value: String) {
        self.name = name
        self.operator = .equal
        self.value = value
        self.pattern = nil
    }

    /// Whether the condition is a regular expression, which takes longer to ask than others.
    package var isPattern: Bool { pattern != nil }

    /// Asks a regular expression about values now, so that it need not be asked later.
    ///
    /// - Throws: ``PatternError`` where one takes too many steps.
    package mutating func ask(about values: some Sequence<String>) throws(PatternError) {
        guard let pattern else { return }
        for value in values where known[value] == nil { known[value] = try pattern.verdict(on: value) }
    }

    /// Whether a label's value, empty for a label that is not there, fulfils the condition.
    package func accepts(_ candidate: String) -> Bool {
        switch `operator` {
        case .equal: candidate == value
        case .notEqual: candidate != value
        case .matches: matches(candidate)
        case .notMatches: !matches(candidate)
        }
    }

    private func matches(_ candidate: String) -> Bool {
        known[candidate] ?? pattern?.matches(candidate) ?? false
    }

    /// Whether a set of labels fulfils the condition.
    package func accepts(_ labels: Labels) -> Bool { accepts(labels[name] ?? "") }

    package var description: String {
        let shown = Labels.isLabelName(name) ? name : Labels.quoted(name)
        return "\(shown)\(`operator`.rawValue)\(Labels.quoted(value))"
    }
}

extension LabelMatcher: Equatable {
    package static func == (left: LabelMatcher, right: LabelMatcher) -> Bool {
        left.name == right.name && left.operator == right.operator && left.value == right.value
    }
}
