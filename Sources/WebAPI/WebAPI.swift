import Alerting
import Cluster
import Comparison
import Foundation
import HTTPTypes
import Hummingbird
import Logging
import PromQL
import Report
import Scrape
import Series

/// What the API shows, as the running service gives it.
package struct WebContext: Sendable {
    package var source: any SeriesSource
    /// Where remote write puts its samples; nil where nobody may.
    package var receiver: (any SampleSink)?
    package var engine: QueryEngine
    package var runner: QueryRunner
    package var service: ServiceStatus
    package var externalLabels: Labels
    /// The origins whose pages may read the API.
    package var origins: Pattern
    package var web: WebConfigFile
    package var time: any TimeSource
    package var targets: @Sendable () -> [TargetStatus]
    package var pools: @Sendable () -> [ScrapeManager.PoolStatus]
    package var rules: @Sendable () async -> RuleEvaluator
    /// The active alerts, of rules and of findings.
    package var alerts: @Sendable () async -> [AlertState]
    /// The addresses of the Alertmanagers that are told, and of those that relabelling drops.
    package var alertmanagers: @Sendable () -> (active: [String], dropped: [String])
    package var upgrades: @Sendable () async -> [Upgrade]
    /// The assessment of an upgrade by its id, of the last one for nil, and of one batch of it or all; nil where the id or
    /// the batch is not known.
    package var assess: @Sendable (String?, Int?) async throws -> Assessment?
    package var marks: @Sendable () throws -> [UpgradeMark]
    package var addMark: @Sendable (UpgradeMark) throws -> Void
    package var reload: @Sendable () throws -> Void
    package var metrics: @Sendable () async -> String
    package var isReady: @Sendable () -> Bool

    package init(
        source: any SeriesSource, receiver: (any SampleSink)? = nil, engine: QueryEngine, runner: QueryRunner,
        service: ServiceStatus, externalLabels: Labels, origins: Pattern, web: WebConfigFile = WebConfigFile(),
        time: any TimeSource,
        targets: @escaping @Sendable () -> [TargetStatus],
        pools: @escaping @Sendable () -> [ScrapeManager.PoolStatus] = { [] },
        rules: @escaping @Sendable () async -> RuleEvaluator,
        alerts: @escaping @Sendable () async -> [AlertState],
        alertmanagers: @escaping @Sendable () -> (active: [String], dropped: [String]) = { ([], []) },
        upgrades: @escaping @Sendable () async -> [Upgrade],
        assess: @escaping @Sendable (String?, Int?) async throws -> Assessment?,
        marks: @escaping @Sendable () throws -> [UpgradeMark],
        addMark: @escaping @Sendable (UpgradeMark) throws -> Void,
        reload: @escaping @Sendable () throws -> Void, metrics: @escaping @Sendable () async -> String,
        isReady: @escaping @Sendable () -> Bool
    ) {
        self.source = source
        self.receiver = receiver
        self.engine = engine
        self.runner = runner
        self.service = service
        self.externalLabels = externalLabels
        self.origins = origins
        self.web = web
        self.time = time
        self.targets = targets
        self.pools = pools
        self.rules = rules
        self.alerts = alerts
        self.alertmanagers = alertmanagers
        self.upgrades = upgrades
        self.assess = assess
        self.marks = marks
        self.addMark = addMark
        self.reload = reload
        self.metrics = metrics
        self.isReady = isReady
    }
}

/// The routes of the HTTP API and the web page.
package enum WebAPI {
    /// The largest body of a request that is read.
    private static let maxBodyBytes = 1 << 20

    package static func router(_ context: WebContext) -> Router<BasicRequestContext> {
        let router = Router(options: [.autoGenerateHeadEndpoints])
        router.add(middleware: Gatekeeper(context.web))
        router.add(middleware: CrossOrigin(origins: context.origins))
        router.add(middleware: Compression())
        health(router, context)
        queries(router, context)
        status(router, context)
        upgrades(router, context)
        remoteWrite(router, context)
        federate(router, context)
        return router
    }

    // MARK: Answers

    static func text(
        _ body: String, type: String = "text/plain; charset=utf-8", status: HTTPResponse.Status = .ok,
        headers: [(String, String)] = []
    ) -> Response {
        var fields = HTTPFields()
        fields[.contentType] = type
        for (name, value) in headers {
            if let field = HTTPField.Name(name) { fields[field] = value }
        }
        return Response(status: status, headers: fields, body: .init(byteBuffer: ByteBuffer(string: body)))
    }

    static func json(_ body: String, status: HTTPResponse.Status = .ok) -> Response {
        text(body, type: "application/json", status: status)
    }

    /// Prometheus' form of an error, with the status that belongs to its type.
    static func failure(_ kind: String, _ message: String) -> Response {
        let status: HTTPResponse.Status =
            switch kind {
            case "bad_data": .badRequest
            case "execution": .unprocessableContent
            case "timeout", "canceled": .serviceUnavailable
            case "not_found": .notFound
            default: .internalServerError
            }
        return json(
            "{\"status\":\"error\",\"errorType\":\(QueryJSON.string(kind)),\"error\":\(QueryJSON.string(message))}",
            status: status)
    }

    /// Answers with what `body` gives, or with its error.
    static func answering(_ body: () async throws -> Response) async -> Response {
        do {
            return try await body()
        } catch let error as PromQLError {
            return failure(error.kind.rawValue, "\(error)")
        } catch let error as PatternError {
            return failure(PromQLError.Kind.execution.rawValue, "\(error)")
        } catch {
            return failure("internal", "\(error)")
        }
    }

    // MARK: Routes

    private static func health(_ router: Router<BasicRequestContext>, _ context: WebContext) {
        router.get("/-/healthy") { _, _ in text("upgrade-watch is Healthy.\n") }
        router.get("/-/ready") { _, _ in
            context.isReady()
                ? text("upgrade-watch is Ready.\n") : text("Service Unavailable", status: .serviceUnavailable)
        }
        let reload: @Sendable (Request, BasicRequestContext) -> Response = { _, _ in
            do {
                try context.reload()
                return text("")
            } catch {
                return text("failed to reload config: \(error)\n", status: .internalServerError)
            }
        }
        router.post("/-/reload", use: reload)
        router.put("/-/reload", use: reload)
        router.get("/metrics") { _, _ in
            text(await context.metrics(), type: "text/plain; version=0.0.4; charset=utf-8")
        }
        router.get("/") { _, _ in
            await answering {
                guard let assessment = try await context.assess(nil, nil) else {
                    return failure("not_found", "no upgrade")
                }
                return text(HTMLReport.render(assessment), type: "text/html; charset=utf-8")
            }
        }
    }

    private static func upgrades(_ router: Router<BasicRequestContext>, _ context: WebContext) {
        router.get("/api/v1/upgrades") { _, _ in
            let rows = await context.upgrades().map { upgrade in
                let finished = upgrade.finishedMs.map { QueryJSON.string(TimeFormat.rfc3339(ms: $0)) } ?? "null"
                return "{\"id\":\(QueryJSON.string(upgrade.id)),\"from\":\(QueryJSON.string(upgrade.from)),"
                    + "\"to\":\(QueryJSON.string(upgrade.to)),\"steps\":\(upgrade.steps.count),"
                    + "\"started_at\":\(QueryJSON.string(TimeFormat.rfc3339(ms: upgrade.startedMs))),"
                    + "\"finished_at\":\(finished)}"
            }
            return json(QueryJSON.success("[\(rows.joined(separator: ","))]"))
        }
        router.get("/api/v1/upgrades/marks") { _, _ in
            await answering {
                let marks = try context.marks().map { MarkMessage($0) }
                return json(QueryJSON.success(String(decoding: try JSONEncoder().encode(marks), as: UTF8.self)))
            }
        }
        router.post("/api/v1/upgrades/marks") { request, _ in
            await answering {
                let body = try await request.body.collect(upTo: maxBodyBytes)
                guard let message = try? JSONDecoder().decode(MarkMessage.self, from: Data(String(buffer: body).utf8)),
                    let mark = message.mark(nowMs: context.time.nowMs)
                else {
                    return failure(
                        "bad_data",
                        "expected a JSON object with kind (start, step, finish, rollback or extend), and where they are "
                            + "known at (RFC 3339, default now), component, node, from, to and note; extend has by, as 24h"
                    )
                }
                try context.addMark(mark)
                return json(QueryJSON.success("null"))
            }
        }
        router.get("/api/v1/upgrades/:id/report") { request, routed in
            await answering {
                let id = try routed.parameters.require("id")
                let number = request.uri.queryParameters.get("batch")
                let batch = number.flatMap { Int($0) }
                if let number, batch == nil { return failure("bad_data", "the batch is a number, not \(number)") }
                guard let assessment = try await context.assess(id == "last" ? nil : id, batch) else {
                    let ofBatch = batch.map { " and a batch \($0)" } ?? ""
                    return failure("not_found", "no upgrade with the id \(id)\(ofBatch)")
                }
                let headers = [("X-Upgrade-Watch-Verdict", assessment.verdict.rawValue)]
                switch request.uri.queryParameters.get("format") ?? "json" {
                case "text": return text(TextReport.render(assessment, style: .plain), headers: headers)
                case "markdown":
                    return text(
                        TextReport.render(assessment, style: .markdown), type: "text/markdown; charset=utf-8",
                        headers: headers)
                case "html":
                    return text(HTMLReport.render(assessment), type: "text/html; charset=utf-8", headers: headers)
                case "junit": return text(JUnitReport.render(assessment), type: "application/xml", headers: headers)
                case "json": return text(try JSONReport(assessment).text(), type: "application/json", headers: headers)
                case let other: return failure("bad_data", "unknown format \(other)")
                }
            }
        }
    }
}
