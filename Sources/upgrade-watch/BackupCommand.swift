import ArgumentParser
import Foundation
import Storage
import UpgradeWatch

/// `upgrade-watch backup`.
struct BackupCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backup",
        abstract: "Copy a store, also while a service writes to it.",
        discussion: """
            The copy is a store with all that was flushed when it began. To restore it, stop the service and
            put the directory in the place of the store's, or name it with --store.

            Example:
              upgrade-watch backup --store ./data /backups/2026-11-27
            """)

    @Argument(help: "The directory to make; it does not exist yet, or is empty.")
    var directory: String

    @OptionGroup var stored: StoreOptions

    func run() async throws {
        try await reporting {
            let (store, _) = try stored.resolved()
            let files = FileManager.default
            guard files.fileExists(atPath: store + "/" + Store.fileName) else {
                throw StoreError(
                    code: .notFound, path: store, reason: "no store here; name its directory with --store")
            }
            if let there = try? files.contentsOfDirectory(atPath: directory), !there.isEmpty {
                throw DirectoryInUse(path: directory)
            }
            // Under another name until it is whole.
            let partial = directory + ".partial"
            try? files.removeItem(atPath: partial)
            try files.createDirectory(atPath: partial, withIntermediateDirectories: true)
            // The counters in the state are never older than their samples, in a service as in its copy.
            for file in [Store.fileName, StateDatabase.fileName]
            where files.fileExists(atPath: store + "/" + file) {
                try DatabaseFile.copy(store + "/" + file, to: partial + "/" + file)
            }
            try? files.removeItem(atPath: directory)
            try files.moveItem(atPath: partial, toPath: directory)
        }
    }
}
