import Foundation
import PromQL
import Series

/// PromQL evaluated as its definition reads: one step after another, every selector anew, with nothing shared.
///
/// What the engine is compared with. It knows the part of the language that ``ExpressionGenerator`` writes; of all else
/// it says so (``Unknown``). Definitions: prometheus.io/docs/prometheus/latest/querying, basics, operators, functions.
package struct ReferenceEvaluator {
    /// One series at one time.
    package struct Element {
        package var labels: Labels
        package var value: Double
    }

    package enum Value {
        case scalar(Double)
        case vector([Element])
    }

    /// The expression is wrong for these data: the engine must say so too.
    package struct Failure: Error, CustomStringConvertible {
        package var description: String
    }

    /// What this evaluator can't tell, as the order of equal values.
    package struct Unknown: Error {
        package var what: String
    }

    package var series: [SeriesSamples]
    package var lookbackMs: Int64 = 300_000
    package var defaultStepMs: Int64 = 60_000
    package var queryStartMs: Int64
    package var queryEndMs: Int64
    /// The largest number that was met: sums of such are not more exact than its last digits.
    package var largest: Double { notes.largest }
    private let notes = Notes()
    /// Whether numbers may differ from the engine's in their last digits, as means and slopes do.
    private let mayErr: Bool

    private final class Notes {
        var largest = 0.0
    }

    /// - Parameter text: the expression: what it has of functions tells whether numbers are exact.
    package init(text: String, series: [SeriesSamples], queryStartMs: Int64, queryEndMs: Int64) {
        mayErr = [
            "std", "deriv", "predict", "rate", "increase", "delta", "avg", "quantile", "exp", "ln", "log2", "sqrt",
            "pi",
            "/", "^", "%", "atan2", "time",
        ].contains { text.contains($0) }
        self.series = series
        self.queryStartMs = queryStartMs
        self.queryEndMs = queryEndMs
    }

    // MARK: Nodes

    package func evaluate(_ expression: PromQL.Expression, atMs: Int64) throws -> Value {
        let value = try evaluated(expression, atMs: atMs)
        let numbers: [Double] =
            switch value {
            case .scalar(let number): [number]
            case .vector(let vector): vector.map(\.value)
            }
        for number in numbers where number.isFinite { notes.largest = max(notes.largest, abs(number)) }
        return value
    }

    private func evaluated(_ expression: PromQL.Expression, atMs: Int64) throws -> Value {
        switch expression.kind {
        case .number(let number): return .scalar(number)
        case .string: throw Unknown(what: "a string alone")
        case .parentheses(let inner): return try evaluate(inner, atMs: atMs)
        case .selector(let selector): return .vector(instant(selector, atMs: atMs))
        case .rangeSelector, .subquery: throw Unknown(what: "a range alone")
        case .negate(let inner):
            switch try evaluate(inner, atMs: atMs) {
            case .scalar(let value): return .scalar(-value)
            case .vector(let vector): return .vector(try distinct(vector.map { nameless($0, -$0.value) }))
            }
        case .binary(let binary): return try self.binary(binary, atMs: atMs)
        case .aggregate(let aggregate): return .vector(try self.aggregate(aggregate, atMs: atMs))
        case .call(let function, let arguments): return try call(function.name, arguments, atMs: atMs)
        }
    }

    private func vector(_ expression: PromQL.Expression, atMs: Int64) throws -> [Element] {
        guard case .vector(let vector) = try evaluate(expression, atMs: atMs) else { throw Unknown(what: "no vector") }
        return vector
    }

    private func scalar(_ expression: PromQL.Expression, atMs: Int64) throws -> Double {
        guard case .scalar(let value) = try evaluate(expression, atMs: atMs) else { throw Unknown(what: "no scalar") }
        return value
    }

    private func nameless(_ element: Element, _ value: Double) -> Element {
        Element(labels: element.labels.withoutName, value: value)
    }

    /// No two elements of a vector have the same labels.
    private func distinct(_ vector: [Element]) throws -> [Element] {
        if Set(vector.map(\.labels)).count < vector.count {
            throw Failure(description: "vector cannot contain metrics with the same labelset")
        }
        return vector
    }

    // MARK: Last digits

    /// Where a result jumps, numbers that are not exact must be away from the place.
    private func away(_ value: Double, from place: Double) throws -> Double {
        if mayErr, abs(value - place) <= 1e-9 * max(1, abs(place), notes.largest * 1e-4) {
            throw Unknown(what: "which side of a jump")
        }
        return value
    }

    /// - Throws: ``Unknown`` where a value is near a whole number of steps.
    private func awayFromWhole(_ value: Double, step: Double = 1) throws -> Double {
        guard mayErr, value.isFinite else { return value }
        _ = try away(value / step, from: (value / step).rounded())
        return value
    }

    // MARK: Selectors

    private func shifted(_ shift: TimeShift, _ atMs: Int64) -> Int64 {
        let base: Int64 =
            switch shift.at {
            case .timestampMs(let ms): ms
            case .start: queryStartMs
            case .end: queryEndMs
            case nil: atMs
            }
        return base - shift.offsetMs
    }

    private func selected(_ matchers: [LabelMatcher]) -> [SeriesSamples] {
        series.filter { one in matchers.allSatisfy { $0.accepts(one.labels) } }
    }

    private func instant(_ selector: Selector, atMs: Int64) -> [Element] {
        let endMs = shifted(selector.shift, atMs)
        return selected(selector.matchers).compactMap { one in
            var newest: Double?
            for (timeMs, value) in zip(one.timestampsMs, one.values)
            where timeMs > endMs - lookbackMs && timeMs <= endMs {
                newest = value
            }
            guard let newest, !newest.isStaleMarker else { return nil }
            return Element(labels: one.labels, value: newest)
        }
    }

    /// The samples of a window, left-open, and its bounds.
    private struct Window {
        var labels: Labels
        var times: [Int64]
        var values: [Double]
        var fromMs: Int64
        var throughMs: Int64
    }

    private func windows(_ expression: PromQL.Expression, atMs: Int64) throws -> [Window] {
        switch expression.kind {
        case .parentheses(let inner): return try windows(inner, atMs: atMs)
        case .rangeSelector(let selector, let rangeMs):
            let endMs = shifted(selector.shift, atMs)
            return selected(selector.matchers).compactMap { one in
                var window = Window(
                    labels: one.labels, times: [], values: [], fromMs: endMs - rangeMs, throughMs: endMs)
                for (timeMs, value) in zip(one.timestampsMs, one.values)
                where timeMs > endMs - rangeMs && timeMs <= endMs && !value.isStaleMarker {
                    window.times.append(timeMs)
                    window.values.append(value)
                }
                return window.times.isEmpty ? nil : window
            }
        case .subquery(let subquery):
            let endMs = shifted(subquery.shift, atMs)
            let stepMs = subquery.stepMs ?? defaultStepMs
            let fromMs = endMs - subquery.rangeMs
            // The multiples of the step after the window's begin.
            var timeMs = Int64((Double(fromMs) / Double(stepMs)).rounded(.down)) * stepMs
            while timeMs <= fromMs { timeMs += stepMs }
            var order: [Labels] = []
            var found: [Labels: Window] = [:]
            while timeMs <= endMs {
                let elements: [Element] =
                    switch try evaluate(subquery.inner, atMs: timeMs) {
                    case .scalar(let value): [Element(labels: Labels(), value: value)]
                    case .vector(let vector): vector
                    }
                for element in elements {
                    if found[element.labels] == nil {
                        order.append(element.labels)
                        found[element.labels] = Window(
                            labels: element.labels, times: [], values: [], fromMs: fromMs, throughMs: endMs)
                    }
                    found[element.labels]?.times.append(timeMs)
                    found[element.labels]?.values.append(element.value)
                }
                timeMs += stepMs
            }
            return order.compactMap { found[$0] }
        default: throw Unknown(what: "no range")
        }
    }

    // MARK: Functions

    private func call(_ name: String, _ arguments: [PromQL.Expression], atMs: Int64) throws -> Value {
        func mapped(_ body: (Double) throws -> Double) throws -> Value {
            .vector(try distinct(try vector(arguments[0], atMs: atMs).map { nameless($0, try body($0.value)) }))
        }
        switch name {
        case "time": return .scalar(Double(atMs) / 1000)
        case "pi": return .scalar(.pi)
        case "vector": return .vector([Element(labels: Labels(), value: try scalar(arguments[0], atMs: atMs))])
        case "scalar":
            let list = try vector(arguments[0], atMs: atMs)
            return .scalar(list.count == 1 ? list[0].value : .nan)
        case "abs": return try mapped { abs($0) }
        case "ceil": return try mapped { try awayFromWhole($0).rounded(.up) }
        case "floor": return try mapped { try awayFromWhole($0).rounded(.down) }
        case "exp": return try mapped { exp($0) }
        case "ln": return try mapped { log(try away($0, from: 0)) }
        case "log2": return try mapped { log2(try away($0, from: 0)) }
        case "sqrt": return try mapped { try away($0, from: 0).squareRoot() }
        case "sgn": return try mapped { try away($0, from: 0) > 0 ? 1 : $0 < 0 ? -1 : $0 }
        case "round":
            let to = try arguments.count > 1 ? scalar(arguments[1], atMs: atMs) : 1
            // Half up, by the inverse, which errs less.
            return try mapped { (try awayFromWhole($0 * (1 / to) + 0.5)).rounded(.down) / (1 / to) }
        case "clamp":
            let (least, most) = (try scalar(arguments[1], atMs: atMs), try scalar(arguments[2], atMs: atMs))
            if least > most { return .vector([]) }
            return try mapped { $0.isNaN ? $0 : max(least, min(most, $0)) }
        case "clamp_min":
            let least = try scalar(arguments[1], atMs: atMs)
            return try mapped { $0.isNaN ? $0 : max(least, $0) }
        case "clamp_max":
            let most = try scalar(arguments[1], atMs: atMs)
            return try mapped { $0.isNaN ? $0 : min(most, $0) }
        case "sort", "sort_desc": return .vector(try vector(arguments[0], atMs: atMs))
        case "hour": return try mapped { hour(try awayFromWhole($0 / 3600) * 3600) }
        case "absent":
            let list = try vector(arguments[0], atMs: atMs)
            return .vector(list.isEmpty ? [Element(labels: absentLabels(arguments[0]), value: 1)] : [])
        case "absent_over_time":
            let list = try windows(arguments[0], atMs: atMs)
            return .vector(list.isEmpty ? [Element(labels: absentLabels(arguments[0]), value: 1)] : [])
        case "label_replace", "label_join": return .vector(try relabelled(name, arguments, atMs: atMs))
        case "histogram_quantile": return .vector(try histogramQuantile(arguments, atMs: atMs))
        default: return .vector(try overTime(name, arguments, atMs: atMs))
        }
    }

    /// Of whole seconds, cut towards zero; NaN and what no time has is none.
    private func hour(_ seconds: Double) -> Double {
        guard abs(seconds) < 1e15 else { return .nan }
        return Double((Int64(seconds) % 86_400 + 86_400) % 86_400 / 3600)
    }

    /// The labels that the first equality of each asks for, where no other matcher of it follows.
    private func absentLabels(_ expression: PromQL.Expression) -> Labels {
        let matchers: [LabelMatcher]
        switch expression.kind {
        case .selector(let selector): matchers = selector.matchers
        case .rangeSelector(let selector, _): matchers = selector.matchers
        default: return Labels()
        }
        var labels = Labels()
        for name in Set(matchers.map(\.name)) where name != Labels.metricName {
            let own = matchers.filter { $0.name == name }
            if let first = own.firstIndex(where: { $0.operator == .equal }), first == own.count - 1 {
                labels[name] = own[first].value
            }
        }
        return labels
    }

    private func text(_ expression: PromQL.Expression) throws -> String {
        guard case .string(let text) = expression.kind else { throw Unknown(what: "no string") }
        return text
    }

    private func relabelled(_ name: String, _ arguments: [PromQL.Expression], atMs: Int64) throws -> [Element] {
        let list = try vector(arguments[0], atMs: atMs)
        let texts = try arguments.dropFirst().map(text)
        return try distinct(
            try list.map { element in
                var element = element
                if name == "label_join" {
                    let value = texts[2...].map { element.labels[$0] ?? "" }.joined(separator: texts[1])
                    element.labels[texts[0]] = value.isEmpty ? nil : value
                } else {
                    let pattern = try NSRegularExpression(pattern: "^(?s:\(texts[3]))$")
                    let source = element.labels[texts[2]] ?? ""
                    let whole = NSRange(source.startIndex..., in: source)
                    guard let match = pattern.firstMatch(in: source, range: whole) else { return element }
                    let value = pattern.replacementString(for: match, in: source, offset: 0, template: texts[1])
                    element.labels[texts[0]] = value.isEmpty ? nil : value
                }
                return element
            })
    }

    private func overTime(_ name: String, _ arguments: [PromQL.Expression], atMs: Int64) throws -> [Element] {
        let isQuantile = name == "quantile_over_time"
        let parameter =
            isQuantile
            ? try scalar(arguments[0], atMs: atMs) : try arguments.count > 1 ? scalar(arguments[1], atMs: atMs) : 0
        let list = try windows(arguments[isQuantile ? 1 : 0], atMs: atMs)
        return try distinct(
            try list.compactMap { window in
                guard let value = try overWindow(name, window, parameter, atMs: atMs) else { return nil }
                let labels = name == "last_over_time" ? window.labels : window.labels.withoutName
                return Element(labels: labels, value: value)
            })
    }

    private func overWindow(_ name: String, _ window: Window, _ parameter: Double, atMs: Int64) throws -> Double? {
        let values = window.values
        let count = Double(values.count)
        if ["rate", "increase", "irate", "changes", "resets"].contains(name) {
            for (before, after) in zip(values, values.dropFirst()) { _ = try away(after, from: before) }
        }
        switch name {
        case "rate": return extrapolated(window, isCounter: true, isRate: true)
        case "increase": return extrapolated(window, isCounter: true, isRate: false)
        case "delta": return extrapolated(window, isCounter: false, isRate: false)
        case "irate", "idelta":
            guard values.count >= 2 else { return nil }
            let (last, before) = (values[values.count - 1], values[values.count - 2])
            if name == "idelta" { return last - before }
            let seconds = Double(window.times[values.count - 1] - window.times[values.count - 2]) / 1000
            return (last < before ? last : last - before) / seconds
        case "changes": return Double(zip(values, values.dropFirst()).count { $0 != $1 && !($0.isNaN && $1.isNaN) })
        case "resets": return Double(zip(values, values.dropFirst()).count { $1 < $0 })
        case "sum_over_time": return values.reduce(0, +)
        case "avg_over_time": return values.reduce(0, +) / count
        case "min_over_time": return values.reduce(.nan) { $1 < $0 || $0.isNaN ? $1 : $0 }
        case "max_over_time": return values.reduce(.nan) { $1 > $0 || $0.isNaN ? $1 : $0 }
        case "count_over_time": return count
        case "last_over_time": return values.last
        case "present_over_time": return 1
        case "stdvar_over_time": return try variance(values)
        case "stddev_over_time": return try variance(values).squareRoot()
        case "quantile_over_time": return quantile(parameter, values)
        case "deriv": return values.count < 2 ? nil : regression(window, atMs: window.times[0]).slope
        case "predict_linear":
            guard values.count >= 2 else { return nil }
            let line = regression(window, atMs: atMs)
            return line.intercept + line.slope * parameter
        default: throw Unknown(what: name)
        }
    }

    /// Of a counter's or a gauge's samples, stretched to the window's ends where those are near enough
    /// (prometheus.io, functions, `rate` and `delta`; `extrapolatedRate` in their words).
    private func extrapolated(_ window: Window, isCounter: Bool, isRate: Bool) -> Double? {
        guard window.values.count >= 2 else { return nil }
        let (first, last) = (window.values[0], window.values[window.values.count - 1])
        var change = last - first
        if isCounter {
            for (before, after) in zip(window.values, window.values.dropFirst()) where after < before {
                change += before
            }
        }
        let firstMs = window.times[0]
        let lastMs = window.times[window.times.count - 1]
        var toStart = Double(firstMs - window.fromMs) / 1000
        var toEnd = Double(window.throughMs - lastMs) / 1000
        let sampled = Double(lastMs - firstMs) / 1000
        let mean = sampled / Double(window.values.count - 1)
        if toStart >= mean * 1.1 { toStart = mean / 2 }
        if isCounter, change > 0, first >= 0 { toStart = min(toStart, sampled * (first / change)) }
        if toEnd >= mean * 1.1 { toEnd = mean / 2 }
        var factor = (sampled + toStart + toEnd) / sampled
        if isRate { factor /= Double(window.throughMs - window.fromMs) / 1000 }
        return change * factor
    }

    /// Of the differences to the first value, so that equal values have none.
    ///
    /// Where the values differ by little beside their size, an evaluator's order of adding decides: nobody can tell.
    private func variance(_ values: [Double]) throws -> Double {
        let differences = values.map { $0 - values[0] }
        let mean = differences.reduce(0, +) / Double(values.count)
        let variance = differences.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(values.count)
        let size = values.reduce(0) { max($0, abs($1)) }
        if variance > 0, variance.squareRoot() < size * 1e-6 { throw Unknown(what: "a variance lost in rounding") }
        return variance
    }

    private func quantile(_ q: Double, _ values: [Double]) -> Double {
        if values.isEmpty || q.isNaN { return .nan }
        if q < 0 { return -.infinity }
        if q > 1 { return .infinity }
        let sorted = values.sorted { $0.isNaN ? !$1.isNaN : $0 < $1 }
        let rank = q * Double(sorted.count - 1)
        let lower = Int(rank.rounded(.down))
        let weight = rank - rank.rounded(.down)
        return sorted[lower] * (1 - weight) + sorted[min(sorted.count - 1, lower + 1)] * weight
    }

    private func regression(_ window: Window, atMs: Int64) -> (slope: Double, intercept: Double) {
        let x = window.times.map { Double($0 - atMs) / 1000 }
        let y = window.values
        if y.allSatisfy({ $0 == y[0] }) { return y[0].isInfinite ? (.nan, .nan) : (0, y[0]) }
        let (meanX, meanY) = (x.reduce(0, +) / Double(x.count), y.reduce(0, +) / Double(y.count))
        let covariance = zip(x, y).reduce(0) { $0 + ($1.0 - meanX) * ($1.1 - meanY) }
        let slope = covariance / x.reduce(0) { $0 + ($1 - meanX) * ($1 - meanX) }
        return (slope, meanY - slope * meanX)
    }

    private func histogramQuantile(_ arguments: [PromQL.Expression], atMs: Int64) throws -> [Element] {
        let q = try scalar(arguments[0], atMs: atMs)
        var order: [Labels] = []
        var groups: [Labels: [(upper: Double, count: Double)]] = [:]
        for element in try vector(arguments[1], atMs: atMs) {
            let upper = element.labels["le"].flatMap { $0 == "+Inf" ? Double.infinity : Double($0) }
            guard let upper else { continue }
            let labels = element.labels.removing(["le"])
            if groups[labels] == nil { order.append(labels) }
            groups[labels, default: []].append((upper, element.value))
        }
        // Histograms of two names are two, also where they come to have the same labels.
        return try distinct(
            order.map { labels in
                Element(
                    labels: labels.withoutName,
                    value: bucketQuantile(q, (groups[labels] ?? []).sorted { $0.upper < $1.upper }))
            })
    }

    private func bucketQuantile(_ q: Double, _ given: [(upper: Double, count: Double)]) -> Double {
        if q.isNaN { return .nan }
        if q < 0 { return -.infinity }
        if q > 1 { return .infinity }
        var buckets: [(upper: Double, count: Double)] = []
        for bucket in given {
            if let last = buckets.last, last.upper == bucket.upper {
                buckets[buckets.count - 1].count += bucket.count
            } else {
                buckets.append(bucket)
            }
        }
        guard buckets.count >= 2, buckets[buckets.count - 1].upper == .infinity else { return .nan }
        // Buckets count all below them: less than the one before is an error of scrapes, hardly more one of rounding.
        for index in 1..<buckets.count {
            let (last, this) = (buckets[index - 1].count, buckets[index].count)
            let isSame = abs(this - last) < 1e-12 * (abs(this) + abs(last)) || this.isNaN && last.isNaN
            if isSame || this < last { buckets[index].count = last }
        }
        let total = buckets[buckets.count - 1].count
        guard total != 0 else { return .nan }
        let rank = q * total
        let found = buckets.dropLast().firstIndex { $0.count >= rank } ?? buckets.count - 1
        if found == buckets.count - 1 { return buckets[buckets.count - 2].upper }
        if found == 0, buckets[0].upper <= 0 { return buckets[0].upper }
        let (start, below) = found == 0 ? (0, 0) : (buckets[found - 1].upper, buckets[found - 1].count)
        return start + (buckets[found].upper - start) * ((rank - below) / (buckets[found].count - below))
    }

    // MARK: Aggregations

    private func aggregate(_ aggregate: Aggregate, atMs: Int64) throws -> [Element] {
        var list = try vector(aggregate.inner, atMs: atMs)
        var grouping = aggregate.grouping
        if aggregate.operator == .countValues, let label = try aggregate.parameter.map(text) {
            if mayErr { throw Unknown(what: "all digits") }
            // The value becomes a label like the others, and those of each group are counted.
            for index in list.indices { list[index].labels[label] = GoFloat.text(list[index].value) }
            if !aggregate.isWithout { grouping.append(label) }
        }
        var order: [Labels] = []
        var groups: [Labels: [Element]] = [:]
        for element in list {
            let key =
                aggregate.isWithout
                ? element.labels.removing(grouping + [Labels.metricName])
                : element.labels.keeping(grouping)
            if groups[key] == nil { order.append(key) }
            groups[key, default: []].append(element)
        }
        let parameter =
            try aggregate.parameter.map { $0.type == .scalar ? try scalar($0, atMs: atMs) : 0 } ?? 0
        var result: [Element] = []
        for key in order {
            let members = groups[key] ?? []
            let values = members.map(\.value)
            let one: Double
            switch aggregate.operator {
            case .sum: one = values.reduce(0, +)
            case .avg: one = values.reduce(0, +) / Double(values.count)
            case .count, .countValues: one = Double(values.count)
            case .min: one = values.reduce(.nan) { $1 < $0 || $0.isNaN ? $1 : $0 }
            case .max: one = values.reduce(.nan) { $1 > $0 || $0.isNaN ? $1 : $0 }
            case .group: one = 1
            case .stdvar: one = try variance(values)
            case .stddev: one = try variance(values).squareRoot()
            case .quantile: one = quantile(parameter, values)
            case .topk, .bottomk:
                result += try ranked(members, Int(parameter), isTop: aggregate.operator == .topk)
                continue
            case .limitk, .limitRatio: throw Unknown(what: "a sample")
            }
            result.append(Element(labels: key, value: one))
        }
        return try distinct(result)
    }

    private func ranked(_ members: [Element], _ count: Int, isTop: Bool) throws -> [Element] {
        if count < 1 { return [] }
        if members.contains(where: \.value.isNaN) { throw Unknown(what: "the rank of what is not a number") }
        let sorted = members.sorted { isTop ? $0.value > $1.value : $0.value < $1.value }
        if sorted.count > count, sorted[count - 1].value == sorted[count].value { throw Unknown(what: "equal values") }
        if sorted.count > count { _ = try away(sorted[count - 1].value, from: sorted[count].value) }
        return Array(sorted.prefix(count))
    }

    // MARK: Operators

    private func binary(_ binary: Binary, atMs: Int64) throws -> Value {
        let (left, right) = (try evaluate(binary.left, atMs: atMs), try evaluate(binary.right, atMs: atMs))
        switch (left, right) {
        case (.scalar(let a), .scalar(let b)):
            let (value, holds) = try combined(binary.operator, a, b)
            return .scalar(isComparison(binary.operator) ? (holds ? 1 : 0) : value)
        case (.vector(let list), .scalar(let b)):
            return .vector(try withScalar(binary, list) { try combined(binary.operator, $0, b) })
        case (.scalar(let a), .vector(let list)):
            return .vector(try withScalar(binary, list) { try combined(binary.operator, a, $0) })
        case (.vector(let a), .vector(let b)):
            switch binary.operator {
            case .and:
                let there = Set(b.map { signature($0.labels, binary.matching) })
                return .vector(a.filter { there.contains(signature($0.labels, binary.matching)) })
            case .unless:
                let there = Set(b.map { signature($0.labels, binary.matching) })
                return .vector(a.filter { !there.contains(signature($0.labels, binary.matching)) })
            case .or:
                let there = Set(a.map { signature($0.labels, binary.matching) })
                return .vector(try distinct(a + b.filter { !there.contains(signature($0.labels, binary.matching)) }))
            default: return .vector(try matched(binary, a, b))
            }
        }
    }

    private func isComparison(_ operation: BinaryOperator) -> Bool {
        [.equal, .notEqual, .greater, .less, .greaterOrEqual, .lessOrEqual].contains(operation)
    }

    private func combined(_ operation: BinaryOperator, _ a: Double, _ b: Double) throws -> (value: Double, holds: Bool)
    {
        switch operation {
        case .divide: _ = try away(b, from: 0)
        case .modulo: _ = try awayFromWhole(a, step: try away(b, from: 0))
        case .power: if a <= 0 || mayErr && a < 1e-9 { _ = try awayFromWhole(b) }
        case .atan2: _ = try (away(a, from: 0), away(b, from: 0))
        case let other where isComparison(other): _ = try away(a, from: b)
        default: break
        }
        return switch operation {
        case .add: (a + b, true)
        case .subtract: (a - b, true)
        case .multiply: (a * b, true)
        case .divide: (a / b, true)
        case .modulo: (fmod(a, b), true)
        case .power: (pow(a, b), true)
        case .atan2: (Foundation.atan2(a, b), true)
        case .equal: (a, a == b)
        case .notEqual: (a, a != b)
        case .greater: (a, a > b)
        case .less: (a, a < b)
        case .greaterOrEqual: (a, a >= b)
        case .lessOrEqual: (a, a <= b)
        case .and, .or, .unless: (.nan, false)
        }
    }

    private func withScalar(
        _ binary: Binary, _ list: [Element], _ body: (Double) throws -> (value: Double, holds: Bool)
    ) throws -> [Element] {
        try distinct(
            try list.compactMap { element in
                let (value, holds) = try body(element.value)
                if binary.returnsBool { return nameless(element, holds ? 1 : 0) }
                // A comparison lets the vector's own elements through.
                if isComparison(binary.operator) { return holds ? element : nil }
                return nameless(element, value)
            })
    }

    private func signature(_ labels: Labels, _ matching: VectorMatching) -> Labels {
        matching.isOn ? labels.keeping(matching.labels) : labels.removing(matching.labels + [Labels.metricName])
    }

    private func matched(_ binary: Binary, _ left: [Element], _ right: [Element]) throws -> [Element] {
        if left.isEmpty || right.isEmpty { return [] }
        let matching = binary.matching
        let swaps = matching.cardinality == .oneToMany
        let (many, one) = swaps ? (right, left) : (left, right)
        var partners: [Labels: Element] = [:]
        for element in one {
            if partners.updateValue(element, forKey: signature(element.labels, matching)) != nil {
                throw Failure(description: "found duplicate series for the match group")
            }
        }
        var seen: Set<Labels> = []
        var seenResults: Set<Labels> = []
        var result: [Element] = []
        for element in many {
            let key = signature(element.labels, matching)
            guard let partner = partners[key] else { continue }
            let (a, b) = swaps ? (partner.value, element.value) : (element.value, partner.value)
            let (value, holds) = try combined(binary.operator, a, b)
            // Also of what a comparison does not let through.
            if matching.cardinality == .oneToOne, !seen.insert(key).inserted {
                throw Failure(description: "many-to-one matching must be explicit")
            }
            if isComparison(binary.operator), !holds, !binary.returnsBool { continue }
            var labels = element.labels
            if !isComparison(binary.operator) || binary.returnsBool { labels = labels.withoutName }
            if matching.cardinality == .oneToOne {
                labels = matching.isOn ? labels.keeping(matching.labels) : labels.removing(matching.labels)
            } else {
                for name in matching.include { labels[name] = partner.labels[name] }
                if !seenResults.insert(labels).inserted {
                    throw Failure(description: "grouping labels must ensure unique matches")
                }
            }
            let shown = binary.returnsBool ? (holds ? 1 : 0) : isComparison(binary.operator) ? a : value
            result.append(Element(labels: labels, value: shown))
        }
        return try distinct(result)
    }
}
