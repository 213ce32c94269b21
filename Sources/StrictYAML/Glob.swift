import Foundation

/// File names with `*`, `?` and `[…]` in their last part.
package enum Glob {
    /// The files that a path means, sorted; the path itself where it has no special character and exists.
    package static func expand(_ path: String) -> [String] {
        let folder = (path as NSString).deletingLastPathComponent
        let last = (path as NSString).lastPathComponent
        guard last.contains(where: { "*?[".contains($0) }) else {
            return FileManager.default.fileExists(atPath: path) ? [path] : []
        }
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.isEmpty ? "." : folder)) ?? []
        return names.filter { fnmatch(last, $0, FNM_PERIOD) == 0 }.sorted().map {
            folder.isEmpty ? $0 : folder + "/" + $0
        }
    }
}
