import Foundation
import GRDB
import Series

/// The module's tables: marks and the ledger.
package struct ClusterStore: Sendable {
    private let database: any DatabaseWriter

    package init(_ database: any DatabaseWriter) { self.database = database }

    /// Registers the module's tables.
    package static func registerMigrations(_ migrator: inout DatabaseMigrator) {
        migrator.registerMigration("cluster-1") { db in
            try db.execute(
                sql: """
                    CREATE TABLE marks (id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, mark TEXT NOT NULL UNIQUE);
                    CREATE TABLE ledger (
                        kind TEXT NOT NULL, pod_uid TEXT NOT NULL, container TEXT NOT NULL, container_id TEXT NOT NULL,
                        at_ms INTEGER NOT NULL, node TEXT NOT NULL, namespace TEXT NOT NULL, pod TEXT NOT NULL,
                        workload_kind TEXT NOT NULL, workload TEXT NOT NULL, exit_code INTEGER, reason TEXT NOT NULL,
                        cause TEXT NOT NULL, evidence TEXT NOT NULL,
                        PRIMARY KEY (kind, pod_uid, container, container_id)
                    ) WITHOUT ROWID;
                    """)
        }
    }

    /// Keeps a mark; the same one twice is one.
    package func add(_ mark: UpgradeMark) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        let json = String(decoding: try encoder.encode(mark), as: UTF8.self)
        try database.write { db in
            try db.execute(
                sql: "INSERT OR IGNORE INTO marks (at_ms, mark) VALUES (?, ?)", arguments: [mark.atMs, json])
        }
    }

    /// All marks in order of time.
    package func marks() throws -> [UpgradeMark] {
        try database.read { db in
            try String.fetchAll(db, sql: "SELECT mark FROM marks ORDER BY at_ms, id")
                .map { try JSONDecoder().decode(UpgradeMark.self, from: Data($0.utf8)) }
        }
    }

    /// Adds rows; one that is there already stays as it is.
    package func add(_ entries: [LedgerEntry]) throws {
        guard !entries.isEmpty else { return }
        try database.write { db in
            let insert = try db.cachedStatement(
                sql: """
                    INSERT OR IGNORE INTO ledger (kind, pod_uid, container, container_id, at_ms, node, namespace, pod,
                        workload_kind, workload, exit_code, reason, cause, evidence)
                    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                    """)
            for entry in entries {
                let evidence = String(decoding: try JSONEncoder().encode(entry.evidence), as: UTF8.self)
                try insert.execute(arguments: [
                    entry.kind.rawValue, entry.podUID, entry.container, entry.containerID, entry.atMs, entry.node,
                    entry.namespace, entry.pod, entry.workloadKind, entry.workload, entry.exitCode, entry.reason,
                    entry.cause.rawValue, evidence,
                ])
            }
        }
    }

    /// The rows of a stretch of time, both ends included, in order of time.
    package func ledger(fromMs: Int64, throughMs: Int64) throws -> [LedgerEntry] {
        try database.read { db in
            let rows = try Row.fetchAll(
                db,
                sql: "SELECT * FROM ledger WHERE at_ms >= ? AND at_ms <= ? ORDER BY at_ms, namespace, pod, container",
                arguments: [fromMs, throughMs])
            return try rows.map { row in
                let evidence: String = row["evidence"]
                return LedgerEntry(
                    kind: LedgerEntry.Kind(rawValue: row["kind"]) ?? .exit, atMs: row["at_ms"], node: row["node"],
                    namespace: row["namespace"], pod: row["pod"], podUID: row["pod_uid"], container: row["container"],
                    workloadKind: row["workload_kind"], workload: row["workload"], containerID: row["container_id"],
                    exitCode: row["exit_code"], reason: row["reason"],
                    cause: LedgerCause(rawValue: row["cause"]) ?? .unknown,
                    evidence: try JSONDecoder().decode([String].self, from: Data(evidence.utf8)))
            }
        }
    }
}
