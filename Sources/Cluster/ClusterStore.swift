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
        migrator.registerMigration("cluster-2") { db in
            // A row is named by the container or the pod alone: a log knows no more of it. Evidence has its source.
            try db.execute(
                sql: """
                    CREATE TABLE ledger_2 (
                        id TEXT PRIMARY KEY, kind TEXT NOT NULL, at_ms INTEGER NOT NULL, node TEXT NOT NULL,
                        namespace TEXT NOT NULL, pod TEXT NOT NULL, pod_uid TEXT NOT NULL, container TEXT NOT NULL,
                        workload_kind TEXT NOT NULL, workload TEXT NOT NULL, container_id TEXT NOT NULL,
                        exit_code INTEGER, reason TEXT NOT NULL, cause TEXT NOT NULL, detail TEXT NOT NULL,
                        evidence TEXT NOT NULL
                    ) WITHOUT ROWID;
                    INSERT OR IGNORE INTO ledger_2
                    SELECT iif(kind = 'exit', replace(replace(container_id, 'containerd://', ''), 'docker://', ''),
                            'pod/' || pod_uid),
                        kind, at_ms, node, namespace, pod, pod_uid, container, workload_kind, workload,
                        replace(replace(container_id, 'containerd://', ''), 'docker://', ''), exit_code, reason, cause,
                        '',
                        (SELECT json_group_array(json_object(
                            'source', substr(value, 1, instr(value, ': ') - 1),
                            'text', substr(value, instr(value, ': ') + 2), 'detail', ''))
                        FROM json_each(evidence))
                    FROM ledger;
                    DROP TABLE ledger;
                    ALTER TABLE ledger_2 RENAME TO ledger;
                    CREATE INDEX ledger_time ON ledger (at_ms);
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

    /// Writes rows down: adds new ones, and replaces what was written of those that changed.
    ///
    /// A new row that is there already stays as it is, but where the new one knows a stronger cause.
    ///
    /// - Returns: The new rows that were not there already, from a process before this one.
    package func write(new: [LedgerEntry], changed: [LedgerEntry] = []) throws -> [LedgerEntry] {
        guard !new.isEmpty || !changed.isEmpty else { return [] }
        return try database.write { db in
            var added: [LedgerEntry] = []
            let insert = try db.cachedStatement(sql: ClusterStore.put("INSERT OR IGNORE"))
            let replace = try db.cachedStatement(sql: ClusterStore.put("INSERT OR REPLACE"))
            for entry in new {
                try insert.execute(arguments: try ClusterStore.arguments(entry))
                if db.changesCount == 1 {
                    added.append(entry)
                    continue
                }
                let known = try String.fetchOne(
                    db, sql: "SELECT cause FROM ledger WHERE id = ?", arguments: [entry.id])
                let strength = known.flatMap { LedgerCause(rawValue: $0)?.strength } ?? 0
                if entry.cause.strength > strength { try replace.execute(arguments: try ClusterStore.arguments(entry)) }
            }
            for entry in changed { try replace.execute(arguments: try ClusterStore.arguments(entry)) }
            return added
        }
    }

    private static func put(_ verb: String) -> String {
        """
        \(verb) INTO ledger (id, kind, at_ms, node, namespace, pod, pod_uid, container, workload_kind, workload,
            container_id, exit_code, reason, cause, detail, evidence)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """
    }

    private static func arguments(_ entry: LedgerEntry) throws -> StatementArguments {
        [
            entry.id, entry.kind.rawValue, entry.atMs, entry.node, entry.namespace, entry.pod, entry.podUID,
            entry.container, entry.workloadKind, entry.workload, entry.containerID, entry.exitCode, entry.reason,
            entry.cause.rawValue, entry.detail,
            String(decoding: try JSONEncoder().encode(entry.evidence), as: UTF8.self),
        ]
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
                    cause: LedgerCause(rawValue: row["cause"]) ?? .unknown, detail: row["detail"],
                    evidence: try JSONDecoder().decode([LedgerEvidence].self, from: Data(evidence.utf8)))
            }
        }
    }
}
