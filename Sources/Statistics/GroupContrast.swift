import Foundation

/// One unit's change of level: a node's, say, after less before.
package struct UnitChange: Sendable, Equatable {
    package var change: Double
    /// Whether the unit was upgraded; the others are its controls.
    package var isTreated: Bool
    /// Units are compared within their stratum only: a pool, a zone, an instance type.
    package var stratum: Int

    package init(change: Double, isTreated: Bool, stratum: Int = 0) {
        self.change = change
        self.isTreated = isTreated
        self.stratum = stratum
    }
}

/// Differences in differences between upgraded and not yet upgraded units.
///
/// The comparison of a batch with those not yet treated, of Callaway and Sant'Anna, "Difference-in-Differences with
/// Multiple Time Periods" (Journal of Econometrics 2021); not two-way fixed effects, which compare later batches with
/// earlier ones too. What moves a whole stratum, a time of day or a shock, cancels out.
package enum GroupContrast {
    /// The mean change of the treated beyond that of the controls of their strata, weighted by the treated, with its
    /// interval from Welch's variances.
    ///
    /// - Parameter confidence: two-sided, in 0...1.
    /// - Returns: nil where no stratum has at least two units on both sides. Strata with fewer take no part.
    /// - Complexity: O(n) in the number of units.
    package static func interval(_ units: [UnitChange], confidence: Double) -> Interval? {
        var estimate = 0.0
        var variance = 0.0
        var spread = 0.0
        var weightSum = 0.0
        for (treated, controls) in strata(units) where treated.count >= 2 && controls.count >= 2 {
            let weight = Double(treated.count)
            let (a, b) = (Moments(treated), Moments(controls))
            let (errorA, errorB) = (a.variance / a.count, b.variance / b.count)
            estimate += weight * (a.mean - b.mean)
            variance += weight * weight * (errorA + errorB)
            spread +=
                pow(weight, 4) * (errorA * errorA / (a.count - 1) + errorB * errorB / (b.count - 1))
            weightSum += weight
        }
        guard weightSum > 0 else { return nil }
        estimate /= weightSum
        guard variance > 0 else { return Interval(estimate: estimate, low: estimate, high: estimate) }
        // Welch and Satterthwaite's degrees of freedom of a sum of variances.
        let degrees = max(1, variance * variance / spread)
        let width =
            SpecialFunctions.studentTQuantile(1 - (1 - confidence) / 2, degrees: degrees) * variance.squareRoot()
            / weightSum
        return Interval(estimate: estimate, low: estimate - width, high: estimate + width)
    }

    /// The part of all ways to choose the treated within their strata that shows as great an increase as was seen.
    ///
    /// A permutation test by drawing (Phipson and Smyth, "Permutation P-values Should Never Be Zero", 2010): the seen
    /// one counts among the drawn. It holds where batches were chosen at random within strata; a batch that is a whole
    /// stratum has no controls in it, and the answer is nil.
    /// - Parameters:
    ///   - draws: how many, at least 1.
    ///   - random: the source of the draws: the same one gives the same answer.
    /// - Complexity: O(draws n).
    package static func permutationPValue(
        _ units: [UnitChange], draws: Int, using random: inout some RandomNumberGenerator
    ) -> Double? {
        let groups = strata(units).filter { !$0.treated.isEmpty && !$0.controls.isEmpty }
        guard !groups.isEmpty, draws > 0 else { return nil }
        // Given a stratum's sum, the difference grows with the sum of the treated alone.
        let factors = groups.map { Double($0.treated.count + $0.controls.count) / Double($0.controls.count) }
        func statistic(_ sums: [Double]) -> Double { zip(sums, factors).reduce(0) { $0 + $1.0 * $1.1 } }
        let seen = statistic(groups.map { $0.treated.reduce(0, +) })
        let scale = groups.reduce(0) { $0 + ($1.treated + $1.controls).reduce(0) { $0 + abs($1) } }
        var pools = groups.map { $0.treated + $0.controls }
        var asGreat = 1
        for _ in 0..<draws {
            var sums: [Double] = []
            for index in pools.indices {
                let chosen = groups[index].treated.count
                // Fisher and Yates' shuffle, as far as it is needed.
                var sum = 0.0
                for position in 0..<chosen {
                    pools[index].swapAt(position, Int.random(in: position..<pools[index].count, using: &random))
                    sum += pools[index][position]
                }
                sums.append(sum)
            }
            // Sums of the same values in another order differ by their rounding.
            if statistic(sums) >= seen - 1e-12 * scale { asGreat += 1 }
        }
        return Double(asGreat) / Double(draws + 1)
    }

    private static func strata(_ units: [UnitChange]) -> [(treated: [Double], controls: [Double])] {
        Dictionary(grouping: units, by: \.stratum).sorted { $0.key < $1.key }.map { _, units in
            (units.filter(\.isTreated).map(\.change), units.filter { !$0.isTreated }.map(\.change))
        }
    }
}
