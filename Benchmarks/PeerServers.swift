import Fetch
import Foundation
import Remote
import Series
import TestSupport

/// A server that answers queries, started for a benchmark.
struct PeerServer {
    var name: String
    var program: Program
    var url: String

    /// The program of this build and the Prometheus of the machine, on loopback, both taking remote write.
    ///
    /// - Parameter directory: where they keep their data.
    static func startBoth(
        _ directory: String, _ temporary: TemporaryDirectory, _ client: HTTPClient
    ) async throws -> [PeerServer] {
        let config = try temporary.write(
            "uw.yaml",
            "cluster: bench\nstorage: {path: \(directory)/uw, retention: 5y}\nweb: {listen: \"127.0.0.1:19095\"}\n")
        let prometheusConfig = try temporary.write("prometheus.yml", "global: {scrape_interval: 1h}\n")
        let root = FileManager.default.currentDirectoryPath
        let servers = [
            PeerServer(
                name: "upgrade-watch",
                program: try Program(
                    root + "/.build/release/upgrade-watch",
                    ["run", "--config", config, "--web.enable-remote-write-receiver"], in: temporary.path),
                url: "http://127.0.0.1:19095"),
            PeerServer(
                name: "prometheus",
                program: try Program(
                    "/usr/bin/prometheus",
                    [
                        "--config.file=\(prometheusConfig)", "--storage.tsdb.path=\(directory)/prometheus",
                        "--web.listen-address=127.0.0.1:19090", "--web.enable-remote-write-receiver",
                        "--storage.tsdb.retention.time=10y",
                    ], in: temporary.path), url: "http://127.0.0.1:19090"),
        ]
        for server in servers {
            for attempt in 0... {
                if let answer = try? await client.fetch(FetchRequest(url: server.url + "/-/ready")),
                    answer.status == 200
                {
                    break
                }
                guard attempt < 300 else {
                    throw ProgramError(description: "\(server.name) does not come up: \(server.program.standardError)")
                }
                try await Task.sleep(for: .milliseconds(100))
            }
        }
        return servers
    }

    func stop() {
        program.send(SIGTERM)
        program.wait()
    }

    /// Sends samples by remote write; where the server has no room for them now, later again.
    func write(_ body: [UInt8], _ client: HTTPClient) async throws {
        var request = FetchRequest(url: url + "/api/v1/write")
        request.method = "POST"
        request.headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")]
        request.body = body
        request.timeoutMs = 120_000
        for _ in 0..<600 {
            let answer = try await client.fetch(request)
            if answer.status == 503 {
                try await Task.sleep(for: .milliseconds(200))
                continue
            }
            guard answer.status / 100 == 2 else {
                throw ProgramError(
                    description: "\(name): \(answer.status) \(String(decoding: answer.body, as: UTF8.self))")
            }
            return
        }
        throw ProgramError(description: "\(name) takes no samples")
    }

    /// Asks for a query's answer, of whatever status.
    func ask(_ path: String, _ parameters: [(String, String)], _ client: HTTPClient) async throws -> FetchResponse {
        var request = FetchRequest(url: url + path)
        request.method = "POST"
        request.headers = [("Content-Type", "application/x-www-form-urlencoded")]
        request.body = Array(FetchRequest.form(parameters).utf8)
        request.timeoutMs = 300_000
        request.maxBodyBytes = 2 << 30
        request.compression = false
        return try await client.fetch(request)
    }
}
