import Series

/// Two sources as one: what was measured here, and the history that another server has.
///
/// A series that both have has the samples of both; where both have one at the same time, it is the first source's.
package struct JoinedSource: SeriesSource {
    private let first: any SeriesSource
    private let second: any SeriesSource
    private let readsRecent: Bool

    /// - Parameter readsRecent: whether the second source is asked as well for what came since the first began. Where it is not,
    ///   what needs no older samples does without it, also where it can't be read (Prometheus' `remote_read`, `read_recent`).
    package init(_ first: any SeriesSource, _ second: any SeriesSource, readsRecent: Bool = true) {
        self.first = first
        self.second = second
        self.readsRecent = readsRecent
    }

    private func needsSecond(_ fromMs: Int64) throws -> Bool {
        guard !readsRecent, let range = try first.timeRange() else { return true }
        return fromMs < range.lowerBound
    }

    package func selection(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> SeriesSelection {
        guard try needsSecond(fromMs) else {
            return try first.selection(matchers, fromMs: fromMs, throughMs: throughMs)
        }
        return SeriesSelection(try select(matchers, fromMs: fromMs, throughMs: throughMs))
    }

    package func select(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [SeriesSamples] {
        guard try needsSecond(fromMs) else {
            return try first.select(matchers, fromMs: fromMs, throughMs: throughMs)
        }
        let (here, there) = (
            try first.select(matchers, fromMs: fromMs, throughMs: throughMs),
            try second.select(matchers, fromMs: fromMs, throughMs: throughMs)
        )
        if here.isEmpty || there.isEmpty { return here + there }
        var joined = Dictionary(uniqueKeysWithValues: there.map { ($0.labels, $0) })
        for series in here {
            joined[series.labels] = joined[series.labels].map { JoinedSource.merged(series, $0) } ?? series
        }
        return joined.values.sorted { $0.labels < $1.labels }
    }

    package func labels(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [Labels] {
        let here = try first.labels(matchers, fromMs: fromMs, throughMs: throughMs)
        guard try needsSecond(fromMs) else { return here }
        return Set(here + (try second.labels(matchers, fromMs: fromMs, throughMs: throughMs))).sorted()
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
