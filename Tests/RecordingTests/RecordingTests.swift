import Foundation
import Recording
import TestSupport
import Testing

@Suite struct RecordingTests {
    private let directory = TemporaryDirectory()

    private func compress(_ name: String, _ text: String) throws {
        let plain = try directory.write(name + ".plain", text)
        let result = try Program.run(
            "/usr/bin/zstd", ["-q", "-f", plain, "-o", directory.path + "/" + name], in: directory.path)
        #expect(result.code == 0)
    }

    private func manifest(_ more: String) throws {
        _ = try directory.write(
            "recording.json", #"{"format":1,"cluster":"lab","start_ms":1000,"end_ms":9000,\#(more)}"#)
    }

    private func play() throws -> (times: [Int64], problems: [String]) {
        var player = try RecordingPlayer(directory: directory.path)
        var times: [Int64] = []
        while let (atMs, _) = player.next() { times.append(atMs) }
        return (times, player.problems.map { $0.description.replacingOccurrences(of: directory.path + "/", with: "") })
    }

    private let target = #""targets":[{"job":"j","instance":"i","metrics_path":"/metrics","file":"m.zst"}]"#

    @Test func files_areReadSideBySide_inOrderOfTime() throws {
        try manifest(
            target
                + #","logs":[{"component":"c","file":"l.zst","format":"logfmt"}],"objects":[{"kind":"pods","mode":"list","file":"o.zst"}]"#
        )
        try compress("m.zst", "# scrape 2000 200 4\na 1\n# scrape 4000 0 0\n")
        try compress(
            "l.zst", "time=\"1970-01-01T00:00:03Z\" level=info\nno time\ntime=\"1970-01-01T00:00:05Z\" level=info")
        try compress("o.zst", "{\"t\":2500,\"list\":{}}\n")
        let (times, problems) = try play()
        #expect(times == [2000, 2500, 3000, 3000, 4000, 5000])
        #expect(problems == [])
    }

    @Test func truncatedFrame_isTold_andTheRestGoesOn() throws {
        try manifest(target + #","objects":[{"kind":"pods","mode":"list","file":"o.zst"}]"#)
        try compress("m.zst", "# scrape 2000 200 4\na 1\n# scrape 3000 200 400\na 1\n")
        try compress("o.zst", "{\"t\":8000,\"list\":{}}\n")
        let (times, problems) = try play()
        #expect(times == [2000, 8000])
        #expect(problems == ["m.zst: byte 24: the frame is cut off: its header promises 400 bytes, 4 are there"])
    }

    @Test func badHeader_isTold() throws {
        try manifest(target)
        try compress("m.zst", "# scrape soon 200 4\na 1\n")
        #expect(
            try play().problems == [
                ##"m.zst: byte 0: expected "# scrape <unix ms> <status> <bytes>", found "# scrape soon 200 4""##
            ])
    }

    @Test func compressedDataThatIsCutOff_orIsNone_isTold() throws {
        try manifest(target)
        try compress("m.zst", "# scrape 2000 200 40000\n" + String(repeating: "a 1\nb 2\nc 3\n", count: 4000))
        let bytes = try #require(FileManager.default.contents(atPath: directory.path + "/m.zst"))
        try bytes.prefix(bytes.count / 2).write(to: URL(fileURLWithPath: directory.path + "/m.zst"))
        #expect(try play().problems == ["m.zst: the compressed data is cut off"])
        _ = try directory.write("m.zst", "plain text")
        #expect(try play().problems == ["m.zst: can't be decompressed: Unknown frame descriptor"])
        try FileManager.default.removeItem(atPath: directory.path + "/m.zst")
        #expect(try play().problems == ["m.zst: can't be read"])
    }

    @Test(arguments: [
        (#"{"format":1"#, "not valid JSON"), (#"{"cluster":"x"}"#, "the field format is missing"),
        (#"{"format":2,"cluster":"x","start_ms":0,"end_ms":0}"#, "format 2 is not known; this version reads format 1"),
        (
            #"{"format":1,"cluster":"x","start_ms":0,"end_ms":0,"targets":[{"job":"x"}]}"#,
            "the field targets[0].instance is missing"
        ),
        (#"{"format":"1"}"#, "the field format has a wrong type"),
    ])
    func badManifest_isTold(text: String, reason: String) throws {
        _ = try directory.write("recording.json", text)
        let error = #expect(throws: RecordingError.self) { try RecordingPlayer(directory: directory.path) }
        #expect(error?.description == "\(directory.path)/recording.json: \(reason)")
    }

    @Test func directoryWithoutARecording_isTold() {
        let error = #expect(throws: RecordingError.self) { try RecordingPlayer(directory: "/nowhere") }
        #expect(
            error?.description
                == "/nowhere/recording.json: can't be read; a recording is a directory with a file recording.json")
    }
}
