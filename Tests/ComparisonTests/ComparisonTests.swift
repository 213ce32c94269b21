import Cluster
import Comparison
import Foundation
import Series
import Statistics
import StrictYAML
import TestSupport
import Testing

private let second: Int64 = 1000
private let minute: Int64 = 60_000

/// A cluster with one component that is upgraded after an hour, made sample by sample.
private struct Lab {
    let store = MemorySeries()
    var signals = ""
    let startMs: Int64 = 1_700_000_000_000
    /// Minutes before the step and after it.
    var (before, after): (Int64, Int64) = (60, 60)
    var stepMs: Int64 { startMs + before * minute }
    var endMs: Int64 { stepMs + after * minute }

    func up(_ value: (Int64) -> Double? = { _ in 1 }) {
        for atMs in stride(from: startMs, through: endMs, by: 15_000) {
            if let value = value(atMs) {
                store.append([(["__name__": "up", "job": "api", "instance": "i"], value)], atMs: atMs)
            }
        }
    }

    /// A counter whose rate a second is given; nil at times at which it is not exposed.
    func counter(_ labels: Labels, from: Int64? = nil, resetAt: Int64? = nil, _ rate: (Int64) -> Double) {
        var labels = labels
        labels["job"] = "api"
        labels["instance"] = "i"
        var value = 0.0
        for atMs in stride(from: from ?? startMs, through: endMs, by: 15_000) {
            if let resetAt, atMs - 15_000 < resetAt, atMs >= resetAt { value = 0 }
            value += rate(atMs) * 15
            store.append([(labels, value.rounded())], atMs: atMs)
        }
    }

    func gauge(_ labels: Labels, _ value: (Int64) -> Double) {
        let labels = labels.merging(["job": "api", "instance": "i"])
        for atMs in stride(from: startMs, through: endMs, by: 15_000) {
            store.append([(labels, value(atMs))], atMs: atMs)
        }
    }

    func assess(_ yaml: String, finished: Bool = true, nowMs: Int64? = nil, upgrade: Bool = true) throws -> Assessment {
        let step = UpgradeStep(atMs: stepMs, component: "api", instance: "i", node: nil, from: "v1.25.0", to: "v1.26.0")
        return try Comparison.assess(
            ComparisonInput(
                cluster: "lab", source: store,
                upgrade: upgrade
                    ? Upgrade(
                        id: "u", from: "v1.25.0", to: "v1.26.0", startedMs: stepMs, finishedMs: finished ? stepMs : nil,
                        steps: [step], detectedBy: "metrics", rolledBackMs: nil) : nil, nowMs: nowMs ?? endMs,
                baselineMs: max(24 * 60, before) * minute, soakMs: 60 * minute,
                signals: try Signal.load(YAMLDocument(text: yaml, file: "signals.yaml")), ledger: [],
                logEvidence: { _ in [] }))
    }

    static let ratio = """
        signals:
        - name: errors
          component: api
          kind: ratio
          numerator: 'requests_total{code=~"5.."}'
          denominator: requests_total
          unit: ratio
          floors: {relative: 1.25, absolute: 0.01}
          critical: true
        """
    static let rate = """
        signals:
        - {name: restarts, component: api, kind: rate, counter: restarts_total, by: [workload], unit: 1/s, floors: {relative: 2, absolute: 0.001}, critical: true, present_when: 'up{job="api"}', preexisting_events: 20}
        """
}

@Suite struct ComparisonTests {
    @Test func errorsThatBeginWithTheStep_failTheUpgrade_withTheStepAsCause() throws {
        let lab = Lab()
        lab.up()
        lab.counter(["__name__": "requests_total", "code": "200"]) { _ in 20 }
        // A series that is born with the fault: its first value counts from zero.
        lab.counter(["__name__": "requests_total", "code": "500"], from: lab.stepMs + 5 * minute) { _ in 2 }
        let assessment = try lab.assess(Lab.ratio)
        #expect(assessment.verdict == .fail)
        let finding = try #require(assessment.findings.first)
        #expect(finding.cause.kind == .upgradeStep && finding.cause.step == 0)
        #expect(abs((finding.onsetMs ?? 0) - lab.stepMs - 5 * minute) <= 2 * minute)
        #expect(finding.before == 0)
        #expect(abs((finding.after ?? 0) - 0.085) < 0.01)
        #expect((finding.effect?.interval.low ?? 0) > 1.25)
    }

    /// A split that was in trouble before says nothing of the others, of which too little is known yet.
    @Test func oldTrouble_isNoAnswerForTheRest() throws {
        let lab = Lab()
        lab.up()
        lab.counter(["__name__": "restarts_total", "workload": "flaky"]) { _ in 1.0 / 60 }
        let assessment = try lab.assess(Lab.rate, nowMs: lab.stepMs + 10 * minute)
        #expect(assessment.findings.first?.cause.kind == .preexisting)
        #expect(assessment.verdict == .inconclusive)
    }

    /// A certificate that has none yet is infinite, and negative when it is over.
    @Test func levelThatFallsToNothing_isWorse_andInfiniteOnesAreNone() throws {
        let lab = Lab()
        lab.up()
        lab.gauge(["__name__": "ttl_seconds"]) {
            $0 < lab.startMs + 5 * minute ? .infinity : $0 < lab.stepMs ? 4e6 : -60
        }
        let assessment = try lab.assess(
            """
            signals:
            - {name: ttl, component: api, kind: gauge, expression: ttl_seconds, unit: seconds, direction: down, floors: {relative: 2, absolute: 3600}, critical: true}
            """)
        let result = try #require(assessment.signals.first)
        #expect(result.status == .worse && assessment.verdict == .fail)
        #expect(abs((result.baseline?.value ?? 0) - 4e6) < 1)
    }

    /// The floor of a growth is a part of the level, for counts as for bytes.
    @Test(arguments: [(1.0, SignalResult.Status.ok), (500, .worse)])
    func growth_isMeasuredByTheLevel(perHour: Double, status: SignalResult.Status) throws {
        var lab = Lab()
        (lab.before, lab.after) = (50 * 60, 10 * 60)
        lab.up()
        lab.gauge(["__name__": "go_goroutines"]) { atMs in
            let noise = Double(atMs / 15_000 * 7919 % 101) - 50
            return 5000 + noise + perHour * Double(max(0, atMs - lab.stepMs)) / 3_600_000
        }
        let assessment = try lab.assess(
            """
            signals:
            - {name: goroutines, component: api, kind: gauge, expression: go_goroutines, unit: goroutines, floors: {relative: 10, absolute: 500, slope: 0.05}, critical: true}
            """)
        #expect(try #require(assessment.signals.first).status == status)
    }

    /// The upgrade goes from 1.25 to 1.26.
    @Test(arguments: [
        ("{from: \"1.26\"}", true), ("{through: \"1.25\"}", true), ("{from: \"1.20\", through: \"1.30\"}", true),
        ("{from: \"1.27\"}", false), ("{through: \"1.24\"}", false),
    ]) func signalOfOtherVersions_isAbsent_andKeepsNobodyWaiting(versions: String, isJudged: Bool) throws {
        let lab = Lab()
        lab.up()
        lab.counter(["__name__": "requests_total", "code": "200"]) { _ in 200 }
        lab.counter(["__name__": "requests_total", "code": "500"]) { _ in 20 }
        let other =
            Lab.ratio + """

                - {name: gone, component: api, kind: rate, counter: gone_total, unit: 1/s, critical: true, versions: \(versions)}
                """
        let assessment = try lab.assess(other)
        #expect(assessment.verdict == (isJudged ? .blind : .pass))
        let gone = try #require(assessment.signals.first { $0.signal.name == "gone" })
        #expect(gone.status == (isJudged ? .blind : .absent))
        #expect(isJudged || gone.needs?.hasPrefix("it is of Kubernetes ") == true)
    }

    /// Signals that may be missing, and are, tell nothing of the upgrade.
    @Test func verdict_needsACriticalSignalWithData() throws {
        let lab = Lab()
        lab.up()
        let yaml = """
            signals:
            - {name: none, component: api, kind: gauge, expression: nosuch_metric, unit: "", critical: true, optional: true}
            """
        let assessment = try lab.assess(yaml)
        #expect(assessment.signals.first?.status == .absent)
        #expect(assessment.verdict == .inconclusive && assessment.reasons == ["no critical signal has data"])
    }

    @Test func sameErrorsBeforeAndAfter_passEvenThoughTheProcessRestarted() throws {
        let lab = Lab()
        lab.up()
        lab.counter(["__name__": "requests_total", "code": "200"], resetAt: lab.stepMs) { _ in 200 }
        lab.counter(["__name__": "requests_total", "code": "500"], resetAt: lab.stepMs) { _ in 20 }
        let assessment = try lab.assess(Lab.ratio)
        #expect(assessment.verdict == .pass)
        #expect(assessment.findings.isEmpty)
        let result = try #require(assessment.signals.first)
        #expect(abs((result.baseline?.value ?? 0) - 1.0 / 11) < 1e-3)
        #expect(abs((result.soak?.value ?? 0) - 1.0 / 11) < 1e-3)
    }

    @Test func resets_areCountedRight_anywhere() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        for _ in 0..<10 {
            let lab = Lab()
            lab.up()
            let reset = lab.startMs + Int64.random(in: 1..<480, using: &random) * 15_000
            lab.counter(["__name__": "requests_total", "code": "200"], resetAt: reset) { _ in 100 }
            let result = try #require(try lab.assess(Lab.ratio).signals.first)
            // 59 minutes of the hour before, 58 of the hour after; a reset loses at most what one interval brings.
            #expect(abs((result.baseline?.n ?? 0) - 59 * 6000) <= 1500, "seed \(seed)")
            #expect(abs((result.soak?.n ?? 0) - 58 * 6000) <= 1500, "seed \(seed)")
        }
    }

    /// A target that gets another label exposes all of its series anew: what they had counted before is no news.
    ///
    /// A counter that appears under the same labels began at zero.
    @Test(arguments: [-30, 30] as [Int64]) func labelThatIsAdded_bringsNoEvents(minutes: Int64) throws {
        let lab = Lab()
        let changeMs = lab.stepMs + minutes * 60_000
        var value = 1e6
        for atMs in stride(from: lab.startMs, through: lab.endMs, by: 15_000) {
            let target: Labels = ["job": "api", "instance": "i"]
            let labels = atMs < changeMs ? target : target.merging(["team": "x"])
            value += 1.5
            lab.store.append(
                [
                    (labels.merging(["__name__": "up"]), 1),
                    (labels.merging(["__name__": "evictions_total", "cause": "taint"]), value),
                ], atMs: atMs)
            if atMs >= changeMs + 600_000 {
                lab.store.append([(labels.merging(["__name__": "evictions_total", "cause": "new"]), 60)], atMs: atMs)
            }
        }
        let result = try #require(
            try lab.assess(
                "signals:\n- {name: e, component: api, kind: rate, counter: evictions_total, unit: 1/s, floors: {relative: 2, absolute: 0.01}}"
            ).signals.first)
        // 0.1 a second each, and the 60 of one that is new.
        let (before, after) = (result.baseline?.n ?? 0, result.soak?.n ?? 0)
        #expect(abs(before - 59 * 6 - (minutes < 0 ? 60 : 0)) <= 10, "\(before)")
        #expect(abs(after - 58 * 6 - (minutes < 0 ? 0 : 60)) <= 10, "\(after)")
    }

    @Test func missingData_isBlind_neverAPass() throws {
        let lab = Lab()
        lab.up { $0 < lab.stepMs ? 1 : nil }
        lab.store.append([(["__name__": "other"], 1)], atMs: lab.endMs)
        for atMs in stride(from: lab.startMs, to: lab.stepMs, by: 15_000) {
            lab.store.append(
                [
                    (
                        ["__name__": "requests_total", "code": "200", "job": "api", "instance": "i"],
                        Double(atMs - lab.startMs)
                    )
                ], atMs: atMs)
        }
        let assessment = try lab.assess(Lab.ratio)
        #expect(assessment.verdict == .blind)
        #expect(assessment.reasons == ["errors: no data of requests_total: is api scraped?"])
    }

    /// A counter that never counted is not exposed, and nothing tells it from one that does not exist, but its name.
    @Test(arguments: [
        ("kubelet_evictions", nil),
        (
            "kubelet_evictionz",
            "there never was a series of kubelet_evictionz, and no version of Kubernetes is known to have it: is it spelled so?"
        ),
        // Another metric has its place.
        (
            "kubelet_runtime_operations_errors",
            "kubelet_runtime_operations_errors is not exposed any more since 1.18: name what has its place"
        ),
    ])
    func counterThatNeverWasThere_isBlind_unlessItIsKnown(name: String, needs: String?) throws {
        let lab = Lab()
        lab.up()
        let signal = """
            signals:
            - {name: errors, component: api, kind: rate, counter: \(name), unit: 1/s, present_when: 'up{job="api"}', floors: {relative: 2, absolute: 0.1}, critical: true}
            """
        let assessment = try lab.assess(signal)
        #expect(assessment.verdict == (needs == nil ? .pass : .blind))
        #expect(assessment.signals.first?.needs == needs)
        if needs != nil {
            // Where there is one series of it, the name is right.
            lab.counter(["__name__": name]) { _ in 0.0001 }
            #expect(try lab.assess(signal).verdict == .pass)
        }
    }

    @Test func metricThatTheNewVersionDoesNotExpose_isChanged_notWorse() throws {
        let lab = Lab()
        lab.up()
        for atMs in stride(from: lab.startMs, to: lab.stepMs, by: 15_000) {
            lab.store.append(
                [
                    (
                        ["__name__": "requests_total", "code": "200", "job": "api", "instance": "i"],
                        Double(atMs - lab.startMs)
                    )
                ], atMs: atMs)
        }
        let assessment = try lab.assess(Lab.ratio)
        #expect(assessment.signals.map(\.status) == [.changed])
        #expect(assessment.verdict == .blind)
        #expect(assessment.findings.map(\.signal) == ["metrics_changed"])
        #expect(assessment.findings.filter(\.failsUpgrade).isEmpty)
    }

    @Test func tooFewEvents_areInconclusive_andSayHowMuchIsNeeded() throws {
        let lab = Lab()
        lab.up()
        lab.counter(["__name__": "requests_total", "code": "200"]) { _ in 0.02 }
        let assessment = try lab.assess(Lab.ratio)
        #expect(assessment.verdict == .inconclusive)
        #expect(assessment.signals.first?.needs?.hasPrefix("no event so far; ") == true)
    }

    /// What is a little worse takes longer than what is as it was, and what stands at the margin may take forever.
    @Test(arguments: [
        (0.002, 60, "about 10 more events, which at the rate before take "),
        (
            0.003, 150,
            "the interval is still wider than the margin: about 40 more events, which at the rate of now take "
        ),
        (0.0043, 150, "the rate is at its margin, and the interval too wide to say on which side; more time is needed"),
    ])
    func whatIsNeeded_growsWithWhatIsThere(rate: Double, minutes: Int64, needs: String) throws {
        var lab = Lab()
        lab.after = minutes
        lab.up()
        lab.counter(["__name__": "restarts_total", "workload": "web"]) { $0 < lab.stepMs ? 0.002 : rate }
        let signal = try #require(try lab.assess(Lab.rate).signals.first)
        #expect(
            signal.status == .inconclusive && signal.needs?.hasPrefix(needs) == true,
            "\(signal.status) \(signal.needs ?? "")")
    }

    @Test func intervalOfALevel_saysWhenItIsNarrowEnough() throws {
        let lab = Lab()
        lab.up()
        var random = SeededRandom(seed: 5)
        lab.gauge(["__name__": "mem"]) { atMs in
            Double.random(in: 0...200, using: &random) + (atMs < lab.stepMs ? 0 : 5)
        }
        let assessment = try lab.assess(
            """
            signals:
            - {name: mem, component: api, kind: gauge, expression: sum by (job) (mem), unit: bytes, floors: {relative: 1.2, absolute: 10}, critical: true}
            """)
        let needs = assessment.signals.first?.needs ?? ""
        #expect(
            needs.hasPrefix("the interval is still wider than the margin: about ") && needs.hasSuffix(" more"),
            "\(needs)")
    }

    @Test func workloadThatLoopedBefore_isToldAsSuch_andDoesNotFail() throws {
        let lab = Lab()
        lab.up()
        lab.counter(["__name__": "restarts_total", "workload": "flaky"]) { $0 < lab.stepMs ? 0.01 : 0.05 }
        let assessment = try lab.assess(Lab.rate)
        #expect(assessment.findings.map(\.cause.kind) == [.preexisting])
        #expect(assessment.verdict != .fail)
        let fresh = Lab()
        fresh.up()
        fresh.counter(["__name__": "restarts_total", "workload": "new"]) { $0 < fresh.stepMs ? 0 : 0.05 }
        let failed = try fresh.assess(Lab.rate)
        #expect(failed.verdict == .fail)
        #expect(failed.findings.first?.scope.workload == "new")
    }

    /// Three of them at once would pass a test that is made for one look, with none in the hour before; whoever looks
    /// every minute meets such three by chance.
    @Test func fewEventsRightAfterTheStep_areNoFindingYet_andOneIsMadeOnceTheyGoOn() throws {
        let lab = Lab()
        lab.up()
        lab.counter(["__name__": "restarts_total", "workload": "web"]) { $0 > lab.stepMs ? 1.0 / 15 : 0 }
        let rate = Lab.rate.replacing("critical: true", with: "critical: true, window: upgrade, min_events: 3")
        #expect(try lab.assess(rate, nowMs: lab.stepMs + 45_000).findings.isEmpty)
        let later = try lab.assess(rate, nowMs: lab.stepMs + 10 * minute)
        #expect(later.verdict == .fail)
        #expect(later.findings.map(\.scope.workload) == ["web"])
    }

    @Test func latencyAndLevels_areCompared() throws {
        let lab = Lab()
        lab.up()
        for (le, share) in [("0.1", 0.5), ("0.5", 0.99), ("1", 1.0), ("+Inf", 1.0)] {
            lab.counter(["__name__": "d_bucket", "le": le]) { atMs in
                let slow = atMs > lab.stepMs + minute && le == "0.5"
                return 40 * (slow ? 0.6 : share)
            }
        }
        for (index, atMs) in stride(from: lab.startMs, through: lab.endMs, by: 15_000).enumerated() {
            let noise = Double(index * 7919 % 100) / 100
            lab.store.append(
                [(["__name__": "mem", "job": "api"], 100 + noise * 10 + (atMs > lab.stepMs ? 100 : 0))], atMs: atMs)
        }
        let assessment = try lab.assess(
            """
            signals:
            - {name: p99, component: api, kind: quantile, quantile: 0.99, histogram: d_bucket, unit: seconds, floors: {relative: 1.2, absolute: 0.05}, critical: true}
            - {name: mem, component: api, kind: gauge, expression: sum by (job) (mem), unit: bytes, floors: {relative: 1.5, absolute: 10}}
            - {name: low, component: api, kind: gauge, expression: sum by (job) (mem), unit: bytes, direction: down, floors: {relative: 1.5, absolute: 10}}
            """)
        #expect(assessment.signals.map(\.status) == [.worse, .worse, .better])
        #expect(assessment.verdict == .fail)
        #expect(abs((assessment.signals[1].effect?.interval.estimate ?? 0) - 205.0 / 105) < 0.03)
    }

    @Test func whatGotWorseByLittle_isAdvised_withFewFalseDiscoveries() throws {
        let signals = try Signal.load(file: Shared.root + "/config/signals.yaml")
        func result(_ index: Int, _ pValue: Double?, _ status: SignalResult.Status = .ok) -> SignalResult {
            var result = SignalResult(signal: signals[index], status: status)
            result.pValue = pValue
            return result
        }
        let quiet = (5..<25).map { result($0, 0.4) }
        let name = { (index: Int) in signals[index].name }
        // One small value among twenty may be chance; several are not.
        #expect(Comparison.advisories([result(0, 1e-4)] + quiet, told: []).isEmpty)
        #expect(Comparison.advisories([result(0, 1e-7)] + quiet, told: []) == [name(0)])
        let several = [result(0, 1e-5), result(1, 2e-5), result(2, 1e-5), result(3, nil)] + quiet
        #expect(Comparison.advisories(several, told: []) == [name(0), name(1), name(2)])
        #expect(Comparison.advisories(several, told: [name(1)]) == [name(0), name(2)])
        #expect(Comparison.advisories([result(0, 1e-9, .worse)] + quiet, told: []).isEmpty)
        #expect(Comparison.advisories([], told: []).isEmpty)
    }

    @Test func noUpgrade_saysSo() throws {
        let lab = Lab()
        lab.up()
        let assessment = try lab.assess(Lab.ratio, upgrade: false)
        #expect(assessment.verdict == .inconclusive)
        #expect(assessment.reasons == ["no upgrade seen"])
        #expect(assessment.coverage.targets == 1 && assessment.coverage.scrapesOK == assessment.coverage.scrapesDue)
    }

    @Test func gapsInScrapes_areTold() throws {
        let lab = Lab()
        lab.up { $0 > lab.startMs + 30 * minute && $0 < lab.startMs + 40 * minute ? 0 : 1 }
        let coverage = try lab.assess(Lab.ratio).coverage
        #expect(coverage.gaps.count == 1)
        let down = Lab()
        down.up { _ in 0 }
        #expect(try down.assess(Lab.ratio).coverage.gaps.count == 1)
        #expect(coverage.scrapesDue - coverage.scrapesOK == 39)
    }
}

@Suite struct SignalFileTests {
    @Test func ownSignals_areGood() throws {
        #expect(try Signal.load(file: Shared.root + "/config/signals.yaml").count > 15)
    }

    @Test func faults_areToldByLineAndColumn() throws {
        let problems = #expect(throws: YAMLProblems.self) {
            try Signal.load(
                YAMLDocument(
                    text: """
                        signals:
                        - name: a
                          kind: ratioo
                        - name: b
                          kind: rate
                          counter: 'sum(x)'
                        - name: c
                          kind: gauge
                          expression: x
                          direction: sideways
                        - name: d
                          kind: gauge
                          expression: x
                          versions: {from: "1.30", through: "x"}
                        - {name: e, kind: gauge, expression: x, floors: {relative: 1}}
                        - {name: f, kind: gauge, expression: x, floors: {relative: 0.5, absolute: -1}}
                        """, file: "s.yaml"))
        }
        #expect(
            problems?.description == """
                s.yaml:3:9: unknown kind "ratioo"; known are ratio, rate, drops, gauge, mean and quantile
                s.yaml:6:12: 1:1: parse error: expected a series selector
                s.yaml:10:14: unknown direction "sideways"; known are up, down
                s.yaml:14:37: "x" is not a version; write it quoted, as in "1.19"
                s.yaml:15:49: a relative floor of 1 needs an absolute one: any change would count
                s.yaml:16:49: the relative floor is a ratio of 1 and more
                s.yaml:16:49: floors are not negative, and a slope is over 0
                """)
    }
}
