import Foundation

/// The same statistic at times at which nothing happened: what it shows then is noise.
///
/// A placebo in time, as Abadie, Diamond and Hainmueller, "Comparative Politics and the Synthetic Control Method"
/// (2015) use it. It needs no model of the noise: autocorrelation and heavy tails are in the placebos.
package enum Placebo {
    /// How far a statistic lies from its placebos' median, in robust standard deviations (1.4826 times the median
    /// absolute deviation).
    ///
    /// - Returns: nil with fewer than three placebos; infinite where they are all alike and the observed one is not.
    package static func score(observed: Double, placebos: [Double]) -> Double? {
        guard placebos.count >= 3 else { return nil }
        let middle = RobustSlope.median(placebos)
        let spread = 1.4826 * RobustSlope.median(placebos.map { abs($0 - middle) })
        let distance = observed - middle
        if spread == 0 { return distance == 0 ? 0 : distance > 0 ? .infinity : -.infinity }
        return distance / spread
    }

    /// How far a statistic may lie from its placebos' median by chance: a standard deviation.
    ///
    /// The larger of the robust one (1.4826 times the median absolute deviation: Rousseeuw and Croux, "Alternatives to the
    /// median absolute deviation", JASA 88, 1993) and the plain one, since tails count here. More by what is not known of
    /// it, as a Student's t of so many windows has a greater variance than a normal distribution, n/(n-3) of n less one
    /// degrees roughly, and of the median, 1 + 1/n.
    /// - Parameter windows: how many windows there are that do not overlap, more than 3.
    package static func spread(_ placebos: [Double], windows: Double) -> Double {
        let middle = RobustSlope.median(placebos)
        let robust = 1.4826 * RobustSlope.median(placebos.map { abs($0 - middle) })
        let moments = Moments(placebos)
        let plain = moments.count > 1 ? (moments.squares / (moments.count - 1)).squareRoot() : 0
        return max(robust, plain) * (windows / max(1, windows - 3)).squareRoot() * (1 + 1 / windows).squareRoot()
    }

    /// The part of placebos at least as great as the observed statistic, which counts as one of them.
    ///
    /// Placebos of windows that overlap are not independent: then the figure is rough, never below 1/(n+1).
    package static func pValue(observed: Double, placebos: [Double]) -> Double {
        Double(1 + placebos.filter { $0 >= observed }.count) / Double(placebos.count + 1)
    }

    /// The means of all windows of a length that begin `step` values apart.
    ///
    /// - Complexity: O(n), by prefix sums.
    package static func windowMeans(_ values: [Double], length: Int, step: Int) -> [Double] {
        precondition(length > 0 && step > 0, "windows have a length and a step")
        guard values.count >= length else { return [] }
        var sums = [0.0]
        sums.reserveCapacity(values.count + 1)
        for value in values { sums.append(sums[sums.count - 1] + value) }
        return stride(from: 0, through: values.count - length, by: step).map {
            (sums[$0 + length] - sums[$0]) / Double(length)
        }
    }
}
