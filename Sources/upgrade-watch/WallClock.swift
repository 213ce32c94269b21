import Foundation
import Series

/// The time of day.
///
/// Nothing but the commands asks for it; all else gets a ``TimeSource``.
struct WallClock: TimeSource {
    var nowMs: Int64 { Int64(Date().timeIntervalSince1970 * 1000) }

    func sleep(untilMs: Int64) async throws {
        let ms = untilMs - nowMs
        try await Task.sleep(for: .milliseconds(max(0, ms)))
    }
}
