/// Ordinary least squares with few columns.
package enum LeastSquares {
    /// The coefficients that fit `values` best, one for each column.
    ///
    /// Solves the normal equations by Gaussian elimination with pivots: for a handful of columns that are centred, so
    /// that the squared condition does no harm.
    /// - Parameter columns: all as long as `values`; a constant must be among them to be fitted.
    /// - Returns: nil where the columns depend on one another.
    /// - Complexity: O(n k²).
    package static func fit(_ columns: [[Double]], _ values: [Double]) -> [Double]? {
        let size = columns.count
        guard size > 0, values.count >= size else { return nil }
        var rows = columns.map { left in
            columns.map { right in dot(left, right) } + [dot(left, values)]
        }
        for pivot in 0..<size {
            let best = (pivot..<size).max { abs(rows[$0][pivot]) < abs(rows[$1][pivot]) } ?? pivot
            rows.swapAt(pivot, best)
            let scale = rows[pivot][pivot]
            guard abs(scale) > 1e-9 * Double(values.count) else { return nil }
            for row in 0..<size where row != pivot {
                let factor = rows[row][pivot] / scale
                for column in pivot...size { rows[row][column] -= factor * rows[pivot][column] }
            }
        }
        return (0..<size).map { rows[$0][size] / rows[$0][$0] }
    }

    private static func dot(_ left: [Double], _ right: [Double]) -> Double {
        var sum = 0.0
        for index in left.indices { sum += left[index] * right[index] }
        return sum
    }
}
