import Series
import Storage
import TestSupport
import Testing

@Suite struct BlockCodecTests {
    /// Values as metrics have them: counters, gauges of few decimals, floats, markers, and what stays as it is.
    private static func values(_ count: Int, _ random: inout SeededRandom) -> [Double] {
        let kind = Int.random(in: 0..<6, using: &random)
        var last = Double(Int.random(in: 0...1000, using: &random))
        return (0..<count).map { _ in
            if Int.random(in: 0..<3, using: &random) == 0 { return last }
            switch kind {
            case 0: last += Double(Int.random(in: 0...100_000, using: &random))
            case 1: last = Double(Int.random(in: -1_000_000...1_000_000, using: &random)) / 1000
            case 2: last += 0.1
            case 3: last = random.anyDouble()
            case 4: last = Bool.random(using: &random) ? staleMarker : Double(Int.random(in: 0...9, using: &random))
            default: last = Bool.random(using: &random) ? -0.0 : .infinity
            }
            return last
        }
    }

    @Test func whatIsEncoded_isDecodedBitForBit() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        for _ in 0..<1000 {
            var rows: [Int64] = []
            var nowMs: Int64 = 1_700_000_000_000
            for _ in 0..<Int.random(in: 0...200, using: &random) {
                nowMs +=
                    Int.random(in: 0..<10, using: &random) == 0
                    ? Int64.random(in: 1...1_000_000_000, using: &random) : 15_000
                rows.append(nowMs)
            }
            var series: [BlockCodec.Columns] = []
            for slot in 0..<64 where Int.random(in: 0..<8, using: &random) == 0 {
                // Some series miss rows, some come late, some have times that are in no row.
                let keeps = Int.random(in: 1...4, using: &random)
                let shift: Int64 = Int.random(in: 0..<6, using: &random) == 0 ? 7 : 0
                let times = rows.dropFirst(Int.random(in: 0...30, using: &random)).filter { _ in
                    Int.random(in: 0..<keeps, using: &random) == 0
                }.map { $0 + ($0 % 4 == 0 ? shift : 0) }
                let values = Self.values(times.count, &random)
                if !times.isEmpty { series.append(.init(slot: slot, timestampsMs: times, values: values)) }
            }
            let bytes = try BlockCodec.frame(of: series, rows: rows)
            #expect(try BlockCodec.columns(ofFrame: bytes, rows: rows) == series, "seed \(seed)")
        }
    }

    @Test func aSteadyCounter_takesAByteASample_aGaugeThatStaysNone() throws {
        let rows = (0..<240).map { 1_700_000_000_000 + Int64($0) * 15_000 }
        let counter = BlockCodec.Columns(slot: 0, timestampsMs: rows, values: rows.indices.map { Double($0 * 17) })
        let gauge = BlockCodec.Columns(slot: 1, timestampsMs: rows, values: rows.map { _ in 0.25 })
        #expect(try BlockCodec.frame(of: [counter], rows: rows).count < 250)
        #expect(try BlockCodec.frame(of: [gauge], rows: rows).count < 15)
    }

    @Test func damagedBytes_areRefusedAndNeverTrap() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        let rows: [Int64] = [1000, 2000, 3100, 4000, 5000]
        let good = try BlockCodec.frame(
            of: [
                .init(slot: 0, timestampsMs: [1000, 2000, 3100], values: [1.5, 2.25, -0.0]),
                .init(slot: 3, timestampsMs: [1000, 4000, 5000], values: [7, 7, 9]),
                .init(slot: 60, timestampsMs: [1000, 4500, 5000], values: [7, staleMarker, .pi]),
            ], rows: rows)
        for _ in 0..<50_000 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            if Bool.random(using: &random) { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random)) }
            _ = try? BlockCodec.columns(ofFrame: bytes, rows: rows)
            _ = try? BlockCodec.samples(inJournal: bytes)
        }
        #expect(throws: BlockCodec.CorruptBlock.self) { try BlockCodec.columns(ofFrame: [], rows: rows) }
        #expect(throws: BlockCodec.CorruptBlock.self) { try BlockCodec.columns(ofFrame: good, rows: [1000]) }
        #expect(throws: BlockCodec.CorruptBlock.self) { try BlockCodec.samples(inJournal: [9]) }
    }
}
