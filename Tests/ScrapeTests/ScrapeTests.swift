import Exposition
import Fetch
import Foundation
import Logging
import Scrape
import Series
import Synchronization
import TestSupport
import Testing

@Suite struct ScrapeSessionTests {
    private let store = MemorySeries()

    private func session(_ change: (inout ScrapeTarget) throws -> Void) rethrows -> ScrapeSession {
        var target = ScrapeTarget(labels: ["job": "j", "instance": "i"], url: "http://x")
        try change(&target)
        return ScrapeSession(target: target, sink: store)
    }

    private func session() -> ScrapeSession { session { _ in } }

    private func values(_ name: String) throws -> [String: [Double]] {
        var found: [String: [Double]] = [:]
        for series in try store.select([.equal("__name__", name)], fromMs: .min, throughMs: .max) {
            found[series.labels.description] = series.values
        }
        return found
    }

    private func scrape(_ session: inout ScrapeSession, _ text: String, atMs: Int64) throws -> ScrapeOutcome {
        try session.ingest(Array(text.utf8), format: .prometheus, atMs: atMs, durationSeconds: 0.5)
    }

    @Test func samples_getTheTargetsLabels_andTheScrapeReportsOnItself() throws {
        var session = session()
        let outcome = try scrape(&session, "a{x=\"1\"} 5\nb 6\n", atMs: 1000)
        #expect(outcome.scraped == 2 && outcome.kept == 2 && outcome.added == 2)
        #expect(try values("a") == [#"a{instance="i", job="j", x="1"}"#: [5]])
        #expect(try values("up").values.first == [1])
        #expect(try values("scrape_samples_scraped").values.first == [2])
        #expect(try values("scrape_duration_seconds").values.first == [0.5])
    }

    @Test func conflictingLabels_areRenamed_unlessHonored() throws {
        var session = session()
        _ = try scrape(&session, "a{job=\"own\"} 1\n", atMs: 1000)
        #expect(try values("a").keys.first == #"a{exported_job="own", instance="i", job="j"}"#)
        var honoring = self.session { $0.honorLabels = true }
        _ = try scrape(&honoring, "b{job=\"own\"} 1\n", atMs: 1000)
        #expect(try values("b").keys.first == #"b{instance="i", job="own"}"#)
    }

    @Test func seriesThatVanish_endWithAMarker_andFailuresEndAll() throws {
        var session = session()
        _ = try scrape(&session, "a 1\nb 1\n", atMs: 1000)
        #expect(try scrape(&session, "b 2\nc 1\n", atMs: 2000).added == 1)
        session.fail(atMs: 3000, durationSeconds: 0)
        let a = try #require(try values("a").values.first)
        #expect(a.count == 2 && a[1].isStaleMarker)
        let b = try #require(try values("b").values.first)
        #expect(b.count == 3 && b[1] == 2 && b[2].isStaleMarker)
        #expect(try values("up").values.first == [1, 1, 0])
        // After a failure everything is new again.
        #expect(try scrape(&session, "b 3\n", atMs: 4000).added == 1)
    }

    @Test func reorderedAndInterleavedLines_findTheirSeries() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        var session = session()
        var expected: [Int: [Double]] = [:]
        for round in 0..<60 {
            let chosen = (0..<40).shuffled(using: &random).prefix(Int.random(in: 5...40, using: &random))
            var text = ""
            for number in chosen {
                text += "m{n=\"\(number)\"} \(round)\n"
                expected[number, default: []].append(Double(round))
            }
            #expect(try scrape(&session, text, atMs: Int64(round) * 1000).kept == chosen.count, "seed \(seed)")
        }
        for (number, wanted) in expected {
            let found = try values("m")["m{instance=\"i\", job=\"j\", n=\"\(number)\"}"]?.filter { !$0.isStaleMarker }
            #expect(found == wanted, "seed \(seed)")
        }
    }

    @Test func timestampsOfTheTarget_areKept_unlessRefused() throws {
        var session = session()
        _ = try scrape(&session, "a 1 500\n", atMs: 1000)
        _ = try scrape(&session, "b 1\n", atMs: 2000)
        let a = try store.select([.equal("__name__", "a")], fromMs: .min, throughMs: .max)
        #expect(a.first?.timestampsMs == [500])
        // A time that lies far ahead would make all later samples old.
        #expect(try scrape(&session, "d 1 4102444800000\n", atMs: 2500).result.outOfOrder == 1)
        #expect(try values("d").isEmpty)
        // One that lies far back would keep retention from all that came with it.
        #expect(try scrape(&session, "e 1 -8900000000000000\n", atMs: 2600).result.outOfOrder == 1)
        #expect(try scrape(&session, "f 1 \(10_000_000 - 3_600_001)\n", atMs: 10_000_000).result.outOfOrder == 1)
        #expect(try scrape(&session, "g 1 \(10_001_000 - 3_600_000)\n", atMs: 10_001_000).result.outOfOrder == 0)
        #expect(try values("e").isEmpty && values("f").isEmpty && !values("g").isEmpty)
        var refusing = self.session { $0.honorTimestamps = false }
        _ = try scrape(&refusing, "c 1 500\n", atMs: 10_002_000)
        #expect(
            try store.select([.equal("__name__", "c")], fromMs: .min, throughMs: .max).first?.timestampsMs == [
                10_002_000
            ])
    }

    @Test func seriesWithTimesOfTheirOwn_end_whereThatIsAskedFor() throws {
        var session = session { $0.tracksTimestampsStaleness = true }
        _ = try scrape(&session, "a 1 500\n", atMs: 1000)
        _ = try scrape(&session, "b 1\n", atMs: 2000)
        let a = try store.select([.equal("__name__", "a")], fromMs: .min, throughMs: .max)
        #expect(a.first?.timestampsMs == [500, 2000])
        #expect(a.first?.values.last.map { $0.bitPattern == staleMarker.bitPattern } == true)
    }

    @Test func formats_areAskedFor_theBestFirst() {
        var target = ScrapeTarget(labels: Labels(), url: "http://a/metrics")
        func accept() -> String? { target.request().headers.first { $0.name == "Accept" }?.value }
        #expect(
            accept() == "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
        target.protocols = ScrapeProtocol.allCases
        target.escaping = "underscores"
        #expect(
            accept() == "application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.8,"
                + "application/openmetrics-text;version=0.0.1;q=0.7,text/plain;version=1.0.0;escaping=underscores;q=0.6,"
                + "text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
        #expect(ExpositionFormat(contentType: "text/html", fallback: .openMetrics) == .openMetrics)
        #expect(ExpositionFormat(contentType: nil, fallback: .openMetrics) == .openMetrics)
        #expect(ExpositionFormat(contentType: "text/plain", fallback: .openMetrics) == .prometheus)
    }

    private func rule(
        _ pattern: String, _ action: RelabelRule.Action = .replace, of source: String = "__name__",
        to label: String = "",
        _ replacement: String = "$1"
    ) throws -> RelabelRule {
        var rule = RelabelRule(pattern: try Pattern(pattern, mode: .anchored))
        rule.sourceLabels = [source]
        rule.action = action
        rule.targetLabel = label
        rule.replacement = replacement
        return rule
    }

    @Test func relabelling_dropsAndRenames() throws {
        var session = try session { target in
            target.metricRelabelRules = [
                try rule("go_.*", .drop), try rule("(.*)-(.*)", of: "pod", to: "workload", "$1"),
            ]
        }
        let outcome = try scrape(&session, "go_threads 1\na{pod=\"web-1\"} 1\n", atMs: 1000)
        #expect(outcome.scraped == 2 && outcome.kept == 1)
        #expect(try values("a").keys.first == #"a{instance="i", job="j", pod="web-1", workload="web"}"#)
    }

    @Test func metricsThatNobodyAsksFor_areCountedAndNotKept() throws {
        // What a rule says after another one changed the name is not for the filter.
        let keep = try rule("a|b_.*", .keep)
        let rename = try rule("a", to: "__name__", "renamed")
        let rules = [keep, rename, try rule("renamed|b_total", .keep)]
        var session = session { target in
            target.metricRelabelRules = rules
            target.filter = RelabelRule.filter(rules) { $0 != "b_more" }
        }
        let text = "a 1\nb_total 2\nb_more 3\nother{x=\"y\"} 4\n{\"other\"} 5\n"
        for round in 1...3 {
            let outcome = try scrape(&session, text, atMs: Int64(round) * 1000)
            #expect(outcome.scraped == 5 && outcome.kept == 2 && outcome.added == (round == 1 ? 2 : 0))
        }
        #expect(try values("renamed").values.first == [1, 1, 1])
        #expect(try values("b_total").values.first == [2, 2, 2])
        #expect(try values("b_more").isEmpty && values("other").isEmpty)
        #expect(RelabelRule.filter([rename, keep]) == nil)
    }

    @Test func countersThatWereBornSinceTheLastScrape_beginWithZero() throws {
        var session = session()
        func scrape(_ text: String, atMs: Int64) throws -> ScrapeOutcome {
            try session.ingest(
                Array((text + "# EOF\n").utf8), format: .openMetrics, atMs: atMs, durationSeconds: 0.5)
        }
        // Of one that was there before the first scrape nothing is known.
        let old = "old_total 7\nold_created 0.5\n"
        _ = try scrape(old, atMs: 1000)
        let born = """
            new_total{a="b"} 5
            new_created{a="b"} 1.25
            new_total{a="c"} 6
            h_bucket{le="1.0"} 2
            h_bucket{le="+Inf"} 3
            h_count 3
            h_sum 4.0
            h_created 1.5
            ahead_total 1
            ahead_created 9.0

            """
        #expect(try scrape(old + born, atMs: 2000).result.accepted == 4 + 8 + 5 + 4 + 1)
        _ = try scrape(old + born, atMs: 3000)
        let select = { (name: String) in
            try self.store.select([.equal("__name__", name)], fromMs: .min, throughMs: .max)
                .sorted { $0.labels < $1.labels }
        }
        let new = try select("new_total")
        #expect(new.map(\.values) == [[0, 5, 5], [6, 6]] && new[0].timestampsMs == [1250, 2000, 3000])
        #expect(try select("h_bucket").map(\.timestampsMs) == [[1500, 2000, 3000], [1500, 2000, 3000]])
        #expect(try select("h_sum").first?.values == [0, 4, 4])
        #expect(try select("old_total").first?.values == [7, 7, 7])
        #expect(try select("ahead_total").first?.values == [1, 1])
    }

    @Test func timesOfTheirOwn_mayComeAndGo() throws {
        var session = session()
        _ = try scrape(&session, "a 1 900\nb 1\n", atMs: 1000)
        _ = try scrape(&session, "a 2\nb 2\n", atMs: 2000)
        _ = try scrape(&session, "a 3\nb 3\n", atMs: 3000)
        _ = try scrape(&session, "a 4 3900\nb 4\n", atMs: 4000)
        #expect(try values("a").values.first == [1, 2, 3, 4])
        #expect(try values("b").values.first == [1, 2, 3, 4])
    }

    @Test func limits_refuseTheWholeScrape() throws {
        var session = session { $0.limits.samples = 2 }
        #expect(throws: ScrapeError(reason: "the target has 3 samples, more than the sample_limit of 2")) {
            try scrape(&session, "a 1\nb 1\nc 1\n", atMs: 1000)
        }
        #expect(try values("a").isEmpty)
        #expect(try scrape(&session, "a 1\nb 1\n", atMs: 2000).kept == 2)
        var few = self.session { $0.limits.labels = 3 }
        #expect(throws: ScrapeError.self) { try scrape(&few, "a{b=\"1\"} 1\n", atMs: 1000) }
    }

    @Test func seriesThatTheStoreGaveUp_areAskedForAgain_andNothingIsLost() throws {
        let sink = ForgetfulSink()
        var session = ScrapeSession(
            target: ScrapeTarget(labels: ["job": "j", "instance": "i"], url: "http://x"), sink: sink)
        _ = try scrape(&session, "a 1\nb 1\n", atMs: 1000)
        sink.forget()
        let outcome = try scrape(&session, "a 2\nb 2\n", atMs: 2000)
        #expect(outcome.kept == 2 && outcome.result.unknown == 0)
        _ = try scrape(&session, "a 3\nb 3\n", atMs: 3000)
        sink.forget()
        session.fail(atMs: 4000, durationSeconds: 0)
        let all = try sink.store.select([.equal("job", "j")], fromMs: .min, throughMs: .max)
        #expect(all.first { $0.labels.name == "a" }?.values.prefix(3) == [1, 2, 3])
        #expect(all.first { $0.labels.name == "up" }?.values == [1, 1, 1, 0])
    }

    @Test func seriesThatTheStoreCannotFind_areAskedForAtEachScrape() throws {
        let sink = ForgetfulSink()
        var session = ScrapeSession(
            target: ScrapeTarget(labels: ["job": "j", "instance": "i"], url: "http://x"), sink: sink)
        sink.refused.withLock { $0 = ["b"] }
        #expect(try scrape(&session, "a 1\nb 1\n", atMs: 1000).result.unknown == 1)
        #expect(try scrape(&session, "a 2\nb 2\n", atMs: 2000).result.unknown == 1)
        sink.refused.withLock { $0 = [] }
        #expect(try scrape(&session, "a 3\nb 3\n", atMs: 3000).result.unknown == 0)
        #expect(try scrape(&session, "a 4\nb 4\n", atMs: 4000).result.unknown == 0)
        let all = try sink.store.select([.equal("job", "j")], fromMs: .min, throughMs: .max)
        #expect(all.first { $0.labels.name == "a" }?.values == [1, 2, 3, 4])
        #expect(all.first { $0.labels.name == "b" }?.values == [3, 4])
    }

    @Test func manyNewSeriesOverTime_areForgottenAgain_andThoseThatStayAreFound() throws {
        var session = session()
        for round in 0..<40 {
            let fresh = (0..<200).map { "pod{n=\"\(round)-\($0)\"} 1\n" }.joined()
            _ = try scrape(&session, "a 1\n" + fresh + "b 1\na 1\n", atMs: Int64(round) * 1000)
        }
        #expect(try values("a").values.first?.count == 40)
        #expect(try values("b").values.first?.count == 40)
        #expect(try values("scrape_series_added").values.first?.dropFirst().allSatisfy { $0 == 200 } == true)
    }
}

/// A store that gives up all series and sources when it is told to.
private final class ForgetfulSink: SampleSink {
    let store = MemorySeries()
    private let epoch = Mutex<Int64>(0)
    /// Names of series that it can't tell the number of.
    let refused = Mutex<Set<String>>([])

    func forget() { epoch.withLock { $0 += 1 } }

    func ids(for labels: [Labels]) -> [SeriesID] {
        let epoch = epoch.withLock { $0 }
        return labels.map { labels in
            if refused.withLock({ $0.contains(labels.name) }) { return .none }
            return SeriesID(rawValue: epoch << 32 | store.ids(for: [labels])[0].rawValue)
        }
    }

    func source(_ labels: Labels) -> SampleSource { SampleSource(rawValue: epoch.withLock { $0 }) }

    func append(
        _ values: [Double], of ids: [SeriesID], from source: SampleSource, atMs timestampMs: Int64
    ) -> AppendResult {
        let epoch = epoch.withLock { $0 }
        var result = AppendResult()
        guard source.rawValue == epoch else {
            result.unknown = ids.count
            return result
        }
        var batch = SampleBatch()
        for (id, value) in zip(ids, values) {
            guard id.rawValue >> 32 == epoch else {
                result.unknown += 1
                continue
            }
            batch.append(SeriesID(rawValue: id.rawValue & 0xffff_ffff), timestampMs: timestampMs, value: value)
        }
        result += store.append(batch)
        return result
    }

    func append(_ batch: SampleBatch) -> AppendResult { store.append(batch) }
    func setMetadata(_ metadata: [MetricMetadata]) { store.setMetadata(metadata) }
}

/// A clock that the test moves: sleepers wake when their time has come.
private final class ManualTime: TimeSource {
    private let now = Mutex<Int64>(1_000_000)
    var nowMs: Int64 { now.withLock { $0 } }

    func sleep(untilMs: Int64) async throws {
        try Task.checkCancellation()
        // The loop is alone with its clock: time goes on when it waits.
        now.withLock { $0 = max($0, untilMs) }
        await Task.yield()
    }
}

@Suite struct ScrapeLoopTests {
    /// Lets a loop scrape a server until it has done so `count` times.
    private func run(_ server: RawServer, _ count: Int, limit: Int = 1 << 20) async -> (
        TargetStatus, [Int64]
    ) {
        let store = MemorySeries()
        var target = ScrapeTarget(
            labels: ["job": "j", "instance": "i"], url: server.url + "/metrics", intervalMs: 15_000, timeoutMs: 400)
        target.limits.bodyBytes = limit
        let row = TargetRow(TargetStatus(job: "j", target: target))
        let loop = ScrapeLoop(
            row, client: HTTPClient(), sink: store, time: ManualTime(),
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
        let task = Task { await loop.run() }
        while row.status.scrapes < count { try? await Task.sleep(for: .milliseconds(2)) }
        task.cancel()
        _ = await task.value
        let up =
            (try? store.select([.equal("__name__", "up")], fromMs: .min, throughMs: .max).first?.timestampsMs) ?? []
        return (row.status, up)
    }

    @Test func scrapes_lieOnAGrid_fromTheFirstOn() async {
        let server = RawServer { _, connection in connection.answer("a 1\n") }
        let (status, times) = await run(server, 4)
        #expect(status.health == .up)
        #expect((1_000_001...1_015_000).contains(times.first ?? 0))
        #expect(zip(times.dropFirst(), times).allSatisfy { $0 - $1 == 15_000 })
    }

    @Test(arguments: [
        (
            "html",
            "the answer is not an exposition but text/html: check the target's address and metrics_path, "
                + "or name a fallback_scrape_protocol"
        ),
        ("500", "server returned HTTP status 500"),
        ("bad", "line 1, column 5: not a number: \"a x 1\""),
    ])
    func answersThatAreNoExposition_areTold(kind: String, message: String) async {
        let server = RawServer { _, connection in
            switch kind {
            case "html": connection.answer("<html></html>", headers: "Content-Type: text/html\r\n")
            case "500": connection.answer("", status: "500 Internal Server Error")
            default: connection.answer("a x 1")
            }
        }
        let (status, _) = await run(server, 1)
        #expect(status.health == .down)
        #expect(status.lastError == message.replacingOccurrences(of: "column 5", with: "column 3"))
    }

    @Test func endlessAndHugeAnswers_areCutOff() async {
        let endless = RawServer { _, connection in
            connection.write(Array("HTTP/1.1 200 OK\r\n\r\n".utf8))
            while connection.write(Array("a 1\n".utf8)) { usleep(10_000) }
        }
        let (slow, _) = await run(endless, 1)
        #expect(slow.lastError.hasPrefix("\(endless.url)/metrics: Operation timed out after "))
        let huge = RawServer { _, connection in
            connection.write(Array("HTTP/1.1 200 OK\r\nContent-Length: 209715200\r\n\r\n".utf8))
            let chunk = Array(String(repeating: "a 1\n", count: 1 << 18).utf8)
            for _ in 0..<200 where !connection.write(chunk) { return }
        }
        let (large, _) = await run(huge, 1)
        #expect(large.lastError == "\(huge.url)/metrics: the body is larger than the limit of 1048576 bytes")
    }
}
