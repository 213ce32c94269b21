import Comparison
import Foundation
import Series

/// The report as JUnit XML: a test case a signal, and one for each finding that fails the upgrade.
package enum JUnitReport {
    package static func render(_ assessment: Assessment) -> String {
        let failing = assessment.findings.filter(\.failsUpgrade)
        var cases = ""
        for result in assessment.signals {
            let name = HTMLReport.escape(result.signal.name)
            switch result.status {
            case .ok, .better: cases += "    <testcase classname=\"signals\" name=\"\(name)\"/>\n"
            case .worse where result.signal.isCritical && failing.contains { $0.signal == result.signal.name }:
                // Its findings are the failures.
                cases += "    <testcase classname=\"signals\" name=\"\(name)\"/>\n"
            case .worse:
                cases +=
                    "    <testcase classname=\"signals\" name=\"\(name)\"><system-out>worse</system-out></testcase>\n"
            case .inconclusive, .blind, .changed, .absent:
                let message = HTMLReport.escape("\(result.status.rawValue): \(result.needs ?? "")")
                cases +=
                    "    <testcase classname=\"signals\" name=\"\(name)\"><skipped message=\"\(message)\"/></testcase>\n"
            }
        }
        for finding in failing {
            let summary = HTMLReport.escape(finding.summary)
            cases +=
                "    <testcase classname=\"findings\" name=\"\(HTMLReport.escape(finding.signal)) \(finding.id)\">"
                + "<failure message=\"\(summary)\">\(HTMLReport.escape(finding.cause.explanation))</failure></testcase>\n"
        }
        let skipped = assessment.signals.count { [.inconclusive, .blind, .changed, .absent].contains($0.status) }
        let total = assessment.signals.count + failing.count
        return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n"
            + "  <testsuite name=\"upgrade-watch \(HTMLReport.escape(assessment.cluster))\" tests=\"\(total)\" "
            + "failures=\"\(failing.count)\" skipped=\"\(skipped)\" "
            + "timestamp=\"\(TimeFormat.rfc3339(ms: assessment.generatedMs))\">\n"
            + "    <properties><property name=\"verdict\" value=\"\(assessment.verdict.rawValue)\"/></properties>\n"
            + cases + "  </testsuite>\n</testsuites>\n"
    }
}
