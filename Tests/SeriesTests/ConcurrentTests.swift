import Series
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
}
