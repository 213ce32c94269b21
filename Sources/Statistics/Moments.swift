/// The mean and the spread of at least one value.
struct Moments {
    let count: Double
    let mean: Double
    /// The sum of the squared distances from the mean.
    let squares: Double

    init(_ values: [Double]) {
        let count = Double(values.count)
        let mean = values.reduce(0, +) / count
        self.count = count
        self.mean = mean
        squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
    }

    /// The unbiased estimate, for at least two values.
    var variance: Double { squares / (count - 1) }
}
