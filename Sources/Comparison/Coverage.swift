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
            if let first = times.first { coverage.firstScrapeMs = min(first, coverage.firstScrapeMs ?? first) }
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
        func isThere(_ name: String, _ more: LabelMatcher...) throws -> Bool {
            try !source.labels([.equal(Labels.metricName, name)] + more, fromMs: fromMs, throughMs: throughMs).isEmpty
        }
        let objects = try isThere(ClusterObserver.restartsMetric)
        let logs = try isThere("upgrade_watch_log_lines_total", .equal("component", "kubelet"))
        var missing: [String] = []
        switch (objects, logs) {
        case (true, true): break
        case (true, false):
            missing.append("kubelet logs: the causes of restarts are told from objects and events alone")
        case (false, true):
            missing.append(
                "Kubernetes objects: restarts and evictions are told from logs alone, without workloads' owners")
        case (false, false):
            missing.append(
                "Kubernetes objects and kubelet logs: restarts are told from metrics alone, evictions are not known")
        }
        if objects, try !isThere(ClusterObserver.eventsMetric) {
            missing.append(
                "Kubernetes events: who killed a container is told from "
                    + (logs ? "logs alone" : "the times of ends and steps alone"))
        }
        if try !isThere("upgrade_watch_audit_requests_total") {
            missing.append("the API server's audit log: who is refused, and who deletes pods, is not known")
        }
        return missing
    }
}

extension BaselineQuality {
    init(_ source: any SeriesSource, _ span: TimeSpan) throws {
        let coverage = try Coverage.measure(source, fromMs: span.fromMs, throughMs: span.throughMs)
        let fired = try source.select(
            [.equal(Labels.metricName, "ALERTS"), .equal("alertstate", "firing")], fromMs: span.fromMs,
            throughMs: span.throughMs)
        // Logs and objects tell of times before the first scrape.
        self.init(
            fromMs: max(span.fromMs, coverage.firstScrapeMs ?? span.fromMs), throughMs: span.throughMs,
            scrapesDue: coverage.scrapesDue,
            scrapesOK: coverage.scrapesOK, firedAlerts: Set(fired.compactMap { $0.labels["alertname"] }).sorted())
    }
}
