import CZlib
import Series

/// The labels of a bucket's series as the table `buckets` keeps them: JSON, so that `sqlite3` reads them.
///
/// `{"same":{…},"series":[{…},…]}`: what all have in common stands once. Compressed as the `sqlite3` shell's
/// `sqlar_uncompress` has it (sqlite.org/sqlar.html): zlib, or plain where that is not shorter.
enum BucketLabels {
    static func encode(_ series: [Labels]) -> [UInt8] {
        var out: [UInt8] = []
        let same = (series.first?.pairs ?? []).filter { label in
            series.allSatisfy { $0[label.name] == label.value }
        }
        let common = Set(same.map(\.name))
        out += Array(#"{"same":"#.utf8)
        append(same, to: &out)
        out += Array(#","series":["#.utf8)
        for (index, labels) in series.enumerated() {
            if index > 0 { out.append(UInt8(ascii: ",")) }
            append(labels.pairs.filter { !common.contains($0.name) }, to: &out)
        }
        out += Array("]}".utf8)
        return out
    }

    private static func append(_ labels: [Label], to out: inout [UInt8]) {
        out.append(UInt8(ascii: "{"))
        for (index, label) in labels.enumerated() {
            if index > 0 { out.append(UInt8(ascii: ",")) }
            append(label.name, to: &out)
            out.append(UInt8(ascii: ":"))
            append(label.value, to: &out)
        }
        out.append(UInt8(ascii: "}"))
    }

    private static func append(_ text: String, to out: inout [UInt8]) {
        out.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"): out += [UInt8(ascii: "\\"), byte]
            case ..<0x20:
                let digits = Array("0123456789abcdef".utf8)
                out += Array("\\u00".utf8) + [digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            default: out.append(byte)
            }
        }
        out.append(UInt8(ascii: "\""))
    }

    /// The labels of each series; nil where the text is not what ``encode(_:)`` writes.
    static func decode(_ text: [UInt8]) -> [Labels]? {
        text.withUnsafeBufferPointer { bytes in
            var reader = Reader(bytes: bytes)
            return reader.read()
        }
    }

    private struct Reader {
        let bytes: UnsafeBufferPointer<UInt8>
        var at = 0

        init(bytes: UnsafeBufferPointer<UInt8>) { self.bytes = bytes }

        mutating func read() -> [Labels]? {
            var same: [Label] = []
            guard take(#"{"same":"#), object(into: &same), take(#","series":["#) else { return nil }
            var all: [Labels] = []
            if take("]}") { return at == bytes.count ? all : nil }
            var own: [Label] = []
            repeat {
                own.removeAll(keepingCapacity: true)
                guard object(into: &own) else { return nil }
                all.append(merged(same, own))
            } while take(",")
            return take("]}") && at == bytes.count ? all : nil
        }

        /// Two lists in the order of their names as one.
        private func merged(_ a: [Label], _ b: [Label]) -> Labels {
            var out: [Label] = []
            out.reserveCapacity(a.count + b.count)
            var left = 0
            var right = 0
            while left < a.count || right < b.count {
                if right == b.count || left < a.count && a[left].name < b[right].name {
                    out.append(a[left])
                    left += 1
                } else {
                    out.append(b[right])
                    right += 1
                }
            }
            return Labels(sorted: out)
        }

        private mutating func take(_ text: StaticString) -> Bool {
            let count = text.utf8CodeUnitCount
            guard bytes.count - at >= count else { return false }
            for index in 0..<count where bytes[at + index] != text.utf8Start[index] { return false }
            at += count
            return true
        }

        private mutating func object(into labels: inout [Label]) -> Bool {
            guard take("{") else { return false }
            if take("}") { return true }
            repeat {
                guard let name = string(), take(":"), let value = string() else { return false }
                labels.append(Label(name, value))
            } while take(",")
            return take("}")
        }

        private mutating func string() -> String? {
            guard take("\"") else { return nil }
            let start = at
            var isPlain = true
            while at < bytes.count, bytes[at] != UInt8(ascii: "\"") {
                if bytes[at] == UInt8(ascii: "\\") {
                    isPlain = false
                    at += 1
                }
                at += 1
            }
            guard at < bytes.count else { return nil }
            let text = UnsafeBufferPointer(rebasing: bytes[start..<at])
            at += 1
            return isPlain ? String(decoding: text, as: UTF8.self) : unescaped(text)
        }

        private func unescaped(_ text: UnsafeBufferPointer<UInt8>) -> String? {
            var out: [UInt8] = []
            var at = 0
            while at < text.count {
                guard text[at] == UInt8(ascii: "\\") else {
                    out.append(text[at])
                    at += 1
                    continue
                }
                guard at + 1 < text.count else { return nil }
                guard text[at + 1] == UInt8(ascii: "u") else {
                    out.append(text[at + 1])
                    at += 2
                    continue
                }
                guard at + 6 <= text.count,
                    let code = UInt8(String(decoding: text[at + 2..<at + 6], as: UTF8.self), radix: 16)
                else { return nil }
                out.append(code)
                at += 6
            }
            return String(decoding: out, as: UTF8.self)
        }
    }
}

/// Text as the `sqlite3` shell's `sqlar_uncompress` reads it.
enum ShellText {
    /// Bytes that are not more than the text's own.
    static func pack(_ text: [UInt8]) -> [UInt8] {
        var length = compressBound(UInt(text.count))
        let packed = [UInt8](unsafeUninitializedCapacity: Int(length)) { buffer, count in
            let code = compress2(buffer.baseAddress, &length, text, UInt(text.count), 6)
            count = code == Z_OK ? Int(length) : 0
        }
        return packed.isEmpty || packed.count >= text.count ? text : packed
    }

    /// The text of so many bytes; nil where they are not that.
    static func unpack(_ bytes: [UInt8], size: Int) -> [UInt8]? {
        if bytes.count == size { return bytes }
        // Text of labels is packed to a fiftieth at best.
        guard size >= 0, size <= max(bytes.count, 64) * 1100 else { return nil }
        var length = UInt(size)
        let text = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            let code = uncompress(buffer.baseAddress, &length, bytes, UInt(bytes.count))
            count = code == Z_OK ? Int(length) : 0
        }
        return text.count == size ? text : nil
    }
}
