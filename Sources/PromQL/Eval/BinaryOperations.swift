import Foundation
import Series

extension Evaluator {
    mutating func evaluate(_ binary: Binary) throws -> Columns {
        let left = try evaluate(binary.left)
        let right = try evaluate(binary.right)
        switch (left, right) {
        case (.scalar(let a), .scalar(let b)):
            return .scalar(zip(a, b).map { Evaluator.apply(binary.operator, $0, $1) })
        case (.vector(let columns), .scalar(let scalar)):
            return .vector(try withScalar(binary, columns, scalar, scalarOnLeft: false))
        case (.scalar(let scalar), .vector(let columns)):
            return .vector(try withScalar(binary, columns, scalar, scalarOnLeft: true))
        case (.vector(let a), .vector(let b)):
            if binary.operator.isSet { return .vector(setOperation(binary, a, b)) }
            return .vector(try matched(binary, a, b))
        default:
            throw PromQLError(.execution, "a string has no operators")
        }
    }

    /// The value of an operator; comparisons give 1 or 0.
    private static func apply(_ op: BinaryOperator, _ a: Double, _ b: Double) -> Double {
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

    private func withScalar(
        _ binary: Binary, _ columns: [Column], _ scalar: [Double], scalarOnLeft: Bool
    ) throws -> [Column] {
        let filters = binary.operator.isComparison && !binary.returnsBool
        return try unique(
            columns.compactMap { column in
                var values = column.values
                var any = false
                for step in values.indices where !values[step].isAbsent {
                    let (a, b) = scalarOnLeft ? (scalar[step], values[step]) : (values[step], scalar[step])
                    let result = Evaluator.apply(binary.operator, a, b)
                    if !filters {
                        values[step] = result
                    } else if result == 0 {
                        values[step] = .absent
                        continue
                    }
                    any = true
                }
                guard any else { return nil }
                return filters
                    ? Column(labels: column.labels, values: values, dropsName: column.dropsName)
                    : nameless(column, values)
            })
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
        let rightGroups = bySignature(binary.matching, right)
        func isPresent(_ columns: [Column], _ members: [Int]?, _ step: Int) -> Bool {
            (members ?? []).contains { !columns[$0].values[step].isAbsent }
        }
        func masked(_ column: Column, _ keep: (Int) -> Bool) -> Column? {
            var values = column.values
            for step in values.indices where !values[step].isAbsent && !keep(step) { values[step] = .absent }
            return values.contains { !$0.isAbsent }
                ? Column(labels: column.labels, values: values, dropsName: column.dropsName) : nil
        }
        switch binary.operator {
        case .and:
            return left.compactMap { column in
                let members = rightGroups[signature(binary.matching, column.labels)]
                return masked(column) { isPresent(right, members, $0) }
            }
        case .unless:
            return left.compactMap { column in
                let members = rightGroups[signature(binary.matching, column.labels)]
                return masked(column) { !isPresent(right, members, $0) }
            }
        default:
            let leftGroups = bySignature(binary.matching, left)
            let added = right.compactMap { column in
                let members = leftGroups[signature(binary.matching, column.labels)]
                return masked(column) { !isPresent(left, members, $0) }
            }
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
        let oneSide = swapped ? "left" : "right"
        let oneGroups = bySignature(matching, one)
        var claimed: [Labels: [Bool]] = [:]
        var out: [Column] = []
        for column in many {
            let key = signature(matching, column.labels)
            guard let members = oneGroups[key] else { continue }
            // A result's labels depend on which series of the one side is there at a step.
            var results: [Labels: [Double]] = [:]
            var order: [Labels] = []
            for step in 0..<steps.count where !column.values[step].isAbsent {
                var partner: Int?
                for member in members where !one[member].values[step].isAbsent {
                    if let first = partner {
                        let both = [one[member].labels, one[first].labels].sorted().map(\.braced)
                        throw PromQLError(
                            .execution,
                            "found duplicate series for the match group \(key.braced) on the \(oneSide) hand-side of the "
                                + "operation: [\(both[0]), \(both[1])];many-to-many matching not "
                                + "allowed: matching labels must be unique on one side")
                    }
                    partner = member
                }
                guard let partner else { continue }
                if matching.cardinality == .oneToOne {
                    if claimed[key]?[step] ?? false {
                        throw PromQLError(
                            .execution,
                            "multiple matches for labels: many-to-one matching must be explicit "
                                + "(group_left/group_right)")
                    }
                    claimed[key, default: [Bool](repeating: false, count: steps.count)][step] = true
                }
                let mine = column.values[step]
                let other = one[partner].values[step]
                var value = Evaluator.apply(binary.operator, swapped ? other : mine, swapped ? mine : other)
                if binary.operator.isComparison, !binary.returnsBool {
                    if value == 0 { continue }
                    value = swapped ? other : mine
                }
                let labels = resultLabels(binary, column.labels, one[partner].labels)
                if results[labels] == nil {
                    results[labels] = [Double](repeating: .absent, count: steps.count)
                    order.append(labels)
                }
                results[labels]?[step] = value
            }
            out += order.map { Column(labels: $0, values: results[$0] ?? []) }
        }
        do {
            return try unique(out)
        } catch {
            throw PromQLError(
                .execution, "multiple matches for labels: grouping labels must ensure unique matches")
        }
    }

    private func resultLabels(_ binary: Binary, _ many: Labels, _ one: Labels) -> Labels {
        let matching = binary.matching
        var labels = many
        if !binary.operator.isComparison || binary.returnsBool { labels = labels.withoutName }
        if matching.cardinality == .oneToOne {
            return matching.isOn ? labels.keeping(matching.labels) : labels.removing(matching.labels)
        }
        for name in matching.include { labels[name] = one[name] }
        return labels
    }
}
