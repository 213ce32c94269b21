import Exposition
import Fetch
import Foundation
import Recording
import Series
import Storage
import Synchronization
import TestSupport
import Testing

/// The outside world of a running service: a target that serves recorded bodies, a log that grows and is rotated, a
/// receiver that remembers what it was told.
private final class World: Sendable {
    let directory = TemporaryDirectory()
    let target: RawServer
    let receiver: RawServer
    private let state = Mutex((alerts: 0, lines: 0))

    init() throws {
        var player = try RecordingPlayer(directory: Binary.recording)
        let kubelet = player.manifest.targets.firstIndex {
            $0.instance == "node-1:10250" && $0.metricsPath == "/metrics"
        }
        var bodies: [String] = []
        while bodies.count < 40, let (_, event) = player.next() {
            if case .scrape(let index, 200, let body) = event, index == kubelet {
                bodies.append(String(decoding: body, as: UTF8.self))
            }
        }
        let recorded = bodies
        let served = Mutex(0)
        let box = Box()
        target = RawServer { _, connection in
            let number = served.withLock { count in
                count += 1
                return count
            }
            connection.answer(
                recorded[number % recorded.count] + box.extra(), headers: "Content-Type: text/plain; version=0.0.4\r\n")
        }
        let messages = Mutex<[String]>([])
        let record: @Sendable (String) -> Void = { text in messages.withLock { $0.append(text) } }
        receiver = RawServer { head, connection in
            record(head)
            connection.answer("")
        }
        self.box = box
        self.messages = { messages.withLock { $0 } }
    }

    /// What the target says beside the recorded body.
    final class Box: Sendable {
        private let alerts = Mutex(0)
        func raise() { alerts.withLock { $0 += 1 } }
        var count: Int { alerts.withLock { $0 } }
        func extra() -> String { (0..<count).map { "test_alert{number=\"\($0)\"} 1\n" }.joined() }
    }

    let box: Box
    let messages: @Sendable () -> [String]

    /// The alerts of each message that came, in order.
    var notifications: [[String]] {
        messages().map { head in
            guard let start = head.range(of: "\r\n\r\n"),
                let object = try? JSONSerialization.jsonObject(with: Data(head[start.upperBound...].utf8))
                    as? [String: Any],
                let alerts = object["alerts"] as? [[String: Any]]
            else { return ["not a message"] }
            return alerts.compactMap { ($0["labels"] as? [String: String])?["number"] }
        }
    }

    var logPath: String { directory.path + "/log/kubelet.log" }

    /// Appends numbered lines; rotates by renaming now and then.
    func log(_ count: Int, rotate: Bool) throws {
        try FileManager.default.createDirectory(atPath: directory.path + "/log", withIntermediateDirectories: true)
        if rotate, FileManager.default.fileExists(atPath: logPath) {
            let old = directory.path + "/log/kubelet.log.\(state.withLock { $0.lines })"
            try FileManager.default.moveItem(atPath: logPath, toPath: old)
        }
        if !FileManager.default.fileExists(atPath: logPath) {
            _ = FileManager.default.createFile(atPath: logPath, contents: nil)
        }
        let handle = try #require(FileHandle(forWritingAtPath: logPath))
        try handle.seekToEnd()
        for _ in 0..<count {
            let number = state.withLock { state in
                state.lines += 1
                return state.lines
            }
            try handle.write(
                contentsOf: Data("E1123 16:17:57.863688    1488 test.go:1] trouble number \(number)\n".utf8))
        }
        try handle.close()
    }

    var linesWritten: Int { state.withLock { $0.lines } }

    func configuration() throws -> String {
        _ = try directory.write(
            "rules.yaml",
            "groups: [{name: g, rules: [{alert: TestAlert, expr: test_alert == 1, labels: {severity: page}}]}]\n")
        _ = try directory.write("log-rules.yaml", "rules: [{name: trouble, pattern: 'trouble number'}]\n")
        return try directory.write(
            "config.yaml",
            """
            cluster: test
            storage: {path: store}
            web: {listen: "127.0.0.1:0"}
            global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 500ms}
            scrape_configs:
            - job_name: kubelet
              static_configs: [{targets: ["127.0.0.1:\(target.port)"], labels: {node: node-1}}]
            - job_name: found
              file_sd_configs: [{files: [targets/*.yaml]}]
              relabel_configs: [{source_labels: [env], regex: prod, action: keep}]
            log_sources: [{component: kubelet, node: node-1, paths: [log/kubelet.log], format: klog}]
            log_rules: [log-rules.yaml]
            rule_files: [rules.yaml]
            receivers: [{name: r, webhook_configs: [{url: "http://127.0.0.1:\(receiver.port)/"}]}]
            route: {receiver: r, group_by: [alertname, number], group_wait: 0s, group_interval: 2s, repeat_interval: 1h}
            """)
    }

    /// The last value of the counter of matching lines, and the times of all scrapes.
    func stored() throws -> (matches: Double, scrapes: [Int64]) {
        let store = try Store(directory: directory.path + "/store", readOnly: true)
        let counter = try store.select(
            [.equal("__name__", "upgrade_watch_log_matches_total"), .equal("rule", "trouble")], fromMs: .min,
            throughMs: .max)
        let up = try store.select([.equal("__name__", "up")], fromMs: .min, throughMs: .max)
        return (counter.first?.values.last ?? 0, up.first?.timestampsMs ?? [])
    }
}

@Suite struct LiveTests {
    private func wait(_ seconds: Double = 10, until condition: () -> Bool) async -> Bool {
        for _ in 0..<Int(seconds * 50) {
            if condition() { return true }
            try? await Task.sleep(for: .milliseconds(20))
        }
        return condition()
    }

    private func waitFor(_ seconds: Double = 20, until condition: () async -> Bool) async -> Bool {
        for _ in 0..<Int(seconds * 20) {
            if await condition() { return true }
            try? await Task.sleep(for: .milliseconds(50))
        }
        return await condition()
    }

    @Test func service_scrapesTailsAndTells_andStopsCleanly() async throws {
        let world = try World()
        let program = try Program(
            Binary.path, ["run", "--config", try world.configuration()], in: world.directory.path)
        defer { program.send(SIGKILL) }
        try world.log(5, rotate: false)
        world.box.raise()
        #expect(await wait { world.notifications == [["0"]] })
        try world.log(5, rotate: true)
        #expect(await wait { (try? world.stored().matches) == 10 })
        program.send(SIGTERM)
        #expect(program.wait() == 0, "\(program.standardError)")
        let stored = try world.stored()
        #expect(stored.matches == 10)
        #expect(stored.scrapes.count >= 1)
    }

    @Test func api_answersAsPrometheusDoes_andReloadsOnlyWhatIsGood() async throws {
        let world = try World()
        let config = try world.configuration()
        let program = try Program(Binary.path, ["run", "--config", config], in: world.directory.path)
        defer { program.send(SIGKILL) }
        #expect(await wait { program.standardError.contains("listening") && world.target.heads.count > 1 })
        let client = HTTPClient()
        func port() -> String {
            program.standardError.split(separator: "\n").last { $0.contains("address=") }?
                .split(separator: "address=").last?.prefix { $0 != " " }.split(separator: ":").last.map(String.init)
                ?? ""
        }
        func ask(_ path: String, post body: String? = nil) async throws -> (
            status: Int, text: String, headers: FetchHeaders
        ) {
            var request = FetchRequest(url: "http://127.0.0.1:\(port())\(path)")
            if let body {
                request.method = "POST"
                request.headers = [("Content-Type", "application/x-www-form-urlencoded")]
                request.body = Array(body.utf8)
            }
            let response = try await client.fetch(request)
            return (response.status, String(decoding: response.body, as: UTF8.self), response.headers)
        }
        world.box.raise()
        #expect(await wait { world.notifications == [["0"]] })
        #expect(try await ask("/-/healthy").text == "upgrade-watch is Healthy.\n")
        #expect(try await ask("/-/ready").status == 200)
        try expectOwnMetrics(try await ask("/metrics").text)
        let query = try await ask("/api/v1/query", post: "query=sum(up)")
        #expect(
            query.text.hasPrefix(#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":["#)
        )
        #expect(query.text.hasSuffix(#","1"]}]}}"#))
        let bad = try await ask("/api/v1/query?query=sum(up")
        #expect(bad.status == 400)
        let words = #"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:7: parse error:"#
        #expect(bad.text.hasPrefix(words))
        #expect(try await ask("/api/v1/query_range?query=up&start=0&end=10").status == 400)
        #expect(try await ask("/api/v1/series").status == 400)
        #expect(try await ask("/api/v1/label/job/values").text == #"{"status":"success","data":["kubelet"]}"#)
        #expect(try await ask("/api/v1/targets").text.contains(#""health":"up""#))
        #expect(try await ask("/api/v1/alerts").text.contains(#""alertname":"TestAlert""#))
        #expect(try await ask("/api/v1/rules").text.contains(#""state":"firing""#))
        let report = try await ask("/api/v1/upgrades/last/report")
        #expect(report.headers["x-upgrade-watch-verdict"] == "INCONCLUSIVE")
        #expect(try await ask("/api/v1/upgrades/none/report").status == 404)
        #expect(try await ask("/").text.hasPrefix("<!doctype html>"))
        #expect(try await ask("/api/v1/upgrades/marks", post: "{}").status == 400)
        let url = "http://127.0.0.1:\(port())"
        let mark = try Binary.run(
            ["mark", "start", "--from", "v1.1.0", "--to", "v1.2.0", "--url", url], in: world.directory)
        #expect(mark.code == 0, "\(mark.errors)")
        #expect(
            try Binary.run(["mark", "list", "--url", url], in: world.directory).output.hasSuffix(
                "start  from v1.1.0 to v1.2.0\n"))
        #expect(try Binary.run(["query", "sum(up)", "--url", url], in: world.directory).output == "{}  1\n")
        let remote = try Binary.run(["report", "--url", url], in: world.directory)
        #expect(remote.code == 2 || remote.code == 3)
        // Targets in a file are found while it runs, and gone with it.
        let file = world.directory.path + "/targets/a.yaml"
        try FileManager.default.createDirectory(
            atPath: world.directory.path + "/targets", withIntermediateDirectories: true)
        try "[{targets: ['127.0.0.1:\(world.target.port)'], labels: {env: prod}}, {targets: [x]}]".write(
            toFile: file, atomically: true, encoding: .utf8)
        let isFound = { (value: String) async -> Bool in
            (try? await ask("/api/v1/query?query=count(up%7Bjob=%22found%22%7D)").text.contains("\"\(value)\"")) == true
        }
        #expect(await waitFor { await isFound("1") })
        let targets = try await ask("/api/v1/targets").text
        #expect(targets.contains(#""droppedTargetCounts":{"kubelet":0,"found":1}"#), "\(targets)")
        #expect(targets.contains(#""__meta_filepath":"\#(file)""#))
        #expect(
            try await ask("/api/v1/scrape_pools").text
                == #"{"status":"success","data":{"scrapePools":["found","kubelet"]}}"#)
        try FileManager.default.removeItem(atPath: file)
        #expect(
            await waitFor {
                (try? await ask("/api/v1/query?query=up%7Bjob=%22found%22%7D").text.contains("\"result\":[]")) == true
            })
        // A bad configuration is told and not taken; a good one is.
        let good = try String(contentsOfFile: config, encoding: .utf8)
        try (good + "\nnonsense: 1\n").write(toFile: config, atomically: true, encoding: .utf8)
        let refused = try await ask("/-/reload", post: "")
        #expect(refused.status == 500 && refused.text.contains("unknown field \"nonsense\""))
        try good.write(toFile: config, atomically: true, encoding: .utf8)
        let before = world.target.heads.count
        program.send(SIGHUP)
        #expect(
            await wait {
                program.standardError.contains("configuration reloaded") && world.target.heads.count > before + 1
            })
        program.send(SIGTERM)
        #expect(program.wait() == 0, "\(program.standardError)")
    }

    /// Alertmanagers are found by a file, and told again what they did not take; one that never answers holds up nobody, nor
    /// the end.
    @Test func alertmanagers_areTold() async throws {
        let world = try World()
        let failures = Atomic(1)
        let first = RawServer { _, connection in
            let fails = failures.subtract(1, ordering: .relaxed).newValue >= 0
            connection.answer("", status: fails ? "503 Service Unavailable" : "200 OK")
        }
        let second = RawServer { _, connection in connection.answer("") }
        let silent = RawServer { _, connection in _ = connection.readHead() }
        func list(_ servers: [RawServer]) throws {
            let targets = servers.map { "\"127.0.0.1:\($0.port)\"" } + ["\"127.0.0.1:9\""]
            _ = try world.directory.write("am.json", "[{\"targets\": [\(targets.joined(separator: ", "))]}]")
        }
        try list([silent, first])
        let text =
            try String(contentsOfFile: world.configuration(), encoding: .utf8) + """

                alerting:
                  alert_relabel_configs: [{regex: instance, action: labeldrop}]
                  alertmanagers:
                  - file_sd_configs: [{files: [am.json], refresh_interval: 1s}]
                    relabel_configs: [{source_labels: [__address__], regex: '.*:9', action: drop}]
                """
        let config = try world.directory.write("config.yaml", text)
        let program = try Program(
            Binary.path, ["run", "--config", config, "--web.external-url", "https://watch.example.com/a"],
            in: world.directory.path)
        defer { program.send(SIGKILL) }
        func told(_ server: RawServer, _ number: Int) -> [String] {
            server.heads.filter { $0.contains("\"number\":\"\(number)\"") }
        }
        world.box.raise()
        // All tests at once make a machine slow: what is told is told again then.
        #expect(await wait(60) { told(first, 0).count >= 2 && !told(silent, 0).isEmpty })
        let request = try #require(told(first, 0).last)
        #expect(request.hasPrefix("POST /api/v2/alerts "))
        #expect(
            request.contains(
                "\"generatorURL\":\"https://watch.example.com/a/api/v1/query?query=test_alert%20%3D%3D%201\""))
        #expect(request.contains("\"cluster\":\"test\"") && !request.contains("instance"))
        // One that comes is told all, one that is gone nothing more.
        try list([silent, second])
        #expect(await wait(60) { !told(second, 0).isEmpty })
        world.box.raise()
        #expect(await wait(60) { !told(second, 1).isEmpty })
        #expect(told(first, 1).isEmpty)
        let start = ContinuousClock.now
        program.send(SIGTERM)
        #expect(program.wait() == 0, "\(program.standardError)")
        #expect(ContinuousClock.now - start < .seconds(8))
    }

    /// The real one takes what is sent: the alert is active there, and no more once it has ended.
    @Test(.enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/prometheus-alertmanager")))
    func realAlertmanager_showsTheAlertUntilItEnds() async throws {
        let directory = TemporaryDirectory()
        let port = RawServer { _, _ in }.port
        _ = try directory.write("am.yaml", "route: {receiver: r}\nreceivers: [{name: r}]\n")
        let alertmanager = try Program(
            "/usr/bin/prometheus-alertmanager",
            [
                "--config.file=\(directory.path)/am.yaml", "--storage.path=\(directory.path)/am",
                "--web.listen-address=127.0.0.1:\(port)", "--cluster.listen-address=",
            ], in: directory.path)
        defer { alertmanager.send(SIGKILL) }
        let rule = { (expression: String) in
            try directory.write(
                "rules.yaml",
                "groups: [{name: g, rules: [{alert: A, expr: '\(expression)', labels: {severity: page}}]}]\n")
        }
        _ = try rule("vector(1)")
        let config = try directory.write(
            "config.yaml",
            """
            cluster: test
            storage: {path: store}
            web: {listen: "127.0.0.1:0"}
            global: {evaluation_interval: 500ms}
            rule_files: [rules.yaml]
            alerting: {alertmanagers: [{static_configs: [{targets: ["127.0.0.1:\(port)"]}]}]}
            """)
        let program = try Program(Binary.path, ["run", "--config", config], in: directory.path)
        defer { program.send(SIGKILL) }
        let client = HTTPClient()
        func active() async -> String? {
            let answer = try? await client.fetch(FetchRequest(url: "http://127.0.0.1:\(port)/api/v2/alerts"))
            return answer.map { String(decoding: $0.body, as: UTF8.self) }
        }
        #expect(await waitFor { await active()?.contains("\"alertname\":\"A\",\"cluster\":\"test\"") ?? false })
        _ = try rule("vector(1) > 1")
        program.send(SIGHUP)
        #expect(await waitFor { await active() == "[]\n" })
        program.send(SIGTERM)
        #expect(program.wait() == 0, "\(program.standardError)")
    }

    @Test func kubernetesAPI_isListedAndWatched() async throws {
        let changed = Mutex(false)
        let server = RawServer { head, connection in
            let path = head.split(separator: " ").dropFirst().first ?? ""
            let pod = { (restarts: Int) in
                #"{"metadata":{"name":"web-0","namespace":"shop","uid":"u","resourceVersion":"\#(restarts + 7)"},"spec":{"nodeName":"node-1"},"status":{"containerStatuses":[{"name":"app","restartCount":\#(restarts),"state":{}}]}}"#
            }
            guard path.contains("watch=1") else {
                var items = ""
                if path.hasPrefix("/api/v1/pods") { items = pod(3) }
                if path.hasPrefix("/api/v1/nodes") {
                    items =
                        #"{"metadata":{"name":"node-1","labels":{"topology.kubernetes.io/zone":"b"}},"status":{"nodeInfo":{"kubeletVersion":"v1.30.1"},"addresses":[{"type":"InternalIP","address":"10.0.0.9"}]}}"#
                }
                connection.answer(#"{"metadata":{"resourceVersion":"10"},"items":[\#(items)]}"#)
                return
            }
            connection.write(
                Array("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".utf8))
            var isSent = !path.hasPrefix("/api/v1/pods")
            // Line breaks keep the watch open until the other side ends it.
            while true {
                var text = "\n"
                if !isSent, changed.withLock({ $0 }) {
                    text = #"{"type":"MODIFIED","object":\#(pod(4))}"# + "\n"
                    isSent = true
                }
                guard connection.write(Array((String(text.utf8.count, radix: 16) + "\r\n" + text + "\r\n").utf8)) else {
                    return
                }
                Thread.sleep(forTimeInterval: 0.02)
            }
        }
        let world = try World()
        let kubeconfig = try world.directory.write(
            "kubeconfig",
            """
            current-context: a
            contexts: [{name: a, context: {cluster: a, user: a}}]
            clusters: [{name: a, cluster: {server: "\(server.url)"}}]
            users: [{name: a, user: {token: s3cret}}]
            """)
        let config = try world.configuration()
        let text = try String(contentsOfFile: config, encoding: .utf8) + "\nkubernetes: {kubeconfig: \(kubeconfig)}\n"
        try text.write(toFile: config, atomically: true, encoding: .utf8)
        let program = try Program(Binary.path, ["run", "--config", config], in: world.directory.path)
        defer { program.send(SIGKILL) }
        func last(_ name: String) -> (labels: Labels, value: Double)? {
            guard let store = try? Store(directory: world.directory.path + "/store", readOnly: true) else { return nil }
            defer { try? store.close() }
            let series = try? store.select([.equal("__name__", name)], fromMs: .min, throughMs: .max).first
            return series.flatMap { one in one.values.last.map { (one.labels, $0) } }
        }
        #expect(await wait { last("upgrade_watch_pod_container_restarts_total")?.value == 3 })
        #expect(await wait { last("upgrade_watch_node_info") != nil })
        let node = try #require(last("upgrade_watch_node_info"))
        #expect(node.labels["kubelet_version"] == "v1.30.1" && node.labels["internal_ip"] == "10.0.0.9")
        #expect(node.labels["zone"] == "b")
        changed.withLock { $0 = true }
        #expect(await wait { last("upgrade_watch_pod_container_restarts_total")?.value == 4 })
        program.send(SIGTERM)
        #expect(program.wait() == 0, "\(program.standardError)")
        #expect(server.heads.allSatisfy { $0.contains("Authorization: Bearer s3cret\r\n") })
        #expect(!program.standardError.contains("s3cret"))
        let bad = text.replacing("kubeconfig: \(kubeconfig)", with: "kubeconfig: nowhere")
        try bad.write(toFile: config, atomically: true, encoding: .utf8)
        let refused = try Binary.run(["run", "--config", config], in: world.directory)
        #expect(refused.code == 78)
        #expect(refused.errors.contains("nowhere: can't be read; name a kubeconfig with kubernetes.kubeconfig"))
    }

    /// Ten kills at random moments: nothing is lost, nothing told or counted twice.
    @Test(
        .enabled(
            if: ProcessInfo.processInfo.environment["UPGRADE_WATCH_SLOW_TESTS"] != nil, "a slow test: make test-slow"))
    func tenKills_loseAndRepeatNothing() async throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        let world = try World()
        let config = try world.configuration()
        var program = try Program(Binary.path, ["run", "--config", config], in: world.directory.path)
        for kill in 0..<10 {
            let until = Date().addingTimeInterval(Double.random(in: 1...3.5, using: &random))
            var rotate = kill % 3 == 1
            while Date() < until {
                try world.log(Int.random(in: 1...20, using: &random), rotate: rotate)
                rotate = false
                if Int.random(in: 0..<10, using: &random) == 0 { world.box.raise() }
                try await Task.sleep(for: .milliseconds(Int.random(in: 10...120, using: &random)))
            }
            program.send(SIGKILL)
            program.wait()
            // Some things happen while nobody watches.
            try world.log(3, rotate: kill == 5)
            program = try Program(Binary.path, ["run", "--config", config], in: world.directory.path)
        }
        let raised = world.box.count
        let lines = world.linesWritten
        #expect(await wait(15) { Set(world.notifications.flatMap { $0 }).count == raised }, "seed \(seed)")
        #expect(await wait(15) { (try? world.stored().matches) == Double(lines) }, "seed \(seed)")
        program.send(SIGTERM)
        #expect(program.wait() == 0, "\(program.standardError)")
        let stored = try world.stored()
        #expect(stored.matches == Double(lines), "seed \(seed)")
        let distances = zip(stored.scrapes.dropFirst(), stored.scrapes).map { $0 - $1 }
        #expect(distances.allSatisfy { $0 > 0 }, "seed \(seed)")
        #expect((distances.max() ?? 0) <= 2000, "seed \(seed): \(distances)")
        let told = world.notifications.flatMap { $0 }
        #expect(told.sorted() == (0..<raised).map(String.init).sorted(), "seed \(seed)")
        print(
            "kills: 10, scrapes: \(stored.scrapes.count), longest gap: \(distances.max() ?? 0) ms, lines: \(lines), alerts: \(raised)"
        )
    }

    /// The metrics of a service that has scraped its only target and written what came.
    private func expectOwnMetrics(_ text: String) throws {
        let values = try Array(text.utf8).withUnsafeBufferPointer { bytes in
            let found = try ExpositionParser.parse(bytes)
            #expect(found.metadata.allSatisfy { !$0.help.isEmpty && $0.type != "unknown" })
            return try (0..<found.count).reduce(into: [String: Double]()) { values, place in
                let series = bytes[Int(found.starts[place])..<Int(found.ends[place])]
                let labels = try ExpositionParser.labels(of: UnsafeBufferPointer(rebasing: series))
                #expect(values.updateValue(found.values[place], forKey: "\(labels)") == nil, "\(labels) stands twice")
            }
        }
        func value(_ name: String) -> Double { values[name] ?? -1 }
        #expect(value("upgrade_watch_targets") == 1)
        #expect(value("upgrade_watch_build_info{version=\"0.1.0\"}") == 1)
        #expect(value("upgrade_watch_store_flush_duration_seconds_count") >= 1)
        #expect(value("upgrade_watch_store_storage_bytes") >= 4096)
        #expect(value("upgrade_watch_fetch_transfers_max") == 1024)
        #expect(value("process_cpu_seconds_total") > 0)
        #expect(value("process_resident_memory_bytes") > 1e6 && value("process_virtual_memory_bytes") > 1e6)
        #expect(value("process_open_fds") > 3 && value("process_open_fds") <= value("process_max_fds"))
        let age = Date().timeIntervalSince1970 - value("process_start_time_seconds")
        #expect(age > 0 && age < 600)
    }
}
