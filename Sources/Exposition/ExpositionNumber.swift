import Foundation

/// The numbers of the text formats.
package enum ExpositionNumber {
    /// 10^0 … 10^22: the powers of ten that a double holds exactly.
    private static let powers: [Double] = (0...22).map { pow(10, Double($0)) }

    /// Reads a number as Go's `strconv.ParseFloat` does for the text formats; nil where the text is none.
    ///
    /// A decimal with at most 15 digits and an exponent within 22 is one exact product or quotient of two doubles
    /// (Clinger 1990, "How to Read Floating Point Numbers Accurately", the fast path); anything else goes to `strtod`.
    package static func parse(_ text: UnsafeBufferPointer<UInt8>) -> Double? {
        var at = 0
        let end = text.count
        guard end > 0, end <= 512 else { return nil }
        let negative = text[0] == UInt8(ascii: "-")
        if negative || text[0] == UInt8(ascii: "+") { at = 1 }
        var mantissa: UInt64 = 0
        var digits = 0
        var exponent = 0
        let first = at
        while at < end, text[at] >= 48, text[at] <= 57 {
            if mantissa != 0 || text[at] != 48 { digits += 1 }
            if digits <= 18 { mantissa = mantissa &* 10 &+ UInt64(text[at] &- 48) }
            at += 1
        }
        var seen = at - first
        if at < end, text[at] == UInt8(ascii: ".") {
            at += 1
            let start = at
            while at < end, text[at] >= 48, text[at] <= 57 {
                if mantissa != 0 || text[at] != 48 { digits += 1 }
                if digits <= 18 { mantissa = mantissa &* 10 &+ UInt64(text[at] &- 48) }
                at += 1
            }
            exponent -= at - start
            seen += at - start
        }
        guard seen > 0 else { return special(text) }
        if at < end, text[at] | 0x20 == UInt8(ascii: "e") {
            at += 1
            let negativeExponent = at < end && text[at] == UInt8(ascii: "-")
            if at < end, negativeExponent || text[at] == UInt8(ascii: "+") { at += 1 }
            let start = at
            var value = 0
            while at < end, text[at] >= 48, text[at] <= 57 {
                if value < 10_000 { value = value * 10 + Int(text[at] &- 48) }
                at += 1
            }
            guard at > start else { return nil }
            exponent += negativeExponent ? -value : value
        }
        guard at == end else { return special(text) }
        if digits <= 15, exponent >= -22, exponent <= 22 {
            let value = exponent < 0 ? Double(mantissa) / powers[-exponent] : Double(mantissa) * powers[exponent]
            return negative ? -value : value
        }
        return slow(text)
    }

    private static func special(_ text: UnsafeBufferPointer<UInt8>) -> Double? {
        switch String(decoding: text, as: UTF8.self).lowercased() {
        case "nan", "+nan", "-nan": .nan
        case "inf", "+inf", "infinity", "+infinity": .infinity
        case "-inf", "-infinity": -.infinity
        case let hex where hex.contains("0x"): slow(text)
        default: nil
        }
    }

    /// The same by the C library, for what the fast path cannot do exactly.
    package static func slow(_ text: UnsafeBufferPointer<UInt8>) -> Double? {
        var copy = text.map { CChar(bitPattern: $0) }
        copy.append(0)
        return copy.withUnsafeBufferPointer { buffer -> Double? in
            guard let base = buffer.baseAddress else { return nil }
            var end: UnsafeMutablePointer<CChar>?
            let value = strtod(base, &end)
            return end.map { $0 - UnsafeMutablePointer(mutating: base) } == text.count ? value : nil
        }
    }
}
