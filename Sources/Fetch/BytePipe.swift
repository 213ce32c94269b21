import Synchronization

/// Carries the body of a long answer from the client's thread to a reader, with a bound on what waits between them.
///
/// One reader at a time.
package final class BytePipe: Sendable {
    private struct State {
        var bytes: [UInt8] = []
        var isFinished = false
        var waiter: CheckedContinuation<[UInt8]?, Never>?
        /// Set while the transfer waits for the reader.
        var resume: (@Sendable () -> Void)?
    }

    private let limit: Int
    private let state = Mutex(State())

    /// - Parameter limit: bytes that may wait for the reader; the transfer stands still beyond it.
    package init(limit: Int = 4 << 20) { self.limit = limit }

    /// The bytes that came since the last call; waits for some, and is nil at the end.
    package func next() async -> [UInt8]? {
        await withCheckedContinuation { continuation in
            let (now, resume) = state.withLock { state -> ([UInt8]??, (@Sendable () -> Void)?) in
                if !state.bytes.isEmpty {
                    defer {
                        state.bytes = []
                        state.resume = nil
                    }
                    return (.some(state.bytes), state.resume)
                }
                if state.isFinished { return (.some(nil), nil) }
                state.waiter = continuation
                return (nil, nil)
            }
            resume?()
            if let now { continuation.resume(returning: now) }
        }
    }

    /// Takes bytes in.
    ///
    /// - Parameter resume: called once there is room again.
    /// - Returns: false where there is no room: nothing was taken.
    func push(_ bytes: UnsafeRawBufferPointer, resume: @escaping @Sendable () -> Void) -> Bool {
        let (taken, waiter, chunk) = state.withLock {
            state -> (Bool, CheckedContinuation<[UInt8]?, Never>?, [UInt8]) in
            guard state.bytes.count < limit else {
                state.resume = resume
                return (false, nil, [])
            }
            guard let waiter = state.waiter else {
                state.bytes.append(contentsOf: bytes)
                return (true, nil, [])
            }
            state.waiter = nil
            return (true, waiter, [UInt8](bytes))
        }
        waiter?.resume(returning: chunk)
        return taken
    }

    /// Takes in that no more bytes will come.
    package func finish() {
        state.withLock { state in
            state.isFinished = true
            defer { state.waiter = nil }
            return state.waiter
        }?.resume(returning: nil)
    }
}

/// Cuts bytes into lines as they come.
package struct LineSplitter {
    private var rest: [UInt8] = []
    /// How far `rest` was searched already.
    private var searched = 0
    private let maxLineBytes: Int
    private var isSkipping = false
    /// Lines that were longer than the limit, and left out.
    package private(set) var tooLong = 0

    package init(maxLineBytes: Int) { self.maxLineBytes = maxLineBytes }

    /// The whole lines that end in these bytes, without their line breaks and without empty ones.
    package mutating func add(_ bytes: [UInt8]) -> [[UInt8]] {
        var lines: [[UInt8]] = []
        rest.append(contentsOf: bytes)
        var start = 0
        while let end = rest[max(start, searched)...].firstIndex(of: UInt8(ascii: "\n")) {
            if isSkipping {
                isSkipping = false
            } else if end > start {
                lines.append(Array(rest[start..<end]))
            }
            start = end + 1
        }
        rest.removeFirst(start)
        if rest.count > maxLineBytes {
            if !isSkipping { tooLong += 1 }
            isSkipping = true
        }
        if isSkipping { rest.removeAll(keepingCapacity: true) }
        searched = rest.count
        return lines
    }
}
