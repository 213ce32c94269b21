import Alerting
import Cluster
import Comparison
import Foundation
import LogWatch
import Logging
import PromQL
import Report
import Series
import Storage
import StrictYAML

/// The pipeline behind the store: counts logs and objects, finds upgrades, evaluates rules, compares, alerts.
///
/// The same for a live service and for a replay: whoever drives it gives the lines, the objects and the time.
package actor Watcher {
    private let config: Config
    private let store: Store
    /// What is read: the store's series, and others' where there are such.
    private let source: any SeriesSource
    private let recent: any SeriesSource
    private let externalURL: String
    private let state: StateDatabase
    private let logger: Logger
    private var tally: LogTally
    private var observer: ClusterObserver
    private var tracker: UpgradeTracker
    private var rules: RuleEvaluator
    private var dispatcher: Dispatcher?
    private var findingAlerts = FindingAlerts()
    private var lastComparedMs = Int64.min
    private var comparedUpgrade: Upgrade?
    /// Sources whose clocks were told to be ahead.
    private var clocksTold: Set<LogSource> = []
    private var followers: [FileFollower]
    private var followed: [LogSource]
    private var savedTracker: [Upgrade] = []
    private var ticks = 0
    private var counters = WatcherCounters()

    /// Takes up where the process before stopped.
    ///
    /// - Parameters:
    ///   - source: what is read instead of the store alone.
    ///   - recent: what rules read instead of it.
    ///   - externalURL: where people reach the service; nil: where it listens.
    ///   - seconds: a clock that only goes forward, for how long evaluations take; a replay has none.
    /// - Throws: an error of the database.
    package init(
        config: Config, store: Store, source: (any SeriesSource)? = nil, recent: (any SeriesSource)? = nil,
        state: StateDatabase, logger: Logger, externalURL: String? = nil,
        seconds: @escaping @Sendable () -> Double = { 0 }
    ) throws {
        self.externalURL = externalURL ?? config.web.url
        self.config = config
        self.store = store
        self.source = source ?? store
        self.recent = recent ?? source ?? store
        self.state = state
        self.logger = logger
        tally = LogTally(rules: config.logRules)
        let stored = try state.logs.counters()
        tally.restore(counters: stored.counters, evidence: stored.evidence)
        observer = ClusterObserver(startMs: try state.setting("watched_since").flatMap { Int64($0) })
        tracker = try Watcher.storedTracker(state) ?? UpgradeTracker(batchGapMs: config.upgrade.batchGapMs)
        rules = RuleEvaluator(
            groups: config.ruleGroups, intervalMs: config.evaluationIntervalMs,
            engine: QueryEngine(features: config.features),
            externalLabels: config.externalLabels, externalURL: self.externalURL, seconds: seconds)
        rules.restore(try state.alerts.states())
        if let route = config.route {
            var dispatcher = Dispatcher(route: route)
            dispatcher.restore(try state.alerts.groups())
            self.dispatcher = dispatcher
        }
        if let text = try state.setting("finding_alerts") {
            findingAlerts = try JSONDecoder().decode(FindingAlerts.self, from: Data(text.utf8))
        }
        followers = []
        followed = []
        try state.set("cluster", config.cluster)
        try state.set("signals", config.signalsText)
        try state.set("upgrade", String(decoding: JSONEncoder().encode(config.upgrade), as: UTF8.self))
    }

    /// The tracker's state as the last process left it.
    static func storedTracker(_ state: StateDatabase) throws -> UpgradeTracker? {
        try state.setting("tracker").map { try JSONDecoder().decode(UpgradeTracker.self, from: Data($0.utf8)) }
    }

    /// What the comparisons of the last upgrade have read.
    private var tables = ComparisonTables()

    /// Makes assessments of what is stored.
    private var assessor: Assessor {
        Assessor(
            cluster: config.cluster, upgradeConfig: config.upgrade, signals: config.signals, source: source,
            state: state
        )
    }

    // MARK: What comes in

    /// Takes in a line of a log of a replay.
    package func observe(line: [UInt8], of source: LogSource, severity: LogSeverity, atMs: Int64) {
        line.withUnsafeBytes { observe($0, of: source, severity: severity, atMs: atMs) }
    }

    private func observe(
        _ line: UnsafeRawBufferPointer, of source: LogSource, severity: LogSeverity, atMs: Int64
    ) {
        let line = CRILine(line)?.message ?? line
        tally.add(line, of: source, severity: severity, atMs: atMs)
        let component = source.format == .audit ? "audit" : source.component
        observer.observe(line: line, component: component, node: source.node, atMs: atMs)
    }

    /// Takes in an observation of the Kubernetes API.
    package func observe(_ observation: ObjectObservation, atMs: Int64) {
        observer.observe(observation, atMs: atMs)
    }

    /// Clocks differ by less.
    private static let logAheadMs: Int64 = 600_000

    /// Reads what came to the followed files, and writes counters and positions down together.
    ///
    /// - Throws: an error of the database; the lines are read again then.
    package func pollLogs(atMs: Int64) throws {
        try findLogFiles()
        for index in followers.indices {
            let source = followed[index]
            let before = followers[index].problem
            var lastMs = atMs
            _ = followers[index].poll { line in
                let head = LogLineHead(line, format: source.format, nearMs: atMs, timeZone: source.timeZone)
                lastMs = head.timestampMs ?? lastMs
                observe(line, of: source, severity: head.severity, atMs: lastMs)
                counters.logLines += 1
            }
            if let problem = followers[index].problem, problem != before {
                logger.warning("log source", metadata: ["error": "\(problem)"])
            }
            if lastMs > atMs + Watcher.logAheadMs, clocksTold.insert(source).inserted {
                let reason = "its lines are of a time that is yet to come: name the machine's zone with timezone"
                logger.warning(
                    "log source", metadata: ["error": "\(followers[index].path): \(reason), as in Europe/Berlin"])
            }
            let lost = followers[index].takeGaps()
            if lost > 0 {
                counters.logGaps += lost
                let reason = "it was rotated, and what came after our last look is in no file that can be read"
                logger.warning("log source", metadata: ["error": "\(followers[index].path): \(reason)"])
            }
        }
        try commitLogs(atMs: atMs)
    }

    /// Writes counters and positions down together; what could not be written goes with the next call.
    private func commitLogs(atMs: Int64) throws {
        var positions: [String: LogPosition] = [:]
        for follower in followers {
            if let position = follower.position { positions[follower.path] = position }
        }
        // A rotated file is passed: should it be met again after a restart, it is not new.
        for path in rotated { positions[path] = LogPosition.end(ofFile: path) }
        // What the lines told is written before the lines count as read.
        try keepLedger(atMs: atMs)
        positions = positions.filter { $0.value != committed[$0.key] }
        try state.logs.commit(tally.changes, positions: positions)
        tally.forgetChanges()
        committed.merge(positions) { $1 }
        for position in positions.values { knownFiles.insert(position.inode) }
    }

    /// Begins to follow files that have come to match a source's paths.
    private func findLogFiles() throws {
        if storedPositions == nil {
            storedPositions = try state.logs.positions()
            committed = storedPositions ?? [:]
            knownFiles = Set(committed.values.map(\.inode))
        }
        for entry in config.logSources {
            for pattern in entry.paths {
                let isPlain = !pattern.contains { "*?[".contains($0) }
                let found = isPlain ? [pattern] : Glob.expand(pattern)
                for path in found where !rotated.contains(path) && !followers.contains(where: { $0.path == path }) {
                    let isKnown = storedPositions?[path] != nil
                    if !isPlain, !isKnown, let end = LogPosition.end(ofFile: path), isRotated(end) {
                        // The new name of a file that is followed under its old one.
                        rotated.insert(path)
                        continue
                    }
                    followers.append(FileFollower(path: path, position: storedPositions?[path]))
                    followed.append(entry.source)
                }
            }
        }
        let gone = rotated.filter { !FileManager.default.fileExists(atPath: $0) }
        rotated.subtract(gone)
    }

    /// Whether a file is one that was followed before, by its number or as a copy.
    private func isRotated(_ file: LogPosition) -> Bool {
        knownFiles.contains(file.inode)
            || followers.contains { follower in
                guard let head = follower.position?.head, !head.isEmpty else { return false }
                return file.head.starts(with: head)
            }
    }

    private var committed: [String: LogPosition] = [:]
    private var storedPositions: [String: LogPosition]?
    /// The numbers of all files that were followed.
    private var knownFiles: Set<UInt64> = []
    /// Files that match a source's paths and are only the new names of what was followed.
    private var rotated: Set<String> = []

    // MARK: The clock strikes

    /// Does what is due at a time: samples of counters, upgrades, rules, comparison, alerts.
    ///
    /// - Throws: an error of the store or the database.
    package func tick(atMs: Int64) throws {
        ticks += 1
        try commitLogs(atMs: atMs)
        tally.emit(to: store, atMs: atMs)
        // A source that can't be read keeps from what needs it, and nothing else.
        var problem: (any Error)?
        func trying(_ body: () throws -> Void) {
            do { try body() } catch { problem = problem ?? error }
        }
        trying { try observer.follow(store, atMs: atMs) }
        observer.emit(to: store, atMs: atMs)
        let marks = try state.cluster.marks()
        trying { try tracker.follow(config.upgrade.detects ? source : nil, marks: marks, throughMs: atMs) }
        rules.evaluateDue(atMs: atMs, source: recent, sink: store)
        trying { try compare(atMs: atMs) }
        try dispatch(atMs: atMs)
        if tracker.upgrades != savedTracker || ticks % 40 == 1 {
            try state.set("tracker", String(decoding: JSONEncoder().encode(tracker), as: UTF8.self))
            savedTracker = tracker.upgrades
        }
        if let problem { throw problem }
    }

    /// Evaluates the rule groups whose time has come between two ticks.
    ///
    /// - Throws: an error of the database.
    package func tickRules(atMs: Int64) throws {
        if rules.evaluateDue(atMs: atMs, source: recent, sink: store) { try dispatch(atMs: atMs) }
    }

    private func keepLedger(atMs: Int64, isLast: Bool = false) throws {
        if !isWatchedSinceKept, let since = observer.watchedSinceMs {
            try state.set("watched_since", String(since))
            isWatchedSinceKept = true
        }
        let rows = observer.takeEntries(atMs: atMs, isLast: isLast)
        observer.added(try state.cluster.write(new: rows.new, changed: rows.changed))
    }

    private var isWatchedSinceKept = false

    private func compare(atMs: Int64) throws {
        guard let upgrade = tracker.upgrades.last, atMs - max(lastComparedMs, 0) >= config.upgrade.compareIntervalMs
        else { return }
        // Who still reads, after a start shortly before the soak's end, owes its last verdict.
        if upgrade.phase(atMs: atMs, soakMs: config.upgrade.soakMs) == .done, !isReading {
            guard !findingAlerts.isEmpty else { return }
            findingAlerts.end(atMs: atMs)
            try state.set("finding_alerts", String(decoding: JSONEncoder().encode(findingAlerts), as: UTF8.self))
            return
        }
        // A long history of many nodes is read over several ticks: none of them is held up, and until then alerts stay.
        let assessment = try assessor.assess(
            upgrade, atMs: atMs, accountsForMetrics: false, mostNodeMinutes: ComparisonTables.portion, tables: &tables)
        isReading = assessment.readThroughMs != nil
        guard !isReading else { return }
        lastComparedMs = atMs
        findingAlerts.update(assessment, atMs: atMs)
        if assessment.history.last?.verdict != assessment.verdict {
            // With its whole evidence: what was there at this time may have passed when somebody asks.
            let whole = try assessor.assess(upgrade, atMs: atMs, tables: &tables)
            try state.add(
                StoredVerdict(atMs: atMs, verdict: whole.verdict), upgrade: upgrade.id,
                report: try JSONReport(whole).text())
        }
        counters.comparisons += 1
        try state.set("finding_alerts", String(decoding: JSONEncoder().encode(findingAlerts), as: UTF8.self))
    }

    /// Whether the history of the last upgrade is not read whole yet.
    private var isReading = false

    private func dispatch(atMs: Int64) throws {
        let states = rules.states.flatMap { key, states in
            states.values.map { state in (key: key, name: name(of: key), state: state) }
        }
        var messages: [(receiver: String, webhook: Int, payload: WebhookPayload)] = []
        let notifications = dispatcher?.dispatch(alerts, atMs: atMs) ?? []
        for notification in notifications {
            guard let receiver = config.receivers.first(where: { $0.name == notification.receiver }) else { continue }
            for (index, webhook) in receiver.webhooks.enumerated() {
                if let payload = WebhookPayload(notification, webhook: webhook, externalURL: externalURL) {
                    messages.append((receiver.name, index, payload))
                }
            }
        }
        counters.messagesDropped += try state.alerts.commit(
            states: states, groups: dispatcher?.groups ?? [:], messages: messages, atMs: atMs)
        counters.messagesQueued += messages.count
    }

    private func name(of key: RuleEvaluator.RuleKey) -> String {
        rules.groups.first { $0.file == key.file && $0.name == key.group }?.rules[key.index].name ?? ""
    }

    /// All alerts as they are sent, those that fire and those that ended lately: with the cluster's name and the external
    /// labels.
    var alerts: [Alert] {
        let confirmedMs = lastComparedMs == .min ? nil : lastComparedMs
        let validUntilMs = confirmedMs.map {
            AlertSchedule.validUntilMs(confirmedMs: $0, intervalMs: config.upgrade.compareIntervalMs)
        }
        let findings = findingAlerts.alerts(externalURL: externalURL, validUntilMs: validUntilMs)
        return (rules.alerts + findings).map { alert in
            var alert = alert
            for label in config.externalLabels.pairs where alert.labels[label.name] == nil {
                alert.labels[label.name] = label.value
            }
            if alert.labels["cluster"] == nil { alert.labels["cluster"] = config.cluster }
            return alert
        }
    }

    // MARK: What is asked

    /// The upgrades seen so far, oldest first.
    package var upgrades: [Upgrade] { tracker.upgrades }

    /// The assessment of an upgrade, the last one where the id is nil.
    ///
    /// - Parameter batch: only what went over with it is judged; nil: with any.
    /// - Throws: ``UnknownUpgrade``, ``UnknownBatch``, or an error of the store.
    package func assess(upgrade id: String?, batch: Int? = nil, atMs: Int64) throws -> Assessment {
        let upgrade = try UnknownUpgrade.find(id, in: tracker.upgrades)
        try UnknownBatch.check(batch, of: upgrade)
        // The tables are of the last upgrade; another's are made anew.
        guard upgrade == tracker.upgrades.last else {
            var others = ComparisonTables()
            return try assessor.assess(upgrade, atMs: atMs, batch: batch, tables: &others)
        }
        return try assessor.assess(
            upgrade, atMs: atMs, batch: batch, mostNodeMinutes: ComparisonTables.portion, tables: &tables)
    }

    /// The time that the last upgrade is compared with, while it goes on and until its soak is as old as samples get:
    /// retention spares it.
    package func baseline(atMs: Int64) -> ClosedRange<Int64>? {
        guard let upgrade = tracker.upgrades.last else { return nil }
        let soakedMs = upgrade.finishedMs.map { $0 + config.upgrade.soakMs + config.storage.retentionMs }
        guard soakedMs ?? .max > atMs else { return nil }
        return upgrade.startedMs - config.upgrade.baselineMs...upgrade.startedMs
    }

    /// The rules with the state of their alerts.
    package var ruleStatus: RuleEvaluator { rules }

    /// The alerts that are pending or firing, of rules and of findings.
    package var activeAlerts: [AlertState] {
        rules.states.values.flatMap { $0.values.filter { $0.state != .resolved } } + findingAlerts.states
    }

    package var statistics: WatcherCounters { counters }

    /// Writes down what a stop must not lose.
    package func finish(atMs: Int64) throws {
        try commitLogs(atMs: atMs)
        try keepLedger(atMs: atMs, isLast: true)
        try state.set("tracker", String(decoding: JSONEncoder().encode(tracker), as: UTF8.self))
    }
}

/// What the watcher has done since it was started.
package struct WatcherCounters: Sendable {
    package var logLines = 0
    /// Rotations after which lines may have been lost.
    package var logGaps = 0
    package var comparisons = 0
    package var messagesQueued = 0
    /// Given up because too many waited.
    package var messagesDropped = 0
}
