import Foundation
import TestSupport
import Testing

/// History that goes into a store and out of it again, and the care of the store.
@Suite struct StoreCommandTests {
    private static let text = """
        # TYPE requests counter
        # HELP requests Requests by code.
        requests_total{code="200",path="/a\\"b\\\\c"} 1 1700000000
        requests_total{code="200",path="/a\\"b\\\\c"} 2.5 1700000015.500
        requests_total{code="500",path="/"} 0.001 1700000000
        # TYPE temperature gauge
        temperature -4.25 1700000000.001
        temperature +Inf 1700000001
        # EOF

        """

    /// Runs the program with names of files as paths of a directory, and tells them as names again.
    private func run(_ directory: TemporaryDirectory, _ words: String...) throws -> (
        code: Int32, output: String, errors: String
    ) {
        let own: Set = ["a", "b", "none", "history.om", "dump.txt", "bad.om", "none.om"]
        let result = try Binary.run(words.map { own.contains($0) ? "\(directory.path)/\($0)" : $0 }, in: directory)
        return (
            result.code, result.output.replacing("\(directory.path)/", with: ""),
            result.errors.replacing("\(directory.path)/", with: "")
        )
    }

    @Test func whatIsImported_isExported() throws {
        let directory = TemporaryDirectory()
        _ = try directory.write("history.om", Self.text)
        let imported = try run(directory, "import", "openmetrics", "history.om", "--store", "a")
        #expect(imported.code == 0 && imported.output == "a: 5 samples imported\n", "\(imported.errors)")
        let exported = try run(directory, "export", "--store", "a")
        #expect(exported.output == Self.text, "\(exported.errors)")
        let some = try run(directory, "export", "--store", "a", "--match", "temperature", "--start", "1700000001")
        #expect(some.output == "# TYPE temperature gauge\ntemperature +Inf 1700000001\n# EOF\n")
        let last = try run(directory, "export", "--store", "a", "--match", "requests_total", "--start", "-1s")
        #expect(last.output.hasSuffix("\"} 2.5 1700000015.500\n# EOF\n"), "\(last.errors)")
        let range = try run(directory, "query", "temperature", "--start", "-15s", "--step", "5s", "--store", "a")
        #expect(range.code == 0 && range.output.contains("temperature"), "\(range.errors)")
        // Again, they are there already.
        let again = try run(directory, "import", "openmetrics", "history.om", "--store", "a")
        #expect(again.code == 0 && again.output == "a: 0 samples imported\n")
        #expect(again.errors.contains("samples left out, "))
    }

    @Test func dumpOfPromtool_isTaken() throws {
        let directory = TemporaryDirectory()
        let dump = """
            {__name__="up", instance="a", job="j"} 1 1700000000000
            {__name__="up", instance="a", job="j"} NaN 1700000015001
            {__name__="go info", version="x"} -0.5 1700000000000
            {__name__="path", of="C:\\\\new\\tab\\u00a0\\x7f \\"q\\" \\n"} 2 1700000000000

            """
        _ = try directory.write("dump.txt", dump)
        let imported = try run(directory, "import", "tsdb-dump", "dump.txt", "--store", "a")
        #expect(imported.output == "a: 4 samples imported\n", "\(imported.errors)")
        let exported = try run(directory, "export", "--store", "a")
        #expect(
            exported.output == """
                {"go info",version="x"} -0.5 1700000000
                path{of="C:\\\\new\tab\u{a0}\u{7f} \\"q\\" \\n"} 2 1700000000
                up{instance="a",job="j"} 1 1700000000
                # EOF

                """)
    }

    @Test func badLines_areTold() throws {
        let directory = TemporaryDirectory()
        for (text, words) in [
            ("up 1 1700000000\nup{job=x} 2 1700000015\n# EOF\n", "bad.om:2: expected a label value in double quotes"),
            (
                "up 1 1700000000000\n# EOF\n",
                "bad.om:1: the sample of \"up\" is of 55840-11-08T22:13:20Z, which is yet to come: times are in seconds"
            ),
            ("up 1 1700000000\nup{ 2 1700000015\n# EOF\n", "bad.om:2:"),
            ("up 1 1700000000\nup 2\n# EOF\n", "bad.om:2: the sample of \"up\" has no time"),
            ("up 1 1700000000\n", "bad.om: does not end with # EOF"),
        ] {
            _ = try directory.write("bad.om", text)
            let imported = try run(directory, "import", "openmetrics", "bad.om", "--store", "a")
            #expect(imported.code == 65 && imported.errors.contains(words), "\(imported.errors)")
        }
        let none = try run(directory, "import", "openmetrics", "none.om", "--store", "a")
        #expect(none.code == 65 && none.errors.contains("none.om: can't be read: No such file"))
    }

    @Test func backup_isAStore_andDamageIsFound() throws {
        let directory = TemporaryDirectory()
        _ = try directory.write("history.om", Self.text)
        _ = try run(directory, "import", "openmetrics", "history.om", "--store", "a")
        #expect(try run(directory, "backup", "--store", "a", "b").code == 0)
        #expect(try run(directory, "export", "--store", "b").output == Self.text)
        #expect(try run(directory, "backup", "--store", "a", "b").code == 64)
        #expect(try run(directory, "backup", "--store", "none", "c").code == 69)
        let good = try run(directory, "check", "store", "b")
        #expect(good.output == "b: SUCCESS: 3 series, 5 samples, 2 blocks, 0 rows of the journal\n", "\(good.errors)")
        // A page in the middle of the file is overwritten.
        let file = try #require(FileHandle(forUpdatingAtPath: directory.path + "/b/metrics.db"))
        try file.seek(toOffset: 4096)
        try file.write(contentsOf: Data(repeating: 0xff, count: 12_288))
        try file.close()
        let bad = try run(directory, "check", "store", "b")
        #expect(bad.code == 1 && bad.output == "b: FAILED\n" && bad.errors.contains("b/metrics.db: "))
    }
}
