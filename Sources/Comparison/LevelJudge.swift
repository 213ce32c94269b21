import Cluster
import Foundation
import PromQL
import Series
import Statistics

/// Judges levels: latencies, memory, how many wait.
///
/// What is judged is one value a bin: the mean change of the units that went over, less that of those that did not yet
/// where there are enough of them (a difference in differences by unit, after Callaway and Sant'Anna 2021), else against
/// their own past, without what the load explains. The mean of the last half hour up to the last hours is measured by
/// the same means at times before the upgrade (a placebo in time), so that the noise needs no model. A steady growth is
/// looked for in the same way, by slopes.
struct LevelJudge {
    let table: SignalTable
    let cohorts: Cohorts
    let time: JudgedTime
    private let load: [Double]
    let count: Int
    let baseline: Int
    let isLogarithmic: Bool

    /// How many standard deviations of its placebos a change must have.
    static let leastScore = 5.0
    /// What stands for zero and less on a logarithmic scale: a byte's, or a second's thousandth.
    private static let leastValue = 1e-3
    /// So long ago at most there must have been a load that a level can be compared at.
    private static let beyondMs: Int64 = 21_600_000
    /// Larger p-values are not looked into.
    private static let smallP = 0.05
    /// The half width of intervals, in standard deviations: 99 %.
    static let width = 2.576
    /// Windows whose means are judged.
    static let windowMs: [Int64] = [1_800_000, 3_600_000, 7_200_000, 14_400_000]
    /// How many windows there must be before the upgrade for a placebo.
    static let leastPlacebos = 8
    /// For how long a change must have been there where there are no placebos.
    private static let lastingMs: Int64 = 1_200_000
    /// A level that was high and came down within so long is warm by now.
    static let stillMs: Int64 = 600_000
    /// How far beyond that of the baseline the load may be.
    private static let loadRange = 1.25
    static let dayMs: Int64 = 86_400_000
    private static let beyondWords =
        "the load is beyond all that was seen before the upgrade: the level can't be compared"

    var signal: Signal { table.signal }
    var bins: Bins { table.bins }
    /// How long the time before the upgrade is.
    var baselineMs: Int64 { Int64(baseline) * bins.widthMs }
    /// Turned so that more is worse.
    private var sign: Double { signal.direction == .up ? 1 : -1 }

    /// - Parameter load: by bin; 0 where it is not known, empty where the signal hangs on none.
    init(table: SignalTable, cohorts: Cohorts, time: JudgedTime, load: [Double]) {
        self.table = table
        self.load = load
        self.cohorts = cohorts
        self.time = time
        count = table.bins.complete(atMs: time.nowMs)
        baseline = min(count, table.bins.complete(atMs: time.baseline.throughMs))
        switch table.signal.kind {
        case .gauge: isLogarithmic = table.signal.unit == "bytes" || table.signal.unit == "seconds"
        default: isLogarithmic = true
        }
    }

    // MARK: Values

    /// A unit's level by bin; not a number where there is none.
    struct Unit {
        var name: String
        var values: [Double]
        /// Its mean before the upgrade.
        var level: Double
        /// Bins in which it is a control, and those in which it is judged.
        var controls: Range<Int>
        var treated: Range<Int>
        var change: Cohorts.Change?

        /// How far its level is from that before the upgrade; nil where it has none.
        func change(at index: Int) -> Double? {
            index < values.count && !values[index].isNaN ? values[index] - level : nil
        }

        /// Its mean change in some bins; nil where it has no value in any.
        func mean(in range: Range<Int>) -> Double? {
            let changes = range.lazy.compactMap { change(at: $0) }
            let (sum, seen) = changes.reduce((0.0, 0.0)) { ($0.0 + $1, $0.1 + 1) }
            return seen > 0 ? sum / seen : nil
        }
    }

    private func units(_ cells: [SignalTable.Cell]) -> [Unit] {
        var units: [Unit] = []
        if case .quantile(let q, _) = signal.kind {
            units = [unit("", quantiles(q, cells))].compactMap { $0 }
        } else {
            units = cells.compactMap { unit(table.units[$0.unit], means($0)) }
        }
        return units
    }

    /// What the units that went over have together, a value a bin.
    func series(of cells: [SignalTable.Cell]) -> [(atMs: Int64, value: Double)] {
        timeline(units(cells).filter { !$0.treated.isEmpty })
    }

    private func unit(_ name: String, _ values: [Double]) -> Unit? {
        var sum = 0.0
        var seen = 0.0
        for index in 0..<min(baseline, values.count) where !values[index].isNaN {
            sum += values[index]
            seen += 1
        }
        guard seen >= 3 else { return nil }
        let ranges = cohorts.ranges(of: name, signal, bins, count: count, batch: time.batch)
        return Unit(
            name: name, values: values, level: sum / seen, controls: ranges.controls, treated: ranges.treated,
            change: cohorts.change(of: name))
    }

    private func scaled(_ value: Double) -> Double {
        guard isLogarithmic else { return sign * value }
        // What went down to nothing is as low as can be; an upper side without a value has none.
        guard value > 0 else { return signal.direction == .down ? sign * log(LevelJudge.leastValue) : .nan }
        return sign * log(value)
    }

    private func means(_ cell: SignalTable.Cell) -> [Double] {
        let least: Float
        if case .mean = signal.kind { least = Float(max(1, signal.minEvents)) } else { least = 1 }
        return (0..<count).map { index in
            guard index < cell.weights.count, cell.weights[index] >= least else { return .nan }
            let sum = index < cell.sums.count ? cell.sums[index] : 0
            return scaled(Double(sum / cell.weights[index]))
        }
    }

    /// Quantiles of the buckets that are there on both sides: a finer bucket alone moves them.
    ///
    /// Where there are none, as for what was a summary before, the means.
    private func quantiles(_ q: Double, _ cells: [SignalTable.Cell]) -> [Double] {
        var buckets: [(bound: Double, sums: [Float])] = []
        for cell in cells {
            let isThroughout =
                cell.firstMs <= time.baseline.throughMs && cell.lastMs > (cohorts.lastMs ?? time.baseline.throughMs)
            guard let bound = ClassicHistogram.bound(table.units[cell.unit]), isThroughout else { continue }
            buckets.append((bound, cell.sums))
        }
        buckets.sort { $0.bound < $1.bound }
        guard buckets.count >= 2, buckets[buckets.count - 1].bound == .infinity else {
            return cells.first { table.units[$0.unit].isEmpty }.map(means) ?? []
        }
        return (0..<count).map { index in
            var list = buckets.map {
                ClassicHistogram.Bucket(upper: $0.bound, count: index < $0.sums.count ? Double($0.sums[index]) : 0)
            }
            guard let total = list.last?.count, total >= max(1, signal.minEvents) else { return .nan }
            return scaled(ClassicHistogram.quantile(q, &list).value)
        }
    }

    // MARK: Judgement

    /// Judges one split of the table by its cells: all that went over together, then each batch by itself and those that
    /// have it, whose trouble the others would thin out.
    func judge(_ cells: [SignalTable.Cell]) -> Outcome {
        let peers = Peers(units(cells), self)
        let units = peers.all
        var outcome = judgeWithoutIll(units, peers)
        let batches = cohorts.batches
        guard time.batch == nil, cohorts.isStaggered, outcome.status != .worse, !outcome.isStray, units.count > 1 else {
            return outcome
        }
        for batch in batches where batches.count > 1 {
            let own = units.filter { $0.change?.batch == batch }
            guard !own.isEmpty else { continue }
            let one = judgeWithoutIll(own, peers)
            outcome.pValue = [outcome.pValue, one.pValue.map { min(1, $0 * Double(batches.count + 1)) }]
                .compactMap { $0 }.min()
            if one.status == .worse, !one.beganBefore { return one }
            outcome.holdUp(for: one)
        }
        // Then those that have it, whatever they share: a zone, an instance type, or nothing that is known.
        let some = affected(units)
        guard !some.isEmpty else { return outcome }
        let one = judgeWithoutIll(some, peers)
        if one.status == .worse, !one.beganBefore { return one }
        outcome.holdUp(for: one)
        return outcome
    }

    /// All units of a split, and what those have in common that still wait.
    private struct Peers {
        var all: [Unit]
        var waiting: [Unit]
        /// The mean change of those that wait, by bin.
        var change: [Double]

        init(_ units: [Unit], _ judge: LevelJudge) {
            all = units
            waiting = units.filter { judge.cohorts.isStaggered && $0.controls.upperBound >= judge.count }
            change = judge.mean(waiting).values
        }
    }

    private func judgeWithoutIll(_ units: [Unit], _ peers: Peers) -> Outcome {
        let outcome = judge(units, peers)
        guard cohorts.isStaggered, outcome.status == .worse || outcome.pValue ?? 1 < LevelJudge.smallP else {
            return outcome
        }
        // Nodes that were ill while they waited are so for a reason of their own: the others tell.
        let ill = units.indices.filter { isIll(units[$0]) }
        guard !ill.isEmpty else { return outcome }
        var others = units
        for index in ill { others[index].treated = count..<count }
        return judge(others, peers)
    }

    private func judge(_ units: [Unit], _ peers: Peers) -> Outcome {
        var outcome = Outcome()
        let treatedUnits = units.filter { !$0.treated.isEmpty }
        guard !treatedUnits.isEmpty else {
            outcome.needs = units.isEmpty ? "too few values before the upgrade" : "nothing was measured since"
            return outcome
        }
        let level = treatedUnits.reduce(0) { $0 + $1.level } / Double(treatedUnits.count)
        outcome.before = .init(value: unscaled(level), n: Double(baseline))
        let controls = peers.waiting
        let isContrast = isEnough(controls.count, beside: treatedUnits.count)
        var (series, seen) = mean(treatedUnits)
        if isContrast {
            for (index, value) in peers.change.enumerated() { series[index] -= value }
        }
        let from = treatedUnits.map(\.treated.lowerBound).min() ?? count
        // The mean of few units varies more than that of many: what few had is left out once many have it.
        let most = seen[from...].max() ?? 0
        var usable = (0..<count).map { index in
            !series[index].isNaN && (index < baseline || index >= from && 2 * seen[index] >= most)
        }
        var isBeyond = false
        if !isContrast { isBeyond = explain(&series, &usable) }
        let before = (0..<baseline).filter { usable[$0] }.map { series[$0] }
        let afterBins = (baseline..<count).filter { usable[$0] }
        let after = afterBins.map { series[$0] }
        guard !after.isEmpty else {
            outcome.needs = isBeyond ? LevelJudge.beyondWords : "nothing was measured since"
            return outcome
        }
        let floor = floor(level)
        let beside = isContrast ? contrast(treatedUnits, controls, in: afterBins) : nil
        let shift = shift(before, after, afterBins, isBeyond: isBeyond, floor: floor, contrast: beside)
        outcome.after = .init(value: unscaled(level + (shift?.estimate ?? 0)), n: Double(after.count))
        guard let shift else {
            outcome.needs = "too few values on one side: \(before.count) before, \(after.count) after"
            return outcome
        }
        outcome.effect = effect(shift)
        let growth = growth(before, after, level: level, isContrast: isContrast)
        var isStray = false
        if shift.isWorse || shift.pValue ?? 1 < LevelJudge.smallP {
            let starts = starts(treatedUnits, afterBins)
            let corner = signal.slopeFloor.flatMap { _ in ramp(before, after, afterBins, starts, unlessStep: true) }
            outcome.onsetMs = corner ?? onset(series, before, after, afterBins, starts)
            if !isContrast, corner == nil, let sinceMs = outcome.onsetMs,
                !beganWithStep(sinceMs, peers.all, floor: floor)
            {
                isStray = !lasts(sinceMs: sinceMs, before, after, afterBins, floor: floor)
                outcome.hasNoStep = true
            }
        }
        let isShared =
            !isContrast && cohorts.isStaggered && shift.isWorse
            && wasShared(treatedUnits, peers.all, sinceMs: outcome.onsetMs, floor: floor)
        // What is none of the upgrade's speaks for nothing.
        outcome.pValue = isStray || isShared ? nil : shift.pValue
        if let growth, growth.isWorse {
            outcome.status = .worse
            outcome.onsetMs = ramp(before, after, afterBins, starts(treatedUnits, afterBins))
        } else if shift.isWorse, isShared || !isStray {
            outcome.status = .worse
        } else if shift.isWorse {
            outcome.isStray = true
            outcome.needs = outcome.onsetMs.map { cohorts.strayWords(sinceMs: $0, nowMs: time.nowMs) }
        } else if shift.high < -floor / 2 {
            outcome.status = .better
        } else if shift.high < floor || shift.low == 0 && shift.high == 0 {
            outcome.status = growth?.isWell ?? true ? .ok : .inconclusive
            if outcome.status == .inconclusive { outcome.needs = growth?.needs }
        } else {
            outcome.needs = narrowing(shift, floor: floor, observedMs: Int64(after.count) * bins.widthMs)
        }
        if isBeyond, outcome.status != .worse, count - (afterBins.last ?? 0) > bins.count(ms: LevelJudge.beyondMs) {
            outcome.status = .inconclusive
            outcome.needs = LevelJudge.beyondWords
        }
        if outcome.status == .worse {
            outcome.timeline = timeline(treatedUnits)
            localize(&outcome, treatedUnits, last: afterBins)
            if isShared { outcome.beganBefore = true }
        }
        return outcome
    }

    /// How much longer it takes until the interval is under the margin, should the change stay as it is: its width goes
    /// with the inverse root of the time.
    private func narrowing(_ shift: Shift, floor: Double, observedMs: Int64) -> String {
        let room = floor - shift.estimate
        guard room > 0, shift.high > shift.estimate else {
            return "the level is at its margin, and the interval too wide to say on which side; more time is needed"
        }
        let narrower = (shift.high - shift.estimate) / room
        let times = narrower * narrower
        return
            "the interval is still wider than the margin: about \(JudgedTime.wait(Double(observedMs) * (times - 1))) more"
    }

    /// Whether so many units that wait tell what befalls all.
    func isEnough(_ waiting: Int, beside treated: Int) -> Bool { waiting >= 3 && waiting * 10 >= treated }

    func unscaled(_ value: Double) -> Double { isLogarithmic ? exp(sign * value) : sign * value }

    /// The mean of the units' changes by bin, of those that have a value.
    private func mean(_ units: [Unit]) -> (values: [Double], seen: [Double]) {
        var sums = [Double](repeating: 0, count: count)
        var seen = sums
        for unit in units {
            // Before the upgrade, and on while it waits, where it goes over in none of these bins; then from when it went.
            let waited = unit.treated.isEmpty ? max(baseline, unit.controls.upperBound) : baseline
            let went = max(baseline, unit.controls.upperBound, unit.treated.lowerBound)
            for range in [0..<waited, went..<count] {
                for index in range.clamped(to: unit.values.indices) {
                    let change = unit.values[index] - unit.level
                    let isSeen = !change.isNaN
                    sums[index] += isSeen ? change : 0
                    seen[index] += isSeen ? 1 : 0
                }
            }
        }
        return ((0..<count).map { seen[$0] > 0 ? sums[$0] / seen[$0] : .nan }, seen)
    }

    /// Takes out what load and hour of day explain, as the time before shows it, and the bins whose load is beyond it.
    ///
    /// - Returns: whether bins were taken out.
    private func explain(_ series: inout [Double], _ usable: inout [Bool]) -> Bool {
        var isBeyond = false
        if load.count >= count {
            let known = (0..<baseline).filter { usable[$0] && load[$0] > 0 }
            if known.count >= 30 {
                let logs = known.map { log(load[$0]) }
                let middle = logs.reduce(0, +) / Double(logs.count)
                let sorted = logs.sorted()
                // How a level goes on beyond the load that was seen is known only where a day of it was.
                let beyond = baselineMs >= LevelJudge.dayMs ? log(LevelJudge.loadRange) : 0
                let most = sorted[Int(0.995 * Double(sorted.count - 1))] + beyond
                let least = sorted[Int(0.005 * Double(sorted.count - 1))] - 4 * beyond
                let columns = [1, 2].map { power in logs.map { pow($0 - middle, Double(power)) } }
                let values = known.map { series[$0] }
                let fit =
                    LeastSquares.fit([logs.map { _ in 1 }] + columns, values)
                    ?? LeastSquares.fit([logs.map { _ in 1 }, columns[0]], values)
                for index in 0..<count where usable[index] {
                    guard load[index] > 0 else { continue }
                    let x = log(load[index])
                    if index >= baseline, x > most || x < least {
                        usable[index] = false
                        isBeyond = true
                    }
                    guard let fit else { continue }
                    // Beyond the range a line goes on better than a square.
                    let inside = min(max(x, sorted[0]), sorted[sorted.count - 1])
                    let slope = fit[1] + (fit.count > 2 ? 2 * fit[2] * (inside - middle) : 0)
                    let curve = fit.count > 2 ? fit[2] * (inside - middle) * (inside - middle) : 0
                    series[index] -= fit[0] + fit[1] * (inside - middle) + curve + slope * (x - inside)
                }
            }
        }
        HourProfile.remove(from: &series, usable: usable, baseline: baseline, bins: bins)
        return isBeyond
    }

    /// The least change that counts, in the scale of the series.
    func floor(_ level: Double) -> Double {
        let value = abs(unscaled(level))
        guard isLogarithmic else { return max(value * (signal.relativeFloor - 1), signal.absoluteFloor) }
        return max(log(signal.relativeFloor), value > 0 ? log1p(signal.absoluteFloor / value) : 0, 1e-6)
    }

    private struct Shift {
        var estimate: Double
        var low: Double
        var high: Double
        var isWorse: Bool
        /// Of there being no more than half of the floor, at all looks of the soak; nil where no placebos tell.
        var pValue: Double?
    }

    /// The change of the last windows' means against the same windows before the upgrade.
    ///
    /// - Parameters:
    ///   - places: the bins of the values after.
    ///   - isBeyond: bins were left out for their load: what there is may be old.
    ///   - contrast: the change of nodes beside that of others, for want of placebos; nil where none wait.
    private func shift(
        _ before: [Double], _ after: [Double], _ places: [Int], isBeyond: Bool, floor: Double, contrast: Interval?
    ) -> Shift? {
        var best: Shift?
        var pValue: Double?
        for windowMs in LevelJudge.windowMs {
            let length = bins.count(ms: windowMs)
            guard after.count >= length, before.count >= LevelJudge.leastPlacebos * length else { continue }
            let placebos = Placebo.windowMeans(before, length: length, step: max(1, length / 4))
            let observed = after.suffix(length).reduce(0, +) / Double(length)
            let windows = Double(before.count) / Double(length)
            let middle = RobustSlope.median(placebos)
            let estimate = observed - middle
            let spread = Placebo.spread(placebos, windows: windows)
            let half = LevelJudge.width * spread
            let isRecent = !isBeyond || places[places.count - length] >= count - 2 * length
            let isStill = isRecent && isStill(after.suffix(length), over: middle + floor / 2)
            let isWorse =
                estimate >= floor && estimate >= LevelJudge.leastScore * spread && estimate - half >= floor / 2
                && estimate > 0 && isStill
            var one = Shift(estimate: estimate, low: estimate - half, high: estimate + half, isWorse: isWorse)
            // The first that tells is taken; else the one that tells most exactly.
            let tail = isStill ? self.pValue((estimate - floor / 2) / spread, windows: windows, windowMs) : 1
            pValue = min(pValue ?? 1, tail)
            if isWorse {
                one.pValue = pValue
                return one
            }
            if best.map({ one.high - one.low < $0.high - $0.low }) ?? true { best = one }
        }
        best?.pValue = pValue
        if let best { return best }
        // Too short a time before for placebos: no noise but the shortest is known, so the whole floor must be passed.
        guard let mean = contrast ?? MeanShift.interval(before: before, after: after, confidence: Comparison.confidence)
        else { return nil }
        let hasLasted = after.count >= bins.count(ms: LevelJudge.lastingMs)
        let isWorse =
            mean.estimate >= floor && mean.low > floor && mean.estimate > 0 && hasLasted
            && isStill(after, over: (before.isEmpty ? 0 : RobustSlope.median(before)) + floor / 2)
        return Shift(estimate: mean.estimate, low: mean.low, high: mean.high, isWorse: isWorse)
    }

    /// How much more the nodes that went over changed than those that wait, over the last half hour.
    private func contrast(_ treated: [Unit], _ controls: [Unit], in places: [Int]) -> Interval? {
        let window = places.suffix(bins.count(ms: LevelJudge.windowMs[0]))
        func changes(_ units: [Unit], _ isTreated: Bool) -> [UnitChange] {
            units.compactMap { unit in
                let values = window.filter { $0 < unit.values.count && (!isTreated || unit.treated.contains($0)) }
                    .map { unit.values[$0] }.filter { !$0.isNaN }
                guard !values.isEmpty else { return nil }
                return UnitChange(change: values.reduce(0, +) / Double(values.count) - unit.level, isTreated: isTreated)
            }
        }
        return GroupContrast.interval(
            changes(treated, true) + changes(controls, false), confidence: Comparison.confidence)
    }

    /// The tail of Student's t with as many degrees of freedom as windows tell the spread, times how many windows of this
    /// and the other lengths the soak has (Bonferroni).
    ///
    /// Looks at windows that overlap are close to one look; that they are none more is an approximation.
    private func pValue(_ score: Double, windows: Double, _ windowMs: Int64) -> Double {
        guard score > 0 else { return 1 }
        let tail = 1 - SpecialFunctions.studentT(score, degrees: max(1, windows - 1))
        let looks = max(1, Double(time.soakMs) / Double(windowMs)) * Double(LevelJudge.windowMs.count)
        return min(1, tail * looks)
    }

    /// Whether the last third of a window is still over a level, and its half, ten minutes at least: caches that were cold
    /// are warm by then, and what passed is no change.
    private func isStill(_ window: some BidirectionalCollection<Double>, over level: Double) -> Bool {
        [3, 6].allSatisfy { part in
            let last = window.suffix(max(bins.count(ms: LevelJudge.stillMs), window.count / part))
            return last.reduce(0, +) / Double(max(1, last.count)) >= level
        }
    }

    private func effect(_ shift: Shift) -> Effect {
        let interval = Interval(estimate: shift.estimate, low: shift.low, high: shift.high)
        let turned =
            sign > 0
            ? interval : Interval(estimate: -interval.estimate, low: -interval.high, high: -interval.low)
        guard isLogarithmic else { return Effect(kind: .difference, interval: turned) }
        return Effect(
            kind: .rateRatio,
            interval: Interval(estimate: exp(turned.estimate), low: exp(turned.low), high: exp(turned.high)))
    }
}
