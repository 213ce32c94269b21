import Foundation
import Series

/// An alert as it is sent: active while it has no end.
package struct Alert: Sendable, Equatable, Codable {
    package var labels: [String: String]
    package var annotations: [String: String]
    /// Milliseconds since the epoch.
    package var startsAtMs: Int64
    package var endsAtMs: Int64?
    package var generatorURL: String
    /// Until when a firing alert counts as active where nothing confirms it again; nil: nothing has in this process.
    ///
    /// It is written down nowhere.
    package var validUntilMs: Int64?

    /// How long an alert that has ended is kept, so that its end is told although a message was lost (Prometheus,
    /// `rules/alerting.go`, `resolvedRetention`).
    package static let endedRetentionMs: Int64 = 15 * 60_000

    private enum CodingKeys: CodingKey { case labels, annotations, startsAtMs, endsAtMs, generatorURL }

    package init(
        labels: [String: String], annotations: [String: String], startsAtMs: Int64, endsAtMs: Int64? = nil,
        generatorURL: String = "", validUntilMs: Int64? = nil
    ) {
        self.labels = labels
        self.annotations = annotations
        self.startsAtMs = startsAtMs
        self.endsAtMs = endsAtMs
        self.generatorURL = generatorURL
        self.validUntilMs = validUntilMs
    }

    package var isFiring: Bool { endsAtMs == nil }

    /// What names the alert: FNV-1a over its sorted labels with a separator that no label holds, in sixteen
    /// hexadecimal digits, as Alertmanager's (prometheus/common/model, `LabelsToSignature`).
    package var fingerprint: String {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for (name, value) in labels.sorted(by: { $0.key < $1.key }) {
            for byte in Array(name.utf8) + [0xff] + Array(value.utf8) + [0xff] {
                hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3
            }
        }
        let hex = String(hash, radix: 16)
        return String(repeating: "0", count: 16 - hex.count) + hex
    }
}

/// The state of one alert of a rule.
package struct AlertState: Sendable, Equatable, Codable {
    package enum State: String, Sendable, Codable {
        /// The condition holds, but not yet for as long as the rule's `for`.
        case pending
        case firing
        /// The condition held and does no more.
        case resolved
    }

    package var labels: [String: String]
    package var annotations: [String: String]
    package var state: State
    package var value: Double
    /// Since when the condition holds.
    package var activeAtMs: Int64
    package var firedAtMs: Int64?
    package var resolvedAtMs: Int64?
    /// Since when the condition does not hold while `keep_firing_for` keeps the alert up.
    package var keepFiringSinceMs: Int64?

    package init(
        labels: [String: String], annotations: [String: String], state: State, value: Double, activeAtMs: Int64,
        firedAtMs: Int64? = nil
    ) {
        self.labels = labels
        self.annotations = annotations
        self.state = state
        self.value = value
        self.activeAtMs = activeAtMs
        self.firedAtMs = firedAtMs
    }

    /// The alert to send; nil while it is pending.
    package var alert: Alert? {
        guard state != .pending else { return nil }
        return Alert(
            labels: labels, annotations: annotations, startsAtMs: firedAtMs ?? activeAtMs, endsAtMs: resolvedAtMs)
    }
}
