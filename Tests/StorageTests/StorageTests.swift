import Foundation
import GRDB
import Series
import Storage
import TestSupport
import Testing

@Suite struct BlockCodecTests {
    @Test func whatIsEncoded_isDecodedBitForBit() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        for _ in 0..<2000 {
            let count = Int.random(in: 0...300, using: &random)
            let isWhole = Bool.random(using: &random)
            let times = (0..<count).map { _ in Int64.random(in: .min / 4 ... .max / 4, using: &random) }
            let values = (0..<count).map { _ in
                isWhole ? Double(Int.random(in: -1_000_000...1_000_000, using: &random)) : random.anyDouble()
            }
            let bytes = BlockCodec.encode(timestampsMs: times[...], values: values[...])
            var decodedTimes: [Int64] = []
            var decodedValues: [Double] = []
            try BlockCodec.decode(bytes, timestampsMs: &decodedTimes, values: &decodedValues)
            #expect(decodedTimes == times, "seed \(seed)")
            #expect(decodedValues.map(\.bitPattern) == values.map(\.bitPattern), "seed \(seed)")
        }
    }

    @Test func damagedBytes_areRefusedAndNeverTrap() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        let good = BlockCodec.encode(timestampsMs: [1000, 2000, 3100], values: [1.5, 2.25, -0.0])
        for _ in 0..<50_000 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            if Bool.random(using: &random) { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random)) }
            var times: [Int64] = []
            var values: [Double] = []
            try? BlockCodec.decode(bytes, timestampsMs: &times, values: &values)
        }
        var times: [Int64] = []
        var values: [Double] = []
        #expect(throws: BlockCodec.CorruptBlock.self) {
            try BlockCodec.decode([], timestampsMs: &times, values: &values)
        }
    }
}

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
        var store = try Store(directory: directory.path)
        let twin = MemorySeries()
        var nowMs: Int64 = 1_700_000_000_000
        for _ in 0..<3000 {
            switch Int.random(in: 0..<100, using: &random) {
            case 0: try store.flush()
            case 1: try store.checkpoint()
            case 2:
                try store.close()
                store = try Store(directory: directory.path)
            default:
                let series = Int.random(in: 0..<40, using: &random)
                // Now and then out of order or twice.
                let atMs = nowMs - (Int.random(in: 0..<20, using: &random) == 0 ? 15_000 : 0)
                let value = random.anyDouble()
                let sample = [(labels: labels(series), value: value)]
                #expect(store.append(sample, atMs: atMs) == twin.append(sample, atMs: atMs), "seed \(seed)")
                if Bool.random(using: &random) { nowMs += Int64.random(in: 1...20_000, using: &random) }
            }
        }
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
        for (index, id) in store.ids(for: (0..<2000).map(labels)).enumerated() {
            batch.append(id, timestampMs: 1000, value: Double(index) * 1.1)
        }
        #expect(store.append(batch).accepted == 2000)
        let error = #expect(throws: StoreError.self) { try store.flush() }
        #expect(
            error?.description
                == "\(directory.path)/metrics.db: database or disk is full: the samples stay in memory and are written "
                + "once there is room; free space on the disk")
        #expect(store.counters.flushesFailed == 1)
        #expect(store.counters.samplesPending == 2000)
        // What stays in memory is still there to be read, and to be written.
        #expect(try store.select([.equal("job", "odd")], fromMs: .min, throughMs: .max).count == 1000)
        try store.makeRoom()
        try store.close()
        let reader = try Store(directory: directory.path, readOnly: true)
        #expect(try reader.select([.equal("job", "odd")], fromMs: .min, throughMs: .max).count == 1000)
    }

    @Test func oldSamples_andSeriesWithoutAny_areDeleted() throws {
        let store = try Store(directory: directory.path)
        _ = append(store, series: 1, atMs: 1000, value: 1)
        try store.checkpoint()
        _ = append(store, series: 2, atMs: 100_000, value: 1)
        try store.checkpoint()
        try store.deleteSamples(beforeMs: 50_000)
        #expect(try store.select([try LabelMatcher("job", .matches, ".+")], fromMs: .min, throughMs: .max).count == 1)
        #expect(store.counters.series == 1)
        // A series that comes back is a new one.
        #expect(append(store, series: 1, atMs: 200_000, value: 5).accepted == 1)
        try store.close()
        let reader = try Store(directory: directory.path, readOnly: true)
        #expect(try reader.select([.equal("instance", "host-1")], fromMs: .min, throughMs: .max).map(\.values) == [[5]])
    }

    @Test func labels_areReadableBySqlite() throws {
        let store = try Store(directory: directory.path)
        store.append([(["__name__": "a", "quote": "\"\\\u{1}"], 1)], atMs: 1)
        try store.close()
        let database = try DatabaseQueue(path: directory.path + "/metrics.db")
        let text = try database.read { try String.fetchOne($0, sql: "SELECT labels ->> '$.quote' FROM series") }
        #expect(text == "\"\\\u{1}")
    }
}
