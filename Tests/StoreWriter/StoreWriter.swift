import Foundation
import Series
import Storage
import TestSupport

/// Writes into a store until it is killed, and says after each flush how far it has come: `store-writer DIRECTORY SEED`.
///
/// The sample of series k at time t is t * (k + 1); times follow each other, from the one after the newest in the store.
@main
struct StoreWriter {
    static let series = 40

    static func main() throws {
        var random = SeededRandom(seed: UInt64(CommandLine.arguments[2]) ?? 0)
        let store = try Store(directory: CommandLine.arguments[1])
        var time = try store.timeRange()?.upperBound ?? 0
        while true {
            let source = store.source(["job": "j"])
            let ids = store.ids(for: (0..<series).map { ["__name__": "m\($0 % 3)", "job": "j", "k": "\($0)"] })
            for _ in 0..<Int.random(in: 1...50, using: &random) {
                time += 1
                _ = store.append((0..<series).map { Double($0 + 1) * Double(time) }, of: ids, from: source, atMs: time)
            }
            try store.flush()
            FileHandle.standardOutput.write(Data("\(time)\n".utf8))
            if Int.random(in: 0..<5, using: &random) == 0 { try store.checkpoint() }
        }
    }
}
