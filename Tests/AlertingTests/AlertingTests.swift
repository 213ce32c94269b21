import Alerting
import Fetch
import Foundation
import GRDB
import Logging
import PromQL
import Series
import StrictYAML
import Synchronization
import TestSupport
import Testing

private let minute: Int64 = 60_000

private func rules(_ text: String) throws -> [RuleGroup] {
    try RuleFile.load(YAMLDocument(text: text, file: "rules.yaml"))
}

@Suite struct RuleFileTests {
    @Test func groups_areRead() throws {
        let groups = try rules(
            """
            groups:
            - name: g
              interval: 30s
              limit: 5
              labels: {team: a}
              rules:
              - {record: "a:b", expr: sum(up)}
              - {alert: Down, expr: up == 0, for: 5m, keep_firing_for: 1m, labels: {severity: page}, annotations: {summary: "{{ $labels.job }}"}}
            """)
        #expect(groups[0].intervalMs == 30_000 && groups[0].limit == 5)
        #expect(groups[0].rules.map(\.name) == ["a:b", "Down"])
        #expect(groups[0].rules[1].forMs == 300_000 && groups[0].rules[1].keepFiringForMs == 60_000)
        #expect(groups[0].rules[1].labels.map(\.name) == ["team", "severity"])
    }

    @Test func operatorsResource_hasTheGroupsUnderSpec() throws {
        let groups = try rules(
            """
            apiVersion: monitoring.coreos.com/v1
            kind: PrometheusRule
            metadata: {name: r, namespace: monitoring, labels: {role: alert-rules}}
            spec:
              groups:
              - name: g
                rules: [{alert: Down, expr: up == 0}]
            """)
        #expect(groups.map(\.name) == ["g"] && groups[0].rules.map(\.name) == ["Down"])
        #expect(throws: YAMLProblems.self) { try rules("kind: PrometheusRule\nmetadata: {name: r}\n") }
    }

    @Test func faults_areAllTold_withLineAndColumn() {
        let problems = #expect(throws: YAMLProblems.self) {
            try rules(
                """
                groups:
                - name: g
                  rules:
                  - alert: A
                    expr: sum(up
                  - record: a-b
                    expr: up
                    for: 5m
                  - alert: B
                    exprr: up
                  - alert: C
                    expr: up
                    annotations: {summary: "{{ $label.x }}"}
                  - expr: up
                - name: g
                """)
        }
        #expect(
            problems?.description
                == """
                rules.yaml:5:11: could not parse expression: 1:7: parse error: unclosed left parenthesis
                rules.yaml:6:5: invalid field 'for' in recording rule
                rules.yaml:6:13: invalid recording rule name: a-b
                rules.yaml:9:5: groups[0].rules[2]: the field "expr" is missing
                rules.yaml:10:5: unknown field "exprr" in groups[0].rules[2]; did you mean "expr"?
                rules.yaml:13:18: annotation "summary": error parsing template: undefined variable "$label"
                rules.yaml:14:5: one of 'record' or 'alert' must be set
                rules.yaml:15:3: groupname: "g" is repeated in the same file
                """)
    }

    /// Each has a severity, a summary, a description, an entry in the runbook that it names, and a test.
    @Test(arguments: ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "pods"])
    func ownAlerts_areWhole_andHold(name: String) throws {
        let groups = try RuleFile.load(file: Shared.root + "/alerts/\(name).yaml")
        let tests = try RuleTestFile.load(YAMLDocument(file: Shared.root + "/alerts/tests/\(name)-test.yaml"))
        for test in tests.tests { #expect(test.run(groups, in: tests) == []) }
        for rule in groups.flatMap(\.rules) {
            guard case .alert(let alert) = rule.kind else { continue }
            #expect(tests.tests.contains { $0.alerts.contains { $0.alertname == alert } }, "\(alert) has no test")
            #expect(rule.labels.contains { $0.name == "severity" }, "\(alert)")
            let annotations = Dictionary(rule.annotations.map { ($0.name, $0.template.source) }) { $1 }
            #expect(annotations["summary"] != nil && annotations["description"] != nil, "\(alert)")
            let runbook = (annotations["runbook"] ?? "").split(separator: "#").map(String.init)
            #expect(runbook.last == alert.lowercased(), "\(alert)")
            let text = try String(contentsOfFile: Shared.root + "/\(runbook[0])", encoding: .utf8)
            #expect(text.contains("\n## \(alert)\n"), "\(alert) is not in \(runbook[0])")
        }
    }
}

@Suite struct TemplateTests {
    @Test(arguments: [
        ("plain", "plain"), ("{{ $value }}", "0.12345"), ("{{ .Value | humanizePercentage }}", "12.35%"),
        ("{{ $labels.job }}-{{.Labels.missing}}!", "api-!"),
        ("{{ printf \"%.2f of %s\" $value $labels.job }}", "0.12 of api"),
        ("{{ if gt $value 0.5 }}high{{ else if gt $value 0.1 }}middle{{ else }}low{{ end }}", "middle"),
        ("a {{- \" b \" -}} c", "a b c"), ("{{ $labels.job | toUpper | printf \"<%s>\" }}", "<API>"),
        ("{{ reReplaceAll \"a(.)i\" \"x\" $labels.job }}", "x"), ("{{ humanizeDuration 93784 }}", "1d 2h 3m 4s"),
        ("{{ humanize 1234567 }} {{ humanize1024 2048 }}", "1.235M 2ki"), ("{{ (printf \"%d\" 5) | len }}", "1"),
        ("{{ humanizeTimestamp 1e300 }} {{ humanizeDuration 1e300 }}", "1e+300 1e+300"),
        ("{{ $externalLabels.region }}", "eu"), ("{{ eq $labels.job \"api\" }}", "true"), ("{{/* note */}}x", "x"),
        ("{{ range $name, $value := $labels }}{{ $name }}={{ $value }};{{ end }}", "job=api;"),
        ("{{ range query \"up\" }}{{ .Labels.instance }}:{{ .Value }} {{ else }}none{{ end }}", "a:9090:1 b:2 "),
        ("{{ range $i, $s := query \"up\" }}{{ if $i }}, {{ end }}{{ $s | value }}{{ end }}", "1, 2"),
        ("{{ with query \"up\" }}{{ . | first | label \"instance\" | stripPort }}{{ end }}", "a"),
        ("{{ with query \"none\" }}yes{{ else }}no{{ end }}", "no"),
        ("{{ (query \"up\" | sortByLabel \"instance\" | first).Value }}", "1"),
        ("{{ define \"x\" }}<{{ . }}>{{ end }}{{ template \"x\" .Labels.job }}", "<api>"),
        ("{{ define \"x\" }}{{ .arg0 }}{{ .arg1 }}{{ end }}{{ template \"x\" (args 1 \"b\") }}", "1b"),
        ("{{ $x := 1 }}{{ range query \"up\" }}{{ $x = .Value }}{{ end }}{{ $x }}", "2"),
        (
            "{{ range query \"up\" }}{{ break }}{{ end }}{{ range 3 }}{{ . }}{{ if eq . 1 }}{{ continue }}{{ end }};{{ end }}",
            "0;12;"
        ),
        ("{{ index $labels \"job\" }}{{ len $labels }}{{ slice \"abc\" 1 2 }}", "api1b"),
        ("{{ and $value \"x\" }} {{ or 0 \"y\" }} {{ not false }} {{ le 1 1 }}", "x y true true"),
        ("{{ stripDomain \"web.example.com:80\" }} {{ stripDomain \"10.0.0.1:80\" }}", "web:80 10.0.0.1:80"),
        ("{{ externalURL }} {{ pathPrefix }}", "http://watch/sub /sub"),
        ("{{ humanizeTimestamp 1435065584.128 }}", "2015-06-23 13:19:44.128 +0000 UTC"),
        ("{{ graphLink \"up == 1\" }}", "/graph?g0.expr=up+%3D%3D+1&g0.tab=0"),
        ("{{ if and (eq $labels.job \"api\") (gt $value 0.1) -}}  yes  {{- end }}", "yes"),
        ("{{ \"}}\" }}{{ `a\"b` }}", "}}a\"b"),
    ])
    func templates_areExpanded(source: String, wanted: String) throws {
        let data = TemplateData(
            labels: ["job": "api"], value: 0.12345, externalLabels: ["region": "eu"], externalURL: "http://watch/sub"
        ) { text in
            text == "up"
                ? [(["__name__": "up", "instance": "a:9090"], 1), (["__name__": "up", "instance": "b"], 2)] : []
        }
        #expect(try Template(source).expand(data) == wanted)
    }

    @Test(arguments: [
        ("{{ $value", "unclosed action"), ("{{ nonsense }}", "function \"nonsense\" not defined"),
        ("{{ if $value }}", "unexpected EOF, expected {{end}}"), ("{{ end }}", "unexpected {{end}}"),
        ("{{ \"x }}", "unterminated quoted string"), ("{{ $x }}", "undefined variable \"$x\""),
        ("{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}", "undefined variable \"$x\""),
        ("{{ break }}", "{{break}} outside {{range}}"),
        ("{{ define x }}{{ end }}", "a template's name must be a string"),
    ])
    func badTemplates_areRefused(source: String, reason: String) {
        let error = #expect(throws: TemplateError.self) { try Template(source) }
        #expect(error?.description == "error parsing template: \(reason)")
    }
}

@Suite struct RuleEvaluatorTests {
    private func evaluate(_ text: String, _ values: [Double?]) throws -> [[String]] {
        let store = MemorySeries()
        var evaluator = RuleEvaluator(groups: try rules(text))
        var seen: [[String]] = []
        for (index, value) in values.enumerated() {
            let atMs = Int64(index) * minute
            store.append([(["__name__": "x", "job": "j"], value ?? staleMarker)], atMs: atMs)
            evaluator.evaluate(evaluator.groups[0], atMs: atMs, source: store, sink: store)
            seen.append(evaluator.states.values.flatMap { $0.values.map(\.state.rawValue) })
        }
        return seen
    }

    @Test func anAlert_isPendingThenFiringThenResolved() throws {
        let text = "groups: [{name: g, rules: [{alert: A, expr: x > 1, for: 2m}]}]"
        #expect(
            try evaluate(text, [0, 5, 5, 5, 5, 0, 0])
                == [[], ["pending"], ["pending"], ["firing"], ["firing"], ["resolved"], ["resolved"]])
        #expect(try evaluate(text, [5, 0, 5]) == [["pending"], [], ["pending"]])
    }

    @Test func keepFiringFor_bridgesAGap() throws {
        let text = "groups: [{name: g, rules: [{alert: A, expr: x > 1, keep_firing_for: 2m}]}]"
        #expect(
            try evaluate(text, [5, 0, 5, 0, 0, 0]) == [
                ["firing"], ["firing"], ["firing"], ["firing"], ["firing"], ["resolved"],
            ])
    }

    @Test func recordedSeries_areThereForTheNextRule_andEndWithTheirSource() throws {
        let store = MemorySeries()
        var evaluator = RuleEvaluator(
            groups: try rules(
                "groups: [{name: g, rules: [{record: 'a:sum', expr: sum by (job) (x), labels: {k: v}}, {alert: A, expr: 'a:sum > 1'}]}]"
            ))
        store.append([(["__name__": "x", "job": "j"], 5)], atMs: 0)
        evaluator.evaluate(evaluator.groups[0], atMs: 0, source: store, sink: store)
        #expect(evaluator.alerts.map(\.labels) == [["alertname": "A", "job": "j", "k": "v"]])
        store.append([(["__name__": "x", "job": "j"], staleMarker)], atMs: minute)
        evaluator.evaluate(evaluator.groups[0], atMs: minute, source: store, sink: store)
        let recorded = try store.select([.equal("__name__", "a:sum")], fromMs: .min, throughMs: .max)
        #expect(recorded.first?.values.last?.isStaleMarker == true)
        let alerts = try store.select([.equal("__name__", "ALERTS")], fromMs: .min, throughMs: .max)
        #expect(alerts.first?.values.first == 1 && alerts.first?.values.last?.isStaleMarker == true)
    }

    @Test func failingRule_isTold_andTheOthersGoOn() throws {
        let store = MemorySeries()
        var evaluator = RuleEvaluator(
            groups: try rules(
                "groups: [{name: g, rules: [{alert: A, expr: x * on (a) y}, {alert: B, expr: vector(1)}]}]"))
        store.append(
            [
                (["__name__": "x", "a": "1", "b": "1"], 1), (["__name__": "x", "a": "1", "b": "2"], 1),
                (["__name__": "y", "a": "1"], 1),
            ], atMs: 0)
        evaluator.evaluate(evaluator.groups[0], atMs: 0, source: store, sink: store)
        #expect(evaluator.alerts.count == 1)
        #expect(evaluator.runs[0].health.map(\.failures) == [1, 0])
        #expect(evaluator.runs[0].health[0].lastError.hasPrefix("multiple matches for labels"))
    }

    /// Each group has its own place in the interval; what comes late is evaluated once, and what was left out is counted.
    @Test func groups_areEvaluatedWhenTheirTimeHasCome() throws {
        let store = MemorySeries()
        let names = (0..<40).map {
            "{name: g\($0), interval: \($0 % 2 + 1)m, rules: [{record: 'r\($0)', expr: vector(1)}]}"
        }
        var evaluator = RuleEvaluator(groups: try rules("groups: [\(names.joined(separator: ", "))]"))
        for atMs in stride(from: 10 * minute, through: 20 * minute, by: 5000) {
            evaluator.evaluateDue(atMs: atMs, source: store, sink: store)
        }
        for run in evaluator.runs {
            let expected = Int(10 * minute / run.intervalMs) + 1
            #expect((expected - 1...expected).contains(run.iterations) && run.missed == 0)
            #expect(try #require(run.lastMs) > 20 * minute - run.intervalMs)
        }
        let slots = Set(evaluator.runs.compactMap { $0.lastMs.map { $0 % minute } })
        #expect(slots.count > 20)
        // Nobody came round for ten minutes.
        let before = evaluator.runs.map(\.iterations)
        evaluator.evaluateDue(atMs: 30 * minute, source: store, sink: store)
        for (run, before) in zip(evaluator.runs, before) {
            #expect(run.iterations == before + 1)
            #expect(run.missed == Int(10 * minute / run.intervalMs) - 1)
        }
        // What is recorded has the time at which it was due.
        let recorded = try store.select([.equal("__name__", "r0")], fromMs: .min, throughMs: .max)
        #expect(
            recorded.first?.timestampsMs.allSatisfy { ($0 - (recorded.first?.timestampsMs[0] ?? 0)) % minute == 0 }
                == true)
    }
}

@Suite struct DispatcherTests {
    private func alert(_ name: String, start: Int64 = 0, end: Int64? = nil) -> Alert {
        Alert(labels: ["alertname": name, "cluster": "c"], annotations: [:], startsAtMs: start, endsAtMs: end)
    }

    private var route: Route {
        var route = Route(receiver: "r")
        route.groupBy = ["cluster"]
        route.groupWaitMs = 30_000
        route.groupIntervalMs = 5 * minute
        route.repeatIntervalMs = 60 * minute
        return route
    }

    @Test func group_waitsThenTellsNewsThenRepeats() {
        var dispatcher = Dispatcher(route: route)
        func names(_ alerts: [Alert], _ atMs: Int64) -> [[String]] {
            dispatcher.dispatch(alerts, atMs: atMs).map {
                $0.alerts.map { ($0.labels["alertname"] ?? "") + ($0.isFiring ? "" : "!") }
            }
        }
        let a = alert("a")
        #expect(names([a], 0) == [])
        #expect(names([a], 29_000) == [])
        #expect(names([a, alert("b", start: 1)], 30_000) == [["a", "b"]])
        #expect(names([a, alert("b", start: 1), alert("c", start: 2)], 60_000) == [])
        #expect(
            names([a, alert("b", start: 1, end: 70_000), alert("c", start: 2)], 30_000 + 5 * minute) == [
                ["a", "b!", "c"]
            ])
        #expect(names([a, alert("c", start: 2)], 30_000 + 10 * minute) == [])
        #expect(names([a, alert("c", start: 2)], 30_000 + 66 * minute) == [["a", "c"]])
        #expect(names([alert("a", end: 1), alert("c", start: 2, end: 3)], 30_000 + 80 * minute) == [["a!", "c!"]])
        #expect(names([], 100 * minute) == [])
        #expect(dispatcher.groups.isEmpty)
    }

    @Test func alertThatNobodyKnowsAnyMore_isToldAsResolved() {
        var dispatcher = Dispatcher(route: route)
        _ = dispatcher.dispatch([alert("a")], atMs: 0)
        #expect(dispatcher.dispatch([alert("a")], atMs: 30_000).count == 1)
        let last = dispatcher.dispatch([], atMs: 30_000 + 5 * minute)
        #expect(last.map { $0.alerts.map(\.endsAtMs) } == [[30_000 + 5 * minute]])
        #expect(dispatcher.dispatch([], atMs: 30_000 + 10 * minute).isEmpty)
        #expect(dispatcher.groups.isEmpty)
    }

    @Test func restoredState_doesNotTellTwice() {
        var first = Dispatcher(route: route)
        #expect(first.dispatch([alert("a")], atMs: 0).isEmpty)
        #expect(first.dispatch([alert("a")], atMs: 30_000).count == 1)
        var second = Dispatcher(route: route)
        second.restore(first.groups)
        #expect(second.dispatch([alert("a")], atMs: 31_000).isEmpty)
        #expect(second.dispatch([alert("a")], atMs: 30_000 + 5 * minute).isEmpty)
    }

    @Test func routes_chooseTheReceiver() throws {
        var child = Route(receiver: "pager")
        child.matchers = [.equal("severity", "critical")]
        var top = route
        top.routes = [child]
        top.groupWaitMs = 0
        top.routes[0].groupWaitMs = 0
        var dispatcher = Dispatcher(route: top)
        let critical = Alert(labels: ["alertname": "x", "severity": "critical"], annotations: [:], startsAtMs: 0)
        #expect(dispatcher.dispatch([critical, alert("a")], atMs: 0).map(\.receiver).sorted() == ["pager", "r"])
    }

    @Test func payload_isAlertmanagersVersion4() throws {
        let notification = GroupMessage(
            receiver: "r", groupKey: "{}:{}", groupLabels: ["cluster": "c"],
            alerts: [
                alert("a", start: 1_795_453_080_000), alert("b", start: 1_795_453_080_000, end: 1_795_453_090_000),
            ])
        let payload = try #require(
            WebhookPayload(notification, webhook: Webhook(url: "http://x"), externalURL: "http://me"))
        #expect(payload.version == "4" && payload.status == "firing" && payload.commonLabels == ["cluster": "c"])
        #expect(payload.alerts.map(\.status) == ["firing", "resolved"])
        #expect(payload.alerts.map(\.endsAt) == ["0001-01-01T00:00:00Z", "2026-11-23T16:58:10Z"])
        #expect(payload.alerts[0].fingerprint.count == 16)
        var firingOnly = Webhook(url: "http://x")
        firingOnly.sendsResolved = false
        #expect(WebhookPayload(notification, webhook: firingOnly, externalURL: "")?.alerts.count == 1)
        firingOnly.maxAlerts = 1
        firingOnly.sendsResolved = true
        #expect(WebhookPayload(notification, webhook: firingOnly, externalURL: "")?.truncatedAlerts == 1)
    }
}

@Suite struct DeliveryTests {
    private func store() throws -> AlertStore {
        let queue = try DatabaseQueue()
        var migrator = DatabaseMigrator()
        AlertStore.registerMigrations(&migrator)
        try migrator.migrate(queue)
        return AlertStore(queue)
    }

    private func queue(_ store: AlertStore, _ names: [String]) throws {
        let messages = names.compactMap { name -> (receiver: String, webhook: Int, payload: WebhookPayload)? in
            let alert = Alert(labels: ["alertname": name], annotations: [:], startsAtMs: 0)
            let notification = GroupMessage(receiver: "r", groupKey: name, groupLabels: [:], alerts: [alert])
            return WebhookPayload(notification, webhook: Webhook(url: ""), externalURL: "").map { ("r", 0, $0) }
        }
        _ = try store.commit(states: [], groups: [:], messages: messages, atMs: 0)
    }

    @Test func messages_areRetriedInOrder_untilTheyArrive() async throws {
        let store = try store()
        try queue(store, ["one", "two"])
        let failing = RawServer { _, connection in connection.answer("", status: "503 Service Unavailable") }
        let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        func delivery(_ url: String) -> Delivery {
            Delivery(
                receivers: [Receiver(name: "r", webhooks: [Webhook(url: url)])], store: store, client: HTTPClient(),
                logger: logger)
        }
        #expect(try await delivery(failing.url).deliver(atMs: 0) == .init(failed: 1))
        // The second message waits behind the first.
        #expect(try await delivery(failing.url).deliver(atMs: 500) == .init())
        #expect(try await delivery(failing.url).deliver(atMs: 1000) == .init(failed: 1))
        let good = RawServer { _, connection in connection.answer("ok") }
        #expect(try await delivery(good.url).deliver(atMs: 3000) == .init(sent: 2))
        #expect(try store.queued() == 0)
        let bodies = good.heads.map { $0.contains("\"one\"") ? "one" : "two" }
        #expect(bodies == ["one", "two"])
        #expect(good.heads[0].contains("X-Upgrade-Watch-Message-Id: 1"))
        // A number is not given again when its message is gone: receivers know what they had by it.
        try queue(store, ["three"])
        #expect(try await delivery(good.url).deliver(atMs: 4000) == .init(sent: 1))
        #expect(good.heads[2].contains("X-Upgrade-Watch-Message-Id: 3"))
    }

    /// What is wrong on the way to a receiver is mended while the news are still news: they wait.
    @Test(arguments: ["401 Unauthorized", "403 Forbidden", "404 Not Found", "429 Too Many Requests"])
    func refusedOnTheWay_isSentAgain(status: String) async throws {
        let store = try store()
        try queue(store, ["one"])
        let isMended = Atomic(false)
        let server = RawServer { _, connection in
            connection.answer("", status: isMended.load(ordering: .relaxed) ? "200 OK" : status)
        }
        let delivery = Delivery(
            receivers: [Receiver(name: "r", webhooks: [Webhook(url: server.url)])], store: store, client: HTTPClient(),
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
        #expect(try await delivery.deliver(atMs: 0) == .init(failed: 1))
        isMended.store(true, ordering: .relaxed)
        #expect(try await delivery.deliver(atMs: 60_000) == .init(sent: 1))
    }

    @Test func refusedMessage_doesNotHoldTheOthers() async throws {
        let store = try store()
        try queue(store, ["one", "two"])
        let server = RawServer { head, connection in
            connection.answer("", status: head.contains("\"one\"") ? "400 Bad Request" : "200 OK")
        }
        let delivery = Delivery(
            receivers: [Receiver(name: "r", webhooks: [Webhook(url: server.url)])], store: store, client: HTTPClient(),
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
        #expect(try await delivery.deliver(atMs: 0) == .init(sent: 1, refused: 1))
        #expect(try store.queued() == 0)
    }
}

@Suite struct RuleTestTests {
    private static let rules = """
        groups:
        - name: g
          rules:
          - {record: "job:up:sum", expr: "sum by (job) (up)"}
          - alert: Down
            expr: job:up:sum < 1
            for: 2m
            labels: {severity: page}
            annotations: {summary: "{{ $labels.job }} is {{ $value }}"}
        """

    private func problems(_ test: String) throws -> [String] {
        let text = "rule_files: [rules.yaml]\nevaluation_interval: 1m\ntests:\n" + test
        let file = try RuleTestFile.load(YAMLDocument(text: text, file: "test.yaml"))
        let groups = try RuleFile.load(YAMLDocument(text: RuleTestTests.rules, file: "rules.yaml"))
        return file.tests.flatMap { $0.run(groups, in: file) }
    }

    private func test(expected value: Double, summary: String) -> String {
        """
        - interval: 1m
          input_series: [{series: 'up{job="a"}', values: '1 0x9'}]
          alert_rule_test:
          - {eval_time: 2m, alertname: Down}
          - eval_time: 3m30s
            alertname: Down
            exp_alerts:
            - {exp_labels: {job: a, severity: page}, exp_annotations: {summary: "\(summary)"}}
          promql_expr_test:
          - {expr: "job:up:sum + 1", eval_time: 4m, exp_samples: [{labels: '{job="a"}', value: \(value)}]}
        """
    }

    @Test func whatHolds_isNoProblem() throws {
        #expect(try problems(test(expected: 1, summary: "a is 0")).isEmpty)
    }

    @Test func whatDoesNotHold_isToldInPromtoolsForm() throws {
        let problems = try problems(test(expected: 2, summary: "else"))
        #expect(
            problems == [
                """
                    alertname: Down, time: 3m30s,
                        exp:[
                            0:
                              Labels:{alertname="Down", job="a", severity="page"}
                              Annotations:{summary="else"}
                            ],
                        got:[
                            0:
                              Labels:{alertname="Down", job="a", severity="page"}
                              Annotations:{summary="a is 0"}
                            ]
                """,
                """
                    expr: "job:up:sum + 1", time: 4m,
                        exp:\u{20}
                            {job="a"} 2
                        got:\u{20}
                            {job="a"} 1
                """,
            ])
    }

    @Test func badFiles_areRefusedWithTheirPlaces() {
        let text = "tests:\n- input_series: [{series: 'up{', values: '1'}, {series: up, values: 'a b'}]\n  wrong: 1\n"
        let error = #expect(throws: YAMLProblems.self) {
            try RuleTestFile.load(YAMLDocument(text: text, file: "t.yaml"))
        }
        #expect(error?.problems.count == 3)
        #expect(error?.problems.first?.line == 2)
    }
}

@Suite struct RuleLintTests {
    /// Prometheus takes such files, and so do we; what is mostly a mistake is told.
    @Test func duplicates_areToldAndTaken() throws {
        let groups = try rules(
            """
            groups:
            - name: g
              rules:
              - {record: "a:b", expr: sum(x), labels: {q: "1"}}
              - {record: "a:b", expr: sum(y), labels: {q: "2"}}
              - {alert: X, expr: up}
            - name: h
              rules:
              - {record: "a:b", expr: sum(z), labels: {q: "1"}}
              - {alert: X, expr: up, labels: {q: "1"}}
            """)
        #expect(groups.flatMap(\.rules).count == 5)
        let found = RuleLint.duplicates(groups)
        #expect(found.map(\.name) == ["a:b"] && found.map(\.labels) == [["q": "1"]])
    }
}

/// Rules as those are written who watch clusters with Prometheus: they run as they are.
@Suite struct FieldRulesTests {
    private static let text = #"""
        groups:
        - name: node.rules
          interval: 30s
          rules:
          - record: 'node_namespace_pod:kube_pod_info:'
            expr: |
              topk by (cluster, namespace, pod) (1,
                max by (cluster, node, namespace, pod) (
                  label_replace(kube_pod_info{job="kube-state-metrics", node!=""}, "pod", "$1", "exported_pod", "(.+)")
                )
              )
          - record: node:node_num_cpu:sum
            expr: |
              count by (cluster, node) (
                node_cpu_seconds_total{job="node-exporter", mode="idle"}
                * on (cluster, namespace, pod) group_left (node)
                topk by (cluster, namespace, pod) (1, node_namespace_pod:kube_pod_info:)
              )
          - record: ':node_num_cpu:sum'
            expr: sum(node:node_num_cpu:sum) by (cluster)
            labels: {source: rules}
        - name: availability
          rules:
          - record: code_verb:apiserver_request:rate5m
            expr: sum by (cluster, code, verb) (rate(apiserver_request_total{job="apiserver"}[5m]))
          - record: apiserver_request:burnrate5m
            expr: |
              (
                sum by (cluster) (code_verb:apiserver_request:rate5m{code=~"5.."}) or vector(0)
              )
              / ignoring () group_left ()
              sum by (cluster) (code_verb:apiserver_request:rate5m)
          - alert: APIErrorBudgetBurn
            expr: apiserver_request:burnrate5m > (14.4 * 0.01)
            for: 1m
            labels: {severity: critical, long: 1h}
            annotations:
              summary: 'burns at {{ $value | humanizePercentage }}{{ with $labels.cluster }} in {{ . }}{{ end }}'
        - name: volumes
          rules:
          - alert: VolumeFillsUp
            expr: |
              kubelet_volume_stats_available_bytes / kubelet_volume_stats_capacity_bytes < 0.5
                and predict_linear(kubelet_volume_stats_available_bytes[6m], 4 * 24 * 3600) < 0
              unless on (cluster, namespace, persistentvolumeclaim)
                kube_persistentvolumeclaim_labels{label_excluded_from_alerts="true"} == 1
            annotations: {summary: '{{ $labels.persistentvolumeclaim }} is full within days'}
          - alert: KubeProxyDown
            expr: absent(up{job="kube-proxy"} == 1)
            for: 2m
        """#

    @Test func run_asTheyAre() throws {
        let store = MemorySeries()
        var evaluator = RuleEvaluator(groups: try rules(Self.text))
        for step in 0...40 {
            let atMs = Int64(step) * 30_000
            let node = { (name: String, more: Labels) in more.merging(["__name__": name, "cluster": "c"]) }
            store.append(
                [
                    (
                        node(
                            "kube_pod_info",
                            ["job": "kube-state-metrics", "node": "n1", "namespace": "m", "exported_pod": "e1"]), 1
                    ),
                    (
                        node(
                            "node_cpu_seconds_total",
                            ["job": "node-exporter", "mode": "idle", "cpu": "0", "namespace": "m", "pod": "e1"]), 1
                    ),
                    (
                        node(
                            "node_cpu_seconds_total",
                            ["job": "node-exporter", "mode": "idle", "cpu": "1", "namespace": "m", "pod": "e1"]), 1
                    ),
                    (
                        node("apiserver_request_total", ["job": "apiserver", "code": "200", "verb": "GET"]),
                        Double(step) * 80
                    ),
                    (
                        node("apiserver_request_total", ["job": "apiserver", "code": "503", "verb": "GET"]),
                        Double(step) * 20
                    ),
                    (
                        node("kubelet_volume_stats_available_bytes", ["namespace": "a", "persistentvolumeclaim": "p"]),
                        4000 - Double(step) * 50
                    ),
                    (
                        node("kubelet_volume_stats_capacity_bytes", ["namespace": "a", "persistentvolumeclaim": "p"]),
                        8000
                    ),
                ], atMs: atMs)
            for group in evaluator.groups { evaluator.evaluate(group, atMs: atMs, source: store, sink: store) }
        }
        let errors = evaluator.runs.flatMap(\.health).map(\.lastError).filter { !$0.isEmpty }
        #expect(errors == [])
        let last = { (name: String) throws in
            try store.select([.equal(Labels.metricName, name)], fromMs: 0, throughMs: .max).map {
                ($0.labels.withoutName, $0.values.last)
            }
        }
        let sum = try last(":node_num_cpu:sum")
        #expect(sum.map(\.0) == [["cluster": "c", "source": "rules"]] && sum.first?.1 == 2)
        let firing = evaluator.states.values.flatMap(\.values).filter { $0.state == .firing }
        let names = Set(firing.compactMap { $0.labels["alertname"] })
        #expect(
            names == [
                "APIErrorBudgetBurn", "VolumeFillsUp", "KubeProxyDown",
            ])
        let burn = firing.first { $0.labels["alertname"] == "APIErrorBudgetBurn" }
        #expect(burn?.annotations["summary"] == "burns at 20% in c")
    }
}
