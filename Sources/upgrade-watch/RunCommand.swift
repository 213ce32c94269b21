import ArgumentParser
import Foundation
import Logging
import Series
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

    @Option(
        name: .customLong("web.cors.origin"),
        help: ArgumentHelp("The origins whose pages may read the API, fully anchored.", valueName: "regex"))
    var origins = ".*"

    @Option(
        name: .customLong("web.config.file"),
        help: ArgumentHelp(
            "How the API is secured: TLS, users and their bcrypt hashes, in Prometheus' format.", valueName: "file"))
    var webFile: String?

    @Option(
        name: .customLong("web.external-url"),
        help: ArgumentHelp(
            "The address at which people reach the API, as it stands in webhooks. Default: where it listens.",
            valueName: "URL"))
    var externalURL: String?

    @OptionGroup var language: FeatureOptions
    @OptionGroup var limits: QueryOptions

    func validate() throws {
        if Logger.Level(rawValue: logLevel) == nil { throw ValidationError("unknown log level \(logLevel)") }
        if let externalURL, URL(string: externalURL)?.host == nil {
            throw ValidationError("--web.external-url \(externalURL) is no address as in https://watch.example.com")
        }
        if (try? Pattern(origins, mode: .anchored)) == nil {
            throw ValidationError("--web.cors.origin \(origins) is not a regular expression")
        }
    }

    func run() async throws {
        let logger = Output.logger(Logger.Level(rawValue: logLevel) ?? .info)
        let loaded = try await reporting(yaml: .configuration) {
            try Config.load(file: config, features: language.features, webFile: webFile)
        }
        try await reporting {
            try await WatchService(
                configFile: config, config: loaded, time: WallClock(),
                environment: ProcessInfo.processInfo.environment, options: options(), logger: logger
            ).run()
        }
    }

    private func options() throws -> ServiceOptions {
        var options = ServiceOptions(origins: try Pattern(origins, mode: .anchored))
        options.receivesWrites = receivesWrites
        options.webFile = webFile
        options.externalURL = externalURL.map { $0.hasSuffix("/") ? String($0.dropLast()) : $0 }
        options.hostName = ProcessInfo.processInfo.hostName
        options.version = Version.text
        options.limits = limits.limits
        options.flags = limits.flags.merging([
            "config.file": config, "enable-feature": language.names.joined(separator: ","), "log.level": logLevel,
            "web.config.file": webFile ?? "", "web.cors.origin": origins, "web.external-url": externalURL ?? "",
            "web.enable-remote-write-receiver": "\(receivesWrites)",
        ]) { $1 }
        return options
    }
}
