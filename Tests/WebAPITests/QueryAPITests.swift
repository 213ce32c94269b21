import Alerting
import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import PromQL
import Remote
import Series
import StrictYAML
import TestSupport
import Testing
import WebAPI

/// A clock that stands still; nobody wakes but by cancellation.
private struct StoppedClock: TimeSource {
    var nowMs: Int64 = 600_000

    func sleep(untilMs: Int64) async throws {
        let (stream, _) = AsyncStream<Never>.makeStream()
        for await _ in stream {}
        throw CancellationError()
    }
}

@Suite struct QueryAPITests {
    private static let rules = """
        groups:
        - name: g
          rules:
          - {record: "a:up", expr: up}
          - {alert: Down, expr: up == 0, labels: {severity: page}}
        """

    func context(
        limits: QueryRunner.Limits = .init(), receives: Bool = false, store: MemorySeries = MemorySeries()
    ) throws -> WebContext {
        for instance in ["a", "b", "c"] {
            let id = store.ids(for: [["__name__": "up", "instance": instance, "job": "kubelet"]])[0]
            var batch = SampleBatch()
            for minute in 0...10 {
                batch.append(id, timestampMs: Int64(minute) * 60_000, value: instance == "b" ? 0 : 1)
            }
            _ = store.append(batch)
        }
        store.setMetadata([MetricMetadata(name: "up", type: "gauge", help: "Whether a target answers.")])
        let clock = StoppedClock()
        var evaluator = RuleEvaluator(
            groups: try RuleFile.load(YAMLDocument(text: QueryAPITests.rules, file: "rules.yaml")))
        evaluator.evaluate(evaluator.groups[0], atMs: 600_000, source: store, sink: MemorySeries())
        let rules = evaluator
        return WebContext(
            source: store, receiver: receives ? store : nil, engine: QueryEngine(),
            runner: QueryRunner(limits: limits, time: clock),
            service: ServiceStatus(
                configuration: "cluster: lab\n", flags: ["query.timeout": "2m"], startedMs: 0, configuredMs: 0,
                retentionMs: 86_400_000),
            externalLabels: ["cluster": "lab"], origins: try Pattern("https://.*\\.example", mode: .anchored),
            time: clock, targets: { [] }, rules: { rules }, alerts: { [] }, upgrades: { [] },
            assess: { _, _ in nil }, marks: { [] }, addMark: { _ in }, reload: {}, metrics: { "" }, isReady: { true })
    }

    private func answer(
        _ path: String, _ context: WebContext? = nil, method: HTTPRequest.Method = .get, body: String = "",
        headers: [(HTTPField.Name, String)] = []
    ) async throws -> (status: Int, body: String, headers: HTTPFields) {
        let app = Application(router: WebAPI.router(try context ?? self.context()))
        return try await app.test(.router) { client in
            var fields = HTTPFields()
            for (name, value) in headers { fields[name] = value }
            let response = try await client.execute(
                uri: path, method: method, headers: fields, body: body.isEmpty ? nil : ByteBuffer(string: body))
            return (Int(response.status.code), String(buffer: response.body), response.headers)
        }
    }

    @Test(arguments: [
        (
            "/api/v1/query?query=sum(up)&time=600",
            #"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[600,"2"]}]}}"#
        ),
        (
            "/api/v1/query?query=1%2B1&time=1970-01-01T00:10:00.5Z",
            #"{"status":"success","data":{"resultType":"scalar","result":[600.500,"2"]}}"#
        ),
        (
            "/api/v1/query?query=vector(1e-7)&time=1",
            #"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1e-07"]}]}}"#
        ),
        (
            "/api/v1/query_range?query=sum(up)&start=480&end=600&step=1m",
            #"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[480,"2"],[540,"2"],[600,"2"]]}]}}"#
        ),
        ("/api/v1/labels?match[]=up", #"{"status":"success","data":["__name__","instance","job"]}"#),
        ("/api/v1/label/instance/values", #"{"status":"success","data":["a","b","c"]}"#),
        (
            "/api/v1/label/U__instance/values?limit=1",
            #"{"status":"success","data":["a"],"warnings":["results truncated due to limit"]}"#
        ),
        (
            "/api/v1/series?match[]=up{instance=%22a%22}",
            #"{"status":"success","data":[{"__name__":"up","instance":"a","job":"kubelet"}]}"#
        ),
        (
            "/api/v1/metadata?metric=up",
            #"{"status":"success","data":{"up":[{"type":"gauge","help":"Whether a target answers.","unit":""}]}}"#
        ),
        ("/api/v1/status/flags", #"{"status":"success","data":{"query.timeout":"2m"}}"#),
        ("/api/v1/status/config", #"{"status":"success","data":{"yaml":"cluster: lab\n"}}"#),
        ("/api/v1/query_exemplars?query=up", #"{"status":"success","data":[]}"#),
    ])
    func answers_areThoseOfPrometheus(path: String, wanted: String) async throws {
        let answer = try await answer(path)
        #expect(answer.status == 200)
        #expect(answer.body == wanted)
    }

    /// Numbers as large as any are errors, or answers, and never the end of the process.
    @Test(arguments: [
        ("query?query=up&time=-8999999999999&lookback_delta=292471208y21366774s807ms", 400),
        ("query?query=up&time=-8999999999999&lookback_delta=292y", 200),
        ("query?query=up&time=8999999999999&lookback_delta=9e9", 200),
        ("query?query=up&lookback_delta=9e12", 400), ("query?query=up&lookback_delta=0", 200),
        ("query?query=up&lookback_delta=-5m", 400),
        ("query?query=sum_over_time(up[292y])&time=-8999999999999&lookback_delta=292y", 200),
        ("query?query=rate(up[300y])", 400),
    ])
    func extremeTimes_areAnswered(path: String, status: Int) async throws {
        #expect(try await answer("/api/v1/" + path).status == status)
    }

    @Test func headIsAnsweredAsGet_andASelectorThatIsSaidOftenIsAskedOnce() async throws {
        #expect(try await answer("/-/healthy", method: .head).status == 200)
        #expect(try await answer("/-/reload", method: .put).status == 200)
        let many = Array(repeating: "match[]=up", count: 50_000).joined(separator: "&")
        let found = try await answer(
            "/api/v1/series", method: .post, body: many, headers: [(.contentType, "application/x-www-form-urlencoded")])
        #expect(found.status == 200 && found.body.contains("\"instance\":\"a\""))
    }

    @Test(
        arguments: [
            (0, 0, "[0,\"0\"]"), (1, 7, "[0.001,\"7\"]"), (1_010, -42, "[1.010,\"-42\"]"),
            (100, 1e3, "[0.100,\"1000\"]"),
            (-1_500, -0.0, "[-1.500,\"-0\"]"),
            (1_795_392_000_000, 999_999_999_999_999, "[1795392000,\"999999999999999\"]"),
            (Int64.max, 1e15, "[9223372036854775.807,\"1000000000000000\"]"),
            (Int64.min, -999_999_999_999_999, "[-9223372036854775.808,\"-999999999999999\"]"),
            (5, 0.5, "[0.005,\"0.5\"]"), (5, 1e21, "[0.005,\"1e+21\"]"), (5, .infinity, "[0.005,\"+Inf\"]"),
            (5, .nan, "[0.005,\"NaN\"]"), (5, -1e-7, "[0.005,\"-1e-07\"]"),
        ] as [(Int64, Double, String)])
    func numbers_areWrittenAsPrometheusDoes(timestampMs: Int64, value: Double, wanted: String) {
        let result = QueryResult(value: .scalar(value), timestampMs: timestampMs, annotations: [])
        let text = QueryJSON.response(result)
        #expect(text == "{\"status\":\"success\",\"data\":{\"resultType\":\"scalar\",\"result\":\(wanted)}}")
    }

    /// Points are written some at a time: none is lost between, and each is as it is alone.
    @Test func longSeries_isWrittenWhole() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        let times = (0..<300).map { Int64($0) * 999 + Int64.random(in: 0..<900, using: &random) }
        let values = times.map { _ in
            Bool.random(using: &random)
                ? Double(Int64.random(in: -99_999_999...99_999_999, using: &random)) : random.anyDouble()
        }
        let text = { (times: [Int64], values: [Double]) in
            let samples = SeriesSamples(labels: ["a": "b"], timestampsMs: times, values: values)
            return QueryJSON.response(QueryResult(value: .matrix([samples]), timestampMs: 0, annotations: []))
        }
        let start =
            "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[{\"metric\":{\"a\":\"b\"},\"values\":["
        let points = zip(times, values).map { text([$0], [$1]).dropFirst(start.count).dropLast("]}]}}".count) }
        #expect(text(times, values) == start + points.joined(separator: ",") + "]}]}}", "seed \(seed)")
    }

    @Test(arguments: [
        ("/api/v1/query?query=sum(", 400, "invalid parameter \\\"query\\\": 1:5: parse error:"),
        (
            "/api/v1/query?query=up&time=x", 400,
            "invalid parameter \\\"time\\\": cannot parse \\\"x\\\" to a valid timestamp"
        ),
        ("/api/v1/query_range?query=up&start=2&end=1&step=1", 400, "end timestamp must not be before start time"),
        ("/api/v1/query_range?query=up&start=1&end=2&step=0", 400, "zero or negative query resolution step widths"),
        ("/api/v1/query_range?query=up&start=0&end=11001&step=1", 400, "exceeded maximum resolution of 11,000 points"),
        ("/api/v1/query_range?query=up&start=1&end=2", 400, "invalid parameter \\\"step\\\""),
        ("/api/v1/query?query=up*on()up&time=600", 422, "many-to-many matching not allowed"),
        ("/api/v1/series", 400, "no match[] parameter provided"),
        ("/api/v1/query?query=up&limit=-1", 400, "limit must be non-negative"),
        ("/api/v1/rules?type=x", 400, "not supported value"),
    ])
    func errors_haveTheirTypesAndStatuses(path: String, status: Int, words: String) async throws {
        let answer = try await answer(path)
        #expect(answer.status == status)
        #expect(answer.body.contains(#""status":"error","errorType":"\#(status == 400 ? "bad_data" : "execution")""#))
        #expect(answer.body.contains(words), "\(answer.body)")
    }

    @Test func forms_areReadLikeAddresses() async throws {
        let answer = try await answer(
            "/api/v1/query", method: .post, body: "query=count%28up%29+%3E+2&time=600&stats=all",
            headers: [(.contentType, "application/x-www-form-urlencoded")])
        #expect(answer.body.contains(#""value":[600,"3"]"#))
        #expect(answer.body.contains(#""samples":{"totalQueryableSamples":15,"peakSamples":"#), "\(answer.body)")
    }

    @Test func queriesThatHoldTooMuch_end() async throws {
        var limits = QueryRunner.Limits()
        limits.maxSamples = 10
        let context = try context(limits: limits)
        let path = "/api/v1/query_range?query=up&start=0&end=600&step=60"
        let answer = try await answer(path, context)
        #expect(answer.status == 422)
        #expect(answer.body.contains("query processing would load too many samples into memory in query execution"))
        // What an aggregation reads is not held.
        let sum = try await self.answer("/api/v1/query_range?query=sum(up)&start=0&end=540&step=60", context)
        #expect(sum.status == 200)
    }

    @Test func hostileQueries_endWithAnError() async throws {
        func status(_ query: String) async throws -> (Int, String) {
            let allowed = CharacterSet.alphanumerics
            let text = query.addingPercentEncoding(withAllowedCharacters: allowed) ?? ""
            let answer = try await answer(
                "/api/v1/query", method: .post, body: "query=\(text)&time=600",
                headers: [(.contentType, "application/x-www-form-urlencoded")])
            return (answer.status, answer.body)
        }
        let nested = try await status(
            String(repeating: "(", count: 10_000) + "up" + String(repeating: ")", count: 10_000))
        #expect(nested.0 == 400 && nested.1.contains("nested too deeply"))
        let steps = try await status("max_over_time(up[10y:1s])")
        #expect(steps.0 == 422 && steps.1.contains("too many samples"))
        // A pattern that goes back and forth without end matches nothing, in bounded time.
        #expect(try await status("{instance=~\"(a+)+b\", __name__=~\"(.*)*x\"}").0 == 200)
        #expect(try await status(String(repeating: "-", count: 100_000) + "1").0 == 400)
    }

    @Test func manyQueriesAtOnce_waitForEachOther() async throws {
        var limits = QueryRunner.Limits()
        limits.maxConcurrency = 2
        let context = try context(limits: limits)
        let app = Application(router: WebAPI.router(context))
        try await app.test(.router) { client in
            try await withThrowingTaskGroup(of: Int.self) { group in
                for _ in 0..<200 {
                    group.addTask {
                        Int(
                            try await client.execute(
                                uri: "/api/v1/query?query=sum(up)&time=600", method: .get
                            ).status.code)
                    }
                }
                for try await status in group { #expect(status == 200) }
            }
        }
        let counts = context.runner.counts
        #expect(counts.running == 0 && counts.waiting == 0 && counts.refused == 0)
    }

    @Test func limits_cutAnswersAndSaySo() async throws {
        let answer = try await answer("/api/v1/query?query=up&time=600&limit=2")
        #expect(answer.body.components(separatedBy: "\"metric\"").count == 3)
        #expect(answer.body.contains(#""warnings":["results truncated due to limit"]"#))
    }

    @Test func rules_areFiltered() async throws {
        let all = try await answer("/api/v1/rules").body
        #expect(
            all.contains(#""name":"a:up""#) && all.contains(#""name":"Down""#) && all.contains(#""state":"firing""#))
        let alerts = try await answer("/api/v1/rules?type=alert&exclude_alerts=true").body
        #expect(
            !alerts.contains(#""name":"a:up""#) && alerts.contains(#""name":"Down""#) && !alerts.contains("activeAt"))
        #expect(
            try await answer("/api/v1/rules?rule_group[]=other").body == #"{"status":"success","data":{"groups":[]}}"#)
        let matched = try await answer("/api/v1/rules?match[]={severity=%22page%22}").body
        #expect(!matched.contains(#""name":"a:up""#) && matched.contains(#""name":"Down""#))
    }

    @Test func federation_givesTheNewestSamples() async throws {
        let answer = try await answer("/federate?match[]=up{instance=~%22a|b%22}")
        #expect(
            answer.body == """
                # TYPE up untyped
                up{cluster="lab",instance="a",job="kubelet"} 1 600000
                up{cluster="lab",instance="b",job="kubelet"} 0 600000

                """)
        #expect(try await self.answer("/federate").status == 400)
    }

    @Test func otherOrigins_mayReadWhereTheyAreAllowed() async throws {
        let good = try await answer("/-/healthy", headers: [(.origin, "https://grafana.example")])
        #expect(good.headers[.accessControlAllowOrigin] == "https://grafana.example")
        let bad = try await answer("/-/healthy", headers: [(.origin, "https://evil.test")])
        #expect(bad.headers[.accessControlAllowOrigin] == nil && bad.status == 200)
        let asked = try await answer("/api/v1/query", method: .options, headers: [(.origin, "https://grafana.example")])
        #expect(asked.status == 204 && asked.headers[.accessControlAllowMethods] == "GET, POST, OPTIONS")
    }

    @Test func remoteWrite_takesSamplesWhereItIsEnabled() async throws {
        var request = WriteRequest()
        request.series = [SeriesSamples(labels: ["__name__": "sent"], timestampsMs: [600_000], values: [5])]
        let body = Snappy.compress(request.encoded())
        func send(_ context: WebContext, _ type: String = "application/x-protobuf") async throws -> Int {
            let app = Application(router: WebAPI.router(context))
            return try await app.test(.router) { client in
                var fields = HTTPFields()
                fields[.contentType] = type
                fields[.contentEncoding] = "snappy"
                return Int(
                    try await client.execute(
                        uri: "/api/v1/write", method: .post, headers: fields, body: ByteBuffer(bytes: body)
                    ).status.code)
            }
        }
        let store = MemorySeries()
        let context = try context(receives: true, store: store)
        #expect(try await send(context, "text/plain") == 415)
        #expect(try await send(context) == 204)
        let sent = try store.select([.equal("__name__", "sent")], fromMs: 0, throughMs: .max)
        #expect(sent.map(\.values) == [[5]])
        #expect(try await send(try self.context()) == 404)
    }
}
