import Foundation

/// An estimate with the interval that holds the truth with the stated confidence.
package struct Interval: Sendable, Equatable {
    package var estimate: Double
    package var low: Double
    package var high: Double

    package init(estimate: Double, low: Double, high: Double) {
        self.estimate = estimate
        self.low = low
        self.high = high
    }
}

/// The comparison of two event rates.
package enum RateRatio {
    /// Compares two counts, each with its exposure: (after / exposureAfter) over (before / exposureBefore).
    ///
    /// Given their sum, `after` is binomial with a share that only depends on the ratio of rates and of exposures
    /// (Przyborowski and Wilenski 1940), so the exact interval of Clopper and Pearson (1934) for that share gives one
    /// for the ratio. With overdispersion phi > 1 the counts are divided by it, which widens the interval as a
    /// quasi-Poisson fit does.
    ///
    /// - Parameters:
    ///   - dispersion: variance over mean of the counts, at least 1.
    ///   - confidence: two-sided, in 0...1.
    /// - Returns: The ratio, infinite where nothing happened before, and 1 within 0...inf where nothing happened at
    ///   all; nil where an exposure is not positive.
    package static func interval(
        before: Double, exposureBefore: Double, after: Double, exposureAfter: Double, dispersion: Double = 1,
        confidence: Double
    ) -> Interval? {
        guard exposureBefore > 0, exposureAfter > 0, before >= 0, after >= 0 else { return nil }
        let exposures = exposureBefore / exposureAfter
        let a = before / max(1, dispersion)
        let b = after / max(1, dispersion)
        let tail = (1 - confidence) / 2
        let shareLow = b == 0 ? 0 : SpecialFunctions.betaQuantile(tail, a: b, b: a + 1)
        let shareHigh = a == 0 ? 1 : SpecialFunctions.betaQuantile(1 - tail, a: b + 1, b: a)
        let odds = { (share: Double) in share >= 1 ? Double.infinity : share / (1 - share) }
        let estimate = before == 0 ? (after == 0 ? 1 : .infinity) : (after / before) * exposures
        return Interval(estimate: estimate, low: odds(shareLow) * exposures, high: odds(shareHigh) * exposures)
    }

    /// The upper limit of a rate: exact, from the gamma distribution (Garwood 1936).
    ///
    /// - Parameters:
    ///   - count: at least 0; parts of an event, as a count that was divided by its dispersion, are taken as they are.
    ///   - confidence: one-sided, in 0...1, both open.
    /// - Returns: infinite where there is no exposure.
    package static func upperLimit(count: Double, exposure: Double, confidence: Double) -> Double {
        exposure > 0 ? SpecialFunctions.gammaQuantile(confidence, shape: count + 1) / exposure : .infinity
    }

    /// Pearson's chi-squared of counts in bins about a constant rate, over its degrees of freedom, and these (McCullagh and
    /// Nelder, "Generalized Linear Models", 2nd edition 1989, section 4.5); nil for fewer than five bins with exposure.
    private static func pearson(_ counts: [Double], _ exposures: [Double]) -> (ratio: Double, freedom: Double)? {
        var (used, total, exposure) = (0, 0.0, 0.0)
        for index in counts.indices where exposures[index] > 0 {
            used += 1
            total += counts[index]
            exposure += exposures[index]
        }
        guard used >= 5, total > 0 else { return nil }
        var chiSquared = 0.0
        for index in counts.indices where exposures[index] > 0 {
            let expected = total * exposures[index] / exposure
            chiSquared += (counts[index] - expected) * (counts[index] - expected) / expected
        }
        return (chiSquared / Double(used - 1), Double(used - 1))
    }

    /// The largest overdispersion of counts in bins, over blocks of several lengths.
    ///
    /// Where rates drift, the counts of long blocks vary more than those of short ones: what a sum over hours does is
    /// told by hours, not by minutes. The largest of several estimates is rarely below the truth.
    ///
    /// - Parameters:
    ///   - blocks: lengths in bins; those that give fewer than eight blocks take no part.
    ///   - variance: of the counts over their mean, were there no overdispersion: less than 1 for parts of a known sum.
    ///   - limit: what it is at most.
    /// - Returns: at least 1; 1 where no block length takes part.
    /// - Complexity: O(n) for each length.
    package static func largestDispersion(
        counts: [Double], exposures: [Double], blocks: [Int], variance: Double = 1, limit: Double = 50
    ) -> Double {
        var largest = 1.0
        for length in blocks where length > 0 && counts.count / length >= 8 {
            let starts = stride(from: 0, through: counts.count - length, by: length)
            let sums = starts.map { counts[$0..<$0 + length].reduce(0, +) }
            let seen = starts.map { exposures[$0..<$0 + length].reduce(0, +) }
            guard let (ratio, freedom) = pearson(sums, seen), freedom >= 7, ratio > variance else { continue }
            largest = max(largest, ratio / variance)
        }
        return min(largest, limit)
    }
}
