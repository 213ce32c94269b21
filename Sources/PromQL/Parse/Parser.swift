import Foundation
import Series

/// Reads expressions of PromQL: recursive descent, operators by precedence, types checked as nodes are made.
package struct Parser {
    private let source: String
    private let tokens: [Token]
    private var at = 0
    private var depth = 0
    private let features: QueryFeatures
    /// Whether a selector may have only matchers that accept an empty value: one of labels to add.
    private var mayMatchAll = false
    private var stepMs: Int64 = 0
    private var rangeMs: Int64 = 0

    /// The deepest nesting that is read: what a person or a dashboard writes stays far below, and the stack holds it.
    private static let maxDepth = 200

    /// Parses a whole expression.
    ///
    /// - Parameters:
    ///   - features: what is read beside the stable language.
    ///   - stepMs: of the query, for `step()` in durations; 0 for an instant query.
    ///   - rangeMs: from the query's start to its end, for `range()` in durations.
    /// - Throws: ``PromQLError`` with line and column.
    package static func parse(
        _ source: String, features: QueryFeatures = [], stepMs: Int64 = 0, rangeMs: Int64 = 0
    ) throws(PromQLError) -> Expression {
        var parser = Parser(source: source, tokens: Lexer.tokens(of: source), features: features)
        parser.stepMs = stepMs
        parser.rangeMs = rangeMs
        if parser.peek == .end {
            throw PromQLError("no expression found in input", at: 0..<0, in: source)
        }
        let expression = try parser.expression(0)
        guard parser.peek == .end else { throw parser.unexpected() }
        return expression
    }

    /// Parses a selector alone, such as the `match[]` parameter of the HTTP API.
    package static func parseSelector(_ source: String) throws(PromQLError) -> [LabelMatcher] {
        let expression = try parse(source)
        guard case .selector(let selector) = expression.kind, selector.shift == TimeShift() else {
            throw PromQLError("expected a series selector", at: expression.range, in: source)
        }
        return selector.matchers
    }

    private init(source: String, tokens: [Token], features: QueryFeatures) {
        self.source = source
        self.tokens = tokens
        self.features = features
    }

    // MARK: Tokens

    private var peek: Token.Kind { tokens[at].kind }

    private mutating func advance() -> Token {
        let token = tokens[at]
        if at < tokens.count - 1 { at += 1 }
        return token
    }

    private mutating func take(_ symbol: String) -> Bool {
        guard peek == .symbol(symbol) else { return false }
        at += 1
        return true
    }

    private mutating func expect(_ symbol: String) throws(PromQLError) {
        guard take(symbol) else { throw unexpected() }
    }

    /// - Parameters:
    ///   - context: what is read.
    ///   - expected: what may stand there.
    private mutating func expect(_ symbol: String, _ context: String, _ expected: String) throws(PromQLError) {
        guard take(symbol) else { throw unexpected(context, expected: expected) }
    }

    private func keyword(_ kind: Token.Kind) -> String? {
        if case .identifier(let name) = kind { return name.lowercased() }
        return nil
    }

    private mutating func takeKeyword(_ word: String) -> Bool {
        guard keyword(peek) == word else { return false }
        at += 1
        return true
    }

    private func unexpected(_ context: String = "", expected: String = "") -> PromQLError {
        let token = tokens[at]
        if case .error(let words) = token.kind { return PromQLError(words, at: token.range, in: source) }
        var message = "unexpected \(token.words(in: source, asLabel: context == Parser.labelMatching))"
        if !context.isEmpty { message += " in \(context)" }
        if !expected.isEmpty { message += ", expected \(expected)" }
        return PromQLError(message, at: token.range, in: source)
    }

    private static let labelMatching = "label matching"
    private static let rangeSelector = "subquery or range selector"
    private static let aDuration = "number, duration, step(), or range()"

    private func node(_ kind: ExpressionKind, from start: Int) -> Expression {
        Expression(kind: kind, range: start..<max(start, at > 0 ? tokens[at - 1].range.upperBound : start))
    }

    private func error(_ reason: String, _ expression: Expression) -> PromQLError {
        PromQLError(reason, at: expression.range, in: source)
    }

    // MARK: Operators

    private mutating func expression(_ minimum: Int) throws(PromQLError) -> Expression {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Parser.maxDepth else {
            throw PromQLError("the expression is nested too deeply", at: tokens[at].range, in: source)
        }
        var left = try unary()
        while let op = binaryOperator(), op.precedence > minimum {
            at += 1
            left = try binary(op, left)
        }
        return left
    }

    private func binaryOperator() -> BinaryOperator? {
        switch peek {
        case .symbol(let symbol): BinaryOperator(rawValue: symbol)
        case .identifier(let name): BinaryOperator(rawValue: name.lowercased())
        default: nil
        }
    }

    private mutating func unary() throws(PromQLError) -> Expression {
        let start = tokens[at].range.lowerBound
        if peek == .symbol("-") || peek == .symbol("+") {
            let negative = advance().kind == .symbol("-")
            // A sign binds like a multiplication: -2 ^ 2 is -(2 ^ 2), -2 * 3 is (-2) * 3.
            let inner = try expression(BinaryOperator.multiply.precedence)
            guard inner.type == .scalar || inner.type == .vector else {
                throw error(
                    "unary expression only allowed on expressions of type scalar or instant vector, "
                        + "got \"\(inner.type.words)\"", inner)
            }
            if !negative { return inner }
            if case .number(let value) = inner.kind { return node(.number(-value), from: start) }
            return node(.negate(inner), from: start)
        }
        return try postfix(try primary(), from: start)
    }

    private mutating func binary(_ op: BinaryOperator, _ left: Expression) throws(PromQLError) -> Expression {
        let operatorRange = tokens[at - 1].range
        var binary = Binary(operator: op, left: left, right: left)
        if takeKeyword("bool") {
            guard op.isComparison else {
                throw PromQLError(
                    "bool modifier can only be used on comparison operators", at: operatorRange, in: source)
            }
            binary.returnsBool = true
        }
        try matching(op, into: &binary)
        binary.right = try expression(op == .power ? op.precedence - 1 : op.precedence)
        for side in [binary.left, binary.right] where side.type != .scalar && side.type != .vector {
            throw error("binary expression must contain only scalar and instant vector types", side)
        }
        let scalars = [binary.left, binary.right].filter { $0.type == .scalar }.count
        if op.isSet, scalars > 0 {
            throw PromQLError(
                "set operator \"\(op.rawValue)\" not allowed in binary scalar expression", at: operatorRange, in: source
            )
        }
        if op.isComparison, scalars == 2, !binary.returnsBool {
            throw PromQLError("comparisons between scalars must use BOOL modifier", at: operatorRange, in: source)
        }
        if scalars > 0 {
            // Without labels it says nothing, and may stand there.
            guard binary.matching.labels.isEmpty, binary.matching.fillLeft == nil, binary.matching.fillRight == nil
            else {
                throw PromQLError("vector matching only allowed between instant vectors", at: operatorRange, in: source)
            }
            binary.matching = VectorMatching()
        }
        return node(.binary(binary), from: left.range.lowerBound)
    }

    /// Reads `on`, `ignoring`, `group_left`, `group_right` and the fill modifiers.
    private mutating func matching(_ op: BinaryOperator, into binary: inout Binary) throws(PromQLError) {
        try labelMatching(op, into: &binary)
        try fills(op, into: &binary)
    }

    private mutating func labelMatching(_ op: BinaryOperator, into binary: inout Binary) throws(PromQLError) {
        guard let word = keyword(peek), word == "on" || word == "ignoring" else { return }
        at += 1
        binary.matching.isOn = word == "on"
        binary.matching.labels = try labelList()
        guard let group = keyword(peek), group == "group_left" || group == "group_right" else { return }
        let range = advance().range
        guard !op.isSet else {
            throw PromQLError("no grouping allowed for \"\(op.rawValue)\" operation", at: range, in: source)
        }
        binary.matching.cardinality = group == "group_left" ? .manyToOne : .oneToMany
        if peek == .symbol("(") { binary.matching.include = try labelList() }
        if binary.matching.isOn, let twice = binary.matching.include.first(where: binary.matching.labels.contains) {
            throw PromQLError("label \"\(twice)\" must not occur in ON and GROUP clause at once", at: range, in: source)
        }
    }

    /// Reads `fill(n)`, or `fill_left(n)` and `fill_right(n)`; a metric may have such a name, but no number in parentheses.
    private mutating func fills(_ op: BinaryOperator, into binary: inout Binary) throws(PromQLError) {
        while let word = keyword(peek), ["fill", "fill_left", "fill_right"].contains(word),
            at + 1 < tokens.count, tokens[at + 1].kind == .symbol("(")
        {
            let range = tokens[at].range
            guard features.contains(.fillModifiers) else {
                throw PromQLError(
                    "binop fill modifiers are experimental and not enabled; start with "
                        + "--enable-feature=promql-binop-fill-modifiers", at: range, in: source)
            }
            guard !op.isSet else {
                throw PromQLError("no filling allowed for \"\(op.rawValue)\" operation", at: range, in: source)
            }
            at += 2
            let isNegative = take("-")
            if !isNegative { _ = take("+") }
            guard case .number(let value) = try primary().kind else {
                throw PromQLError("a fill modifier takes a number", at: range, in: source)
            }
            try expect(")")
            let number = isNegative ? -value : value
            if word != "fill_right" { binary.matching.fillLeft = number }
            if word != "fill_left" { binary.matching.fillRight = number }
        }
    }

    private mutating func labelList() throws(PromQLError) -> [String] {
        try expect("(", "grouping opts", "\"(\"")
        var names: [String] = []
        while !take(")") {
            switch peek {
            case .identifier(let name) where !name.contains(":"): names.append(name)
            case .string(let name): names.append(name)
            default: throw unexpected("grouping opts", expected: "label")
            }
            at += 1
            if !take(","), peek != .symbol(")") { throw unexpected("grouping opts", expected: "\",\" or \")\"") }
        }
        return names
    }

    // MARK: Postfix: ranges, offset, @

    private mutating func postfix(_ inner: Expression, from start: Int) throws(PromQLError) -> Expression {
        var expression = inner
        while true {
            if take("[") {
                expression = try range(expression, from: start)
            } else if takeKeyword("offset") {
                let ms = try signedDuration("offset", Parser.aDuration)
                expression = try shifted(expression, from: start, "offset") { shift in
                    guard shift.offsetMs == 0 else { return "offset may not be set multiple times" }
                    shift.offsetMs = ms
                    return nil
                }
            } else if take("@") {
                let when = try instant()
                expression = try shifted(expression, from: start, "@") { shift in
                    guard shift.at == nil else { return "@ <timestamp> may not be set multiple times" }
                    shift.at = when
                    return nil
                }
            } else if let word = keyword(peek), let edges = RangeEdges(rawValue: word), edges != .plain {
                at += 1
                expression = try edged(expression, from: start, edges)
            } else {
                return expression
            }
        }
    }

    private mutating func range(_ inner: Expression, from start: Int) throws(PromQLError) -> Expression {
        let bracket = tokens[at - 1].range
        let rangeMs = try duration(Parser.rangeSelector, Parser.aDuration)
        guard rangeMs > 0 else {
            throw PromQLError("duration must be greater than 0", at: tokens[at - 1].range, in: source)
        }
        if take(":") {
            let stepMs =
                peek == .symbol("]")
                ? nil : try duration("subquery selector", Parser.aDuration + " or \"]\"")
            try expect("]", "subquery selector", "\"]\"")
            guard inner.type == .vector else {
                throw error("subquery is only allowed on instant vector, got \(inner.type.rawValue) instead", inner)
            }
            if let stepMs, stepMs <= 0 {
                throw PromQLError("duration must be greater than 0", at: tokens[at - 2].range, in: source)
            }
            return node(.subquery(Subquery(inner: inner, rangeMs: rangeMs, stepMs: stepMs)), from: start)
        }
        try expect("]", "subquery or range", "\":\" or \"]\"")
        guard case .selector(let selector) = inner.kind else {
            throw PromQLError("ranges only allowed for vector selectors", at: bracket, in: source)
        }
        guard selector.shift == TimeShift() else {
            let word = selector.shift.offsetMs != 0 ? "offset" : "@"
            throw PromQLError("no \(word) modifiers allowed before range", at: bracket, in: source)
        }
        return node(.rangeSelector(selector, rangeMs: rangeMs), from: start)
    }

    private mutating func edged(
        _ inner: Expression, from start: Int, _ edges: RangeEdges
    ) throws(PromQLError) -> Expression {
        switch inner.kind {
        case .selector(var selector) where selector.edges == .plain && edges == .smoothed:
            selector.edges = edges
            return node(.selector(selector), from: start)
        case .rangeSelector(var selector, let rangeMs) where selector.edges == .plain:
            selector.edges = edges
            return node(.rangeSelector(selector, rangeMs: rangeMs), from: start)
        case .selector, .rangeSelector:
            throw error("\(edges.rawValue) modifier can't be used with this selector", inner)
        default: throw error("\(edges.rawValue) modifier not implemented", inner)
        }
    }

    private mutating func shifted(
        _ inner: Expression, from start: Int, _ word: String, _ change: (inout TimeShift) -> String?
    ) throws(PromQLError) -> Expression {
        var problem: String?
        let kind: ExpressionKind
        switch inner.kind {
        case .selector(var selector):
            problem = change(&selector.shift)
            kind = .selector(selector)
        case .rangeSelector(var selector, let rangeMs):
            problem = change(&selector.shift)
            kind = .rangeSelector(selector, rangeMs: rangeMs)
        case .subquery(var subquery):
            problem = change(&subquery.shift)
            kind = .subquery(subquery)
        default:
            throw error(
                "\(word) modifier must be preceded by an instant vector selector or range vector selector or a subquery",
                inner)
        }
        if let problem { throw error(problem, inner) }
        return node(kind, from: start)
    }

    private mutating func instant() throws(PromQLError) -> TimeShift.At {
        if let word = keyword(peek), word == "start" || word == "end" {
            at += 1
            try expect("(")
            try expect(")")
            return word == "start" ? .start : .end
        }
        let negative = take("-")
        if !negative { _ = take("+") }
        let token = tokens[at]
        let value: Double
        switch token.kind {
        case .number(let number): value = number
        case .duration(let ms): value = Double(ms) / 1000
        case .identifier(let name):
            guard let number = Parser.special(name) else { throw unexpected("@", expected: "timestamp") }
            value = number
        default: throw unexpected("@", expected: "timestamp")
        }
        at += 1
        let ms = (negative ? -value : value) * 1000
        guard ms.isFinite, abs(ms) < 9e15 else {
            throw PromQLError(
                "timestamp out of bounds for @ modifier: \(GoFloat.fixed(negative ? -value : value))", at: token.range,
                in: source)
        }
        return .timestampMs(Int64(ms.rounded()))
    }

    private mutating func signedDuration(_ context: String, _ expected: String) throws(PromQLError) -> Int64 {
        // Without parentheses an operator that follows is the expression's, not the duration's.
        let start = tokens[at].range.lowerBound
        let isNegative = take("-")
        if !isNegative { _ = take("+") }
        let ms = try milliseconds(try durationOperand(context, expected), from: start)
        return isNegative ? -ms : ms
    }

    /// A duration in milliseconds; a plain number is seconds.
    private mutating func duration(_ context: String, _ expected: String) throws(PromQLError) -> Int64 {
        let start = tokens[at].range.lowerBound
        return try milliseconds(try durationExpression(0, context, expected), from: start)
    }

    // MARK: Durations that are computed

    private func milliseconds(_ seconds: Double, from start: Int) throws(PromQLError) -> Int64 {
        guard seconds.isFinite, abs(seconds) < 9e12 else {
            throw PromQLError("duration out of range", at: start..<tokens[at].range.lowerBound, in: source)
        }
        return Int64((seconds * 1000).rounded())
    }

    /// Seconds: operators by precedence, as those of the language.
    private mutating func durationExpression(
        _ minimum: Int, _ context: String, _ expected: String
    ) throws(PromQLError) -> Double {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Parser.maxDepth else {
            throw PromQLError("the expression is nested too deeply", at: tokens[at].range, in: source)
        }
        var left = try durationOperand(context, expected)
        while let op = binaryOperator(), op.precedence > minimum {
            let place = tokens[at].range
            at += 1
            let right = try durationExpression(
                op == .power ? op.precedence - 1 : op.precedence, context, expected)
            switch op {
            case .add: left += right
            case .subtract: left -= right
            case .multiply: left *= right
            case .power: left = pow(left, right)
            case .divide, .modulo:
                guard right != 0 else {
                    throw PromQLError(op == .divide ? "division by zero" : "modulo by zero", at: place, in: source)
                }
                left = op == .divide ? left / right : fmod(left, right)
            default: throw PromQLError("unexpected operator in a duration", at: place, in: source)
            }
        }
        return left
    }

    private mutating func durationOperand(_ context: String, _ expected: String) throws(PromQLError) -> Double {
        if take("-") { return -(try durationExpression(BinaryOperator.multiply.precedence, context, expected)) }
        if take("+") { return try durationExpression(BinaryOperator.multiply.precedence, context, expected) }
        if take("(") {
            let inner = try durationExpression(0, context, expected)
            try expect(")")
            return inner
        }
        let token = tokens[at]
        switch token.kind {
        case .duration(let ms):
            at += 1
            return Double(ms) / 1000
        case .number(let seconds):
            at += 1
            return seconds
        case .identifier(let name):
            at += 1
            if let number = Parser.special(name) { return number }
            switch name.lowercased() {
            case "step", "range":
                try expect("(")
                try expect(")")
                return Double(name.lowercased() == "step" ? stepMs : rangeMs) / 1000
            case "min", "max", "min_of", "max_of":
                try expect("(")
                let first = try durationExpression(0, context, expected)
                try expect(",")
                let second = try durationExpression(0, context, expected)
                try expect(")")
                return name.lowercased().hasPrefix("min") ? min(first, second) : max(first, second)
            default: at -= 1
            }
        default: break
        }
        throw unexpected(context, expected: expected)
    }

    // MARK: Primary expressions

    private mutating func primary() throws(PromQLError) -> Expression {
        let start = tokens[at].range.lowerBound
        switch peek {
        case .number(let value):
            at += 1
            return node(.number(value), from: start)
        case .duration(let ms):
            at += 1
            return node(.number(Double(ms) / 1000), from: start)
        case .string(let text):
            at += 1
            return node(.string(text), from: start)
        case .symbol("("):
            at += 1
            let inner = try expression(0)
            try expect(")")
            return node(.parentheses(inner), from: start)
        case .symbol("{"):
            return try selector(name: nil, from: start)
        case .identifier(let name):
            return try named(name, from: start)
        default:
            throw unexpected()
        }
    }

    private mutating func named(_ name: String, from start: Int) throws(PromQLError) -> Expression {
        let word = name.lowercased()
        let next = at + 1 < tokens.count ? tokens[at + 1].kind : .end
        guard !Parser.reserved.contains(word) else { throw unexpected() }
        if let number = Parser.special(word), next != .symbol("{"), next != .symbol("(") {
            at += 1
            return node(.number(number), from: start)
        }
        if let op = AggregateOperator(rawValue: word),
            next == .symbol("(") || keyword(next) == "by" || keyword(next) == "without"
        {
            if op.isExperimental, !features.contains(.experimentalFunctions) {
                throw PromQLError(
                    "\(word)() is experimental and must be enabled with "
                        + "--enable-feature=promql-experimental-functions", at: tokens[at].range, in: source)
            }
            at += 1
            return try aggregate(op, from: start)
        }
        if next == .symbol("("), Token.keywords.contains(word) {
            at += 1
            throw unexpected()
        }
        if next == .symbol("(") {
            guard let function = Function.all[name] else {
                throw PromQLError("unknown function with name \"\(name)\"", at: tokens[at].range, in: source)
            }
            if function.isExperimental, !features.contains(.experimentalFunctions) {
                throw PromQLError(
                    "function \"\(name)\" is not enabled; start with --enable-feature=promql-experimental-functions",
                    at: tokens[at].range, in: source)
            }
            at += 1
            return try call(function, from: start)
        }
        at += 1
        return try selector(name: name, from: start)
    }

    /// The number that a word is; nil for one that is none.
    private static func special(_ word: String) -> Double? {
        switch word.lowercased() {
        case "inf": .infinity
        case "nan": .nan
        default: nil
        }
    }

    /// The words of the language that no metric can be called without quotes; others may be.
    private static let reserved: Set<String> = ["atan2", "bool", "group_left", "group_right", "ignoring", "on"]

    private mutating func arguments() throws(PromQLError) -> [Expression] {
        try expect("(")
        var arguments: [Expression] = []
        while !take(")") {
            arguments.append(try expression(0))
            let comma = tokens[at].range
            if take(",") {
                guard peek != .symbol(")") else {
                    throw PromQLError("trailing commas not allowed in function call args", at: comma, in: source)
                }
            } else if peek != .symbol(")") {
                throw unexpected()
            }
        }
        return arguments
    }

    private mutating func call(_ function: Function, from start: Int) throws(PromQLError) -> Expression {
        let outer = mayMatchAll
        mayMatchAll = function.name == "info"
        defer { mayMatchAll = outer }
        let arguments = try arguments()
        let most = function.arguments.count
        let least = function.optional < 0 ? most - 1 : most - function.optional
        let range = start..<tokens[at - 1].range.upperBound
        if function.optional == 0, arguments.count != most {
            throw PromQLError(
                "expected \(most) argument(s) in call to \"\(function.name)\", got \(arguments.count)", at: range,
                in: source)
        }
        if arguments.count < least {
            throw PromQLError(
                "expected at least \(least) argument(s) in call to \"\(function.name)\", got \(arguments.count)",
                at: range, in: source)
        }
        if function.optional >= 0, arguments.count > most {
            throw PromQLError(
                "expected at most \(most) argument(s) in call to \"\(function.name)\", got \(arguments.count)",
                at: range, in: source)
        }
        for (index, argument) in arguments.enumerated() {
            let wanted = function.arguments[min(index, most - 1)]
            try check(argument, wanted, "call to function \"\(function.name)\"")
            try checkEdges(argument, of: function)
        }
        if function.name == "info", arguments.count > 1 {
            guard case .selector(let selector) = arguments[1].kind, selector.shift == TimeShift() else {
                throw error("expected label selectors only", arguments[1])
            }
            // A name stands in braces, if at all.
            guard source.utf8.dropFirst(arguments[1].range.lowerBound).first == UInt8(ascii: "{") else {
                throw error("expected label selectors only, got vector selector instead", arguments[1])
            }
        }
        return node(.call(function, arguments), from: start)
    }

    /// Only some functions know what to do with the values at the ends of a range.
    private func checkEdges(_ argument: Expression, of function: Function) throws(PromQLError) {
        guard case .rangeSelector(let selector, _) = argument.kind, selector.edges != .plain else { return }
        let names =
            selector.edges == .smoothed
            ? ["delta", "increase", "rate"] : ["changes", "delta", "increase", "rate", "resets"]
        guard names.contains(function.name) else {
            throw PromQLError(
                .badData,
                "\(selector.edges.rawValue) modifier can only be used with: \(names.joined(separator: ", ")) - not with "
                    + function.name)
        }
    }

    private func check(_ argument: Expression, _ wanted: ValueType, _ context: String) throws(PromQLError) {
        guard argument.type == wanted else {
            throw error("expected type \(wanted.words) in \(context), got \(argument.type.words)", argument)
        }
    }

    private mutating func aggregate(_ op: AggregateOperator, from start: Int) throws(PromQLError) -> Expression {
        var grouping: (isWithout: Bool, labels: [String])?
        func isGrouping(_ word: String?) -> Bool { word == "by" || word == "without" }
        if let word = keyword(peek), isGrouping(word) {
            at += 1
            grouping = (word == "without", try labelList())
        }
        let arguments = try arguments()
        if grouping == nil, let word = keyword(peek), isGrouping(word) {
            at += 1
            grouping = (word == "without", try labelList())
        }
        guard !arguments.isEmpty else {
            throw PromQLError(
                "no arguments for aggregate expression provided", at: start..<tokens[at - 1].range.upperBound,
                in: source)
        }
        let expected = op.parameter == nil ? 1 : 2
        guard arguments.count == expected, let inner = arguments.last else {
            throw PromQLError(
                "wrong number of arguments for aggregate expression provided, expected \(expected), got \(arguments.count)",
                at: start..<tokens[at - 1].range.upperBound, in: source)
        }
        try check(inner, .vector, "aggregation expression")
        if let wanted = op.parameter { try check(arguments[0], wanted, "aggregation parameter") }
        return node(
            .aggregate(
                Aggregate(
                    operator: op, inner: inner, parameter: op.parameter == nil ? nil : arguments[0],
                    grouping: grouping?.labels ?? [], isWithout: grouping?.isWithout ?? false)), from: start)
    }

    // MARK: Selectors

    private mutating func selector(name: String?, from start: Int) throws(PromQLError) -> Expression {
        var matchers: [LabelMatcher] = []
        // The metric's name where it stands before the braces or, in quotes, alone within them.
        var name = name
        if let name { matchers.append(.equal(Labels.metricName, name)) }
        if take("{") {
            while !take("}") {
                let isName = isQuotedName
                let matcher = try matcher()
                let others = matchers.filter { $0.name == Labels.metricName }
                if matcher.name == Labels.metricName, isName || name != nil, let other = others.first {
                    let twice = name ?? matcher.value
                    throw PromQLError(
                        "metric name must not be set twice: \(Labels.quoted(twice)) or "
                            + Labels.quoted(name == nil ? other.value : matcher.value),
                        at: start..<tokens[at - 1].range.upperBound, in: source)
                }
                if isName { name = matcher.value }
                matchers.append(matcher)
                if !take(","), peek != .symbol("}") {
                    throw unexpected(Parser.labelMatching, expected: "\",\" or \"}\"")
                }
            }
        }
        guard mayMatchAll || matchers.contains(where: { !$0.accepts("") }) else {
            throw PromQLError(
                "vector selector must contain at least one non-empty matcher",
                at: start..<tokens[at - 1].range.upperBound, in: source)
        }
        return node(.selector(Selector(matchers: matchers)), from: start)
    }

    /// Whether a quoted text stands alone in the braces: the metric's name.
    private var isQuotedName: Bool {
        guard case .string = peek, at + 1 < tokens.count, case .symbol(let symbol) = tokens[at + 1].kind else {
            return false
        }
        return symbol == "," || symbol == "}"
    }

    private mutating func matcher() throws(PromQLError) -> LabelMatcher {
        let start = tokens[at].range.lowerBound
        let name: String
        switch peek {
        case .identifier(let label): name = label
        case .string(let text):
            if isQuotedName {
                at += 1
                return .equal(Labels.metricName, text)
            }
            name = text
        default:
            throw unexpected(Parser.labelMatching, expected: "identifier or \"}\"")
        }
        at += 1
        guard case .symbol(let symbol) = peek, let op = LabelMatcher.Operator(rawValue: symbol) else {
            throw unexpected(Parser.labelMatching, expected: "label matching operator")
        }
        at += 1
        guard case .string(let value) = peek else { throw unexpected(Parser.labelMatching, expected: "string") }
        at += 1
        do throws(PatternError) {
            return try LabelMatcher(name, op, value)
        } catch {
            throw PromQLError("\(error)", at: start..<tokens[at - 1].range.upperBound, in: source)
        }
    }
}
