import Foundation

/// The straight line through equally spaced values whose neighbours depend on each other.
package struct Trend: Sendable, Equatable {
    /// How much a value has more than the one before.
    package let slope: Double
    /// The standard error of the slope.
    package let error: Double
    /// Of the residuals: their variance, and how many values of the series one independent value is worth.
    private let variance: Double
    private let inflation: Double

    /// Ordinary least squares; the standard error has the residuals' autocorrelation at lag 1 taken into account by the
    /// effective sample size n(1-rho)/(1+rho), rho never below zero (Santer et al., "Statistical significance of trends
    /// and trend differences in layer-average atmospheric temperature time series", JGR 2000, section 4).
    ///
    /// - Returns: nil with fewer than five values.
    /// - Complexity: O(n).
    package init?(_ values: [Double]) {
        guard values.count >= 5 else { return nil }
        let count = Double(values.count)
        let middle = (count - 1) / 2
        let mean = values.reduce(0, +) / count
        let squares = Trend.squares(values.count)
        var products = 0.0
        for (index, value) in values.enumerated() { products += (Double(index) - middle) * (value - mean) }
        slope = products / squares
        var sum = 0.0
        var lagged = 0.0
        var last: Double?
        for (index, value) in values.enumerated() {
            let residual = value - mean - slope * (Double(index) - middle)
            sum += residual * residual
            if let last { lagged += last * residual }
            last = residual
        }
        let raw = sum > 0 ? lagged / sum : 0
        // The line takes two degrees of freedom: short series look less dependent than they are (Kendall 1954).
        let rho = min(0.99, max(0, raw + (1 + 4 * raw) / count))
        inflation = (1 + rho) / (1 - rho)
        variance = sum / max(1, max(3, count / inflation) - 2) * max(3, count / inflation) / count
        error = (variance * inflation / squares).squareRoot()
    }

    /// The standard error that a slope of so many values of this noise would have.
    package func error(count: Int) -> Double { (variance * inflation / Trend.squares(count)).squareRoot() }

    /// The sum of the squared distances of the first numbers, from 0 on, from their mean.
    private static func squares(_ count: Int) -> Double {
        let n = Double(count)
        return n * (n * n - 1) / 12
    }
}
