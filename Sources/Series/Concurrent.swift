import Dispatch
import Foundation
import Synchronization

/// Work on several cores that leaves the threads alone on which tasks run.
///
/// Dispatch has as many threads of a class as there are cores. Those of the default class run Swift's tasks: requests are
/// answered there, and it is there that clocks are looked at. `DispatchQueue.concurrentPerform` takes them all.
package enum Concurrent {
    /// Where what takes long belongs.
    package static var queue: DispatchQueue { .global(qos: .utility) }

    /// Calls `body` with each number below `count`: on this thread, and beside it where a thread of ``queue`` is free.
    ///
    /// Returns when all calls are over. It never waits for a thread to come free, so it may be called on any, also within
    /// another's `body`.
    package static func perform(_ count: Int, _ body: @Sendable (Int) -> Void) {
        let helpers = min(count, ProcessInfo.processInfo.activeProcessorCount) - 1
        guard helpers > 0 else {
            for number in 0..<count { body(number) }
            return
        }
        withoutActuallyEscaping(body) { body in
            let work = Work(count, body)
            for _ in 0..<helpers { queue.async { work.help() } }
            work.help()
            work.end()
        }
    }

    /// Numbers that several threads take one after another.
    private final class Work: Sendable {
        private struct State {
            var next = 0
            /// nil once it is over: who comes later must not call it.
            var body: (@Sendable (Int) -> Void)?
            var helping = 0
            var isAwaited = false
        }

        private let count: Int
        private let state: Mutex<State>
        private let isDone = DispatchSemaphore(value: 0)

        init(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
            self.count = count
            state = Mutex(State(body: body))
        }

        /// Does what is left, until nothing is.
        func help() {
            state.withLock { $0.helping += 1 }
            takeAll()
            let isLast = state.withLock { state in
                state.helping -= 1
                guard state.isAwaited, state.helping == 0 else { return false }
                state.isAwaited = false
                return true
            }
            if isLast { isDone.signal() }
        }

        /// A function of its own: nothing holds the body when it returns.
        @inline(never)
        private func takeAll() {
            guard let body = state.withLock({ $0.body }) else { return }
            while let number = take() { body(number) }
        }

        private func take() -> Int? {
            state.withLock { state in
                guard state.next < count else { return nil }
                state.next += 1
                return state.next - 1
            }
        }

        /// Waits for those who help, and lets nobody begin any more.
        func end() {
            let waits = state.withLock { state in
                state.body = nil
                state.isAwaited = state.helping > 0
                return state.isAwaited
            }
            if waits { isDone.wait() }
        }
    }
}

extension Array where Element: Sendable {
    /// Changes every element in place, several at a time: one on each core.
    ///
    /// For few and large pieces of work that share nothing; which is done first is not said. The caller waits for all.
    ///
    /// - Throws: the error of the first element, by its place, that threw; the others are changed nevertheless.
    package mutating func mutateConcurrently(_ body: @Sendable (inout Element) throws -> Void) throws {
        guard count > 1 else {
            for index in indices { try body(&self[index]) }
            return
        }
        // Each element is moved out and back: what it holds is not copied.
        let slots = Mutex<[Element?]>(self)
        let count = self.count
        removeAll()
        let errors = Mutex<[Int: any Error]>([:])
        Concurrent.perform(count) { index in
            guard var element = slots.withLock({ $0[index].take() }) else { return }
            do { try body(&element) } catch { errors.withLock { $0[index] = error } }
            slots.withLock { [element] in $0[index] = element }
        }
        self = slots.withLock { $0.compactMap { $0 } }
        if let first = errors.withLock({ $0.min { $0.key < $1.key }?.value }) { throw first }
    }

    /// The results for every element, in their order, made several at a time as ``mutateConcurrently(_:)`` does.
    ///
    /// - Throws: the error of the first element, by its place, that threw.
    package func concurrentMap<Result: Sendable>(
        _ transform: @Sendable (Element) throws -> Result
    ) throws -> [Result] {
        var slots = map { (element: $0, result: Result?.none) }
        try slots.mutateConcurrently { $0.result = try transform($0.element) }
        return slots.compactMap(\.result)
    }
}
