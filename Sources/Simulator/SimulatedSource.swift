import Series

/// The series of a simulated cluster, whole from the beginning; readers ask for times up to their own present.
package final class SimulatedSource: SeriesSource {
    private let byName: [String: [SeriesSamples]]
    private let range: ClosedRange<Int64>?

    init(_ series: [SeriesSamples], range: ClosedRange<Int64>) {
        var byName: [String: [SeriesSamples]] = [:]
        for one in series { byName[one.labels.name, default: []].append(one) }
        self.byName = byName.mapValues { $0.sorted { $0.labels < $1.labels } }
        self.range = range
    }

    package func select(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [SeriesSamples] {
        var found: [SeriesSamples] = []
        each(matchers) { series in
            let times = series.timestampsMs
            let first = SimulatedSource.firstIndex(times, from: fromMs)
            let end = SimulatedSource.firstIndex(times, from: throughMs + 1)
            guard first < end else { return }
            found.append(
                SeriesSamples(
                    labels: series.labels, timestampsMs: Array(times[first..<end]),
                    values: Array(series.values[first..<end])))
        }
        return found
    }

    package func labels(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [Labels] {
        var found: [Labels] = []
        each(matchers) { series in
            guard let first = series.timestampsMs.first, let last = series.timestampsMs.last, first <= throughMs,
                last >= fromMs
            else { return }
            found.append(series.labels)
        }
        return found
    }

    package func metadata() throws -> [MetricMetadata] { [] }

    package func timeRange() throws -> ClosedRange<Int64>? { range }

    /// All series, by name and labels.
    var all: [SeriesSamples] { byName.sorted { $0.key < $1.key }.flatMap(\.value) }

    private func each(_ matchers: [LabelMatcher], _ body: (SeriesSamples) -> Void) {
        let name = matchers.first { $0.name == Labels.metricName }
        let others = matchers.filter { $0.name != Labels.metricName }
        func visit(_ list: [SeriesSamples]) {
            for series in list where others.allSatisfy({ $0.accepts(series.labels) }) { body(series) }
        }
        if let name, name.operator == .equal { return visit(byName[name.value] ?? []) }
        for (metric, list) in byName.sorted(by: { $0.key < $1.key }) {
            if name?.accepts([Labels.metricName: metric]) ?? true { visit(list) }
        }
    }

    private static func firstIndex(_ times: [Int64], from atMs: Int64) -> Int {
        var (low, high) = (0, times.count)
        while low < high {
            let middle = (low + high) / 2
            if times[middle] < atMs { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
