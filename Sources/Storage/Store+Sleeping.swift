import Algorithms
import GRDB
import Series
import Synchronization

/// A bucket's series as the file has them.
struct SavedBucket: Sendable {
    var number: Int
    /// By slot.
    var labels: [Labels]
    /// The newest sample by slot; slots beyond its end have none.
    var newest: [Int64]

    func newestMs(_ slot: Int) -> Int64 { slot < newest.count ? newest[slot] : .min }
}

extension SavedBucket {
    /// - Parameter row: one of ``Store/bucketSQL``.
    init(_ row: Row) throws(BlockCodec.CorruptBlock) {
        self.init(
            number: row[0], labels: try Store.labels(ofBucket: row), newest: try Store.newest(ofBucket: row) ?? [])
    }
}

/// Series that have had no sample for long *sleep*: their labels are in the file alone. All of a bucket wake where one of them
/// is asked for, and queries that reach back to them read them from the file.
extension Store {
    /// A series that ended is looked at again by those who ask what became of it; an index in the file is slower.
    static let awakeMs: Int64 = 15 * 60_000
    /// A generation that is shorter says nothing of series that are scraped seldom, or not yet after a start.
    private static let shortestMs: Int64 = 5 * 60_000
    /// Series that fall asleep while the store is held: some hundredths of a second.
    private static let atOnce = 10_000

    package func ids(for labels: [Labels]) -> [SeriesID] {
        var unreadable: Set<Int> = []
        while true {
            var asleep: Set<Int> = []
            let ids = state.withLock { state in
                let hasRoom = state.pendingBytes < Store.maxPendingBytes
                let ids = labels.map { labels in
                    if let id = state.index.id(of: labels) { return id }
                    if let bucket = state.index.bucket(ofSleeping: labels) {
                        if !unreadable.contains(bucket) { asleep.insert(bucket) }
                        // Where the file can't be read it is not known whether the series is new.
                        return .none
                    }
                    guard hasRoom, let id = state.index.insert(labels) else {
                        return .none
                    }
                    state.enter(id, labels)
                    return id
                }
                if asleep.isEmpty { state.counters.seriesRefused += ids.count { $0 == .none } }
                return ids
            }
            guard !asleep.isEmpty else { return ids }
            for bucket in asleep.sorted() where !wake(bucket) { unreadable.insert(bucket) }
        }
    }

    /// - Returns: whether nothing sleeps in the bucket now; false where the file can't be read.
    private func wake(_ bucket: Int) -> Bool {
        guard state.withLock({ $0.index.hasSleepers(bucket) }) else { return true }
        let saved = try? database.read { try Store.savedBucket(bucket, $0) }
        return state.withLock { state in
            if let saved, state.index.hasSleepers(bucket) {
                state.newSeries += state.index.wake(saved, state.newest)
                state.woken.insert(bucket)
            }
            return !state.index.hasSleepers(bucket)
        }
    }

    /// Puts series to sleep that had no sample in a generation that is in blocks, and none since.
    ///
    /// A bit at a time: others append meanwhile.
    func sleep(after written: FrozenHeads) {
        let (firstMs, lastMs) = (written.heads.firstMs, written.heads.lastMs)
        guard written.heads.samples > 0, lastMs >= Store.shortestMs, lastMs - Store.shortestMs >= firstMs else {
            return
        }
        let limitMs = lastMs - Store.awakeMs
        let ended = state.withLock { state in
            (0..<min(state.index.numbers, state.newest.count)).filter { state.hasEnded($0, written, beforeMs: limitMs) }
        }
        for some in ended.chunks(ofCount: Store.atOnce) {
            state.withLock { state in
                let still = some.filter { state.hasEnded($0, written, beforeMs: limitMs) }
                state.index.sleep(still.map { (UInt32($0), state.newest[$0]) })
            }
        }
    }

    /// The time before which series ended that sleep when the store is opened.
    static func sleepLimit(firstMs: Int64, lastMs: Int64) -> Int64 { min(firstMs, lastMs - awakeMs) }

    /// A bucket's series as the file has them; nil where there is no such bucket any more.
    ///
    /// - Throws: `DatabaseError` or `BlockCodec.CorruptBlock`.
    static func savedBucket(_ number: Int, _ db: GRDB.Database) throws -> SavedBucket? {
        let statement = try db.cachedStatement(sql: Store.bucketSQL + " WHERE id = ?")
        guard let row = try Row.fetchOne(statement, arguments: [number]) else { return nil }
        return try SavedBucket(row)
    }

    /// The series that matchers accept, of those that sleep and may have samples of a time or newer.
    ///
    /// - Throws: ``StoreError``.
    /// - Complexity: O(series of the buckets), which are read from the file.
    func sleepers(
        _ sleeping: [(bucket: Int, slots: [Int])], _ matchers: [LabelMatcher], fromMs: Int64
    ) throws -> [(place: UInt32, labels: Labels)] {
        guard !sleeping.isEmpty else { return [] }
        do {
            return try database.read { db in
                var matchers = matchers
                var found: [(place: UInt32, labels: Labels)] = []
                for (bucket, slots) in sleeping {
                    guard let saved = try Store.savedBucket(bucket, db) else { continue }
                    for slot in slots where slot < saved.labels.count && saved.newestMs(slot) >= fromMs {
                        for index in matchers.indices where matchers[index].isPattern {
                            try matchers[index].ask(about: [saved.labels[slot][matchers[index].name] ?? ""])
                        }
                        guard matchers.allSatisfy({ $0.accepts(saved.labels[slot]) }) else { continue }
                        found.append((SeriesIndex.place(bucket: bucket, slot: slot), saved.labels[slot]))
                    }
                }
                return found
            }
        } catch let error as PatternError {
            throw error
        } catch {
            throw Store.error(error, path: path)
        }
    }
}

extension Store.State {
    /// Whether a series has no sample in a generation that was written, none in memory, and none since a time.
    ///
    /// One whose bucket woke not long ago is waited for.
    fileprivate func hasEnded(_ number: Int, _ written: FrozenHeads, beforeMs: Int64) -> Bool {
        let lastMs = newest[number]
        return lastMs != .min && lastMs < beforeMs && index.isSaved(number)
            && !woken.contains(SeriesIndex.bucket(ofPlace: index.place(number)))
            && written.heads.head(number).count == 0 && !hasSamplesInMemory(number)
    }

    /// Whether any sample of a series is not in a block, as far as it is known.
    func hasSamplesInMemory(_ number: Int) -> Bool {
        heads.head(number).count > 0 || frozen.contains { $0.heads.head(number).count > 0 }
    }
}
