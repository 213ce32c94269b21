import Cluster
import Comparison
import Foundation
import Series
import Statistics

/// What a judge said of a simulated upgrade, look after look.
package struct JudgedRun: Sendable, Equatable {
    /// What is blamed.
    package struct Blame: Sendable, Equatable {
        package var component: String?
        package var batch: Int?
        package var onsetMs: Int64?

        package init(component: String?, batch: Int?, onsetMs: Int64?) {
            self.component = component
            self.batch = batch
            self.onsetMs = onsetMs
        }
    }

    /// When the verdict first was FAIL since the last look that was none; in order.
    package var pagesMs: [Int64] = []
    /// The last verdict.
    package var verdict: Verdict = .inconclusive
    /// What was blamed when it was FAIL for the first time: what whoever was paged read.
    ///
    /// One of a fault before it began gives way to the next.
    package var blame: Blame?
    /// The names of failing signals, at any look.
    package var signals: [String] = []
    /// The least p-value of any look by signal, for judges that have such.
    package var pValues: [String: Double] = [:]
    /// Whether each signal's interval at the last look holds no change at all.
    package var intervalsHoldNone: [String: Bool] = [:]
    /// Why the last verdict was not another.
    package var reasons: [String] = []
    /// What was found at the last look, in words.
    package var findings: [String] = []

    package init() {}

    /// The signals whose test rejects at the level 0.01, by name.
    package var rejected: [String] { pValues.filter { $0.value <= 0.01 }.keys.sorted() }
    /// The signals whose interval says that something changed, by name.
    package var changed: [String] { intervalsHoldNone.filter { !$0.value }.keys.sorted() }
}

/// Faults that nobody could find, for no node has them or nobody looks any more.
private struct FaultsOutOfSight: Error, CustomStringConvertible {
    var description: String

    init(_ scenario: Scenario, seed: UInt64, _ reason: String) {
        description = "\(scenario.file): with seed \(seed) \(reason)"
    }
}

/// A scenario with one seed: what was to be found, and what each judge found.
package struct ScenarioRun: Sendable {
    package var name: String
    package var seed: UInt64
    package var expectation: Scenario.Expectation
    package var upgradeMs: Int64
    package var endMs: Int64
    package var onsetMs: Int64?
    /// The components that may be blamed.
    package var components: Set<String>
    /// The batches that may be blamed; empty: the control plane's.
    package var batches: Set<Int>
    /// By judge; ours is `upgrade-watch`.
    package var judged: [String: JudgedRun]

    package init(
        name: String, seed: UInt64, expectation: Scenario.Expectation, upgradeMs: Int64, endMs: Int64,
        onsetMs: Int64?, components: Set<String>, batches: Set<Int>, judged: [String: JudgedRun]
    ) {
        self.name = name
        self.seed = seed
        self.expectation = expectation
        self.upgradeMs = upgradeMs
        self.endMs = endMs
        self.onsetMs = onsetMs
        self.components = components
        self.batches = batches
        self.judged = judged
    }

    package static let ours = "upgrade-watch"

    /// Simulates a scenario and lets the judges look at it.
    ///
    /// - Parameter baselines: those to judge beside ours.
    /// - Throws: an error in a signal's expression, or one that says that the faults have no place.
    package init(_ scenario: Scenario, seed: UInt64, signals: [Signal], baselines: [Baseline] = []) throws {
        let cluster = SimulatedCluster(scenario, seed: seed)
        guard scenario.faults.isEmpty || cluster.onsetMs != nil else {
            throw FaultsOutOfSight(
                scenario, seed: seed,
                "no node is where the faults are to be: see their where, and with controls_only give them at")
        }
        if let onsetMs = cluster.onsetMs, onsetMs >= cluster.endMs {
            let late = TimeFormat.duration(ms: max(60_000, onsetMs - cluster.endMs) / 60_000 * 60_000)
            throw FaultsOutOfSight(
                scenario, seed: seed,
                "the faults begin \(late) after the soak's end: make their delay shorter, or the soak longer")
        }
        let components =
            scenario.components.isEmpty ? scenario.faults.map(\.process.component) : scenario.components
        self.init(
            name: scenario.name, seed: seed, expectation: scenario.expectation, upgradeMs: cluster.upgradeMs,
            endMs: cluster.endMs, onsetMs: cluster.onsetMs, components: Set(components),
            batches: cluster.faultyBatches, judged: [:])
        var tables = ComparisonTables()
        judged[ScenarioRun.ours] = try ScenarioRun.judge(cluster, signals, &tables)
        guard !baselines.isEmpty else { return }
        let series = signals.filter(\.isCritical).map { signal in
            Baseline.Series(
                signal: signal,
                values: tables.series(of: signal, upgrade: cluster.upgrade, nowMs: cluster.endMs))
        }
        for baseline in baselines {
            judged[baseline.rawValue] = baseline.judge(
                series, upgradeMs: cluster.upgradeMs, lastStepMs: cluster.upgrade.finishedMs ?? cluster.upgradeMs,
                endMs: cluster.endMs)
        }
    }

    private static func judge(
        _ cluster: SimulatedCluster, _ signals: [Signal], _ tables: inout ComparisonTables
    ) throws -> JudgedRun {
        let scenario = cluster.scenario
        var run = JudgedRun()
        var last = Verdict.inconclusive
        var isEarly = false
        var atMs = cluster.upgradeMs + scenario.lookMs
        while atMs <= cluster.endMs {
            let assessment = try Comparison.assess(
                ComparisonInput(
                    cluster: scenario.name, source: cluster.source, upgrade: cluster.upgrade(atMs: atMs), nowMs: atMs,
                    baselineMs: scenario.preMs, soakMs: scenario.soakMs, signals: signals, ledger: [],
                    accountsForMetrics: false, logEvidence: { _ in [] }), tables: &tables)
            if assessment.verdict == .fail {
                if last != .fail { run.pagesMs.append(atMs) }
                if run.blame == nil || isEarly {
                    let first = assessment.findings.first(where: \.failsUpgrade)
                    run.blame = first.map {
                        .init(
                            component: $0.scope.component
                                ?? $0.cause.step.flatMap { assessment.upgrade?.steps[$0].component },
                            batch: $0.scope.batch, onsetMs: $0.onsetMs)
                    }
                    isEarly = atMs < cluster.onsetMs ?? 0
                }
                for finding in assessment.findings where finding.failsUpgrade && !run.signals.contains(finding.signal) {
                    run.signals.append(finding.signal)
                }
            }
            last = assessment.verdict
            run.reasons = assessment.reasons
            run.findings = assessment.findings.map { finding in
                "\(finding.severity.rawValue) \(finding.signal): \(finding.summary) (\(finding.cause.explanation))"
            }
            for result in assessment.signals {
                if let p = result.pValue {
                    run.pValues[result.signal.name] = min(p, run.pValues[result.signal.name] ?? 1)
                }
                run.intervalsHoldNone[result.signal.name] = result.effect.map { effect in
                    let none: Double = effect.kind == .rateRatio ? 1 : 0
                    return effect.interval.low <= none && none <= effect.interval.high
                }
            }
            let isLate = atMs > (cluster.upgrade.finishedMs ?? atMs) + 7_200_000
            // The last look is at the end of the soak.
            let next = atMs + (isLate ? 3 : 1) * scenario.lookMs
            atMs = atMs < cluster.endMs ? min(next, cluster.endMs) : next
        }
        run.verdict = last
        return run
    }
}
