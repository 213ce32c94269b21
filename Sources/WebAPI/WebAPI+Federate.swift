import Algorithms
import Hummingbird
import PromQL
import Series

extension WebAPI {
    /// The route from which another Prometheus takes the newest samples
    /// (prometheus.io/docs/prometheus/latest/federation).
    static func federate(_ router: Router<BasicRequestContext>, _ context: WebContext) {
        router.get("/federate") { request, _ in
            do {
                let parameters = try await RequestParameters(request, nowMs: context.time.nowMs)
                let selectors = try parameters.all("match[]").uniqued().map { try Parser.parseSelector($0) }
                guard !selectors.isEmpty else {
                    return text("no match[] parameter provided\n", status: .badRequest)
                }
                let body = try await context.runner.run(timeoutMs: context.runner.limits.timeoutMs) { control in
                    try exposition(selectors, context, nowMs: parameters.nowMs, control)
                }
                return text(body, type: "text/plain; version=0.0.4; charset=utf-8")
            } catch let error as PromQLError {
                return text("\(error)\n", status: error.kind == .badData ? .badRequest : .internalServerError)
            } catch let error as PatternError {
                return text("\(error)\n", status: .badRequest)
            }
        }
    }

    /// The newest sample of each series, by name, unless it has ended or is older than the lookback.
    private static func exposition(
        _ selectors: [[LabelMatcher]], _ context: WebContext, nowMs: Int64, _ control: QueryControl
    ) throws -> String {
        var newest: [Labels: (timestampMs: Int64, value: Double)] = [:]
        for matchers in selectors {
            let selected = try context.source.selection(
                matchers, fromMs: nowMs - context.runner.limits.lookbackMs + 1, throughMs: nowMs)
            try selected.readAll { place, times, values in
                try control.check()
                guard let timestampMs = times.last, let value = values.last, !value.isStaleMarker else { return }
                newest[selected.labels[place]] = (timestampMs, value)
            }
        }
        var out = ""
        var name = ""
        try control.check()
        for (labels, sample) in newest.sorted(by: { ($0.key.name, $0.key) < ($1.key.name, $1.key) }) {
            if labels.name != name {
                name = labels.name
                out += "# TYPE \(name) untyped\n"
            }
            var full = labels
            for label in context.externalLabels.pairs where full[label.name] == nil { full[label.name] = label.value }
            // Each series has the label, empty where it has none, so that no label of the federating job takes its place.
            let instance = full["instance"] == nil ? "instance=\"\"" : ""
            let rest =
                full.withoutName.pairs.map { "\($0.name)=\(Labels.quoted($0.value))" }
                + [instance].filter { !$0.isEmpty }
            out += "\(name){\(rest.joined(separator: ","))} \(GoFloat.text(sample.value)) \(sample.timestampMs)\n"
        }
        return out
    }
}
