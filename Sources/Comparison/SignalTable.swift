import PromQL
import Series

/// What one signal measured, gathered into bins: all that its judgement reads.
///
/// A cell is one unit of one split: a node (else an instance) of one combination of the `by` labels. The units of the
/// control plane's components are pooled; the buckets of a histogram are units of their own, named by their bound. Each
/// sample is read once: the table keeps a counter's last value, so that later calls go on from there. Its size does not
/// depend on the number of samples.
struct SignalTable: Sendable {
    /// A unit of a split: two numbers a bin, for each signal kind those that make its value.
    struct Cell: Sendable {
        var split: Int
        var unit: Int
        /// Events of a count; the sum of a level's values or of its counter's increases.
        var sums: [Float] = []
        /// The exposure of a ratio; of a level how many values there are or what its mean is taken over.
        ///
        /// Empty for events in time, whose exposure is ``WatchedTime``.
        var weights: [Float] = []
        /// When it had its first and its last sample.
        var firstMs: Int64 = .max
        var lastMs: Int64 = .min
    }

    /// What the samples of a selection are added to.
    private enum Role: Int {
        case sum, weight, value, drop, load
    }

    /// Where a series is read on.
    private struct Position {
        /// nil until the series has something to add.
        var cell: Int?
        var lastMs: Int64
        /// nil until there is a value that is none of a staleness marker's.
        var last: Double?
    }

    let signal: Signal
    let bins: Bins
    private(set) var splits: [Labels] = []
    private(set) var units: [String] = []
    private(set) var cells: [Cell] = []
    /// The increases of the signal's load.
    private(set) var load: [Float] = []
    /// Whose targets count the load.
    private(set) var loadJob = ""
    /// Whether there was data in each bin, of what tells that there is.
    private(set) var presence: [Bool] = []
    /// Whether there ever was a series of what counts the signal's events.
    private(set) var hasCounted = false
    private var splitIndices: [Labels: Int] = [:]
    private var unitIndices: [String: Int] = [:]
    private var cellIndices: [Int: Int] = [:]
    private var positions: [[Labels: Position]] = Array(repeating: [:], count: 5)
    /// Until when a gauge's expression was evaluated.
    private var evaluatedBins = 0
    private let expression: String?
    private let gauge: [LabelMatcher]?

    /// - Throws: an error in the signal's expression.
    init(signal: Signal, bins: Bins) throws {
        self.signal = signal
        self.bins = bins
        if case .gauge(let text) = signal.kind {
            gauge = try? Parser.parseSelector(text)
            expression = gauge == nil ? text : nil
        } else {
            gauge = nil
            expression = nil
        }
    }

    /// The unit that a series belongs to.
    static func unit(of labels: Labels) -> String { labels["node"] ?? labels["instance"] ?? "" }

    /// Reads the samples of a time; those that were read already count once.
    ///
    /// - Throws: the source's error, or the expression's.
    mutating func ingest(_ source: any SeriesSource, watched: WatchedTime, fromMs: Int64, throughMs: Int64) throws {
        var presence = signal.presence
        func read(_ matchers: [LabelMatcher], _ role: Role) throws {
            let list = try source.select(matchers, fromMs: fromMs, throughMs: throughMs)
            let tells = presence?.map(\.description) == matchers.map(\.description)
            if tells { presence = nil }
            // A gauge may be there and infinite.
            if tells, role == .value { markPresent(list) }
            if !list.isEmpty, role == .sum || role == .drop { hasCounted = true }
            add(list, role, watched, tellsPresence: tells && role != .value)
        }
        switch signal.kind {
        case .ratio(let numerator, let denominator):
            try read(denominator.matchers, .weight)
            try read(numerator.matchers, .sum)
        case .mean(let sum, let count):
            try read(count.matchers, .weight)
            try read(sum.matchers, .sum)
        case .rate(let counter): try read(counter.matchers, .sum)
        case .drops(let gauge): try read(gauge.matchers, .drop)
        case .quantile(_, let histogram):
            try read(histogram.matchers, .sum)
            // Where a summary became a histogram, sum and count go on: the mean can be compared.
            if let count = SignalTable.part(of: histogram, "_count"), let sum = SignalTable.part(of: histogram, "_sum")
            {
                try read(count, .weight)
                try read(sum, .sum)
            }
        case .gauge:
            if let gauge { try read(gauge, .value) } else { try evaluate(source, throughMs: throughMs) }
        }
        if let load = signal.load { try read(load.matchers, .load) }
        if let presence { markPresent(try source.select(presence, fromMs: fromMs, throughMs: throughMs)) }
    }

    /// The matchers of another part of a histogram, from those of its `_bucket`.
    private static func part(of histogram: Signal.Selection, _ suffix: String) -> [LabelMatcher]? {
        guard let name = histogram.matchers.first(where: { $0.name == Labels.metricName })?.value,
            name.hasSuffix("_bucket")
        else { return nil }
        return histogram.matchers.map {
            $0.name == Labels.metricName ? .equal(Labels.metricName, name.dropLast("_bucket".count) + suffix) : $0
        }
    }

    private mutating func markPresent(_ list: [SeriesSamples]) {
        var cursor = Bins.Cursor(bins)
        for series in list {
            for (atMs, value) in zip(series.timestampsMs, series.values) where !value.isNaN {
                if let index = cursor.index(of: atMs) { markPresent(index) }
            }
        }
    }

    private mutating func markPresent(_ index: Int) {
        if index < presence.count, presence[index] { return }
        while presence.count <= index { presence.append(false) }
        presence[index] = true
    }

    static func add(_ column: inout [Float], _ index: Int, _ value: Double) {
        while column.count <= index { column.append(0) }
        column[index] += Float(value)
    }

    /// - Parameter tellsPresence: whether each sample says that there was data.
    private mutating func add(_ list: [SeriesSamples], _ role: Role, _ watched: WatchedTime, tellsPresence: Bool) {
        var cursor = Bins.Cursor(bins)
        for series in list {
            let known = positions[role.rawValue].index(forKey: series.labels)
            var position = known.map { positions[role.rawValue].values[$0] } ?? Position(cell: nil, lastMs: .min)
            for (atMs, value) in zip(series.timestampsMs, series.values) where atMs > position.lastMs {
                position.lastMs = atMs
                // A staleness marker ends nothing for a counter: it may come back with its old value.
                guard role == .value ? value.isFinite : !value.isNaN else { continue }
                let previous = position.last
                position.last = value
                guard let index = cursor.index(of: atMs) else { continue }
                if tellsPresence { markPresent(index) }
                let amount: Double
                switch role {
                case .value: amount = value
                case .drop: amount = previous.map { value < $0 ? 1 : 0 } ?? 0
                case .sum, .weight, .load:
                    if let previous {
                        // A value below the one before is a reset: the counter began again at zero.
                        amount = value >= previous ? value - previous : value
                    } else {
                        let target = series.labels.keeping(WatchedTime.targetLabels)
                        amount = watched.wasUp(target, before: atMs) ? value : 0
                    }
                }
                guard role != .load else {
                    loadJob = series.labels["job"] ?? ""
                    if amount > 0 { SignalTable.add(&load, index, amount) }
                    continue
                }
                // Counters that never count need no room; a bucket must be known to be there.
                guard amount != 0 || role == .value || position.cell != nil || isBucketed else { continue }
                let cell = position.cell ?? self.cell(of: series.labels)
                position.cell = cell
                if role == .value {
                    addValue(amount, to: cell, index, atMs)
                } else {
                    see(cell, atMs)
                    if role == .weight {
                        SignalTable.add(&cells[cell].weights, index, amount)
                    } else {
                        SignalTable.add(&cells[cell].sums, index, amount)
                    }
                }
            }
            if let known {
                positions[role.rawValue].values[known] = position
            } else {
                positions[role.rawValue][series.labels] = position
            }
        }
    }

    private mutating func see(_ cell: Int, _ atMs: Int64) {
        cells[cell].firstMs = min(cells[cell].firstMs, atMs)
        cells[cell].lastMs = max(cells[cell].lastMs, atMs)
    }

    private mutating func addValue(_ value: Double, to cell: Int, _ index: Int, _ atMs: Int64) {
        see(cell, atMs)
        SignalTable.add(&cells[cell].sums, index, value)
        SignalTable.add(&cells[cell].weights, index, 1)
        markPresent(index)
    }

    private var isBucketed: Bool {
        if case .quantile = signal.kind { return true }
        return false
    }

    private mutating func cell(of labels: Labels) -> Int {
        let unit = isBucketed ? labels["le"] ?? "" : signal.poolsUnits ? "" : SignalTable.unit(of: labels)
        return cell(split: labels.keeping(signal.by.filter { $0 != "node" || signal.poolsUnits }), unit: unit)
    }

    private mutating func cell(split labels: Labels, unit: String) -> Int {
        let split = SignalTable.index(of: labels, in: &splits, &splitIndices)
        let unit = SignalTable.index(of: unit, in: &units, &unitIndices)
        let key = split << 32 | unit
        if let known = cellIndices[key] { return known }
        cells.append(Cell(split: split, unit: unit))
        cellIndices[key] = cells.count - 1
        return cells.count - 1
    }

    private static func index<Key: Hashable>(of key: Key, in list: inout [Key], _ indices: inout [Key: Int]) -> Int {
        if let known = indices[key] { return known }
        list.append(key)
        indices[key] = list.count - 1
        return list.count - 1
    }

    /// Evaluates a gauge's expression at the ends of the bins that are over.
    private mutating func evaluate(_ source: any SeriesSource, throughMs: Int64) throws {
        let complete = bins.complete(atMs: throughMs)
        guard let expression, complete > evaluatedBins else { return }
        let result = try QueryEngine().range(
            expression, startMs: bins.startMs(evaluatedBins + 1), endMs: bins.startMs(complete), stepMs: bins.widthMs,
            source: source)
        evaluatedBins = complete
        guard case .matrix(let matrix) = result.value else { return }
        for series in matrix {
            let unit = signal.poolsUnits ? "" : SignalTable.unit(of: series.labels)
            let labels = series.labels.removing(signal.poolsUnits ? [] : ["node", "instance"])
            let cell = cell(split: labels, unit: unit)
            for (atMs, value) in zip(series.timestampsMs, series.values) where value.isFinite {
                guard let index = bins.index(of: atMs) else { continue }
                addValue(value, to: cell, index, atMs)
            }
        }
    }
}
