import Foundation
import GRDB
import LogWatch
import Series
import StrictYAML
import TestSupport
import Testing

private func head(_ line: String, _ format: LogFormat, near: String = "2026-11-23T16:00:00Z") throws -> LogLineHead {
    let nearMs = try #require(TimeFormat.milliseconds(rfc3339: near))
    return Array(line.utf8).withUnsafeBytes { LogLineHead($0, format: format, nearMs: nearMs) }
}

@Suite struct LogFormatTests {
    @Test(arguments: [
        (
            "I1123 16:17:57.863688    1488 lease.go:251] Resetting", LogFormat.klog, "2026-11-23T16:17:57.863Z",
            LogSeverity.info
        ),
        ("E1123 16:17:57.864976    1488 controller.go:256] unable", .klog, "2026-11-23T16:17:57.864Z", .error),
        (
            #"{"level":"warn","ts":"2026-11-23T16:18:11.633Z","caller":"mvcc/index.go:189","msg":"x"}"#, .json,
            "2026-11-23T16:18:11.633Z", .warning
        ),
        (
            #"{"ts":1580306777.04728,"caller":"json_test.go:12","msg":"failed","err":"e"}"#, .json,
            "2020-01-29T14:06:17.047Z", .error
        ),
        (#"{"ts":1580306777047.28,"msg":"fine","v":2}"#, .json, "2020-01-29T14:06:17.047Z", .info),
        (#"time="2026-11-23T16:18:00.142786505Z" level=error msg="x""#, .logfmt, "2026-11-23T16:18:00.142Z", .error),
        (
            #"{"kind":"Event","requestReceivedTimestamp":"2026-11-23T16:17:56.265844Z"}"#, .audit,
            "2026-11-23T16:17:56.265Z", .info
        ),
    ])
    func heads_areRead(line: String, format: LogFormat, time: String, severity: LogSeverity) throws {
        let head = try head(line, format)
        #expect(head.timestampMs.map { TimeFormat.rfc3339(ms: $0) } == time)
        #expect(head.severity == severity)
    }

    @Test func klogsYear_isTheNearest() throws {
        let line = "W1231 23:59:59.000000       1 a.go:1] x"
        #expect(
            try head(line, .klog, near: "2027-01-01T00:00:10Z").timestampMs.map { TimeFormat.rfc3339(ms: $0) }
                == "2026-12-31T23:59:59Z")
    }

    /// A container's log, as its runtime writes it: the time is the runtime's, with its zone.
    @Test func lineOfAContainersLog_isReadWithoutItsFrame() throws {
        let line = "2026-11-23T18:17:57.900000001+02:00 stderr F E1123 11:17:57.863688    1488 a.go:251] unable"
        let head = try head(line, .klog)
        #expect(head.severity == .error)
        #expect(head.timestampMs.map { TimeFormat.rfc3339(ms: $0) } == "2026-11-23T16:17:57.900Z")
        let message = Array(line.utf8).withUnsafeBytes { bytes in
            CRILine(bytes).map { String(decoding: $0.message, as: UTF8.self) }
        }
        #expect(message == "E1123 11:17:57.863688    1488 a.go:251] unable")
        for other in [
            "2026-11-23T18:17:57.9Z stdin F x", "2026-11-23 18:17:57 stderr F x", "2026-11-23T18:17:57.9Z", "",
        ] {
            #expect(Array((other + String(repeating: " ", count: 20)).utf8).withUnsafeBytes { CRILine($0) == nil })
        }
    }

    /// klog writes the local time of its machine; in winter and in summer, and where the clock goes back.
    @Test(arguments: [
        ("I1123 18:17:57.000000       1 a.go:1] x", "2026-11-23T16:00:00Z", "Europe/Helsinki", "2026-11-23T16:17:57Z"),
        ("I0723 19:17:57.000000       1 a.go:1] x", "2026-07-23T16:00:00Z", "Europe/Helsinki", "2026-07-23T16:17:57Z"),
        ("I0101 01:30:00.000000       1 a.go:1] x", "2026-12-31T23:30:10Z", "Europe/Helsinki", "2026-12-31T23:30:00Z"),
        ("I1123 11:17:57.000000       1 a.go:1] x", "2026-11-23T16:00:00Z", "America/New_York", "2026-11-23T16:17:57Z"),
    ])
    func klogsLocalTime_isReadByItsZone(line: String, near: String, zone: String, time: String) throws {
        let nearMs = try #require(TimeFormat.milliseconds(rfc3339: near))
        let timeZone = try #require(TimeZone(identifier: zone))
        let head = Array(line.utf8).withUnsafeBytes {
            LogLineHead($0, format: .klog, nearMs: nearMs, timeZone: timeZone)
        }
        #expect(head.timestampMs.map { TimeFormat.rfc3339(ms: $0) } == time)
    }

    @Test(arguments: ["1e300", "nan", "-inf", "1e15"])
    func timesOutOfRange_areNone(number: String) throws {
        #expect(try head(#"{"level":"info","ts":\#(number),"msg":"x"}"#, .json).timestampMs == nil)
    }

    @Test(arguments: ["", "goroutine 1 [running]:", "\tmain.main()", "I1399 99:99:99", "{}"])
    func linesWithoutATime_haveNone(line: String) throws {
        for format in LogFormat.allCases { #expect(try head(line, format).timestampMs == nil) }
    }
}

@Suite struct AuditTests {
    @Test(arguments: [
        ("legacy-autoscaler/0.9", "legacy-autoscaler/0.9"),
        ("kubelet/v1.25.10 (linux/amd64) kubernetes/abc", "kubelet"),
        (
            "kube-controller-manager-v1.25.10/v1.25.10 (linux/amd64) kubernetes/$Format/leader-election",
            "kube-controller-manager"
        ),
        ("curl/8.1 (x)", "curl/8.1"), ("", "unknown"), ("helm", "helm"),
    ])
    func clients_areKnownAcrossUpgrades(agent: String, client: String) {
        #expect(AuditEvent.client(userAgent: agent) == client)
    }

    @Test func event_isRead_andItsPathMadeGeneral() throws {
        let line = #"""
            {"kind":"Event","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/default/pods/ghost?x=1","verb":"get","userAgent":"probe/1.0","objectRef":{"resource":"pods","namespace":"default","name":"ghost","apiVersion":"v1"},"responseStatus":{"code":404,"message":"not found"},"requestReceivedTimestamp":"2026-11-23T16:17:56.265844Z"}
            """#
        let event = try #require(Array(line.utf8).withUnsafeBytes { AuditEvent($0) })
        #expect(event.path == "/api/v1/namespaces/{namespace}/pods/{name}")
        #expect(event.requestPath == "/api/v1/namespaces/default/pods/ghost")
        #expect(event.code == 404 && event.client == "probe/1.0" && event.version == "v1")
        let started = line.replacingOccurrences(of: "ResponseComplete", with: "ResponseStarted")
        #expect(Array(started.utf8).withUnsafeBytes { AuditEvent($0) } == nil)
    }
}

@Suite struct LogRuleTests {
    /// The rules that the program brings, against lines as the components write them.
    @Test(arguments: [
        (
            "container_definition_changed",
            #""Message for Container of pod" containerName="app" containerStatusID={"Type":"containerd"} pod="default/web-1" containerMessage="Container app definition changed, will be restarted""#
        ),
        (
            "container_definition_changed",
            "Container spec hash changed (3635549375 vs 3145631940).. Container will be killed and recreated."
        ),
        ("container_probe_failed", "Container web failed startup probe, will be restarted"),
        ("crash_loop", "Back-off restarting failed container"),
        ("sandbox_changed", "Pod sandbox changed, it will be killed and re-created."),
        ("sandbox_failed", #"CreatePodSandbox for pod "a" failed: x"#),
        ("pod_evicted", "eviction manager: must evict pod(s) to reclaim memory"),
        ("pod_evicted", "eviction manager: pod a_b(c) is evicted successfully"),
        ("taint_eviction", "NoExecuteTaintManager is deleting Pod: ns/p"),
        ("taint_eviction", #""Deleting pod" controller="taint-eviction-controller" pod="ns/p""#),
        ("node_not_ready", "node n1 hasn't been updated for 40s. Last Ready is: x"),
        ("node_not_ready", #""Node became not ready" node="n1""#),
        ("zone_disruption", "Controller detected that all Nodes are not-Ready. Entering master disruption mode."),
        ("pod_force_deleted", "PodGC is force deleting Pod: ns/p"),
        ("pleg_unhealthy", "PLEG is not healthy: pleg was last seen active 3m12.3s ago; threshold is 3m0s"),
        ("volume_failed", #"MountVolume.SetUp failed for volume "x" : not found"#),
        ("component_start_failed", "unknown flag: --network-plugin"),
        ("component_start_failed", "unrecognized feature gate: DynamicKubeletConfig"),
        ("removed_api", #"no matches for kind "Ingress" in version "extensions/v1beta1""#),
        ("webhook_failed", "Failed calling webhook, failing open pod.example.com: failed calling webhook"),
        ("certificate_rejected", "x509: certificate has expired or is not yet valid: current time"),
        ("authentication_failed", #""Unable to authenticate the request" err="[invalid bearer token]""#),
        ("panic", "Observed a panic: runtime error"),
        ("etcd_slow", #"{"level":"warn","msg":"apply request took too long","took":"120ms"}"#),
        ("etcd_trouble", "rpc error: code = Unavailable desc = etcdserver: leader changed"),
        ("out_of_memory", "Memory cgroup out of memory: Killed process 123 (java) total-vm"),
    ])
    func ownRules_matchRealLines(name: String, line: String) throws {
        let rules = try LogRule.load(file: Shared.root + "/config/log-rules.yaml")
        let rule = try #require(rules.first { $0.name == name })
        #expect(Array(line.utf8).withUnsafeBytes { rule.pattern.match($0) { _ in true } } == true)
    }

    @Test func faults_areToldByLineAndColumn() throws {
        let document = try YAMLDocument(
            text: "rules:\n- name: a\n  pattern: 'x('\n- name: a\n  pattern: y\n  label: [z]\n", file: "rules.yaml")
        let problems = #expect(throws: YAMLProblems.self) { try LogRule.load(document) }
        #expect(
            problems?.description == """
                rules.yaml:3:12: regular expression "x(" at offset 2: missing closing parenthesis
                rules.yaml:6:3: unknown field "label" in rules[1]; did you mean "labels"?
                """)
    }
}

@Suite struct FollowingTests {
    private let directory = TemporaryDirectory()

    private func read(_ follower: inout FileFollower) -> [String] {
        var lines: [String] = []
        _ = follower.poll { lines.append(String(decoding: $0, as: UTF8.self)) }
        return lines
    }

    private func append(_ name: String, _ text: String) throws {
        let path = directory.path + "/" + name
        if !FileManager.default.fileExists(atPath: path) { _ = try directory.write(name, "") }
        let handle = try #require(FileHandle(forWritingAtPath: path))
        try handle.seekToEnd()
        try handle.write(contentsOf: Data(text.utf8))
        try handle.close()
    }

    @Test func wholeLines_areReadOnce() throws {
        try append("a.log", "one\ntwo\npart")
        var follower = FileFollower(path: directory.path + "/a.log", position: nil)
        #expect(read(&follower) == ["one", "two"])
        #expect(read(&follower) == [])
        try append("a.log", "ial\nfour\n")
        #expect(read(&follower) == ["partial", "four"])
    }

    @Test func fileThatIsNotThereYet_isTold_andReadOnceItIs() throws {
        var follower = FileFollower(path: directory.path + "/late.log", position: nil)
        #expect(read(&follower) == [])
        #expect(
            follower.problem
                == "\(directory.path)/late.log: the log file is not there yet, or can't be read; it is tried again")
        try append("late.log", "here\n")
        #expect(read(&follower) == ["here"])
        #expect(follower.problem == nil)
    }

    private func rotate(to number: Int) throws {
        try FileManager.default.moveItem(
            atPath: directory.path + "/a.log", toPath: directory.path + "/a.log.\(number)")
    }

    @Test func renamedFile_isReadToItsEnd_beforeTheNewOne() throws {
        try append("a.log", "one\n")
        var follower = FileFollower(path: directory.path + "/a.log", position: nil, patience: 0)
        #expect(read(&follower) == ["one"])
        try append("a.log", "two\n")
        try FileManager.default.moveItem(atPath: directory.path + "/a.log", toPath: directory.path + "/a.log.1")
        try append("a.log.1", "three\n")
        try append("a.log", "four\n")
        #expect(read(&follower) == ["two", "three", "four"])
    }

    /// The file between two rotations is no path's own when somebody looks again.
    @Test func twoRotationsBetweenPolls_loseNothing() throws {
        try append("a.log", "one\n")
        var follower = FileFollower(path: directory.path + "/a.log", position: nil, patience: 0)
        #expect(read(&follower) == ["one"])
        try append("a.log", "two\n")
        try rotate(to: 2)
        try append("a.log", "three\n")
        try rotate(to: 1)
        try append("a.log", "four\n")
        #expect(read(&follower) == ["two", "three", "four"])
        #expect(follower.takeGaps() == 0)
    }

    /// A writer that is slow to reopen makes its file newer than the empty one that took its place: it is read once.
    @Test func fileThatWasLeft_isNotReadAgain() throws {
        try append("a.log", "one\n")
        var follower = FileFollower(path: directory.path + "/a.log", position: nil, patience: 0)
        #expect(read(&follower) == ["one"])
        try rotate(to: 2)
        try append("a.log", "")
        try append("a.log.2", "two\n")
        #expect(read(&follower) == ["two"])
        try rotate(to: 1)
        try append("a.log", "three\n")
        #expect(read(&follower) == ["three"])
    }

    @Test func rotationIntoWhatCannotBeRead_isCounted() throws {
        try append("a.log", "one\n")
        var follower = FileFollower(path: directory.path + "/a.log", position: nil)
        #expect(read(&follower) == ["one"])
        try append("a.log", "two\n")
        try FileManager.default.moveItem(
            atPath: directory.path + "/a.log", toPath: directory.path + "/a.log.1.gz")
        try append("a.log", "three\n")
        var next = FileFollower(path: directory.path + "/a.log", position: follower.position)
        #expect(read(&next) == ["three"])
        #expect(next.takeGaps() == 1 && next.takeGaps() == 0)
    }

    @Test func truncatedFile_isBegunAnew_andTheCopyHasTheRest() throws {
        try append("a.log", "one\n")
        var follower = FileFollower(path: directory.path + "/a.log", position: nil, patience: 0)
        #expect(read(&follower) == ["one"])
        try append("a.log", "two\n")
        try FileManager.default.copyItem(atPath: directory.path + "/a.log", toPath: directory.path + "/a.log.1")
        let handle = try #require(FileHandle(forWritingAtPath: directory.path + "/a.log"))
        try handle.truncate(atOffset: 0)
        try handle.close()
        try append("a.log", "3\n")
        #expect(read(&follower) == ["two", "3"])
    }

    @Test func writerThatIsSlowToReopen_losesNothing_andAnUnfinishedLastLineCounts() throws {
        try append("a.log", "one\n")
        var follower = FileFollower(path: directory.path + "/a.log", position: nil, patience: 3)
        #expect(read(&follower) == ["one"])
        try FileManager.default.moveItem(atPath: directory.path + "/a.log", toPath: directory.path + "/a.log.1")
        try append("a.log", "three\n")
        #expect(read(&follower) == [])
        try append("a.log.1", "two\nunfinished")
        var seen: [String] = []
        for _ in 0..<5 { seen += read(&follower) }
        #expect(seen == ["two", "unfinished", "three"])
    }

    @Test func severalRotationsWhileNobodyFollowed_loseNothing_andOtherLogsAreLeftAlone() throws {
        try append("a.log", "one\n")
        var follower = FileFollower(path: directory.path + "/a.log", position: nil)
        #expect(read(&follower) == ["one"])
        try append("a.log", "two\n")
        try rotate(to: 2)
        try append("a.log", "three\n")
        try rotate(to: 1)
        try append("a-other.log", "not ours\n")
        try append("a.log", "four\n")
        var next = FileFollower(path: directory.path + "/a.log", position: follower.position)
        #expect(read(&next) == ["two", "three", "four"])
    }

    @Test func rotationWhileNobodyFollowed_losesNothing() throws {
        try append("a.log", "one\n")
        var follower = FileFollower(path: directory.path + "/a.log", position: nil, patience: 0)
        #expect(read(&follower) == ["one"])
        let position = try #require(follower.position)
        try append("a.log", "two\n")
        try FileManager.default.moveItem(atPath: directory.path + "/a.log", toPath: directory.path + "/a.log.1")
        try append("a.log", "three\nfour\nfive\n")
        var next = FileFollower(path: directory.path + "/a.log", position: position)
        #expect(read(&next) == ["two", "three", "four", "five"])
        var again = FileFollower(path: directory.path + "/a.log", position: next.position)
        #expect(read(&again) == [])
    }

    @Test func randomWritesRotationsAndRestarts_loseAndDoubleNothing() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        var written: [String] = []
        var seen: [String] = []
        var follower = FileFollower(path: directory.path + "/r.log", position: nil, patience: 0)
        var rotation = 0
        for number in 0..<800 {
            switch Int.random(in: 0..<20, using: &random) {
            case 0 where FileManager.default.fileExists(atPath: directory.path + "/r.log"):
                // A rotation that is seen: two between polls would hide the file in between behind two names.
                seen += read(&follower)
                rotation += 1
                try FileManager.default.moveItem(
                    atPath: directory.path + "/r.log", toPath: directory.path + "/r.log.\(rotation)")
            case 1: follower = FileFollower(path: directory.path + "/r.log", position: follower.position, patience: 0)
            case 2...5: seen += read(&follower)
            default:
                let line = "line \(number) " + String(repeating: "x", count: Int.random(in: 0..<50, using: &random))
                try append("r.log", line + "\n")
                written.append(line)
            }
        }
        seen += read(&follower)
        #expect(seen == written, "seed \(seed)")
    }
}

@Suite struct TallyTests {
    private let source = LogSource(component: "kubelet", node: "n1", format: .klog)

    private func add(_ line: String, to tally: inout LogTally, atMs: Int64 = 0) {
        Array(line.utf8).withUnsafeBytes { tally.add($0, of: source, severity: .info, atMs: atMs) }
    }

    @Test func matches_areCountedWithEvidence_andRestored() throws {
        let queue = try DatabaseQueue()
        var migrator = DatabaseMigrator()
        LogState.registerMigrations(&migrator)
        try migrator.migrate(queue)
        let state = LogState(queue)
        let rules = try LogRule.load(
            YAMLDocument(text: "rules: [{name: r, pattern: 'bad (?P<what>\\w+)', labels: [what]}]", file: "r"))
        var tally = LogTally(rules: rules)
        for number in 0..<30 { add("bad thing \(number)", to: &tally, atMs: Int64(number)) }
        let position = LogPosition(inode: 7, offset: 99, head: [1, 2])
        try state.commit(tally.changes, positions: ["/a": position])
        tally.forgetChanges()
        #expect(tally.changes.isEmpty)
        #expect(try state.positions() == ["/a": position])
        let stored = try state.counters()
        var restored = LogTally(rules: rules)
        restored.restore(counters: stored.counters, evidence: stored.evidence)
        add("bad thing 30", to: &restored, atMs: 30)
        let labels: Labels = [
            "__name__": "upgrade_watch_log_matches_total", "component": "kubelet", "job": "logs", "node": "n1",
            "rule": "r", "what": "thing",
        ]
        #expect(restored.counters[labels] == 31)
        let evidence = try #require(restored.evidence[labels])
        #expect(evidence.count == 31 && evidence.firstMs == 0 && evidence.lastMs == 30)
        #expect(evidence.lines.first?.text == "bad thing 0" && evidence.lines.last?.text == "bad thing 30")
        #expect(evidence.lines.count <= 8)
    }

    @Test func newCounter_beginsWithAZero() throws {
        let store = MemorySeries()
        var tally = LogTally(rules: try LogRule.load(YAMLDocument(text: "rules: [{name: r, pattern: bad}]", file: "r")))
        tally.emit(to: store, atMs: 1000)
        add("bad", to: &tally)
        tally.emit(to: store, atMs: 2000)
        let series = try store.select([.equal("rule", "r")], fromMs: .min, throughMs: .max)
        #expect(series.map(\.timestampsMs) == [[1000, 2000]])
        #expect(series.map(\.values) == [[0, 1]])
    }

    @Test func labelsOfARule_areBounded() throws {
        var tally = LogTally(
            rules: try LogRule.load(
                YAMLDocument(text: "rules: [{name: r, pattern: '(?P<n>\\d+)', labels: [n]}]", file: "r")))
        for number in 0..<6000 { add("\(number)", to: &tally) }
        #expect(tally.counters.keys.count { $0["rule"] == "r" } <= 5001)
        #expect(tally.counters.filter { $0.key["rule"] == "r" }.values.reduce(0, +) == 6000)
    }
}
