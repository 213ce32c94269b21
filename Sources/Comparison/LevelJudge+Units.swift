import Statistics

/// Which units changed, each by itself.
extension LevelJudge {
    /// How many standard deviations of its own noise a unit must have changed by.
    private static let ownScore = 4.0
    /// The least part of those that went over, and of those whose level changed, that are judged by themselves.
    private static let leastPart = 0.05
    private static let leastOfChanged = 0.75

    /// The units whose level clearly changed as each went over, if they are more than a few, and most of those whose
    /// level is another by now: what befalls nodes for a reason of their own does not wait for the step of each.
    func affected(_ units: [Unit]) -> [Unit] {
        let (half, length) = (bins.count(ms: LevelJudge.windowMs[0]), bins.count(ms: LevelJudge.windowMs[1]))
        var changed = 0
        var found: [Unit] = []
        var treated = 0
        for unit in units {
            if !unit.treated.isEmpty { treated += 1 }
            let from = unit.treated.isEmpty ? baseline : unit.treated.lowerBound
            let window = max(from, count - length)..<count
            let floor = floor(unit.level)
            // The mean is asked first: the noise is dear.
            guard let change = unit.mean(in: window), abs(change) >= floor,
                let clear = clearChange(of: unit, in: window, score: LevelJudge.ownScore), abs(clear) >= floor
            else { continue }
            // What some have more and others less was moved from these to those, as pods by a drain.
            changed += 1
            guard !unit.treated.isEmpty, clear > 0 else { continue }
            let before = unit.mean(in: max(0, unit.controls.upperBound - half)..<unit.controls.upperBound)
            let after = unit.mean(in: unit.treated.lowerBound..<min(count, unit.treated.lowerBound + half))
            if let before, let after, 2 * (after - before) >= clear { found.append(unit) }
        }
        let isEnough = found.count >= 3 && Double(found.count) >= LevelJudge.leastPart * Double(treated)
        return isEnough && Double(found.count) >= LevelJudge.leastOfChanged * Double(changed) ? found : []
    }

    /// Whether a unit's level had clearly changed in the last hour before it went over.
    func isIll(_ unit: Unit) -> Bool {
        let length = bins.count(ms: LevelJudge.windowMs[1])
        guard !unit.treated.isEmpty, unit.controls.upperBound > baseline else { return false }
        let window = max(baseline, unit.controls.upperBound - length)..<unit.controls.upperBound
        return clearChange(of: unit, in: window, score: LevelJudge.leastScore).map { $0 >= floor(unit.level) / 2 }
            ?? false
    }

    /// How far a unit's level in a window is from that before the upgrade, where its own noise leaves no doubt.
    ///
    /// - Parameter score: so many standard deviations.
    private func clearChange(of unit: Unit, in window: Range<Int>, score: Double) -> Double? {
        let last = unit.values[window.clamped(to: unit.values.indices)].filter { !$0.isNaN }
        let before = unit.values.prefix(baseline).filter { !$0.isNaN }
        guard last.count >= 3, before.count >= LevelJudge.leastPlacebos * last.count else { return nil }
        let placebos = Placebo.windowMeans(before, length: last.count, step: max(1, last.count / 4))
        let change = last.reduce(0, +) / Double(last.count) - RobustSlope.median(placebos)
        let spread = Placebo.spread(placebos, windows: Double(before.count) / Double(last.count))
        return abs(change) >= score * spread ? change : nil
    }
}
