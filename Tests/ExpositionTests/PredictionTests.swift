import Exposition
import Series
import TestSupport
import Testing

@Suite struct PredictionTests {
    /// The lines of a body, of which some come and go, change their places, and are no longer or shorter than they were.
    private static func body(_ random: inout SeededRandom) -> String {
        var out = ""
        for name in ["a", "ab", "b_total", "b_total_more"].shuffled(using: &random).prefix(3) {
            if Int.random(in: 0..<4, using: &random) > 0 {
                out += "# HELP \(name) Of \(Int.random(in: 0..<3, using: &random) == 0 ? "another" : "a") kind.\n"
                out += "# TYPE \(name) counter\n"
            }
            for number in 0..<Int.random(in: 0...6, using: &random) where Int.random(in: 0..<5, using: &random) > 0 {
                let labels = ["", "{}", "{n=\"\(number)\"}", "{n=\"\(number)\",quote=\"\\\"}\"}"]
                let values = ["0", "17", "123456789012345", "1234567890123456", "1.5e3", "NaN", "-0", "+5", "007"]
                out += name + labels[Int.random(in: 0..<4, using: &random)]
                out += Bool.random(using: &random) ? " " : "\t "
                out += values[Int.random(in: 0..<values.count, using: &random)]
                out += Int.random(in: 0..<9, using: &random) == 0 ? " 1500\n" : "\n"
            }
        }
        return out
    }

    private static func prediction(
        _ exposition: Exposition, _ bytes: UnsafeBufferPointer<UInt8>
    ) -> ExpositionPrediction {
        ExpositionPrediction(
            text: bytes, series: zip(exposition.starts, exposition.ends).map { .init(start: $0, length: $1 - $0) },
            commentText: bytes, comments: exposition.comments)
    }

    /// Bodies one after another; one time in four the lines are the same.
    private static func eachPair(
        _ count: Int, _ random: inout SeededRandom,
        _ check: (UnsafeBufferPointer<UInt8>, UnsafeBufferPointer<UInt8>) throws -> Void
    ) rethrows {
        for _ in 0..<count {
            let old = Array(body(&random).utf8)
            let new = Int.random(in: 0..<4, using: &random) == 0 ? old : Array(body(&random).utf8)
            try old.withUnsafeBufferPointer { old in try new.withUnsafeBufferPointer { try check(old, $0) } }
        }
    }

    @Test func whatIsPredicted_changesNoAnswer() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        var confirmed = 0
        try Self.eachPair(3000, &random) { oldBytes, newBytes in
            let before = try ExpositionParser.parse(oldBytes)
            let plain = try ExpositionParser.parse(newBytes)
            var predicted = try ExpositionParser.parse(
                newBytes, prediction: Self.prediction(before, oldBytes))
            let isAsPredicted = predicted.isAsPredicted
            predicted.fillColumns()
            for index in 0..<predicted.count where predicted.predicted[index] < 0 {
                #expect(predicted.starts[index] == plain.starts[index], "seed \(seed)")
                #expect(predicted.ends[index] == plain.ends[index], "seed \(seed)")
            }
            #expect(predicted.values.map(\.bitPattern) == plain.values.map(\.bitPattern), "seed \(seed)")
            #expect(predicted.timestampsMs == plain.timestampsMs, "seed \(seed)")
            #expect(predicted.comments == plain.comments, "seed \(seed)")
            for (index, place) in predicted.predicted.enumerated() where place >= 0 {
                let there = oldBytes[Int(before.starts[Int(place)])..<Int(before.ends[Int(place)])]
                let here = newBytes[Int(plain.starts[index])..<Int(plain.ends[index])]
                #expect(there.elementsEqual(here), "seed \(seed)")
                confirmed += 1
            }
            let isSame =
                before.count == plain.count
                && (0..<plain.count).allSatisfy { index in
                    oldBytes[Int(before.starts[index])..<Int(before.ends[index])].elementsEqual(
                        newBytes[Int(plain.starts[index])..<Int(plain.ends[index])])
                }
            // A time of its own is a surprise as well.
            #expect(isAsPredicted == (isSame && !plain.hasTimestamps), "seed \(seed)")
            // What is said of a family is whole, or was said before.
            for family in plain.metadata {
                let said = predicted.metadata.first { $0.name == family.name }
                #expect(said ?? before.metadata.first { $0.name == family.name } == family, "seed \(seed)")
            }
            if newBytes.elementsEqual(oldBytes) {
                #expect(predicted.hasPredictedComments && predicted.metadata.isEmpty)
            }
        }
        #expect(confirmed > 3000)
    }

    @Test func filter_leavesJustTheSeriesThatAreWanted_andNothingOfTheOthers() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        let filter = MetricFilter { !$0.hasPrefix("ab") && $0 != "b_total" }
        var skipped = 0
        try Self.eachPair(1000, &random) { oldBytes, newBytes in
            let before = try ExpositionParser.parse(oldBytes, filter: filter)
            let plain = try ExpositionParser.parse(newBytes)
            let wanted = try (0..<plain.count).filter { index in
                let series = newBytes[Int(plain.starts[index])..<Int(plain.ends[index])]
                let name = try ExpositionParser.labels(of: UnsafeBufferPointer(rebasing: series)).name
                return filter.keeps(name)
            }
            for prediction in [nil, Self.prediction(before, oldBytes)] {
                let kept = try ExpositionParser.parse(newBytes, prediction: prediction, filter: filter)
                #expect(
                    kept.values.map(\.bitPattern) == wanted.map { plain.values[$0].bitPattern }, "seed \(seed)")
                #expect(kept.skipped == plain.count - wanted.count, "seed \(seed)")
                #expect(!kept.metadata.contains { $0.name.hasPrefix("ab") }, "seed \(seed)")
                skipped += kept.skipped
            }
        }
        #expect(skipped > 1000)
    }

    @Test func linesOfUnwantedMetrics_areNotRead() throws {
        let text = "# TYPE bad counter\nbad{x=\"1\" no number\nbad_more 1\nb\"\ngood 2\n{\"bad\"} 3"
        let filter = MetricFilter { $0 == "good" }
        try Array(text.utf8).withUnsafeBufferPointer { bytes in
            let exposition = try ExpositionParser.parse(bytes, filter: filter)
            // A name in braces is for the reader of labels to see.
            #expect(exposition.values == [2, 3] && exposition.skipped == 3 && exposition.metadata.isEmpty)
            #expect(throws: ExpositionError.self) { try ExpositionParser.parse(bytes) }
        }
    }
}
