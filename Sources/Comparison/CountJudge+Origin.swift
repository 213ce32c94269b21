import Statistics

/// Whether what is worse can be the upgrade's doing.
extension CountJudge {
    /// So many events must be due in a time for their rate to tell.
    private static let leastDue = 3.0
    /// What is as improbable is no chance.
    private static let lackP = 0.001
    /// That it may be over, or that others have it as well, needs less to be believed: it is looked at again with every
    /// sample.
    private static let doubtP = 0.01

    /// Whether what began in a bin began with a step, or beside nodes that wait: what did not has to last, since what
    /// befalls all alike at another time passes more often than not.
    func beganWithStep(
        _ sides: CountSides, _ cells: [SignalTable.Cell], since onset: Int, peak: Int, dispersion: Double
    ) -> Bool {
        if onset < counts.count, sides.treatedExposure[onset] > 0, share(sides, onset) != nil,
            wasShared(sides, since: onset, peak: peak) == false
        {
            return true
        }
        let steps = cohorts.steps(at: bins.startMs(onset), bins, signal)
        return !steps.isEmpty
            && !befellOthers(steps, cells, sides.before, since: onset, peak: peak, dispersion: dispersion)
    }

    /// Whether what began in a bin is there for hours, and still.
    func lasts(_ sides: CountSides, since onset: Int, dispersion: Double) -> Bool {
        // What is judged may end before now: what came up to then tells how long it lasted.
        let end = (sides.treatedExposure.lastIndex { $0 > 0 } ?? 0) + 1
        guard bins.startMs(end) - bins.startMs(onset) >= Comparison.lastingMs else { return false }
        let all = sides.after(from: onset, to: end)
        let parts = Comparison.lastingParts(bins, from: onset, to: end)
        let thirds = parts.thirds.map { sides.after(in: $0) }
        guard isLarge(sides.before.rate, thirds[2].rate),
            thirds.allSatisfy({ !isLack($0, rate: all.rate, dispersion: dispersion, p: CountJudge.lackP) })
        else { return false }
        // Of rare events none in the last minutes says nothing: any time up to now is looked at in which some were due.
        var last = sides.after(in: parts.last)
        for first in parts.thirds[2].prefix(while: { $0 <= parts.last.lowerBound }).reversed() {
            if first < parts.last.lowerBound {
                last.events += sides.treated[first]
                last.seen += sides.treatedExposure[first]
            }
            let earlier = Tally(events: all.events - last.events, seen: all.seen - last.seen)
            if isLack(last, rate: earlier.rate, dispersion: dispersion, p: CountJudge.doubtP) { return false }
        }
        return true
    }

    /// Whether fewer events came than a rate has by chance: the tail of Poisson's distribution, of events that come in
    /// bursts of `dispersion`.
    ///
    /// Where fewer events are worse, their lack tells nothing.
    private func isLack(_ tally: Tally, rate: Double, dispersion: Double, p: Double) -> Bool {
        guard signal.direction == .up, tally.seen > 0, rate > 0 else { return false }
        let most = RateRatio.upperLimit(
            count: tally.events / dispersion, exposure: tally.seen, confidence: 1 - p)
        return most * dispersion < rate
    }

    /// Whether those that waited got ill as well, for as long as some did; nil where they waited too short to tell.
    private func wasShared(_ sides: CountSides, since onset: Int, peak: Int) -> Bool? {
        var (waited, went) = (Tally(), Tally())
        for index in onset..<max(onset, peak) where share(sides, index) != nil {
            waited.events += sides.controls[index]
            waited.seen += sides.controlExposure[index]
            went.events += sides.treated[index]
            went.seen += sides.treatedExposure[index]
        }
        guard waited.seen * went.rate >= CountJudge.leastDue else { return nil }
        return isLarge(sides.before.rate, waited.rate) && 2 * waited.rate >= went.rate
    }

    /// Whether units that had gone over before a step, and were well, got ill with it: it can do nothing to them.
    ///
    /// - Parameter peak: when the evidence was largest: it may be over since.
    private func befellOthers(
        _ steps: [Cohorts.Change], _ cells: [SignalTable.Cell], _ before: Tally, since onset: Int, peak: Int,
        dispersion: Double
    ) -> Bool {
        guard cohorts.isStaggered else { return false }
        let batches = Set(steps.map(\.batch))
        func firstBin(_ unit: String) -> Int? {
            guard let change = cohorts.change(of: unit), !batches.contains(change.batch) else { return nil }
            let first = bins.firstIndex(from: signal.treatedFromMs(change))
            return first < onset ? first : nil
        }
        let since = onset..<max(onset, peak)
        var (well, ill) = (Tally(), Tally())
        for cell in cells {
            guard let first = firstBin(table.units[cell.unit]) else { continue }
            well.events += cell.sums.total(in: first..<onset)
            ill.events += cell.sums.total(in: since)
            guard !counts.isInTime else { continue }
            well.seen += cell.weights.total(in: first..<onset)
            ill.seen += cell.weights.total(in: since)
        }
        for (unit, column) in counts.watched {
            guard let first = firstBin(unit) else { continue }
            well.seen += column.total(in: first..<onset)
            ill.seen += column.total(in: since)
        }
        return ill.events >= CountJudge.leastDue && isLarge(before.rate, ill.rate)
            && isLack(well, rate: ill.rate, dispersion: dispersion, p: CountJudge.doubtP)
    }
}
