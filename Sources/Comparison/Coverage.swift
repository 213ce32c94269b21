import Cluster
import Series

extension Coverage {
    /// Which scrapes were due within a time and came, by the series `up`.
    ///
    /// The interval of a target is the median distance of its samples; a gap is a stretch of failed or missing
    /// scrapes of at least two intervals.
    static func measure(_ source: any SeriesSource, fromMs: Int64, throughMs: Int64) throws -> Coverage {
        var coverage = Coverage()
        for series in try source.select([.equal(Labels.metricName, "up")], fromMs: fromMs, throughMs: throughMs) {
            let times = series.timestampsMs
            guard times.count >= 3 else { continue }
            let distances = zip(times.dropFirst(), times).map { $0 - $1 }.sorted()
            let intervalMs = max(1, distances[distances.count / 2])
            coverage.targets += 1
            coverage.scrapesDue += max(times.count, Int((throughMs - times[0]) / intervalMs) + 1)
            let good = times.indices.filter { series.values[$0] == 1 }.map { times[$0] }
            coverage.scrapesOK += good.count
            let instance = (series.labels["instance"] ?? "") + (series.labels["metrics_path"] ?? "")
            let marks = (good.first == times[0] ? [] : [times[0]]) + good
            for (a, b) in zip(marks, marks.dropFirst() + [throughMs]) where b - a > 2 * intervalMs + intervalMs / 2 {
                coverage.gaps.append(Gap(instance: instance, fromMs: a, throughMs: b))
            }
        }
        coverage.missing = try missing(source, fromMs: fromMs, throughMs: throughMs)
        return coverage
    }

    /// The kinds of data that were not there, with what they are missed for.
    private static func missing(_ source: any SeriesSource, fromMs: Int64, throughMs: Int64) throws -> [String] {
        let kinds: [(matchers: [LabelMatcher], words: String)] = [
            (
                [.equal(Labels.metricName, ClusterObserver.restartsMetric)],
                "Kubernetes objects: restarts and evictions are told from logs alone, without workloads' owners"
            ),
            (
                [.equal(Labels.metricName, "upgrade_watch_log_lines_total"), .equal("component", "kubelet")],
                "kubelet logs: the causes of restarts are told from objects and events alone"
            ),
            (
                [.equal(Labels.metricName, "upgrade_watch_audit_requests_total")],
                "the API server's audit log: who is refused, and who deletes pods, is not known"
            ),
        ]
        return try kinds.filter {
            try source.labels($0.matchers, fromMs: fromMs, throughMs: throughMs).isEmpty
        }.map(\.words)
    }
}
