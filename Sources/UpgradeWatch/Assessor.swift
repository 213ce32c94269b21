import Cluster
import Comparison
import Foundation
import LogWatch
import Series
import Storage
import StrictYAML

/// Makes assessments from what is stored: for alerts, the API and reports alike.
package struct Assessor: Sendable {
    let cluster: String
    let upgradeConfig: UpgradeConfig
    let signals: [Signal]
    let source: any SeriesSource
    let state: StateDatabase

    /// Assesses an upgrade at a time.
    ///
    /// - Parameters:
    ///   - accountsForMetrics: whether every metric that is gone is accounted for.
    ///   - batch: only what went over with it is judged; nil: with any.
    ///   - mostNodeMinutes: how much is read at most, as in ``ComparisonInput``.
    ///   - tables: what earlier calls read.
    /// - Throws: an error of the store.
    package func assess(
        _ upgrade: Upgrade?, atMs: Int64, accountsForMetrics: Bool = true, batch: Int? = nil,
        mostNodeMinutes: Int64? = nil, tables: inout ComparisonTables
    ) throws -> Assessment {
        let state = self.state
        var assessment = try Comparison.assess(
            ComparisonInput(
                cluster: cluster, source: source, upgrade: upgrade, nowMs: atMs, baselineMs: upgradeConfig.baselineMs,
                soakMs: upgradeConfig.soakMs, signals: signals,
                ledger: upgrade == nil ? [] : try state.cluster.ledger(fromMs: .min, throughMs: atMs),
                accountsForMetrics: accountsForMetrics, batch: batch, mostNodeMinutes: mostNodeMinutes,
                logEvidence: { matchers in
                    try state.logs.evidence(matchers).map { ($0.labels, Assessor.evidence($0.labels, $0.evidence)) }
                }), tables: &tables)
        if let upgrade { assessment.history = try state.verdicts(upgrade: upgrade.id, throughMs: atMs) }
        return assessment
    }

    private static func evidence(_ labels: Labels, _ lines: LogEvidence) -> Evidence {
        let isAudit = labels.name == LogTally.auditMetric
        let first = lines.lines.first?.text ?? ""
        let place = isAudit ? "" : "\(labels["node"] ?? labels["component"] ?? ""): "
        return Evidence(
            kind: isAudit ? .audit : .log, text: place + first, count: lines.count, firstMs: lines.firstMs,
            lastMs: lines.lastMs)
    }
}

/// What a report needs of a store that it did not fill: read once, for one answer.
package struct StoredWatch {
    package let store: Store
    package let assessor: Assessor
    package let upgrades: [Upgrade]
    /// The time of the newest data.
    package let nowMs: Int64
    private let state: StateDatabase

    /// Opens a store for reading.
    ///
    /// - Parameter joining: what is read instead of the store alone.
    /// - Throws: `StoreError`.
    package init(directory: String, joining: (Store) -> any SeriesSource = { $0 }) throws {
        store = try Store(directory: directory, readOnly: true)
        let source = joining(store)
        state = try StateDatabase(directory: directory, readOnly: true)
        let path = directory + "/" + StateDatabase.fileName
        guard let cluster = try state.setting("cluster"), let signals = try state.setting("signals"),
            let upgradeText = try state.setting("upgrade")
        else { throw StoreError(code: .unreadable, path: path, reason: "the settings of the watch are missing") }
        let upgradeConfig = try JSONDecoder().decode(UpgradeConfig.self, from: Data(upgradeText.utf8))
        nowMs = try source.timeRange()?.upperBound ?? 0
        assessor = Assessor(
            cluster: cluster, upgradeConfig: upgradeConfig,
            signals: try Signal.load(YAMLDocument(text: signals, file: path)), source: source, state: state)
        var tracker = try Watcher.storedTracker(state) ?? UpgradeTracker(batchGapMs: upgradeConfig.batchGapMs)
        let marks = try state.cluster.marks()
        try tracker.follow(
            upgradeConfig.detects ? source : nil, marks: marks, throughMs: max(nowMs, marks.map(\.atMs).max() ?? nowMs))
        upgrades = tracker.upgrades
    }

    /// Assesses the upgrade with an id, the last one where there is no id.
    ///
    /// - Throws: ``UnknownUpgrade``; ``UnknownBatch``; an error of the store.
    package func assess(upgrade id: String?, batch: Int? = nil) throws -> Assessment {
        let upgrade = try UnknownUpgrade.find(id, in: upgrades)
        try UnknownBatch.check(batch, of: upgrade)
        var tables = ComparisonTables()
        return try assessor.assess(upgrade, atMs: nowMs, batch: batch, tables: &tables)
    }
}

/// An upgrade's id that is not known.
package struct UnknownUpgrade: Error, CustomStringConvertible {
    package var id: String
    package var known: [String]

    package var description: String {
        "no upgrade with the id \(id); known: \(known.isEmpty ? "none" : known.joined(separator: ", "))"
    }

    /// The upgrade with an id, or the last one where the id is nil.
    static func find(_ id: String?, in upgrades: [Upgrade]) throws -> Upgrade? {
        guard let id else { return upgrades.last }
        if let found = upgrades.first(where: { $0.id == id }) { return found }
        throw UnknownUpgrade(id: id, known: upgrades.map(\.id))
    }
}

/// A batch that an upgrade does not have, or not yet.
package struct UnknownBatch: Error, CustomStringConvertible {
    package var batch: Int
    package var known: [Int]

    package var description: String {
        let list = known.map { "\($0)" }.joined(separator: ", ")
        return "the upgrade has no batch \(batch) so far; it has \(known.isEmpty ? "none" : list)"
    }

    /// - Throws: ``UnknownBatch``.
    static func check(_ batch: Int?, of upgrade: Upgrade?) throws {
        guard let batch else { return }
        let known = Set(upgrade?.steps.map(\.batch) ?? []).sorted()
        guard known.contains(batch) else { throw UnknownBatch(batch: batch, known: known) }
    }
}
