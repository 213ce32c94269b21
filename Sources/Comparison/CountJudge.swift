import Foundation
import Series
import Statistics

/// The times of a judgement.
struct JudgedTime {
    /// What is compared with.
    var baseline: TimeSpan
    var nowMs: Int64
    var soakMs: Int64
    /// Only what went over with this batch is judged; nil: what went over with any.
    var batch: Int?
    /// What came in this time is left out on the side of what went over.
    var skipped: Range<Int64>?

    /// How much longer something takes, in words: a minute at least, a year at most.
    static func wait(_ ms: Double) -> String {
        let minutes = min(max((ms / 60_000).rounded(.up), 1), 365 * 1440)
        // Of days the minutes are no news.
        return TimeFormat.duration(ms: Int64(minutes < 1440 ? minutes : (minutes / 60).rounded(.up) * 60) * 60_000)
    }
}

/// What the comparison of one split came to.
struct Outcome {
    var status: SignalResult.Status = .inconclusive
    var before: SignalResult.Side?
    var after: SignalResult.Side?
    var effect: Effect?
    var needs: String?
    /// Of there being no more than half of the floors, however often somebody looks; nil where no test was made.
    var pValue: Double?
    var onsetMs: Int64?
    /// Whether it began before what is compared went over: then it is none of the upgrade's.
    var beganBefore = false
    /// Whether it began with no step, where no nodes wait to compare with, and may pass as it came: not worse yet.
    var isStray = false
    /// Whether it began with no step: then it is worse only because it lasts.
    var hasNoStep = false
    /// When something was that is none of the upgrade's; nil where nothing was.
    var stray: Range<Int64>?
    /// What was worse for a time and is over; nil where nothing was.
    var passed: (throughMs: Int64, side: SignalResult.Side, seen: Double)?
    /// Whether nodes were compared that went over one after another.
    var isAmongUnits = false
    /// Events before the upgrade, for signals that know of old trouble.
    var eventsBefore = 0.0
    /// Seconds or requests since.
    var exposureAfter = 0.0
    /// How much a batch has more than is due to it, by its number.
    var excess: [Int: Double] = [:]
    /// The units that have most of what is too much, if they are few among many.
    var units: [String] = []
    var timeline: [(atMs: Int64, value: Double)] = []

    /// Is no PASS while a part of it may be worse yet.
    mutating func holdUp(for part: Outcome) {
        guard part.isStray, status != .worse else { return }
        (isStray, status, needs) = (true, .inconclusive, part.needs)
    }
}

/// Judges counts of events: those that went over against those that did not yet, else against history.
///
/// Each bin with enough exposure on both sides is compared within itself: given its events, the share of those that went
/// over (Lindon and Malek 2022, with shares that change from batch to batch). Other bins are compared with the upper
/// limit of the rate before. Both go into one ``CountEProcess``, which may be looked at any time.
struct CountJudge {
    let counts: CountSorter
    let time: JudgedTime

    var table: SignalTable { counts.table }
    var cohorts: Cohorts { counts.cohorts }
    var signal: Signal { table.signal }
    var bins: Bins { table.bins }

    /// The least part of the exposure that makes controls.
    private static let leastShare = 0.1
    /// Larger p-values are not looked into.
    private static let smallP = 0.01
    /// The level at which PASS rejects a rate at the margin.
    private static let passLevel = 0.05
    /// The lengths of the blocks whose counts tell the dispersion.
    private static let blockMs: [Int64] = [60_000, 900_000, 3_600_000, 14_400_000]

    init(table: SignalTable, cohorts: Cohorts, time: JudgedTime, watched: [String: [Float]]) {
        counts = CountSorter(table: table, cohorts: cohorts, time: time, watched: watched)
        self.time = time
    }

    /// The same judgement without a time.
    private func without(_ skipped: Range<Int64>) -> CountJudge {
        var time = time
        time.skipped = skipped
        return CountJudge(table: table, cohorts: cohorts, time: time, watched: counts.watched)
    }

    // MARK: Judgement

    /// Judges one split of the table by its cells.
    ///
    /// - Parameters:
    ///   - level: the probability of a false alarm.
    ///   - seeksWorse: only whether it is worse is asked for: where it is not, the rest is left out.
    func judge(_ cells: [SignalTable.Cell], level: Double, seeksWorse: Bool = false) -> Outcome {
        var outcome = Outcome()
        outcome.isAmongUnits = cohorts.isStaggered
        if seeksWorse, !canBeWorse(cells, level: level) { return outcome }
        let tamed = counts.tamed(cells)
        let evidence = counts.sides(tamed)
        let (before, after) = (evidence.before, evidence.after())
        outcome.exposureAfter = after.seen
        guard before.seen > 0, after.seen > 0 else {
            outcome.needs =
                after.seen > 0 ? "nothing happened before the upgrade to compare with" : "nothing happened since"
            return outcome
        }
        let noise = Noise(history: dispersion(evidence), contrast: contrastDispersion(tamed))
        let test = test(evidence, noise, Nulls(signal, before, dispersion: noise.history, level: level))
        outcome.pValue = test.worse.pValue
        if seeksWorse, test.worse.pValue > max(level, CountJudge.smallP) { return outcome }
        // What is said of sizes is of the events as they were.
        let sides = counts.sides(cells)
        outcome.eventsBefore = sides.before.events
        outcome.before = side(sides.before)
        outcome.after = side(sides.after())
        outcome.effect = effect(sides, dispersion: max(dispersion(sides), contrastDispersion(cells) ?? 1))
        let onset = onset(evidence, through: test.peak, dispersion: noise.history)
        outcome.onsetMs = onset.map { cohorts.onsetMs(ofBin: $0, bins, signal, batch: time.batch) }
        outcome.timeline = timeline(sides)
        // What is none of the upgrade's speaks for nothing.
        var isStray = false
        if test.worse.pValue <= CountJudge.smallP, let onset,
            !beganWithStep(sides, cells, since: onset, peak: test.peak, dispersion: noise.history)
        {
            isStray = !lasts(sides, since: onset, dispersion: noise.history)
            outcome.hasNoStep = true
        }
        if isStray {
            outcome.pValue = nil
            let fromMs = bins.startMs(onset ?? 0)
            if test.worse.logMaximum >= -log(level) { outcome.stray = fromMs..<max(fromMs, bins.startMs(test.peak)) }
        }
        if isLarge(sides, since: onset ?? 0), isEnough(before, after), test.worse.logMaximum >= -log(level) {
            if isStray {
                outcome.isStray = true
                outcome.needs = cohorts.strayWords(sinceMs: outcome.onsetMs ?? time.nowMs, nowMs: time.nowMs)
            } else {
                outcome.status = .worse
                localize(&outcome, cells, rate: sides.before.rate, dispersion: noise.history)
            }
        } else if !isLarge(sides, since: 0), isWell(before, after, test, dispersion: noise.history) {
            outcome.status = .ok
        } else {
            outcome.needs = needs(before, after, dispersion: noise.history)
        }
        if outcome.isStray, time.skipped == nil, let stray = outcome.stray,
            time.nowMs - stray.upperBound >= Comparison.lastingMs
        {
            // It is over for as long as it would have had to last: what came beside it tells.
            let rest = without(stray).judge(cells, level: level, seeksWorse: seeksWorse)
            if rest.status == .worse { return rest }
            (outcome.isStray, outcome.status, outcome.pValue) = (rest.isStray, rest.status, rest.pValue)
            outcome.needs = rest.needs
        }
        if outcome.status != .worse, !outcome.isStray, test.worse.logMaximum >= -log(level), let onset {
            let then = sides.after(from: onset, to: test.peak)
            if then.events >= signal.minEvents, isLarge(sides.before.rate, then.rate) {
                outcome.passed = (bins.startMs(test.peak), side(then), then.seen)
            }
        }
        return outcome
    }

    /// Whether the units had clearly more events than before while they waited, and how many; nil where they had not.
    ///
    /// - Parameter fromMs: what was before is not looked at.
    func illness(_ cells: [SignalTable.Cell], fromMs: Int64) -> Outcome? {
        guard cohorts.isStaggered, signal.direction == .up else { return nil }
        let sides = counts.sides(counts.tamed(cells))
        let (before, waiting) = (sides.before, sides.waiting(from: bins.firstIndex(from: fromMs)))
        guard waiting.events >= signal.minEvents,
            let ratio = RateRatio.interval(
                before: before.events, exposureBefore: before.seen, after: waiting.events, exposureAfter: waiting.seen,
                dispersion: dispersion(sides), confidence: Comparison.confidence),
            ratio.estimate >= signal.halfFloor, ratio.low > 1,
            waiting.rate - before.rate >= signal.absoluteFloor / 2
        else { return nil }
        var outcome = Outcome()
        outcome.beganBefore = true
        outcome.isAmongUnits = true
        (outcome.before, outcome.after) = (side(before), side(waiting))
        (outcome.eventsBefore, outcome.exposureAfter) = (before.events, waiting.seen)
        outcome.effect = Effect(kind: .rateRatio, interval: ratio)
        return outcome
    }

    /// Whether there are enough events since the change for any finding: a cheap look before the others.
    ///
    /// An event adds at most the logarithm of the largest ratio to the evidence.
    func canBeWorse(_ cells: [SignalTable.Cell], level: Double) -> Bool {
        guard signal.direction == .up else { return true }
        return counts.events(cells).after >= max(signal.minEvents, -log(level) / log(20))
    }

    /// A rate, and of how many events or requests it is made.
    private func side(_ tally: Tally) -> SignalResult.Side {
        .init(value: tally.rate, n: counts.isInTime ? tally.events : tally.seen)
    }

    // MARK: Noise

    /// Variance over mean.
    private struct Noise {
        /// Of the counts of the time before.
        var history: Double
        /// Of the shares of two halves of the units; nil where there are no halves.
        var contrast: Double?
    }

    private var blocks: [Int] { CountJudge.blockMs.map { bins.count(ms: $0) } }

    private func dispersion(_ sides: CountSides) -> Double {
        RateRatio.largestDispersion(counts: sides.history, exposures: sides.historyExposure, blocks: blocks)
    }

    /// How much more than by chance the shares of two halves of the units differed before the upgrade.
    private func contrastDispersion(_ cells: [SignalTable.Cell]) -> Double? {
        guard cohorts.isStaggered else { return nil }
        let middle = cohorts.middleMs
        var early = [Double](repeating: 0, count: counts.baseline)
        var all = early
        for cell in cells {
            let isEarly = cohorts.change(of: table.units[cell.unit]).map { $0.lastMs <= middle } ?? false
            if isEarly { early.add(cell.sums, in: 0..<counts.baseline) }
            all.add(cell.sums, in: 0..<counts.baseline)
        }
        let share = early.reduce(0, +) / max(1, all.reduce(0, +))
        guard share > 0, share < 1 else { return nil }
        // About the share of each block: a binomial's variance is that of a count, less the share.
        return RateRatio.largestDispersion(counts: early, exposures: all, blocks: blocks, variance: 1 - share)
    }

    // MARK: Test

    /// What the test of a split rejects.
    private struct Nulls {
        /// Ratios, for units beside each other.
        var worseRatio: Double
        var wellRatio: Double
        /// Rates, against history.
        ///
        /// The limits of the rate before stand for its own uncertainty: more than the limit is
        /// more than before, and more than half of the floors over what it was.
        var worseRate: Double
        var wellRate: Double

        init(_ signal: Signal, _ before: Tally, dispersion: Double, level: Double) {
            // A tenth of the level is for the limit of the rate before.
            let most =
                RateRatio.upperLimit(
                    count: before.events / dispersion, exposure: before.seen, confidence: 1 - level / 10) * dispersion
            let middle = (before.events + 0.5) / before.seen
            let least =
                max(before.events - 1.65 * (before.events * dispersion).squareRoot(), before.events / 4) / before.seen
            switch signal.direction {
            case .up:
                worseRatio = max(signal.halfFloor, 1 + signal.absoluteFloor / 2 / middle)
                wellRatio = max(signal.relativeFloor, 1 + signal.absoluteFloor / middle)
                worseRate = max(most, before.rate * signal.halfFloor, before.rate + signal.absoluteFloor / 2)
                wellRate = max(least * signal.relativeFloor, least + signal.absoluteFloor)
            case .down:
                (worseRatio, wellRatio) = (1 / signal.halfFloor, 1 / signal.relativeFloor)
                (worseRate, wellRate) = (least / signal.halfFloor, most / signal.relativeFloor)
            }
        }
    }

    /// The evidence that there is more than half of the floors, and that there is less than the floors.
    private struct Test {
        var worse: CountEProcess
        var well: CountEProcess
        /// The bin after the one in which the evidence that it is worse was largest.
        var peak = 0
    }

    /// The part of a bin's exposure that is of what went over; nil where too few wait to compare with.
    func share(_ sides: CountSides, _ index: Int) -> Double? {
        let share = sides.treatedExposure[index] / (sides.treatedExposure[index] + sides.controlExposure[index])
        return share <= 1 - CountJudge.leastShare ? share : nil
    }

    private func test(_ sides: CountSides, _ noise: Noise, _ nulls: Nulls) -> Test {
        let isUp = signal.direction == .up
        var test = Test(
            worse: CountEProcess(
                nullRatio: nulls.worseRatio, alternative: isUp ? .more : .fewer,
                plannedBins: bins.count(ms: time.soakMs)),
            well: CountEProcess(nullRatio: nulls.wellRatio, alternative: isUp ? .fewer : .more))
        for index in 0..<counts.count where sides.treatedExposure[index] > 0 {
            let largest = test.worse.logMaximum
            let (treated, controls) = (sides.treated[index], sides.controls[index])
            if let share = share(sides, index) {
                let dispersion = noise.contrast ?? noise.history
                test.worse.dispersion = dispersion
                test.well.dispersion = dispersion
                test.worse.add(treated: treated, controls: controls, share: share)
                test.well.add(treated: treated, controls: controls, share: share)
            } else {
                test.worse.dispersion = noise.history
                test.well.dispersion = noise.history
                let exposure = sides.treatedExposure[index]
                test.worse.add(treated: treated, expected: exposure * nulls.worseRate / nulls.worseRatio)
                test.well.add(treated: treated, expected: exposure * nulls.wellRate / nulls.wellRatio)
            }
            if test.worse.logMaximum > largest { test.peak = index + 1 }
        }
        return test
    }

    /// Whether the difference is as large as the floors ask for.
    private func isLarge(_ sides: CountSides, since onset: Int) -> Bool {
        let (before, after) = (sides.before.rate, sides.after().rate)
        // What it is since it began: a late change is not thinned by the time before it.
        return isLarge(before, signal.direction == .up ? max(sides.after(from: onset).rate, after) : after)
    }

    func isLarge(_ before: Double, _ after: Double) -> Bool {
        switch signal.direction {
        case .up: after >= before * signal.relativeFloor && after - before >= signal.absoluteFloor
        case .down: after <= before / signal.relativeFloor && before - after >= signal.absoluteFloor
        }
    }

    private func isEnough(_ before: Tally, _ after: Tally) -> Bool {
        (signal.direction == .up ? after.events : before.events) >= signal.minEvents
    }

    /// Whether a rate at the margin is rejected.
    private func isWell(_ before: Tally, _ after: Tally, _ test: Test, dispersion: Double) -> Bool {
        let most =
            RateRatio.upperLimit(
                count: after.events / dispersion, exposure: after.seen, confidence: 1 - CountJudge.passLevel)
            * dispersion
        let isSmall = signal.direction == .up && most - before.rate < signal.absoluteFloor
        return isSmall || test.well.logMaximum >= -log(CountJudge.passLevel)
    }

    /// How much more data would decide, were the rate the same as before.
    private func needs(_ before: Tally, _ after: Tally, dispersion: Double) -> String {
        let seconds = time.nowMs - (cohorts.lastMs ?? time.nowMs)
        let hours = max(1 / 60, Double(seconds) / 3_600_000)
        let limit =
            RateRatio.upperLimit(
                count: after.events / dispersion, exposure: 1, confidence: 1 - CountJudge.passLevel) * dispersion
        if before.events == 0, signal.absoluteFloor > 0 {
            // It takes this much exposure until the bound on the rate is under the margin.
            let missing = limit / signal.absoluteFloor - after.seen
            let wait = JudgedTime.wait(missing / after.seen * hours * 3_600_000)
            return after.events == 0
                ? "no event so far; \(wait) more without one" : "about \(wait) more without an event"
        }
        let rate = (before.events + 0.5) / before.seen
        let margin = max(signal.relativeFloor, 1 + signal.absoluteFloor / rate)
        let due = rate * after.seen
        // What a rate so many times the one before takes: its events tell log(margin / ratio) nats each, less what comes
        // more often anyway.
        func missing(_ ratio: Double) -> Double? {
            let nats = ratio * log(ratio / margin) - ratio + margin
            let more = dispersion * log(Double(8) / CountJudge.passLevel) / nats - due
            return ratio < margin && more > 0 && more.isFinite && due > 0 ? more : nil
        }
        func wait(_ more: Double) -> String { JudgedTime.wait(more / due * hours * 3_600_000) }
        if let more = missing(1) {
            return "about \(Int(more.rounded(.up))) more events, which at the rate before take \(wait(more))"
        }
        // There are more than before, if not so many more: each tells less.
        let ratio = max(1, after.rate / rate)
        guard let more = missing(ratio) else {
            return "the rate is at its margin, and the interval too wide to say on which side; more time is needed"
        }
        return
            "the interval is still wider than the margin: about \(Int((more * ratio).rounded(.up))) more events, which "
            + "at the rate of now take \(wait(more))"
    }

    private func effect(_ sides: CountSides, dispersion: Double) -> Effect? {
        let (before, after) = (sides.before, sides.after())
        var (controls, treated, shares) = (0.0, 0.0, 0.0)
        for index in 0..<counts.count where sides.treatedExposure[index] > 0 {
            guard let share = share(sides, index) else { continue }
            controls += sides.controls[index]
            treated += sides.treated[index]
            shares += share * (sides.treated[index] + sides.controls[index])
        }
        // Mostly against controls, with the mean share of their bins; else against history.
        let share = shares / (controls + treated)
        // As wide as it must be to hold at every look, and narrowest at the soak's end.
        let confidence = AnytimeInterval.confidenceOfOneLook(
            count: Double(max(60_000, time.nowMs - (cohorts.lastMs ?? time.nowMs))),
            tightestAt: Double(max(1, time.soakMs)),
            confidence: Comparison.confidence)
        let interval =
            controls >= 1 && treated >= after.events / 2
            ? RateRatio.interval(
                before: controls, exposureBefore: 1 - share, after: treated, exposureAfter: share,
                dispersion: dispersion, confidence: confidence)
            : RateRatio.interval(
                before: before.events, exposureBefore: before.seen, after: after.events, exposureAfter: after.seen,
                dispersion: dispersion, confidence: confidence)
        return interval.map { Effect(kind: .rateRatio, interval: $0) }
    }

    // MARK: When and where

    /// The bin in which the rate stepped, by what came up to the peak of the evidence: what passed since hides nothing.
    private func onset(_ sides: CountSides, through peak: Int, dispersion: Double) -> Int? {
        var events = sides.treated
        var seen = sides.treatedExposure
        for index in 0..<counts.baseline where seen[index] == 0 {
            events[index] = sides.history[index]
            seen[index] = sides.historyExposure[index]
        }
        // What was there as soon as it could be looked for began with the step.
        let candidates = cohorts.startsMs(batch: time.batch).map { bins.firstIndex(from: signal.treatedFromMs($0)) }
        let end = peak > 0 ? peak : counts.count
        return ChangePoint.poissonStep(
            counts: Array(events[..<end]), exposures: Array(seen[..<end]), candidates: Set(candidates),
            drop: 3 * dispersion)
    }

    private func timeline(_ sides: CountSides) -> [(atMs: Int64, value: Double)] {
        (0..<counts.count).compactMap { index in
            let middle = bins.startMs(index) + bins.widthMs / 2
            if sides.treatedExposure[index] > 0 {
                return (middle, sides.treated[index] / sides.treatedExposure[index])
            }
            guard index < counts.baseline, sides.historyExposure[index] > 0 else { return nil }
            return (middle, sides.history[index] / sides.historyExposure[index])
        }
    }

    /// Finds what has most of what is too much: batches, and units where few have it.
    private func localize(
        _ outcome: inout Outcome, _ cells: [SignalTable.Cell], rate: Double, dispersion: Double
    ) {
        struct Suspect {
            var unit: String
            var excess = 0.0
            var change: Cohorts.Change?
            var cell: SignalTable.Cell
        }
        let suspects = cells.map { cell in
            let unit = table.units[cell.unit]
            var suspect = Suspect(unit: unit, change: cohorts.change(of: unit), cell: cell)
            let seen = counts.exposure(cell)
            for index in counts.ranges(of: unit).treated {
                if index < cell.sums.count { suspect.excess += Double(cell.sums[index]) }
                if index < seen.count { suspect.excess -= rate * Double(seen[index]) }
            }
            return suspect
        }
        for suspect in suspects {
            if let batch = suspect.change?.batch { outcome.excess[batch, default: 0] += suspect.excess }
        }
        let few = Concentration.fewest(suspects, excess: \.excess, name: \.unit)
        guard cohorts.isStaggered, !few.isEmpty else { return }
        if suspects.count >= 5 || few.count == 1, few.count * 5 <= max(5, cohorts.nodes.count) {
            outcome.units = few.map(\.unit)
        }
        // The events of the units that have them, over all time: had they come before their own change?
        var events = [Double](repeating: 0, count: counts.count)
        var seen = events
        for one in few {
            for (index, value) in one.cell.sums.prefix(events.count).enumerated() { events[index] += Double(value) }
            for (index, value) in counts.exposure(one.cell).prefix(seen.count).enumerated() {
                seen[index] += Double(value)
            }
        }
        let changes = few.compactMap(\.change)
        let candidates = changes.map { bins.firstIndex(from: signal.treatedFromMs($0)) }
        guard
            let onset = ChangePoint.poissonStep(
                counts: events, exposures: seen, candidates: Set(candidates), drop: 3 * dispersion)
        else { return }
        if !outcome.units.isEmpty { outcome.onsetMs = cohorts.onsetMs(ofBin: onset, bins, signal) }
        if let earliest = changes.map(\.firstMs).min() {
            outcome.beganBefore = bins.startMs(onset) + Comparison.vetoMs < earliest
        }
    }
}
