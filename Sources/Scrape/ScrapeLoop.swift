import Exposition
import Fetch
import Foundation
import Logging
import Series
import Synchronization

/// How a target fares: the row of `/api/v1/targets`.
package struct TargetStatus: Sendable {
    package enum Health: String, Sendable { case up, down, unknown }

    package var target: ScrapeTarget
    package var health = Health.unknown
    /// The last scrape's error, empty after a good one.
    package var lastError = ""
    package var lastScrapeMs: Int64?
    package var lastDurationSeconds = 0.0
    package var scrapes = 0
    package var scrapesFailed = 0
    /// Scrapes that began more than an interval after they were due.
    package var scrapesLate = 0

    package init(target: ScrapeTarget) { self.target = target }
}

/// The statuses of all targets, shared between the loops that write them and the API that shows them.
package final class TargetBoard: Sendable {
    private let rows: Mutex<[TargetStatus]>

    package init(_ targets: [ScrapeTarget]) { rows = Mutex(targets.map { TargetStatus(target: $0) }) }

    package var statuses: [TargetStatus] { rows.withLock { $0 } }

    func update(_ index: Int, _ change: (inout TargetStatus) -> Void) { rows.withLock { change(&$0[index]) } }
}

/// Scrapes one target at its interval, until its task is cancelled.
///
/// The times lie on a grid that the target's labels place within the interval, so that targets spread over it and a
/// restarted process goes on with the same rhythm. After a start, a target whose last scrape is an interval old is
/// scraped at once.
package struct ScrapeLoop: Sendable {
    package let target: ScrapeTarget
    let index: Int
    let board: TargetBoard
    let client: HTTPClient
    let sink: any SampleSink
    let time: any TimeSource
    let logger: Logger

    package init(
        index: Int, board: TargetBoard, client: HTTPClient, sink: any SampleSink, time: any TimeSource, logger: Logger
    ) {
        target = board.statuses[index].target
        self.index = index
        self.board = board
        self.client = client
        self.sink = sink
        self.time = time
        self.logger = logger
    }

    /// - Parameter lastScrapeMs: the target's newest sample in the store, nil where there is none.
    package func run(lastScrapeMs: Int64?) async {
        var session = ScrapeSession(target: target, sink: sink)
        var dueMs = ScrapeLoop.next(afterMs: time.nowMs, target)
        if (lastScrapeMs ?? .min) <= time.nowMs - target.intervalMs { dueMs = time.nowMs }
        while !Task.isCancelled {
            do { try await time.sleep(untilMs: dueMs) } catch { break }
            let startMs = time.nowMs
            await scrape(&session, atMs: ScrapeLoop.aligned(startMs, dueMs: dueMs, target))
            if startMs - dueMs >= target.intervalMs { board.update(index) { $0.scrapesLate += 1 } }
            dueMs = ScrapeLoop.next(afterMs: max(startMs, time.nowMs - target.intervalMs), target)
        }
    }

    /// The time that a scrape's samples get: that of the grid where the scrape began within two milliseconds, or a
    /// hundredth of the interval, of it.
    ///
    /// As in Prometheus (`scrape/scrape.go`, `ScrapeTimestampTolerance`): equal distances take fewer bytes.
    static func aligned(_ startMs: Int64, dueMs: Int64, _ target: ScrapeTarget) -> Int64 {
        abs(startMs - dueMs) <= min(2, target.intervalMs / 100) ? dueMs : startMs
    }

    /// The next time on the target's grid after a time.
    static func next(afterMs: Int64, _ target: ScrapeTarget) -> Int64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in (target.url + target.labels.description).utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        let offset = Int64((hash ^ (hash >> 32)) % UInt64(target.intervalMs))
        let periods = (afterMs - offset) / target.intervalMs + 1
        return periods * target.intervalMs + offset
    }

    private func scrape(_ session: inout ScrapeSession, atMs: Int64) async {
        var error = ""
        var duration = 0.0
        do {
            let response = try await client.fetch(target.request())
            duration = response.durationSeconds
            guard response.status == 200 else {
                throw ScrapeError(reason: "server returned HTTP status \(response.status)")
            }
            guard let format = ExpositionFormat(contentType: response.headers["content-type"]) else {
                throw ScrapeError(
                    reason: "the answer is not an exposition but \(response.headers["content-type"] ?? ""): "
                        + "check the target's address and metrics_path")
            }
            _ = try session.ingest(response.body, format: format, atMs: atMs, durationSeconds: duration)
        } catch let failure as FetchError where failure.code == .cancelled {
            return
        } catch let failure {
            error = "\(failure)"
            duration = duration == 0 ? Double(time.nowMs - atMs) / 1000 : duration
            session.fail(atMs: atMs, durationSeconds: duration)
        }
        let (message, seconds) = (error, duration)
        let before = board.statuses[index].lastError
        board.update(index) { status in
            status.health = message.isEmpty ? .up : .down
            status.lastError = message
            status.lastScrapeMs = atMs
            status.lastDurationSeconds = seconds
            status.scrapes += 1
            if !message.isEmpty { status.scrapesFailed += 1 }
        }
        if message != before, !message.isEmpty {
            logger.warning(
                "scrape failed", metadata: ["target": "\(FetchRequest.redacted(target.url))", "error": "\(message)"])
        }
    }
}
