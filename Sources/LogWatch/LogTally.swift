import Foundation
import Series

/// Where lines come from.
package struct LogSource: Hashable, Sendable {
    package var component: String
    /// Empty where the log is not of one node.
    package var node: String
    package var format: LogFormat
    /// Where the component's machine is: klog writes local time; nil: UTC.
    package var timeZone: TimeZone?

    package init(component: String, node: String, format: LogFormat, timeZone: TimeZone? = nil) {
        self.timeZone = timeZone
        self.component = component
        self.node = node
        self.format = format
    }
}

/// Lines that show what a counter counts.
package struct LogEvidence: Codable, Sendable, Equatable {
    package struct Line: Codable, Sendable, Equatable {
        package var timestampMs: Int64
        package var text: String
    }

    package var count = 0
    package var firstMs: Int64 = 0
    package var lastMs: Int64 = 0
    /// The first lines, then the latest.
    package var lines: [Line] = []

    /// Lines kept from the beginning, and as many of the latest.
    private static let kept = 4
    /// A line is cut here: enough for klog's longest usual lines.
    private static let lineBytes = 600

    mutating func add(_ line: UnsafeRawBufferPointer, atMs: Int64) {
        if count == 0 { firstMs = atMs }
        count += 1
        lastMs = max(lastMs, atMs)
        firstMs = min(firstMs, atMs)
        if lines.count >= 2 * LogEvidence.kept { lines.remove(at: LogEvidence.kept) }
        lines.append(Line(timestampMs: atMs, text: String(decoding: line.prefix(LogEvidence.lineBytes), as: UTF8.self)))
    }
}

/// Counts what the lines of logs say.
///
/// The counters are the state of the module: they are written to the database together with the positions in the
/// files, so that after a kill no line is counted twice or lost, and they become samples from time to time.
package struct LogTally {
    private let rules: [LogRule]
    package private(set) var counters: [Labels: Double] = [:]
    package private(set) var evidence: [Labels: LogEvidence] = [:]
    /// What changed since it was last written down.
    private var changed: Set<Labels> = []
    private var byRule: [String: Int] = [:]
    private var applicable: [LogSource: [LogRule]] = [:]
    private var lineCounters: [LogSource: [LogSeverity: Labels]] = [:]
    private var emitter = CounterEmitter()

    /// The most label sets of one rule, and of audit requests: beyond it a match counts without the labels that the
    /// rule adds, so that a hostile log can't fill the store.
    private static let maxLabelSets = 5000

    package static let matchesMetric = "upgrade_watch_log_matches_total"
    package static let linesMetric = "upgrade_watch_log_lines_total"
    package static let auditMetric = "upgrade_watch_audit_requests_total"

    package init(rules: [LogRule]) { self.rules = rules }

    /// Takes back the counters that a process before this one wrote down.
    package mutating func restore(counters: [Labels: Double], evidence: [Labels: LogEvidence]) {
        self.counters = counters
        self.evidence = evidence
        for labels in counters.keys { byRule[LogTally.bucket(labels), default: 0] += 1 }
        emitter = CounterEmitter(known: counters.keys)
    }

    private static let verbs: Set<String> = [
        "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "connect", "proxy", "post",
        "put", "head", "options",
    ]

    private static func bucket(_ labels: Labels) -> String { labels["rule"] ?? labels.name }

    /// Takes in a line.
    ///
    /// - Parameters:
    ///   - line: without its line break.
    ///   - atMs: the line's time, or that of the line before where it has none.
    package mutating func add(_ line: UnsafeRawBufferPointer, of source: LogSource, severity: LogSeverity, atMs: Int64)
    {
        if source.format == .audit {
            if let event = AuditEvent(line) { add(event, of: source, line, atMs: atMs) }
        } else {
            for rule in rulesFor(source) { match(rule, line, source, atMs: atMs) }
        }
        count(lineLabels(source, severity))
    }

    private mutating func rulesFor(_ source: LogSource) -> [LogRule] {
        if let known = applicable[source] { return known }
        let found = rules.filter { $0.components.isEmpty || $0.components.contains(source.component) }
        applicable[source] = found
        return found
    }

    private mutating func match(_ rule: LogRule, _ line: UnsafeRawBufferPointer, _ source: LogSource, atMs: Int64) {
        let added = rule.pattern.match(line) { offsets in
            rule.pattern.groupNames.compactMap { group -> Label? in
                guard rule.labels.contains(group.name), offsets[group.number * 2] >= 0 else { return nil }
                let text = line[offsets[group.number * 2]..<offsets[group.number * 2 + 1]].prefix(200)
                return Label(group.name, String(decoding: text, as: UTF8.self))
            }
        }
        guard let added else { return }
        var labels = LogTally.base(LogTally.matchesMetric, source)
        labels["rule"] = rule.name
        let labelled = labels.merging(Labels(added))
        if counters[labelled] != nil || byRule[rule.name, default: 0] < LogTally.maxLabelSets { labels = labelled }
        count(labels)
        evidence[labels, default: LogEvidence()].add(line, atMs: atMs)
    }

    private mutating func add(_ event: AuditEvent, of source: LogSource, _ line: UnsafeRawBufferPointer, atMs: Int64) {
        var labels = LogTally.base(LogTally.auditMetric, source)
        labels["code"] = (100...599).contains(event.code) ? String(event.code) : "other"
        // Of requests that are of no resource the verb is the method, in the words of who asks.
        labels["verb"] = LogTally.verbs.contains(event.verb) ? event.verb : "other"
        let few = labels
        labels["client"] = event.client
        labels["group"] = event.group
        labels["version"] = event.version
        labels["resource"] = event.resource
        labels["path"] = event.path
        if counters[labels] == nil, byRule[LogTally.auditMetric, default: 0] >= LogTally.maxLabelSets { labels = few }
        count(labels)
        guard event.code >= 400 else { return }
        let user = event.user.isEmpty ? "" : "as \(event.user) "
        let words = "\(event.client) \(user)\(event.verb) \(event.requestPath) \(event.code) \(event.message)"
        words.utf8.withContiguousStorageIfAvailable {
            evidence[labels, default: LogEvidence()].add(UnsafeRawBufferPointer($0), atMs: atMs)
        }
    }

    private mutating func lineLabels(_ source: LogSource, _ severity: LogSeverity) -> Labels {
        if let known = lineCounters[source]?[severity] { return known }
        var labels = LogTally.base(LogTally.linesMetric, source)
        labels["severity"] = severity.rawValue
        lineCounters[source, default: [:]][severity] = labels
        return labels
    }

    private static func base(_ metric: String, _ source: LogSource) -> Labels {
        var labels: Labels = ["component": source.component, "job": "logs"]
        labels[Labels.metricName] = metric
        labels["node"] = source.node
        return labels
    }

    private mutating func count(_ labels: Labels) {
        if counters[labels] == nil { byRule[LogTally.bucket(labels), default: 0] += 1 }
        counters[labels, default: 0] += 1
        changed.insert(labels)
    }

    /// The counters and the evidence that changed since the last ``forgetChanges()``.
    package var changes: [(labels: Labels, count: Double, evidence: LogEvidence?)] {
        changed.map { ($0, counters[$0] ?? 0, evidence[$0]) }
    }

    /// The changes are written down.
    package mutating func forgetChanges() { changed.removeAll() }

    /// Appends the counters' values at a time.
    package mutating func emit(to sink: any SampleSink, atMs: Int64) {
        emitter.emit(counters, to: sink, atMs: atMs)
    }
}
