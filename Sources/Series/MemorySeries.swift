import Synchronization

/// A store in memory: for tests, and as the plain reading of what a store must answer.
package final class MemorySeries: SampleSink, SeriesSource {
    private struct State {
        var ids: [Labels: SeriesID] = [:]
        var series: [SeriesSamples] = []
        var metadata: [String: MetricMetadata] = [:]
    }

    private let state = Mutex(State())

    package init() {}

    package func ids(for labels: [Labels]) -> [SeriesID] {
        state.withLock { state in
            labels.map { labels in
                if let id = state.ids[labels] { return id }
                let id = SeriesID(rawValue: Int64(state.series.count))
                state.series.append(SeriesSamples(labels: labels))
                state.ids[labels] = id
                return id
            }
        }
    }

    package func append(_ batch: SampleBatch) -> AppendResult {
        state.withLock { state in
            var result = AppendResult()
            for index in 0..<batch.count {
                let slot = Int(batch.ids[index].rawValue)
                let timestampMs = batch.timestampsMs[index]
                if let last = state.series[slot].timestampsMs.last, last >= timestampMs {
                    if last == timestampMs { result.duplicates += 1 } else { result.outOfOrder += 1 }
                    continue
                }
                state.series[slot].timestampsMs.append(timestampMs)
                state.series[slot].values.append(batch.values[index])
                result.accepted += 1
            }
            return result
        }
    }

    package func setMetadata(_ metadata: [MetricMetadata]) {
        state.withLock { state in
            for entry in metadata { state.metadata[entry.name] = entry }
        }
    }

    package func select(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [SeriesSamples] {
        let all = state.withLock { $0.series }
        return all.compactMap { series in
            guard matchers.allSatisfy({ $0.accepts(series.labels) }) else { return nil }
            let kept = series.timestampsMs.indices.filter {
                series.timestampsMs[$0] >= fromMs && series.timestampsMs[$0] <= throughMs
            }
            guard !kept.isEmpty else { return nil }
            return SeriesSamples(
                labels: series.labels, timestampsMs: kept.map { series.timestampsMs[$0] },
                values: kept.map { series.values[$0] })
        }.sorted { $0.labels < $1.labels }
    }

    package func labels(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [Labels] {
        try select(matchers, fromMs: fromMs, throughMs: throughMs).map(\.labels)
    }

    package func metadata() throws -> [MetricMetadata] {
        state.withLock { $0.metadata.values.sorted { $0.name < $1.name } }
    }

    package func timeRange() throws -> ClosedRange<Int64>? {
        let all = state.withLock { $0.series }
        guard let first = all.compactMap({ $0.timestampsMs.first }).min(),
            let last = all.compactMap({ $0.timestampsMs.last }).max()
        else { return nil }
        return first...last
    }
}

extension SampleSink {
    /// Appends one sample of each series at one time.
    ///
    /// For the few series that a component makes of itself.
    @discardableResult
    package func append(_ samples: [(labels: Labels, value: Double)], atMs timestampMs: Int64) -> AppendResult {
        var batch = SampleBatch()
        for (id, sample) in zip(ids(for: samples.map(\.labels)), samples) {
            batch.append(id, timestampMs: timestampMs, value: sample.value)
        }
        return append(batch)
    }
}
