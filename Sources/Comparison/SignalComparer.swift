import Cluster
import PromQL
import Series
import Statistics

/// Compares signals one after another over the same times.
struct SignalComparer {
    let input: ComparisonInput
    let upgrade: Upgrade
    let windows: Windows
    /// nil where the upgrade's versions can't be read.
    let continuity: MetricContinuity?
    let tables: ComparisonTables
    /// Larger p-values reject nothing that anybody asks for.
    private static let smallP = 0.05
    /// The level of all signals together is shared by so many.
    private let share: Double

    init(
        input: ComparisonInput, upgrade: Upgrade, windows: Windows, continuity: MetricContinuity?,
        tables: ComparisonTables
    ) {
        self.input = input
        self.upgrade = upgrade
        self.windows = windows
        self.continuity = continuity
        self.tables = tables
        share = 1 / Double(max(1, input.signals.count(where: \.isCritical)))
    }

    func compare(_ signal: Signal) throws -> (SignalResult, [Finding]) {
        guard signal.versions.covers([upgrade.from, upgrade.to]) else {
            let needs = "it is of Kubernetes \(signal.versions.words)"
            return (SignalResult(signal: signal, status: .absent, needs: needs), [])
        }
        guard let table = tables.table(of: signal) else {
            return (SignalResult(signal: signal, status: .blind, needs: "no data of the signal"), [])
        }
        let cohorts = Cohorts(upgrade, component: signal.component, atMs: windows.nowMs)
        if let blind = try blindness(signal, table, cohorts) { return (blind, []) }
        var cells: [Int: [SignalTable.Cell]] = [:]
        for cell in table.cells { cells[cell.split, default: []].append(cell) }
        return try signal.countsEvents
            ? counts(signal, table, cells, cohorts) : levels(signal, table, cells, cohorts)
    }

    private var time: JudgedTime {
        JudgedTime(baseline: windows.baseline, nowMs: windows.nowMs, soakMs: input.soakMs, batch: input.batch)
    }

    // MARK: Missing data

    private func blindness(_ signal: Signal, _ table: SignalTable, _ cohorts: Cohorts) throws -> SignalResult? {
        let bins = table.bins
        var result = SignalResult(signal: signal, status: .blind)
        guard windows.baseline.seconds >= 120 else {
            result.needs = "there is no baseline: data from before the first step is missing"
            return result
        }
        guard let fromMs = cohorts.judgedFromMs(signal), windows.nowMs - fromMs >= 30_000 else {
            result.status = .inconclusive
            result.needs = "the time after the upgrade has only begun"
            return result
        }
        let lastOfBaseline = bins.index(of: windows.baseline.throughMs) ?? 0
        let first = bins.index(of: fromMs + 1) ?? 0
        let last = max(first, bins.index(of: windows.nowMs) ?? 0)
        func present(_ range: ClosedRange<Int>) -> Int {
            range.count { $0 < table.presence.count && table.presence[$0] }
        }
        let (before, now) = (present(0...lastOfBaseline), present(first...last))
        let name = signal.presence?.first { $0.name == Labels.metricName }?.value ?? signal.name
        if before > 0, now > 0 {
            // A unit that is gone takes its share with it.
            let complete = max(1, bins.complete(atMs: windows.nowMs) - first)
            let share = min(
                Double(present(first...last)) / Double(complete),
                tables.unitsLeft(signal, fromMs: fromMs, throughMs: windows.nowMs))
            let due = Double(before) / Double(lastOfBaseline + 1)
            guard complete >= 10, due >= Comparison.leastCoverage, share < Comparison.leastCoverage else { return nil }
            result.needs = "only \(Int(share * 100)) % of the data of \(name) since the upgrade is there"
            return result
        }
        switch signal.kind {
        case .gauge:
            if signal.isOptional, before == 0, now == 0 { result.status = .absent }
            result.needs = "no data of the signal"
            return result
        case .quantile:
            // Where a summary became a histogram, the means go on.
            let goesOn = table.cells.contains {
                table.units[$0.unit].isEmpty && $0.firstMs <= windows.baseline.throughMs && $0.lastMs > fromMs
            }
            if goesOn { return nil }
        default: break
        }
        if before > 0,
            tables.watched.answers(
                job: signal.component.isEmpty ? nil : signal.component, fromMs: fromMs, throughMs: windows.nowMs)
        {
            result.status = .changed
            result.needs = "\(name) is not exposed any more: it can't be compared across these versions"
            if let fate = continuity?.fate(of: MetricContinuity.family(of: name).name), fate.kind != .unknown {
                result.needs = "\(name) can't be compared: \(fate.explanation)"
            }
        } else if now > 0 {
            result.status = .changed
            result.needs = "\(name) was not exposed before the upgrade: there is nothing to compare with"
        } else {
            if signal.isOptional { result.status = .absent }
            let answers = tables.watched.answers(
                job: signal.component, fromMs: fromMs, throughMs: windows.nowMs)
            result.needs =
                !signal.component.isEmpty && answers
                ? "\(signal.component) does not expose \(name)"
                : "no data of \(name)\(SignalComparer.hint(name, signal.component))"
        }
        return result
    }

    /// Where the missing data of a metric would come from.
    private static func hint(_ name: String, _ component: String) -> String {
        if name.hasPrefix("upgrade_watch_audit") { return ": is the API server's audit log among the log sources?" }
        if name.hasPrefix("upgrade_watch_log") { return ": are logs among the log sources?" }
        if name.hasPrefix("upgrade_watch_") { return ": no Kubernetes objects were observed" }
        return component.isEmpty ? "" : ": is \(component) scraped?"
    }

    // MARK: Counts

    private func counts(
        _ signal: Signal, _ table: SignalTable, _ cells: [Int: [SignalTable.Cell]], _ cohorts: Cohorts
    ) throws -> (SignalResult, [Finding]) {
        let watched =
            signal.kind.isInTime ? tables.exposure(of: table, cohorts: cohorts, throughMs: windows.nowMs) : [:]
        let judged = try counts(signal, table, cells, cohorts, watched)
        guard cohorts.isStaggered, judged.0.status == .worse || judged.0.pValue ?? 1 < SignalComparer.smallP else {
            return judged
        }
        // Nodes that got ill while they waited are so for a reason of their own, also when they have the new version:
        // the others tell.
        let ill = try cohorts.batches.compactMap { batch in
            try illness(of: batch, signal, table, cohorts, watched).map { (batch: batch, finding: $0) }
        }
        guard !ill.isEmpty else { return judged }
        var others = cohorts
        others.unjudged = Set(ill.map(\.batch))
        let (result, findings) = try counts(signal, table, cells, others, watched)
        return (result, findings + ill.map(\.finding))
    }

    /// What a batch had more than before while it waited; nil where it had not.
    private func illness(
        of batch: Int, _ signal: Signal, _ table: SignalTable, _ cohorts: Cohorts, _ watched: [String: [Float]]
    ) throws -> Finding? {
        let isOfBatch = { (unit: String) in cohorts.change(of: unit)?.batch == batch }
        let judge = CountJudge(
            table: table, cohorts: cohorts, time: time, watched: watched.filter { isOfBatch($0.key) })
        let cells = SignalComparer.merged(table.cells.filter { isOfBatch(table.units[$0.unit]) })
        guard let outcome = judge.illness(cells) else { return nil }
        var finding = try finding(signal, Labels(), outcome, isPreexisting: true, isOld: false)
        finding.scope.batch = batch
        finding.summary += ": nodes of batch \(batch), which is left out"
        return finding
    }

    private func counts(
        _ signal: Signal, _ table: SignalTable, _ cells: [Int: [SignalTable.Cell]], _ cohorts: Cohorts,
        _ watched: [String: [Float]]
    ) throws -> (SignalResult, [Finding]) {
        let judge = CountJudge(table: table, cohorts: cohorts, time: time, watched: watched)
        // What the control plane's own step did to all nodes alike, nodes compared with each other do not show.
        let controlPlane = signal.component.isEmpty && cohorts.isStaggered ? Cohorts(controlPlane: upgrade) : nil
        let judgeOfAll = controlPlane.map { CountJudge(table: table, cohorts: $0, time: time, watched: watched) }
        // The level is shared by all together, the splits, the batches and the control plane's own step. Splits that have
        // too few events for a finding can't give a false one and need no share (Tarone 1990).
        let batches = time.batch == nil && cohorts.isStaggered ? cohorts.batches : []
        let parts = [true, cells.count > 1, batches.count > 1, judgeOfAll != nil].count { $0 }
        let all = (1 - Comparison.confidence) * share / Double(parts)
        let possible = cells.count > 1 ? cells.values.count { judge.canBeWorse($0, level: all) } : 1
        let level = all / Double(max(1, possible))
        var findings: [Finding] = []
        var worst = SignalResult.Status.ok
        var stray: String?
        // The least level at which any part of the test says worse: each has its share.
        var pValue = 1.0
        let cellCount = cells.count
        func weigh(_ outcome: Outcome, among count: Int) {
            guard let p = outcome.pValue, !outcome.beganBefore else { return }
            pValue = min(pValue, p * Double(count * parts))
        }
        func tell(_ split: Labels, _ outcome: Outcome, isOld: Bool) throws {
            let isPreexisting = isOld || outcome.beganBefore
            if !isPreexisting { worst = .worse }
            findings.append(try finding(signal, split, outcome, isPreexisting: isPreexisting, isOld: isOld))
        }
        let hours = max(1, windows.baseline.seconds / 3600)
        let events = cells.mapValues { judge.counts.events($0) }
        let old = signal.preexistingEvents.map { least in Set(events.filter { $1.before / hours >= least }.keys) } ?? []
        // All together are judged too: what is spread thin over many splits shows only there. Of requests the mix would
        // show as well.
        let quiet = cells.filter { !old.contains($0.key) }.flatMap(\.value)
        let together = SignalComparer.merged(old.isEmpty ? table.cells : quiet)
        let total = judge.judge(together, level: all)
        // What befell all alike at a time of its own makes no part of them worse: parts are judged by what was before.
        var judges = (one: judge, all: judgeOfAll)
        if signal.kind.isInTime, parts > 1, let strayMs = total.strayMs {
            var before = time
            before.nowMs = min(time.nowMs, strayMs)
            judges.one = CountJudge(table: table, cohorts: cohorts, time: before, watched: watched)
            judges.all = controlPlane.map { CountJudge(table: table, cohorts: $0, time: before, watched: watched) }
        }
        for (split, cells) in cells.sorted(by: { table.splits[$0.key] < table.splits[$1.key] }) {
            let isOld = old.contains(split)
            let isOldTrouble = isOld && events[split]?.after ?? 0 > 0
            var outcome = judges.one.judge(cells, level: level, seeksWorse: !isOldTrouble)
            if !isOld {
                weigh(outcome, among: cellCount)
                if outcome.isStray { stray = stray ?? outcome.needs }
            }
            if outcome.status != .worse, let judgeOfAll = judges.all {
                let other = judgeOfAll.judge(cells, level: level, seeksWorse: true)
                if !isOld { weigh(other, among: cellCount) }
                if other.status == .worse { outcome = other }
            }
            if outcome.status == .worse || isOldTrouble { try tell(table.splits[split], outcome, isOld: isOld) }
        }
        var result = SignalResult(signal: signal, total)
        let countsTogether = signal.kind.isInTime || table.splits.count == 1
        if countsTogether { weigh(total, among: 1) }
        if total.isStray { stray = stray ?? total.needs }
        if total.status == .worse, worst != .worse, signal.kind.isInTime, table.splits.count > 1 {
            try tell(Labels(), total, isOld: false)
        }
        // Each batch by itself: what ails a small one is thinned out among all that went over.
        if worst != .worse, batches.count > 1 {
            for batch in batches {
                var one = judges.one.time
                one.batch = batch
                let judge = CountJudge(table: table, cohorts: cohorts, time: one, watched: watched)
                let outcome = judge.judge(together, level: all / Double(batches.count), seeksWorse: true)
                if countsTogether { weigh(outcome, among: batches.count) }
                if outcome.status == .worse { try tell(Labels(), outcome, isOld: false) }
                if worst == .worse { break }
            }
        }
        result.pValue = total.pValue == nil && pValue == 1 ? nil : pValue
        if worst == .worse {
            result.status = .worse
            if let first = findings.first(where: \.failsUpgrade), table.splits.count == 1 {
                result.effect = first.effect
            }
        } else if let stray {
            result.status = .inconclusive
            result.needs = stray
        } else if result.status == .worse || !findings.isEmpty {
            // No split is worse by itself, or only what was in trouble before: the sum blames nobody.
            result.status = .ok
            result.needs = nil
        }
        return (result, findings)
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

    // MARK: Levels

    private func levels(
        _ signal: Signal, _ table: SignalTable, _ cells: [Int: [SignalTable.Cell]], _ cohorts: Cohorts
    ) throws -> (SignalResult, [Finding]) {
        var findings: [Finding] = []
        var results: [SignalResult] = []
        let watched = signal.load == nil ? [] : tables.loadSeconds(of: table)
        for (split, cells) in cells.sorted(by: { table.splits[$0.key] < table.splits[$1.key] }) {
            let labels = table.splits[split]
            // A split by component goes over with that component.
            let component = signal.component.isEmpty ? labels["job"] ?? "" : signal.component
            let own =
                component == signal.component ? cohorts : Cohorts(upgrade, component: component, atMs: windows.nowMs)
            let outcome = LevelJudge(table: table, cohorts: own, time: time, watched: watched).judge(cells)
            results.append(SignalResult(signal: signal, outcome))
            guard outcome.status == .worse else { continue }
            if outcome.beganBefore {
                results[results.count - 1].status = .ok
                results[results.count - 1].pValue = nil
            }
            findings.append(
                try finding(signal, labels, outcome, isPreexisting: outcome.beganBefore, isOld: false))
        }
        // The row of the signal is its worst split; all splits must be well for it to be.
        let order: [SignalResult.Status] = [.worse, .changed, .blind, .inconclusive, .ok, .better, .absent]
        var worst = results.min { (order.firstIndex(of: $0.status) ?? 0) < (order.firstIndex(of: $1.status) ?? 0) }
        worst?.pValue = results.compactMap(\.pValue).min().map { min(1, $0 * Double(results.count)) }
        return (worst ?? SignalResult(signal: signal, status: .blind, needs: "no data of the signal"), findings)
    }
}
