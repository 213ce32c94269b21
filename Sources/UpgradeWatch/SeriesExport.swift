import PromQL
import Series

/// Writes series as OpenMetrics text with times: `promtool tsdb create-blocks-from openmetrics` and ``SeriesImport`` read
/// it.
///
/// Markers of ends of series have no form there, and are left out.
package struct SeriesExport {
    private let source: any SeriesSource
    private let types: [String: MetricMetadata]

    private static let suffixes = ["_bucket", "_count", "_sum", "_total", "_created", "_info"]
    private static let known: Set<String> = ["counter", "gauge", "histogram", "summary"]

    /// - Throws: the source's error.
    package init(_ source: any SeriesSource) throws {
        self.source = source
        types = Dictionary(try source.metadata().map { ($0.name, $0) }) { $1 }
    }

    /// Hands out the text, family by family.
    ///
    /// - Parameter selectors: what any of them accepts is written; each has a matcher at least.
    /// - Returns: how many samples there are.
    /// - Throws: the source's error, and that of `write`.
    /// - Complexity: memory for the samples of one series.
    package func write(
        _ selectors: [[LabelMatcher]], fromMs: Int64, throughMs: Int64, to write: (String) throws -> Void
    ) throws -> Int {
        var names: Set<String> = []
        for selector in selectors {
            names.formUnion(try source.labels(selector, fromMs: fromMs, throughMs: throughMs).map(\.name))
        }
        var samples = 0
        var last = ""
        for (family, name) in names.map({ (family(of: $0), $0) }).sorted(by: { $0 < $1 }) {
            if family != last, let head = head(family, name) { try write(head) }
            last = family
            var seen: Set<Labels> = []
            for selector in selectors {
                let own = [LabelMatcher.equal(Labels.metricName, name)] + selector
                let selection = try source.selection(own, fromMs: fromMs, throughMs: throughMs)
                // One series at a time.
                try selection.readAll { place, times, values in
                    guard seen.insert(selection.labels[place]).inserted else { return }
                    let (text, count) = SeriesExport.lines(selection.labels[place], times, values)
                    samples += count
                    if count > 0 { try write(text) }
                }
            }
        }
        try write("# EOF\n")
        return samples
    }

    /// The name that a metric's comments have: without the suffix of the sample.
    private func family(of name: String) -> String {
        for suffix in SeriesExport.suffixes where name.hasSuffix(suffix) {
            let family = String(name.dropLast(suffix.count))
            if types[family] != nil || suffix == "_total" && types[name]?.type == "counter" { return family }
        }
        return name
    }

    private func head(_ family: String, _ name: String) -> String? {
        guard let entry = types[family] ?? types[name] else { return nil }
        // A counter whose samples don't end with _total is none in OpenMetrics.
        let isKnown =
            SeriesExport.known.contains(entry.type) && (entry.type != "counter" || name == family + "_total")
        let type = isKnown ? entry.type : "unknown"
        let help = entry.help.replacing("\\", with: "\\\\").replacing("\n", with: "\\n").replacing("\"", with: "\\\"")
        return "# TYPE \(family) \(type)\n" + (help.isEmpty ? "" : "# HELP \(family) \(help)\n")
    }

    /// Labels as expositions write them: without blanks.
    private static func text(of labels: Labels) -> String {
        let name = labels.name
        let isPlain = Labels.isMetricName(name)
        var parts = isPlain || name.isEmpty ? [] : [Labels.quoted(name)]
        for label in labels.pairs where label.name != Labels.metricName {
            let shown = Labels.isLabelName(label.name) ? label.name : Labels.quoted(label.name)
            parts.append("\(shown)=\(Labels.quoted(label.value))")
        }
        return (isPlain ? name : "") + (parts.isEmpty ? "" : "{\(parts.joined(separator: ","))}")
    }

    private static func lines(
        _ labels: Labels, _ times: UnsafeBufferPointer<Int64>, _ values: UnsafeBufferPointer<Double>
    ) -> (text: String, samples: Int) {
        let name = self.text(of: labels)
        var text = ""
        var samples = 0
        for (atMs, value) in zip(times, values)
        where value.bitPattern != staleMarker.bitPattern {
            let rest = abs(atMs % 1000)
            let fraction = rest == 0 ? "" : "." + String(1000 + rest).dropFirst()
            text += "\(name) \(GoFloat.text(value)) \(atMs < 0 && atMs > -1000 ? "-" : "")\(atMs / 1000)\(fraction)\n"
            samples += 1
        }
        return (text, samples)
    }
}
