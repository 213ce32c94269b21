import Exposition
import Foundation
import Synchronization

/// Arrays that many sessions have alike, kept once: the kubelets of a fleet expose the same series under the same names.
package final class SharedArrays: Sendable {
    /// A larger array is an API server's, of which there are few.
    private static let mostBytes = 256 << 10
    /// How many different arrays are known at a time; those that are forgotten live on where they are used.
    private static let mostArrays = 1024

    /// An array by the memory that it takes: element by element a hash takes ten times as long.
    private struct Known<Element: BitwiseCopyable & Sendable>: Hashable, Sendable {
        var array: [Element]

        func hash(into hasher: inout Hasher) { array.withUnsafeBytes { hasher.combine(bytes: $0) } }

        static func == (left: Known, right: Known) -> Bool {
            left.array.count == right.array.count
                && left.array.withUnsafeBytes { left in
                    right.array.withUnsafeBytes { right in
                        guard let one = left.baseAddress, let other = right.baseAddress else { return true }
                        return memcmp(one, other, left.count) == 0
                    }
                }
        }
    }

    private let texts = Mutex<Set<Known<UInt8>>>([])
    private let numbers = Mutex<Set<Known<Int32>>>([])
    private let spans = Mutex<Set<Known<ExpositionPrediction.Span>>>([])

    package init() {}

    /// The same bytes, in memory that others share.
    ///
    /// - Complexity: O(n), and no more memory than `n` needs: what an array has room for beyond it is given back.
    func text(_ bytes: [UInt8]) -> [UInt8] { SharedArrays.known(bytes, texts) }

    func numbers(_ numbers: [Int32]) -> [Int32] { SharedArrays.known(numbers, self.numbers) }

    func spans(_ spans: [ExpositionPrediction.Span]) -> [ExpositionPrediction.Span] {
        SharedArrays.known(spans, self.spans)
    }

    private static func known<Element: BitwiseCopyable & Sendable>(
        _ array: [Element], _ pool: borrowing Mutex<Set<Known<Element>>>
    ) -> [Element] {
        guard array.count * MemoryLayout<Element>.stride <= mostBytes else { return fitted(array) }
        return pool.withLock { pool in
            if let index = pool.firstIndex(of: Known(array: array)) { return pool[index].array }
            if pool.count >= mostArrays { pool.removeAll() }
            let fitted = fitted(array)
            pool.insert(Known(array: fitted))
            return fitted
        }
    }

    /// A copy without room to grow.
    static func fitted<Element>(_ array: [Element]) -> [Element] { array.withUnsafeBufferPointer { Array($0) } }
}
