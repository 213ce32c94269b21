import Foundation
import TestSupport
import Testing

/// Prometheus' own scripts, where they are at hand.
@Suite struct ScriptTests {
    /// Blocks that fail today, by file: a block more is a regression, a block less is to be written down here.
    static let knownFailures = ["aggregators.test": 2, "functions.test": 2, "histograms.test": 2]

    @Test(.enabled(if: Shared.isThere, "../shared is not there"))
    func prometheusScripts_passUpToTheKnownFailures() throws {
        var failures: [String: Int] = [:]
        for name in try FileManager.default.contentsOfDirectory(atPath: Shared.path("promqltest")).sorted()
        where name.hasSuffix(".test") {
            let text = try String(contentsOfFile: Shared.path("promqltest/" + name), encoding: .utf8)
            let outcome = ScriptRunner.run(text, name: name)
            print("\(name): \(outcome.passed) passed, \(outcome.failures.count) failed, \(outcome.skipped) skipped")
            for failure in outcome.failures { print("  " + failure.prefix(400)) }
            if !outcome.failures.isEmpty { failures[name] = outcome.failures.count }
        }
        #expect(failures == Self.knownFailures)
    }
}
