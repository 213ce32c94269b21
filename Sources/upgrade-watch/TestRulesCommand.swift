import Alerting
import ArgumentParser
import Foundation
import Report
import Series
import StrictYAML
import UpgradeWatch

/// `upgrade-watch test rules`.
struct TestRules: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rules",
        abstract: "Run unit tests of rules, in promtool's format.",
        discussion: """
            Exit code 1: a test failed.

            Example:
              upgrade-watch test rules alerts/tests/*.yaml
            """)

    @Argument(help: "Test files; the rule files that they name are looked for beside them.")
    var files: [String]

    @Option(help: "Only the tests whose names match one of these regular expressions.")
    var run: [String] = []

    @Option(help: ArgumentHelp("Write the results as JUnit XML to this file.", valueName: "file"))
    var junit: String?

    @OptionGroup var language: FeatureOptions

    func validate() throws {
        for text in run where (try? Pattern(text, mode: .search)) == nil {
            throw ValidationError("--run \(text) is not a regular expression")
        }
    }

    private struct Outcome {
        var file: String
        var problems: [String]
        var tests: [(name: String, problems: [String])] = []
    }

    func run() async throws {
        let outcomes = files.map(outcome)
        for outcome in outcomes {
            Output.text("Unit Testing:  \(outcome.file)\n")
            let problems = outcome.problems + outcome.tests.flatMap(\.problems)
            if problems.isEmpty {
                Output.text("  SUCCESS\n\n")
            } else {
                Output.text("  FAILED:\n\(problems.joined(separator: "\n\n"))\n\n")
            }
        }
        if let junit {
            try await reporting {
                try TestRules.xml(outcomes).write(toFile: junit, atomically: true, encoding: .utf8)
            }
        }
        if outcomes.contains(where: { !$0.problems.isEmpty }) { throw ExitCode(65) }
        if outcomes.contains(where: { $0.tests.contains { !$0.problems.isEmpty } }) { throw ExitCode(1) }
    }

    private func outcome(_ file: String) -> Outcome {
        var outcome = Outcome(file: file, problems: [])
        do {
            let tests = try RuleTestFile.load(YAMLDocument(file: file))
            var groups: [RuleGroup] = []
            for name in tests.ruleFiles {
                let path = name.hasPrefix("/") ? name : file.folderOfPath + "/" + name
                let found = Glob.expand(path)
                guard !found.isEmpty else {
                    outcome.problems.append("    \(path): no such rule file")
                    continue
                }
                for path in found { groups += try RuleFile.load(file: path, features: language.features) }
            }
            let patterns = run.compactMap { try? Pattern($0, mode: .search) }
            for (index, test) in tests.tests.enumerated() {
                guard patterns.isEmpty || patterns.contains(where: { $0.matches(test.name) }) else { continue }
                let name = test.name.isEmpty ? "test \(index + 1)" : test.name
                outcome.tests.append((name, test.run(groups, in: tests, features: language.features)))
            }
        } catch {
            outcome.problems.append("    \(error)")
        }
        return outcome
    }

    private static func xml(_ outcomes: [Outcome]) -> String {
        let suites = outcomes.map { outcome in
            let cases = ([("rule files", outcome.problems)] + outcome.tests).map { name, problems in
                let failure =
                    problems.isEmpty ? "" : "<failure>\(HTMLReport.escape(problems.joined(separator: "\n")))</failure>"
                return "    <testcase name=\"\(HTMLReport.escape(name))\">\(failure)</testcase>\n"
            }
            let failures = ([outcome.problems] + outcome.tests.map(\.problems)).count { !$0.isEmpty }
            return
                "  <testsuite name=\"\(HTMLReport.escape(outcome.file))\" tests=\"\(cases.count)\" failures=\"\(failures)\">\n"
                + cases.joined() + "  </testsuite>\n"
        }
        return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n" + suites.joined() + "</testsuites>\n"
    }
}
