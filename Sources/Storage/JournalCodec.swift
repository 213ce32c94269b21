import CZstd
import Series

/// The bytes of one journal row: the samples of all series that came since the row before.
///
/// Columns of series numbers and times as varint differences and of values as their bits, compressed by zstd.
enum JournalCodec {
    static func encode(_ batch: SampleBatch) -> [UInt8] {
        var plain: [UInt8] = []
        plain.reserveCapacity(batch.count * 12 + 10)
        Varint.append(UInt64(batch.count), to: &plain)
        var last: Int64 = 0
        for id in batch.ids {
            Varint.append(Varint.zigzag(id.rawValue - last), to: &plain)
            last = id.rawValue
        }
        last = 0
        for timestampMs in batch.timestampsMs {
            Varint.append(Varint.zigzag(timestampMs &- last), to: &plain)
            last = timestampMs
        }
        for value in batch.values {
            withUnsafeBytes(of: value.bitPattern.littleEndian) { plain.append(contentsOf: $0) }
        }
        return compress(plain)
    }

    static func decode(_ bytes: [UInt8]) throws(BlockCodec.CorruptBlock) -> SampleBatch {
        let plain = try decompress(bytes)
        var at = 0
        let count = try Varint.read(plain, &at)
        guard count <= UInt64(plain.count / 8) else { throw BlockCodec.CorruptBlock() }
        var batch = SampleBatch()
        var last: Int64 = 0
        for _ in 0..<count {
            last = last &+ Varint.unzigzag(try Varint.read(plain, &at))
            batch.ids.append(SeriesID(rawValue: last))
        }
        last = 0
        for _ in 0..<count {
            last = last &+ Varint.unzigzag(try Varint.read(plain, &at))
            batch.timestampsMs.append(last)
        }
        guard plain.count - at == Int(count) * 8 else { throw BlockCodec.CorruptBlock() }
        for _ in 0..<count {
            var bits: UInt64 = 0
            for byte in 0..<8 { bits |= UInt64(plain[at + byte]) << UInt64(byte * 8) }
            batch.values.append(Double(bitPattern: bits))
            at += 8
        }
        return batch
    }

    private static func compress(_ plain: [UInt8]) -> [UInt8] {
        let bound = ZSTD_compressBound(plain.count)
        return [UInt8](unsafeUninitializedCapacity: bound) { buffer, length in
            let written = ZSTD_compress(buffer.baseAddress, bound, plain, plain.count, 1)
            precondition(ZSTD_isError(written) == 0, "zstd fails only where its buffer is too small, and it is not")
            length = written
        }
    }

    private static func decompress(_ bytes: [UInt8]) throws(BlockCodec.CorruptBlock) -> [UInt8] {
        let size = ZSTD_getFrameContentSize(bytes, bytes.count)
        // A flush holds at most what was appended in a second: a gigabyte is a damaged row.
        guard size < 1 << 30 else { throw BlockCodec.CorruptBlock() }
        var written = 0
        let plain = [UInt8](unsafeUninitializedCapacity: Int(size)) { buffer, length in
            written = ZSTD_decompress(buffer.baseAddress, Int(size), bytes, bytes.count)
            length = ZSTD_isError(written) == 0 ? written : 0
        }
        guard written == Int(size) else { throw BlockCodec.CorruptBlock() }
        return plain
    }
}
