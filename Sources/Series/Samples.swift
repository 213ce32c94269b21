/// The number of a series in one store.
///
/// Numbers of different stores have nothing to do with each other.
package struct SeriesID: Hashable, Sendable, Comparable {
    package var rawValue: Int64

    package init(rawValue: Int64) { self.rawValue = rawValue }

    /// Of no series of any store: samples of it are unknown.
    package static let none = SeriesID(rawValue: -1)

    package static func < (left: SeriesID, right: SeriesID) -> Bool { left.rawValue < right.rawValue }
}

/// The number of a source in one store: of what gives samples of many series at one time, such as a target.
package struct SampleSource: Hashable, Sendable {
    package var rawValue: Int64

    package init(rawValue: Int64) { self.rawValue = rawValue }
}

/// The value that ends a series: Prometheus' staleness marker, a NaN with its own bits
/// (`model/value/value.go`, `StaleNaN`).
package let staleMarker = Double(bitPattern: 0x7ff0_0000_0000_0002)

extension Double {
    /// Whether this value is the staleness marker; another NaN is not.
    @inlinable package var isStaleMarker: Bool { bitPattern == 0x7ff0_0000_0000_0002 }
}

/// Samples of many series as columns: entry i of each column belongs together.
package struct SampleBatch: Sendable {
    package var ids: [SeriesID] = []
    /// Milliseconds since the Unix epoch.
    package var timestampsMs: [Int64] = []
    package var values: [Double] = []

    package init() {}

    package var count: Int { ids.count }
    package var isEmpty: Bool { ids.isEmpty }

    package mutating func append(_ id: SeriesID, timestampMs: Int64, value: Double) {
        ids.append(id)
        timestampsMs.append(timestampMs)
        values.append(value)
    }

    package mutating func removeAll() {
        ids.removeAll(keepingCapacity: true)
        timestampsMs.removeAll(keepingCapacity: true)
        values.removeAll(keepingCapacity: true)
    }
}

/// One series with its samples in a time range, oldest first; timestamps ascend strictly.
package struct SeriesSamples: Sendable, Equatable {
    package var labels: Labels
    package var timestampsMs: [Int64]
    package var values: [Double]

    package init(labels: Labels, timestampsMs: [Int64] = [], values: [Double] = []) {
        self.labels = labels
        self.timestampsMs = timestampsMs
        self.values = values
    }

    /// Equal labels and times, and values of the same bits, so that a NaN equals itself.
    package static func == (left: SeriesSamples, right: SeriesSamples) -> Bool {
        left.labels == right.labels && left.timestampsMs == right.timestampsMs
            && left.values.map(\.bitPattern) == right.values.map(\.bitPattern)
    }
}

/// What a metric is, as its exposition says.
package struct MetricMetadata: Hashable, Sendable {
    package var name: String
    /// `counter`, `gauge`, `histogram`, `summary`, `info`, `stateset`, `gaugehistogram` or `unknown`.
    package var type: String
    package var help: String
    package var unit: String

    package init(name: String, type: String, help: String, unit: String = "") {
        self.name = name
        self.type = type
        self.help = help
        self.unit = unit
    }
}

/// What became of the samples of a batch.
package struct AppendResult: Sendable, Equatable {
    package var accepted = 0
    /// Older than the newest sample of their series.
    package var outOfOrder = 0
    /// Of the same time as the newest sample of their series.
    package var duplicates = 0
    /// Not taken because too many wait to be written down; they may be sent again.
    package var dropped = 0
    /// Of series or a source that have another number by now, or none: it has to be asked for again.
    package var unknown = 0

    package init(accepted: Int = 0, outOfOrder: Int = 0, duplicates: Int = 0) {
        self.accepted = accepted
        self.outOfOrder = outOfOrder
        self.duplicates = duplicates
    }

    package static func += (left: inout AppendResult, right: AppendResult) {
        left.accepted += right.accepted
        left.outOfOrder += right.outOfOrder
        left.duplicates += right.duplicates
        left.dropped += right.dropped
        left.unknown += right.unknown
    }
}

/// Where samples go.
package protocol SampleSink: Sendable {
    /// The numbers of the series with these labels, in their order; a series that is new gets one.
    func ids(for labels: [Labels]) -> [SeriesID]

    /// The number of the source whose series have these labels in common.
    func source(_ labels: Labels) -> SampleSource

    /// Appends one sample of each of some series, all of one source and time.
    ///
    /// A store keeps the time once. It costs least where a source gives the same array of series each time.
    func append(
        _ values: [Double], of ids: [SeriesID], from source: SampleSource, atMs timestampMs: Int64
    ) -> AppendResult

    /// Appends samples with times of their own. One that is not newer than the newest of its series is dropped and counted.
    func append(_ batch: SampleBatch) -> AppendResult

    /// Keeps what metrics say of themselves; the newest word of a metric counts.
    func setMetadata(_ metadata: [MetricMetadata])
}

extension SampleSink {
    /// For sinks to which sources are all the same.
    package func source(_ labels: Labels) -> SampleSource { SampleSource(rawValue: 0) }

    package func append(
        _ values: [Double], of ids: [SeriesID], from source: SampleSource, atMs timestampMs: Int64
    ) -> AppendResult {
        var batch = SampleBatch()
        for (id, value) in zip(ids, values) { batch.append(id, timestampMs: timestampMs, value: value) }
        return append(batch)
    }
}

/// Where samples come from.
package protocol SeriesSource: Sendable {
    /// The series that all matchers accept, with their samples from `fromMs` through `throughMs`, both included.
    ///
    /// Series without a sample in the range are left out; the order is that of the labels.
    /// - Throws: an error of the store that can't be read.
    func select(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [SeriesSamples]

    /// The same series, to be read one after another.
    func selection(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> SeriesSelection

    /// The labels of the series that all matchers accept and that may have samples in the range.
    func labels(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [Labels]

    /// What is known of metrics, by name.
    func metadata() throws -> [MetricMetadata]

    /// The times of the oldest and the newest sample; nil for an empty store.
    func timeRange() throws -> ClosedRange<Int64>?
}

extension SeriesSource {
    /// For sources whose series are in memory when they are selected.
    package func selection(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> SeriesSelection {
        SeriesSelection(try select(matchers, fromMs: fromMs, throughMs: throughMs))
    }
}
