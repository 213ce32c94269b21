import Foundation
import Series

/// The parts of a template, as Go's `text/template` has them (pkg.go.dev/text/template).
indirect enum TemplateNode: Sendable {
    case text(String)
    case output(TemplatePipeline)
    case branch(TemplatePipeline, then: [TemplateNode], otherwise: [TemplateNode])
    case with(TemplatePipeline, then: [TemplateNode], otherwise: [TemplateNode])
    case range(TemplatePipeline, body: [TemplateNode], otherwise: [TemplateNode])
    case call(String, TemplatePipeline?)
    case leave
    case next
}

/// Commands, each of which gets the result of the one before as its last argument; the last result may get names.
struct TemplatePipeline: Sendable {
    var names: [String] = []
    /// Whether the name is there already.
    var assigns = false
    var commands: [[TemplateWord]]
}

indirect enum TemplateWord: Sendable {
    case literal(TemplateValue)
    case dot([String])
    case variable(String, [String])
    case function(String)
    case nested(TemplatePipeline, [String])
}

/// Reads templates.
struct TemplateParser {
    private var rest: Substring
    /// What `define` and `block` name.
    private(set) var definitions: [String: [TemplateNode]] = [:]
    private var depth = 0
    private var loops = 0

    /// The deepest nesting that is read.
    private static let maxDepth = 100

    init(_ source: String) { rest = Substring(source) }

    private struct Action {
        var text: String
        /// The text before it.
        var before: String
        var keyword: String
    }

    /// Reads a whole template.
    mutating func parse() throws(TemplateError) -> [TemplateNode] {
        let (nodes, end) = try nodes()
        if let end { throw TemplateError(reason: "unexpected {{\(end.text)}}") }
        return nodes
    }

    /// The next action and the text before it; nil at the end, with the text that is left.
    private mutating func action() throws(TemplateError) -> (action: Action?, text: String) {
        guard let open = rest.range(of: "{{") else {
            defer { rest = "" }
            return (nil, String(rest))
        }
        var before = String(rest[..<open.lowerBound])
        rest = rest[open.upperBound...]
        if rest.hasPrefix("-"), rest.dropFirst().first?.isWhitespace == true {
            while before.last?.isWhitespace == true { before.removeLast() }
            rest = rest.dropFirst()
        }
        var text = ""
        var quote: Character?
        var isComment = false
        while true {
            guard let character = rest.first else {
                throw TemplateError(reason: quote == nil ? "unclosed action" : "unterminated quoted string")
            }
            if let open = quote {
                if character == "\\", open != "`" {
                    text.append(character)
                    rest = rest.dropFirst()
                    guard let next = rest.first else { throw TemplateError(reason: "unterminated quoted string") }
                    text.append(next)
                    rest = rest.dropFirst()
                    continue
                }
                if character == open { quote = nil }
            } else if isComment {
                if rest.hasPrefix("*/") { isComment = false }
            } else if rest.hasPrefix("/*") {
                isComment = true
            } else if character == "\"" || character == "`" || character == "'" {
                quote = character
            } else if rest.hasPrefix("}}") {
                rest = rest.dropFirst(2)
                break
            }
            text.append(character)
            rest = rest.dropFirst()
        }
        if text.hasSuffix("-"), text.dropLast().last?.isWhitespace ?? false {
            text.removeLast()
            rest = rest.drop { $0.isWhitespace }
        }
        text = text.trimmingCharacters(in: .whitespacesAndNewlines)
        return (Action(text: text, before: before, keyword: String(text.prefix { $0.isLetter })), before)
    }

    /// Reads up to an `else` or `end`, which is given back, or to the end of the text.
    private mutating func nodes() throws(TemplateError) -> (nodes: [TemplateNode], end: Action?) {
        depth += 1
        defer { depth -= 1 }
        guard depth <= TemplateParser.maxDepth else { throw TemplateError(reason: "nested too deeply") }
        var nodes: [TemplateNode] = []
        while true {
            let (action, text) = try action()
            if !text.isEmpty { nodes.append(.text(text)) }
            guard let action else { return (nodes, nil) }
            let tail = String(action.text.dropFirst(action.keyword.count)).trimmingCharacters(in: .whitespaces)
            switch action.keyword {
            case "" where action.text.hasPrefix("/*"): continue
            case "end", "else": return (nodes, action)
            case "if":
                let (pipeline, then, otherwise) = try branches(tail, "if")
                nodes.append(.branch(pipeline, then: then, otherwise: otherwise))
            case "with":
                let (pipeline, then, otherwise) = try branches(tail, "with")
                nodes.append(.with(pipeline, then: then, otherwise: otherwise))
            case "range":
                loops += 1
                defer { loops -= 1 }
                let (pipeline, body, otherwise) = try branches(tail, "")
                nodes.append(.range(pipeline, body: body, otherwise: otherwise))
            case "break" where tail.isEmpty, "continue" where tail.isEmpty:
                guard loops > 0 else { throw TemplateError(reason: "{{\(action.keyword)}} outside {{range}}") }
                nodes.append(action.keyword == "break" ? .leave : .next)
            case "define":
                let (name, after) = try name(tail)
                guard after.isEmpty else { throw TemplateError(reason: "unexpected \(after) in define") }
                definitions[name] = try body()
            case "block":
                let (name, after) = try name(tail)
                definitions[name] = try body()
                nodes.append(.call(name, try TemplateParser.pipeline(after)))
            case "template":
                let (name, after) = try name(tail)
                nodes.append(.call(name, after.isEmpty ? nil : try TemplateParser.pipeline(after)))
            default: nodes.append(.output(try TemplateParser.pipeline(action.text)))
            }
        }
    }

    /// Up to an `end`.
    private mutating func body() throws(TemplateError) -> [TemplateNode] {
        let (nodes, end) = try nodes()
        guard end?.text == "end" else { throw TemplateError(reason: "unexpected EOF, expected {{end}}") }
        return nodes
    }

    /// What follows a condition: its body, and what `else` and `else if` say.
    private mutating func branches(
        _ condition: String, _ keyword: String
    ) throws(TemplateError) -> (TemplatePipeline, [TemplateNode], [TemplateNode]) {
        let pipeline = try TemplateParser.pipeline(condition)
        let (then, end) = try nodes()
        guard let end else { throw TemplateError(reason: "unexpected EOF, expected {{end}}") }
        if end.text == "end" { return (pipeline, then, []) }
        let after = end.text.dropFirst("else".count).trimmingCharacters(in: .whitespaces)
        if !keyword.isEmpty, after.hasPrefix(keyword) {
            let (inner, innerThen, innerOtherwise) = try branches(String(after.dropFirst(keyword.count)), keyword)
            let node: TemplateNode =
                keyword == "if"
                ? .branch(inner, then: innerThen, otherwise: innerOtherwise)
                : .with(inner, then: innerThen, otherwise: innerOtherwise)
            return (pipeline, then, [node])
        }
        guard end.keyword == "else", after.isEmpty else { throw TemplateError(reason: "unexpected {{\(end.text)}}") }
        return (pipeline, then, try body())
    }

    private func name(_ text: String) throws(TemplateError) -> (String, String) {
        var words = TemplateWords(text)
        guard case .string(let name)? = try words.next() else {
            throw TemplateError(reason: "a template's name must be a string")
        }
        return (name, words.remaining)
    }

    static func pipeline(_ text: String) throws(TemplateError) -> TemplatePipeline {
        var words = TemplateWords(text)
        return try words.pipeline(isNested: false, depth: 0)
    }
}

/// Goes through the words of an action.
private struct TemplateWords {
    enum Token: Equatable {
        case string(String)
        case number(Double)
        /// `$name`, `.` and what follows with dots, or a name.
        case name(String)
        case symbol(Character)
        case declare
        case assign
    }

    private var rest: Substring

    init(_ text: String) { rest = Substring(text) }

    var remaining: String { rest.trimmingCharacters(in: .whitespaces) }

    mutating func next() throws(TemplateError) -> Token? {
        rest = rest.drop { $0.isWhitespace }
        guard let first = rest.first else { return nil }
        switch first {
        case "\"", "`": return .string(try quoted(first))
        case "'":
            let text = try quoted(first)
            guard let scalar = text.unicodeScalars.first, text.unicodeScalars.count == 1 else {
                throw TemplateError(reason: "malformed character constant: '\(text)'")
            }
            return .number(Double(scalar.value))
        case "(", ")", "|", ",":
            rest = rest.dropFirst()
            return .symbol(first)
        case ":" where rest.hasPrefix(":="):
            rest = rest.dropFirst(2)
            return .declare
        case "=":
            rest = rest.dropFirst()
            return .assign
        default: break
        }
        let text = rest.prefix { !$0.isWhitespace && !"()|,:=\"`".contains($0) }
        guard !text.isEmpty else { throw TemplateError(reason: "unexpected \(first) in command") }
        rest = rest[text.endIndex...]
        let isNumber = first.isNumber || (first == "-" || first == "+" || first == ".") && text.count > 1
        if isNumber, let number = TemplateWords.number(String(text)) { return .number(number) }
        return .name(String(text))
    }

    private static func number(_ text: String) -> Double? {
        let digits = text.replacingOccurrences(of: "_", with: "")
        if digits.hasPrefix("0x"), let whole = Int64(digits.dropFirst(2), radix: 16) { return Double(whole) }
        return Double(digits)
    }

    private mutating func quoted(_ quote: Character) throws(TemplateError) -> String {
        rest = rest.dropFirst()
        var out = ""
        while let character = rest.popFirst() {
            if character == quote { return out }
            if character == "\\", quote != "`", let next = rest.popFirst() {
                switch next {
                case "n": out += "\n"
                case "t": out += "\t"
                case "r": out += "\r"
                default: out.append(next)
                }
            } else {
                out.append(character)
            }
        }
        throw TemplateError(reason: "unterminated quoted string")
    }

    mutating func pipeline(isNested: Bool, depth: Int) throws(TemplateError) -> TemplatePipeline {
        guard depth < 50 else { throw TemplateError(reason: "nested too deeply") }
        var pipeline = TemplatePipeline(commands: [[]])
        if !isNested, rest.drop(while: { $0.isWhitespace }).first == "$" { try names(&pipeline) }
        while true {
            guard let token = try next() else {
                if isNested { throw TemplateError(reason: "unclosed left paren") }
                break
            }
            switch token {
            case .symbol(")"):
                guard isNested else { throw TemplateError(reason: "unexpected right paren") }
                try check(pipeline)
                return pipeline
            case .symbol("|"): pipeline.commands.append([])
            case .symbol("("):
                let inner = try self.pipeline(isNested: true, depth: depth + 1)
                var fields: [String] = []
                if rest.first == "." {
                    let chain = rest.prefix { !$0.isWhitespace && !"()|,".contains($0) }
                    rest = rest[chain.endIndex...]
                    fields = chain.split(separator: ".").map(String.init)
                }
                pipeline.commands[pipeline.commands.count - 1].append(.nested(inner, fields))
            case .symbol, .declare, .assign: throw TemplateError(reason: "unexpected \(token) in command")
            case .string(let text): pipeline.commands[pipeline.commands.count - 1].append(.literal(.string(text)))
            case .number(let value): pipeline.commands[pipeline.commands.count - 1].append(.literal(.number(value)))
            case .name(let name): pipeline.commands[pipeline.commands.count - 1].append(try word(name))
            }
        }
        try check(pipeline)
        return pipeline
    }

    private func check(_ pipeline: TemplatePipeline) throws(TemplateError) {
        guard pipeline.commands.allSatisfy({ !$0.isEmpty }) else {
            throw TemplateError(reason: "missing value for command")
        }
    }

    /// Reads `$a, $b :=` where it stands, and nothing else.
    private mutating func names(_ pipeline: inout TemplatePipeline) throws(TemplateError) {
        var ahead = self
        var names: [String] = []
        while case .name(let name)? = try ahead.next(), name.hasPrefix("$"), !name.contains(".") {
            names.append(name)
            switch try ahead.next() {
            case .symbol(","): continue
            case let token? where token == .declare || token == .assign && names.count == 1:
                pipeline.names = names
                pipeline.assigns = rest.drop { $0 != "=" && $0 != ":" }.first == "="
                self = ahead
                return
            default: return
            }
        }
    }

    private func word(_ name: String) throws(TemplateError) -> TemplateWord {
        switch name {
        case "true", "false": return .literal(.boolean(name == "true"))
        case "nil": return .literal(.none)
        case ".": return .dot([])
        default: break
        }
        let parts = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        if name.hasPrefix(".") {
            guard parts.dropFirst().allSatisfy({ !$0.isEmpty }) else {
                throw TemplateError(reason: "unexpected <.> in operand")
            }
            return .dot(Array(parts.dropFirst()))
        }
        if name.hasPrefix("$") { return .variable(parts[0], Array(parts.dropFirst())) }
        guard TemplateFunction.names.contains(name) else {
            throw TemplateError(reason: "function \(Labels.quoted(name)) not defined")
        }
        return .function(name)
    }
}
