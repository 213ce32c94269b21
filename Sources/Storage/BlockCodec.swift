import Series

/// The bytes of one block: the samples of one series over a stretch of time.
///
/// Layout in `docs/storage-format.md`. Times are written as differences of differences, which are near zero for a
/// steady scrape interval; values as differences of whole numbers where all of them are whole, else as the exclusive
/// or with the value before, without its zero bytes at either end (after Pelkonen et al., "Gorilla", VLDB 2015, in
/// whole bytes).
package enum BlockCodec {
    private static let wholeValues: UInt8 = 1
    private static let xorValues: UInt8 = 2

    /// A block that can't be read.
    package struct CorruptBlock: Error, Equatable {}

    /// Encodes columns of the same length; timestamps may be any.
    package static func encode(timestampsMs: ArraySlice<Int64>, values: ArraySlice<Double>) -> [UInt8] {
        precondition(timestampsMs.count == values.count, "each sample has a time and a value")
        var out: [UInt8] = []
        out.reserveCapacity(values.count * 3 + 8)
        let whole = values.allSatisfy { isWhole($0) }
        out.append(whole ? wholeValues : xorValues)
        Varint.append(UInt64(values.count), to: &out)
        var last: Int64 = 0
        var lastDelta: Int64 = 0
        for timestampMs in timestampsMs {
            let delta = timestampMs &- last
            Varint.append(Varint.zigzag(delta &- lastDelta), to: &out)
            last = timestampMs
            lastDelta = delta
        }
        if whole {
            var last: Int64 = 0
            for value in values {
                let number = Int64(value)
                Varint.append(Varint.zigzag(number - last), to: &out)
                last = number
            }
        } else {
            var last: UInt64 = 0
            for value in values {
                appendXOR(value.bitPattern ^ last, to: &out)
                last = value.bitPattern
            }
        }
        return out
    }

    /// Appends the samples of a block to columns.
    package static func decode(
        _ bytes: [UInt8], timestampsMs: inout [Int64], values: inout [Double]
    ) throws(CorruptBlock) {
        try bytes.withUnsafeBufferPointer { (buffer) throws(CorruptBlock) in
            try decode(UnsafeRawBufferPointer(buffer), timestampsMs: &timestampsMs, values: &values)
        }
    }

    /// Appends the samples of a block to columns.
    package static func decode(
        _ bytes: UnsafeRawBufferPointer, timestampsMs: inout [Int64], values: inout [Double]
    ) throws(CorruptBlock) {
        guard let kind = bytes.first, kind == wholeValues || kind == xorValues else { throw CorruptBlock() }
        var reader = BlockReader(bytes: bytes, at: 1)
        let count = try reader.varint()
        // A sample takes at least two bytes: a larger count is a lie that must not reserve memory.
        guard count <= UInt64(bytes.count) else { throw CorruptBlock() }
        timestampsMs.reserveCapacity(timestampsMs.count + Int(count))
        values.reserveCapacity(values.count + Int(count))
        var last: Int64 = 0
        var lastDelta: Int64 = 0
        for _ in 0..<count {
            lastDelta = lastDelta &+ Varint.unzigzag(try reader.varint())
            last = last &+ lastDelta
            timestampsMs.append(last)
        }
        if kind == wholeValues {
            var number: Int64 = 0
            for _ in 0..<count {
                number = number &+ Varint.unzigzag(try reader.varint())
                values.append(Double(number))
            }
        } else {
            var bits: UInt64 = 0
            for _ in 0..<count {
                bits ^= try reader.xor()
                values.append(Double(bitPattern: bits))
            }
        }
        guard reader.at == bytes.count else { throw CorruptBlock() }
    }

    private static func isWhole(_ value: Double) -> Bool {
        // Minus zero is not the whole number zero: its bits would be lost.
        abs(value) < 9_007_199_254_740_992 && value.rounded(.towardZero) == value
            && !(value == 0 && value.sign == .minus)
    }

    /// A byte that holds the number of zero bytes after (high half) and of bytes written (low half), then those.
    private static func appendXOR(_ bits: UInt64, to out: inout [UInt8]) {
        guard bits != 0 else {
            out.append(0)
            return
        }
        let trailing = bits.trailingZeroBitCount / 8
        let length = 8 - bits.leadingZeroBitCount / 8 - trailing
        out.append(UInt8(trailing << 4 | length))
        var rest = bits >> UInt64(trailing * 8)
        for _ in 0..<length {
            out.append(UInt8(truncatingIfNeeded: rest))
            rest >>= 8
        }
    }
}

/// Goes through the bytes of a block.
private struct BlockReader {
    let bytes: UnsafeRawBufferPointer
    var at: Int

    @inline(__always)
    mutating func varint() throws(BlockCodec.CorruptBlock) -> UInt64 {
        guard at < bytes.count else { throw BlockCodec.CorruptBlock() }
        let byte = bytes[at]
        at &+= 1
        // Most differences fit into seven bits.
        return byte < 0x80 ? UInt64(byte) : try longVarint(UInt64(byte & 0x7f))
    }

    private mutating func longVarint(_ low: UInt64) throws(BlockCodec.CorruptBlock) -> UInt64 {
        var value = low
        var shift: UInt64 = 7
        while at < bytes.count, shift < 64 {
            let byte = bytes[at]
            at &+= 1
            value |= UInt64(byte & 0x7f) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
        throw BlockCodec.CorruptBlock()
    }

    @inline(__always)
    mutating func xor() throws(BlockCodec.CorruptBlock) -> UInt64 {
        guard at < bytes.count else { throw BlockCodec.CorruptBlock() }
        let trailing = Int(bytes[at] >> 4)
        let length = Int(bytes[at] & 15)
        at &+= 1
        guard length + trailing <= 8, at &+ length <= bytes.count else { throw BlockCodec.CorruptBlock() }
        var bits: UInt64 = 0
        for index in 0..<length { bits |= UInt64(bytes[at &+ index]) << UInt64(index &* 8) }
        at &+= length
        return trailing == 8 ? 0 : bits << UInt64(trailing &* 8)
    }
}

/// Whole numbers in as few bytes as they need: seven bits a byte, the lowest first (LEB128).
enum Varint {
    static func append(_ value: UInt64, to out: inout [UInt8]) {
        var rest = value
        while rest >= 0x80 {
            out.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        out.append(UInt8(rest))
    }

    static func read(_ bytes: [UInt8], _ at: inout Int) throws(BlockCodec.CorruptBlock) -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while at < bytes.count, shift < 64 {
            let byte = bytes[at]
            at += 1
            value |= UInt64(byte & 0x7f) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
        throw BlockCodec.CorruptBlock()
    }

    static func zigzag(_ value: Int64) -> UInt64 { UInt64(bitPattern: (value << 1) ^ (value >> 63)) }
    static func unzigzag(_ value: UInt64) -> Int64 { Int64(bitPattern: value >> 1) ^ -Int64(bitPattern: value & 1) }
}
