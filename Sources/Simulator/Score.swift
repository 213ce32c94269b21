import Comparison
import Foundation

/// How well a judge did on simulated upgrades.
///
/// Runs of scenarios whose verdict should be FAIL are faults; those for which it should be anything else are nulls. A
/// fault that is told before it began is a false alarm. What is `any` counts nowhere.
package struct Score: Sendable, Equatable {
    package var faults = 0
    package var nulls = 0
    package var truePositives = 0
    package var falsePositives = 0
    /// Nulls that failed at any look.
    package var failedNulls = 0
    /// Of faults that were found: those blamed on the right component, on a right batch, and how many of those blame one.
    package var rightComponents = 0
    package var rightBatches = 0
    package var batchesAsked = 0
    package var onsetErrors: [Double] = []
    /// Minutes from the fault to the first FAIL; infinite where it was not found.
    package var delays: [Double] = []
    /// Pages on nulls, and the days on which they could come.
    package var pages = 0
    package var nullDays = 0.0
    /// Nulls that should pass, and that did in the end.
    package var passDue = 0
    package var passed = 0
    /// Tests of nulls, and those that reject at the level 0.01.
    package var nullTests = 0
    package var nullRejections = 0
    /// Intervals of nulls, and those that hold no change.
    package var nullIntervals = 0
    package var nullIntervalsRight = 0
    /// How often each verdict came in the end, by what it should be.
    package var verdicts: [String: [String: Int]] = [:]

    /// - Parameter judge: one of those that the runs have.
    package init(_ runs: [ScenarioRun], judge: String = ScenarioRun.ours) {
        for run in runs {
            if let judged = run.judged[judge] { add(run, judged) }
        }
    }

    private mutating func add(_ run: ScenarioRun, _ judged: JudgedRun) {
        verdicts[run.expectation.rawValue, default: [:]][judged.verdict.rawValue, default: 0] += 1
        switch run.expectation {
        case .any: return
        case .fail:
            faults += 1
            let onset = run.onsetMs ?? run.upgradeMs
            if judged.pagesMs.contains(where: { $0 < onset }) { falsePositives += 1 }
            guard let found = judged.pagesMs.first(where: { $0 >= onset }) else {
                delays.append(.infinity)
                return
            }
            truePositives += 1
            delays.append(Double(found - onset) / 60_000)
            if let component = judged.blame?.component, run.components.contains(component) { rightComponents += 1 }
            if !run.batches.isEmpty {
                batchesAsked += 1
                if let batch = judged.blame?.batch, run.batches.contains(batch) { rightBatches += 1 }
            }
            if let told = judged.blame?.onsetMs { onsetErrors.append(Double(abs(told - onset)) / 60_000) }
        case .pass, .notFail, .blind:
            nulls += 1
            if !judged.pagesMs.isEmpty {
                failedNulls += 1
                falsePositives += 1
            }
            pages += judged.pagesMs.count
            nullTests += judged.pValues.count
            nullRejections += judged.rejected.count
            nullIntervals += judged.intervalsHoldNone.count
            nullIntervalsRight += judged.intervalsHoldNone.count - judged.changed.count
            nullDays += Double(run.endMs - run.upgradeMs) / 86_400_000
            if run.expectation == .pass {
                passDue += 1
                if judged.verdict == .pass { passed += 1 }
            }
        }
    }

    /// nil where there is nothing to divide by, as for all that follow.
    package var precision: Double? { Score.part(truePositives, truePositives + falsePositives) }
    package var recall: Double? { Score.part(truePositives, faults) }
    package var falseFailRate: Double? { Score.part(failedNulls, nulls) }
    package var pagesPerDay: Double? { nullDays > 0 ? Double(pages) / nullDays : nil }
    package var componentTop1: Double? { Score.part(rightComponents, truePositives) }
    package var batchTop1: Double? { Score.part(rightBatches, batchesAsked) }
    package var typeOneError: Double? { Score.part(nullRejections, nullTests) }
    package var intervalCoverage: Double? { Score.part(nullIntervalsRight, nullIntervals) }
    package var passAmongNulls: Double? { Score.part(passed, passDue) }
    /// Of the runs that should be BLIND, those that are in the end.
    package var blindRecall: Double? {
        let ends = verdicts[Scenario.Expectation.blind.rawValue] ?? [:]
        return Score.part(ends[Verdict.blind.rawValue] ?? 0, ends.values.reduce(0, +))
    }
    /// The median; what was not found counts as later than all.
    package var delayMinutes: Double? { Score.median(delays) }
    package var onsetErrorMinutes: Double? { Score.median(onsetErrors) }

    /// The interval of Wilson (1927) for a part, with 95 % confidence.
    package static func wilson(_ count: Int, of total: Int) -> ClosedRange<Double>? {
        guard total > 0 else { return nil }
        let (n, p, z) = (Double(total), Double(count) / Double(total), 1.959964)
        let middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        let half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)).squareRoot()
        return max(0, middle - half)...min(1, middle + half)
    }

    private static func part(_ count: Int, _ total: Int) -> Double? {
        total > 0 ? Double(count) / Double(total) : nil
    }

    private static func median(_ values: [Double]) -> Double? {
        guard !values.isEmpty else { return nil }
        let sorted = values.sorted()
        let middle = sorted.count / 2
        let median = sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
        return median.isFinite ? median : nil
    }
}
