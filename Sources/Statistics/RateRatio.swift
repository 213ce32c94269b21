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

    /// The overdispersion of counts in bins about a constant rate: Pearson's chi-squared over its degrees of
    /// freedom, at least 1; 1 for fewer than five bins with exposure.
    package static func dispersion(counts: [Double], exposures: [Double]) -> Double {
        let used = zip(counts, exposures).filter { $0.1 > 0 }
        let total = used.reduce(0) { $0 + $1.0 }
        let exposure = used.reduce(0) { $0 + $1.1 }
        guard used.count >= 5, total > 0 else { return 1 }
        let chiSquared = used.reduce(0) { sum, bin in
            let expected = total * bin.1 / exposure
            return sum + (bin.0 - expected) * (bin.0 - expected) / expected
        }
        return max(1, chiSquared / Double(used.count - 1))
    }

    /// The events that a comparison needs before it can tell a ratio from a bound, for equal exposures at level
    /// alpha: the inverse of the binomial's Kullback-Leibler divergence between the two shares.
    package static func eventsNeeded(ratio: Double, bound: Double, exposureShare share: Double, alpha: Double) -> Double
    {
        let theta = ratio * share / (ratio * share + 1 - share)
        let theta0 = bound * share / (bound * share + 1 - share)
        let divergence = theta * log(theta / theta0) + (1 - theta) * log((1 - theta) / (1 - theta0))
        return divergence > 0 ? log(1 / alpha) / divergence : .infinity
    }
}
