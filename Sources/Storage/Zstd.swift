import CZstd
import Synchronization

/// Compresses pieces of bytes, one after another, each as a zstd frame of its own.
final class ZstdCompressor {
    private let context = ZSTD_createCCtx()

    /// - Parameter hasChecksum: whether a flipped bit is found when a frame is read.
    init(level: Int32, hasChecksum: Bool = false) {
        precondition(context != nil, "zstd makes a context unless memory is at its end")
        ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)
        ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, hasChecksum ? 1 : 0)
    }

    deinit { ZSTD_freeCCtx(context) }

    func compress(_ plain: [UInt8]) -> [UInt8] {
        let bound = ZSTD_compressBound(plain.count)
        return [UInt8](unsafeUninitializedCapacity: bound) { buffer, length in
            let written = ZSTD_compress2(context, buffer.baseAddress, bound, plain, plain.count)
            precondition(ZSTD_isError(written) == 0, "zstd fails only where its buffer is too small, and it is not")
            length = written
        }
    }
}

/// Reads frames of zstd, one after another, with the same buffers: 150 KB of them, which a query of many frames would
/// otherwise ask for and give back each time.
final class ZstdDecompressor: @unchecked Sendable {
    // Whoever has it is its only user: hence unchecked.
    private let context = ZSTD_createDCtx()

    init() { precondition(context != nil, "zstd makes a context unless memory is at its end") }

    deinit { ZSTD_freeDCtx(context) }

    /// - Parameter most: a frame that says it holds more is damaged.
    func decompress(_ bytes: [UInt8], most: UInt64) throws(BlockCodec.CorruptBlock) -> [UInt8] {
        try bytes.withRawBytes { (bytes) throws(BlockCodec.CorruptBlock) in try decompress(bytes, most: most) }
    }

    func decompress(_ bytes: UnsafeRawBufferPointer, most: UInt64) throws(BlockCodec.CorruptBlock) -> [UInt8] {
        let size = ZSTD_getFrameContentSize(bytes.baseAddress, bytes.count)
        guard size <= most else { throw BlockCodec.CorruptBlock() }
        var written = 0
        let plain = [UInt8](unsafeUninitializedCapacity: Int(size)) { buffer, length in
            written = ZSTD_decompressDCtx(context, buffer.baseAddress, Int(size), bytes.baseAddress, bytes.count)
            length = ZSTD_isError(written) == 0 ? written : 0
        }
        guard written == Int(size) else { throw BlockCodec.CorruptBlock() }
        return plain
    }

    /// Those that nobody uses at the time.
    struct Pool: ~Copyable, Sendable {
        private let idle = Mutex<[ZstdDecompressor]>([])
        private static let most = 16

        func withOne<Result>(_ body: (ZstdDecompressor) throws -> Result) rethrows -> Result {
            let one = idle.withLock { $0.popLast() } ?? ZstdDecompressor()
            defer { idle.withLock { if $0.count < Pool.most { $0.append(one) } } }
            return try body(one)
        }
    }
}
