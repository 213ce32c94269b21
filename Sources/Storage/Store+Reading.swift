import Foundation
import GRDB
import Series
import Synchronization

extension Store {
    package func select(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [SeriesSamples] {
        try selection(matchers, fromMs: fromMs, throughMs: throughMs).samples()
    }

    package func selection(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> SeriesSelection {
        let matchers = try asked(matchers)
        let (awake, sleeping) = state.withLock { state in
            let awake = state.index.select(matchers).map { number in
                let member = Member(id: state.index.id(number), place: state.index.place(Int(number)))
                return (labels: state.index.labels(Int(number)), member: member)
            }
            return (awake, state.index.sleepers(matchers, fromMs: fromMs))
        }
        let asleep = try sleepers(sleeping, matchers, fromMs: fromMs).map { place, labels in
            (labels: labels, member: Member(id: .none, place: place))
        }
        let all = asleep.isEmpty ? awake : (awake + asleep).sorted { $0.member.place < $1.member.place }
        let members = all.map(\.member)
        // Many series share few times, and no frames: these are read once.
        let cache = members.count <= ReadCache.mostSeries ? readCache : nil
        let times = cache ?? ReadCache()
        return SeriesSelection(labels: all.map(\.labels)) { [self] places, body in
            do {
                try decompressors.withOne { try read(places, of: members, fromMs, throughMs, cache, times, $0, body) }
            } catch let error as DatabaseError {
                throw Store.error(error, path: path)
            } catch let error as BlockCodec.CorruptBlock {
                throw Store.error(error, path: path)
            }
        }
    }

    /// Asks regular expressions about what they will be asked while nobody waits: with the store in hand all who append would.
    ///
    /// - Throws: `PatternError` for one that takes too many steps.
    private func asked(_ matchers: [LabelMatcher]) throws -> [LabelMatcher] {
        guard matchers.contains(where: \.isPattern) else { return matchers }
        var asked = matchers
        for (place, values) in state.withLock({ $0.index.values(askedOf: matchers) }) {
            try asked[place].ask(about: values)
        }
        return asked
    }

    /// A series that was selected.
    fileprivate struct Member {
        var id: SeriesID
        var place: UInt32

        var bucket: Int { SeriesIndex.bucket(ofPlace: place) }
        var slot: Int { SeriesIndex.slot(ofPlace: place) }
    }

    /// A series' samples in memory, as they were when they were looked at.
    fileprivate struct HeadPart {
        var member: Int
        var shape: StreamReader.Shape
        var rows: [Int64]
        var start: Int
        var end: Int
    }

    /// Hands out the samples of series; those of a bucket that follow each other are read together.
    private func read(
        _ places: ArraySlice<Int>, of members: [Member], _ fromMs: Int64, _ throughMs: Int64,
        _ cache: ReadCache?, _ times: ReadCache, _ zstd: ZstdDecompressor, _ body: SeriesSelection.Body
    ) throws {
        var columns = SampleColumns()
        var start = places.startIndex
        while start < places.endIndex {
            let bucket = members[places[start]].bucket
            let end = places[start...].firstIndex { members[$0].bucket != bucket } ?? places.endIndex
            let group = places[start..<end]
            // First memory, then the file: what is moved from one to the other meanwhile is in both, not in neither.
            var streams: [UInt8] = []
            var parts: [HeadPart] = []
            let lastBlockMs = state.withLock { state in
                state.copyHeads(group, members, fromMs, &parts, &streams)
                return state.index.buckets[bucket]?.lastMs ?? .min
            }
            var blocks: [FrameOfBlock] = []
            var rowsOfTimes: [Int64: [Int64]] = [:]
            if lastBlockMs >= fromMs {
                let slots = group.map { members[$0].slot }
                let epoch = times.epoch
                // In one transaction: retention may take a generation away, but not half of it.
                try database.read { db in
                    let wanted = Set(slots.map { $0 >> BlockCodec.frameBits })
                    blocks =
                        try cache.map { try Store.frames(bucket, wanted, fromMs, throughMs, db, $0, epoch, zstd) }
                        ?? Store.frames(bucket, wanted, fromMs, throughMs, db, zstd)
                    rowsOfTimes = try Store.times(of: blocks, slots, db, times, epoch)
                }
            }
            var part = 0
            for place in group {
                columns.removeAll()
                let slot = members[place].slot
                for block in blocks where block.frame == slot >> BlockCodec.frameBits {
                    guard let entry = block.content.entry(slot: slot) else { continue }
                    let rows = entry.times.flatMap { rowsOfTimes[Schema.id(generation: block.generation, $0)] }
                    let before = columns.values.count
                    try block.content.read(
                        entry, rows: rows ?? [], fromMs: fromMs, throughMs: throughMs, into: &columns)
                    columns.dropRepeated(from: before)
                }
                while part < parts.count, parts[part].member == place {
                    let before = columns.values.count
                    try streams.withRawBytes { (bytes) throws(BlockCodec.CorruptBlock) in
                        let stream = UnsafeRawBufferPointer(rebasing: bytes[parts[part].start..<parts[part].end])
                        try StreamReader.read(
                            ByteCursor(stream), parts[part].shape, rows: parts[part].rows, fromMs: fromMs,
                            throughMs: throughMs, into: &columns)
                    }
                    columns.dropRepeated(from: before)
                    part += 1
                }
                guard !columns.values.isEmpty else { continue }
                try columns.timestampsMs.withUnsafeBufferPointer { times in
                    try columns.values.withUnsafeBufferPointer { try body(place, times, $0) }
                }
            }
            start = end
        }
    }

    // MARK: The file

    /// A frame of a block that a query reads.
    private struct FrameOfBlock {
        var generation: Int64
        var frame: Int
        var content: BlockFrame
    }

    /// The frames of a bucket's blocks that may have samples of the range, the oldest first.
    private static func frames(
        _ bucket: Int, _ wanted: Set<Int>, _ fromMs: Int64, _ throughMs: Int64, _ db: GRDB.Database,
        _ zstd: ZstdDecompressor
    ) throws -> [FrameOfBlock] {
        let statement = try db.cachedStatement(
            sql: "SELECT id, data FROM blocks WHERE bucket = ?1 AND start_ms <= ?3 AND end_ms >= ?2 ORDER BY id")
        let rows = try Row.fetchCursor(statement, arguments: [bucket, fromMs, throughMs])
        var out: [FrameOfBlock] = []
        while let row = try rows.next() {
            let id: Int64 = row[0]
            // SQLite's own bytes: of a block of hundreds of series most are of no interest.
            try row.withUnsafeData(atIndex: 1) { data in
                try data?.withUnsafeBytes { bytes in
                    for number in wanted {
                        guard let content = try BlockFrame.read(number, of: bytes, with: zstd) else { continue }
                        out.append(FrameOfBlock(generation: id >> 32, frame: number, content: content))
                    }
                }
            }
        }
        return out
    }

    /// The same of a few series: only blocks that were not read lately are.
    private static func frames(
        _ bucket: Int, _ wanted: Set<Int>, _ fromMs: Int64, _ throughMs: Int64, _ db: GRDB.Database,
        _ cache: ReadCache, _ epoch: Int, _ zstd: ZstdDecompressor
    ) throws -> [FrameOfBlock] {
        let statement = try db.cachedStatement(
            sql: "SELECT id FROM blocks WHERE bucket = ?1 AND start_ms <= ?3 AND end_ms >= ?2 ORDER BY id")
        let data = try db.cachedStatement(sql: "SELECT data FROM blocks WHERE id = ?")
        let ids = try Int64.fetchAll(statement, arguments: [bucket, fromMs, throughMs])
        var out: [FrameOfBlock] = []
        for id in ids {
            let keys = wanted.map { ReadCache.FrameKey(generation: id >> 32, bucket: bucket, frame: $0) }
            var contents = keys.map { cache.frame($0, epoch: epoch) }
            if contents.contains(where: { $0 == nil }), let row = try Row.fetchOne(data, arguments: [id]) {
                try row.withUnsafeData(atIndex: 0) { data in
                    try data?.withUnsafeBytes { bytes in
                        for place in keys.indices where contents[place] == nil {
                            let content = try BlockFrame.read(keys[place].frame, of: bytes, with: zstd)
                            cache.add(content, keys[place], epoch: epoch)
                            contents[place] = .some(content)
                        }
                    }
                }
            }
            for (key, content) in zip(keys, contents) {
                guard let content = content ?? nil else { continue }
                out.append(FrameOfBlock(generation: key.generation, frame: key.frame, content: content))
            }
        }
        return out
    }

    /// The ids in the table `times` of the rows that slots have.
    private static func timesIDs(of blocks: [FrameOfBlock], _ slots: [Int]) -> Set<Int64> {
        var wanted: Set<Int64> = []
        for slot in slots {
            for block in blocks where block.frame == slot >> BlockCodec.frameBits {
                guard let number = block.content.entry(slot: slot)?.times else { continue }
                wanted.insert(Schema.id(generation: block.generation, number))
            }
        }
        return wanted
    }

    private static func times(_ id: Int64, _ db: GRDB.Database) throws -> [Int64] {
        let statement = try db.cachedStatement(sql: "SELECT data FROM times WHERE id = ?")
        guard let data = try Data.fetchOne(statement, arguments: [id]) else { throw BlockCodec.CorruptBlock() }
        return try TimesCodec.decode([UInt8](data))
    }

    /// The rows' times of slots, by their ids in the table `times`.
    private static func times(
        of blocks: [FrameOfBlock], _ slots: [Int], _ db: GRDB.Database, _ cache: ReadCache, _ epoch: Int
    ) throws -> [Int64: [Int64]] {
        var found: [Int64: [Int64]] = [:]
        for id in timesIDs(of: blocks, slots) {
            if let known = cache.times(id, epoch: epoch) {
                found[id] = known
            } else {
                let rows = try times(id, db)
                cache.add(rows, id, epoch: epoch)
                found[id] = rows
            }
        }
        return found
    }

    // MARK: What is there

    package func labels(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [Labels] {
        let matchers = try asked(matchers)
        let (awake, sleeping) = state.withLock { state in
            let awake = state.index.select(matchers).compactMap { number -> Labels? in
                state.newest[Int(number)] >= fromMs ? state.index.labels(Int(number)) : nil
            }
            return (awake, state.index.sleepers(matchers, fromMs: fromMs))
        }
        return (awake + (try sleepers(sleeping, matchers, fromMs: fromMs).map(\.labels))).sorted()
    }

    package func metadata() throws -> [MetricMetadata] {
        state.withLock { $0.metadata.values.sorted { $0.name < $1.name } }
    }

    package func timeRange() throws -> ClosedRange<Int64>? {
        var ranges = state.withLock { state in
            state.allHeads.filter { $0.samples > 0 }.map { ($0.firstMs, $0.lastMs) }
        }
        do {
            let row = try database.read {
                try Row.fetchOne($0, sql: "SELECT min(start_ms) AS first, max(end_ms) AS last FROM generations")
            }
            if let row, let first: Int64 = row["first"], let last: Int64 = row["last"] { ranges.append((first, last)) }
        } catch {
            throw Store.error(error, path: path)
        }
        guard let first = ranges.map(\.0).min(), let last = ranges.map(\.1).max() else { return nil }
        return first...last
    }
}

extension Store.State {
    /// Copies the streams of series out of memory, where they may have samples of a time or newer.
    fileprivate func copyHeads(
        _ places: ArraySlice<Int>, _ members: [Store.Member], _ fromMs: Int64, _ parts: inout [Store.HeadPart],
        _ streams: inout [UInt8]
    ) {
        let memory = allHeads
        for place in places {
            // A series that is gone since it was selected has nothing.
            guard let number = index.number(members[place].id), newest[number] >= fromMs else { continue }
            for heads in memory {
                let head = heads.head(number)
                guard head.count > 0 else { continue }
                let start = streams.count
                heads.stream(head, into: &streams)
                parts.append(
                    .init(
                        member: place, shape: .init(head),
                        rows: head.hasOwnTimes ? [] : heads.times(of: Int(head.source)), start: start,
                        end: streams.count))
            }
        }
    }
}
