import Exposition
import Foundation
import Recording
import Series
import TestSupport
import Testing

private func parse(_ text: String, _ format: ExpositionFormat = .prometheus) throws -> [(String, Double, Int64?)] {
    try Array(text.utf8).withUnsafeBufferPointer { bytes in
        let exposition = try ExpositionParser.parse(bytes, format: format)
        return try (0..<exposition.count).map { index in
            let series = UnsafeBufferPointer(
                rebasing: bytes[Int(exposition.starts[index])..<Int(exposition.ends[index])])
            let stamp = exposition.timestampsMs[index]
            return (
                try ExpositionParser.labels(of: series).description, exposition.values[index],
                stamp == Exposition.noTimestamp ? nil : stamp
            )
        }
    }
}

@Suite struct ExpositionTests {
    @Test func prometheusText_isRead() throws {
        let rows = try parse(
            """
            # HELP http_requests_total The total.
            # TYPE http_requests_total counter
            http_requests_total{method="post",code="200"} 1027 1395066363000
            http_requests_total{method="post",code="400"}    3
            msdos{path="C:\\\\DIR\\\\FILE.TXT",error="a \\"b\\"\\n{c}"} 1.458255915e9
            plain 12.47
            inf{problem="x",} +Inf -3982045
            nan NaN
            {"utf.8", "a.b"="c"} 1e-3

            """)
        #expect(
            rows.map(\.0) == [
                #"http_requests_total{code="200", method="post"}"#, #"http_requests_total{code="400", method="post"}"#,
                #"msdos{error="a \"b\"\n{c}", path="C:\\DIR\\FILE.TXT"}"#, "plain", #"inf{problem="x"}"#, "nan",
                #"{"utf.8", "a.b"="c"}"#,
            ])
        #expect(rows[0].1 == 1027 && rows[0].2 == 1_395_066_363_000)
        #expect(rows[2].1 == 1_458_255_915)
        #expect(rows[4].1 == .infinity && rows[4].2 == -3_982_045)
        #expect(rows[5].1.isNaN)
        #expect(rows[6].1 == 0.001)
    }

    @Test func openMetrics_isRead_secondsBecomeMilliseconds_exemplarsArePassedOver() throws {
        let rows = try parse(
            """
            # TYPE foo counter
            # UNIT foo seconds
            foo_total{a="b"} 17.0 1520879607.789 # {trace_id="x"} 0.5 1520879607.1
            foo_created 1520872607.123
            # EOF

            """, .openMetrics)
        #expect(rows.map(\.0) == [#"foo_total{a="b"}"#, "foo_created"])
        #expect(rows[0].1 == 17 && rows[0].2 == 1_520_879_607_789)
    }

    @Test func metadata_isKept() throws {
        let text = "# HELP a Some \\\\ text\\nmore\n# TYPE a untyped\na 1\n# TYPE b histogram\n# a comment\n"
        let metadata = try Array(text.utf8).withUnsafeBufferPointer { try ExpositionParser.parse($0).metadata }
        #expect(
            metadata == [
                MetricMetadata(name: "a", type: "unknown", help: "Some \\ text\nmore"),
                MetricMetadata(name: "b", type: "histogram", help: ""),
            ])
    }

    @Test(arguments: [
        ("a 1\nb x\n", 2, 3, "not a number"),
        ("a 1\nb{c=\"d 2\n", 2, 2, "a label value has no closing quote"),
        ("a\n", 1, 2, "expected a blank and a value after the series"),
        ("a 1 2 3\n", 1, 7, "expected the end of the line"),
        ("<!doctype html>\n", 1, 1, "expected a metric name"),
        ("a 1\n\na{b=\"c\"\n", 3, 2, "the label braces are not closed"),
        ("9a 1\n", 1, 1, "a metric name cannot begin with a digit"),
    ])
    func badLine_isNamedByLineAndColumn(text: String, line: Int, column: Int, reason: String) {
        let error = #expect(throws: ExpositionError.self) { try parse(text) }
        #expect(error?.line == line)
        #expect(error?.column == column)
        #expect(error?.reason == reason)
    }

    @Test(arguments: [
        (#"a{b="c",b="d"}"#, #"the label "b" stands twice"#), (#"{b="c"}"#, "the series has no metric name"),
        (#"a{b=c}"#, "expected a label value in double quotes"), (#"a{="c"}"#, "expected a label name"),
    ])
    func badLabels_areRefused(text: String, reason: String) {
        let error = #expect(throws: ExpositionError.self) {
            try Array(text.utf8).withUnsafeBufferPointer { try ExpositionParser.labels(of: $0) }
        }
        #expect(error?.reason == reason)
    }

    @Test func openMetricsWithoutEnd_isRefused() {
        #expect(throws: ExpositionError.self) { try parse("a 1\n", .openMetrics) }
        #expect(throws: ExpositionError.self) { try parse("# EOF\na 1\n", .openMetrics) }
    }

    @Test func contentTypes_areTold() {
        #expect(ExpositionFormat(contentType: nil) == .prometheus)
        #expect(ExpositionFormat(contentType: "text/plain; version=0.0.4") == .prometheus)
        #expect(ExpositionFormat(contentType: "application/openmetrics-text; version=1.0.0") == .openMetrics)
        #expect(ExpositionFormat(contentType: "text/html; charset=utf-8") == nil)
    }

    @Test func numbers_areThoseOfTheCLibrary() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        for _ in 0..<200_000 {
            let value = random.anyDouble()
            guard value.isFinite else { continue }
            let text =
                Int.random(in: 0..<2, using: &random) == 0
                ? "\(value)" : String(format: "%.\(Int.random(in: 0...20, using: &random))g", value)
            Array(text.utf8).withUnsafeBufferPointer { bytes in
                #expect(
                    ExpositionNumber.parse(bytes)?.bitPattern == ExpositionNumber.slow(bytes)?.bitPattern,
                    "\(text), seed \(seed)")
            }
        }
    }

    /// Every sample of every recorded body, against a reading that splits the lines by hand.
    @Test func recordedBodies_areReadAsByASlowReader() throws {
        var player = try RecordingPlayer(directory: Shared.root + "/demo/recording")
        var seen: Set<Int> = []
        var last: [Int: [UInt8]] = [:]
        while let (_, event) = player.next() {
            guard case .scrape(let target, 200, let body) = event else { continue }
            // The first and the last body of each target: one before, one after the upgrade.
            if seen.insert(target).inserted { try compare(body) }
            last[target] = body
        }
        for body in last.values { try compare(body) }
        #expect(seen.count == 16)
    }

    private func compare(_ body: [UInt8]) throws {
        let rows = try parse(String(decoding: body, as: UTF8.self))
        let lines = String(decoding: body, as: UTF8.self).split(separator: "\n").filter { !$0.hasPrefix("#") }
        #expect(rows.count == lines.count)
        for (row, line) in zip(rows, lines) {
            let end = line.lastIndex(of: "}").map { line.index(after: $0) } ?? line.firstIndex(of: " ") ?? line.endIndex
            let words = line[end...].split(separator: " ")
            let value = words[0] == "+Inf" ? .infinity : Double(words[0]) ?? .nan
            guard row.1 == value || (row.1.isNaN && value.isNaN), row.2 == (words.count > 1 ? Int64(words[1]) : nil)
            else {
                Issue.record("\(line) read as \(row)")
                return
            }
        }
    }
}
