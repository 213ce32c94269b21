import Foundation
import Series
import Synchronization

/// A remark on a query that was answered all the same.
package struct Annotation: Sendable, Hashable {
    package enum Level: Sendable { case warning, info }

    /// Of what was lifted in histograms whose counts fell.
    struct Lifted: Sendable, Hashable {
        /// The smallest and the largest bound of a bucket that was lifted.
        var lowest: Double
        var highest: Double
        /// By how much at most.
        var most: Double
        /// The times of the first and the last such histogram, in milliseconds.
        var firstMs: Int64
        var lastMs: Int64
        var count = 1

        init(_ lift: ClassicHistogram.Lift, atMs: Int64) {
            (lowest, highest, most) = (lift.lowest, lift.highest, lift.most)
            (firstMs, lastMs) = (atMs, atMs)
        }

        func merged(with other: Lifted) -> Lifted {
            var all = self
            (all.lowest, all.highest) = (min(lowest, other.lowest), max(highest, other.highest))
            all.most = max(most, other.most)
            (all.firstMs, all.lastMs) = (min(firstMs, other.firstMs), max(lastMs, other.lastMs))
            all.count += other.count
            return all
        }

        /// What Prometheus adds to its remark.
        var words: String {
            // Whole seconds, towards 1970.
            let times = [firstMs, lastMs].map { TimeFormat.rfc3339(ms: $0 / 1000 * 1000) }
            return ", from buckets \(GoFloat.general(lowest)) to \(GoFloat.general(highest)), with a max diff of "
                + "\(GoFloat.general(most, digits: 2)), over \(count) samples from \(times[0]) to \(times[1])"
        }
    }

    package var level: Level
    /// In Prometheus' words; its place at the end once it is known.
    package var text: String
    /// What it is about: an offset in bytes from the expression's start.
    var offset: Int
    var lifted: Lifted?

    init(level: Level, text: String, offset: Int, lifted: Lifted? = nil) {
        self.level = level
        self.text = text
        self.offset = offset
        self.lifted = lifted
    }

    /// With its details and the place at its end, as Prometheus writes it.
    func placed(in source: String) -> Annotation {
        let place = PromQLError.place(of: offset, in: source)
        return Annotation(
            level: level, text: "\(text)\(lifted?.words ?? "") (\(place.line):\(place.column))", offset: offset)
    }

    /// The texts of one level as an answer has them: so many, and how many more there are.
    package static func shown(_ annotations: [Annotation], _ level: Level, most: Int = 10) -> [String] {
        let texts = annotations.filter { $0.level == level }.map(\.text)
        guard texts.count > most else { return texts }
        let kind = level == .warning ? "warning" : "info"
        return texts.prefix(most) + ["\(texts.count - most) more \(kind) annotations omitted"]
    }
}

/// The remarks on one query, made on any thread while its columns are made.
///
/// Remarks of one text are one, as in Prometheus: its place is the last in the expression.
final class Remarks: Sendable {
    private struct Kept {
        var annotations: [String: Annotation] = [:]
        var added = 0
    }

    /// One a series must not fill the memory.
    private static let most = 1000

    private let kept = Mutex(Kept())

    func add(_ annotation: Annotation) {
        kept.withLock { kept in
            kept.added += 1
            guard var known = kept.annotations[annotation.text] else {
                if kept.annotations.count < Remarks.most { kept.annotations[annotation.text] = annotation }
                return
            }
            known.offset = max(known.offset, annotation.offset)
            if let lifted = annotation.lifted { known.lifted = known.lifted?.merged(with: lifted) ?? lifted }
            kept.annotations[annotation.text] = known
        }
    }

    /// How often one was added, also where it was known.
    var added: Int { kept.withLock { $0.added } }

    /// By their places.
    var annotations: [Annotation] {
        kept.withLock { $0.annotations.values.sorted { ($0.offset, $0.text) < ($1.offset, $1.text) } }
    }
}
