import Foundation
import Series
import TestSupport
import Testing

/// The recorded upgrade of a real cluster, through the program: what it must find is known.
@Suite struct ReplayTests {
    /// One replay of the whole recording for all tests.
    static let whole: (directory: TemporaryDirectory, result: (code: Int32, output: String, errors: String)?) =
        {
            let directory = TemporaryDirectory()
            return (
                directory,
                try? Binary.run(["replay", Binary.recording, "--store", directory.path + "/store"], in: directory)
            )
        }()

    private func report(_ format: String, _ store: String) throws -> (code: Int32, output: String, errors: String) {
        try Binary.run(["report", "--store", store, "--format", format], in: Self.whole.directory)
    }

    private func json() throws -> [String: Any] {
        let report = try report("json", Self.whole.directory.path + "/store")
        #expect(report.code == 1)
        return try #require(try JSONSerialization.jsonObject(with: Data(report.output.utf8)) as? [String: Any])
    }

    @Test func replay_readsEverything() throws {
        let result = try #require(Self.whole.result)
        #expect(result.code == 0, "\(result.errors)")
        #expect(
            result.output == "2208 scrapes, 4430620 samples, 32080 log lines, 1807 object lines, 0 notifications sent\n"
        )
    }

    @Test func everyStep_isFoundAtItsTime_andNoOther() throws {
        let upgrade = try #require(try json()["upgrade"] as? [String: Any])
        let steps = try #require(upgrade["steps"] as? [[String: Any]])
        let truth: [(String, String?, Int64)] = [
            ("kube-apiserver", nil, 1_795_451_490_685), ("kube-controller-manager", nil, 1_795_451_522_696),
            ("kube-scheduler", nil, 1_795_451_544_711), ("kubelet", "node-1", 1_795_451_578_043),
            ("kubelet", "node-2", 1_795_451_656_109), ("kubelet", "node-3", 1_795_451_734_169),
        ]
        #expect(steps.count == truth.count)
        for (step, wanted) in zip(steps, truth) {
            #expect(step["component"] as? String == wanted.0)
            #expect(step["node"] as? String == wanted.1)
            #expect(step["from"] as? String == "v1.25.10")
            #expect(step["to"] as? String == "v1.33.5")
            let atMs = TimeFormat.milliseconds(rfc3339: step["at"] as? String ?? "") ?? 0
            // By the start of the processes, which is told in hundredths of a second by a clock of its own.
            #expect((-100...100).contains(atMs - wanted.2), "\(wanted.0) \(atMs - wanted.2)")
        }
        #expect(steps.map { $0["batch"] as? Int } == [1, 1, 1, 2, 2, 2])
        #expect(upgrade["phase"] as? String == "soaking")
    }

    @Test func clientsWhoseVersionDisappeared_areNamed_andNobodyElseIs() throws {
        let findings = try #require(try json()["findings"] as? [[String: Any]])
        let failing = findings.filter { $0["severity"] as? String == "critical" }
        let clients = failing.map { finding -> String in
            let labels = (finding["scope"] as? [String: Any])?["labels"] as? [String: String]
            return "\(labels?["client"] ?? "") \(labels?["group"] ?? "")/\(labels?["version"] ?? "")"
        }
        #expect(
            clients.sorted() == [
                "flow-auditor/0.3 flowcontrol.apiserver.k8s.io/v1beta1", "legacy-autoscaler/0.9 autoscaling/v2beta2",
            ])
        for (client, path, count) in [
            ("legacy-autoscaler/0.9", "/apis/autoscaling/v2beta2/namespaces/default/horizontalpodautoscalers", 245),
            ("flow-auditor/0.3", "/apis/flowcontrol.apiserver.k8s.io/v1beta1/flowschemas", 84),
        ] {
            let finding = try #require(failing.first { ($0["summary"] as? String)?.contains(client) == true })
            let evidence = try #require(
                (finding["evidence"] as? [[String: Any]])?.first { $0["kind"] as? String == "audit" })
            #expect((evidence["text"] as? String)?.contains(path) == true)
            #expect(evidence["count"] as? Int == count)
            let cause = try #require(finding["cause"] as? [String: Any])
            #expect(cause["step"] as? Int == 0)
            #expect((cause["explanation"] as? String)?.contains("is no longer served from 1.26 on") == true)
            // The first refusal came with the new API server, after a ten-second poll or a scrape.
            let onset = TimeFormat.milliseconds(rfc3339: finding["onset"] as? String ?? "") ?? 0
            #expect((-120_000...60_000).contains(onset - 1_795_451_490_685), "\(client) \(onset)")
            let effect = try #require(finding["effect"] as? [String: Any])
            let low = try #require(effect["low"] as? Double)
            #expect(effect["kind"] as? String == "rate_ratio" && low > 1)
            // Null: no request was refused before.
            #expect(low <= effect["estimate"] as? Double ?? .infinity)
        }
        let failures = try #require(
            (try json()["signals"] as? [[String: Any]])?.first { $0["name"] as? String == "api_client_failures" })
        #expect(failures["status"] as? String == "worse" && failures["p_value"] as? Double ?? 1 < 0.001)
        // Nothing else is told as the upgrade's, not as a warning either: the noise was there before.
        let told = findings.filter { finding in
            finding["severity"] as? String != "info" && finding["expected"] as? Bool == false
                && (finding["cause"] as? [String: Any])?["kind"] as? String != "preexisting"
        }
        #expect(told.compactMap { $0["id"] as? String } == failing.compactMap { $0["id"] as? String })
        // The same requests by the code of their errors say nothing new.
        #expect(!findings.contains { $0["signal"] as? String == "api_new_errors" })
        // What failed before goes on failing, and is nobody's finding.
        let text = try report("text", Self.whole.directory.path + "/store").output
        #expect(!text.contains("config-writer") && !text.contains("probe/1.0"))
    }

    @Test func recreatedContainers_areToldByNode_withTheLineThatProvesIt() throws {
        let findings = try #require(try json()["findings"] as? [[String: Any]])
        let recreated = findings.filter { $0["signal"] as? String == "containers_recreated" }
        #expect(
            recreated.compactMap { ($0["scope"] as? [String: Any])?["node"] as? String } == [
                "node-1", "node-2", "node-3",
            ])
        for finding in recreated {
            #expect(finding["after"] as? Double == 6)
            #expect(finding["expected"] as? Bool == true)
            let evidence = try #require(finding["evidence"] as? [[String: Any]])
            for kind in ["event", "log"] {
                let lines = evidence.filter { $0["kind"] as? String == kind }.compactMap { $0["text"] as? String }
                #expect(lines.count == 6)
                #expect(lines.allSatisfy { $0.contains("definition changed, will be restarted") })
            }
        }
    }

    @Test func workloadThatLoopedBefore_isNotTheUpgradesFault() throws {
        let findings = try #require(try json()["findings"] as? [[String: Any]])
        let flaky = findings.filter { ($0["summary"] as? String)?.contains("flaky") == true }
        #expect(flaky.count == 1)
        #expect((flaky.first?["cause"] as? [String: Any])?["kind"] as? String == "preexisting")
        // Rates, on both sides: some restarts an hour.
        for side in ["before", "after"] {
            let value = try #require(flaky.first?[side] as? Double)
            #expect(value > 1e-5 && value < 0.1)
        }
    }

    @Test func json_hasEveryFieldOfItsSchema() throws {
        let report = try json()
        #expect(
            Set(report.keys) == [
                "schema", "cluster", "generated_at", "upgrade", "verdict", "batch", "read_through", "reasons",
                "signals",
                "findings", "incidents", "advisories", "ledger", "coverage", "baseline", "history",
            ])
        let baseline = try #require(report["baseline"] as? [String: Any])
        #expect(Set(baseline.keys) == ["from", "to", "scrapes_due", "scrapes_ok", "fired_alerts"])
        #expect((baseline["scrapes_due"] as? Int ?? 0) > 500)
        // Logs and objects tell of times before the first scrape; what is compared with begins with that.
        let ends = ["from", "to"].compactMap { TimeFormat.milliseconds(rfc3339: baseline[$0] as? String ?? "") }
        #expect(ends.count == 2 && (720_000...780_000).contains(ends[1] - ends[0]))
        // As it was told while the replay went on: not known at first, and worse once the clients were refused.
        let history = try #require(report["history"] as? [[String: String]]).compactMap { $0["verdict"] }
        #expect(history.first != "FAIL" && history.last == "FAIL")
        #expect(report["schema"] as? String == "upgrade-watch/report/v1")
        #expect(report["verdict"] as? String == "FAIL")
        let signal = try #require((report["signals"] as? [[String: Any]])?.first)
        #expect(
            Set(signal.keys) == [
                "name", "critical", "status", "scope", "baseline", "soak", "effect", "p_value", "needs",
            ])
        let finding = try #require((report["findings"] as? [[String: Any]])?.first)
        #expect(
            Set(finding.keys) == [
                "id", "signal", "severity", "summary", "scope", "before", "after", "effect", "onset", "expected",
                "cause", "caveats", "evidence",
            ])
        let incident = try #require((report["incidents"] as? [[String: Any]])?.first)
        #expect(Set(incident.keys) == ["onset", "batch", "step", "fails_upgrade", "findings", "summary"])
        let restarts = try #require((report["ledger"] as? [String: Any])?["restarts"] as? [String: Any])
        #expect(Set(restarts.keys) == ["total", "expected", "unexpected", "by_cause"])
        #expect(restarts["expected"] as? Int == 18)
        #expect((restarts["by_cause"] as? [String: Int])?["container definition changed"] == 18)
        let coverage = try #require(report["coverage"] as? [String: Any])
        #expect(
            coverage["targets"] as? Int == 16 && coverage["scrapes_due"] as? Int == 2208
                && coverage["scrapes_ok"] as? Int == 2204)
    }

    @Test func otherForms_areMade() throws {
        let store = Self.whole.directory.path + "/store"
        #expect(try report("markdown", store).output.hasPrefix("# FAIL  cluster lab, v1.25.10 to v1.33.5, soaking\n"))
        let html = try report("html", store).output
        #expect(html.hasPrefix("<!doctype html>") && html.contains("<polyline") && html.hasSuffix("</html>\n"))
        #expect(!html.contains("src=") && !html.contains("href="))
        #expect(try report("junit", store).output.contains("failures=\"2\""))
        #expect(try report("text", store).output == report("text", store).output)
    }

    @Test func query_readsTheStore() throws {
        let store = Self.whole.directory.path + "/store"
        let table = try Binary.run(["query", "count by (job) (up)", "--store", store], in: Self.whole.directory)
        #expect(table.output.contains("{job=\"kubelet\"}                  12\n"))
        let json = try Binary.run(
            ["query", "sum(up)", "--start=-2m", "--step", "1m", "--format", "json", "--store", store],
            in: Self.whole.directory)
        #expect(
            json.output.hasPrefix(
                #"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[["#))
        let bad = try Binary.run(["query", "sum(up", "--store", store], in: Self.whole.directory)
        #expect(bad.code == 65)
        #expect(
            bad.errors
                == "upgrade-watch: 1:7: parse error: unclosed left parenthesis\n")
    }

    @Test func checkSignals_saysWhichHaveData() throws {
        let store = Self.whole.directory.path + "/store"
        let own = try Binary.run(
            ["check", "signals", Shared.root + "/config/signals.yaml", "--store", store], in: Self.whole.directory)
        #expect(own.code == 0)
        #expect(own.output.contains("  etcd_leader_changes: 1 series\n"))
        #expect(own.output.hasSuffix("/config/signals.yaml: SUCCESS: 77 signals, 70 with data\n"))
        let file = try Self.whole.directory.write(
            "blind.yaml",
            """
            signals:
            - {name: a, kind: rate, counter: nonsense_total, unit: 1/s, critical: true}
            - {name: b, kind: gauge, expression: 'sum(1 - upgrade_watch_node_ready)', unit: nodes}
            """)
        let blind = try Binary.run(["check", "signals", file, "--store", store], in: Self.whole.directory)
        #expect(blind.code == 1)
        #expect(
            blind.output
                == "  a *: no version of Kubernetes is known to have nonsense_total: is it spelled so?\n  b: 3 series\n\(file): FAILED\n"
        )
        #expect(
            blind.errors
                == "upgrade-watch: \(file): no data in \(store) for critical signals: a; scrape what exposes them, or make them not critical\n"
        )
        #expect(try Binary.run(["check", "signals", file, "--store", "/none"], in: Self.whole.directory).code == 69)
        let misspelled = try Self.whole.directory.write(
            "misspelled.yaml",
            """
            signals:
            - {name: a, kind: rate, counter: kubelet_evictionz, unit: 1/s, critical: true, present_when: up}
            """)
        let typo = try Binary.run(["check", "signals", misspelled, "--store", store], in: Self.whole.directory)
        #expect(typo.code == 1 && typo.errors.contains("kubelet_evictionz: no series in \(store), and no version of"))
        // One that decides nothing may be of a component that is not there: it is said, and no failure.
        let other = try Self.whole.directory.write(
            "other.yaml",
            """
            signals:
            - {name: a, kind: rate, counter: etcd_server_proposalz_total, unit: 1/s}
            """)
        let warned = try Binary.run(["check", "signals", other, "--store", store], in: Self.whole.directory)
        #expect(warned.code == 0)
        #expect(
            warned.output.hasPrefix(
                "  a: no version of Kubernetes is known to have etcd_server_proposalz_total: is it spelled so?\n"))
    }

    @Test func checkSignals_looksIntoARecording() throws {
        let directory = TemporaryDirectory()
        let signals = Shared.root + "/config/signals.yaml"
        let check = try Binary.run(["check", "signals", signals, "--recording", Binary.recording], in: directory)
        #expect(check.code == 0)
        #expect(check.output.hasSuffix("/config/signals.yaml: SUCCESS: 77 signals, 70 with data\n"))
        #expect(
            try Binary.run(["check", "signals", signals, "--recording", "/none"], in: directory).code == 65)
        #expect(
            try Binary.run(["check", "signals", signals, "--recording", "/none", "--store", "x"], in: directory).code
                == 64)
    }

    @Test func twelveMinutesWithoutAnUpgrade_findNothing() throws {
        let directory = TemporaryDirectory()
        let store = directory.path + "/store"
        let replay = try Binary.run(["replay", Binary.recording, "--until", "12m", "--store", store], in: directory)
        #expect(replay.code == 0)
        let report = try Binary.run(["report", "--store", store], in: directory)
        #expect(report.code == 2)
        #expect(report.output.hasPrefix("INCONCLUSIVE  cluster lab: no upgrade seen\n"))
        let json = try Binary.run(["report", "--store", store, "--format", "json"], in: directory).output
        let object = try #require(try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
        #expect((object["findings"] as? [Any])?.isEmpty == true)
        #expect(object["upgrade"] is NSNull)
        let alerts = try Binary.run(
            [
                "query", "count by (alertname, workload) (last_over_time(ALERTS{alertstate=\"firing\"}[12m]))",
                "--store", store,
            ], in: directory)
        #expect(alerts.output.hasPrefix("{alertname=\"ContainerCrashLooping\", workload=\"flaky\"}"))
        #expect(alerts.output.split(separator: "\n").count == 1)
    }
}

@Suite struct CommandTests {
    private let directory = TemporaryDirectory()

    private func run(_ arguments: String...) throws -> (code: Int32, output: String, errors: String) {
        try Binary.run(arguments, in: directory)
    }

    @Test func helpAndVersion_areThere() throws {
        #expect(try run("--version").output == "0.1.0\n")
        for command in ["run", "replay", "mark", "report", "query", "check"] {
            let help = try run(command, "--help")
            #expect(help.code == 0)
            #expect(help.output.contains("Example:"))
        }
    }

    @Test func wrongUse_is64() throws {
        #expect(try run("report", "--nonsense").code == 64)
        #expect(try run("report", "--store", "a", "--url", "b").code == 64)
        #expect(try run("query", "up", "--start", "1").code == 64)
        #expect(try run("mark", "step").code == 64)
    }

    @Test func noStore_is69() throws {
        let result = try run("report", "--store", directory.path + "/none")
        #expect(result.code == 69)
        #expect(result.output == "")
        #expect(
            result.errors
                == "upgrade-watch: \(directory.path)/none/metrics.db: no store here; name the directory that `run` or `replay` wrote to with --store\n"
        )
        #expect(try run("report", "--url", "http://127.0.0.1:1").code == 69)
    }

    @Test func unreadableRecording_is65() throws {
        let result = try run("replay", directory.path, "--store", directory.path + "/s")
        #expect(result.code == 65)
        #expect(
            result.errors
                == "upgrade-watch: \(directory.path)/recording.json: can't be read; a recording is a directory with a file recording.json\n"
        )
    }

    @Test func badConfiguration_is78_andCheckSaysSoWith1() throws {
        let file = try directory.write("c.yaml", "cluster: a\nwebb: {}\n")
        let result = try run("run", "--config", file)
        #expect(result.code == 78)
        #expect(result.errors == "upgrade-watch: \(file):2:1: unknown field \"webb\"; did you mean \"web\"?\n")
        let check = try run("check", "config", file)
        #expect(check.code == 1)
        #expect(check.output == "\(file): FAILED\n")
        let rules = try directory.write("r.yaml", "groups: [{name: g, rules: [{record: a, expr: up}]}]\n")
        #expect(try run("check", "rules", rules).output == "\(rules): SUCCESS: 1 rules found\n")
    }

    @Test func marks_areKeptAndListed() throws {
        let store = directory.path + "/store"
        try FileManager.default.createDirectory(atPath: store, withIntermediateDirectories: true)
        #expect(
            try run(
                "mark", "start", "--store", store, "--time", "2026-11-23T10:00:00Z", "--from", "v1.32.0", "--to",
                "v1.33.0"
            ).code == 0)
        #expect(try run("mark", "finish", "--store", store, "--time", "2026-11-23T11:00:00Z").code == 0)
        #expect(
            try run("mark", "extend", "--by", "12h", "--store", store, "--time", "2026-11-23T12:00:00Z").code == 0)
        #expect(try run("mark", "extend", "--by", "99y", "--store", store).code == 64)
        #expect(
            try run("mark", "list", "--store", store).output == """
                2026-11-23T10:00:00Z  start  from v1.32.0 to v1.33.0
                2026-11-23T11:00:00Z  finish  
                2026-11-23T12:00:00Z  extend  by 12h

                """)
    }
}
