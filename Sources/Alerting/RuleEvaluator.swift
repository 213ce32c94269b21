import Fetch
import PromQL
import Series

/// Evaluates rule groups, each when its time has come, and keeps the states of their alerts.
package struct RuleEvaluator: Sendable {
    package private(set) var runs: [RuleGroupRun]
    private let setting: RuleGroupRun.Setting

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

    /// - Parameters:
    ///   - intervalMs: of groups that have none of their own.
    ///   - seconds: a clock that only goes forward, for how long evaluations take.
    package init(
        groups: [RuleGroup], intervalMs: Int64 = 60_000, engine: QueryEngine = QueryEngine(),
        externalLabels: Labels = Labels(),
        externalURL: String = "", seconds: @escaping @Sendable () -> Double = { 0 }
    ) {
        runs = groups.map { RuleGroupRun($0, intervalMs: intervalMs) }
        setting = RuleGroupRun.Setting(
            engine: engine, externalLabels: externalLabels, externalURL: externalURL, seconds: seconds)
    }

    package var groups: [RuleGroup] { runs.map(\.group) }

    /// Takes back the states that a process before this one wrote down; those of rules that are no more are dropped.
    package mutating func restore(_ stored: [(key: RuleKey, name: String, state: AlertState)]) {
        for entry in stored {
            guard let place = place(file: entry.key.file, group: entry.key.group),
                entry.key.index < runs[place].group.rules.count,
                runs[place].group.rules[entry.key.index].name == entry.name
            else { continue }
            let labels = Labels(entry.state.labels)
            runs[place].states[entry.key.index][labels] = entry.state
        }
    }

    private func place(file: String, group: String) -> Int? {
        runs.firstIndex { $0.group.file == file && $0.group.name == group }
    }

    /// Evaluates the groups whose time has come, several at a time: groups see of each other what the store has, in no
    /// order.
    /// - Returns: whether there was any.
    @discardableResult
    package mutating func evaluateDue(atMs: Int64, source: any SeriesSource, sink: any SampleSink) -> Bool {
        guard runs.contains(where: { $0.isDue(atMs: atMs) }) else { return false }
        // Nothing throws: what is wrong with a rule is in its health.
        try? runs.mutateConcurrently { [setting] run in
            run.evaluateIfDue(atMs: atMs, setting, source: source, sink: sink)
        }
        return true
    }

    /// Evaluates the rules of a group at a time, in order; what a rule records is there for the next one.
    package mutating func evaluate(_ group: RuleGroup, atMs: Int64, source: any SeriesSource, sink: any SampleSink) {
        guard let place = place(file: group.file, group: group.name) else { return }
        runs[place].evaluate(atMs: atMs, setting, source: source, sink: sink)
    }

    /// The states of all alerts, by rule and labels.
    package var states: [RuleKey: [Labels: AlertState]] {
        var all: [RuleKey: [Labels: AlertState]] = [:]
        for run in runs {
            for (index, states) in run.states.enumerated() where !states.isEmpty {
                all[RuleKey(file: run.group.file, group: run.group.name, index: index)] = states
            }
        }
        return all
    }

    /// The alerts to send: firing ones, and those that ended lately, each with a link to its rule's expression.
    ///
    /// They are confirmed by evaluations of their rule that do not fail.
    package var alerts: [Alert] {
        runs.flatMap { run in
            run.group.rules.indices.flatMap { index -> [Alert] in
                let (rule, states) = (run.group.rules[index], run.states[index])
                guard !states.isEmpty else { return [] }
                let validUntilMs = run.health[index].lastGoodMs.map {
                    AlertSchedule.validUntilMs(confirmedMs: $0, intervalMs: run.intervalMs)
                }
                let link = "\(setting.externalURL)/api/v1/query?\(FetchRequest.form([("query", rule.text)]))"
                return states.values.compactMap { state in
                    var alert = state.alert
                    alert?.generatorURL = link
                    alert?.validUntilMs = validUntilMs
                    return alert
                }
            }
        }
    }
}
