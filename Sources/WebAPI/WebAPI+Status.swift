import Alerting
import Fetch
import Foundation
import Hummingbird
import PromQL
import Scrape
import Series

extension WebAPI {
    /// The routes that show how the service fares.
    static func status(_ router: Router<BasicRequestContext>, _ context: WebContext) {
        router.get("/api/v1/targets") { _, _ in
            let rows = context.targets().map(target)
            return json(QueryJSON.success("{\"activeTargets\":[\(rows.joined(separator: ","))],\"droppedTargets\":[]}"))
        }
        router.get("/api/v1/rules") { _, _ in
            let rules = await context.rules()
            return json(
                QueryJSON.success("{\"groups\":[\(rules.groups.map { group($0, rules) }.joined(separator: ","))]}"))
        }
        router.get("/api/v1/alerts") { _, _ in
            let rows = await context.alerts().map(alert)
            return json(QueryJSON.success("{\"alerts\":[\(rows.sorted().joined(separator: ","))]}"))
        }
        router.get("/api/v1/status/buildinfo") { _, _ in
            json(
                QueryJSON.success(
                    "{\"version\":\"\(buildVersion)\",\"revision\":\"\",\"branch\":\"\",\"buildUser\":\"\",\"buildDate\":\"\",\"goVersion\":\"\"}"
                ))
        }
    }

    /// The version of Prometheus whose API this is: Grafana chooses what it asks for by it.
    private static let buildVersion = "2.45.0"

    private static func target(_ status: TargetStatus) -> String {
        let time = status.lastScrapeMs.map { TimeFormat.rfc3339(ms: $0) } ?? "0001-01-01T00:00:00Z"
        let url = QueryJSON.string(FetchRequest.redacted(status.target.url))
        return "{\"discoveredLabels\":{},\"labels\":\(QueryJSON.labels(status.target.labels)),"
            + "\"scrapePool\":\(QueryJSON.string(status.target.labels["job"] ?? "")),\"scrapeUrl\":\(url),\"globalUrl\":\(url),"
            + "\"lastError\":\(QueryJSON.string(status.lastError)),\"lastScrape\":\"\(time)\","
            + "\"lastScrapeDuration\":\(status.lastDurationSeconds),\"health\":\"\(status.health.rawValue)\","
            + "\"scrapeInterval\":\"\(TimeFormat.duration(ms: status.target.intervalMs))\","
            + "\"scrapeTimeout\":\"\(TimeFormat.duration(ms: status.target.timeoutMs))\"}"
    }

    private static func group(_ group: RuleGroup, _ rules: RuleEvaluator) -> String {
        let rows = group.rules.enumerated().map { index, rule in
            self.rule(rule, RuleEvaluator.RuleKey(file: group.file, group: group.name, index: index), rules)
        }
        return "{\"name\":\(QueryJSON.string(group.name)),\"file\":\(QueryJSON.string(group.file)),"
            + "\"interval\":\(Double(group.intervalMs ?? 0) / 1000),\"limit\":\(group.limit),"
            + "\"rules\":[\(rows.joined(separator: ","))]}"
    }

    private static func rule(_ rule: Rule, _ key: RuleEvaluator.RuleKey, _ rules: RuleEvaluator) -> String {
        let health = rules.health[key]
        let state = health == nil ? "unknown" : health?.lastError.isEmpty ?? true ? "ok" : "err"
        let common =
            "\"name\":\(QueryJSON.string(rule.name)),\"query\":\(QueryJSON.string(rule.text)),\"health\":\"\(state)\","
            + "\"lastError\":\(QueryJSON.string(health?.lastError ?? "")),"
            + "\"lastEvaluation\":\"\(TimeFormat.rfc3339(ms: health?.lastEvaluationMs ?? 0))\""
        guard case .alert = rule.kind else { return "{\(common),\"type\":\"recording\"}" }
        let states = rules.states[key]?.values.filter { $0.state != .resolved } ?? []
        let worst = states.contains { $0.state == .firing } ? "firing" : states.isEmpty ? "inactive" : "pending"
        return "{\(common),\"type\":\"alerting\",\"state\":\"\(worst)\",\"duration\":\(Double(rule.forMs) / 1000),"
            + "\"keepFiringFor\":\(Double(rule.keepFiringForMs) / 1000),"
            + "\"alerts\":[\(states.map(alert).sorted().joined(separator: ","))]}"
    }

    private static func alert(_ state: AlertState) -> String {
        let object = { (values: [String: String]) in QueryJSON.labels(Labels(values.map { Label($0.key, $0.value) })) }
        return "{\"labels\":\(object(state.labels)),\"annotations\":\(object(state.annotations)),"
            + "\"state\":\"\(state.state.rawValue)\",\"activeAt\":\"\(TimeFormat.rfc3339(ms: state.activeAtMs))\","
            + "\"value\":\"\(GoFloat.text(state.value))\"}"
    }
}
