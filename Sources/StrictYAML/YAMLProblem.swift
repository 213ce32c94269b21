/// A fault in a YAML file, with its place.
package struct YAMLProblem: Error, Equatable, Sendable, CustomStringConvertible {
    package var file: String
    /// Counted from 1.
    package var line: Int
    /// In characters, counted from 1.
    package var column: Int
    /// What is wrong, with the offending text and the remedy.
    package var reason: String

    package init(file: String, line: Int, column: Int, reason: String) {
        self.file = file
        self.line = line
        self.column = column
        self.reason = reason
    }

    package var description: String { "\(file):\(line):\(column): \(reason)" }
}

/// All that is wrong with a file or a set of files.
package struct YAMLProblems: Error, Sendable, CustomStringConvertible {
    package var problems: [YAMLProblem]

    package init(_ problems: [YAMLProblem]) { self.problems = problems }

    package var description: String { problems.map(\.description).joined(separator: "\n") }
}
