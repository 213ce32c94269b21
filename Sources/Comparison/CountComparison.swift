import Cluster
import Series
import Statistics

/// Compares a signal of counts in all its parts: all together, each split, each batch, and what the control plane's step
/// did to all nodes alike.
///
/// The signal's level is shared by the parts. Splits that have too few events for a finding can't give a false one and
/// need no share (Tarone 1990).
struct CountComparison {
    private let comparer: SignalComparer
    private let signal: Signal
    private let table: SignalTable
    private let cells: [Int: [SignalTable.Cell]]
    private var cohorts: Cohorts
    private let watched: [String: [Float]]
    /// The batches that are judged by themselves.
    private let batches: [Int]
    /// What the control plane's own step did to all nodes alike, nodes compared with each other do not show; nil where
    /// the signal is of none, or the upgrade has no such step.
    private let controlPlane: Cohorts?
    private let parts: Int
    /// The level of each part.
    private let level: Double

    private var findings: [Finding] = []
    private var isWorse = false
    /// Whether something is worse that began before it went over.
    private var hasBegunBefore = false
    /// What is said of what began with no step.
    private var stray: String?
    /// The least level at which any part of the test says worse: each has its share.
    private var pValue = 1.0

    /// What a batch had longer ago than this before its step was over by then.
    private static let illnessMs: Int64 = 10_800_000
    /// Larger p-values reject nothing that anybody asks for.
    private static let smallP = 0.05

    /// Batches whose nodes got ill while they waited are left out: they are so for a reason of their own, also when they
    /// have the new version, and the others tell.
    ///
    /// - Parameter cells: the table's, by split.
    /// - Throws: the source's error.
    static func compare(
        _ comparer: SignalComparer, _ signal: Signal, _ table: SignalTable, _ cells: [Int: [SignalTable.Cell]],
        _ cohorts: Cohorts
    ) throws -> (SignalResult, [Finding]) {
        let whole = CountComparison(comparer, signal, table, cells, cohorts)
        var comparison = whole
        let result = try comparison.compare()
        guard cohorts.isStaggered, result.status == .worse || result.pValue ?? 1 < smallP else {
            return (result, comparison.findings)
        }
        let ill = try cohorts.batches.compactMap { batch in
            try whole.illness(of: batch).map { (batch: batch, finding: $0) }
        }
        guard !ill.isEmpty else { return (result, comparison.findings) }
        var others = whole
        others.cohorts.unjudged = Set(ill.map(\.batch))
        return (try others.compare(), others.findings + ill.map(\.finding))
    }

    private init(
        _ comparer: SignalComparer, _ signal: Signal, _ table: SignalTable, _ cells: [Int: [SignalTable.Cell]],
        _ cohorts: Cohorts
    ) {
        self.comparer = comparer
        self.signal = signal
        self.table = table
        self.cells = cells
        self.cohorts = cohorts
        watched = signal.kind.isInTime ? CountComparison.exposure(comparer, table, cohorts) : [:]
        let batches = comparer.time.batch == nil && cohorts.isStaggered ? cohorts.batches : []
        self.batches = batches.count > 1 ? batches : []
        controlPlane =
            signal.component.isEmpty && cohorts.isStaggered
            ? Cohorts(controlPlane: comparer.upgrade, atMs: comparer.windows.nowMs) : nil
        parts = [true, cells.count > 1, batches.count > 1, controlPlane != nil].count { $0 }
        level = (1 - Comparison.confidence) * comparer.share / Double(parts)
    }

    /// The seconds of each unit by bin; of a signal with a load, as many as its mean load before would have taken.
    private static func exposure(
        _ comparer: SignalComparer, _ table: SignalTable, _ cohorts: Cohorts
    ) -> [String: [Float]] {
        let nowMs = comparer.windows.nowMs
        let seconds = comparer.tables.exposure(of: table, cohorts: cohorts, throughMs: nowMs)
        let load = comparer.tables.load(of: table, throughMs: nowMs)
        let before = load.prefix(table.bins.complete(atMs: comparer.windows.baseline.throughMs)).filter { $0 > 0 }
        guard !before.isEmpty else { return seconds }
        let mean = before.reduce(0, +) / Double(before.count)
        return seconds.mapValues { column in
            column.indices.map { index in
                let isKnown = index < load.count && load[index] > 0
                return isKnown ? column[index] * Float(load[index] / mean) : column[index]
            }
        }
    }

    private func judge(_ cohorts: Cohorts, _ time: JudgedTime) -> CountJudge {
        CountJudge(table: table, cohorts: cohorts, time: time, watched: watched)
    }

    // MARK: Parts

    private mutating func compare() throws -> SignalResult {
        let judge = self.judge(cohorts, comparer.time)
        let events = cells.mapValues { judge.counts.events($0) }
        let hours = max(1, comparer.windows.baseline.seconds / 3600)
        let old =
            signal.preexistingEvents.map { least in
                // The sum of all is known: where that is less, no unit has as many.
                Set(
                    cells.filter { split, cells in
                        events[split]?.before ?? 0 >= least * hours && isOld(cells, judge, least: least * hours)
                    }.keys)
            } ?? []
        let quiet = cells.filter { !old.contains($0.key) }.flatMap(\.value)
        let together = CountComparison.merged(old.isEmpty ? table.cells : quiet)
        let total = judge.judge(together, level: level)
        // What befell all alike at a time of its own makes no part of them worse: parts are judged without it.
        var time = comparer.time
        if signal.kind.isInTime, parts > 1 { time.skipped = total.stray }
        try compareSplits(old, events, time)
        // What is spread thin over many splits shows only in all together. Of requests the mix would show as well.
        let countsTogether = signal.kind.isInTime || table.splits.count == 1
        if countsTogether {
            weigh(total, among: 1)
            if total.isStray { stray = stray ?? total.needs }
        }
        // A single split was told already.
        if signal.kind.isInTime, table.splits.count > 1 {
            if total.status == .worse, !isWorse { try tell(Labels(), total) } else { try tellPassed(Labels(), total) }
        }
        // Each batch by itself: what ails a small one is thinned out among all that went over.
        for batch in batches where !isWorse {
            time.batch = batch
            let outcome = self.judge(cohorts, time).judge(
                together, level: level / Double(batches.count), seeksWorse: true)
            if countsTogether { weigh(outcome, among: batches.count) }
            if outcome.isStray { stray = stray ?? outcome.needs }
            if outcome.status == .worse { try tell(Labels(), outcome) }
        }
        return result(of: total)
    }

    /// Whether a split was in trouble before the upgrade: most of its events were of units that had so many each.
    ///
    /// The few that each of many units has are no trouble, however many they are together.
    private func isOld(_ cells: [SignalTable.Cell], _ judge: CountJudge, least: Double) -> Bool {
        let events = cells.map { judge.counts.events([$0]).before }
        let troubled = events.filter { $0 >= least }.reduce(0, +)
        return troubled > 0 && 2 * troubled >= events.reduce(0, +)
    }

    /// - Parameters:
    ///   - old: the splits that were in trouble before the upgrade.
    ///   - events: before and after, by split.
    private mutating func compareSplits(
        _ old: Set<Int>, _ events: [Int: (before: Double, after: Double)], _ time: JudgedTime
    ) throws {
        let judge = self.judge(cohorts, time)
        let judgeOfAll = controlPlane.map { self.judge($0, time) }
        let possible =
            cells.count > 1
            ? cells.values.count { cells in
                judge.canBeWorse(cells, level: level) || judgeOfAll?.canBeWorse(cells, level: level) ?? false
            } : 1
        let each = level / Double(max(1, possible))
        for (split, cells) in cells.sorted(by: { table.splits[$0.key] < table.splits[$1.key] }) {
            let isOld = old.contains(split)
            let isOldTrouble = isOld && events[split]?.after ?? 0 > 0
            var outcome = judge.judge(cells, level: each, seeksWorse: !isOldTrouble)
            if !isOld {
                weigh(outcome, among: self.cells.count)
                if outcome.isStray { stray = stray ?? outcome.needs }
            }
            if outcome.status != .worse, let judgeOfAll {
                let other = judgeOfAll.judge(cells, level: each, seeksWorse: true)
                if !isOld { weigh(other, among: self.cells.count) }
                if other.status == .worse { outcome = other }
            }
            if outcome.status == .worse || isOldTrouble {
                try tell(table.splits[split], outcome, isOld: isOld)
            } else {
                try tellPassed(table.splits[split], outcome)
            }
        }
    }

    private mutating func weigh(_ outcome: Outcome, among count: Int) {
        guard let p = outcome.pValue, !outcome.beganBefore else { return }
        pValue = min(pValue, p * Double(count * parts))
    }

    private mutating func tell(_ split: Labels, _ outcome: Outcome, isOld: Bool = false) throws {
        let isPreexisting = isOld || outcome.beganBefore
        if !isPreexisting { isWorse = true }
        if !isOld, outcome.beganBefore { hasBegunBefore = true }
        findings.append(try comparer.finding(signal, split, outcome, isPreexisting: isPreexisting, isOld: isOld))
    }

    /// What was worse for a time and is over fails nothing: it is said.
    private mutating func tellPassed(_ split: Labels, _ outcome: Outcome) throws {
        guard let passed = outcome.passed, !outcome.beganBefore else { return }
        var then = outcome
        then.after = passed.side
        then.exposureAfter = passed.seen
        var finding = try comparer.finding(signal, split, then, isPreexisting: false, isOld: false)
        if finding.severity == .critical { finding.severity = .warning }
        finding.effect = nil
        finding.summary += "; it was over at \(TimeFormat.rfc3339(ms: passed.throughMs / 60_000 * 60_000))"
        if outcome.stray != nil {
            finding.cause = FindingCause(
                kind: .unknown, step: nil, explanation: "nothing was upgraded when it began, and it passed")
            finding.scope.batch = nil
        }
        findings.append(finding)
    }

    private func result(of total: Outcome) -> SignalResult {
        var result = SignalResult(signal: signal, total)
        result.pValue = total.pValue == nil && pValue == 1 ? nil : pValue
        if isWorse {
            result.status = .worse
            if let first = findings.first(where: \.failsUpgrade), table.splits.count == 1 {
                result.effect = first.effect
            }
        } else if let stray {
            result.status = .inconclusive
            result.needs = stray
        } else if result.status == .worse || hasBegunBefore && result.status == .inconclusive {
            // No split is worse by itself, or only what began before: the sum blames nobody.
            result.status = .ok
            result.needs = nil
        }
        return result
    }

    /// What a batch had more than before while it waited; nil where it had not.
    private func illness(of batch: Int) throws -> Finding? {
        let isOfBatch = { (unit: String) in cohorts.change(of: unit)?.batch == batch }
        let judge = CountJudge(
            table: table, cohorts: cohorts, time: comparer.time, watched: watched.filter { isOfBatch($0.key) })
        let cells = CountComparison.merged(table.cells.filter { isOfBatch(table.units[$0.unit]) })
        guard let firstMs = comparer.upgrade.steps.filter({ $0.isNode && $0.batch == batch }).map(\.atMs).min(),
            let outcome = judge.illness(cells, fromMs: firstMs - CountComparison.illnessMs)
        else { return nil }
        var finding = try comparer.finding(signal, Labels(), outcome, isPreexisting: true, isOld: false)
        finding.scope.batch = batch
        finding.summary += ": nodes of batch \(batch), which is left out"
        return finding
    }

    /// The cells of all splits as one, by unit.
    private static func merged(_ cells: [SignalTable.Cell]) -> [SignalTable.Cell] {
        var byUnit: [Int: SignalTable.Cell] = [:]
        func add(_ column: inout [Float], _ other: [Float]) {
            if column.count < other.count { column += [Float](repeating: 0, count: other.count - column.count) }
            for index in other.indices { column[index] += other[index] }
        }
        for cell in cells {
            guard var known = byUnit.removeValue(forKey: cell.unit) else {
                byUnit[cell.unit] = cell
                continue
            }
            add(&known.sums, cell.sums)
            add(&known.weights, cell.weights)
            byUnit[cell.unit] = known
        }
        return byUnit.values.sorted { $0.unit < $1.unit }
    }
}
