import Foundation
import Series

/// Labels as the table `series` keeps them: a JSON object, so that `sqlite3` reads them with `labels ->> '$.job'`.
enum LabelsJSON {
    static func encode(_ labels: Labels) -> String {
        var out = "{"
        for label in labels.pairs {
            if out.count > 1 { out += "," }
            append(label.name, to: &out)
            out += ":"
            append(label.value, to: &out)
        }
        return out + "}"
    }

    static func decode(_ text: String, path: String) throws -> Labels {
        guard let object = try? JSONDecoder().decode([String: String].self, from: Data(text.utf8)) else {
            throw StoreError(code: .unreadable, path: path, reason: "labels in the table series are damaged: \(text)")
        }
        return Labels(object.map { Label($0.key, $0.value) })
    }

    private static func append(_ text: String, to out: inout String) {
        out += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case _ where scalar.value < 0x20:
                let hex = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: out.unicodeScalars.append(scalar)
            }
        }
        out += "\""
    }
}
