import Alerting
import Cluster
import Comparison
import Foundation
import Series

/// Findings as alerts: each is active while assessments have it, and ends when they do no more.
struct FindingAlerts: Codable, Sendable {
    /// The alert's name, the same for all findings: its label `signal` tells them apart.
    static let alertName = "UpgradeFinding"

    /// By fingerprint: a finding that becomes less severe is another alert, and ends the one before.
    private var active: [String: Alert] = [:]

    /// Takes in the findings of an assessment.
    mutating func update(_ assessment: Assessment, atMs: Int64) {
        var seen: Set<String> = []
        for finding in assessment.findings where FindingAlerts.isAlert(finding) {
            var alert = FindingAlerts.alert(finding, assessment, atMs: atMs)
            let fingerprint = alert.fingerprint
            seen.insert(fingerprint)
            if let known = active[fingerprint], known.isFiring { alert.startsAtMs = known.startsAtMs }
            active[fingerprint] = alert
        }
        end(atMs: atMs, but: seen)
    }

    /// Ends all but some; what ended long ago is forgotten.
    mutating func end(atMs: Int64, but seen: Set<String> = []) {
        for (fingerprint, alert) in active where !seen.contains(fingerprint) {
            if alert.isFiring {
                active[fingerprint]?.endsAtMs = atMs
            } else if atMs - (alert.endsAtMs ?? atMs) > Alert.endedRetentionMs {
                active[fingerprint] = nil
            }
        }
    }

    var isEmpty: Bool { active.isEmpty }

    private var alerts: [Alert] { active.sorted { $0.key < $1.key }.map(\.value) }

    /// The alerts to send, each with a link to the report that it is from.
    ///
    /// - Parameter validUntilMs: how long the last assessment confirms them.
    func alerts(externalURL: String, validUntilMs: Int64?) -> [Alert] {
        alerts.map { alert in
            var alert = alert
            alert.validUntilMs = validUntilMs
            let id = alert.annotations["upgrade"]?.addingPercentEncoding(withAllowedCharacters: .urlPathAllowed)
            alert.generatorURL = "\(externalURL)/api/v1/upgrades/\(id ?? "last")/report?format=html"
            return alert
        }
    }

    /// The firing ones in the form of rules' alerts; their value is always 1.
    var states: [AlertState] {
        alerts.filter(\.isFiring).map { alert in
            AlertState(
                labels: alert.labels, annotations: alert.annotations, state: .firing, value: 1,
                activeAtMs: alert.startsAtMs, firedAtMs: alert.startsAtMs)
        }
    }

    private static func isAlert(_ finding: Finding) -> Bool {
        finding.severity != .info && !finding.isExpected && finding.cause.kind != .preexisting
    }

    private static func alert(_ finding: Finding, _ assessment: Assessment, atMs: Int64) -> Alert {
        var labels = finding.scope.labels
        labels["alertname"] = alertName
        labels["signal"] = finding.signal
        labels["severity"] = finding.severity.rawValue
        labels["component"] = finding.scope.component
        labels["node"] = finding.scope.node
        labels["namespace"] = finding.scope.namespace
        labels["workload"] = finding.scope.workload
        var annotations = ["summary": finding.summary, "cause": finding.cause.explanation]
        if let upgrade = assessment.upgrade { annotations["upgrade"] = upgrade.id }
        if let evidence = finding.evidence.first { annotations["evidence"] = evidence.text }
        return Alert(
            labels: labels.values, annotations: annotations,
            startsAtMs: finding.onsetMs ?? atMs)
    }
}
