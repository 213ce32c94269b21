import Series

/// How long each target was watched, by the series `up`: the exposure of events in time.
///
/// An increase shows at the first good scrape after it, so the time since the good scrape before counts at the same
/// place: a gap puts both its events and its seconds into the bin in which it ends.
struct WatchedTime: Sendable {
    /// A target under one set of labels.
    private struct Target {
        var job: String
        var unit: String
        var firstUpMs: Int64?
        var lastUpMs: Int64?
        /// The last sample read, whatever its value.
        var lastMs: Int64 = .min
        var seconds: [Float] = []
    }

    let bins: Bins
    /// By all labels of `up`.
    private var targets: [Labels: Target] = [:]
    /// When each target began to answer, under each set of labels that it had: in any order, by ``targetLabels``.
    private var beganMs: [Labels: [Int64]] = [:]
    /// Samples may carry times of their own, a little off that of their scrape.
    private static let offsetMs: Int64 = 60_000
    /// How much later than the last good scrape a sample still counts as watched.
    private static let longestGapMs: Int64 = 3_600_000

    static let targetLabels = ["instance", "job", "metrics_path"]

    init(bins: Bins) { self.bins = bins }

    /// Reads the samples of a time that were not read yet.
    mutating func ingest(_ source: any SeriesSource, fromMs: Int64, throughMs: Int64) throws {
        let selection = try source.selection(
            [.equal(Labels.metricName, "up")], fromMs: fromMs, throughMs: throughMs)
        try selection.readAll { place, times, values in
            let labels = selection.labels[place]
            var target =
                targets.removeValue(forKey: labels)
                ?? Target(job: labels["job"] ?? "", unit: SignalTable.unit(of: labels))
            for (atMs, value) in zip(times, values) where atMs > target.lastMs {
                target.lastMs = atMs
                guard value == 1 else { continue }
                if target.firstUpMs == nil {
                    target.firstUpMs = atMs
                    beganMs[labels.keeping(WatchedTime.targetLabels), default: []].append(atMs)
                }
                if let last = target.lastUpMs, let index = bins.index(of: atMs) {
                    let seconds = min(atMs - max(last, bins.fromMs), WatchedTime.longestGapMs)
                    SignalTable.add(&target.seconds, index, Double(seconds) / 1000)
                }
                target.lastUpMs = atMs
            }
            targets[labels] = target
        }
    }

    /// Whether a target had answered before a time, and under the same labels: a series of it that appears then began at
    /// zero.
    ///
    /// With a label more, or another value of one, all of its series appear anew and have counted for long.
    func wasUp(_ target: Labels, before atMs: Int64) -> Bool {
        guard let began = beganMs[target], let firstMs = began.min(), firstMs < atMs else { return false }
        return !began.contains { $0 > firstMs && abs($0 - atMs) <= WatchedTime.offsetMs }
    }

    /// The seconds that each unit of a job was watched, by bin; a unit with several targets counts once.
    func seconds(job: String) -> [String: [Float]] {
        var units: [String: [Float]] = [:]
        for target in targets.values where target.job == job {
            if var known = units.removeValue(forKey: target.unit) {
                if known.count < target.seconds.count {
                    known += [Float](repeating: 0, count: target.seconds.count - known.count)
                }
                for index in target.seconds.indices { known[index] = max(known[index], target.seconds[index]) }
                units[target.unit] = known
            } else {
                units[target.unit] = target.seconds
            }
        }
        return units
    }

    /// Whether a job, any where it is nil, answered at all within a time, as far as its bins tell.
    func answers(job: String?, fromMs: Int64, throughMs: Int64) -> Bool {
        let range = (bins.index(of: fromMs + 1) ?? 0)..<(bins.index(of: throughMs) ?? 0) + 1
        return targets.values.contains { target in
            (job == nil || target.job == job)
                && target.seconds.indices.clamped(to: range).contains { target.seconds[$0] > 0 }
        }
    }
}
