import Cluster
import Foundation
import LogWatch
import Series

/// One thing that happened in a recording.
package enum RecordingEvent: Sendable {
    /// An answer to a scrape: the target's number, the HTTP status (0: no answer), the body.
    case scrape(target: Int, status: Int, body: [UInt8])
    /// A line of a log: the log's number, the line without its line break, and what its head says.
    case logLine(log: Int, line: [UInt8], severity: LogSeverity)
    /// A line of an `objects` file: its number.
    case object(file: Int, line: [UInt8])
}

/// Reads all files of a recording side by side and gives what happened in order of time.
///
/// A file that can't be read further is told in ``problems`` and left; the others go on.
package struct RecordingPlayer {
    package let manifest: RecordingManifest
    package private(set) var problems: [RecordingError] = []
    private var streams: [Stream]

    private struct Stream {
        enum Kind {
            case metrics(Int)
            case log(Int, LogFormat)
            case objects(Int)
        }
        let kind: Kind
        var cursor: ContentCursor
        /// The next event and its time; nil at the end.
        var next: (atMs: Int64, event: RecordingEvent)?
        var lastMs: Int64
    }

    /// Opens a recording.
    ///
    /// - Throws: ``RecordingError`` where the manifest can't be read; a single file that can't be is in ``problems``.
    package init(directory: String) throws(RecordingError) {
        manifest = try RecordingManifest.load(directory: directory)
        streams = []
        let files =
            manifest.targets.enumerated().map { ($1.file, Stream.Kind.metrics($0)) }
            + manifest.logs.enumerated().map { index, log in
                (log.file, Stream.Kind.log(index, LogFormat(rawValue: log.format) ?? .klog))
            }
            + manifest.objects.enumerated().map { ($1.file, Stream.Kind.objects($0)) }
        for log in manifest.logs where LogFormat(rawValue: log.format) == nil {
            problems.append(
                RecordingError(
                    file: directory + "/recording.json", place: nil,
                    reason: "\(log.file): unknown log format \"\(log.format)\"; known are klog, json, logfmt and audit")
            )
        }
        for (file, kind) in files {
            do throws(RecordingError) {
                var stream = Stream(
                    kind: kind, cursor: try ContentCursor(path: directory + "/" + file), next: nil,
                    lastMs: manifest.startMs)
                try advance(&stream)
                if stream.next != nil { streams.append(stream) }
            } catch {
                problems.append(error)
            }
        }
    }

    /// The next event in order of time; nil at the end of the recording.
    package mutating func next() -> (atMs: Int64, event: RecordingEvent)? {
        guard
            let index = streams.indices.min(by: { (streams[$0].next?.atMs ?? .max) < (streams[$1].next?.atMs ?? .max) }
            ),
            let event = streams[index].next
        else { return nil }
        do throws(RecordingError) {
            try advance(&streams[index])
        } catch {
            problems.append(error)
            streams[index].next = nil
        }
        if streams[index].next == nil { streams.remove(at: index) }
        return event
    }

    private func advance(_ stream: inout Stream) throws(RecordingError) {
        switch stream.kind {
        case .metrics(let target): stream.next = try frame(&stream, target)
        case .log(let log, let format): stream.next = try logLine(&stream, log, format)
        case .objects(let file): stream.next = try objectLine(&stream, file)
        }
        if let next = stream.next { stream.lastMs = next.atMs }
    }

    private func frame(_ stream: inout Stream, _ target: Int) throws(RecordingError) -> (Int64, RecordingEvent)? {
        let start = stream.cursor.offset
        guard let line = try stream.cursor.nextLine() else { return nil }
        let text = String(decoding: line.prefix(100), as: UTF8.self)
        let words = text.split(separator: " ")
        guard words.count == 5, words[0] == "#", words[1] == "scrape", let atMs = Int64(words[2]),
            let status = Int(words[3]), let size = Int(words[4]), size >= 0, size < 1 << 31
        else {
            throw RecordingError(
                file: stream.cursor.path, place: "byte \(start)",
                reason: "expected \"# scrape <unix ms> <status> <bytes>\", found \(Labels.quoted(text))")
        }
        let body = try stream.cursor.take(size)
        guard body.count == size else {
            throw RecordingError(
                file: stream.cursor.path, place: "byte \(start)",
                reason: "the frame is cut off: its header promises \(size) bytes, \(body.count) are there")
        }
        return (atMs, .scrape(target: target, status: status, body: body))
    }

    private func logLine(
        _ stream: inout Stream, _ log: Int, _ format: LogFormat
    ) throws(RecordingError) -> (Int64, RecordingEvent)? {
        guard let line = try stream.cursor.nextLine() else { return nil }
        let head = line.withUnsafeBytes { LogLineHead($0, format: format, nearMs: stream.lastMs) }
        // A line without a time, or one whose clock went back, belongs to the moment of the one before.
        let atMs = max(head.timestampMs ?? stream.lastMs, stream.lastMs)
        return (atMs, .logLine(log: log, line: line, severity: head.severity))
    }

    private struct Stamp: Decodable { var t: Int64 }

    private func objectLine(_ stream: inout Stream, _ file: Int) throws(RecordingError) -> (Int64, RecordingEvent)? {
        guard let line = try stream.cursor.nextLine() else { return nil }
        // The time comes first in every line: read it without parsing the object twice.
        let key = Array("{\"t\":".utf8)
        let digits = line.dropFirst(key.count).prefix { $0 >= 48 && $0 <= 57 }
        var atMs: Int64?
        if line.starts(with: key), !digits.isEmpty {
            atMs = Int64(String(decoding: digits, as: UTF8.self))
        } else {
            atMs = (try? JSONDecoder().decode(Stamp.self, from: Data(line)))?.t
        }
        guard let atMs else {
            throw RecordingError(
                file: stream.cursor.path, place: "line \(stream.cursor.line)",
                reason:
                    "expected an object with the field \"t\", found \(Labels.quoted(String(decoding: line.prefix(60), as: UTF8.self)))"
            )
        }
        return (max(atMs, stream.lastMs), .object(file: file, line: line))
    }
}
