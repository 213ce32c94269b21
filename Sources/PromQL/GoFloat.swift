import Foundation
import Series

/// Numbers as Go prints and reads them, and with it Prometheus.
package enum GoFloat {
    /// As OpenMetrics has numbers in labels: with a point or an exponent, `1.0` for one.
    static func openMetrics(_ value: Double) -> String {
        value.isFinite ? "\(value)" : text(value)
    }

    /// `%g` of Go's `fmt`: the shortest decimal, or so many digits; with an exponent below 1e-4 and from 1e6.
    static func general(_ value: Double, digits: Int? = nil) -> String {
        guard value.isFinite else { return text(value) }
        if let digits { return String(format: "%.\(digits)g", value) }
        let magnitude = abs(value)
        return value == 0 || magnitude >= 1e-4 && magnitude < 1e6 ? text(value) : exponential(value)
    }

    /// Go's `math.Max`: infinity where either is, else NaN where either is.
    @inline(__always)
    static func max(_ a: Double, _ b: Double) -> Double {
        if a == .infinity || b == .infinity { return .infinity }
        if a.isNaN || b.isNaN { return .nan }
        return a == 0 && b == 0 ? (a.sign == .minus ? b : a) : Swift.max(a, b)
    }

    /// Go's `math.Min`: negative infinity where either is, else NaN where either is.
    @inline(__always)
    static func min(_ a: Double, _ b: Double) -> Double {
        if a == -.infinity || b == -.infinity { return -.infinity }
        if a.isNaN || b.isNaN { return .nan }
        return a == 0 && b == 0 ? (a.sign == .minus ? a : b) : Swift.min(a, b)
    }

    /// Whether numbers differ by less than a part of their sum (github.com/prometheus/prometheus, `util/almost`).
    static func areAlmostEqual(_ a: Double, _ b: Double, _ tolerance: Double) -> Bool {
        if a.isNaN && b.isNaN || a == b { return true }
        let (difference, sum) = (abs(a - b), abs(a) + abs(b))
        if a == 0 || b == 0 || sum < .leastNormalMagnitude {
            return difference < tolerance * .leastNormalMagnitude
        }
        return difference / Swift.min(sum, .greatestFiniteMagnitude) < tolerance
    }

    /// `%f` of Go's `fmt`: six digits behind the point.
    static func fixed(_ value: Double) -> String {
        value.isFinite ? String(format: "%.6f", value) : text(value)
    }

    /// Go's `strconv.FormatFloat(value, 'e', -1, 64)`: `1e-07`, `-2.5e+21`.
    package static func exponential(_ value: Double) -> String {
        guard value.isFinite else { return text(value) }
        // All digits, without the zeros at both ends, and where the point is among them.
        let plain = text(abs(value))
        let whole = plain.prefix { $0 != "." }
        let all = plain.filter { $0 != "." }
        let leading = all.prefix { $0 == "0" }.count
        var digits = all.dropFirst(leading)
        while digits.last == "0" { digits.removeLast() }
        guard let first = digits.first else { return "\(value.sign == .minus ? "-" : "")0e+00" }
        let exponent = whole.count - 1 - leading
        let shown = exponent.magnitude < 10 ? "0\(exponent.magnitude)" : "\(exponent.magnitude)"
        return "\(value < 0 ? "-" : "")\(first)\(digits.count > 1 ? "." : "")\(digits.dropFirst())"
            + "e\(exponent < 0 ? "-" : "+")\(shown)"
    }

    /// Go's `strconv.FormatFloat(value, 'f', -1, 64)`: the shortest decimal that reads back the same, without an
    /// exponent; `+Inf`, `-Inf`, `NaN`.
    package static func text(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value > 0 ? "+Inf" : "-Inf" }
        let shortest = "\(value)"
        guard let e = shortest.firstIndex(of: "e") else {
            return shortest.hasSuffix(".0") ? String(shortest.dropLast(2)) : shortest
        }
        let exponent = Int(shortest[shortest.index(after: e)...]) ?? 0
        var mantissa = String(shortest[..<e])
        let sign = mantissa.hasPrefix("-") ? "-" : ""
        mantissa = mantissa.replacingOccurrences(of: "-", with: "")
        let parts = mantissa.split(separator: ".")
        var digits = parts.joined()
        var point = parts[0].count + exponent
        if parts.count == 2, parts[1] == "0" { digits = String(parts[0]) }
        if point <= 0 {
            digits = String(repeating: "0", count: 1 - point) + digits
            point = 1
        }
        if point >= digits.count { return sign + digits + String(repeating: "0", count: point - digits.count) }
        let split = digits.index(digits.startIndex, offsetBy: point)
        return sign + digits[..<split] + "." + digits[split...]
    }

    /// Why a text is no number.
    enum Failure: Error {
        case syntax
        case range

        /// As Go's `strconv` says it.
        func words(_ text: String) -> String {
            let why = self == .range ? "value out of range" : "invalid syntax"
            return "strconv.ParseFloat: parsing \(Labels.quoted(text)): \(why)"
        }
    }

    /// Go's `strconv.ParseFloat(text, 64)`: decimal or hexadecimal with a binary exponent, underscores between digits,
    /// `inf`, `infinity` and `nan` in any case.
    static func parse(_ text: String) throws(Failure) -> Double {
        var bytes = Array(text.utf8)[...]
        let sign = bytes.first == UInt8(ascii: "-") ? "-" : ""
        let isSigned = bytes.first == UInt8(ascii: "-") || bytes.first == UInt8(ascii: "+")
        if isSigned { bytes.removeFirst() }
        switch String(decoding: bytes, as: UTF8.self).lowercased() {
        case "inf", "infinity": return sign.isEmpty ? .infinity : -.infinity
        case "nan" where !isSigned: return .nan
        default: break
        }
        let isHexadecimal = bytes.count > 2 && bytes.starts(with: [48]) && bytes[bytes.startIndex + 1] | 0x20 == 120
        if isHexadecimal { bytes.removeFirst(2) }
        let isDigit = { (byte: UInt8) in
            (48...57).contains(byte) || isHexadecimal && (97...102).contains(byte | 0x20)
        }
        var out = isHexadecimal ? "0x" : ""
        /// Takes digits; an underscore stands between two of them, or behind the prefix.
        func takeDigits(_ isDigit: (UInt8) -> Bool, afterPrefix: Bool = false) throws(Failure) -> Int {
            var count = 0
            while let byte = bytes.first {
                if byte == UInt8(ascii: "_") {
                    guard count > 0 || afterPrefix, let next = bytes.dropFirst().first, isDigit(next) else {
                        throw .syntax
                    }
                } else if isDigit(byte) {
                    out.append(Character(UnicodeScalar(byte)))
                    count += 1
                } else {
                    break
                }
                bytes.removeFirst()
            }
            return count
        }
        var digits = try takeDigits(isDigit, afterPrefix: isHexadecimal)
        if bytes.first == UInt8(ascii: ".") {
            bytes.removeFirst()
            if digits == 0 { out.append("0") }
            out.append(".")
            let behind = try takeDigits(isDigit)
            if behind == 0 { out.append("0") }
            digits += behind
        }
        guard digits > 0 else { throw .syntax }
        let mark = UInt8(ascii: isHexadecimal ? "p" : "e")
        if let byte = bytes.first, byte | 0x20 == mark {
            bytes.removeFirst()
            out.append(Character(UnicodeScalar(mark)))
            if let byte = bytes.first, byte == UInt8(ascii: "-") || byte == UInt8(ascii: "+") {
                out.append(Character(UnicodeScalar(byte)))
                bytes.removeFirst()
            }
            guard try takeDigits({ (48...57).contains($0) }) > 0 else { throw .syntax }
        } else if isHexadecimal {
            throw .syntax
        }
        guard bytes.isEmpty, let value = Double(sign + out) else { throw .syntax }
        guard value.isFinite else { throw .range }
        return value
    }
}
