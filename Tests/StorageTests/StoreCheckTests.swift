import Foundation
import GRDB
import Series
import Storage
import TestSupport
import Testing

/// Damage that is found, told, and taken out.
@Suite struct StoreCheckTests {
    /// A store as a kill leaves it, with two generations in blocks, and samples in the journal: 3 targets with 100 series of two metrics.
    private func makeStore(_ directory: TemporaryDirectory) throws {
        let store = try Store(directory: directory.path)
        for scrape in 0..<30 {
            for target in 0..<3 {
                let labels: Labels = ["job": "j", "instance": "i\(target)"]
                let ids = store.ids(
                    for: (0..<100).map { labels.merging(["__name__": "metric_\($0 % 2)", "n": "\($0)"]) })
                let values = (0..<100).map { Double($0 * scrape) }
                let atMs = Int64(1_700_000_000_000 + scrape * 15_000 + target)
                _ = store.append(values, of: ids, from: store.source(labels), atMs: atMs)
            }
            if scrape == 10 || scrape == 20 { try store.checkpoint() }
            try store.flush()
        }
    }

    private func run(_ directory: TemporaryDirectory, _ sql: String) throws {
        let database = try DatabaseQueue(path: directory.path + "/" + Store.fileName)
        try database.write { try $0.execute(sql: sql) }
        try database.close()
    }

    private func samples(_ directory: TemporaryDirectory) throws -> Int {
        let store = try Store(directory: directory.path, readOnly: true)
        let all = [try LabelMatcher(Labels.metricName, .notEqual, "")]
        return try store.select(all, fromMs: .min, throughMs: .max).reduce(0) { $0 + $1.values.count }
    }

    @Test func wholeStore_hasNoProblem_andAllItsSamples() throws {
        let directory = TemporaryDirectory()
        try makeStore(directory)
        let check = try StoreCheck(directory: directory.path)
        #expect(check.problems.isEmpty)
        #expect(check.series == 300 && check.samples == 9000 && check.blocks == 4 && check.journalRows == 9)
    }

    private static let firstBlock = "(SELECT min(id) FROM blocks)"

    /// What is done to the file, the tables that are told, and how many samples are left: the journal tells more of series
    /// whose labels it does not have.
    @Test(arguments: [
        ("UPDATE blocks SET data = substr(data, 1, length(data) - 9) WHERE id = \(firstBlock)", "blocks", 9000 - 1650),
        ("UPDATE blocks SET data = zeroblob(length(data)) WHERE id = \(firstBlock)", "blocks", 9000 - 1650),
        ("UPDATE blocks SET counts = zeroblob(9) WHERE id = \(firstBlock)", "blocks", 9000 - 1650),
        ("UPDATE blocks SET start_ms = end_ms WHERE id = \(firstBlock)", "blocks", 9000 - 1650),
        // The times of one target of three, whose rows both blocks of the generation need.
        ("DELETE FROM times WHERE id = (SELECT min(id) FROM times)", "blocks", 9000 - 3300),
        ("UPDATE buckets SET labels = zeroblob(20) WHERE id = 0", "buckets journal", 4500 - 1350),
        ("UPDATE newest SET ages = zeroblob(2), ages_size = 9 WHERE bucket = 0", "newest", 9000),
        ("UPDATE journal SET data = zeroblob(30) WHERE id = (SELECT max(id) - 3 FROM journal)", "journal", 9000 - 1200),
    ]) func damage_isTold_andTakenOut(sql: String, table: String, left: Int) throws {
        let directory = TemporaryDirectory()
        try makeStore(directory)
        try run(directory, sql)
        let check = try StoreCheck(directory: directory.path)
        #expect(Set(check.problems.map(\.table)) == Set(table.split(separator: " ").map(String.init)))
        try check.repair(directory: directory.path)
        let again = try StoreCheck(directory: directory.path)
        #expect(again.problems.isEmpty, "\(again.problems)")
        #expect(try samples(directory) == left)
        // The store goes on.
        let store = try Store(directory: directory.path)
        let ids = store.ids(for: [["__name__": "metric_0", "job": "j", "instance": "i0", "n": "0"]])
        var batch = SampleBatch()
        batch.append(ids[0], timestampMs: 1_700_001_000_000, value: 1)
        #expect(store.append(batch).accepted == 1)
        try store.close()
        #expect(try samples(directory) == left + 1)
    }

    @Test func repair_isRefused_whileSomebodyWrites() throws {
        let directory = TemporaryDirectory()
        try makeStore(directory)
        let check = try StoreCheck(directory: directory.path)
        let store = try Store(directory: directory.path)
        #expect(throws: StoreError.self) { try check.repair(directory: directory.path) }
        try store.close()
    }

    /// A copy that is made while samples come and go into blocks is whole, and has what was flushed before it began.
    @Test func copy_besideAWriter_isWhole() throws {
        let (directory, target) = (TemporaryDirectory(), TemporaryDirectory())
        let store = try Store(directory: directory.path)
        let labels: Labels = ["job": "j"]
        let ids = store.ids(for: (0..<500).map { labels.merging(["__name__": "m", "n": "\($0)"]) })
        for scrape in 0..<20 {
            let values = ids.indices.map { Double($0 + scrape) }
            _ = store.append(values, of: ids, from: store.source(labels), atMs: Int64(scrape) * 15_000)
            try store.flush()
            if scrape % 7 == 6 { try store.checkpoint() }
            let copy = target.path + "/\(scrape)"
            try FileManager.default.createDirectory(atPath: copy, withIntermediateDirectories: true)
            try DatabaseFile.copy(directory.path + "/" + Store.fileName, to: copy + "/" + Store.fileName)
            let check = try StoreCheck(directory: copy)
            #expect(check.problems.isEmpty && check.samples == 500 * (scrape + 1))
        }
        try store.close()
    }
}
