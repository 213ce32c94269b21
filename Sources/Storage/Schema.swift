import GRDB

/// The tables of `metrics.db`; `docs/storage-format.md` says what is in them.
enum Schema {
    static func migrate(_ database: any DatabaseWriter, path: String, readOnly: Bool) throws {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("storage-2") { db in
            try db.execute(
                sql: """
                    CREATE TABLE buckets (
                        id INTEGER PRIMARY KEY, name TEXT NOT NULL, series INTEGER NOT NULL, labels BLOB NOT NULL,
                        labels_size INTEGER NOT NULL
                    );
                    CREATE TABLE newest (
                        bucket INTEGER PRIMARY KEY, last_ms INTEGER NOT NULL, ages BLOB NOT NULL,
                        ages_size INTEGER NOT NULL
                    );
                    CREATE TABLE generations (
                        id INTEGER PRIMARY KEY, start_ms INTEGER NOT NULL, end_ms INTEGER NOT NULL,
                        samples INTEGER NOT NULL
                    );
                    CREATE TABLE times (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
                    CREATE TABLE blocks (
                        id INTEGER PRIMARY KEY, bucket INTEGER NOT NULL, start_ms INTEGER NOT NULL,
                        end_ms INTEGER NOT NULL, samples INTEGER NOT NULL, counts BLOB NOT NULL,
                        counts_size INTEGER NOT NULL, data BLOB NOT NULL
                    );
                    CREATE INDEX blocks_of_bucket ON blocks (bucket, start_ms, end_ms);
                    CREATE TABLE journal (id INTEGER PRIMARY KEY, generation INTEGER NOT NULL, data BLOB NOT NULL);
                    CREATE TABLE metadata (
                        name TEXT PRIMARY KEY, type TEXT NOT NULL, help TEXT NOT NULL, unit TEXT NOT NULL
                    ) WITHOUT ROWID;
                    """)
        }
        let applied = try database.read { db -> Set<String> in
            try db.tableExists("grdb_migrations")
                ? Set(try String.fetchAll(db, sql: "SELECT identifier FROM grdb_migrations")) : []
        }
        if applied.contains("storage-1") {
            throw StoreError(
                code: .unreadable, path: path,
                reason: "the store is of a layout from before the first release, which is read no more; "
                    + "move the directory away, or name another")
        }
        if !applied.isSubset(of: migrator.migrations) {
            throw StoreError(
                code: .newerVersion, path: path,
                reason: "the store was written by a newer version of upgrade-watch; use that version, "
                    + "or another directory")
        }
        if !readOnly { try migrator.migrate(database) }
    }

    /// How a row of `blocks` or `times` is numbered: by its generation, then as they come.
    static func id(generation: Int64, _ number: Int) -> Int64 { generation << 32 | Int64(number) }
}
