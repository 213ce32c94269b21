import Alerting
import ArgumentParser
import Comparison
import Foundation
import Series
import Storage
import StrictYAML
import UpgradeWatch
import WebAPI

extension RuleLint: ExpressibleByArgument {}

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
        subcommands: [
            CheckConfig.self, CheckRules.self, CheckSignals.self, CheckDashboards.self, CheckWebConfig.self,
            CheckStore.self,
        ])
}

struct CheckConfig: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Check configuration files and the files that they name.",
        discussion: "Example:\n  upgrade-watch check config config/upgrade-watch.yaml")

    @Argument(help: "The files.") var files: [String]

    @OptionGroup var language: FeatureOptions

    func run() async throws {
        try check(files) { file in
            let config = try Config.load(file: file, features: language.features)
            let discoveries = config.jobs.reduce(0) { $0 + $1.discoveries.count }
            return
                "\(config.staticTargets.count) targets\(discoveries == 0 ? "" : " and \(discoveries) discoveries"), "
                + "\(config.logSources.count) log sources, \(config.signals.count) signals, "
                + "\(config.ruleGroups.reduce(0) { $0 + $1.rules.count }) rules"
        }
    }
}

struct CheckWebConfig: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "web-config", abstract: "Check files for run --web.config.file.",
        discussion: "Example:\n  upgrade-watch check web-config web-config.yml")

    @Argument(help: "The files.") var files: [String]

    func run() async throws {
        try check(files) { file in
            let config = try WebConfigFile.load(file: file)
            return (config.tls == nil ? "plain HTTP" : "TLS")
                + (config.asksForCredentials ? ", \(config.users.count) users" : ", open to all")
        }
    }
}

struct CheckRules: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rules", abstract: "Check Prometheus rule files.",
        discussion: """
            What is allowed and mostly a mistake is told, and fails only with --lint-fatal (exit code 3).

            Example:
              upgrade-watch check rules alerts/*.yaml
            """)

    @Argument(help: "The files.") var files: [String]

    @Option(
        help: ArgumentHelp(
            "What to look for beside errors: all, duplicate-rules or none.", valueName: "check"))
    var lint = RuleLint.duplicateRules

    @Flag(help: "Exit with 3 where --lint finds something.")
    var lintFatal = false

    @OptionGroup var language: FeatureOptions

    func run() async throws {
        var found = 0
        try check(files) { file in
            let groups = try RuleFile.load(file: file, features: language.features)
            let duplicates = lint == .none ? [] : RuleLint.duplicates(groups)
            found += duplicates.count
            if !duplicates.isEmpty {
                let rows = duplicates.map { "  \($0.name)\($0.labels.braced)" }.joined(separator: "\n")
                Output.error(
                    "\(file): \(duplicates.count) duplicate rule(s) found.\n\(rows)\n"
                        + "  Might cause inconsistency while recording expressions")
            }
            return "\(groups.reduce(0) { $0 + $1.rules.count }) rules found"
        }
        if lintFatal, found > 0 { throw ExitStatus.lint }
    }
}

struct CheckSignals: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "signals", abstract: "Check signal files, and whether a store has data for them.",
        discussion: """
            With --store, a critical signal without data is a fault: it would make the verdict BLIND.

            Example:
              upgrade-watch check signals config/signals.yaml
              upgrade-watch check signals config/signals.yaml --store ./data
            """)

    @Argument(help: "The files.") var files: [String]

    @Option(help: "The directory of a store, in which each signal's series are looked for.")
    var store: String?

    func run() async throws {
        guard let directory = store else {
            return try check(files) { file in "\(try Signal.load(file: file).count) signals" }
        }
        let store = try await reporting { () throws -> Store in try Store(directory: directory, readOnly: true) }
        let range = try store.timeRange() ?? 0...0
        try check(files) { file in
            let signals = try Signal.load(file: file)
            let counts = try signals.map {
                try $0.series(in: store, fromMs: range.lowerBound, throughMs: range.upperBound)
            }
            for (signal, count) in zip(signals, counts) {
                let words = count == 0 ? "no data" : "\(count) series"
                Output.text("  \(signal.name)\(signal.isCritical ? " *" : ""): \(words)\n")
            }
            let blind = zip(signals, counts).filter { $0.isCritical && !$0.isOptional && $1 == 0 }.map(\.0.name)
            guard blind.isEmpty else {
                throw InputError(
                    description: "\(file): no data in \(directory) for critical signals: "
                        + "\(blind.joined(separator: ", ")); scrape what exposes them, or make them not critical")
            }
            return "\(signals.count) signals, \(counts.filter { $0 > 0 }.count) with data"
        }
    }
}

/// Checks each file and tells of each; fails at the end if any was bad.
func check(_ files: [String], _ body: (String) throws -> String) throws {
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
