import ArgumentParser
import Fetch
import Foundation
import PromQL
import Remote
import Series
import Storage
import UpgradeWatch

/// `upgrade-watch import`.
struct ImportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import",
        abstract: "Bring another system's history into a store, as the baseline.",
        discussion: """
            A series takes samples in the order of time alone: import first, then start the service.

            Example:
              upgrade-watch import prometheus http://prometheus:9090 --start -72h --store ./data
              promtool tsdb dump ./prometheus | upgrade-watch import tsdb-dump - --store ./data
            """,
        subcommands: [ImportPrometheus.self, ImportOpenMetrics.self, ImportDump.self])

    /// Imports into a store, and tells what became of the samples.
    static func run(_ directory: String, _ body: (inout SeriesImport) throws -> Void) async throws {
        try await reporting {
            let store = try Store(directory: directory)
            var work = SeriesImport(into: store, nowMs: WallClock().nowMs)
            var failure: (any Error)?
            do { try body(&work) } catch { failure = error }
            try store.close()
            let result = work.result
            Output.text("\(directory): \(result.accepted) samples imported\n")
            let isWhole = result.dropped + result.unknown == 0
            let left = [
                (result.outOfOrder, "older than the newest of their series: import before the service runs"),
                (result.duplicates, "of a time that their series has already"),
                (result.dropped, "for want of room"),
                (result.unknown, "of series whose rows in the store can't be read: see check store"),
            ]
            for (count, reason) in left where count > 0 { Output.error("\(count) samples left out, \(reason)") }
            if let failure { throw failure }
            if !isWhole { throw ExitStatus.unavailable.code }
        }
    }

}

/// Text files, and where they go.
struct TextImportOptions: ParsableArguments {
    @Argument(help: "The files; - is the standard input.") var files: [String]

    @Option(help: "The directory of the store. It is made where it does not exist.") var store = "./data"

    func run(_ format: SeriesImport.Format) async throws {
        try await ImportCommand.run(store) { work in
            for file in files {
                let handle: FileHandle
                if file == "-" {
                    handle = .standardInput
                } else if let opened = FileHandle(forReadingAtPath: file) {
                    handle = opened
                } else {
                    throw InputError(description: "\(file): can't be read: \(String(cString: strerror(errno)))")
                }
                try work.read(file == "-" ? "standard input" : file, format: format) {
                    do {
                        return [UInt8](try handle.read(upToCount: SeriesImport.pieceBytes) ?? Data())
                    } catch {
                        throw InputError(description: "\(file): can't be read: \(error.localizedDescription)")
                    }
                }
            }
        }
    }
}

struct ImportOpenMetrics: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "openmetrics", abstract: "Import OpenMetrics text whose samples have times.",
        discussion: "Example:\n  upgrade-watch import openmetrics history.om --store ./data")

    @OptionGroup var text: TextImportOptions

    func run() async throws { try await text.run(.openMetrics) }
}

struct ImportDump: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tsdb-dump", abstract: "Import what `promtool tsdb dump` prints.",
        discussion: "Example:\n  promtool tsdb dump ./prometheus | upgrade-watch import tsdb-dump - --store ./data")

    @OptionGroup var text: TextImportOptions

    func run() async throws { try await text.run(.dump) }
}

struct ImportPrometheus: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prometheus", abstract: "Import from a server with Prometheus' API.",
        discussion: """
            Example:
              upgrade-watch import prometheus http://prometheus:9090 --start -72h --match '{job=~"kubelet|apiserver"}'
            """)

    @Argument(help: "The server's address.") var url: String

    @Option(help: "The API that gives the samples: read (Prometheus' remote read) or export (VictoriaMetrics').")
    var kind = RemoteReadConfig.Kind.read

    @Option(
        name: .customLong("http.config.file"),
        help: ArgumentHelp(
            "How the server is asked: basic_auth, authorization and tls_config, as promtool's.", valueName: "file"))
    var httpConfig: String?

    @OptionGroup var series: SeriesOptions

    @Option(help: "The directory of the store. It is made where it does not exist.") var store = "./data"

    /// Without --start the oldest sample is looked for so far back.
    private static let reachMs: Int64 = 400 * 86_400_000
    /// So much of a metric is asked for at a time, or less where it is too much.
    private static let pieceMs: Int64 = 6 * 3_600_000

    func run() async throws {
        let remote = try await reporting { () throws -> RemoteSource in
            var config = RemoteReadConfig(url: url)
            config.kind = kind
            config.client = try ServerOptions.client(file: httpConfig)
            return RemoteSource(config, client: HTTPClient(), time: WallClock(), reachMs: ImportPrometheus.reachMs)
        }
        let nowMs = WallClock().nowMs
        let whole = series.start == nil ? try await reporting { try remote.timeRange() } : nil
        let (fromMs, throughMs) = series.range(nowMs: nowMs, else: whole ?? nowMs...nowMs)
        try await ImportCommand.run(store) { work in
            for selector in try series.selectors() {
                let names = Set(try remote.labels(selector, fromMs: fromMs, throughMs: throughMs).map(\.name))
                for name in names.sorted() {
                    let own = [LabelMatcher.equal(Labels.metricName, name)] + selector
                    try remote.select(
                        own, fromMs: fromMs, throughMs: throughMs, pieceMs: ImportPrometheus.pieceMs
                    ) { try work.add($0) }
                }
            }
            work.setMetadata(try remote.metadata())
        }
    }
}

extension RemoteReadConfig.Kind: ExpressibleByArgument {}
