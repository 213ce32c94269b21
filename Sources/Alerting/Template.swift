import Foundation
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
    package var externalURL: String
    /// When it is filled in.
    package var nowMs: Int64
    /// Evaluates an expression, for the function `query`; nil where there is nothing to ask.
    package var query: (@Sendable (String) throws -> [(labels: Labels, value: Double)])?

    package init(
        labels: Labels, value: Double, externalLabels: Labels = Labels(), externalURL: String = "", nowMs: Int64 = 0,
        query: (@Sendable (String) throws -> [(labels: Labels, value: Double)])? = nil
    ) {
        self.labels = labels
        self.value = value
        self.externalLabels = externalLabels
        self.externalURL = externalURL
        self.nowMs = nowMs
        self.query = query
    }
}

/// The template language of Prometheus' labels and annotations
/// (prometheus.io/docs/prometheus/latest/configuration/template_reference), which is that of Go's `text/template`.
package struct Template: Sendable {
    package let source: String
    private let nodes: [TemplateNode]
    private let definitions: [String: [TemplateNode]]

    /// The most that a template may write, and the most steps that it may take.
    private static let maxBytes = 1 << 20
    private static let maxSteps = 1_000_000

    /// - Throws: ``TemplateError``, also for variables that no action before declares.
    package init(_ source: String) throws(TemplateError) {
        self.source = source
        var parser = TemplateParser(source)
        nodes = try parser.parse()
        definitions = parser.definitions
        var known = Template.variables
        try Template.check(nodes, &known)
        for body in definitions.values {
            var known: Set<String> = ["$"]
            try Template.check(body, &known)
        }
    }

    private static let variables: Set<String> = ["$", "$labels", "$externalLabels", "$externalURL", "$value"]

    /// Fills the template in.
    ///
    /// - Throws: ``TemplateError``, for a function that does not take what it is given.
    package func expand(_ data: TemplateData) throws(TemplateError) -> String {
        let root = TemplateValue.map([
            "Labels": .labels(data.labels), "ExternalLabels": .labels(data.externalLabels),
            "ExternalURL": .string(data.externalURL), "Value": .number(data.value),
        ])
        var run = Run(data: data, definitions: definitions)
        run.variables = [
            ("$", root), ("$labels", .labels(data.labels)), ("$externalLabels", .labels(data.externalLabels)),
            ("$externalURL", .string(data.externalURL)), ("$value", .number(data.value)),
        ]
        _ = try run.walk(nodes, dot: root)
        return run.out
    }

    // MARK: Checking

    private static func check(_ nodes: [TemplateNode], _ known: inout Set<String>) throws(TemplateError) {
        for node in nodes {
            switch node {
            case .text, .leave, .next: break
            case .output(let pipeline): try check(pipeline, &known)
            case .call(_, let pipeline): if let pipeline { try check(pipeline, &known) }
            case .branch(let pipeline, let then, let otherwise), .with(let pipeline, let then, let otherwise),
                .range(let pipeline, let then, let otherwise):
                var inner = known
                try check(pipeline, &inner)
                var own = inner
                try check(then, &own)
                try check(otherwise, &inner)
            }
        }
    }

    private static func check(_ pipeline: TemplatePipeline, _ known: inout Set<String>) throws(TemplateError) {
        for word in pipeline.commands.joined() {
            switch word {
            case .variable(let name, _) where !known.contains(name):
                throw TemplateError(reason: "undefined variable \(Labels.quoted(name))")
            case .nested(let inner, _): try check(inner, &known)
            default: break
            }
        }
        if pipeline.assigns, let name = pipeline.names.first, !known.contains(name) {
            throw TemplateError(reason: "undefined variable \(Labels.quoted(name))")
        }
        known.formUnion(pipeline.names)
    }

    // MARK: Carrying out

    private enum Flow { case on, leave, next }

    private struct Run {
        let data: TemplateData
        let definitions: [String: [TemplateNode]]
        var variables: [(name: String, value: TemplateValue)] = []
        var out = ""
        private var steps = 0
        private var depth = 0

        init(data: TemplateData, definitions: [String: [TemplateNode]]) {
            self.data = data
            self.definitions = definitions
        }

        mutating func walk(_ nodes: [TemplateNode], dot: TemplateValue) throws(TemplateError) -> Flow {
            for node in nodes {
                steps += 1
                guard steps <= Template.maxSteps, out.utf8.count <= Template.maxBytes else {
                    throw TemplateError(reason: "the template does not come to an end")
                }
                let flow = try walk(node, dot)
                if flow != .on { return flow }
            }
            return .on
        }

        private mutating func walk(_ node: TemplateNode, _ dot: TemplateValue) throws(TemplateError) -> Flow {
            switch node {
            case .text(let text): out += text
            case .output(let pipeline):
                let value = try evaluate(pipeline, dot)
                if pipeline.names.isEmpty { out += value.text }
            case .branch(let pipeline, let then, let otherwise):
                return try scoped { (run) throws(TemplateError) in
                    try run.walk(try run.evaluate(pipeline, dot).isTrue ? then : otherwise, dot: dot)
                }
            case .with(let pipeline, let then, let otherwise):
                return try scoped { (run) throws(TemplateError) in
                    let value = try run.evaluate(pipeline, dot)
                    return try value.isTrue ? run.walk(then, dot: value) : run.walk(otherwise, dot: dot)
                }
            case .range(let pipeline, let body, let otherwise):
                return try scoped { (run) throws(TemplateError) in try run.loop(pipeline, body, otherwise, dot) }
            case .call(let name, let pipeline):
                guard let body = definitions[name] else {
                    throw TemplateError(reason: "template \(Labels.quoted(name)) not defined")
                }
                guard depth < 100 else { throw TemplateError(reason: "exceeded maximum template depth") }
                let argument = try pipeline.map { (pipeline) throws(TemplateError) in try evaluate(pipeline, dot) }
                let outer = variables
                variables = [("$", argument ?? .none)]
                depth += 1
                _ = try walk(body, dot: argument ?? .none)
                depth -= 1
                variables = outer
            case .leave: return .leave
            case .next: return .next
            }
            return .on
        }

        /// Variables of the body are gone behind it.
        private mutating func scoped(
            _ body: (inout Run) throws(TemplateError) -> Flow
        ) throws(TemplateError) -> Flow {
            let count = variables.count
            let flow = try body(&self)
            variables.removeLast(variables.count - count)
            return flow
        }

        private mutating func loop(
            _ pipeline: TemplatePipeline, _ body: [TemplateNode], _ otherwise: [TemplateNode], _ dot: TemplateValue
        ) throws(TemplateError) -> Flow {
            var plain = pipeline
            plain.names = []
            let pairs: [(key: TemplateValue, value: TemplateValue)]
            switch try evaluate(plain, dot) {
            case .list(let list): pairs = list.enumerated().map { (.number(Double($0)), $1) }
            case .map(let map): pairs = map.sorted { $0.key < $1.key }.map { (.string($0.key), $0.value) }
            case .number(let count) where count >= 0 && count <= Double(Template.maxSteps):
                pairs = (0..<Int(count)).map { (.number(Double($0)), .number(Double($0))) }
            case .none: pairs = []
            case let other: throw TemplateError(reason: "range can't iterate over \(other.text)")
            }
            if pairs.isEmpty { return try walk(otherwise, dot: dot) }
            let count = variables.count
            for (key, value) in pairs {
                variables.removeLast(variables.count - count)
                if pipeline.names.count == 2 { variables.append((pipeline.names[0], key)) }
                if let last = pipeline.names.last { variables.append((last, value)) }
                if try walk(body, dot: value) == .leave { break }
            }
            return .on
        }

        private mutating func evaluate(
            _ pipeline: TemplatePipeline, _ dot: TemplateValue
        ) throws(TemplateError) -> TemplateValue {
            var last: TemplateValue?
            for command in pipeline.commands { last = try evaluate(command, dot, piped: last) }
            let value = last ?? .none
            if pipeline.assigns, let name = pipeline.names.first {
                if let place = variables.lastIndex(where: { $0.name == name }) { variables[place].value = value }
            } else if let name = pipeline.names.last {
                variables.append((name, value))
            }
            return value
        }

        private mutating func evaluate(
            _ command: [TemplateWord], _ dot: TemplateValue, piped: TemplateValue?
        ) throws(TemplateError) -> TemplateValue {
            guard let head = command.first else { throw TemplateError(reason: "missing value for command") }
            guard case .function(let name) = head else {
                guard command.count == 1, piped == nil else {
                    throw TemplateError(reason: "can't give argument to non-function")
                }
                return try evaluate(head, dot)
            }
            var arguments: [TemplateValue] = []
            for word in command.dropFirst() {
                let value = try evaluate(word, dot)
                // What stands behind is not looked at once the answer is there.
                if name == "and", !value.isTrue { return value }
                if name == "or", value.isTrue { return value }
                arguments.append(value)
            }
            if let piped { arguments.append(piped) }
            return try TemplateFunction.call(name, arguments, data)
        }

        private mutating func evaluate(
            _ word: TemplateWord, _ dot: TemplateValue
        ) throws(TemplateError) -> TemplateValue {
            switch word {
            case .literal(let value): return value
            case .dot(let fields): return try value(dot, fields)
            case .variable(let name, let fields):
                guard let variable = variables.last(where: { $0.name == name }) else {
                    throw TemplateError(reason: "undefined variable \(Labels.quoted(name))")
                }
                return try value(variable.value, fields)
            case .function(let name): return try TemplateFunction.call(name, [], data)
            case .nested(let pipeline, let fields): return try value(try evaluate(pipeline, dot), fields)
            }
        }

        private func value(_ base: TemplateValue, _ fields: [String]) throws(TemplateError) -> TemplateValue {
            var value = base
            for field in fields { value = try value.field(field) }
            return value
        }
    }
}
