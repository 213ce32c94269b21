import Cluster
import Series
import Statistics

/// Whether an upgrade is safe.
package enum Verdict: String, Sendable {
    /// Every critical signal's bound is under its margin.
    case pass = "PASS"
    /// At least one critical signal is worse.
    case fail = "FAIL"
    /// More data is needed.
    case inconclusive = "INCONCLUSIVE"
    /// Data is missing.
    case blind = "BLIND"
}

/// What came out for one signal.
package struct SignalResult: Sendable {
    package enum Status: String, Sendable {
        case ok, worse, better, inconclusive, blind
        /// The metric is not there any more although its target answers.
        case changed
        /// An optional signal's metric is there neither before nor after.
        case absent
    }

    /// One side of a comparison: the value, and of how many events or values it was made.
    package struct Side: Sendable {
        package var value: Double
        package var n: Double
    }

    package var signal: Signal
    package var status: Status
    package var baseline: Side?
    package var soak: Side?
    package var effect: Effect?
    /// The anytime-valid p-value of the null hypothesis that the upgrade made it no worse than half of the floors allow:
    /// the least level at which any part of the signal's test would say so, each with its share of it.
    ///
    /// What began before, or with no step, is none of the upgrade's and speaks for nothing. nil where no test was made.
    package var pValue: Double?
    /// What is missing for an answer; nil where nothing is.
    package var needs: String?

    package init(signal: Signal, status: Status, needs: String? = nil) {
        self.signal = signal
        self.status = status
        self.needs = needs
    }

    init(signal: Signal, _ outcome: Outcome) {
        self.signal = signal
        status = outcome.status
        baseline = outcome.before
        soak = outcome.after
        effect = outcome.effect
        pValue = outcome.pValue
        needs = outcome.needs
    }
}

/// How much something changed.
package struct Effect: Sendable, Equatable {
    package enum Kind: String, Sendable {
        case rateRatio = "rate_ratio"
        case difference
    }

    package var kind: Kind
    /// With 99 % confidence: of a ratio of counts at all looks at once, of a difference of levels at this one.
    package var interval: Interval
}

/// Where a finding is.
///
/// What does not apply is nil.
package struct FindingScope: Sendable, Equatable {
    package var component: String?
    package var node: String?
    package var namespace: String?
    package var workload: String?
    package var batch: Int?
    /// The further labels by which the signal was split: the client and path of a request, say.
    package var labels: Labels

    package init(
        component: String? = nil, node: String? = nil, namespace: String? = nil, workload: String? = nil,
        batch: Int? = nil, labels: Labels = Labels()
    ) {
        self.component = component
        self.node = node
        self.namespace = namespace
        self.workload = workload
        self.batch = batch
        self.labels = labels
    }
}

/// Something that shows a finding.
package struct Evidence: Sendable, Equatable {
    package enum Kind: String, Sendable { case metric, log, audit, event, object }

    package var kind: Kind
    package var text: String
    package var count: Int
    package var firstMs: Int64?
    package var lastMs: Int64?

    package init(kind: Kind, text: String, count: Int, firstMs: Int64?, lastMs: Int64?) {
        self.kind = kind
        self.text = text
        self.count = count
        self.firstMs = firstMs
        self.lastMs = lastMs
    }
}

/// Why something changed.
package struct FindingCause: Sendable, Equatable {
    package enum Kind: String, Sendable {
        case upgradeStep = "upgrade_step"
        /// It was so before the upgrade.
        case preexisting
        case unknown
    }

    package var kind: Kind
    /// The number of the step within the upgrade.
    package var step: Int?
    package var explanation: String
}

/// Something that is other than before the upgrade, or that the reader must know of to judge it.
package struct Finding: Sendable {
    package var signal: String
    package var severity: Signal.Severity
    package var summary: String
    package var scope: FindingScope
    package var unit: String
    package var before: Double?
    package var after: Double?
    package var effect: Effect?
    package var onsetMs: Int64?
    /// Whether such an upgrade does this, as a rule.
    package var isExpected: Bool
    package var cause: FindingCause
    package var evidence: [Evidence]
    /// What else may have done it, a sentence each.
    package var caveats: [String] = []
    /// The signal over time, for a chart: one value a bin; empty where there is none.
    package var timeline: [(atMs: Int64, value: Double)] = []

    /// What names the finding through evaluations: signal and scope.
    package var id: String {
        let parts = [
            signal, scope.component ?? "", scope.node ?? "", scope.namespace ?? "", scope.workload ?? "",
            scope.labels.description,
        ]
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in parts.joined(separator: "\u{1f}").utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        let hex = String(hash, radix: 16)
        return String(repeating: "0", count: 16 - hex.count) + hex
    }

    /// Whether the verdict must be FAIL for it.
    package var failsUpgrade: Bool { severity == .critical && !isExpected && cause.kind != .preexisting }
}

/// The ledger: its rows, and those since the upgrade's first step in figures.
package struct LedgerSummary: Sendable {
    package struct Total: Sendable, Equatable {
        package var total = 0
        package var expected = 0
        package var byCause: [String: Int] = [:]
        package var unexpected: Int { total - expected }

        mutating func add(_ cause: LedgerCause, isExpected: Bool) {
            total += 1
            if isExpected { expected += 1 }
            byCause[cause.rawValue, default: 0] += 1
        }
    }

    /// What happened on one node.
    package struct Node: Sendable {
        package var name: String
        package var restarts = Total()
        package var evictions = Total()
    }

    /// A row, judged where it came since the first step.
    package struct Row: Sendable {
        package var entry: LedgerEntry
        /// nil: it came before the upgrade.
        package var judgement: Expectation.Judgement?
    }

    package var restarts = Total()
    package var evictions = Total()
    /// By name; those on which something happened.
    package var nodes: [Node] = []
    /// All rows in order of time, also those of the baseline.
    package var rows: [Row] = []
}

/// Which part of the data that was due is there.
package struct Coverage: Sendable {
    package struct Gap: Sendable, Equatable {
        package var instance: String
        package var fromMs: Int64
        package var throughMs: Int64
    }

    package var targets = 0
    package var scrapesDue = 0
    package var scrapesOK = 0
    /// nil: none came.
    package var firstScrapeMs: Int64?
    package var gaps: [Gap] = []
    /// What was not there to be looked at, and what it is missed for.
    package var missing: [String] = []
}

/// How good the time before the first step is to compare with: it is frozen there.
package struct BaselineQuality: Sendable, Equatable {
    package var fromMs: Int64
    package var throughMs: Int64
    package var scrapesDue: Int
    package var scrapesOK: Int
    /// The names of the alerts that fired within it: what was wrong then is taken for normal.
    package var firedAlerts: [String]
}

/// A verdict since a time, as it was stored when it came.
package struct StoredVerdict: Sendable, Equatable {
    package var atMs: Int64
    package var verdict: Verdict

    package init(atMs: Int64, verdict: Verdict) {
        self.atMs = atMs
        self.verdict = verdict
    }
}

/// All that is known of an upgrade at one time: what reports, alerts, the page and the API show.
package struct Assessment: Sendable {
    package var cluster: String
    package var generatedMs: Int64
    /// nil: none was seen.
    package var upgrade: Upgrade?
    /// The batch that alone is judged; nil: all.
    package var batch: Int?
    package var phase: UpgradePhase
    package var soakUntilMs: Int64?
    package var baselineFromMs: Int64?
    /// Until when the history was read, where that is not all yet: nothing is judged.
    package var readThroughMs: Int64?
    package var verdict: Verdict
    package var reasons: [String]
    package var signals: [SignalResult]
    package var findings: [Finding]
    /// The findings that are worth a look, folded into what most likely has one cause; the worst first.
    package var incidents: [Incident] = []
    /// Signals that most likely got worse by more than half of what a finding asks for, and are none: by name.
    package var advisories: [String] = []
    package var ledger: LedgerSummary
    package var coverage: Coverage
    /// nil: no upgrade was seen, or nobody asked.
    package var baseline: BaselineQuality?
    /// The verdicts that were stored while it was watched, oldest first.
    package var history: [StoredVerdict] = []
}
