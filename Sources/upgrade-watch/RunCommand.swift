import ArgumentParser
import Foundation
import Logging
import UpgradeWatch

/// `upgrade-watch run`.
struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Watch a cluster: scrape, tail, compare, alert.",
        discussion: """
            SIGTERM and SIGINT stop it cleanly, SIGHUP reads the configuration again.

            Example:
              upgrade-watch run --config config/upgrade-watch.yaml
            """)

    @Option(help: "The configuration file.")
    var config: String

    @Option(
        help: "The least important messages that are logged: trace, debug, info, notice, warning, error or critical.")
    var logLevel: String = "info"

    @Flag(
        name: .customLong("web.enable-remote-write-receiver"),
        help: "Take samples that another Prometheus sends to /api/v1/write.")
    var receivesWrites = false

    @OptionGroup var language: FeatureOptions

    func validate() throws {
        if Logger.Level(rawValue: logLevel) == nil { throw ValidationError("unknown log level \(logLevel)") }
    }

    func run() async throws {
        var logger = Logger(label: "upgrade-watch", factory: { StreamLogHandler.standardError(label: $0) })
        logger.logLevel = Logger.Level(rawValue: logLevel) ?? .info
        let loaded = try await reporting(yaml: .configuration) {
            try Config.load(file: config, features: language.features)
        }
        try await reporting {
            try await WatchService(
                configFile: config, config: loaded, time: WallClock(),
                environment: ProcessInfo.processInfo.environment, receivesWrites: receivesWrites,
                logger: logger
            ).run()
        }
    }
}
