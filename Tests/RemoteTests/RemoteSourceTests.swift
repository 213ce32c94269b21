import Fetch
import Foundation
import Remote
import Series
import Synchronization
import TestSupport
import Testing

/// Another server's series beside our own.
@Suite struct RemoteSourceTests {
    private struct Clock: TimeSource {
        var nowMs: Int64 = 600_000
        func sleep(untilMs: Int64) async throws {}
    }

    private func source(
        _ kind: RemoteReadConfig.Kind, _ server: RawServer, maxSamples: Int = 1000
    ) -> RemoteSource {
        var config = RemoteReadConfig(url: "http://127.0.0.1:\(server.port)/prefix/")
        config.kind = kind
        config.maxSamples = maxSamples
        return RemoteSource(config, client: HTTPClient(), time: Clock(), reachMs: 86_400_000)
    }

    /// A read response has one result, whose shape is a write request's.
    private static func readResponse(_ series: [SeriesSamples]) -> [UInt8] {
        var request = WriteRequest()
        request.series = series
        let inner = request.encoded()
        var length: [UInt8] = []
        var rest = inner.count
        while rest >= 0x80 {
            length.append(UInt8(rest & 0x7f) | 0x80)
            rest >>= 7
        }
        return Snappy.compress([0x0a] + length + [UInt8(rest)] + inner)
    }

    private static let two = [
        SeriesSamples(labels: ["__name__": "x", "b": "2"], timestampsMs: [1000, 2000], values: [1, .nan]),
        SeriesSamples(labels: ["__name__": "x", "a": "1"], timestampsMs: [1500], values: [-2.5]),
    ]

    @Test func read_givesSeriesInOrder() throws {
        let server = RawServer { head, connection in
            let isRight =
                head.hasPrefix("POST /prefix/api/v1/read HTTP/1.1")
                && head.lowercased().contains("x-prometheus-remote-read-version: 0.1.0")
                && head.lowercased().contains("content-encoding: snappy")
            connection.answer(
                bytes: isRight ? Self.readResponse(Self.two) : Array("wrong".utf8),
                status: isRight ? "200 OK" : "400 Bad")
        }
        let found = try source(.read, server).select([.equal("__name__", "x")], fromMs: 0, throughMs: 5000)
        #expect(found == [Self.two[1], Self.two[0]])
    }

    @Test func export_joinsTheLinesOfASeries() throws {
        let server = RawServer { head, connection in
            let isRight = head.hasPrefix(
                "GET /prefix/api/v1/export?match%5B%5D=%7B__name__%3D%22x%22%7D&start=1.500&end=5.000")
            connection.answer(
                isRight
                    ? """
                    {"metric":{"__name__":"x","a":"1"},"values":[3,null],"timestamps":[3000,4000]}
                    {"metric":{"__name__":"x","a":"1"},"values":[1.5,2],"timestamps":[1600,2000]}

                    """ : "", status: isRight ? "200 OK" : "400 Bad")
        }
        let found = try source(.export, server).select([.equal("__name__", "x")], fromMs: 1500, throughMs: 5000)
        #expect(
            found == [
                SeriesSamples(
                    labels: ["__name__": "x", "a": "1"], timestampsMs: [1600, 2000, 3000, 4000],
                    values: [1.5, 2, 3, .nan])
            ])
    }

    /// What is wrong is told with the address, without its secrets, and what the server said.
    @Test func faults_areTold() throws {
        let refusing = RawServer { _, connection in connection.answer("no such thing", status: "404 Not Found") }
        let talking = RawServer { _, connection in connection.answer("{\"data\": 1}") }
        let much = RawServer { _, connection in connection.answer(bytes: Self.readResponse(Self.two)) }
        for (run, words) in [
            (
                { _ = try source(.read, refusing).select([], fromMs: 0, throughMs: 1) },
                "/api/v1/read: HTTP status 404: no such thing"
            ),
            ({ _ = try source(.export, talking).select([], fromMs: 0, throughMs: 1) }, "a line is not of the format"),
            (
                { _ = try source(.read, talking).select([], fromMs: 0, throughMs: 1) },
                "/prefix/api/v1/read: the body's compression is damaged"
            ),
            ({ _ = try source(.read, talking).timeRange() }, "not Prometheus' JSON"),
            (
                { _ = try source(.read, much, maxSamples: 2).select([], fromMs: 0, throughMs: 9000) },
                "3 samples, more than the 2"
            ),
        ] as [(() throws -> Void, String)] {
            let error = #expect(throws: (any Error).self) { try run() }
            #expect("\(error.map { "\($0)" } ?? "")".contains(words))
        }
    }

    /// A server that gives two samples at most: pieces are halved until they fit, and nothing is lost or twice.
    @Test(arguments: ["400 Bad Request", "422 Unprocessable Entity"])
    func tooMuchAtOnce_isAskedForInHalves(status: String) throws {
        let asked = Mutex<[ClosedRange<Int64>]>([])
        let server = RawServer { head, connection in
            func seconds(_ name: String) -> Int64 {
                let text = head.firstRange(of: "&\(name)=").map {
                    head[$0.upperBound...].prefix { "0123456789.".contains($0) }
                }
                return text.flatMap { Double($0) }.map { Int64(($0 * 1000).rounded()) } ?? -1
            }
            let range = seconds("start")...seconds("end")
            asked.withLock { $0.append(range) }
            let times = stride(from: Int64(0), through: 600_000, by: 100_000).filter { range.contains($0) }
            guard times.count <= 2 else { return connection.answer("exceeded sample limit (2)", status: status) }
            let list = times.map { "\($0)" }.joined(separator: ",")
            connection.answer("{\"metric\":{\"__name__\":\"x\"},\"values\":[\(list)],\"timestamps\":[\(list)]}\n")
        }
        var found: [Int64] = []
        try source(.export, server).select([], fromMs: 0, throughMs: 600_000, pieceMs: 500_000) {
            found += $0.flatMap(\.timestampsMs)
        }
        #expect(found == Array(stride(from: Int64(0), through: 600_000, by: 100_000)))
        #expect(asked.withLock { $0.first } == 0...499_999)
        // What is no matter of size is asked for once.
        let refusing = RawServer { _, connection in
            asked.withLock { $0.append(0...0) }
            connection.answer("no such thing", status: "404 Not Found")
        }
        asked.withLock { $0 = [] }
        #expect(throws: RemoteError.self) {
            try source(.export, refusing).select([], fromMs: 0, throughMs: 600_000, pieceMs: 500_000) { _ in }
        }
        #expect(asked.withLock { $0.count } == 1)
    }

    /// Times that no clock has are no crash.
    @Test(arguments: ["1e300", "-1e300", "1e17", "-5"])
    func oldestTime_isAnyNumber(time: String) throws {
        let server = RawServer { _, connection in
            connection.answer("{\"data\":{\"result\":[{\"values\":[[\(time),\"1\"]]}]}}")
        }
        let range = try source(.read, server).timeRange()
        #expect(range == nil || range?.upperBound == 600_000)
    }

    @Test func joined_hasTheSamplesOfBoth_andOursWhereBothHaveOne() throws {
        let (ours, theirs) = (MemorySeries(), MemorySeries())
        let (x, y, z): (Labels, Labels, Labels) = (["__name__": "x"], ["__name__": "y"], ["__name__": "z"])
        theirs.append([(x, 1), (y, 7)], atMs: 1000)
        theirs.append([(x, 2)], atMs: 2000)
        ours.append([(x, 20), (z, 9)], atMs: 2000)
        ours.append([(x, 30)], atMs: 3000)
        let joined = JoinedSource(ours, theirs)
        let all = try joined.select([], fromMs: 0, throughMs: 5000)
        #expect(all.map(\.labels) == [x, y, z])
        #expect(all[0].timestampsMs == [1000, 2000, 3000] && all[0].values == [1, 20, 30])
        #expect(try joined.timeRange() == 1000...3000)
        #expect(try joined.labels([], fromMs: 0, throughMs: 5000) == [x, y, z])
    }

    /// What needs no sample from before the first one here does without the other server, which may be away.
    @Test func whatIsRecent_doesWithoutTheOther() throws {
        let refusing = RawServer { _, connection in connection.answer("", status: "503 Service Unavailable") }
        let ours = MemorySeries()
        ours.append([(["__name__": "x"], 1)], atMs: 100_000)
        ours.append([(["__name__": "x"], 2)], atMs: 200_000)
        let recent = JoinedSource(ours, source(.read, refusing), tolerantBy: Clock())
        #expect(try recent.select([], fromMs: 100_000, throughMs: 300_000).map(\.values) == [[1, 2]])
        #expect(try recent.selection([], fromMs: 150_000, throughMs: 300_000).samples().map(\.values) == [[2]])
        #expect(try recent.labels([], fromMs: 150_000, throughMs: 300_000).count == 1)
        #expect(throws: RemoteError.self) { try recent.select([], fromMs: 99_999, throughMs: 300_000) }
        // It is not asked each time that somebody wants something new.
        #expect(refusing.heads.count == 2)
        let whole = JoinedSource(ours, source(.read, refusing))
        #expect(throws: RemoteError.self) { try whole.select([], fromMs: 150_000, throughMs: 300_000) }
    }

    /// Against the servers themselves, where they are installed: what they were sent by remote write is read back.
    @Test(arguments: [
        ("/usr/bin/prometheus", RemoteReadConfig.Kind.read), ("/usr/bin/victoria-metrics", .export),
    ])
    func realServers_giveBackWhatTheyGot(path: String, kind: RemoteReadConfig.Kind) async throws {
        guard FileManager.default.isExecutableFile(atPath: path) else { return }
        let directory = TemporaryDirectory()
        let config = try directory.write("prometheus.yml", "global: {}\n")
        // A port that was free a moment ago.
        let address = "127.0.0.1:\(RawServer { _, _ in }.port)"
        let program = try Program(
            path,
            kind == .read
                ? [
                    "--config.file=\(config)", "--storage.tsdb.path=\(directory.path)/data",
                    "--web.listen-address=\(address)", "--web.enable-remote-write-receiver",
                ] : ["-storageDataPath=\(directory.path)/data", "-httpListenAddr=\(address)"],
            in: directory.path)
        defer {
            program.send(SIGKILL)
            program.wait()
        }
        let client = HTTPClient()
        let nowMs = Int64(Date().timeIntervalSince1970) * 1000
        var write = FetchRequest(url: "http://\(address)/api/v1/write")
        write.method = "POST"
        write.headers = [
            ("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy"),
            ("X-Prometheus-Remote-Write-Version", "0.1.0"),
        ]
        let sent = (0..<3).map { series in
            SeriesSamples(
                labels: ["__name__": "x", "n": "\(series)"],
                timestampsMs: (0..<50).map { nowMs - 600_000 + Int64($0) * 1000 },
                values: (0..<50).map { Double($0 * series) / 8 })
        }
        var request = WriteRequest()
        request.series = sent
        write.body = Snappy.compress(request.encoded())
        var status = 0
        for _ in 0..<500 where status / 100 != 2 {
            if let answer = try? await client.fetch(write) {
                status = answer.status
            } else {
                try await Task.sleep(for: .milliseconds(20))
            }
        }
        #expect(status / 100 == 2)
        var remote = RemoteReadConfig(url: "http://\(address)")
        remote.kind = kind
        let source = RemoteSource(remote, client: client, time: Clock(nowMs: nowMs), reachMs: 86_400_000)
        var found: [SeriesSamples] = []
        // VictoriaMetrics shows what it got within a second or so.
        for _ in 0..<500 where found.count < 2 {
            found = try source.select([LabelMatcher("n", .matches, "1|2")], fromMs: nowMs - 580_000, throughMs: nowMs)
            if found.isEmpty { try await Task.sleep(for: .milliseconds(20)) }
        }
        let expected = sent[1...].map { series in
            SeriesSamples(
                labels: series.labels, timestampsMs: Array(series.timestampsMs[20...]),
                values: Array(series.values[20...]))
        }
        #expect(found == expected)
        #expect(
            try source.labels([.equal("__name__", "x")], fromMs: nowMs - 3_600_000, throughMs: nowMs)
                == sent.map(\.labels))
    }
}
