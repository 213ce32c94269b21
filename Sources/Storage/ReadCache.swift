import Synchronization

/// What queries of a few series have read lately: frames of blocks, and times of rows, unpacked.
///
/// A dashboard asks for the same series again and again, and a series is unpacked with the 63 others of its frame. A block is
/// written once; where one is deleted, and a try to write it may be followed by another, all is forgotten.
final class ReadCache: Sendable {
    /// A frame's place in the file.
    struct FrameKey: Hashable {
        var generation: Int64
        var bucket: Int
        var frame: Int
    }

    /// Queries of more series keep the times of rows for themselves, and no frames.
    static let mostSeries = 64
    /// Of each kind; once there is more all of it goes.
    private static let mostBytes = 16 << 20

    private struct Kept<Key: Hashable & Sendable, Value: Sendable>: Sendable {
        private(set) var values: [Key: Value] = [:]
        private var bytes = 0

        mutating func add(_ value: Value, _ size: Int, for key: Key) {
            if bytes + size > ReadCache.mostBytes { removeAll() }
            if values.updateValue(value, forKey: key) == nil { bytes += size }
        }

        mutating func removeAll() {
            values.removeAll()
            bytes = 0
        }
    }

    private struct State {
        /// nil for a frame that has no series.
        var frames = Kept<FrameKey, BlockFrame?>()
        /// By the ids of the table `times`.
        var times = Kept<Int64, [Int64]>()
        /// How often all was forgotten.
        var epoch = 0
    }

    private let state = Mutex(State())

    /// What a query reads belongs to the epoch in which it began to: asked for before its transaction begins.
    var epoch: Int { state.withLock { $0.epoch } }

    /// - Returns: nil for one that is not here.
    func frame(_ key: FrameKey, epoch: Int) -> BlockFrame?? {
        state.withLock { $0.epoch == epoch ? $0.frames.values[key] : nil }
    }

    func times(_ id: Int64, epoch: Int) -> [Int64]? {
        state.withLock { $0.epoch == epoch ? $0.times.values[id] : nil }
    }

    func add(_ frame: BlockFrame?, _ key: FrameKey, epoch: Int) {
        state.withLock { if $0.epoch == epoch { $0.frames.add(frame, 64 + (frame?.size ?? 0), for: key) } }
    }

    func add(_ rows: [Int64], _ id: Int64, epoch: Int) {
        state.withLock { if $0.epoch == epoch { $0.times.add(rows, 64 + 8 * rows.count, for: id) } }
    }

    /// To be called once blocks were deleted.
    func forget() {
        state.withLock { state in
            state.frames.removeAll()
            state.times.removeAll()
            state.epoch += 1
        }
    }
}
