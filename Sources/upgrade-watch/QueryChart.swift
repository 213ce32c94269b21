import Foundation
import PromQL
import Series

/// Series over time as lines of blocks, for a terminal.
enum QueryChart {
    private static let blocks: [Character] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]

    /// A line of blocks a series under its labels, all on one scale, with the range of its values behind it.
    ///
    /// - Parameter width: how many blocks there are at most; where there are more points, each shows the mean of some.
    static func render(_ matrix: [SeriesSamples], width: Int = 72) -> String {
        let finite = matrix.flatMap { $0.values.filter(\.isFinite) }
        guard let low = finite.min(), let high = finite.max(),
            let fromMs = matrix.compactMap(\.timestampsMs.first).min(),
            let throughMs = matrix.compactMap(\.timestampsMs.last).max()
        else { return "" }
        var out = "\(TimeFormat.rfc3339(ms: fromMs)) to \(TimeFormat.rfc3339(ms: throughMs)), "
        out += "from \(GoFloat.text(low)) to \(GoFloat.text(high))\n"
        for series in matrix {
            let line = cells(series, fromMs, throughMs, width).map { value -> Character in
                guard let value else { return " " }
                let part = high > low ? (value - low) / (high - low) : 0.5
                return blocks[min(blocks.count - 1, Int(part * Double(blocks.count)))]
            }
            let own = series.values.filter(\.isFinite)
            let range =
                own.isEmpty
                ? "no finite value" : "\(GoFloat.text(own.min() ?? 0)) … \(GoFloat.text(own.max() ?? 0))"
            out += "\(series.labels)\n  \(String(line))  \(range)\n"
        }
        return out
    }

    /// The mean of each stretch of time; nil where there is none.
    private static func cells(_ series: SeriesSamples, _ fromMs: Int64, _ throughMs: Int64, _ width: Int) -> [Double?] {
        let span = max(1, throughMs - fromMs)
        let steps = zip(series.timestampsMs, series.timestampsMs.dropFirst()).map { $1 - $0 }.min() ?? span
        let count = max(1, min(width, Int(span / max(1, steps)) + 1))
        var sums = [(sum: Double, count: Double)](repeating: (0, 0), count: count)
        for (timestampMs, value) in zip(series.timestampsMs, series.values) where value.isFinite {
            let cell = min(count - 1, Int(Double(timestampMs - fromMs) / Double(span) * Double(count)))
            sums[cell].sum += value
            sums[cell].count += 1
        }
        return sums.map { $0.count > 0 ? $0.sum / $0.count : nil }
    }
}
