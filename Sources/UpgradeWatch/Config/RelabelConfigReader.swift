import Scrape
import Series
import StrictYAML

/// Reads `relabel_configs`, and lists under other names that have the same form.
enum RelabelConfigReader {
    /// Rules that can't be read are told, and left out.
    static func read(_ value: YAMLValue?) -> [RelabelRule] {
        (value?.list ?? []).compactMap { value in value.fields { rule(&$0) } ?? nil }
    }

    private static func rule(_ fields: inout YAMLFields) -> RelabelRule? {
        let value = fields.value
        let regex = fields.take("regex")
        let pattern: Pattern
        do {
            pattern = try Pattern(regex?.string ?? "(.*)", mode: .anchored)
        } catch {
            regex?.report("\(error)")
            for name in ["source_labels", "separator", "target_label", "replacement", "action", "modulus"] {
                _ = fields.take(name)
            }
            return nil
        }
        var rule = RelabelRule(pattern: pattern)
        rule.sourceLabels = fields.stringList("source_labels")
        rule.separator = fields.string("separator") ?? ";"
        rule.targetLabel = fields.string("target_label") ?? ""
        rule.replacement = fields.string("replacement") ?? "$1"
        rule.modulus = fields.int("modulus").map { UInt64(clamping: $0) } ?? 0
        if let action = fields.take("action"), let text = action.string {
            if let known = RelabelRule.Action(rawValue: text.lowercased()) {
                rule.action = known
            } else {
                let known = RelabelRule.Action.allCases.map(\.rawValue).joined(separator: ", ")
                action.report("unknown action \(Labels.quoted(text)); known are \(known)")
            }
        }
        let needsTarget: Set<RelabelRule.Action> = [.replace, .lowercase, .uppercase, .keepequal, .dropequal]
        if needsTarget.contains(rule.action), rule.targetLabel.isEmpty {
            value.report("\(value.path): the action \(rule.action.rawValue) needs a target_label")
        }
        if rule.action == .hashmod, rule.modulus == 0 || rule.targetLabel.isEmpty {
            value.report("\(value.path): the action hashmod needs a target_label and a modulus")
        }
        return rule
    }
}
