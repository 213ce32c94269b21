import PromQL
import Series

/// A rule group as it runs: the states of its alerts, and how its evaluations went.
///
/// The states of an alert follow Prometheus (rules/alerting.go): inactive, pending from the first time its expression
/// gives it, firing once it did for `for`, resolved when it does no more and `keep_firing_for` is over.
package struct RuleGroupRun: Sendable {
    /// What all groups have in common.
    struct Setting: Sendable {
        var engine: QueryEngine
        var externalLabels: Labels
        var externalURL: String
        /// For how long something took; the zero of replays and tests.
        var seconds: @Sendable () -> Double
    }

    /// How the last evaluation of a rule went.
    package struct RuleHealth: Sendable {
        package var lastError = ""
        package var lastEvaluationMs: Int64 = 0
        /// The time of the last evaluation that did not fail; nil before it.
        package var lastGoodMs: Int64?
        package var lastSeconds = 0.0
        package var evaluations = 0
        package var failures = 0
    }

    package let group: RuleGroup
    /// Between two evaluations; more than 0.
    package let intervalMs: Int64
    /// By rule, in the group's order: each alert by its labels.
    package internal(set) var states: [[Labels: AlertState]]
    package private(set) var health: [RuleHealth]
    /// The time of the last evaluation; nil before the first.
    package private(set) var lastMs: Int64?
    package private(set) var lastSeconds = 0.0
    package private(set) var iterations = 0
    /// Evaluations whose time passed while another one took too long, or nobody came round.
    package private(set) var missed = 0
    private var recorded: [Set<Labels>]

    /// - Parameter intervalMs: where the group has none of its own.
    init(_ group: RuleGroup, intervalMs: Int64) {
        self.group = group
        self.intervalMs = max(1, group.intervalMs ?? intervalMs)
        states = group.rules.map { _ in [:] }
        health = group.rules.map { _ in RuleHealth() }
        recorded = group.rules.map { _ in [] }
    }

    // MARK: When

    /// The latest time at or before a time at which the group is to be evaluated.
    ///
    /// Groups have their own places within the interval, by their names, so that they do not all come at once.
    func slotMs(atMs: Int64) -> Int64 {
        let offset = Int64(hash % UInt64(intervalMs))
        let since = atMs - offset
        return since - ((since % intervalMs) + intervalMs) % intervalMs + offset
    }

    /// FNV-1a of file and name (Fowler, Noll and Vo, 1991): the same in every process.
    private var hash: UInt64 {
        (group.file + "\u{1f}" + group.name).utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    }

    func isDue(atMs: Int64) -> Bool { lastMs.map { slotMs(atMs: atMs) > $0 } ?? true }

    /// Evaluates the group if its time has come since the last evaluation.
    mutating func evaluateIfDue(
        atMs: Int64, _ setting: Setting, source: any SeriesSource, sink: any SampleSink
    ) {
        let slot = slotMs(atMs: atMs)
        if let lastMs {
            guard slot > lastMs else { return }
            missed += Int((slot - lastMs) / intervalMs) - 1
        }
        evaluate(atMs: slot, setting, source: source, sink: sink)
    }

    // MARK: What

    /// Evaluates the rules at a time, in order; what a rule records is there for the next one.
    mutating func evaluate(atMs: Int64, _ setting: Setting, source: any SeriesSource, sink: any SampleSink) {
        let began = setting.seconds()
        for (index, rule) in group.rules.enumerated() {
            let ruleBegan = setting.seconds()
            health[index].lastEvaluationMs = atMs
            health[index].lastError = ""
            health[index].evaluations += 1
            do {
                let queryMs = atMs - (group.queryOffsetMs ?? 0)
                let samples = try vector(rule, atMs: queryMs, setting, source: source)
                if group.limit > 0, samples.count > group.limit {
                    throw PromQLError(.execution, "exceeded limit of \(group.limit) with \(samples.count) series")
                }
                switch rule.kind {
                case .record(let name): record(name, rule, index, samples, atMs: atMs, sink: sink)
                case .alert:
                    let engine = setting.engine
                    try alert(rule, index, samples, atMs: atMs, setting, sink: sink) { text in
                        try RuleGroupRun.samples(engine.instant(text, atMs: queryMs, source: source))
                    }
                }
                health[index].lastGoodMs = atMs
            } catch {
                health[index].lastError = "\(error)"
                health[index].failures += 1
            }
            health[index].lastSeconds = setting.seconds() - ruleBegan
        }
        lastMs = atMs
        lastSeconds = setting.seconds() - began
        iterations += 1
    }

    private func vector(
        _ rule: Rule, atMs: Int64, _ setting: Setting, source: any SeriesSource
    ) throws -> [(labels: Labels, value: Double)] {
        try RuleGroupRun.samples(setting.engine.instant(rule.expression, atMs: atMs, source: source))
    }

    private static func samples(_ result: QueryResult) -> [(labels: Labels, value: Double)] {
        switch result.value {
        case .vector(let vector): return vector
        case .scalar(let value): return [(Labels(), value)]
        case .string, .matrix: return []
        }
    }

    private mutating func record(
        _ name: String, _ rule: Rule, _ index: Int, _ samples: [(labels: Labels, value: Double)], atMs: Int64,
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
        for labels in recorded[index].subtracting(now) { out.append((labels, staleMarker)) }
        recorded[index] = now
        sink.append(out, atMs: atMs)
    }

    private mutating func alert(
        _ rule: Rule, _ index: Int, _ samples: [(labels: Labels, value: Double)], atMs: Int64, _ setting: Setting,
        sink: any SampleSink, query: @escaping @Sendable (String) throws -> [(labels: Labels, value: Double)]
    ) throws {
        var states = self.states[index]
        let before = Set(states.values.filter { $0.state != .resolved }.map { RuleGroupRun.series(for: $0) })
        var active: Set<Labels> = []
        for sample in samples {
            let data = TemplateData(
                labels: sample.labels, value: sample.value, externalLabels: setting.externalLabels,
                externalURL: setting.externalURL,
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
            var state = states[labels] ?? RuleGroupRun.fresh(labels, atMs: atMs)
            if state.state == .resolved { state = RuleGroupRun.fresh(labels, atMs: atMs) }
            state.annotations = annotations
            state.value = sample.value
            state.keepFiringSinceMs = nil
            states[labels] = state
        }
        for (labels, state) in states {
            states[labels] = RuleGroupRun.next(state, holds: active.contains(labels), rule, atMs: atMs)
        }
        self.states[index] = states
        write(states, before, atMs: atMs, sink: sink)
    }

    private static func fresh(_ labels: Labels, atMs: Int64) -> AlertState {
        AlertState(
            labels: labels.values, annotations: [:], state: .pending,
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
            return atMs - (state.resolvedAtMs ?? atMs) > Alert.endedRetentionMs ? nil : state
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
        var labels = Labels(state.labels)
        labels[Labels.metricName] = "ALERTS"
        labels["alertstate"] = state.state.rawValue
        return labels
    }

    private func write(_ states: [Labels: AlertState], _ before: Set<Labels>, atMs: Int64, sink: any SampleSink) {
        var out: [(labels: Labels, value: Double)] = []
        var now: Set<Labels> = []
        for state in states.values where state.state != .resolved {
            let labels = RuleGroupRun.series(for: state)
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
}
