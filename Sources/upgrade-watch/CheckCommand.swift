import Alerting
import ArgumentParser
import Comparison
import Foundation
import StrictYAML
import UpgradeWatch

/// `upgrade-watch check`.
struct CheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Check files before they are used.",
        discussion: """
            Exits with 1 when a file is not as it should be.

            Example:
              upgrade-watch check config config/upgrade-watch.yaml
              upgrade-watch check rules alerts/*.yaml
            """,
        subcommands: [CheckConfig.self, CheckRules.self, CheckSignals.self])
}

struct CheckConfig: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Check configuration files and the files that they name.",
        discussion: "Example:\n  upgrade-watch check config config/upgrade-watch.yaml")

    @Argument(help: "The files.") var files: [String]

    func run() async throws {
        try check(files) { file in
            let config = try Config.load(file: file)
            return
                "\(config.targets.count) targets, \(config.logSources.count) log sources, \(config.signals.count) signals, "
                + "\(config.ruleGroups.reduce(0) { $0 + $1.rules.count }) rules"
        }
    }
}

struct CheckRules: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rules", abstract: "Check Prometheus rule files.",
        discussion: "Example:\n  upgrade-watch check rules alerts/*.yaml")

    @Argument(help: "The files.") var files: [String]

    func run() async throws {
        try check(files) { file in
            let groups = try RuleFile.load(file: file)
            return "\(groups.reduce(0) { $0 + $1.rules.count }) rules found"
        }
    }
}

struct CheckSignals: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "signals", abstract: "Check signal files.",
        discussion: "Example:\n  upgrade-watch check signals config/signals.yaml")

    @Argument(help: "The files.") var files: [String]

    func run() async throws {
        try check(files) { file in "\(try Signal.load(file: file).count) signals" }
    }
}

/// Checks each file and tells of each; fails at the end if any was bad.
private func check(_ files: [String], _ body: (String) throws -> String) throws {
    var failed = false
    for file in files {
        do {
            Output.text("\(file): SUCCESS: \(try body(file))\n")
        } catch {
            failed = true
            Output.text("\(file): FAILED\n")
            Output.error("\(error)")
        }
    }
    if failed { throw ExitStatus.fail.code }
}
