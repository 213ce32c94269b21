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
        let judge = CountJudge(table: table, cohorts: cohorts, time: time, watched: watched)
        // What the control plane's own step did to all nodes alike, nodes compared with each other do not show.
        let controlPlane = signal.component.isEmpty && cohorts.isStaggered ? Cohorts(controlPlane: upgrade) : nil
        let judgeOfAll = controlPlane.map { CountJudge(table: table, cohorts: $0, time: time, watched: watched) }
        // Half of the level is for all together, half for the splits. Splits that have too few events for a finding
        // can't give a false one and need no share (Tarone 1990).
        let batches = time.batch == nil && cohorts.isStaggered ? cohorts.batches : []
        let parts = (cells.count > 1 ? 2.0 : 1) + (batches.count > 1 ? 1 : 0)
        let all = (1 - Comparison.confidence) * share / parts
        let possible = cells.count > 1 ? cells.values.count { judge.canBeWorse($0, level: all) } : 1
        let level = all / Double(max(1, possible))
        // Nodes that got ill while they waited are so for a reason of their own, also when they have the new version.
        var knownIll: Bool?
        func wereIll() -> Bool {
            let ill = knownIll ?? judge.controlsAreWorse(table.cells)
            knownIll = ill
            return ill
        }
        var findings: [Finding] = []
        var worst = SignalResult.Status.ok
        var old: Set<Int> = []
        func tell(_ split: Labels, _ outcome: Outcome, isOld: Bool) throws {
            var outcome = outcome
            if outcome.isAmongUnits, wereIll() { outcome.beganBefore = true }
            let isPreexisting = isOld || outcome.beganBefore
            if !isPreexisting { worst = .worse }
            findings.append(try finding(signal, split, outcome, isPreexisting: isPreexisting, isOld: isOld))
        }
        for (split, cells) in cells.sorted(by: { table.splits[$0.key] < table.splits[$1.key] }) {
            let events = judge.counts.events(cells)
            let perHour = events.before / max(1, windows.baseline.seconds / 3600)
            let isOld = signal.preexistingEvents.map { perHour >= $0 } ?? false
            if isOld { old.insert(split) }
            let isOldTrouble = isOld && events.after > 0
            var outcome = judge.judge(cells, level: level, seeksWorse: !isOldTrouble)
            if outcome.status != .worse,
                let other = judgeOfAll?.judge(cells, level: level, seeksWorse: true), other.status == .worse
            {
                outcome = other
            }
            if outcome.status == .worse || isOldTrouble { try tell(table.splits[split], outcome, isOld: isOld) }
        }
        // All together are judged too: what is spread thin over many splits shows only there. Of requests the mix would
        // show as well.
        let quiet = cells.filter { !old.contains($0.key) }.flatMap(\.value)
        let together = SignalComparer.merged(old.isEmpty ? table.cells : quiet)
        let total = judge.judge(together, level: all)
        var result = SignalResult(signal: signal, total)
        // Of what was ill while it waited no test of the upgrade can be made: what it rejects says nothing.
        if total.isAmongUnits, total.pValue ?? 1 < SignalComparer.smallP, wereIll() { result.pValue = nil }
        if total.status == .worse, worst != .worse, signal.kind.isInTime, table.splits.count > 1 {
            try tell(Labels(), total, isOld: false)
        }
        // Each batch by itself: what ails a small one is thinned out among all that went over.
        if worst != .worse, batches.count > 1 {
            for batch in batches {
                var one = time
                one.batch = batch
                let judge = CountJudge(table: table, cohorts: cohorts, time: one, watched: watched)
                let outcome = judge.judge(together, level: all / Double(batches.count), seeksWorse: true)
                if outcome.status == .worse { try tell(Labels(), outcome, isOld: false) }
                if worst == .worse { break }
            }
        }
        if worst == .worse {
            result.status = .worse
            if let first = findings.first(where: \.failsUpgrade), table.splits.count == 1 {
                result.effect = first.effect
            }
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
        for (split, cells) in cells.sorted(by: { table.splits[$0.key] < table.splits[$1.key] }) {
            let labels = table.splits[split]
            // A split by component goes over with that component.
            let component = signal.component.isEmpty ? labels["job"] ?? "" : signal.component
            let own =
                component == signal.component ? cohorts : Cohorts(upgrade, component: component, atMs: windows.nowMs)
            let outcome = LevelJudge(table: table, cohorts: own, time: time).judge(cells)
            results.append(SignalResult(signal: signal, outcome))
            guard outcome.status == .worse else { continue }
            if outcome.beganBefore { results[results.count - 1].status = .ok }
            findings.append(
                try finding(signal, labels, outcome, isPreexisting: outcome.beganBefore, isOld: false))
        }
        // The row of the signal is its worst split; all splits must be well for it to be.
        let order: [SignalResult.Status] = [.worse, .changed, .blind, .inconclusive, .ok, .better, .absent]
        let worst = results.min { (order.firstIndex(of: $0.status) ?? 0) < (order.firstIndex(of: $1.status) ?? 0) }
        return (worst ?? SignalResult(signal: signal, status: .blind, needs: "no data of the signal"), findings)
    }
}
