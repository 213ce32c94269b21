import PromQL
import PromQLReference
import Series
import Synchronization
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

    /// An expression's text is one of the same expression.
    @Test func texts_areExpressionsAgain() throws {
        let seed = UInt64.random(in: 0 ... .max)
        for number in 0..<2000 {
            var random = SeededRandom(seed: seed &+ UInt64(number))
            let text = ExpressionGenerator(choose: { Int.random(in: 0..<$0, using: &random) }).vector(3)
            guard let expression = try? Parser.parse(text) else { continue }
            let again = try Parser.parse(expression.description)
            #expect(again.description == expression.description, "seed \(seed &+ UInt64(number)): \(text)")
        }
    }

    @Test(arguments: [
        ("sum(a)by(x)", "sum by (x) (a)"), ("sum without(x,y)(a)", "sum without (x, y) (a)"),
        ("topk(3,a{b=\"c\",d=~'e'})", "topk(3, a{b=\"c\",d=~\"e\"})"),
        ("a  *on(x)group_left(y) b", "a * on (x) group_left (y) b"), ("a>bool ignoring(z)b", "a > bool ignoring (z) b"),
        ("rate(a[5m] offset 1h)", "rate(a[5m] offset 1h)"), ("a@10.5 offset -1m", "a @ 10.500 offset -1m"),
        ("max_over_time((a+b)[1h:5m] @ end())", "max_over_time((a + b)[1h:5m] @ end())"), ("-a", "-a"),
        ("{\"with space\", b!=\"c\"}", "{__name__=\"with space\",b!=\"c\"}"), ("{x=\"1\"}", "{x=\"1\"}"),
        ("sum by(\"a b\")(c)", "sum by (\"a b\") (c)"),
    ])
    func text_isTheSame_forAllWaysOfWriting(source: String, text: String) throws {
        #expect(try Parser.parse(source).description == text)
    }

    /// Prometheus 2.42 gave these lines.
    @Test(arguments: [
        (
            "sum(a)by(x)",
            "sum by (x) (a)"
        ),
        (
            "histogram_quantile(0.99,sum by(le,verb,resource)(rate(apiserver_request_duration_seconds_bucket{verb!~'WATCH'}[5m])))",
            "histogram_quantile(\n  0.99,\n  sum by (le, verb, resource) (rate(apiserver_request_duration_seconds_bucket{verb!~\"WATCH\"}[5m]))\n)"
        ),
        (
            "sum by(code)(rate(apiserver_request_total{code=~'5..',verb!='WATCH'}[5m]))/on(code)group_left(job) sum by (code,job)(rate(apiserver_request_total{verb!='WATCH'}[5m]))>bool 0.01",
            "    sum by (code) (rate(apiserver_request_total{code=~\"5..\",verb!=\"WATCH\"}[5m]))\n  / on (code) group_left (job)\n    sum by (code, job) (rate(apiserver_request_total{verb!=\"WATCH\"}[5m]))\n> bool\n  0.01"
        ),
        (
            "topk(5,sum without(instance,pod)(increase(container_cpu_usage_seconds_total{namespace='kube-system',container!=''}[1h] offset 1d)))",
            "topk(\n  5,\n  sum without (instance, pod) (\n    increase(container_cpu_usage_seconds_total{container!=\"\",namespace=\"kube-system\"}[1h] offset 1d)\n  )\n)"
        ),
        (
            "max_over_time((sum by(node)(rate(kubelet_runtime_operations_errors_total{operation_type!='x'}[5m])) + 1)[1h:5m] @ end() offset 5m) or vector(0)",
            "  max_over_time(\n    (sum by (node) (rate(kubelet_runtime_operations_errors_total{operation_type!=\"x\"}[5m])) + 1)[1h:5m] @ end() offset 5m\n  )\nor\n  vector(0)"
        ),
        (
            "-(sum(rate(kubelet_runtime_operations_errors_total{operation_type='create_container'}[5m])) - sum(rate(kubelet_runtime_operations_total[5m])))",
            "-(\n    sum(rate(kubelet_runtime_operations_errors_total{operation_type=\"create_container\"}[5m]))\n  -\n    sum(rate(kubelet_runtime_operations_total[5m]))\n)"
        ),
        (
            "label_replace(kube_node_status_condition{condition='Ready',status='true',node=~'very-long-name-of-a-node.*'}, 'a', '$1', 'node', '(.*)')",
            "label_replace(\n  kube_node_status_condition{condition=\"Ready\",node=~\"very-long-name-of-a-node.*\",status=\"true\"},\n  \"a\",\n  \"$1\",\n  \"node\",\n  \"(.*)\"\n)"
        ),
    ]) func longExpressions_areBroken(source: String, lines: String) throws {
        #expect(try Parser.parse(source).lines == lines)
    }

    /// Counts how often it is asked.
    private final class CountingSource: SeriesSource {
        let base = MemorySeries()
        private let asked = Mutex(0)
        var count: Int { asked.withLock { $0 } }

        func select(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [SeriesSamples] {
            asked.withLock { $0 += 1 }
            return try base.select(matchers, fromMs: fromMs, throughMs: throughMs)
        }
        func labels(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [Labels] { [] }
        func metadata() throws -> [MetricMetadata] { [] }
        func timeRange() throws -> ClosedRange<Int64>? { try base.timeRange() }
    }

    @Test(arguments: [
        ("sum by (x) (rate(a[5m])) / on () group_left sum(rate(a[5m]))", 2), ("sum(a) / sum(a) + sum( a )", 1),
        (
            "histogram_quantile(0.9, sum by(le)(rate(a_bucket[5m]))) or histogram_quantile(0.5, sum by (le) (rate(a_bucket[5m])))",
            1
        ),
        // Each of these is another question.
        ("sum(a) + sum(a offset 1m) + sum by (x) (a)", 3), ("sum(a) + max_over_time(sum(a)[5m:1m])", 2),
    ])
    func aggregationsThatStandTwice_areEvaluatedOnce(text: String, selects: Int) throws {
        let source = CountingSource()
        source.base.append([(["__name__": "a", "le": "1"], 1), (["__name__": "a", "le": "+Inf"], 2)], atMs: 0)
        _ = try QueryEngine().range(text, startMs: 0, endMs: 600_000, stepMs: 60_000, source: source)
        #expect(source.count == selects)
    }

    /// Equal values have no variance, however large they are; of values that differ in their last bits alone it is
    /// the rounding that is seen.
    @Test(arguments: [
        ([8.3e79, 8.3e79, 8.3e79], EngineAgreement.Outcome.same), ([8.3e79, 8.3e79.nextUp, 8.3e79], .unknown),
    ])
    func variance_ofLargeValues(values: [Double], outcome: EngineAgreement.Outcome) {
        let series = [SeriesSamples(labels: ["__name__": "a"], timestampsMs: [0, 1, 2], values: values)]
        for function in ["stdvar_over_time", "stddev_over_time"] {
            let question = EngineAgreement.Question(
                text: "\(function)(a[1m])", series: series, startMs: 2, endMs: 2, stepMs: 1)
            #expect(EngineAgreement.ask(question) == outcome)
        }
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
