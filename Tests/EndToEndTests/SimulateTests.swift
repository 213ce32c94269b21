import Foundation
import TestSupport
import Testing

/// `upgrade-watch simulate` as its users run it.
@Suite struct SimulateTests {
    private static let scenario = """
        about: containers end much more often on upgraded nodes
        pre: 3h
        soak: 2h
        topology: {nodes: 8, workloads: 4, control_planes: 1}
        rollout: {batches: [0.5, 1], gap: 20m}
        faults:
        - {kind: container_exits, add: 20}
        """

    @Test func sameSeed_givesTheSameBytes_andEveryFigure() throws {
        let directory = TemporaryDirectory()
        let file = try directory.write("exits.yaml", Self.scenario)
        let arguments = ["simulate", file, "--seeds", "3..4", "--score", "--json", "--baselines"]
        let first = try Binary.run(arguments, in: directory)
        #expect(first.code == 0)
        #expect(try Binary.run(arguments + ["--jobs", "1"], in: directory).output == first.output)
        let json = try #require(JSONSerialization.jsonObject(with: Data(first.output.utf8)) as? [String: Any])
        #expect(json["faults"] as? Int == 2)
        #expect(json["recall"] as? Double == 1 && json["precision"] as? Double == 1)
        #expect(json["component_top1"] as? Double == 1)
        #expect((json["files"] as? [[String: Any]])?.first?["name"] as? String == "exits")
        let baselines = try #require(json["baselines"] as? [String: Any])
        #expect(baselines.keys.sorted() == ["five_percent", "kayenta", "ks", "thresholds"])
    }

    /// The way through expositions, logs and objects comes to the same verdict as that through samples.
    @Test func recording_isReplayedToTheSameVerdict() throws {
        let directory = TemporaryDirectory()
        let file = try directory.write("exits.yaml", Self.scenario)
        let recorded = try Binary.run(
            ["simulate", file, "--write-recording", directory.path + "/recording"], in: directory)
        #expect(recorded.code == 0, "\(recorded.errors)")
        let again = try Binary.run(
            ["simulate", file, "--write-recording", directory.path + "/recording"], in: directory)
        #expect(again.code == 64 && again.errors.contains("/recording: the directory is not empty"))
        let replayed = try Binary.run(
            ["replay", directory.path + "/recording", "--store", directory.path + "/store"], in: directory)
        #expect(replayed.code == 0, "\(replayed.errors)")
        let report = try Binary.run(
            ["report", "--store", directory.path + "/store", "--format", "json"], in: directory)
        #expect(report.code == 1)
        let json = try #require(JSONSerialization.jsonObject(with: Data(report.output.utf8)) as? [String: Any])
        let upgrade = try #require(json["upgrade"] as? [String: Any])
        #expect((upgrade["steps"] as? [Any])?.count == 11)
        let failing = try #require(json["findings"] as? [[String: Any]]).filter {
            $0["severity"] as? String == "critical"
        }
        #expect(!failing.isEmpty && failing.allSatisfy { $0["signal"] as? String == "container_exits" })
        // One batch was well, as far as it goes; both were not.
        let second = try Binary.run(["report", "--store", directory.path + "/store", "--batch", "2"], in: directory)
        #expect(second.code == 1 && second.output.hasPrefix("FAIL  cluster exits, batch 2, v"), "\(second.output)")
        let unknown = try Binary.run(["report", "--store", directory.path + "/store", "--batch", "9"], in: directory)
        #expect(unknown.code == 64 && unknown.errors.contains("the upgrade has no batch 9 so far; it has 1, 2, 3"))
    }

    /// What `simulate` hands to the judgement is what is found in what was scraped, also where that is seldom or fails: when
    /// the API server stepped, and that the errors began with it.
    @Test(arguments: ["scrape_interval: 2m", "nuisances: [{kind: scrape_gaps, share: 0.2}]"])
    func steps_areFoundWhenTheyWere(more: String) throws {
        let directory = TemporaryDirectory()
        let file = try directory.write(
            "errors.yaml",
            """
            pre: 3h
            soak: 90m
            topology: {nodes: 1, workloads: 1, control_planes: 1}
            load: {requests_per_second: 30}
            rollout: {batches: []}
            faults: [{kind: apiserver_errors, add: 0.02}]
            \(more)
            """)
        let seed = UInt64.random(in: 1...1_000_000)
        let (recording, store) = (directory.path + "/recording", directory.path + "/store")
        let recorded = try Binary.run(
            ["simulate", file, "--seeds", "\(seed)..\(seed)", "--write-recording", recording], in: directory)
        #expect(recorded.code == 0, "\(recorded.errors)")
        let simulated = try Binary.run(
            ["simulate", file, "--seeds", "\(seed)..\(seed)", "--score", "--json"], in: directory)
        let score = try #require(JSONSerialization.jsonObject(with: Data(simulated.output.utf8)) as? [String: Any])
        #expect(score["recall"] as? Double == 1, "seed \(seed)")
        // The score is of the first look that failed, minutes after the step: where the scrapes at the step failed, its few
        // errors may be spread such that they seem to begin a scrape or two later. The report's onset is exact, below.
        let error = try #require(score["onset_error_minutes"] as? Double)
        #expect(more.contains("scrape_gaps") ? error <= 5 : error == 0, "seed \(seed): \(error)")
        #expect(try Binary.run(["replay", recording, "--store", store], in: directory).code == 0)
        let report = try Binary.run(["report", "--store", store, "--format", "json"], in: directory)
        #expect(report.code == 1, "seed \(seed): \(report.output)")
        let json = try #require(JSONSerialization.jsonObject(with: Data(report.output.utf8)) as? [String: Any])
        let steps = try #require((json["upgrade"] as? [String: Any])?["steps"] as? [[String: Any]])
        // Simulated time is whole hours at the first step.
        let first = try #require(steps.first { $0["component"] as? String == "kube-apiserver" }?["at"] as? String)
        #expect(first.contains(":00:00"), "seed \(seed): \(first)")
        let finding = try #require(
            (json["findings"] as? [[String: Any]])?.first { $0["signal"] as? String == "apiserver_errors" })
        #expect(finding["onset"] as? String == first, "seed \(seed)")
    }

    @Test func faultsOfAScenario_areToldByLineAndColumn() throws {
        let directory = TemporaryDirectory()
        let file = try directory.write("bad.yaml", "faults:\n- {kind: nonsense, ratio: 2}\n")
        let bad = try Binary.run(["simulate", file], in: directory)
        #expect(bad.code == 65)
        #expect(bad.errors.contains("bad.yaml:2:10: unknown process \"nonsense\""))
        #expect(try Binary.run(["simulate", file, "--seeds", "3..x"], in: directory).code == 64)
    }
}
