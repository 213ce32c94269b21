import CSnappy

/// Snappy's block format, in which the remote protocols are compressed (github.com/google/snappy, `format_description.txt`).
package enum Snappy {
    /// - Parameter most: the largest size of the plain bytes that is taken.
    /// - Throws: ``RemoteError`` for bytes that are not of the format or too many.
    package static func decompress(_ bytes: [UInt8], most: Int) throws(RemoteError) -> [UInt8] {
        let length = bytes.withUnsafeBytes { input -> Int? in
            var length = 0
            let isKnown = snappy_uncompressed_length(characters(input), input.count, &length) == SNAPPY_OK
            return isKnown ? length : nil
        }
        guard let length else { throw RemoteError(.compression, "the body is not compressed by snappy (block format)") }
        guard length <= most else {
            throw RemoteError(.tooMuch, "the body has \(length) bytes, more than the \(most) that are taken")
        }
        let output = [UInt8](unsafeUninitializedCapacity: length) { buffer, count in
            var written = length
            let target = UnsafeMutableRawPointer(buffer.baseAddress)?.assumingMemoryBound(to: CChar.self)
            let status = bytes.withUnsafeBytes { snappy_uncompress(characters($0), $0.count, target, &written) }
            count = status == SNAPPY_OK ? written : 0
        }
        guard output.count == length else { throw RemoteError(.compression, "the body's compression is damaged") }
        return output
    }

    package static func compress(_ bytes: [UInt8]) -> [UInt8] {
        let most = snappy_max_compressed_length(bytes.count)
        return [UInt8](unsafeUninitializedCapacity: most) { buffer, count in
            var written = most
            let target = UnsafeMutableRawPointer(buffer.baseAddress)?.assumingMemoryBound(to: CChar.self)
            let status = bytes.withUnsafeBytes { snappy_compress(characters($0), $0.count, target, &written) }
            count = status == SNAPPY_OK ? written : 0
        }
    }

    private static func characters(_ bytes: UnsafeRawBufferPointer) -> UnsafePointer<CChar>? {
        bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
    }
}
