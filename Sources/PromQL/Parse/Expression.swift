import Series

/// A node of a parsed expression, with the place where it stands in the text.
package struct Expression: Sendable {
    package let kind: ExpressionKind
    /// Offsets in bytes from the start of the text.
    package let range: Range<Int>

    /// What evaluating the node gives.
    package var type: ValueType {
        switch kind {
        case .number: .scalar
        case .string: .string
        case .selector: .vector
        case .rangeSelector, .subquery: .matrix
        case .call(let function, _): function.result
        case .binary(let binary):
            binary.left.type == .scalar && binary.right.type == .scalar ? .scalar : .vector
        case .aggregate: .vector
        case .negate(let inner), .parentheses(let inner): inner.type
        }
    }
}

/// The kinds of expressions and of function arguments.
package enum ValueType: String, Sendable {
    case scalar
    case vector
    case matrix
    case string

    /// The type's name in error messages.
    var words: String {
        switch self {
        case .scalar: "scalar"
        case .vector: "instant vector"
        case .matrix: "range vector"
        case .string: "string"
        }
    }
}

package indirect enum ExpressionKind: Sendable {
    case number(Double)
    case string(String)
    case selector(Selector)
    case rangeSelector(Selector, rangeMs: Int64)
    case subquery(Subquery)
    case call(Function, [Expression])
    case binary(Binary)
    case aggregate(Aggregate)
    case negate(Expression)
    case parentheses(Expression)
}

/// `name{matchers} offset D @ T`.
package struct Selector: Sendable {
    package var matchers: [LabelMatcher]
    package var shift = TimeShift()
    package var edges = RangeEdges.plain

    /// The metric name that the selector asks for by equality, empty where it has none.
    package var metricName: String {
        matchers.first { $0.name == Labels.metricName && $0.operator == .equal }?.value ?? ""
    }
}

/// What a selector takes for the values at the ends of its range, between samples
/// (github.com/prometheus/proposals, 0052 extended range selectors semantics).
package enum RangeEdges: String, Sendable {
    /// Nothing: functions extrapolate where they do.
    case plain
    /// The newest sample at or before each end, of the lookback before it.
    case anchored
    /// The value on the line between the samples around each end.
    case smoothed
}

/// `offset` and `@`: which time a selector or subquery looks at.
package struct TimeShift: Sendable, Equatable {
    package enum At: Sendable, Equatable {
        case timestampMs(Int64)
        case start
        case end
    }

    package var offsetMs: Int64 = 0
    package var at: At?
}

/// `expr[range:step]`.
package struct Subquery: Sendable {
    package var inner: Expression
    package var rangeMs: Int64
    /// nil: the default step.
    package var stepMs: Int64?
    package var shift = TimeShift()
}

/// An operator with two operands.
package struct Binary: Sendable {
    package var `operator`: BinaryOperator
    package var left: Expression
    package var right: Expression
    package var returnsBool = false
    package var matching = VectorMatching()
}

package enum BinaryOperator: String, Sendable {
    case add = "+"
    case subtract = "-"
    case multiply = "*"
    case divide = "/"
    case modulo = "%"
    case power = "^"
    case atan2
    case equal = "=="
    case notEqual = "!="
    case greater = ">"
    case less = "<"
    case greaterOrEqual = ">="
    case lessOrEqual = "<="
    case and
    case or
    case unless

    var isComparison: Bool {
        switch self {
        case .equal, .notEqual, .greater, .less, .greaterOrEqual, .lessOrEqual: true
        default: false
        }
    }

    var isSet: Bool { self == .and || self == .or || self == .unless }

    /// The larger, the tighter it binds.
    var precedence: Int {
        switch self {
        case .or: 1
        case .and, .unless: 2
        case .equal, .notEqual, .greater, .less, .greaterOrEqual, .lessOrEqual: 3
        case .add, .subtract: 4
        case .multiply, .divide, .modulo, .atan2: 5
        case .power: 6
        }
    }
}

/// How the series of two vectors find each other.
package struct VectorMatching: Sendable {
    package enum Cardinality: Sendable {
        case oneToOne
        /// `group_left`: many on the left.
        case manyToOne
        /// `group_right`: many on the right.
        case oneToMany
    }

    package var cardinality = Cardinality.oneToOne
    /// `on` where true, `ignoring` where false.
    package var isOn = false
    package var labels: [String] = []
    /// The labels of `group_left` and `group_right`, taken from the one side.
    package var include: [String] = []
    /// The value of a series that is missing on a side: `fill_left` and `fill_right`.
    package var fillLeft: Double?
    package var fillRight: Double?
}

/// An aggregation over a vector.
package struct Aggregate: Sendable {
    package var `operator`: AggregateOperator
    package var inner: Expression
    package var parameter: Expression?
    package var grouping: [String] = []
    package var isWithout = false
}

package enum AggregateOperator: String, Sendable, CaseIterable {
    case sum, avg, count, min, max, group, stddev, stdvar, topk, bottomk, quantile, limitk
    case countValues = "count_values"
    case limitRatio = "limit_ratio"

    /// Whether it is only there with `promql-experimental-functions`.
    var isExperimental: Bool { self == .limitk || self == .limitRatio }

    /// What the parameter must be, nil where there is none.
    var parameter: ValueType? {
        switch self {
        case .topk, .bottomk, .quantile, .limitk, .limitRatio: .scalar
        case .countValues: .string
        default: nil
        }
    }
}
