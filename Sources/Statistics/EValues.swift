import Foundation

/// Many e-values as one, or as a list of discoveries.
///
/// An e-value is nonnegative and has an expectation of at most 1 under its null hypothesis.
package enum EValues {
    /// One e-value of many for the hypothesis that all nulls hold: their weighted mean, whatever their dependence.
    ///
    /// The only merging that is admissible without knowledge of the dependence (Vovk and Wang, "E-values: calibration,
    /// combination and applications", Annals of Statistics 2021, section 3).
    /// - Parameter weights: nonnegative, not all 0; nil for equal ones.
    /// - Returns: 1 where there are no values.
    package static func merged(_ values: [Double], weights: [Double]? = nil) -> Double {
        guard !values.isEmpty else { return 1 }
        guard let weights else { return values.reduce(0, +) / Double(values.count) }
        precondition(weights.count == values.count, "each value has a weight")
        return zip(values, weights).reduce(0) { $0 + $1.0 * $1.1 } / weights.reduce(0, +)
    }

    /// The indices of the hypotheses that are rejected with a false discovery rate of at most `level`, whatever the
    /// dependence.
    ///
    /// The e-BH procedure (Wang and Ramdas, "False discovery rate control with e-values", JRSS B 2022): the k largest
    /// are rejected for the greatest k of which the k-th largest is at least n/(k level). The values must be those of one
    /// time; running maxima are no e-values: see ``adjusted(logMaximum:)``.
    /// - Complexity: O(n log n).
    package static func discoveries(_ values: [Double], level: Double) -> [Int] {
        let order = values.indices.sorted { values[$0] > values[$1] }
        let count = Double(values.count)
        let last = order.indices.last { values[order[$0]] >= count / (Double($0 + 1) * level) }
        return last.map { order[...$0].sorted() } ?? []
    }

    /// The indices of the hypotheses that are rejected with a familywise error rate of at most `level`.
    ///
    /// Weighted Bonferroni: a value must reach the inverse of its part of the level. Valid at any time and under any
    /// dependence, for running maxima too.
    /// - Parameter weights: nonnegative, not all 0; each hypothesis' part of the level, before they are made to sum to 1.
    package static func rejections(logValues: [Double], weights: [Double], level: Double) -> [Int] {
        precondition(weights.count == logValues.count, "each value has a weight")
        let sum = weights.reduce(0, +)
        return logValues.indices.filter {
            weights[$0] > 0 && logValues[$0] >= -log(level * weights[$0] / sum)
        }
    }

    /// An e-value from the running maximum of an e-process, given as its logarithm.
    ///
    /// The adjuster A(E) = sqrt(E) - 1, whose integral of A(x)/x^2 over 1 and above is 1 (Dawid, de Rooij, Shafer, Shen,
    /// Vereshchagin and Vovk, "Insuring against loss of evidence in game-theoretic probability", 2011).
    package static func adjusted(logMaximum: Double) -> Double { max(0, exp(logMaximum / 2) - 1) }
}
