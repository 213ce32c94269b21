import CZlib
import HTTPTypes
import Hummingbird

/// Sends answers compressed with gzip (RFC 1952) to those who can read it.
struct Compression: RouterMiddleware {
    typealias Context = BasicRequestContext

    /// Shorter answers are as long compressed.
    private static let leastBytes = 1400

    func handle(
        _ request: Request, context: BasicRequestContext,
        next: (Request, BasicRequestContext) async throws -> Response
    ) async throws -> Response {
        var response = try await next(request, context)
        if let length = response.body.contentLength, length < Compression.leastBytes { return response }
        response.headers[.vary] = (response.headers[.vary].map { $0 + ", " } ?? "") + "Accept-Encoding"
        guard response.headers[.contentEncoding] == nil,
            Compression.acceptsGzip(request.headers[values: .acceptEncoding]), request.method != .head
        else { return response }
        response.headers[.contentEncoding] = "gzip"
        response.headers[.contentLength] = nil
        let plain = response.body
        response.body = ResponseBody { writer in
            try await plain.write(GzipWriter(base: writer))
        }
        return response
    }

    /// Whether the fields name gzip, or all, with a weight that is not 0 (RFC 9110, section 12.5.3).
    static func acceptsGzip(_ fields: [String]) -> Bool {
        var any = false
        for part in fields.joined(separator: ",").split(separator: ",") {
            let words = part.split(separator: ";").map { $0.filter { !$0.isWhitespace }.lowercased() }
            let weight = words.dropFirst().first { $0.hasPrefix("q=") }.flatMap { Double($0.dropFirst(2)) } ?? 1
            switch words.first {
            case "gzip": return weight > 0
            case "*": any = weight > 0
            default: break
            }
        }
        return any
    }
}

/// Compresses what is written, bit by bit.
private struct GzipWriter: ResponseBodyWriter {
    var base: any ResponseBodyWriter
    private let stream: GzipStream

    init(base: any ResponseBodyWriter) throws {
        self.base = base
        stream = try GzipStream()
    }

    mutating func write(_ buffer: ByteBuffer) async throws {
        let compressed = try stream.add(buffer)
        if compressed.readableBytes > 0 { try await base.write(compressed) }
    }

    consuming func finish(_ trailingHeaders: HTTPFields?) async throws {
        let rest = try stream.finish()
        if rest.readableBytes > 0 { try await base.write(rest) }
        try await base.finish(trailingHeaders)
    }
}

/// One gzip stream of zlib's.
///
/// Used by one writer, which is used by one task at a time: hence unchecked.
private final class GzipStream: @unchecked Sendable {
    private var stream = z_stream()
    private static let chunk = 32 << 10

    init() throws {
        // 15 bits of window, and 16 for gzip's header; the fastest level, which is most of the gain.
        let code = deflateInit2_(
            &stream, Z_BEST_SPEED, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
            Int32(MemoryLayout<z_stream>.size))
        guard code == Z_OK else { throw HTTPError(.internalServerError, message: "zlib: \(code)") }
    }

    deinit { deflateEnd(&stream) }

    func add(_ buffer: ByteBuffer) throws -> ByteBuffer {
        try buffer.withUnsafeReadableBytes { try run($0, Z_NO_FLUSH) }
    }

    func finish() throws -> ByteBuffer { try run(UnsafeRawBufferPointer(start: nil, count: 0), Z_FINISH) }

    private func run(_ bytes: UnsafeRawBufferPointer, _ flush: Int32) throws -> ByteBuffer {
        var out = ByteBuffer()
        stream.next_in = UnsafeMutablePointer(mutating: bytes.bindMemory(to: UInt8.self).baseAddress)
        stream.avail_in = UInt32(bytes.count)
        var isFull = true
        while isFull {
            out.writeWithUnsafeMutableBytes(minimumWritableBytes: GzipStream.chunk) { room in
                stream.next_out = room.bindMemory(to: UInt8.self).baseAddress
                stream.avail_out = UInt32(room.count)
                deflate(&stream, flush)
                let written = room.count - Int(stream.avail_out)
                isFull = stream.avail_out == 0
                return written
            }
        }
        return out
    }
}
