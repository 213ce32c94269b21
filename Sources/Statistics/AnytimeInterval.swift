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
        let width = standardError * halfWidth(count: count, tightestAt: tightestAt, confidence: confidence)
        return Interval(estimate: estimate, low: estimate - width, high: estimate + width)
    }

    /// The confidence of an interval for one look, in 0...1, that is as wide as one of this sequence with the confidence
    /// for all of them.
    ///
    /// For intervals that are not made of a standard error: of a ratio of counts, which has none when they are few.
    /// - Parameters: as of ``mean(estimate:standardError:count:tightestAt:confidence:)``.
    package static func confidenceOfOneLook(count: Double, tightestAt: Double, confidence: Double) -> Double {
        let width = halfWidth(count: count, tightestAt: tightestAt, confidence: confidence)
        return SpecialFunctions.incompleteGamma(width * width / 2, shape: 0.5)
    }

    /// In standard errors.
    private static func halfWidth(count: Double, tightestAt: Double, confidence: Double) -> Double {
        precondition(count > 0 && tightestAt > 0, "counts are positive")
        let alpha = 1 - confidence
        // Appendix C.2 of the paper: the mixture's variance that is narrowest at a time, by its closed approximation.
        let rho = ((-2 * log(alpha) + log(-2 * log(alpha) + 1)) / tightestAt).squareRoot()
        let scaled = count * rho * rho
        return ((scaled + 1) / scaled * log((scaled + 1) / (alpha * alpha))).squareRoot()
    }
}
