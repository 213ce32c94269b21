/// What the hour of day explains of a series.
enum HourProfile {
    /// Takes the mean of each hour of day out of a series, where that helps: where each day before the upgrade is
    /// told better by the others' hours than by nothing.
    static func remove(from series: inout [Double], usable: [Bool], baseline: Int, bins: Bins) {
        let dayMs = LevelJudge.dayMs
        guard Int64(baseline) * bins.widthMs >= 2 * dayMs else { return }
        let hour = { (index: Int) in Int((bins.startMs(index) % dayMs) / 3_600_000) }
        let day = { (index: Int) in Int((bins.startMs(index) - bins.fromMs) / dayMs) }
        let days = day(baseline - 1) + 1
        var sums = [[Double]](repeating: [Double](repeating: 0, count: 24), count: days)
        var seen = sums
        for index in 0..<baseline where usable[index] {
            sums[day(index)][hour(index)] += series[index]
            seen[day(index)][hour(index)] += 1
        }
        let mean = { (hour: Int, without: Int?) -> Double? in
            let list = (0..<days).filter { $0 != without && seen[$0][hour] > 0 }
            return list.isEmpty ? nil : list.reduce(0) { $0 + sums[$1][hour] / seen[$1][hour] } / Double(list.count)
        }
        var (with, without) = (0.0, 0.0)
        for day in 0..<days {
            for hour in 0..<24 where seen[day][hour] > 0 {
                guard let expected = mean(hour, day) else { continue }
                let value = sums[day][hour] / seen[day][hour]
                with += (value - expected) * (value - expected)
                without += value * value
            }
        }
        guard with < 0.7 * without else { return }
        let profile = (0..<24).map { mean($0, nil) ?? 0 }
        for index in series.indices { series[index] -= profile[hour(index)] }
    }
}
