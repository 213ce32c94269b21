import Foundation
import Series

extension Evaluator {
    mutating func histogramQuantile(_ arguments: [Expression]) throws -> [Column] {
        let q = try scalar(arguments[0])
        noteQuantile(q, at: arguments[0])
        return try overHistograms(arguments[1], count: 1) { buckets, step, _ in
            ClassicHistogram.quantile(q[step], &buckets)
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
            ClassicHistogram.quantile(quantiles[index][step], &buckets)
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
            (ClassicHistogram.fraction(from: low[step], to: high[step], &buckets), nil)
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
        _ body: @escaping @Sendable (inout [ClassicHistogram.Bucket], Int, Int) -> (Double, ClassicHistogram.Lift?)
    ) throws -> [[Column]] {
        let stream = try stream(argument)
        let isLate = engine.features.contains(.delayedNameRemoval)
        var index: [Labels: Int] = [:]
        var groups: [(labels: Labels, members: [Int])] = []
        var bounds = [Double](repeating: .nan, count: stream.heads.count)
        var boundless: [Int] = []
        for (place, head) in stream.heads.enumerated() {
            guard let upper = head.labels["le"].flatMap({ ClassicHistogram.bound($0) }) else {
                boundless.append(place)
                continue
            }
            bounds[place] = upper
            let key = head.labels.removing(["le"])
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
        try stream.make(boundless[...]) { place, values in
            guard values.contains(where: { !$0.isAbsent }) else { return }
            let labels = stream.heads[place].labels
            note(
                .warning,
                "PromQL warning: bucket label \"le\" is missing or has a malformed value of "
                    + Labels.quoted(labels["le"] ?? "") + Evaluator.ofMetric(labels), at: argument)
        }
        let (steps, stepCount, uppers) = (steps, steps.count, bounds)
        let results = try stream.fold(
            groups.map(\.members), splits: false, start: { _ in [(upper: Double, values: [Double])]() },
            add: { $0.append((uppers[$1], Array($2))) }, merge: { $0 += $1 },
            finish: { _, columns in
                var figures = [[Double]](repeating: [Double](repeating: .absent, count: stepCount), count: count)
                var lifted: Annotation.Lifted?
                var buckets: [ClassicHistogram.Bucket] = []
                for step in 0..<stepCount {
                    var lift: ClassicHistogram.Lift?
                    for index in 0..<count {
                        buckets.removeAll(keepingCapacity: true)
                        for column in columns where !column.values[step].isAbsent {
                            buckets.append(.init(upper: column.upper, count: column.values[step]))
                        }
                        guard !buckets.isEmpty else { break }
                        let (value, new) = body(&buckets, step, index)
                        figures[index][step] = value
                        lift = lift ?? new
                    }
                    guard let lift else { continue }
                    let this = Annotation.Lifted(lift, atMs: steps.timeMs(step))
                    lifted = lifted?.merged(with: this) ?? this
                }
                return (figures: figures, lifted: lifted)
            })
        var out = [[Column]](repeating: [], count: count)
        for (group, result) in results {
            let key = groups[group].labels
            if let lifted = result.lifted {
                note(
                    .info,
                    "PromQL info: input to histogram_quantile needed to be fixed for monotonicity "
                        + "(see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
                        + (isLate ? Evaluator.ofMetric(key) : ""), at: argument, lifted: lifted)
            }
            for index in 0..<count where result.figures[index].contains(where: { !$0.isAbsent }) {
                out[index].append(
                    Column(
                        labels: isLate ? key : key.withoutMetadata, values: result.figures[index], dropsName: isLate))
            }
        }
        return isLate ? out : try out.map { try unique($0) }
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

    /// Which buckets held less than a smaller one, and by how much at most.
    package struct Lift: Sendable {
        var lowest = Double.infinity
        var highest = -Double.infinity
        var most = 0.0
    }

    /// Two counts are the same where they differ by less than this part of their sum.
    private static let tolerance = 1e-12

    /// The bound that an `le` label names; nil where it is no number.
    package static func bound(_ text: String) -> Double? { try? GoFloat.parse(text) }

    /// Joins buckets of the same bound.
    private static func join(_ buckets: inout [Bucket]) {
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
    }

    /// Makes what differs by rounding alone the same, in both directions, and lifts buckets that hold less than a smaller
    /// one.
    ///
    /// - Returns: nil where none was lifted.
    private static func straighten(_ buckets: inout [Bucket]) -> Lift? {
        var lift: Lift?
        guard var last = buckets.first?.count else { return nil }
        for index in buckets.indices.dropFirst() {
            let count = buckets[index].count
            if count == last { continue }
            if GoFloat.areAlmostEqual(last, count, tolerance) {
                buckets[index].count = last
            } else if count < last {
                buckets[index].count = last
                var all = lift ?? Lift()
                all.lowest = min(all.lowest, buckets[index].upper)
                all.highest = max(all.highest, buckets[index].upper)
                all.most = max(all.most, last - count)
                lift = all
            } else {
                last = count
            }
        }
        return lift
    }

    /// The quantile, interpolated within its bucket, by the rules of Prometheus' `histogram_quantile`.
    ///
    /// - Parameter buckets: in ascending order of their bounds; buckets of the same bound are joined, and those that hold
    ///   less than a smaller one lifted.
    /// - Returns: NaN where the last bucket is not `+Inf` or nothing was observed.
    package static func quantile(_ q: Double, _ buckets: inout [Bucket]) -> (value: Double, lift: Lift?) {
        if q.isNaN { return (.nan, nil) }
        if q < 0 { return (-.infinity, nil) }
        if q > 1 { return (.infinity, nil) }
        guard buckets.last?.upper == .infinity else { return (.nan, nil) }
        join(&buckets)
        let lift = straighten(&buckets)
        guard buckets.count >= 2, let total = buckets.last?.count, total != 0 else { return (.nan, nil) }
        let rank = q * total
        let index = buckets.dropLast().firstIndex { $0.count >= rank } ?? buckets.count - 1
        if index == buckets.count - 1 { return (buckets[buckets.count - 2].upper, lift) }
        if index == 0, buckets[0].upper <= 0 { return (buckets[0].upper, lift) }
        let start = index == 0 ? 0 : buckets[index - 1].upper
        let below = index == 0 ? 0 : buckets[index - 1].count
        let inside = buckets[index].count - below
        return (start + (buckets[index].upper - start) * ((rank - below) / inside), lift)
    }

    /// The share of observations between two values, interpolated within buckets, which are taken as they are.
    static func fraction(from low: Double, to high: Double, _ buckets: inout [Bucket]) -> Double {
        guard buckets.last?.upper == .infinity else { return .nan }
        join(&buckets)
        guard let total = buckets.last?.count, total != 0, !low.isNaN, !high.isNaN else { return .nan }
        if low >= high { return 0 }
        /// How many lie below a value; all of them at most, and where no bucket tells.
        func rank(_ value: Double) -> Double {
            var below = 0.0
            // The first bucket begins at zero where it can.
            var lower = buckets[0].upper > 0 ? 0 : -Double.infinity
            var rank = total
            for bucket in buckets {
                if lower >= value || bucket.upper > value {
                    // Within a bucket without a lower end nothing is interpolated: all of it lies below.
                    let isOpen = lower == -.infinity && value > lower
                    let part = lower >= value ? 0 : isOpen ? 1 : (value - lower) / (bucket.upper - lower)
                    rank = below + (bucket.count - below) * part
                    break
                }
                (below, lower) = (bucket.count, bucket.upper)
            }
            return rank > total ? total : rank
        }
        return (rank(high) - rank(low)) / total
    }
}
