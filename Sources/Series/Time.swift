/// Durations and times as Prometheus writes them.
package enum TimeFormat {
    private static let units: [(suffix: String, ms: Int64)] = [
        ("y", 365 * 86_400_000), ("w", 7 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000),
        ("s", 1000), ("ms", 1),
    ]

    /// Milliseconds of a duration such as `1h30m`, nil where the text is none.
    ///
    /// The grammar is that of Prometheus' `model.ParseDuration`: whole numbers, each unit at most once, the larger
    /// ones first; `0` alone needs no unit.
    package static func durationMs(_ text: String) -> Int64? {
        if text == "0" { return 0 }
        var rest = Substring(text)
        var total: Int64 = 0
        var next = 0
        guard !rest.isEmpty else { return nil }
        while !rest.isEmpty {
            let digits = rest.prefix { $0.isASCII && $0.isNumber }
            guard let number = Int64(digits) else { return nil }
            rest = rest.dropFirst(digits.count)
            let suffix = rest.prefix { $0.isASCII && $0.isLetter }
            guard let index = units.indices.first(where: { $0 >= next && units[$0].suffix == suffix }) else {
                return nil
            }
            rest = rest.dropFirst(suffix.count)
            let (product, overflow) = number.multipliedReportingOverflow(by: units[index].ms)
            let (sum, overflow2) = total.addingReportingOverflow(product)
            guard !overflow, !overflow2 else { return nil }
            total = sum
            next = index + 1
        }
        return total <= longestMs ? total : nil
    }

    /// The longest duration that Prometheus' has, as Go's are: 292 years.
    package static let longestMs: Int64 = .max / 1_000_000

    /// A duration as Prometheus prints it, exact to the millisecond: `1h30m`, `15s`, `0s`.
    package static func duration(ms: Int64) -> String {
        if ms == 0 { return "0s" }
        var rest = ms.magnitude
        var out = ms < 0 ? "-" : ""
        for unit in units {
            let size = UInt64(unit.ms)
            // Years and weeks only where nothing remains, as Prometheus prints them.
            if unit.suffix == "y" || unit.suffix == "w", rest % size != 0 { continue }
            if rest / size > 0 {
                out += "\(rest / size)\(unit.suffix)"
                rest %= size
            }
        }
        return out
    }

    /// A time as RFC 3339 in UTC: `2026-11-23T16:58:00Z`, with milliseconds where there are any.
    package static func rfc3339(ms: Int64) -> String {
        let (days, dayMs) = floorDivide(ms, 86_400_000)
        let (year, month, day) = civil(fromDays: days)
        let seconds = dayMs / 1000
        let fraction = dayMs % 1000 == 0 ? "" : "." + pad(dayMs % 1000, 3)
        return "\(pad(year, 4))-\(pad(month, 2))-\(pad(day, 2))T\(pad(seconds / 3600, 2)):\(pad(seconds / 60 % 60, 2)):"
            + "\(pad(seconds % 60, 2))\(fraction)Z"
    }

    /// The clock's reading of a time, in UTC: `16:58:00`.
    package static func clock(ms: Int64) -> String {
        let seconds = floorDivide(ms, 86_400_000).1 / 1000
        return "\(pad(seconds / 3600, 2)):\(pad(seconds / 60 % 60, 2)):\(pad(seconds % 60, 2))"
    }

    /// Milliseconds since the epoch of an RFC 3339 time, nil where the text is none.
    ///
    /// Digits beyond the millisecond are cut off.
    package static func milliseconds(rfc3339 text: some StringProtocol) -> Int64? {
        let bytes = Array(text.utf8)
        func number(_ range: Range<Int>) -> Int64? {
            guard range.upperBound <= bytes.count else { return nil }
            var value: Int64 = 0
            for byte in bytes[range] {
                guard byte >= 48, byte <= 57 else { return nil }
                value = value * 10 + Int64(byte - 48)
            }
            return value
        }
        guard bytes.count >= 20, bytes[4] == UInt8(ascii: "-"), bytes[7] == UInt8(ascii: "-"),
            bytes[10] == UInt8(ascii: "T") || bytes[10] == UInt8(ascii: "t") || bytes[10] == UInt8(ascii: " "),
            bytes[13] == UInt8(ascii: ":"), bytes[16] == UInt8(ascii: ":"),
            let year = number(0..<4), let month = number(5..<7), let day = number(8..<10), let hour = number(11..<13),
            let minute = number(14..<16), let second = number(17..<19),
            (1...12).contains(month), (1...31).contains(day), hour < 24, minute < 60, second <= 60
        else { return nil }
        var index = 19
        var fraction: Int64 = 0
        if bytes[index] == UInt8(ascii: ".") {
            index += 1
            var scale: Int64 = 100
            let start = index
            while index < bytes.count, bytes[index] >= 48, bytes[index] <= 57 {
                fraction += Int64(bytes[index] - 48) * scale
                scale /= 10
                index += 1
            }
            guard index > start else { return nil }
        }
        guard index < bytes.count else { return nil }
        var offset: Int64 = 0
        switch bytes[index] {
        case UInt8(ascii: "Z"), UInt8(ascii: "z"): guard index + 1 == bytes.count else { return nil }
        case UInt8(ascii: "+"), UInt8(ascii: "-"):
            guard bytes.count == index + 6, bytes[index + 3] == UInt8(ascii: ":"),
                let hours = number(index + 1..<index + 3), let minutes = number(index + 4..<index + 6)
            else { return nil }
            offset = (hours * 60 + minutes) * 60_000 * (bytes[index] == UInt8(ascii: "+") ? 1 : -1)
        default: return nil
        }
        let ms = ((hour * 60 + minute) * 60 + second) * 1000 + fraction
        return days(year: year, month: month, day: day) * 86_400_000 + ms - offset
    }

    /// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
    package static func days(year: Int64, month: Int64, day: Int64) -> Int64 {
        // A year that begins in March has its leap day last (H. Hinnant, "chrono-Compatible Low-Level Date
        // Algorithms", days_from_civil).
        let y = month <= 2 ? year - 1 : year
        let (era, yearOfEra) = floorDivide(y, 400)
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    /// The date of a day counted from 1970-01-01.
    package static func civil(fromDays days: Int64) -> (year: Int64, month: Int64, day: Int64) {
        let (era, dayOfEra) = floorDivide(days + 719_468, 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        let month = shifted < 10 ? shifted + 3 : shifted - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * shifted + 2) / 5 + 1)
    }

    private static func floorDivide(_ value: Int64, _ by: Int64) -> (Int64, Int64) {
        let truncated = value / by
        let quotient = value % by < 0 ? truncated - 1 : truncated
        return (quotient, value &- quotient &* by)
    }

    private static func pad(_ value: Int64, _ width: Int) -> String {
        let text = String(value)
        return String(repeating: "0", count: max(0, width - text.count)) + text
    }
}

/// Tells what time it is: the wall clock in a service, a clock that the data moves in a replay and in tests.
package protocol TimeSource: Sendable {
    /// Milliseconds since the Unix epoch.
    var nowMs: Int64 { get }

    /// Returns when that time has come.
    /// - Throws: `CancellationError` where the task was cancelled before.
    func sleep(untilMs: Int64) async throws
}
