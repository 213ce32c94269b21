import ArgumentParser
import Foundation
import PromQL
import Series
import Storage
import UpgradeWatch

/// From when to when, and which series.
struct SeriesOptions: ParsableArguments {
    @Option(
        name: .customLong("match"), help: "A selector as in 'up{job=\"kubelet\"}'; may be given again. Default: all.")
    var matches: [String] = []

    @Option(
        parsing: .unconditional,
        help: "The start: RFC 3339, Unix seconds, or relative as in -24h. Default: the oldest data.")
    var start: String?

    @Option(parsing: .unconditional, help: "The end, as --start. Default: the newest data.")
    var end: String?

    func validate() throws { try QueryCommand.check(times: [start, end]) }

    /// - Throws: `PromQLError` of a selector.
    func selectors() throws -> [[LabelMatcher]] {
        let all = [try LabelMatcher(Labels.metricName, .notEqual, "")]
        return try matches.isEmpty ? [all] : matches.map { try Parser.parseSelector($0) }
    }

    /// - Parameter nowMs: what relative times are counted from.
    func range(nowMs: Int64, else whole: ClosedRange<Int64>) -> (fromMs: Int64, throughMs: Int64) {
        let ms = { (text: String?) in text.flatMap { QueryCommand.parse($0, nowMs: nowMs) } }
        return (ms(start) ?? whole.lowerBound, ms(end) ?? whole.upperBound)
    }
}

/// `upgrade-watch export`.
struct ExportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Write series as OpenMetrics text with times.",
        discussion: """
            Example:
              upgrade-watch export --store ./data --match 'up{job="kubelet"}' --start -24h > up.om
              promtool tsdb create-blocks-from openmetrics up.om ./prometheus
            """)

    @OptionGroup var stored: StoreOptions

    @OptionGroup var series: SeriesOptions

    func run() async throws {
        try await reporting {
            let (directory, joining) = try stored.resolved()
            let source = joining(try Store(directory: directory, readOnly: true))
            let whole = try source.timeRange() ?? 0...0
            let (fromMs, throughMs) = series.range(nowMs: whole.upperBound, else: whole)
            _ = try SeriesExport(source).write(series.selectors(), fromMs: fromMs, throughMs: throughMs) {
                try FileHandle.standardOutput.write(contentsOf: Data($0.utf8))
            }
        }
    }
}
