import Series

/// The samples of series as a function over a range sees them: through a window that ends at each step's time and is open
/// at its left.
struct RangeStream: Sendable {
    let heads: [ColumnHead]
    /// The end of the window at each step; never descending.
    let endsMs: [Int64]
    let rangeMs: Int64
    let steps: Steps
    var edges = RangeEdges.plain
    /// How far the samples go beyond the windows, for the values at their ends.
    var lookbackMs: Int64 = 0
    /// Reads the samples at places, in their order; staleness markers are taken out.
    let read: @Sendable (ArraySlice<Int>, SeriesSelection.Body) throws -> Void

    /// A column of each series, made by a function of its windows.
    func columns(heads: [ColumnHead], _ kernel: @escaping RangeKernel) -> ColumnStream {
        ColumnStream(heads: heads) { [self] places, body in
            var column = [Double](repeating: .absent, count: endsMs.count)
            try read(places) { place, times, values in
                try endsMs.withUnsafeBufferPointer { ends in
                    try column.withUnsafeMutableBufferPointer { column in
                        column.update(repeating: .absent)
                        try kernel(
                            SeriesWindows(
                                timestampsMs: times, values: values, endsMs: ends, rangeMs: rangeMs, steps: steps,
                                edges: edges, lookbackMs: lookbackMs), column)
                        try body(place, column)
                    }
                }
            }
        }
    }

    /// The content of the window at the first step, without the names that were to go.
    ///
    /// - Throws: ``PromQLError`` where series come to have the same labels.
    func samplesAtFirstStep() throws -> [SeriesSamples] {
        guard let endMs = endsMs.first else { return [] }
        let labels = heads.map { $0.dropsName ? $0.labels.withoutMetadata : $0.labels }
        var out: [SeriesSamples] = []
        try read(Array(heads.indices)[...]) { place, times, values in
            let kept = times.indices.filter { times[$0] > endMs - rangeMs && times[$0] <= endMs }
            guard let first = kept.first, let last = kept.last else { return }
            out.append(
                SeriesSamples(
                    labels: labels[place], timestampsMs: Array(times[first...last]),
                    values: Array(values[first...last])))
        }
        guard Set(out.map(\.labels)).count == out.count else { throw Evaluator.sameLabels }
        return out.sorted { $0.labels < $1.labels }
    }
}

/// The windows over one series' samples, one a step.
struct SeriesWindows {
    let timestampsMs: UnsafeBufferPointer<Int64>
    let values: UnsafeBufferPointer<Double>
    let endsMs: UnsafeBufferPointer<Int64>
    let rangeMs: Int64
    let steps: Steps
    let edges: RangeEdges
    let lookbackMs: Int64

    /// Calls `body` with each step and the samples from the lookback before its window to its end, or to the lookback
    /// behind it for smoothed ends, where there are any.
    func forEachExtended(_ body: (Int, Range<Int>) throws -> Void) rethrows {
        let behindMs = edges == .smoothed ? lookbackMs : 0
        var low = 0
        var high = 0
        for step in 0..<endsMs.count {
            let endMs = endsMs[step]
            while high < timestampsMs.count, timestampsMs[high] <= endMs + behindMs { high += 1 }
            while low < high, timestampsMs[low] <= endMs - rangeMs - lookbackMs { low += 1 }
            if low < high { try body(step, low..<high) }
        }
    }

    /// The place of the newest sample at or before a window's start; the first of the samples where there is none.
    ///
    /// The last sample never counts as one before the window.
    func anchor(_ range: Range<Int>, _ step: Int) -> Int {
        let startMs = endsMs[step] - rangeMs
        var place = range.lowerBound
        while place + 1 < range.upperBound - 1, timestampsMs[place + 1] <= startMs { place += 1 }
        return place
    }

    /// Calls `body` with each step and the samples in its window, where there are any.
    @inline(__always)
    func forEach(_ body: (Int, Range<Int>) throws -> Void) rethrows {
        var low = 0
        var high = 0
        for step in 0..<endsMs.count {
            let endMs = endsMs[step]
            let startMs = endMs - rangeMs
            while high < timestampsMs.count, timestampsMs[high] <= endMs { high += 1 }
            while low < high, timestampsMs[low] <= startMs { low += 1 }
            if low < high { try body(step, low..<high) }
        }
    }

    func window(_ step: Int, _ range: Range<Int>) -> Window {
        Window(
            timestampsMs: UnsafeBufferPointer(rebasing: timestampsMs[range]),
            values: UnsafeBufferPointer(rebasing: values[range]), startMs: endsMs[step] - rangeMs, endMs: endsMs[step],
            stepMs: steps.timeMs(step))
    }
}

/// Makes a column of the windows over one series; a step that it leaves alone has no value.
typealias RangeKernel = @Sendable (SeriesWindows, UnsafeMutableBufferPointer<Double>) throws -> Void

/// What a function over a range sees at one step: a stretch of a series' columns, oldest first, never empty.
struct Window {
    let timestampsMs: UnsafeBufferPointer<Int64>
    let values: UnsafeBufferPointer<Double>
    let startMs: Int64
    let endMs: Int64
    /// The step's time, before `offset` and `@`.
    let stepMs: Int64

    var count: Int { values.count }
    var first: Double { values[0] }
    var last: Double { values[values.count - 1] }
}

extension Evaluator {
    /// The time that a selector looks at from a step's time.
    func time(_ shift: TimeShift, atMs: Int64) -> Int64 {
        let base =
            switch shift.at {
            case nil: atMs
            case .timestampMs(let ms): ms
            case .start: queryStartMs
            case .end: queryEndMs
            }
        return base - shift.offsetMs
    }

    /// The times that a selector looks at, one a step.
    func times(_ shift: TimeShift) -> [Int64] { (0..<steps.count).map { time(shift, atMs: steps.timeMs($0)) } }

    /// The newest value of each series at each step, no older than the lookback; or that value's own time in seconds.
    mutating func instantStream(_ selector: Selector, timestamps: Bool) throws -> ColumnStream {
        let times = times(selector.shift)
        guard let firstMs = times.first, let lastMs = times.last else { return ColumnStream([]) }
        let lookbackMs = engine.lookbackMs
        let isSmoothed = selector.edges == .smoothed
        let selected = try source.selection(
            selector.matchers, fromMs: firstMs - lookbackMs + 1, throughMs: lastMs + (isSmoothed ? lookbackMs : 0))
        let control = control
        return ColumnStream(heads: selected.labels.map { ColumnHead(labels: $0) }) { places, body in
            var column = [Double](repeating: .absent, count: times.count)
            try selected.read(places) { place, timestampsMs, values in
                try control.check()
                control.noteRead(values.count)
                var any = false
                var next = 0
                for step in 0..<times.count {
                    let atMs = times[step]
                    while next < timestampsMs.count, timestampsMs[next] <= atMs { next += 1 }
                    column[step] = .absent
                    guard next > 0, timestampsMs[next - 1] > atMs - lookbackMs else { continue }
                    let value = values[next - 1]
                    guard !value.isStaleMarker else { continue }
                    any = true
                    if isSmoothed, next < timestampsMs.count, timestampsMs[next - 1] < atMs,
                        timestampsMs[next] < atMs + lookbackMs, !values[next].isStaleMarker
                    {
                        let part =
                            Double(atMs - timestampsMs[next - 1]) / Double(timestampsMs[next] - timestampsMs[next - 1])
                        column[step] = value + (values[next] - value) * part
                        continue
                    }
                    column[step] = timestamps ? Double(timestampsMs[next - 1]) / 1000 : value
                }
                if any { try column.withUnsafeMutableBufferPointer { try body(place, $0) } }
            }
        }
    }

    /// The samples that a range selector or a subquery sees.
    mutating func ranges(_ expression: Expression) throws -> RangeStream {
        switch expression.kind {
        case .parentheses(let inner): return try ranges(inner)
        case .rangeSelector(let selector, let rangeMs): return try ranges(selector, rangeMs)
        case .subquery(let subquery): return try ranges(subquery)
        default: throw PromQLError(.execution, "expected a range vector")
        }
    }

    private mutating func ranges(_ selector: Selector, _ rangeMs: Int64) throws -> RangeStream {
        let times = times(selector.shift)
        guard let firstMs = times.first, let lastMs = times.last else { return nothing(times, rangeMs) }
        let edges = selector.edges
        let lookbackMs = edges == .plain ? 0 : engine.lookbackMs
        let selected = try source.selection(
            selector.matchers, fromMs: firstMs - rangeMs - lookbackMs + 1,
            throughMs: lastMs + (edges == .smoothed ? lookbackMs : 0))
        let (control, most) = (control, engine.maxSamples)
        return RangeStream(
            heads: selected.labels.map { ColumnHead(labels: $0) }, endsMs: times, rangeMs: rangeMs, steps: steps,
            edges: edges, lookbackMs: lookbackMs
        ) { places, body in
            var kept: (times: [Int64], values: [Double]) = ([], [])
            try selected.read(places) { place, times, values in
                try control.check()
                control.noteRead(values.count)
                guard values.count <= most else { throw QueryControl.tooManySamples }
                guard values.contains(where: \.isStaleMarker) else { return try body(place, times, values) }
                kept.times.removeAll(keepingCapacity: true)
                kept.values.removeAll(keepingCapacity: true)
                for index in values.indices where !values[index].isStaleMarker {
                    kept.times.append(times[index])
                    kept.values.append(values[index])
                }
                try kept.times.withUnsafeBufferPointer { times in
                    try kept.values.withUnsafeBufferPointer { try body(place, times, $0) }
                }
            }
        }
    }

    private func nothing(_ times: [Int64], _ rangeMs: Int64) -> RangeStream {
        RangeStream(heads: [], endsMs: times, rangeMs: rangeMs, steps: steps) { _, _ in }
    }

    private mutating func ranges(_ subquery: Subquery) throws -> RangeStream {
        let times = times(subquery.shift)
        guard let firstMs = times.first, let lastMs = times.last else { return nothing(times, subquery.rangeMs) }
        let stepMs = subquery.stepMs ?? engine.defaultSubqueryStepMs
        // The inner steps lie on multiples of their width, the first one after the range's open left end.
        let open = firstMs - subquery.rangeMs
        var startMs = open / stepMs * stepMs
        if startMs <= open { startMs += stepMs }
        guard startMs <= lastMs else { return nothing(times, subquery.rangeMs) }
        guard (lastMs - startMs) / stepMs < Int64(engine.maxSamples) else { throw QueryControl.tooManySamples }
        let inner = Steps(startMs: startMs, endMs: lastMs, stepMs: stepMs)
        var evaluator = Evaluator(
            engine: engine, source: source, steps: inner, queryStartMs: queryStartMs, queryEndMs: queryEndMs,
            queryStepMs: queryStepMs, control: control, remarks: remarks)
        let stream = try evaluator.stream(subquery.inner)
        return RangeStream(heads: stream.heads, endsMs: times, rangeMs: subquery.rangeMs, steps: steps) {
            places, body in
            var kept: (times: [Int64], values: [Double]) = ([], [])
            try stream.make(places) { place, values in
                kept.times.removeAll(keepingCapacity: true)
                kept.values.removeAll(keepingCapacity: true)
                for step in values.indices where !values[step].isAbsent {
                    kept.times.append(inner.timeMs(step))
                    kept.values.append(values[step])
                }
                guard !kept.times.isEmpty else { return }
                try kept.times.withUnsafeBufferPointer { times in
                    try kept.values.withUnsafeBufferPointer { try body(place, times, $0) }
                }
            }
        }
    }
}
