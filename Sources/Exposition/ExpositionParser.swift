import Foundation
import Series

/// A bad line of an exposition.
package struct ExpositionError: Error, Equatable, CustomStringConvertible {
    /// Counted from 1.
    package var line: Int
    /// In bytes, counted from 1.
    package var column: Int
    package var reason: String
    /// The start of the line, shortened.
    package var text: String

    package var description: String { "line \(line), column \(column): \(reason): \(Labels.quoted(text))" }
}

/// The formats that a target may answer in.
package enum ExpositionFormat: Sendable {
    /// Prometheus text format 0.0.4.
    case prometheus
    /// OpenMetrics text format 1.0.0 (github.com/prometheus/OpenMetrics, specification/OpenMetrics.md).
    case openMetrics

    /// The format that a `Content-Type` header names; without a header it is the Prometheus text format.
    ///
    /// - Parameter fallback: what it is without a header, and for a type that is not an exposition, where it is not nil.
    /// - Returns: nil for a type that is not an exposition, such as `text/html`.
    package init?(contentType: String?, fallback: ExpositionFormat? = nil) {
        guard let contentType, !contentType.isEmpty else {
            self = fallback ?? .prometheus
            return
        }
        // By bytes: it is asked once a scrape.
        let type = contentType.utf8.prefix { $0 != UInt8(ascii: ";") && $0 != UInt8(ascii: " ") }
        func isType(_ known: StaticString) -> Bool {
            let bytes = UnsafeBufferPointer(start: known.utf8Start, count: known.utf8CodeUnitCount)
            return type.elementsEqual(bytes) { own, byte in
                let isUpper: Bool = own >= 65 && own <= 90
                return (isUpper ? own + 32 : own) == byte
            }
        }
        if isType("text/plain") {
            self = .prometheus
        } else if isType("application/openmetrics-text") {
            self = .openMetrics
        } else if let fallback {
            self = fallback
        } else {
            return nil
        }
    }
}

/// The samples of one exposition as columns that point into its bytes.
///
/// A series is kept as the range of bytes that names it (`name{labels}`), so that a caller who has seen those bytes
/// before need not read the labels again: ``ExpositionParser/labels(of:format:)`` reads them.
package struct Exposition: Sendable {
    /// Where each sample's series stands in the body: from `starts[i]` up to `ends[i]`; both may be 0 where the series is
    /// a predicted one.
    package var starts: [Int32] = []
    package var ends: [Int32] = []
    package var values: [Double] = []
    /// Milliseconds since the epoch; ``noTimestamp`` where the line has none.
    package var timestampsMs: [Int64] = []
    /// What comment lines say, of the families whose lines are not all as predicted.
    package var metadata: [MetricMetadata] = []
    /// Which of the predicted series each sample is; -1 for one that was not predicted.
    package var predicted: [Int32] = []
    /// Samples that a filter passed over: they are in no column.
    package var skipped = 0
    /// Whether the series are the predicted ones, all of them in their order.
    ///
    /// Then of the columns only ``values`` is filled, until ``fillColumns()``.
    package var isAsPredicted = false
    /// Whether any line has a timestamp.
    package var hasTimestamps = false
    /// Where each `HELP`, `TYPE` and `UNIT` line stands, without its line feed.
    package var comments: [ExpositionPrediction.Span] = []
    /// Whether the comments are the predicted ones, all of them in their order.
    package var hasPredictedComments = false

    package static let noTimestamp = Int64.min

    package init() {}

    package var count: Int { values.count }

    /// Fills the columns that a body without surprises does not need.
    package mutating func fillColumns() {
        let count = values.count - predicted.count
        predicted += (0..<Int32(truncatingIfNeeded: values.count)).suffix(count)
        starts += repeatElement(0, count: count)
        ends += repeatElement(0, count: count)
        timestampsMs += repeatElement(Exposition.noTimestamp, count: count)
    }
}

/// What the next exposition of a target will look like: as the one before, but for its values.
///
/// A line that is as predicted is confirmed by one comparison of memory, and not read.
package struct ExpositionPrediction {
    /// A piece of ``text``.
    package struct Span: BitwiseCopyable, Sendable, Hashable {
        package var start: Int32
        package var length: Int32

        package init(start: Int32, length: Int32) {
            self.start = start
            self.length = length
        }
    }

    package var text: UnsafeBufferPointer<UInt8>
    /// The series, in order.
    package var series: [Span]
    package var commentText: UnsafeBufferPointer<UInt8>
    /// The comments, in order: pieces of ``commentText``.
    package var comments: [Span]

    package init(
        text: UnsafeBufferPointer<UInt8>, series: [Span], commentText: UnsafeBufferPointer<UInt8>, comments: [Span]
    ) {
        self.text = text
        self.series = series
        self.commentText = commentText
        self.comments = comments
    }

    static var none: ExpositionPrediction {
        .init(text: .init(start: nil, count: 0), series: [], commentText: .init(start: nil, count: 0), comments: [])
    }
}

/// Reads the text formats of Prometheus and OpenMetrics from bytes, in one pass.
package struct ExpositionParser {
    private let bytes: UnsafeBufferPointer<UInt8>
    private let format: ExpositionFormat
    private var at = 0
    private var line = 1
    private var lineStart = 0
    private var out = Exposition()
    private var metadata: [String: Int] = [:]
    private let prediction: ExpositionPrediction
    /// The predicted series and comment that come next.
    private var nextSeries = 0
    private var nextComment = 0
    private let filter: MetricFilter?
    /// The name that was passed over last: the series of a metric stand together.
    private var skippedName = 0..<0
    /// The name in the last comment that was read.
    private var readFamily = 0..<0

    /// Reads an exposition.
    ///
    /// - Parameters:
    ///   - bytes: at most 2 GiB.
    ///   - prediction: what is expected; any other line is read as if there were none.
    ///   - filter: metrics that it does not keep are passed over by their names: nothing else of their lines is read, or
    ///     held to the format. A name that stands in braces is not asked for.
    /// - Throws: ``ExpositionError`` at the first bad line: like Prometheus, a scrape is taken whole or not at all.
    /// - Complexity: O(n); no allocation per sample but the growth of the columns.
    package static func parse(
        _ bytes: UnsafeBufferPointer<UInt8>, format: ExpositionFormat = .prometheus,
        prediction: ExpositionPrediction? = nil, filter: MetricFilter? = nil
    ) throws(ExpositionError) -> Exposition {
        guard bytes.count < Int(Int32.max) else {
            throw ExpositionError(line: 1, column: 1, reason: "the exposition is larger than 2 GiB", text: "")
        }
        var parser = ExpositionParser(bytes: bytes, format: format, prediction: prediction ?? .none, filter: filter)
        try parser.run()
        return parser.out
    }

    private init(
        bytes: UnsafeBufferPointer<UInt8>, format: ExpositionFormat, prediction: ExpositionPrediction,
        filter: MetricFilter?
    ) {
        self.bytes = bytes
        self.format = format
        self.prediction = prediction
        self.filter = filter
        out.values.reserveCapacity(
            prediction.series.isEmpty ? bytes.count / ExpositionParser.lineBytes + 16 : prediction.series.count + 1)
    }

    /// About what a line of an apiserver has.
    private static let lineBytes = 150

    private mutating func run() throws(ExpositionError) {
        var sawEnd = false
        out.isAsPredicted = true
        out.hasPredictedComments = true
        while at < bytes.count {
            lineStart = at
            if sawEnd { throw error("data after # EOF") }
            switch bytes[at] {
            case UInt8(ascii: "\n"):
                at += 1
            case UInt8(ascii: "#"):
                sawEnd = comment()
            default:
                if format == .prometheus { skipBlanks() }
                if at < bytes.count, bytes[at] == UInt8(ascii: "\n") {
                    at += 1
                } else if at < bytes.count, bytes[at] == UInt8(ascii: "\r"), at + 1 < bytes.count,
                    bytes[at + 1] == UInt8(ascii: "\n")
                {
                    at += 2
                } else if at < bytes.count {
                    try sample()
                }
            }
            line += 1
        }
        if format == .openMetrics, !sawEnd { throw error("the body does not end with # EOF") }
        if nextSeries != prediction.series.count { deviate() }
        out.hasPredictedComments = out.hasPredictedComments && nextComment == prediction.comments.count
    }

    /// Whether a piece of predicted text stands here.
    @inline(__always)
    private func stands(_ span: ExpositionPrediction.Span, of text: UnsafeBufferPointer<UInt8>) -> Bool {
        let length = Int(span.length)
        guard let here = bytes.baseAddress, let there = text.baseAddress, at + length < bytes.count else {
            return false
        }
        return memcmp(here + at, there + Int(span.start), length) == 0
    }

    /// Moves over the predicted series, where it stands here; its number, or -1.
    @inline(__always)
    private mutating func takePredicted() -> Int32 {
        guard nextSeries < prediction.series.count else { return -1 }
        let span = prediction.series[nextSeries]
        guard stands(span, of: prediction.text), isBlank(bytes[at + Int(span.length)]) else { return -1 }
        at += Int(span.length)
        nextSeries += 1
        return Int32(truncatingIfNeeded: nextSeries - 1)
    }

    /// From here on all columns are needed.
    private mutating func deviate() {
        guard out.isAsPredicted else { return }
        out.isAsPredicted = false
        let guess = max(bytes.count / ExpositionParser.lineBytes + 16, prediction.series.count + 1)
        out.predicted.reserveCapacity(guess)
        out.starts.reserveCapacity(guess)
        out.ends.reserveCapacity(guess)
        out.timestampsMs.reserveCapacity(guess)
        out.fillColumns()
    }

    /// Goes on behind a series that was found in another place than the predicted one.
    private mutating func findPredicted(_ start: Int, _ end: Int) -> Int32 {
        // Most often a series is new or gone: then the one after the next is the next.
        for ahead in 0..<8 where nextSeries + ahead < prediction.series.count {
            let span = prediction.series[nextSeries + ahead]
            guard Int(span.length) == end - start, let here = bytes.baseAddress,
                let there = prediction.text.baseAddress, memcmp(here + start, there + Int(span.start), end - start) == 0
            else { continue }
            nextSeries += ahead + 1
            return Int32(truncatingIfNeeded: nextSeries - 1)
        }
        return -1
    }

    // MARK: Samples

    private mutating func sample() throws(ExpositionError) {
        let start = at
        var predicted = takePredicted()
        if predicted < 0, let filter, skips(filter) { return }
        let end: Int
        if predicted >= 0 {
            end = at
        } else {
            try skipName()
            if at < bytes.count, bytes[at] == UInt8(ascii: "{") {
                try skipBraces()
                end = at
            } else {
                end = at
                if end == start { throw error("expected a metric name") }
            }
            guard at < bytes.count, isBlank(bytes[at]) else {
                throw error("expected a blank and a value after the series")
            }
            predicted = findPredicted(start, end)
            deviate()
        }
        skipBlanks()
        let value = try number()
        var timestampMs = Exposition.noTimestamp
        if at < bytes.count, isBlank(bytes[at]) {
            skipBlanks()
            if at < bytes.count, isNumberStart(bytes[at]) {
                timestampMs = try timestamp()
                out.hasTimestamps = true
                deviate()
            }
            skipBlanks()
        }
        // OpenMetrics: an exemplar may follow; it is not kept.
        if format == .openMetrics, at < bytes.count, bytes[at] == UInt8(ascii: "#") {
            skipLine()
        } else {
            try endLine()
        }
        out.values.append(value)
        guard !out.isAsPredicted else { return }
        out.starts.append(Int32(truncatingIfNeeded: start))
        out.ends.append(Int32(truncatingIfNeeded: end))
        out.timestampsMs.append(timestampMs)
        out.predicted.append(predicted)
    }

    /// Passes over a line whose metric is not wanted; where it is, nothing has moved.
    private mutating func skips(_ filter: MetricFilter) -> Bool {
        guard let base = bytes.baseAddress else { return false }
        let length = skippedName.count
        if length == 0 || at + length >= bytes.count || !endsName(bytes[at + length])
            || memcmp(base + at, base + skippedName.lowerBound, length) != 0
        {
            var end = at
            while end < bytes.count, !endsName(bytes[end]) { end += 1 }
            guard end > at, !filter.keeps(UnsafeBufferPointer(rebasing: bytes[at..<end])) else { return false }
            skippedName = at..<end
        }
        skipLine()
        out.skipped += 1
        return true
    }

    /// Passes over a `# HELP`, `# TYPE` or `# UNIT` line of a metric that is not wanted; where it is, nothing has moved.
    private mutating func skipsComment(_ filter: MetricFilter) -> Bool {
        let start = at + "# HELP ".utf8.count
        guard start < bytes.count, bytes[at + 1] == 32, bytes[start - 1] == 32 else { return false }
        var end = start
        while end < bytes.count, !endsName(bytes[end]) { end += 1 }
        guard end > start, !filter.keepsFamily(UnsafeBufferPointer(rebasing: bytes[start..<end])) else { return false }
        skipLine()
        return true
    }

    private func endsName(_ byte: UInt8) -> Bool { byte == UInt8(ascii: "{") || byte <= 32 }

    private mutating func skipName() throws(ExpositionError) {
        while at < bytes.count {
            let byte = bytes[at]
            let isLetter = (byte | 0x20) >= UInt8(ascii: "a") && (byte | 0x20) <= UInt8(ascii: "z")
            if isLetter || (byte >= 48 && byte <= 58) || byte == UInt8(ascii: "_") {
                if byte >= 48, byte <= 57, at == lineStart { throw error("a metric name cannot begin with a digit") }
                at += 1
            } else {
                return
            }
        }
    }

    /// Moves over `{…}`, minding quotes, and holds the labels to the grammar's outline; their text is read later.
    private mutating func skipBraces() throws(ExpositionError) {
        let open = at
        at += 1
        var quoted = false
        while at < bytes.count {
            let byte = bytes[at]
            if quoted {
                if byte == UInt8(ascii: "\\") { at += 1 } else if byte == UInt8(ascii: "\"") { quoted = false }
                if byte == UInt8(ascii: "\n") { break }
            } else if byte == UInt8(ascii: "\"") {
                quoted = true
            } else if byte == UInt8(ascii: "}") {
                at += 1
                return
            } else if byte == UInt8(ascii: "\n") {
                break
            }
            at += 1
        }
        at = open
        throw error(quoted ? "a label value has no closing quote" : "the label braces are not closed")
    }

    private mutating func number() throws(ExpositionError) -> Double {
        let start = at
        var end = at
        // Whole numbers of up to 15 digits, which are most.
        var whole: UInt64 = 0
        while end < bytes.count, end &- start < 15 {
            let digit = bytes[end] &- 48
            guard digit <= 9 else { break }
            whole = whole &* 10 &+ UInt64(digit)
            end &+= 1
        }
        if end > start, end < bytes.count, bytes[end] == 10 || bytes[end] == 32 {
            at = end
            return Double(whole)
        }
        end = start
        while end < bytes.count, !isBlank(bytes[end]), bytes[end] != UInt8(ascii: "\n"), bytes[end] != 13 { end += 1 }
        guard end > start else { throw error("expected a value") }
        guard let value = ExpositionNumber.parse(UnsafeBufferPointer(rebasing: bytes[start..<end])) else {
            throw error("not a number")
        }
        at = end
        return value
    }

    private mutating func timestamp() throws(ExpositionError) -> Int64 {
        let start = at
        let value = try number()
        let ms = format == .openMetrics ? value * 1000 : value
        guard ms.isFinite, abs(ms) < 9e15 else {
            at = start
            throw error("the timestamp is out of range")
        }
        return Int64(ms.rounded())
    }

    private mutating func endLine() throws(ExpositionError) {
        if at < bytes.count, bytes[at] == 13 { at += 1 }
        guard at >= bytes.count || bytes[at] == UInt8(ascii: "\n") else {
            throw error("expected the end of the line")
        }
        if at < bytes.count { at += 1 }
    }

    // MARK: Comments

    /// Reads a `# HELP`, `# TYPE` or `# UNIT` line, passes over any other; true for `# EOF`.
    private mutating func comment() -> Bool {
        let start = at
        if takePredictedComment() { return false }
        if let filter, skipsComment(filter) { return false }
        skipLine()
        var end = at
        if end > start, bytes[end - 1] == UInt8(ascii: "\n") { end -= 1 }
        if end > start, bytes[end - 1] == 13 { end -= 1 }
        let words = words(start..<end)
        guard words.count >= 2, words[0].count == 1 else { return false }
        let keyword = String(decoding: words[1], as: UTF8.self)
        if keyword == "EOF" { return format == .openMetrics && words.count == 2 }
        guard words.count >= 3, keyword == "HELP" || keyword == "TYPE" || keyword == "UNIT" else { return false }
        out.hasPredictedComments = false
        readFamily = words[2].startIndex..<words[2].endIndex
        // What was as predicted of the family counts as well, now that the rest differs.
        let name = ExpositionParser.unescape(words[2], quotes: true)
        if metadata[name] == nil {
            let known = out.comments.reversed().prefix { names(Int($0.start), readFamily) }
            for span in known.reversed() {
                describe(name, self.words(Int(span.start)..<Int(span.start + span.length)))
            }
        }
        describe(name, words)
        out.comments.append(
            .init(start: Int32(truncatingIfNeeded: start), length: Int32(truncatingIfNeeded: end - start)))
        return false
    }

    /// Moves over the predicted comment, where it stands here, or one of those behind it: families come and go.
    private mutating func takePredictedComment() -> Bool {
        for ahead in 0..<8 where nextComment + ahead < prediction.comments.count {
            let span = prediction.comments[nextComment + ahead]
            guard stands(span, of: prediction.commentText), bytes[at + Int(span.length)] == 10 else { continue }
            // Of a family all is read, or nothing.
            guard readFamily.isEmpty || !names(at, readFamily) else { return false }
            out.comments.append(.init(start: Int32(truncatingIfNeeded: at), length: span.length))
            if ahead > 0 { out.hasPredictedComments = false }
            nextComment += ahead + 1
            at += Int(span.length) + 1
            return true
        }
        return false
    }

    /// Whether the comment that begins there is of the family whose name stands at a place.
    private func names(_ start: Int, _ family: Range<Int>) -> Bool {
        let begin = start + "# HELP ".utf8.count
        guard let base = bytes.baseAddress, begin + family.count < bytes.count, bytes[begin + family.count] <= 32 else {
            return false
        }
        return memcmp(base + begin, base + family.lowerBound, family.count) == 0
    }

    private func words(_ range: Range<Int>) -> [Slice<UnsafeBufferPointer<UInt8>>] {
        bytes[range].split(separator: UInt8(ascii: " "), maxSplits: 3, omittingEmptySubsequences: false)
    }

    /// Notes what a comment's words say of a family.
    private mutating func describe(_ name: String, _ words: [Slice<UnsafeBufferPointer<UInt8>>]) {
        let text = words.count > 3 ? words[3] : words[2].suffix(0)
        let index = metadata[name] ?? out.metadata.count
        if index == out.metadata.count {
            metadata[name] = index
            out.metadata.append(MetricMetadata(name: name, type: "unknown", help: ""))
        }
        switch String(decoding: words[1], as: UTF8.self) {
        case "HELP": out.metadata[index].help = ExpositionParser.unescape(text, quotes: false)
        case "TYPE":
            let type = String(decoding: text, as: UTF8.self)
            out.metadata[index].type = type == "untyped" ? "unknown" : type
        default: out.metadata[index].unit = String(decoding: text, as: UTF8.self)
        }
    }

    /// FNV-1a over words (Fowler, Noll, Vo): names and label sets are long, and a byte at a time is slow.
    package static func hash(_ bytes: UnsafeBufferPointer<UInt8>) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        let raw = UnsafeRawBufferPointer(bytes)
        var at = 0
        while at + 8 <= raw.count {
            hash = (hash ^ raw.loadUnaligned(fromByteOffset: at, as: UInt64.self)) &* 0x100_0000_01b3
            hash ^= hash >> 29
            at += 8
        }
        while at < raw.count {
            hash = (hash ^ UInt64(raw[at])) &* 0x100_0000_01b3
            at += 1
        }
        return hash ^ (hash >> 29)
    }

    private mutating func skipLine() {
        guard let base = bytes.baseAddress else { return }
        let rest = bytes.count - at
        if let found = memchr(base + at, 10, rest) {
            at = UnsafeRawPointer(found) - UnsafeRawPointer(base) + 1
        } else {
            at = bytes.count
        }
    }

    private mutating func skipBlanks() {
        while at < bytes.count, isBlank(bytes[at]) { at += 1 }
    }

    private func isBlank(_ byte: UInt8) -> Bool { byte == 32 || byte == 9 }

    private func isNumberStart(_ byte: UInt8) -> Bool {
        (byte >= 48 && byte <= 57) || byte == UInt8(ascii: "-") || byte == UInt8(ascii: "+")
            || byte == UInt8(ascii: ".")
    }

    private func error(_ reason: String) -> ExpositionError {
        ExpositionParser.error(reason, bytes: bytes, line: line, lineStart: lineStart, at: at)
    }

    fileprivate static func error(
        _ reason: String, bytes: UnsafeBufferPointer<UInt8>, line: Int, lineStart: Int, at: Int
    ) -> ExpositionError {
        let shown = bytes[min(lineStart, bytes.count)...].prefix(80).prefix { $0 != UInt8(ascii: "\n") }
        return ExpositionError(
            line: line, column: at - lineStart + 1, reason: reason, text: String(decoding: shown, as: UTF8.self))
    }

    fileprivate static func unescape(_ text: some Collection<UInt8>, quotes: Bool) -> String {
        guard text.contains(UInt8(ascii: "\\")) else { return String(decoding: text, as: UTF8.self) }
        var out: [UInt8] = []
        var escaped = false
        for byte in text {
            if escaped {
                switch byte {
                case UInt8(ascii: "n"): out.append(10)
                case UInt8(ascii: "\\"): out.append(byte)
                case UInt8(ascii: "\"") where quotes: out.append(byte)
                default: out += [UInt8(ascii: "\\"), byte]
                }
                escaped = false
            } else if byte == UInt8(ascii: "\\") {
                escaped = true
            } else {
                out.append(byte)
            }
        }
        if escaped { out.append(UInt8(ascii: "\\")) }
        return String(decoding: out, as: UTF8.self)
    }
}

// MARK: Labels of one series

extension ExpositionParser {
    /// Reads the labels of a series from its text `name{label="value",…}` or `{"name",label="value"}`.
    ///
    /// - Throws: ``ExpositionError`` with line 1 and the column within the text.
    package static func labels(of bytes: UnsafeBufferPointer<UInt8>) throws(ExpositionError) -> Labels {
        var cursor = LabelCursor(bytes: bytes)
        return try cursor.read()
    }
}

private struct LabelCursor {
    let bytes: UnsafeBufferPointer<UInt8>
    var at = 0

    init(bytes: UnsafeBufferPointer<UInt8>) { self.bytes = bytes }

    mutating func read() throws(ExpositionError) -> Labels {
        var pairs: [Label] = []
        while at < bytes.count, bytes[at] != UInt8(ascii: "{") { at += 1 }
        if at > 0 {
            pairs.append(
                Label(Labels.metricName, String(decoding: UnsafeBufferPointer(rebasing: bytes[0..<at]), as: UTF8.self)))
        }
        if at < bytes.count {
            at += 1
            try readPairs(into: &pairs)
        }
        guard pairs.contains(where: { $0.name == Labels.metricName }) else {
            throw error("the series has no metric name")
        }
        var names = Set<String>()
        for label in pairs where !names.insert(label.name).inserted {
            throw error("the label \(Labels.quoted(label.name)) stands twice")
        }
        return Labels(pairs)
    }

    private mutating func readPairs(into pairs: inout [Label]) throws(ExpositionError) {
        while true {
            skipBlanks()
            guard at < bytes.count else { throw error("the label braces are not closed") }
            if bytes[at] == UInt8(ascii: "}") { return }
            let isQuoted = bytes[at] == UInt8(ascii: "\"")
            let name = isQuoted ? try quoted() : plainName()
            guard !name.isEmpty else { throw error("expected a label name") }
            skipBlanks()
            if at < bytes.count, bytes[at] == UInt8(ascii: "=") {
                at += 1
                skipBlanks()
                guard at < bytes.count, bytes[at] == UInt8(ascii: "\"") else {
                    throw error("expected a label value in double quotes")
                }
                pairs.append(Label(name, try quoted()))
            } else if isQuoted {
                pairs.append(Label(Labels.metricName, name))
            } else {
                throw error("expected = after the label name")
            }
            skipBlanks()
            guard at < bytes.count else { throw error("the label braces are not closed") }
            if bytes[at] == UInt8(ascii: ",") {
                at += 1
            } else if bytes[at] != UInt8(ascii: "}") {
                throw error("expected , or } after a label value")
            }
        }
    }

    private mutating func plainName() -> String {
        let start = at
        while at < bytes.count {
            let byte = bytes[at]
            let isLetter = (byte | 0x20) >= UInt8(ascii: "a") && (byte | 0x20) <= UInt8(ascii: "z")
            guard isLetter || byte == UInt8(ascii: "_") || (byte >= 48 && byte <= 57 && at > start) else { break }
            at += 1
        }
        return String(decoding: UnsafeBufferPointer(rebasing: bytes[start..<at]), as: UTF8.self)
    }

    private mutating func quoted() throws(ExpositionError) -> String {
        let start = at + 1
        at = start
        while at < bytes.count, bytes[at] != UInt8(ascii: "\"") {
            at += bytes[at] == UInt8(ascii: "\\") ? 2 : 1
        }
        guard at < bytes.count else { throw error("a label value has no closing quote") }
        let body = bytes[start..<at]
        at += 1
        return ExpositionParser.unescape(body, quotes: true)
    }

    private mutating func skipBlanks() {
        while at < bytes.count, bytes[at] == 32 || bytes[at] == 9 { at += 1 }
    }

    private func error(_ reason: String) -> ExpositionError {
        ExpositionParser.error(reason, bytes: bytes, line: 1, lineStart: 0, at: min(at, bytes.count))
    }
}
