/// Reads fields of protocol buffers (protobuf.dev/programming-guides/encoding) without copying what lies between.
struct ProtobufReader {
    let bytes: UnsafeRawBufferPointer
    private var at: Int
    private let end: Int

    /// The kinds of fields.
    enum Wire: UInt8 {
        case varint = 0
        case fixed64 = 1
        case bytes = 2
        case fixed32 = 5
    }

    init(_ bytes: UnsafeRawBufferPointer) { self.init(bytes, 0..<bytes.count) }

    private init(_ bytes: UnsafeRawBufferPointer, _ range: Range<Int>) {
        self.bytes = bytes
        at = range.lowerBound
        end = range.upperBound
    }

    private static var damaged: RemoteError { RemoteError(.malformed, "the body is not the protocol's message") }

    /// The number and kind of the next field; nil at the end.
    mutating func next() throws(RemoteError) -> (number: UInt64, wire: Wire)? {
        guard at < end else { return nil }
        let tag = try varint()
        guard let wire = Wire(rawValue: UInt8(tag & 7)), tag >> 3 > 0 else { throw ProtobufReader.damaged }
        return (tag >> 3, wire)
    }

    mutating func varint() throws(RemoteError) -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while at < end, shift < 64 {
            let byte = bytes[at]
            at &+= 1
            value |= UInt64(byte & 0x7f) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
        throw ProtobufReader.damaged
    }

    mutating func double() throws(RemoteError) -> Double {
        guard end - at >= 8 else { throw ProtobufReader.damaged }
        defer { at += 8 }
        return Double(bitPattern: UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self)))
    }

    /// A message or string of its own.
    mutating func nested() throws(RemoteError) -> ProtobufReader {
        let length = try varint()
        guard length <= UInt64(end - at) else { throw ProtobufReader.damaged }
        defer { at += Int(length) }
        return ProtobufReader(bytes, at..<at + Int(length))
    }

    mutating func string() throws(RemoteError) -> String {
        let inner = try nested()
        return String(decoding: bytes[inner.at..<inner.end], as: UTF8.self)
    }

    /// Whole numbers, packed or one alone.
    mutating func numbers(_ wire: Wire, into list: inout [UInt64]) throws(RemoteError) {
        guard wire == .bytes else {
            list.append(try varint())
            return
        }
        var inner = try nested()
        while inner.at < inner.end { list.append(try inner.varint()) }
    }

    mutating func skip(_ wire: Wire) throws(RemoteError) {
        switch wire {
        case .varint: _ = try varint()
        case .fixed64, .fixed32:
            let size = wire == .fixed64 ? 8 : 4
            guard end - at >= size else { throw ProtobufReader.damaged }
            at += size
        case .bytes: _ = try nested()
        }
    }
}

/// Writes fields of protocol buffers.
struct ProtobufWriter {
    private(set) var bytes: [UInt8] = []

    mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    mutating func field(_ number: UInt64, _ value: UInt64) {
        varint(number << 3)
        varint(value)
    }

    mutating func field(_ number: UInt64, _ value: Double) {
        varint(number << 3 | 1)
        withUnsafeBytes(of: value.bitPattern.littleEndian) { bytes += $0 }
    }

    mutating func field(_ number: UInt64, _ value: String) {
        varint(number << 3 | 2)
        varint(UInt64(value.utf8.count))
        bytes += value.utf8
    }

    /// A message of a double (1) and a whole number (2), written without one of its own: there are millions of these.
    mutating func sample(_ number: UInt64, _ value: Double, _ timestamp: UInt64) {
        let length = 9 + 1 + max(1, (64 - timestamp.leadingZeroBitCount + 6) / 7)
        varint(number << 3 | 2)
        varint(UInt64(length))
        field(1, value)
        field(2, timestamp)
    }

    mutating func field(_ number: UInt64, _ body: (inout ProtobufWriter) -> Void) {
        var inner = ProtobufWriter()
        body(&inner)
        varint(number << 3 | 2)
        varint(UInt64(inner.bytes.count))
        bytes += inner.bytes
    }
}
