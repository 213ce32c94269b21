/// Series that a source has chosen for a query; their samples are read when they are asked for, one series after another.
///
/// So a query over many series holds the samples of a few at a time. Samples of the range that are appended meanwhile may
/// be among them, or not. Several threads may read different series at once.
package struct SeriesSelection: Sendable {
    /// What takes one series: its place in ``labels``, and its samples in the range, oldest first.
    ///
    /// The samples are there only while it runs. Never called for a series without samples.
    package typealias Body = (Int, UnsafeBufferPointer<Int64>, UnsafeBufferPointer<Double>) throws -> Void

    /// The labels of each series, in any order; no set stands twice.
    package let labels: [Labels]
    private let reader: @Sendable (ArraySlice<Int>, Body) throws -> Void

    /// - Parameter reader: calls its body for each of the places, in their order.
    package init(labels: [Labels], reader: @escaping @Sendable (ArraySlice<Int>, Body) throws -> Void) {
        self.labels = labels
        self.reader = reader
    }

    /// A selection of series that are in memory.
    package init(_ series: [SeriesSamples]) {
        self.init(labels: series.map(\.labels)) { places, body in
            for place in places {
                try series[place].timestampsMs.withUnsafeBufferPointer { times in
                    try series[place].values.withUnsafeBufferPointer { values in
                        if !times.isEmpty { try body(place, times, values) }
                    }
                }
            }
        }
    }

    /// Calls `body` for the series at these places, in their order.
    ///
    /// - Throws: the source's error, or that of `body`, which ends the reading.
    package func read(_ places: ArraySlice<Int>, _ body: Body) throws { try reader(places, body) }

    /// Calls `body` for all series, in the order of ``labels``.
    ///
    /// - Throws: the source's error, or that of `body`, which ends the reading.
    package func readAll(_ body: Body) throws { try reader(Array(labels.indices)[...], body) }

    /// All series with their samples, in the order of their labels.
    package func samples() throws -> [SeriesSamples] {
        var all: [SeriesSamples] = []
        all.reserveCapacity(labels.count)
        try readAll { place, times, values in
            all.append(SeriesSamples(labels: labels[place], timestampsMs: Array(times), values: Array(values)))
        }
        return all.sorted { $0.labels < $1.labels }
    }
}
