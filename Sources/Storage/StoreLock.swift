import Foundation

/// The right to write to a store: an advisory lock on a file in its directory, gone with the process.
package final class StoreLock: Sendable {
    private let descriptor: Int32

    /// - Throws: ``StoreError`` with the code `locked` where another process has the lock.
    init(directory: String) throws {
        let path = directory + "/lock"
        descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw StoreError(code: .failed, path: path, reason: String(cString: strerror(errno)))
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            Foundation.close(descriptor)
            throw StoreError(
                code: .locked, path: directory,
                reason: "another upgrade-watch process writes to this store; stop it, or name another directory")
        }
    }

    func release() { flock(descriptor, LOCK_UN) }

    deinit {
        // A process that is started at this moment has the descriptor until it runs its own program: closing ours alone
        // would leave the lock to it.
        release()
        Foundation.close(descriptor)
    }
}
