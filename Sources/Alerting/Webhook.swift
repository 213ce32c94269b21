import Fetch
import Foundation
import Series

/// An address that gets Alertmanager's webhook messages (`webhook_config`).
package struct Webhook: Sendable {
    package var url: String
    package var sendsResolved = true
    /// The most alerts in a message; 0 is no limit.
    package var maxAlerts = 0
    package var timeoutMs: Int64 = 10_000
    package var client = ClientOptions()

    package init(url: String) { self.url = url }
}

/// The body of a webhook message, version 4
/// (prometheus.io/docs/alerting/latest/configuration, `webhook_config`).
package struct WebhookPayload: Codable, Sendable, Equatable {
    package struct Alert: Codable, Sendable, Equatable {
        package var status: String
        package var labels: [String: String]
        package var annotations: [String: String]
        package var startsAt: String
        package var endsAt: String
        package var generatorURL: String
        package var fingerprint: String
    }

    package var version = "4"
    package var groupKey: String
    package var truncatedAlerts: Int
    package var status: String
    package var receiver: String
    package var groupLabels: [String: String]
    package var commonLabels: [String: String]
    package var commonAnnotations: [String: String]
    package var externalURL: String
    package var alerts: [Alert]

    /// - Returns: nil where the webhook wants nothing of what the notification holds.
    package init?(_ notification: GroupMessage, webhook: Webhook, externalURL: String) {
        var list = notification.alerts
        if !webhook.sendsResolved { list.removeAll { !$0.isFiring } }
        guard !list.isEmpty else { return nil }
        status = list.contains { $0.isFiring } ? "firing" : "resolved"
        commonLabels = WebhookPayload.common(list.map(\.labels))
        commonAnnotations = WebhookPayload.common(list.map(\.annotations))
        truncatedAlerts = webhook.maxAlerts > 0 ? max(0, list.count - webhook.maxAlerts) : 0
        if webhook.maxAlerts > 0 { list = Array(list.prefix(webhook.maxAlerts)) }
        groupKey = notification.groupKey
        receiver = notification.receiver
        groupLabels = notification.groupLabels
        self.externalURL = externalURL
        alerts = list.map { alert in
            Alert(
                status: alert.isFiring ? "firing" : "resolved", labels: alert.labels, annotations: alert.annotations,
                startsAt: TimeFormat.rfc3339(ms: alert.startsAtMs),
                // Alertmanager writes Go's zero time for an alert that has not ended.
                endsAt: alert.endsAtMs.map { TimeFormat.rfc3339(ms: $0) } ?? "0001-01-01T00:00:00Z",
                generatorURL: alert.generatorURL, fingerprint: alert.fingerprint)
        }
    }

    private static func common(_ sets: [[String: String]]) -> [String: String] {
        guard let first = sets.first else { return [:] }
        return first.filter { entry in sets.allSatisfy { $0[entry.key] == entry.value } }
    }
}
