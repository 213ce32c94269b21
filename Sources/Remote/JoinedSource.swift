import Series
import Synchronization

/// Two sources as one: what was measured here, and the history that another server has.
///
/// A series that both have has the samples of both; where both have one at the same time, it is the first source's.
package final class JoinedSource: SeriesSource {
    private let first: any SeriesSource
    private let second: any SeriesSource
    private let time: (any TimeSource)?
    /// When the second source could not be read last.
    private let failedMs = Mutex(Int64.min / 2)

    /// For so long it is not asked again.
    private static let pauseMs: Int64 = 60_000

    /// - Parameter time: where there is a clock, the second source need not be there for what is no older than all that the
    ///   first has.
    package init(_ first: any SeriesSource, _ second: any SeriesSource, tolerantBy time: (any TimeSource)? = nil) {
        self.first = first
        self.second = second
        self.time = time
    }

    /// What the second source has; nil where it can't be read and need not be there.
    private func ofSecond<Value>(_ fromMs: Int64, _ body: () throws -> Value) throws -> Value? {
        guard let time, let oldestMs = try first.timeRange()?.lowerBound, fromMs >= oldestMs else { return try body() }
        guard time.nowMs - failedMs.withLock({ $0 }) > JoinedSource.pauseMs else { return nil }
        do {
            return try body()
        } catch {
            failedMs.withLock { $0 = time.nowMs }
            return nil
        }
    }

    package func select(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [SeriesSamples] {
        let here = try first.select(matchers, fromMs: fromMs, throughMs: throughMs)
        let there = try ofSecond(fromMs) { try second.select(matchers, fromMs: fromMs, throughMs: throughMs) } ?? []
        if here.isEmpty || there.isEmpty { return here + there }
        var joined = Dictionary(uniqueKeysWithValues: there.map { ($0.labels, $0) })
        for series in here {
            joined[series.labels] = joined[series.labels].map { JoinedSource.merged(series, $0) } ?? series
        }
        return joined.values.sorted { $0.labels < $1.labels }
    }

    package func labels(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [Labels] {
        let here = try first.labels(matchers, fromMs: fromMs, throughMs: throughMs)
        let there = try ofSecond(fromMs) { try second.labels(matchers, fromMs: fromMs, throughMs: throughMs) }
        return Set(here + (there ?? [])).sorted()
    }

    package func metadata() throws -> [MetricMetadata] {
        let here = try first.metadata()
        let known = Set(here.map(\.name))
        return (here + (try second.metadata()).filter { !known.contains($0.name) }).sorted { $0.name < $1.name }
    }

    package func timeRange() throws -> ClosedRange<Int64>? {
        let (here, there) = (try first.timeRange(), try second.timeRange())
        guard let here, let there else { return here ?? there }
        return min(here.lowerBound, there.lowerBound)...max(here.upperBound, there.upperBound)
    }

    /// The samples of both in order of time; of two at one time that of `a`.
    static func merged(_ a: SeriesSamples, _ b: SeriesSamples) -> SeriesSamples {
        var byTime = Dictionary(zip(b.timestampsMs, b.values)) { $1 }
        for (atMs, value) in zip(a.timestampsMs, a.values) { byTime[atMs] = value }
        let times = byTime.keys.sorted()
        return SeriesSamples(labels: a.labels, timestampsMs: times, values: times.map { byTime[$0] ?? .nan })
    }
}
