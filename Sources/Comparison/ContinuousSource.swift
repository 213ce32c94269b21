import Cluster
import PromQL
import Series

/// Series as they are named and measured at the end of an upgrade, also from before it.
///
/// What is asked for by a metric's name is found under its older names too: renamed, in the new unit, with the new names
/// of labels. So signals are written for the new version, and their history goes back over the change. A target that
/// exposes both names for a while counts once: its new name has precedence.
struct ContinuousSource: SeriesSource {
    /// What a target does not expose for longer, it does not expose meanwhile.
    private static let pauseMs: Int64 = 300_000

    private let base: any SeriesSource
    private let continuity: MetricContinuity

    init(_ base: any SeriesSource, continuity: MetricContinuity) {
        self.base = base
        self.continuity = continuity
    }

    func labels(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [Labels] {
        try base.labels(matchers, fromMs: fromMs, throughMs: throughMs)
    }

    func metadata() throws -> [MetricMetadata] { try base.metadata() }

    func timeRange() throws -> ClosedRange<Int64>? { try base.timeRange() }

    func select(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> [SeriesSamples] {
        let old = try before(matchers, fromMs, throughMs)
        return try joined(old, matchers, fromMs, throughMs)
    }

    /// Metrics that go on as they were are read one series after another.
    func selection(_ matchers: [LabelMatcher], fromMs: Int64, throughMs: Int64) throws -> SeriesSelection {
        let old = try before(matchers, fromMs, throughMs)
        guard !old.isEmpty else { return try base.selection(matchers, fromMs: fromMs, throughMs: throughMs) }
        return SeriesSelection(try joined(old, matchers, fromMs, throughMs))
    }

    /// What is asked for as it is named now, with what was named otherwise.
    private func joined(
        _ old: [SeriesSamples], _ matchers: [LabelMatcher], _ fromMs: Int64, _ throughMs: Int64
    ) throws -> [SeriesSamples] {
        let own = try base.select(matchers, fromMs: fromMs, throughMs: throughMs)
        guard !old.isEmpty, let name = name(matchers) else { return own }
        let renames = continuity.labelRenames(of: VersionCatalogue.family(of: name).name)
        // Series whose labels alone are older are among the old ones.
        return ContinuousSource.joined(
            own.filter { one in !renames.contains { one.labels[$0.old] != nil && one.labels[$0.new] == nil } }, old)
    }

    private func name(_ matchers: [LabelMatcher]) -> String? {
        matchers.first { $0.name == Labels.metricName && $0.operator == .equal }?.value
    }

    /// What is asked for, from under its older names; empty where the matchers name no metric, or one without such.
    private func before(_ matchers: [LabelMatcher], _ fromMs: Int64, _ throughMs: Int64) throws -> [SeriesSamples] {
        guard let name = name(matchers) else { return [] }
        var old: [SeriesSamples] = []
        let renames = continuity.labelRenames(of: VersionCatalogue.family(of: name).name)
        if !renames.isEmpty {
            old += try translated(name, name, renames, matchers, factor: 1, fromMs, throughMs)
        }
        // A summary beside a histogram of the same observations counts them a second time.
        for kind in [VersionCatalogue.MetricChange.Kind.rename, .summaryToHistogram] {
            let known = Set(old.map { ContinuousSource.target($0.labels) })
            for (oldName, change) in predecessors(of: name) where change.kind == kind {
                old += try translated(oldName, name, change.labels, matchers, factor: change.factor, fromMs, throughMs)
                    .filter { kind == .rename || !known.contains(ContinuousSource.target($0.labels)) }
            }
        }
        return old
    }

    /// The names under which a metric's samples stand in the version before.
    private func predecessors(of name: String) -> [(name: String, change: VersionCatalogue.MetricChange)] {
        var found: [(String, VersionCatalogue.MetricChange)] = []
        for change in continuity.predecessors(of: name) where change.kind == .rename {
            found.append((change.old, change))
        }
        let (family, suffix) = VersionCatalogue.family(of: name)
        guard !suffix.isEmpty else { return found }
        for change in continuity.predecessors(of: family) {
            switch change.kind {
            case .rename: found.append((change.old + suffix, change))
            // A summary has no buckets.
            case .summaryToHistogram where suffix != "_bucket": found.append((change.old + suffix, change))
            default: break
            }
        }
        return found
    }

    private func translated(
        _ oldName: String, _ name: String, _ renames: [(old: String, new: String)], _ matchers: [LabelMatcher],
        factor: Double, _ fromMs: Int64, _ throughMs: Int64
    ) throws -> [SeriesSamples] {
        let renamed = Set(renames.map(\.new))
        // Conditions on the name, and on labels that are named otherwise, hold for the series as it is afterwards.
        let conditions = matchers.filter {
            $0.name != Labels.metricName && !renamed.contains($0.name) && !($0.name == "le" && factor != 1)
        }
        let series = try base.select(
            [.equal(Labels.metricName, oldName)] + conditions, fromMs: fromMs, throughMs: throughMs)
        return series.compactMap { one in
            var labels = one.labels
            var isChanged = oldName != name
            for rename in renames {
                guard let value = labels[rename.old] else { continue }
                labels[rename.old] = nil
                if labels[rename.new] == nil {
                    labels[rename.new] = value
                    isChanged = true
                }
            }
            guard isChanged else { return nil }
            labels[Labels.metricName] = name
            var result = one
            if factor != 1 {
                if let le = labels["le"] {
                    if let bound = ClassicHistogram.bound(le), bound.isFinite {
                        labels["le"] = ContinuousSource.bound(bound * factor)
                    }
                } else if !name.hasSuffix("_count") {
                    result.values = result.values.map { $0 * factor }
                }
            }
            result.labels = labels
            return matchers.allSatisfy { $0.accepts(labels) } ? result : nil
        }
    }

    /// A bound as clients write it: what was 125000 microseconds is 0.125 seconds, without the noise of the product.
    private static func bound(_ value: Double) -> String {
        let rounded = (value * 1e9).rounded() / 1e9
        return GoFloat.text(rounded)
    }

    /// What names a target among its cluster's.
    private static func target(_ labels: Labels) -> String {
        "\(labels["job"] ?? "")\u{1f}\(labels["instance"] ?? "")\u{1f}\(labels["metrics_path"] ?? "")"
    }

    /// New series with the old ones before and behind them.
    private static func joined(_ own: [SeriesSamples], _ old: [SeriesSamples]) -> [SeriesSamples] {
        let spans = ContinuousSource.spans(own)
        var byLabels: [Labels: SeriesSamples] = [:]
        for series in own { byLabels[series.labels] = series }
        for series in old {
            var merged = byLabels[series.labels] ?? SeriesSamples(labels: series.labels)
            let taken = spans[target(series.labels)] ?? []
            var pairs = Array(zip(merged.timestampsMs, merged.values))
            let known = Set(merged.timestampsMs)
            for (atMs, value) in zip(series.timestampsMs, series.values) {
                if known.contains(atMs) || taken.contains(where: { $0.contains(atMs) }) { continue }
                // The old name ends where the new one begins: the marker of its end is none of the series'.
                if value.isStaleMarker, !taken.isEmpty { continue }
                pairs.append((atMs, value))
            }
            pairs.sort { $0.0 < $1.0 }
            merged.timestampsMs = pairs.map(\.0)
            merged.values = pairs.map(\.1)
            byLabels[series.labels] = merged
        }
        return byLabels.values.filter { !$0.timestampsMs.isEmpty }.sorted { $0.labels < $1.labels }
    }

    /// When each target exposed what is new, in order: not between an attempt that was rolled back and the next.
    private static func spans(_ own: [SeriesSamples]) -> [String: [ClosedRange<Int64>]] {
        var runs: [String: [ClosedRange<Int64>]] = [:]
        for series in own {
            var run: ClosedRange<Int64>?
            let key = target(series.labels)
            for (atMs, value) in zip(series.timestampsMs, series.values) where !value.isNaN {
                if let known = run, atMs - known.upperBound > pauseMs {
                    runs[key, default: []].append(known)
                    run = nil
                }
                run = (run?.lowerBound ?? atMs)...atMs
            }
            if let run { runs[key, default: []].append(run) }
        }
        return runs.mapValues { runs in
            runs.sorted { $0.lowerBound < $1.lowerBound }.reduce(into: []) { spans, run in
                if let last = spans.last, run.lowerBound - last.upperBound <= pauseMs {
                    spans[spans.count - 1] = last.lowerBound...max(last.upperBound, run.upperBound)
                } else {
                    spans.append(run)
                }
            }
        }
    }
}
