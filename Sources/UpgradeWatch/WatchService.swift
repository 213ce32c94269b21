import Alerting
import Cluster
import Comparison
import Discovery
import Fetch
import Foundation
import Hummingbird
import HummingbirdTLS
import Logging
import PromQL
import Scrape
import Series
import ServiceLifecycle
import Storage
import Synchronization
import UnixSignals
import WebAPI

/// What the command line says to the service.
package struct ServiceOptions: Sendable {
    /// Whether samples are taken by remote write.
    package var receivesWrites = false
    /// Of the queries that come by the API.
    package var limits = QueryRunner.Limits()
    /// The origins whose pages may read the API.
    package var origins: Pattern
    /// How the API is secured; nil: it is open to all who reach it.
    package var webFile: String?
    /// Where people reach the API, as it stands in webhooks; nil: where it listens.
    package var externalURL: String?
    /// The machine's name, for an API that listens at all its addresses.
    package var hostName = "localhost"
    /// Of the program.
    package var version = ""
    /// All flags by their names, as they are shown.
    package var flags: [String: String] = [:]

    package init(origins: Pattern) { self.origins = origins }
}

/// The running service: a configuration made into loops, until a signal ends it.
///
/// A reload ends the loops and begins them anew with the new configuration; the store stays open, and the targets of
/// jobs that stay as they were are scraped on.
package struct WatchService: Sendable {
    private let configFile: String
    private let config: Config
    private let time: any TimeSource
    private let environment: [String: String]
    private let options: ServiceOptions
    private let runner: QueryRunner
    private let storeWork = StoreWork()
    private let deliveries = DeliveryWork()
    private let logger: Logger

    /// Who says nothing for so long, or does not end a request, gives the connection back.
    private static let idleSeconds: Int64 = 60
    /// Clients that are in the middle of a request are waited for, but not longer.
    private static let longestShutdown = Duration.seconds(10)

    /// - Parameter environment: of the process: where a kubeconfig or a service account is looked for.
    package init(
        configFile: String, config: Config, time: any TimeSource, environment: [String: String],
        options: ServiceOptions, logger: Logger
    ) {
        runner = QueryRunner(limits: options.limits, time: time)
        self.environment = environment
        self.options = options
        self.configFile = configFile
        self.config = config
        self.time = time
        self.logger = logger
    }

    /// Runs until SIGTERM or SIGINT.
    ///
    /// - Throws: `StoreError` where the store can't be opened; the error of a loop that failed.
    package func run() async throws {
        let store = try Store(directory: config.storage.path)
        let state = try StateDatabase(directory: config.storage.path, readOnly: false)
        let client = HTTPClient(maxConnections: HTTPClient.mostConnections())
        let scraping = ScrapeManager(
            client: client, sink: store, time: client.clock(time), logger: logger)
        let control = Control(
            file: configFile, webFile: options.webFile, features: config.features, storage: config.storage.path,
            time: time, logger: logger)
        // The signals are taken from the beginning to the end: between two rounds none is lost.
        let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint, .sighup)
        let listener = Task {
            for await signal in signals {
                if signal == .sighup { control.reloadOrTell() } else { control.stop() }
            }
        }
        defer { listener.cancel() }
        var current = config
        // The last one that came up.
        var good: Config?
        let started = time.nowMs
        while true {
            var hasFailed = false
            let end = control.newRound(revision: current.revision)
            do {
                try await round(current, store, state, client, scraping, end, started: started)
                good = current
            } catch {
                if end.isUp { good = current } else { control.noteFailure() }
                // A new configuration that does not come up, for a port that is taken say, is no reason to stop watching.
                guard good != nil, !control.isStopping else {
                    await scraping.stop()
                    throw error
                }
                hasFailed = true
                logger.error(
                    "the configuration does not come up, the last one that did goes on", metadata: ["error": "\(error)"]
                )
            }
            guard !control.isStopping else { break }
            if let next = control.takeAccepted() {
                logger.info("configuration reloaded", metadata: ["file": "\(configFile)"])
                current = next
            } else if hasFailed, let good {
                // Where that one does not come up any more either, it is tried until it does.
                if good.revision == current.revision { try? await time.sleep(untilMs: time.nowMs + 5000) }
                current = good
            } else {
                break
            }
        }
        await scraping.stop()
        try store.close()
        state.close()
        logger.info("stopped")
    }

    /// Runs all loops for one configuration.
    private func round(
        _ config: Config, _ store: Store, _ state: StateDatabase, _ client: HTTPClient, _ scraping: ScrapeManager,
        _ end: RoundEnd, started: Int64
    ) async throws {
        let source = config.storage.source(store, client: client, time: time)
        // Rules and queries want what is new: they go on where the other server is away.
        let recent = config.storage.source(store, client: client, time: time, isTolerant: true)
        let clock = ContinuousClock()
        let began = clock.now
        // Since the start, by a clock that nobody sets.
        let seconds: @Sendable () -> Double = { (clock.now - began) / .seconds(1) }
        let watcher = try Watcher(
            config: config, store: store, source: source, recent: recent, state: state, logger: logger,
            externalURL: options.externalURL
                ?? config.web.url(
                    scheme: config.security.tls == nil ? "http" : "https",
                    host: config.web.isEverywhere ? options.hostName : config.web.host), seconds: seconds)
        let flusher = FlushLoop(
            store: store, config: config.storage, time: time, logger: logger, watcher: watcher, work: storeWork,
            seconds: seconds)
        let discoveryBoard = DiscoveryBoard()
        let finding = DiscoveryContext(
            client: client, time: time, logger: logger, board: discoveryBoard,
            cluster: { [environment] in
                try (config.kubernetes ?? KubernetesConfig()).endpoint(environment: environment)
            })
        let discovery = DiscoveryService(jobs: config.jobs, manager: scraping, context: finding)
        let alertmanagers = AlertmanagerBoard(config.alerting.alertmanagers)
        let alerting = AlertmanagerService(
            config: config.alerting, watcher: watcher, board: alertmanagers, context: finding, seconds: seconds)
        let watch = WatchLoop(watcher: watcher, config: config, time: time, logger: logger)
        let deliver = DeliveryLoop(
            delivery: Delivery(receivers: config.receivers, store: state.alerts, client: client, logger: logger),
            work: deliveries, time: time, logger: logger)
        let objectBoard = ObjectBoard()
        var objects: [ServiceGroupConfiguration.ServiceConfiguration] = []
        if let kubernetes = config.kubernetes {
            let api = KubernetesAPI(
                endpoint: try kubernetes.endpoint(environment: environment), client: client, time: time)
            objects = [
                .init(
                    service: ObjectService(
                        api: api, watcher: watcher, board: objectBoard, time: time, logger: logger))
            ]
        }
        let metrics = SelfMetrics(
            version: options.version, store: store, storage: config.storage, work: storeWork, scraping: scraping,
            client: client, discovery: discoveryBoard, watcher: watcher, alerts: state.alerts, objects: objectBoard,
            runner: runner, deliveries: deliveries, alertmanagers: alertmanagers, control: end.control)
        let context = WebContext(
            source: recent, receiver: options.receivesWrites ? store : nil,
            engine: QueryEngine(features: config.features), runner: runner,
            service: ServiceStatus(
                configuration: config.text, flags: options.flags, startedMs: started, configuredMs: time.nowMs,
                retentionMs: config.storage.retentionMs, isReloaded: { end.control.lastReload.isGood }),
            externalLabels: config.externalLabels, origins: options.origins, web: config.security, time: time,
            targets: { scraping.statuses }, pools: { scraping.pools },
            rules: { await watcher.ruleStatus }, alerts: { await watcher.activeAlerts },
            alertmanagers: { (alertmanagers.active.map(\.url).sorted(), alertmanagers.dropped) },
            upgrades: { await watcher.upgrades },
            assess: { [time] id, batch in
                do {
                    return try await watcher.assess(upgrade: id, batch: batch, atMs: time.nowMs)
                } catch is UnknownUpgrade { return nil } catch is UnknownBatch { return nil }
            }, marks: { try state.cluster.marks() }, addMark: { try state.cluster.add($0) },
            reload: { try end.control.reload() }, metrics: { await metrics.text() }, isReady: { true })
        let web = Application(
            router: WebAPI.router(context),
            server: try config.security.tls.map {
                try .tls(
                    .http1(configuration: .init(idleTimeout: .seconds(WatchService.idleSeconds))),
                    tlsConfiguration: $0.configuration())
            } ?? .http1(configuration: .init(idleTimeout: .seconds(WatchService.idleSeconds))),
            configuration: .init(address: .hostname(config.web.host, port: config.web.port)),
            onServerRunning: { [logger] channel in
                end.noteUp()
                logger.info("listening", metadata: ["address": "\(channel.localAddress.map { "\($0)" } ?? "")"])
            }, logger: quiet)
        // They end in the reverse order: the API answers until the others have ended.
        var lifecycle = ServiceGroupConfiguration(
            services: [.init(service: web)] + objects + [
                .init(service: flusher), .init(service: watch), .init(service: deliver), .init(service: discovery),
                .init(service: alerting),
                .init(service: end, successTerminationBehavior: .gracefullyShutdownGroup),
            ], logger: quiet)
        lifecycle.maximumGracefulShutdownDuration = WatchService.longestShutdown
        let group = ServiceGroup(configuration: lifecycle)
        logger.info(
            "watching",
            metadata: [
                "cluster": "\(config.cluster)", "jobs": "\(config.jobs.count)",
                "signals": "\(config.signals.count)",
            ])
        do {
            try await group.run()
        } catch let error where "\(error)".contains("Address already in use") {
            throw StoreError(
                code: .failed, path: "web.listen \(config.web.host):\(config.web.port)",
                reason: "the address is in use; stop what listens there, or name another one")
        }
        do {
            try await watcher.finish(atMs: time.nowMs)
        } catch {
            logger.error("watch", metadata: ["error": "\(error)"])
        }
    }

    /// The libraries' own messages, which are for those who look for a fault in them.
    private var quiet: Logger {
        var logger = logger
        logger.logLevel = max(logger.logLevel, .warning)
        return logger
    }
}

/// What signals and the API ask of the service: to stop, or to go on with a new configuration.
final class Control: Sendable {
    private struct State {
        var isStopping = false
        var accepted: Config?
        var round: RoundEnd?
        /// How many times another configuration was asked for.
        var asked = 0
        var lastReload: (isGood: Bool, goodMs: Int64)
    }

    private let file: String
    private let webFile: String?
    private let features: QueryFeatures
    private let storage: String
    private let time: any TimeSource
    private let logger: Logger
    private let state: Mutex<State>

    /// - Parameter storage: where the store is, which stays open.
    init(
        file: String, webFile: String?, features: QueryFeatures, storage: String, time: any TimeSource, logger: Logger
    ) {
        state = Mutex(State(lastReload: (true, time.nowMs)))
        self.storage = storage
        self.time = time
        self.file = file
        self.webFile = webFile
        self.features = features
        self.logger = logger
    }

    var isStopping: Bool { state.withLock { $0.isStopping } }

    /// Whether the last configuration that was asked for came up, and when one did.
    var lastReload: (isGood: Bool, goodMs: Int64) { state.withLock { $0.lastReload } }

    /// Notes that a configuration came up; it is a success where it is the one that was asked for last.
    func noteSuccess(revision: Int) {
        state.withLock { state in
            if revision == state.asked { state.lastReload = (true, time.nowMs) }
        }
    }

    /// Notes that a configuration did not come up.
    func noteFailure() { state.withLock { $0.lastReload.isGood = false } }

    /// The configuration to go on with; nil where none was asked for.
    func takeAccepted() -> Config? {
        state.withLock { state in
            defer { state.accepted = nil }
            return state.accepted
        }
    }

    /// Begins a round of loops; it ends at once where a stop or another configuration was asked for before.
    func newRound(revision: Int) -> RoundEnd {
        let round = RoundEnd(control: self, revision: revision)
        let stops = state.withLock { state in
            state.round = round
            return state.isStopping || state.accepted != nil
        }
        if stops { round.end() }
        return round
    }

    func stop() {
        state.withLock { state in
            state.isStopping = true
            return state.round
        }?.end()
    }

    /// Reads the configuration again, and ends the round to go on with it.
    ///
    /// - Throws: what is wrong with it; the service goes on with the old one.
    func reload() throws {
        var config: Config
        let revision = state.withLock { state in
            state.asked += 1
            return state.asked
        }
        do {
            config = try Config.load(file: file, features: features, webFile: webFile)
            guard config.storage.path == storage else {
                throw StoreError(
                    code: .failed, path: "storage.path \(config.storage.path)",
                    reason: "the store stays where it is, in \(storage), until a restart")
            }
        } catch {
            noteFailure()
            throw error
        }
        config.revision = revision
        state.withLock { [config] state in
            state.accepted = config
            return state.round
        }?.end()
    }

    func reloadOrTell() {
        do {
            try reload()
        } catch {
            logger.error(
                "the configuration can't be reloaded, the old one stays", metadata: ["error": "\(error)"])
        }
    }
}

/// The service whose end ends all loops of a round.
final class RoundEnd: Service {
    let control: Control
    /// Of the round's configuration.
    private let revision: Int
    private let up = Atomic(false)
    private let stream: AsyncStream<Void>
    private let continuation: AsyncStream<Void>.Continuation

    init(control: Control, revision: Int) {
        self.control = control
        self.revision = revision
        (stream, continuation) = AsyncStream.makeStream()
    }

    func end() { continuation.yield() }

    /// Whether the round's API answered.
    var isUp: Bool { up.load(ordering: .acquiring) }

    /// Notes that the API answers, and with it that all loops have begun.
    func noteUp() {
        up.store(true, ordering: .releasing)
        control.noteSuccess(revision: revision)
    }

    func run() async throws {
        for await _ in stream.cancelOnGracefulShutdown() { return }
    }
}

/// Makes appended samples durable, twice a second, and from time to time moves them into blocks.
struct FlushLoop: Service {
    let store: Store
    let config: StorageConfig
    let time: any TimeSource
    let logger: Logger
    let watcher: Watcher
    let work: StoreWork
    /// A clock that only its differences matter of.
    let seconds: @Sendable () -> Double

    /// With the time that a flush takes, the second that a crash may lose.
    private static let intervalMs: Int64 = 500
    /// The journal is emptied when it holds as many samples: what a start reads back in about a second.
    private static let checkpointSamples = 16_000_000
    /// As long as Prometheus' blocks: longer ones compress little better.
    private static let checkpointMs: Int64 = 2 * 3_600_000
    /// Where series come and go, those that went leave the memory with a checkpoint: after so many new ones, and a fifth of
    /// all, there is one each quarter of an hour.
    private static let checkpointSeries = 20_000
    private static let churnCheckpointMs: Int64 = 15 * 60_000
    private static let retentionMs: Int64 = 3_600_000

    func run() async throws {
        // What the process before this one left in the journal is moved at once.
        var lastCheckpointMs = store.samplesOutsideBlocks > 0 ? 0 : time.nowMs
        var lastRetentionMs = Int64.min
        var problem = ""
        while !Task.isShuttingDownGracefully && !Task.isCancelled {
            let nowMs = time.nowMs
            do {
                try timed(.flush) { try store.flush() }
                let sinceMs = nowMs - lastCheckpointMs
                if store.samplesOutsideBlocks > FlushLoop.checkpointSamples || sinceMs > FlushLoop.checkpointMs
                    || sinceMs > FlushLoop.churnCheckpointMs && seriesComeAndGo
                {
                    lastCheckpointMs = nowMs
                    try timed(.checkpoint) { try store.checkpoint() }
                }
                if nowMs - max(lastRetentionMs, 0) > FlushLoop.retentionMs {
                    lastRetentionMs = nowMs
                    let baseline = await watcher.baseline(atMs: nowMs)
                    try timed(.retention) {
                        // By the newest sample: after a start with a clock that is ahead all would be too old.
                        let newestMs = min(nowMs, try store.timeRange()?.upperBound ?? nowMs)
                        try store.deleteSamples(
                            beforeMs: newestMs - config.retentionMs, sparing: baseline, mostBytes: config.retentionBytes
                        )
                    }
                }
                if !problem.isEmpty { logger.notice("the store can be written again") }
                problem = ""
            } catch {
                if problem != "\(error)" { logger.error("store", metadata: ["error": "\(error)"]) }
                problem = "\(error)"
            }
            try? await time.sleep(untilMs: nowMs + FlushLoop.intervalMs)
        }
        do {
            try store.flush()
        } catch {
            // What could not be written stays in memory, for the next round or the last attempt at the end.
            logger.error("store", metadata: ["error": "\(error)"])
        }
    }

    private var seriesComeAndGo: Bool {
        let new = store.newSeries
        return new > FlushLoop.checkpointSeries && new > store.counters.seriesInMemory / 5
    }

    private func timed(_ kind: StoreWork.Kind, _ body: () throws -> Void) rethrows {
        let start = seconds()
        try body()
        work.add(seconds() - start, to: kind)
    }
}

/// How often the store was written, and how long that took.
final class StoreWork: Sendable {
    enum Kind { case flush, checkpoint, retention }

    struct Total {
        var count = 0
        var seconds = 0.0
    }

    private let totals = Mutex<[Kind: Total]>([:])

    subscript(kind: Kind) -> Total { totals.withLock { $0[kind] ?? Total() } }

    func add(_ seconds: Double, to kind: Kind) {
        totals.withLock { totals in
            totals[kind, default: Total()].count += 1
            totals[kind, default: Total()].seconds += seconds
        }
    }
}

/// Gives the jobs to those who scrape them, and their discoveries a task each.
struct DiscoveryService: Service {
    let jobs: [JobConfig]
    let manager: ScrapeManager
    let context: DiscoveryContext

    func run() async throws {
        manager.apply(jobs.map(\.job))
        await cancelWhenGracefulShutdown {
            await withTaskGroup(of: Void.self) { group in
                for job in jobs {
                    for (number, discovery) in job.discoveries.enumerated() {
                        let name = job.job.name
                        group.addTask {
                            await discovery.run(context) { [manager] groups, isWhole in
                                manager.update(name, discovery: number, groups, isWhole: isWhole)
                            }
                        }
                    }
                }
                // Without discoveries there is nothing to wait for, and yet the service must not end; nor where one can't
                // begin.
                group.addTask { [time = context.time] in try? await time.sleep(untilMs: .max / 2) }
            }
        }
    }
}

/// Follows the logs and lets the clock strike.
struct WatchLoop: Service {
    let watcher: Watcher
    let config: Config
    let time: any TimeSource
    let logger: Logger

    private static let pollMs: Int64 = 500

    func run() async throws {
        var nextTickMs = time.nowMs
        var problem = ""
        while !Task.isShuttingDownGracefully && !Task.isCancelled {
            let nowMs = time.nowMs
            do {
                try await watcher.pollLogs(atMs: nowMs)
                if nowMs >= nextTickMs {
                    nextTickMs = max(nextTickMs + config.evaluationIntervalMs, nowMs)
                    try await watcher.tick(atMs: nowMs)
                } else {
                    try await watcher.tickRules(atMs: nowMs)
                }
                problem = ""
            } catch {
                if problem != "\(error)" { logger.error("watch", metadata: ["error": "\(error)"]) }
                problem = "\(error)"
            }
            try? await time.sleep(untilMs: nowMs + WatchLoop.pollMs)
        }
    }
}

/// Brings messages to their receivers, apart from all else: a receiver that hangs holds nobody up.
struct DeliveryLoop: Service {
    let delivery: Delivery
    let work: DeliveryWork
    let time: any TimeSource
    let logger: Logger

    private static let pollMs: Int64 = 500
    /// While the database can't be written no message leaves the queue, and each attempt sends it again: the attempts get
    /// rarer, up to this.
    private static let maxPauseMs: Int64 = 60_000

    func run() async throws {
        var failures = 0
        while !Task.isShuttingDownGracefully && !Task.isCancelled {
            let nowMs = time.nowMs
            do {
                // A receiver that hangs holds up no reload: what is under way is sent again.
                work.add(try await cancelWhenGracefulShutdown { try await delivery.deliver(atMs: nowMs) })
                failures = 0
            } catch {
                failures += 1
                logger.error("delivery", metadata: ["error": "\(error)"])
            }
            let pauseMs = min(DeliveryLoop.maxPauseMs, DeliveryLoop.pollMs << Int64(min(failures, 10)))
            await cancelWhenGracefulShutdown { [time] in try? await time.sleep(untilMs: nowMs + pauseMs) }
        }
    }
}

/// What became of the messages since the start.
final class DeliveryWork: Sendable {
    private let sum = Mutex(Delivery.Result())

    var total: Delivery.Result { sum.withLock { $0 } }

    func add(_ result: Delivery.Result) { sum.withLock { $0 += result } }
}
