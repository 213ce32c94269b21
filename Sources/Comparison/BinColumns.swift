extension [Float] {
    /// The sum over a range of bins; those that a column does not reach are 0.
    ///
    /// Four sums side by side: one alone waits for each addition before the next.
    func total(in range: Range<Int>) -> Double {
        let range = range.clamped(to: indices)
        return withUnsafeBufferPointer { values in
            var sums = SIMD4<Double>()
            var index = range.lowerBound
            while index + 4 <= range.upperBound {
                sums += SIMD4(
                    Double(values[index]), Double(values[index + 1]), Double(values[index + 2]),
                    Double(values[index + 3]))
                index += 4
            }
            var sum = sums.sum()
            while index < range.upperBound {
                sum += Double(values[index])
                index += 1
            }
            return sum
        }
    }

    /// Whether any value is larger than a limit.
    func exceeds(_ limit: Float) -> Bool {
        withUnsafeBytes { bytes in
            let width = MemoryLayout<SIMD8<Float>>.size
            var largest = SIMD8<Float>(repeating: -.infinity)
            var offset = 0
            while offset + width <= bytes.count {
                let next = bytes.loadUnaligned(fromByteOffset: offset, as: SIMD8<Float>.self)
                largest.replace(with: next, where: next .> largest)
                offset += width
            }
            return largest.max() > limit || self[(offset / MemoryLayout<Float>.size)...].contains { $0 > limit }
        }
    }
}

extension [Double] {
    /// Adds the part of a column that is in a range of bins, so many times.
    ///
    /// The range must be within this one's.
    mutating func add(_ column: [Float], times factor: Double = 1, in range: Range<Int>) {
        let range = range.clamped(to: column.indices)
        guard !range.isEmpty else { return }
        precondition(range.upperBound <= count, "a column has no bins of its own")
        column.withUnsafeBufferPointer { values in
            withUnsafeMutableBufferPointer { sums in
                for index in range { sums[index] += factor * Double(values[index]) }
            }
        }
    }

    /// Multiplies all.
    mutating func scale(by factor: Double) {
        withUnsafeMutableBufferPointer { values in
            for index in values.indices { values[index] *= factor }
        }
    }
}
