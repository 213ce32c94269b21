import ArgumentParser
import Comparison
import Fetch
import Foundation
import Report
import UpgradeWatch

/// `upgrade-watch report`.
struct ReportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report",
        abstract: "Say whether the upgrade is safe, with the evidence.",
        discussion: """
            The exit code is the verdict: 0 PASS, 1 FAIL, 2 INCONCLUSIVE, 3 BLIND.

            Example:
              upgrade-watch report --store ./data
              upgrade-watch report --url http://127.0.0.1:9095 --format html --output report.html
            """)

    enum Format: String, ExpressibleByArgument, CaseIterable {
        case text, markdown, json, html, junit
    }

    @OptionGroup var stored: StoreOptions

    @OptionGroup var server: ServerOptions

    @Option(help: "The id of the upgrade. Default: the last one.")
    var upgrade: String?

    @Option(parsing: .unconditional, help: "Judge only what went over with this batch, while others may still wait.")
    var batch: Int?

    @Option(help: "The form of the report.")
    var format = Format.text

    @Option(help: "Write the report to this file instead of standard output.")
    var output: String?

    func validate() throws {
        if stored.isGiven, server.url != nil { throw ValidationError("--url excludes --store and --config") }
    }

    func run() async throws {
        let (text, verdict) = try await reporting {
            if server.url != nil { return try await remote() }
            let (directory, joining) = try stored.resolved()
            let assessment = try StoredWatch(directory: directory, joining: joining)
                .assess(upgrade: upgrade, batch: batch)
            let style: TextReport.Style = Output.isColored && output == nil ? .colored : .plain
            let text =
                switch format {
                case .text: TextReport.render(assessment, style: style)
                case .markdown: TextReport.render(assessment, style: .markdown)
                case .json: try JSONReport(assessment).text()
                case .html: HTMLReport.render(assessment)
                case .junit: JUnitReport.render(assessment)
                }
            return (text, assessment.verdict)
        }
        if let output {
            do {
                try text.write(toFile: output, atomically: true, encoding: .utf8)
            } catch {
                Output.error("\(output): the report can't be written: \(error.localizedDescription)")
                throw ExitStatus.unavailable.code
            }
        } else {
            Output.text(text)
        }
        throw ExitStatus(verdict).code
    }

    /// Asks a running service; the verdict comes as a header beside the report.
    private func remote() async throws -> (String, Verdict) {
        var request = try server.request(
            "/api/v1/upgrades/\(upgrade ?? "last")/report?format=\(format.rawValue)"
                + (batch.map { "&batch=\($0)" } ?? ""))
        request.timeoutMs = 120_000
        let response = try await HTTPClient().fetch(request)
        let text = String(decoding: response.body, as: UTF8.self)
        guard response.status == 200, let verdict = response.headers["x-upgrade-watch-verdict"].flatMap(Verdict.init)
        else {
            throw ServerError(
                description:
                    "\(FetchRequest.redacted(request.url)): HTTP status \(response.status): \(text.prefix(300))")
        }
        return (text, verdict)
    }
}
