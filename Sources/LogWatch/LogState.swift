import Foundation
import GRDB
import Series

/// The log watcher's tables: positions in files, counters, evidence.
package struct LogState: Sendable {
    private let database: any DatabaseWriter

    package init(_ database: any DatabaseWriter) { self.database = database }

    /// Registers the module's tables.
    package static func registerMigrations(_ migrator: inout DatabaseMigrator) {
        migrator.registerMigration("logwatch-1") { db in
            try db.execute(
                sql: """
                    CREATE TABLE log_positions (
                        path TEXT PRIMARY KEY, inode INTEGER NOT NULL, offset INTEGER NOT NULL, head BLOB NOT NULL
                    ) WITHOUT ROWID;
                    CREATE TABLE log_counters (
                        labels TEXT PRIMARY KEY, count REAL NOT NULL, evidence TEXT
                    ) WITHOUT ROWID;
                    """)
        }
    }

    /// Writes counters and positions down, in one transaction: either a line is counted and passed, or neither.
    package func commit(
        _ changes: [(labels: Labels, count: Double, evidence: LogEvidence?)], positions: [String: LogPosition]
    ) throws {
        guard !changes.isEmpty || !positions.isEmpty else { return }
        try database.write { db in
            let encoder = JSONEncoder()
            // Sorted keys: one text for one set of labels.
            encoder.outputFormatting = .sortedKeys
            let put = try db.cachedStatement(
                sql: "INSERT OR REPLACE INTO log_counters (labels, count, evidence) VALUES (?, ?, ?)")
            for change in changes {
                let key = try encoder.encode(Dictionary(change.labels.pairs.map { ($0.name, $0.value) }) { $1 })
                let evidence = try change.evidence.map { String(decoding: try encoder.encode($0), as: UTF8.self) }
                try put.execute(arguments: [String(decoding: key, as: UTF8.self), change.count, evidence])
            }
            for (path, position) in positions {
                try db.execute(
                    sql: "INSERT OR REPLACE INTO log_positions (path, inode, offset, head) VALUES (?, ?, ?, ?)",
                    arguments: [path, Int64(bitPattern: position.inode), position.offset, Data(position.head)])
            }
        }
    }

    /// The counters and their evidence.
    package func counters() throws -> (counters: [Labels: Double], evidence: [Labels: LogEvidence]) {
        try database.read { db in
            var counters: [Labels: Double] = [:]
            var evidence: [Labels: LogEvidence] = [:]
            for row in try Row.fetchAll(db, sql: "SELECT labels, count, evidence FROM log_counters") {
                let labels = try LogState.labels(row[0])
                counters[labels] = row[1]
                evidence[labels] = try LogState.evidence(row[2])
            }
            return (counters, evidence)
        }
    }

    private static func labels(_ json: String) throws -> Labels {
        Labels(try JSONDecoder().decode([String: String].self, from: Data(json.utf8)))
    }

    private static func evidence(_ json: String?) throws -> LogEvidence? {
        try json.map { try JSONDecoder().decode(LogEvidence.self, from: Data($0.utf8)) }
    }

    /// The evidence of the counters that all matchers accept.
    package func evidence(_ matchers: [LabelMatcher]) throws -> [(labels: Labels, evidence: LogEvidence)] {
        try database.read { db in
            var found: [(labels: Labels, evidence: LogEvidence)] = []
            let rows = try Row.fetchCursor(
                db, sql: "SELECT labels, evidence FROM log_counters WHERE evidence IS NOT NULL")
            while let row = try rows.next() {
                let labels = try LogState.labels(row[0])
                guard matchers.allSatisfy({ $0.accepts(labels) }), let evidence = try LogState.evidence(row[1]) else {
                    continue
                }
                found.append((labels, evidence))
            }
            return found.sorted { $0.labels < $1.labels }
        }
    }

    /// The stored positions by path.
    package func positions() throws -> [String: LogPosition] {
        try database.read { db in
            var positions: [String: LogPosition] = [:]
            for row in try Row.fetchAll(db, sql: "SELECT path, inode, offset, head FROM log_positions") {
                let inode: Int64 = row[1]
                let head: Data = row[3]
                positions[row[0]] = LogPosition(inode: UInt64(bitPattern: inode), offset: row[2], head: [UInt8](head))
            }
            return positions
        }
    }
}
