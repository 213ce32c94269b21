import Cluster
import Comparison
import Foundation
import Series
import StrictYAML
import TestSupport
import Testing

private let minute: Int64 = 60_000

/// What is the same before and after an upgrade is told as worse as seldom as the p-value says, though somebody looks
/// every quarter of an hour.
@Suite struct FalseAlarmTests {
    private static let startMs: Int64 = 1_700_000_000_000
    private static let (before, after): (Int64, Int64) = (24 * 60, 6 * 60)
    private static let runs = 100

    /// In how many of the runs the p-value came under 0.01 at any look.
    ///
    /// - Parameter value: the next sample, after the one of a minute before.
    private func rejections(
        _ name: String, _ signal: String, seed: UInt64, _ value: (Double, inout SeededRandom) -> Double
    ) throws -> Int {
        let yaml = "signals:\n- {name: s, component: api, \(signal), critical: true, present_when: 'up{job=\"api\"}'}\n"
        let signals = try Signal.load(YAMLDocument(text: yaml, file: "signals.yaml"))
        var random = SeededRandom(seed: seed)
        var rejections = 0
        for _ in 0..<FalseAlarmTests.runs {
            let store = MemorySeries()
            let stepMs = FalseAlarmTests.startMs + FalseAlarmTests.before * minute
            let endMs = stepMs + FalseAlarmTests.after * minute
            var last = 0.0
            for atMs in stride(from: FalseAlarmTests.startMs, through: endMs, by: Int(minute)) {
                last = value(last, &random)
                let target: Labels = ["job": "api", "instance": "i"]
                store.append(
                    [(target.merging(["__name__": "up"]), 1), (target.merging(["__name__": name]), last)], atMs: atMs)
            }
            let step = UpgradeStep(
                atMs: stepMs, component: "api", instance: "i", node: nil, from: "v1.25.0", to: "v1.26.0")
            let upgrade = Upgrade(
                id: "u", from: "v1.25.0", to: "v1.26.0", startedMs: stepMs, finishedMs: stepMs, steps: [step],
                detectedBy: "metrics", rolledBackMs: nil)
            var tables = ComparisonTables()
            let looks = stride(from: stepMs + 15 * minute, through: endMs, by: Int(15 * minute))
            let isRejected = try looks.reduce(false) { known, nowMs in
                let assessment = try Comparison.assess(
                    ComparisonInput(
                        cluster: "lab", source: store, upgrade: upgrade, nowMs: nowMs,
                        baselineMs: FalseAlarmTests.before * minute, soakMs: FalseAlarmTests.after * minute,
                        signals: signals, ledger: [], logEvidence: { _ in [] }), tables: &tables)
                return known || assessment.signals.contains { $0.pValue ?? 1 <= 0.01 }
            }
            if isRejected { rejections += 1 }
        }
        return rejections
    }

    /// Four of a hundred and more come in one of fifty such tests at the level that is asked for, 0.012.
    private static let most = 3

    /// Each value has most of the one before: what an hour has in common is none of the upgrade's.
    @Test(arguments: [0.0, 0.9]) func levels_thatDependOnThoseBefore(dependence: Double) throws {
        let found = try rejections(
            "depth", "kind: gauge, expression: depth, unit: 1, floors: {relative: 1.1, absolute: 0.1}", seed: 26_11_27
        ) { last, random in
            let noise = (0..<12).reduce(-6) { sum, _ in sum + Double.random(in: 0..<1, using: &random) }
            return 20 + dependence * (last == 0 ? 0 : last - 20) + noise
        }
        #expect(found <= FalseAlarmTests.most)
    }

    /// With nobody beside to compare with, what was before is all there is, and it is known from few events only.
    @Test(arguments: [0.5, 6.0]) func events_againstTheTimeBefore(anHour: Double) throws {
        let found = try rejections(
            "restarts_total", "kind: rate, counter: restarts_total, unit: 1/s, floors: {relative: 1.25, absolute: 0}",
            seed: 26_11_28
        ) { last, random in last + (Double.random(in: 0..<60, using: &random) < anHour ? 1 : 0) }
        #expect(found <= FalseAlarmTests.most)
    }
}
