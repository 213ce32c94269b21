import PromQL
import Series
import TestSupport
import Testing

/// Aggregations over so many series a group that all groups are made in one pass.
@Suite struct ManySeriesTests {
    private static let steps: Int64 = 20

    /// Series of three groups, mixed as a fleet's are, some of them not there all the time.
    private static func store(_ random: inout SeededRandom) -> MemorySeries {
        let store = MemorySeries()
        for series in 0..<240 {
            let id = store.ids(for: [["__name__": "x", "group": "\(series * 7 % 3)", "n": "\(series)"]])[0]
            var batch = SampleBatch()
            for step in 0..<steps where Int.random(in: 0..<5, using: &random) > 0 {
                batch.append(id, timestampMs: step * 600_000, value: Double.random(in: -1000...1000, using: &random))
            }
            _ = store.append(batch)
        }
        return store
    }

    /// Each group is what the same aggregation makes of its series alone.
    @Test(arguments: ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "topk(3,", "bottomk(3,"])
    func groups_areWhatTheirSeriesGiveAlone(_ function: String) throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        let store = Self.store(&random)
        func ask(_ text: String) throws -> [Labels: SeriesSamples] {
            let result = try QueryEngine().range(
                text, startMs: 0, endMs: (Self.steps - 1) * 600_000, stepMs: 600_000, source: store)
            guard case .matrix(let matrix) = result.value else { return [:] }
            return Dictionary(uniqueKeysWithValues: matrix.map { ($0.labels, $0) })
        }
        func aggregation(_ selector: String) -> String {
            let parts = function.split(separator: "(")
            return parts.count == 1
                ? "\(function) by (group) (\(selector))" : "\(parts[0]) by (group) (\(parts[1]) \(selector))"
        }
        let together = try ask(aggregation("x"))
        var alone: [Labels: SeriesSamples] = [:]
        for group in 0..<3 { alone.merge(try ask(aggregation("x{group=\"\(group)\"}"))) { $1 } }
        #expect(Set(together.keys) == Set(alone.keys) && alone.count >= 3, "seed \(seed)")
        for (labels, one) in alone {
            let other = together[labels]
            #expect(other?.timestampsMs == one.timestampsMs, "seed \(seed)")
            for (a, b) in zip(one.values, other?.values ?? []) {
                #expect(abs(a - b) <= 1e-9 * max(1, abs(a)), "seed \(seed): \(labels)")
            }
        }
    }
}
