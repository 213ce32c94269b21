import Alerting
import Cluster
import Comparison
import Foundation
import GRDB
import LogWatch
import Storage

/// The SQLite file beside the store that holds all other state: each module's own tables.
package struct StateDatabase: Sendable {
    /// The file's name in the store's directory.
    package static let fileName = "state.db"

    package let logs: LogState
    package let cluster: ClusterStore
    package let alerts: AlertStore
    private let database: any DatabaseWriter

    /// Opens the database in a directory.
    ///
    /// - Throws: `StoreError`.
    package init(directory: String, readOnly: Bool) throws {
        let path = directory + "/" + StateDatabase.fileName
        if !FileManager.default.fileExists(atPath: readOnly ? path : directory) {
            throw StoreError(
                code: .notFound, path: path,
                reason: "no store here; name the directory that `run` or `replay` wrote to with --store")
        }
        var configuration = Configuration()
        configuration.readonly = readOnly
        configuration.busyMode = .timeout(10)
        do {
            database = try DatabasePool(path: path, configuration: configuration)
            var migrator = DatabaseMigrator()
            LogState.registerMigrations(&migrator)
            ClusterStore.registerMigrations(&migrator)
            AlertStore.registerMigrations(&migrator)
            StateDatabase.registerMigrations(&migrator)
            if try database.read({ try migrator.hasBeenSuperseded($0) }) {
                throw StoreError(
                    code: .newerVersion, path: path,
                    reason: "the store was written by a newer version of upgrade-watch; use that version, "
                        + "or another directory")
            }
            if !readOnly { try migrator.migrate(database) }
        } catch let error as StoreError {
            throw error
        } catch let error as DatabaseError {
            throw StoreError(
                code: error.resultCode == .SQLITE_FULL ? .full : .unreadable, path: path,
                reason: error.message ?? "\(error)")
        }
        logs = LogState(database)
        cluster = ClusterStore(database)
        alerts = AlertStore(database)
    }

    private static func registerMigrations(_ migrator: inout DatabaseMigrator) {
        migrator.registerMigration("settings-1") { db in
            try db.execute(sql: "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        }
        migrator.registerMigration("verdicts-1") { db in
            try db.execute(
                sql: """
                    CREATE TABLE verdicts (
                        upgrade TEXT NOT NULL, at_ms INTEGER NOT NULL, verdict TEXT NOT NULL, report TEXT NOT NULL,
                        PRIMARY KEY (upgrade, at_ms)
                    ) WITHOUT ROWID
                    """)
        }
    }

    /// Keeps a verdict with the report that holds its evidence, as JSON.
    func add(_ verdict: StoredVerdict, upgrade: String, report: String) throws {
        try database.write {
            try $0.execute(
                sql: "INSERT OR REPLACE INTO verdicts (upgrade, at_ms, verdict, report) VALUES (?, ?, ?, ?)",
                arguments: [upgrade, verdict.atMs, verdict.verdict.rawValue, report])
        }
    }

    /// The verdicts of an upgrade up to a time, oldest first; a store of an older version has none.
    func verdicts(upgrade: String, throughMs: Int64) throws -> [StoredVerdict] {
        try database.read { db in
            guard try db.tableExists("verdicts") else { return [] }
            return try Row.fetchAll(
                db, sql: "SELECT at_ms, verdict FROM verdicts WHERE upgrade = ? AND at_ms <= ? ORDER BY at_ms",
                arguments: [upgrade, throughMs]
            ).compactMap { row in
                Verdict(rawValue: row["verdict"]).map { StoredVerdict(atMs: row["at_ms"], verdict: $0) }
            }
        }
    }

    /// Keeps a setting that a later report needs.
    package func set(_ name: String, _ value: String) throws {
        try database.write {
            try $0.execute(
                sql: "INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", arguments: [name, value])
        }
    }

    /// A setting that was kept; nil where there is none.
    package func setting(_ name: String) throws -> String? {
        try database.read {
            try String.fetchOne($0, sql: "SELECT value FROM settings WHERE name = ?", arguments: [name])
        }
    }

    package func close() { try? database.close() }
}
