import Foundation
import TestSupport

/// The program as it was built beside the tests.
enum Binary {
    static let path: String = {
        let folder = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path
        let built = [
            "\(folder)/upgrade-watch", Shared.root + "/.build/release/upgrade-watch",
            Shared.root + "/.build/debug/upgrade-watch",
        ]
        return built.first { FileManager.default.isExecutableFile(atPath: $0) } ?? built[0]
    }()

    static let recording = Shared.root + "/demo/recording"

    static func run(_ arguments: [String], in directory: TemporaryDirectory) throws -> (
        code: Int32, output: String, errors: String
    ) {
        try Program.run(path, arguments, in: directory.path)
    }
}
