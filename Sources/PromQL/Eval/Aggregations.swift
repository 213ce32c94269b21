import Foundation
import Series

extension Evaluator {
    mutating func evaluate(_ aggregate: Aggregate) throws -> [Column] {
        switch aggregate.operator {
        case .topk, .bottomk: return try ranked(aggregate)
        case .limitk, .limitRatio: return try limited(aggregate)
        case .countValues: return try countValues(aggregate, try vector(aggregate.inner))
        case .quantile: return try quantile(aggregate)
        default: break
        }
        let stream = try stream(aggregate.inner)
        let groups = groups(aggregate, stream.heads)
        let (op, count) = (aggregate.operator, steps.count)
        let columns = try stream.fold(
            groups.map(\.members), splits: true, start: { _ in Tally(op, steps: count) },
            add: { $0.add($2) }, merge: { $0.merge($1) }, finish: { $1.column() })
        if op == .avg, columns.contains(where: { $0.result == nil }) {
            // A sum overflowed: the mean is made of all values, by steps.
            let all = try gathered(stream, groups) { values, _ in CompensatedSum.mean(values) }
            return all
        }
        return columns.compactMap { group, values in
            guard let values, values.contains(where: { !$0.isAbsent }) else { return nil }
            return Column(
                labels: groups[group].labels, values: values, dropsName: stream.dropsName(groups[group].members))
        }
    }

    private mutating func quantile(_ aggregate: Aggregate) throws -> [Column] {
        guard let parameter = aggregate.parameter else { return [] }
        let q = try scalar(parameter)
        noteQuantile(q, at: parameter)
        let stream = try stream(aggregate.inner)
        return try gathered(stream, groups(aggregate, stream.heads)) { values, step in Quantile.of(q[step], values) }
    }

    /// What a function makes of all values of each group at each step.
    private func gathered(
        _ stream: ColumnStream, _ groups: [(labels: Labels, members: [Int])],
        _ body: @escaping @Sendable ([Double], Int) -> Double
    ) throws -> [Column] {
        let (control, most, count) = (control, engine.maxSamples, steps.count)
        return try stream.fold(
            groups.map(\.members), splits: false, start: { _ in [[Double]]() },
            add: { columns, _, values in
                try control.hold(count, most: most)
                columns.append(Array(values))
            }, merge: { $0 += $1 },
            finish: { group, columns in
                var values = [Double](repeating: .absent, count: count)
                var present: [Double] = []
                for step in 0..<count {
                    present.removeAll(keepingCapacity: true)
                    for column in columns where !column[step].isAbsent { present.append(column[step]) }
                    if !present.isEmpty { values[step] = body(present, step) }
                }
                return Column(
                    labels: groups[group].labels, values: values, dropsName: stream.dropsName(groups[group].members))
            }
        ).map(\.result).filter { $0.values.contains { !$0.isAbsent } }
    }

    private func groupLabels(_ aggregate: Aggregate, _ labels: Labels) -> Labels {
        aggregate.isWithout
            ? labels.removing(aggregate.grouping + [Labels.metricName]) : labels.keeping(aggregate.grouping)
    }

    /// The places of each group's series, in the order in which the groups are met.
    private func groups(_ aggregate: Aggregate, _ heads: [ColumnHead]) -> [(labels: Labels, members: [Int])] {
        var index: [Labels: Int] = [:]
        var groups: [(labels: Labels, members: [Int])] = []
        for (number, head) in heads.enumerated() {
            let labels = groupLabels(aggregate, head.labels)
            if let known = index[labels] {
                groups[known].members.append(number)
            } else {
                index[labels] = groups.count
                groups.append((labels, [number]))
            }
        }
        return groups
    }

    // MARK: Series as they are

    /// How many series of a group are kept at each step.
    private mutating func limits(_ parameter: Expression) throws -> [Int] {
        try scalar(parameter).map { value in
            if value.isNaN { throw PromQLError(.execution, "Parameter value is NaN") }
            if value <= -0x1p63 {
                throw PromQLError(.execution, "Scalar value \(GoFloat.general(value)) underflows int64")
            }
            if value >= 0x1p63 {
                throw PromQLError(.execution, "Scalar value \(GoFloat.general(value)) overflows int64")
            }
            return max(0, Int(value))
        }
    }

    /// `topk` and `bottomk`: the series with the largest or smallest values of each group, at each step its own.
    private mutating func ranked(_ aggregate: Aggregate) throws -> [Column] {
        guard let parameter = aggregate.parameter else { return [] }
        let limits = try limits(parameter)
        let stream = try stream(aggregate.inner)
        let groups = groups(aggregate, stream.heads)
        let descending = aggregate.operator == .topk
        let (control, most) = (control, engine.maxSamples)
        let best = try stream.fold(
            groups.map(\.members), splits: true, start: { _ in Ranking(limits: limits, descending: descending) },
            add: { ranking, place, values in
                try control.hold(ranking.add(place, values), most: most)
            }, merge: { $0.merge($1) }, finish: { $1 })
        var kept: [Int: Column] = [:]
        var order: [Int] = []
        for (_, ranking) in best {
            for step in 0..<steps.count {
                for entry in ranking.entries(step) {
                    if kept[entry.place] == nil {
                        order.append(entry.place)
                        kept[entry.place] = Column(
                            labels: stream.heads[entry.place].labels,
                            values: [Double](repeating: .absent, count: steps.count),
                            dropsName: stream.heads[entry.place].dropsName)
                    }
                    kept[entry.place]?.values[step] = entry.value
                }
            }
        }
        return order.compactMap { kept[$0] }
    }

    /// `limitk` and `limit_ratio`: some series of each group.
    private mutating func limited(_ aggregate: Aggregate) throws -> [Column] {
        guard let parameter = aggregate.parameter else { return [] }
        if aggregate.operator == .limitRatio {
            let ratios = try scalar(parameter)
            for value in ratios {
                if value.isNaN { throw PromQLError(.execution, "Ratio value is NaN") }
                if value < -1 || value > 1 {
                    note(
                        .warning,
                        "PromQL warning: ratio value should be between -1 and 1, got \(GoFloat.general(value)), "
                            + "capping to \(value < 0 ? "-1" : "1")", at: parameter)
                }
            }
            let stream = try stream(aggregate.inner)
            let positions = stream.heads.map { Evaluator.ratioPosition($0.labels) }
            let chosen = ColumnStream(heads: stream.heads) { places, body in
                try stream.make(places) { place, values in
                    for step in values.indices where !Evaluator.accepts(ratios[step], positions[place]) {
                        values[step] = .absent
                    }
                    try body(place, values)
                }
            }
            return try collect(chosen)
        }
        let limits = try limits(parameter)
        let stream = try stream(aggregate.inner)
        let groups = groups(aggregate, stream.heads)
        let count = steps.count
        let (control, most) = (control, engine.maxSamples)
        return try stream.fold(
            groups.map(\.members), splits: false,
            start: { _ in (left: limits, columns: [Column]()) },
            add: { state, place, values in
                var column = Column(
                    labels: stream.heads[place].labels, values: [Double](repeating: .absent, count: count),
                    dropsName: stream.heads[place].dropsName)
                var any = false
                for step in 0..<count where !values[step].isAbsent && state.left[step] > 0 {
                    state.left[step] -= 1
                    column.values[step] = values[step]
                    any = true
                }
                if any {
                    try control.hold(count, most: most)
                    state.columns.append(column)
                }
            }, merge: { $0.columns += $1.columns }, finish: { $1.columns }
        ).flatMap(\.result)
    }

    /// Whether a series belongs to the sample of a ratio: by a hash of its labels, so that the samples of r and
    /// r - 1 complete each other.
    private static func accepts(_ ratio: Double, _ position: Double) -> Bool {
        ratio >= 0 ? position < ratio : position >= 1 + ratio
    }

    private static func ratioPosition(_ labels: Labels) -> Double {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for label in labels.pairs {
            for byte in Array(label.name.utf8) + [0xff] + Array(label.value.utf8) + [0xff] {
                hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3
            }
        }
        // FNV's high bits change little with the last bytes: mix before use.
        hash = (hash ^ (hash >> 33)) &* 0xff51_afd7_ed55_8ccd
        hash ^= hash >> 33
        return Double(hash) / Double(UInt64.max)
    }

    private mutating func countValues(_ aggregate: Aggregate, _ columns: [Column]) throws -> [Column] {
        guard let parameter = aggregate.parameter else { return [] }
        let label = try string(parameter)
        guard Evaluator.isLabelName(label) else {
            throw PromQLError(.execution, "invalid label name \(Labels.quoted(label))")
        }
        // The value becomes a label before the others are taken out.
        let isTakenOut = aggregate.isWithout && aggregate.grouping.contains(label)
        var index: [Labels: Int] = [:]
        var out: [Column] = []
        for column in columns {
            let group = groupLabels(aggregate, column.labels)
            for step in 0..<steps.count where !column.values[step].isAbsent {
                var labels = group
                if !isTakenOut { labels[label] = GoFloat.text(column.values[step]) }
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
