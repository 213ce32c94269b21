import PromQL
import Series

/// Evaluates rule groups and keeps the states of their alerts.
///
/// The states of an alert follow Prometheus (rules/alerting.go): inactive, pending from the first time its
/// expression gives it, firing once it did for `for`, resolved when it does no more and `keep_firing_for` is over.
package struct RuleEvaluator: Sendable {
    /// How long a resolved alert is remembered, so that its end is told although a message was lost.
    private static let resolvedRetentionMs: Int64 = 15 * 60_000

    package let groups: [RuleGroup]
    private let engine: QueryEngine
    private let externalLabels: Labels
    private let externalURL: String
    /// By group, rule and labels.
    package private(set) var states: [RuleKey: [Labels: AlertState]] = [:]
    private var recorded: [RuleKey: Set<Labels>] = [:]
    package private(set) var health: [RuleKey: RuleHealth] = [:]

    /// Which rule of which group.
    package struct RuleKey: Hashable, Sendable {
        package var file: String
        package var group: String
        package var index: Int

        package init(file: String, group: String, index: Int) {
            self.file = file
            self.group = group
            self.index = index
        }
    }

    /// How the last evaluation of a rule went.
    package struct RuleHealth: Sendable {
        package var lastError = ""
        package var lastEvaluationMs: Int64 = 0
        package var failures = 0
    }

    package init(
        groups: [RuleGroup], engine: QueryEngine = QueryEngine(), externalLabels: Labels = Labels(),
        externalURL: String = ""
    ) {
        self.externalURL = externalURL
        self.groups = groups
        self.engine = engine
        self.externalLabels = externalLabels
    }

    /// Takes back the states that a process before this one wrote down; those of rules that are no more are dropped.
    package mutating func restore(_ stored: [(key: RuleKey, name: String, state: AlertState)]) {
        for entry in stored {
            guard let group = groups.first(where: { $0.file == entry.key.file && $0.name == entry.key.group }),
                entry.key.index < group.rules.count, group.rules[entry.key.index].name == entry.name
            else { continue }
            states[entry.key, default: [:]][Labels(entry.state.labels.map { Label($0.key, $0.value) })] = entry.state
        }
    }

    /// Evaluates the rules of a group at a time, in order; what a rule records is there for the next one.
    package mutating func evaluate(_ group: RuleGroup, atMs: Int64, source: any SeriesSource, sink: any SampleSink) {
        for (index, rule) in group.rules.enumerated() {
            let key = RuleKey(file: group.file, group: group.name, index: index)
            var health = self.health[key] ?? RuleHealth()
            health.lastEvaluationMs = atMs
            health.lastError = ""
            do {
                let samples = try vector(rule, atMs: atMs - group.queryOffsetMs, source: source)
                if group.limit > 0, samples.count > group.limit {
                    throw PromQLError(
                        .execution, "exceeded limit of \(group.limit) with \(samples.count) series")
                }
                switch rule.kind {
                case .record(let name): record(name, rule, key, samples, atMs: atMs, sink: sink)
                case .alert:
                    let engine = engine
                    let queryMs = atMs - group.queryOffsetMs
                    try alert(rule, key, samples, atMs: atMs, sink: sink) { text in
                        try RuleEvaluator.samples(engine.instant(text, atMs: queryMs, source: source))
                    }
                }
            } catch {
                health.lastError = "\(error)"
                health.failures += 1
            }
            self.health[key] = health
        }
    }

    private func vector(_ rule: Rule, atMs: Int64, source: any SeriesSource) throws -> [(labels: Labels, value: Double)]
    {
        try RuleEvaluator.samples(engine.instant(rule.expression, atMs: atMs, source: source))
    }

    private static func samples(_ result: QueryResult) -> [(labels: Labels, value: Double)] {
        switch result.value {
        case .vector(let vector): return vector
        case .scalar(let value): return [(Labels(), value)]
        case .string, .matrix: return []
        }
    }

    private mutating func record(
        _ name: String, _ rule: Rule, _ key: RuleKey, _ samples: [(labels: Labels, value: Double)], atMs: Int64,
        sink: any SampleSink
    ) {
        var out: [(labels: Labels, value: Double)] = []
        for sample in samples {
            var labels = sample.labels
            labels[Labels.metricName] = name
            for entry in rule.labels { labels[entry.name] = entry.template.source }
            out.append((labels, sample.value))
        }
        let now = Set(out.map(\.labels))
        for labels in recorded[key, default: []].subtracting(now) { out.append((labels, staleMarker)) }
        recorded[key] = now
        sink.append(out, atMs: atMs)
    }

    private mutating func alert(
        _ rule: Rule, _ key: RuleKey, _ samples: [(labels: Labels, value: Double)], atMs: Int64, sink: any SampleSink,
        query: @escaping @Sendable (String) throws -> [(labels: Labels, value: Double)]
    ) throws {
        var states = self.states[key] ?? [:]
        let before = Set(states.values.filter { $0.state != .resolved }.map { RuleEvaluator.series(for: $0) })
        var active: Set<Labels> = []
        for sample in samples {
            let data = TemplateData(
                labels: sample.labels, value: sample.value, externalLabels: externalLabels, externalURL: externalURL,
                nowMs: atMs, query: query)
            var labels = sample.labels.withoutName
            for entry in rule.labels {
                do {
                    labels[entry.name] = try entry.template.expand(data)
                } catch {
                    labels[entry.name] = "<error expanding template: \(error.reason)>"
                }
            }
            labels["alertname"] = rule.name
            guard active.insert(labels).inserted else {
                throw PromQLError(
                    .execution, "vector contains metrics with the same labelset after applying alert labels")
            }
            var annotations: [String: String] = [:]
            for entry in rule.annotations {
                do {
                    annotations[entry.name] = try entry.template.expand(data)
                } catch {
                    annotations[entry.name] = "<error expanding template: \(error.reason)>"
                }
            }
            var state = states[labels] ?? RuleEvaluator.fresh(labels, atMs: atMs)
            if state.state == .resolved { state = RuleEvaluator.fresh(labels, atMs: atMs) }
            state.annotations = annotations
            state.value = sample.value
            state.keepFiringSinceMs = nil
            states[labels] = state
        }
        for (labels, state) in states {
            states[labels] = RuleEvaluator.next(state, holds: active.contains(labels), rule, atMs: atMs)
        }
        self.states[key] = states
        write(states, before, atMs: atMs, sink: sink)
    }

    private static func fresh(_ labels: Labels, atMs: Int64) -> AlertState {
        AlertState(
            labels: Dictionary(labels.pairs.map { ($0.name, $0.value) }) { $1 }, annotations: [:], state: .pending,
            value: 0, activeAtMs: atMs)
    }

    /// The state after an evaluation; nil for an alert that is to be forgotten.
    private static func next(_ state: AlertState, holds: Bool, _ rule: Rule, atMs: Int64) -> AlertState? {
        var state = state
        if holds {
            if state.state == .pending, atMs - state.activeAtMs >= rule.forMs {
                state.state = .firing
                state.firedAtMs = atMs
            }
            return state
        }
        switch state.state {
        case .pending: return nil
        case .resolved:
            return atMs - (state.resolvedAtMs ?? atMs) > resolvedRetentionMs ? nil : state
        case .firing:
            if rule.keepFiringForMs > 0 {
                let since = state.keepFiringSinceMs ?? atMs
                state.keepFiringSinceMs = since
                if atMs - since < rule.keepFiringForMs { return state }
            }
            state.state = .resolved
            state.resolvedAtMs = atMs
            return state
        }
    }

    /// The series `ALERTS` of a state.
    private static func series(for state: AlertState) -> Labels {
        var labels = Labels(state.labels.map { Label($0.key, $0.value) })
        labels[Labels.metricName] = "ALERTS"
        labels["alertstate"] = state.state.rawValue
        return labels
    }

    private func write(_ states: [Labels: AlertState], _ before: Set<Labels>, atMs: Int64, sink: any SampleSink) {
        var out: [(labels: Labels, value: Double)] = []
        var now: Set<Labels> = []
        for state in states.values where state.state != .resolved {
            let labels = RuleEvaluator.series(for: state)
            now.insert(labels)
            out.append((labels, 1))
            var forState = labels
            forState[Labels.metricName] = "ALERTS_FOR_STATE"
            forState["alertstate"] = nil
            out.append((forState, Double(state.activeAtMs) / 1000))
        }
        for labels in before.subtracting(now) { out.append((labels, staleMarker)) }
        sink.append(out, atMs: atMs)
    }

    /// The alerts to send: firing ones, and those that ended lately.
    package var alerts: [Alert] { states.values.flatMap { $0.values.compactMap(\.alert) } }
}
