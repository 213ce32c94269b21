import Foundation
import GRDB
import Series
import Synchronization

/// Time series in one SQLite file.
///
/// Samples are appended to memory, made durable as journal rows by ``flush()``, and moved into compressed blocks by
/// ``checkpoint()``. What was flushed is there again after a kill at any moment. One process writes; others may open
/// the store for reading meanwhile and see what was flushed before they opened it.
package final class Store: SampleSink, SeriesSource {
    /// The file's name in the store's directory.
    package static let fileName = "metrics.db"

    /// The most bytes that wait for a flush; beyond it new samples are dropped and counted, so that a full disk does not
    /// fill the memory as well.
    ///
    /// One to three bytes a sample.
    package static let maxPendingBytes = 256 << 20
    /// The most metrics whose type and help text are kept, and the longest text.
    private static let maxMetadata = 100_000
    private static let maxHelpBytes = 1 << 10

    struct State {
        var index = SeriesIndex()
        /// Samples since the last checkpoint began.
        var heads = Heads()
        /// Samples that a checkpoint moves into blocks, or will: the oldest generation first.
        var frozen: [FrozenHeads] = []
        /// The generation of ``heads``.
        var generation: Int64 = 1
        /// The newest sample of each series; `Int64.min` where it has none.
        let newest = Slabs<Int64>(repeating: .min)
        var sources = SourceTable()
        var journal = JournalWriter()
        /// Bytes of the journal that could not be written yet, the oldest first.
        var waiting: [Segment] = []
        var metadata: [String: MetricMetadata] = [:]
        var pendingMetadata: [MetricMetadata] = []
        /// Series that came or woke since the last checkpoint began.
        var newSeries = 0
        /// Buckets whose series woke since then.
        var woken: Set<Int> = []
        /// While the store is opened: the generation of the journal that is read.
        var replaying: (generation: Int64, reader: JournalReader)?
        var counters = StoreCounters()

        /// All samples that are in memory, the oldest generation first.
        var allHeads: [Heads] { frozen.map(\.heads) + [heads] }

        var pendingBytes: Int { waiting.reduce(journal.bytes.count) { $0 + $1.bytes.count } }
    }

    /// A piece of the journal.
    struct Segment {
        var generation: Int64
        var bytes: [UInt8]
        var samples: Int
    }

    /// How long a statement waits for another process.
    private static let busyTimeoutMs = 10_000

    let database: any DatabaseWriter
    let path: String
    let state = Mutex(State())
    /// Held while a flush or checkpoint writes: their order in the file is that of memory.
    private let writing = Mutex(())
    private let lock: StoreLock?
    let decompressors = ZstdDecompressor.Pool()
    /// nil beside a running service, which changes the file.
    let readCache: ReadCache?

    /// Opens the store in a directory, or makes it.
    ///
    /// - Parameters:
    ///   - readOnly: for reports beside a running service: takes no lock and writes nothing.
    ///   - maxPages: a limit on the file's size in pages of 4096 bytes, for tests of a full disk.
    /// - Throws: ``StoreError``.
    package init(directory: String, readOnly: Bool = false, maxPages: Int? = nil) throws {
        path = directory + "/" + Store.fileName
        readCache = readOnly ? nil : ReadCache()
        if readOnly {
            guard FileManager.default.fileExists(atPath: path) else {
                throw StoreError(
                    code: .notFound, path: path,
                    reason: "no store here; name the directory that `run` or `replay` wrote to with --store")
            }
            lock = nil
        } else {
            do {
                try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
            } catch {
                throw StoreError(
                    code: .failed, path: directory, reason: "the directory can't be made: \(error.localizedDescription)"
                )
            }
            lock = try StoreLock(directory: directory)
        }
        var configuration = Configuration()
        configuration.readonly = readOnly
        configuration.busyMode = .timeout(Double(Store.busyTimeoutMs) / 1000)
        configuration.prepareDatabase { db in
            // Pages of the index stay at hand while a query goes through the blocks of many series.
            try db.execute(sql: "PRAGMA cache_size = -16384")
            if !db.configuration.readonly {
                // Before the first table: what retention frees is given back to the file system.
                try db.execute(sql: "PRAGMA auto_vacuum = INCREMENTAL")
                // With a write-ahead log this loses nothing when the process dies, and keeps the file whole when
                // the power fails (sqlite.org/pragma.html#pragma_synchronous).
                try db.execute(sql: "PRAGMA synchronous = NORMAL")
                if let maxPages { try db.execute(sql: "PRAGMA max_page_count = \(maxPages)") }
            }
        }
        do {
            database = try DatabasePool(path: path, configuration: configuration)
            try Schema.migrate(database, path: path, readOnly: readOnly)
            try load(readOnly: readOnly)
        } catch {
            throw Store.error(error, path: path)
        }
    }

    // MARK: Appending

    package func source(_ labels: Labels) -> SampleSource { state.withLock { $0.sources.source(labels) } }

    package func append(
        _ values: [Double], of ids: [SeriesID], from source: SampleSource, atMs: Int64
    ) -> AppendResult {
        precondition(values.count == ids.count, "each series has a value")
        return state.withLock { $0.append(values, of: ids, from: source, atMs: atMs) }
    }

    package func append(_ batch: SampleBatch) -> AppendResult { state.withLock { $0.append(batch) } }

    /// Takes in what is known of metrics, as far as there is room: they are told by targets, and no retention takes them away.
    package func setMetadata(_ metadata: [MetricMetadata]) {
        state.withLock { state in
            for var entry in metadata where state.metadata[entry.name] != entry {
                if entry.help.utf8.count > Store.maxHelpBytes {
                    entry.help = String(decoding: entry.help.utf8.prefix(Store.maxHelpBytes), as: UTF8.self)
                    guard state.metadata[entry.name] != entry else { continue }
                }
                guard state.metadata[entry.name] != nil || state.metadata.count < Store.maxMetadata else {
                    state.counters.metadataRefused += 1
                    continue
                }
                state.metadata[entry.name] = entry
                state.pendingMetadata.append(entry)
            }
        }
    }

    // MARK: Writing

    /// Makes durable what was appended since the last flush, in one transaction.
    ///
    /// - Throws: ``StoreError``; the samples stay in memory then and go with the next flush.
    package func flush() throws { try writing.withLock { _ in try flushWhileWriting() } }

    func flushWhileWriting() throws {
        let (segments, metadata) = state.withLock { state in
            state.endSegment()
            defer { state.pendingMetadata = [] }
            return (state.waiting, state.pendingMetadata)
        }
        guard !segments.isEmpty || !metadata.isEmpty else { return }
        do {
            try database.write { db in
                for entry in metadata {
                    try db.execute(
                        sql: "INSERT OR REPLACE INTO metadata (name, type, help, unit) VALUES (?, ?, ?, ?)",
                        arguments: [entry.name, entry.type, entry.help, entry.unit])
                }
                let compressor = ZstdCompressor(level: 1)
                let insert = try db.cachedStatement(sql: "INSERT INTO journal (generation, data) VALUES (?, ?)")
                for segment in segments {
                    try insert.execute(arguments: [
                        segment.generation, Data(compressor.compress(segment.bytes)),
                    ])
                }
            }
            state.withLock { state in
                state.waiting.removeFirst(segments.count)
                state.counters.flushes += 1
            }
        } catch {
            state.withLock { state in
                state.pendingMetadata = metadata + state.pendingMetadata
                state.counters.flushesFailed += 1
            }
            throw Store.error(error, path: path)
        }
    }

    /// The number of samples that a start would have to read back from the journal.
    package var samplesOutsideBlocks: Int {
        state.withLock { $0.allHeads.reduce(0) { $0 + $1.samples } }
    }

    /// Series that are new in memory since the last checkpoint began: with the next but one those that they replaced fall
    /// asleep.
    package var newSeries: Int { state.withLock { $0.newSeries } }

    /// Moves the samples in memory into blocks and empties the journal.
    ///
    /// Appending and flushing go on meanwhile. Where it fails, the samples stay in memory and in the journal, and the next
    /// one takes them.
    package func checkpoint() throws {
        try writing.withLock { _ in
            do {
                try checkpointWhileWriting()
            } catch {
                throw Store.error(error, path: path)
            }
            // Where readers follow one another, SQLite's own checkpoints never come to the log's end.
            truncateLog(waitMs: 200)
        }
    }

    /// Moves SQLite's write-ahead log into the file and makes it empty, unless readers hold it for longer than that.
    private func truncateLog(waitMs: Int) {
        try? database.writeWithoutTransaction { db in
            try db.execute(sql: "PRAGMA busy_timeout = \(waitMs)")
            defer { try? db.execute(sql: "PRAGMA busy_timeout = \(Store.busyTimeoutMs)") }
            _ = try db.checkpoint(.truncate)
        }
    }

    /// Deletes samples older than a time, and the oldest of the others while the file holds too much; and series that have
    /// none left.
    ///
    /// Whole generations go: samples up to one checkpoint older than that may stay, and the newest generation always does.
    /// - Parameters:
    ///   - spared: generations with samples of this time stay.
    ///   - mostBytes: what the file may hold, but for the journal and its log; nil: any.
    /// - Throws: ``StoreError``.
    package func deleteSamples(
        beforeMs: Int64, sparing spared: ClosedRange<Int64>? = nil, mostBytes: Int? = nil
    ) throws {
        try writing.withLock { _ in
            do {
                try deleteWhileWriting(beforeMs: beforeMs, sparing: spared, mostBytes: mostBytes)
            } catch {
                throw Store.error(error, path: path)
            }
        }
    }

    /// Writes everything down and lets go of the files.
    ///
    /// Nothing may be appended afterwards.
    package func close() throws {
        try checkpoint()
        try? database.writeWithoutTransaction { try $0.execute(sql: "PRAGMA incremental_vacuum") }
        truncateLog(waitMs: Store.busyTimeoutMs)
        try? database.close()
        lock?.release()
    }

    /// Lifts the limit on the file's size that was given to the initialiser: there is room again.
    package func makeRoom() throws {
        try writing.withLock { _ in
            try database.write { try $0.execute(sql: "PRAGMA max_page_count = 1073741823") }
        }
    }

    /// The size of the file and of SQLite's log beside it.
    package var fileBytes: Int {
        ["", "-wal"].reduce(0) { sum, suffix in
            let attributes = try? FileManager.default.attributesOfItem(atPath: path + suffix)
            return sum + (attributes?[.size] as? Int ?? 0)
        }
    }

    /// What the store has done since it was opened.
    package var counters: StoreCounters {
        state.withLock { state in
            var counters = state.counters
            counters.seriesInMemory = state.index.awakeCount
            counters.series = state.index.awakeCount + state.index.sleepingCount
            counters.samplesPending = state.waiting.reduce(state.journal.samples) { $0 + $1.samples }
            counters.pendingBytes = state.pendingBytes
            return counters
        }
    }

    static func error(_ error: any Error, path: String) -> StoreError {
        if let error = error as? StoreError { return error }
        if error is BlockCodec.CorruptBlock {
            return StoreError(code: .unreadable, path: path, reason: "a row of the table blocks is damaged")
        }
        guard let error = error as? DatabaseError else {
            return StoreError(code: .failed, path: path, reason: "\(error)")
        }
        let words = error.message ?? error.resultCode.description
        switch error.resultCode {
        case .SQLITE_FULL:
            return StoreError(
                code: .full, path: path,
                reason:
                    "\(words): the samples stay in memory and are written once there is room; free space on the disk")
        case .SQLITE_NOTADB, .SQLITE_CORRUPT:
            return StoreError(code: .unreadable, path: path, reason: "not a store of upgrade-watch: \(words)")
        case .SQLITE_ERROR where words.contains("no such table"):
            return StoreError(code: .unreadable, path: path, reason: "not a store of upgrade-watch: \(words)")
        default:
            return StoreError(code: .failed, path: path, reason: words)
        }
    }
}

extension Store.State {
    /// Notes a series that is new.
    mutating func enter(_ id: SeriesID, _ labels: Labels) {
        guard let number = index.number(id) else { return }
        newest.grow(to: number + 1)
        newest[number] = .min
        newSeries += 1
        journal.series(place: index.place(number), labels)
    }

    private mutating func hasRoom(for count: Int, _ result: inout AppendResult) -> Bool {
        guard pendingBytes < Store.maxPendingBytes else {
            counters.samplesDropped += count
            result.dropped = count
            return false
        }
        return true
    }

    private mutating func count(_ result: AppendResult) {
        counters.samplesAppended += result.accepted
        counters.samplesOutOfOrder += result.outOfOrder
        counters.samplesDuplicate += result.duplicates
    }

    mutating func append(
        _ values: [Double], of ids: [SeriesID], from source: SampleSource, atMs: Int64
    ) -> AppendResult {
        var result = AppendResult()
        guard !ids.isEmpty, hasRoom(for: ids.count, &result) else { return result }
        guard let slot = sources.slot(source) else {
            result.unknown = ids.count
            return result
        }
        guard let row = heads.row(of: slot, atMs: atMs) else {
            // Older than the source's last row, and not one of its rows.
            var batch = SampleBatch()
            for (id, value) in zip(ids, values) { batch.append(id, timestampMs: atMs, value: value) }
            return append(batch)
        }
        journal.beginRow(source: slot, ids, atMs: atMs) { id in index.number(id).map { index.place($0) } }
        for (id, value) in zip(ids, values) {
            guard let number = index.number(id) else {
                journal.skip()
                result.unknown += 1
                continue
            }
            let lastMs = newest[number]
            guard lastMs < atMs else {
                journal.skip()
                if lastMs == atMs { result.duplicates += 1 } else { result.outOfOrder += 1 }
                continue
            }
            journal.token(
                heads.append(
                    number, source: slot, row: row, atMs: atMs, lastMs: lastMs, bits: value.bitPattern))
            newest[number] = atMs
            result.accepted += 1
        }
        journal.endRun()
        count(result)
        return result
    }

    mutating func append(_ batch: SampleBatch) -> AppendResult {
        var result = AppendResult()
        guard !batch.isEmpty, hasRoom(for: batch.count, &result) else { return result }
        var accepted: [(place: UInt32, index: Int, number: Int, lastMs: Int64)] = []
        accepted.reserveCapacity(batch.count)
        for place in 0..<batch.count {
            guard let number = index.number(batch.ids[place]) else {
                result.unknown += 1
                continue
            }
            let atMs = batch.timestampsMs[place]
            let lastMs = newest[number]
            guard lastMs < atMs else {
                if lastMs == atMs { result.duplicates += 1 } else { result.outOfOrder += 1 }
                continue
            }
            newest[number] = atMs
            accepted.append((index.place(number), place, number, lastMs))
        }
        result.accepted = accepted.count
        if !accepted.isEmpty { journal.beginSamples(accepted.count) }
        for (place, position, number, lastMs) in accepted {
            let atMs = batch.timestampsMs[position]
            journal.sample(place: place, atMs: atMs)
            journal.token(
                heads.append(number, atMs: atMs, lastMs: lastMs, bits: batch.values[position].bitPattern))
            journal.endRun()
        }
        count(result)
        return result
    }

    /// Puts what the journal has into the queue of pieces to be written.
    mutating func endSegment() {
        let (bytes, samples) = journal.take()
        if !bytes.isEmpty { waiting.append(.init(generation: generation, bytes: bytes, samples: samples)) }
    }
}

/// The numbers of sources, by the labels that their series have in common.
///
/// A source that had no sample for a whole generation loses its number to the next new one.
struct SourceTable {
    private var slots: [Labels: Int] = [:]
    private var names: [Labels?] = []
    private var epochs: [UInt32] = []
    private var free: [Int] = []

    mutating func source(_ labels: Labels) -> SampleSource {
        let slot: Int
        if let known = slots[labels] {
            slot = known
        } else {
            slot = free.popLast() ?? names.count
            if slot == names.count {
                names.append(nil)
                epochs.append(0)
            }
            names[slot] = labels
            slots[labels] = slot
        }
        return SampleSource(rawValue: Int64(epochs[slot]) << 32 | Int64(slot))
    }

    /// nil for a source that lost its number: who has it asks again.
    @inline(__always)
    func slot(_ source: SampleSource) -> Int? {
        let slot = Int(source.rawValue & 0xffff_ffff)
        guard slot < epochs.count, epochs[slot] == UInt32(truncatingIfNeeded: source.rawValue >> 32) else { return nil }
        return slot
    }

    mutating func release(where isUnused: (Int) -> Bool) {
        for slot in names.indices where isUnused(slot) {
            guard let labels = names[slot] else { continue }
            names[slot] = nil
            slots[labels] = nil
            epochs[slot] &+= 1
            free.append(slot)
        }
    }
}

/// What a store has done since it was opened, and what it holds.
package struct StoreCounters: Sendable, Equatable {
    package var samplesAppended = 0
    package var samplesOutOfOrder = 0
    package var samplesDuplicate = 0
    /// Not taken, because too many samples waited for a flush.
    package var samplesDropped = 0
    package var samplesPending = 0
    package var pendingBytes = 0
    package var series = 0
    /// Those of them that do not sleep: whose labels are in memory.
    package var seriesInMemory = 0
    /// Series that came back and could not be taken, because the file could not be read.
    package var seriesRefused = 0
    /// Times that a metric's type and help were not taken for want of room.
    package var metadataRefused = 0
    package var flushes = 0
    package var flushesFailed = 0
    package var checkpoints = 0
}
