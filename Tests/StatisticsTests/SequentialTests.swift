import Foundation
import Statistics
import TestSupport
import Testing

private func near(_ a: Double, _ b: Double, _ tolerance: Double = 1e-9) -> Bool {
    a == b || abs(a - b) <= tolerance * max(abs(a), abs(b))
}

/// The expected values were made with numpy and scipy 1.17, by the definitions: from the probabilities of
/// `scipy.stats.binom` and `poisson`, for every ratio and every beginning.
@Suite struct CountEProcessTests {
    static let treated = [2.0, 0, 3, 5, 1, 4]
    static let controls = [1.0, 2, 0, 2, 1, 1]
    static let shares = [0.2, 0.2, 0.5, 0.5, 0.8, 0.8]

    private func conditional(_ process: CountEProcess) -> [Double] {
        var process = process
        return Self.treated.indices.map { index in
            process.add(treated: Self.treated[index], controls: Self.controls[index], share: Self.shares[index])
            return process.logValue
        }
    }

    @Test func controlsWhoseShareChanges() {
        let wanted = [
            0.42235334096253324, -0.10615801975930679, 0.35130845335461275, 0.34456191960778515, -0.014965553763665549,
            -0.19172859296845315,
        ]
        let found = conditional(CountEProcess(nullRatio: 1.25, dispersion: 2))
        #expect(zip(found, wanted).allSatisfy { near($0, $1) }, "\(found)")
    }

    @Test func historyAsTheOnlyMeasure() {
        let expected = [1.5, 0.5, 1, 1, 2, 0.7]
        let wanted = [
            -0.7530360734932655, -0.9940447732527702, -0.7138334630149908, 0.1448200538212519, -0.5563549189923263,
            0.12204571188584921,
        ]
        var process = CountEProcess(nullRatio: 1.25, dispersion: 2)
        let found = Self.treated.indices.map { index in
            process.add(treated: Self.treated[index], expected: expected[index])
            return process.logValue
        }
        #expect(zip(found, wanted).allSatisfy { near($0, $1, 1e-8) }, "\(found)")
    }

    @Test func beginningsOfAllBins() {
        let wanted = [
            0.2333106776251515, -0.09243529316468466, 0.2430583287634673, 0.21544330392859518, -0.12347758075824761,
            -0.32082221779319964,
        ]
        let found = conditional(CountEProcess(nullRatio: 1.25, dispersion: 2, plannedBins: 6))
        #expect(zip(found, wanted).allSatisfy { near($0, $1, 1e-8) }, "\(found)")
    }

    /// A soak of a day, looked at every five minutes: at the boundary of the null, with surges that both sides share,
    /// it raises an alarm in at most 1.2 of 100 runs at a level of 1.
    @Test(arguments: [1.0, 3.0]) func falseAlarms_areWithinTheLevel_howeverOftenOneLooks(dispersion: Double) {
        let seed: UInt64 = 20_261_124
        var random = SeededRandom(seed: seed)
        var alarms = 0
        let runs = 2000
        for _ in 0..<runs {
            var process = CountEProcess(nullRatio: 1.25, dispersion: dispersion, plannedBins: 288)
            for bin in 0..<288 {
                let share = bin < 96 ? 0.2 : bin < 192 ? 0.5 : 0.8
                let surge = 2 * (1 + 0.5 * sin(Double(bin) / 288 * 2 * .pi)) * (bin > 200 ? 2 : 1)
                process.add(
                    treated: count(1.25 * surge * share, dispersion, &random),
                    controls: count(surge * (1 - share), dispersion, &random), share: share)
            }
            if process.logMaximum >= log(100) { alarms += 1 }
        }
        #expect(Double(alarms) / Double(runs) <= 0.012, "seed \(seed): \(alarms) of \(runs)")
    }

    @Test func lateChange_isFoundSoonerWithBeginnings_thanWithTheBallastBeforeIt() {
        func bins(planned: Int) -> Int? {
            var process = CountEProcess(nullRatio: 1.25, plannedBins: planned)
            return (0..<288).first { bin in
                process.add(treated: bin < 100 ? 1 : 4, expected: 1)
                return process.logValue >= log(100)
            }
        }
        let late = bins(planned: 288) ?? .max
        #expect(late >= 100 && late <= 112)
        #expect((bins(planned: 0) ?? .max) > late + 10)
    }

    @Test func scaleOfTheExposure_andEmptyBins_changeNothing() {
        var process = CountEProcess(nullRatio: 1.5)
        process.add(treated: 3, controls: 4, share: 0.5)
        let value = process.logValue
        process.add(treated: 0, controls: 0, share: 0.3)
        process.add(treated: 7, controls: 0, share: 1)
        process.add(treated: 0, expected: 0)
        #expect(near(process.logValue, value))
    }

    @Test func moreTreatedEvents_areMoreEvidence_andFewerAgainstAMarginToo() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        for _ in 0..<200 {
            let a = Double(Int.random(in: 0..<20, using: &random))
            let share = Double.random(in: 0.05..<0.95, using: &random)
            var last: (more: Double, fewer: Double)?
            for b in 0..<10 {
                var more = CountEProcess(nullRatio: 1.25)
                var fewer = CountEProcess(nullRatio: 2, alternative: .fewer)
                more.add(treated: Double(b), controls: a, share: share)
                fewer.add(treated: Double(b), controls: a, share: share)
                if let last { #expect(more.logValue >= last.more && fewer.logValue <= last.fewer, "seed \(seed)") }
                last = (more.logValue, fewer.logValue)
            }
        }
    }

    /// Counts with a variance of `dispersion` times their mean: Poisson, or clusters of so many events.
    private func count(_ mean: Double, _ dispersion: Double, _ random: inout SeededRandom) -> Double {
        let limit = exp(-mean / dispersion)
        var events = 0.0
        var product = Double.random(in: 0..<1, using: &random)
        while product > limit {
            events += 1
            product *= Double.random(in: 0..<1, using: &random)
        }
        return events * dispersion
    }
}

@Suite struct EValuesTests {
    @Test func merging_isTheMean() {
        #expect(EValues.merged([]) == 1)
        #expect(EValues.merged([0, 4, 8]) == 4)
        #expect(EValues.merged([10, 0], weights: [3, 1]) == 7.5)
    }

    /// Of what is told at most a part of the level is told wrongly, whether the values know of each other or are all one.
    @Test(arguments: [0, 0.5, 0.95, 1]) func discoveries_areRarelyFalse_howeverValuesDepend(shared: Double) {
        let seed: UInt64 = 9
        var random = SeededRandom(seed: seed)
        func normal() -> Double {
            (0..<12).reduce(-6.0) { total, _ in total + Double.random(in: 0..<1, using: &random) }
        }
        let (level, size, nulls, shift) = (0.1, 40, 30, 3.0)
        var (falsePart, found) = (0.0, 0)
        let rounds = 2000
        for _ in 0..<rounds {
            let common = normal()
            // Likelihood ratios of a shifted normal value: their mean is 1 where there is no shift.
            let values = (0..<size).map { index in
                let noise = shared.squareRoot() * common + (1 - shared).squareRoot() * normal()
                let value = noise + (index < nulls ? 0 : shift + 1)
                return exp(shift * value - shift * shift / 2)
            }
            let told = EValues.discoveries(values, level: level)
            found += told.count
            if !told.isEmpty { falsePart += Double(told.count { $0 < nulls }) / Double(told.count) }
        }
        #expect(falsePart / Double(rounds) <= level * Double(nulls) / Double(size) + 0.01, "seed \(seed)")
        #expect(found > rounds)
    }

    /// By hand: of five at a level of 0.1, k values must reach 50/k; three reach 16.7, so three are found.
    @Test func discoveries_areThoseOfEBH() {
        #expect(EValues.discoveries([20, 1, 18, 17, 0], level: 0.1) == [0, 2, 3])
        #expect(EValues.discoveries([20, 1, 18, 16, 0], level: 0.1) == [])
        #expect(EValues.discoveries([51, 1, 2, 3, 0], level: 0.1) == [0])
        #expect(EValues.discoveries([], level: 0.1) == [])
    }

    /// Whatever they have to do with each other: here each is the same test, or its opposite.
    @Test func rejections_areRarelyFalse_howeverTheTestsDepend() {
        var random = SeededRandom(seed: 27_12)
        let runs = 4000
        var falsely = 0
        for _ in 0..<runs {
            // One over a uniform number, by halves: an e-value of mean one and less.
            let uniform = Double.random(in: 1e-12..<1, using: &random)
            let values = (0..<20).map { index in
                let own = index % 2 == 0 ? uniform : 1 - uniform
                return -0.5 * log(own) - log(2)
            }
            let weights = [Double](repeating: 1, count: values.count)
            if !EValues.rejections(logValues: values, weights: weights, level: 0.05).isEmpty { falsely += 1 }
        }
        #expect(falsely <= runs * 5 / 100, "\(falsely)")
    }

    @Test func rejections_takeTheirPartOfTheLevel() {
        #expect(EValues.rejections(logValues: [log(150), log(150), 99], weights: [3, 1, 0], level: 0.01) == [0])
    }

    @Test func runningMaximum_isAdjusted() {
        #expect(EValues.adjusted(logMaximum: 0) == 0)
        #expect(near(EValues.adjusted(logMaximum: log(100)), 9))
    }
}

/// The expected values are those of scipy 1.17.
@Suite struct LevelTests {
    static let treated = [1.253, 0.735, 1.185, 1.548, 0.528, 0.971, 0.249]
    static let controls = [-0.732, -1.173, 0.112, -0.714, 0.517, 0.425, 0.15, -1.713, -0.131, 0.261, 0.391]

    @Test func median_isTheMiddleOfTheSortedValues() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        for _ in 0..<500 {
            let count = Int.random(in: 1...40, using: &random)
            // Few different values, and many.
            let most = Int.random(in: 1...50, using: &random)
            var values = (0..<count).map { _ in Double(Int.random(in: -most...most, using: &random)) }
            if Bool.random(using: &random) { values.sort() }
            let sorted = values.sorted()
            let wanted = count % 2 == 1 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2
            #expect(RobustSlope.median(values) == wanted, "seed \(seed): \(values)")
        }
    }

    @Test func slope_isTheilAndSens_throughAWildPoint() throws {
        let y = [3.0, 3.59, 3.918, 4.233, 40.0, 5.203, 6.018, 6.902, 6.852, 7.314, 8.147, 8.607]
        let line = try #require(RobustSlope.theilSen(x: (0..<12).map(Double.init), y: y))
        #expect(near(line.slope, 0.5046666666666667) && near(line.intercept, 3.6593333333333335))
        #expect(RobustSlope.theilSen(x: [1, 1], y: [2, 3]) == nil)
    }

    /// Up to 29 % of the points may be anywhere, and the slope stays among those of the others.
    @Test func slope_bearsWildPoints() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        for _ in 0..<50 {
            let count = Int.random(in: 20...60, using: &random)
            let x = (0..<count).map(Double.init)
            let slope = Double.random(in: -5...5, using: &random)
            var y = x.map { slope * $0 + Double.random(in: -0.1...0.1, using: &random) }
            for place in Array(0..<count).shuffled(using: &random).prefix(count * 29 / 100) {
                y[place] = Double.random(in: -1e9...1e9, using: &random)
            }
            let line = try #require(RobustSlope.theilSen(x: x, y: y))
            #expect(abs(line.slope - slope) <= 0.2, "seed \(seed)")
        }
    }

    /// By numpy and scipy, by the definitions.
    @Test func contrastOfStrata_isWeightedByTheTreated() throws {
        let strata: [(treated: [Double], controls: [Double])] = [
            ([1.2, 0.8, 1.9], [0.1, -0.4, 0.6, 0.3]), ([5.1, 6.2], [4.0, 4.4, 3.1]),
        ]
        let units = strata.enumerated().flatMap { stratum, units in
            units.treated.map { UnitChange(change: $0, isTreated: true, stratum: stratum) }
                + units.controls.map { UnitChange(change: $0, isTreated: false, stratum: stratum) }
        }
        let interval = try #require(GroupContrast.interval(units, confidence: 0.99))
        #expect(near(interval.estimate, 1.4166666666666667))
        #expect(near(interval.low, -0.0741644363933529, 1e-8) && near(interval.high, 2.907497769726686))
    }

    @Test func contrastOfOneStratum_isWelchs() throws {
        let units =
            Self.treated.map { UnitChange(change: $0, isTreated: true) }
            + Self.controls.map { UnitChange(change: $0, isTreated: false) }
        let interval = try #require(GroupContrast.interval(units, confidence: 0.99))
        #expect(near(interval.estimate, 1.1611428571428573))
        #expect(near(interval.low, 0.34234574563333187) && near(interval.high, 1.9799399686523826))
    }

    @Test func shockOfAStratum_cancelsOut_andABatchThatIsAStratumHasNoAnswer() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        var units: [UnitChange] = []
        for stratum in 0..<3 {
            for index in 0..<20 {
                let noise = Double.random(in: -0.05...0.05, using: &random)
                let isTreated = index < 4 + 4 * stratum
                units.append(
                    UnitChange(
                        change: Double(stratum) * 10 + (isTreated ? 0.2 : 0) + noise, isTreated: isTreated,
                        stratum: stratum))
            }
        }
        let interval = try #require(GroupContrast.interval(units, confidence: 0.999_999))
        #expect(interval.low > 0.1 && interval.high < 0.3, "seed \(seed)")
        let whole = units.map { UnitChange(change: $0.change, isTreated: $0.stratum == 0, stratum: $0.stratum) }
        #expect(GroupContrast.interval(whole, confidence: 0.99) == nil)
        #expect(GroupContrast.permutationPValue(whole, draws: 99, using: &random) == nil)
    }

    /// Of the 126 ways to choose four of nine, one is as great: scipy's exact test says 1/126.
    @Test func permutation_comesNearTheExactOne_andIsRepeatable() throws {
        let units =
            Self.treated.prefix(4).map { UnitChange(change: $0, isTreated: true) }
            + Self.controls.prefix(5).map { UnitChange(change: $0, isTreated: false) }
        var first = SeededRandom(seed: 1)
        var second = SeededRandom(seed: 1)
        let p = try #require(GroupContrast.permutationPValue(units, draws: 20_000, using: &first))
        #expect(abs(p - 0.007936507936507936) < 0.0025)
        #expect(GroupContrast.permutationPValue(units, draws: 20_000, using: &second) == p)
    }

    @Test func placebos_measureTheNoise() throws {
        let placebos = [
            -0.196, 0.899, 1.145, -1.324, -0.795, 0.647, -1.992, -0.463, -0.097, 1.257, 0.689, -0.327, -0.369, -0.25,
            1.524, -0.428, -0.304, 0.353, -0.121, -0.197, -1.114, -0.012, -0.444, 1.166, 0.653, -0.024, 0.668, -0.34,
            1.052, -0.005,
        ]
        let score = try #require(Placebo.score(observed: 3, placebos: placebos))
        #expect(near(score, 11.297557352941174 / (1.4826 * 1.4826)))
        #expect(Placebo.score(observed: 3, placebos: [1, 2]) == nil)
        #expect(Placebo.score(observed: 3, placebos: [1, 1, 1]) == .infinity)
        #expect(Placebo.pValue(observed: 1.5, placebos: placebos) == 2.0 / 31)
        // numpy's std(ddof=1), larger than scipy's median_abs_deviation here, times the factors of ten windows.
        #expect(near(Placebo.spread(placebos, windows: 10), 1.01815977943209))
        #expect(Placebo.windowMeans([1, 2, 3, 6], length: 2, step: 1) == [1.5, 2.5, 4.5])
        #expect(Placebo.windowMeans([1], length: 2, step: 1) == [])
    }

    @Test func stepOfTheMean_isWhereTheSquaresAreLeast() throws {
        let values = [
            -1.53, -0.478, -0.979, -0.809, 1.061, -0.808, -0.033, 0.884, -0.584, -0.112, 0.11, 0.064, -1.225, 0.076,
            1.359, -1.547, 0.859, 0.119, -0.641, 2.0, 2.762, 0.801, 2.075, 2.577, 1.811, 2.683, 1.933, 2.667, 3.439,
            1.324, 2.203, 1.537, 2.127, 0.813, 1.421,
        ]
        let step = try #require(ChangePoint.meanStep(values: values))
        #expect(step.index == 19 && step.within == 19...20)
        #expect(ChangePoint.meanStep(values: [1, 1, 1]) == nil)
    }

    @Test func confidenceOfOneLook_makesAnIntervalAsWide() {
        for (count, tightestAt) in [(1.0, 24.0), (24, 24), (100, 24), (3, 1000)] {
            let interval = AnytimeInterval.mean(
                estimate: 0, standardError: 1, count: count, tightestAt: tightestAt, confidence: 0.99)
            let confidence = AnytimeInterval.confidenceOfOneLook(
                count: count, tightestAt: tightestAt, confidence: 0.99)
            // Far out the normal distribution has no digits left for its quantile.
            guard interval.high < 7 else { continue }
            #expect(abs(SpecialFunctions.normalQuantile(0.5 + confidence / 2) / interval.high - 1) < 1e-4)
        }
    }

    /// Looked at after every value, an interval of 99 % misses the mean in at most 1.2 of 100 series.
    @Test func anytimeInterval_holdsAtAllLooks() {
        let seed: UInt64 = 4
        var random = SeededRandom(seed: seed)
        var misses = 0
        for _ in 0..<1000 {
            var sum = 0.0
            var missed = false
            for count in 1...500 {
                // The sum of twelve even numbers is near enough to a normal one.
                sum += (0..<12).reduce(-6.0) { total, _ in total + Double.random(in: 0..<1, using: &random) }
                guard count >= 20 else { continue }
                let interval = AnytimeInterval.mean(
                    estimate: sum / Double(count), standardError: 1 / Double(count).squareRoot(),
                    count: Double(count), tightestAt: 100, confidence: 0.99)
                if interval.low > 0 || interval.high < 0 { missed = true }
            }
            if missed { misses += 1 }
        }
        #expect(misses <= 12, "seed \(seed): \(misses)")
    }

    /// The same for the ratio of a count that grows to one that stands, as that of the time before an upgrade: looked at
    /// fifty times, an interval of 99 % misses the ratio in at most 1.2 of 100 series.
    @Test(arguments: [(20.0, 3.0), (200, 1), (200, 5), (2000, 1.2)])
    func intervalOfARatio_holdsAtAllLooks(before: Double, ratio: Double) throws {
        let seed: UInt64 = 8
        var random = SeededRandom(seed: seed)
        func poisson(_ mean: Double) -> Double {
            var (count, time) = (0.0, 0.0)
            while true {
                time -= log(1 - Double.random(in: 0..<1, using: &random))
                if time > mean { return count }
                count += 1
            }
        }
        var misses = 0
        for _ in 0..<500 {
            let known = poisson(before)
            var after = 0.0
            let looks = 50
            let missed = (1...looks).contains { look in
                after += poisson(before * ratio / Double(looks))
                let confidence = AnytimeInterval.confidenceOfOneLook(
                    count: Double(look), tightestAt: Double(looks), confidence: 0.99)
                guard
                    let interval = RateRatio.interval(
                        before: known, exposureBefore: 1, after: after, exposureAfter: Double(look) / Double(looks),
                        dispersion: 1, confidence: confidence)
                else { return false }
                return interval.low > ratio || interval.high < ratio
            }
            if missed { misses += 1 }
        }
        #expect(misses <= 6, "seed \(seed): \(misses)")
    }
}
