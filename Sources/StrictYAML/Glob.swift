import Foundation

/// File names with `*`, `?` and `[…]` in their last part.
package enum Glob {
    /// The files that a path means, sorted; the path itself where it has no special character and exists.
    package static func expand(_ path: String) -> [String] {
        let last = path.split(separator: "/").last.map(String.init) ?? path
        guard last.contains(where: { "*?[".contains($0) }) else {
            return FileManager.default.fileExists(atPath: path) ? [path] : []
        }
        let names = (try? FileManager.default.contentsOfDirectory(atPath: path.folderOfPath)) ?? []
        return names.filter { fnmatch(last, $0, FNM_PERIOD) == 0 }.sorted().map {
            path.contains("/") ? path.folderOfPath + "/" + $0 : $0
        }
    }
}
