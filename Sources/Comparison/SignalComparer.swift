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
    /// The part of the level of all signals together that each has.
    let share: Double

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
        let (result, findings) =
            try signal.countsEvents
            ? CountComparison.compare(self, signal, table, cells, cohorts) : levels(signal, table, cells, cohorts)
        if let batch = input.batch, cohorts.isStaggered, !cohorts.batches.contains(batch), result.status != .worse {
            // What the control plane's step did to nodes was looked for; more there is not.
            let needs = "none of its nodes went over with batch \(batch)"
            return (SignalResult(signal: signal, status: .absent, needs: needs), findings)
        }
        return (result, findings)
    }

    var time: JudgedTime {
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
            guard complete >= 10, due >= Comparison.leastCoverage, share < Comparison.leastCoverage else {
                guard !table.hasCounted, let words = unknownCounter(of: signal) else { return nil }
                if signal.isOptional { result.status = .absent }
                result.needs = words
                return result
            }
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
            if let fate = continuity?.fate(of: VersionCatalogue.family(of: name).name), fate.kind != .unknown {
                result.needs = "\(name) can't be compared: \(fate.explanation)"
            }
        } else if now > 0 {
            result.status = .changed
            result.needs = "\(name) was not exposed before the upgrade: there is nothing to compare with"
        } else {
            // What was there and is gone is missing, whatever it is.
            if signal.isOptional, before == 0 { result.status = .absent }
            let answers = tables.watched.answers(
                job: signal.component, fromMs: fromMs, throughMs: windows.nowMs)
            result.needs =
                !signal.component.isEmpty && answers
                ? "\(signal.component) does not expose \(name)"
                : "no data of \(name)\(SignalComparer.hint(name, signal.component))"
        }
        return result
    }

    /// A split by component whose component had data before it went over and answers no more; nil for any other.
    private func blindness(
        of component: String, _ signal: Signal, _ cells: [SignalTable.Cell], _ cohorts: Cohorts
    ) -> SignalResult? {
        guard signal.component.isEmpty, !component.isEmpty, let fromMs = cohorts.judgedFromMs(signal),
            windows.nowMs - fromMs >= 30_000, cells.contains(where: { $0.firstMs <= windows.baseline.throughMs }),
            !cells.contains(where: { $0.lastMs > fromMs }),
            !tables.watched.answers(job: component, fromMs: fromMs, throughMs: windows.nowMs)
        else { return nil }
        return SignalResult(signal: signal, status: .blind, needs: "no data of \(component): is it scraped?")
    }

    /// Why the counter of a signal, of which there never was a series, is no sign that nothing happened; nil where a
    /// counter that never counted is not exposed.
    private func unknownCounter(of signal: Signal) -> String? {
        let present = signal.presence?.first { $0.name == Labels.metricName }?.value
        guard let name = signal.counterName, name != present else { return nil }
        guard signal.unknownCounter == nil else {
            return "there never was a series of \(name), and no version of Kubernetes is known to have it: "
                + "is it spelled so?"
        }
        guard let from = KubernetesVersion(upgrade.from),
            let goneIn = VersionCatalogue.builtIn.goneIn(name, before: from)
        else {
            return nil
        }
        return "\(name) is not exposed any more since \(goneIn): name what has its place"
    }

    /// Where the missing data of a metric would come from.
    private static func hint(_ name: String, _ component: String) -> String {
        if name.hasPrefix("upgrade_watch_audit") { return ": is the API server's audit log among the log sources?" }
        if name.hasPrefix("upgrade_watch_log") { return ": are logs among the log sources?" }
        if name.hasPrefix("upgrade_watch_") { return ": no Kubernetes objects were observed" }
        return component.isEmpty ? "" : ": is \(component) scraped?"
    }

    // MARK: Levels

    private func levels(
        _ signal: Signal, _ table: SignalTable, _ cells: [Int: [SignalTable.Cell]], _ cohorts: Cohorts
    ) throws -> (SignalResult, [Finding]) {
        var findings: [Finding] = []
        var results: [SignalResult] = []
        let load = tables.load(of: table, throughMs: windows.nowMs)
        for (split, cells) in cells.sorted(by: { table.splits[$0.key] < table.splits[$1.key] }) {
            let labels = table.splits[split]
            // A split by component goes over with that component.
            let component = signal.component.isEmpty ? labels["job"] ?? "" : signal.component
            let own =
                component == signal.component ? cohorts : Cohorts(upgrade, component: component, atMs: windows.nowMs)
            if let blind = blindness(of: component, signal, cells, own) {
                results.append(blind)
                continue
            }
            let outcome = LevelJudge(table: table, cohorts: own, time: time, load: load).judge(cells)
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
