import Comparison
import Foundation
import Simulator
import StrictYAML
import Testing

private let minute: Int64 = 60_000
private let day: Int64 = 86_400_000

/// Verdicts made by hand, whose score is known.
@Suite struct ScoreTests {
    private func run(
        _ expectation: Scenario.Expectation, pages: [Int64] = [], verdict: Verdict, onset: Int64? = nil,
        blame: JudgedRun.Blame? = nil, components: Set<String> = ["kubelet"], batches: Set<Int> = []
    ) -> ScenarioRun {
        var judged = JudgedRun()
        judged.pagesMs = pages
        judged.verdict = verdict
        judged.blame = blame
        return ScenarioRun(
            name: "hand", seed: 1, expectation: expectation, upgradeMs: 0, endMs: day, onsetMs: onset,
            components: components, batches: batches, judged: [ScenarioRun.ours: judged])
    }

    @Test func faults_countAsFoundOrMissed_withDelayAndBlame() {
        let onset = 60 * minute
        let score = Score([
            // Found after ten minutes, all blamed right, the onset four minutes off.
            run(
                .fail, pages: [70 * minute], verdict: .fail, onset: onset,
                blame: .init(component: "kubelet", batch: 2, onsetMs: 64 * minute), batches: [2, 3]),
            // Found after an hour; another component, another batch.
            run(
                .fail, pages: [120 * minute], verdict: .pass, onset: onset,
                blame: .init(component: "etcd", batch: 1, onsetMs: 40 * minute), batches: [2]),
            run(.fail, verdict: .pass, onset: onset),
        ])
        #expect(score.faults == 3 && score.nulls == 0)
        #expect(score.recall == 2.0 / 3)
        #expect(score.precision == 1)
        #expect(score.componentTop1 == 0.5)
        #expect(score.batchTop1 == 0.5)
        #expect(score.onsetErrorMinutes == 12)
        // The one that was missed counts as later than all.
        #expect(score.delayMinutes == 60)
        #expect(score.falseFailRate == nil && score.pagesPerDay == nil && score.passAmongNulls == nil)
    }

    @Test func alarmBeforeTheFault_isFalse_andTheFaultMustStillBeFound() {
        let early = Score([run(.fail, pages: [10 * minute], verdict: .pass, onset: 60 * minute)])
        #expect(early.recall == 0 && early.precision == 0)
        let both = Score([run(.fail, pages: [10 * minute, 90 * minute], verdict: .fail, onset: 60 * minute)])
        #expect(both.recall == 1 && both.precision == 0.5)
    }

    @Test func nulls_countPagesAndPasses_andBlindIsNoPass() {
        let score = Score([
            run(.pass, verdict: .pass), run(.pass, verdict: .inconclusive),
            run(.pass, pages: [minute, 9 * minute], verdict: .pass), run(.notFail, verdict: .inconclusive),
            run(.blind, verdict: .blind), run(.any, pages: [minute], verdict: .fail),
        ])
        #expect(score.nulls == 5 && score.faults == 0)
        #expect(score.falseFailRate == 0.2)
        #expect(score.pagesPerDay == 2.0 / 5)
        #expect(score.passAmongNulls == 2.0 / 3)
        #expect(score.verdicts["blind"] == ["BLIND": 1])
        #expect(score.blindRecall == 1)
        #expect(Score([run(.blind, verdict: .blind), run(.blind, verdict: .pass)]).blindRecall == 0.5)
        #expect(score.precision == 0)
        #expect(score.verdicts["any"] == ["FAIL": 1])
    }

    @Test func testsAndIntervals_countOnNullsAlone() {
        var null = run(.pass, verdict: .pass)
        null.judged[ScenarioRun.ours]?.pValues = ["a": 0.5, "b": 0.01, "c": 1, "d": 0.011]
        null.judged[ScenarioRun.ours]?.intervalsHoldNone = ["a": true, "b": true, "c": false]
        var fault = run(.fail, verdict: .fail)
        fault.judged[ScenarioRun.ours]?.pValues = ["a": 0]
        fault.judged[ScenarioRun.ours]?.intervalsHoldNone = ["a": false]
        let score = Score([null, fault])
        #expect(score.typeOneError == 0.25 && score.intervalCoverage == 2.0 / 3)
    }

    /// By `statsmodels.stats.proportion.proportion_confint(count, n, method="wilson")`.
    @Test func wilson_isAsPublished() throws {
        let four = try #require(Score.wilson(4, of: 400))
        #expect(abs(four.lowerBound - 0.003895) < 1e-5 && abs(four.upperBound - 0.025427) < 1e-5)
        let none = try #require(Score.wilson(0, of: 20))
        #expect(abs(none.lowerBound) < 1e-12 && abs(none.upperBound - 0.161125) < 1e-5)
        #expect(Score.wilson(0, of: 0) == nil)
    }

    @Test func filesOfTheSameName_haveTheirOwnRows() {
        let report = ScoreReport([
            ("s", "one/s.yaml", [run(.pass, verdict: .pass)]), ("s", "two/s.yaml", [run(.fail, verdict: .pass)]),
        ])
        let rows = report.table().split(separator: "\n").filter { $0.hasPrefix("| s |") }
        #expect(rows.map { $0.split(separator: "|").prefix(3).joined() } == [" s  0  1 ", " s  1  0 "])
    }

    @Test func json_hasItsFields_alsoWhereNothingIsKnown() throws {
        let report = ScoreReport([("hand", "hand.yaml", [run(.pass, verdict: .pass)])])
        let text = try report.json(withRuns: false)
        let json = try #require(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        for object in [json, try #require((json["files"] as? [[String: Any]])?.first)] {
            for field in [
                "precision", "recall", "false_fail_rate", "pages_per_day", "component_top1", "batch_top1",
                "onset_error_minutes", "pass_among_nulls", "delay_minutes", "type_one_error", "blind_recall",
                "interval_coverage",
            ] { #expect(object[field] != nil, "\(field)") }
        }
        #expect(json["recall"] is NSNull)
        #expect(json["pass_among_nulls"] as? Double == 1)
        let runs = try JSONSerialization.jsonObject(with: Data(report.json(withRuns: true).utf8)) as? [String: Any]
        let one = try #require((runs?["runs"] as? [[String: Any]])?.first)
        for field in ["fault", "component", "batch", "onset"] { #expect(one[field] is NSNull, "\(field)") }
    }

    @Test func faultsOfAScenario_areToldByLineAndColumn() {
        let problems = #expect(throws: YAMLProblems.self) {
            try Scenario.load(
                text: """
                    faults:
                    - {kind: evictons, ratio: 5}
                    - {kind: evictions}
                    rollout: {order: sideways, batches: [0.5, 0.2]}
                    topolgy: {nodes: 3}
                    """, file: "s.yaml")
        }
        let text = problems?.description ?? ""
        #expect(text.contains("s.yaml:2:10: unknown process \"evictons\""))
        #expect(text.contains("s.yaml:3:3: the effect changes nothing"))
        #expect(text.contains("s.yaml:4:18: unknown order \"sideways\""))
        #expect(text.contains("s.yaml:4:37: batches are rising parts of all nodes"))
        #expect(text.contains("s.yaml:5:1: "))
    }

    @Test(arguments: [
        ("nuisances: [{kind: churn, share: 0.5, at: 1000h}]", "it begins when all is over"),
        ("nuisances: [{kind: traffic, factor: 2, at: 500h}]", "it begins when all is over"),
        ("nuisances: [{kind: scrape_gaps, share: 0.1, at: 1h}]", "unknown field \"at\""),
        ("nuisances: [{kind: scrape_gaps, share: 0}]", "share is a part, over 0 and up to 1"),
        ("nuisances: [{kind: counter_resets, per_day: 0}]", "per_day is over 0"),
        ("nuisances: [{kind: effect, process: evictions}]", "the effect changes nothing"),
        ("rollout: {from: v1.33.5, to: v1.32.9}", "which is not a later version"),
        ("expect: fail", "nothing fails: there are no faults"),
    ])
    func whatHasNoMeaningInAScenario_isAnError(text: String, words: String) {
        let problems = #expect(throws: YAMLProblems.self) { try Scenario.load(text: text + "\n", file: "s.yaml") }
        #expect(problems?.description.contains(words) == true, "\(problems?.description ?? "")")
    }
}
