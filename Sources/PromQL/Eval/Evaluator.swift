import Series

/// Evaluates the nodes of one expression over one row of steps.
struct Evaluator {
    let engine: QueryEngine
    let source: any SeriesSource
    let steps: Steps
    let queryStartMs: Int64
    let queryEndMs: Int64
    private(set) var annotations: [Annotation] = []
    private var samplesHeld = 0

    init(engine: QueryEngine, source: any SeriesSource, steps: Steps, queryStartMs: Int64, queryEndMs: Int64) {
        self.engine = engine
        self.source = source
        self.steps = steps
        self.queryStartMs = queryStartMs
        self.queryEndMs = queryEndMs
    }

    /// - Parameter expression: what the remark is about.
    mutating func note(_ level: Annotation.Level, _ text: String, at expression: Expression) {
        note(Annotation(level: level, text: text, offset: expression.range.lowerBound))
    }

    private mutating func note(_ annotation: Annotation) {
        // A remark a series would drown the rest.
        if annotations.count < 20, !annotations.contains(annotation) { annotations.append(annotation) }
    }

    mutating func evaluate(_ expression: Expression) throws -> Columns {
        guard !Task.isCancelled else { throw PromQLError(.canceled, "query was canceled") }
        switch expression.kind {
        case .number(let value): return .scalar([Double](repeating: value, count: steps.count))
        case .string(let text): return .string(text)
        case .parentheses(let inner): return try evaluate(inner)
        case .selector(let selector): return .vector(try instantVector(selector, timestamps: false))
        case .negate(let inner): return try negate(inner)
        case .binary(let binary): return try evaluate(binary)
        case .aggregate(let aggregate): return .vector(try evaluate(aggregate))
        case .call(let function, let arguments): return try call(expression, function, arguments)
        case .rangeSelector, .subquery:
            throw PromQLError(.execution, "a range vector can't be evaluated without a function")
        }
    }

    mutating func vector(_ expression: Expression) throws -> [Column] {
        if case .vector(let columns) = try evaluate(expression) { return columns }
        throw PromQLError(.execution, "expected an instant vector")
    }

    mutating func scalar(_ expression: Expression) throws -> [Double] {
        if case .scalar(let column) = try evaluate(expression) { return column }
        throw PromQLError(.execution, "expected a scalar")
    }

    mutating func string(_ expression: Expression) throws -> String {
        if case .string(let text) = try evaluate(expression) { return text }
        throw PromQLError(.execution, "expected a string")
    }

    private mutating func negate(_ inner: Expression) throws -> Columns {
        switch try evaluate(inner) {
        case .scalar(let column): return .scalar(column.map { -$0 })
        case .vector(let columns):
            return .vector(
                try unique(
                    columns.map { nameless($0, $0.values.map { $0.isAbsent ? $0 : -$0 }) }))
        case .string(let text): return .string(text)
        }
    }

    /// Holds the query to its limit of samples.
    mutating func hold(_ samples: Int) throws {
        samplesHeld += samples
        guard samplesHeld <= engine.maxSamples else {
            throw PromQLError(.execution, "query processing would load too many samples into memory in query execution")
        }
    }

    // MARK: Selectors

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

    /// The newest value of each series at each step, no older than the lookback; or that value's own time in seconds.
    mutating func instantVector(_ selector: Selector, timestamps: Bool) throws -> [Column] {
        guard steps.count > 0 else { return [] }
        let fixed = selector.shift.at != nil
        let firstMs = time(selector.shift, atMs: steps.startMs)
        let lastMs = time(selector.shift, atMs: steps.timeMs(steps.count - 1))
        let selected = try source.select(
            selector.matchers, fromMs: firstMs - engine.lookbackMs + 1, throughMs: lastMs)
        var columns: [Column] = []
        columns.reserveCapacity(selected.count)
        for series in selected {
            try hold(series.values.count)
            var values = [Double](repeating: .absent, count: steps.count)
            var any = false
            var next = 0
            for index in 0..<steps.count {
                if fixed, index > 0 {
                    values[index] = values[0]
                    continue
                }
                let atMs = time(selector.shift, atMs: steps.timeMs(index))
                while next < series.timestampsMs.count, series.timestampsMs[next] <= atMs { next += 1 }
                guard next > 0, series.timestampsMs[next - 1] > atMs - engine.lookbackMs else { continue }
                let value = series.values[next - 1]
                guard !value.isStaleMarker else { continue }
                values[index] = timestamps ? Double(series.timestampsMs[next - 1]) / 1000 : value
                any = true
            }
            if any { columns.append(Column(labels: series.labels, values: values)) }
        }
        return columns
    }

    /// The raw samples that a range selector or subquery sees, ready to be cut into a window a step.
    mutating func windows(of expression: Expression) throws -> Windows {
        switch expression.kind {
        case .parentheses(let inner): return try windows(of: inner)
        case .rangeSelector(let selector, let rangeMs):
            let times = (0..<steps.count).map { time(selector.shift, atMs: steps.timeMs($0)) }
            guard let firstMs = times.first, let lastMs = times.last else {
                return Windows(series: [], times: [], rangeMs: 0)
            }
            var series = try source.select(selector.matchers, fromMs: firstMs - rangeMs + 1, throughMs: lastMs)
            for index in series.indices where series[index].values.contains(where: \.isStaleMarker) {
                let kept = series[index].values.indices.filter { !series[index].values[$0].isStaleMarker }
                series[index].timestampsMs = kept.map { series[index].timestampsMs[$0] }
                series[index].values = kept.map { series[index].values[$0] }
            }
            try hold(series.reduce(0) { $0 + $1.values.count })
            return Windows(series: series, times: times, rangeMs: rangeMs)
        case .subquery(let subquery):
            return try windows(of: subquery)
        default:
            throw PromQLError(.execution, "expected a range vector")
        }
    }

    private mutating func windows(of subquery: Subquery) throws -> Windows {
        let times = (0..<steps.count).map { time(subquery.shift, atMs: steps.timeMs($0)) }
        guard let firstMs = times.first, let lastMs = times.last else {
            return Windows(series: [], times: [], rangeMs: 0)
        }
        let stepMs = subquery.stepMs ?? engine.defaultSubqueryStepMs
        // The inner steps lie on multiples of their width, the first one after the range's open left end.
        let open = firstMs - subquery.rangeMs
        var startMs = open / stepMs * stepMs
        if startMs <= open { startMs += stepMs }
        guard startMs <= lastMs else { return Windows(series: [], times: times, rangeMs: subquery.rangeMs) }
        let count = (lastMs - startMs) / stepMs + 1
        guard count <= Int64(engine.maxSamples) else {
            try hold(.max); return Windows(series: [], times: [], rangeMs: 0)
        }
        let inner = Steps(startMs: startMs, endMs: lastMs, stepMs: stepMs)
        var evaluator = Evaluator(
            engine: engine, source: source, steps: inner, queryStartMs: queryStartMs, queryEndMs: queryEndMs)
        evaluator.samplesHeld = samplesHeld
        let columns: [Column]
        switch try evaluator.evaluate(subquery.inner) {
        case .vector(let vector): columns = vector
        case .scalar(let values): columns = [Column(labels: Labels(), values: values)]
        case .string: columns = []
        }
        for annotation in evaluator.annotations { note(annotation) }
        try hold(evaluator.samplesHeld - samplesHeld + columns.count * inner.count)
        return Windows(series: try named(columns).map { $0.samples(inner) }, times: times, rangeMs: subquery.rangeMs)
    }

    /// A column that a function made of another: without its name, now or at the query's end.
    func nameless(_ column: Column, _ values: [Double]) -> Column {
        engine.features.contains(.delayedNameRemoval)
            ? Column(labels: column.labels, values: values, dropsName: true)
            : Column(labels: column.labels.withoutName, values: values)
    }

    /// The columns without the names that were to go.
    func named(_ columns: [Column]) throws -> [Column] {
        guard columns.contains(where: \.dropsName) else { return columns }
        return try unique(
            columns.map { $0.dropsName ? Column(labels: $0.labels.withoutName, values: $0.values) : $0 })
    }

    /// Joins columns that came to have the same labels.
    ///
    /// - Throws: ``PromQLError`` where two of them have a value at the same step.
    func unique(_ columns: [Column]) throws -> [Column] {
        var index: [Labels: Int] = [:]
        index.reserveCapacity(columns.count)
        var out: [Column] = []
        out.reserveCapacity(columns.count)
        for column in columns {
            guard let known = index[column.labels] else {
                index[column.labels] = out.count
                out.append(column)
                continue
            }
            for step in column.values.indices where !column.values[step].isAbsent {
                guard out[known].values[step].isAbsent else {
                    throw PromQLError(.execution, "vector cannot contain metrics with the same labelset")
                }
                out[known].values[step] = column.values[step]
            }
        }
        return out
    }
}

/// The samples of series, to be seen through a window that ends at each step's time and is open at its left.
struct Windows {
    var series: [SeriesSamples]
    /// The end of the window at each step.
    var times: [Int64]
    var rangeMs: Int64

    /// The content of the window at the first step.
    func samplesAtFirstStep() -> [SeriesSamples] {
        guard let endMs = times.first else { return [] }
        return series.compactMap { series in
            let kept = series.timestampsMs.indices.filter {
                series.timestampsMs[$0] > endMs - rangeMs && series.timestampsMs[$0] <= endMs
            }
            guard let first = kept.first, let last = kept.last else { return nil }
            return SeriesSamples(
                labels: series.labels, timestampsMs: Array(series.timestampsMs[first...last]),
                values: Array(series.values[first...last]))
        }
    }
}

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
