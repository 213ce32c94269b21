import Foundation
import GRDB
import Series

/// A message that is on its way.
package struct QueuedMessage: Sendable, Equatable {
    package var id: Int64
    package var receiver: String
    /// The number of the webhook within its receiver.
    package var webhook: Int
    package var body: String
    package var createdMs: Int64
    package var attempts: Int
}

/// The module's tables: states of alerts, groups, and messages that are not yet delivered.
package struct AlertStore: Sendable {
    private let database: any DatabaseWriter

    package init(_ database: any DatabaseWriter) { self.database = database }

    /// The most messages that wait; beyond it the oldest are given up and counted.
    package static let maxQueued = 10_000

    /// Registers the module's tables.
    package static func registerMigrations(_ migrator: inout DatabaseMigrator) {
        migrator.registerMigration("alerting-1") { db in
            try db.execute(
                sql: """
                    CREATE TABLE alert_states (
                        file TEXT NOT NULL, rule_group TEXT NOT NULL, rule_index INTEGER NOT NULL, rule TEXT NOT NULL,
                        fingerprint TEXT NOT NULL, state TEXT NOT NULL,
                        PRIMARY KEY (file, rule_group, rule_index, fingerprint)
                    ) WITHOUT ROWID;
                    CREATE TABLE notification_groups (key TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
                    CREATE TABLE messages (
                        id INTEGER PRIMARY KEY, receiver TEXT NOT NULL, webhook INTEGER NOT NULL, body TEXT NOT NULL,
                        created_ms INTEGER NOT NULL, attempts INTEGER NOT NULL, next_ms INTEGER NOT NULL
                    );
                    CREATE TABLE alert_history (
                        id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, receiver TEXT NOT NULL, group_key TEXT NOT NULL,
                        status TEXT NOT NULL, alerts INTEGER NOT NULL
                    );
                    """)
        }
        migrator.registerMigration("alerting-2") { db in
            // A number that was given is not given again: receivers know by it what they have had.
            try db.execute(
                sql: """
                    CREATE TABLE messages_2 (
                        id INTEGER PRIMARY KEY AUTOINCREMENT, receiver TEXT NOT NULL, webhook INTEGER NOT NULL,
                        body TEXT NOT NULL, created_ms INTEGER NOT NULL, attempts INTEGER NOT NULL,
                        next_ms INTEGER NOT NULL
                    );
                    INSERT INTO messages_2 SELECT * FROM messages;
                    INSERT INTO messages_2 (id, receiver, webhook, body, created_ms, attempts, next_ms)
                        SELECT max(id), '', 0, '', 0, 0, 0 FROM alert_history
                        WHERE id NOT IN (SELECT id FROM messages) HAVING max(id) NOT NULL;
                    DELETE FROM messages_2 WHERE receiver = '' AND body = '';
                    DROP TABLE messages;
                    ALTER TABLE messages_2 RENAME TO messages;
                    """)
        }
    }

    /// Writes down the outcome of one evaluation in one transaction: states, groups, and the messages to send.
    ///
    /// A message is in the queue exactly if the group says that it was sent: neither is there without the other.
    /// - Returns: Messages that were given up because too many waited.
    package func commit(
        states: [(key: RuleEvaluator.RuleKey, name: String, state: AlertState)], groups: [String: NotificationGroup],
        messages: [(receiver: String, webhook: Int, payload: WebhookPayload)], atMs: Int64
    ) throws -> Int {
        try database.write { db in
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            func json(_ value: some Encodable) throws -> String {
                String(decoding: try encoder.encode(value), as: UTF8.self)
            }
            try db.execute(sql: "DELETE FROM alert_states")
            for entry in states {
                let alert = Alert(labels: entry.state.labels, annotations: [:], startsAtMs: 0)
                try db.execute(
                    sql: "INSERT OR REPLACE INTO alert_states VALUES (?, ?, ?, ?, ?, ?)",
                    arguments: [
                        entry.key.file, entry.key.group, entry.key.index, entry.name, alert.fingerprint,
                        try json(entry.state),
                    ])
            }
            try db.execute(sql: "DELETE FROM notification_groups")
            for (key, group) in groups {
                try db.execute(sql: "INSERT INTO notification_groups VALUES (?, ?)", arguments: [key, try json(group)])
            }
            for message in messages {
                try db.execute(
                    sql: """
                        INSERT INTO messages (receiver, webhook, body, created_ms, attempts, next_ms)
                        VALUES (?, ?, ?, ?, 0, ?)
                        """,
                    arguments: [message.receiver, message.webhook, try json(message.payload), atMs, atMs])
                try db.execute(
                    sql:
                        "INSERT INTO alert_history (at_ms, receiver, group_key, status, alerts) VALUES (?, ?, ?, ?, ?)",
                    arguments: [
                        atMs, message.receiver, message.payload.groupKey, message.payload.status,
                        message.payload.alerts.count,
                    ])
            }
            try db.execute(
                sql: "DELETE FROM alert_history WHERE id <= (SELECT max(id) FROM alert_history) - ?",
                arguments: [AlertStore.maxQueued])
            try db.execute(
                sql: "DELETE FROM messages WHERE id NOT IN (SELECT id FROM messages ORDER BY id DESC LIMIT ?)",
                arguments: [AlertStore.maxQueued])
            return db.changesCount
        }
    }

    /// The states of all alerts.
    package func states() throws -> [(key: RuleEvaluator.RuleKey, name: String, state: AlertState)] {
        try database.read { db in
            try Row.fetchAll(db, sql: "SELECT * FROM alert_states").map { row in
                let state: String = row["state"]
                return (
                    RuleEvaluator.RuleKey(file: row["file"], group: row["rule_group"], index: row["rule_index"]),
                    row["rule"], try JSONDecoder().decode(AlertState.self, from: Data(state.utf8))
                )
            }
        }
    }

    /// What was told of each group.
    package func groups() throws -> [String: NotificationGroup] {
        try database.read { db in
            var groups: [String: NotificationGroup] = [:]
            for row in try Row.fetchAll(db, sql: "SELECT key, state FROM notification_groups") {
                let state: String = row[1]
                groups[row[0]] = try JSONDecoder().decode(NotificationGroup.self, from: Data(state.utf8))
            }
            return groups
        }
    }

    /// The messages whose next attempt is due, oldest first; none that stands behind one of the same webhook that
    /// still waits.
    package func due(atMs: Int64) throws -> [QueuedMessage] {
        try database.read { db in
            try Row.fetchAll(
                db,
                sql: """
                    SELECT * FROM messages WHERE next_ms <= :now AND NOT EXISTS (
                        SELECT 1 FROM messages AS ahead WHERE ahead.id < messages.id AND ahead.next_ms > :now
                        AND ahead.receiver = messages.receiver AND ahead.webhook = messages.webhook
                    ) ORDER BY id LIMIT 100
                    """, arguments: ["now": atMs]
            ).map { row in
                QueuedMessage(
                    id: row["id"], receiver: row["receiver"], webhook: row["webhook"], body: row["body"],
                    createdMs: row["created_ms"], attempts: row["attempts"])
            }
        }
    }

    /// The number of messages that wait.
    package func queued() throws -> Int {
        try database.read { try Int.fetchOne($0, sql: "SELECT count(*) FROM messages") ?? 0 }
    }

    /// Takes a message off the queue: it was delivered, or can never be.
    package func remove(_ id: Int64) throws {
        try database.write { try $0.execute(sql: "DELETE FROM messages WHERE id = ?", arguments: [id]) }
    }

    /// Notes a failed attempt and when the next one is.
    package func retry(_ id: Int64, atMs: Int64) throws {
        try database.write {
            try $0.execute(
                sql: "UPDATE messages SET attempts = attempts + 1, next_ms = ? WHERE id = ?", arguments: [atMs, id])
        }
    }
}
