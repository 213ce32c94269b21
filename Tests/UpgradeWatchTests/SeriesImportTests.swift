import Series
import Storage
import TestSupport
import Testing
import UpgradeWatch

@Suite struct SeriesImportTests {
    private let directory = TemporaryDirectory()

    /// History comes series by series, a stretch of time after another: series whose turn is yet to come fall asleep with the
    /// checkpoints of the others.
    @Test func checkpointsWithinAStretch_loseNothing() throws {
        let store = try Store(directory: directory.path)
        var work = SeriesImport(into: store, nowMs: .max / 2, mostInMemory: 2700, mostWaiting: 500)
        let twin = MemorySeries()
        var asleep = 0
        for stretch in 0..<3 {
            let series = (0..<200).map { number in
                let times = (0..<60).map { Int64(stretch * 60 + $0) * 60_000 }
                return SeriesSamples(
                    labels: ["__name__": "m", "n": "\(number)"], timestampsMs: times,
                    values: times.map { Double($0) + Double(number) })
            }
            for some in stride(from: 0, to: series.count, by: 100) {
                try work.add(Array(series[some..<some + 100]))
                asleep = max(asleep, store.counters.series - store.counters.seriesInMemory)
            }
            for one in series {
                for (atMs, value) in zip(one.timestampsMs, one.values) {
                    _ = twin.append([(one.labels, value)], atMs: atMs)
                }
            }
        }
        #expect(work.result.unknown == 0 && work.result.accepted == 3 * 200 * 60)
        #expect(store.counters.checkpoints > 10 && asleep > 50)
        #expect(try store.select([], fromMs: .min, throughMs: .max) == twin.select([], fromMs: .min, throughMs: .max))
    }

    @Test func textInManyPieces_losesNothing() throws {
        let store = try Store(directory: directory.path)
        var work = SeriesImport(into: store, nowMs: .max / 2, mostInMemory: 2000, mostWaiting: 500)
        var asleep = 0
        for day in 0..<3 {
            var pieces = (0..<100).map { number in
                (0..<60).map { "m{n=\"\(number)\"} \($0) \((day * 60 + $0) * 60)\n" }.joined()
            }
            pieces.append("# EOF\n")
            var next = 0
            try work.read("text", format: .openMetrics) {
                defer { next += 1 }
                asleep = max(asleep, store.counters.series - store.counters.seriesInMemory)
                return next < pieces.count ? Array(pieces[next].utf8) : []
            }
        }
        #expect(work.result == AppendResult(accepted: 3 * 100 * 60))
        #expect(asleep > 20)
    }
}
