import Alerting
import Cluster
import Exposition
import Fetch
import Foundation
import LogWatch
import Logging
import Recording
import Scrape
import Series
import Storage

/// Sends a recording through the pipeline, in the recording's own time.
package struct Replay {
    /// What a replay came to.
    package struct Outcome: Sendable {
        package var scrapes = 0
        package var samples = 0
        package var logLines = 0
        package var objects = 0
        package var messagesSent = 0
        /// Parts of the recording that could not be read.
        package var problems: [RecordingError] = []
    }

    private let config: Config
    private let player: RecordingPlayer
    private let logger: Logger

    /// - Parameter config: nil: the built-in signals, log rules and alerts.
    /// - Throws: `RecordingError`, or an error in the configuration's files.
    package init(recording: String, config: Config?, logger: Logger) throws {
        player = try RecordingPlayer(directory: recording)
        self.config = try config ?? Config.builtIn(cluster: player.manifest.cluster)
        self.logger = logger
    }

    /// Plays the recording into a store.
    ///
    /// - Parameters:
    ///   - directory: of the store, which must be empty.
    ///   - untilMs: where to stop; nil for the end.
    ///   - progress: gets the share that is done, now and then.
    /// - Throws: `StoreError`; what can't be read of the recording is in the outcome.
    package func run(
        store directory: String, untilMs: Int64? = nil, progress: (Double) -> Void = { _ in }
    ) async throws -> Outcome {
        let store = try Store(directory: directory)
        guard try store.timeRange() == nil else {
            throw StoreError(
                code: .failed, path: directory,
                reason: "the store has data already; a replay needs an empty one: name another directory with --store")
        }
        let state = try StateDatabase(directory: directory, readOnly: false)
        let watcher = try Watcher(config: config, store: store, state: state, logger: logger)
        let client = HTTPClient()
        let delivery = Delivery(receivers: config.receivers, store: state.alerts, client: client, logger: logger)
        var run = Run(
            player: player, watcher: watcher, store: store, delivery: delivery,
            intervalMs: config.ruleGroups.compactMap(\.intervalMs).reduce(config.evaluationIntervalMs, min),
            untilMs: untilMs, logger: logger)
        try await run.play(progress)
        try await watcher.finish(atMs: run.endMs)
        try store.close()
        state.close()
        run.outcome.problems = run.player.problems
        return run.outcome
    }

    private struct Run {
        var player: RecordingPlayer
        let watcher: Watcher
        let store: Store
        let delivery: Delivery
        let intervalMs: Int64
        let untilMs: Int64?
        let logger: Logger
        var outcome = Outcome()
        /// The time of the last tick.
        var endMs: Int64 = 0

        mutating func play(_ progress: (Double) -> Void) async throws {
            let manifest = player.manifest
            var sessions = manifest.targets.map { target in
                ScrapeSession(target: ScrapeTarget(labels: target.labels, url: ""), sink: store)
            }
            let sources = manifest.logs.map { log in
                LogSource(
                    component: log.component, node: log.node ?? "", format: LogFormat(rawValue: log.format) ?? .klog)
            }
            var tickMs = manifest.startMs + intervalMs
            // The logs may go on a little after the last scrape.
            var endMs = min(untilMs ?? manifest.endMs, manifest.endMs)
            let length = max(1, endMs - manifest.startMs)
            while let (atMs, event) = player.next(), atMs <= untilMs ?? .max {
                if untilMs == nil { endMs = max(endMs, atMs) }
                while tickMs <= atMs {
                    try await tick(atMs: tickMs)
                    tickMs += intervalMs
                    progress(Double(tickMs - manifest.startMs) / Double(length))
                }
                switch event {
                case .scrape(let target, let status, let body):
                    scrape(&sessions[target], status, body, atMs: atMs)
                case .logLine(let log, let line, let severity):
                    outcome.logLines += 1
                    await watcher.observe(line: line, of: sources[log], severity: severity, atMs: atMs)
                case .object(let file, let line):
                    await object(manifest.objects[file], line, atMs: atMs)
                }
            }
            try await tick(atMs: endMs)
            self.endMs = endMs
        }

        private mutating func tick(atMs: Int64) async throws {
            try await watcher.tick(atMs: atMs)
            try store.flush()
            outcome.messagesSent += try await delivery.deliver(atMs: atMs).sent
        }

        private mutating func scrape(_ session: inout ScrapeSession, _ status: Int, _ body: [UInt8], atMs: Int64) {
            outcome.scrapes += 1
            guard status == 200 else {
                session.fail(atMs: atMs, durationSeconds: 0)
                return
            }
            do {
                outcome.samples += try session.ingest(body, format: .prometheus, atMs: atMs, durationSeconds: 0)
                    .result.accepted
            } catch {
                logger.warning("recorded scrape", metadata: ["error": "\(error)"])
                session.fail(atMs: atMs, durationSeconds: 0)
            }
        }

        private mutating func object(_ file: RecordingManifest.Objects, _ line: [UInt8], atMs: Int64) async {
            outcome.objects += 1
            do {
                let observations = try line.withUnsafeBytes { try ObjectObservation.decode($0, kind: file.kind) }
                for observation in observations { await watcher.observe(observation, atMs: atMs) }
            } catch {
                logger.warning("recorded object", metadata: ["file": "\(file.file)", "error": "\(error)"])
            }
        }
    }
}
