import Alerting
import ArgumentParser
import Comparison
import Foundation
import Logging
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

    @Flag(help: "Do not look for the files with certificates, passwords and tokens.")
    var syntaxOnly = false

    @OptionGroup var language: FeatureOptions

    func run() async throws {
        try check(files) { file in
            let config = try Config.load(file: file, features: language.features)
            let unreadable = syntaxOnly ? [] : config.unreadableFiles
            guard unreadable.isEmpty else {
                throw InputError(
                    description: unreadable.map { "\(file): the file \($0) can't be read" }.joined(separator: "\n")
                        + "\nwith --syntax-only files that are on another machine are not looked for")
            }
            for name in config.missingJobs {
                Output.error(
                    "\(file): no job is named \(name), as the signals of config/signals.yaml have it: "
                        + "they will have no data of it, unless a job is renamed")
            }
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
            With --store or --recording, a critical signal without data is a fault: it would make the verdict BLIND. So is
            one whose counter never was there and that no version of Kubernetes is known to have.

            Example:
              upgrade-watch check signals config/signals.yaml
              upgrade-watch check signals config/signals.yaml --store ./data
              upgrade-watch check signals config/signals.yaml --recording demo/recording
            """)

    @Argument(help: "The files.") var files: [String]

    @Option(help: "The directory of a store, in which each signal's series are looked for.")
    var store: String?

    @Option(help: "A recording in which they are looked for.")
    var recording: String?

    func validate() throws {
        if store != nil, recording != nil { throw ValidationError("--store and --recording exclude each other") }
    }

    func run() async throws {
        if let recording {
            let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
            defer { try? FileManager.default.removeItem(atPath: folder) }
            try await reporting { try await CheckSignals.play(recording, into: folder) }
            try await checkData(in: folder, called: recording)
        } else if let store {
            try await checkData(in: store, called: store)
        } else {
            try check(files) { file in "\(try Signal.load(file: file).count) signals" }
        }
    }

    /// Fills a store with what a recording has, without judging it.
    private static func play(_ recording: String, into folder: String) async throws {
        var config = Config(cluster: "")
        config.logRules = try Defaults.logRules()
        config.upgrade.detects = false
        config.evaluationIntervalMs = 60_000
        let logger = Output.logger(.warning)
        var progress = Progress()
        _ = try await Replay(recording: recording, config: config, logger: logger)
            .run(store: folder, progress: { progress.show($0) })
        progress.finish()
    }

    /// - Parameter name: what the data are called to the user.
    private func checkData(in directory: String, called name: String) async throws {
        let store = try await reporting { () throws -> Store in try Store(directory: directory, readOnly: true) }
        let range = try store.timeRange() ?? 0...0
        try check(files) { file in
            let signals = try Signal.load(file: file)
            let counts = try signals.map {
                try $0.series(in: store, fromMs: range.lowerBound, throughMs: range.upperBound)
            }
            let unknown = try signals.map { signal in
                try signal.unknownCounter.flatMap {
                    try store.labels([.equal(Labels.metricName, $0)], fromMs: .min, throughMs: .max).isEmpty ? $0 : nil
                }
            }
            for ((signal, count), counter) in zip(zip(signals, counts), unknown) {
                let words =
                    counter.map { "no version of Kubernetes is known to have \($0): is it spelled so?" }
                    ?? (count == 0 ? "no data" : "\(count) series")
                Output.text("  \(signal.name)\(signal.isCritical ? " *" : ""): \(words)\n")
            }
            let blind = zip(signals, counts).filter { $0.isCritical && !$0.isOptional && $1 == 0 }.map(\.0.name)
            guard blind.isEmpty else {
                throw InputError(
                    description: "\(file): no data in \(name) for critical signals: "
                        + "\(blind.joined(separator: ", ")); scrape what exposes them, or make them not critical")
            }
            // Others may be of a component that is not there.
            let misspelled = zip(signals, unknown).compactMap { $0.isCritical ? $1 : nil }
            guard misspelled.isEmpty else {
                throw InputError(
                    description:
                        "\(file): \(misspelled.joined(separator: ", ")): no series in \(name), and no version of "
                        + "Kubernetes is known to have it; is it spelled so?")
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
