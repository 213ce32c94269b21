import Foundation

/// Random numbers that a seed and a name give: the same on every machine, and each stream independent of the others.
struct SimulatedRandom: RandomNumberGenerator {
    private var state: UInt64
    private var spare: Double?

    init(seed: UInt64, stream: String = "") {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in stream.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        state = seed &* 0x9e37_79b9_7f4a_7c15 ^ hash
        _ = next()
    }

    /// SplitMix64 (Steele, Lea and Flood 2014).
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// In 0..<1.
    mutating func uniform() -> Double { Double(next() >> 11) * 0x1p-53 }

    /// Of mean 0 and variance 1, by Marsaglia's polar method.
    mutating func normal() -> Double {
        if let value = spare {
            spare = nil
            return value
        }
        while true {
            let (x, y) = (2 * uniform() - 1, 2 * uniform() - 1)
            let square = x * x + y * y
            guard square > 0, square < 1 else { continue }
            let scale = (-2 * log(square) / square).squareRoot()
            spare = y * scale
            return x * scale
        }
    }

    /// A count of a mean: exact for small ones, a rounded normal for those above 30.
    mutating func poisson(_ mean: Double) -> Double {
        guard mean > 0 else { return 0 }
        if mean > 30 { return max(0, (mean + mean.squareRoot() * normal()).rounded()) }
        let limit = exp(-mean)
        var product = uniform()
        var count = 0.0
        while product > limit {
            product *= uniform()
            count += 1
        }
        return count
    }

    /// A count of a mean whose variance is `dispersion` times as large: events in bursts of a geometric size.
    mutating func bursts(_ mean: Double, dispersion: Double) -> Double {
        guard dispersion > 1 else { return poisson(mean) }
        // The sum of geometric sizes of mean m has a variance of (2m - 1) times its own mean.
        let size = (dispersion + 1) / 2
        var count = 0.0
        for _ in 0..<Int(poisson(mean / size)) {
            count += 1
            while uniform() > 1 / size { count += 1 }
        }
        return count
    }
}

/// Values that return to 0 slowly: each is `memory` times the one before, and noise; their standard deviation is given.
struct SlowNoise {
    private var value: Double
    private let memory: Double
    private let step: Double
    private var random: SimulatedRandom

    init(_ random: SimulatedRandom, memory: Double, deviation: Double) {
        self.random = random
        self.memory = memory
        step = deviation * (1 - memory * memory).squareRoot()
        value = 0
        value = deviation * self.random.normal()
    }

    mutating func next() -> Double {
        value = memory * value + step * random.normal()
        return value
    }
}
