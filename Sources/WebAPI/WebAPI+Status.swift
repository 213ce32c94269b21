import Alerting
import Fetch
import Foundation
import HTTPTypes
import Hummingbird
import PromQL
import Scrape
import Series

/// What the running service says of itself at `/api/v1/status`.
package struct ServiceStatus: Sendable {
    /// The configuration as YAML, without secrets.
    package var configuration: String
    /// The flags of the command line by their names.
    package var flags: [String: String]
    package var startedMs: Int64
    package var configuredMs: Int64
    package var retentionMs: Int64
    /// Whether the last configuration that was asked for came up.
    package var isReloaded: @Sendable () -> Bool

    package init(
        configuration: String, flags: [String: String], startedMs: Int64, configuredMs: Int64, retentionMs: Int64,
        isReloaded: @escaping @Sendable () -> Bool = { true }
    ) {
        self.isReloaded = isReloaded
        self.configuration = configuration
        self.flags = flags
        self.startedMs = startedMs
        self.configuredMs = configuredMs
        self.retentionMs = retentionMs
    }
}

extension WebAPI {
    /// The routes that show how the service fares.
    static func status(_ router: Router<BasicRequestContext>, _ context: WebContext) {
        router.get("/api/v1/targets") { request, _ in
            let state = (request.uri.queryParameters.get("state") ?? "any").lowercased()
            let pool = request.uri.queryParameters.get("scrapePool")
            let pools = context.pools().filter { pool == nil || $0.job == pool }
            let active =
                state == "dropped" ? [] : context.targets().filter { pool == nil || $0.job == pool }.map(target)
            let dropped =
                state == "active"
                ? []
                : pools.flatMap { pool in
                    pool.droppedTargets.map { labels in
                        "{\"discoveredLabels\":\(QueryJSON.labels(labels)),\"scrapePool\":\(QueryJSON.string(pool.job))}"
                    }
                }
            let counts = pools.map { "\(QueryJSON.string($0.job)):\($0.dropped)" }
            return json(
                QueryJSON.success(
                    "{\"activeTargets\":[\(active.joined(separator: ","))],"
                        + "\"droppedTargets\":[\(dropped.joined(separator: ","))],"
                        + "\"droppedTargetCounts\":{\(counts.joined(separator: ","))}}"))
        }
        router.get("/api/v1/scrape_pools") { _, _ in
            let names = context.pools().map { QueryJSON.string($0.job) }.sorted()
            return json(QueryJSON.success("{\"scrapePools\":[\(names.joined(separator: ","))]}"))
        }
        router.get("/api/v1/rules") { request, _ in
            await answering {
                let filter = try RuleFilter(try await RequestParameters(request, nowMs: context.time.nowMs))
                let rules = await context.rules()
                let groups = rules.runs.compactMap { group($0, filter) }
                return json(QueryJSON.success("{\"groups\":[\(groups.joined(separator: ","))]}"))
            }
        }
        router.get("/api/v1/alerts") { _, _ in
            let rows = await context.alerts().map(alert)
            return json(QueryJSON.success("{\"alerts\":[\(rows.sorted().joined(separator: ","))]}"))
        }
        router.get("/api/v1/alertmanagers") { _, _ in
            let known = context.alertmanagers()
            let rows = { (urls: [String]) in
                urls.map { "{\"url\":\(QueryJSON.string(FetchRequest.redacted($0)))}" }.joined(separator: ",")
            }
            return json(
                QueryJSON.success(
                    "{\"activeAlertmanagers\":[\(rows(known.active))],"
                        + "\"droppedAlertmanagers\":[\(rows(known.dropped))]}"))
        }
        // Exemplars are not kept.
        for method in [HTTPRequest.Method.get, .post] {
            router.on("/api/v1/query_exemplars", method: method) { _, _ in json(QueryJSON.success("[]")) }
        }
        router.get("/api/v1/status/buildinfo") { _, _ in
            json(
                QueryJSON.success(
                    "{\"version\":\"\(buildVersion)\",\"revision\":\"\",\"branch\":\"\",\"buildUser\":\"\","
                        + "\"buildDate\":\"\",\"goVersion\":\"\"}"))
        }
        router.get("/api/v1/status/config") { _, _ in
            json(QueryJSON.success("{\"yaml\":\(QueryJSON.string(context.service.configuration))}"))
        }
        router.get("/api/v1/status/flags") { _, _ in
            let rows = context.service.flags.sorted { $0.key < $1.key }
                .map { "\(QueryJSON.string($0.key)):\(QueryJSON.string($0.value))" }
            return json(QueryJSON.success("{\(rows.joined(separator: ","))}"))
        }
        router.get("/api/v1/status/runtimeinfo") { _, _ in json(QueryJSON.success(runtime(context))) }
        router.get("/api/v1/status/tsdb") { request, _ in
            await answering {
                let parameters = try await RequestParameters(request, nowMs: context.time.nowMs)
                let limit = try parameters.limit()
                let body = try await context.runner.run(timeoutMs: context.runner.limits.timeoutMs) { _ in
                    try cardinality(context, limit: limit == 0 ? 10 : limit)
                }
                return json(QueryJSON.success(body))
            }
        }
    }

    /// The version of Prometheus whose API this is: Grafana chooses what it asks for by it.
    private static let buildVersion = "3.5.0"

    private static func runtime(_ context: WebContext) -> String {
        let service = context.service
        let folder = QueryJSON.string(FileManager.default.currentDirectoryPath)
        return "{\"startTime\":\"\(TimeFormat.rfc3339(ms: service.startedMs))\",\"CWD\":\(folder),"
            + "\"reloadConfigSuccess\":\(service.isReloaded()),\"lastConfigTime\":\"\(TimeFormat.rfc3339(ms: service.configuredMs))\","
            + "\"corruptionCount\":0,\"goroutineCount\":0,"
            + "\"GOMAXPROCS\":\(ProcessInfo.processInfo.activeProcessorCount),\"GOMEMLIMIT\":0,\"GOGC\":\"\","
            + "\"GODEBUG\":\"\",\"storageRetention\":\"\(TimeFormat.duration(ms: service.retentionMs))\"}"
    }

    /// How many series and values there are, the most frequent first.
    private static func cardinality(_ context: WebContext, limit: Int) throws -> String {
        let all = try context.source.labels([], fromMs: .min, throughMs: .max)
        var byMetric: [String: Int] = [:]
        var byPair: [String: Int] = [:]
        var values: [String: Set<String>] = [:]
        for labels in all {
            byMetric[labels.name, default: 0] += 1
            for label in labels.pairs {
                byPair["\(label.name)=\(label.value)", default: 0] += 1
                values[label.name, default: []].insert(label.value)
            }
        }
        let rows = { (counts: [String: Int]) in
            counts.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.prefix(limit)
                .map { "{\"name\":\(QueryJSON.string($0.key)),\"value\":\($0.value)}" }.joined(separator: ",")
        }
        let bytes = values.mapValues { $0.reduce(0) { $0 + $1.utf8.count } }
        let range = try context.source.timeRange()
        return "{\"headStats\":{\"numSeries\":\(all.count),\"numLabelPairs\":\(byPair.count),\"chunkCount\":0,"
            + "\"minTime\":\(range?.lowerBound ?? 0),\"maxTime\":\(range?.upperBound ?? 0)},"
            + "\"seriesCountByMetricName\":[\(rows(byMetric))],"
            + "\"labelValueCountByLabelName\":[\(rows(values.mapValues(\.count)))],"
            + "\"memoryInBytesByLabelName\":[\(rows(bytes))],\"seriesCountByLabelValuePair\":[\(rows(byPair))]}"
    }

    private static func target(_ status: TargetStatus) -> String {
        let time = status.lastScrapeMs.map { TimeFormat.rfc3339(ms: $0) } ?? "0001-01-01T00:00:00Z"
        let url = QueryJSON.string(FetchRequest.redacted(status.target.url))
        return "{\"discoveredLabels\":\(QueryJSON.labels(status.discovered)),"
            + "\"labels\":\(QueryJSON.labels(status.target.labels)),"
            + "\"scrapePool\":\(QueryJSON.string(status.job)),\"scrapeUrl\":\(url),\"globalUrl\":\(url),"
            + "\"lastError\":\(QueryJSON.string(status.lastError)),\"lastScrape\":\"\(time)\","
            + "\"lastScrapeDuration\":\(status.lastDurationSeconds),\"health\":\"\(status.health.rawValue)\","
            + "\"scrapeInterval\":\"\(TimeFormat.duration(ms: status.target.intervalMs))\","
            + "\"scrapeTimeout\":\"\(TimeFormat.duration(ms: status.target.timeoutMs))\"}"
    }

    // MARK: Rules

    /// Which rules a request asks for.
    private struct RuleFilter {
        var type: String
        var names: [String]
        var groups: [String]
        var files: [String]
        var matchers: [[LabelMatcher]]
        var leavesAlertsOut: Bool

        init(_ parameters: RequestParameters) throws {
            type = parameters["type"]?.lowercased() ?? ""
            guard ["", "alert", "record"].contains(type) else {
                throw parameters.invalid("type", "not supported value \(Labels.quoted(type))")
            }
            names = parameters.all("rule_name[]")
            groups = parameters.all("rule_group[]")
            files = parameters.all("file[]")
            matchers = try parameters.all("match[]").map { try Parser.parseSelector($0) }
            let excludes = parameters["exclude_alerts"]?.lowercased() ?? ""
            guard ["", "true", "false"].contains(excludes) else {
                throw parameters.invalid("exclude_alerts", "not a boolean: \(Labels.quoted(excludes))")
            }
            leavesAlertsOut = excludes == "true"
        }

        func accepts(_ group: RuleGroup) -> Bool {
            (groups.isEmpty || groups.contains(group.name)) && (files.isEmpty || files.contains(group.file))
        }

        func accepts(_ rule: Rule) -> Bool {
            guard names.isEmpty || names.contains(rule.name) else { return false }
            if case .alert = rule.kind, type == "record" { return false }
            if case .record = rule.kind, type == "alert" { return false }
            let labels = Labels(rule.labels.map { Label($0.name, $0.template.source) })
            return matchers.isEmpty || matchers.contains { $0.allSatisfy { $0.accepts(labels) } }
        }
    }

    private static func group(_ run: RuleGroupRun, _ filter: RuleFilter) -> String? {
        let group = run.group
        guard filter.accepts(group) else { return nil }
        let rows = group.rules.indices.compactMap { index -> String? in
            guard filter.accepts(group.rules[index]) else { return nil }
            return self.rule(
                group.rules[index], run.health[index], run.states[index], leavesAlertsOut: filter.leavesAlertsOut)
        }
        guard !rows.isEmpty || group.rules.isEmpty else { return nil }
        return "{\"name\":\(QueryJSON.string(group.name)),\"file\":\(QueryJSON.string(group.file)),"
            + "\"interval\":\(Double(run.intervalMs) / 1000),\"limit\":\(group.limit),"
            + "\"evaluationTime\":\(run.lastSeconds),"
            + "\"lastEvaluation\":\"\(TimeFormat.rfc3339(ms: run.lastMs ?? 0))\","
            + "\"rules\":[\(rows.joined(separator: ","))]}"
    }

    private static func rule(
        _ rule: Rule, _ health: RuleGroupRun.RuleHealth, _ all: [Labels: AlertState], leavesAlertsOut: Bool
    ) -> String {
        let state = health.evaluations == 0 ? "unknown" : health.lastError.isEmpty ? "ok" : "err"
        let labels = Labels(rule.labels.map { Label($0.name, $0.template.source) })
        let common =
            "\"name\":\(QueryJSON.string(rule.name)),\"query\":\(QueryJSON.string(rule.text)),"
            + "\"labels\":\(QueryJSON.labels(labels)),\"health\":\"\(state)\","
            + "\"lastError\":\(QueryJSON.string(health.lastError)),\"evaluationTime\":\(health.lastSeconds),"
            + "\"lastEvaluation\":\"\(TimeFormat.rfc3339(ms: health.lastEvaluationMs))\""
        guard case .alert = rule.kind else { return "{\(common),\"type\":\"recording\"}" }
        let states = all.values.filter { $0.state != .resolved }
        let worst = states.contains { $0.state == .firing } ? "firing" : states.isEmpty ? "inactive" : "pending"
        let annotations = Labels(rule.annotations.map { Label($0.name, $0.template.source) })
        let alerts = leavesAlertsOut ? "" : ",\"alerts\":[\(states.map(alert).sorted().joined(separator: ","))]"
        return "{\(common),\"type\":\"alerting\",\"state\":\"\(worst)\",\"duration\":\(Double(rule.forMs) / 1000),"
            + "\"keepFiringFor\":\(Double(rule.keepFiringForMs) / 1000),"
            + "\"annotations\":\(QueryJSON.labels(annotations))\(alerts)}"
    }

    private static func alert(_ state: AlertState) -> String {
        let object = { (values: [String: String]) in QueryJSON.labels(Labels(values)) }
        return "{\"labels\":\(object(state.labels)),\"annotations\":\(object(state.annotations)),"
            + "\"state\":\"\(state.state.rawValue)\",\"activeAt\":\"\(TimeFormat.rfc3339(ms: state.activeAtMs))\","
            + "\"value\":\"\(GoFloat.text(state.value))\"}"
    }
}
