import Foundation
import Series

/// How the lines of a log are written.
package enum LogFormat: String, Sendable, CaseIterable {
    /// `I1123 16:17:57.863688    1488 file.go:251] message`, text or structured.
    case klog
    /// An object a line: Kubernetes' `--logging-format=json`, zap's of etcd.
    case json
    /// `time="…" level=info msg="…"`: containerd.
    case logfmt
    /// Events of the API server's audit log, an object a line.
    case audit
}

/// How bad a line says that things are.
package enum LogSeverity: String, Sendable, CaseIterable {
    case info, warning, error, fatal, unknown
}

/// What every line tells besides its text.
package struct LogLineHead: Sendable, Equatable {
    /// Milliseconds since the epoch; nil for a line without a time, such as the rest of a stack trace.
    package var timestampMs: Int64?
    package var severity: LogSeverity

    /// Reads the head of a line, also of one that a container's runtime wrote down (``CRILine``), whose time is taken then.
    ///
    /// - Parameters:
    ///   - nearMs: a time near the line's: klog writes no year, and the one that brings the line closest to this time is
    ///     taken.
    ///   - timeZone: that of the machine on which klog wrote, which writes local time; nil: UTC.
    package init(
        _ line: UnsafeRawBufferPointer, format: LogFormat, nearMs: Int64, timeZone: TimeZone? = nil
    ) {
        if let cri = CRILine(line) {
            let head = LogLineHead(cri.message, format: format, nearMs: nearMs, timeZone: timeZone)
            self = LogLineHead(timestampMs: cri.timestampMs, severity: head.severity)
            return
        }
        switch format {
        case .klog:
            self = LogLineHead.klog(line, nearMs: nearMs)
            guard let timeZone, let localMs = timestampMs else { break }
            // The offset at a time that is off by the offset, then at the time itself.
            let about = localMs - LogLineHead.offsetMs(timeZone, atMs: localMs)
            timestampMs = localMs - LogLineHead.offsetMs(timeZone, atMs: about)
        case .json: self = LogLineHead.json(line)
        case .logfmt: self = LogLineHead.logfmt(line)
        case .audit:
            timestampMs = LogLineHead.value(of: "\"requestReceivedTimestamp\":\"", in: line)
                .flatMap { TimeFormat.milliseconds(rfc3339: $0) }
            severity = .info
        }
    }

    private init(timestampMs: Int64?, severity: LogSeverity) {
        self.timestampMs = timestampMs
        self.severity = severity
    }

    private static func offsetMs(_ timeZone: TimeZone, atMs: Int64) -> Int64 {
        Int64(timeZone.secondsFromGMT(for: Date(timeIntervalSince1970: Double(atMs) / 1000))) * 1000
    }

    private static func klog(_ line: UnsafeRawBufferPointer, nearMs: Int64) -> LogLineHead {
        let none = LogLineHead(timestampMs: nil, severity: .unknown)
        guard line.count >= 21, line[5] == UInt8(ascii: " "), line[8] == UInt8(ascii: ":"),
            line[11] == UInt8(ascii: ":"), line[14] == UInt8(ascii: ".")
        else { return none }
        let severity: LogSeverity
        switch line[0] {
        case UInt8(ascii: "I"): severity = .info
        case UInt8(ascii: "W"): severity = .warning
        case UInt8(ascii: "E"): severity = .error
        case UInt8(ascii: "F"): severity = .fatal
        default: return none
        }
        func number(_ range: Range<Int>) -> Int64? {
            var value: Int64 = 0
            for byte in line[range] {
                guard byte >= 48, byte <= 57 else { return nil }
                value = value * 10 + Int64(byte - 48)
            }
            return value
        }
        guard let month = number(1..<3), let day = number(3..<5), let hour = number(6..<8), let minute = number(9..<11),
            let second = number(12..<14), let micro = number(15..<21), (1...12).contains(month)
        else { return none }
        let inDay = ((hour * 60 + minute) * 60 + second) * 1000 + micro / 1000
        let year = TimeFormat.civil(fromDays: nearMs / 86_400_000).year
        let candidates = [year - 1, year, year + 1].map {
            TimeFormat.days(year: $0, month: month, day: day) * 86_400_000 + inDay
        }
        return LogLineHead(
            timestampMs: candidates.min { abs($0 - nearMs) < abs($1 - nearMs) }, severity: severity)
    }

    private static func json(_ line: UnsafeRawBufferPointer) -> LogLineHead {
        var timestampMs: Int64?
        if let text = value(of: "\"ts\":\"", in: line) ?? value(of: "\"time\":\"", in: line) {
            timestampMs = TimeFormat.milliseconds(rfc3339: text)
        } else if let text = value(of: "\"ts\":", in: line, until: ","), let number = Double(text),
            abs(number) < 1e15
        {
            // Kubernetes writes milliseconds (component-base/logs/json), zap's default is seconds.
            timestampMs = Int64(number > 1e11 ? number : number * 1000)
        }
        if let level = value(of: "\"level\":\"", in: line) {
            return LogLineHead(timestampMs: timestampMs, severity: LogLineHead.severity(level))
        }
        // Kubernetes' JSON has no level: an error has the key `err`, information its verbosity `v`.
        let hasVerbosity = value(of: "\"v\":", in: line, until: ",") != nil
        return LogLineHead(timestampMs: timestampMs, severity: hasVerbosity ? .info : .error)
    }

    private static func logfmt(_ line: UnsafeRawBufferPointer) -> LogLineHead {
        let timestampMs = (value(of: "time=\"", in: line) ?? value(of: "ts=", in: line, until: " "))
            .flatMap { TimeFormat.milliseconds(rfc3339: $0) }
        return LogLineHead(
            timestampMs: timestampMs,
            severity: value(of: "level=", in: line, until: " ").map(severity) ?? .unknown)
    }

    private static func severity(_ word: String) -> LogSeverity {
        switch word.lowercased() {
        case "trace", "debug", "info", "notice": .info
        case "warn", "warning": .warning
        case "error", "dpanic": .error
        case "fatal", "panic": .fatal
        default: .unknown
        }
    }

    /// What stands between a key, as written, and the next `until`.
    private static func value(
        of key: StaticString, in line: UnsafeRawBufferPointer, until terminator: Character = "\""
    ) -> String? {
        guard let start = end(of: key, in: line) else { return nil }
        let stop = terminator.asciiValue ?? 0
        let value = line[start...].prefix { $0 != stop && $0 != UInt8(ascii: "}") }
        return String(decoding: value, as: UTF8.self)
    }

    /// The offset after the first place where the key stands.
    private static func end(of key: StaticString, in line: UnsafeRawBufferPointer) -> Int? {
        let length = key.utf8CodeUnitCount
        guard let base = line.baseAddress else { return nil }
        var at = 0
        while at + length <= line.count,
            let found = memchr(base + at, Int32(key.utf8Start[0]), line.count - at - length + 1)
        {
            let offset = UnsafeRawPointer(found) - base
            if memcmp(found, key.utf8Start, length) == 0 { return offset + length }
            at = offset + 1
        }
        return nil
    }
}
