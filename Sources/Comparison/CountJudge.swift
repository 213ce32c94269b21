import Foundation
import Series
import Statistics

/// The times of a judgement, and how sure it must be.
struct JudgedTime {
    /// What is compared with.
    var baseline: TimeSpan
    var nowMs: Int64
    var soakMs: Int64
    /// Only what went over with this batch is judged; nil: what went over with any.
    var batch: Int?
    /// The probability of a false alarm that each split of the signal has.
    var level: Double
}

/// What the comparison of one split came to.
struct Outcome {
    var status: SignalResult.Status = .inconclusive
    var before: SignalResult.Side?
    var after: SignalResult.Side?
    var effect: Effect?
    var needs: String?
    var onsetMs: Int64?
    /// Whether it began before what is compared went over: then it is none of the upgrade's.
    var beganBefore = false
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
}

/// Judges counts of events: those that went over against those that did not yet, else against history.
///
/// Each bin with enough exposure on both sides is compared within itself: given its events, the share of those that went
/// over (Lindon and Malek 2022, with shares that change from batch to batch). Other bins are compared with the upper
/// limit of the rate before. Both go into one ``CountEProcess``, which may be looked at any time.
struct CountJudge {
    let table: SignalTable
    let cohorts: Cohorts
    let time: JudgedTime
    /// Seconds by unit and bin, for events in time; empty for ratios, whose cells have their own exposure.
    private let watched: [String: [Float]]
    private let count: Int
    private let baseline: Int
    /// What all units have together before any is weighed by its own rate; nil for ratios.
    private var plain: Sides?

    /// Events and exposure by bin: of those that went over, of those that did not, and of the time before.
    private struct Sides {
        var treated: [Double]
        var treatedExposure: [Double]
        var controls: [Double]
        var controlExposure: [Double]
        var history: [Double]
        var historyExposure: [Double]

        init(_ count: Int, baseline: Int) {
            let none = [Double](repeating: 0, count: count)
            (treated, treatedExposure, controls, controlExposure) = (none, none, none, none)
            let before = [Double](repeating: 0, count: baseline)
            (history, historyExposure) = (before, before)
        }
    }

    private var signal: Signal { table.signal }
    private var bins: Bins { table.bins }

    /// The least part of the exposure that makes controls.
    private static let leastShare = 0.1
    /// What a unit's own rate is drawn to that of all by: so many expected events.
    private static let priorEvents = 5.0
    /// The level at which PASS rejects a rate at the margin.
    private static let passLevel = 0.05
    /// The lengths of the blocks whose counts tell the dispersion.
    private static let blockMs: [Int64] = [60_000, 900_000, 3_600_000, 14_400_000]

    init(table: SignalTable, cohorts: Cohorts, time: JudgedTime, watched: [String: [Float]]) {
        self.table = table
        self.cohorts = cohorts
        self.time = time
        self.watched = watched
        count = table.bins.complete(atMs: time.nowMs)
        baseline = min(count, table.bins.complete(atMs: time.baseline.throughMs))
        guard !watched.isEmpty else { return }
        var sides = Sides(count, baseline: baseline)
        for (unit, column) in watched { add(nil, column, unit, weight: 1, to: &sides) }
        plain = sides
    }

    // MARK: Sides

    /// The bins in which a unit is a control, and those from which on it is judged.
    private func places(_ unit: String) -> (controls: Range<Int>, treated: Range<Int>) {
        guard let change = cohorts.change(of: unit) else { return (0..<count, count..<count) }
        let controls = max(0, min(count, bins.complete(atMs: change.firstMs - Comparison.guardMs)))
        let isOther = time.batch.map { $0 != change.batch && change.batch != nil } ?? false
        let from = isOther ? .max : signal.treatedFromMs(change)
        let treated = from == .max ? count : min(count, max(controls, bins.firstIndex(from: from)))
        let end = change.untilMs == .max ? count : min(count, bins.complete(atMs: change.untilMs))
        return (0..<controls, treated..<max(treated, end))
    }

    private func add(_ events: [Float]?, _ exposure: [Float], _ unit: String, weight: Double, to sides: inout Sides) {
        let (controls, treated) = places(unit)
        let hasStaggered = cohorts.isStaggered
        for index in 0..<min(exposure.count, baseline) {
            sides.historyExposure[index] += weight * Double(exposure[index])
        }
        if hasStaggered, controls.upperBound > baseline {
            for index in baseline..<controls.upperBound where index < exposure.count {
                sides.controlExposure[index] += weight * Double(exposure[index])
            }
        }
        for index in treated where index < exposure.count {
            sides.treatedExposure[index] += weight * Double(exposure[index])
        }
        guard let events else { return }
        for index in 0..<min(events.count, baseline) { sides.history[index] += Double(events[index]) }
        if hasStaggered, controls.upperBound > baseline {
            for index in baseline..<controls.upperBound where index < events.count {
                sides.controls[index] += Double(events[index])
            }
        }
        for index in treated where index < events.count { sides.treated[index] += Double(events[index]) }
    }

    private func exposure(_ cell: SignalTable.Cell) -> [Float] {
        plain == nil ? cell.weights : watched[table.units[cell.unit]] ?? []
    }

    private func sides(_ cells: [SignalTable.Cell]) -> Sides {
        // Each unit is weighed by its own rate before, drawn to that of all where there is little to know it from.
        var events = 0.0
        var seen = plain.map { $0.historyExposure.reduce(0, +) } ?? 0
        let own = cells.map { cell -> (events: Double, seen: Double) in
            let before = cell.sums.prefix(baseline).reduce(0) { $0 + Double($1) }
            events += before
            let own = exposure(cell).prefix(baseline).reduce(0) { $0 + Double($1) }
            if plain == nil { seen += own }
            return (before, own)
        }
        let rate = seen > 0 ? events / seen : 0
        func weight(_ events: Double, _ seen: Double) -> Double {
            rate > 0 ? (events + CountJudge.priorEvents) / (rate * seen + CountJudge.priorEvents) : 1
        }
        var sides = plain ?? Sides(count, baseline: baseline)
        var quiet = 1.0
        if plain != nil, !watched.isEmpty {
            quiet = weight(0, seen / Double(watched.count))
            let scale = { (column: inout [Double]) in for index in column.indices { column[index] *= quiet } }
            scale(&sides.treatedExposure)
            scale(&sides.controlExposure)
            scale(&sides.historyExposure)
        }
        for (cell, before) in zip(cells, own) {
            let unit = table.units[cell.unit]
            let column = exposure(cell)
            let isKnown = plain != nil && watched[unit] != nil
            add(cell.sums, column, unit, weight: weight(before.events, before.seen) - (isKnown ? quiet : 0), to: &sides)
        }
        return sides
    }

    // MARK: Judgement

    /// Judges one split of the table by its cells.
    ///
    /// - Parameter seeksWorse: only whether it is worse is asked for: where it is not, the rest is left out.
    func judge(_ cells: [SignalTable.Cell], seeksWorse: Bool = false) -> Outcome {
        var outcome = Outcome()
        outcome.isAmongUnits = cohorts.isStaggered
        if seeksWorse, !canBeWorse(cells, &outcome) { return outcome }
        let sides = sides(cells)
        let eventsBefore = sides.history.reduce(0, +)
        let seenBefore = sides.historyExposure.reduce(0, +)
        let eventsAfter = sides.treated.reduce(0, +)
        let seenAfter = sides.treatedExposure.reduce(0, +)
        outcome.eventsBefore = eventsBefore
        outcome.exposureAfter = seenAfter
        if seenBefore > 0 {
            outcome.before = .init(value: eventsBefore / seenBefore, n: side(eventsBefore, seenBefore))
        }
        if seenAfter > 0 { outcome.after = .init(value: eventsAfter / seenAfter, n: side(eventsAfter, seenAfter)) }
        guard seenBefore > 0, seenAfter > 0 else {
            outcome.needs =
                seenAfter > 0 ? "nothing happened before the upgrade to compare with" : "nothing happened since"
            return outcome
        }
        let blocks = CountJudge.blockMs.map { bins.count(ms: $0) }
        let dispersion = RateRatio.largestDispersion(
            counts: sides.history, exposures: sides.historyExposure, blocks: blocks)
        let contrast = contrastDispersion(cells, blocks) ?? dispersion
        // The rate before at its upper limit, for a tenth of the level; in the middle for what is said of sizes.
        let most =
            RateRatio.upperLimit(
                count: eventsBefore / dispersion, exposure: seenBefore, confidence: 1 - time.level / 10) * dispersion
        let rate = (eventsBefore + 0.5) / seenBefore
        let sign = signal.direction
        let half = max(signal.halfFloor, 1 + signal.absoluteFloor / 2 / rate)
        let margin = max(signal.relativeFloor, 1 + signal.absoluteFloor / rate)
        let planned = bins.count(ms: time.soakMs)
        var worse = CountEProcess(
            nullRatio: sign == .up ? half : 1 / signal.halfFloor, alternative: sign == .up ? .more : .fewer,
            dispersion: dispersion, plannedBins: planned)
        var well = CountEProcess(
            nullRatio: sign == .up ? margin : 1 / signal.relativeFloor, alternative: sign == .up ? .fewer : .more,
            dispersion: dispersion)
        // Against history the limits of the rate before stand for its own uncertainty: more than the limit is more than
        // before, and more than half of the floors over what it was.
        let value = eventsBefore / seenBefore
        let lowRate =
            max(eventsBefore - 1.65 * (eventsBefore * dispersion).squareRoot(), eventsBefore / 4) / seenBefore
        let (nullOfWorse, nullOfWell) =
            sign == .up
            ? (
                max(most, value * signal.halfFloor, value + signal.absoluteFloor / 2),
                max(lowRate * signal.relativeFloor, lowRate + signal.absoluteFloor)
            ) : (lowRate / signal.halfFloor, most / signal.relativeFloor)
        let ofHistory = { (process: inout CountEProcess, index: Int, rate: Double) in
            process.dispersion = dispersion
            process.add(
                treated: sides.treated[index], expected: sides.treatedExposure[index] * rate / process.nullRatio)
        }
        var compared = (before: 0.0, after: 0.0, share: 0.0)
        var ofControls = 0.0
        var first: Int?
        for index in 0..<count where sides.treatedExposure[index] > 0 {
            if first == nil { first = index }
            let (treated, controls) = (sides.treated[index], sides.controls[index])
            let share =
                sides.treatedExposure[index] / (sides.treatedExposure[index] + sides.controlExposure[index])
            if share <= 1 - CountJudge.leastShare {
                worse.dispersion = contrast
                well.dispersion = contrast
                worse.add(treated: treated, controls: controls, share: share)
                well.add(treated: treated, controls: controls, share: share)
                compared.before += controls
                ofControls += treated
                compared.share += share * (treated + controls)
            } else {
                ofHistory(&worse, index, nullOfWorse)
                ofHistory(&well, index, nullOfWell)
            }
            compared.after += treated
        }
        if seeksWorse, worse.logMaximum < -log(time.level) { return outcome }
        outcome.effect = effect(
            sides, compared: compared, ofControls: ofControls, before: (eventsBefore, seenBefore),
            dispersion: max(dispersion, contrast))
        let onset = onset(sides)
        outcome.onsetMs = onset.map { cohorts.onsetMs(ofBin: $0, bins, signal) }
        outcome.timeline = timeline(sides)
        decide(
            &outcome, sides, worse: worse, well: well, rate: rate, before: (eventsBefore, seenBefore),
            onset: onset ?? first ?? 0, dispersion: dispersion)
        if outcome.status == .worse { localize(&outcome, cells, rate: eventsBefore / seenBefore) }
        return outcome
    }

    /// Whether the units that wait had clearly more events than before while they waited.
    func controlsAreWorse(_ cells: [SignalTable.Cell]) -> Bool {
        guard cohorts.isStaggered, signal.direction == .up else { return false }
        var (before, seenBefore, events, seen) = (0.0, 0.0, 0.0, 0.0)
        let sides = sides(cells)
        for index in 0..<baseline {
            before += sides.history[index]
            seenBefore += sides.historyExposure[index]
        }
        for index in baseline..<count {
            events += sides.controls[index]
            seen += sides.controlExposure[index]
        }
        let blocks = CountJudge.blockMs.map { bins.count(ms: $0) }
        let dispersion = RateRatio.largestDispersion(
            counts: sides.history, exposures: sides.historyExposure, blocks: blocks)
        guard events >= signal.minEvents,
            let ratio = RateRatio.interval(
                before: before, exposureBefore: seenBefore, after: events, exposureAfter: seen, dispersion: dispersion,
                confidence: Comparison.confidence)
        else { return false }
        return ratio.estimate >= signal.halfFloor && ratio.low > 1
            && events / seen - before / seenBefore >= signal.absoluteFloor / 2
    }

    /// Whether there are enough events since the change for any finding: a cheap look before the others.
    ///
    /// An event adds at most the logarithm of the largest ratio to the evidence.
    func canBeWorse(_ cells: [SignalTable.Cell], _ outcome: inout Outcome) -> Bool {
        guard signal.direction == .up else { return true }
        let least = max(signal.minEvents, -log(time.level) / log(20))
        var (events, before) = (0.0, 0.0)
        for cell in cells {
            let treated = places(table.units[cell.unit]).treated
            for index in treated.clamped(to: cell.sums.indices) { events += Double(cell.sums[index]) }
            for index in 0..<min(baseline, cell.sums.count) { before += Double(cell.sums[index]) }
        }
        outcome.eventsBefore = before
        outcome.after = .init(value: events, n: events)
        return events >= least
    }

    /// Of how many events or requests a side is made.
    private func side(_ events: Double, _ exposure: Double) -> Double { plain == nil ? exposure : events }

    private func decide(
        _ outcome: inout Outcome, _ sides: Sides, worse: CountEProcess, well: CountEProcess, rate: Double,
        before: (events: Double, seen: Double), onset: Int, dispersion: Double
    ) {
        let events = sides.treated.reduce(0, +)
        let seen = sides.treatedExposure.reduce(0, +)
        // What it is since it began: a late change is not thinned by the time before it.
        let since = max(onset, sides.treatedExposure.firstIndex { $0 > 0 } ?? 0)
        let lateEvents = sides.treated[since...].reduce(0, +)
        let lateSeen = sides.treatedExposure[since...].reduce(0, +)
        let late = lateSeen > 0 ? max(lateEvents / lateSeen, events / seen) : events / seen
        let value = before.events / before.seen
        let alarm = worse.logMaximum >= -log(time.level)
        let isMore = late >= value * signal.relativeFloor && late - value >= signal.absoluteFloor
        let isLess = events / seen <= value / signal.relativeFloor && value - events / seen >= signal.absoluteFloor
        if signal.direction == .up, alarm, isMore, events >= signal.minEvents {
            outcome.status = .worse
            return
        }
        if signal.direction == .down, alarm, isLess, before.events >= signal.minEvents {
            outcome.status = .worse
            return
        }
        let mostAfter =
            RateRatio.upperLimit(count: events / dispersion, exposure: seen, confidence: 1 - CountJudge.passLevel)
            * dispersion
        let isSmall = signal.direction == .up && mostAfter - value < signal.absoluteFloor
        if well.logMaximum >= -log(CountJudge.passLevel) || isSmall {
            outcome.status = .ok
            return
        }
        outcome.needs = needs(events: events, seen: seen, rate: rate, before: before.events, dispersion: dispersion)
    }

    /// How much more data would decide, were the rate the same as before.
    private func needs(events: Double, seen: Double, rate: Double, before: Double, dispersion: Double) -> String {
        let seconds = time.nowMs - (cohorts.lastMs ?? time.nowMs)
        let hours = max(1 / 60, Double(seconds) / 3_600_000)
        let limit =
            RateRatio.upperLimit(
                count: events / dispersion, exposure: 1, confidence: 1 - CountJudge.passLevel) * dispersion
        if before == 0, signal.absoluteFloor > 0 {
            // It takes this much exposure until the bound on the rate is under the margin.
            let missing = limit / signal.absoluteFloor - seen
            let wait = TimeFormat.duration(ms: max(60_000, Int64(missing / seen * hours * 60) * 60_000))
            return events == 0 ? "no event so far; \(wait) more without one" : "about \(wait) more without an event"
        }
        let margin = max(signal.relativeFloor, 1 + signal.absoluteFloor / rate)
        let wanted =
            dispersion * log(Double(8) / CountJudge.passLevel) / (margin - 1 - log(margin))
        let due = rate * seen
        guard wanted > due, due > 0 else { return "the interval is still wider than the margin; more time is needed" }
        let more = Int((wanted - due).rounded(.up))
        let wait = TimeFormat.duration(ms: max(60_000, Int64((wanted - due) / due * hours * 60) * 60_000))
        return "about \(more) more events, which at the rate before take \(wait)"
    }

    private func effect(
        _ sides: Sides, compared: (before: Double, after: Double, share: Double), ofControls: Double,
        before: (events: Double, seen: Double), dispersion: Double
    ) -> Effect? {
        let total = compared.before + ofControls
        let seen = sides.treatedExposure.reduce(0, +)
        // Mostly against controls, with the mean share of their bins; else against history.
        let interval =
            compared.before >= 1 && ofControls >= compared.after / 2
            ? RateRatio.interval(
                before: compared.before, exposureBefore: 1 - compared.share / total, after: ofControls,
                exposureAfter: compared.share / total, dispersion: dispersion, confidence: Comparison.confidence)
            : RateRatio.interval(
                before: before.events, exposureBefore: before.seen, after: sides.treated.reduce(0, +),
                exposureAfter: seen, dispersion: dispersion, confidence: Comparison.confidence)
        return interval.map { Effect(kind: .rateRatio, interval: $0) }
    }

    /// How much more than by chance the shares of two halves of the units differed before the upgrade.
    private func contrastDispersion(_ cells: [SignalTable.Cell], _ blocks: [Int]) -> Double? {
        guard cohorts.isStaggered else { return nil }
        let middle = cohorts.middleMs
        var counts = [Double](repeating: 0, count: baseline)
        var all = counts
        var isOneSided = true
        for cell in cells {
            let isEarly = cohorts.change(of: table.units[cell.unit]).map { $0.lastMs <= middle } ?? false
            if !isEarly { isOneSided = false }
            for index in 0..<min(cell.sums.count, baseline) {
                if isEarly { counts[index] += Double(cell.sums[index]) }
                all[index] += Double(cell.sums[index])
            }
        }
        let (early, total) = (counts.reduce(0, +), all.reduce(0, +))
        guard !isOneSided, early > 0, early < total else { return nil }
        // About the share of each block: a binomial's variance is that of a count, less the share.
        return RateRatio.largestDispersion(
            counts: counts, exposures: all, blocks: blocks, variance: 1 - early / total)
    }

    // MARK: When and where

    /// The bin in which the rate stepped, over the whole time.
    private func onset(_ sides: Sides) -> Int? {
        var counts = sides.treated
        var seen = sides.treatedExposure
        for index in 0..<baseline where seen[index] == 0 {
            counts[index] = sides.history[index]
            seen[index] = sides.historyExposure[index]
        }
        // What was there as soon as it could be looked for began with the step.
        let candidates = cohorts.startsMs.map { bins.firstIndex(from: signal.treatedFromMs($0)) }
        return ChangePoint.poissonStep(counts: counts, exposures: seen, candidates: Set(candidates))
    }

    private func timeline(_ sides: Sides) -> [(atMs: Int64, value: Double)] {
        (0..<count).compactMap { index in
            let middle = bins.startMs(index) + bins.widthMs / 2
            if sides.treatedExposure[index] > 0 {
                return (middle, sides.treated[index] / sides.treatedExposure[index])
            }
            guard index < baseline, sides.historyExposure[index] > 0 else { return nil }
            return (middle, sides.history[index] / sides.historyExposure[index])
        }
    }

    /// Finds what has most of what is too much: batches, and units where few have it.
    private func localize(_ outcome: inout Outcome, _ cells: [SignalTable.Cell], rate: Double) {
        var perUnit: [(unit: String, excess: Double, change: Cohorts.Change?, cell: SignalTable.Cell)] = []
        for cell in cells {
            let unit = table.units[cell.unit]
            let treated = places(unit).treated
            let seen = exposure(cell)
            var excess = 0.0
            for index in treated {
                if index < cell.sums.count { excess += Double(cell.sums[index]) }
                if index < seen.count { excess -= rate * Double(seen[index]) }
            }
            let change = cohorts.change(of: unit)
            if let batch = change?.batch { outcome.excess[batch, default: 0] += excess }
            perUnit.append((unit, excess, change, cell))
        }
        perUnit.sort { ($1.excess, $0.unit) < ($0.excess, $1.unit) }
        let total = perUnit.reduce(0) { $0 + max(0, $1.excess) }
        var sum = 0.0
        var few: [(unit: String, excess: Double, change: Cohorts.Change?, cell: SignalTable.Cell)] = []
        for one in perUnit where one.excess > 0 && sum < 0.8 * total {
            few.append(one)
            sum += one.excess
        }
        if cohorts.isStaggered, perUnit.count >= 5 || few.count == 1, few.count * 5 <= max(5, cohorts.nodes.count) {
            outcome.units = few.map(\.unit)
        }
        // The events of the units that have them, over all time: had they come before their own change?
        guard cohorts.isStaggered, !few.isEmpty else { return }
        var counts = [Double](repeating: 0, count: count)
        var seen = counts
        for one in few {
            let column = exposure(one.cell)
            for index in 0..<count {
                if index < one.cell.sums.count { counts[index] += Double(one.cell.sums[index]) }
                if index < column.count { seen[index] += Double(column[index]) }
            }
        }
        let candidates = few.compactMap { $0.change.map { bins.firstIndex(from: signal.treatedFromMs($0)) } }
        guard
            let onset = ChangePoint.poissonStep(counts: counts, exposures: seen, candidates: Set(candidates))
        else { return }
        let steps = few.compactMap { $0.change?.firstMs }
        if !outcome.units.isEmpty { outcome.onsetMs = cohorts.onsetMs(ofBin: onset, bins, signal) }
        if let earliest = steps.min() {
            outcome.beganBefore = bins.startMs(onset) + Comparison.vetoMs < earliest
        }
    }
}
