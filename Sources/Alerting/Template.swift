import Foundation
import PromQL
import Series

/// A template that can't be read or carried out.
package struct TemplateError: Error, Equatable, CustomStringConvertible {
    package var reason: String

    package var description: String { "error parsing template: \(reason)" }
}

/// What a template may name.
package struct TemplateData: Sendable {
    package var labels: Labels
    package var value: Double
    package var externalLabels: Labels

    package init(labels: Labels, value: Double, externalLabels: Labels = Labels()) {
        self.labels = labels
        self.value = value
        self.externalLabels = externalLabels
    }
}

/// The template language of Prometheus' labels and annotations, as far as alerts use it
/// (prometheus.io/docs/prometheus/latest/configuration/template_reference): values, pipelines, `if`, and the
/// functions on numbers and strings.
package struct Template: Sendable {
    package let source: String
    private let nodes: [Node]

    private indirect enum Node: Sendable {
        case text(String)
        case output(Pipeline)
        case branch(Pipeline, then: [Node], otherwise: [Node])
    }

    /// Commands, each of which gets the result of the one before as its last argument.
    private struct Pipeline: Sendable { var commands: [[Word]] }

    private indirect enum Word: Sendable {
        case literal(TemplateValue)
        case name(String)
        case nested(Pipeline)
    }

    /// - Throws: ``TemplateError``.
    package init(_ source: String) throws(TemplateError) {
        self.source = source
        var parser = TemplateParser(source)
        nodes = try parser.nodes(until: [])
    }

    /// Fills the template in.
    ///
    /// - Throws: ``TemplateError``, for a function that does not take what it is given.
    package func expand(_ data: TemplateData) throws(TemplateError) -> String {
        var out = ""
        for node in nodes { try Template.expand(node, data, &out) }
        return out
    }

    private static func expand(_ node: Node, _ data: TemplateData, _ out: inout String) throws(TemplateError) {
        switch node {
        case .text(let text): out += text
        case .output(let pipeline): out += try evaluate(pipeline, data).text
        case .branch(let condition, let then, let otherwise):
            for node in try evaluate(condition, data).isTrue ? then : otherwise { try expand(node, data, &out) }
        }
    }

    private static func evaluate(_ pipeline: Pipeline, _ data: TemplateData) throws(TemplateError) -> TemplateValue {
        var last: TemplateValue?
        for command in pipeline.commands {
            guard let head = command.first else { throw TemplateError(reason: "missing value for command") }
            var arguments: [TemplateValue] = []
            for word in command.dropFirst() { arguments.append(try evaluate(word, data)) }
            if let last { arguments.append(last) }
            if case .name(let name) = head, TemplateFunction.names.contains(name) {
                last = try TemplateFunction.call(name, arguments)
            } else {
                guard arguments.isEmpty else { throw TemplateError(reason: "can't give argument to non-function") }
                last = try evaluate(head, data)
            }
        }
        return last ?? .string("")
    }

    private static func evaluate(_ word: Word, _ data: TemplateData) throws(TemplateError) -> TemplateValue {
        switch word {
        case .literal(let value): return value
        case .nested(let pipeline): return try evaluate(pipeline, data)
        case .name(let name):
            if TemplateFunction.names.contains(name) { return try TemplateFunction.call(name, []) }
            switch name {
            case "$value", ".Value": return .number(data.value)
            case "$labels", ".Labels": return .string(data.labels.description)
            case "$externalURL", ".ExternalURL": return .string("")
            default:
                for (prefix, labels) in [
                    ("$labels.", data.labels), (".Labels.", data.labels), ("$externalLabels.", data.externalLabels),
                    (".ExternalLabels.", data.externalLabels),
                ] where name.hasPrefix(prefix) {
                    return .string(labels[String(name.dropFirst(prefix.count))] ?? "")
                }
                throw TemplateError(reason: "undefined variable or function \(Labels.quoted(name))")
            }
        }
    }

    // MARK: Parsing

    private struct TemplateParser {
        private var rest: Substring

        init(_ source: String) { rest = Substring(source) }

        /// Reads up to an action of the given keywords, which is left unread, or to the end.
        mutating func nodes(until ends: [String]) throws(TemplateError) -> [Node] {
            var nodes: [Node] = []
            while !rest.isEmpty {
                guard let open = rest.range(of: "{{") else {
                    nodes.append(.text(String(rest)))
                    rest = ""
                    break
                }
                var text = String(rest[..<open.lowerBound])
                guard let close = rest[open.upperBound...].range(of: "}}") else {
                    throw TemplateError(reason: "unclosed action")
                }
                var action = String(rest[open.upperBound..<close.lowerBound])
                let trimsLeft = action.hasPrefix("- ")
                let trimsRight = action.hasSuffix(" -")
                if trimsLeft {
                    while text.last?.isWhitespace == true { text.removeLast() }
                    action.removeFirst()
                }
                if !text.isEmpty { nodes.append(.text(text)) }
                if trimsRight { action.removeLast() }
                action = action.trimmingCharacters(in: .whitespacesAndNewlines)
                let keyword = String(action.prefix { $0.isLetter })
                if ends.contains(keyword) { return nodes }
                rest = rest[close.upperBound...]
                if trimsRight { rest = rest.drop { $0.isWhitespace } }
                if action.hasPrefix("/*") { continue }
                switch keyword {
                case "if": nodes.append(try branch(String(action.dropFirst(2))))
                case "end", "else": throw TemplateError(reason: "unexpected {{\(action)}}")
                case "range", "with", "define", "template", "block":
                    throw TemplateError(reason: "{{\(keyword)}} is not supported")
                default: nodes.append(.output(try Template.pipeline(action)))
                }
            }
            if !ends.isEmpty { throw TemplateError(reason: "unexpected EOF, expected {{end}}") }
            return nodes
        }

        private mutating func branch(_ condition: String) throws(TemplateError) -> Node {
            let pipeline = try Template.pipeline(condition)
            let then = try nodes(until: ["else", "end"])
            let action = try nextAction()
            if action == "end" { return .branch(pipeline, then: then, otherwise: []) }
            let after = action.dropFirst("else".count).trimmingCharacters(in: .whitespaces)
            if after.hasPrefix("if") {
                return .branch(pipeline, then: then, otherwise: [try branch(String(after.dropFirst(2)))])
            }
            let otherwise = try nodes(until: ["end"])
            _ = try nextAction()
            return .branch(pipeline, then: then, otherwise: otherwise)
        }

        private mutating func nextAction() throws(TemplateError) -> String {
            guard let open = rest.range(of: "{{"), let close = rest[open.upperBound...].range(of: "}}") else {
                throw TemplateError(reason: "unexpected EOF, expected {{end}}")
            }
            var action = rest[open.upperBound..<close.lowerBound]
            rest = rest[close.upperBound...]
            if action.hasSuffix(" -") {
                rest = rest.drop { $0.isWhitespace }
                action = action.dropLast()
            }
            if action.hasPrefix("- ") { action = action.dropFirst() }
            return action.trimmingCharacters(in: .whitespacesAndNewlines)
        }
    }

    private static func pipeline(_ text: String) throws(TemplateError) -> Pipeline {
        var words = Words(text)
        let pipeline = try words.pipeline(nested: false)
        return pipeline
    }

    private struct Words {
        private var rest: Substring

        init(_ text: String) { rest = Substring(text) }

        mutating func pipeline(nested: Bool) throws(TemplateError) -> Pipeline {
            var commands: [[Word]] = [[]]
            while true {
                rest = rest.drop { $0.isWhitespace }
                guard let first = rest.first else {
                    if nested { throw TemplateError(reason: "unclosed left paren") }
                    break
                }
                if first == ")" {
                    guard nested else { throw TemplateError(reason: "unexpected right paren") }
                    rest = rest.dropFirst()
                    break
                }
                if first == "|" {
                    rest = rest.dropFirst()
                    commands.append([])
                    continue
                }
                commands[commands.count - 1].append(try word(first))
            }
            guard commands.allSatisfy({ !$0.isEmpty }) else { throw TemplateError(reason: "missing value for command") }
            return Pipeline(commands: commands)
        }

        private mutating func word(_ first: Character) throws(TemplateError) -> Word {
            if first == "(" {
                rest = rest.dropFirst()
                return .nested(try pipeline(nested: true))
            }
            if first == "\"" || first == "`" { return .literal(.string(try quoted(first))) }
            let text = rest.prefix { !$0.isWhitespace && $0 != ")" && $0 != "|" && $0 != "(" }
            rest = rest[text.endIndex...]
            if let number = Double(text) { return .literal(.number(number)) }
            if text == "true" || text == "false" { return .literal(.boolean(text == "true")) }
            let name = String(text)
            guard name.hasPrefix("$") || name.hasPrefix(".") || TemplateFunction.names.contains(name) else {
                throw TemplateError(reason: "function \(Labels.quoted(name)) not defined")
            }
            if name.hasPrefix("$"),
                !["$value", "$labels", "$externalLabels", "$externalURL"].contains(
                    String(name.prefix { $0 != "." }))
            {
                throw TemplateError(reason: "undefined variable \(Labels.quoted(name))")
            }
            return .name(name)
        }

        private mutating func quoted(_ quote: Character) throws(TemplateError) -> String {
            rest = rest.dropFirst()
            var out = ""
            while let character = rest.popFirst() {
                if character == quote { return out }
                if character == "\\", quote == "\"", let next = rest.popFirst() {
                    switch next {
                    case "n": out += "\n"
                    case "t": out += "\t"
                    default: out.append(next)
                    }
                } else {
                    out.append(character)
                }
            }
            throw TemplateError(reason: "unterminated quoted string")
        }
    }
}

/// What a template's expression gives.
enum TemplateValue: Sendable, Equatable {
    case string(String)
    case number(Double)
    case boolean(Bool)

    /// As Go's `fmt.Sprint` prints it.
    var text: String {
        switch self {
        case .string(let text): text
        case .number(let number): GoFormat.shortest(number)
        case .boolean(let flag): flag ? "true" : "false"
        }
    }

    var isTrue: Bool {
        switch self {
        case .string(let text): !text.isEmpty
        case .number(let number): number != 0
        case .boolean(let flag): flag
        }
    }

    var number: Double? {
        switch self {
        case .number(let number): number
        case .string(let text): Double(text)
        case .boolean: nil
        }
    }
}
