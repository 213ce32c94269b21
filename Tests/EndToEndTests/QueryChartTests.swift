import Foundation
import Series
import Storage
import TestSupport
import Testing

@Suite struct QueryChartTests {
    @Test func aRange_isALineOfBlocksASeries() throws {
        let directory = TemporaryDirectory()
        let store = try Store(directory: directory.path + "/store")
        for minute in 0..<8 {
            store.append(
                [(["__name__": "x", "a": "1"], Double(minute)), (["__name__": "x", "a": "2"], 7)].filter {
                    $0.0["a"] == "1" || minute > 3
                }, atMs: 1_800_000 + Int64(minute) * 60_000)
        }
        try store.close()
        let result = try Binary.run(
            [
                "query", "last_over_time(x[30s])", "--start=-7m", "--step", "1m", "--format", "chart", "--store",
                directory.path + "/store",
            ], in: directory)
        #expect(
            result.output == """
                1970-01-01T00:30:00Z to 1970-01-01T00:37:00Z, from 0 to 7
                x{a="1"}
                  ▁▂▃▄▅▆▇█  0 … 7
                x{a="2"}
                      ████  7 … 7

                """)
    }
}
