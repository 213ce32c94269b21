/// Random numbers that a test can repeat: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
package struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// A double of any kind: whole, decimal, tiny, huge, not a number, infinite, or any bits at all.
    package mutating func anyDouble() -> Double {
        switch Int.random(in: 0..<8, using: &self) {
        case 0: Double(Int.random(in: -1000...1000, using: &self))
        case 1: Double(Int.random(in: 0...10_000_000_000, using: &self))
        case 2: Double(Int.random(in: -100_000...100_000, using: &self)) / 1000
        case 3: Double.random(in: -1...1, using: &self)
        case 4: [Double.nan, .infinity, -.infinity, -0.0, 0, .leastNonzeroMagnitude].randomElement(using: &self) ?? 0
        case 5: Double(bitPattern: 0x7ff0_0000_0000_0002)
        default: Double(bitPattern: next())
        }
    }
}
