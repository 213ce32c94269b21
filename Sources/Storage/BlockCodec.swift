import Series

/// The bytes of one block: the samples of a bucket's series since the block before.
///
/// Layout in `docs/storage-format.md`: the series' streams as they were in memory, in frames of 64 slots, each frame
/// compressed by itself, so that a query of one series decompresses one frame.
package enum BlockCodec {
    /// A block, or a row of another table, that can't be read.
    package struct CorruptBlock: Error, Equatable {}

    static let frameBits = 6
    static let frameSlots = 1 << frameBits
    /// zstd's level: each higher one costs more than it saves (`docs/decisions/0011-rows-buckets-generations.md`).
    private static let level: Int32 = 3
    /// The most that a frame may say it holds: 64 series of 16 million samples with nothing in common.
    static let maxFrameBytes: UInt64 = 1 << 32

    /// Makes blocks, one after another, with the same buffers.
    final class Writer {
        private let compressor = ZstdCompressor(level: level, hasChecksum: true)
        private var entries: [UInt8] = []
        private var streams: [UInt8] = []
        private var frames: [[UInt8]] = []
        private var frame = 0
        private var lastSlot = -1
        private var entryCount = 0

        /// Adds a series; they come in the order of their slots.
        ///
        /// - Parameter times: the number of its source's row in the table `times`; of no meaning for a stream with times.
        func add(slot: Int, times: Int, _ head: Heads.Head, of heads: Heads) {
            while slot >> frameBits > frame { endFrame() }
            Varint.append(UInt64(slot - lastSlot - 1), to: &entries)
            Varint.append(head.hasOwnTimes ? 0 : UInt64(times) + 1, to: &entries)
            if !head.hasOwnTimes { Varint.append(UInt64(head.firstRow), to: &entries) }
            Varint.append(UInt64(head.count), to: &entries)
            let start = streams.count
            heads.stream(head, into: &streams)
            Varint.append(UInt64(streams.count - start), to: &entries)
            lastSlot = slot
            entryCount += 1
        }

        /// The block of what was added; the next one begins.
        func finish() -> [UInt8] {
            endFrame()
            var out: [UInt8] = []
            Varint.append(UInt64(frames.count), to: &out)
            for frame in frames { Varint.append(UInt64(frame.count), to: &out) }
            for frame in frames { out += frame }
            frames.removeAll()
            frame = 0
            lastSlot = -1
            return out
        }

        private func endFrame() {
            var plain: [UInt8] = []
            if entryCount > 0 {
                plain.reserveCapacity(entries.count + streams.count + 4)
                Varint.append(UInt64(entryCount), to: &plain)
                plain += entries
                plain += streams
            }
            frames.append(plain.isEmpty ? [] : compressor.compress(plain))
            entries.removeAll(keepingCapacity: true)
            streams.removeAll(keepingCapacity: true)
            entryCount = 0
            frame += 1
            lastSlot = frame << frameBits - 1
        }
    }

    /// The compressed bytes of a frame; empty where the block has no series of it.
    static func frame(_ number: Int, of block: UnsafeRawBufferPointer) throws(CorruptBlock) -> UnsafeRawBufferPointer {
        var cursor = ByteCursor(block)
        let frames = try cursor.count()
        var before: UInt64 = 0
        var own: UInt64 = 0
        for index in 0..<frames {
            let length = try cursor.varint()
            guard length <= UInt64(block.count) else { throw CorruptBlock() }
            if index < number { before += length }
            if index == number { own = length }
        }
        guard before + own <= UInt64(block.count - cursor.at) else { throw CorruptBlock() }
        let start = cursor.at + Int(before)
        return UnsafeRawBufferPointer(rebasing: block[start..<start + Int(own)])
    }
}

/// A frame of a block, decompressed.
package struct BlockFrame {
    /// Where the stream of one series is.
    struct Entry {
        var slot: Int
        /// The number of a row of the table `times`, in the block's generation; nil for a stream with its own times.
        var times: Int?
        var shape: StreamReader.Shape
        var start: Int
        var end: Int
    }

    /// By slot, ascending.
    private(set) var entries: [Entry] = []
    private let plain: [UInt8]

    /// The bytes that it takes.
    var size: Int { plain.count + entries.count * MemoryLayout<Entry>.stride }

    /// - Parameters:
    ///   - plain: the frame's bytes.
    ///   - frame: its number in the block.
    init(plain: [UInt8], frame: Int) throws(BlockCodec.CorruptBlock) {
        self.plain = plain
        entries = try plain.withRawBytes { (bytes) throws(BlockCodec.CorruptBlock) in
            try BlockFrame.entries(bytes, frame)
        }
    }

    /// A frame of a block; nil where the block has no series of it.
    static func read(
        _ number: Int, of block: UnsafeRawBufferPointer, with zstd: ZstdDecompressor
    ) throws(BlockCodec.CorruptBlock) -> BlockFrame? {
        let packed = try BlockCodec.frame(number, of: block)
        guard !packed.isEmpty else { return nil }
        return try BlockFrame(plain: try zstd.decompress(packed, most: BlockCodec.maxFrameBytes), frame: number)
    }

    private static func entries(
        _ bytes: UnsafeRawBufferPointer, _ frame: Int
    ) throws(BlockCodec.CorruptBlock) -> [Entry] {
        var cursor = ByteCursor(bytes)
        let count = try cursor.count(each: 4)
        guard count <= BlockCodec.frameSlots else { throw BlockCodec.CorruptBlock() }
        var entries: [Entry] = []
        entries.reserveCapacity(count)
        var slot = frame << BlockCodec.frameBits - 1
        var length = 0
        for _ in 0..<count {
            let step = try cursor.varint()
            let times = try cursor.varint()
            let firstRow = times == 0 ? 0 : try cursor.varint()
            let samples = try cursor.varint()
            let stream = try cursor.varint()
            guard step < UInt64(BlockCodec.frameSlots), stream <= UInt64(bytes.count),
                max(times, firstRow, samples) <= UInt64(UInt32.max)
            else { throw BlockCodec.CorruptBlock() }
            slot += Int(step) + 1
            guard slot < (frame + 1) << BlockCodec.frameBits else { throw BlockCodec.CorruptBlock() }
            entries.append(
                Entry(
                    slot: slot, times: times == 0 ? nil : Int(times) - 1,
                    shape: .init(hasOwnTimes: times == 0, firstRow: Int(firstRow), count: Int(samples)), start: length,
                    end: length + Int(stream)))
            length += Int(stream)
        }
        guard length == bytes.count - cursor.at else { throw BlockCodec.CorruptBlock() }
        for index in entries.indices {
            entries[index].start += cursor.at
            entries[index].end += cursor.at
        }
        return entries
    }

    func entry(slot: Int) -> Entry? {
        // Most frames are full: the slot is where it would be then.
        let place = min(slot & (BlockCodec.frameSlots - 1), entries.count - 1)
        guard place >= 0 else { return nil }
        if entries[place].slot == slot { return entries[place] }
        return entries.first { $0.slot == slot }
    }

    /// Appends the samples of a series to columns.
    func read(
        _ entry: Entry, rows: [Int64], fromMs: Int64, throughMs: Int64, into out: inout SampleColumns
    ) throws(BlockCodec.CorruptBlock) {
        try plain.withRawBytes { (bytes) throws(BlockCodec.CorruptBlock) in
            let stream = UnsafeRawBufferPointer(rebasing: bytes[entry.start..<entry.end])
            try StreamReader.read(
                ByteCursor(stream), entry.shape, rows: rows, fromMs: fromMs, throughMs: throughMs, into: &out)
        }
    }
}

/// The times of one source's rows in a block's generation.
///
/// A list of differences of differences as zigzag varints, where a zero is followed by how many more zeros there are:
/// a steady interval takes a few bytes, however long it lasts.
enum TimesCodec {
    static func encode(_ times: [Int64]) -> [UInt8] {
        var out: [UInt8] = []
        Varint.append(UInt64(times.count), to: &out)
        var last: Int64 = 0
        var lastDelta: Int64 = 0
        var zeros: UInt64 = 0
        func endZeros() {
            if zeros > 0 {
                Varint.append(0, to: &out)
                Varint.append(zeros - 1, to: &out)
            }
            zeros = 0
        }
        for time in times {
            let delta = time &- last
            let change = Varint.zigzag(delta &- lastDelta)
            if change == 0 {
                zeros += 1
            } else {
                endZeros()
                Varint.append(change, to: &out)
            }
            last = time
            lastDelta = delta
        }
        endZeros()
        return out
    }

    static func decode(_ bytes: [UInt8]) throws(BlockCodec.CorruptBlock) -> [Int64] {
        try bytes.withRawBytes { (bytes) throws(BlockCodec.CorruptBlock) in
            var cursor = ByteCursor(bytes)
            let count = try cursor.varint()
            // A generation ends long before that.
            guard count <= 1 << 24 else { throw BlockCodec.CorruptBlock() }
            var out: [Int64] = []
            out.reserveCapacity(Int(count))
            var last: Int64 = 0
            var lastDelta: Int64 = 0
            while out.count < count {
                let change = try cursor.varint()
                lastDelta = lastDelta &+ Varint.unzigzag(change)
                var times = change == 0 ? try cursor.varint() &+ 1 : 1
                guard times <= count - UInt64(out.count) else { throw BlockCodec.CorruptBlock() }
                while times > 0 {
                    let next = last.addingReportingOverflow(lastDelta)
                    guard !next.overflow, out.isEmpty || next.partialValue > last else {
                        throw BlockCodec.CorruptBlock()
                    }
                    last = next.partialValue
                    out.append(last)
                    times -= 1
                }
            }
            return out
        }
    }
}

/// When each slot of a bucket has its newest sample, as the table `newest` keeps it: how much older it is than the bucket's
/// newest, in milliseconds and plus one, as a varint; 0 for a slot without samples.
enum NewestCodec {
    static func encode(_ newest: [Int64], lastMs: Int64) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(newest.count)
        for ms in newest { Varint.append(ms == .min ? 0 : UInt64(bitPattern: lastMs &- ms) &+ 1, to: &out) }
        return out
    }

    static func decode(_ bytes: [UInt8], lastMs: Int64) throws(BlockCodec.CorruptBlock) -> [Int64] {
        try bytes.withRawBytes { (bytes) throws(BlockCodec.CorruptBlock) in
            var cursor = ByteCursor(bytes)
            var out: [Int64] = []
            while !cursor.isAtEnd {
                let age = try cursor.varint()
                out.append(age == 0 ? .min : lastMs &- Int64(bitPattern: age &- 1))
            }
            return out
        }
    }
}
