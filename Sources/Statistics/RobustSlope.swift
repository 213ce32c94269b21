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
    /// - Precondition: there is a value, and each is a number.
    /// - Complexity: O(n) on average: it partitions as Hoare's "Algorithm 65: Find" (1961), and sorts nothing.
    package static func median(_ values: [Double]) -> Double {
        precondition(!values.isEmpty, "a median is of at least one value")
        var values = values
        let middle = values.count / 2
        return values.withUnsafeMutableBufferPointer { values in
            let upper = select(middle, of: values)
            guard values.count % 2 == 0 else { return upper }
            // All before the middle are at most as great.
            var lower = values[0]
            for index in 1..<max(1, middle) { lower = max(lower, values[index]) }
            return (lower + upper) / 2
        }
    }

    /// Brings the value that is the `place`th in order to its place, no greater ones before it, and no less ones after.
    private static func select(_ place: Int, of values: UnsafeMutableBufferPointer<Double>) -> Double {
        var (first, last) = (0, values.count - 1)
        while first < last {
            // The middle one of three: sorted values, of which there are many, are halved.
            let (a, b, c) = (values[first], values[(first + last) / 2], values[last])
            let pivot = max(min(a, b), min(max(a, b), c))
            var (left, right) = (first, last)
            while left <= right {
                while values[left] < pivot { left += 1 }
                while values[right] > pivot { right -= 1 }
                guard left <= right else { break }
                values.swapAt(left, right)
                left += 1
                right -= 1
            }
            if place <= right {
                last = right
            } else if place >= left {
                first = left
            } else {
                break
            }
        }
        return values[place]
    }
}
