import Foundation
import Recording
import Series
import TestSupport
import Testing

/// The ledger of the recorded upgrade against the truth, which is read from the raw watch of pods in another way than
/// the program's.
@Suite struct RecordedLedgerTests {
    private struct Exit: Hashable {
        var id: String
        var pod: String
        var container: String
        var cause: String
    }

    /// Every container that the API objects say has ended: by the words of its last line in the watch.
    private static func truth() throws -> [String: (exit: Exit, atMs: Int64)] {
        var ends: [String: (exit: Exit, atMs: Int64)] = [:]
        var player = try RecordingPlayer(directory: Binary.recording)
        while let (_, event) = player.next() {
            guard case .object(let file, let line) = event,
                player.manifest.objects[file].file == "objects/pods.watch.jsonl.zst",
                let object = try JSONSerialization.jsonObject(with: Data(line)) as? [String: Any],
                let watch = object["watch"] as? [String: Any], let pod = watch["object"] as? [String: Any],
                let name = (pod["metadata"] as? [String: Any])?["name"] as? String,
                let statuses = (pod["status"] as? [String: Any])?["containerStatuses"] as? [[String: Any]]
            else { continue }
            for status in statuses {
                for state in ["state", "lastState"] {
                    guard
                        let end = (status[state] as? [String: Any])?["terminated"] as? [String: Any],
                        let id = (end["containerID"] as? String)?.split(separator: "/").last.map(String.init),
                        let code = end["exitCode"] as? Int, let at = end["finishedAt"] as? String
                    else { continue }
                    // What ran is known: jobs called tick, and a workload that exits with 1 all the time.
                    let cause =
                        name.hasPrefix("tick-")
                        ? "job completion" : code == 1 ? "application exit" : "container definition changed"
                    ends[id] = (
                        Exit(id: id, pod: name, container: status["name"] as? String ?? "", cause: cause),
                        TimeFormat.milliseconds(rfc3339: at) ?? 0
                    )
                }
            }
        }
        return ends
    }

    /// The recording's manifest without some part, with links to its files.
    ///
    /// Of the targets those that tell of the nodes' versions are enough.
    private func recording(without parts: [String], in directory: TemporaryDirectory) throws -> String {
        let path = directory.path + "/recording"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        for folder in ["metrics", "logs", "objects"] {
            let target = URL(fileURLWithPath: Binary.recording).appending(path: folder).standardizedFileURL.path
            try FileManager.default.createSymbolicLink(atPath: path + "/" + folder, withDestinationPath: target)
        }
        var manifest = try #require(
            try JSONSerialization.jsonObject(
                with: Data(contentsOf: URL(fileURLWithPath: Binary.recording + "/recording.json"))) as? [String: Any])
        let targets = manifest["targets"] as? [[String: Any]] ?? []
        manifest["targets"] = targets.filter {
            $0["job"] as? String == "kubelet"
                && ["/metrics", "/metrics/resource"].contains($0["metrics_path"] as? String)
        }
        for part in parts { manifest[part] = [[String: Any]]() }
        try JSONSerialization.data(withJSONObject: manifest)
            .write(to: URL(fileURLWithPath: path + "/recording.json"))
        return path
    }

    private func replay(_ recording: String, in directory: TemporaryDirectory) throws -> String {
        let store = directory.path + "/store"
        let replay = try Binary.run(["replay", recording, "--store", store], in: directory)
        #expect(replay.code == 0, "\(replay.errors)")
        return store
    }

    private func report(
        of store: String, in directory: TemporaryDirectory
    ) throws -> (exits: [[String: Any]], json: [String: Any]) {
        let report = try Binary.run(["report", "--store", store, "--format", "json"], in: directory)
        let json = try #require(try JSONSerialization.jsonObject(with: Data(report.output.utf8)) as? [String: Any])
        let ledger = try #require(json["ledger"] as? [String: Any])
        let entries = try #require(ledger["entries"] as? [[String: Any]])
        return (entries.filter { $0["kind"] as? String == "exit" }, json)
    }

    private func exits(_ entries: [[String: Any]]) -> Set<Exit> {
        Set(
            entries.map {
                Exit(
                    id: $0["container_id"] as? String ?? "", pod: $0["pod"] as? String ?? "",
                    container: $0["container"] as? String ?? "", cause: $0["cause"] as? String ?? "")
            })
    }

    @Test func everyExit_isARow_withItsCause_andThereIsNoOther() throws {
        let directory = TemporaryDirectory()
        let (rows, json) = try report(of: ReplayTests.whole.directory.path + "/store", in: directory)
        let truth = try Self.truth()
        #expect(truth.count == 79)
        #expect(rows.count == truth.count)
        #expect(exits(rows) == Set(truth.values.map(\.exit)))
        for row in rows {
            let at = TimeFormat.milliseconds(rfc3339: row["at"] as? String ?? "")
            #expect(at == truth[row["container_id"] as? String ?? ""]?.atMs)
        }
        let changed = rows.filter { $0["cause"] as? String == "container definition changed" }
        #expect(changed.count == 18)
        for row in changed {
            #expect(row["expected"] as? Bool == true)
            #expect((row["why"] as? String)?.hasPrefix("since 1.31 ") == true)
            let evidence = row["evidence"] as? [[String: Any]] ?? []
            for kind in ["event", "log"] {
                #expect(
                    evidence.contains {
                        $0["kind"] as? String == kind
                            && ($0["text"] as? String)?.contains("definition changed, will be restarted") == true
                    })
            }
        }
        // The crash loop after the first step is nobody's expectation; before it nothing is judged.
        let flaky = rows.filter { $0["cause"] as? String == "application exit" }
        #expect(flaky.allSatisfy { $0["expected"] as? Bool != true })
        let ledger = try #require(json["ledger"] as? [String: Any])
        let deleted = (ledger["entries"] as? [[String: Any]])?.filter { $0["kind"] as? String == "deletion" } ?? []
        #expect(deleted.count == 35)
        #expect(deleted.allSatisfy { $0["cause"] as? String == "job completion" })
        let nodes = try #require(ledger["nodes"] as? [[String: Any]])
        #expect(nodes.compactMap { $0["node"] as? String } == ["node-1", "node-2", "node-3"])
        for node in nodes {
            let causes = (node["restarts"] as? [String: Any])?["by_cause"] as? [String: Int]
            #expect(causes?["container definition changed"] == 6)
        }
        #expect((json["coverage"] as? [String: Any])?["missing"] as? [String] == [])
    }

    @Test func everyMetricThatIsGone_isAccountedFor_andNoneIsARegression() throws {
        let directory = TemporaryDirectory()
        let (_, json) = try report(of: ReplayTests.whole.directory.path + "/store", in: directory)
        let findings = try #require(json["findings"] as? [[String: Any]])
        let changed = findings.filter { $0["signal"] as? String == "metrics_changed" }
        #expect(changed.allSatisfy { $0["expected"] as? Bool == true && $0["severity"] as? String == "info" })
        var told: [String: Set<String>] = [:]
        for finding in changed {
            let component = (finding["scope"] as? [String: Any])?["component"] as? String ?? ""
            for evidence in finding["evidence"] as? [[String: Any]] ?? [] {
                let text = evidence["text"] as? String ?? ""
                told[component, default: []].insert(String(text.prefix { $0 != ":" }))
                #expect(!text.contains("no successor is known"), "\(text)")
            }
        }
        // The truth from the first and the last expositions: what has a TYPE line before and none afterwards.
        var before: [String: Set<String>] = [:]
        var after: [String: Set<String>] = [:]
        var player = try RecordingPlayer(directory: Binary.recording)
        while let (atMs, event) = player.next() {
            guard case .scrape(let index, 200, let body) = event else { continue }
            let isBefore = atMs < 1_795_451_428_000
            guard isBefore || atMs > 1_795_451_802_000 else { continue }
            let target = player.manifest.targets[index]
            let key = "\(target.job) \(target.instance)"
            for line in body.split(separator: UInt8(ascii: "\n")) where line.starts(with: Array("# TYPE ".utf8)) {
                let name = String(decoding: line.split(separator: UInt8(ascii: " "))[2], as: UTF8.self)
                if isBefore { before[key, default: []].insert(name) } else { after[key, default: []].insert(name) }
            }
        }
        var gone: [String: Set<String>] = [:]
        for (key, names) in before {
            gone[String(key.prefix { $0 != " " }), default: []].formUnion(names.subtracting(after[key] ?? []))
        }
        for (job, names) in gone where !names.isEmpty { #expect(told[job] == names, "\(job)") }
        #expect(told.values.reduce(0) { $0 + $1.count } > 60)
    }

    @Test func withoutObjects_logsTellTheSameCauses() throws {
        let directory = TemporaryDirectory()
        let store = try replay(try recording(without: ["objects"], in: directory), in: directory)
        let (rows, json) = try report(of: store, in: directory)
        let start: Int64 = 1_795_450_676_665
        let watched = try Self.truth().values.filter { $0.atMs >= start }.map(\.exit)
        let told = Dictionary(uniqueKeysWithValues: exits(rows).map { ($0.id, $0) })
        let same = watched.filter { told[$0.id]?.cause == $0.cause && told[$0.id]?.pod == $0.pod }
        #expect(Double(same.count) >= 0.9 * Double(watched.count), "\(same.count) of \(watched.count)")
        #expect(Set(told.keys).isSubset(of: watched.map(\.id)))
        let missing = (json["coverage"] as? [String: Any])?["missing"] as? [String] ?? []
        #expect(missing.contains { $0.hasPrefix("Kubernetes objects:") })
    }

    @Test func withoutLogs_objectsTellTheSameCauses() throws {
        let directory = TemporaryDirectory()
        let store = try replay(try recording(without: ["logs"], in: directory), in: directory)
        let (rows, json) = try report(of: store, in: directory)
        #expect(exits(rows) == Set(try Self.truth().values.map(\.exit)))
        let missing = (json["coverage"] as? [String: Any])?["missing"] as? [String] ?? []
        #expect(missing.map { $0.prefix { $0 != ":" } } == ["kubelet logs", "the API server's audit log"])
    }

    @Test func withMetricsAlone_restartsAreTold() throws {
        let directory = TemporaryDirectory()
        let store = try replay(try recording(without: ["objects", "logs"], in: directory), in: directory)
        let (rows, _) = try report(of: store, in: directory)
        let truth = try Self.truth().values.map(\.exit).filter { $0.cause == "container definition changed" }
        let told = rows.filter { $0["cause"] as? String == "container definition changed" }
        let names = { (entry: [String: Any]) in "\(entry["pod"] ?? "")/\(entry["container"] ?? "")" }
        #expect(Set(told.map(names)).isSuperset(of: truth.map { "\($0.pod)/\($0.container)" }))
        // The looping workload's container was started again soon after its kubelet was: from metrics alone the two
        // can't be told apart, and once a node it may be counted there.
        #expect(told.count <= truth.count + 2)
        #expect(rows.allSatisfy { ($0["pod"] as? String)?.hasPrefix("tick-") == false })
    }
}
