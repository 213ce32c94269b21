import Foundation
import Series

/// Runs scripts in the format of Prometheus' promqltest (its README in github.com/prometheus/prometheus): `load`, `clear`,
/// `eval instant`, `eval range`, `expect`, and the older `eval_fail`, `eval_warn`, `eval_info`, `eval_ordered`.
///
/// Blocks about native histograms are skipped and counted, never passed.
package struct ScriptRunner {
    package struct Outcome: Sendable {
        package var passed = 0
        package var skipped = 0
        /// One entry a block that failed: where, and what was wrong.
        package var failures: [String] = []

        package init() {}
    }

    private var store = MemorySeries()
    /// The metrics with native histograms; these are not loaded.
    private var nativeNames: Set<String> = []
    private let features: QueryFeatures
    private var outcome = Outcome()

    private init(features: QueryFeatures) { self.features = features }

    /// Runs one script.
    ///
    /// - Parameters:
    ///   - name: what failures call it.
    ///   - features: what is evaluated beside the stable language; Prometheus runs its own scripts with all.
    package static func run(_ text: String, name: String, features: QueryFeatures = .all) -> Outcome {
        var runner = ScriptRunner(features: features)
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)[...]
        while let line = lines.popFirst() {
            let number = lines.startIndex
            let trimmed = line.trimmingCharacters(in: .whitespaces)
            if trimmed.isEmpty || trimmed.hasPrefix("#") { continue }
            var body: [String] = []
            while let next = lines.first, !next.trimmingCharacters(in: .whitespaces).isEmpty,
                !["load", "eval", "clear"].contains(where: next.hasPrefix)
            {
                lines.removeFirst()
                let entry = next.trimmingCharacters(in: .whitespaces)
                if !entry.hasPrefix("#") { body.append(entry) }
            }
            runner.block(trimmed, body, at: "\(name):\(number)")
        }
        return runner.outcome
    }

    private mutating func block(_ command: String, _ body: [String], at place: String) {
        let words = command.split(whereSeparator: \.isWhitespace).map(String.init)
        switch words[0] {
        case "clear":
            store = MemorySeries()
            nativeNames = []
        case "load", "load_with_nhcb":
            load(words, body, at: place)
        default:
            guard words[0].hasPrefix("eval") else {
                outcome.failures.append("\(place): unknown command \(words[0])")
                return
            }
            if body.contains(where: { $0.contains("{{") }) {
                outcome.skipped += 1
                return
            }
            if let problem = evaluate(command, words, body) {
                if isAboutNativeHistograms(command) {
                    outcome.skipped += 1
                } else {
                    outcome.failures.append("\(place): \(command): \(problem)")
                }
            } else {
                outcome.passed += 1
            }
        }
    }

    /// Whether an expression selects metrics that are there as native histograms: by their names, or by none.
    private func isAboutNativeHistograms(_ command: String) -> Bool {
        guard !nativeNames.isEmpty else { return false }
        let words = command.split { !($0.isLetter || $0.isNumber || $0 == "_" || $0 == ":") }.map(String.init)
        return words.contains { nativeNames.contains($0) || $0 == Labels.metricName } || command.contains("({")
            || command.contains(" {")
    }

    // MARK: load

    private mutating func load(_ words: [String], _ body: [String], at place: String) {
        guard words.count >= 2, let stepMs = TimeFormat.durationMs(words[1]) else {
            outcome.failures.append("\(place): bad load step")
            return
        }
        // The classic buckets are loaded as native histograms as well.
        // Of two lines for one series the last one counts.
        var loaded: [Labels: [Double?]] = [:]
        for line in body {
            if line.contains("{{") {
                nativeNames.insert(String(line.prefix { $0 != "{" && !$0.isWhitespace }))
                continue
            }
            guard let (labels, values) = SeriesNotation.parse(line) else {
                outcome.failures.append("\(place): bad series \(line)")
                continue
            }
            loaded[labels] = values
            if words[0] == "load_with_nhcb", labels.name.hasSuffix("_bucket") {
                nativeNames.insert(String(labels.name.dropLast("_bucket".count)))
            }
        }
        for (labels, values) in loaded.sorted(by: { $0.key < $1.key }) {
            var batch = SampleBatch()
            let id = store.ids(for: [labels])[0]
            for (index, value) in values.enumerated() {
                if let value { batch.append(id, timestampMs: Int64(index) * stepMs, value: value) }
            }
            _ = store.append(batch)
        }
    }

    // MARK: eval

    /// What a block says of its answer beside the values.
    private struct Expectations {
        /// Of the error, the warnings and the infos: a pattern each; nil where none is given.
        var fail: [Pattern?] = []
        var warn: [Pattern?] = []
        var info: [Pattern?] = []
        var mustNotWarn = false
        var mustNotInform = false
        var isOrdered = false
        var string: String?
        var rangeVector: Steps?
        /// The lines with series.
        var values: [String] = []

        /// - Returns: nil where a line can't be read.
        init?(_ command: String, _ body: [String]) {
            switch command {
            case "eval_fail": fail.append(nil)
            case "eval_warn": warn.append(nil)
            case "eval_info": info.append(nil)
            case "eval_ordered": isOrdered = true
            default: break
            }
            for line in body where !read(line) { return nil }
        }

        private mutating func read(_ line: String) -> Bool {
            for (old, isPattern) in [("expected_fail_message", false), ("expected_fail_regexp", true)]
            where line.hasPrefix(old) {
                let text = line.dropFirst(old.count).trimmingCharacters(in: .whitespaces)
                fail = [isPattern ? Expectations.holding(text) : Expectations.only(text)]
                return true
            }
            guard line.hasPrefix("expect ") else {
                values.append(line)
                return true
            }
            let rest = line.dropFirst("expect ".count).trimmingCharacters(in: .whitespaces)
            let word = rest.prefix { !$0.isWhitespace }
            let tail = rest.dropFirst(word.count).trimmingCharacters(in: .whitespaces)
            switch word {
            case "ordered": isOrdered = true
            case "no_warn": mustNotWarn = true
            case "no_info": mustNotInform = true
            case "string":
                string = ScriptRunner.literal(tail)
                return string != nil
            case "range":
                rangeVector = ScriptRunner.steps(rest.split(separator: " ").map(String.init))
                return rangeVector != nil
            case "fail", "warn", "info":
                var pattern: Pattern?
                if tail.hasPrefix("msg:") {
                    pattern = Expectations.only(tail.dropFirst(4).trimmingCharacters(in: .whitespaces))
                } else if tail.hasPrefix("regex:") {
                    pattern = Expectations.holding(tail.dropFirst(6).trimmingCharacters(in: .whitespaces))
                }
                guard tail.isEmpty || pattern != nil else { return false }
                if word == "fail" { fail.append(pattern) }
                if word == "warn" { warn.append(pattern) }
                if word == "info" { info.append(pattern) }
            default: return false
            }
            return true
        }

        /// A pattern that only a text itself matches.
        private static func only(_ text: String) -> Pattern? {
            var escaped = ""
            for character in text {
                if "\\.+*?()|[]{}^$".contains(character) { escaped.append("\\") }
                escaped.append(character)
            }
            return try? Pattern(escaped, mode: .anchored)
        }

        /// A pattern that all texts match which hold a match of an expression.
        private static func holding(_ expression: String) -> Pattern? {
            try? Pattern(".*(?:\(expression)).*", mode: .anchored)
        }

        /// What is wrong with the texts of one kind; nil where nothing is.
        static func problem(_ texts: [String], _ patterns: [Pattern?], mustNot: Bool, _ kind: String) -> String? {
            if mustNot, let text = texts.first { return "unexpected \(kind): \(text)" }
            if !patterns.isEmpty, texts.isEmpty { return "no \(kind)" }
            let stated = patterns.compactMap(\.self)
            if !stated.isEmpty, let text = texts.first(where: { text in !stated.contains { $0.matches(text) } }) {
                return "another \(kind): \(text)"
            }
            if stated.contains(where: { pattern in !texts.contains { pattern.matches($0) } }) {
                return "a \(kind) is missing; there is \(texts)"
            }
            return nil
        }
    }

    /// What is left of a command behind so many words, as it stands.
    private static func rest(of command: String, behind words: Int) -> String {
        var rest = command[...]
        for _ in 0..<words { rest = rest.drop { !$0.isWhitespace }.drop { $0.isWhitespace } }
        return String(rest)
    }

    private mutating func evaluate(_ command: String, _ words: [String], _ body: [String]) -> String? {
        var engine = QueryEngine()
        engine.defaultSubqueryStepMs = 60_000
        engine.features = features
        guard let expected = Expectations(words[0], body) else { return "an expectation can't be read: \(body)" }
        let result: QueryResult
        var steps: Steps?
        do {
            if words[1] == "instant" {
                guard words.count > 4, let atMs = ScriptRunner.timeMs(words[3]) else { return "bad eval" }
                let expression = ScriptRunner.rest(of: command, behind: 4)
                result = try engine.instant(expression, atMs: atMs, source: store)
            } else {
                guard let range = ScriptRunner.steps(Array(words[1...])), words.count > 8 else { return "bad eval" }
                steps = range
                result = try engine.range(
                    ScriptRunner.rest(of: command, behind: 8), startMs: range.startMs, endMs: range.endMs,
                    stepMs: range.stepMs, source: store)
            }
        } catch {
            guard !expected.fail.isEmpty else { return "error: \(error)" }
            let reason = (error as? PromQLError)?.reason ?? "\(error)"
            return expected.fail.allSatisfy { $0?.matches(reason) ?? true } ? nil : "another error: \(reason)"
        }
        if !expected.fail.isEmpty { return "should have failed" }
        for (kind, level, patterns, mustNot) in [
            ("warning", Annotation.Level.warning, expected.warn, expected.mustNotWarn),
            ("info", .info, expected.info, expected.mustNotInform),
        ] {
            let texts = result.annotations.filter { $0.level == level }.map(\.text)
            if let problem = Expectations.problem(texts, patterns, mustNot: mustNot, kind) { return problem }
        }
        return ScriptRunner.compare(
            result.value, expected: expected.values, string: expected.string, steps: steps ?? expected.rangeVector,
            ordered: expected.isOrdered)
    }

    private struct Steps {
        var startMs: Int64
        var endMs: Int64
        var stepMs: Int64
    }

    private static func timeMs(_ text: String) -> Int64? {
        if let ms = TimeFormat.durationMs(text) { return ms }
        return Double(text).map { Int64($0 * 1000) }
    }

    /// `… from A to B step S`.
    private static func steps(_ words: [String]) -> Steps? {
        guard let from = words.firstIndex(of: "from"), from + 5 < words.count, let start = timeMs(words[from + 1]),
            let end = timeMs(words[from + 3]), let step = timeMs(words[from + 5])
        else { return nil }
        return Steps(startMs: start, endMs: end, stepMs: step)
    }

    private static func literal(_ text: String) -> String? {
        guard let expression = try? Parser.parse(text), case .string(let value) = expression.kind else { return nil }
        return value
    }

    private static func compare(
        _ value: QueryResult.Value, expected: [String], string: String?, steps: Steps?, ordered: Bool
    ) -> String? {
        if let string {
            if case .string(let text) = value, text == string { return nil }
            return "expected string \(string)"
        }
        switch value {
        case .string: return "unexpected string"
        case .scalar(let scalar):
            guard expected.count == 1, let wanted = SeriesNotation.number(expected[0]) else {
                return "got scalar \(scalar)"
            }
            return near(scalar, wanted) ? nil : "got \(scalar), expected \(wanted)"
        case .vector(let vector):
            var rest = expected
            guard vector.count == expected.count else {
                return "got \(vector.count) series: \(vector), expected \(expected.count)"
            }
            for (index, entry) in vector.enumerated() {
                let found = rest.firstIndex { line in
                    guard let (labels, values) = SeriesNotation.parse(line), let value = values.first, let value else {
                        return false
                    }
                    return labels == entry.labels && near(entry.value, value)
                }
                guard let found, !ordered || found == 0 else {
                    return "unexpected \(entry.labels) \(entry.value) at \(index)"
                }
                rest.remove(at: found)
            }
            return nil
        case .matrix(let matrix):
            guard let steps else { return "got a matrix" }
            guard matrix.count == expected.count else {
                return "got \(matrix.count) series: \(matrix.map(\.labels)), expected \(expected.count)"
            }
            for line in expected {
                guard let (labels, values) = SeriesNotation.parse(line) else { return "bad expectation \(line)" }
                guard let got = matrix.first(where: { $0.labels == labels }) else {
                    return "missing \(labels), have \(matrix.map(\.labels))"
                }
                var wanted: [(Int64, Double)] = []
                for (index, value) in values.enumerated() {
                    if let value { wanted.append((steps.startMs + Int64(index) * steps.stepMs, value)) }
                }
                guard got.timestampsMs == wanted.map(\.0), zip(got.values, wanted).allSatisfy({ near($0, $1.1) }) else {
                    return "\(labels): got \(got.values) at \(got.timestampsMs), expected \(wanted.map(\.1))"
                }
            }
            return nil
        }
    }

    /// As promqltest compares.
    private static func near(_ a: Double, _ b: Double) -> Bool { GoFloat.areAlmostEqual(a, b, 1e-6) }
}
