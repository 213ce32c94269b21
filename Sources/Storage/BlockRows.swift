import GRDB
import GRDBSQLite
import Series

/// Reads the blocks of one series after another from a connection.
///
/// A query reads those of ten thousands of series: what a row costs beside SQLite's own work is what the query takes.
/// So the statement is stepped by SQLite's own calls, and a block is decoded from where SQLite holds it.
struct BlockRows {
    private let statement: Statement
    private let connection: SQLiteConnection?

    init(_ db: Database) throws {
        connection = db.sqliteConnection
        // The block that holds the start begins before it; none that ends before it can follow.
        statement = try db.cachedStatement(
            sql: """
                SELECT data FROM blocks WHERE series_id = ?1 AND start_ms <= ?3 AND start_ms >= ifnull((
                    SELECT max(start_ms) FROM blocks WHERE series_id = ?1 AND start_ms <= ?2
                ), -9223372036854775808) AND end_ms >= ?2 ORDER BY start_ms
                """)
    }

    /// Calls `body` with each block that may hold samples of the range, the oldest first.
    ///
    /// - Throws: `DatabaseError`, and what `body` throws.
    func read(
        _ id: SeriesID, fromMs: Int64, throughMs: Int64, _ body: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        let raw = statement.sqliteStatement
        defer { sqlite3_reset(raw) }
        sqlite3_bind_int64(raw, 1, id.rawValue)
        sqlite3_bind_int64(raw, 2, fromMs)
        sqlite3_bind_int64(raw, 3, throughMs)
        while true {
            switch sqlite3_step(raw) {
            case SQLITE_ROW:
                let bytes = UnsafeRawBufferPointer(
                    start: sqlite3_column_blob(raw, 0), count: Int(sqlite3_column_bytes(raw, 0)))
                try body(bytes)
            case SQLITE_DONE: return
            case let code:
                throw DatabaseError(
                    resultCode: ResultCode(rawValue: code),
                    message: sqlite3_errmsg(connection).map { String(cString: $0) })
            }
        }
    }
}
