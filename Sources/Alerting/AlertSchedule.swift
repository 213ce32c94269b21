import Series

/// Which alerts one Alertmanager is to be told at a time.
///
/// As Prometheus decides it (`rules/alerting.go`, `needsSending`): what began or ended at once, the rest again and again, for
/// an Alertmanager takes an alert for ended that it hears no more of. Unlike there, what it did not take stays due.
package struct AlertSchedule: Sendable {
    /// Between two times that the same alert is told (`--rules.alert.resend-delay`).
    package static let resendMs: Int64 = 60_000
    /// How long an alert counts as active that nothing more is heard of.
    package static let validMs = 4 * resendMs

    private struct Told {
        var startsAtMs: Int64
        var endsAtMs: Int64?
        var atMs: Int64
    }

    /// By fingerprint; of alerts that are still there.
    private var told: [String: Told] = [:]

    package init() {}

    /// - Parameter alerts: all that fire, and those that ended lately.
    package mutating func due(_ alerts: [Alert], atMs: Int64) -> [Alert] {
        var known: [String: Told] = [:]
        let due = alerts.filter { alert in
            let fingerprint = alert.fingerprint
            guard let last = told[fingerprint] else { return true }
            known[fingerprint] = last
            return last.startsAtMs != alert.startsAtMs || last.endsAtMs != alert.endsAtMs
                || atMs - last.atMs >= AlertSchedule.resendMs
        }
        told = known
        return due
    }

    /// Notes what was told.
    package mutating func tell(_ alerts: some Sequence<Alert>, atMs: Int64) {
        for alert in alerts {
            told[alert.fingerprint] = Told(startsAtMs: alert.startsAtMs, endsAtMs: alert.endsAtMs, atMs: atMs)
        }
    }
}
