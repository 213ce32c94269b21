import Series

/// Writes random expressions and random series for them, out of choices that somebody else makes: a seeded generator in
/// a test, the bytes of a fuzzer.
package struct ExpressionGenerator {
    /// A number of 0..<n.
    private let choose: (Int) -> Int

    package init(choose: @escaping (Int) -> Int) { self.choose = choose }

    private func pick<T>(_ list: [T]) -> T { list[choose(list.count)] }

    // MARK: Series

    /// The time of the series: from 0 to this.
    package static let endMs: Int64 = 1_800_000

    /// Gauges `a` and `b`, a counter `c`, a histogram `h_bucket`; with gaps, resets, ends and irregular times.
    package func series() -> [SeriesSamples] {
        var result: [SeriesSamples] = []
        for name in ["a", "b"] {
            for x in 1...2 {
                for y in 1...(name == "a" ? 2 : 1) where choose(8) > 0 {
                    var labels: Labels = ["__name__": name, "x": "\(x)"]
                    if name == "a" || choose(2) == 0 { labels["y"] = "\(y)" }
                    result.append(samples(labels) { _ in Double(choose(41)) / 4 - 3 })
                }
            }
        }
        for x in 1...2 {
            result.append(samples(["__name__": "c", "x": "\(x)"]) { $0 + Double(choose(16) * choose(3)) })
            var rates = 0.0
            for bound in ["0.5", "1", "2.5", "+Inf"] {
                rates += Double(choose(4))
                let rate = rates
                result.append(
                    samples(["__name__": "h_bucket", "x": "\(x)", "le": bound], isRegular: true) { $0 + rate })
            }
        }
        return result.filter { !$0.values.isEmpty }.sorted { $0.labels < $1.labels }
    }

    private func samples(
        _ labels: Labels, isRegular: Bool = false, _ next: (Double) -> Double
    ) -> SeriesSamples {
        var result = SeriesSamples(labels: labels)
        let stepMs: Int64 = isRegular ? 30_000 : pick([15_000, 30_000, 60_000, 120_000])
        var atMs = isRegular ? 30_000 : Int64(choose(30)) * 1000
        var value = 0.0
        while atMs <= ExpressionGenerator.endMs {
            value = next(value)
            switch isRegular ? 9 : choose(40) {
            case 0: atMs += Int64(1 + choose(8)) * 60_000
            case 1: value = 0
            case 2:
                result.timestampsMs.append(atMs)
                result.values.append(staleMarker)
                atMs += stepMs
                continue
            case 3: atMs += Int64(choose(5000))
            default: break
            }
            result.timestampsMs.append(atMs)
            result.values.append(value)
            atMs += stepMs
        }
        return result
    }

    // MARK: Expressions

    /// An expression that gives a vector.
    package func vector(_ depth: Int) -> String {
        guard depth > 0 else { return choose(3) == 0 ? overTime() : selector() + shift() }
        switch choose(12) {
        case 0: return aggregation(depth)
        case 1:
            return
                "\(pick(["abs", "ceil", "floor", "exp", "ln", "log2", "sqrt", "sgn", "round", "sort", "hour"]))(\(vector(depth - 1)))"
        case 2: return overTime()
        case 3: return "(\(vector(depth - 1)) \(pick(Self.operators)) \(scalar()))"
        case 4: return "(\(scalar()) \(pick(Self.operators)) \(vector(depth - 1)))"
        case 5: return "(\(vector(depth - 1)) \(pick(Self.operators)) \(matching()) \(vector(depth - 1)))"
        case 6:
            return
                "(\(vector(depth - 1)) \(pick(["and", "or", "unless"])) \(pick(["", "on (x)", "ignoring (y)", "on ()"])) \(vector(depth - 1)))"
        case 7:
            let side = pick(["group_left", "group_left (y)", "group_right", "group_right (y)"])
            let (many, one) = (vector(depth - 1), "sum by (x) (\(vector(depth - 1)))")
            let (left, right) = side.hasPrefix("group_left") ? (many, one) : (one, many)
            return "(\(left) \(pick(Self.operators)) on (x) \(side) \(right))"
        case 11:
            let twice = aggregation(depth)
            return "(\(twice) \(pick(["+", "and", "or"])) \(twice))"
        case 8:
            return "\(pick(Self.windowed))(\(subquery(depth)))"
        case 9:
            return pick([
                "clamp(\(vector(depth - 1)), 0, 3)", "clamp_min(\(vector(depth - 1)), 1)",
                "clamp_max(\(vector(depth - 1)), 2)", "round(\(vector(depth - 1)), 0.5)", "-\(vector(depth - 1))",
                "label_replace(\(vector(depth - 1)), \"z\", \"$1-z\", \"x\", \"(.*)\")",
                "label_replace(\(vector(depth - 1)), \"x\", \"1\", \"x\", \"2\")",
                "label_join(\(vector(depth - 1)), \"z\", \"/\", \"x\", \"y\")", "absent(\(vector(depth - 1)))",
                "absent(\(selector()))", "absent_over_time(\(selector())[2m])", "vector(\(scalar()))",
                "quantile_over_time(\(pick(["0.3", "0", "1", "-1"])), \(selector())[\(range())])",
                "predict_linear(\(selector())[\(range())]\(shift()), 60)",
                "(\(selector()) % \(pick(["2", "-3", "0.5", "0", "time()", matching() + " a"])))",
            ])
        default:
            let inner = pick([
                "h_bucket", "sum by (le) (h_bucket)", "rate(h_bucket[\(range())])",
                "sum by (x, le) (increase(h_bucket[5m]))",
            ])
            return "histogram_quantile(\(pick(["0.5", "0.9", "0", "1", "0.25", "2"])), \(inner))"
        }
    }

    /// Without `%`, which stands in ``vector(_:)`` between exact numbers alone: where it jumps, the last bit of a rounded
    /// operand decides the whole result, and two right evaluators may differ.
    private static let operators = [
        "+", "-", "*", "/", "^", "==", "!=", ">", "<", ">=", "<=", "== bool", "> bool", "<= bool", "atan2",
    ]
    private static let windowed = [
        "rate", "increase", "delta", "irate", "idelta", "deriv", "changes", "resets", "avg_over_time", "sum_over_time",
        "min_over_time", "max_over_time", "count_over_time", "last_over_time", "present_over_time", "stddev_over_time",
        "stdvar_over_time",
    ]

    private func selector() -> String {
        pick([
            "a", "a", "b", "c", "c", "h_bucket", "a{x=\"1\"}", "a{y!=\"1\"}", "b{x=~\"1|2\"}", "c{x!~\"2\"}",
            "{__name__=~\"a|b\"}", "none", "a{y=\"\"}",
        ])
    }

    private func shift() -> String {
        pick(["", "", "", "", " offset 1m", " offset -90s", " @ 600", " @ start()", " @ end()", " @ 900 offset 45s"])
    }

    private func range() -> String { pick(["45s", "1m", "2m", "5m", "7m30s", "30m"]) }

    private func overTime() -> String { "\(pick(Self.windowed))(\(selector())[\(range())]\(shift()))" }

    private func subquery(_ depth: Int) -> String {
        "(\(vector(depth - 1)))[\(pick(["2m", "5m", "8m"])):\(pick(["", "30s", "1m", "50s"]))]\(shift())"
    }

    private func scalar() -> String {
        pick(["2", "0.5", "-1", "3.25", "time()", "pi()", "scalar(a{x=\"1\", y=\"1\"})", "(1 + 2)", "(3 > bool 2)"])
    }

    private func matching() -> String { pick(["", "", "on (x)", "ignoring (y)", "on (x, y)", "on ()"]) }

    private func aggregation(_ depth: Int) -> String {
        let by = pick(["", "", " by (x)", " by (y)", " by (x, y)", " without (x)", " without ()", " by (__name__)"])
        let inner = vector(depth - 1)
        return pick([
            "sum\(by) (\(inner))", "avg\(by) (\(inner))", "count\(by) (\(inner))", "min\(by) (\(inner))",
            "max\(by) (\(inner))", "group\(by) (\(inner))", "stddev\(by) (\(inner))", "stdvar\(by) (\(inner))",
            "quantile\(by) (0.4, \(inner))", "count_values\(by) (\"v\", \(inner))", "topk\(by) (2, \(inner))",
            "bottomk\(by) (1, \(inner))",
        ])
    }
}
