import Crypto
import Exposition
import Series

/// One rule of `relabel_configs` or `metric_relabel_configs`, with Prometheus' meaning
/// (prometheus.io/docs/prometheus/latest/configuration/configuration, `relabel_config`).
package struct RelabelRule: Sendable {
    package enum Action: String, Sendable, CaseIterable {
        case replace, keep, drop, keepequal, dropequal, hashmod, labelmap, labeldrop, labelkeep, lowercase, uppercase
    }

    package var sourceLabels: [String] = []
    package var separator = ";"
    package var targetLabel = ""
    package var pattern: Pattern
    package var replacement = "$1"
    /// Of the action `hashmod`.
    package var modulus: UInt64 = 0
    package var action = Action.replace

    /// A rule with the default expression `(.*)`.
    package init(pattern: Pattern) { self.pattern = pattern }

    /// Applies rules in order.
    ///
    /// - Returns: nil where a rule drops the labels' owner.
    package static func apply(_ rules: [RelabelRule], to labels: Labels) -> Labels? {
        var labels = labels
        for rule in rules {
            guard rule.apply(to: &labels) else { return nil }
        }
        return labels
    }

    /// A filter that passes over metrics before they are read; nil where all are read.
    ///
    /// It has what the first of the rules say of a metric by its name alone.
    /// - Parameter isWanted: whether anybody asks for series with a name; nil: all are wanted.
    package static func filter(_ rules: [RelabelRule], isWanted: (@Sendable (String) -> Bool)? = nil) -> MetricFilter? {
        let byName = Array(
            rules.prefix {
                ($0.action == .keep || $0.action == .drop) && $0.sourceLabels == [Labels.metricName]
            })
        guard !byName.isEmpty || isWanted != nil else { return nil }
        return MetricFilter { name in
            isWanted?(name) ?? true && apply(byName, to: [Labels.metricName: name]) != nil
        }
    }

    private func apply(to labels: inout Labels) -> Bool {
        let source = sourceLabels.map { labels[$0] ?? "" }.joined(separator: separator)
        switch action {
        case .keep: return pattern.matches(source)
        case .drop: return !pattern.matches(source)
        case .keepequal: return source == labels[targetLabel] ?? ""
        case .dropequal: return source != labels[targetLabel] ?? ""
        case .hashmod:
            guard modulus > 0 else { return true }
            // The last eight bytes of the digest, as Prometheus takes them.
            let digest = Insecure.MD5.hash(data: Array(source.utf8)).suffix(8)
            labels[targetLabel] = String(digest.reduce(UInt64(0)) { $0 << 8 | UInt64($1) } % modulus)
        case .lowercase: labels[targetLabel] = source.lowercased()
        case .uppercase: labels[targetLabel] = source.uppercased()
        case .labeldrop: labels = Labels(labels.pairs.filter { !pattern.matches($0.name) })
        case .labelkeep: labels = Labels(labels.pairs.filter { pattern.matches($0.name) })
        case .labelmap:
            for label in labels.pairs {
                if let groups = pattern.groups(in: label.name) {
                    labels[pattern.expand(replacement, groups: groups)] = label.value
                }
            }
        case .replace:
            guard let groups = pattern.groups(in: source) else { return true }
            let name = pattern.expand(targetLabel, groups: groups)
            guard !name.isEmpty else { return true }
            labels[name] = pattern.expand(replacement, groups: groups)
        }
        return true
    }
}
