import Foundation
import Logging
import Scrape
import Series
import StrictYAML

/// Targets from files that are read again when they change (`file_sd_configs`).
package struct FileDiscovery: Sendable, Equatable {
    /// Paths, with `*`, `?` and `[…]` in the last part.
    package var files: [String]
    /// How often files are read again that do not look changed.
    package var refreshMs: Int64 = 300_000

    package init(files: [String]) { self.files = files }

    /// Changes are looked for so often: some file systems tell nobody of theirs.
    private static let pollMs: Int64 = 1000
    /// What a list of targets may have.
    private static let maxBytes = 64 << 20

    /// What tells that a file has changed.
    private struct Stamp: Equatable {
        var inode: UInt64
        var size: UInt64
        var modified: Date
    }

    func run(_ context: DiscoveryContext, found: DiscoveryContext.Found) async {
        var stamps: [String: Stamp] = [:]
        var groups: [String: [TargetGroup]] = [:]
        var problems: [String: String] = [:]
        var readMs = Int64.min
        while !Task.isCancelled {
            let nowMs = context.time.nowMs
            let paths = files.flatMap { Glob.expand($0) }
            let now = Dictionary(paths.compactMap { path in stamp(path).map { (path, $0) } }) { $1 }
            if readMs == .min || now != stamps || nowMs - readMs >= refreshMs {
                for path in groups.keys where now[path] == nil { groups[path] = nil }
                for (path, stamp) in now {
                    do {
                        groups[path] = try read(path, size: stamp.size)
                        problems[path] = nil
                        context.board.countUpdate("file")
                    } catch {
                        context.board.countFailure("file")
                        if problems.updateValue("\(error)", forKey: path) != "\(error)" {
                            context.logger.error(
                                "a file of targets can't be read, those that it had stay",
                                metadata: ["file": "\(path)", "error": "\(error)"])
                        }
                    }
                }
                stamps = now
                readMs = nowMs
                found(groups.sorted { $0.key < $1.key }.flatMap(\.value), true)
            }
            try? await context.time.sleep(untilMs: nowMs + FileDiscovery.pollMs)
        }
    }

    private func stamp(_ path: String) -> Stamp? {
        guard let attributes = try? FileManager.default.attributesOfItem(atPath: path) else { return nil }
        return Stamp(
            inode: (attributes[.systemFileNumber] as? NSNumber)?.uint64Value ?? 0,
            size: (attributes[.size] as? NSNumber)?.uint64Value ?? 0,
            modified: attributes[.modificationDate] as? Date ?? .distantPast)
    }

    private func read(_ path: String, size: UInt64) throws -> [TargetGroup] {
        guard size <= FileDiscovery.maxBytes, let data = FileManager.default.contents(atPath: path) else {
            let reason =
                size > FileDiscovery.maxBytes ? "the file is larger than 64 MB" : "the file can't be read"
            throw YAMLProblems([YAMLProblem(file: path, line: 1, column: 1, reason: reason)])
        }
        let list = try TargetList(text: String(decoding: data, as: UTF8.self), file: path)
        return list.targetGroups(source: "\(path):", from: Label("__meta_filepath", path))
    }
}
