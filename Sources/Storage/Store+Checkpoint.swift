import Foundation
import GRDB
import Series
import Synchronization

extension Store {
    /// Bytes of blocks that one transaction writes: between two of them what was appended meanwhile is flushed, so that
    /// no flush waits for longer than a fraction of a second.
    private static let transactionBytes = 4 << 20

    /// Moves what is in memory into blocks, the oldest generation first.
    func checkpointWhileWriting() throws {
        try flushWhileWriting()
        state.withLock { $0.freeze() }
        while let frozen = state.withLock({ $0.frozen.first }) {
            try write(frozen)
            sleep(after: frozen)
        }
    }

    fileprivate struct Bucket {
        var number: Int
        var name: String
        var members: [UInt32]
        /// The labels of those of its series that the file does not know; they are the last ones.
        var newLabels: [Labels]
        /// The labels of the others, where the file is to be told of new ones and none of the others sleeps.
        var knownLabels: [Labels]?
        /// The newest sample of each of its series as memory has it; `Int64.min` for those that sleep.
        var newest: [Int64]
    }

    /// A block that is ready to be written.
    private struct Block {
        var bucket: Int
        var startMs = Int64.max
        var endMs = Int64.min
        var samples = 0
        var counts: [UInt32] = []
        /// The newest sample of each slot; `Int64.min` for none.
        var newest: [Int64] = []
        var data: [UInt8] = []
    }

    private func write(_ frozen: FrozenHeads) throws {
        // What a try before this one wrote is in the way.
        try database.write { try Store.deleteBlocks(of: frozen.generation...frozen.generation, $0) }
        readCache?.forget()
        let writer = BlockCodec.Writer()
        var times = TimesTable(frozen)
        let end = state.withLock { $0.index.buckets.count }
        var bucket = 0
        var blocks = 0
        repeat {
            var written: [(bucket: Bucket, endMs: Int64?)] = []
            try database.write { db in
                var bytes = 0
                while bucket < end, bytes < Store.transactionBytes {
                    defer { bucket += 1 }
                    guard let next = state.withLock({ $0.bucket(bucket) }) else { continue }
                    let block = Store.encode(next, frozen, writer, &times)
                    guard block != nil || !next.newLabels.isEmpty else { continue }
                    if let block {
                        try times.write(db)
                        try insert(block, of: next, Schema.id(generation: frozen.generation, blocks), db)
                        blocks += 1
                        bytes += block.data.count
                    }
                    if !next.newLabels.isEmpty { bytes += try writeLabels(of: next, db) }
                    written.append((next, block?.endMs))
                }
                if bucket == end { try Store.finish(frozen, db) }
            }
            state.withLock { state in
                for (bucket, endMs) in written { state.wrote(bucket.number, series: bucket.members.count, endMs) }
                if bucket == end { state.drop(frozen) }
            }
            if bucket < end { try flushWhileWriting() }
        } while bucket < end
    }

    /// The last step: from now on the blocks count, and the journal does not.
    private static func finish(_ frozen: FrozenHeads, _ db: GRDB.Database) throws {
        if frozen.heads.samples > 0 {
            try db.execute(
                sql: "INSERT INTO generations (id, start_ms, end_ms, samples) VALUES (?, ?, ?, ?)",
                arguments: [frozen.generation, frozen.heads.firstMs, frozen.heads.lastMs, frozen.heads.samples])
        }
        try db.execute(sql: "DELETE FROM journal WHERE generation <= ?", arguments: [frozen.generation])
    }

    private static func encode(
        _ bucket: Bucket, _ frozen: FrozenHeads, _ writer: BlockCodec.Writer, _ times: inout TimesTable
    ) -> Block? {
        var block = Block(bucket: bucket.number)
        for (slot, number) in bucket.members.enumerated() {
            let head = number == SeriesIndex.asleep ? Heads.Head() : frozen.heads.head(Int(number))
            block.counts.append(head.count)
            block.newest.append(.min)
            guard head.count > 0 else { continue }
            writer.add(slot: slot, times: head.hasOwnTimes ? 0 : times.number(head.source), head, of: frozen.heads)
            let range = range(of: head, frozen.heads)
            block.startMs = min(block.startMs, range.lowerBound)
            block.endMs = max(block.endMs, range.upperBound)
            block.newest[slot] = range.upperBound
            block.samples += Int(head.count)
        }
        guard block.samples > 0 else { return nil }
        block.data = writer.finish()
        return block
    }

    private static func range(of head: Heads.Head, _ heads: Heads) -> ClosedRange<Int64> {
        guard head.hasOwnTimes else {
            let rows = heads.times(of: Int(head.source))
            return rows[Int(head.firstRow)]...rows[Int(head.lastRow)]
        }
        var columns = SampleColumns()
        heads.read(head, fromMs: .min, throughMs: .max, into: &columns)
        return (columns.timestampsMs.first ?? 0)...(columns.timestampsMs.last ?? 0)
    }

    private func insert(_ block: Block, of bucket: Bucket, _ id: Int64, _ db: GRDB.Database) throws {
        let counts = Array("[\(block.counts.map(String.init).joined(separator: ","))]".utf8)
        try db.cachedStatement(
            sql: """
                INSERT INTO blocks (id, bucket, start_ms, end_ms, samples, counts, counts_size, data)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                """
        ).execute(arguments: [
            id, block.bucket, block.startMs, block.endMs, block.samples, Data(ShellText.pack(counts)), counts.count,
            Data(block.data),
        ])
        // Series that have no sample here have theirs in blocks before this one. Memory knows of later ones, too, and is asked
        // where the row is damaged.
        var newest = block.newest
        let saved = (try? Store.savedNewest(ofBucket: block.bucket, db)) ?? bucket.newest
        for (slot, newestMs) in zip(newest.indices, saved) { newest[slot] = max(newest[slot], newestMs) }
        let lastMs = newest.max() ?? block.endMs
        let ages = NewestCodec.encode(newest, lastMs: lastMs)
        try db.cachedStatement(
            sql: "INSERT OR REPLACE INTO newest (bucket, last_ms, ages, ages_size) VALUES (?, ?, ?, ?)"
        ).execute(arguments: [block.bucket, lastMs, Data(ShellText.pack(ages)), ages.count])
    }

    /// Tells the file of a bucket's new series.
    ///
    /// - Returns: how many bytes that took.
    private func writeLabels(of bucket: Bucket, _ db: GRDB.Database) throws -> Int {
        guard let known = try bucket.knownLabels ?? Store.savedBucket(bucket.number, db)?.labels,
            known.count + bucket.newLabels.count == bucket.members.count
        else {
            throw StoreError(
                code: .unreadable, path: path,
                reason:
                    "row \(bucket.number) of the table buckets is damaged: stop the service and run check store --repair"
            )
        }
        let labels = known + bucket.newLabels
        let text = BucketLabels.encode(labels)
        let packed = ShellText.pack(text)
        try db.cachedStatement(
            sql: "INSERT OR REPLACE INTO buckets (id, name, series, labels, labels_size) VALUES (?, ?, ?, ?, ?)"
        ).execute(arguments: [bucket.number, bucket.name, labels.count, Data(packed), text.count])
        return packed.count
    }

    static func deleteBlocks(of generations: ClosedRange<Int64>, _ db: GRDB.Database) throws {
        let range: StatementArguments = [
            Schema.id(generation: generations.lowerBound, 0), Schema.id(generation: generations.upperBound + 1, 0),
        ]
        try db.execute(sql: "DELETE FROM blocks WHERE id >= ? AND id < ?", arguments: range)
        try db.execute(sql: "DELETE FROM times WHERE id >= ? AND id < ?", arguments: range)
    }

    // MARK: Retention

    func deleteWhileWriting(beforeMs: Int64, sparing spared: ClosedRange<Int64>?, mostBytes: Int?) throws {
        let generations = try database.read {
            try Row.fetchAll($0, sql: "SELECT id, start_ms, end_ms FROM generations ORDER BY id").map {
                (id: $0[0] as Int64, startMs: $0[1] as Int64, endMs: $0[2] as Int64)
            }
        }
        var goneMs = beforeMs
        var isChanged = false
        // One after another: a writer that waits does so for one generation at most.
        for (index, generation) in generations.enumerated() {
            if let spared, generation.startMs <= spared.upperBound, generation.endMs >= spared.lowerBound { continue }
            if generation.endMs >= beforeMs {
                guard let mostBytes, index < generations.count - 1, try usedBytes() > mostBytes else { continue }
                goneMs = max(goneMs, generation.endMs + 1)
            }
            isChanged = true
            try database.write { db in
                try Store.deleteBlocks(of: generation.id...generation.id, db)
                try db.execute(sql: "DELETE FROM generations WHERE id = ?", arguments: [generation.id])
            }
            readCache?.forget()
        }
        // Series that ended in what is spared have their samples there.
        let buckets = state.withLock { $0.emptyBuckets(beforeMs: min(goneMs, spared?.lowerBound ?? .max)) }
        guard isChanged || !buckets.isEmpty else { return }
        try database.write { db in
            for bucket in buckets {
                try db.cachedStatement(sql: "DELETE FROM blocks WHERE bucket = ?").execute(arguments: [bucket])
                try db.cachedStatement(sql: "DELETE FROM newest WHERE bucket = ?").execute(arguments: [bucket])
                try db.cachedStatement(sql: "DELETE FROM buckets WHERE id = ?").execute(arguments: [bucket])
            }
        }
        try database.writeWithoutTransaction { try $0.execute(sql: "PRAGMA incremental_vacuum") }
    }

    /// The bytes of the file's pages that hold something.
    private func usedBytes() throws -> Int {
        try database.read { db in
            let number = { (name: String) in try Int.fetchOne(db, sql: "PRAGMA \(name)") ?? 0 }
            return try (number("page_count") - number("freelist_count")) * number("page_size")
        }
    }

    /// The numbers of sources in a generation's rows of the table `times`.
    private struct TimesTable {
        private let frozen: FrozenHeads
        private var numbers: [UInt32: Int] = [:]
        private var unwritten: [UInt32] = []

        init(_ frozen: FrozenHeads) { self.frozen = frozen }

        mutating func number(_ source: UInt32) -> Int {
            if let known = numbers[source] { return known }
            numbers[source] = numbers.count
            unwritten.append(source)
            return numbers.count - 1
        }

        mutating func write(_ db: GRDB.Database) throws {
            for source in unwritten {
                let data = TimesCodec.encode(frozen.heads.times(of: Int(source)))
                try db.cachedStatement(sql: "INSERT INTO times (id, data) VALUES (?, ?)").execute(arguments: [
                    Schema.id(generation: frozen.generation, numbers[source] ?? 0), Data(data),
                ])
            }
            unwritten.removeAll()
        }
    }
}

extension Store.State {
    /// Begins a new generation; what was appended before is moved into blocks from now on.
    mutating func freeze() {
        endSegment()
        guard heads.samples > 0 || index.hasUnsavedSeries else { return }
        frozen.append(FrozenHeads(heads: heads, generation: generation))
        let old = heads
        sources.release { old.times(of: $0).isEmpty }
        heads = Heads()
        generation += 1
        newSeries = 0
        woken = []
        journal.startOver()
    }

    /// A bucket as it is now; nil for one that is gone.
    fileprivate func bucket(_ number: Int) -> Store.Bucket? {
        guard let bucket = index.buckets[number] else { return nil }
        return Store.Bucket(
            number: number, name: bucket.name, members: bucket.members,
            newLabels: bucket.members[bucket.saved...].map { index.labels(Int($0)) },
            knownLabels: bucket.saved < bucket.members.count && bucket.sleeping == 0
                ? bucket.members[..<bucket.saved].map { index.labels(Int($0)) } : nil,
            newest: bucket.members.map { $0 == SeriesIndex.asleep ? .min : newest[Int($0)] })
    }

    /// Notes what the file knows of a bucket.
    fileprivate mutating func wrote(_ bucket: Int, series: Int, _ endMs: Int64?) {
        index.saved(bucket: bucket, series: series)
        if let endMs { index.wrote(bucket: bucket, lastMs: endMs) }
    }

    /// Lets go of samples that are in blocks.
    fileprivate mutating func drop(_ written: FrozenHeads) {
        frozen.removeAll { $0.generation == written.generation }
        // What waited to be written into the journal is in blocks.
        waiting.removeAll { $0.generation <= written.generation }
        counters.checkpoints += 1
    }

    /// Takes buckets out of the index whose newest sample is older than that, and says which.
    fileprivate mutating func emptyBuckets(beforeMs: Int64) -> [Int] {
        var gone: [Int] = []
        for (number, bucket) in index.buckets.enumerated() {
            guard let bucket, bucket.saved == bucket.members.count, bucket.lastMs < beforeMs else { continue }
            let hasSamples = bucket.members.contains { $0 != SeriesIndex.asleep && hasSamplesInMemory(Int($0)) }
            if !hasSamples { gone.append(number) }
        }
        index.remove(buckets: gone)
        return gone
    }
}
