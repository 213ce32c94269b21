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

    @Test func whatIsPredicted_changesNoAnswer() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        var confirmed = 0
        for _ in 0..<3000 {
            let old = Array(Self.body(&random).utf8)
            // One time in four the lines are the same.
            let new = Int.random(in: 0..<4, using: &random) == 0 ? old : Array(Self.body(&random).utf8)
            try old.withUnsafeBufferPointer { oldBytes in
                try new.withUnsafeBufferPointer { newBytes in
                    let before = try ExpositionParser.parse(oldBytes)
                    let plain = try ExpositionParser.parse(newBytes)
                    let predicted = try ExpositionParser.parse(
                        newBytes, prediction: Self.prediction(before, oldBytes))
                    #expect(predicted.starts == plain.starts && predicted.ends == plain.ends, "seed \(seed)")
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
                    #expect(predicted.isAsPredicted == isSame, "seed \(seed)")
                    if new == old { #expect(predicted.hasPredictedComments && predicted.metadata.isEmpty) }
                }
            }
        }
        #expect(confirmed > 3000)
    }
}
