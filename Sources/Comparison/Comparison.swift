import Cluster
import Foundation
import PromQL
import Series
import Statistics

/// What a comparison is made from.
package struct ComparisonInput: Sendable {
    package var cluster: String
    package var source: any SeriesSource
    /// nil: none was seen.
    package var upgrade: Upgrade?
    package var nowMs: Int64
    /// The longest stretch before the first step that is compared with.
    package var baselineMs: Int64
    package var soakMs: Int64
    package var signals: [Signal]
    /// Ledger rows of the whole time.
    package var ledger: [LedgerEntry]
    /// Whether every metric that is gone and every scrape that did not come is accounted for: reports do, the
    /// comparisons for alerts need not.
    package var accountsForMetrics: Bool
    /// Only what went over with this batch is judged; nil: with any.
    package var batch: Int?
    /// How much a call reads at most, as the product of nodes and minutes; nil: all.
    ///
    /// Until all is read, an assessment says no more than that.
    package var mostNodeMinutes: Int64?
    /// The lines kept for counters of logs, by the matchers of their series.
    package var logEvidence: @Sendable ([LabelMatcher]) throws -> [(labels: Labels, evidence: Evidence)]

    package init(
        cluster: String, source: any SeriesSource, upgrade: Upgrade?, nowMs: Int64, baselineMs: Int64, soakMs: Int64,
        signals: [Signal], ledger: [LedgerEntry], accountsForMetrics: Bool = true, batch: Int? = nil,
        mostNodeMinutes: Int64? = nil,
        logEvidence: @escaping @Sendable ([LabelMatcher]) throws -> [(labels: Labels, evidence: Evidence)]
    ) {
        self.cluster = cluster
        self.source = source
        self.upgrade = upgrade
        self.nowMs = nowMs
        self.baselineMs = baselineMs
        self.soakMs = soakMs
        self.signals = signals
        self.ledger = ledger
        self.accountsForMetrics = accountsForMetrics
        self.batch = batch
        self.mostNodeMinutes = mostNodeMinutes
        self.logEvidence = logEvidence
    }
}

/// Compares a cluster with itself before an upgrade.
///
/// The one way from data to findings: all that shows a verdict, a finding or an alert about an upgrade calls
/// ``assess(_:)``.
package enum Comparison {
    /// The baseline ends this long before the first sign of a new version: the step began up to two scrapes earlier.
    static let guardMs: Int64 = 60_000
    /// Counts are judged from this long after a step on: what a restart itself stirs up is not its consequence.
    static let settleMs: Int64 = 120_000
    /// Levels are: caches warm up.
    static let levelSettleMs: Int64 = 300_000
    /// What began so much earlier than a step is none of its consequences.
    static let vetoMs: Int64 = 1_800_000
    /// What the control plane's step does to all nodes alike shows within this time.
    static let aftermathMs: Int64 = 3_600_000
    /// What a step does begins to show within this time after it.
    static let promptMs: Int64 = 300_000
    /// What begins with no step, and with nothing to compare with beside it, is told when it has lasted so long.
    static let lastingMs: Int64 = 14_400_000

    /// Trouble that was not there in so many last minutes may have passed.
    private static let lastMs: Int64 = 600_000

    /// The parts of a time in each of which trouble must be there for it to have lasted: its thirds, and the last minutes.
    static func lastingParts(_ bins: Bins, from first: Int, to end: Int) -> (thirds: [Range<Int>], last: Range<Int>) {
        let length = max(0, end - first)
        let ends = [0, length / 3, 2 * length / 3, length].map { end - length + $0 }
        let last = max(first, end - bins.count(ms: lastMs))
        return (zip(ends, ends.dropFirst()).map { $0..<$1 }, last..<max(last, end))
    }

    /// The least part of the data that must be there since the upgrade.
    static let leastCoverage = 0.9
    /// The confidence of all intervals, before it is divided among signals and their splits.
    static let confidence = 0.99

    /// Assesses an upgrade from all that is stored.
    ///
    /// - Throws: the source's error, or an error in a signal's expression.
    package static func assess(_ input: ComparisonInput) throws -> Assessment {
        var tables = ComparisonTables()
        return try assess(input, tables: &tables)
    }

    /// Assesses an upgrade from what earlier calls read and what came since; the result is the same.
    ///
    /// - Parameter tables: of earlier calls with the same source.
    /// - Throws: the source's error, or an error in a signal's expression.
    package static func assess(_ input: ComparisonInput, tables: inout ComparisonTables) throws -> Assessment {
        let range = try input.source.timeRange()
        var assessment = Assessment(
            cluster: input.cluster, generatedMs: input.nowMs, upgrade: input.upgrade, batch: input.batch,
            phase: .baseline, soakUntilMs: nil, baselineFromMs: range?.lowerBound, verdict: .inconclusive, reasons: [],
            signals: [], findings: [], ledger: LedgerSummary(), coverage: Coverage())
        guard let upgrade = input.upgrade, let range else {
            assessment.reasons = ["no upgrade seen"]
            if let range {
                assessment.coverage = try Coverage.measure(
                    input.source, fromMs: range.lowerBound, throughMs: min(range.upperBound, input.nowMs))
            }
            return assessment
        }
        let windows = Windows(
            upgrade: upgrade, nowMs: min(input.nowMs, max(range.upperBound, upgrade.startedMs)),
            dataFromMs: range.lowerBound, baselineMs: input.baselineMs)
        assessment.phase = upgrade.phase(atMs: input.nowMs, soakMs: input.soakMs)
        assessment.soakUntilMs = upgrade.soakUntilMs(soakMs: input.soakMs)
        assessment.baselineFromMs = windows.baseline.fromMs
        var compared = input
        let continuity = UpgradePath(upgrade).map { MetricContinuity(path: $0) }
        if let continuity { compared.source = ContinuousSource(input.source, continuity: continuity) }
        let readThroughMs = try tables.follow(compared, upgrade: upgrade, windows: windows)
        guard readThroughMs >= windows.nowMs else {
            assessment.readThroughMs = readThroughMs
            assessment.reasons = [
                "the history is still being read: from \(TimeFormat.rfc3339(ms: windows.baseline.fromMs)) "
                    + "until \(TimeFormat.rfc3339(ms: readThroughMs)) so far"
            ]
            return assessment
        }
        if input.accountsForMetrics {
            assessment.coverage = try Coverage.measure(
                input.source, fromMs: windows.baseline.fromMs, throughMs: windows.nowMs)
            assessment.baseline = try BaselineQuality(input.source, windows.baseline)
            if let continuity {
                assessment.findings += try MetricChanges.findings(
                    input.source, continuity: continuity, upgrade: upgrade, windows: windows)
            }
        }
        let comparer = SignalComparer(
            input: compared, upgrade: upgrade, windows: windows, continuity: continuity, tables: tables)
        for (result, findings) in try input.signals.concurrentMap({ try comparer.compare($0) }) {
            assessment.signals.append(result)
            assessment.findings += findings
        }
        assessment.findings += try ObjectFindings.findings(input.source, upgrade: upgrade, windows: windows)
        assessment.findings += try ObjectFindings.skew(input.source, windows: windows)
        assessment.findings = folded(assessment.findings)
        let restarts = try RestartFindings(input: input, upgrade: upgrade, windows: windows)
        assessment.findings += restarts.findings
        assessment.ledger = restarts.summary
        assessment.findings.sort { left, right in
            let (a, b) = (rank(left), rank(right))
            return a == b ? (left.signal, left.summary) < (right.signal, right.summary) : a < b
        }
        let confounding = try Confounding(input, upgrade: upgrade, windows: windows)
        for index in assessment.findings.indices {
            assessment.findings[index].caveats += confounding.caveats(of: assessment.findings[index])
        }
        assessment.incidents = Incident.fold(assessment.findings, upgrade)
        assessment.advisories = advisories(assessment.signals, told: Set(assessment.findings.map(\.signal)))
        decide(&assessment, isWhole: input.batch == nil)
        return assessment
    }

    /// Signals whose test says more than half of the floors without their being told as findings.
    ///
    /// A list for people, not a verdict: of all that is told in it at most a part of ``discoveryRate`` is told wrongly,
    /// however the signals depend on each other (e-BH, ``EValues/discoveries(_:level:)``).
    package static func advisories(_ results: [SignalResult], told: Set<String>) -> [String] {
        let tested = results.filter { $0.pValue != nil }
        let values = tested.map { EValues.adjusted(logMaximum: -log(max($0.pValue ?? 1, .leastNormalMagnitude))) }
        return EValues.discoveries(values, level: discoveryRate).map { tested[$0] }
            .filter { $0.status != .worse && !told.contains($0.signal.name) }.map(\.signal.name)
    }

    /// The false discovery rate of advisories.
    private static let discoveryRate = 0.05

    /// The findings without those that a failing one tells already: of the same requests, by the code of their errors.
    private static func folded(_ findings: [Finding]) -> [Finding] {
        let failing = Set(findings.filter(\.failsUpgrade).map(\.scope.labels))
        return findings.filter { finding in
            let labels = finding.scope.labels
            return finding.failsUpgrade || labels["code"] == nil || !failing.contains(labels.removing(["code"]))
        }
    }

    /// Failing findings first, then by severity, what is expected or was there before last.
    private static func rank(_ finding: Finding) -> Int {
        if finding.failsUpgrade { return 0 }
        let calm = finding.isExpected || finding.cause.kind == .preexisting ? 10 : 0
        return calm + (Signal.Severity.allCases.firstIndex(of: finding.severity) ?? 0) + 1
    }

    private static func decide(_ assessment: inout Assessment, isWhole: Bool) {
        let failing = assessment.findings.filter(\.failsUpgrade)
        let critical = assessment.signals.filter(\.signal.isCritical)
        let blind = critical.filter { $0.status == .blind || $0.status == .changed }
        let open = critical.filter { $0.status == .inconclusive }
        if !failing.isEmpty {
            assessment.verdict = .fail
            assessment.reasons = failing.map(\.summary)
        } else if !blind.isEmpty {
            assessment.verdict = .blind
            assessment.reasons = blind.map { "\($0.signal.name): \($0.needs ?? "no data")" }
        } else if critical.isEmpty {
            assessment.verdict = .inconclusive
            assessment.reasons = ["no critical signal is declared"]
        } else if !open.isEmpty {
            assessment.verdict = .inconclusive
            assessment.reasons = open.map { "\($0.signal.name): \($0.needs ?? "more data is needed")" }
        } else if critical.allSatisfy({ $0.status == .absent }) {
            assessment.verdict = .inconclusive
            assessment.reasons = ["no critical signal has data"]
        } else if isWhole, [.upgrading, .paused, .rollingBack].contains(assessment.phase) {
            assessment.verdict = .inconclusive
            assessment.reasons = ["the upgrade is not finished; so far no critical signal is worse"]
        } else {
            assessment.verdict = .pass
            assessment.reasons = ["the bound on every critical signal is under its margin"]
        }
    }
}

/// A stretch of time, open at its left.
struct TimeSpan: Sendable, Equatable {
    var fromMs: Int64
    var throughMs: Int64

    var seconds: Double { Double(max(0, throughMs - fromMs)) / 1000 }
}

/// The stretches of time that are compared.
struct Windows: Sendable {
    var baseline: TimeSpan
    var nowMs: Int64

    init(upgrade: Upgrade, nowMs: Int64, dataFromMs: Int64, baselineMs: Int64) {
        self.nowMs = nowMs
        let end = upgrade.startedMs - Comparison.guardMs
        baseline = TimeSpan(fromMs: min(end, max(dataFromMs, end - baselineMs)), throughMs: end)
    }
}
