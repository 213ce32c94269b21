import Exposition
import Fetch
import Foundation
import Logging
import Series
import Synchronization

/// How a target fares: the row of `/api/v1/targets`.
package struct TargetStatus: Sendable {
    package enum Health: String, Sendable { case up, down, unknown }

    /// The job whose target it is.
    package var job: String
    package var target: ScrapeTarget
    /// What it was discovered with, before relabelling.
    package var discovered: Labels
    package var health = Health.unknown
    /// The last scrape's error, empty after a good one.
    package var lastError = ""
    package var lastScrapeMs: Int64?
    package var lastDurationSeconds = 0.0
    package var scrapes = 0
    package var scrapesFailed = 0
    /// Scrapes that began more than an interval after they were due.
    package var scrapesLate = 0

    package init(job: String, target: ScrapeTarget, discovered: Labels = Labels()) {
        self.job = job
        self.target = target
        self.discovered = discovered
    }
}

/// A target's status, shared between the loop that writes it and those who show it.
package final class TargetRow: Sendable {
    private let row: Mutex<TargetStatus>

    package init(_ status: TargetStatus) { row = Mutex(status) }

    package var status: TargetStatus { row.withLock { $0 } }

    func update<Result: Sendable>(_ change: (inout TargetStatus) -> Result) -> Result { row.withLock { change(&$0) } }
}

/// The times at which a target is scraped: its labels place them within the interval, so that targets spread over it, also
/// after a start, and a restarted process goes on with the same rhythm.
///
/// As in Prometheus (`scrape/target.go`, `offset`).
struct ScrapeGrid {
    private let offsetMs: Int64
    private let intervalMs: Int64

    init(_ target: ScrapeTarget) {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in (target.url + target.labels.description).utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        offsetMs = Int64((hash ^ (hash >> 32)) % UInt64(target.intervalMs))
        intervalMs = target.intervalMs
    }

    func next(afterMs: Int64) -> Int64 { ((afterMs - offsetMs) / intervalMs + 1) * intervalMs + offsetMs }
}

/// Scrapes one target at its interval, until its task is cancelled.
package struct ScrapeLoop: Sendable {
    let target: ScrapeTarget
    private let request: FetchRequest
    let row: TargetRow
    let client: HTTPClient
    let sink: any SampleSink
    let time: any TimeSource
    let logger: Logger
    let shared: SharedArrays
    /// Why the target must not be scraped; nil where it may be.
    let refusal: @Sendable () -> String?

    package init(
        _ row: TargetRow, client: HTTPClient, sink: any SampleSink, time: any TimeSource, logger: Logger,
        shared: SharedArrays = SharedArrays(), refusal: @escaping @Sendable () -> String? = { nil }
    ) {
        target = row.status.target
        request = target.request()
        self.row = row
        self.client = client
        self.sink = sink
        self.time = time
        self.logger = logger
        self.shared = shared
        self.refusal = refusal
    }

    /// - Returns: What ends the target's series, for one that is gone.
    @discardableResult
    package func run() async -> ScrapeSession {
        var session = ScrapeSession(target: target, sink: sink, shared: shared)
        let grid = ScrapeGrid(target)
        var dueMs = grid.next(afterMs: time.nowMs)
        while !Task.isCancelled {
            do { try await time.sleep(untilMs: dueMs) } catch { break }
            let startMs = time.nowMs
            await scrape(&session, atMs: ScrapeLoop.aligned(startMs, dueMs: dueMs, target))
            if startMs - dueMs >= target.intervalMs { row.update { $0.scrapesLate += 1 } }
            dueMs = grid.next(afterMs: max(startMs, time.nowMs - target.intervalMs))
        }
        return session
    }

    /// The time that a scrape's samples get: that of the grid where the scrape began within two milliseconds, or a
    /// hundredth of the interval, of it.
    ///
    /// As in Prometheus (`scrape/scrape.go`, `ScrapeTimestampTolerance`): equal distances take fewer bytes.
    static func aligned(_ startMs: Int64, dueMs: Int64, _ target: ScrapeTarget) -> Int64 {
        abs(startMs - dueMs) <= min(2, target.intervalMs / 100) ? dueMs : startMs
    }

    /// Whether a body takes longer than a millisecond or so.
    private static func isLong(_ body: [UInt8], _ session: ScrapeSession) -> Bool {
        body.count > (session.isFresh ? 16 << 10 : 512 << 10)
    }

    private func scrape(_ session: inout ScrapeSession, atMs: Int64) async {
        var error = ""
        var duration = 0.0
        do {
            if let refusal = refusal() { throw ScrapeError(reason: refusal) }
            var request = request
            if session.hasFailed { request.turn = .last }
            let response = try await client.fetch(request)
            duration = response.durationSeconds
            guard response.status == 200 else {
                throw ScrapeError(reason: "server returned HTTP status \(response.status)")
            }
            let type = response.headers["content-type"]
            guard let format = ExpositionFormat(contentType: type, fallback: target.fallback) else {
                throw ScrapeError(
                    reason: "the answer is not an exposition but \(type ?? ""): check the target's address and "
                        + "metrics_path, or name a fallback_scrape_protocol")
            }
            if ScrapeLoop.isLong(response.body, session) {
                // The thread that transfers goes on meanwhile.
                _ = try await withTaskExecutorPreference(globalConcurrentExecutor) {
                    try session.ingest(response.body, format: format, atMs: atMs, durationSeconds: duration)
                }
            } else {
                _ = try session.ingest(response.body, format: format, atMs: atMs, durationSeconds: duration)
            }
        } catch let failure as FetchError where failure.code == .cancelled {
            return
        } catch let failure {
            error = "\(failure)"
            duration = duration == 0 ? Double(time.nowMs - atMs) / 1000 : duration
            session.fail(atMs: atMs, durationSeconds: duration)
        }
        let (message, seconds) = (error, duration)
        let isNews = row.update { status in
            defer { status.lastError = message }
            status.health = message.isEmpty ? .up : .down
            status.lastScrapeMs = atMs
            status.lastDurationSeconds = seconds
            status.scrapes += 1
            if !message.isEmpty { status.scrapesFailed += 1 }
            return message != status.lastError
        }
        if isNews, !message.isEmpty {
            logger.warning(
                "scrape failed", metadata: ["target": "\(FetchRequest.redacted(target.url))", "error": "\(message)"])
        }
    }
}
