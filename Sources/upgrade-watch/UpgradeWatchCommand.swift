import ArgumentParser
import Foundation
import Logging

/// The program: its commands are one file each.
@main
struct UpgradeWatchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "upgrade-watch",
        abstract: "Watches a Kubernetes cluster through an upgrade and says whether it is safe.",
        discussion: """
            Example:
              upgrade-watch run --config config/upgrade-watch.yaml
              upgrade-watch report --url http://127.0.0.1:9095
            """,
        version: Version.text,
        subcommands: [
            RunCommand.self, ReplayCommand.self, MarkCommand.self, ReportCommand.self, QueryCommand.self,
            CheckCommand.self, TestCommand.self, PlanCommand.self, SimulateCommand.self, ImportCommand.self,
            ExportCommand.self, BackupCommand.self,
        ])
}

/// The program's version.
enum Version {
    static let text = "0.1.0"
}
