import Series

/// Which alerts one Alertmanager is to be told at a time.
///
/// As Prometheus decides it (`rules/alerting.go`, `needsSending`): what began or ended at once, the rest again and again, for
/// an Alertmanager takes an alert for ended that it hears no more of. Unlike there, what it did not take stays due.
package struct AlertSchedule: Sendable {
    /// Between two times that the same alert is told (`--rules.alert.resend-delay`).
    package static let resendMs: Int64 = 60_000

    private struct Told {
        var startsAtMs: Int64
        var endsAtMs: Int64?
        var atMs: Int64
    }

    /// By fingerprint; of alerts that are still there.
    private var told: [String: Told] = [:]

    package init() {}

    /// Until when an alert counts as active that was confirmed at a time, and is asked about at an interval
    /// (`rules/alerting.go`, `sendAlerts`).
    package static func validUntilMs(confirmedMs: Int64, intervalMs: Int64) -> Int64 {
        confirmedMs + 4 * max(intervalMs, resendMs)
    }

    /// One that fires and is not confirmed, before its rule's first evaluation or long after the last good one, is not due:
    /// what became of it is not known.
    ///
    /// - Parameter alerts: all that fire, and those that ended; of several with the same labels one that fires counts, and
    ///   of these the one that began first.
    package mutating func due(_ alerts: [Alert], atMs: Int64) -> [Alert] {
        var known: [String: Told] = [:]
        var due: [Alert] = []
        for (fingerprint, alert) in AlertSchedule.distinct(alerts, atMs: atMs) {
            let last = told[fingerprint]
            known[fingerprint] = last
            if let last, last.startsAtMs == alert.startsAtMs, last.endsAtMs == alert.endsAtMs,
                atMs - last.atMs < AlertSchedule.resendMs
            {
                continue
            }
            due.append(alert)
        }
        told = known
        return due
    }

    private static func distinct(_ alerts: [Alert], atMs: Int64) -> [(fingerprint: String, alert: Alert)] {
        var found: [(fingerprint: String, alert: Alert)] = []
        var places: [String: Int] = [:]
        for alert in alerts {
            let isNews =
                alert.endsAtMs.map { atMs - $0 <= Alert.endedRetentionMs } ?? (alert.validUntilMs ?? .min > atMs)
            guard isNews else { continue }
            let fingerprint = alert.fingerprint
            guard let place = places[fingerprint] else {
                places[fingerprint] = found.count
                found.append((fingerprint, alert))
                continue
            }
            let other = found[place].alert
            let precedes =
                alert.isFiring == other.isFiring ? alert.startsAtMs < other.startsAtMs : alert.isFiring
            if precedes { found[place].alert = alert }
        }
        return found
    }

    /// Notes what was told.
    package mutating func tell(_ alerts: some Sequence<Alert>, atMs: Int64) {
        for alert in alerts {
            told[alert.fingerprint] = Told(startsAtMs: alert.startsAtMs, endsAtMs: alert.endsAtMs, atMs: atMs)
        }
    }
}
