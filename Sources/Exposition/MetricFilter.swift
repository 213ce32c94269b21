import Foundation
import Synchronization

/// Says by its name whether a metric is wanted, so that a parser passes over the lines of one that is not.
///
/// Answers are remembered, and shared by all targets whose metrics are chosen in the same way: a fleet has many lines and
/// few names.
package final class MetricFilter: Sendable {
    private struct Answer {
        var name: [UInt8]
        var keeps: Bool
    }

    /// What is remembered, by hash: of two names with the same one only the first.
    private typealias Answers = Mutex<[UInt64: Answer]>

    /// How many names are remembered; a target that sends more makes the filter slow, not large.
    private static let mostNames = 16_384
    /// What the series of a family may have behind its name.
    private static let suffixes = ["", "_total", "_bucket", "_count", "_sum", "_created", "_info"]

    private let decide: @Sendable (String) -> Bool
    private let metrics = Answers([:])
    private let families = Answers([:])

    /// - Parameter decide: whether series with a metric name are kept; asked about once a name.
    package init(_ decide: @escaping @Sendable (String) -> Bool) { self.decide = decide }

    /// Whether series with this name are kept.
    ///
    /// - Complexity: O(length of the name), without an allocation for a name that was asked for before.
    func keeps(_ name: UnsafeBufferPointer<UInt8>) -> Bool { MetricFilter.answer(name, metrics, decide) }

    /// The same for a name that was read already, as one is that stands in braces.
    package func keeps(_ name: String) -> Bool { decide(name) }

    /// Whether any series of a family, which is what a comment names, are kept.
    func keepsFamily(_ name: UnsafeBufferPointer<UInt8>) -> Bool {
        MetricFilter.answer(name, families) { name in MetricFilter.suffixes.contains { decide(name + $0) } }
    }

    private static func answer(
        _ name: UnsafeBufferPointer<UInt8>, _ answers: borrowing Answers, _ decide: (String) -> Bool
    ) -> Bool {
        let hash = ExpositionParser.hash(name)
        let known: Bool? = answers.withLock { answers in
            guard let answer = answers[hash], answer.name.count == name.count, let base = name.baseAddress else {
                return nil
            }
            return memcmp(answer.name, base, name.count) == 0 ? answer.keeps : nil
        }
        if let known { return known }
        let keeps = decide(String(decoding: name, as: UTF8.self))
        answers.withLock { answers in
            if answers.count >= mostNames { answers.removeAll() }
            if answers[hash] == nil { answers[hash] = Answer(name: Array(name), keeps: keeps) }
        }
        return keeps
    }
}
