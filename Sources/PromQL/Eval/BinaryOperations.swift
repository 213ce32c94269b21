import Foundation
import Series

/// Operators on values and on columns.
enum BinaryMath {
    /// The value of an operator; comparisons give 1 or 0.
    @inline(__always)
    static func apply(_ op: BinaryOperator, _ a: Double, _ b: Double) -> Double {
        switch op {
        case .add: a + b
        case .subtract: a - b
        case .multiply: a * b
        case .divide: a / b
        case .modulo: fmod(a, b)
        case .power: pow(a, b)
        case .atan2: Foundation.atan2(a, b)
        case .equal: a == b ? 1 : 0
        case .notEqual: a != b ? 1 : 0
        case .greater: a > b ? 1 : 0
        case .less: a < b ? 1 : 0
        case .greaterOrEqual: a >= b ? 1 : 0
        case .lessOrEqual: a <= b ? 1 : 0
        case .and, .or, .unless: preconditionFailure("set operators work on series, not on values")
        }
    }

    static func columns(_ op: BinaryOperator, _ left: [Double], _ right: [Double]) -> [Double] {
        zip(left, right).map { apply(op, $0, $1) }
    }
}

extension Evaluator {
    func withScalar(
        _ binary: Binary, _ stream: ColumnStream, _ scalar: [Double], scalarOnLeft: Bool
    ) throws -> ColumnStream {
        let op = binary.operator
        guard op.isComparison, !binary.returnsBool else {
            return try nameless(stream) { values in
                for step in values.indices where !values[step].isAbsent {
                    let (a, b) = scalarOnLeft ? (scalar[step], values[step]) : (values[step], scalar[step])
                    values[step] = BinaryMath.apply(op, a, b)
                }
            }
        }
        return stream.map { values in
            for step in values.indices where !values[step].isAbsent {
                let (a, b) = scalarOnLeft ? (scalar[step], values[step]) : (values[step], scalar[step])
                if BinaryMath.apply(op, a, b) == 0 { values[step] = .absent }
            }
        }
    }

    mutating func matched(_ binary: Binary) throws -> [Column] {
        let left = try vector(binary.left)
        let right = try vector(binary.right)
        return binary.operator.isSet ? setOperation(binary, left, right) : try matched(binary, left, right)
    }

    private func signature(_ matching: VectorMatching, _ labels: Labels) -> Labels {
        matching.isOn ? labels.keeping(matching.labels) : labels.removing(matching.labels + [Labels.metricName])
    }

    private func bySignature(_ matching: VectorMatching, _ columns: [Column]) -> [Labels: [Int]] {
        var groups: [Labels: [Int]] = [:]
        for (index, column) in columns.enumerated() {
            groups[signature(matching, column.labels), default: []].append(index)
        }
        return groups
    }

    private func setOperation(_ binary: Binary, _ left: [Column], _ right: [Column]) -> [Column] {
        /// At which steps any series of each group is there.
        func presence(_ columns: [Column]) -> [Labels: [Bool]] {
            var present: [Labels: [Bool]] = [:]
            for column in columns {
                let key = signature(binary.matching, column.labels)
                for step in column.values.indices where !column.values[step].isAbsent {
                    present[key, default: [Bool](repeating: false, count: steps.count)][step] = true
                }
            }
            return present
        }
        /// The columns where the other side is there, or where it is not.
        func masked(_ columns: [Column], by present: [Labels: [Bool]], whereThere: Bool) -> [Column] {
            columns.compactMap { column in
                guard let mask = present[signature(binary.matching, column.labels)] else {
                    return whereThere ? nil : column
                }
                var masked = column
                for step in mask.indices where mask[step] != whereThere { masked.values[step] = .absent }
                return masked.values.contains { !$0.isAbsent } ? masked : nil
            }
        }
        switch binary.operator {
        case .and: return masked(left, by: presence(right), whereThere: true)
        case .unless: return masked(left, by: presence(right), whereThere: false)
        default:
            let added = masked(right, by: presence(left), whereThere: false)
            // A series may come from the left at one step and from the right at another.
            return (try? unique(left + added)) ?? left + added
        }
    }

    /// Arithmetic and comparison between the series of two vectors that match.
    private func matched(_ binary: Binary, _ left: [Column], _ right: [Column]) throws -> [Column] {
        let matching = binary.matching
        let swapped = matching.cardinality == .oneToMany
        let many = swapped ? right : left
        let one = swapped ? left : right
        let oneGroups = bySignature(matching, one)
        let filters = binary.operator.isComparison && !binary.returnsBool
        // `fill_left` is of the many side wherever that stands: Prometheus exchanges the operands of `group_right`, and not
        // their fills.
        let (manyFill, oneFill) = (matching.fillLeft, matching.fillRight)
        /// The result at a step; nil where a comparison does not hold.
        func result(_ mine: Double, _ other: Double) -> Double? {
            let (left, right) = swapped ? (other, mine) : (mine, other)
            let value = BinaryMath.apply(binary.operator, left, right)
            return !filters ? value : value == 0 ? nil : left
        }
        let isFilled = manyFill != nil || oneFill != nil
        try holdOne(oneGroups, of: one, against: isFilled ? nil : many, side: swapped ? "left" : "right")
        var claimed: [Labels: [Bool]] = [:]
        var out: [Column] = []
        for column in many {
            try control.check()
            let key = signature(matching, column.labels)
            let members = oneGroups[key] ?? []
            guard !members.isEmpty || oneFill != nil else { continue }
            var isTaken = claimed[key] ?? [Bool](repeating: false, count: steps.count)
            // A result's labels depend on which series of the one side is there at a step; none for a filled one.
            for member in members.map(Optional.some) + (oneFill == nil ? [] : [nil]) {
                var values = [Double](repeating: .absent, count: steps.count)
                var any = false
                for step in 0..<steps.count where !column.values[step].isAbsent {
                    let other: Double
                    if let member {
                        other = one[member].values[step]
                    } else {
                        other = members.contains { !one[$0].values[step].isAbsent } ? .absent : oneFill ?? .absent
                    }
                    guard !other.isAbsent else { continue }
                    if matching.cardinality == .oneToOne {
                        guard !isTaken[step] else {
                            throw PromQLError(
                                .execution,
                                "multiple matches for labels: many-to-one matching must be explicit "
                                    + "(group_left/group_right)")
                        }
                        isTaken[step] = true
                    }
                    guard let value = result(column.values[step], other) else { continue }
                    values[step] = value
                    any = true
                }
                if any {
                    let partner = member.map { one[$0].labels } ?? Labels()
                    out.append(
                        Column(
                            labels: resultLabels(binary, column.labels, partner), values: values,
                            dropsName: binary.returnsBool))
                }
            }
            if matching.cardinality == .oneToOne { claimed[key] = isTaken }
        }
        if let manyFill { out += try filled(manyFill, binary, many, one, oneGroups, result) }
        do {
            return try unique(out)
        } catch {
            throw PromQLError(
                .execution, "multiple matches for labels: grouping labels must ensure unique matches")
        }
    }

    /// The results for series of the one side that meet none of the many, which are filled in.
    private func filled(
        _ fill: Double, _ binary: Binary, _ many: [Column], _ one: [Column], _ oneGroups: [Labels: [Int]],
        _ result: (Double, Double) -> Double?
    ) throws -> [Column] {
        let manyGroups = bySignature(binary.matching, many)
        var out: [Column] = []
        for (key, members) in oneGroups.sorted(by: { $0.key < $1.key }) {
            for member in members {
                var values = [Double](repeating: .absent, count: steps.count)
                for step in 0..<steps.count where !one[member].values[step].isAbsent {
                    let isMet = (manyGroups[key] ?? []).contains { !many[$0].values[step].isAbsent }
                    if !isMet, let value = result(fill, one[member].values[step]) { values[step] = value }
                }
                guard values.contains(where: { !$0.isAbsent }) else { continue }
                out.append(
                    Column(
                        labels: resultLabels(binary, key, one[member].labels), values: values,
                        dropsName: binary.returnsBool))
            }
        }
        return out
    }

    /// Sees to it that no two series of the one side have the same labels to match by, at any step at which there is
    /// anything to match.
    ///
    /// - Parameter many: the other side; nil: there is always something, as where it is filled.
    private func holdOne(
        _ groups: [Labels: [Int]], of one: [Column], against many: [Column]?, side: String
    ) throws {
        let doubtful = groups.filter { $0.value.count > 1 }
        guard !doubtful.isEmpty else { return }
        var matters = [Bool](repeating: many == nil, count: steps.count)
        for column in many ?? [] {
            for step in 0..<steps.count where !column.values[step].isAbsent { matters[step] = true }
        }
        for (key, members) in doubtful.sorted(by: { $0.key < $1.key }) {
            for step in 0..<steps.count where matters[step] {
                let present = members.filter { !one[$0].values[step].isAbsent }
                guard present.count > 1 else { continue }
                let both = [one[present[1]].labels, one[present[0]].labels].sorted().map(\.braced)
                throw PromQLError(
                    .execution,
                    "found duplicate series for the match group \(key.braced) on the \(side) hand-side of the "
                        + "operation: [\(both[0]), \(both[1])];many-to-many matching not "
                        + "allowed: matching labels must be unique on one side")
            }
        }
    }

    private func resultLabels(_ binary: Binary, _ many: Labels, _ one: Labels) -> Labels {
        let matching = binary.matching
        var labels = many
        // A comparison changes no value, but for `bool`: that drops the name as a function does.
        let isLate = engine.features.contains(.delayedNameRemoval)
        if !binary.operator.isComparison || binary.returnsBool && !isLate { labels = labels.withoutMetadata }
        if matching.cardinality == .oneToOne {
            return matching.isOn ? labels.keeping(matching.labels) : labels.removing(matching.labels)
        }
        for name in matching.include { labels[name] = one[name] }
        return labels
    }
}
