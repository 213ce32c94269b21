import Fetch
import Foundation
import Logging
import Scrape
import Series
import Synchronization
import TestSupport
import Testing

/// Targets that come and go.
@Suite struct ScrapeManagerTests {
    /// A clock that goes on by a second whenever somebody waits for it, in a few milliseconds of real time.
    private final class FastClock: TimeSource {
        private let now = Mutex<Int64>(1_000_000)
        var nowMs: Int64 { now.withLock { $0 } }

        func sleep(untilMs: Int64) async throws {
            while nowMs < untilMs {
                try await Task.sleep(for: .milliseconds(1))
                now.withLock { $0 += 100 }
            }
        }
    }

    private struct Rig {
        let store = MemorySeries()
        let manager: ScrapeManager

        init() {
            manager = ScrapeManager(
                client: HTTPClient(), sink: store, time: FastClock(),
                logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
        }

        /// The values of a series, nil where it has ended.
        func values(_ name: String, _ address: String) -> [Double?] {
            let found = try? store.select(
                [.equal("__name__", name), .equal("instance", address)], fromMs: .min, throughMs: .max)
            return (found?.first?.values ?? []).map { $0.isStaleMarker ? nil : $0 }
        }

        func wait(until done: () -> Bool) async {
            for _ in 0..<4000 where !done() { try? await Task.sleep(for: .milliseconds(2)) }
        }
    }

    private func job(_ name: String, settings: String = "", limit: Int = 0, rules: [RelabelRule] = []) -> ScrapeJob {
        var job = ScrapeJob(
            name: name, template: ScrapeTarget(labels: Labels(), url: "", intervalMs: 1000, timeoutMs: 1000))
        job.defaults = ["job": name, "__scheme__": "http", "__metrics_path__": "/metrics"]
        job.settings = settings
        job.targetLimit = limit
        job.relabelRules = rules
        return job
    }

    private func group(_ source: String, _ addresses: String...) -> TargetGroup {
        TargetGroup(source: source, targets: addresses.map { ["__address__": $0, "__meta_x": "1"] })
    }

    private func server() -> (RawServer, String) {
        let server = RawServer { _, connection in connection.answer("a 1\n") }
        return (server, "127.0.0.1:\(server.port)")
    }

    @Test func targets_areScrapedWhileTheyAreThere_andEndWithAMarker() async {
        let rig = Rig()
        let (server, address) = server()
        let (other, otherAddress) = self.server()
        rig.manager.apply([job("j")])
        rig.manager.update("j", discovery: 0, [group("1", address), group("2", otherAddress)], isWhole: true)
        await rig.wait { rig.values("a", address).count > 2 && rig.values("a", otherAddress).count > 2 }
        rig.manager.update("j", discovery: 0, [group("2")], isWhole: false)
        await rig.wait { rig.values("up", otherAddress).last == .some(nil) }
        #expect(rig.values("a", otherAddress).last == .some(nil))
        #expect(rig.values("a", otherAddress).dropLast().allSatisfy { $0 == 1 })
        let before = rig.values("a", address).count
        await rig.wait { rig.values("a", address).count > before }
        #expect(rig.values("a", address).allSatisfy { $0 == 1 })
        #expect(rig.manager.statuses.map(\.target.labels) == [["job": "j", "instance": address]])
        #expect(
            rig.manager.statuses.first?.discovered == [
                "__address__": address, "__meta_x": "1", "job": "j", "__scheme__": "http",
                "__metrics_path__": "/metrics",
            ])
        await rig.manager.stop()
        // A process that stops ends no series.
        #expect(rig.values("a", address).last == 1)
        withExtendedLifetime((server, other)) {}
    }

    /// The same target out of two groups is scraped once, and goes with the last of them.
    @Test func targets_foundTwice_areScrapedOnce() async {
        let rig = Rig()
        let (server, address) = server()
        rig.manager.apply([job("j")])
        rig.manager.update("j", discovery: 0, [group("1", address, address)], isWhole: true)
        rig.manager.update("j", discovery: 1, [group("1", address)], isWhole: true)
        #expect(rig.manager.statuses.count == 1)
        rig.manager.update("j", discovery: 0, [], isWhole: true)
        #expect(rig.manager.statuses.count == 1)
        rig.manager.update("j", discovery: 1, [], isWhole: true)
        #expect(rig.manager.statuses.isEmpty)
        await rig.manager.stop()
        withExtendedLifetime(server) {}
    }

    /// A reload leaves jobs alone that stay as they were: their targets, their status and their rhythm.
    @Test func reload_leavesJobsAloneThatStayAsTheyWere() async {
        let rig = Rig()
        let (server, address) = server()
        let (other, otherAddress) = self.server()
        rig.manager.apply([job("same"), job("changed"), job("gone")])
        for name in ["same", "changed", "gone"] {
            rig.manager.update(name, discovery: 0, [group("1", address)], isWhole: true)
        }
        await rig.wait { rig.manager.statuses.allSatisfy { $0.scrapes > 2 } }
        rig.manager.apply([job("changed", settings: "new"), job("same")])
        #expect(rig.manager.pools.map(\.job) == ["changed", "same"])
        let statuses = rig.manager.statuses
        #expect(statuses.map(\.job) == ["same"])
        #expect(statuses.allSatisfy { $0.scrapes > 2 })
        rig.manager.update("changed", discovery: 0, [group("1", address, otherAddress)], isWhole: true)
        await rig.wait { rig.values("a", otherAddress).count > 3 }
        let found = try? rig.store.select([.equal("__name__", "a")], fromMs: .min, throughMs: .max)
        let ends = (found ?? []).map { series in
            (series.labels["job"] ?? "", series.values.contains(where: \.isStaleMarker))
        }
        // Only those of the job that is gone have ended: the others go on, from an old loop or a new one.
        await rig.wait {
            ((try? rig.store.select([.equal("job", "gone")], fromMs: .min, throughMs: .max)) ?? [])
                .allSatisfy { $0.values.last.map(\.isStaleMarker) ?? false }
        }
        #expect(ends.filter { $0.0 != "gone" }.allSatisfy { !$0.1 })
        let gone = (try? rig.store.select([.equal("job", "gone")], fromMs: .min, throughMs: .max)) ?? []
        #expect(!gone.isEmpty && gone.allSatisfy { $0.values.last.map(\.isStaleMarker) ?? false })
        await rig.manager.stop()
        withExtendedLifetime((server, other)) {}
    }

    @Test func tooManyTargets_failAll() async {
        let rig = Rig()
        let (server, address) = server()
        rig.manager.apply([job("j", limit: 1)])
        rig.manager.update("j", discovery: 0, [group("1", address, "127.0.0.1:1")], isWhole: true)
        await rig.wait { rig.manager.statuses.allSatisfy { $0.scrapes > 0 } }
        #expect(
            rig.manager.statuses.map(\.lastError)
                == Array(repeating: "the job has 2 targets, more than the target_limit of 1", count: 2))
        #expect(rig.manager.pools.first?.refusal != nil)
        rig.manager.update("j", discovery: 0, [group("1", address)], isWhole: true)
        await rig.wait { rig.manager.statuses.allSatisfy { $0.health == .up } }
        #expect(rig.manager.statuses.map(\.health) == [.up])
        await rig.manager.stop()
        withExtendedLifetime(server) {}
    }

    /// Of what relabelling drops there is a count, and some to be shown.
    @Test func dropped_areCounted() async throws {
        var rule = RelabelRule(pattern: try Pattern("1", mode: .anchored))
        rule.sourceLabels = ["__meta_keep"]
        rule.action = .keep
        let rig = Rig()
        var job = job("j", rules: [rule])
        job.keptDroppedTargets = 3
        rig.manager.apply([job])
        let groups = (0..<5).map { group("\($0)", "127.0.0.1:1", "127.0.0.1:2") }
        rig.manager.update("j", discovery: 0, groups, isWhole: true)
        let pool = try #require(rig.manager.pools.first)
        #expect(pool.dropped == 10 && pool.droppedTargets.count == 3 && pool.active == 0)
        #expect(pool.droppedTargets.first?["job"] == "j")
        rig.manager.update("j", discovery: 0, [group("0")], isWhole: false)
        #expect(rig.manager.pools.first?.dropped == 8)
        await rig.manager.stop()
    }
}
