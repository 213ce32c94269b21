import Foundation
import Statistics
import TestSupport
import Testing

private func near(_ a: Double, _ b: Double, _ tolerance: Double = 1e-9) -> Bool {
    a == b || abs(a - b) <= tolerance * max(abs(a), abs(b))
}

/// The expected values are those of scipy 1.17.
@Suite struct SpecialFunctionsTests {
    @Test(arguments: [
        (0.3, 2.0, 5.0, 0.5798250000000003), (0.5, 0.5, 0.5, 0.5), (0.99, 200, 3, 0.6712381710383889),
        (0.0001, 1, 5000, 0.3934845043752552), (0.7, 1e5, 4.2e4, 0.0002506815199602131),
        (0.4995, 1e6, 1e6, 0.07864957758091215), (0.2, 1e6, 4e6, 0.5000892062087052),
    ])
    func incompleteBeta(x: Double, a: Double, b: Double, wanted: Double) {
        #expect(near(SpecialFunctions.incompleteBeta(x, a: a, b: b), wanted, 1e-8))
    }

    @Test(arguments: [
        (0.005, 1.0, 20.0, 0.0002505956868314462), (0.995, 7, 13, 0.6329103484666849),
        (0.5, 300, 200, 0.6001334372858839), (0.005, 245, 1, 0.9786063755582071),
    ])
    func betaQuantile(p: Double, a: Double, b: Double, wanted: Double) {
        #expect(near(SpecialFunctions.betaQuantile(p, a: a, b: b), wanted))
    }

    @Test(arguments: [
        (0.99, 1.0, 4.60517018598809), (0.999, 8, 19.626177395384232), (0.99, 901, 972.2962627351894),
        (0.9999, 123_457, 124_768.00933490603), (0.01, 0.5, 7.854392895485092e-05),
        (0.01, 1e6, 997_675.1228599253), (0.99, 1e9, 1_000_073_567.0497469),
    ])
    func gammaQuantile(p: Double, shape: Double, wanted: Double) {
        #expect(near(SpecialFunctions.gammaQuantile(p, shape: shape), wanted, 1e-8))
    }

    @Test(arguments: [
        (0.001, -3.090232306167813), (0.02, -2.053748910631823), (0.3, -0.5244005127080409), (0.975, 1.959963984540054),
        (0.9999, 3.719016485455709),
    ])
    func normalQuantile(p: Double, wanted: Double) { #expect(near(SpecialFunctions.normalQuantile(p), wanted, 1e-12)) }

    @Test(arguments: [
        (2.5, 7.0, 0.9795038907071235), (-1.2, 3.5, 0.15250724268893226), (0, 5, 0.5),
        (0.001, 1000, 0.5003988424907736),
        (-12, 40, 3.91208565212799e-15),
    ])
    func studentT(t: Double, degrees: Double, wanted: Double) {
        #expect(near(SpecialFunctions.studentT(t, degrees: degrees), wanted))
    }

    @Test(arguments: [
        (0.995, 3.0, 5.840909309733355), (0.975, 10.5, 2.2138402929187886), (0.02, 27, -2.157824823916996),
    ])
    func studentTQuantile(p: Double, degrees: Double, wanted: Double) {
        #expect(near(SpecialFunctions.studentTQuantile(p, degrees: degrees), wanted))
    }
}

@Suite struct RateRatioTests {
    @Test(arguments: [
        (12.0, 100.0, 30.0, 80.0, 0.99, 1.2814438485384456, 8.561872666917852),
        (5, 1000, 0, 900, 0.95, 0.0, 1.2125323390917178),
        (400, 5e4, 900, 6e4, 0.99, 1.6053270591967423, 2.1959309054933893),
    ])
    func interval_isThatOfClopperAndPearson(
        before: Double, exposureBefore: Double, after: Double, exposureAfter: Double, confidence: Double, low: Double,
        high: Double
    ) throws {
        let interval = try #require(
            RateRatio.interval(
                before: before, exposureBefore: exposureBefore, after: after, exposureAfter: exposureAfter,
                confidence: confidence))
        #expect(near(interval.low, low))
        #expect(near(interval.high, high))
    }

    @Test func nothingBefore_givesALowerBoundOnly() throws {
        let interval = try #require(
            RateRatio.interval(before: 0, exposureBefore: 163, after: 240, exposureAfter: 245, confidence: 0.99))
        #expect(near(interval.low, 29.805208303674448))
        #expect(interval.high == .infinity)
        #expect(interval.estimate == .infinity)
    }

    @Test func overdispersion_widensTheInterval() throws {
        let plain = try #require(
            RateRatio.interval(before: 40, exposureBefore: 1, after: 80, exposureAfter: 1, confidence: 0.99))
        let wide = try #require(
            RateRatio.interval(
                before: 40, exposureBefore: 1, after: 80, exposureAfter: 1, dispersion: 4, confidence: 0.99))
        #expect(wide.low < plain.low && wide.high > plain.high)
        #expect(wide.estimate == plain.estimate)
    }

    /// Half of scipy's chi2.ppf(0.99, 2 (count + 1)).
    @Test(arguments: [
        (0.0, 4.60517018598809), (1, 6.638352067993811), (5, 13.108483652767926), (40, 57.34744733878401),
    ])
    func upperLimit_isGarwoods(count: Double, wanted: Double) {
        #expect(near(RateRatio.upperLimit(count: count, exposure: 1, confidence: 0.99), wanted, 1e-6))
    }

}

@Suite struct ShiftTests {
    @Test func independentValues_giveWelchsInterval() throws {
        let before = [5.0, 6, 4, 5.5, 4.5, 5, 6, 4, 5.2, 4.8]
        let after = before.map { $0 + 3 }
        let interval = try #require(MeanShift.interval(before: before, after: after, confidence: 0.99))
        #expect(near(interval.estimate, 3, 1e-12))
        // scipy's ttest_ind(equal_var=False): neighbours here differ more than by chance, so that each value counts.
        #expect(near(interval.low, 2.081701796650681) && near(interval.high, 3.918298203349319))
    }

    /// By numpy and scipy, by the definitions: of 24 and 20 values 9.1 and 12.5 count.
    @Test func dependentValues_countLess() throws {
        let before = [
            5.0, 4.2, 3.39, 4.19, 5.14, 6.18, 5.52, 4.63, 4.09, 5.43, 6.78, 5.9, 4.08, 3.72, 6.15, 5.61, 3.48, 4.38,
            3.62, 3.89, 4.12, 3.98, 5.2, 5.01,
        ]
        let after = [
            6.5, 5.91, 6.73, 7.4, 5.13, 5.83, 5.32, 5.97, 5.05, 6.09, 6.34, 6.15, 5.35, 5.76, 5.19, 4.75, 6.2, 5.3,
            7.31, 7.46,
        ]
        let interval = try #require(MeanShift.interval(before: before, after: after, confidence: 0.95))
        #expect(near(interval.estimate, 1.2499166666666666))
        #expect(near(interval.low, 0.42519504435223676) && near(interval.high, 2.074638288981096))
    }

    @Test func dependentValues_widenTheInterval() throws {
        let calm = (0..<40).map { $0 % 2 == 0 ? 1.0 : 2.0 }
        let slow = (0..<40).map { $0 < 20 ? 1.0 : 2.0 }
        let a = try #require(MeanShift.interval(before: calm, after: calm, confidence: 0.99))
        let b = try #require(MeanShift.interval(before: slow, after: slow, confidence: 0.99))
        #expect(b.high - b.low > 2 * (a.high - a.low))
    }

    @Test func tooFewValues_sayNothing() {
        #expect(MeanShift.interval(before: [1, 2], after: [1, 2, 3], confidence: 0.99) == nil)
    }

    @Test func step_isFoundWhereTheRateChanges() {
        let counts: [Double] = [1, 0, 2, 1, 1, 0, 9, 8, 11, 10]
        #expect(ChangePoint.poissonStep(counts: counts, exposures: [Double](repeating: 1, count: 10)) == 6)
        #expect(ChangePoint.poissonStep(counts: [0, 0, 0], exposures: [1, 1, 1]) == nil)
        // Of the places where a step was to be expected, the first that the data do not contradict.
        let few: [Double] = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
        let ones = [Double](repeating: 1, count: few.count)
        #expect(ChangePoint.poissonStep(counts: few, exposures: ones) == 7)
        #expect(ChangePoint.poissonStep(counts: few, exposures: ones, candidates: [1, 6, 7]) == 6)
        // Nothing is known of bins without exposure: the step is where it is seen, or at a candidate among them.
        let gap: [Double] = [1, 1, 1, 1, 0, 0, 0, 1, 1, 1]
        let gapped: [Double] = [0, 1, 0, 0, 0, 0, 0, 9, 8, 9]
        #expect(ChangePoint.poissonStep(counts: gapped, exposures: gap) == 7)
        #expect(ChangePoint.poissonStep(counts: gapped, exposures: gap, candidates: [0, 5]) == 5)
    }

    /// The split that is likeliest, tried one by one, wherever bins without exposure stand.
    @Test func step_isThatOfAllSplitsTriedOneByOne() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        for _ in 0..<500 {
            var counts: [Double] = []
            var exposures: [Double] = []
            for _ in 0..<Int.random(in: 2...20, using: &random) {
                let isSeen = Int.random(in: 0..<4, using: &random) > 0
                exposures.append(isSeen ? Double(Int.random(in: 1...3, using: &random)) : 0)
                counts.append(isSeen ? Double(Int.random(in: 0...6, using: &random)) : 0)
            }
            let seen = counts.indices.filter { exposures[$0] > 0 }
            func likelihood(_ part: [Int]) -> Double {
                let (events, time) = part.reduce((0.0, 0.0)) { ($0.0 + counts[$1], $0.1 + exposures[$1]) }
                return events > 0 ? events * log(events / time) : 0
            }
            var gains: [Int: Double] = [:]
            for split in seen.indices.dropFirst() {
                gains[seen[split]] =
                    likelihood(Array(seen[..<split])) + likelihood(Array(seen[split...])) - likelihood(Array(seen))
            }
            let best = gains.values.max() ?? 0
            let found = ChangePoint.poissonStep(counts: counts, exposures: exposures)
            // Two splits may be as likely as each other.
            let isBest = found.map { abs((gains[$0] ?? -1) - best) < 1e-9 } ?? (best < 2e-9)
            #expect(isBest, "seed \(seed): \(String(describing: found)) for \(counts) in \(exposures)")
        }
    }

    /// A true candidate is kept with about 96 %, and the stretch of a step of the mean holds it with about 98 %.
    @Test func stepsThatAreTrue_areKept() {
        var random = SeededRandom(seed: 27_11)
        let runs = 2000
        var kept = 0
        var held = 0
        for _ in 0..<runs {
            let step = Int.random(in: 20..<80, using: &random)
            let counts = (0..<100).map { poisson($0 < step ? 1 : 3, using: &random) }
            let ones = [Double](repeating: 1, count: 100)
            if ChangePoint.poissonStep(counts: counts, exposures: ones, candidates: [step]) == step { kept += 1 }
            let values = (0..<100).map { normal(using: &random) + ($0 < step ? 0 : 1) }
            if ChangePoint.meanStep(values: values)?.within.contains(step) ?? false { held += 1 }
        }
        #expect(kept >= runs * 94 / 100, "\(kept)")
        #expect(held >= runs * 97 / 100, "\(held)")
    }

    private func poisson(_ mean: Double, using random: inout SeededRandom) -> Double {
        // Knuth's: factors until they are below the probability of none.
        var (count, product) = (0.0, Double.random(in: 0..<1, using: &random))
        while product > exp(-mean) {
            count += 1
            product *= Double.random(in: 0..<1, using: &random)
        }
        return count
    }

    private func normal(using random: inout SeededRandom) -> Double {
        (-2 * log(Double.random(in: 1e-300..<1, using: &random))).squareRoot()
            * cos(2 * .pi * Double.random(in: 0..<1, using: &random))
    }
}

@Suite struct TrendTests {
    /// Residuals that alternate: no more than scipy's `linregress`.
    @Test func independentValues_areAsScipyHasThem() throws {
        let trend = try #require(Trend([1, 3, 2, 5, 3, 6, 5, 8, 6, 9, 8, 11]))
        #expect(near(trend.slope, 0.7797202797202797) && near(trend.error, 0.09886720442284422))
        #expect(near(trend.error(count: 12), trend.error))
    }

    /// By numpy: `polyfit`, and Santer's effective sample size with Kendall's correction of the autocorrelation.
    @Test func neighboursThatDepend_makeTheErrorWider() throws {
        let trend = try #require(
            Trend([0, 1, 1.5, 1.2, 2, 3, 3.5, 3.8, 3.2, 3, 3.5, 4.5, 5.5, 5.8, 6, 5.5]))
        #expect(near(trend.slope, 0.3697058823529412) && near(trend.error, 0.07380079593685995))
        // Twice as long is nearly three times as exact.
        #expect(near(trend.error(count: 32) / trend.error, (16.0 * 255 / (32 * 1023)).squareRoot()))
    }

    @Test func straightLine_hasNoError_andFewValuesNoTrend() throws {
        let line = try #require(Trend((0..<20).map { 3 - 0.5 * Double($0) }))
        #expect(near(line.slope, -0.5) && line.error < 1e-9)
        #expect(Trend([1, 2, 3, 4]) == nil)
        let flat = try #require(Trend([2, 2, 2, 2, 2]))
        #expect(flat.slope == 0 && flat.error == 0)
    }

    /// numpy.linalg.lstsq.
    @Test func leastSquares_areThoseOfNumpy() throws {
        let x = [-2.0, -1.636, -1.273, -0.909, -0.545, -0.182, 0.182, 0.545, 0.909, 1.273, 1.636, 2.0]
        let sine = [0.279, 0.981, 0.627, -0.403, -0.998, -0.519, 0.519, 0.998, 0.403, -0.627, -0.981, -0.279]
        let values = [0.154, -2.374, -0.52, 1.499, 2.979, 2.346, -0.017, -0.184, 1.071, 4.642, 4.675, 3.352]
        let found = try #require(LeastSquares.fit([Array(repeating: 1, count: 12), x, sine], values))
        for (one, known) in zip(found, [1.4685833333333336, 0.6955480189773006, -2.2505134974273795]) {
            #expect(abs(one - known) < 1e-12)
        }
        #expect(LeastSquares.fit([x, x.map { 2 * $0 }], values) == nil)
        #expect(LeastSquares.fit([x], []) == nil)
    }

    /// Pearson's statistic over its degrees of freedom by numpy: 3.33 for bins, 2.18 for pairs, 1.58 for threes; of fours
    /// there are too few.
    @Test func largestDispersion_isThatOfTheBlocksThatVaryMost() {
        let counts: [Double] = [3, 0, 9, 1, 2, 12, 4, 0, 1, 7, 2, 2, 5, 0, 8, 1, 3, 11, 2, 0, 6, 1, 0, 4]
        let exposures = (0..<24).map { 1 + 0.1 * Double($0 % 3) }
        func largest(_ blocks: [Int], variance: Double = 1, limit: Double = 50) -> Double {
            RateRatio.largestDispersion(
                counts: counts, exposures: exposures, blocks: blocks, variance: variance, limit: limit)
        }
        #expect(abs(largest([1, 2, 3]) - 3.3252587991718423) < 1e-12)
        #expect(abs(largest([2, 3]) - 2.1835928047108175) < 1e-12)
        #expect(abs(largest([2, 3], variance: 0.5) - 2 * 2.1835928047108175) < 1e-12)
        #expect(largest([1], limit: 2) == 2 && largest([4]) == 1 && largest([]) == 1)
    }
}
