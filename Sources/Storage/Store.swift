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

    /// The most samples that wait for a flush; beyond it new ones are dropped and counted, so that a full disk does
    /// not fill the memory as well.
    ///
    /// About 24 bytes each.
    package static let maxPendingSamples = 20_000_000

    private struct Head {
        var timestampsMs: [Int64] = []
        var values: [Double] = []
        /// The newest sample's time, whether it is in memory still or in a block.
        var lastMs = Int64.min
        /// How many samples at the front are in blocks as well.
        var written = 0
        /// Whether the file has blocks of the series.
        var hasBlocks = false

        /// Whether memory has all samples from a time on.
        func covers(from fromMs: Int64) -> Bool { !hasBlocks || (timestampsMs.first ?? .max) <= fromMs }
    }

    /// So long samples stay in memory after they were moved into blocks: the lookback of queries at the present time.
    private static let tailMs: Int64 = 330_000

    private struct State {
        var index = SeriesIndex()
        var heads: [SeriesID: Head] = [:]
        var metadata: [String: MetricMetadata] = [:]
        var pending = SampleBatch()
        var pendingSeries: [SeriesID] = []
        var pendingMetadata: [MetricMetadata] = []
        var journaledSamples = 0
        var counters = StoreCounters()
    }

    /// How long a statement waits for another process.
    private static let busyTimeoutMs = 10_000

    private let database: any DatabaseWriter
    private let path: String
    private let state = Mutex(State())
    /// Held while a flush or checkpoint writes: their order in the file is that of memory.
    private let writing = Mutex(())
    private let lock: StoreLock?

    /// Opens the store in a directory, or makes it.
    ///
    /// - Parameters:
    ///   - readOnly: for reports beside a running service: takes no lock and writes nothing.
    ///   - maxPages: a limit on the file's size in pages of 4096 bytes, for tests of a full disk.
    /// - Throws: ``StoreError``.
    package init(directory: String, readOnly: Bool = false, maxPages: Int? = nil) throws {
        path = directory + "/" + Store.fileName
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
                throw StoreError(code: .failed, path: directory, reason: "the directory can't be made: \(error)")
            }
            lock = try StoreLock(directory: directory)
        }
        var configuration = Configuration()
        configuration.readonly = readOnly
        configuration.busyMode = .timeout(Double(Store.busyTimeoutMs) / 1000)
        configuration.prepareDatabase { db in
            // Pages of the index stay at hand while a query goes through the blocks of many series.
            try db.execute(sql: "PRAGMA cache_size = -16384")
            if !readOnly {
                // With a write-ahead log this loses nothing when the process dies, and keeps the file whole when
                // the power fails (sqlite.org/pragma.html#pragma_synchronous).
                try db.execute(sql: "PRAGMA synchronous = NORMAL")
                if let maxPages { try db.execute(sql: "PRAGMA max_page_count = \(maxPages)") }
            }
        }
        do {
            database = try DatabasePool(path: path, configuration: configuration)
            try Store.migrate(database, path: path, readOnly: readOnly)
            try load()
        } catch let error as StoreError {
            throw error
        } catch {
            throw Store.error(error, path: path)
        }
    }

    // MARK: Writing

    package func ids(for labels: [Labels]) -> [SeriesID] {
        state.withLock { state in
            labels.map { labels in
                if let id = state.index.id(of: labels) { return id }
                let id = state.index.insert(labels)
                state.pendingSeries.append(id)
                return id
            }
        }
    }

    package func append(_ batch: SampleBatch) -> AppendResult {
        state.withLock { state in
            var result = AppendResult()
            guard state.pending.count + batch.count <= Store.maxPendingSamples else {
                state.counters.samplesDropped += batch.count
                result.dropped = batch.count
                return result
            }
            for index in 0..<batch.count {
                let id = batch.ids[index]
                let timestampMs = batch.timestampsMs[index]
                let value = batch.values[index]
                let accepted = Store.push(&state.heads[id, default: Head()], timestampMs, value)
                if accepted {
                    state.pending.append(id, timestampMs: timestampMs, value: value)
                    result.accepted += 1
                } else if state.heads[id]?.lastMs == timestampMs {
                    result.duplicates += 1
                } else {
                    result.outOfOrder += 1
                }
            }
            state.counters.samplesAppended += result.accepted
            state.counters.samplesOutOfOrder += result.outOfOrder
            state.counters.samplesDuplicate += result.duplicates
            return result
        }
    }

    private static func push(_ head: inout Head, _ timestampMs: Int64, _ value: Double) -> Bool {
        guard timestampMs > head.lastMs else { return false }
        head.timestampsMs.append(timestampMs)
        head.values.append(value)
        head.lastMs = timestampMs
        return true
    }

    package func setMetadata(_ metadata: [MetricMetadata]) {
        state.withLock { state in
            for entry in metadata where state.metadata[entry.name] != entry {
                state.metadata[entry.name] = entry
                state.pendingMetadata.append(entry)
            }
        }
    }

    /// Makes durable what was appended since the last flush, in one transaction.
    ///
    /// - Throws: ``StoreError``; the samples stay in memory then and go with the next flush.
    package func flush() throws {
        try writing.withLock { _ in try flushWhileWriting() }
    }

    private func flushWhileWriting() throws {
        let taken = state.withLock { state in
            defer {
                state.pending = SampleBatch()
                state.pendingSeries = []
                state.pendingMetadata = []
            }
            let series = state.pendingSeries.compactMap { id in state.index.labels[id].map { (id, $0) } }
            return (batch: state.pending, series: series, metadata: state.pendingMetadata)
        }
        guard !taken.batch.isEmpty || !taken.series.isEmpty || !taken.metadata.isEmpty else { return }
        do {
            try database.write { db in
                let insert = try db.makeStatement(sql: "INSERT INTO series (id, labels) VALUES (?, ?)")
                for (id, labels) in taken.series {
                    try insert.execute(arguments: [id.rawValue, LabelsJSON.encode(labels)])
                }
                for entry in taken.metadata {
                    try db.execute(
                        sql: "INSERT OR REPLACE INTO metadata (name, type, help, unit) VALUES (?, ?, ?, ?)",
                        arguments: [entry.name, entry.type, entry.help, entry.unit])
                }
                if !taken.batch.isEmpty {
                    try db.execute(
                        sql: "INSERT INTO journal (samples, data) VALUES (?, ?)",
                        arguments: [taken.batch.count, Data(JournalCodec.encode(taken.batch))])
                }
            }
            state.withLock { state in
                state.journaledSamples += taken.batch.count
                state.counters.flushes += 1
            }
        } catch {
            state.withLock { state in
                // What came meanwhile goes behind what could not be written.
                var batch = taken.batch
                batch.ids += state.pending.ids
                batch.timestampsMs += state.pending.timestampsMs
                batch.values += state.pending.values
                state.pending = batch
                state.pendingSeries = taken.series.map(\.0) + state.pendingSeries
                state.pendingMetadata = taken.metadata + state.pendingMetadata
                state.counters.flushesFailed += 1
            }
            throw Store.error(error, path: path)
        }
    }

    /// The number of samples that a start would have to read back from the journal.
    package var journaledSamples: Int { state.withLock { $0.journaledSamples } }

    /// Moves the samples in memory into blocks and empties the journal, in one transaction.
    package func checkpoint() throws {
        try writing.withLock { _ in
            try flushWhileWriting()
            let heads = state.withLock { $0.heads.filter { $0.value.timestampsMs.count > $0.value.written } }
            guard !heads.isEmpty else { return }
            do {
                try database.write { db in
                    let insert = try db.makeStatement(
                        sql: "INSERT INTO blocks (series_id, start_ms, end_ms, samples, data) VALUES (?, ?, ?, ?, ?)")
                    let touch = try db.makeStatement(sql: "UPDATE series SET last_ms = ? WHERE id = ?")
                    for (id, head) in heads.sorted(by: { $0.key < $1.key }) {
                        try Store.writeBlocks(
                            id, head.timestampsMs[head.written...], head.values[head.written...], insert)
                        try touch.execute(arguments: [head.lastMs, id.rawValue])
                    }
                    try db.execute(sql: "DELETE FROM journal")
                }
            } catch {
                throw Store.error(error, path: path)
            }
            state.withLock { state in
                for (id, written) in heads {
                    guard var head = state.heads.removeValue(forKey: id) else { continue }
                    let old = Store.lowerBound(written.timestampsMs, written.lastMs - Store.tailMs)
                    head.timestampsMs = Array(head.timestampsMs[old...])
                    head.values = Array(head.values[old...])
                    head.written = written.timestampsMs.count - old
                    head.hasBlocks = true
                    state.heads[id] = head
                }
                state.journaledSamples = 0
                state.counters.checkpoints += 1
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

    /// Samples in a block: enough for the differences to pay, few enough that a query of an hour decodes little else.
    private static let blockSamples = 240

    private static func writeBlocks(
        _ id: SeriesID, _ timestampsMs: ArraySlice<Int64>, _ values: ArraySlice<Double>, _ insert: Statement
    ) throws {
        for start in stride(from: timestampsMs.startIndex, to: timestampsMs.endIndex, by: blockSamples) {
            let end = min(start + blockSamples, timestampsMs.endIndex)
            let data = BlockCodec.encode(timestampsMs: timestampsMs[start..<end], values: values[start..<end])
            try insert.execute(arguments: [
                id.rawValue, timestampsMs[start], timestampsMs[end - 1], end - start, Data(data),
            ])
        }
    }

    /// Deletes samples older than a time, and series that have none left.
    package func deleteSamples(beforeMs: Int64) throws {
        try writing.withLock { _ in
            do {
                let gone = try database.write { db -> Set<SeriesID> in
                    try db.execute(sql: "DELETE FROM blocks WHERE end_ms < ?", arguments: [beforeMs])
                    let empty = try Int64.fetchAll(
                        db,
                        sql: """
                            SELECT id FROM series WHERE last_ms IS NOT NULL AND last_ms < ?
                            AND NOT EXISTS (SELECT 1 FROM blocks WHERE series_id = series.id)
                            """, arguments: [beforeMs])
                    let gone = state.withLock { state in
                        Set(
                            empty.map { SeriesID(rawValue: $0) }.filter {
                                let head = state.heads[$0] ?? Head()
                                return head.timestampsMs.count == head.written && head.lastMs < beforeMs
                            })
                    }
                    for id in gone { try db.execute(sql: "DELETE FROM series WHERE id = ?", arguments: [id.rawValue]) }
                    return gone
                }
                state.withLock { state in
                    state.index.remove(gone)
                    for id in gone { state.heads[id] = nil }
                }
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

    /// What the store has done since it was opened.
    package var counters: StoreCounters {
        state.withLock { state in
            var counters = state.counters
            counters.series = state.index.labels.count
            counters.samplesPending = state.pending.count
            return counters
        }
    }

    // MARK: Reading

    package func select(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [SeriesSamples] {
        try selection(matchers, fromMs: fromMs, throughMs: throughMs).samples()
    }

    package func selection(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> SeriesSelection {
        let found = state.withLock { state in
            var labels: [Labels] = []
            var members: [(id: SeriesID, head: Head)] = []
            for id in state.index.select(matchers) {
                guard let own = state.index.labels[id] else { continue }
                labels.append(own)
                members.append((id, state.heads[id] ?? Head()))
            }
            return (labels: labels, members: members)
        }
        let members = found.members
        // Where memory holds all of the range, the file is left alone.
        let inMemory = members.allSatisfy { $0.head.covers(from: fromMs) }
        return SeriesSelection(labels: found.labels) { [self] places, body in
            if inMemory {
                for place in places {
                    try Store.read(members[place].head, fromMs, throughMs) { try body(place, $0, $1) }
                }
                return
            }
            do {
                try database.read { db in
                    let blocks = try BlockRows(db)
                    var merged = Head()
                    for place in places {
                        let (id, head) = members[place]
                        if head.covers(from: fromMs) {
                            try Store.read(head, fromMs, throughMs) { try body(place, $0, $1) }
                            continue
                        }
                        merged.timestampsMs.removeAll(keepingCapacity: true)
                        merged.values.removeAll(keepingCapacity: true)
                        try blocks.read(id, fromMs: fromMs, throughMs: throughMs) {
                            data throws(BlockCodec.CorruptBlock) in
                            try BlockCodec.decode(data, timestampsMs: &merged.timestampsMs, values: &merged.values)
                        }
                        // What was moved into a block since the selection was made is in both.
                        let from = Store.lowerBound(head.timestampsMs, merged.timestampsMs.last.map { $0 + 1 } ?? .min)
                        merged.timestampsMs += head.timestampsMs[from...]
                        merged.values += head.values[from...]
                        try Store.read(merged, fromMs, throughMs) { try body(place, $0, $1) }
                    }
                }
            } catch let error as DatabaseError {
                throw Store.error(error, path: path)
            } catch let error as BlockCodec.CorruptBlock {
                throw Store.error(error, path: path)
            }
        }
    }

    /// Hands out the samples of a range, where there are any.
    private static func read(
        _ head: Head, _ fromMs: Int64, _ throughMs: Int64,
        _ body: (UnsafeBufferPointer<Int64>, UnsafeBufferPointer<Double>) throws -> Void
    ) throws {
        let first = lowerBound(head.timestampsMs, fromMs)
        let end = throughMs == .max ? head.timestampsMs.count : lowerBound(head.timestampsMs, throughMs + 1)
        guard first < end else { return }
        try head.timestampsMs.withUnsafeBufferPointer { times in
            try head.values.withUnsafeBufferPointer { values in
                try body(
                    UnsafeBufferPointer(rebasing: times[first..<end]),
                    UnsafeBufferPointer(rebasing: values[first..<end]))
            }
        }
    }

    private static func lowerBound(_ values: [Int64], _ wanted: Int64) -> Int {
        var low = 0
        var high = values.count
        while low < high {
            let middle = (low + high) / 2
            if values[middle] < wanted { low = middle + 1 } else { high = middle }
        }
        return low
    }

    package func labels(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [Labels] {
        state.withLock { state in
            state.index.select(matchers).compactMap { id -> Labels? in
                guard (state.heads[id]?.lastMs ?? .max) >= fromMs else { return nil }
                return state.index.labels[id]
            }
        }.sorted()
    }

    package func metadata() throws -> [MetricMetadata] {
        state.withLock { $0.metadata.values.sorted { $0.name < $1.name } }
    }

    package func timeRange() throws -> ClosedRange<Int64>? {
        let memory = state.withLock { state in
            (
                first: state.heads.values.compactMap(\.timestampsMs.first).min(),
                last: state.heads.values.map(\.lastMs).max()
            )
        }
        do {
            let first = try database.read { try Int64.fetchOne($0, sql: "SELECT min(start_ms) FROM blocks") }
            guard let low = [first, memory.first].compactMap({ $0 }).min(), let high = memory.last, high >= low else {
                return nil
            }
            return low...high
        } catch {
            throw Store.error(error, path: path)
        }
    }

    // MARK: Opening

    private static func migrate(_ database: any DatabaseWriter, path: String, readOnly: Bool) throws {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("storage-1") { db in
            try db.execute(
                sql: """
                    CREATE TABLE series (id INTEGER PRIMARY KEY, labels TEXT NOT NULL UNIQUE, last_ms INTEGER);
                    CREATE TABLE blocks (
                        series_id INTEGER NOT NULL, start_ms INTEGER NOT NULL, end_ms INTEGER NOT NULL,
                        samples INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (series_id, start_ms)
                    ) WITHOUT ROWID;
                    CREATE TABLE journal (id INTEGER PRIMARY KEY, samples INTEGER NOT NULL, data BLOB NOT NULL);
                    CREATE TABLE metadata (
                        name TEXT PRIMARY KEY, type TEXT NOT NULL, help TEXT NOT NULL, unit TEXT NOT NULL
                    ) WITHOUT ROWID;
                    """)
        }
        if try database.read({ try migrator.hasBeenSuperseded($0) }) {
            throw StoreError(
                code: .newerVersion, path: path,
                reason: "the store was written by a newer version of upgrade-watch; use that version, "
                    + "or another directory")
        }
        if !readOnly { try migrator.migrate(database) }
    }

    private func load() throws {
        try database.read { db in
            try state.withLock { state in
                let series = try Row.fetchCursor(db, sql: "SELECT id, labels, last_ms FROM series ORDER BY id")
                while let row = try series.next() {
                    let id = SeriesID(rawValue: row[0])
                    state.index.load(try LabelsJSON.decode(row[1], path: path), as: id)
                    if let lastMs: Int64 = row[2] { state.heads[id] = Head(lastMs: lastMs, hasBlocks: true) }
                }
                let journal = try Row.fetchCursor(db, sql: "SELECT id, data FROM journal ORDER BY id")
                while let row = try journal.next() {
                    let number: Int64 = row[0]
                    let data: Data = row[1]
                    guard let batch = try? JournalCodec.decode([UInt8](data)) else {
                        throw StoreError(
                            code: .unreadable, path: path, reason: "row \(number) of the table journal is damaged")
                    }
                    for index in 0..<batch.count {
                        _ = Store.push(
                            &state.heads[batch.ids[index], default: Head()], batch.timestampsMs[index],
                            batch.values[index])
                    }
                    state.journaledSamples += batch.count
                }
                for row in try Row.fetchAll(db, sql: "SELECT name, type, help, unit FROM metadata") {
                    state.metadata[row[0]] = MetricMetadata(name: row[0], type: row[1], help: row[2], unit: row[3])
                }
            }
        }
    }

    private static func error(_ error: any Error, path: String) -> StoreError {
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

/// What a store has done since it was opened, and what it holds.
package struct StoreCounters: Sendable, Equatable {
    package var samplesAppended = 0
    package var samplesOutOfOrder = 0
    package var samplesDuplicate = 0
    /// Not taken, because too many samples waited for a flush.
    package var samplesDropped = 0
    package var samplesPending = 0
    package var series = 0
    package var flushes = 0
    package var flushesFailed = 0
    package var checkpoints = 0
}
