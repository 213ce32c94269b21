import Algorithms
import Series

/// The newest samples of all series, in memory, since the last checkpoint began.
///
/// Samples of one source at one time are a row: its time stands once, and a series only says which rows of its source
/// it has. A series whose samples come from several sources, or from none, keeps its times in its stream. Used under the
/// store's lock alone, as ``Slabs``.
final class Heads {
    /// What a series has here: its stream and the encoder's state.
    struct Head: BitwiseCopyable {
        var state = ValueState()
        /// Whether the stream holds a time before each value.
        var hasOwnTimes = false
        /// How often the last value was repeated since the stream's last token.
        var repeats: UInt16 = 0
        var chain = CellPool.Chain()
        var count: UInt32 = 0
        /// Whose rows the series has; of no meaning for a stream with times.
        var source: UInt32 = 0
        var firstRow: UInt32 = 0
        /// The last row; for a stream with times the last time's distance from the one before, zero where it does not
        /// fit.
        var lastRow: UInt32 = 0
    }

    /// The times of each source's samples, ascending.
    @exclusivity(unchecked) private var rows: [[Int64]] = []
    private let heads = Slabs(repeating: Head())
    private let pool = CellPool()
    private let scratch = UnsafeMutablePointer<UInt8>.allocate(capacity: ValueState.maxBytes + 16)
    @exclusivity(unchecked) private(set) var samples = 0
    /// The oldest and the newest sample; of no meaning where there is none.
    @exclusivity(unchecked) private(set) var firstMs = Int64.max
    @exclusivity(unchecked) private(set) var lastMs = Int64.min

    deinit { scratch.deallocate() }

    func head(_ series: Int) -> Head { series < heads.count ? heads[series] : Head() }

    func times(of source: Int) -> [Int64] { source < rows.count ? rows[source] : [] }

    /// What a value was encoded as: for the journal.
    enum Written {
        /// The value before, again.
        case same
        /// The bytes of a token; they are there until the next sample is appended.
        case token(UnsafeBufferPointer<UInt8>)
    }

    /// The row of a source at a time, which is made where that is newer than all others; nil where there is none.
    func row(of source: Int, atMs: Int64) -> UInt32? {
        while rows.count <= source { rows.append([]) }
        guard let last = rows[source].last, last >= atMs else {
            guard rows[source].count < Int(UInt32.max) else { return nil }
            rows[source].append(atMs)
            return UInt32(rows[source].count - 1)
        }
        if last == atMs { return UInt32(rows[source].count - 1) }
        let place = rows[source].partitioningIndex { $0 >= atMs }
        return rows[source][place] == atMs ? UInt32(place) : nil
    }

    /// Appends a sample of a row that is newer than all samples of its series.
    ///
    /// - Parameter lastMs: the time of the series' sample before; any where it has none here.
    @inline(__always)
    func append(
        _ series: Int, source: Int, row: UInt32, atMs: Int64, lastMs: Int64, bits: UInt64
    ) -> Written {
        let head = count(series, atMs)
        if head.pointee.count == 0 {
            head.pointee.source = UInt32(source)
        } else if head.pointee.source != UInt32(source), !head.pointee.hasOwnTimes {
            giveOwnTimes(head)
        }
        return head.pointee.hasOwnTimes
            ? appendTimed(head, atMs: atMs, lastMs: lastMs, bits) : appendRow(head, row, bits)
    }

    /// Appends a sample with a time of its own that is newer than all samples of its series.
    ///
    /// - Parameter lastMs: the time of the series' sample before; any where it has none here.
    func append(_ series: Int, atMs: Int64, lastMs: Int64, bits: UInt64) -> Written {
        let head = count(series, atMs)
        if !head.pointee.hasOwnTimes { giveOwnTimes(head) }
        return appendTimed(head, atMs: atMs, lastMs: lastMs, bits)
    }

    @inline(__always)
    private func count(_ series: Int, _ atMs: Int64) -> UnsafeMutablePointer<Head> {
        if series >= heads.count { heads.grow(to: series + 1) }
        samples += 1
        firstMs = min(firstMs, atMs)
        lastMs = max(lastMs, atMs)
        return heads.pointer(series)
    }

    @inline(__always)
    private func appendRow(_ head: UnsafeMutablePointer<Head>, _ row: UInt32, _ bits: UInt64) -> Written {
        if head.pointee.count == 0 {
            head.pointee.firstRow = row
        } else if row != head.pointee.lastRow &+ 1 {
            flushRepeats(head)
            let missing = UInt64(row - head.pointee.lastRow - 2)
            let length = TokenBytes.control(ValueState.gap, missing, to: scratch)
            pool.append(scratch, length, to: &head.pointee.chain)
        }
        head.pointee.lastRow = row
        head.pointee.count += 1
        if bits == head.pointee.state.bits {
            head.pointee.repeats += 1
            if head.pointee.repeats == .max { flushRepeats(head) }
            return .same
        }
        if head.pointee.repeats > 0 { flushRepeats(head) }
        return appendToken(head, bits)
    }

    private func appendTimed(
        _ head: UnsafeMutablePointer<Head>, atMs: Int64, lastMs: Int64, _ bits: UInt64
    ) -> Written {
        let isFirst = head.pointee.count == 0
        let delta = isFirst ? atMs : atMs &- lastMs
        let change = isFirst ? delta : delta &- Int64(Int32(bitPattern: head.pointee.lastRow))
        var length = TokenBytes.varint(Varint.zigzag(change), to: scratch)
        pool.append(scratch, length, to: &head.pointee.chain)
        head.pointee.lastRow = isFirst ? 0 : UInt32(bitPattern: Int32(exactly: delta) ?? 0)
        head.pointee.count += 1
        if bits == head.pointee.state.bits {
            length = TokenBytes.control(ValueState.repeats, 0, to: scratch)
            pool.append(scratch, length, to: &head.pointee.chain)
            return .same
        }
        return appendToken(head, bits)
    }

    @inline(__always)
    private func appendToken(_ head: UnsafeMutablePointer<Head>, _ bits: UInt64) -> Written {
        let length = head.pointee.state.write(bits, to: scratch)
        pool.append(scratch, length, to: &head.pointee.chain)
        return .token(UnsafeBufferPointer(start: scratch, count: length))
    }

    private func flushRepeats(_ head: UnsafeMutablePointer<Head>) {
        guard head.pointee.repeats > 0 else { return }
        let length = TokenBytes.control(ValueState.repeats, UInt64(head.pointee.repeats - 1), to: scratch)
        pool.append(scratch, length, to: &head.pointee.chain)
        head.pointee.repeats = 0
    }

    /// Writes a series' stream anew with a time before each value.
    private func giveOwnTimes(_ head: UnsafeMutablePointer<Head>) {
        var columns = SampleColumns()
        read(head.pointee, fromMs: .min, throughMs: .max, into: &columns)
        head.pointee = Head()
        head.pointee.hasOwnTimes = true
        var lastMs: Int64 = 0
        for (atMs, value) in zip(columns.timestampsMs, columns.values) {
            _ = appendTimed(head, atMs: atMs, lastMs: lastMs, value.bitPattern)
            lastMs = atMs
        }
    }

    /// Appends the samples of a series to columns.
    func read(_ head: Head, fromMs: Int64, throughMs: Int64, into out: inout SampleColumns) {
        guard head.count > 0 else { return }
        var bytes: [UInt8] = []
        stream(head, into: &bytes)
        do {
            try bytes.withRawBytes { (bytes) throws(BlockCodec.CorruptBlock) in
                try StreamReader.read(
                    ByteCursor(bytes), StreamReader.Shape(head), rows: times(of: Int(head.source)), fromMs: fromMs,
                    throughMs: throughMs, into: &out)
            }
        } catch {
            preconditionFailure("what was encoded in this memory can be decoded")
        }
    }

    /// Appends the whole stream of a series to an array.
    func stream(_ head: Head, into out: inout [UInt8]) {
        pool.read(head.chain, into: &out)
        if head.repeats > 0 { Varint.append(UInt64(head.repeats - 1) << 3 | ValueState.repeats << 1 | 1, to: &out) }
    }
}

/// Heads that nothing is appended to any more, until they are in blocks.
///
/// - Note: Sendable because nobody changes them: they are read by a checkpoint and by queries at once.
struct FrozenHeads: @unchecked Sendable {
    let heads: Heads
    let generation: Int64
}

/// Samples of one series as columns, the oldest first.
struct SampleColumns {
    var timestampsMs: [Int64] = []
    var values: [Double] = []

    mutating func removeAll() {
        timestampsMs.removeAll(keepingCapacity: true)
        values.removeAll(keepingCapacity: true)
    }

    /// Makes room for so many more.
    mutating func reserve(_ more: Int) {
        guard timestampsMs.capacity - timestampsMs.count < more else { return }
        // An array that is told a size takes just that: told again and again it would be copied each time.
        let wanted = max(timestampsMs.count + more, timestampsMs.capacity * 2)
        timestampsMs.reserveCapacity(wanted)
        values.reserveCapacity(wanted)
    }

    @inline(__always)
    mutating func append(_ timestampMs: Int64, _ value: Double) {
        timestampsMs.append(timestampMs)
        values.append(value)
    }

    mutating func append(_ times: ArraySlice<Int64>, _ value: Double) {
        timestampsMs.append(contentsOf: times)
        values.append(contentsOf: repeatElement(value, count: times.count))
    }

    /// Takes out what is not newer than the sample before, from a place on.
    ///
    /// Two parts of a series may have the same samples: what is moved into a block stays in memory until that is done.
    mutating func dropRepeated(from place: Int) {
        guard place > 0, place < timestampsMs.count, timestampsMs[place] <= timestampsMs[place - 1] else { return }
        let last = timestampsMs[place - 1]
        let end = timestampsMs[place...].firstIndex { $0 > last } ?? timestampsMs.count
        timestampsMs.removeSubrange(place..<end)
        values.removeSubrange(place..<end)
    }
}

/// Reads the stream of a series.
enum StreamReader {
    /// What must be known of a stream beside its bytes.
    struct Shape {
        var hasOwnTimes: Bool
        var firstRow: Int
        var count: Int

        init(hasOwnTimes: Bool, firstRow: Int, count: Int) {
            self.hasOwnTimes = hasOwnTimes
            self.firstRow = firstRow
            self.count = count
        }

        init(_ head: Heads.Head) {
            self.init(hasOwnTimes: head.hasOwnTimes, firstRow: Int(head.firstRow), count: Int(head.count))
        }
    }

    /// Appends the samples of a stream to columns.
    ///
    /// - Parameters:
    ///   - rows: the times of the source's rows; of no meaning for a stream with its own times.
    ///   - fromMs: older samples are left out.
    ///   - throughMs: newer samples are left out.
    static func read(
        _ start: ByteCursor, _ shape: Shape, rows: [Int64], fromMs: Int64 = .min, throughMs: Int64 = .max,
        into out: inout SampleColumns
    ) throws(BlockCodec.CorruptBlock) {
        if shape.hasOwnTimes { return try readTimed(start, shape.count, fromMs, throughMs, into: &out) }
        guard shape.firstRow >= 0, shape.count <= rows.count - shape.firstRow else { throw BlockCodec.CorruptBlock() }
        let low = fromMs == .min ? 0 : rows.partitioningIndex { $0 >= fromMs }
        let high = throughMs == .max ? rows.count : rows.partitioningIndex { $0 > throughMs }
        var cursor = start
        var state = ValueState()
        var row = shape.firstRow
        var left = shape.count
        out.reserve(min(left, max(0, high - low)))
        while left > 0, row < high {
            switch try state.read(&cursor) {
            case .value:
                guard row < rows.count else { throw BlockCodec.CorruptBlock() }
                if row >= low { out.append(rows[row], Double(bitPattern: state.bits)) }
                row &+= 1
                left &-= 1
            case .repeats(let count):
                guard count <= left, count <= rows.count - row else { throw BlockCodec.CorruptBlock() }
                let first = max(row, low)
                let end = min(row + count, high)
                if first < end { out.append(rows[first..<end], Double(bitPattern: state.bits)) }
                row &+= count
                left &-= count
            case .gap(let count):
                guard count < rows.count - row else { throw BlockCodec.CorruptBlock() }
                row &+= count
            }
        }
    }

    private static func readTimed(
        _ start: ByteCursor, _ count: Int, _ fromMs: Int64, _ throughMs: Int64, into out: inout SampleColumns
    ) throws(BlockCodec.CorruptBlock) {
        var cursor = start
        var state = ValueState()
        var lastMs: Int64 = 0
        var lastDelta: Int64 = 0
        for index in 0..<count {
            let change = Varint.unzigzag(try cursor.varint())
            let delta = index == 0 ? change : change &+ lastDelta
            lastMs = lastMs &+ delta
            lastDelta = index == 0 ? 0 : Int64(Int32(exactly: delta) ?? 0)
            switch try state.read(&cursor) {
            case .value, .repeats(1): break
            default: throw BlockCodec.CorruptBlock()
            }
            if lastMs > throughMs { return }
            if lastMs >= fromMs { out.append(lastMs, Double(bitPattern: state.bits)) }
        }
    }
}
