import CZstd
import Foundation

/// Reads a file compressed by zstd as a stream; a window of up to 27 bits is taken, as `zstd --long=27` makes it.
final class ZstdReader {
    private let path: String
    private let file: FileHandle
    private let stream: OpaquePointer
    private var input: [UInt8] = []
    private var inputAt = 0
    private var inputEnded = false
    private var frameEnded = true

    /// - Throws: ``RecordingError``.
    init(path: String) throws(RecordingError) {
        guard let file = FileHandle(forReadingAtPath: path) else {
            throw RecordingError(file: path, place: nil, reason: "can't be read")
        }
        guard let stream = ZSTD_createDStream() else {
            throw RecordingError(file: path, place: nil, reason: "zstd has no memory")
        }
        ZSTD_DCtx_setParameter(stream, ZSTD_d_windowLogMax, 27)
        self.path = path
        self.file = file
        self.stream = stream
    }

    deinit { ZSTD_freeDStream(stream) }

    /// Appends more content.
    ///
    /// - Returns: false at the end of the file.
    /// - Throws: ``RecordingError`` for a file that is not zstd's or is cut off.
    func read(into out: inout [UInt8]) throws(RecordingError) -> Bool {
        while true {
            if inputAt == input.count, !inputEnded {
                let data = (try? file.read(upToCount: 128 << 10)) ?? nil
                input = data.map { [UInt8]($0) } ?? []
                inputAt = 0
                inputEnded = input.isEmpty
            }
            if inputEnded {
                guard frameEnded else {
                    throw RecordingError(file: path, place: nil, reason: "the compressed data is cut off")
                }
                return false
            }
            let before = out.count
            let chunk = 256 << 10
            var failure: String?
            let produced = [UInt8](unsafeUninitializedCapacity: chunk) { buffer, length in
                var output = ZSTD_outBuffer(dst: buffer.baseAddress, size: chunk, pos: 0)
                input.withUnsafeBufferPointer { bytes in
                    var source = ZSTD_inBuffer(src: bytes.baseAddress, size: bytes.count, pos: inputAt)
                    let result = ZSTD_decompressStream(stream, &output, &source)
                    inputAt = source.pos
                    if ZSTD_isError(result) != 0 {
                        failure = String(cString: ZSTD_getErrorName(result))
                    } else {
                        frameEnded = result == 0
                    }
                }
                length = output.pos
            }
            if let failure {
                throw RecordingError(file: path, place: nil, reason: "can't be decompressed: \(failure)")
            }
            out.append(contentsOf: produced)
            if out.count > before { return true }
        }
    }
}

/// A stream with a look ahead: lines and stretches of a known length.
struct ContentCursor {
    private let reader: ZstdReader
    let path: String
    private var buffer: [UInt8] = []
    private var at = 0
    private var ended = false
    /// Bytes of the content that were taken.
    private(set) var offset = 0
    private(set) var line = 0

    init(path: String) throws(RecordingError) {
        self.path = path
        reader = try ZstdReader(path: path)
    }

    private mutating func fill(_ wanted: Int) throws(RecordingError) {
        if at > 1 << 20 {
            buffer.removeFirst(at)
            at = 0
        }
        while !ended, buffer.count - at < wanted { ended = try !reader.read(into: &buffer) }
    }

    /// The next line without its line break; nil at the end.
    ///
    /// A last line without a line break counts.
    mutating func nextLine() throws(RecordingError) -> [UInt8]? {
        var searched = 0
        while true {
            if let found = buffer[(at + searched)...].firstIndex(of: 10) {
                let line = Array(buffer[at..<found])
                offset += found + 1 - at
                at = found + 1
                self.line += 1
                return line
            }
            searched = buffer.count - at
            if ended {
                guard searched > 0 else { return nil }
                let line = Array(buffer[at...])
                offset += searched
                at = buffer.count
                self.line += 1
                return line
            }
            try fill(searched + 1)
        }
    }

    /// The next bytes; fewer than asked for at the end.
    mutating func take(_ count: Int) throws(RecordingError) -> [UInt8] {
        try fill(count)
        let end = min(buffer.count, at + count)
        let bytes = Array(buffer[at..<end])
        offset += bytes.count
        at = end
        return bytes
    }
}
