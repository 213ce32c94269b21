import Foundation
import GRDB
import Series

/// A look at every row of a store's series and samples.
package struct StoreCheck: Sendable {
    /// A row that can't be read, or does not fit the others.
    package struct Problem: Sendable, CustomStringConvertible {
        package var table: String
        /// The first row that is damaged.
        package var row: Int64
        package var reason: String
        /// The samples that are lost with it, as far as the rows beside it tell.
        package var samples = 0

        package var description: String {
            "row \(row) of the table \(table): \(reason)" + (samples > 0 ? ": \(samples) samples" : "")
        }
    }

    package private(set) var problems: [Problem] = []
    /// Series with labels that can be read.
    package private(set) var series = 0
    /// Samples in blocks that can be read, and in the journal.
    package private(set) var samples = 0
    package private(set) var blocks = 0
    package private(set) var journalRows = 0

    /// How many series each bucket has.
    private var slots: [Int: Int] = [:]
    /// Buckets whose row of `newest` is damaged.
    private var withoutNewest: [Int] = []

    /// Reads the whole store; the service may go on meanwhile.
    ///
    /// - Parameter directory: the store's.
    /// - Throws: ``StoreError`` where SQLite can't read the file.
    /// - Complexity: each sample is decoded; memory for the index, the journal and the times of one generation.
    package init(directory: String) throws {
        let path = directory + "/" + Store.fileName
        do {
            let database = try DatabaseQueue(path: path, configuration: DatabaseFile.readOnly)
            try Schema.migrate(database, path: path, readOnly: true)
            // In one transaction: a checkpoint moves samples from the journal into blocks.
            try database.read { db in
                var state = Store.State()
                try checkBuckets(db, &state)
                try checkBlocks(db)
                try checkJournal(db, &state)
            }
        } catch {
            throw Store.error(error, path: path)
        }
    }

    // MARK: Rows

    private mutating func checkBuckets(_ db: GRDB.Database, _ state: inout Store.State) throws {
        let rows = try Store.bucketRows(db)
        while let row = try rows.next() {
            let bucket: Int = row[0]
            guard let labels = try? Store.labels(ofBucket: row) else {
                let lost = try Int.fetchOne(
                    db, sql: "SELECT sum(samples) FROM blocks WHERE bucket = ?", arguments: [bucket])
                problems.append(
                    Problem(
                        table: "buckets", row: Int64(bucket), reason: "the labels can't be read", samples: lost ?? 0))
                continue
            }
            slots[bucket] = labels.count
            let lastMs: Int64? = row[4]
            let newest = try? Store.newest(ofBucket: row)
            if newest == nil, try lastMs != nil || hasBlocks(bucket, db) {
                withoutNewest.append(bucket)
                problems.append(
                    Problem(
                        table: "newest", row: Int64(bucket), reason: "the times of the newest samples can't be read"))
            }
            let saved = SavedBucket(number: bucket, labels: labels, newest: newest ?? [])
            guard state.load(saved, row[1], lastMs) else {
                slots[bucket] = nil
                problems.append(Problem(table: "buckets", row: Int64(bucket), reason: "a series stands in it twice"))
                continue
            }
            series += labels.count
        }
    }

    private func hasBlocks(_ bucket: Int, _ db: GRDB.Database) throws -> Bool {
        try Bool.fetchOne(db, sql: "SELECT EXISTS (SELECT 1 FROM blocks WHERE bucket = ?)", arguments: [bucket])
            ?? false
    }

    private mutating func checkBlocks(_ db: GRDB.Database) throws {
        let zstd = ZstdDecompressor()
        let generations = Set(try Int64.fetchAll(db, sql: "SELECT id FROM generations"))
        let inJournal = Set(try Int64.fetchAll(db, sql: "SELECT DISTINCT generation FROM journal"))
        let rows = try Row.fetchCursor(
            db, sql: "SELECT id, bucket, start_ms, end_ms, samples, counts, counts_size, data FROM blocks ORDER BY id")
        var times: (generation: Int64, rows: [Int: [Int64]]) = (.min, [:])
        while let row = try rows.next() {
            let id: Int64 = row[0]
            let generation = id >> 32
            // What a checkpoint left that was cut off: the next start deletes it, the journal has the samples.
            if inJournal.contains(generation), !generations.contains(generation) { continue }
            let bucket: Int64 = row[1]
            guard let slots = slots[Int(bucket)] else {
                // Of a bucket that is damaged it is told with that.
                guard !problems.contains(where: { $0.table == "buckets" && $0.row == bucket }) else { continue }
                problems.append(
                    Problem(table: "blocks", row: id, reason: "there is no bucket \(bucket)", samples: row[4]))
                continue
            }
            if times.generation != generation { times = (generation, try StoreCheck.times(of: generation, db)) }
            do {
                guard generations.contains(generation) else { throw BlockCodec.CorruptBlock() }
                samples += try StoreCheck.check(row, slots: slots, times: times.rows, with: zstd)
                blocks += 1
            } catch is BlockCodec.CorruptBlock {
                problems.append(
                    Problem(table: "blocks", row: id, reason: "its samples can't be read", samples: row[4]))
            }
        }
    }

    /// The times of a generation's sources; those that can't be read are left out, and missed by the blocks.
    private static func times(of generation: Int64, _ db: GRDB.Database) throws -> [Int: [Int64]] {
        let rows = try Row.fetchAll(
            db, sql: "SELECT id, data FROM times WHERE id >= ? AND id < ?",
            arguments: [Schema.id(generation: generation, 0), Schema.id(generation: generation + 1, 0)])
        var found: [Int: [Int64]] = [:]
        for row in rows {
            let id: Int64 = row[0]
            let data: Data = row[1]
            found[Int(id & 0xffff_ffff)] = try? TimesCodec.decode([UInt8](data))
        }
        return found
    }

    /// Reads all samples of a block.
    ///
    /// - Returns: how many they are.
    private static func check(
        _ row: Row, slots: Int, times: [Int: [Int64]], with zstd: ZstdDecompressor
    ) throws -> Int {
        let data: Data = row[7]
        let text = try Store.unpacked(row[5], size: row[6])
        guard let counts = try? JSONDecoder().decode([Int].self, from: Data(text)), counts.count <= slots else {
            throw BlockCodec.CorruptBlock()
        }
        let span: ClosedRange<Int64> = (row[2] as Int64)...max(row[2], row[3] as Int64)
        var seen = [Int](repeating: 0, count: counts.count)
        for frame in 0...(max(1, counts.count) - 1) >> BlockCodec.frameBits {
            let content = try data.withUnsafeBytes { try BlockFrame.read(frame, of: $0, with: zstd) }
            guard let content else { continue }
            for entry in content.entries {
                var columns = SampleColumns()
                let rows = try entry.times.map { number throws(BlockCodec.CorruptBlock) in
                    guard let rows = times[number] else { throw BlockCodec.CorruptBlock() }
                    return rows
                }
                try content.read(entry, rows: rows ?? [], fromMs: .min, throughMs: .max, into: &columns)
                let isAscending = zip(columns.timestampsMs, columns.timestampsMs.dropFirst()).allSatisfy { $0 <= $1 }
                guard entry.slot < seen.count, isAscending, columns.timestampsMs.allSatisfy(span.contains) else {
                    throw BlockCodec.CorruptBlock()
                }
                seen[entry.slot] = columns.values.count
            }
        }
        guard seen == counts else { throw BlockCodec.CorruptBlock() }
        return seen.reduce(0, +)
    }

    private mutating func checkJournal(_ db: GRDB.Database, _ state: inout Store.State) throws {
        let rows = try Store.journalRows(db)
        while let row = try rows.next() {
            do {
                try state.replay(row[2], of: row[1]) { _ in nil }
                journalRows += 1
            } catch {
                problems.append(
                    Problem(table: "journal", row: row[0], reason: "it and what came after it can't be read"))
                break
            }
        }
        state.endReplay()
        // Nothing was put to sleep here.
        series = state.index.awakeCount
        samples += state.allHeads.reduce(0) { $0 + $1.samples }
    }

    // MARK: Repair

    /// Takes what is damaged out of the store, so that it can be opened; what can be read stays.
    ///
    /// - Parameter directory: that of the store that was checked; nobody writes to it.
    /// - Throws: ``StoreError``, with the code `locked` where a service runs on it.
    package func repair(directory: String) throws {
        let lock = try StoreLock(directory: directory)
        defer { lock.release() }
        let path = directory + "/" + Store.fileName
        do {
            let database = try DatabaseQueue(path: path)
            try database.write { db in
                for problem in problems { try remove(problem, db) }
                for bucket in withoutNewest { try renewNewest(of: bucket, db) }
                try db.execute(
                    sql: """
                        UPDATE generations SET samples = (
                            SELECT coalesce(sum(blocks.samples), 0) FROM blocks WHERE blocks.id >> 32 = generations.id)
                        """)
            }
            try database.close()
        } catch {
            throw Store.error(error, path: path)
        }
    }

    private func remove(_ problem: Problem, _ db: GRDB.Database) throws {
        switch problem.table {
        case "buckets":
            for (table, key) in [("buckets", "id"), ("newest", "bucket"), ("blocks", "bucket")] {
                try db.execute(sql: "DELETE FROM \(table) WHERE \(key) = ?", arguments: [problem.row])
            }
        case "blocks": try db.execute(sql: "DELETE FROM blocks WHERE id = ?", arguments: [problem.row])
        case "journal":
            // A row is read by what the rows before it said, of series and of times.
            try db.execute(
                sql: """
                    DELETE FROM journal WHERE (generation, id) >= (
                        SELECT generation, id FROM journal WHERE id = ?)
                    """, arguments: [problem.row])
        default: break
        }
    }

    /// Takes all series of a bucket to be as new as its newest block: older samples than that are refused.
    private func renewNewest(of bucket: Int, _ db: GRDB.Database) throws {
        let endMs = try Int64.fetchOne(
            db, sql: "SELECT max(end_ms) FROM blocks WHERE bucket = ?", arguments: [bucket])
        guard let endMs, let count = slots[bucket] else {
            return try db.execute(sql: "DELETE FROM newest WHERE bucket = ?", arguments: [bucket])
        }
        let ages = NewestCodec.encode([Int64](repeating: endMs, count: count), lastMs: endMs)
        try db.execute(
            sql: "INSERT OR REPLACE INTO newest (bucket, last_ms, ages, ages_size) VALUES (?, ?, ?, ?)",
            arguments: [bucket, endMs, Data(ShellText.pack(ages)), ages.count])
    }
}
