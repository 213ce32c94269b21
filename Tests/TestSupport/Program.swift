import Foundation

/// A program that a test starts, by the system's own calls: Foundation's `Process` may wait for ever for its end where
/// many tests run at once.
package final class Program: Sendable {
    package let pid: pid_t
    private let output: String
    private let errors: String

    /// Starts a program with its output in files of a directory.
    ///
    /// - Throws: `ProgramError` where it can't be started.
    package init(_ path: String, _ arguments: [String], in directory: String, environment: [String: String] = [:])
        throws
    {
        let name = UUID().uuidString
        output = "\(directory)/\(name).out"
        errors = "\(directory)/\(name).err"
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_APPEND, 0o644)
        posix_spawn_file_actions_addopen(&actions, 2, errors, O_WRONLY | O_CREAT | O_APPEND, 0o644)
        let words = ([path] + arguments).map { strdup($0) }
        let variables = ProcessInfo.processInfo.environment.merging(environment) { $1 }.map { strdup("\($0)=\($1)") }
        defer { (words + variables).forEach { free($0) } }
        var pid = pid_t()
        let result = posix_spawn(&pid, path, &actions, nil, words + [nil], variables + [nil])
        guard result == 0 else { throw ProgramError(description: "\(path): \(String(cString: strerror(result)))") }
        self.pid = pid
    }

    package func send(_ signal: Int32) { kill(pid, signal) }

    /// Waits for the end; the exit code, or the negative number of the signal that ended it.
    @discardableResult
    package func wait() -> Int32 {
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        return status & 0x7f == 0 ? (status >> 8) & 0xff : -(status & 0x7f)
    }

    package var standardOutput: String { (try? String(contentsOfFile: output, encoding: .utf8)) ?? "" }
    package var standardError: String { (try? String(contentsOfFile: errors, encoding: .utf8)) ?? "" }

    /// Runs a program to its end.
    package static func run(
        _ path: String, _ arguments: [String], in directory: String, environment: [String: String] = [:]
    ) throws -> (code: Int32, output: String, errors: String) {
        let program = try Program(path, arguments, in: directory, environment: environment)
        let code = program.wait()
        return (code, program.standardOutput, program.standardError)
    }
}

package struct ProgramError: Error, CustomStringConvertible {
    package var description: String

    package init(description: String) { self.description = description }
}
