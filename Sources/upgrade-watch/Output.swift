import Foundation
import Logging

/// Where a command's words go.
enum Output {
    /// Writes to standard output.
    static func text(_ text: String) {
        FileHandle.standardOutput.write(Data(text.utf8))
    }

    /// Writes a line to standard error, with the program's name.
    static func error(_ text: String) {
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            FileHandle.standardError.write(Data("upgrade-watch: \(line)\n".utf8))
        }
    }

    /// What logs to standard error.
    static func logger(_ level: Logger.Level) -> Logger {
        var logger = Logger(label: "upgrade-watch", factory: { StreamLogHandler.standardError(label: $0) })
        logger.logLevel = level
        return logger
    }

    /// Whether standard output shows colours: a terminal, and the user has not said no (no-color.org).
    static var isColored: Bool {
        isatty(STDOUT_FILENO) == 1 && (ProcessInfo.processInfo.environment["NO_COLOR"] ?? "").isEmpty
    }
}

/// A bar on standard error, where that is a terminal.
struct Progress {
    private let isShown = isatty(STDERR_FILENO) == 1
    private var shown = -1

    mutating func show(_ share: Double) {
        let percent = min(100, Int(share * 100))
        guard isShown, percent != shown else { return }
        shown = percent
        let done = String(repeating: "=", count: percent / 4)
        let rest = String(repeating: " ", count: 25 - percent / 4)
        FileHandle.standardError.write(Data("\r[\(done)\(rest)] \(percent) %".utf8))
    }

    func finish() {
        if isShown, shown >= 0 { FileHandle.standardError.write(Data("\r\u{1b}[K".utf8)) }
    }
}
