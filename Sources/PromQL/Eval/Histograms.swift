import Foundation
import Series

extension Evaluator {
    mutating func histogramQuantile(_ arguments: [Expression]) throws -> [Column] {
        let q = try scalar(arguments[0])
        noteQuantile(q, at: arguments[0])
        return try overHistograms(arguments[1], count: 1) { buckets, step, _ in
            let result = ClassicHistogram.quantile(q[step], buckets)
            return (result.value, result.forcedMonotonic)
        }[0]
    }

    /// Several quantiles of the same histograms: each a series with the quantile as a label.
    mutating func histogramQuantiles(_ arguments: [Expression]) throws -> [Column] {
        let label = try string(arguments[1])
        guard Evaluator.isLabelName(label) else {
            throw PromQLError(.execution, "invalid label name in histogram_quantiles(): \(label)")
        }
        var quantiles: [[Double]] = []
        for argument in arguments.dropFirst(2) {
            quantiles.append(try scalar(argument))
            noteQuantile(quantiles[quantiles.count - 1], at: argument)
        }
        let lists = try overHistograms(arguments[0], count: quantiles.count) { buckets, step, index in
            let result = ClassicHistogram.quantile(quantiles[index][step], buckets)
            return (result.value, result.forcedMonotonic)
        }
        var out: [Column] = []
        for (quantile, columns) in zip(quantiles, lists) {
            // The same number at all steps, but for one that is computed from the time.
            let isOne = quantile.allSatisfy { $0 == quantile[0] }
            let names = isOne ? [GoFloat.openMetrics(quantile[0])] : quantile.map { GoFloat.openMetrics($0) }
            for name in Set(names).sorted() {
                for column in columns {
                    guard column.labels[label] == nil else {
                        throw PromQLError(.execution, "the label \(label) is there already, in \(column.labels)")
                    }
                    var labelled = column
                    labelled.labels[label] = name
                    if !isOne {
                        for step in names.indices where names[step] != name { labelled.values[step] = .absent }
                    }
                    out.append(labelled)
                }
            }
        }
        return try unique(out)
    }

    mutating func histogramFraction(_ arguments: [Expression]) throws -> [Column] {
        let low = try scalar(arguments[0])
        let high = try scalar(arguments[1])
        return try overHistograms(arguments[2], count: 1) { buckets, step, _ in
            (ClassicHistogram.fraction(from: low[step], to: high[step], buckets), false)
        }[0]
    }

    /// Gathers the buckets of each histogram at each step: series whose labels differ in `le` alone.
    ///
    /// - Parameters:
    ///   - count: how many figures are made of each.
    ///   - body: makes the figure with a number of the buckets at a step.
    /// - Returns: the columns of each figure.
    private mutating func overHistograms(
        _ argument: Expression, count: Int, _ body: ([ClassicHistogram.Bucket], Int, Int) -> (Double?, Bool)
    ) throws -> [[Column]] {
        let columns = try vector(argument)
        var order: [Labels] = []
        var groups: [Labels: [(upper: Double, column: Int)]] = [:]
        for (index, column) in columns.enumerated() {
            guard let le = column.labels["le"], let upper = ClassicHistogram.bound(le) else {
                note(
                    .warning,
                    "PromQL warning: bucket label \"le\" is missing or has a malformed value of "
                        + Labels.quoted(column.labels["le"] ?? "") + Evaluator.ofMetric(column.labels),
                    at: argument)
                continue
            }
            let isLate = engine.features.contains(.delayedNameRemoval)
            let key = column.labels.removing(isLate ? ["le"] : ["le", Labels.metricName])
            if groups[key] == nil { order.append(key) }
            groups[key, default: []].append((upper, index))
        }
        var out = [[Column]](repeating: [], count: count)
        for key in order {
            let members = (groups[key] ?? []).sorted { $0.upper < $1.upper }
            var values = [[Double]](repeating: [Double](repeating: .absent, count: steps.count), count: count)
            var forced = false
            for step in 0..<steps.count {
                var buckets: [ClassicHistogram.Bucket] = []
                for member in members where !columns[member.column].values[step].isAbsent {
                    buckets.append(.init(upper: member.upper, count: columns[member.column].values[step]))
                }
                guard !buckets.isEmpty else { continue }
                for index in 0..<count {
                    let (value, wasForced) = body(buckets, step, index)
                    if let value { values[index][step] = value }
                    forced = forced || wasForced
                }
            }
            if forced {
                note(
                    .info,
                    "PromQL info: input to histogram_quantile needed to be fixed for monotonicity "
                        + "(see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
                        + Evaluator.ofMetric(key), at: argument)
            }
            for index in 0..<count {
                out[index].append(nameless(Column(labels: key, values: []), values[index]))
            }
        }
        return out
    }

    private static func ofMetric(_ labels: Labels) -> String {
        labels.name.isEmpty ? "" : " for metric name \(Labels.quoted(labels.name))"
    }
}

/// Histograms as series of cumulative buckets.
package enum ClassicHistogram {
    package struct Bucket: Sendable {
        package var upper: Double
        /// Of observations up to `upper`.
        package var count: Double

        package init(upper: Double, count: Double) {
            self.upper = upper
            self.count = count
        }
    }

    /// The bound that an `le` label names.
    package static func bound(_ text: String) -> Double? {
        switch text {
        case "+Inf", "Inf", "inf", "+inf": .infinity
        case "-Inf", "-inf": -.infinity
        default: Double(text)
        }
    }

    /// Joins buckets of the same bound and lifts those that hold less than a smaller one.
    ///
    /// - Returns: Whether a lift went beyond rounding.
    private static func prepare(_ buckets: inout [Bucket]) -> Bool {
        var joined: [Bucket] = []
        for bucket in buckets {
            if let last = joined.last, last.upper == bucket.upper {
                joined[joined.count - 1].count += bucket.count
            } else {
                joined.append(bucket)
            }
        }
        var forced = false
        for index in joined.indices.dropFirst() where !(joined[index].count >= joined[index - 1].count) {
            let difference = joined[index - 1].count - joined[index].count
            let scale = max(abs(joined[index - 1].count), abs(joined[index].count))
            if difference > 1e-12 * scale { forced = true }
            joined[index].count = joined[index - 1].count
        }
        buckets = joined
        return forced
    }

    /// The quantile, interpolated within its bucket, by the rules of Prometheus' `histogram_quantile`.
    ///
    /// - Parameter buckets: in ascending order of their bounds.
    /// - Returns: NaN where the last bucket is not `+Inf` or nothing was observed.
    package static func quantile(_ q: Double, _ input: [Bucket]) -> (value: Double, forcedMonotonic: Bool) {
        var buckets = input
        if q.isNaN { return (.nan, false) }
        if q < 0 { return (-.infinity, false) }
        if q > 1 { return (.infinity, false) }
        guard buckets.last?.upper == .infinity else { return (.nan, false) }
        let forced = prepare(&buckets)
        guard buckets.count >= 2, let total = buckets.last?.count, total != 0, !total.isNaN else {
            return (.nan, forced)
        }
        let rank = q * total
        let index = buckets.dropLast().firstIndex { $0.count >= rank } ?? buckets.count - 1
        if index == buckets.count - 1 { return (buckets[buckets.count - 2].upper, forced) }
        if index == 0, buckets[0].upper <= 0 { return (buckets[0].upper, forced) }
        let start = index == 0 ? 0 : buckets[index - 1].upper
        let below = index == 0 ? 0 : buckets[index - 1].count
        let inside = buckets[index].count - below
        return (start + (buckets[index].upper - start) * ((rank - below) / inside), forced)
    }

    /// The share of observations between two values, interpolated within buckets.
    static func fraction(from low: Double, to high: Double, _ input: [Bucket]) -> Double? {
        var buckets = input
        guard buckets.last?.upper == .infinity else { return .nan }
        _ = prepare(&buckets)
        guard let total = buckets.last?.count, total != 0, !low.isNaN, !high.isNaN else { return .nan }
        if low >= high { return 0 }
        func rank(_ value: Double) -> Double {
            if value == -.infinity { return 0 }
            if value == .infinity { return total }
            for (index, bucket) in buckets.enumerated() where value <= bucket.upper {
                let below = index == 0 ? 0 : buckets[index - 1].count
                if value == bucket.upper { return bucket.count }
                if bucket.upper == .infinity { return below }
                // The first bucket begins at zero where it can.
                let start = index == 0 ? (bucket.upper > 0 ? 0 : -.infinity) : buckets[index - 1].upper
                if start == -.infinity { return bucket.count }
                if value <= start { return below }
                return below + (bucket.count - below) * (value - start) / (bucket.upper - start)
            }
            return total
        }
        return (rank(high) - rank(low)) / total
    }
}
