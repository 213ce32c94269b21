import Foundation

/// Straight lines through points of which some are wild.
package enum RobustSlope {
    /// The median of the slopes of all pairs of points (Theil 1950, Sen 1968), with the line's value at x = 0: the
    /// median of y less the slope times the median of x, as scipy's `theilslopes` has it.
    ///
    /// It bears up to 29 % of wild points.
    /// - Returns: nil where fewer than two points have different x.
    /// - Complexity: O(n^2) in time and memory: for hourly means, not for samples.
    package static func theilSen(x: [Double], y: [Double]) -> (slope: Double, intercept: Double)? {
        precondition(x.count == y.count, "each point has an x and a y")
        var slopes: [Double] = []
        slopes.reserveCapacity(x.count * max(0, x.count - 1) / 2)
        for i in x.indices {
            for j in 0..<i where x[i] != x[j] { slopes.append((y[i] - y[j]) / (x[i] - x[j])) }
        }
        guard !slopes.isEmpty else { return nil }
        let slope = median(slopes)
        return (slope, median(y) - slope * median(x))
    }

    /// The middle value, or the mean of the two in the middle.
    ///
    /// - Precondition: there is a value.
    package static func median(_ values: [Double]) -> Double {
        precondition(!values.isEmpty, "a median is of at least one value")
        let sorted = values.sorted()
        let middle = sorted.count / 2
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }
}
