import Cluster
import Comparison
import Foundation
import Series
import Statistics

/// The report for a terminal, a mail or a pull request.
package enum TextReport {
    /// How the text is dressed.
    package enum Style: Sendable {
        case plain
        /// With the colours of a terminal.
        case colored
        case markdown
    }

    /// The most lines of evidence shown of one finding; the JSON report has all.
    private static let evidenceLines = 8
    /// The most lines of the table of nodes.
    private static let nodeLines = 40

    /// The whole report; its first line holds the verdict.
    package static func render(_ assessment: Assessment, style: Style) -> String {
        var page = Page(style: style)
        page.heading(1, "\(page.verdict(assessment.verdict))  \(title(assessment))")
        for reason in assessment.reasons.prefix(12) { page.item(reason) }
        if assessment.reasons.count > 12 { page.item("and \(assessment.reasons.count - 12) more") }
        if let upgrade = assessment.upgrade {
            steps(upgrade, assessment, &page)
            // No findings yet are not the same as none.
            guard assessment.readThroughMs == nil else { return page.text }
            incidents(assessment, &page)
            findings(assessment, &page)
            advisories(assessment, &page)
            signals(assessment, &page)
            ledger(assessment, &page)
        }
        coverage(assessment, &page)
        return page.text
    }

    /// What is reported on.
    static func title(_ assessment: Assessment) -> String {
        guard let upgrade = assessment.upgrade else { return "cluster \(assessment.cluster): no upgrade seen" }
        let batch = assessment.batch.map { "batch \($0), " } ?? ""
        return "cluster \(assessment.cluster), \(batch)\(upgrade.from) to \(upgrade.to), \(assessment.phase.rawValue)"
    }

    private static func steps(_ upgrade: Upgrade, _ assessment: Assessment, _ page: inout Page) {
        page.heading(2, "Steps")
        page.table(
            ["time (UTC)", "component", "where", "from", "to", "batch"],
            upgrade.steps.map { step in
                [
                    TimeFormat.rfc3339(ms: step.atMs / 1000 * 1000), step.component, step.node ?? step.instance ?? "",
                    step.from, step.to, String(step.batch),
                ]
            })
        if let until = assessment.soakUntilMs {
            page.line("Soak until \(TimeFormat.rfc3339(ms: until / 1000 * 1000)).")
        }
    }

    private static func incidents(_ assessment: Assessment, _ page: inout Page) {
        guard assessment.incidents.contains(where: { $0.findings.count > 1 }) else { return }
        page.heading(2, "Incidents")
        page.table(
            ["since (UTC)", "batch", "findings", "the first"],
            assessment.incidents.map { incident in
                [
                    incident.onsetMs.map { TimeFormat.rfc3339(ms: $0 / 1000 * 1000) } ?? "",
                    incident.batch.map(String.init) ?? "", String(incident.findings.count), incident.summary,
                ]
            })
    }

    private static func advisories(_ assessment: Assessment, _ page: inout Page) {
        guard !assessment.advisories.isEmpty else { return }
        page.line("Worth a look, too small for a finding: " + assessment.advisories.joined(separator: ", ") + ".")
    }

    private static func findings(_ assessment: Assessment, _ page: inout Page) {
        page.heading(2, "Findings")
        if assessment.findings.isEmpty { page.line("None.") }
        for finding in assessment.findings {
            let mark: String
            if finding.cause.kind == .preexisting {
                mark = "before"
            } else if finding.isExpected {
                mark = "expected"
            } else {
                mark = finding.severity.rawValue
            }
            page.finding(mark, finding.summary)
            if let onset = finding.onsetMs { page.detail("since", TimeFormat.rfc3339(ms: onset / 1000 * 1000)) }
            if let effect = finding.effect { page.detail("effect", words(effect, finding.unit)) }
            page.detail("cause", finding.cause.explanation)
            for caveat in finding.caveats { page.detail("but", caveat) }
            for evidence in finding.evidence.prefix(evidenceLines) {
                let count = evidence.count > 1 ? " (\(evidence.count) times)" : ""
                page.detail(evidence.kind.rawValue, evidence.text + count)
            }
            if finding.evidence.count > evidenceLines {
                page.detail("", "and \(finding.evidence.count - evidenceLines) more")
            }
        }
    }

    private static func words(_ effect: Effect, _ unit: String) -> String {
        let number = { (value: Double) in
            value.isInfinite
                ? "unbounded" : effect.kind == .rateRatio ? String(format: "%.3g", value) : Units.text(value, unit)
        }
        let interval = effect.interval
        switch effect.kind {
        case .rateRatio:
            let estimate = interval.estimate.isInfinite ? "from none" : "\(number(interval.estimate)) times"
            return "\(estimate), 99 % confidence: \(number(interval.low)) to \(number(interval.high))"
        case .difference:
            let sign = interval.estimate >= 0 ? "+" : ""
            return
                "\(sign)\(number(interval.estimate)), 99 % confidence: \(number(interval.low)) to \(number(interval.high))"
        }
    }

    private static func signals(_ assessment: Assessment, _ page: inout Page) {
        page.heading(2, "Signals")
        page.table(
            ["signal", "status", "before", "after", "needs"],
            assessment.signals.map { result in
                [
                    result.signal.name + (result.signal.isCritical ? " *" : ""), result.status.rawValue,
                    result.baseline.map { Units.text($0.value, result.signal.unit) } ?? "-",
                    result.soak.map { Units.text($0.value, result.signal.unit) } ?? "-", result.needs ?? "",
                ]
            })
        page.line("* critical: the verdict depends on it.")
    }

    private static func ledger(_ assessment: Assessment, _ page: inout Page) {
        page.heading(2, "Restarts and evictions since the first step")
        let ledger = assessment.ledger
        page.table(
            ["what", "total", "expected", "unexpected", "causes"],
            [("restarts", ledger.restarts), ("evictions", ledger.evictions)].map { [$0] + LedgerWords.cells($1) })
        guard !ledger.nodes.isEmpty else { return }
        let totals = ledger.nodes.flatMap { node in
            [(node.name, "restarts", node.restarts), (node.name, "evictions", node.evictions)]
        }
        // Thousands of nodes are no table to read: those with something unexpected come first.
        let shown = totals.filter { $0.2.total > 0 }.sorted { ($1.2.unexpected, $0.0) < ($0.2.unexpected, $1.0) }
        page.line("")
        page.table(
            ["node", "what", "total", "expected", "unexpected", "causes"],
            shown.prefix(nodeLines).map { [$0, $1] + LedgerWords.cells($2) })
        if shown.count > nodeLines { page.line("And \(shown.count - nodeLines) more nodes; the JSON report has all.") }
    }

    private static func coverage(_ assessment: Assessment, _ page: inout Page) {
        page.heading(2, "Coverage")
        let coverage = assessment.coverage
        page.line(
            "\(coverage.targets) targets, \(coverage.scrapesOK) of \(coverage.scrapesDue) scrapes, "
                + "\(coverage.gaps.count) gaps.")
        if let baseline = assessment.baseline {
            let length = TimeFormat.duration(ms: (baseline.throughMs - baseline.fromMs) / 1000 * 1000)
            let alerts = baseline.firedAlerts.isEmpty ? "no alert" : baseline.firedAlerts.joined(separator: ", ")
            page.line(
                "Compared with the \(length) before: \(baseline.scrapesOK) of \(baseline.scrapesDue) scrapes, "
                    + "\(alerts) fired.")
        }
        if !assessment.history.isEmpty {
            let told = assessment.history.suffix(12).map {
                "\($0.verdict.rawValue) since \(TimeFormat.rfc3339(ms: $0.atMs / 1000 * 1000))"
            }
            page.line("Verdicts so far: \(told.joined(separator: ", ")).")
        }
        for gap in coverage.gaps.prefix(10) {
            page.item("\(gap.instance): \(TimeFormat.clock(ms: gap.fromMs)) to \(TimeFormat.clock(ms: gap.throughMs))")
        }
        for missing in coverage.missing { page.item("missing: \(missing)") }
    }
}

/// The ledger's figures in words.
enum LedgerWords {
    /// Total, expected, unexpected, and the causes.
    static func cells(_ total: LedgerSummary.Total) -> [String] {
        let causes = total.byCause.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
        return [String(total.total), String(total.expected), String(total.unexpected), causes.joined(separator: ", ")]
    }
}

/// Text in the making, in one of the styles.
private struct Page {
    let style: TextReport.Style
    private(set) var text = ""

    init(style: TextReport.Style) { self.style = style }

    func verdict(_ verdict: Verdict) -> String {
        let color =
            switch verdict {
            case .pass: "32"
            case .fail: "31"
            case .inconclusive: "33"
            case .blind: "35"
            }
        return paint(verdict.rawValue, "1;" + color)
    }

    private func paint(_ text: String, _ code: String) -> String {
        style == .colored ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text
    }

    mutating func heading(_ level: Int, _ title: String) {
        if !text.isEmpty { text += "\n" }
        if style == .markdown {
            text += String(repeating: "#", count: level) + " \(title)\n\n"
        } else {
            text += level == 1 ? title + "\n" : paint(title, "1") + "\n"
        }
    }

    mutating func line(_ line: String) { text += line + "\n" }

    mutating func item(_ line: String) { text += "\(style == .markdown ? "-" : "  -") \(line)\n" }

    mutating func finding(_ mark: String, _ summary: String) {
        switch style {
        case .markdown: text += "- **\(mark)**: \(escaped(summary))\n"
        default:
            let color = mark == "critical" ? "31" : mark == "warning" ? "33" : "36"
            text += "  \(paint("[\(mark)]", color)) \(summary)\n"
        }
    }

    mutating func detail(_ name: String, _ words: String) {
        switch style {
        case .markdown: text += "  - \(name): \(escaped(words))\n"
        default: text += "      \(name.padding(toLength: 7, withPad: " ", startingAt: 0)) \(words)\n"
        }
    }

    mutating func table(_ header: [String], _ rows: [[String]]) {
        if style == .markdown {
            text += "| " + header.joined(separator: " | ") + " |\n"
            text += "|" + String(repeating: "---|", count: header.count) + "\n"
            for row in rows { text += "| " + row.map(escaped).joined(separator: " | ") + " |\n" }
            text += "\n"
            return
        }
        let widths = header.indices.map { column in
            ([header] + rows).map { $0[column].count }.max() ?? 0
        }
        for (index, row) in ([header] + rows).enumerated() {
            let cells = row.indices.map {
                $0 == row.count - 1 ? row[$0] : row[$0].padding(toLength: widths[$0], withPad: " ", startingAt: 0)
            }
            let line = "  " + cells.joined(separator: "  ")
            text += index == 0 ? paint(line, "2") + "\n" : line + "\n"
        }
    }

    /// Markdown's own characters made plain.
    private func escaped(_ text: String) -> String {
        var out = ""
        for character in text {
            if "|*_`<>".contains(character) { out += "\\" }
            out.append(character)
        }
        return out
    }
}
