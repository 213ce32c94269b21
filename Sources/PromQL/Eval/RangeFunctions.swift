import Foundation
import Series

extension Evaluator {
    /// A function of one range vector: for each series a value a step, from the samples in its window.
    mutating func overWindows(
        _ matrix: Expression, keepsName: Bool = false, _ body: @escaping @Sendable (Window, Int) throws -> Double?
    ) throws -> ColumnStream {
        try overSeries(matrix, keepsName: keepsName) { windows, column in
            try windows.forEach { step, range in
                if let value = try body(windows.window(step, range), step) { column[step] = value }
            }
        }
    }

    /// A function of one range vector that sees all windows of a series at once.
    private mutating func overSeries(
        _ matrix: Expression, keepsName: Bool = false, isOfCounters: Bool = false, _ kernel: @escaping RangeKernel
    ) throws -> ColumnStream {
        let ranges = try ranges(matrix)
        // A name that is there stays where it stays, also where what is in a subquery was to drop it.
        var stream = ranges.columns(heads: ranges.heads.map { ColumnHead(labels: $0.labels) }, kernel)
        if isOfCounters { stream = doubtingCounters(stream, at: matrix) }
        return keepsName ? stream : try nameless(stream)
    }

    /// A function of the samples in a window and, where it is anchored, the one before it.
    private mutating func overAnchored(
        _ matrix: Expression, _ body: @escaping @Sendable (Window) -> Double
    ) throws -> ColumnStream {
        try overSeries(matrix) { windows, column in
            if windows.edges == .plain {
                windows.forEach { step, range in column[step] = body(windows.window(step, range)) }
            } else {
                windows.forEachExtended { step, range in
                    let startMs = windows.endsMs[step] - windows.rangeMs
                    // The sample before the window is for those in it.
                    guard windows.timestampsMs[range.upperBound - 1] > startMs else { return }
                    column[step] = body(windows.window(step, windows.anchor(range, step)..<range.upperBound))
                }
            }
        }
    }

    /// The functions of the language that take one range vector and nothing else.
    mutating func rangeFunction(_ name: String, _ matrix: Expression) throws -> ColumnStream {
        switch name {
        case "rate", "increase", "delta":
            let (isCounter, isRate) = (name != "delta", name == "rate")
            return try overSeries(matrix, isOfCounters: isCounter) { windows, column in
                if windows.edges == .plain {
                    RangeMath.extrapolated(windows, isCounter: isCounter, isRate: isRate, into: column)
                } else {
                    RangeMath.betweenEdges(windows, isCounter: isCounter, isRate: isRate, into: column)
                }
            }
        case "irate":
            return try overWindows(matrix) { window, _ in RangeMath.instant(window, isRate: true) }
        case "idelta": return try overWindows(matrix) { window, _ in RangeMath.instant(window, isRate: false) }
        case "changes":
            return try overAnchored(matrix) { window in
                Double(
                    (1..<max(1, window.count)).count {
                        window.values[$0] != window.values[$0 - 1]
                            && !(window.values[$0].isNaN && window.values[$0 - 1].isNaN)
                    })
            }
        case "resets":
            return try overAnchored(matrix) { window in
                Double((1..<max(1, window.count)).count { window.values[$0] < window.values[$0 - 1] })
            }
        case "deriv":
            return try overWindows(matrix) { window, _ in
                guard window.count >= 2 else { return nil }
                return RangeMath.regression(window, aroundMs: window.timestampsMs[0]).slope
            }
        case "sum_over_time": return try overWindows(matrix) { window, _ in CompensatedSum.sum(window.values) }
        case "avg_over_time": return try overWindows(matrix) { window, _ in CompensatedSum.mean(window.values) }
        case "count_over_time": return try overWindows(matrix) { window, _ in Double(window.count) }
        case "present_over_time": return try overWindows(matrix) { _, _ in 1 }
        case "last_over_time": return try overWindows(matrix, keepsName: true) { window, _ in window.last }
        case "first_over_time": return try overWindows(matrix, keepsName: true) { window, _ in window.first }
        case "min_over_time":
            return try overWindows(matrix) { window, _ in window.values[RangeMath.extreme(window, <, last: false)] }
        case "max_over_time":
            return try overWindows(matrix) { window, _ in window.values[RangeMath.extreme(window, >, last: false)] }
        case "ts_of_first_over_time":
            return try overWindows(matrix) { window, _ in Double(window.timestampsMs[0]) / 1000 }
        case "ts_of_last_over_time":
            return try overWindows(matrix) { window, _ in Double(window.timestampsMs[window.count - 1]) / 1000 }
        case "ts_of_min_over_time":
            return try overWindows(matrix) { window, _ in
                Double(window.timestampsMs[RangeMath.extreme(window, <, last: true)]) / 1000
            }
        case "ts_of_max_over_time":
            return try overWindows(matrix) { window, _ in
                Double(window.timestampsMs[RangeMath.extreme(window, >, last: true)]) / 1000
            }
        case "stddev_over_time":
            return try overWindows(matrix) { window, _ in CompensatedSum.variance(window.values).squareRoot() }
        case "stdvar_over_time":
            return try overWindows(matrix) { window, _ in CompensatedSum.variance(window.values) }
        case "mad_over_time":
            return try overWindows(matrix) { window, _ in
                if window.values.contains(where: \.isNaN) { return .nan }
                let median = Quantile.of(0.5, Array(window.values))
                return Quantile.of(0.5, window.values.map { abs($0 - median) })
            }
        default: throw PromQLError(.execution, "the function \(name) is not built yet")
        }
    }

    /// The same stream, which says of series that have a result, and a name that no counter has, that they might be none.
    private func doubtingCounters(_ stream: ColumnStream, at matrix: Expression) -> ColumnStream {
        let names = stream.heads.map { head in
            let name = head.labels.name
            return ["_total", "_sum", "_count", "_bucket"].contains(where: name.hasSuffix) ? "" : name
        }
        guard names.contains(where: { !$0.isEmpty }) else { return stream }
        let (remarks, offset) = (remarks, matrix.range.lowerBound)
        return ColumnStream(heads: stream.heads) { places, body in
            try stream.make(places) { place, values in
                if !names[place].isEmpty, values.contains(where: { !$0.isAbsent }) {
                    let name = Labels.quoted(names[place])
                    remarks.add(
                        Annotation(
                            level: .info,
                            text: "PromQL info: metric might not be a counter, name does not end in "
                                + "_total/_sum/_count/_bucket: \(name)", offset: offset))
                }
                try body(place, values)
            }
        }
    }
}

/// The arithmetic of functions over a range.
enum RangeMath {
    /// The increase over the window, extrapolated to its ends (Prometheus' `extrapolatedRate`, promql/functions.go):
    /// up to the window's end where the samples come close to it, else by half a scrape interval, and never to a
    /// time at which a counter would have been below zero.
    ///
    /// The samples before each reset are found once for the whole series, not once a window.
    static func extrapolated(
        _ windows: SeriesWindows, isCounter: Bool, isRate: Bool, into column: UnsafeMutableBufferPointer<Double>
    ) {
        let (times, values) = (windows.timestampsMs, windows.values)
        // Where a value is smaller than the one before.
        var resets: [Int] = []
        if isCounter {
            for index in 1..<max(1, values.count) where values[index] < values[index - 1] { resets.append(index) }
        }
        var nextReset = 0
        let rangeSeconds = Double(windows.rangeMs) / 1000
        windows.forEach { step, range in
            guard range.count >= 2 else { return }
            let (first, last) = (range.lowerBound, range.upperBound - 1)
            var increase = values[last] - values[first]
            while nextReset < resets.count, resets[nextReset] <= first { nextReset += 1 }
            var reset = nextReset
            while reset < resets.count, resets[reset] <= last {
                increase += values[resets[reset] - 1]
                reset += 1
            }
            let sampled = Double(times[last] - times[first]) / 1000
            let average = sampled / Double(range.count - 1)
            let endMs = windows.endsMs[step]
            var toStart = Double(times[first] - (endMs - windows.rangeMs)) / 1000
            var toEnd = Double(endMs - times[last]) / 1000
            if toStart >= average * 1.1 { toStart = average / 2 }
            if isCounter, increase > 0, values[first] >= 0 {
                toStart = min(toStart, sampled * (values[first] / increase))
            }
            if toEnd >= average * 1.1 { toEnd = average / 2 }
            var factor = (sampled + toStart + toEnd) / sampled
            if isRate { factor /= rangeSeconds }
            column[step] = increase * factor
        }
    }

    /// The difference between the values at the ends of a window, which are samples or lie on the line between two; a
    /// counter's resets between them count from zero.
    static func betweenEdges(
        _ windows: SeriesWindows, isCounter: Bool, isRate: Bool, into column: UnsafeMutableBufferPointer<Double>
    ) {
        let (times, values) = (windows.timestampsMs, windows.values)
        let isSmoothed = windows.edges == .smoothed
        func between(_ place: Int, _ atMs: Int64) -> Double {
            let before = isCounter && values[place + 1] < values[place] ? 0 : values[place]
            let part = Double(atMs - times[place]) / Double(times[place + 1] - times[place])
            return before + (values[place + 1] - before) * part
        }
        windows.forEachExtended { step, range in
            let endMs = windows.endsMs[step]
            let startMs = endMs - windows.rangeMs
            let first = windows.anchor(range, step)
            var last = range.upperBound - 1
            if isSmoothed {
                last = range.lowerBound
                while last < range.upperBound - 1, times[last] < endMs { last += 1 }
            }
            guard times[last] > startMs, times[first] <= endMs else { return }
            let isLeftBetween = isSmoothed && times[first] < startMs && first + 1 < range.upperBound
            let isRightBetween = isSmoothed && times[last] > endMs && last > range.lowerBound
            let left = isLeftBetween ? between(first, startMs) : values[first]
            let right = isRightBetween ? between(last - 1, endMs) : values[last]
            var change = right - left
            if isCounter {
                var previous = left
                for place in first + 1..<max(first + 1, last) {
                    if values[place] < previous { change += previous }
                    previous = values[place]
                }
                if right < previous { change += previous }
            }
            column[step] = isRate ? change / (Double(windows.rangeMs) / 1000) : change
        }
    }

    /// The step between the last two samples, a second where asked; a counter's reset counts from zero.
    static func instant(_ window: Window, isRate: Bool) -> Double? {
        guard window.count >= 2 else { return nil }
        let before = window.values[window.count - 2]
        let interval = Double(window.timestampsMs[window.count - 1] - window.timestampsMs[window.count - 2]) / 1000
        guard isRate else { return window.last - before }
        return (window.last < before ? window.last : window.last - before) / interval
    }

    /// The index of the smallest or largest value; a NaN gives way to anything.
    static func extreme(_ window: Window, _ isBetter: (Double, Double) -> Bool, last: Bool) -> Int {
        var best = 0
        for index in 1..<max(1, window.count) {
            let value = window.values[index]
            let current = window.values[best]
            if isBetter(value, current) || current.isNaN || (last && value == current) {
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

    mutating func add(_ value: Double) { CompensatedSum.add(value, to: &sum, &compensation) }

    /// Adds to a sum and to what rounding took from it.
    @inline(__always)
    static func add(_ value: Double, to sum: inout Double, _ compensation: inout Double) {
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
