import Alerting
import Cluster
import Comparison
import PromQL
import Scrape
import Series

/// The metrics that a configuration asks for by name: those of its signals and rules, what they were or will be called in
/// other versions, and those that the program itself reads.
struct DeclaredMetrics: Sendable {
    private var names: Set<String>
    /// Selectors that name metrics otherwise than by a name; each says which names it accepts.
    private var others: [[LabelMatcher]] = []

    /// What versions and exits of containers are read from.
    private static let own = [UpgradeTracker.versionMetric, UpgradeTracker.startMetric, MetricExits.startMetric]

    init(signals: [Signal], groups: [RuleGroup], catalogue: VersionCatalogue = .builtIn) {
        names = Set(DeclaredMetrics.own)
        for signal in signals { signal.eachSelector { add($0) } }
        for rule in groups.flatMap(\.rules) { rule.expression.eachSelector { selector, _ in add(selector.matchers) } }
        // A metric may have had several names, one after another.
        var found = names
        while !found.isEmpty {
            let before = names
            for name in found { names.formUnion(catalogue.otherNames(of: name)) }
            found = names.subtracting(before)
        }
    }

    private mutating func add(_ matchers: [LabelMatcher]) {
        let byName = matchers.filter { $0.name == Labels.metricName }
        if let exact = byName.first(where: { $0.operator == .equal && !$0.value.isEmpty }) {
            names.insert(exact.value)
        } else {
            others.append(byName)
        }
    }

    /// Whether series with this metric name are asked for.
    ///
    /// With a counter it is asked for when it was created.
    @Sendable func contains(_ name: String) -> Bool {
        if names.contains(name) || others.contains(where: { $0.allSatisfy { $0.accepts(name) } }) { return true }
        guard name.hasSuffix("_created") else { return false }
        return ScrapeSession.counted.contains {
            names.contains(String(name.dropLast("_created".count)) + $0)
        }
    }

    /// What makes one set of metrics another.
    var settings: String { "\(names.sorted()) \(others)" }
}
