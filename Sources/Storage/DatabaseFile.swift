import Foundation
import GRDB

/// One of the SQLite files of a store, looked at from outside: while a service writes to it, or after it came to harm.
package enum DatabaseFile {
    /// How many findings of SQLite's own check are told.
    private static let mostFindings = 20

    /// Copies a file as it is at one moment, also while another process writes to it: by SQLite's `VACUUM INTO`
    /// (sqlite.org/lang_vacuum.html), which reads it in one transaction and leaves free pages out.
    ///
    /// - Parameter target: a file that does not exist. Where the copy fails, none is left.
    /// - Throws: ``StoreError``.
    package static func copy(_ path: String, to target: String) throws {
        do {
            let source = try DatabaseQueue(path: path, configuration: readOnly)
            try source.inDatabase { try $0.execute(sql: "VACUUM INTO ?", arguments: [target]) }
            try source.close()
            // SQLite does not wait for the disk here.
            let copy = try FileHandle(forUpdating: URL(filePath: target))
            try copy.synchronize()
            try copy.close()
        } catch {
            for suffix in ["", "-wal", "-shm", "-journal"] {
                try? FileManager.default.removeItem(atPath: target + suffix)
            }
            throw Store.error(error, path: target)
        }
    }

    /// What SQLite finds wrong with a file's pages and indexes; empty where it is whole.
    ///
    /// - Throws: ``StoreError`` where it is no database at all.
    package static func findings(_ path: String) throws -> [String] {
        do {
            let database = try DatabaseQueue(path: path, configuration: readOnly)
            return try database.read { db in
                try String.fetchAll(db, sql: "PRAGMA integrity_check(\(mostFindings))").filter { $0 != "ok" }
            }
        } catch {
            throw Store.error(error, path: path)
        }
    }

    static var readOnly: Configuration {
        var configuration = Configuration()
        configuration.readonly = true
        configuration.busyMode = .timeout(10)
        return configuration
    }
}
