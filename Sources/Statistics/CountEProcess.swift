import Foundation

/// A test of event counts that may be looked at after every bin.
///
/// The null hypothesis: events come at most ``nullRatio`` times as often as they should. Under it the process is a
/// nonnegative supermartingale that begins at 1, so by Ville's inequality (1939) it ever reaches 1/alpha with a
/// probability of at most alpha, however often somebody looks and whenever they stop. It is the equal mixture over
/// ``ratios`` of likelihood ratios (finite-mixture mSPRT; with a constant share the Bayes factor of Lindon and Malek,
/// "Anytime-Valid Inference for Multinomial Count Data", NeurIPS 2022), one bin at a time:
///
/// - against controls that run beside (``add(treated:controls:share:)``) given the sum of both counts, so that what
///   moves both cancels out; the share of the exposure may change from bin to bin, as batches are upgraded;
/// - against a bound on the rate from history (``add(treated:expected:)``) where there are no controls.
///
/// Both are tempered: every log likelihood ratio is divided by the overdispersion, which keeps the expectation at or
/// below 1 to second order for counts whose variance is that many times their mean. That is an approximation; its error
/// is what simulations of the null measure.
///
/// The state is one number a ratio, whatever the time; a bin costs a logarithm and an exponential for each.
package struct CountEProcess: Sendable, Equatable {
    /// Which ratios of rates speak against the null hypothesis.
    package enum Alternative: Sendable {
        /// More than the null's.
        case more
        /// Fewer: rejecting it shows that the ratio is under a margin.
        case fewer
    }

    /// The largest ratio of the null hypothesis, the smallest where the alternative is ``Alternative/fewer``.
    package let nullRatio: Double
    /// The ratios of the alternative, each as likely as another.
    package let ratios: [Double]
    /// Variance over mean of the counts of the bins to come, at least 1.
    package var dispersion: Double {
        didSet { dispersion = max(1, dispersion) }
    }

    /// For each ratio, the log of the mixture over the times at which the change began.
    private var logs: [Double]
    private var bins = 0
    private let planned: Int
    /// The part of the weight of each bin's beginning but the first, and its logarithm.
    private let restartWeight: Double
    private let logRestartWeight: Double
    /// The natural logarithm of the e-value at the last bin.
    package private(set) var logValue = 0.0
    /// The largest so far; an alarm at a level is one for good.
    package private(set) var logMaximum = 0.0

    /// Multiples of the null's ratio: from the smallest that matter to storms.
    private static let multiples = [1.2, 1.5, 2, 3, 5, 10, 20]
    private static let logMultiples = multiples.map { log($0) }
    /// The logarithm of how much more likely each ratio makes an event than the null's.
    private let logWeights: [Double]

    /// - Parameters:
    ///   - nullRatio: greater than 0.
    ///   - dispersion: taken as 1 where it is less.
    ///   - plannedBins: for how many bins the test is made. Half of its weight lies on a change that begins with the
    ///     first bin, the other half evenly on the beginnings of so many bins (as the e-detectors of Shin, Ramdas and
    ///     Rinaldo, 2022, but with weights that sum to 1, so that the level holds for all times): a late change is found
    ///     without the ballast of the time before. Bins beyond have no beginning of their own. 0: only the first.
    package init(
        nullRatio: Double, alternative: Alternative = .more, dispersion: Double = 1, plannedBins: Int = 0
    ) {
        precondition(nullRatio > 0, "a ratio of rates is positive")
        self.nullRatio = nullRatio
        self.dispersion = max(1, dispersion)
        ratios = CountEProcess.multiples.map { alternative == .more ? nullRatio * $0 : nullRatio / $0 }
        let sign: Double = alternative == .more ? 1 : -1
        logWeights = CountEProcess.logMultiples.map { sign * $0 }
        restartWeight = plannedBins > 1 ? 0.5 / Double(plannedBins - 1) : 0
        logRestartWeight = log(restartWeight)
        planned = plannedBins
        logs = [Double](repeating: plannedBins > 1 ? log(0.5) : 0, count: ratios.count)
    }

    /// Adds a bin with controls.
    ///
    /// - Parameters:
    ///   - treated: the events of those that changed, at least 0.
    ///   - controls: the events of those that did not.
    ///   - share: the part of the exposure, in 0...1, that is of those that changed. It must not depend on the bin's
    ///     events. At 0 or 1 there is nothing to compare, and the bin says nothing.
    package mutating func add(treated: Double, controls: Double, share: Double) {
        guard share > 0, share < 1 else { return advance { _, _ in 0 } }
        let odds = share / (1 - share)
        // Given the sum, an event is of the treated with the probability r w / (r w + 1 - w).
        let log0 = log1p(nullRatio * odds)
        let total = treated + controls
        // Without an event there is nothing to divide between them.
        guard total > 0 else { return advance { _, _ in 0 } }
        advance { [dispersion] ratio, logWeight in
            (treated * logWeight - total * (log1p(ratio * odds) - log0)) / dispersion
        }
    }

    /// Adds a bin that is compared with history.
    ///
    /// - Parameters:
    ///   - treated: the events, at least 0.
    ///   - expected: a bound on the events that the bin's exposure would have brought before: an upper one for
    ///     ``Alternative/more``, a lower one for ``Alternative/fewer``.
    package mutating func add(treated: Double, expected: Double) {
        advance { [nullRatio, dispersion] ratio, logWeight in
            (treated * logWeight - (ratio - nullRatio) * expected) / dispersion
        }
    }

    private mutating func advance(_ logLikelihoodRatio: (_ ratio: Double, _ logWeight: Double) -> Double) {
        let joins = bins > 0 && bins < planned && restartWeight > 0
        for index in logs.indices {
            let begun = joins ? CountEProcess.logSum(logs[index], logRestartWeight) : logs[index]
            logs[index] = begun + logLikelihoodRatio(ratios[index], logWeights[index])
        }
        bins += 1
        // What may begin later still counts as it is: 1 for its weight.
        let open = Double(max(0, planned - bins)) * restartWeight
        var largest = logs.max() ?? 0
        if open > 0 { largest = max(largest, log(open)) }
        let mean = logs.reduce(0) { $0 + exp($1 - largest) } / Double(logs.count)
        logValue = largest + log(mean + (open > 0 ? exp(log(open) - largest) : 0))
        logMaximum = max(logMaximum, logValue)
    }

    private static func logSum(_ a: Double, _ b: Double) -> Double {
        let high = max(a, b)
        return high + log1p(exp(min(a, b) - high))
    }

    /// The anytime-valid p-value: the inverse of the largest e-value so far, at most 1.
    package var pValue: Double { min(1, exp(-logMaximum)) }
}
