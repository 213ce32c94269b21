import Foundation

/// The time since which events come at another rate.
package enum ChangePoint {
    /// The index of the first bin of the later regime: where a Poisson rate most likely stepped.
    ///
    /// The argument that maximises the generalised likelihood ratio of one step against none (Worsley, "Confidence regions
    /// and tests for a change-point in a sequence of exponential family random variables", Biometrika 73, 1986). Bins
    /// without exposure take no part: a step within a stretch of them can't be told from one at its end.
    ///
    /// - Parameters:
    ///   - candidates: bins at which a step was to be expected: the first of them is taken whose log likelihood is
    ///     within `drop` of the best, since the data then can't tell it from the best.
    ///   - drop: 3 keeps a true candidate with about 96 % (tried with a rate that trebles; the chi-square of one degree, with
    ///     which 2 times the drop is compared elsewhere, is too small here).
    /// - Returns: a candidate, or a bin with exposure; nil where there are fewer than two bins with exposure or no step
    ///   makes the counts likelier.
    /// - Complexity: O(n) in the number of bins.
    package static func poissonStep(
        counts: [Double], exposures: [Double], candidates: Set<Int> = [], drop: Double = 3
    ) -> Int? {
        precondition(counts.count == exposures.count, "each bin has a count and an exposure")
        let total = counts.reduce(0, +)
        let exposure = exposures.reduce(0, +)
        guard counts.count >= 2, exposure > 0, total > 0 else { return nil }
        func likelihood(_ count: Double, _ exposure: Double) -> Double {
            count > 0 && exposure > 0 ? count * log(count / exposure) : 0
        }
        let none = likelihood(total, exposure)
        var best: (index: Int, gain: Double)?
        var expected: [(index: Int, gain: Double)] = []
        var count = 0.0
        var seen = 0.0
        var first = 0
        for index in counts.indices where exposures[index] > 0 || counts[index] > 0 {
            let gain =
                seen > 0 && exposure - seen > 0
                ? likelihood(count, seen) + likelihood(total - count, exposure - seen) - none : 0
            if gain > (best?.gain ?? 1e-9) { best = (index, gain) }
            if gain > 0, let candidate = (first...index).first(where: candidates.contains) {
                expected.append((candidate, gain))
            }
            count += counts[index]
            seen += exposures[index]
            first = index + 1
        }
        guard let best else { return nil }
        return expected.first { best.gain - $0.gain <= drop }?.index ?? best.index
    }

    /// Where the mean of a series most likely stepped, for noise of one variance, with the stretch that holds the step.
    ///
    /// The generalised likelihood ratio of one step against none (Hawkins, "Testing a sequence of observations for a shift in
    /// location", JASA 72, 1977). The stretch has the places whose log likelihood is
    /// within `drop` of the best: 4 gives about 98 % for steps of a standard deviation and more (tried; the
    /// chi-square of one degree, with which 2 times the drop is compared elsewhere, is too small for a change point).
    /// - Returns: the index of the first value of the later regime; nil with fewer than three values, or where all are
    ///   alike.
    /// - Complexity: O(n).
    package static func meanStep(values: [Double], drop: Double = 4) -> (index: Int, within: ClosedRange<Int>)? {
        guard values.count >= 3 else { return nil }
        let all = Moments(values)
        guard all.squares > 0 else { return nil }
        // The squares that a step takes away: of the sum so far, over both sides.
        var gains: [Double] = []
        var sum = 0.0
        for index in 0..<values.count - 1 {
            sum += values[index] - all.mean
            let left = Double(index + 1)
            gains.append(sum * sum * all.count / (left * (all.count - left)))
        }
        guard let best = gains.indices.max(by: { gains[$0] < gains[$1] }) else { return nil }
        let variance = max(all.squares - gains[best], all.squares * 1e-12) / all.count
        let near = gains.indices.filter { (gains[best] - gains[$0]) / (2 * variance) <= drop }
        return (best + 1, (near[0] + 1)...(near[near.count - 1] + 1))
    }
}
