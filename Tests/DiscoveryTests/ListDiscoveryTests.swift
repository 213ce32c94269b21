import Discovery
import Foundation
import Scrape
import Series
import Synchronization
import TestSupport
import Testing

/// Targets from files and from servers that list them.
@Suite struct ListDiscoveryTests {
    @Test func files_areReadAgainWhenTheyChange() async throws {
        let directory = TemporaryDirectory()
        let yaml = try directory.write(
            "a.yaml", "- targets: ['h1:1', 'h2:2']\n  labels: {env: prod}\n- targets: [h3]\n")
        let told = Told()
        let board = DiscoveryBoard()
        let discovery = FileDiscovery(files: [directory.path + "/*.yaml", directory.path + "/b.json"])
        let task = Task { [context = context(board: board)] in
            await Discovery.file(discovery).run(context, found: told.take)
        }
        defer { task.cancel() }
        await told.wait { !$0.updates.isEmpty }
        #expect(
            told.groups == [
                "\(yaml):0": [
                    ["__address__": "h1:1", "env": "prod", "__meta_filepath": yaml],
                    ["__address__": "h2:2", "env": "prod", "__meta_filepath": yaml],
                ], "\(yaml):1": [["__address__": "h3", "__meta_filepath": yaml]],
            ])
        let json = try directory.write("b.json", #"[{"targets": ["h4:4"], "labels": {"x": "1"}}]"#)
        await told.wait { $0.groups["\(json):0"] != nil }
        #expect(told.groups["\(json):0"] == [["__address__": "h4:4", "x": "1", "__meta_filepath": json]])
        // A file that can't be read keeps what it had; one that is gone does not.
        _ = try directory.write("b.json", "[{\"targets\": [\"h5\"], \"label\": {}}]")
        await told.wait { _ in board.all.first?.counters.failures ?? 0 > 0 }
        #expect(told.groups["\(json):0"]?.first?["__address__"] == "h4:4")
        try FileManager.default.removeItem(atPath: yaml)
        await told.wait { $0.groups["\(yaml):0"] == nil }
        #expect(Array(told.groups.keys) == ["\(json):0"])
    }

    @Test func servers_areAskedAgain_andTheirFaultsChangeNothing() async {
        let answers: [(body: String, type: String, status: String)] = [
            (#"[{"targets": ["h1:1"], "labels": {"a": "b"}}, {"targets": []}]"#, "application/json", "200 OK"),
            ("[]", "text/plain", "200 OK"), ("[]", "application/json", "500 Internal Server Error"),
            (#"{"targets": []}"#, "application/json", "200 OK"), ("[]", "application/json; charset=utf-8", "200 OK"),
        ]
        let count = Mutex(0)
        let server = RawServer { _, connection in
            let number = count.withLock { count in
                defer { count += 1 }
                return min(count, answers.count - 1)
            }
            let answer = answers[number]
            connection.answer(answer.body, status: answer.status, headers: "Content-Type: \(answer.type)\r\n")
        }
        let told = Told()
        let board = DiscoveryBoard()
        let discovery = HTTPDiscovery(url: server.url + "/targets?token=x")
        let task = Task { [context = context(board: board)] in
            await Discovery.http(discovery).run(context, found: told.take)
        }
        defer { task.cancel() }
        await told.wait { !$0.updates.isEmpty }
        #expect(
            told.groups == [
                "0": [["__address__": "h1:1", "a": "b", "__meta_url": server.url + "/targets"]]
            ])
        await told.wait { $0.updates.count > 1 }
        #expect(told.groups.isEmpty)
        #expect(board.all.first?.counters.failures == 3)
        #expect(
            server.heads.first?.lowercased().contains("x-prometheus-refresh-interval-seconds: 60.0") == true)
    }
}
