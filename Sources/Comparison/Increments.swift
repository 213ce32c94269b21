import Series

/// The increases of counters, read from raw samples.
struct Increments {
    /// When which targets were scraped with success: a series that appears while its target was watched began at
    /// zero.
    private var firstUp: [Labels: Int64] = [:]

    /// - Parameters:
    ///   - source: where `up` is read.
    ///   - fromMs: the start of all that will be asked for.
    init(source: any SeriesSource, fromMs: Int64, throughMs: Int64) throws {
        for series in try source.select([.equal(Labels.metricName, "up")], fromMs: fromMs, throughMs: throughMs) {
            if let first = series.values.firstIndex(of: 1) {
                firstUp[series.labels.keeping(Increments.targetLabels)] = series.timestampsMs[first]
            }
        }
    }

    static let targetLabels = ["instance", "job", "metrics_path"]

    /// Calls `body` for each increase of a counter within a window that is open at its left: with the time of the
    /// sample that shows it and its size.
    ///
    /// A value below the one before is a reset: the counter began again at zero. A series whose first sample lies in
    /// the window counts from zero where its target was scraped before that sample.
    /// - Parameter series: samples that reach back before the window, as far as a counter may have been silent.
    func each(of series: SeriesSamples, fromMs: Int64, throughMs: Int64, _ body: (Int64, Double) -> Void) {
        var previous: Double?
        let target = series.labels.keeping(Increments.targetLabels)
        for (atMs, value) in zip(series.timestampsMs, series.values) {
            if atMs > throughMs { break }
            // A staleness marker ends nothing for a counter: it may come back with its old value.
            guard !value.isNaN else { continue }
            defer { previous = value }
            guard atMs > fromMs else { continue }
            if let previous {
                let increase = value >= previous ? value - previous : value
                if increase > 0 { body(atMs, increase) }
            } else if let up = firstUp[target], up < atMs, value > 0 {
                body(atMs, value)
            }
        }
    }
}

/// Bins of equal width over the time of a comparison.
struct Bins: Sendable {
    var fromMs: Int64
    var throughMs: Int64
    var widthMs: Int64

    var count: Int { max(1, Int((throughMs - fromMs + widthMs - 1) / widthMs)) }

    /// The bin of a time within the open left and closed right end.
    func index(of atMs: Int64) -> Int? {
        guard atMs > fromMs, atMs <= throughMs else { return nil }
        return min(count - 1, Int((atMs - fromMs - 1) / widthMs))
    }

    /// The first bin that begins at a time or after it; the count where none does.
    func firstIndex(from atMs: Int64) -> Int {
        min(count, max(0, Int((atMs - fromMs + widthMs - 1) / widthMs)))
    }

    func startMs(_ index: Int) -> Int64 { fromMs + Int64(index) * widthMs }
}
