import Cluster
import Comparison
import Foundation
import Report
import Series
import Simulator
import Statistics
import Synchronization
import TestSupport
import Testing

private let hour: Int64 = 3_600_000

extension SeriesSamples {
    /// The samples whose times are kept.
    fileprivate func keeping(_ isKept: (Int64) -> Bool) -> SeriesSamples {
        let kept = timestampsMs.indices.filter { isKept(timestampsMs[$0]) }
        return SeriesSamples(
            labels: labels, timestampsMs: kept.map { timestampsMs[$0] }, values: kept.map { values[$0] })
    }
}

/// What the documentation says of the judgement, on small simulated clusters.
@Suite struct SimulatedJudgementTests {
    private static let signals = try? Signal.load(file: Shared.root + "/config/signals.yaml")

    private func scenario(
        _ more: String = "", nodes: Int = 10, workloads: Int = 4, soak: String = "6h",
        rollout: String = "batches: [0.3, 1], gap: 20m"
    ) throws -> Scenario {
        try Scenario.load(
            text: """
                pre: 24h
                soak: \(soak)
                topology: {nodes: \(nodes), workloads: \(workloads), control_planes: 1}
                rollout: {\(rollout)}
                \(more)
                """, file: "small.yaml")
    }

    private func assess(
        _ cluster: SimulatedCluster, source: (any SeriesSource)? = nil, atMs: Int64, _ tables: inout ComparisonTables,
        batch: Int? = nil, ledger: [LedgerEntry] = [], signals: [Signal]? = SimulatedJudgementTests.signals,
        baselineMs: Int64 = 24 * hour, mostNodeMinutes: Int64? = nil
    ) throws -> Assessment {
        try Comparison.assess(
            ComparisonInput(
                cluster: "small", source: source ?? cluster.source, upgrade: cluster.upgrade(atMs: atMs), nowMs: atMs,
                baselineMs: baselineMs, soakMs: 6 * hour, signals: try #require(signals), ledger: ledger,
                accountsForMetrics: false, batch: batch, mostNodeMinutes: mostNodeMinutes, logEvidence: { _ in [] }),
            tables: &tables)
    }

    /// What a verdict is made of.
    private func told(_ assessment: Assessment) -> [String] {
        [assessment.verdict.rawValue] + assessment.reasons
            + assessment.signals.map { "\($0.signal.name) \($0.status)" } + assessment.findings.map(\.summary)
    }

    /// All that is told: also how sure, how much, since when and where; to six digits, since sums of other orders have other
    /// last ones.
    private func whole(_ assessment: Assessment) -> [String] {
        let number = { (value: Double?) in value.map { String(format: "%.6g", $0) } ?? "-" }
        return told(assessment)
            + assessment.signals.map { result in
                let interval = result.effect?.interval
                let numbers = [result.pValue, interval?.estimate, interval?.low, interval?.high].map(number)
                return "\(result.signal.name) \(numbers.joined(separator: " "))"
            }
            + assessment.findings.map {
                "\($0.id) \($0.scope) \(String(describing: $0.onsetMs)) \($0.cause.explanation)"
            } + assessment.incidents.map { "\($0)" }
    }

    private static let exits = "faults:\n- {kind: container_exits, add: 20}"
    private static let apiErrors = "faults:\n- {kind: apiserver_errors, add: 0.02}"

    @Test func faultsThatBeginWhenAllIsOver_areAnError() throws {
        let text = "faults:\n- {kind: container_exits, add: 20, delay: 370m}"
        let thrown = #expect(throws: (any Error).self) {
            try ScenarioRun(scenario(text, rollout: "batches: [1]"), seed: 3, signals: #require(Self.signals))
        }
        #expect("\(try #require(thrown))".hasPrefix("small.yaml: with seed 3 the faults begin "))
    }

    @Test func faultsThatNoNodeHas_areAnError() throws {
        let text = "faults:\n- {kind: container_exits, add: 20, where: {controls_only: true}}"
        let thrown = #expect(throws: (any Error).self) {
            try ScenarioRun(scenario(text), seed: 3, signals: #require(Self.signals))
        }
        #expect("\(try #require(thrown))".hasPrefix("small.yaml: with seed 3 no node is where the faults are to be"))
    }

    @Test func sameSeed_givesTheSameSeries_andAnotherGivesOthers() throws {
        let scenario = try scenario(Self.exits)
        let all: [LabelMatcher] = [.equal(Labels.metricName, "upgrade_watch_container_exits_total")]
        let read = { (seed: UInt64) in
            try SimulatedCluster(scenario, seed: seed).source.select(all, fromMs: .min, throughMs: .max - 1)
        }
        #expect(try read(7) == read(7))
        #expect(try read(7) != read(8))
    }

    /// What a service has read bit by bit is what a report reads at once.
    @Test(arguments: [
        "", SimulatedJudgementTests.exits, SimulatedJudgementTests.apiErrors,
        "faults:\n- {kind: kubelet_cpu, ratio: 3, where: {batches: [2]}}",
    ])
    func batch_isTheSameAsStreaming(more: String) throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        let cluster = SimulatedCluster(try scenario(more), seed: seed)
        var streamed = ComparisonTables()
        var atMs = cluster.upgradeMs + 60_000
        while atMs < cluster.endMs {
            _ = try assess(cluster, atMs: atMs, &streamed)
            atMs += Int64.random(in: 30_000...3_000_000, using: &random)
        }
        let inSteps = try assess(cluster, atMs: cluster.endMs, &streamed)
        var fresh = ComparisonTables()
        let atOnce = try assess(cluster, atMs: cluster.endMs, &fresh)
        let different = zip(whole(inSteps), whole(atOnce)).filter { $0 != $1 }
        #expect(different.isEmpty, "seed \(seed): \(different.prefix(3))")
        #expect(whole(inSteps).count == whole(atOnce).count, "seed \(seed)")
        #expect((atOnce.verdict == .fail) == !more.isEmpty, "seed \(seed)")
    }

    /// A long history of many nodes is read over several looks, which say so, and nothing else.
    @Test func historyInPortions_isTheSameAsAtOnce() throws {
        let seed = UInt64.random(in: 0 ... .max)
        let cluster = SimulatedCluster(try scenario(Self.exits), seed: seed)
        var portions = ComparisonTables()
        var readMs: [Int64] = []
        var assessment: Assessment
        repeat {
            assessment = try assess(cluster, atMs: cluster.endMs, &portions, mostNodeMinutes: 10 * 7 * 60)
            guard let readThroughMs = assessment.readThroughMs else { break }
            readMs.append(readThroughMs)
            #expect(assessment.verdict == .inconclusive && assessment.findings.isEmpty)
            #expect(assessment.reasons.first?.hasPrefix("the history is still being read") == true)
            for text in [TextReport.render(assessment, style: .plain), HTMLReport.render(assessment)] {
                #expect(text.contains("the history is still being read") && !text.contains("Findings"))
            }
            let time = TimeFormat.rfc3339(ms: readThroughMs)
            #expect(try JSONReport(assessment).text().contains("\"read_through\" : \"\(time)\""))
        } while readMs.count < 20
        // 24 hours and what came since, seven hours at a time.
        let firstMs = try #require(readMs.first)
        #expect(readMs == (0..<readMs.count).map { firstMs + Int64($0) * 7 * hour })
        #expect((4...5).contains(readMs.count))
        var fresh = ComparisonTables()
        #expect(whole(assessment) == whole(try assess(cluster, atMs: cluster.endMs, &fresh)), "seed \(seed)")
        #expect(assessment.verdict == .fail, "seed \(seed)")
    }

    /// What was long before the baseline is no part of it.
    @Test func historyBeforeTheBaseline_changesNothing() throws {
        let seed = UInt64.random(in: 0 ... .max)
        let cluster = SimulatedCluster(try scenario(Self.exits), seed: seed)
        let fromMs = cluster.upgradeMs - 13 * hour
        let cut = ChangedSource(base: cluster.source) { series in [series.keeping { $0 >= fromMs }] }
        var tables = ComparisonTables()
        var others = ComparisonTables()
        let long = try assess(cluster, atMs: cluster.endMs, &tables, baselineMs: 12 * hour)
        let short = try assess(cluster, source: cut, atMs: cluster.endMs, &others, baselineMs: 12 * hour)
        #expect(whole(long) == whole(short), "seed \(seed)")
        #expect(long.verdict == .fail, "seed \(seed)")
    }

    /// What comes after a look changes nothing in it.
    @Test func look_seesOnlyWhatWasThere() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        let cluster = SimulatedCluster(try scenario(Self.exits), seed: seed)
        for _ in 0..<5 {
            let atMs = Int64.random(in: cluster.upgradeMs + 60_000..<cluster.endMs, using: &random)
            let other = ChangedSource(base: cluster.source) { series in
                var series = series
                for place in series.values.indices where series.timestampsMs[place] > atMs {
                    series.values[place] = series.values[place] * 7 + 1000
                }
                return [series]
            }
            var tables = ComparisonTables()
            var others = ComparisonTables()
            #expect(
                try whole(assess(cluster, atMs: atMs, &tables))
                    == whole(assess(cluster, source: other, atMs: atMs, &others)), "seed \(seed)")
        }
    }

    /// Bins are as wide as the number of nodes and the length of the time ask for: who follows an upgrade from the control
    /// plane's step on, when no node has gone over, and whose roll-out then takes longer, has those of a report.
    @Test(arguments: [(210, "batches: [0.3, 1], gap: 20m"), (10, "batches: [0.3, 1], gap: 22h")])
    func bins_areThoseOfAReport_howeverTheUpgradeWentOn(nodes: Int, rollout: String) throws {
        let cluster = SimulatedCluster(try scenario(Self.exits, nodes: nodes, rollout: rollout), seed: 3)
        let exits = try #require(Self.signals).filter { $0.name == "container_exits" }
        let signal = try #require(exits.first)
        var streamed = ComparisonTables()
        for atMs in stride(from: cluster.upgradeMs + 60_000, to: cluster.endMs, by: 3 * Int(hour)) {
            _ = try assess(cluster, atMs: atMs, &streamed, signals: exits)
            var fresh = ComparisonTables()
            _ = try assess(cluster, atMs: atMs, &fresh, signals: exits)
            let bins = { (tables: ComparisonTables) in
                tables.series(of: signal, upgrade: cluster.upgrade, nowMs: atMs).map { "\($0)" }
            }
            #expect(bins(streamed) == bins(fresh))
            #expect(bins(fresh).count <= (nodes < 200 ? 3072 : 1536))
        }
    }

    /// A source that can't be read at times.
    private final class FailingSource: SeriesSource {
        struct Unreadable: Error {}
        let base: any SeriesSource
        let fails = Mutex(false)

        init(_ base: any SeriesSource) { self.base = base }

        func select(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [SeriesSamples] {
            // Some signals are read before, others are not.
            if fails.withLock({ $0 }), matchers.contains(where: { $0.value.hasPrefix("k") }) { throw Unreadable() }
            return try base.select(matchers, fromMs: fromMs, throughMs: throughMs)
        }
        func labels(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [Labels] {
            try base.labels(matchers, fromMs: fromMs, throughMs: throughMs)
        }
        func metadata() throws -> [MetricMetadata] { [] }
        func timeRange() throws -> ClosedRange<Int64>? { try base.timeRange() }
    }

    @Test func looksThatFail_loseNothing() throws {
        let cluster = SimulatedCluster(try scenario(Self.exits), seed: 3)
        let source = FailingSource(cluster.source)
        var streamed = ComparisonTables()
        for (number, atMs) in stride(from: cluster.upgradeMs + 60_000, to: cluster.endMs, by: Int(hour) / 2)
            .enumerated()
        {
            source.fails.withLock { $0 = number % 4 == 2 || number % 4 == 3 }
            _ = try? assess(cluster, source: source, atMs: atMs, &streamed)
        }
        source.fails.withLock { $0 = false }
        let after = try assess(cluster, source: source, atMs: cluster.endMs, &streamed)
        var fresh = ComparisonTables()
        #expect(told(after) == told(try assess(cluster, atMs: cluster.endMs, &fresh)))
    }

    /// How many samples another source gave out.
    private final class CountedSource: SeriesSource {
        let base: any SeriesSource
        let samples = Mutex(0)

        init(_ base: any SeriesSource) { self.base = base }

        func select(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [SeriesSamples] {
            let found = try base.select(matchers, fromMs: fromMs, throughMs: throughMs)
            samples.withLock { $0 += found.reduce(0) { $0 + $1.values.count } }
            return found
        }
        func labels(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [Labels] {
            try base.labels(matchers, fromMs: fromMs, throughMs: throughMs)
        }
        func metadata() throws -> [MetricMetadata] { [] }
        func timeRange() throws -> ClosedRange<Int64>? { try base.timeRange() }
    }

    /// A look reads what came since the last one, and the last minute again for what came late.
    @Test func eachSample_isReadOnce() throws {
        let cluster = SimulatedCluster(try scenario(), seed: 4)
        let (once, often) = (CountedSource(cluster.source), CountedSource(cluster.source))
        var tables = ComparisonTables()
        _ = try assess(cluster, source: once, atMs: cluster.endMs, &tables)
        var streamed = ComparisonTables()
        let looks = stride(from: cluster.upgradeMs + 900_000, through: cluster.endMs, by: 900_000)
        for atMs in looks { _ = try assess(cluster, source: often, atMs: atMs, &streamed) }
        // A minute of each quarter of an hour since the upgrade, of the whole time there is.
        let whole = Double(once.samples.withLock { $0 })
        let minutes = Double(cluster.endMs - cluster.upgradeMs + 24 * hour) / 60_000
        let again = 2 * Double(Array(looks).count) / minutes
        let read = Double(often.samples.withLock { $0 })
        #expect(whole > 100_000)
        #expect(read >= whole && read <= whole * (1 + again), "\(read) of \(whole)")
    }

    /// The samples of another source, some left out or changed.
    private struct ChangedSource: SeriesSource {
        var base: any SeriesSource
        var change: @Sendable (SeriesSamples) -> [SeriesSamples]

        func select(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [SeriesSamples] {
            // Changes look at whole series: where a counter begins anew must not depend on who asks.
            try base.select(matchers, fromMs: .min / 2, throughMs: .max / 2).flatMap(change).compactMap { series in
                let kept = series.keeping { $0 >= fromMs && $0 <= throughMs }
                return kept.values.isEmpty ? nil : kept
            }
        }
        func labels(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [Labels] {
            try base.labels(matchers, fromMs: fromMs, throughMs: throughMs)
        }
        func metadata() throws -> [MetricMetadata] { [] }
        func timeRange() throws -> ClosedRange<Int64>? { try base.timeRange() }
    }

    private static let counters: Set<String> = [
        "upgrade_watch_container_exits_total", "upgrade_watch_pod_evictions_total", "kubelet_runtime_operations_total",
        "kubelet_runtime_operations_errors_total", "apiserver_request_total",
    ]

    /// A counter that begins anew at any time counts the same, but for what comes between a reset and the scrape before.
    @Test func resets_changeNothing() throws {
        let seed = UInt64.random(in: 0 ... .max)
        for (more, verdict) in [("", Verdict.pass), (Self.exits, .fail)] {
            let cluster = SimulatedCluster(try scenario(more), seed: 5)
            let changed = ChangedSource(base: cluster.source) { series in
                guard Self.counters.contains(series.labels.name) else { return [series] }
                // Each series has a time of its own.
                let text = "\(series.labels)"
                let own = text.utf8.reduce(UInt64(14_695_981_039_346_656_037)) {
                    ($0 ^ UInt64($1)) &* 1_099_511_628_211
                }
                var random = SeededRandom(seed: seed ^ own)
                let reset = Int.random(in: 0..<max(1, series.values.count), using: &random)
                let lost = reset > 0 ? series.values[reset - 1] : 0
                var result = series
                for index in result.values.indices where index >= reset { result.values[index] -= lost }
                return [result]
            }
            var tables = ComparisonTables()
            let plain = try assess(cluster, atMs: cluster.endMs, &tables)
            var others = ComparisonTables()
            let reset = try assess(cluster, source: changed, atMs: cluster.endMs, &others)
            #expect(told(plain).first == told(reset).first, "seed \(seed)")
            #expect((plain.verdict == .fail) == (verdict == .fail))
        }
    }

    /// Every second, fourth or tenth scrape tells the same: the verdict, and that the signal of the fault fails.
    ///
    /// Up to two minutes, also since when, as at least half of its workloads say: each is sure of that by about 96 %.
    /// Scrapes five minutes apart tell no more than which of them was the first to see it.
    @Test(arguments: [
        ("", ""), ("faults:\n- {kind: container_exits, add: 100}", "container_exits"),
        (SimulatedJudgementTests.apiErrors, "apiserver_errors"),
    ])
    func scrapeInterval_changesNoVerdict(more: String, signal: String) throws {
        let seed = UInt64.random(in: 0 ... .max)
        let cluster = SimulatedCluster(try scenario(more + "\nscrape_interval: 30s"), seed: seed)
        for every in [1, 2, 4, 10] as [Int64] {
            let thinned = ChangedSource(base: cluster.source) { series in
                // What one scrape brings has one time.
                [series.keeping { $0 / 30_000 % every == 0 }]
            }
            var tables = ComparisonTables()
            let assessment = try assess(cluster, source: thinned, atMs: cluster.endMs, &tables)
            let failing = assessment.findings.filter(\.failsUpgrade)
            #expect((assessment.verdict == .fail) == !more.isEmpty, "seed \(seed), every \(every)")
            guard !more.isEmpty else { continue }
            let onsets = failing.filter { $0.signal == signal }.map(\.onsetMs)
            #expect(!onsets.isEmpty, "seed \(seed), every \(every)")
            guard every < 10 else { continue }
            let right = onsets.count { $0 == cluster.onsetMs }
            #expect(2 * right >= onsets.count, "seed \(seed), every \(every): \(onsets)")
        }
    }

    /// An error that is there with the first scrape after the API server's step is the step's, also where that scrape comes
    /// late: what nobody saw in between began when it was to be expected.
    @Test(arguments: [0, 1, 2, 3] as [Int64]) func scrapesThatAreMissing_areNoReasonToWait(minutes: Int64) throws {
        let seed = UInt64.random(in: 0 ... .max)
        let cluster = SimulatedCluster(try scenario(Self.apiErrors), seed: seed)
        let fromMs = cluster.upgradeMs - 60_000
        let gapped = ChangedSource(base: cluster.source) { series in
            [series.keeping { !(fromMs...fromMs + 120_000 + minutes * 60_000).contains($0) }]
        }
        var tables = ComparisonTables()
        let assessment = try assess(cluster, source: gapped, atMs: cluster.upgradeMs + 3 * hour, &tables)
        let finding = assessment.findings.first { $0.signal == "apiserver_errors" && $0.failsUpgrade }
        #expect(finding?.onsetMs == cluster.onsetMs, "seed \(seed): \(told(assessment))")
    }

    /// Pods get other names with the upgrade, and count from zero again; what is compared are workloads and nodes.
    @Test func podNames_changeNothing() throws {
        let seed = UInt64.random(in: 0 ... .max)
        let cluster = SimulatedCluster(try scenario(Self.exits), seed: seed)
        let upgradeMs = cluster.upgradeMs
        let renamed = ChangedSource(base: cluster.source) { series in
            guard series.labels.name == "upgrade_watch_container_exits_total" else { return [series] }
            let cut = series.timestampsMs.firstIndex { $0 >= upgradeMs } ?? series.values.count
            var old = series
            old.labels["pod"] = "app-old-x7k2p"
            (old.timestampsMs, old.values) = (Array(series.timestampsMs[..<cut]), Array(series.values[..<cut]))
            guard cut > 0, cut < series.values.count else { return [series] }
            // What there was already stays with the old name: the new one begins with a zero.
            var new = series
            new.labels["pod"] = "app-new-9q4zt"
            let from = max(0, cut - 1)
            new.timestampsMs = Array(series.timestampsMs[from...])
            new.values = series.values[from...].map { $0 - series.values[from] }
            return [old, new]
        }
        var tables = ComparisonTables()
        var others = ComparisonTables()
        #expect(
            try told(assess(cluster, atMs: cluster.endMs, &tables))
                == told(assess(cluster, source: renamed, atMs: cluster.endMs, &others)), "seed \(seed)")
    }

    /// What would change nothing in any run is an error of the file, not a fault that nobody can find.
    @Test(arguments: [
        (
            "faults: [{kind: apiserver_latency, add: 1}]",
            "apiserver_latency is a level: it has a ratio or growth, and no add"
        ),
        ("faults: [{kind: dns_errors, add: 1, where: {zone: 1}}]", "dns_errors is of no node: it has no where"),
        (
            "faults: [{kind: evictions, add: 1, where: {batches: [1]}}]",
            "no nodes are in batch 1: those of nodes are 2 to 3"
        ),
        ("faults: [{kind: evictions, add: 1, where: {zone: 4}}]", "there is no zone 4: zones are 1 to 3"),
        ("faults: [{kind: evictions, add: 1, where: {pool: gpu}}]", "there is no pool \"gpu\": pools are general"),
        ("faults: [{kind: evictions}]", "the effect changes nothing: give it a ratio, add or growth"),
        ("faults: [{kind: evictions, ratio: -3}]", "small.yaml:5:35: ratio must be in 0...1000000"),
        ("faults: [{kind: evictions, ratio: 3, duration: 0s}]", "duration must be longer than nothing"),
        ("faults: [{kind: evictions, ratio: 3, delay: 90h}]", "it begins when all is over"),
        (
            "faults: [{kind: evictions, ratio: 3, at: 1h, delay: 1h}]",
            "delay is since each step, at since the first one: give one of them"
        ),
        (
            "faults: [{kind: evictions, ratio: 3, where: {share: 0}}]",
            "share is a part of the nodes, over 0 and up to 1"
        ),
        ("nuisances: [{kind: blind, job: kublet}]", "unknown job \"kublet\"; known are kube-apiserver"),
        ("nuisances: [{kind: traffic}]", "the field \"factor\" is missing"),
        ("components: [kubelt]", "unknown component \"kubelt\""),
    ]) func effectsWithoutAPlace_areErrors(text: String, message: String) throws {
        let error = #expect(throws: (any Error).self) { try scenario(text) }
        #expect("\(error.map { "\($0)" } ?? "")".contains(message))
    }

    @Test(arguments: ["pause_after", "rollback_after"]) func batchesThatAreNot_areErrors(field: String) {
        let error = #expect(throws: (any Error).self) {
            try Scenario.load(text: "rollout: {batches: [0.5, 1], \(field): 9}", file: "s.yaml")
        }
        #expect("\(error.map { "\($0)" } ?? "")".contains("\(field) must be in 1...2"))
    }

    /// A small share of few nodes is one node, never none.
    @Test func share_isOneNodeAtLeast() throws {
        for seed in 1...5 as ClosedRange<UInt64> {
            let text = "faults: [{kind: evictions, add: 1, where: {batches: [2], share: 0.01}}]"
            #expect(SimulatedCluster(try scenario(text), seed: seed).faultyBatches == [2])
        }
    }

    /// A verdict for the first batch while the second still waits.
    @Test func batches_haveVerdictsOfTheirOwn() throws {
        let bad = SimulatedCluster(
            try scenario("faults:\n- {kind: container_exits, add: 20, where: {batches: [3]}}"), seed: 2)
        var tables = ComparisonTables()
        #expect(try assess(bad, atMs: bad.endMs, &tables, batch: 2).verdict != .fail)
        let third = try assess(bad, atMs: bad.endMs, &tables, batch: 3)
        #expect(third.verdict == .fail)
        #expect(third.findings.first?.scope.batch == 3)
        let node = try #require(bad.upgrade.steps.first { $0.batch == 3 })
        let soFar = try assess(bad, atMs: node.atMs - 60_000, &tables, batch: 2)
        #expect(soFar.phase == .upgrading && soFar.verdict != .fail)
    }

    /// The control plane's batch has no nodes: their signals don't hold it up, but for what its step did to them.
    @Test func batchOfTheControlPlane_waitsForNoNodes() throws {
        let good = SimulatedCluster(try scenario(nodes: 30, soak: "24h"), seed: 2)
        var tables = ComparisonTables()
        let first = try assess(good, atMs: good.endMs, &tables, batch: 1)
        #expect(first.verdict == .pass, "\(first.reasons)")
        let pods = try #require(first.signals.first { $0.signal.name == "kubelet_runtime_errors" })
        #expect(pods.status == .absent && pods.needs == "none of its nodes went over with batch 1")
        let whole = try assess(good, atMs: good.endMs, &tables)
        #expect(!whole.signals.contains { $0.status == .absent && $0.needs?.contains("went over") == true })
    }

    /// Also of what is not everywhere, as etcd: it was there before.
    @Test(arguments: ["kubelet", "etcd", "coredns", "kube-controller-manager"])
    func blindness_isNoPass(job: String) throws {
        let cluster = SimulatedCluster(
            try scenario("nuisances:\n- {kind: blind, job: \(job)}", nodes: 24, workloads: 12, soak: "24h"), seed: 4)
        var tables = ComparisonTables()
        let assessment = try assess(cluster, atMs: cluster.endMs, &tables)
        #expect(assessment.verdict == .blind)
        let isSaid = assessment.reasons.contains { $0.contains("is \(job) scraped?") }
        #expect(isSaid || job == "kubelet", "\(assessment.reasons)")
    }

    /// Rare events that come in bursts are no rise: these seeds were taken for one while each event counted alone.
    @Test(arguments: [25, 28] as [UInt64]) func bursts_ofRareEvents_areNoFault(seed: UInt64) throws {
        let signals = try #require(Self.signals)
        let quiet = try ScenarioRun(scenario("noise: {dispersion: 6}"), seed: seed, signals: signals)
        #expect(quiet.judged[ScenarioRun.ours]?.pagesMs == [])
        let ill = try ScenarioRun(scenario("noise: {dispersion: 6}\n" + Self.exits), seed: seed, signals: signals)
        #expect(ill.judged[ScenarioRun.ours]?.verdict == .fail)
    }

    // MARK: What is not the upgrade's

    private func pages(_ scenario: Scenario, seed: UInt64) throws -> [Int64] {
        let run = try ScenarioRun(scenario, seed: seed, signals: try #require(Self.signals))
        return try #require(run.judged[ScenarioRun.ours]).pagesMs
    }

    /// What befalls all alike at a time of its own may pass: it is said while it is there, and fails only if it lasts.
    @Test(arguments: [1, 2] as [UInt64]) func whatBeginsWithNoStep_mustLast(seed: UInt64) throws {
        let effect = "nuisances:\n- {kind: effect, process: apiserver_errors, ratio: 40, at: 2h"
        let passing = try scenario(effect + ", duration: 45m}")
        #expect(try pages(passing, seed: seed) == [])
        let cluster = SimulatedCluster(passing, seed: seed)
        var tables = ComparisonTables()
        let during = try assess(cluster, atMs: cluster.upgradeMs + 5 * hour / 2, &tables)
        let errors = try #require(during.signals.first { $0.signal.name == "apiserver_errors" })
        #expect(errors.status == .inconclusive && during.verdict == .inconclusive)
        #expect(errors.needs?.contains("when nothing was upgraded: it counts if it lasts until") == true)
        #expect(errors.pValue == nil || errors.pValue == 1)

        let lasting = try scenario(effect + "}")
        let first = try #require(try pages(lasting, seed: seed).first)
        let since = first - SimulatedCluster(lasting, seed: seed).upgradeMs
        #expect((6 * hour...6 * hour + hour / 4).contains(since))
    }

    /// What has been over for some minutes did not last, though most of its time was trouble.
    @Test(arguments: [1, 2] as [UInt64], ["apiserver_errors, ratio: 40", "apiserver_cpu, ratio: 2"])
    func whatIsJustOver_didNotLast(seed: UInt64, effect: String) throws {
        let passing = try scenario("nuisances:\n- {kind: effect, process: \(effect), at: 1h, duration: 225m}")
        #expect(try pages(passing, seed: seed) == [])
    }

    /// Of rare events a few minutes without any say nothing: it takes as long as some are due in.
    @Test(arguments: [1, 2] as [UInt64], ["container_exits", "evictions"])
    func rareEventsThatAreOver_didNotLast(seed: UInt64, process: String) throws {
        let effect = "nuisances:\n- {kind: effect, process: \(process), ratio: 20, at: 4h, duration: "
        #expect(try pages(scenario(effect + "210m}", workloads: 6, soak: "14h"), seed: seed) == [])
        let lasting = try pages(scenario(effect + "10h}", workloads: 6, soak: "14h"), seed: seed)
        #expect(!lasting.isEmpty)
    }

    /// What lasts without having begun with a step is not said to have begun with one.
    @Test func causeOfWhatBeganWithNoStep_namesNone() throws {
        let cluster = SimulatedCluster(
            try scenario("nuisances:\n- {kind: effect, process: apiserver_errors, ratio: 40, at: 90m}"), seed: 1)
        var tables = ComparisonTables()
        let assessment = try assess(cluster, atMs: cluster.endMs, &tables)
        let finding = try #require(assessment.findings.first { $0.failsUpgrade })
        #expect(finding.signal == "apiserver_errors" && finding.cause.kind == .unknown && finding.cause.step == nil)
        #expect(finding.cause.explanation.hasSuffix(", when nothing was upgraded, and lasts"))
    }

    /// Nodes that share neither a batch nor anything else that is known have it since the step of each.
    @Test(arguments: [1, 2] as [UInt64]) func levelOfSomeNodes_isNoMeanOfAll(seed: UInt64) throws {
        func some(_ more: String) throws -> Scenario {
            try scenario(more, nodes: 40, rollout: "batches: [0.2, 0.5, 1], gap: 30m")
        }
        let fault = try some("faults:\n- {kind: kubelet_cpu, ratio: 2.2, where: {share: 0.25}}")
        let cluster = SimulatedCluster(fault, seed: seed)
        var tables = ComparisonTables()
        let assessment = try assess(cluster, atMs: cluster.endMs, &tables)
        let finding = try #require(assessment.findings.first { $0.failsUpgrade })
        #expect(finding.signal == "kubelet_cpu")
        // Of the nodes that are ill as well, no more changed at their own step than by chance.
        let nuisance = "nuisances:\n- {kind: effect, process: kubelet_cpu, ratio: 2.2, where: {share: 0.25}, at: "
        #expect(try pages(some(nuisance + "85m, duration: 3h}"), seed: seed) == [])
    }

    /// Many nodes have some ends of a workload's containers each: it is in no trouble, and may get into it.
    @Test func workloadOnManyNodes_isNoOldTrouble() throws {
        let scenario = try self.scenario(
            "faults:\n- {kind: container_exits, ratio: 5}", nodes: 40, workloads: 2)
        #expect(try !pages(scenario, seed: 1).isEmpty)
    }

    /// A level that one batch alone has is not thinned out by those that went over since: the end is that of the batch.
    @Test(arguments: [1, 2] as [UInt64]) func levelOfOneBatch_staysATrouble(seed: UInt64) throws {
        let scenario = try self.scenario(
            "faults:\n- {kind: kubelet_cpu, ratio: 2, where: {batches: [2]}}", nodes: 40,
            rollout: "batches: [0.1, 0.3, 0.6, 1], gap: 20m")
        let cluster = SimulatedCluster(scenario, seed: seed)
        var tables = ComparisonTables()
        let assessment = try assess(cluster, atMs: cluster.endMs, &tables)
        #expect(assessment.verdict == .fail)
        let finding = try #require(assessment.findings.first { $0.failsUpgrade })
        #expect(finding.signal == "kubelet_cpu" && finding.scope.batch == 2)
    }

    /// Nodes that waited had it as well: it is none of the upgrade's, also when the last of them has gone over.
    @Test(arguments: [1, 2] as [UInt64]) func troubleOfAllNodes_overTheLastBatch_isNoFault(seed: UInt64) throws {
        let scenario = try self.scenario(
            "nuisances:\n- {kind: effect, process: pleg_latency, ratio: 3, at: 75m, duration: 2h}", nodes: 30,
            rollout: "control_plane: false, batches: [0.3, 0.7, 1], gap: 1h")
        #expect(try pages(scenario, seed: seed) == [])
        let cluster = SimulatedCluster(scenario, seed: seed)
        var tables = ComparisonTables()
        let assessment = try assess(cluster, atMs: cluster.upgradeMs + 3 * hour, &tables)
        let finding = try #require(assessment.findings.first { $0.signal == "kubelet_pleg_relist" })
        #expect(finding.cause.kind == .preexisting && !finding.failsUpgrade)
    }

    /// So it is with events: nodes that had the new version for an hour, and were well, have them as well as the last batch.
    @Test(arguments: [1, 2, 3] as [UInt64]) func eventsOfAllNodes_overTheLastBatch_areNoFault(seed: UInt64) throws {
        let scenario = try self.scenario(
            "nuisances:\n- {kind: effect, process: image_pull_failures, ratio: 15, at: 137m, duration: 1h}", nodes: 60,
            workloads: 12, rollout: "batches: [0.2, 0.5, 1], gap: 20m")
        #expect(try pages(scenario, seed: seed) == [])
    }

    /// What was over for as long as it would have had to last holds nothing up: the rest of the soak tells.
    @Test func blip_holdsNoPassUp() throws {
        let blip = try self.scenario(
            "nuisances:\n- {kind: effect, process: webhook_failures, add: 0.5, at: 5h, duration: 20m}", soak: "24h")
        let cluster = SimulatedCluster(blip, seed: 1)
        var tables = ComparisonTables()
        let name = "admission_webhook_failures"
        let during = try assess(cluster, atMs: cluster.upgradeMs + 6 * hour, &tables)
        #expect(during.signals.first { $0.signal.name == name }?.status == .inconclusive)
        let end = try assess(cluster, atMs: cluster.endMs, &tables)
        #expect(end.signals.first { $0.signal.name == name }?.status == .ok)
        let finding = end.findings.first { $0.signal == name }
        #expect(finding?.severity == .warning && finding?.summary.contains("; it was over at ") == true)
    }

    /// What came with the step and is over fails no longer, and is not forgotten.
    @Test func whatPassed_isToldAsAWarning() throws {
        let burst = try scenario("faults:\n- {kind: apiserver_errors, ratio: 8, duration: 1h}")
        #expect(try !pages(burst, seed: 2).isEmpty)
        let cluster = SimulatedCluster(burst, seed: 2)
        var tables = ComparisonTables()
        let assessment = try assess(cluster, atMs: cluster.endMs, &tables)
        #expect(assessment.verdict != .fail)
        let finding = try #require(assessment.findings.first { $0.signal == "apiserver_errors" })
        #expect(finding.severity == .warning && finding.cause.kind == .upgradeStep)
        #expect(finding.summary.contains("; it was over at "))
        let ratio = (finding.after ?? 0) / (finding.before ?? 1)
        #expect(ratio > 5 && ratio < 11)
    }

    /// Caches are cold after a step; a triple load of which every fifth scrape fails is a load, and no latency.
    @Test(
        arguments: [1, 2] as [UInt64],
        [
            """
            nuisances:
            - {kind: effect, process: pleg_latency, ratio: 2, duration: 15m}
            - {kind: effect, process: apiserver_latency, ratio: 1.5, duration: 15m}
            """,
            "nuisances:\n- {kind: traffic, factor: 3, at: 1h}\n- {kind: scrape_gaps, share: 0.2}",
        ])
    func coldCaches_andLoadBetweenFailedScrapes_areNoFault(seed: UInt64, nuisances: String) throws {
        #expect(try pages(scenario(nuisances), seed: seed) == [])
    }

    /// On a long way metrics get other names, units and labels: they are the same signals before and after.
    @Test func renamedMetrics_areFollowed() throws {
        let way = "\nrollout: {from: v1.13.12, to: v1.19.16, batches: [0.3, 1], gap: 20m}"
        let base = "pre: 24h\nsoak: 6h\ntopology: {nodes: 10, workloads: 4, control_planes: 1}" + way
        let slow = "\nfaults:\n- {kind: apiserver_latency, ratio: 1.5}"
        for (more, fails) in [("", false), (slow, true)] {
            let cluster = SimulatedCluster(try Scenario.load(text: base + more, file: "way.yaml"), seed: 3)
            let count = { (name: String) in
                try cluster.source.labels([.equal(Labels.metricName, name)], fromMs: .min / 2, throughMs: .max / 2)
                    .count
            }
            #expect(try count("apiserver_request_count") > 0 && count("apiserver_request_total") > 0)
            #expect(try count("apiserver_request_latencies_bucket") > 0)
            var tables = ComparisonTables()
            let assessment = try assess(cluster, atMs: cluster.endMs, &tables)
            #expect((assessment.verdict == .fail) == fails)
            for name in ["apiserver_errors", "apiserver_read_latency_p99"] {
                let result = try #require(assessment.signals.first { $0.signal.name == name })
                #expect(result.status == (fails && name.contains("latency") ? .worse : .ok), "\(name)")
            }
        }
    }

    /// A batch that got ill while it waited is left out, and no other.
    @Test(arguments: [1, 2] as [UInt64]) func batchThatWasIll_isLeftOut_andHidesNoOther(seed: UInt64) throws {
        let ill = """
            pre: 24h
            soak: 6h
            topology: {nodes: 20, workloads: 4, control_planes: 1}
            rollout: {control_plane: false, batches: [0.3, 1], gap: 3h}
            nuisances:
            - {kind: effect, process: container_exits, add: 5, at: 1h, where: {batches: [2], controls_only: true}}
            """
        let fault = ill + "\nfaults:\n- {kind: container_exits, add: 20, where: {batches: [1]}}"
        #expect(try pages(Scenario.load(text: ill, file: "ill.yaml"), seed: seed) == [])
        let cluster = SimulatedCluster(try Scenario.load(text: fault, file: "ill.yaml"), seed: seed)
        var tables = ComparisonTables()
        let assessment = try assess(cluster, atMs: cluster.endMs, &tables)
        #expect(assessment.verdict == .fail)
        #expect(assessment.findings.first { $0.failsUpgrade }?.scope.batch == 1)
        let left = try #require(
            assessment.findings.first { $0.summary.contains("nodes of batch 2, which is left out") })
        #expect(left.cause.kind == .preexisting && left.severity == .info && left.scope.batch == 2)
    }

    /// Half a day does not tell a day's rhythm from a leak: growth is no PASS until a day is over, and then it is told.
    @Test func growth_isNoPassBeforeItIsKnown() throws {
        let text = """
            pre: 12h
            soak: 24h
            topology: {nodes: 10, workloads: 4, control_planes: 1}
            rollout: {batches: [0.3, 1], gap: 20m}
            """
        let leak = "\nfaults:\n- {kind: kubelet_memory, growth: 0.012}"
        for (more, end) in [("", SignalResult.Status.ok), (leak, .worse)] {
            let cluster = SimulatedCluster(try Scenario.load(text: text + more, file: "leak.yaml"), seed: 3)
            var tables = ComparisonTables()
            func status(_ atMs: Int64) throws -> SignalResult {
                try #require(
                    assess(cluster, atMs: atMs, &tables).signals.first { $0.signal.name == "kubelet_memory_growth" })
            }
            let early = try status(cluster.endMs - 16 * hour)
            #expect(early.status == .inconclusive)
            #expect(early.needs?.contains("can't be told from the time of day") == true)
            #expect(try status(cluster.endMs).status == end)
        }
    }

    /// Several signals of one fault are one incident, and what else may have done it is said.
    @Test func correlatedFindings_areOneIncident_andWhatElseItMayBeIsSaid() throws {
        let both = "faults:\n- {kind: container_exits, add: 20}\n- {kind: evictions, add: 20}"
        let stratified = SimulatedCluster(try scenario(both), seed: 3)
        var tables = ComparisonTables()
        let assessment = try assess(stratified, atMs: stratified.endMs, &tables)
        let first = try #require(assessment.incidents.first)
        #expect(first.failsUpgrade && first.findings.count >= 2)
        #expect(first.findings.first == assessment.findings.first { $0.id == first.findings.first }?.id)
        #expect(Set(assessment.incidents.flatMap(\.findings)).count == assessment.incidents.flatMap(\.findings).count)
        #expect(!assessment.findings.contains { $0.caveats.contains { $0.contains("zone") || $0.contains("rolled") } })
        let ofWorkload = try #require(assessment.findings.first { $0.scope.workload != nil && $0.onsetMs != nil })
        let rollout = LedgerEntry(
            kind: .deletion, atMs: try #require(ofWorkload.onsetMs) + 300_000,
            namespace: ofWorkload.scope.namespace ?? "", pod: "p", podUID: "u", workloadKind: "Deployment",
            workload: ofWorkload.scope.workload ?? "", cause: .rollout)
        let rolled = try assess(stratified, atMs: stratified.endMs, &tables, ledger: [rollout])
        let same = try #require(rolled.findings.first { $0.id == ofWorkload.id })
        #expect(same.caveats.contains { $0.hasPrefix("Deployment") && $0.contains("was rolled out at") })

        let byZone = try Scenario.load(
            text: """
                pre: 24h
                soak: 6h
                topology: {nodes: 12, workloads: 4, control_planes: 1, zones: 3}
                rollout: {batches: [0.33, 0.67, 1], gap: 20m, order: zones}
                \(Self.exits)
                """, file: "zones.yaml")
        let cluster = SimulatedCluster(byZone, seed: 3)
        var others = ComparisonTables()
        let zoned = try assess(cluster, atMs: cluster.endMs, &others)
        let blamed = zoned.findings.filter { $0.failsUpgrade && $0.scope.batch != nil }
        #expect(!blamed.isEmpty)
        #expect(blamed.allSatisfy { $0.caveats.contains { $0.hasPrefix("batch") && $0.contains("of zone zone-") } })
    }
}
