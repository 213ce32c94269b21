import Foundation
import GRDB
import Series
import Storage
import TestSupport
import Testing

@Suite struct StoreTests {
    private let directory = TemporaryDirectory()

    private func labels(_ number: Int) -> Labels {
        ["__name__": "metric_\(number % 7)", "instance": "host-\(number)", "job": number % 2 == 0 ? "even" : "odd"]
    }

    private func append(_ store: Store, series: Int, atMs: Int64, value: Double) -> AppendResult {
        store.append([(labels(series), value)], atMs: atMs)
    }

    @Test func theStore_answersAsTheOneInMemory_throughFlushesCheckpointsAndReopening() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        var opened: Store? = try Store(directory: directory.path)
        let twin = MemorySeries()
        var nowMs: Int64 = 1_700_000_000_000
        for _ in 0..<3000 {
            if opened == nil { opened = try Store(directory: directory.path) }
            guard let store = opened else { break }
            switch Int.random(in: 0..<100, using: &random) {
            case 0: try store.flush()
            case 1: try store.checkpoint()
            case 2, 3:
                // With all in blocks, or as after a kill: what was flushed is in the journal.
                if Bool.random(using: &random) { try store.close() } else { try store.flush() }
                opened = nil
            case 4, 5:
                // A few series, whose blocks are kept unpacked from one query to the next.
                let one = [LabelMatcher.equal("instance", "host-\(Int.random(in: 0..<40, using: &random))")]
                #expect(
                    try store.select(one, fromMs: .min, throughMs: .max)
                        == twin.select(one, fromMs: .min, throughMs: .max), "seed \(seed)")
            default:
                let first = Int.random(in: 0..<30, using: &random)
                let chosen = (0..<40).filter { $0 >= first && Int.random(in: 0..<4, using: &random) > 0 }.map(labels)
                let values = chosen.map { _ in random.anyDouble() }
                // Now and then out of order or twice.
                let atMs = nowMs - (Int.random(in: 0..<20, using: &random) == 0 ? 15_000 : 0)
                if Int.random(in: 0..<3, using: &random) == 0 {
                    let samples = Array(zip(chosen, values)).map { (labels: $0.0, value: $0.1) }
                    #expect(store.append(samples, atMs: atMs) == twin.append(samples, atMs: atMs), "seed \(seed)")
                } else {
                    let source: Labels = ["instance": "host-\(Int.random(in: 0..<2, using: &random))"]
                    let results = [store as any SampleSink, twin].map { sink in
                        sink.append(values, of: sink.ids(for: chosen), from: sink.source(source), atMs: atMs)
                    }
                    #expect(results[0] == results[1], "seed \(seed)")
                }
                if Bool.random(using: &random) { nowMs += Int64.random(in: 1...20_000, using: &random) }
            }
        }
        if opened == nil { opened = try Store(directory: directory.path) }
        let store = try #require(opened)
        let from = nowMs - Int64.random(in: 0...20_000_000, using: &random)
        for matchers in [
            [LabelMatcher.equal("job", "even")], [try LabelMatcher("__name__", .matches, "metric_[1-3]")],
            [try LabelMatcher("instance", .notEqual, "host-3"), .equal("__name__", "metric_3")],
            [try LabelMatcher("missing", .equal, "")],
        ] {
            for (low, high) in [(Int64.min, Int64.max), (from, nowMs - 1000), (nowMs, nowMs)] {
                #expect(
                    try store.select(matchers, fromMs: low, throughMs: high)
                        == twin.select(matchers, fromMs: low, throughMs: high), "seed \(seed)")
            }
        }
        #expect(try store.timeRange() == twin.timeRange())
    }

    /// Series that come, go, and come back: what sleeps is there for those who ask for its time, and takes up where it ended.
    @Test func seriesThatSleep_areReadFromTheFile_andWakeWhenTheyComeBack() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        var store = try Store(directory: directory.path)
        let twin = MemorySeries()
        var nowMs: Int64 = 1_700_000_000_000
        var mostAsleep = 0
        var wokeUp = 0
        // A hundred and more of each metric, so that buckets have some that sleep and some that do not.
        var alive = Set(0..<300)
        for _ in 0..<400 {
            switch Int.random(in: 0..<40, using: &random) {
            case 0...3: try store.checkpoint()
            case 4:
                // As after a kill.
                try store.flush()
                store = try Self.reopened(directory.path, &store)
            case 5:
                try store.close()
                store = try Self.reopened(directory.path, &store)
            case 6...9:
                let before = store.counters.series - store.counters.seriesInMemory
                alive = alive.filter { _ in Int.random(in: 0..<3, using: &random) > 0 }
                for _ in 0..<100 { alive.insert(Int.random(in: 0..<900, using: &random)) }
                _ = store.ids(for: alive.map(labels))
                _ = twin.ids(for: alive.map(labels))
                if store.counters.series - store.counters.seriesInMemory < before { wokeUp += 1 }
            default:
                let chosen = alive.sorted().map(labels)
                let values = chosen.map { _ in random.anyDouble() }
                let results = [store as any SampleSink, twin].map { sink in
                    sink.append(values, of: sink.ids(for: chosen), from: sink.source(["job": "all"]), atMs: nowMs)
                }
                #expect(results[0] == results[1], "seed \(seed)")
                nowMs += Int64.random(in: 1...300_000, using: &random)
            }
            mostAsleep = max(mostAsleep, store.counters.series - store.counters.seriesInMemory)
            let lowMs = nowMs - Int64.random(in: 0...20_000_000, using: &random)
            let matchers = [
                [LabelMatcher.equal("job", "even")], [try LabelMatcher("__name__", .matches, "metric_[1-3]")],
                [.equal("instance", "host-\(Int.random(in: 0..<900, using: &random))")],
                [try LabelMatcher("job", .notEqual, "odd"), .equal("__name__", "metric_3")],
            ]
            guard let chosen = matchers.randomElement(using: &random) else { continue }
            let highMs = lowMs + Int64.random(in: 0...20_000_000, using: &random)
            let expected = try twin.select(chosen, fromMs: lowMs, throughMs: highMs)
            #expect(try store.select(chosen, fromMs: lowMs, throughMs: highMs) == expected, "seed \(seed)")
            let named = Set(try store.labels(chosen, fromMs: lowMs, throughMs: highMs))
            #expect(named.isSuperset(of: expected.map(\.labels)), "seed \(seed)")
        }
        #expect(mostAsleep > 50 && wokeUp > 0, "seed \(seed): \(mostAsleep) series slept, \(wokeUp) times some woke")
        #expect(try store.select([], fromMs: .min, throughMs: .max) == twin.select([], fromMs: .min, throughMs: .max))
        let check = try StoreCheck(directory: directory.path)
        #expect(check.problems.isEmpty, "seed \(seed): \(check.problems)")
    }

    /// Lets go of a store, as its process would, and opens it again.
    private static func reopened(_ directory: String, _ store: inout Store) throws -> Store {
        let empty = TemporaryDirectory()
        store = try Store(directory: empty.path)
        return try Store(directory: directory)
    }

    /// A generation whose samples are all older than those of the one before says nothing of other series.
    @Test func newestSamples_areKept_whereALaterGenerationIsOlder() throws {
        var store = try Store(directory: directory.path)
        #expect(append(store, series: 1, atMs: 100_000, value: 1).accepted == 1)
        try store.flush()
        // As after a kill.
        store = try Self.reopened(directory.path, &store)
        #expect(append(store, series: 8, atMs: 50_000, value: 1).accepted == 1)
        try store.close()
        store = try Self.reopened(directory.path, &store)
        #expect(append(store, series: 1, atMs: 100_000, value: 2).duplicates == 1)
        #expect(append(store, series: 1, atMs: 60_000, value: 2).outOfOrder == 1)
    }

    /// A pattern that backtracks is told, not taken for one that does not match.
    @Test func patternThatTakesTooLong_isAnError() throws {
        let store = try Store(directory: directory.path)
        for number in 0..<20 {
            _ = store.append(
                [(["__name__": "m", "a": String(repeating: "x", count: 40) + "\(number)"], 1)], atMs: 1000)
        }
        for matcher in [
            try LabelMatcher("a", .matches, "(x+x+)+[yz]"), try LabelMatcher("a", .notMatches, "(x+x+)+[yz]"),
        ] {
            #expect(throws: PatternError.self) {
                try store.select([.equal("__name__", "m"), matcher], fromMs: 0, throughMs: 2000)
            }
            #expect(throws: PatternError.self) { try store.labels([matcher], fromMs: 0, throughMs: 2000) }
        }
        let found = try store.select([try LabelMatcher("a", .matches, "x+1.")], fromMs: 0, throughMs: 2000)
        #expect(found.count == 10)
        #expect(try store.select([try LabelMatcher("b", .notMatches, ".+")], fromMs: 0, throughMs: 2000).count == 20)
    }

    /// Times as far apart as any, beside each other in a generation.
    @Test func extremeTimes_areMovedIntoBlocks() throws {
        let store = try Store(directory: directory.path)
        _ = store.append([(labels(1), 1)], atMs: .min + 1)
        _ = store.append([(labels(2), 2)], atMs: 1_700_000_000_000)
        try store.checkpoint()
        #expect(try store.select([], fromMs: .min, throughMs: .max).count == 2)
    }

    /// Targets say what they like of their metrics: neither their number nor their words are without bound.
    @Test func metadata_hasBounds() throws {
        let store = try Store(directory: directory.path)
        let long = MetricMetadata(name: "long", type: "gauge", help: String(repeating: "ä", count: 5000))
        store.setMetadata([long])
        store.setMetadata([long])
        #expect(try store.metadata().map(\.help.utf8.count) == [1024])
        store.setMetadata((0..<100_010).map { MetricMetadata(name: "m\($0)", type: "gauge", help: "") })
        #expect(try store.metadata().count == 100_000)
        #expect(store.counters.metadataRefused == 11)
    }

    @Test func whatWasFlushed_isThereAfterAKill_andNothingTwice() throws {
        do {
            let store = try Store(directory: directory.path)
            _ = append(store, series: 1, atMs: 1000, value: 1)
            try store.checkpoint()
            _ = append(store, series: 1, atMs: 2000, value: 2)
            try store.flush()
            _ = append(store, series: 1, atMs: 3000, value: 3)
            // No close: as after SIGKILL, only the lock is gone with the process.
        }
        let reader = try Store(directory: directory.path, readOnly: true)
        let all = try reader.select([.equal("job", "odd")], fromMs: .min, throughMs: .max)
        #expect(all.map(\.timestampsMs) == [[1000, 2000]])
        #expect(all.map(\.values) == [[1, 2]])
    }

    @Test func secondWriter_isRefused_aReaderIsNot() throws {
        let store = try Store(directory: directory.path)
        let error = #expect(throws: StoreError.self) { try Store(directory: directory.path) }
        #expect(
            error?.description
                == "\(directory.path): another upgrade-watch process writes to this store; stop it, or name another directory"
        )
        _ = try Store(directory: directory.path, readOnly: true)
        try store.close()
    }

    @Test func directoryWithoutAStore_isToldSo() {
        let error = #expect(throws: StoreError.self) { try Store(directory: directory.path, readOnly: true) }
        #expect(
            error?.description
                == "\(directory.path)/metrics.db: no store here; name the directory that `run` or `replay` wrote to with --store"
        )
    }

    @Test func storeOfANewerVersion_isRefused() throws {
        try Store(directory: directory.path).close()
        let database = try DatabaseQueue(path: directory.path + "/metrics.db")
        try database.write { try $0.execute(sql: "INSERT INTO grdb_migrations VALUES ('storage-99')") }
        try database.close()
        let error = #expect(throws: StoreError.self) { try Store(directory: directory.path) }
        #expect(
            error?.description
                == "\(directory.path)/metrics.db: the store was written by a newer version of upgrade-watch; use that "
                + "version, or another directory")
    }

    @Test func fileThatIsNoStore_isRefused() throws {
        _ = try directory.write("metrics.db", String(repeating: "no database here ", count: 500))
        let error = #expect(throws: StoreError.self) { try Store(directory: directory.path) }
        #expect(
            error?.description == "\(directory.path)/metrics.db: not a store of upgrade-watch: file is not a database")
    }

    @Test func fullDisk_isTold_andNothingIsLostOnceThereIsRoom() throws {
        let store = try Store(directory: directory.path, maxPages: 24)
        var batch = SampleBatch()
        for (index, id) in store.ids(for: (0..<10_000).map(labels)).enumerated() {
            batch.append(id, timestampMs: 1000, value: sin(Double(index)))
        }
        #expect(store.append(batch).accepted == 10_000)
        let error = #expect(throws: StoreError.self) { try store.flush() }
        #expect(
            error?.description
                == "\(directory.path)/metrics.db: database or disk is full: the samples stay in memory and are written "
                + "once there is room; free space on the disk")
        #expect(throws: StoreError.self) { try store.checkpoint() }
        #expect(store.counters.flushesFailed == 2)
        #expect(store.counters.samplesPending == 10_000)
        // What stays in memory is still there to be read, and to be written.
        #expect(try store.select([.equal("job", "odd")], fromMs: .min, throughMs: .max).count == 5000)
        try store.makeRoom()
        try store.close()
        let reader = try Store(directory: directory.path, readOnly: true)
        #expect(try reader.select([.equal("job", "odd")], fromMs: .min, throughMs: .max).count == 5000)
    }

    @Test func oldSamples_andSeriesWithoutAny_areDeleted() throws {
        let store = try Store(directory: directory.path)
        _ = append(store, series: 1, atMs: 1000, value: 1)
        try store.checkpoint()
        _ = append(store, series: 2, atMs: 100_000, value: 1)
        try store.checkpoint()
        let all = [try LabelMatcher("job", .matches, ".+")]
        // What a query has just read is deleted all the same.
        #expect(try store.select(all, fromMs: .min, throughMs: .max).count == 2)
        try store.deleteSamples(beforeMs: 50_000)
        #expect(try store.select(all, fromMs: .min, throughMs: .max).count == 1)
        #expect(store.counters.series == 1)
        // A series that comes back is a new one.
        #expect(append(store, series: 1, atMs: 200_000, value: 5).accepted == 1)
        try store.close()
        let reader = try Store(directory: directory.path, readOnly: true)
        #expect(try reader.select([.equal("instance", "host-1")], fromMs: .min, throughMs: .max).map(\.values) == [[5]])
    }

    /// The oldest generations go first, but for what is spared and the newest.
    @Test func retentionBySize_sparesTheBaseline() throws {
        let store = try Store(directory: directory.path)
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        let source = store.source(["job": "all"])
        let early = store.ids(for: [labels(99)])
        _ = store.append([1], of: early, from: source, atMs: 150_000)
        for generation in 1...10 {
            let ids = store.ids(for: (0..<50).map(labels))
            for row in 0..<50 {
                let values = ids.map { _ in random.anyDouble() }
                _ = store.append(values, of: ids, from: source, atMs: Int64(generation * 100_000 + row * 1000))
            }
            try store.checkpoint()
        }
        let all = [try LabelMatcher("job", .matches, ".+")]
        try store.deleteSamples(beforeMs: 0, sparing: 120_000...130_000, mostBytes: 160_000)
        let left = try store.select(all, fromMs: .min, throughMs: .max)
        let generations = Set(left.flatMap(\.timestampsMs).map { $0 / 100_000 })
        #expect(generations.contains(1) && !generations.contains(2) && generations.contains(10), "\(generations)")
        #expect(generations.count > 2 && generations.count < 10, "seed \(seed): \(generations)")
        // A series that ended in what is spared is there.
        #expect(left.contains { $0.labels == labels(99) })
        // However little may stay, the newest generation does.
        try store.deleteSamples(beforeMs: 0, mostBytes: 1)
        #expect(
            Set(try store.select(all, fromMs: .min, throughMs: .max).flatMap(\.timestampsMs).map { $0 / 100_000 }) == [
                10
            ])
        try store.close()
    }

    @Test func seriesThatIsGone_isUnknown_andItsNumberIsNotMistakenForThatOfANewOne() throws {
        let store = try Store(directory: directory.path)
        let source = store.source(["job": "odd"])
        let old = store.ids(for: [labels(1), labels(3)])
        #expect(store.append([1, 2], of: old, from: source, atMs: 1000).accepted == 2)
        try store.checkpoint()
        try store.deleteSamples(beforeMs: 2000)
        let new = store.ids(for: [labels(5)])
        #expect(!old.contains(new[0]))
        #expect(store.append([1, 2, 3], of: old + new, from: source, atMs: 3000).unknown == 2)
        #expect(store.counters.series == 1)
        // A source without samples through a checkpoint has to be asked for again.
        try store.checkpoint()
        #expect(store.append([4], of: new, from: store.source(["job": "other"]), atMs: 4000).accepted == 1)
        try store.checkpoint()
        #expect(store.append([5], of: new, from: source, atMs: 5000).unknown == 1)
        #expect(store.append([5], of: new, from: store.source(["job": "odd"]), atMs: 5000).accepted == 1)
        try store.close()
        let reader = try Store(directory: directory.path, readOnly: true)
        let all = try reader.select([.equal("job", "odd")], fromMs: .min, throughMs: .max)
        #expect(all == [SeriesSamples(labels: labels(5), timestampsMs: [3000, 4000, 5000], values: [3, 4, 5])])
    }

    @Test func checkpointThatWasCutOff_isDoneAgain_andNothingIsTwice() throws {
        do {
            let store = try Store(directory: directory.path)
            for time in 1...50 {
                let source = store.source(["job": "all"])
                let ids = store.ids(for: (0..<1000).map(labels))
                let values = (0..<1000).map { Double($0 * time) }
                #expect(store.append(values, of: ids, from: source, atMs: Int64(time) * 1000).accepted == 1000)
            }
            try store.checkpoint()
            #expect(store.append([(labels(1), 7)], atMs: 60_000).accepted == 1)
            try store.flush()
        }
        // The last transaction of a checkpoint takes the journal away and makes the generation count.
        let database = try DatabaseQueue(path: directory.path + "/metrics.db")
        try database.write { db in
            try db.execute(
                sql: """
                    INSERT INTO blocks SELECT id + (1 << 32), bucket, start_ms, end_ms, samples, counts, counts_size,
                        data FROM blocks
                    """)
            try db.execute(sql: "INSERT INTO times SELECT id + (1 << 32), data FROM times")
        }
        try database.close()
        let store = try Store(directory: directory.path)
        let one = try store.select([.equal("instance", "host-1")], fromMs: .min, throughMs: .max)
        #expect(one.map(\.timestampsMs) == [(1...50).map { $0 * 1000 } + [60_000]])
        try store.close()
        let after = try DatabaseQueue(path: directory.path + "/metrics.db")
        #expect(try after.read { try Int.fetchOne($0, sql: "SELECT sum(samples) FROM blocks") } == 50_001)
        #expect(try after.read { try Int.fetchOne($0, sql: "SELECT sum(samples) FROM generations") } == 50_001)
    }

    @Test func theDocumentedQuery_listsTheSeriesWithTheMostSamples() throws {
        let store = try Store(directory: directory.path)
        for time in 1...3 { store.append([(["__name__": "a", "quote": "\"\\\u{1}"], 1)], atMs: Int64(time)) }
        for series in 0..<600 { store.append([(labels(series), 1)], atMs: 10) }
        try store.checkpoint()
        store.append([(labels(44), 1)], atMs: 11)
        try store.close()
        let page = try String(contentsOfFile: Shared.root + "/docs/storage-format.md", encoding: .utf8)
        let query = try #require(
            page.components(separatedBy: "```sql\n").dropFirst().first?.components(separatedBy: "```").first)
        let out = try Program.run(
            "/usr/bin/sqlite3", [directory.path + "/metrics.db", query], in: directory.path)
        let lines = out.output.split(separator: "\n").map(String.init)
        #expect(lines.count == 10)
        #expect(lines.first == #"3|a|{"__name__":"a","quote":"\"\\\u0001"}"#)
        #expect(lines.dropFirst().first == #"2|metric_2|{"__name__":"metric_2","instance":"host-44","job":"even"}"#)
    }
}
