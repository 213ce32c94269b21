import Synchronization

/// What stops a query from outside, and what it may hold.
///
/// The engine never asks a clock: who gives a query a time calls ``expire()`` when it is over. Any thread may.
package final class QueryControl: Sendable {
    private enum Stop {
        static let no: UInt8 = 0
        static let canceled: UInt8 = 1
        static let expired: UInt8 = 2
    }

    private let stop = Atomic<UInt8>(Stop.no)
    private let held = Atomic<Int>(0)
    private let peak = Atomic<Int>(0)
    private let read = Atomic<Int>(0)
    private let budget: QueryBudget?

    /// - Parameter budget: what all queries that run may hold together.
    package init(budget: QueryBudget? = nil) { self.budget = budget }

    deinit { budget?.release(held.load(ordering: .relaxed)) }

    /// The most samples that were held at a time.
    package var peakSamples: Int { peak.load(ordering: .relaxed) }
    /// The samples that were read from the source.
    package var samplesRead: Int { read.load(ordering: .relaxed) }

    func noteRead(_ samples: Int) { read.add(samples, ordering: .relaxed) }

    /// Ends the query: nobody waits for its answer any more.
    package func cancel() { _ = stop.compareExchange(expected: Stop.no, desired: Stop.canceled, ordering: .relaxed) }

    /// Ends the query: its time is over.
    package func expire() { _ = stop.compareExchange(expected: Stop.no, desired: Stop.expired, ordering: .relaxed) }

    /// - Throws: ``PromQLError`` in Prometheus' words once the query was stopped.
    package func check() throws(PromQLError) {
        switch stop.load(ordering: .relaxed) {
        case Stop.no: return
        case Stop.expired: throw PromQLError(.timeout, "query timed out in expression evaluation")
        default: throw PromQLError(.canceled, "query was canceled in expression evaluation")
        }
    }

    /// The samples that the query holds in memory.
    var samplesHeld: Int { held.load(ordering: .relaxed) }

    /// Holds more samples.
    ///
    /// - Throws: ``PromQLError`` where these are more than `most` (Prometheus' `--query.max-samples`).
    func hold(_ samples: Int, most: Int) throws(PromQLError) {
        let (sum, overflow) = samplesHeld.addingReportingOverflow(samples)
        guard !overflow, sum <= most else { throw QueryControl.tooManySamples }
        let now = held.add(samples, ordering: .relaxed).newValue
        budget?.hold(samples)
        peak.max(now, ordering: .relaxed)
        guard now <= most, budget?.isKept ?? true else { throw QueryControl.tooManySamples }
    }

    /// Lets go of what was held beyond a number.
    func release(to samples: Int) {
        let before = held.exchange(samples, ordering: .relaxed)
        budget?.release(before - samples)
    }

    static let tooManySamples = PromQLError(
        .execution, "query processing would load too many samples into memory in query execution")
}

/// The samples that all queries of a server may hold together.
package final class QueryBudget: Sendable {
    private let most: Int
    private let held = Atomic<Int>(0)

    package init(samples: Int) { most = samples }

    var isKept: Bool { held.load(ordering: .relaxed) <= most }

    func hold(_ samples: Int) { held.add(samples, ordering: .relaxed) }
    func release(_ samples: Int) { held.subtract(samples, ordering: .relaxed) }
}
