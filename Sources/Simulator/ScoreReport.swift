import Comparison
import Foundation
import Series

/// The scores of runs, as a table and as JSON.
package struct ScoreReport: Sendable {
    /// A scenario's name and file, and its runs; other files may give theirs the same name.
    package typealias File = (name: String, file: String, runs: [ScenarioRun])

    private let files: [File]
    private let judges: [String]

    /// - Parameters:
    ///   - files: in the order in which they are told.
    ///   - judges: the baselines that judged beside ours.
    package init(_ files: [File], judges: [String] = []) {
        self.files = files
        self.judges = judges
    }

    private var runs: [ScenarioRun] { files.flatMap(\.runs) }

    // MARK: JSON

    /// One score, by the names that the documentation gives; what is not known is null, and not left out.
    private struct Figures: Encodable {
        var faults: Int
        var nulls: Int
        @Null var precision: Double?
        @Null var recall: Double?
        @Null var falseFailRate: Double?
        @Null var falseFailInterval: [Double]?
        @Null var pagesPerDay: Double?
        @Null var componentTop1: Double?
        @Null var batchTop1: Double?
        @Null var onsetErrorMinutes: Double?
        @Null var passAmongNulls: Double?
        @Null var typeOneError: Double?
        @Null var blindRecall: Double?
        @Null var intervalCoverage: Double?
        @Null var delayMinutes: Double?
        var verdicts: [String: [String: Int]]

        init(_ score: Score) {
            faults = score.faults
            nulls = score.nulls
            precision = score.precision
            recall = score.recall
            falseFailRate = score.falseFailRate
            falseFailInterval = Score.wilson(score.failedNulls, of: score.nulls).map { [$0.lowerBound, $0.upperBound] }
            pagesPerDay = score.pagesPerDay
            componentTop1 = score.componentTop1
            batchTop1 = score.batchTop1
            onsetErrorMinutes = score.onsetErrorMinutes
            passAmongNulls = score.passAmongNulls
            typeOneError = score.typeOneError
            blindRecall = score.blindRecall
            intervalCoverage = score.intervalCoverage
            delayMinutes = score.delayMinutes
            verdicts = score.verdicts
        }

        private enum CodingKeys: String, CodingKey {
            case faults, nulls, precision, recall, verdicts
            case falseFailRate = "false_fail_rate"
            case falseFailInterval = "false_fail_interval"
            case pagesPerDay = "pages_per_day"
            case componentTop1 = "component_top1"
            case batchTop1 = "batch_top1"
            case onsetErrorMinutes = "onset_error_minutes"
            case passAmongNulls = "pass_among_nulls"
            case typeOneError = "type_one_error"
            case blindRecall = "blind_recall"
            case intervalCoverage = "interval_coverage"
            case delayMinutes = "delay_minutes"
        }
    }

    private struct Run: Encodable {
        var scenario: String
        var seed: UInt64
        var expect: String
        var verdict: String
        var pages: [String]
        @Null var fault: String?
        @Null var component: String?
        @Null var batch: Int?
        @Null var onset: String?
        var signals: [String]
        var rejected: [String]
        var changed: [String]
        var reasons: [String]
        var findings: [String]

        init?(_ run: ScenarioRun) {
            guard let judged = run.judged[ScenarioRun.ours] else { return nil }
            scenario = run.name
            seed = run.seed
            expect = run.expectation.rawValue
            verdict = judged.verdict.rawValue
            pages = judged.pagesMs.map { TimeFormat.rfc3339(ms: $0) }
            fault = run.onsetMs.map { TimeFormat.rfc3339(ms: $0) }
            component = judged.blame?.component
            batch = judged.blame?.batch
            onset = judged.blame?.onsetMs.map { TimeFormat.rfc3339(ms: $0) }
            signals = judged.signals
            rejected = judged.rejected
            changed = judged.changed
            reasons = judged.reasons
            findings = judged.findings
        }
    }

    /// The overall figures at the top, then those of each file and each baseline.
    private struct Message: Encodable {
        var all: Figures
        var files: [File]
        var baselines: [String: Figures]
        var runs: [Run]?

        struct File: Encodable {
            var name: String
            var file: String
            var figures: Figures

            private enum Keys: String, CodingKey { case name, file }

            func encode(to encoder: any Encoder) throws {
                try figures.encode(to: encoder)
                var container = encoder.container(keyedBy: Keys.self)
                try container.encode(name, forKey: .name)
                try container.encode(file, forKey: .file)
            }
        }

        private enum Keys: String, CodingKey { case files, baselines, runs }

        func encode(to encoder: any Encoder) throws {
            try all.encode(to: encoder)
            var container = encoder.container(keyedBy: Keys.self)
            try container.encode(files, forKey: .files)
            try container.encode(baselines, forKey: .baselines)
            try container.encodeIfPresent(runs, forKey: .runs)
        }
    }

    /// - Parameter withRuns: whether each run is listed as well.
    package func json(withRuns: Bool) throws -> String {
        let message = Message(
            all: Figures(Score(runs)),
            files: files.map { file in
                .init(name: file.name, file: file.file, figures: Figures(Score(file.runs)))
            },
            baselines: Dictionary(uniqueKeysWithValues: judges.map { ($0, Figures(Score(runs, judge: $0))) }),
            runs: withRuns ? runs.compactMap { Run($0) } : nil)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(message), as: UTF8.self) + "\n"
    }

    // MARK: Text

    /// A row for each file, one for all, and one for each baseline, as a Markdown table.
    package func table() -> String {
        let titles = [
            "", "faults", "nulls", "precision", "recall", "false FAIL", "pages/day", "component", "batch",
            "onset error", "PASS of nulls", "type I", "coverage", "delay",
        ]
        var lines = [titles]
        lines.append(titles.map { _ in "---" })
        func row(_ name: String, _ score: Score) {
            let part = { (value: Double?) in value.map { String(format: "%.3f", $0) } ?? "" }
            let small = { (value: Double?) in value.map { String(format: "%.4f", $0) } ?? "" }
            let minutes = { (value: Double?) in value.map { String(format: "%.0f min", $0) } ?? "" }
            lines.append([
                name, "\(score.faults)", "\(score.nulls)", part(score.precision), part(score.recall),
                part(score.falseFailRate), part(score.pagesPerDay), part(score.componentTop1), part(score.batchTop1),
                minutes(score.onsetErrorMinutes), part(score.passAmongNulls), small(score.typeOneError),
                part(score.intervalCoverage), minutes(score.delayMinutes),
            ])
        }
        for file in files { row(file.name, Score(file.runs)) }
        row("**all**", Score(runs))
        for judge in judges { row("baseline \(judge)", Score(runs, judge: judge)) }
        return lines.map { "| \($0.joined(separator: " | ")) |\n" }.joined()
    }

    /// A line for each run.
    package func list() -> String {
        runs.map { run in
            guard let judged = run.judged[ScenarioRun.ours] else { return "" }
            let first = judged.pagesMs.first.map { page -> String in
                let since = run.onsetMs.map { "\(TimeFormat.duration(ms: max(0, page - $0))) after it began" }
                return ", failed " + (since ?? "at \(TimeFormat.rfc3339(ms: page))")
            }
            let blame = judged.blame.map { blame in
                ", blamed \(blame.component ?? "nothing")" + (blame.batch.map { " of batch \($0)" } ?? "")
            }
            return "\(run.name) seed \(run.seed): \(judged.verdict.rawValue), expected \(run.expectation.rawValue)"
                + "\(first ?? "")\(blame ?? ""): \(judged.reasons.first ?? "")\n"
        }.joined()
    }
}
