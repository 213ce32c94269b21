import Foundation

/// Intervals that hold at all times at once, so that they may be read after every sample.
package enum AnytimeInterval {
    /// The asymptotic confidence sequence for a mean (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform
    /// central limit theory and asymptotic confidence sequences", Annals of Statistics 2024, theorem 2.2; Robbins'
    /// normal mixture).
    ///
    /// - Parameters:
    ///   - standardError: of the estimate now.
    ///   - count: the observations so far, greater than 0; for values that depend on each other, the effective number.
    ///   - tightestAt: the number of observations at which the interval is to be narrowest, greater than 0.
    ///   - confidence: in 0...1, both open.
    package static func mean(
        estimate: Double, standardError: Double, count: Double, tightestAt: Double, confidence: Double
    ) -> Interval {
        precondition(count > 0 && tightestAt > 0, "counts are positive")
        let alpha = 1 - confidence
        // Appendix C.2 of the paper: the mixture's variance that is narrowest at a time, by its closed approximation.
        let rho = ((-2 * log(alpha) + log(-2 * log(alpha) + 1)) / tightestAt).squareRoot()
        let scaled = count * rho * rho
        let width = standardError * ((scaled + 1) / scaled * log((scaled + 1) / (alpha * alpha))).squareRoot()
        return Interval(estimate: estimate, low: estimate - width, high: estimate + width)
    }
}
