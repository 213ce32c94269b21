import Foundation
import Series
import Yams

/// A YAML file that is read strictly: every field must be known, every value of the right kind, and all faults are
/// told at once with line and column.
package struct YAMLDocument {
    package let root: YAMLValue
    private let log: ProblemLog

    /// Reads a file.
    ///
    /// - Throws: ``YAMLProblems`` for a file that can't be read or is no YAML.
    package init(file: String) throws {
        guard let data = FileManager.default.contents(atPath: file) else {
            throw YAMLProblems([YAMLProblem(file: file, line: 1, column: 1, reason: "the file can't be read")])
        }
        try self.init(text: String(decoding: data, as: UTF8.self), file: file)
    }

    /// Reads a text; `file` names it in errors.
    package init(text: String, file: String) throws {
        log = ProblemLog(file: file)
        do {
            let node = try Yams.compose(yaml: text) ?? Node.mapping(.init([]))
            root = YAMLValue(node: node, path: "", log: log)
        } catch let error as YamlError {
            throw YAMLProblems([YAMLDocument.problem(error, file: file)])
        }
    }

    /// - Throws: ``YAMLProblems`` where reading the values found any.
    package func finish() throws {
        if !log.problems.isEmpty {
            throw YAMLProblems(log.problems.sorted { ($0.line, $0.column) < ($1.line, $1.column) })
        }
    }

    /// The document as YAML, with `<secret>` for all that stands under these fields and for user and password in URLs.
    package func masked(fields: Set<String>) -> String {
        (try? Yams.serialize(node: YAMLDocument.masked(root.node, fields))) ?? ""
    }

    private static func masked(_ node: Node, _ fields: Set<String>) -> Node {
        switch node {
        case .mapping(let mapping):
            return .mapping(
                Node.Mapping(
                    mapping.map { key, value in
                        fields.contains(key.string ?? "") ? (key, Node("<secret>")) : (key, masked(value, fields))
                    }))
        case .sequence(let sequence): return .sequence(Node.Sequence(sequence.map { masked($0, fields) }))
        case .scalar(let scalar):
            guard let scheme = scalar.string.range(of: "://"),
                let at = scalar.string[scheme.upperBound...].prefix(while: { !"/?#".contains($0) }).lastIndex(of: "@")
            else { return node }
            return Node(
                scalar.string.replacingCharacters(in: scheme.upperBound..<at, with: "<secret>"))
        case .alias: return node
        }
    }

    private static func problem(_ error: YamlError, file: String) -> YAMLProblem {
        switch error {
        case .scanner(_, let reason, let mark, _), .parser(_, let reason, let mark, _),
            .composer(_, let reason, let mark, _):
            return YAMLProblem(file: file, line: mark.line, column: mark.column, reason: "not valid YAML: \(reason)")
        default:
            return YAMLProblem(file: file, line: 1, column: 1, reason: "not valid YAML: \(error)")
        }
    }
}

/// Where a document's faults are gathered while it is read.
final class ProblemLog {
    let file: String
    var problems: [YAMLProblem] = []

    init(file: String) { self.file = file }
}

/// A value within a document.
package struct YAMLValue {
    let node: Node
    /// The fields that lead here: `scrape_configs[0].job_name`.
    package let path: String
    let log: ProblemLog

    /// Tells a fault of this value.
    package func report(_ reason: String) {
        let place = place
        log.problems.append(YAMLProblem(file: place.file, line: place.line, column: place.column, reason: reason))
    }

    /// The place of the value: file, line and column, counted from 1.
    package var place: (file: String, line: Int, column: Int) {
        (log.file, node.mark?.line ?? 1, node.mark?.column ?? 1)
    }

    private var label: String { path.isEmpty ? "the document" : path }

    private var shown: String {
        switch node {
        case .scalar(let scalar): Labels.quoted(scalar.string)
        case .mapping: "a mapping"
        case .sequence: "a list"
        case .alias: "an alias"
        }
    }

    /// The value as it stands, written as YAML.
    package var text: String { (try? Yams.serialize(node: node)) ?? "" }

    /// Whether nothing, or null, stands here.
    package var isNull: Bool { node.null != nil && node.scalar?.style == .plain }

    /// The value as a mapping; reads its fields in `body`, then tells those that `body` did not ask for.
    @discardableResult
    package func fields<R>(_ body: (inout YAMLFields) -> R) -> R? {
        guard case .mapping(let mapping) = node else {
            report("\(label): expected a mapping, found \(shown)")
            return nil
        }
        var fields = YAMLFields(parent: self, mapping: mapping)
        let result = body(&fields)
        fields.finish()
        return result
    }

    /// The value as a list; one value that is no list is told as a fault.
    package var list: [YAMLValue] {
        if isNull { return [] }
        guard case .sequence(let sequence) = node else {
            report("\(label): expected a list, found \(shown)")
            return []
        }
        return sequence.enumerated().map { YAMLValue(node: $1, path: "\(path)[\($0)]", log: log) }
    }

    package var string: String? {
        guard let scalar = node.scalar else {
            report("\(label): expected a string, found \(shown)")
            return nil
        }
        return scalar.string
    }

    package var bool: Bool? {
        guard let value = node.bool else {
            report("\(label): expected true or false, found \(shown)")
            return nil
        }
        return value
    }

    package var int: Int? {
        guard let value = node.int else {
            report("\(label): expected a whole number, found \(shown)")
            return nil
        }
        return value
    }

    package var double: Double? {
        guard let value = node.float ?? node.int.map(Double.init) else {
            report("\(label): expected a number, found \(shown)")
            return nil
        }
        return value
    }

    /// A duration in milliseconds.
    package var durationMs: Int64? {
        guard let text = node.scalar?.string, let ms = TimeFormat.durationMs(text) else {
            report(
                "\(label): \(shown) is not a duration; write a number with a unit of ms, s, m, h, d, w or y, as in 15s or 1h30m"
            )
            return nil
        }
        return ms
    }

    /// A size in bytes, such as `64MB`: units of 1024, as in Prometheus.
    package var bytes: Int? {
        let units = [("PB", 50), ("TB", 40), ("GB", 30), ("MB", 20), ("KB", 10), ("B", 0)]
        if let text = node.scalar?.string {
            if text == "0" { return 0 }
            for (suffix, shift) in units where text.hasSuffix(suffix) {
                if let number = Int(text.dropLast(suffix.count)), number >= 0, number < 1 << (62 - shift) {
                    return number << shift
                }
                break
            }
        }
        report("\(label): \(shown) is not a size; write a whole number with a unit of B, KB, MB, GB or TB, as in 64MB")
        return nil
    }

    /// A mapping of strings to strings; numbers and booleans count as they are written.
    package var strings: [(name: String, value: String)] {
        guard case .mapping(let mapping) = node else {
            if !isNull { report("\(label): expected a mapping, found \(shown)") }
            return []
        }
        return mapping.compactMap { key, value in
            let entry = YAMLValue(node: value, path: "\(path).\(key.string ?? "")", log: log)
            guard let name = key.string, let text = entry.string else { return nil }
            return (name, text)
        }
    }
}

/// The fields of one mapping while they are read.
package struct YAMLFields {
    private let parent: YAMLValue
    private var rest: [(key: Node, value: Node)]
    private var known: [String] = []

    init(parent: YAMLValue, mapping: Node.Mapping) {
        self.parent = parent
        rest = mapping.map { ($0, $1) }
    }

    /// The place of the mapping itself.
    package var value: YAMLValue { parent }

    /// The names of the fields that were not taken yet.
    package var names: [String] { rest.compactMap(\.key.string) }

    /// Takes a field out; nil where it is not there or null.
    package mutating func take(_ name: String) -> YAMLValue? {
        known.append(name)
        guard let index = rest.firstIndex(where: { $0.key.string == name }) else { return nil }
        let path = parent.path.isEmpty ? name : "\(parent.path).\(name)"
        let value = YAMLValue(node: rest.remove(at: index).value, path: path, log: parent.log)
        return value.isNull ? nil : value
    }

    /// Tells of a field that can't be had, where it is there; it is not offered to those who write an unknown one.
    package mutating func refuse(_ name: String, _ reason: String) {
        let value = take(name)
        known.removeLast()
        if let value { value.report("\(value.path): \(reason)") }
    }

    package mutating func string(_ name: String) -> String? { take(name)?.string }
    package mutating func bool(_ name: String) -> Bool? { take(name)?.bool }
    package mutating func int(_ name: String) -> Int? { take(name)?.int }
    package mutating func double(_ name: String) -> Double? { take(name)?.double }
    package mutating func durationMs(_ name: String) -> Int64? { take(name)?.durationMs }
    package mutating func bytes(_ name: String) -> Int? { take(name)?.bytes }
    package mutating func list(_ name: String) -> [YAMLValue] { take(name)?.list ?? [] }
    package mutating func strings(_ name: String) -> [(name: String, value: String)] { take(name)?.strings ?? [] }
    package mutating func stringList(_ name: String) -> [String] { list(name).compactMap(\.string) }

    /// A field that must be there.
    package mutating func required(_ name: String) -> YAMLValue? {
        if let value = take(name) { return value }
        let path = parent.path.isEmpty ? "" : "\(parent.path): "
        parent.report("\(path)the field \(Labels.quoted(name)) is missing")
        return nil
    }

    fileprivate func finish() {
        for entry in rest {
            let name = entry.key.string ?? ""
            let value = YAMLValue(node: entry.key, path: parent.path, log: parent.log)
            let place = parent.path.isEmpty ? "" : " in \(parent.path)"
            let guess = known.filter { EditDistance.between($0, name) <= max(1, name.count / 3) }
                .min { EditDistance.between($0, name) < EditDistance.between($1, name) }
            let remedy =
                guess.map { "did you mean \(Labels.quoted($0))?" }
                ?? "known fields: \(known.sorted().joined(separator: ", "))"
            value.report("unknown field \(Labels.quoted(name))\(place); \(remedy)")
        }
    }
}

/// How many letters lie between two words.
enum EditDistance {
    /// Levenshtein's distance.
    static func between(_ left: String, _ right: String) -> Int {
        let (a, b) = (Array(left), Array(right))
        var row = Array(0...b.count)
        for i in 0..<a.count {
            var diagonal = row[0]
            row[0] = i + 1
            for j in 0..<b.count {
                let above = row[j + 1]
                row[j + 1] = min(above + 1, row[j] + 1, diagonal + (a[i] == b[j] ? 0 : 1))
                diagonal = above
            }
        }
        return row[b.count]
    }
}
