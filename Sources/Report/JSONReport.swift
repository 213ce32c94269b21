import Cluster
import Comparison
import Foundation
import Series
import Statistics

/// The report as JSON, schema `upgrade-watch/report/v1` (docs/report.md).
///
/// What is not known is null, never left out.
package struct JSONReport: Encodable, Sendable {
    struct UpgradePart: Encodable {
        var id: String
        var from: String
        var to: String
        var phase: String
        var startedAt: String
        @Null var finishedAt: String?
        @Null var soakUntil: String?
        var detectedBy: String
        var steps: [StepPart]
    }
    struct StepPart: Encodable {
        var at: String
        var component: String
        @Null var instance: String?
        @Null var node: String?
        var from: String
        var to: String
        var batch: Int
    }
    struct ScopePart: Encodable {
        @Null var component: String?
        @Null var node: String?
        @Null var namespace: String?
        @Null var workload: String?
        @Null var batch: Int?
        var labels: [String: String]
    }
    struct SidePart: Encodable {
        var value: Double
        var unit: String
        var n: Double
    }
    struct EffectPart: Encodable {
        var kind: String
        @Null var estimate: Double?
        @Null var low: Double?
        @Null var high: Double?
    }
    struct SignalPart: Encodable {
        var name: String
        var critical: Bool
        var status: String
        var scope: ScopePart
        @Null var baseline: SidePart?
        @Null var soak: SidePart?
        @Null var effect: EffectPart?
        @Null var pValue: Double?
        @Null var needs: String?
    }
    struct CausePart: Encodable {
        var kind: String
        @Null var step: Int?
        var explanation: String
    }
    struct EvidencePart: Encodable {
        var kind: String
        var text: String
        var count: Int
        @Null var first: String?
        @Null var last: String?
    }
    struct FindingPart: Encodable {
        var id: String
        var signal: String
        var severity: String
        var summary: String
        var scope: ScopePart
        @Null var before: Double?
        @Null var after: Double?
        @Null var effect: EffectPart?
        @Null var onset: String?
        var expected: Bool
        var cause: CausePart
        var caveats: [String]
        var evidence: [EvidencePart]
    }
    struct IncidentPart: Encodable {
        @Null var onset: String?
        @Null var batch: Int?
        @Null var step: Int?
        var failsUpgrade: Bool
        var findings: [String]
        var summary: String
    }
    struct TotalPart: Encodable {
        var total: Int
        var expected: Int
        var unexpected: Int
        var byCause: [String: Int]
    }
    struct LedgerPart: Encodable {
        var restarts: TotalPart
        var evictions: TotalPart
        var nodes: [NodePart]
        var entries: [EntryPart]
        /// How many there are; only the newest are listed.
        var entriesTotal: Int
    }
    struct NodePart: Encodable {
        var node: String
        var restarts: TotalPart
        var evictions: TotalPart
    }
    struct EntryPart: Encodable {
        struct EvidencePart: Encodable {
            var kind: String
            var text: String
            @Null var cause: String?
        }
        var at: String
        var kind: String
        var node: String
        var namespace: String
        var pod: String
        var podUid: String
        @Null var container: String?
        @Null var containerId: String?
        var workload: String
        var workloadKind: String
        @Null var exitCode: Int?
        var reason: String
        var cause: String
        var detail: String
        @Null var expected: Bool?
        @Null var why: String?
        var evidence: [EvidencePart]
    }
    struct GapPart: Encodable {
        var instance: String
        var from: String
        var to: String
    }
    struct CoveragePart: Encodable {
        var targets: Int
        var scrapesDue: Int
        var scrapesOk: Int
        var gaps: [GapPart]
        var missing: [String]
    }

    struct BaselinePart: Encodable {
        var from: String
        var to: String
        var scrapesDue: Int
        var scrapesOk: Int
        var firedAlerts: [String]
    }
    struct HistoryPart: Encodable {
        var at: String
        var verdict: String
    }

    let schema = "upgrade-watch/report/v1"
    let cluster: String
    let generatedAt: String
    @Null var upgrade: UpgradePart?
    /// The batch that alone is judged.
    @Null var batch: Int?
    /// Until when the history was read, where that is not all yet.
    @Null var readThrough: String?
    let verdict: String
    let reasons: [String]
    let signals: [SignalPart]
    let findings: [FindingPart]
    let incidents: [IncidentPart]
    let advisories: [String]
    let ledger: LedgerPart
    let coverage: CoveragePart
    @Null var baseline: BaselinePart?
    let history: [HistoryPart]

    package init(_ assessment: Assessment) {
        cluster = assessment.cluster
        generatedAt = TimeFormat.rfc3339(ms: assessment.generatedMs)
        _upgrade = Null(wrappedValue: assessment.upgrade.map { JSONReport.upgrade($0, assessment) })
        _batch = Null(wrappedValue: assessment.batch)
        _readThrough = Null(wrappedValue: assessment.readThroughMs.map { TimeFormat.rfc3339(ms: $0) })
        verdict = assessment.verdict.rawValue
        reasons = assessment.reasons
        signals = assessment.signals.map(JSONReport.signal)
        findings = assessment.findings.map(JSONReport.finding)
        incidents = assessment.incidents.map { incident in
            IncidentPart(
                onset: incident.onsetMs.map { TimeFormat.rfc3339(ms: $0) }, batch: incident.batch, step: incident.step,
                failsUpgrade: incident.failsUpgrade, findings: incident.findings, summary: incident.summary)
        }
        advisories = assessment.advisories
        ledger = LedgerPart(
            restarts: JSONReport.total(assessment.ledger.restarts),
            evictions: JSONReport.total(assessment.ledger.evictions),
            nodes: assessment.ledger.nodes.map { node in
                NodePart(
                    node: node.name, restarts: JSONReport.total(node.restarts),
                    evictions: JSONReport.total(node.evictions))
            }, entries: assessment.ledger.rows.suffix(JSONReport.maxEntries).map(JSONReport.entry),
            entriesTotal: assessment.ledger.rows.count)
        coverage = CoveragePart(
            targets: assessment.coverage.targets, scrapesDue: assessment.coverage.scrapesDue,
            scrapesOk: assessment.coverage.scrapesOK,
            gaps: assessment.coverage.gaps.map {
                GapPart(
                    instance: $0.instance, from: TimeFormat.rfc3339(ms: $0.fromMs),
                    to: TimeFormat.rfc3339(ms: $0.throughMs))
            }, missing: assessment.coverage.missing)
        let baseline = assessment.baseline.map { baseline in
            BaselinePart(
                from: TimeFormat.rfc3339(ms: baseline.fromMs), to: TimeFormat.rfc3339(ms: baseline.throughMs),
                scrapesDue: baseline.scrapesDue, scrapesOk: baseline.scrapesOK, firedAlerts: baseline.firedAlerts)
        }
        _baseline = Null(wrappedValue: baseline)
        history = assessment.history.map {
            HistoryPart(at: TimeFormat.rfc3339(ms: $0.atMs), verdict: $0.verdict.rawValue)
        }
    }

    private static let maxEntries = 10_000

    private static func entry(_ row: LedgerSummary.Row) -> EntryPart {
        let entry = row.entry
        let text = { (text: String) in text.isEmpty ? nil : text }
        return EntryPart(
            at: TimeFormat.rfc3339(ms: entry.atMs), kind: entry.kind.rawValue, node: entry.node,
            namespace: entry.namespace, pod: entry.pod, podUid: entry.podUID, container: text(entry.container),
            containerId: text(entry.containerID), workload: entry.workload, workloadKind: entry.workloadKind,
            exitCode: entry.exitCode, reason: entry.reason, cause: entry.cause.rawValue, detail: entry.detail,
            expected: row.judgement?.isExpected, why: row.judgement?.why,
            evidence: entry.evidence.map { .init(kind: $0.source.rawValue, text: $0.text, cause: $0.cause?.rawValue) })
    }

    /// The report as text, with sorted keys, so that the same assessment gives the same bytes.
    ///
    /// - Throws: nothing but what `JSONEncoder` throws for numbers that JSON has not, which are null here.
    package func text() throws -> String { try JSONReport.text(self) }

    /// What programs read, with names in snake case and in order, so that the same value gives the same bytes.
    ///
    /// - Throws: what `JSONEncoder` throws.
    package static func text(_ value: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        // JSON has no such numbers; a report must not be lost for one. As Prometheus writes them.
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "+Inf", negativeInfinity: "-Inf", nan: "NaN")
        return String(decoding: try encoder.encode(value), as: UTF8.self) + "\n"
    }

    private static func upgrade(_ upgrade: Upgrade, _ assessment: Assessment) -> UpgradePart {
        UpgradePart(
            id: upgrade.id, from: upgrade.from, to: upgrade.to, phase: assessment.phase.rawValue,
            startedAt: TimeFormat.rfc3339(ms: upgrade.startedMs),
            finishedAt: upgrade.finishedMs.map { TimeFormat.rfc3339(ms: $0) },
            soakUntil: assessment.soakUntilMs.map { TimeFormat.rfc3339(ms: $0) }, detectedBy: upgrade.detectedBy,
            steps: upgrade.steps.map { step in
                StepPart(
                    at: TimeFormat.rfc3339(ms: step.atMs), component: step.component, instance: step.instance,
                    node: step.node, from: step.from, to: step.to, batch: step.batch)
            })
    }

    private static func effect(_ effect: Effect) -> EffectPart {
        let finite = { (value: Double) in value.isFinite ? value : nil }
        return EffectPart(
            kind: effect.kind.rawValue, estimate: finite(effect.interval.estimate), low: finite(effect.interval.low),
            high: finite(effect.interval.high))
    }

    private static func signal(_ result: SignalResult) -> SignalPart {
        let side = { (side: SignalResult.Side) in SidePart(value: side.value, unit: result.signal.unit, n: side.n) }
        return SignalPart(
            name: result.signal.name, critical: result.signal.isCritical, status: result.status.rawValue,
            scope: ScopePart(component: result.signal.component.isEmpty ? nil : result.signal.component, labels: [:]),
            baseline: result.baseline.map(side), soak: result.soak.map(side), effect: result.effect.map(effect),
            pValue: result.pValue, needs: result.needs)
    }

    private static func finding(_ finding: Finding) -> FindingPart {
        let scope = finding.scope
        return FindingPart(
            id: finding.id, signal: finding.signal, severity: finding.severity.rawValue, summary: finding.summary,
            scope: ScopePart(
                component: scope.component, node: scope.node, namespace: scope.namespace, workload: scope.workload,
                batch: scope.batch, labels: scope.labels.values),
            before: finding.before, after: finding.after, effect: finding.effect.map(effect),
            onset: finding.onsetMs.map { TimeFormat.rfc3339(ms: $0) }, expected: finding.isExpected,
            cause: CausePart(
                kind: finding.cause.kind.rawValue, step: finding.cause.step, explanation: finding.cause.explanation),
            caveats: finding.caveats,
            evidence: finding.evidence.map { evidence in
                EvidencePart(
                    kind: evidence.kind.rawValue, text: evidence.text, count: evidence.count,
                    first: evidence.firstMs.map { TimeFormat.rfc3339(ms: $0) },
                    last: evidence.lastMs.map { TimeFormat.rfc3339(ms: $0) })
            })
    }

    private static func total(_ total: LedgerSummary.Total) -> TotalPart {
        TotalPart(total: total.total, expected: total.expected, unexpected: total.unexpected, byCause: total.byCause)
    }
}
