import Cluster
import Foundation
import Statistics

/// When a change of a level began, and where it is.
extension LevelJudge {
    /// Growth that explains this part of what the best corner explains, when it begins with the step, began with it.
    ///
    /// A line from the step explains 0.95 of a growth that began after a quarter of the time.
    private static let likeFirst = 0.95

    /// What of the time before takes part in the search for the onset.
    private func recent(_ before: [Double]) -> [Double] { Array(before.suffix(bins.count(ms: 43_200_000))) }

    /// When the batches that have the change began to go over, those of the first half as ill as the worst.
    func starts(_ units: [Unit], _ places: [Int]) -> [Cohorts.Change] {
        let window = places.suffix(bins.count(ms: LevelJudge.windowMs[1]))
        var sums: [Int?: (value: Double, seen: Double)] = [:]
        for unit in units {
            for index in window where index < unit.values.count && unit.treated.contains(index) {
                guard !unit.values[index].isNaN else { continue }
                let known = sums[unit.change?.batch, default: (0, 0)]
                sums[unit.change?.batch] = (known.value + unit.values[index] - unit.level, known.seen + 1)
            }
        }
        let means = sums.mapValues { $0.value / $0.seen }
        let half = (means.values.max() ?? 0) / 2
        return cohorts.startsMs().filter { means[$0.batch].map { $0 >= half } ?? false }
            .sorted { $0.firstMs < $1.firstMs }
    }

    /// - Parameter starts: in order of time.
    func onset(
        _ series: [Double], _ before: [Double], _ after: [Double], _ places: [Int], _ starts: [Cohorts.Change]
    ) -> Int64? {
        let old = recent(before)
        guard let (step, within) = ChangePoint.meanStep(values: old + after) else { return nil }
        let expected = starts.map { (change: $0, bin: bins.firstIndex(from: signal.treatedFromMs($0))) }
        if within.contains(old.count) || step == old.count {
            // It was there as soon as most had gone over: whether it was among the first few, these say.
            let middle = { (values: ArraySlice<Double>) in values.reduce(0, +) / Double(max(1, values.count)) }
            let (low, high) = (middle(old[...]), middle(after.prefix(bins.count(ms: LevelJudge.windowMs[2]))))
            for (change, bin) in expected where bin <= places[0] {
                let early = series[min(bin, places[0])...places[0]].filter { !$0.isNaN }
                if middle(early[...]) >= (low + high) / 2 { return change.firstMs }
            }
        }
        let known = expected.first { one in
            places.firstIndex { $0 >= one.bin }.map { within.contains(old.count + $0) } ?? false
        }
        if let known { return known.change.firstMs }
        if step < old.count { return bins.startMs(max(0, baseline - (old.count - step))) }
        return cohorts.onsetMs(ofBin: places[step - old.count], bins, signal)
    }

    /// Where a level that grows steadily most likely began to: the corner of the broken line that fits best.
    ///
    /// - Parameters:
    ///   - starts: in order of time.
    ///   - unlessStep: nil where a step explains more.
    func ramp(
        _ before: [Double], _ after: [Double], _ places: [Int], _ starts: [Cohorts.Change], unlessStep: Bool = false
    ) -> Int64? {
        let (old, new) = (blocks(recent(before)), blocks(after))
        guard !new.isEmpty else { return nil }
        let length = bins.count(ms: LevelJudge.slopeBlockMs)
        let rest = after.count % length
        let level = old.isEmpty ? new[0] : old.reduce(0, +) / Double(old.count)
        var best: (index: Int, gain: Double)?
        var (first, step) = (0.0, 0.0)
        for corner in new.indices.dropLast(2) {
            var (xy, xx, sum) = (0.0, 0.0, 0.0)
            for index in corner..<new.count {
                let x = Double(index - corner + 1)
                xy += x * (new[index] - level)
                xx += x * x
                sum += new[index] - level
            }
            step = max(step, sum * sum / Double(new.count - corner))
            let gain = xy > 0 ? xy * xy / xx : 0
            if corner == 0 { first = gain }
            if gain > best?.gain ?? 0 { best = (corner, gain) }
        }
        if unlessStep, step > best?.gain ?? 0 { return nil }
        // A corner is not told to the minute: where the first that is judged fits nearly as well, it is the step.
        return best.map { corner in
            let place = rest + corner.index * length
            let isFirst = place <= bins.count(ms: 7_200_000) || first >= LevelJudge.likeFirst * corner.gain
            if isFirst, let start = starts.first { return start.firstMs }
            return cohorts.onsetMs(ofBin: places[isFirst ? 0 : min(places.count - 1, place)], bins, signal)
        }
    }

    func timeline(_ units: [Unit]) -> [(atMs: Int64, value: Double)] {
        var sums = [Double](repeating: 0, count: count)
        var seen = sums
        for unit in units {
            for index in unit.values.indices where !unit.values[index].isNaN {
                sums[index] += unit.values[index]
                seen[index] += 1
            }
        }
        return (0..<count).compactMap { index in
            seen[index] > 0 ? (bins.startMs(index) + bins.widthMs / 2, unscaled(sums[index] / seen[index])) : nil
        }
    }

    func localize(_ outcome: inout Outcome, _ units: [Unit], last places: [Int]) {
        guard cohorts.isStaggered else { return }
        let window = Set(places.suffix(bins.count(ms: LevelJudge.windowMs[1])))
        var excess: [(unit: Unit, value: Double)] = []
        for unit in units {
            let values = window.filter { unit.treated.contains($0) && $0 < unit.values.count }.map { unit.values[$0] }
                .filter { !$0.isNaN }
            guard !values.isEmpty else { continue }
            let value = values.reduce(0, +) / Double(values.count) - unit.level
            excess.append((unit, value))
            if let batch = unit.change?.batch { outcome.excess[batch, default: 0] += value }
        }
        let few = Concentration.fewest(excess, excess: \.value, name: \.unit.name).map(\.unit)
        guard !few.isEmpty else { return }
        if few.count * 5 <= max(5, excess.count) { outcome.units = few.map(\.name) }
        // Had it begun on those units before they went over themselves?
        var sums = [Double](repeating: 0, count: count)
        var seen = sums
        for unit in few {
            for index in unit.values.indices where !unit.values[index].isNaN {
                sums[index] += unit.values[index] - unit.level
                seen[index] += 1
            }
        }
        let kept = (0..<count).filter { seen[$0] > 0 }
        guard let step = ChangePoint.meanStep(values: kept.map { sums[$0] / seen[$0] })?.index,
            let earliest = few.compactMap(\.change?.firstMs).min()
        else { return }
        outcome.beganBefore = bins.startMs(kept[step]) + Comparison.vetoMs < earliest
    }
}
