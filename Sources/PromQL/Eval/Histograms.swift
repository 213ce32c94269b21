import Foundation
import Series

extension Evaluator {
    mutating func histogramQuantile(_ arguments: [Expression]) throws -> [Column] {
        let q = try scalar(arguments[0])
        noteQuantile(q, at: arguments[0])
        return try overHistograms(arguments[1], count: 1) { buckets, step, _ in
            let result = ClassicHistogram.quantile(q[step], &buckets)
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
        let lists = try overHistograms(arguments[0], count: quantiles.count) { [quantiles] buckets, step, index in
            let result = ClassicHistogram.quantile(quantiles[index][step], &buckets)
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
            (ClassicHistogram.fraction(from: low[step], to: high[step], &buckets), false)
        }[0]
    }

    /// Gathers the buckets of each histogram at each step: series whose labels differ in `le` alone.
    ///
    /// - Parameters:
    ///   - count: how many figures are made of each.
    ///   - body: makes the figure with a number of the buckets at a step.
    /// - Returns: the columns of each figure.
    private mutating func overHistograms(
        _ argument: Expression, count: Int,
        _ body: @escaping @Sendable (inout [ClassicHistogram.Bucket], Int, Int) -> (Double?, Bool)
    ) throws -> [[Column]] {
        let stream = try stream(argument)
        let isLate = engine.features.contains(.delayedNameRemoval)
        var index: [Labels: Int] = [:]
        var groups: [(labels: Labels, members: [Int])] = []
        var bounds = [Double](repeating: .nan, count: stream.heads.count)
        for (place, head) in stream.heads.enumerated() {
            guard let le = head.labels["le"], let upper = ClassicHistogram.bound(le) else {
                note(
                    .warning,
                    "PromQL warning: bucket label \"le\" is missing or has a malformed value of "
                        + Labels.quoted(head.labels["le"] ?? "") + Evaluator.ofMetric(head.labels),
                    at: argument)
                continue
            }
            bounds[place] = upper
            let key = head.labels.removing(isLate ? ["le"] : ["le", Labels.metricName])
            let group =
                index[key]
                ?? {
                    groups.append((key, []))
                    index[key] = groups.count - 1
                    return groups.count - 1
                }()
            groups[group].members.append(place)
        }
        for group in groups.indices { groups[group].members.sort { bounds[$0] < bounds[$1] } }
        let (stepCount, uppers) = (steps.count, bounds)
        let results = try stream.fold(
            groups.map(\.members), splits: false, start: { _ in [(upper: Double, values: [Double])]() },
            add: { $0.append((uppers[$1], Array($2))) }, merge: { $0 += $1 },
            finish: { _, columns in
                var figures = [[Double]](repeating: [Double](repeating: .absent, count: stepCount), count: count)
                var isForced = false
                var buckets: [ClassicHistogram.Bucket] = []
                for step in 0..<stepCount {
                    for index in 0..<count {
                        buckets.removeAll(keepingCapacity: true)
                        for column in columns where !column.values[step].isAbsent {
                            buckets.append(.init(upper: column.upper, count: column.values[step]))
                        }
                        guard !buckets.isEmpty else { break }
                        let (value, wasForced) = body(&buckets, step, index)
                        if let value { figures[index][step] = value }
                        isForced = isForced || wasForced
                    }
                }
                return (figures: figures, isForced: isForced)
            })
        var out = [[Column]](repeating: [], count: count)
        for (group, result) in results {
            let key = groups[group].labels
            if result.isForced {
                note(
                    .info,
                    "PromQL info: input to histogram_quantile needed to be fixed for monotonicity "
                        + "(see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
                        + Evaluator.ofMetric(key), at: argument)
            }
            for index in 0..<count where result.figures[index].contains(where: { !$0.isAbsent }) {
                out[index].append(
                    Column(
                        labels: isLate ? key : key.withoutName, values: result.figures[index], dropsName: isLate))
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
        var kept = 0
        for index in buckets.indices.dropFirst() {
            if buckets[kept].upper == buckets[index].upper {
                buckets[kept].count += buckets[index].count
            } else {
                kept += 1
                buckets[kept] = buckets[index]
            }
        }
        buckets.removeLast(max(0, buckets.count - kept - 1))
        var forced = false
        for index in buckets.indices.dropFirst() where !(buckets[index].count >= buckets[index - 1].count) {
            let difference = buckets[index - 1].count - buckets[index].count
            let scale = max(abs(buckets[index - 1].count), abs(buckets[index].count))
            if difference > 1e-12 * scale { forced = true }
            buckets[index].count = buckets[index - 1].count
        }
        return forced
    }

    /// The quantile, interpolated within its bucket, by the rules of Prometheus' `histogram_quantile`.
    ///
    /// - Parameter buckets: in ascending order of their bounds; buckets of the same bound are joined, and those that hold
    ///   less than a smaller one lifted.
    /// - Returns: NaN where the last bucket is not `+Inf` or nothing was observed.
    package static func quantile(_ q: Double, _ buckets: inout [Bucket]) -> (value: Double, forcedMonotonic: Bool) {
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
    static func fraction(from low: Double, to high: Double, _ buckets: inout [Bucket]) -> Double? {
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
