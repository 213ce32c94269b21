import Exposition
import Foundation
import Recording
import Scrape
import Series
import Storage
import TestSupport

/// A store that is fed as a fleet feeds it, in simulated time: what a sample takes, and how long questions do.
///
/// The series and values are those of a recorded kubelet: each minute a target has those of one of the recorded scrapes,
/// taken by chance, and its counters add what they had added up to it from the one before. What repeats itself would be
/// compressed to nothing.
enum StoreBenchmark {
    private static let startMs: Int64 = 1_795_392_000_000
    private static let minuteMs: Int64 = 60_000
    /// What the service gives a generation (`FlushLoop`).
    private static let checkpointSamples = 16_000_000

    /// Days of a fleet at one sample a minute: the rate of taking it in, the file, opening it, and two questions.
    ///
    /// - Parameter series: rounded up to whole targets.
    static func run(series: Int, days: Int, row: (String, String) -> Void) throws {
        let kubelet = try RecordedKubelet()
        let directory = TemporaryDirectory()
        var store = try Store(directory: directory.path)
        var fleet = Fleet(kubelet, series: series)
        let name = "store, \(fleet.series) series"
        var (appending, flushing, checkpointing) = (0.0, 0.0, 0.0)
        var longest = (flush: 0.0, checkpoint: 0.0)
        for minute in 0..<(days * 1440) {
            appending += seconds { fleet.append(to: store, atMs: startMs + Int64(minute) * minuteMs) }
            let flush = try seconds { try store.flush() }
            flushing += flush
            longest.flush = max(longest.flush, flush)
            guard store.samplesOutsideBlocks > checkpointSamples else { continue }
            let checkpoint = try seconds { try store.checkpoint() }
            checkpointing += checkpoint
            longest.checkpoint = max(longest.checkpoint, checkpoint)
        }
        let samples = store.counters.samplesAppended
        let resident = ProcessMemory.residentBytes
        let closing = try seconds { try store.close() }
        let all = appending + flushing + checkpointing + closing
        row(
            name,
            String(
                format: "%d days: %.2f million samples a second; append %.0f, flush %.0f, checkpoint %.0f ns a sample",
                days, Double(samples) / all / 1e6, appending / Double(samples) * 1e9, flushing / Double(samples) * 1e9,
                (checkpointing + closing) / Double(samples) * 1e9))
        row(
            name,
            String(
                format: "%.2f bytes a sample in %.0f MB, %.0f MB resident; flush %.2f s, checkpoint %.1f s at most",
                Double(fileBytes(directory)) / Double(samples), Double(fileBytes(directory)) / 1e6,
                Double(resident) / 1e6, longest.flush, longest.checkpoint))
        let opening = try seconds { store = try Store(directory: directory.path) }
        let endMs = startMs + Int64(days * 1440 - 1) * minuteMs
        let one = fleet.labels(target: 0, series: 1)
        let matchers = try one.pairs.map { try LabelMatcher($0.name, .equal, $0.value) }
        let found = try seconds {
            let read = try store.select(matchers, fromMs: startMs, throughMs: endMs)
            precondition(read.count == 1 && read[0].values.count == days * 1440, "the series is whole")
        }
        let instant = try seconds {
            let read = try store.select([], fromMs: endMs - 5 * minuteMs + 1, throughMs: endMs)
            precondition(read.count == fleet.series, "every series is there")
        }
        row(
            name,
            String(
                format: "opened in %.2f s; one series whole %.0f ms, all series' last 5 minutes %.2f s", opening,
                found * 1000, instant))
        try store.close()
    }

    /// An hour in which every five minutes a fifth of the series is replaced, as where pods come and go.
    static func churn(series: Int, minutes: Int, row: (String, String) -> Void) throws {
        let kubelet = try RecordedKubelet()
        let directory = TemporaryDirectory()
        let store = try Store(directory: directory.path)
        var fleet = Fleet(kubelet, series: series)
        for minute in 0...minutes {
            if minute > 0, minute % 5 == 0 { fleet.replace(every: 5, turn: minute / 5) }
            fleet.append(to: store, atMs: startMs + Int64(minute) * minuteMs)
            try store.flush()
            if store.samplesOutsideBlocks > checkpointSamples || minute % 15 == 0 { try store.checkpoint() }
            guard minute % 15 == 0 else { continue }
            row(
                "churn, minute \(minute)",
                String(
                    format: "%d series, %d in memory, of which %d go on; %.0f MB resident, %.1f MB in files",
                    store.counters.series, store.counters.seriesInMemory, fleet.series,
                    Double(ProcessMemory.residentBytes) / 1e6, Double(fileBytes(directory)) / 1e6))
        }
        try store.close()
    }

    private static func seconds(_ body: () throws -> Void) rethrows -> Double {
        let start = DispatchTime.now().uptimeNanoseconds
        try body()
        return Double(DispatchTime.now().uptimeNanoseconds - start) / 1e9
    }

    private static func fileBytes(_ directory: TemporaryDirectory) -> Int {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []
        return names.reduce(0) { sum, name in
            let attributes = try? FileManager.default.attributesOfItem(atPath: directory.path + "/" + name)
            return sum + (attributes?[.size] as? Int ?? 0)
        }
    }

    /// The series that a recorded kubelet had in all its scrapes, and their values.
    private struct RecordedKubelet {
        var labels: [Labels] = []
        var isCounter: [Bool] = []
        /// By scrape, then by series: what a counter added since the scrape before, and others' values.
        var values: [[Double]] = []

        init() throws {
            var player = try RecordingPlayer(
                directory: FileManager.default.currentDirectoryPath + "/demo/recording")
            let target = player.manifest.targets.firstIndex { $0.job == "kubelet" && $0.metricsPath == "/metrics" }
            var scrapes: [[Labels: Double]] = []
            while let (_, event) = player.next() {
                guard case .scrape(let index, 200, let body) = event, index == target else { continue }
                let scrape = try body.withUnsafeBufferPointer { bytes in
                    let parsed = try ExpositionParser.parse(bytes)
                    return try (0..<parsed.count).reduce(into: [Labels: Double]()) { found, place in
                        let series = bytes[Int(parsed.starts[place])..<Int(parsed.ends[place])]
                        found[try ExpositionParser.labels(of: UnsafeBufferPointer(rebasing: series))] =
                            parsed.values[place]
                    }
                }
                // A restart is none of what is measured here.
                let start: Labels = ["__name__": "process_start_time_seconds"]
                if let last = scrapes.last, last[start] != scrape[start] { break }
                scrapes.append(scrape)
            }
            guard let first = scrapes.first else { return }
            labels = first.keys.filter { key in scrapes.allSatisfy { $0[key] != nil } }.sorted()
            isCounter = labels.map { labels in
                ScrapeSession.counted.contains { labels.name.hasSuffix($0) }
            }
            values = zip(scrapes, scrapes.dropFirst()).map { before, scrape in
                zip(labels, isCounter).map { labels, isCounter in
                    (scrape[labels] ?? 0) - (isCounter ? before[labels] ?? 0 : 0)
                }
            }
        }
    }

    /// Targets with the series of that kubelet.
    private struct Fleet {
        private let kubelet: RecordedKubelet
        private var sources: [SampleSource?]
        private var ids: [[SeriesID]]
        /// Replaced series have another one of these.
        private var lives: [[Int]]
        private var rows: [[Double]]
        private var random = SeededRandom(seed: 1)

        init(_ kubelet: RecordedKubelet, series: Int) {
            self.kubelet = kubelet
            let targets = (series + kubelet.labels.count - 1) / kubelet.labels.count
            sources = [SampleSource?](repeating: nil, count: targets)
            ids = [[SeriesID]](repeating: [], count: targets)
            rows = [[Double]](repeating: [Double](repeating: 0, count: kubelet.labels.count), count: targets)
            lives = [[Int]](repeating: [Int](repeating: 0, count: kubelet.labels.count), count: targets)
        }

        var series: Int { ids.count * kubelet.labels.count }

        func labels(target: Int, series: Int) -> Labels {
            var labels = kubelet.labels[series]
            labels["instance"] = "node-\(target):10250"
            labels["job"] = "kubelet"
            if lives[target][series] > 0 { labels["pod"] = "pod-\(lives[target][series])" }
            return labels
        }

        /// Gives each series of a share of them other labels.
        mutating func replace(every: Int, turn: Int) {
            for target in ids.indices {
                for series in kubelet.labels.indices where (series + turn) % every == 0 { lives[target][series] = turn }
                ids[target] = []
            }
        }

        mutating func append(to store: Store, atMs: Int64) {
            for target in ids.indices {
                let source = sources[target] ?? store.source(["instance": "node-\(target):10250", "job": "kubelet"])
                sources[target] = source
                if ids[target].isEmpty {
                    ids[target] = store.ids(for: kubelet.labels.indices.map { labels(target: target, series: $0) })
                }
                guard let scrape = kubelet.values.randomElement(using: &random) else { return }
                for series in scrape.indices {
                    rows[target][series] = scrape[series] + (kubelet.isCounter[series] ? rows[target][series] : 0)
                }
                _ = store.append(
                    rows[target], of: ids[target], from: source, atMs: atMs + Int64(target * 251 % 60_000))
            }
        }
    }
}
