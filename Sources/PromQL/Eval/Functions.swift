import Foundation
import Series

extension Evaluator {
    /// Whether a function makes each of its series of one other, so that they can be made one after another.
    static func streams(_ function: Function) -> Bool {
        if function.arguments.first == .matrix { return function.name != "absent_over_time" }
        return elementwise[function.name] != nil || dateParts[function.name] != nil || streamed.contains(function.name)
    }

    private static let streamed: Set<String> = [
        "clamp", "clamp_max", "clamp_min", "label_join", "label_replace", "quantile_over_time", "round", "timestamp",
    ]

    /// Evaluates a call of such a function.
    ///
    /// The parser has held number and types of the arguments to the function's signature.
    mutating func streamedCall(_ function: Function, _ arguments: [Expression]) throws -> ColumnStream {
        let name = function.name
        if let body = Evaluator.elementwise[name] { return try map(arguments[0], body) }
        if let part = Evaluator.dateParts[name] { return try datePart(arguments.first, part) }
        switch name {
        case "timestamp": return try timestamp(arguments[0])
        case "clamp", "clamp_min", "clamp_max": return try clamp(name, arguments)
        case "round": return try round(arguments)
        case "label_replace": return try labelReplace(arguments)
        case "label_join": return try labelJoin(arguments)
        case "quantile_over_time":
            let (q, remarks) = (try scalar(arguments[0]), remarks)
            let remarksOf = q.map { Evaluator.quantileRemark($0, at: arguments[0]) }
            return try overWindows(arguments[1]) { window, step in
                if let remark = remarksOf[step] { remarks.add(remark) }
                return Quantile.of(q[step], Array(window.values))
            }
        case "predict_linear":
            let ahead = try scalar(arguments[1])
            return try overWindows(arguments[0]) { window, step in
                guard window.count >= 2 else { return nil }
                let line = RangeMath.regression(window, aroundMs: window.stepMs)
                return line.slope * ahead[step] + line.intercept
            }
        case "double_exponential_smoothing": return try smoothing(arguments)
        default: return try rangeFunction(name, arguments[0])
        }
    }

    /// Evaluates a call that gives a number a step.
    mutating func scalarCall(_ function: Function, _ arguments: [Expression]) throws -> [Double] {
        let count = steps.count
        switch function.name {
        case "time": return (0..<count).map { Double(steps.timeMs($0)) / 1000 }
        case "start": return [Double](repeating: Double(queryStartMs) / 1000, count: count)
        case "end": return [Double](repeating: Double(queryEndMs) / 1000, count: count)
        case "range": return [Double](repeating: Double(queryEndMs - queryStartMs) / 1000, count: count)
        case "step": return [Double](repeating: Double(queryStepMs) / 1000, count: count)
        case "min_of", "max_of":
            let isMin = function.name == "min_of"
            let pairs = zip(try scalar(arguments[0]), try scalar(arguments[1]))
            return pairs.map { isMin ? GoFloat.min($0, $1) : GoFloat.max($0, $1) }
        case "pi": return [Double](repeating: .pi, count: count)
        case "scalar": return try toScalar(arguments[0])
        default: throw PromQLError(.execution, "the function \(function.name) is not built yet")
        }
    }

    /// Evaluates a call that needs all of its series at once.
    mutating func call(_ expression: Expression, _ function: Function, _ arguments: [Expression]) throws -> [Column] {
        let name = function.name
        switch name {
        case "vector": return [Column(labels: Labels(), values: try scalar(arguments[0]))]
        case "absent": return try absent(arguments[0], try stream(arguments[0]))
        case "absent_over_time":
            return try absent(arguments[0], try overWindows(arguments[0], keepsName: true) { _, _ in 1 })
        case "sort", "sort_desc": return try sort(expression, arguments[0], descending: name == "sort_desc")
        case "sort_by_label", "sort_by_label_desc":
            return try sortByLabel(expression, arguments, descending: name == "sort_by_label_desc")
        case "histogram_quantile": return try histogramQuantile(arguments)
        case "histogram_quantiles": return try histogramQuantiles(arguments)
        case "histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev", "histogram_stdvar":
            // They are of native histograms, of which there are none; floats are passed over.
            _ = try vector(arguments[0])
            return []
        case "histogram_fraction": return try histogramFraction(arguments)
        case "info": return try info(arguments)
        default: throw PromQLError(.execution, "the function \(name) is not built yet")
        }
    }

    // MARK: One value in, one value out

    private static let elementwise: [String: @Sendable (Double) -> Double] = [
        "abs": { abs($0) }, "ceil": { ceil($0) }, "floor": { floor($0) }, "exp": { exp($0) }, "ln": { log($0) },
        "log2": { log2($0) }, "log10": { log10($0) }, "sqrt": { $0.squareRoot() }, "sin": { sin($0) },
        "cos": { cos($0) }, "tan": { tan($0) }, "asin": { asin($0) }, "acos": { acos($0) }, "atan": { atan($0) },
        "sinh": { sinh($0) }, "cosh": { cosh($0) }, "tanh": { tanh($0) }, "asinh": { asinh($0) },
        "acosh": { acosh($0) }, "atanh": { atanh($0) }, "deg": { $0 * 180 / .pi }, "rad": { $0 * .pi / 180 },
        "sgn": { $0 < 0 ? -1 : $0 > 0 ? 1 : $0 },
    ]

    private mutating func map(_ argument: Expression, _ body: @escaping @Sendable (Double) -> Double) throws
        -> ColumnStream
    {
        try nameless(try stream(argument)) { values in
            for step in values.indices where !values[step].isAbsent { values[step] = body(values[step]) }
        }
    }

    private static let dateParts: [String: @Sendable (Int64) -> Int64] = [
        "minute": { floorMod($0, 3600) / 60 },
        "hour": { floorMod($0, 86_400) / 3600 },
        "day_of_week": { floorMod(floorDiv($0, 86_400) + 4, 7) },
        "day_of_month": { TimeFormat.civil(fromDays: floorDiv($0, 86_400)).day },
        "day_of_year": { seconds in
            let days = floorDiv(seconds, 86_400)
            return days - TimeFormat.days(year: TimeFormat.civil(fromDays: days).year, month: 1, day: 1) + 1
        },
        "days_in_month": { seconds in
            let date = TimeFormat.civil(fromDays: floorDiv(seconds, 86_400))
            let (year, month) = date.month == 12 ? (date.year + 1, 1) : (date.year, date.month + 1)
            return TimeFormat.days(year: year, month: month, day: 1)
                - TimeFormat.days(year: date.year, month: date.month, day: 1)
        },
        "month": { TimeFormat.civil(fromDays: floorDiv($0, 86_400)).month },
        "year": { TimeFormat.civil(fromDays: floorDiv($0, 86_400)).year },
    ]

    private static func floorDiv(_ value: Int64, _ by: Int64) -> Int64 { (value - floorMod(value, by)) / by }
    private static func floorMod(_ value: Int64, _ by: Int64) -> Int64 { (value % by + by) % by }

    private mutating func datePart(_ argument: Expression?, _ part: @escaping @Sendable (Int64) -> Int64) throws
        -> ColumnStream
    {
        let of = { @Sendable (value: Double) in abs(value) < 9e15 ? Double(part(Int64(value))) : .nan }
        if let argument { return try map(argument, of) }
        return ColumnStream([
            Column(labels: Labels(), values: (0..<steps.count).map { of(Double(steps.timeMs($0)) / 1000) })
        ])
    }

    private mutating func clamp(_ name: String, _ arguments: [Expression]) throws -> ColumnStream {
        let low = name == "clamp_max" ? nil : try scalar(arguments[1])
        let high = name == "clamp_min" ? nil : try scalar(arguments[name == "clamp" ? 2 : 1])
        return try nameless(try stream(arguments[0])) { values in
            for step in values.indices where !values[step].isAbsent {
                if let low, let high, low[step] > high[step] {
                    values[step] = .absent
                    continue
                }
                if let high { values[step] = GoFloat.min(high[step], values[step]) }
                if let low { values[step] = GoFloat.max(low[step], values[step]) }
            }
        }
    }

    private mutating func round(_ arguments: [Expression]) throws -> ColumnStream {
        let nearest = arguments.count > 1 ? try scalar(arguments[1]) : [Double](repeating: 1, count: steps.count)
        return try nameless(try stream(arguments[0])) { values in
            for step in values.indices where !values[step].isAbsent {
                // By the inverse, as Prometheus does: 1 / 0.1 is exact where 0.1 is not.
                let inverse = 1 / nearest[step]
                values[step] = floor(values[step] * inverse + 0.5) / inverse
            }
        }
    }

    private mutating func toScalar(_ argument: Expression) throws -> [Double] {
        let columns = try vector(argument)
        return (0..<steps.count).map { step in
            let present = columns.filter { !$0.values[step].isAbsent }
            return present.count == 1 ? present[0].values[step] : .nan
        }
    }

    private mutating func timestamp(_ argument: Expression) throws -> ColumnStream {
        var inner = argument
        while case .parentheses(let expression) = inner.kind { inner = expression }
        if case .selector(let selector) = inner.kind {
            return try nameless(try instantStream(selector, timestamps: true))
        }
        let steps = steps
        return try nameless(try stream(argument)) { values in
            for step in values.indices where !values[step].isAbsent {
                values[step] = Double(steps.timeMs(step)) / 1000
            }
        }
    }

    /// 1 with the labels that the selector names by equality, at the steps at which no series has a value.
    private func absent(_ argument: Expression, _ stream: ColumnStream) throws -> [Column] {
        var inner = argument
        while case .parentheses(let expression) = inner.kind { inner = expression }
        var matchers: [LabelMatcher] = []
        if case .selector(let selector) = inner.kind { matchers = selector.matchers }
        if case .rangeSelector(let selector, _) = inner.kind { matchers = selector.matchers }
        // The first equality sets a label, and any other matcher takes it out, in their order.
        var labels = Labels()
        var wereSet: Set<String> = []
        for matcher in matchers where matcher.name != Labels.metricName {
            let sets = matcher.operator == .equal && wereSet.insert(matcher.name).inserted
            labels[matcher.name] = sets ? matcher.value : nil
        }
        let count = steps.count
        let absent = [Double](repeating: 1, count: count)
        let values =
            try stream.fold(
                [Array(stream.heads.indices)], splits: true, start: { _ in absent },
                add: { state, _, values in
                    for step in 0..<count where !values[step].isAbsent { state[step] = .absent }
                },
                merge: { state, other in
                    for step in 0..<count where other[step].isAbsent { state[step] = .absent }
                }, finish: { $1 }
            ).first?.result ?? absent
        return values.contains { !$0.isAbsent } ? [Column(labels: labels, values: values)] : []
    }

    // MARK: Order

    private mutating func sort(_ call: Expression, _ argument: Expression, descending: Bool) throws -> [Column] {
        let columns = try vector(argument)
        if noteSort(call) { return columns }
        return columns.sorted { left, right in
            let (a, b) = (left.values[0], right.values[0])
            if a.isNaN || b.isNaN { return !a.isNaN && b.isNaN }
            return descending ? a > b : a < b
        }
    }

    private mutating func sortByLabel(_ call: Expression, _ arguments: [Expression], descending: Bool) throws
        -> [Column]
    {
        let columns = try vector(arguments[0])
        var names: [String] = []
        for argument in arguments.dropFirst() { names.append(try string(argument)) }
        if noteSort(call) { return columns }
        return columns.sorted { left, right in
            for name in names {
                let order = NaturalOrder.compare(left.labels[name] ?? "", right.labels[name] ?? "")
                if order != 0 { return descending ? order > 0 : order < 0 }
            }
            return descending ? right.labels < left.labels : left.labels < right.labels
        }
    }

    /// Says that a range has no order but that of the labels; true where it is one.
    private func noteSort(_ call: Expression) -> Bool {
        guard steps.startMs != steps.endMs else { return false }
        note(
            .warning,
            "PromQL warning: sort is ineffective for range queries since results are always ordered by labels", at: call
        )
        return true
    }

    // MARK: Labels

    private mutating func labelReplace(_ arguments: [Expression]) throws -> ColumnStream {
        let destination = try string(arguments[1])
        let replacement = try string(arguments[2])
        let sourceLabel = try string(arguments[3])
        let expression = try string(arguments[4])
        let pattern: Pattern
        do {
            pattern = try Pattern(expression, mode: .anchored)
        } catch {
            throw PromQLError(.execution, "invalid regular expression in label_replace(): \(expression)")
        }
        guard Evaluator.isLabelName(destination) else {
            throw PromQLError(.execution, "invalid destination label name in label_replace(): \(destination)")
        }
        let stream = try stream(arguments[0])
        return try renamed(
            stream,
            stream.heads.map { head in
                guard let groups = pattern.groups(in: head.labels[sourceLabel] ?? "") else { return head }
                var head = head
                head.labels[destination] = pattern.expand(replacement, groups: groups)
                if destination == Labels.metricName { head.dropsName = false }
                return head
            })
    }

    /// Whether a label may have a name: any text that is UTF-8.
    ///
    /// What was none in the query has its replacement.
    static func isLabelName(_ name: String) -> Bool { !name.isEmpty && !name.contains("\u{FFFD}") }

    private mutating func labelJoin(_ arguments: [Expression]) throws -> ColumnStream {
        let destination = try string(arguments[1])
        let separator = try string(arguments[2])
        var sources: [String] = []
        for argument in arguments.dropFirst(3) {
            sources.append(try string(argument))
            guard Evaluator.isLabelName(sources[sources.count - 1]) else {
                throw PromQLError(
                    .execution, "invalid source label name in label_join(): \(sources[sources.count - 1])")
            }
        }
        guard Evaluator.isLabelName(destination) else {
            throw PromQLError(.execution, "invalid destination label name in label_join(): \(destination)")
        }
        let stream = try stream(arguments[0])
        return try renamed(
            stream,
            stream.heads.map { head in
                var head = head
                head.labels[destination] = sources.map { head.labels[$0] ?? "" }.joined(separator: separator)
                if destination == Labels.metricName { head.dropsName = false }
                return head
            })
    }

    private mutating func smoothing(_ arguments: [Expression]) throws -> ColumnStream {
        let level = try scalar(arguments[1])
        let trend = try scalar(arguments[2])
        return try overWindows(arguments[0]) { window, step in
            let (level, trend) = (level[step], trend[step])
            if level <= 0 || level >= 1 {
                throw PromQLError(
                    .execution, "invalid smoothing factor. Expected: 0 < sf < 1, got: \(GoFloat.fixed(level))")
            }
            if trend <= 0 || trend >= 1 {
                throw PromQLError(
                    .execution, "invalid trend factor. Expected: 0 < tf < 1, got: \(GoFloat.fixed(trend))")
            }
            return RangeMath.smoothed(window, level: level, trend: trend)
        }
    }

    func noteQuantile(_ q: [Double], at expression: Expression) {
        for value in q {
            if let remark = Evaluator.quantileRemark(value, at: expression) { remarks.add(remark) }
        }
    }

    /// What is said of a quantile that is none; nil of one that is.
    private static func quantileRemark(_ q: Double, at expression: Expression) -> Annotation? {
        guard q.isNaN || q < 0 || q > 1 else { return nil }
        return Annotation(
            level: .warning,
            text: "PromQL warning: quantile value should be between 0 and 1, got \(GoFloat.general(q))",
            offset: expression.range.lowerBound)
    }
}

/// The order of names as people read them: runs of digits by their number.
enum NaturalOrder {
    static func compare(_ left: String, _ right: String) -> Int {
        var a = Array(left.utf8)[...]
        var b = Array(right.utf8)[...]
        let isDigit = { (byte: UInt8) in byte >= 48 && byte <= 57 }
        while let x = a.first, let y = b.first {
            if isDigit(x), isDigit(y) {
                let p = a.prefix(while: isDigit)
                let q = b.prefix(while: isDigit)
                let (n, m) = (p.drop { $0 == 48 }, q.drop { $0 == 48 })
                if n.count != m.count { return n.count < m.count ? -1 : 1 }
                if !n.elementsEqual(m) { return n.lexicographicallyPrecedes(m) ? -1 : 1 }
                a = a.dropFirst(p.count)
                b = b.dropFirst(q.count)
            } else {
                if x != y { return x < y ? -1 : 1 }
                a = a.dropFirst()
                b = b.dropFirst()
            }
        }
        return a.count == b.count ? 0 : a.count < b.count ? -1 : 1
    }
}
