import ArgumentParser
import Foundation
import Logging
import Recording
import Series
import UpgradeWatch

/// `upgrade-watch replay`.
struct ReplayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay",
        abstract: "Send a recording through the whole pipeline, in the recording's own time.",
        discussion: """
            Exits with 0 when all of the recording could be read, with 65 when a part of it could not.

            Example:
              upgrade-watch replay demo/recording --store ./data
              upgrade-watch report --store ./data
            """)

    @Argument(help: "The recording: a directory with a file recording.json.")
    var recording: String

    @Option(
        help:
            "A configuration file; scrape_configs and log_sources in it are not used. Default: the built-in signals, log rules and alerts."
    )
    var config: String?

    @Option(help: "The directory of the store, which must be empty.")
    var store: String?

    @Option(help: "Stop after this much of the recording, as in 12m.")
    var until: String?

    @OptionGroup var language: FeatureOptions

    func validate() throws {
        if let until, TimeFormat.durationMs(until) == nil {
            throw ValidationError("--until \(until) is not a duration; write a number with a unit, as in 12m")
        }
    }

    func run() async throws {
        let logger = Output.logger(.warning)
        let loaded = try await reporting(yaml: .configuration) {
            try config.map { try Config.load(file: $0, features: language.features) }
        }
        let outcome = try await reporting {
            let replay = try Replay(recording: recording, config: loaded, logger: logger)
            let manifest = try RecordingManifest.load(directory: recording)
            let untilMs = until.flatMap { TimeFormat.durationMs($0) }.map { manifest.startMs + $0 }
            var progress = Progress()
            let outcome = try await replay.run(
                store: store ?? loaded?.storage.path ?? "./data", untilMs: untilMs, progress: { progress.show($0) })
            progress.finish()
            return outcome
        }
        Output.text(
            "\(outcome.scrapes) scrapes, \(outcome.samples) samples, \(outcome.logLines) log lines, "
                + "\(outcome.objects) object lines, \(outcome.messagesSent) notifications sent\n")
        guard outcome.problems.isEmpty else {
            for problem in outcome.problems { Output.error("\(problem)") }
            throw ExitStatus.badData.code
        }
    }
}
