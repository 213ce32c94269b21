import Foundation
import Series

extension Evaluator {
    mutating func evaluate(_ aggregate: Aggregate) throws -> [Column] {
        let columns = try vector(aggregate.inner)
        switch aggregate.operator {
        case .topk, .bottomk, .limitk, .limitRatio: return try choose(aggregate, columns)
        case .countValues: return try countValues(aggregate, columns)
        default: break
        }
        var q: [Double] = []
        if aggregate.operator == .quantile, let parameter = aggregate.parameter {
            q = try scalar(parameter)
            noteQuantile(q, at: parameter)
        }
        return groups(aggregate, columns).map { labels, members in
            var values = [Double](repeating: .absent, count: steps.count)
            var present: [Double] = []
            for step in 0..<steps.count {
                present.removeAll(keepingCapacity: true)
                for member in members {
                    let value = columns[member].values[step]
                    if !value.isAbsent { present.append(value) }
                }
                guard !present.isEmpty else { continue }
                values[step] = Evaluator.aggregate(aggregate.operator, present, q: q.isEmpty ? 0 : q[step])
            }
            return Column(labels: labels, values: values, dropsName: columns[members[0]].dropsName)
        }
    }

    private static func aggregate(_ op: AggregateOperator, _ values: [Double], q: Double) -> Double {
        switch op {
        case .sum: return CompensatedSum.sum(values)
        case .avg: return CompensatedSum.mean(values)
        case .count: return Double(values.count)
        case .group: return 1
        case .min: return values.dropFirst().reduce(values[0]) { $1 < $0 || $0.isNaN ? $1 : $0 }
        case .max: return values.dropFirst().reduce(values[0]) { $1 > $0 || $0.isNaN ? $1 : $0 }
        case .stddev: return CompensatedSum.variance(values).squareRoot()
        case .stdvar: return CompensatedSum.variance(values)
        case .quantile: return Quantile.of(q, values)
        case .topk, .bottomk, .limitk, .limitRatio, .countValues:
            preconditionFailure("these choose or count, and are evaluated elsewhere")
        }
    }

    private func groupLabels(_ aggregate: Aggregate, _ labels: Labels) -> Labels {
        aggregate.isWithout
            ? labels.removing(aggregate.grouping + [Labels.metricName]) : labels.keeping(aggregate.grouping)
    }

    /// The columns of each group by their indices, in the order in which the groups are met.
    private func groups(_ aggregate: Aggregate, _ columns: [Column]) -> [(Labels, [Int])] {
        var index: [Labels: Int] = [:]
        var groups: [(Labels, [Int])] = []
        for (number, column) in columns.enumerated() {
            let labels = groupLabels(aggregate, column.labels)
            if let known = index[labels] {
                groups[known].1.append(number)
            } else {
                index[labels] = groups.count
                groups.append((labels, [number]))
            }
        }
        return groups
    }

    /// `topk`, `bottomk`, `limitk` and `limit_ratio`: keep some of the series of each group, as they are.
    private mutating func choose(_ aggregate: Aggregate, _ columns: [Column]) throws -> [Column] {
        guard let parameter = aggregate.parameter else { return [] }
        let parameters = try scalar(parameter)
        for value in parameters {
            if value.isNaN {
                let what = aggregate.operator == .limitRatio ? "Ratio" : "Parameter"
                throw PromQLError(.execution, "\(what) value is NaN")
            }
            if aggregate.operator != .limitRatio {
                if value <= -0x1p63 {
                    throw PromQLError(.execution, "Scalar value \(GoFloat.text(value)) underflows int64")
                }
                if value >= 0x1p63 {
                    throw PromQLError(.execution, "Scalar value \(GoFloat.text(value)) overflows int64")
                }
            } else if value < -1 || value > 1 {
                note(
                    .warning,
                    "PromQL warning: ratio value should be between -1 and 1, got \(GoFloat.text(value)), "
                        + "capping to \(value < 0 ? "-1" : "1")", at: parameter)
            }
        }
        var kept = columns.map {
            Column(
                labels: $0.labels, values: [Double](repeating: .absent, count: steps.count), dropsName: $0.dropsName)
        }
        var order: [Int] = []
        for (_, members) in groups(aggregate, columns) {
            for step in 0..<steps.count {
                let present = members.filter { !columns[$0].values[step].isAbsent }
                let chosen: [Int]
                switch aggregate.operator {
                case .limitRatio:
                    chosen = present.filter { Evaluator.ratioAccepts(parameters[step], columns[$0].labels) }
                case .limitk:
                    chosen = Array(present.prefix(max(0, Int(parameters[step]))))
                default:
                    let descending = aggregate.operator == .topk
                    let sorted = present.sorted { left, right in
                        let (a, b) = (columns[left].values[step], columns[right].values[step])
                        if a.isNaN || b.isNaN { return !a.isNaN && b.isNaN }
                        return a == b ? left < right : descending ? a > b : a < b
                    }
                    chosen = Array(sorted.prefix(max(0, Int(parameters[step]))))
                }
                for member in chosen { kept[member].values[step] = columns[member].values[step] }
                if steps.count == 1 { order += chosen }
            }
        }
        if steps.count == 1 { return order.map { kept[$0] } }
        return kept.filter { $0.values.contains { !$0.isAbsent } }
    }

    /// Whether a series belongs to the sample of a ratio: by a hash of its labels, so that the samples of r and
    /// r - 1 complete each other.
    private static func ratioAccepts(_ ratio: Double, _ labels: Labels) -> Bool {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for label in labels.pairs {
            for byte in Array(label.name.utf8) + [0xff] + Array(label.value.utf8) + [0xff] {
                hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3
            }
        }
        // FNV's high bits change little with the last bytes: mix before use.
        hash = (hash ^ (hash >> 33)) &* 0xff51_afd7_ed55_8ccd
        hash ^= hash >> 33
        let position = Double(hash) / Double(UInt64.max)
        return ratio >= 0 ? position < ratio : position >= 1 + ratio
    }

    private mutating func countValues(_ aggregate: Aggregate, _ columns: [Column]) throws -> [Column] {
        guard let parameter = aggregate.parameter else { return [] }
        let label = try string(parameter)
        guard Evaluator.isLabelName(label) else {
            throw PromQLError(.execution, "invalid label name \(Labels.quoted(label))")
        }
        var index: [Labels: Int] = [:]
        var out: [Column] = []
        for column in columns {
            let group = groupLabels(aggregate, column.labels)
            for step in 0..<steps.count where !column.values[step].isAbsent {
                var labels = group
                labels[label] = GoFloat.text(column.values[step])
                let slot =
                    index[labels]
                    ?? {
                        out.append(Column(labels: labels, values: [Double](repeating: .absent, count: steps.count)))
                        index[labels] = out.count - 1
                        return out.count - 1
                    }()
                out[slot].values[step] = out[slot].values[step].isAbsent ? 1 : out[slot].values[step] + 1
            }
        }
        return out
    }
}
