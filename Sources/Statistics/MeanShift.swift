import Foundation

/// The comparison of the levels of two stretches of a series whose neighbouring values depend on each other.
package enum MeanShift {
    /// The difference of means, after minus before, with its interval.
    ///
    /// Welch's t on effective sample sizes n(1-rho)/(1+rho), rho the bias-corrected autocorrelation at lag 1, never
    /// taken below zero (Wilks, "Statistical Methods in the Atmospheric Sciences", 5.2.4). Fewer than three values on
    /// a side say nothing: nil.
    package static func interval(before: [Double], after: [Double], confidence: Double) -> Interval? {
        guard before.count >= 3, after.count >= 3 else { return nil }
        let a = Moments(before)
        let b = Moments(after)
        let countA = effectiveCount(before, a)
        let countB = effectiveCount(after, b)
        let errorA = a.variance / countA
        let errorB = b.variance / countB
        let estimate = b.mean - a.mean
        let error = errorA + errorB
        guard error > 0 else { return Interval(estimate: estimate, low: estimate, high: estimate) }
        let degrees =
            error * error
            / (errorA * errorA / max(1, countA - 1) + errorB * errorB / max(1, countB - 1))
        let width =
            SpecialFunctions.studentTQuantile(1 - (1 - confidence) / 2, degrees: max(1, degrees))
            * error.squareRoot()
        return Interval(estimate: estimate, low: estimate - width, high: estimate + width)
    }

    private static func effectiveCount(_ values: [Double], _ moments: Moments) -> Double {
        let products = zip(values, values.dropFirst()).reduce(0) {
            $0 + ($1.0 - moments.mean) * ($1.1 - moments.mean)
        }
        let raw = moments.squares > 0 ? products / moments.squares : 0
        // Kendall's correction of the downward bias of the estimate in short series.
        let rho = min(0.99, max(0, raw + (1 + 4 * raw) / moments.count))
        return max(2, moments.count * (1 - rho) / (1 + rho))
    }
}
