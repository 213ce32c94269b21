import Statistics

/// Whether a level that is worse can be the upgrade's doing.
extension LevelJudge {
    /// Whether a level of which all have the same rose with the step of those that have it.
    func beganWithStep(_ onsetMs: Int64, _ all: [Unit], floor: Double) -> Bool {
        let steps = cohorts.steps(at: onsetMs, bins, signal)
        return !steps.isEmpty && !befellOthers(steps, sinceMs: onsetMs, all, floor: floor)
    }

    /// Whether a level is there for hours, and still.
    func lasts(
        sinceMs onsetMs: Int64, _ before: [Double], _ after: [Double], _ places: [Int], floor: Double
    ) -> Bool {
        guard time.nowMs - onsetMs >= Comparison.lastingMs else { return false }
        let middle = RobustSlope.median(before)
        let parts = Comparison.lastingParts(bins, from: min(count, bins.firstIndex(from: onsetMs)), to: count)
        // Of the time, not of the values: where those are sparse, there may be none in a part.
        func mean(_ part: Range<Int>) -> Double? {
            let values = zip(places, after).filter { part.contains($0.0) }.map(\.1)
            return values.isEmpty ? nil : values.reduce(0, +) / Double(values.count)
        }
        let thirds = parts.thirds.map(mean)
        guard thirds[2] != nil, let first = thirds.compactMap({ $0 }).first else { return false }
        // What came down to less than half is passing.
        return (thirds + [mean(parts.last)]).allSatisfy {
            $0.map { $0 - middle >= max(floor, first - middle) / 2 } ?? true
        }
    }

    /// Whether units that had gone over before a step, and were well, rose with it: it can do nothing to them.
    private func befellOthers(
        _ steps: [Cohorts.Change], sinceMs onsetMs: Int64, _ all: [Unit], floor: Double
    ) -> Bool {
        guard cohorts.isStaggered else { return false }
        let onset = min(count, bins.firstIndex(from: onsetMs))
        let batches = Set(steps.map(\.batch))
        let rises = all.compactMap { unit -> (before: Double, after: Double)? in
            guard let change = unit.change, !batches.contains(change.batch), unit.treated.lowerBound < onset,
                let before = unit.mean(in: unit.treated.lowerBound..<onset), let after = unit.mean(in: onset..<count)
            else { return nil }
            return (before, after)
        }
        guard !rises.isEmpty else { return false }
        let before = rises.reduce(0) { $0 + $1.before } / Double(rises.count)
        let after = rises.reduce(0) { $0 + $1.after } / Double(rises.count)
        return after >= floor / 2 && 2 * before < after
    }

    /// Whether nodes had it as well while they waited, as long as some did: what befell all alike is none of the
    /// upgrade's, also when nobody waits any more.
    func wasShared(_ treated: [Unit], _ all: [Unit], sinceMs: Int64?, floor: Double) -> Bool {
        let first = max(baseline, sinceMs.flatMap { bins.index(of: $0 + 1) } ?? count)
        let end = all.lazy.map(\.controls.upperBound).max() ?? 0
        guard first < end else { return false }
        var (waited, went) = ([Double](), [Double]())
        for index in first..<end {
            let controls = all.filter { $0.controls.contains(index) }.compactMap { $0.change(at: index) }
            let others = treated.filter { $0.treated.contains(index) }.compactMap { $0.change(at: index) }
            guard !others.isEmpty, isEnough(controls.count, beside: others.count) else { continue }
            waited.append(controls.reduce(0, +) / Double(controls.count))
            went.append(others.reduce(0, +) / Double(others.count))
        }
        guard waited.count >= bins.count(ms: LevelJudge.stillMs) else { return false }
        let length = bins.count(ms: LevelJudge.windowMs[1])
        let mean = { (values: [Double]) in values.suffix(length).reduce(0, +) / Double(min(length, values.count)) }
        return mean(waited) >= floor / 2 && mean(went) - mean(waited) < floor / 2
    }
}
