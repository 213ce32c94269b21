import Exposition
import Foundation
import Series
import Storage

/// Brings samples with times of their own into a store: another system's history, as the baseline.
///
/// Memory follows the number of series and the size of a piece of text, or of what is given at a time, not that of the
/// history.
package struct SeriesImport {
    /// What a text is written in; each sample has a time in both.
    package enum Format: Sendable {
        /// OpenMetrics 1.0, with times in seconds.
        case openMetrics
        /// What `promtool tsdb dump` prints, with times in milliseconds.
        case dump
    }

    /// What became of samples.
    package private(set) var result = AppendResult()
    private let store: Store
    /// Samples from later than this are refused: they would hold up those that come, and are in the wrong unit mostly.
    private let latestMs: Int64
    private var ids: [String: SeriesID] = [:]

    /// Text is read in pieces of so many bytes.
    package static let pieceBytes = 8 << 20
    private let mostInMemory: Int
    private let mostWaiting: Int
    private var waiting = 0

    /// - Parameters:
    ///   - mostInMemory: samples in memory at which they are moved into blocks.
    ///   - mostWaiting: samples that wait for a flush at most: the store takes 256 MB of them.
    package init(into store: Store, nowMs: Int64, mostInMemory: Int = 4_000_000, mostWaiting: Int = 1_000_000) {
        self.store = store
        self.mostInMemory = mostInMemory
        self.mostWaiting = mostWaiting
        latestMs = nowMs + 3_600_000
    }

    /// A line that can't be imported.
    package struct BadLine: Error, CustomStringConvertible {
        package var description: String
    }

    /// Takes in a text.
    ///
    /// - Parameters:
    ///   - file: what errors call it.
    ///   - next: the next bytes; empty at the end.
    /// - Throws: ``BadLine``, `StoreError`, and what `next` throws. Pieces before that of the bad line are in the store.
    package mutating func read(
        _ file: String, format: Format, next: () throws -> [UInt8]
    ) throws {
        var piece: [UInt8] = []
        var lines = 0
        var isAtEnd = false
        var hasEnded = format != .openMetrics
        while !isAtEnd {
            let more = try next()
            isAtEnd = more.isEmpty
            piece += more
            // A line that is cut off stays for the next piece.
            let end = isAtEnd ? piece.count : piece.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0
            guard end > 0 else {
                guard piece.count < 2 * SeriesImport.pieceBytes else {
                    throw BadLine(
                        description: "\(file):\(lines + 1): a line of more than \(piece.count) bytes is no sample")
                }
                continue
            }
            var text = Array(piece[..<end])
            piece.removeFirst(end)
            let own = text.count { $0 == UInt8(ascii: "\n") }
            if format == .openMetrics {
                // Each piece is read as if it were whole.
                hasEnded = SeriesImport.endsWithMark(text)
                if !hasEnded { text += Array("# EOF\n".utf8) }
            }
            if format == .dump { text = SeriesImport.withoutGoEscapes(text) }
            try take(text, format, file, lines)
            lines += own
            try makeRoom()
        }
        guard hasEnded else {
            throw BadLine(description: "\(file): does not end with # EOF: it is cut off, or no OpenMetrics text")
        }
    }

    private static func endsWithMark(_ text: [UInt8]) -> Bool {
        let trimmed = text.suffix(64).reversed().drop { $0 <= 32 }
        return trimmed.starts(with: "# EOF".utf8.reversed())
    }

    /// A dump with its labels as expositions have them: `promtool` prints them as Go's literals, where a tab is `\t`.
    private static func withoutGoEscapes(_ text: [UInt8]) -> [UInt8] {
        let slash = UInt8(ascii: "\\")
        guard text.contains(slash) else { return text }
        var out: [UInt8] = []
        out.reserveCapacity(text.count)
        var rest = text[...]
        while let at = rest.firstIndex(of: slash) {
            out += rest[..<at]
            rest = rest[at...]
            var length = 1
            if let (bytes, read) = try? GoEscape.read(rest.dropFirst(), quote: UInt8(ascii: "\"")) {
                length += read
                // An exposition has escapes of its own, for these three.
                switch bytes[0] {
                case UInt8(ascii: "\n"): out += "\\n".utf8
                case slash, UInt8(ascii: "\""): out += [slash, bytes[0]]
                default: out += bytes
                }
            } else {
                out.append(slash)
            }
            rest = rest.dropFirst(length)
        }
        return out + rest
    }

    private mutating func take(_ text: [UInt8], _ format: Format, _ file: String, _ lines: Int) throws {
        try text.withUnsafeBufferPointer { bytes in
            let exposition: Exposition
            do throws(ExpositionError) {
                exposition = try ExpositionParser.parse(
                    bytes, format: format == .openMetrics ? .openMetrics : .prometheus)
            } catch {
                throw BadLine(
                    description: "\(file):\(lines + error.line):\(error.column): \(error.reason): "
                        + Labels.quoted(error.text))
            }
            store.setMetadata(exposition.metadata)
            var batch = SampleBatch()
            for index in 0..<exposition.count {
                let span = Int(exposition.starts[index])..<Int(exposition.ends[index])
                let series = String(decoding: UnsafeBufferPointer(rebasing: bytes[span]), as: UTF8.self)
                let atMs = exposition.timestampsMs[index]
                func bad(_ reason: String) -> BadLine {
                    let line = lines + 1 + bytes[..<span.lowerBound].count { $0 == UInt8(ascii: "\n") }
                    return BadLine(description: "\(file):\(line): \(reason)")
                }
                guard atMs != Exposition.noTimestamp else {
                    throw bad("the sample of \(Labels.quoted(series)) has no time")
                }
                guard atMs <= latestMs else {
                    let unit = format == .openMetrics ? "seconds, as OpenMetrics has them" : "milliseconds"
                    throw bad(
                        "the sample of \(Labels.quoted(series)) is of \(TimeFormat.rfc3339(ms: atMs)), which is yet to "
                            + "come: times are in \(unit)")
                }
                let id: SeriesID
                do throws(ExpositionError) {
                    id = try self.id(series, UnsafeBufferPointer(rebasing: bytes[span]))
                } catch {
                    throw bad("\(error.reason): \(Labels.quoted(series))")
                }
                let value = exposition.values[index]
                // promtool prints the markers of ends of series as plain NaN.
                batch.append(id, timestampMs: atMs, value: format == .dump && value.isNaN ? staleMarker : value)
            }
            result += store.append(batch)
        }
    }

    private mutating func id(_ series: String, _ bytes: UnsafeBufferPointer<UInt8>) throws(ExpositionError) -> SeriesID
    {
        if let known = ids[series] { return known }
        let id = store.ids(for: [try ExpositionParser.labels(of: bytes)])[0]
        ids[series] = id
        return id
    }

    /// Takes in series as another source has them.
    ///
    /// - Throws: `StoreError`.
    package mutating func add(_ series: [SeriesSamples]) throws {
        for one in series {
            // Not all at once: with a checkpoint series may fall asleep, and have other numbers when they wake.
            let id = store.ids(for: [one.labels])[0]
            var batch = SampleBatch()
            for (atMs, value) in zip(one.timestampsMs, one.values) {
                batch.append(id, timestampMs: atMs, value: value)
            }
            result += store.append(batch)
            waiting += batch.count
            if waiting >= mostWaiting { try makeRoom() }
        }
        try makeRoom()
    }

    package func setMetadata(_ metadata: [MetricMetadata]) { store.setMetadata(metadata) }

    private mutating func makeRoom() throws {
        waiting = 0
        try store.flush()
        guard store.samplesOutsideBlocks > mostInMemory else { return }
        try store.checkpoint()
        ids.removeAll(keepingCapacity: true)
    }
}
