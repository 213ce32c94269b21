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

/// Series that have had no sample for long *sleep*: their labels are in the file alone. They wake where one of their
/// bucket gets a sample, and are read from the file by the queries that reach back to them.
extension Store {
    /// A series that ended is looked at again by those who ask what became of it; an index in the file is slower.
    private static let awakeMs: Int64 = 15 * 60_000

    package func ids(for labels: [Labels]) -> [SeriesID] {
        var asked: Set<Int> = []
        while true {
            var asleep: Set<Int> = []
            let ids = state.withLock { state in
                labels.map { labels in
                    if let id = state.index.id(of: labels) { return id }
                    if let bucket = state.index.bucket(ofSleeping: labels) {
                        // Where the file can't be read it is not known whether the series is new.
                        if asked.contains(bucket) { state.counters.seriesRefused += 1 } else { asleep.insert(bucket) }
                        return .none
                    }
                    let id = state.index.insert(labels)
                    state.enter(id, labels)
                    return id
                }
            }
            guard !asleep.isEmpty else { return ids }
            wake(asleep)
            asked.formUnion(asleep)
        }
    }

    private func wake(_ buckets: Set<Int>) {
        let saved = try? database.read { db in
            try buckets.sorted().compactMap { try Store.savedBucket($0, db) }
        }
        state.withLock { state in
            for bucket in saved ?? [] { state.index.wake(bucket, state.newest) }
        }
    }

    /// A bucket's series as the file has them; nil where there is no such bucket any more.
    ///
    /// - Throws: `DatabaseError` or `BlockCodec.CorruptBlock`.
    static func savedBucket(_ number: Int, _ db: GRDB.Database) throws -> SavedBucket? {
        let statement = try db.cachedStatement(sql: Store.bucketSQL + " WHERE id = ?")
        guard let row = try Row.fetchOne(statement, arguments: [number]) else { return nil }
        return SavedBucket(
            number: number, labels: try labels(ofBucket: row), newest: try newest(ofBucket: row) ?? [])
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
                var found: [(place: UInt32, labels: Labels)] = []
                for (bucket, slots) in sleeping {
                    guard let saved = try Store.savedBucket(bucket, db) else { continue }
                    for slot in slots where slot < saved.labels.count && saved.newestMs(slot) >= fromMs {
                        guard matchers.allSatisfy({ $0.accepts(saved.labels[slot]) }) else { continue }
                        found.append((SeriesIndex.place(bucket: bucket, slot: slot), saved.labels[slot]))
                    }
                }
                return found
            }
        } catch {
            throw Store.error(error, path: path)
        }
    }

    /// The time before which series end that sleep once a generation is in blocks.
    static func sleepLimit(firstMs: Int64, lastMs: Int64) -> Int64 { min(firstMs, lastMs - awakeMs) }
}

extension Store.State {
    /// Puts series to sleep that had no sample since a time, and none in memory.
    mutating func sleep(beforeMs: Int64) {
        let memory = allHeads
        var ended: [(number: UInt32, lastMs: Int64)] = []
        for number in 0..<min(index.numbers, newest.count) {
            let lastMs = newest[number]
            guard lastMs != .min, lastMs < beforeMs, index.isSaved(number),
                memory.allSatisfy({ $0.head(number).count == 0 })
            else { continue }
            ended.append((UInt32(number), lastMs))
        }
        if !ended.isEmpty { index.sleep(ended) }
    }
}
