import Fetch
import Foundation
import Series

/// An Alertmanager that is told of alerts by its API v2 (github.com/prometheus/alertmanager, `api/v2/openapi.yaml`,
/// `postAlerts`).
package struct Alertmanager: Sendable {
    /// With the path: `http://alertmanager:9093/api/v2/alerts`.
    package var url: String
    package var timeoutMs: Int64
    package var client: ClientOptions

    /// The most alerts of a request (`--alertmanager.notification-batch-size`).
    package static let maxAlerts = 256

    package init(url: String, timeoutMs: Int64 = 10_000, client: ClientOptions = ClientOptions()) {
        self.url = url
        self.timeoutMs = timeoutMs
        self.client = client
    }

    private struct PostableAlert: Encodable {
        var labels: [String: String]
        var annotations: [String: String]
        var startsAt: String
        var endsAt: String
        /// Left out where there is none: it must be an address.
        var generatorURL: String?
    }

    /// Sends alerts in one request; those that fire end when nothing has confirmed them until then.
    package func send(_ alerts: some Sequence<Alert>, by http: HTTPClient) async -> DeliveryOutcome {
        let rows = alerts.map { alert in
            PostableAlert(
                labels: alert.labels, annotations: alert.annotations,
                startsAt: TimeFormat.rfc3339(ms: alert.startsAtMs),
                endsAt: TimeFormat.rfc3339(ms: alert.endsAtMs ?? alert.validUntilMs ?? alert.startsAtMs),
                generatorURL: alert.generatorURL.isEmpty ? nil : alert.generatorURL)
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let body = try? encoder.encode(rows) else { return .refused("the alerts are no JSON") }
        var request = FetchRequest(url: url, client: client)
        request.body = Array(body)
        request.timeoutMs = timeoutMs
        return await .post(request, by: http)
    }
}
