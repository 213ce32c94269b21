import PromQL
import Series
import StrictYAML

/// A rule of a rule file: it records a series, or it alerts.
package struct Rule: Sendable {
    package enum Kind: Sendable, Equatable {
        /// The name of the series.
        case record(String)
        /// The name of the alert.
        case alert(String)
    }

    package var kind: Kind
    /// As written.
    package var text: String
    package var expression: Expression
    package var forMs: Int64 = 0
    package var keepFiringForMs: Int64 = 0
    package var labels: [(name: String, template: Template)] = []
    package var annotations: [(name: String, template: Template)] = []

    package var name: String {
        switch kind {
        case .record(let name), .alert(let name): name
        }
    }
}

/// Rules that are evaluated together, one after another.
package struct RuleGroup: Sendable {
    package var name: String
    package var file: String
    /// nil: the global evaluation interval.
    package var intervalMs: Int64?
    /// The most series or alerts of one rule; 0 is no limit.
    package var limit = 0
    /// nil: the global one.
    package var queryOffsetMs: Int64?
    package var rules: [Rule]
}

/// Reads Prometheus' rule files
/// (prometheus.io/docs/prometheus/latest/configuration/recording_rules, `rule_group`).
package enum RuleFile {
    /// The groups of a file.
    ///
    /// - Throws: `YAMLProblems` with every fault: unknown fields, expressions that do not parse, bad templates, groups
    ///   and rules that stand twice.
    /// - Parameter features: what expressions may have beside the stable language.
    package static func load(file: String, features: QueryFeatures = []) throws -> [RuleGroup] {
        try load(YAMLDocument(file: file), features: features)
    }

    /// The groups of a document that was read already.
    package static func load(_ document: YAMLDocument, features: QueryFeatures = []) throws -> [RuleGroup] {
        var groups: [RuleGroup] = []
        document.root.fields { fields in
            guard let kind = fields.take("kind") else { return read(&fields, features, &groups) }
            if kind.string != "PrometheusRule" {
                kind.report("rules are read from files of groups, and from objects of the kind PrometheusRule")
            }
            // As prometheus-operator's resource has them.
            for name in ["apiVersion", "metadata"] { _ = fields.take(name) }
            fields.required("spec")?.fields { read(&$0, features, &groups) }
        }
        try document.finish()
        return groups
    }

    private static func read(_ fields: inout YAMLFields, _ features: QueryFeatures, _ groups: inout [RuleGroup]) {
        for value in fields.list("groups") {
            guard let group = value.fields({ group(&$0, features) }), let group else { continue }
            if groups.contains(where: { $0.name == group.name }) {
                value.report("groupname: \(Labels.quoted(group.name)) is repeated in the same file")
            }
            groups.append(group)
        }
    }

    private static func group(_ fields: inout YAMLFields, _ features: QueryFeatures) -> RuleGroup? {
        let name = fields.required("name")?.string
        var group = RuleGroup(name: name ?? "", file: fields.value.place.file, rules: [])
        group.intervalMs = fields.durationMs("interval")
        group.limit = fields.int("limit") ?? 0
        group.queryOffsetMs = fields.durationMs("query_offset")
        let labels = templates(fields.take("labels"), "label")
        for value in fields.list("rules") {
            guard var rule = value.fields({ rule(&$0, features) }) ?? nil else { continue }
            let own = Set(rule.labels.map(\.name))
            rule.labels = labels.filter { !own.contains($0.name) } + rule.labels
            group.rules.append(rule)
        }
        return name == nil ? nil : group
    }

    private static func rule(_ fields: inout YAMLFields, _ features: QueryFeatures) -> Rule? {
        let record = fields.take("record")
        let alert = fields.take("alert")
        let forMs = fields.durationMs("for")
        let keepFiringForMs = fields.durationMs("keep_firing_for")
        let labels = templates(fields.take("labels"), "label")
        let annotationsValue = fields.take("annotations")
        let annotations = templates(annotationsValue, "annotation")
        let expr = fields.required("expr")
        guard let text = expr?.string else { return nil }
        let kind: Rule.Kind
        switch (record?.string, alert?.string) {
        case (let name?, nil):
            if !Labels.isMetricName(name) { record?.report("invalid recording rule name: \(name)") }
            if forMs != nil { fields.value.report("invalid field 'for' in recording rule") }
            if keepFiringForMs != nil { fields.value.report("invalid field 'keep_firing_for' in recording rule") }
            if annotationsValue != nil { fields.value.report("invalid field 'annotations' in recording rule") }
            kind = .record(name)
        case (nil, let name?): kind = .alert(name)
        case (nil, nil):
            fields.value.report("one of 'record' or 'alert' must be set")
            return nil
        default:
            fields.value.report("only one of 'record' and 'alert' must be set")
            return nil
        }
        do {
            let expression = try Parser.parse(text, features: features)
            guard expression.type == .vector || expression.type == .scalar else {
                expr?.report("the expression gives a \(expression.type.rawValue); a rule needs a vector or a scalar")
                return nil
            }
            return Rule(
                kind: kind, text: text, expression: expression, forMs: forMs ?? 0,
                keepFiringForMs: keepFiringForMs ?? 0, labels: labels, annotations: annotations)
        } catch {
            expr?.report("could not parse expression: \(error)")
            return nil
        }
    }

    private static func templates(_ value: YAMLValue?, _ what: String) -> [(name: String, template: Template)] {
        guard let value else { return [] }
        return value.strings.compactMap { name, text in
            if what == "label", !Labels.isLabelName(name) || name == Labels.metricName {
                value.report("invalid label name: \(name)")
            }
            do {
                return (name, try Template(text))
            } catch {
                value.report("\(what) \(Labels.quoted(name)): \(error)")
                return nil
            }
        }
    }
}
