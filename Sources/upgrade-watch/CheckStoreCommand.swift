import ArgumentParser
import Foundation
import Storage
import UpgradeWatch

/// `upgrade-watch check store`.
struct CheckStore: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "store", abstract: "Read all of a store, and tell what of it is damaged.",
        discussion: """
            A service may go on meanwhile, but for --repair: that takes rows out that can't be read, so that the store can
            be opened again, and tells how many samples go with blocks.

            Example:
              upgrade-watch check store ./data
              upgrade-watch check store ./data --repair
            """)

    @Argument(help: "The directories of stores.") var directories: [String]

    @Flag(help: "Take out what is damaged.")
    var repair = false

    func run() async throws {
        try check(directories) { directory in
            for file in [Store.fileName, StateDatabase.fileName] {
                let path = directory + "/" + file
                guard FileManager.default.fileExists(atPath: path) else {
                    if file == StateDatabase.fileName { continue }
                    throw StoreError(code: .notFound, path: path, reason: "no store here")
                }
                let findings = try DatabaseFile.findings(path)
                guard findings.isEmpty else {
                    throw InputError(
                        description: findings.map { "\(path): \($0)" }.joined(separator: "\n")
                            + "\n\(path): SQLite's own pages are damaged: put a backup in its place, or save what can be "
                            + "read with: sqlite3 \(path) .recover | sqlite3 new.db")
                }
            }
            var found = try StoreCheck(directory: directory)
            if !found.problems.isEmpty {
                let path = directory + "/" + Store.fileName
                let words = found.problems.map { "\(path): \($0)" }.joined(separator: "\n")
                guard repair else {
                    throw InputError(
                        description: words + "\n\(path): put a backup in its place, or take the rows out "
                            + "with --repair")
                }
                try found.repair(directory: directory)
                Output.error(words + "\n\(path): these rows were taken out")
                found = try StoreCheck(directory: directory)
                guard found.problems.isEmpty else {
                    throw InputError(description: found.problems.map { "\(path): \($0)" }.joined(separator: "\n"))
                }
            }
            return
                "\(found.series) series, \(found.samples) samples, \(found.blocks) blocks, \(found.journalRows) rows of the "
                + "journal"
        }
    }
}
