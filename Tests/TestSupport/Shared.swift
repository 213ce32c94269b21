import Foundation

/// The folder with recordings and knowledge that lies beside the project where it is developed.
///
/// A user's clone has none: tests that need it are skipped there, and say so.
package enum Shared {
    /// The project's root folder.
    package static let root: String = {
        var url = URL(fileURLWithPath: #filePath)
        for _ in 0..<3 { url.deleteLastPathComponent() }
        return url.path
    }()

    package static func path(_ relative: String) -> String { root + "/../shared/" + relative }

    package static var isThere: Bool { FileManager.default.fileExists(atPath: path("README.md")) }

    /// A file of the tests themselves.
    package static func fixture(_ relative: String) -> String { root + "/Tests/Fixtures/" + relative }
}
