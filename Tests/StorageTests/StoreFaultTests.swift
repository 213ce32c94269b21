import CFaultVFS
import Foundation
import Series
import Storage
import TestSupport
import Testing

/// Kills, full disks, failing disks and torn pages: what was flushed is there, and the store opens.
@Suite(.serialized) struct StoreFaultTests {
    private let directory = TemporaryDirectory()
    private static let isSlow = ProcessInfo.processInfo.environment["UPGRADE_WATCH_SLOW_TESTS"] != nil
    private static let series = 40

    private static let writer: String = {
        let folder = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path
        let built = [
            "\(folder)/store-writer", Shared.root + "/.build/release/store-writer",
            Shared.root + "/.build/debug/store-writer",
        ]
        return built.first { FileManager.default.isExecutableFile(atPath: $0) } ?? built[0]
    }()

    /// Each series has all times from 1 on, and the values of them.
    ///
    /// - Returns: the newest time.
    private func newest(_ path: String, _ words: String) throws -> Int64 {
        let check = try StoreCheck(directory: path)
        #expect(check.problems.isEmpty, "\(words): \(check.problems)")
        let store = try Store(directory: path, readOnly: true)
        let all = try store.select([.equal("job", "j")], fromMs: .min, throughMs: .max)
        let newest = all.first?.timestampsMs.last ?? 0
        for one in all {
            let factor = (one.labels["k"].flatMap(Double.init) ?? 0) + 1
            let isWhole =
                one.timestampsMs.elementsEqual(1...max(1, newest))
                && one.values.elementsEqual(one.timestampsMs.lazy.map { factor * Double($0) })
            #expect(isWhole, "\(words): \(one.labels) has \(one.timestampsMs.count) samples up to \(newest)")
        }
        #expect(all.isEmpty || all.count == StoreFaultTests.series, "\(words)")
        return newest
    }

    /// 200 kills at random moments in the slow suite, 10 in the fast one: no sample that a flush acknowledged is lost.
    @Test func kills_loseNothingThatWasFlushed() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        let rounds = StoreFaultTests.isSlow ? 200 : 10
        for round in 0..<rounds {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: StoreFaultTests.writer)
            process.arguments = [directory.path, "\(seed &+ UInt64(round))"]
            let output = Pipe()
            process.standardOutput = output
            try process.run()
            // The kill comes so many acknowledgements, and then so many microseconds, later.
            var text: [UInt8] = []
            let lines = Int.random(in: 1...30, using: &random)
            while text.count(where: { $0 == UInt8(ascii: "\n") }) < lines {
                let more = output.fileHandleForReading.availableData
                guard !more.isEmpty else { break }
                text += more
            }
            usleep(UInt32.random(in: 0...20_000, using: &random))
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
            text += [UInt8](try output.fileHandleForReading.readToEnd() ?? Data())
            // A line that was cut off acknowledges nothing.
            let whole = text.prefix((text.lastIndex(of: UInt8(ascii: "\n")) ?? -1) + 1)
            let acknowledged = String(decoding: whole, as: UTF8.self).split(separator: "\n").last.flatMap { Int64($0) }
            let found = try newest(directory.path, "seed \(seed), round \(round)")
            #expect(found >= acknowledged ?? 0, "seed \(seed), round \(round): \(found) of \(acknowledged ?? 0)")
        }
    }

    /// The last writes that reached the disk are torn: the store opens with all that came before them.
    @Test func tornPages_ofTheLog_costTheLastFlushesAlone() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        for round in 0..<(StoreFaultTests.isSlow ? 60 : 10) {
            let path = directory.path + "/\(round)"
            var flushed: [Int64] = []
            do {
                let store = try Store(directory: path)
                try write(store, times: 400, &random) { flushed.append($0) }
            }
            // As after a power failure: the log of a process that is gone, cut or overwritten near its end.
            let copy = path + "-torn"
            try FileManager.default.copyItem(atPath: path, toPath: copy)
            let log = copy + "/" + Store.fileName + "-wal"
            guard let size = try? FileManager.default.attributesOfItem(atPath: log)[.size] as? Int, size > 8192 else {
                continue
            }
            let handle = try #require(FileHandle(forUpdatingAtPath: log))
            let place = size - Int.random(in: 1...8192, using: &random)
            if Bool.random(using: &random) {
                try handle.truncate(atOffset: UInt64(place))
            } else {
                try handle.seek(toOffset: UInt64(place))
                try handle.write(
                    contentsOf: Data(
                        (0..<min(512, size - place)).map { _ in UInt8.random(in: 0...255, using: &random) }))
            }
            try handle.close()
            let found = try newest(copy, "seed \(seed), round \(round)")
            // It ends with a flush: no half of one is there.
            #expect(found == 0 || flushed.contains(found), "seed \(seed), round \(round): \(found)")
        }
    }

    /// Any write may be the first that fails, of a disk that is full or broken, until there is room again: nothing that was
    /// appended is lost, and the store is whole.
    @Test(arguments: [13, 10 | 3 << 8, 10 | 4 << 8]) func failingWrites_loseNothing(code: Int32) throws {
        fault_vfs_install()
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        var failures: Int32 = 0
        for round in 0..<(StoreFaultTests.isSlow ? 150 : 15) {
            let path = directory.path + "/fault-\(code)-\(round)"
            var last: Int64 = 0
            do {
                let store = try Store(directory: path)
                try write(store, times: 60, &random) { last = $0 }
                fault_vfs_arm(path, Int32.random(in: 1...40, using: &random), code)
                for _ in 0..<8 {
                    last = append(store, after: last, rows: Int.random(in: 1...20, using: &random))
                    // What fails stays in memory.
                    if Bool.random(using: &random) { try? store.flush() } else { try? store.checkpoint() }
                    if Int.random(in: 0..<4, using: &random) == 0 { try? store.deleteSamples(beforeMs: 0) }
                }
                failures += fault_vfs_failures()
                fault_vfs_arm("", 0, 0)
                last = append(store, after: last, rows: 1)
                try store.close()
            }
            #expect(try newest(path, "seed \(seed), round \(round)") == last, "seed \(seed), round \(round)")
        }
        #expect(failures > 0)
    }

    private func append(_ store: Store, after time: Int64, rows: Int) -> Int64 {
        let source = store.source(["job": "j"])
        let ids = store.ids(
            for: (0..<StoreFaultTests.series).map { ["__name__": "m\($0 % 3)", "job": "j", "k": "\($0)"] })
        for row in 1...Int64(rows) {
            let values = ids.indices.map { Double($0 + 1) * Double(time + row) }
            let result = store.append(values, of: ids, from: source, atMs: time + row)
            #expect(result.accepted == ids.count)
        }
        return time + Int64(rows)
    }

    /// Appends up to a time, with flushes that are told and checkpoints now and then; the last flush is of all.
    private func write(_ store: Store, times: Int64, _ random: inout SeededRandom, told: (Int64) -> Void) throws {
        var time: Int64 = 0
        while time < times {
            time = append(store, after: time, rows: Int.random(in: 1...20, using: &random))
            try store.flush()
            told(time)
            if Int.random(in: 0..<8, using: &random) == 0 { try store.checkpoint() }
        }
    }
}
