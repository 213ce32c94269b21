import Series
import StrictYAML

/// What to look for in logs: a pattern whose matches are counted, with lines kept as evidence.
package struct LogRule: Sendable {
    package var name: String
    /// The components whose logs it is for; empty: all.
    package var components: [String]
    package var pattern: Pattern
    /// Named groups of the pattern whose text becomes a label.
    package var labels: [String]

    /// The rules of a YAML file: a list under `rules`, each with `name`, `pattern`, `components` and `labels`.
    ///
    /// - Throws: `YAMLProblems` with the place of every fault.
    package static func load(file: String) throws -> [LogRule] {
        try load(YAMLDocument(file: file))
    }

    /// The rules of a document that was read already.
    package static func load(_ document: YAMLDocument) throws -> [LogRule] {
        var rules: [LogRule] = []
        document.root.fields { fields in
            for value in fields.list("rules") {
                guard let rule = value.fields(rule), let rule else { continue }
                if rules.contains(where: { $0.name == rule.name }) {
                    value.report("the rule \(Labels.quoted(rule.name)) stands twice")
                }
                rules.append(rule)
            }
        }
        try document.finish()
        return rules
    }

    private static func rule(_ fields: inout YAMLFields) -> LogRule? {
        let name = fields.required("name")?.string
        let components = fields.stringList("components")
        let labels = fields.stringList("labels")
        _ = fields.string("about")
        guard let name, let value = fields.required("pattern"), let text = value.string else { return nil }
        do {
            let pattern = try Pattern(text, mode: .search)
            for label in labels where !pattern.groupNames.contains(where: { $0.name == label }) {
                value.report("the pattern has no group named \(Labels.quoted(label))")
            }
            return LogRule(name: name, components: components, pattern: pattern, labels: labels)
        } catch {
            value.report("\(error)")
            return nil
        }
    }
}
