import ArgumentParser
import Foundation
import PromQL

/// `upgrade-watch test`.
struct TestCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "test",
        abstract: "Run tests that are files.",
        subcommands: [TestRules.self, TestPromQL.self])
}

/// `upgrade-watch test promql`.
struct TestPromQL: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "promql",
        abstract: "Run scripts in the format of Prometheus' promqltest against the query engine.",
        discussion: """
            Blocks about native histograms are counted as skipped. Exit code 1: a block failed.

            Example:
              upgrade-watch test promql promql/promqltest/testdata
            """)

    @Argument(help: "Scripts, or directories of *.test files.")
    var paths: [String]

    @Flag(name: .shortAndLong, help: "Only print the sums.")
    var quiet = false

    func run() async throws {
        let files = try await reporting { try paths.flatMap { try TestPromQL.scripts(at: $0) } }
        var sum = ScriptRunner.Outcome()
        for file in files {
            let outcome = try await reporting {
                let bytes = try FileManager.default.contents(atPath: file) ?? { throw UnreadableScript(path: file) }()
                return ScriptRunner.run(String(decoding: bytes, as: UTF8.self), name: file)
            }
            if !quiet { outcome.failures.forEach { Output.text("FAIL \($0)\n") } }
            Output.text("\(file): \(TestPromQL.words(outcome))\n")
            sum.passed += outcome.passed
            sum.skipped += outcome.skipped
            sum.failures += outcome.failures
        }
        if files.count > 1 { Output.text("all: \(TestPromQL.words(sum))\n") }
        if !sum.failures.isEmpty { throw ExitCode(1) }
    }

    private static func words(_ outcome: ScriptRunner.Outcome) -> String {
        "\(outcome.passed) passed, \(outcome.failures.count) failed, \(outcome.skipped) skipped"
    }

    /// A file itself, or the scripts in a directory in the order of their names.
    private static func scripts(at path: String) throws -> [String] {
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) else {
            throw UnreadableScript(path: path)
        }
        guard isDirectory.boolValue else { return [path] }
        let names = try FileManager.default.contentsOfDirectory(atPath: path).filter { $0.hasSuffix(".test") }.sorted()
        guard !names.isEmpty else { throw UnreadableScript(path: path + "/*.test") }
        return names.map { path + "/" + $0 }
    }
}

private struct UnreadableScript: Error, CustomStringConvertible {
    var path: String

    var description: String { "\(path): no such file, or it can't be read" }
}
