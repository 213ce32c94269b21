import Series

/// What is allowed in rule files and mostly a mistake (promtool's `--lint`).
package enum RuleLint: String, Sendable, CaseIterable {
    case all
    case duplicateRules = "duplicate-rules"
    case none

    /// A metric or alert that several rules of a file make with the same labels.
    package struct Duplicate: Sendable, Equatable {
        package var name: String
        package var labels: Labels
    }

    /// The rules that stand more than once, by name and labels, whatever their groups.
    package static func duplicates(_ groups: [RuleGroup]) -> [Duplicate] {
        var counts: [String: [Labels: Int]] = [:]
        for rule in groups.flatMap(\.rules) {
            let labels = Labels(rule.labels.map { Label($0.name, $0.template.source) })
            counts[rule.name, default: [:]][labels, default: 0] += 1
        }
        return counts.flatMap { name, byLabels in
            byLabels.filter { $0.value > 1 }.map { Duplicate(name: name, labels: $0.key) }
        }.sorted { ($0.name, $0.labels) < ($1.name, $1.labels) }
    }
}
