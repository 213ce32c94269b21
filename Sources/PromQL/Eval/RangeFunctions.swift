import Foundation
import Series

extension Evaluator {
    /// Evaluates a function of one range vector: for each series a value a step.
    mutating func rangeFunction(
        _ name: String, _ matrix: Expression, keepName: Bool = false,
        _ body: (Window, Int) -> Double?
    ) throws -> [Column] {
        let windows = try windows(of: matrix)
        var columns: [Column] = []
        columns.reserveCapacity(windows.series.count)
        for series in windows.series {
            var values = [Double](repeating: .absent, count: steps.count)
            var any = false
            series.timestampsMs.withUnsafeBufferPointer { times in
                series.values.withUnsafeBufferPointer { samples in
                    var low = 0
                    var high = 0
                    for step in 0..<steps.count {
                        let endMs = windows.times[step]
                        let startMs = endMs - windows.rangeMs
                        while high < times.count, times[high] <= endMs { high += 1 }
                        while low < high, times[low] <= startMs { low += 1 }
                        guard low < high else { continue }
                        let window = Window(
                            timestampsMs: UnsafeBufferPointer(rebasing: times[low..<high]),
                            values: UnsafeBufferPointer(rebasing: samples[low..<high]), startMs: startMs, endMs: endMs,
                            stepMs: steps.timeMs(step))
                        if let value = body(window, step) {
                            values[step] = value
                            any = true
                        }
                    }
                }
            }
            if any {
                let column = Column(labels: series.labels, values: values)
                columns.append(keepName ? column : nameless(column, values))
            }
        }
        try hold(columns.count * steps.count)
        return try unique(columns)
    }

    /// The functions of the language that take one range vector and nothing else; nil for a name that is none.
    mutating func simpleRangeFunction(_ name: String, _ matrix: Expression) throws -> [Column]? {
        switch name {
        case "rate", "increase", "delta":
            noteUnlessCounter(name, matrix)
            return try rangeFunction(name, matrix) { window, _ in
                RangeMath.extrapolated(window, isCounter: name != "delta", isRate: name == "rate")
            }
        case "irate":
            noteUnlessCounter(name, matrix)
            return try rangeFunction(name, matrix) { window, _ in RangeMath.instant(window, isRate: true) }
        case "idelta": return try rangeFunction(name, matrix) { window, _ in RangeMath.instant(window, isRate: false) }
        case "changes":
            return try rangeFunction(name, matrix) { window, _ in
                Double(
                    (1..<max(1, window.count)).count {
                        window.values[$0] != window.values[$0 - 1]
                            && !(window.values[$0].isNaN && window.values[$0 - 1].isNaN)
                    })
            }
        case "resets":
            return try rangeFunction(name, matrix) { window, _ in
                Double((1..<max(1, window.count)).count { window.values[$0] < window.values[$0 - 1] })
            }
        case "deriv":
            return try rangeFunction(name, matrix) { window, _ in
                guard window.count >= 2 else { return nil }
                return RangeMath.regression(window, aroundMs: window.timestampsMs[0]).slope
            }
        case "sum_over_time": return try rangeFunction(name, matrix) { window, _ in CompensatedSum.sum(window.values) }
        case "avg_over_time": return try rangeFunction(name, matrix) { window, _ in CompensatedSum.mean(window.values) }
        case "count_over_time": return try rangeFunction(name, matrix) { window, _ in Double(window.count) }
        case "present_over_time": return try rangeFunction(name, matrix) { _, _ in 1 }
        case "last_over_time": return try rangeFunction(name, matrix, keepName: true) { window, _ in window.last }
        case "first_over_time": return try rangeFunction(name, matrix, keepName: true) { window, _ in window.first }
        case "min_over_time":
            return try rangeFunction(name, matrix) { window, _ in
                window.values[RangeMath.extreme(window, <, last: false)]
            }
        case "max_over_time":
            return try rangeFunction(name, matrix) { window, _ in
                window.values[RangeMath.extreme(window, >, last: false)]
            }
        case "ts_of_first_over_time":
            return try rangeFunction(name, matrix) { window, _ in Double(window.timestampsMs[0]) / 1000 }
        case "ts_of_last_over_time":
            return try rangeFunction(name, matrix) { window, _ in Double(window.timestampsMs[window.count - 1]) / 1000 }
        case "ts_of_min_over_time":
            return try rangeFunction(name, matrix) { window, _ in
                Double(window.timestampsMs[RangeMath.extreme(window, <, last: true)]) / 1000
            }
        case "ts_of_max_over_time":
            return try rangeFunction(name, matrix) { window, _ in
                Double(window.timestampsMs[RangeMath.extreme(window, >, last: true)]) / 1000
            }
        case "stddev_over_time":
            return try rangeFunction(name, matrix) { window, _ in CompensatedSum.variance(window.values).squareRoot() }
        case "stdvar_over_time":
            return try rangeFunction(name, matrix) { window, _ in CompensatedSum.variance(window.values) }
        case "mad_over_time":
            return try rangeFunction(name, matrix) { window, _ in
                if window.values.contains(where: \.isNaN) { return .nan }
                let median = Quantile.of(0.5, Array(window.values))
                return Quantile.of(0.5, window.values.map { abs($0 - median) })
            }
        default: return nil
        }
    }

    private mutating func noteUnlessCounter(_ name: String, _ matrix: Expression) {
        guard name != "delta", case .rangeSelector(let selector, _) = matrix.kind, !selector.metricName.isEmpty,
            !["_total", "_sum", "_count", "_bucket"].contains(where: selector.metricName.hasSuffix)
        else { return }
        note(
            .info,
            "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "
                + Labels.quoted(selector.metricName), at: matrix)
    }
}

/// The arithmetic of functions over a range.
enum RangeMath {
    /// The increase over the window, extrapolated to its ends (Prometheus' `extrapolatedRate`, promql/functions.go):
    /// up to the window's end where the samples come close to it, else by half a scrape interval, and never to a
    /// time at which a counter would have been below zero.
    static func extrapolated(_ window: Window, isCounter: Bool, isRate: Bool) -> Double? {
        guard window.count >= 2 else { return nil }
        var increase = window.last - window.first
        if isCounter {
            var previous = window.first
            for value in window.values {
                if value < previous { increase += previous }
                previous = value
            }
        }
        let firstMs = window.timestampsMs[0]
        let lastMs = window.timestampsMs[window.count - 1]
        let sampled = Double(lastMs - firstMs) / 1000
        let average = sampled / Double(window.count - 1)
        var toStart = Double(firstMs - window.startMs) / 1000
        var toEnd = Double(window.endMs - lastMs) / 1000
        if toStart >= average * 1.1 { toStart = average / 2 }
        if isCounter, increase > 0, window.first >= 0 { toStart = min(toStart, sampled * (window.first / increase)) }
        if toEnd >= average * 1.1 { toEnd = average / 2 }
        var factor = (sampled + toStart + toEnd) / sampled
        if isRate { factor /= Double(window.endMs - window.startMs) / 1000 }
        return increase * factor
    }

    /// The step between the last two samples, a second where asked; a counter's reset counts from zero.
    static func instant(_ window: Window, isRate: Bool) -> Double? {
        guard window.count >= 2 else { return nil }
        let before = window.values[window.count - 2]
        let interval = Double(window.timestampsMs[window.count - 1] - window.timestampsMs[window.count - 2]) / 1000
        guard isRate else { return window.last - before }
        return (window.last < before ? window.last : window.last - before) / interval
    }

    /// The index of the smallest or largest value; a NaN gives way to any number.
    static func extreme(_ window: Window, _ isBetter: (Double, Double) -> Bool, last: Bool) -> Int {
        var best = 0
        for index in 1..<max(1, window.count) {
            let value = window.values[index]
            let current = window.values[best]
            if isBetter(value, current) || (current.isNaN && !value.isNaN) || (last && value == current) {
                best = index
            }
        }
        return best
    }

    /// Least squares: the slope a second, and the value at a time.
    static func regression(_ window: Window, aroundMs: Int64) -> (slope: Double, intercept: Double) {
        let count = Double(window.count)
        var x = CompensatedSum()
        var y = CompensatedSum()
        var xy = CompensatedSum()
        var xx = CompensatedSum()
        for index in 0..<window.count {
            let time = Double(window.timestampsMs[index] - aroundMs) / 1000
            x.add(time)
            y.add(window.values[index])
            xy.add(time * window.values[index])
            xx.add(time * time)
        }
        if window.values.allSatisfy({ $0 == window.first }) {
            return window.first.isInfinite ? (.nan, .nan) : (0, window.first)
        }
        let covariance = xy.total - x.total * y.total / count
        let variance = xx.total - x.total * x.total / count
        let slope = covariance / variance
        return (slope, y.total / count - slope * x.total / count)
    }

    /// Double exponential smoothing by Holt's linear method (NIST Engineering Statistics Handbook, 6.4.3.3).
    static func smoothed(_ window: Window, level: Double, trend: Double) -> Double? {
        guard window.count >= 2 else { return nil }
        var last = 0.0
        var current = window.first
        var slope = window.values[1] - window.first
        for index in 1..<window.count {
            let raw = level * window.values[index]
            if index > 1 { slope = trend * (current - last) + (1 - trend) * slope }
            let next = raw + (1 - level) * (current + slope)
            last = current
            current = next
        }
        return current
    }
}

/// A sum that keeps what rounding would lose (Neumaier 1974).
struct CompensatedSum {
    private var sum = 0.0
    private var compensation = 0.0

    mutating func add(_ value: Double) {
        let next = sum + value
        if next.isInfinite {
            compensation = 0
        } else if abs(sum) >= abs(value) {
            compensation += (sum - next) + value
        } else {
            compensation += (value - next) + sum
        }
        sum = next
    }

    var total: Double { sum.isInfinite ? sum : sum + compensation }

    static func sum(_ values: some Sequence<Double>) -> Double {
        var sum = CompensatedSum()
        for value in values { sum.add(value) }
        return sum.total
    }

    /// The mean; where the sum would overflow, by steps.
    static func mean(_ values: some Collection<Double>) -> Double {
        let total = sum(values)
        if total.isFinite || values.contains(where: { !$0.isFinite }) { return total / Double(values.count) }
        var mean = 0.0
        var count = 0.0
        for value in values {
            count += 1
            mean += value / count - mean / count
        }
        return mean
    }

    /// The population variance (Welford 1962).
    static func variance(_ values: some Sequence<Double>) -> Double {
        var count = 0.0
        var mean = CompensatedSum()
        var squares = CompensatedSum()
        for value in values {
            count += 1
            let delta = value - mean.total
            mean.add(delta / count)
            squares.add(delta * (value - mean.total))
        }
        return squares.total / count
    }
}

/// Quantiles of plain values.
enum Quantile {
    /// The quantile with linear interpolation between neighbours; NaN sorts below every number.
    ///
    /// - Returns: -inf for q < 0, inf for q > 1, NaN for no values or q that is NaN.
    static func of(_ q: Double, _ values: [Double]) -> Double {
        if values.isEmpty || q.isNaN { return .nan }
        if q < 0 { return -.infinity }
        if q > 1 { return .infinity }
        let sorted = values.sorted { $0.isNaN ? !$1.isNaN : $0 < $1 }
        let rank = q * Double(sorted.count - 1)
        let low = Int(rank.rounded(.down))
        let high = min(low + 1, sorted.count - 1)
        let weight = rank - rank.rounded(.down)
        return sorted[low] * (1 - weight) + sorted[high] * weight
    }
}
