import Scrape
import Series
import Testing

/// Relabelling beside what Prometheus makes of the same rules.
@Suite struct RelabelTests {
    private func rule(_ action: RelabelRule.Action, _ regex: String = "(.*)", change: (inout RelabelRule) -> Void)
        throws
        -> RelabelRule
    {
        var rule = RelabelRule(pattern: try Pattern(regex, mode: .anchored))
        rule.action = action
        change(&rule)
        return rule
    }

    /// The figure is the one that Prometheus 2.42 gives for the same value.
    @Test func hashmod_isPrometheus() throws {
        let rule = try rule(.hashmod) {
            $0.sourceLabels = ["c"]
            $0.targetLabel = "d"
            $0.modulus = 1000
        }
        #expect(RelabelRule.apply([rule], to: ["c": "baz"]) == ["c": "baz", "d": "976"])
    }

    /// One of three shards takes each target.
    @Test func hashmod_sharesTargetsOut() throws {
        let shard = try rule(.hashmod) {
            $0.sourceLabels = ["__address__"]
            $0.targetLabel = "__tmp_shard"
            $0.modulus = 3
        }
        var taken = 0
        for number in 0..<3 {
            let keep = try rule(.keep, "\(number)") { $0.sourceLabels = ["__tmp_shard"] }
            taken += (0..<100).count { RelabelRule.apply([shard, keep], to: ["__address__": "h\($0):1"]) != nil }
        }
        #expect(taken == 100)
    }

    @Test func labelActions() throws {
        let labels: Labels = ["__meta_a": "1", "__meta_b": "2", "x": "Y"]
        let map = try rule(.labelmap, "__meta_(.*)") { $0.replacement = "m_$1" }
        #expect(
            RelabelRule.apply([map], to: labels) == [
                "__meta_a": "1", "__meta_b": "2", "x": "Y", "m_a": "1", "m_b": "2",
            ])
        #expect(RelabelRule.apply([try rule(.labeldrop, "__meta_.*") { _ in }], to: labels) == ["x": "Y"])
        #expect(RelabelRule.apply([try rule(.labelkeep, "x") { _ in }], to: labels) == ["x": "Y"])
        let lower = try rule(.lowercase) {
            $0.sourceLabels = ["x"]
            $0.targetLabel = "x"
        }
        #expect(RelabelRule.apply([lower], to: labels)?["x"] == "y")
        let equal = try rule(.keepequal) {
            $0.sourceLabels = ["__meta_a"]
            $0.targetLabel = "__meta_b"
        }
        #expect(RelabelRule.apply([equal], to: labels) == nil)
    }
}
