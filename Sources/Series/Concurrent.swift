import Dispatch
import Synchronization

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
        DispatchQueue.concurrentPerform(iterations: count) { index in
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
