import Dispatch
import Foundation
import Series
import Synchronization
import Testing

@Suite struct ConcurrentTests {
    struct Refused: Error, Equatable { var place: Int }

    @Test func resultsKeepTheOrderOfTheirElements() throws {
        let squares = try Array(0..<1_000).concurrentMap { $0 * $0 }
        #expect(squares == (0..<1_000).map { $0 * $0 })
        #expect(try [Int]().concurrentMap { $0 } == [])
        #expect(try [7].concurrentMap { $0 + 1 } == [8])
    }

    @Test func everyElementIsChangedOnce() throws {
        var counts = [Int](repeating: 0, count: 500)
        try counts.mutateConcurrently { $0 += 1 }
        #expect(counts == [Int](repeating: 1, count: 500))
    }

    @Test func theFirstErrorByPlaceIsThrownAndTheOthersAreChanged() {
        var places = Array(0..<100)
        #expect(throws: Refused(place: 30)) {
            try places.mutateConcurrently { place in
                guard place < 30 || place % 10 != 0 else { throw Refused(place: place) }
                place += 1_000
            }
        }
        #expect(places == (0..<100).map { $0 >= 30 && $0 % 10 == 0 ? $0 : $0 + 1_000 })
    }

    /// Whoever calls does all alone where no thread is free, and those that come free later do nothing.
    @Test func busyThreads_areNotWaitedFor() {
        let isFree = DispatchSemaphore(value: 0)
        let workers = ProcessInfo.processInfo.activeProcessorCount
        for _ in 0..<workers { Concurrent.queue.async { isFree.wait() } }
        let calls = Mutex([Int](repeating: 0, count: 100))
        Concurrent.perform(100) { number in calls.withLock { $0[number] += 1 } }
        #expect(calls.withLock { $0 } == [Int](repeating: 1, count: 100))
        for _ in 0..<workers { isFree.signal() }
    }

    @Test func workWithinWork_isDoneOnceEach() {
        let sum = Atomic(0)
        for _ in 0..<200 {
            Concurrent.perform(7) { outer in
                Concurrent.perform(5) { inner in _ = sum.add(outer * 5 + inner, ordering: .relaxed) }
            }
        }
        #expect(sum.load(ordering: .relaxed) == 200 * (0..<35).reduce(0, +))
    }

    /// The threads on which tasks run stay free.
    @Test func tasks_goOnMeanwhile() async {
        let isOver = DispatchSemaphore(value: 0)
        for _ in 0..<2 * ProcessInfo.processInfo.activeProcessorCount {
            Concurrent.queue.async {
                Concurrent.perform(4) { _ in
                    isOver.wait()
                    isOver.signal()
                }
            }
        }
        // Two tasks that wait for each other's steps: with no thread free, they would not come to an end.
        let value = await Task { await Task { 7 }.value }.value
        #expect(value == 7)
        isOver.signal()
    }
}
