import Alerting
import Fetch
import Foundation
import PromQL
import Series
import StrictYAML
import TestSupport
import Testing

@Suite struct AlertScheduleTests {
    private func alert(_ name: String, from startsAtMs: Int64 = 0, to endsAtMs: Int64? = nil) -> Alert {
        Alert(
            labels: ["alertname": name], annotations: [:], startsAtMs: startsAtMs, endsAtMs: endsAtMs,
            validUntilMs: 300_000)
    }

    private func names(_ alerts: [Alert]) -> [String] { alerts.map { $0.labels["alertname"] ?? "" } }

    @Test func whatBeginsOrEnds_isDueAtOnce_theRestEachMinute() {
        var schedule = AlertSchedule()
        let two = [alert("a"), alert("b")]
        #expect(schedule.due(two, atMs: 1000) == two)
        schedule.tell(two, atMs: 1000)
        #expect(schedule.due(two, atMs: 60_999).isEmpty)
        #expect(names(schedule.due(two + [alert("c")], atMs: 60_999)) == ["c"])
        #expect(names(schedule.due([alert("a"), alert("b", to: 30_000)], atMs: 31_000)) == ["b"])
        #expect(names(schedule.due([alert("a", from: 30_000), alert("b")], atMs: 31_000)) == ["a"])
        #expect(schedule.due(two, atMs: 61_000) == two)
    }

    @Test func whatWasNotTold_staysDue_andWhatWasGoneIsNew() {
        var schedule = AlertSchedule()
        let two = [alert("a"), alert("b")]
        _ = schedule.due(two, atMs: 0)
        schedule.tell(two.prefix(1), atMs: 0)
        #expect(names(schedule.due(two, atMs: 1000)) == ["b"])
        schedule.tell(two.suffix(1), atMs: 1000)
        #expect(schedule.due([], atMs: 2000).isEmpty)
        #expect(schedule.due(two, atMs: 3000) == two)
    }

    /// Two that relabelling makes the same are one, which fires while one of them does.
    @Test func sameLabels_areOneAlert() {
        var schedule = AlertSchedule()
        let firing = [alert("a", from: 5000), alert("a", to: 9000), alert("a", from: 2000)]
        #expect(schedule.due(firing, atMs: 10_000) == [firing[2]])
        schedule.tell([firing[2]], atMs: 10_000)
        #expect(schedule.due(firing, atMs: 11_000).isEmpty)
        #expect(schedule.due(Array(firing.prefix(2)), atMs: 12_000) == [firing[0]])
    }

    @Test func whatIsNotConfirmed_orEndedLongAgo_isNotDue() {
        var schedule = AlertSchedule()
        var unknown = alert("a")
        unknown.validUntilMs = nil
        #expect(schedule.due([unknown], atMs: 1000).isEmpty)
        #expect(schedule.due([alert("a")], atMs: 299_999).count == 1)
        #expect(schedule.due([alert("a")], atMs: 300_000).isEmpty)
        #expect(schedule.due([alert("a", to: 100_000)], atMs: 1_000_000).count == 1)
        #expect(schedule.due([alert("a", to: 100_000)], atMs: 1_000_001).isEmpty)
    }

    /// An alert that a process before wrote down is news only once its rule was evaluated, and as long as that goes well.
    @Test func rules_confirmTheirAlerts() throws {
        let text = "groups: [{name: g, interval: 2m, rules: [{alert: A, expr: up == 1}]}]"
        let groups = try RuleFile.load(YAMLDocument(text: text, file: "r.yaml"))
        var rules = RuleEvaluator(groups: groups)
        let state = AlertState(
            labels: ["alertname": "A"], annotations: [:], state: .firing, value: 1, activeAtMs: 0, firedAtMs: 0)
        rules.restore([(RuleEvaluator.RuleKey(file: "r.yaml", group: "g", index: 0), "A", state)])
        #expect(rules.alerts.map(\.validUntilMs) == [nil])
        let store = MemorySeries()
        store.append([(["__name__": "up"], 1)], atMs: 60_000)
        rules.evaluate(groups[0], atMs: 60_000, source: store, sink: store)
        let alert = try #require(rules.alerts.first { $0.isFiring })
        #expect(alert.validUntilMs == 540_000)
        #expect(alert.generatorURL == "/api/v1/query?query=up%20%3D%3D%201")
    }
}

@Suite struct AlertmanagerTests {
    private let alerts = [
        Alert(
            labels: ["alertname": "A", "node": "n/1"], annotations: ["summary": "x \"y\""],
            startsAtMs: 1_000_000_000_123,
            generatorURL: "http://uw/api/v1/query?query=up", validUntilMs: 1_000_000_240_000),
        Alert(labels: ["alertname": "B"], annotations: [:], startsAtMs: 0, endsAtMs: 60_000),
    ]

    @Test func firingAlerts_endWhenNothingConfirmsThem_andEndedOnesWhenTheyDid() async throws {
        let server = RawServer { _, connection in connection.answer("") }
        let alertmanager = Alertmanager(url: server.url + "/api/v2/alerts")
        #expect(await alertmanager.send(alerts, by: HTTPClient()) == .delivered)
        let request = try #require(server.heads.first)
        #expect(request.hasPrefix("POST /api/v2/alerts HTTP/1.1\r\n"))
        #expect(request.contains("Content-Type: application/json\r\n"))
        #expect(
            request.components(separatedBy: "\r\n\r\n").last == """
                [{"annotations":{"summary":"x \\"y\\""},"endsAt":"2001-09-09T01:50:40Z",\
                "generatorURL":"http://uw/api/v1/query?query=up","labels":{"alertname":"A","node":"n/1"},\
                "startsAt":"2001-09-09T01:46:40.123Z"},{"annotations":{},"endsAt":"1970-01-01T00:01:00Z",\
                "labels":{"alertname":"B"},"startsAt":"1970-01-01T00:00:00Z"}]
                """)
    }

    @Test(arguments: [
        ("400 Bad Request", DeliveryOutcome.refused("status 400")),
        ("404 Not Found", .failed("status 404")), ("503 Service Unavailable", .failed("status 503")),
    ])
    func answers_areTold(status: String, outcome: DeliveryOutcome) async {
        let server = RawServer { _, connection in connection.answer("", status: status) }
        #expect(await Alertmanager(url: server.url).send(alerts, by: HTTPClient()) == outcome)
    }
}
