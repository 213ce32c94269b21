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
            let tells = presence?.map(\.description) == matchers.map(\.description)
            if tells { presence = nil }
            let selection = try source.selection(matchers, fromMs: fromMs, throughMs: throughMs)
            try add(selection, role, watched, tellsPresence: tells)
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
        if let presence { try markPresent(source.selection(presence, fromMs: fromMs, throughMs: throughMs)) }
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

    private mutating func markPresent(_ selection: SeriesSelection) throws {
        var cursor = Bins.Cursor(bins)
        try selection.readAll { _, times, values in
            for (atMs, value) in zip(times, values) where !value.isNaN {
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

    /// Adds what samples tell that were not read yet, a bin of a series at a time.
    ///
    /// - Parameter tellsPresence: whether each sample says that there was data.
    private mutating func add(
        _ selection: SeriesSelection, _ role: Role, _ watched: WatchedTime, tellsPresence: Bool
    ) throws {
        var cursor = Bins.Cursor(bins)
        try selection.readAll { place, times, values in
            let labels = selection.labels[place]
            if role == .sum || role == .drop { hasCounted = true }
            if role == .load { loadJob = labels["job"] ?? "" }
            let known = positions[role.rawValue].index(forKey: labels)
            var position = known.map { positions[role.rawValue].values[$0] } ?? Position(cell: nil, lastMs: .min)
            var start = times.firstIndex { $0 > position.lastMs } ?? times.endIndex
            while start < times.endIndex {
                let index = cursor.index(of: times[start])
                let end = times[start...].firstIndex { $0 > cursor.endMs } ?? times.endIndex
                let run = start..<end
                start = end
                var part = Part()
                switch role {
                case .value: part.add(values, run)
                case .drop: part.addDrops(values, run, &position.last)
                case .sum, .weight, .load:
                    part.addIncreases(values, run, &position.last) { first in
                        let target = labels.keeping(WatchedTime.targetLabels)
                        return watched.wasUp(target, before: times[first])
                    }
                }
                guard let index else { continue }
                if tellsPresence, part.isPresent { markPresent(index) }
                guard let first = part.first, let last = part.last else { continue }
                guard role != .load else {
                    if part.sum > 0 { SignalTable.add(&load, index, part.sum) }
                    continue
                }
                // Counters that never count need no room; a bucket must be known to be there.
                guard part.counted != nil || position.cell != nil || isBucketed else { continue }
                let cell = position.cell ?? self.cell(of: labels)
                let isNew = position.cell == nil && !isBucketed
                position.cell = cell
                see(cell, times[isNew ? part.counted ?? first : first], times[last])
                switch role {
                case .value: addValues(part.sum, part.count, to: cell, index)
                case .weight: SignalTable.add(&cells[cell].weights, index, part.sum)
                case .sum, .drop, .load: SignalTable.add(&cells[cell].sums, index, part.sum)
                }
            }
            if let last = times.last { position.lastMs = max(position.lastMs, last) }
            if let known {
                positions[role.rawValue].values[known] = position
            } else {
                positions[role.rawValue][labels] = position
            }
        }
    }

    /// What the samples of one series in one bin tell.
    private struct Part {
        var sum = 0.0
        /// How many values there are, infinite ones left out.
        var count = 0
        /// The places of the first and last sample that tell something, and of the first with an amount.
        var first: Int?
        var last: Int?
        var counted: Int?
        /// Whether there is any value.
        var isPresent = false

        /// Adds values as they are.
        mutating func add(_ values: UnsafeBufferPointer<Double>, _ run: Range<Int>) {
            for place in run where !values[place].isNaN {
                // A gauge may be there and infinite.
                isPresent = true
                guard values[place].isFinite else { continue }
                sum += values[place]
                count += 1
                see(place)
            }
            counted = first
        }

        /// Adds how often a gauge fell.
        mutating func addDrops(_ values: UnsafeBufferPointer<Double>, _ run: Range<Int>, _ previous: inout Double?) {
            for place in run where !values[place].isNaN {
                see(place)
                if let previous, values[place] < previous { count(1, place) }
                previous = values[place]
            }
            isPresent = first != nil
        }

        /// Adds a counter's increases.
        ///
        /// - Parameter beganAtZero: whether a series whose first sample is at a place had counted from zero since its target
        ///   was last looked at.
        mutating func addIncreases(
            _ values: UnsafeBufferPointer<Double>, _ run: Range<Int>, _ previous: inout Double?,
            beganAtZero: (Int) -> Bool
        ) {
            // A staleness marker ends nothing for a counter: it may come back with its old value.
            for place in run where !values[place].isNaN {
                let value = values[place]
                see(place)
                if let previous {
                    // A value below the one before is a reset: the counter began again at zero.
                    if value != previous { count(value > previous ? value - previous : value, place) }
                } else if value != 0, beganAtZero(place) {
                    count(value, place)
                }
                previous = value
            }
            isPresent = first != nil
        }

        @inline(__always)
        private mutating func see(_ place: Int) {
            if first == nil { first = place }
            last = place
        }

        @inline(__always)
        private mutating func count(_ amount: Double, _ place: Int) {
            guard amount != 0 else { return }
            if counted == nil { counted = place }
            sum += amount
        }
    }

    private mutating func see(_ cell: Int, _ firstMs: Int64, _ lastMs: Int64) {
        cells[cell].firstMs = min(cells[cell].firstMs, firstMs)
        cells[cell].lastMs = max(cells[cell].lastMs, lastMs)
    }

    private mutating func addValues(_ sum: Double, _ count: Int, to cell: Int, _ index: Int) {
        SignalTable.add(&cells[cell].sums, index, sum)
        SignalTable.add(&cells[cell].weights, index, Double(count))
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
                see(cell, atMs, atMs)
                addValues(value, 1, to: cell, index)
            }
        }
    }
}
