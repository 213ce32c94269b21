import Foundation
import PromQL
import Series
import StrictYAML

/// Unit tests of rules, in the format of `promtool test rules`
/// (prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules).
package struct RuleTestFile: Sendable {
    /// Paths as the file names them, with `*` and `?`.
    package var ruleFiles: [String] = []
    package var evaluationIntervalMs: Int64 = 60_000
    /// Groups that are evaluated before the others, in this order.
    package var groupOrder: [String] = []
    /// Whether values may differ by rounding.
    package var isFuzzy = false
    package var tests: [RuleTest] = []

    /// Reads a file.
    ///
    /// - Throws: `YAMLProblems` with all that is wrong with it.
    package static func load(_ document: YAMLDocument) throws -> RuleTestFile {
        var file = RuleTestFile()
        document.root.fields { fields in
            file.ruleFiles = fields.stringList("rule_files")
            file.evaluationIntervalMs = fields.durationMs("evaluation_interval") ?? 60_000
            file.groupOrder = fields.stringList("group_eval_order")
            file.isFuzzy = fields.bool("fuzzy_compare") ?? false
            for value in fields.list("tests") {
                guard let test = value.fields({ RuleTest(&$0, intervalMs: file.evaluationIntervalMs) }) else {
                    continue
                }
                file.tests.append(test)
            }
        }
        try document.finish()
        return file
    }
}

/// One test group: series, and what rules and expressions make of them.
package struct RuleTest: Sendable {
    package struct AlertCase: Sendable {
        var atMs: Int64
        package var alertname: String
        var expected: [(labels: Labels, annotations: Labels)] = []
    }

    package struct ExpressionCase: Sendable {
        var expression: String
        var atMs: Int64
        var expected: [(labels: Labels, value: Double)] = []
    }

    package var name = ""
    package var intervalMs: Int64
    package var startMs: Int64 = 0
    package var series: [(labels: Labels, values: [Double?])] = []
    package var alerts: [AlertCase] = []
    package var expressions: [ExpressionCase] = []
    package var externalLabels = Labels()
    package var externalURL = ""

    init(_ fields: inout YAMLFields, intervalMs: Int64) {
        self.intervalMs = fields.durationMs("interval") ?? intervalMs
        name = fields.string("name") ?? ""
        externalURL = fields.string("external_url") ?? ""
        externalLabels = RuleTest.labels(fields.strings("external_labels"))
        if let start = fields.take("start_timestamp"), let text = start.string {
            let ms = Double(text).map { Int64($0 * 1000) } ?? TimeFormat.milliseconds(rfc3339: text)
            if let ms { startMs = ms } else { start.report("\(Labels.quoted(text)) is not a time") }
        }
        for value in fields.list("input_series") { value.fields { readSeries(&$0) } }
        for value in fields.list("alert_rule_test") { value.fields { readAlert(&$0) } }
        for value in fields.list("promql_expr_test") { value.fields { readExpression(&$0) } }
    }

    private static func labels(_ pairs: [(name: String, value: String)]) -> Labels {
        Labels(pairs.map { Label($0.name, $0.value) })
    }

    private mutating func readSeries(_ fields: inout YAMLFields) {
        let name = fields.required("series")
        let values = fields.required("values")
        guard let series = name?.string, let text = values?.string else { return }
        guard let (labels, _) = SeriesNotation.parse(series) else {
            name?.report("\(Labels.quoted(series)) is not a series")
            return
        }
        guard let list = SeriesNotation.values(text) else {
            values?.report("\(Labels.quoted(text)) are no values; write them as in 1 2 3, 1+1x5, _x3 or stale")
            return
        }
        self.series.append((labels, list))
    }

    private mutating func readAlert(_ fields: inout YAMLFields) {
        let at = fields.required("eval_time")?.durationMs
        let name = fields.required("alertname")?.string
        var expected: [(labels: Labels, annotations: Labels)] = []
        for value in fields.list("exp_alerts") {
            value.fields { fields in
                var labels = RuleTest.labels(fields.strings("exp_labels"))
                labels["alertname"] = name
                expected.append((labels, RuleTest.labels(fields.strings("exp_annotations"))))
            }
        }
        guard let at, let name else { return }
        alerts.append(AlertCase(atMs: at, alertname: name, expected: expected))
    }

    private mutating func readExpression(_ fields: inout YAMLFields) {
        let at = fields.required("eval_time")?.durationMs
        let text = fields.required("expr")?.string
        var expected: [(labels: Labels, value: Double)] = []
        for value in fields.list("exp_samples") {
            value.fields { fields in
                let labels = fields.take("labels")
                let number = fields.double("value")
                if let histogram = fields.take("histogram") {
                    histogram.report("native histograms are not supported")
                }
                let text = labels?.string ?? "{}"
                guard let (set, _) = SeriesNotation.parse(text.isEmpty ? "{}" : text) else {
                    labels?.report("\(Labels.quoted(text)) are no labels")
                    return
                }
                expected.append((set, number ?? 0))
            }
        }
        guard let at, let text else { return }
        expressions.append(ExpressionCase(expression: text, atMs: at, expected: expected))
    }

    // MARK: Running

    /// What does not hold, in promtool's form; empty where all does.
    package func run(_ groups: [RuleGroup], in file: RuleTestFile, features: QueryFeatures = []) -> [String] {
        let store = MemorySeries()
        for (labels, values) in series {
            var batch = SampleBatch()
            let id = store.ids(for: [labels])[0]
            for (index, value) in values.enumerated() {
                if let value { batch.append(id, timestampMs: startMs + Int64(index) * intervalMs, value: value) }
            }
            _ = store.append(batch)
        }
        let engine = QueryEngine(features: features)
        var evaluator = RuleEvaluator(
            groups: groups, engine: engine, externalLabels: externalLabels, externalURL: externalURL)
        let ordered = groups.sorted { order($0, file) < order($1, file) }
        let lastMs = (alerts.map(\.atMs) + expressions.map(\.atMs)).max() ?? 0
        var problems: [String] = []
        var atMs: Int64 = 0
        while atMs <= lastMs {
            for group in ordered {
                evaluator.evaluate(group, atMs: startMs + atMs, source: store, sink: store)
                let run = evaluator.runs.first { $0.group.file == group.file && $0.group.name == group.name }
                for (rule, health) in zip(group.rules, run?.health ?? []) {
                    let error = health.lastError
                    if error.isEmpty { continue }
                    problems.append(
                        "    rule: \(rule.name), time: \(TimeFormat.duration(ms: atMs)), err: \(error)")
                }
            }
            // An alert is asked for at a time between two evaluations as it was at the first.
            for one in alerts where atMs <= one.atMs && one.atMs < atMs + file.evaluationIntervalMs {
                if let problem = check(one, evaluator) { problems.append(problem) }
            }
            atMs += file.evaluationIntervalMs
        }
        for one in expressions {
            if let problem = check(one, engine, store, isFuzzy: file.isFuzzy) { problems.append(problem) }
        }
        return problems
    }

    private func order(_ group: RuleGroup, _ file: RuleTestFile) -> Int {
        file.groupOrder.firstIndex(of: group.name) ?? .max
    }

    private var title: String { name.isEmpty ? "" : "    name: \(name),\n" }

    private func check(_ one: AlertCase, _ evaluator: RuleEvaluator) -> String? {
        var got: [(labels: Labels, annotations: Labels)] = []
        for states in evaluator.states.values {
            for state in states.values where state.state == .firing && state.labels["alertname"] == one.alertname {
                got.append(
                    (
                        Labels(state.labels),
                        Labels(state.annotations)
                    ))
            }
        }
        let words = { (list: [(labels: Labels, annotations: Labels)]) in
            list.sorted { ($0.labels, $0.annotations) < ($1.labels, $1.annotations) }
                .map { "Labels:\($0.labels.braced)\n              Annotations:\($0.annotations.braced)" }
        }
        let (expected, found) = (words(one.expected), words(got))
        guard expected != found else { return nil }
        return title + "    alertname: \(one.alertname), time: \(TimeFormat.duration(ms: one.atMs)),"
            + "\n        exp:\(RuleTest.listed(expected)),\n        got:\(RuleTest.listed(found))"
    }

    private static func listed(_ rows: [String]) -> String {
        guard !rows.isEmpty else { return "[]" }
        let lines = rows.enumerated().map { "            \($0):\n              \($1)" }
        return "[\n" + lines.joined(separator: "\n") + "\n            ]"
    }

    private func check(
        _ one: ExpressionCase, _ engine: QueryEngine, _ store: MemorySeries, isFuzzy: Bool
    ) -> String? {
        let head = title + "    expr: \(Labels.quoted(one.expression)), time: \(TimeFormat.duration(ms: one.atMs)),"
        var got: [(labels: Labels, value: Double)]
        do {
            switch try engine.instant(one.expression, atMs: startMs + one.atMs, source: store).value {
            case .vector(let vector): got = vector
            case .scalar(let value): got = [(Labels(), value)]
            case .string, .matrix: return head + " err: the expression gives neither a vector nor a number"
            }
        } catch {
            return head + " err: \(error)"
        }
        got.sort { $0.labels < $1.labels }
        let expected = one.expected.sorted { $0.labels < $1.labels }
        let isAsExpected =
            got.count == expected.count
            && zip(got, expected).allSatisfy {
                $0.labels == $1.labels && RuleTest.areEqual($0.value, $1.value, isFuzzy: isFuzzy)
            }
        if isAsExpected { return nil }
        let words = { (list: [(labels: Labels, value: Double)]) in
            list.isEmpty
                ? "nil"
                : list.map { "\n            \($0.labels) \(GoFloat.text($0.value))" }.joined()
        }
        return head + "\n        exp: \(words(expected))\n        got: \(words(got))"
    }

    private static func areEqual(_ a: Double, _ b: Double, isFuzzy: Bool) -> Bool {
        if a == b || a.isNaN && b.isNaN { return true }
        // promtool's relative error.
        return isFuzzy && a.isFinite && b.isFinite && abs(a - b) <= 1e-6 * max(abs(a), abs(b))
    }
}
