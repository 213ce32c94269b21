import PromQL

/// Points of Prometheus' JSON, `[time,"value"]`, in memory that has room for them: most of a long answer.
struct PointText {
    /// More than a point has, with the comma before it: a time, and a number between 1e-6 and 1e21 or with an exponent.
    private static let pointBytes = 96
    private static let pointsAtOnce = 64

    private let bytes: UnsafeMutableBufferPointer<UInt8>
    private var count = 0

    /// Appends points, parted by commas.
    static func append(_ timestampsMs: [Int64], _ values: [Double], to out: inout [UInt8]) {
        var place = 0
        while place < values.count {
            let end = min(values.count, place + pointsAtOnce)
            append(to: &out) { text in
                while place < end {
                    if place > 0 { text.add(",") }
                    text.add(timestampsMs[place], values[place])
                    place += 1
                }
            }
        }
    }

    static func append(_ timestampMs: Int64, _ value: Double, to out: inout [UInt8]) {
        append(to: &out) { $0.add(timestampMs, value) }
    }

    /// Seconds with milliseconds where there are any, as Prometheus writes times.
    static func append(time ms: Int64, to out: inout [UInt8]) { append(to: &out) { $0.add(time: ms) } }

    private static func append(to out: inout [UInt8], _ body: (inout PointText) -> Void) {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: pointsAtOnce * pointBytes) { bytes in
            var text = PointText(bytes: bytes)
            body(&text)
            out.append(contentsOf: UnsafeBufferPointer(rebasing: bytes[..<text.count]))
        }
    }

    private init(bytes: UnsafeMutableBufferPointer<UInt8>) { self.bytes = bytes }

    @inline(__always)
    private mutating func add(_ scalar: Unicode.Scalar) { add(byte: UInt8(ascii: scalar)) }

    @inline(__always)
    private mutating func add(byte: UInt8) {
        bytes[count] = byte
        count += 1
    }

    private mutating func add(_ timestampMs: Int64, _ value: Double) {
        add("[")
        add(time: timestampMs)
        add(",")
        add("\"")
        add(value)
        add("\"")
        add("]")
    }

    private mutating func add(time ms: Int64) {
        if ms < 0 { add("-") }
        let (seconds, rest) = ms.magnitude.quotientAndRemainder(dividingBy: 1000)
        add(seconds)
        guard rest > 0 else { return }
        add(".")
        add(byte: UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest / 100))
        addPair(rest % 100)
    }

    private mutating func add(_ value: Double) {
        let magnitude = abs(value)
        // Most values are whole numbers: what counters count.
        if magnitude < 1e15, value.rounded(.towardZero) == value, !(value == 0 && value.sign == .minus) {
            if value < 0 { add("-") }
            return add(UInt64(magnitude))
        }
        // Without an exponent but for the very small and the very large (`util/jsonutil`, `MarshalFloat`).
        let isPlain = magnitude >= 1e-6 && magnitude < 1e21 || value == 0 || !value.isFinite
        for byte in (isPlain ? GoFloat.text(value) : GoFloat.exponential(value)).utf8 { add(byte: byte) }
    }

    private mutating func add(_ value: UInt64) {
        var length = 1
        var bound: UInt64 = 10
        while length < 20, value >= bound {
            length += 1
            bound &*= 10
        }
        let end = count + length
        var at = end
        var rest = value
        while at - count >= 2 {
            at -= 2
            let pair = rest % 100
            rest /= 100
            bytes[at] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: pair / 10)
            bytes[at + 1] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: pair % 10)
        }
        if at > count { bytes[count] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest) }
        count = end
    }

    private mutating func addPair(_ value: UInt64) {
        add(byte: UInt8(ascii: "0") + UInt8(truncatingIfNeeded: value / 10))
        add(byte: UInt8(ascii: "0") + UInt8(truncatingIfNeeded: value % 10))
    }
}
