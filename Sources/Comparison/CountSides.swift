import Foundation

/// Events and their exposure.
struct Tally {
    var events = 0.0
    /// Seconds watched, or requests.
    var seen = 0.0

    var rate: Double { seen > 0 ? events / seen : 0 }
}

/// Events and exposure by bin: of the units that went over, of those that did not yet, and of the time before.
struct CountSides {
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

    /// Before the upgrade.
    var before: Tally { Tally(events: history.reduce(0, +), seen: historyExposure.reduce(0, +)) }

    /// Of the units that went over, from a bin on, and before another.
    func after(from first: Int = 0, to end: Int? = nil) -> Tally {
        let range = first..<max(first, end ?? treated.count)
        return Tally(events: treated[range].reduce(0, +), seen: treatedExposure[range].reduce(0, +))
    }

    func after(in range: Range<Int>) -> Tally { after(from: range.lowerBound, to: range.upperBound) }

    /// Of the units that wait, since the baseline and from a bin on.
    func waiting(from first: Int) -> Tally {
        let range = min(max(history.count, first), controls.count)...
        return Tally(events: controls[range].reduce(0, +), seen: controlExposure[range].reduce(0, +))
    }
}

/// Sorts the counts of a signal's table into sides.
struct CountSorter {
    let table: SignalTable
    let cohorts: Cohorts
    /// How many bins are over, and how many of them are the baseline's.
    let count: Int
    let baseline: Int
    private let batch: Int?
    private let skipped: Range<Int>
    /// Seconds by unit and bin, for events in time; empty for ratios, whose cells have their own exposure.
    let watched: [String: [Float]]
    /// What all units have together before any is weighed by its own rate; nil for ratios.
    private var plain: CountSides?

    /// What a unit's own rate is drawn to that of all by: so many expected events.
    private static let priorEvents = 5.0
    /// So many times the mean of a bin are still no burst.
    private static let commonMultiple = 10.0
    /// So many events more may be due before than there were: after a short time little is known of what is common.
    private static let doubt = 10.0

    init(table: SignalTable, cohorts: Cohorts, time: JudgedTime, watched: [String: [Float]]) {
        self.table = table
        self.cohorts = cohorts
        self.watched = watched
        batch = time.batch
        count = table.bins.complete(atMs: time.nowMs)
        let first = time.skipped.map { table.bins.index(of: $0.lowerBound + 1) ?? 0 } ?? 0
        let end = time.skipped.map { table.bins.firstIndex(from: $0.upperBound) } ?? 0
        skipped = (first..<max(first, end)).clamped(to: 0..<count)
        baseline = min(count, table.bins.complete(atMs: time.baseline.throughMs))
        guard !watched.isEmpty else { return }
        var sides = CountSides(count, baseline: baseline)
        for (unit, column) in watched { add(nil, column, unit, weight: 1, to: &sides) }
        plain = sides
    }

    /// Whether the exposure is time.
    var isInTime: Bool { plain != nil }

    func exposure(_ cell: SignalTable.Cell) -> [Float] {
        isInTime ? watched[table.units[cell.unit]] ?? [] : cell.weights
    }

    func ranges(of unit: String) -> Cohorts.Ranges {
        cohorts.ranges(of: unit, table.signal, table.bins, count: count, batch: batch)
    }

    /// The events before the upgrade and those of what went over, without any exposure: a cheap look before the others.
    func events(_ cells: [SignalTable.Cell]) -> (before: Double, after: Double) {
        var (before, after) = (0.0, 0.0)
        for cell in cells {
            guard !cell.sums.isEmpty else { continue }
            after += cell.sums.total(in: ranges(of: table.units[cell.unit]).treated)
            before += cell.sums.total(in: 0..<baseline)
        }
        return (before, after)
    }

    /// The cells with their bursts tamed: beyond what is common in a bin of a unit only the logarithm counts on.
    ///
    /// Events of one unit that come together have one cause: a node that loses all its pods in a minute did not do so
    /// thirty times. Taken one by one they would make any sum of rare events vary far more than the few of the time
    /// before can show. Before and after the upgrade the same is done.
    func tamed(_ cells: [SignalTable.Cell]) -> [SignalTable.Cell] {
        var before = Tally(seen: plain?.before.seen ?? 0)
        for cell in cells {
            before.events += cell.sums.total(in: 0..<baseline)
            if !isInTime { before.seen += cell.weights.total(in: 0..<baseline) }
        }
        let places = Double(max(1, baseline * (isInTime ? watched.count : cells.count)))
        let mean = (before.events + CountSorter.doubt) / places
        // What the floor asks for is no burst either.
        let margin = mean + table.signal.absoluteFloor * before.seen / places
        let common = Float(max(1, CountSorter.commonMultiple * mean, 2 * margin))
        return cells.map { cell in
            guard cell.sums.exceeds(common) else { return cell }
            var cell = cell
            for index in cell.sums.indices where cell.sums[index] > common {
                cell.sums[index] = common * (1 + log(cell.sums[index] / common))
            }
            return cell
        }
    }

    /// The sides of some cells; each unit is weighed by its own rate before, drawn to that of all where there is little
    /// to know it from.
    func sides(_ cells: [SignalTable.Cell]) -> CountSides {
        var all = Tally(seen: plain?.before.seen ?? 0)
        let own = cells.map { cell -> Tally in
            let own = Tally(
                events: cell.sums.total(in: 0..<baseline), seen: exposure(cell).total(in: 0..<baseline))
            all.events += own.events
            if !isInTime { all.seen += own.seen }
            return own
        }
        func weight(_ own: Tally) -> Double {
            let prior = CountSorter.priorEvents
            return all.rate > 0 ? (own.events + prior) / (all.rate * own.seen + prior) : 1
        }
        var sides = plain ?? CountSides(count, baseline: baseline)
        // Units without an event have no cell: all begin with the weight of such a unit.
        var quiet = 0.0
        if isInTime {
            quiet = weight(Tally(seen: all.seen / Double(watched.count)))
            sides.treatedExposure.scale(by: quiet)
            sides.controlExposure.scale(by: quiet)
            sides.historyExposure.scale(by: quiet)
        }
        for (cell, tally) in zip(cells, own) {
            let unit = table.units[cell.unit]
            let begun = isInTime && watched[unit] != nil ? quiet : 0
            add(cell.sums, exposure(cell), unit, weight: weight(tally) - begun, to: &sides)
        }
        for index in skipped { (sides.treated[index], sides.treatedExposure[index]) = (0, 0) }
        return sides
    }

    private func add(
        _ events: [Float]?, _ exposure: [Float], _ unit: String, weight: Double, to sides: inout CountSides
    ) {
        let ranges = ranges(of: unit)
        let history = 0..<baseline
        let waits = cohorts.isStaggered && ranges.controls.upperBound > baseline
        let controls = waits ? baseline..<ranges.controls.upperBound : 0..<0
        sides.historyExposure.add(exposure, times: weight, in: history)
        sides.controlExposure.add(exposure, times: weight, in: controls)
        sides.treatedExposure.add(exposure, times: weight, in: ranges.treated)
        guard let events else { return }
        sides.history.add(events, in: history)
        sides.controls.add(events, in: controls)
        sides.treated.add(events, in: ranges.treated)
    }
}
