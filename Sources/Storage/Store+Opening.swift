import Foundation
import GRDB
import Series
import Synchronization

extension Store {
    /// Reads the index and the journal.
    ///
    /// Samples of the journal are frozen: the next checkpoint moves them into blocks, what is appended from now on begins
    /// a new generation.
    func load(readOnly: Bool) throws {
        if !readOnly {
            // Blocks of a checkpoint that did not come to its end: the journal has their samples.
            try database.write { db in
                let row = try Row.fetchOne(db, sql: "SELECT min(generation), max(generation) FROM journal")
                if let row, let first: Int64 = row[0], let last: Int64 = row[1] {
                    try Store.deleteBlocks(of: first...last, db)
                }
            }
        }
        try database.read { db in
            try loadIndex(db)
            try loadJournal(db)
            let metadata = try Row.fetchAll(db, sql: "SELECT name, type, help, unit FROM metadata").map {
                MetricMetadata(name: $0[0], type: $0[1], help: $0[2], unit: $0[3])
            }
            state.withLock { state in
                for entry in metadata { state.metadata[entry.name] = entry }
            }
        }
    }

    private func loadIndex(_ db: GRDB.Database) throws {
        let last = try Row.fetchOne(
            db, sql: "SELECT start_ms, (SELECT max(end_ms) FROM generations) FROM generations ORDER BY id DESC LIMIT 1")
        let limitMs = last.map { Store.sleepLimit(firstMs: $0[0], lastMs: $0[1]) } ?? .min
        let rows = try Store.bucketRows(db)
        while let row = try rows.next() {
            let bucket: Int = row[0]
            let name: String = row[1]
            do {
                let saved = try SavedBucket(row)
                let lastMs: Int64? = row[4]
                guard state.withLock({ $0.load(saved, name, lastMs, sleepingBeforeMs: limitMs) }) else {
                    throw BlockCodec.CorruptBlock()
                }
            } catch {
                throw StoreError(
                    code: .unreadable, path: path, reason: "row \(bucket) of the table buckets or newest is damaged")
            }
        }
        let generation = try Int64.fetchOne(db, sql: "SELECT max(id) FROM generations") ?? 0
        // Numbers of buckets are not given again as long as blocks have them.
        let used = try Int.fetchOne(db, sql: "SELECT max(bucket) FROM blocks") ?? -1
        state.withLock { state in
            state.generation = generation + 1
            state.index.reserve(buckets: used + 1)
        }
    }

    /// The rows of the buckets, each with that of its newest samples.
    static func bucketRows(_ db: GRDB.Database) throws -> RowCursor {
        try Row.fetchCursor(db, sql: bucketSQL + " ORDER BY id")
    }

    static let bucketSQL = """
        SELECT id, name, labels, labels_size, last_ms, ages, ages_size FROM buckets LEFT JOIN newest ON bucket = id
        """

    static func labels(ofBucket row: Row) throws(BlockCodec.CorruptBlock) -> [Labels] {
        guard let labels = BucketLabels.decode(try unpacked(row[2], size: row[3])) else {
            throw BlockCodec.CorruptBlock()
        }
        return labels
    }

    /// The time of each slot's newest sample; nil where the bucket has no sample in a block.
    static func newest(ofBucket row: Row) throws(BlockCodec.CorruptBlock) -> [Int64]? {
        guard let lastMs: Int64 = row["last_ms"] else { return nil }
        return try NewestCodec.decode(try unpacked(row["ages"], size: row["ages_size"]), lastMs: lastMs)
    }

    /// The time of each slot's newest sample in a block.
    static func savedNewest(ofBucket bucket: Int, _ db: GRDB.Database) throws -> [Int64] {
        let statement = try db.cachedStatement(sql: "SELECT last_ms, ages, ages_size FROM newest WHERE bucket = ?")
        return try Row.fetchOne(statement, arguments: [bucket]).flatMap { try newest(ofBucket: $0) } ?? []
    }

    static func journalRows(_ db: GRDB.Database) throws -> RowCursor {
        try Row.fetchCursor(db, sql: "SELECT id, generation, data FROM journal ORDER BY generation, id")
    }

    static func unpacked(_ packed: Data?, size: Int?) throws(BlockCodec.CorruptBlock) -> [UInt8] {
        guard let packed, let size, let plain = ShellText.unpack([UInt8](packed), size: size) else {
            throw BlockCodec.CorruptBlock()
        }
        return plain
    }

    private func loadJournal(_ db: GRDB.Database) throws {
        let rows = try Store.journalRows(db)
        while let row = try rows.next() {
            let id: Int64 = row[0]
            let generation: Int64 = row[1]
            let data: Data? = row[2]
            do {
                try state.withLock { state in
                    try state.replay(data, of: generation) { [database] bucket in
                        try? database.unsafeReentrantRead { try Store.savedBucket(bucket, $0) }
                    }
                }
            } catch {
                throw StoreError(code: .unreadable, path: path, reason: "row \(id) of the table journal is damaged")
            }
        }
        state.withLock { $0.endReplay() }
    }
}

extension Store.State {
    /// Takes in a bucket of the file.
    ///
    /// - Parameter sleepingBeforeMs: series that ended before that sleep.
    /// - Returns: false where it is damaged.
    mutating func load(
        _ bucket: SavedBucket, _ name: String, _ lastMs: Int64?, sleepingBeforeMs: Int64 = .min
    ) -> Bool {
        guard bucket.labels.count <= SeriesIndex.bucketSize,
            index.load(bucket: bucket.number, name: name, lastMs: lastMs ?? .min)
        else { return false }
        for (slot, labels) in bucket.labels.enumerated() {
            let place = SeriesIndex.place(bucket: bucket.number, slot: slot)
            let slotMs = bucket.newestMs(slot)
            if slotMs != .min, slotMs < sleepingBeforeMs {
                index.load(sleeping: labels, place: place, lastMs: slotMs)
                continue
            }
            guard index.load(labels, place: place, isSaved: true), let number = index.series(atPlace: place) else {
                return false
            }
            newest.grow(to: number + 1)
            newest[number] = slotMs
        }
        return true
    }

    /// Takes in a row of the journal; rows come by generation.
    ///
    /// - Parameter bucket: reads a bucket of which a series that sleeps has samples here.
    mutating func replay(_ row: Data?, of generation: Int64, bucket: (Int) -> SavedBucket?) throws {
        guard let row else { throw BlockCodec.CorruptBlock() }
        if replaying?.generation != generation {
            freezeReplayed()
            replaying = (generation, JournalReader())
        }
        try replaying?.reader.read(row: [UInt8](row), &index, newest, bucket: bucket)
    }

    private mutating func freezeReplayed() {
        guard let (generation, reader) = replaying else { return }
        replaying = nil
        frozen.append(FrozenHeads(heads: reader.heads, generation: generation))
        self.generation = max(self.generation, generation + 1)
    }

    mutating func endReplay() {
        freezeReplayed()
        newest.grow(to: index.numbers)
    }
}
