import Cluster
import Comparison
import Foundation
import Series

/// The report as one HTML page that needs nothing else: style, charts and text in one file.
package enum HTMLReport {
    /// The most findings with a chart.
    private static let charts = 12
    /// The most rows of the ledger on the page.
    private static let ledgerRows = 2000

    package static func render(_ assessment: Assessment) -> String {
        var body =
            "<header class=\"\(assessment.verdict.rawValue.lowercased())\"><h1>\(assessment.verdict.rawValue)</h1><p>"
        body += escape(TextReport.title(assessment))
        body += "</p><p>\(TimeFormat.rfc3339(ms: assessment.generatedMs / 1000 * 1000))</p></header><main>"
        body += "<ul>" + assessment.reasons.map { "<li>\(escape($0))</li>" }.joined() + "</ul>"
        if let upgrade = assessment.upgrade { body += steps(upgrade) }
        // No findings yet are not the same as none.
        if assessment.readThroughMs == nil {
            if let upgrade = assessment.upgrade {
                body +=
                    incidents(assessment) + findings(assessment, upgrade) + advisories(assessment)
                    + signals(assessment) + ledger(assessment.ledger)
            }
            body += coverage(assessment.coverage)
        }
        body += "</main>"
        return "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">"
            + "<meta name=\"viewport\" content=\"width=device-width\"><title>"
            + escape("\(assessment.verdict.rawValue): \(assessment.cluster)")
            + "</title><style>\(style)</style></head><body>"
            + body + "</body></html>\n"
    }

    private static let style = """
        body{font:15px/1.45 system-ui,sans-serif;margin:0;color:#1d2329;background:#f6f7f8}
        header{color:#fff;padding:18px 32px}header h1{margin:0;font-size:30px}header p{margin:2px 0}
        .pass{background:#1a7f4b}.fail{background:#b3261e}.inconclusive{background:#8a6100}.blind{background:#5b4b8a}
        main{max-width:1080px;margin:0 auto;padding:8px 32px 48px}h2{margin:28px 0 8px;font-size:20px}
        table{border-collapse:collapse;width:100%;background:#fff}th,td{text-align:left;padding:5px 10px;border:1px solid #dde1e5;vertical-align:top}
        th{background:#eef1f3;font-weight:600}
        article{background:#fff;border:1px solid #dde1e5;border-left:5px solid #8a949e;padding:10px 16px;margin:10px 0}
        article.critical{border-left-color:#b3261e}article.warning{border-left-color:#c98a00}
        article h3{margin:0 0 6px;font-size:16px}article p{margin:3px 0}.tag{font-size:12px;text-transform:uppercase;letter-spacing:.04em;color:#5c6670}
        pre{background:#f2f4f5;padding:8px;overflow-x:auto;font-size:12.5px;margin:6px 0;white-space:pre-wrap;overflow-wrap:anywhere}
        svg{width:100%;height:auto;display:block}.worse{color:#b3261e;font-weight:600}.ok,.better{color:#1a7f4b}
        """

    private static func steps(_ upgrade: Upgrade) -> String {
        "<h2>Steps</h2>"
            + table(
                ["time (UTC)", "component", "where", "from", "to", "batch"],
                upgrade.steps.map { step in
                    [
                        TimeFormat.rfc3339(ms: step.atMs / 1000 * 1000), step.component,
                        step.node ?? step.instance ?? "", step.from, step.to, String(step.batch),
                    ]
                })
    }

    /// Only where an incident has more than one finding: else the findings tell the same.
    private static func incidents(_ assessment: Assessment) -> String {
        guard assessment.incidents.contains(where: { $0.findings.count > 1 }) else { return "" }
        return "<h2>Incidents</h2>"
            + table(
                ["since (UTC)", "batch", "findings", "first of them"],
                assessment.incidents.map { incident in
                    [
                        incident.onsetMs.map { TimeFormat.rfc3339(ms: $0 / 1000 * 1000) } ?? "",
                        incident.batch.map(String.init) ?? "", String(incident.findings.count), incident.summary,
                    ]
                })
    }

    private static func findings(_ assessment: Assessment, _ upgrade: Upgrade) -> String {
        var out = "<h2>Findings</h2>"
        if assessment.findings.isEmpty { out += "<p>None.</p>" }
        for (index, finding) in assessment.findings.enumerated() {
            let tag =
                finding.cause.kind == .preexisting
                ? "there before the upgrade" : finding.isExpected ? "expected" : finding.severity.rawValue
            let kind = finding.isExpected || finding.cause.kind == .preexisting ? "calm" : finding.severity.rawValue
            out +=
                "<article class=\"\(kind)\"><span class=\"tag\">\(escape(tag))</span><h3>\(escape(finding.summary))</h3>"
            if let onset = finding.onsetMs { out += "<p>Since \(TimeFormat.rfc3339(ms: onset / 1000 * 1000)).</p>" }
            out += "<p>\(escape(finding.cause.explanation))</p>"
            for caveat in finding.caveats { out += "<p>But \(escape(caveat)).</p>" }
            if index < charts, finding.timeline.count > 1 {
                out += Chart.svg(finding, upgrade: upgrade, baselineFromMs: assessment.baselineFromMs)
            }
            let lines = finding.evidence.prefix(40).map { evidence in
                "\(evidence.kind.rawValue): \(evidence.text)" + (evidence.count > 1 ? " (\(evidence.count) times)" : "")
            }
            if !lines.isEmpty {
                out +=
                    "<details><summary>Evidence (\(finding.evidence.count))</summary><pre>"
                    + escape(lines.joined(separator: "\n")) + "</pre></details>"
            }
            out += "</article>"
        }
        return out
    }

    private static func advisories(_ assessment: Assessment) -> String {
        assessment.advisories.isEmpty
            ? ""
            : "<p>Worth a look, too small for a finding: \(escape(assessment.advisories.joined(separator: ", "))).</p>"
    }

    private static func signals(_ assessment: Assessment) -> String {
        var rows = ""
        for result in assessment.signals {
            let unit = result.signal.unit
            rows +=
                "<tr><td>\(escape(result.signal.name))\(result.signal.isCritical ? " *" : "")</td>"
                + "<td class=\"\(result.status.rawValue)\">\(result.status.rawValue)</td>"
                + "<td>\(escape(result.baseline.map { Units.text($0.value, unit) } ?? "-"))</td>"
                + "<td>\(escape(result.soak.map { Units.text($0.value, unit) } ?? "-"))</td>"
                + "<td>\(escape(result.needs ?? ""))</td></tr>"
        }
        return
            "<h2>Signals</h2><table><tr><th>signal</th><th>status</th><th>before</th><th>after</th><th>needs</th></tr>"
            + rows + "</table><p>* critical: the verdict depends on it.</p>"
    }

    private static func ledger(_ ledger: LedgerSummary) -> String {
        let figures = ["total", "expected", "unexpected", "causes"]
        var out =
            "<h2>Restarts and evictions since the first step</h2>"
            + table(
                ["what"] + figures,
                [("restarts", ledger.restarts), ("evictions", ledger.evictions)].map { [$0] + LedgerWords.cells($1) })
        let nodes = ledger.nodes.flatMap { node in
            [(node.name, "restarts", node.restarts), (node.name, "evictions", node.evictions)]
        }.filter { $0.2.total > 0 }
        if !nodes.isEmpty {
            out +=
                "<h3>By node</h3>" + table(["node", "what"] + figures, nodes.map { [$0, $1] + LedgerWords.cells($2) })
        }
        let rows = ledger.rows.filter { $0.judgement != nil }.suffix(ledgerRows)
        guard !rows.isEmpty else { return out }
        return out + "<details><summary>The last \(rows.count) rows of the ledger</summary>"
            + table(
                ["time (UTC)", "node", "pod", "container", "exit code", "cause", "expected"],
                rows.map { row in
                    [
                        TimeFormat.rfc3339(ms: row.entry.atMs / 1000 * 1000), row.entry.node,
                        "\(row.entry.namespace)/\(row.entry.pod)", row.entry.container,
                        row.entry.exitCode.map(String.init) ?? "",
                        row.entry.cause.rawValue + (row.entry.detail.isEmpty ? "" : " (\(row.entry.detail))"),
                        row.judgement.map { "\($0.isExpected ? "yes" : "no"): \($0.why)" } ?? "",
                    ]
                }) + "</details>"
    }

    private static func coverage(_ coverage: Coverage) -> String {
        "<h2>Coverage</h2><p>\(coverage.targets) targets, \(coverage.scrapesOK) of \(coverage.scrapesDue) scrapes, "
            + "\(coverage.gaps.count) gaps.</p>"
            + coverage.missing.map { "<p>Missing: \(escape($0))</p>" }.joined()
    }

    private static func table(_ header: [String], _ rows: [[String]]) -> String {
        "<table><tr>" + header.map { "<th>\(escape($0))</th>" }.joined() + "</tr>"
            + rows.map { "<tr>" + $0.map { "<td>\(escape($0))</td>" }.joined() + "</tr>" }.joined() + "</table>"
    }

    /// A text as it may stand in HTML and XML.
    package static func escape(_ text: String) -> String {
        var out = ""
        for character in text {
            switch character {
            case "&": out += "&amp;"
            case "<": out += "&lt;"
            case ">": out += "&gt;"
            case "\"": out += "&quot;"
            default: out.append(character)
            }
        }
        return out
    }
}

/// A finding over time: the baseline's level and the time after, with the steps marked.
private enum Chart {
    static func svg(_ finding: Finding, upgrade: Upgrade, baselineFromMs: Int64?) -> String {
        let (width, height, left, bottom) = (1000.0, 220.0, 90.0, 26.0)
        guard let first = finding.timeline.first?.atMs, let last = finding.timeline.last?.atMs, last > first else {
            return ""
        }
        let values = finding.timeline.map(\.value)
        let top = max(values.max() ?? 1, finding.before ?? 0, finding.after ?? 0) * 1.1
        // A share is never more than the whole.
        let scale = finding.unit == "ratio" ? min(1, top > 0 ? top : 1) : top > 0 ? top : 1
        let x = { (ms: Int64) in left + Double(ms - first) / Double(last - first) * (width - left - 10) }
        let y = { (value: Double) in 10 + (1 - value / scale) * (height - bottom - 10) }
        func number(_ value: Double) -> String { String(format: "%.1f", value) }
        var out =
            "<svg viewBox=\"0 0 \(Int(width)) \(Int(height))\" role=\"img\" aria-label=\"\(HTMLReport.escape(finding.signal)) over time\">"
        out +=
            "<rect x=\"\(number(left))\" y=\"10\" width=\"\(number(x(upgrade.startedMs) - left))\" height=\"\(number(height - bottom - 10))\" fill=\"#eef3f8\"/>"
        for part in [0.0, 0.5, 1.0] {
            let value = scale * part
            out +=
                "<line x1=\"\(number(left))\" x2=\"\(number(width - 10))\" y1=\"\(number(y(value)))\" y2=\"\(number(y(value)))\" stroke=\"#e3e7ea\"/>"
            out +=
                "<text x=\"\(number(left - 6))\" y=\"\(number(y(value) + 4))\" font-size=\"12\" text-anchor=\"end\" fill=\"#5c6670\">\(HTMLReport.escape(Units.text(value, finding.unit)))</text>"
        }
        for step in upgrade.steps where step.atMs >= first && step.atMs <= last {
            out +=
                "<line x1=\"\(number(x(step.atMs)))\" x2=\"\(number(x(step.atMs)))\" y1=\"10\" y2=\"\(number(height - bottom))\" stroke=\"#8a6100\" stroke-dasharray=\"3 3\">"
            out +=
                "<title>\(HTMLReport.escape("\(step.component) \(step.node ?? step.instance ?? "") \(step.from) to \(step.to)"))</title></line>"
        }
        if let before = finding.before {
            out +=
                "<line x1=\"\(number(left))\" x2=\"\(number(width - 10))\" y1=\"\(number(y(before)))\" y2=\"\(number(y(before)))\" stroke=\"#3d6a9e\" stroke-dasharray=\"6 4\"><title>before</title></line>"
        }
        let line = { (points: [(atMs: Int64, value: Double)], color: String) in
            "<polyline fill=\"none\" stroke=\"\(color)\" stroke-width=\"2\" points=\"\(points.map { "\(number(x($0.atMs))),\(number(y($0.value)))" }.joined(separator: " "))\"/>"
        }
        out += line(finding.timeline.filter { $0.atMs <= upgrade.startedMs }, "#3d6a9e")
        out += line(finding.timeline.filter { $0.atMs > upgrade.startedMs }, "#b3261e")
        for (ms, anchor) in [(first, "start"), (upgrade.startedMs, "middle"), (last, "end")] {
            out +=
                "<text x=\"\(number(x(ms)))\" y=\"\(number(height - 8))\" font-size=\"12\" text-anchor=\"\(anchor)\" fill=\"#5c6670\">\(TimeFormat.clock(ms: ms))</text>"
        }
        return out
            + "</svg><p class=\"tag\">blue: before, dashed its level; red: since the first step; upright: steps</p>"
    }
}
