/// Escape sequences of Go's string literals (go.dev/ref/spec, "String literals"), in which PromQL and Prometheus' tools write
/// strings.
package enum GoEscape {
    package enum Failure: Error {
        /// The text ends within it.
        case cutOff
        /// No sequence begins with this byte.
        case unknown
        /// Digits are missing, or say more than a byte.
        case illegal
        /// A surrogate, or behind the last character of Unicode.
        case noCodePoint
    }

    /// Reads what stands after a backslash.
    ///
    /// - Parameters:
    ///   - text: begins with the byte after the backslash.
    ///   - quote: what the string stands in: it may be escaped, the other may not.
    /// - Returns: what it stands for, and how many bytes of `text` were read.
    package static func read(_ text: ArraySlice<UInt8>, quote: UInt8) throws(Failure) -> (bytes: [UInt8], length: Int) {
        guard let byte = text.first else { throw .cutOff }
        let (skipped, length, radix): (Int, Int, Int)
        switch byte {
        case UInt8(ascii: "a"): return ([7], 1)
        case UInt8(ascii: "b"): return ([8], 1)
        case UInt8(ascii: "f"): return ([12], 1)
        case UInt8(ascii: "n"): return ([10], 1)
        case UInt8(ascii: "r"): return ([13], 1)
        case UInt8(ascii: "t"): return ([9], 1)
        case UInt8(ascii: "v"): return ([11], 1)
        case UInt8(ascii: "\\"), quote: return ([byte], 1)
        case UInt8(ascii: "x"): (skipped, length, radix) = (1, 2, 16)
        case UInt8(ascii: "u"): (skipped, length, radix) = (1, 4, 16)
        case UInt8(ascii: "U"): (skipped, length, radix) = (1, 8, 16)
        case UInt8(ascii: "0")...UInt8(ascii: "7"): (skipped, length, radix) = (0, 3, 8)
        default: throw .unknown
        }
        var value: UInt32 = 0
        let digits = text.dropFirst(skipped).prefix(length)
        for digit in digits {
            guard let number = Character(Unicode.Scalar(digit)).hexDigitValue, number < radix else { throw .illegal }
            value = value << (radix == 16 ? 4 : 3) | UInt32(number)
        }
        guard digits.count == length else { throw .illegal }
        if length <= 3 {
            guard let byte = UInt8(exactly: value) else { throw .illegal }
            return ([byte], skipped + length)
        }
        guard let scalar = Unicode.Scalar(value) else { throw .noCodePoint }
        return (Array(String(Character(scalar)).utf8), skipped + length)
    }
}
