import Series

/// What an aggregation knows of a group's values at each step: columns of partial results, which can be put together.
struct Tally: Sendable {
    private let op: AggregateOperator
    /// The sum, the extreme value, or the mean; `absent` where there is none yet.
    private var first: [Double]
    /// What rounding took from the sum, or the sum of squared distances from the mean.
    private var second: [Double]
    private var counts: [Double]
    private var sawInfinite = false

    init(_ op: AggregateOperator, steps: Int) {
        self.op = op
        let isExtreme = op == .min || op == .max
        let isCount = op == .count || op == .group
        first = isCount ? [] : [Double](repeating: isExtreme ? .absent : 0, count: steps)
        second = isExtreme || isCount ? [] : [Double](repeating: 0, count: steps)
        counts = isExtreme ? [] : [Double](repeating: 0, count: steps)
    }

    /// Adds the values of one series.
    mutating func add(_ values: UnsafeMutableBufferPointer<Double>) {
        switch op {
        case .count, .group:
            counts.withUnsafeMutableBufferPointer { counts in
                for step in values.indices where !values[step].isAbsent { counts[step] += 1 }
            }
        case .min: extreme(values) { $0 < $1 }
        case .max: extreme(values) { $0 > $1 }
        case .stddev, .stdvar:
            for step in values.indices where !values[step].isAbsent {
                // Welford 1962.
                counts[step] += 1
                let delta = values[step] - first[step]
                first[step] += delta / counts[step]
                second[step] += delta * (values[step] - first[step])
            }
        default:
            let isAverage = op == .avg
            first.withUnsafeMutableBufferPointer { sums in
                second.withUnsafeMutableBufferPointer { lost in
                    counts.withUnsafeMutableBufferPointer { counts in
                        for step in values.indices where !values[step].isAbsent {
                            CompensatedSum.add(values[step], to: &sums[step], &lost[step])
                            counts[step] += 1
                        }
                    }
                }
            }
            if isAverage, !sawInfinite { sawInfinite = values.contains { !$0.isAbsent && !$0.isFinite } }
        }
    }

    @inline(__always)
    private mutating func extreme(
        _ values: UnsafeMutableBufferPointer<Double>, _ isBetter: (Double, Double) -> Bool
    ) {
        first.withUnsafeMutableBufferPointer { best in
            for step in values.indices where !values[step].isAbsent {
                // Of what is there, a number is better than none; the marker of absence is not a number either.
                if best[step].isAbsent || isBetter(values[step], best[step]) || best[step].isNaN {
                    best[step] = values[step]
                }
            }
        }
    }

    /// Takes in what another part of the group gave.
    mutating func merge(_ other: Tally) {
        switch op {
        case .count, .group: for step in counts.indices { counts[step] += other.counts[step] }
        case .min, .max:
            var values = other.first
            values.withUnsafeMutableBufferPointer { add($0) }
        case .stddev, .stdvar:
            for step in counts.indices where other.counts[step] > 0 {
                // Chan, Golub and LeVeque 1979.
                let total = counts[step] + other.counts[step]
                let delta = other.first[step] - first[step]
                second[step] += other.second[step] + delta * delta * (counts[step] * other.counts[step] / total)
                first[step] += delta * (other.counts[step] / total)
                counts[step] = total
            }
        default:
            for step in counts.indices where other.counts[step] > 0 {
                CompensatedSum.add(other.first[step], to: &first[step], &second[step])
                CompensatedSum.add(other.second[step], to: &first[step], &second[step])
                counts[step] += other.counts[step]
            }
            sawInfinite = sawInfinite || other.sawInfinite
        }
    }

    /// The results; nil where the sum of an average is too large to be told.
    func column() -> [Double]? {
        switch op {
        case .min, .max: return first
        case .count: return counts.map { $0 > 0 ? $0 : .absent }
        case .group: return counts.map { $0 > 0 ? 1 : .absent }
        case .stdvar: return counts.indices.map { counts[$0] > 0 ? second[$0] / counts[$0] : .absent }
        case .stddev:
            return counts.indices.map { counts[$0] > 0 ? (second[$0] / counts[$0]).squareRoot() : .absent }
        default:
            var overflows = false
            let values = counts.indices.map { step -> Double in
                guard counts[step] > 0 else { return .absent }
                let sum = first[step].isInfinite ? first[step] : first[step] + second[step]
                guard op == .avg else { return sum }
                if !sum.isFinite, !sawInfinite { overflows = true }
                return sum / counts[step]
            }
            return overflows ? nil : values
        }
    }
}

/// The largest or smallest values of a group at each step, with the series that they are of.
struct Ranking: Sendable {
    struct Entry: Sendable {
        var place: Int
        var value: Double
    }

    private let limits: [Int]
    private let descending: Bool
    /// At each step, the best first; what is not a number comes last.
    private var best: [[Entry]]

    init(limits: [Int], descending: Bool) {
        self.limits = limits
        self.descending = descending
        best = [[Entry]](repeating: [], count: limits.count)
    }

    /// - Returns: how many entries there are more than before.
    mutating func add(_ place: Int, _ values: UnsafeMutableBufferPointer<Double>) -> Int {
        var more = 0
        for step in values.indices where !values[step].isAbsent {
            if insert(Entry(place: place, value: values[step]), step) { more += 1 }
        }
        return more
    }

    mutating func merge(_ other: Ranking) {
        for step in best.indices {
            for entry in other.best[step] { _ = insert(entry, step) }
        }
    }

    func entries(_ step: Int) -> [Entry] { best[step] }

    private func isBefore(_ a: Double, _ b: Double) -> Bool {
        if a.isNaN || b.isNaN { return !a.isNaN && b.isNaN }
        return descending ? a > b : a < b
    }

    private mutating func insert(_ entry: Entry, _ step: Int) -> Bool {
        let limit = limits[step]
        let count = best[step].count
        if count >= limit {
            guard limit > 0, isBefore(entry.value, best[step][count - 1].value) else { return false }
        }
        var (low, high) = (0, count)
        while low < high {
            let middle = (low + high) / 2
            if isBefore(entry.value, best[step][middle].value) { high = middle } else { low = middle + 1 }
        }
        best[step].insert(entry, at: low)
        guard count >= limit else { return true }
        best[step].removeLast()
        return false
    }
}
