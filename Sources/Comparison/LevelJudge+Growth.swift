import Foundation
import PromQL
import Series
import Statistics

/// Whether a level grows steadily.
extension LevelJudge {
    /// Windows whose slopes are judged, and the width of the blocks that they are made of.
    private static let slopeWindowMs: [Int64] = [12, 13, 14, 15, 16, 17, 18, 20, 22, 24, 48].map { $0 * slopeBlockMs }
    static let slopeBlockMs: Int64 = 900_000
    /// How long a trend must be, where the hours of the day are known from before, and where they are not.
    private static let trendMs: Int64 = 21_600_000
    private static let dayTrendMs: Int64 = 72_000_000

    /// The width of a block, of whole bins.
    private var blockMs: Int64 { Int64(bins.count(ms: LevelJudge.slopeBlockMs)) * bins.widthMs }

    func blocks(_ values: [Double]) -> [Double] {
        let length = bins.count(ms: LevelJudge.slopeBlockMs)
        // From the end, so that the last block is whole.
        return stride(from: values.count % length, to: values.count, by: length).map {
            values[$0..<$0 + length].reduce(0, +) / Double(length)
        }
    }

    /// Whether it grows steadily, and whether it is known not to.
    struct Growth {
        var isWorse = false
        var isWell = false
        var needs: String?
    }

    /// nil where growth is not looked for.
    ///
    /// Two looks: at the slopes of the last hours against those of windows before the upgrade; and, for what is too slow
    /// for them or has too short a time before, at the trend of all that came since.
    func growth(_ before: [Double], _ after: [Double], level: Double, isContrast: Bool) -> Growth? {
        guard let slopeFloor = signal.slopeFloor else { return nil }
        let scale = isLogarithmic ? 1 : abs(unscaled(level))
        let floor = slopeFloor * (scale == 0 ? 1 : scale)
        let (old, new) = (blocks(before), blocks(after))
        let hours = Double(blockMs) / 3_600_000
        var growth = Growth()
        for windowMs in LevelJudge.slopeWindowMs {
            let length = max(2, Int(windowMs / blockMs))
            guard old.count >= LevelJudge.leastPlacebos * length, new.count >= length else { continue }
            let x = (0..<length).map { Double($0) * hours }
            guard let observed = RobustSlope.theilSen(x: x, y: Array(new.suffix(length)))?.slope else { continue }
            let placebos = stride(from: 0, through: old.count - length, by: max(1, length / 4)).compactMap {
                RobustSlope.theilSen(x: x, y: Array(old[$0..<$0 + length]))?.slope
            }
            let spread = Placebo.spread(placebos, windows: Double(old.count) / Double(length))
            let estimate = observed - RobustSlope.median(placebos)
            if LevelJudge.isBeyond(estimate, spread, floor: floor) { return Growth(isWorse: true) }
            // The longest window is the most exact.
            growth.isWell = estimate + LevelJudge.width * spread < floor
        }
        let sinceMs = Int64(new.count) * blockMs
        let knowsDays = isContrast || baselineMs >= 2 * LevelJudge.dayMs
        let needMs = knowsDays ? LevelJudge.trendMs : LevelJudge.dayTrendMs
        guard sinceMs >= needMs, let trend = Trend(new), let late = Trend(Array(new.suffix(new.count / 2))) else {
            let wait = TimeFormat.duration(ms: max(60_000, needMs - sinceMs))
            growth.needs =
                knowsDays
                ? "whether it grows is not clear yet: \(wait) more"
                : "whether it grows can't be told from the time of day with so short a time before: \(wait) more"
            return growth
        }
        // It grows as it did before, and its noise may be that of before as well.
        let known = Int64(old.count) * blockMs >= LevelJudge.trendMs ? Trend(old) : nil
        let error = hypot(max(trend.error, known?.error(count: new.count) ?? 0), known?.error ?? 0) / hours
        let estimate = (trend.slope - (known?.slope ?? 0)) / hours
        if LevelJudge.isBeyond(estimate, error, floor: floor), late.slope / hours >= floor / 2 {
            return Growth(isWorse: true)
        }
        growth.isWell = estimate + LevelJudge.width * error < floor
        if !growth.isWell {
            // The error of a slope goes with the time to the power of -3/2.
            let room = floor - estimate
            let times = room > 0 ? pow(LevelJudge.width * error / room, 2.0 / 3) : .infinity
            let wait =
                times.isFinite ? "about \(JudgedTime.wait(Double(sinceMs) * (times - 1))) more" : "more time is needed"
            growth.needs = "whether it grows is not clear yet: \(wait)"
        }
        return growth
    }

    /// Whether a slope is over its floor, and clearly over half of it.
    private static func isBeyond(_ slope: Double, _ error: Double, floor: Double) -> Bool {
        slope >= floor && slope >= leastScore * error && slope - width * error >= floor / 2
    }
}
