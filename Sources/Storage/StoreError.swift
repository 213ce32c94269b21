/// A store that can't be opened, read or written.
package struct StoreError: Error, CustomStringConvertible {
    package enum Code: Sendable {
        /// There is no store in the directory.
        case notFound
        /// Another process writes to it.
        case locked
        /// It was made by a newer version of the program.
        case newerVersion
        /// The file is not a store, or a part of it is damaged.
        case unreadable
        /// The disk is full.
        case full
        /// Any other fault of the file system or SQLite.
        case failed
    }

    package var code: Code
    package var path: String
    package var reason: String

    package init(code: Code, path: String, reason: String) {
        self.code = code
        self.path = path
        self.reason = reason
    }

    package var description: String { "\(path): \(reason)" }
}
