import Cluster
import Series

/// What comparisons have read so far of an upgrade: one table for each signal.
///
/// Kept from one evaluation to the next, so that each sample is read once; made anew, from the store, for another
/// upgrade, after a restart or for a report: with the same content.
package struct ComparisonTables: Sendable {
    /// What the tables are of.
    private struct Key: Equatable {
        var upgrade: String
        var from: String
        var to: String
        var baseline: TimeSpan
        var signals: [String]
    }

    private var key: Key?
    /// How many nodes there were when the baseline ended.
    private var nodesBefore = 0
    private(set) var watched = WatchedTime(bins: Bins(fromMs: 0, throughMs: 0, limit: 1))
    private var tables: [SignalTable] = []
    private var indices: [String: Int] = [:]
    private var readThroughMs: Int64?

    /// The most bins of a node, for few nodes and for many: their memory is bounded, whatever the length of the time.
    private static let limits = [
        (nodes: 200, bins: 3072), (nodes: 1000, bins: 1536), (nodes: 4000, bins: 768), (nodes: .max, bins: 512),
    ]
    /// How long before the baseline's end a node was scraped that counts as one of then.
    private static let scrapedMs: Int64 = 1_200_000
    /// How far before the first bin a counter's last value is looked for.
    private static let silenceMs: Int64 = 600_000
    /// How far back a call looks for samples that were not there yet when their time was read.
    private static let latenessMs: Int64 = 60_000
    /// How far from a bin without a scrape of the load one may be that stands for it.
    private static let loadReachMs: Int64 = 120_000
    /// The most bins of what is pooled.
    private static let pooledLimit = 3072
    /// How many minutes of nodes are read at once: 8 hours of 10,000, four days of 800.
    ///
    /// It bounds how long a call that reads one portion takes, and what it holds of metrics that have older names.
    package static let portion: Int64 = 4_800_000

    package init() {}

    func table(of signal: Signal) -> SignalTable? { indices[signal.name].map { tables[$0] } }

    /// Reads what came since the last call, or all where the tables have become too fine.
    ///
    /// How wide their bins are follows from the number of nodes and the length of the time, as both are known at the
    /// call: a service that has followed the upgrade from its first step has the bins that a report makes.
    ///
    /// - Returns: until when all is read: the windows' end, or before it where the input allows no more for one call.
    mutating func follow(_ input: ComparisonInput, upgrade: Upgrade, windows: Windows) throws -> Int64 {
        let key = Key(
            upgrade: upgrade.id, from: upgrade.from, to: upgrade.to, baseline: windows.baseline,
            signals: input.signals.map(\.name))
        let horizonMs = max(windows.nowMs, (upgrade.finishedMs ?? windows.nowMs) + input.soakMs)
        if key != self.key { nodesBefore = try ComparisonTables.nodes(input.source, windows.baseline) }
        let nodes = max(nodesBefore, Set(upgrade.steps.compactMap(\.node)).count)
        let limit = ComparisonTables.limits.first { nodes < $0.nodes }?.bins ?? 512
        func bins(_ limit: Int) -> Bins {
            Bins(fromMs: windows.baseline.fromMs, throughMs: horizonMs, limit: limit)
        }
        let (own, pooled) = (bins(limit), bins(ComparisonTables.pooledLimit))
        let isAsWide = own == watched.bins && tables.allSatisfy { $0.bins == ($0.signal.poolsUnits ? pooled : own) }
        if key != self.key || !isAsWide {
            self.key = key
            watched = WatchedTime(bins: own)
            tables = try input.signals.map { try SignalTable(signal: $0, bins: $0.poolsUnits ? pooled : own) }
            indices = Dictionary(tables.indices.map { (tables[$0].signal.name, $0) }, uniquingKeysWith: { $1 })
            readThroughMs = nil
        }
        let portion = min(input.mostNodeMinutes ?? .max, ComparisonTables.portion)
        let portionMs = max(60_000, portion * 60_000 / Int64(max(1, nodes)))
        while windows.nowMs > readThroughMs ?? .min {
            let fromMs =
                readThroughMs.map { $0 - ComparisonTables.latenessMs }
                ?? windows.baseline.fromMs - ComparisonTables.silenceMs
            let throughMs = min(windows.nowMs, (readThroughMs ?? windows.baseline.fromMs) + portionMs)
            try read(input.source, fromMs: fromMs, throughMs: throughMs)
            if input.mostNodeMinutes != nil { break }
        }
        return readThroughMs ?? windows.nowMs
    }

    private mutating func read(_ source: any SeriesSource, fromMs: Int64, throughMs: Int64) throws {
        try watched.ingest(source, fromMs: fromMs, throughMs: throughMs)
        try tables.mutateConcurrently { [watched] table in
            try table.ingest(source, watched: watched, fromMs: fromMs, throughMs: throughMs)
        }
        // Where a read fails, the next call reads its time again: what was taken counts once.
        readThroughMs = throughMs
    }

    private static func nodes(_ source: any SeriesSource, _ baseline: TimeSpan) throws -> Int {
        let scraped = try source.selection(
            [.equal(Labels.metricName, "up")], fromMs: baseline.throughMs - scrapedMs, throughMs: baseline.throughMs)
        var nodes: Set<String> = []
        try scraped.readAll { place, _, _ in
            let labels = scraped.labels[place]
            guard labels["node"] != nil || labels["job"] == "kubelet" else { return }
            nodes.insert(SignalTable.unit(of: labels))
        }
        return nodes.count
    }

    /// The seconds in which each unit of a signal was watched, by bin, for events in time.
    func exposure(of table: SignalTable, cohorts: Cohorts, throughMs: Int64) -> [String: [Float]] {
        let component = table.signal.component
        let isOfNodes = component.isEmpty || Upgrade.nodeComponents.contains(component)
        var seconds = component.isEmpty ? [:] : watched.seconds(job: component)
        if isOfNodes, !seconds.isEmpty { return seconds }
        if seconds.isEmpty { seconds = watched.seconds(job: "kubernetes-objects") }
        // What is watched through the API or a log is as long as that is: all units alike.
        let complete = table.bins.complete(atMs: throughMs)
        let width = Float(table.bins.widthMs) / 1000
        var pooled = [Float](repeating: seconds.isEmpty ? width : 0, count: complete)
        // A pooled table has finer bins than what is watched: those in one of the coarser share its seconds.
        let factor = Int(watched.bins.widthMs / table.bins.widthMs)
        for column in seconds.values {
            for index in 0..<min(complete, column.count * factor) {
                pooled[index] = max(pooled[index], column[index / factor] / Float(factor))
            }
        }
        guard isOfNodes, cohorts.isStaggered else {
            return Dictionary((table.units + [""]).prefix(max(1, table.units.count)).map { ($0, pooled) }) { $1 }
        }
        let nodes = cohorts.nodes.union(watched.seconds(job: "kubelet").keys)
        let units = table.units.isEmpty || table.units.contains(where: nodes.contains) ? nodes : []
        return Dictionary(uniqueKeysWithValues: units.union(table.units).map { ($0, pooled) })
    }

    /// The load of a signal by bin of its table, as if all of its targets had been watched throughout; 0 where it is not
    /// known, empty where the signal hangs on none.
    ///
    /// What came while scrapes failed is counted after, with its seconds. Where a bin is narrower than the time between
    /// scrapes, those beside it tell.
    func load(of table: SignalTable, throughMs: Int64) -> [Double] {
        guard table.signal.load != nil else { return [] }
        let columns = watched.seconds(job: table.loadJob)
        let factor = Int(watched.bins.widthMs / table.bins.widthMs)
        var seconds = [Double](repeating: 0, count: table.bins.complete(atMs: throughMs))
        for column in columns.values {
            for index in 0..<min(seconds.count, column.count * factor) {
                seconds[index] += Double(column[index / factor]) / Double(factor)
            }
        }
        let usual = seconds.reduce(0, +) / Double(max(1, seconds.count { $0 > 0 }))
        let own = seconds.indices.map { index -> Double in
            let load = index < table.load.count ? Double(table.load[index]) : 0
            return seconds[index] > 0 ? load * usual / seconds[index] : load
        }
        let reach = table.bins.count(ms: ComparisonTables.loadReachMs)
        return own.indices.map { index in
            guard own[index] == 0 else { return own[index] }
            let near = own[max(0, index - reach)...min(own.count - 1, index + reach)].filter { $0 > 0 }
            return near.isEmpty ? 0 : near.reduce(0, +) / Double(near.count)
        }
    }

    /// Which part of the units of a signal's component is still watched, within a time since the upgrade.
    func unitsLeft(_ signal: Signal, fromMs: Int64, throughMs: Int64) -> Double {
        guard !signal.component.isEmpty, let key else { return 1 }
        let units = watched.seconds(job: signal.component)
        let bins = watched.bins
        let before = 0..<bins.complete(atMs: key.baseline.throughMs)
        let first = min(bins.firstIndex(from: fromMs), bins.complete(atMs: throughMs))
        let range = first..<bins.complete(atMs: throughMs)
        func share(_ range: Range<Int>) -> Double {
            guard !range.isEmpty else { return 0 }
            return units.values.reduce(0) { sum, column in
                sum + Double(column.indices.clamped(to: range).count { column[$0] > 0 })
            } / Double(range.count)
        }
        let due = share(before)
        return due > 0 && !range.isEmpty ? share(range) / due : 1
    }
}

extension ComparisonTables {
    /// One value a bin of a signal, of all units and splits together: what a chart of the whole cluster shows.
    ///
    /// Events in time are events a second. Empty where there is no data.
    package func series(of signal: Signal, upgrade: Upgrade, nowMs: Int64) -> [(atMs: Int64, value: Double)] {
        guard let table = table(of: signal) else { return [] }
        let bins = table.bins
        let count = bins.complete(atMs: nowMs)
        let endMs = { (index: Int) in bins.startMs(index + 1) }
        if case .quantile = signal.kind {
            guard let baseline = key?.baseline else { return [] }
            let time = JudgedTime(baseline: baseline, nowMs: nowMs, soakMs: 0, batch: nil)
            let cohorts = Cohorts(upgrade, component: signal.component, atMs: nowMs)
            return LevelJudge(table: table, cohorts: cohorts, time: time, load: load(of: table, throughMs: nowMs))
                .series(of: table.cells)
        }
        var sums = [Double](repeating: 0, count: count)
        var weights = sums
        for cell in table.cells {
            for index in 0..<min(count, cell.sums.count) { sums[index] += Double(cell.sums[index]) }
            for index in 0..<min(count, cell.weights.count) { weights[index] += Double(cell.weights[index]) }
        }
        switch signal.kind {
        case .rate, .drops: return (0..<count).map { (endMs($0), sums[$0] * 1000 / Double(bins.widthMs)) }
        default: return (0..<count).compactMap { weights[$0] > 0 ? (endMs($0), sums[$0] / weights[$0]) : nil }
        }
    }
}
