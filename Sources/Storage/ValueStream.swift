import Series

/// The values of one series as bytes, each as what it differs from the one before.
///
/// Layout in `docs/storage-format.md`. A stream begins at the whole number 0. Whole numbers and decimals are written as
/// differences of whole numbers, scaled by a power of ten; what is neither as the exclusive or with the bits before,
/// without its zero bytes at either end (after Pelkonen et al., "Gorilla", VLDB 2015, in whole bytes). Values that stay
/// are counted.
struct ValueState: BitwiseCopyable {
    /// The bits of the last value.
    var bits: UInt64 = 0
    /// The last whole number, before it was divided by the power of ten.
    var number: Int64 = 0
    /// The power of ten, or ``floats``.
    var mode: UInt8 = 0

    static let floats: UInt8 = 31
    /// The highest power of ten that is tried: nanoseconds.
    private static let maxPower: UInt8 = 9
    /// The most bytes that one value takes.
    static let maxBytes = 24
    /// 2^53: whole numbers below it are all doubles.
    private static let exact = 9_007_199_254_740_992.0

    // The two low bits of a token's first byte: a difference, or a control token of four kinds.
    static let repeats: UInt64 = 0
    static let gap: UInt64 = 1
    static let newMode: UInt64 = 2
    static let raw: UInt64 = 3

    static let powers:
        (
            Double, Double, Double, Double, Double, Double, Double, Double, Double, Double
        ) = (1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)

    static func power(_ exponent: UInt8) -> Double {
        switch exponent {
        case 0: powers.0
        case 1: powers.1
        case 2: powers.2
        case 3: powers.3
        case 4: powers.4
        case 5: powers.5
        case 6: powers.6
        case 7: powers.7
        case 8: powers.8
        default: powers.9
        }
    }

    /// The whole number that, divided by the power of ten, gives the value bit for bit.
    @inline(__always)
    private static func scaled(_ value: Double, _ exponent: UInt8) -> Int64? {
        let power = power(exponent)
        let number = (exponent == 0 ? value : value * power).rounded()
        guard abs(number) < exact else { return nil }
        // By way of the integer: minus zero is not the whole number zero.
        let whole = Int64(number)
        let back = exponent == 0 ? Double(whole) : Double(whole) / power
        return back.bitPattern == value.bitPattern ? whole : nil
    }

    /// Writes a value that differs from the last one.
    ///
    /// - Parameter out: room for ``maxBytes``.
    /// - Returns: how many bytes were written.
    mutating func write(_ new: UInt64, to out: UnsafeMutablePointer<UInt8>) -> Int {
        let value = Double(bitPattern: new)
        if mode != ValueState.floats {
            if let next = ValueState.scaled(value, mode) {
                let at = TokenBytes.difference(next &- number, to: out)
                number = next
                bits = new
                return at
            }
            if !value.isFinite { return writeRaw(new, to: out) }
            var exponent = mode + 1
            while exponent <= ValueState.maxPower {
                if let next = ValueState.scaled(value, exponent) {
                    var at = TokenBytes.control(ValueState.newMode, UInt64(exponent), to: out)
                    at += TokenBytes.difference(next, to: out + at)
                    (mode, number, bits) = (exponent, next, new)
                    return at
                }
                exponent += 1
            }
            mode = ValueState.floats
            let at = TokenBytes.control(ValueState.newMode, UInt64(ValueState.floats), to: out)
            return at + writeFloat(new, to: out + at)
        }
        return writeFloat(new, to: out)
    }

    private mutating func writeRaw(_ new: UInt64, to out: UnsafeMutablePointer<UInt8>) -> Int {
        let at = TokenBytes.control(ValueState.raw, 0, to: out)
        UnsafeMutableRawPointer(out + at).storeBytes(of: new.littleEndian, as: UInt64.self)
        bits = new
        return at + 8
    }

    private mutating func writeFloat(_ new: UInt64, to out: UnsafeMutablePointer<UInt8>) -> Int {
        let difference = new ^ bits
        bits = new
        let trailing = difference == 0 ? 0 : difference.trailingZeroBitCount / 8
        let length = difference == 0 ? 1 : 8 - difference.leadingZeroBitCount / 8 - trailing
        out[0] = UInt8(trailing << 4 | (length - 1) << 1)
        var rest = difference >> UInt64(trailing * 8)
        for index in 0..<length {
            out[1 + index] = UInt8(truncatingIfNeeded: rest)
            rest >>= 8
        }
        return 1 + length
    }

    /// What a token says.
    enum Token {
        case value
        /// The last value again, as often.
        case repeats(Int)
        /// As many rows without a value.
        case gap(Int)
    }

    /// Reads a token; where it is a value, the state holds it afterwards.
    @inline(__always)
    mutating func read(_ cursor: inout ByteCursor) throws(BlockCodec.CorruptBlock) -> Token {
        while true {
            let head = try cursor.varint()
            if head & 1 == 0 {
                if mode == ValueState.floats {
                    try readFloat(head >> 1, &cursor)
                } else {
                    number = number &+ Varint.unzigzag(head >> 1)
                    let value = Double(number)
                    bits = (mode == 0 ? value : value / ValueState.power(mode)).bitPattern
                }
                return .value
            }
            let argument = head >> 3
            switch (head >> 1) & 3 {
            case ValueState.repeats:
                guard argument < 1 << 32 else { throw BlockCodec.CorruptBlock() }
                return .repeats(Int(argument) + 1)
            case ValueState.gap:
                guard argument < 1 << 32 else { throw BlockCodec.CorruptBlock() }
                return .gap(Int(argument) + 1)
            case ValueState.newMode:
                guard argument <= ValueState.maxPower || argument == ValueState.floats else {
                    throw BlockCodec.CorruptBlock()
                }
                mode = UInt8(argument)
                number = 0
            default:
                bits = try cursor.fixed64()
                return .value
            }
        }
    }

    private mutating func readFloat(_ header: UInt64, _ cursor: inout ByteCursor) throws(BlockCodec.CorruptBlock) {
        let trailing = Int(header >> 3)
        let length = Int(header & 7) + 1
        guard trailing + length <= 8 else { throw BlockCodec.CorruptBlock() }
        bits ^= try cursor.little(length) << UInt64(trailing * 8)
    }
}

/// Writes the parts of tokens.
enum TokenBytes {
    @inline(__always)
    static func varint(_ value: UInt64, to out: UnsafeMutablePointer<UInt8>) -> Int {
        var rest = value
        var at = 0
        while rest >= 0x80 {
            out[at] = UInt8(truncatingIfNeeded: rest) | 0x80
            rest >>= 7
            at += 1
        }
        out[at] = UInt8(rest)
        return at + 1
    }

    /// A difference below 2^62 in size.
    @inline(__always)
    static func difference(_ value: Int64, to out: UnsafeMutablePointer<UInt8>) -> Int {
        varint(Varint.zigzag(value) << 1, to: out)
    }

    static func control(_ kind: UInt64, _ argument: UInt64, to out: UnsafeMutablePointer<UInt8>) -> Int {
        varint(argument << 3 | kind << 1 | 1, to: out)
    }
}

extension [UInt8] {
    /// `withUnsafeBytes(_:)`, with the error's type.
    func withRawBytes<Result>(
        _ body: (UnsafeRawBufferPointer) throws(BlockCodec.CorruptBlock) -> Result
    ) throws(BlockCodec.CorruptBlock) -> Result {
        try withUnsafeBufferPointer { (bytes) throws(BlockCodec.CorruptBlock) in
            try body(UnsafeRawBufferPointer(bytes))
        }
    }
}

/// Goes through bytes, and never beyond their end.
struct ByteCursor {
    let bytes: UnsafeRawBufferPointer
    var at = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var isAtEnd: Bool { at >= bytes.count }

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

    /// A count of things of which each takes a byte at least, or `each` bytes.
    mutating func count(each: Int = 1) throws(BlockCodec.CorruptBlock) -> Int {
        let value = try varint()
        guard value <= UInt64((bytes.count - at) / each) else { throw BlockCodec.CorruptBlock() }
        return Int(value)
    }

    mutating func fixed64() throws(BlockCodec.CorruptBlock) -> UInt64 {
        guard bytes.count - at >= 8 else { throw BlockCodec.CorruptBlock() }
        defer { at += 8 }
        return UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self))
    }

    /// So many bytes, the lowest first.
    mutating func little(_ length: Int) throws(BlockCodec.CorruptBlock) -> UInt64 {
        guard bytes.count - at >= length else { throw BlockCodec.CorruptBlock() }
        var value: UInt64 = 0
        for index in 0..<length { value |= UInt64(bytes[at &+ index]) << UInt64(index &* 8) }
        at &+= length
        return value
    }

    mutating func slice(_ length: Int) throws(BlockCodec.CorruptBlock) -> UnsafeRawBufferPointer {
        guard length >= 0, bytes.count - at >= length else { throw BlockCodec.CorruptBlock() }
        defer { at += length }
        return UnsafeRawBufferPointer(rebasing: bytes[at..<at + length])
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

    static func zigzag(_ value: Int64) -> UInt64 { UInt64(bitPattern: (value << 1) ^ (value >> 63)) }
    static func unzigzag(_ value: UInt64) -> Int64 { Int64(bitPattern: value >> 1) ^ -Int64(bitPattern: value & 1) }
}
