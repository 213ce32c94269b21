import Foundation
import PromQL
import TestSupport
import Testing

@Suite struct ScriptTests {
    private static let own = (#filePath as NSString).deletingLastPathComponent + "/Scripts"

    private func run(_ directory: String, features: QueryFeatures = .all) throws {
        let names = try FileManager.default.contentsOfDirectory(atPath: directory).filter { $0.hasSuffix(".test") }
        #expect(!names.isEmpty)
        for name in names.sorted() {
            let text = try String(contentsOfFile: directory + "/" + name, encoding: .utf8)
            let outcome = ScriptRunner.run(text, name: name, features: features)
            #expect(outcome.failures.isEmpty, "\(outcome.failures.joined(separator: "\n"))")
            #expect(outcome.passed > 0)
        }
    }

    @Test func ownScripts_pass() throws {
        try run(ScriptTests.own)
        try run(ScriptTests.own + "/plain", features: [])
    }

    /// Prometheus' own scripts, where they are at hand.
    @Test(.enabled(if: Shared.isThere, "../shared is not there"))
    func prometheusScripts_pass() throws { try run(Shared.path("promqltest")) }

    /// Each of these states something that is not so.
    @Test(arguments: [
        "eval instant at 1m x\n  x 2", "eval instant at 1m x\n  x 1\n  x{a=\"b\"} 1", "eval instant at 1m x\n  y 1",
        "eval instant at 1m x\n  expect fail\n  x 1", "eval instant at 1m x\n  expect warn\n  x 1",
        "eval instant at 1m rate(x[5m])\n  expect no_info", "eval instant at 1m sum(", "eval_fail instant at 1m x",
        "eval instant at 1m topk(NaN, x)\n  expect fail msg: Parameter value",
        "eval instant at 1m rate(x[5m])\n  expect info msg: PromQL info: metric might not be a counter",
        "eval range from 0 to 2m step 1m x\n  x 1 1", "eval instant at 1m x\n  expect wonders\n  x 1", "evil 1",
        "eval instant at 1m \"a\"\n  expect string \"b\"",
        "eval_ordered instant at 1m sort_desc(z)\n  z{a=\"1\"} 1\n  z{a=\"2\"} 2",
    ])
    func whatIsNotSo_fails(_ block: String) {
        let load = "load 1m\n  x 1 1 1\n  z{a=\"1\"} 1 1\n  z{a=\"2\"} 2 2\n\n"
        let outcome = ScriptRunner.run(load + block + "\n", name: "wrong")
        #expect(outcome.failures.count == 1 && outcome.passed == 0)
    }

    @Test func nativeHistograms_areSkipped_neverPassed() {
        let outcome = ScriptRunner.run(
            """
            load 1m
              h {{schema:0 count:1 sum:1}}
              x 1

            eval instant at 0m h
              h {{schema:0 count:1 sum:1}}

            eval instant at 0m histogram_count(h)
              {} 1

            eval instant at 0m x
              x 2

            """, name: "native")
        #expect(outcome.passed == 0)
        #expect(outcome.skipped == 2)
        #expect(outcome.failures.count == 1)
    }

    @Test func experimentalFunctions_areOnlyThereWhenTheyAreAskedFor() throws {
        for text in ["mad_over_time(x[5m])", "limitk(1, x)", "sort_by_label(x, \"a\")"] {
            let error = #expect(throws: PromQLError.self) { try Parser.parse(text) }
            #expect(error?.description.contains("--enable-feature=promql-experimental-functions") == true)
            #expect(throws: Never.self) { try Parser.parse(text, features: .experimentalFunctions) }
        }
    }

    /// What was experimental once needs no name any more; what is, does.
    @Test func stableLanguage_isThereWithoutFeatures() throws {
        for text in [
            "rate(m[2m + 3m])", "m offset (5m * 2)", "first_over_time(m[3m])", "increase(m[5m] anchored)", "m smoothed",
        ] { _ = try Parser.parse(text) }
        #expect(QueryFeatures(name: "promql-duration-expr") == [])
        #expect(QueryFeatures(name: "promql-extended-range-selectors") == [])
        #expect(throws: PromQLError.self) { try Parser.parse("mad_over_time(m[3m])") }
        #expect(throws: PromQLError.self) { try Parser.parse("a + fill(0) b") }
    }
}
