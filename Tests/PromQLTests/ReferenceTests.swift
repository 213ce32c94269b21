import PromQL
import PromQLReference
import Series
import TestSupport
import Testing

/// The engine against a plain, slow evaluator, over random expressions and series.
@Suite struct ReferenceTests {
    @Test(arguments: 0..<4) func engine_agreesWithTheReference(_: Int) {
        let seed = UInt64.random(in: 0 ... .max)
        var same = 0
        for number in 0..<1500 {
            var random = SeededRandom(seed: seed &+ UInt64(number))
            let choose = { (count: Int) in Int.random(in: 0..<count, using: &random) }
            let question = EngineAgreement.Question(ExpressionGenerator(choose: choose), choose: choose)
            switch EngineAgreement.ask(question) {
            case .same: same += 1
            case .unknown: break
            case .different(let words):
                Issue.record(
                    "seed \(seed &+ UInt64(number)): \(question.text) from \(question.startMs) to \(question.endMs) by \(question.stepMs): \(words)"
                )
            }
        }
        #expect(same > 1000)
    }

    /// A reference that says the same of everything would be none.
    @Test func whatDiffers_isSeen() {
        let series = [SeriesSamples(labels: ["__name__": "a"], timestampsMs: [0], values: [1])]
        let question = EngineAgreement.Question(text: "a + 1", series: series, startMs: 0, endMs: 0, stepMs: 1)
        #expect(EngineAgreement.ask(question) == .same)
        var reference = ReferenceEvaluator(text: "a + 1", series: series, queryStartMs: 0, queryEndMs: 0)
        reference.lookbackMs = 0
        guard let expression = try? Parser.parse("a + 1") else { return #expect(Bool(false)) }
        guard case .vector(let none)? = try? reference.evaluate(expression, atMs: 0) else {
            return #expect(Bool(false))
        }
        #expect(none.isEmpty)
    }
}
