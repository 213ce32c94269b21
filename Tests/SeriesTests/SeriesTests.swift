import Series
import Testing

@Suite struct LabelsTests {
    @Test func labels_areSorted_theLastOfANameCounts_andEmptyOnesAreDropped() {
        let labels = Labels([Label("b", "1"), Label("a", "2"), Label("b", "3"), Label("c", "")])
        #expect(labels.pairs == [Label("a", "2"), Label("b", "3")])
    }

    @Test func subscript_insertsReplacesAndRemoves() {
        var labels: Labels = ["b": "1"]
        labels["a"] = "2"
        labels["b"] = "3"
        labels["c"] = "4"
        labels["c"] = ""
        #expect(labels == ["a": "2", "b": "3"])
        #expect(labels["zzz"] == nil)
    }

    @Test func description_isPromQL() {
        #expect(Labels([Label("__name__", "up"), Label("job", "a\"b\\c\n")]).description == #"up{job="a\"b\\c\n"}"#)
        #expect(Labels([Label("__name__", "a.b"), Label("x.y", "z")]).description == #"{"a.b", "x.y"="z"}"#)
        #expect(Labels().description == "{}")
    }
}

@Suite struct MatcherTests {
    @Test(arguments: [
        ("a|b", "a", true), ("a|b", "ab", false), ("a.*", "abc", true), ("a.c", "a\nc", true), ("", "", true),
        (".+", "", false),
    ])
    func regularExpressions_areAnchored_andTheDotMatchesLineBreaks(pattern: String, text: String, isMatch: Bool) throws
    {
        #expect(try LabelMatcher("x", .matches, pattern).accepts(text) == isMatch)
        #expect(try LabelMatcher("x", .notMatches, pattern).accepts(text) != isMatch)
    }

    @Test func badExpression_namesTextAndOffset() {
        let error = #expect(throws: PatternError.self) { try LabelMatcher("x", .matches, "a(b") }
        #expect(error?.description == #"regular expression "a(b" at offset 3: missing closing parenthesis"#)
    }

    @Test func patternThatBacktracksForever_givesNoMatch() throws {
        let pattern = try Pattern("(a+)+$", mode: .search)
        #expect(!pattern.matches(String(repeating: "a", count: 60) + "b"))
    }

    @Test(arguments: [
        ("$1-$2", "x-y"), ("${1}0", "x0"), ("$10", ""), ("$$1", "$1"), ("$name", "y"), ("a$", "a$"), ("${", "${"),
    ])
    func expand_followsGo(template: String, wanted: String) throws {
        let pattern = try Pattern("(x)(?P<name>y)", mode: .anchored)
        let groups = try #require(pattern.groups(in: "xy"))
        #expect(pattern.expand(template, groups: groups) == wanted)
    }
}

@Suite struct TimeFormatTests {
    @Test(arguments: [
        ("15s", 15_000), ("1h30m", 5_400_000), ("0", 0), ("1d", 86_400_000), ("500ms", 500), ("1w2d", 777_600_000),
    ])
    func durations_areRead(text: String, ms: Int) { #expect(TimeFormat.durationMs(text) == Int64(ms)) }

    @Test(arguments: ["", "5", "5x", "1m1h", "-5m", "1.5h", "1m1m", "99999999999999y"])
    func whatIsNoDuration_isRefused(text: String) { #expect(TimeFormat.durationMs(text) == nil) }

    @Test(arguments: [
        ("15s", 15_000), ("1h30m", 5_400_000), ("0s", 0), ("1d", 86_400_000), ("8d", 691_200_000), ("1w", 604_800_000),
    ])
    func durations_arePrinted(text: String, ms: Int) { #expect(TimeFormat.duration(ms: Int64(ms)) == text) }

    @Test(arguments: [
        ("2026-11-23T16:58:00Z", 1_795_453_080_000), ("1970-01-01T00:00:00Z", 0),
        ("2024-02-29T12:00:00.250Z", 1_709_208_000_250),
        ("1969-12-31T23:59:59Z", -1000),
    ])
    func times_goThereAndBack(text: String, ms: Int) {
        #expect(TimeFormat.milliseconds(rfc3339: text) == Int64(ms))
        #expect(TimeFormat.rfc3339(ms: Int64(ms)) == text)
    }

    @Test func anyTime_canBePrinted() {
        for ms in [Int64.min, .min + 1, -1, .max] { #expect(!TimeFormat.rfc3339(ms: ms).isEmpty) }
    }

    @Test func offsets_andFineFractions_areRead() {
        #expect(TimeFormat.milliseconds(rfc3339: "2026-11-23T18:58:00.123456789+02:00") == 1_795_453_080_123)
    }

    @Test(arguments: ["2026-13-01T00:00:00Z", "2026-11-23", "2026-11-23T16:58:00", "x026-11-23T16:58:00Z", ""])
    func whatIsNoTime_isRefused(text: String) { #expect(TimeFormat.milliseconds(rfc3339: text) == nil) }
}
