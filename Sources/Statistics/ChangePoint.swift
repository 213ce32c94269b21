import Foundation

/// The time since which events come at another rate.
package enum ChangePoint {
    /// The index of the first bin of the later regime: where a Poisson rate most likely stepped.
    ///
    /// The argument that maximises the generalised likelihood ratio of one step against none. Bins without exposure
    /// take no part.
    /// - Returns: nil where there are fewer than two bins with exposure or no step makes the counts likelier.
    /// - Complexity: O(n) in the number of bins.
    package static func poissonStep(counts: [Double], exposures: [Double]) -> Int? {
        precondition(counts.count == exposures.count, "each bin has a count and an exposure")
        let total = counts.reduce(0, +)
        let exposure = exposures.reduce(0, +)
        guard counts.count >= 2, exposure > 0, total > 0 else { return nil }
        func likelihood(_ count: Double, _ exposure: Double) -> Double {
            count > 0 && exposure > 0 ? count * log(count / exposure) : 0
        }
        let none = likelihood(total, exposure)
        var best: (index: Int, gain: Double)?
        var count = 0.0
        var seen = 0.0
        for index in 0..<counts.count - 1 {
            count += counts[index]
            seen += exposures[index]
            guard seen > 0, exposure - seen > 0 else { continue }
            let gain = likelihood(count, seen) + likelihood(total - count, exposure - seen) - none
            if gain > (best?.gain ?? 1e-9) { best = (index + 1, gain) }
        }
        return best?.index
    }
}
