import Series

/// What a query gives.
package struct QueryResult: Sendable {
    package enum Value: Sendable {
        case scalar(Double)
        case string(String)
        /// One value a series, all at the query's time.
        case vector([(labels: Labels, value: Double)])
        case matrix([SeriesSamples])
    }

    package var value: Value
    /// The query's time, in milliseconds; the end of a range query.
    package var timestampMs: Int64
    /// What the user should know, in Prometheus' words: warnings and infos.
    package var annotations: [Annotation]

    package init(value: Value, timestampMs: Int64, annotations: [Annotation]) {
        self.value = value
        self.timestampMs = timestampMs
        self.annotations = annotations
    }
}

/// What is only read and evaluated when it is asked for, by the names of Prometheus' `--enable-feature`
/// (prometheus.io/docs/prometheus/latest/feature_flags).
package struct QueryFeatures: OptionSet, Sendable {
    package let rawValue: Int

    package init(rawValue: Int) { self.rawValue = rawValue }

    /// `promql-experimental-functions`.
    package static let experimentalFunctions = QueryFeatures(rawValue: 1)
    /// `promql-delayed-name-removal`: names that a function drops are there until the query's end.
    package static let delayedNameRemoval = QueryFeatures(rawValue: 2)
    /// `promql-binop-fill-modifiers`: `fill`, `fill_left` and `fill_right`.
    package static let fillModifiers = QueryFeatures(rawValue: 4)
    package static let all: QueryFeatures = [.experimentalFunctions, .delayedNameRemoval, .fillModifiers]

    private static let names: [(String, QueryFeatures)] = [
        ("promql-experimental-functions", .experimentalFunctions), ("promql-delayed-name-removal", .delayedNameRemoval),
        ("promql-binop-fill-modifiers", .fillModifiers),
        // Part of the language since Prometheus 3.14 and 3.16: they may be asked for as before.
        ("promql-duration-expr", []), ("promql-extended-range-selectors", []),
    ]

    /// The names that are known.
    package static var known: [String] { names.map(\.0) }

    /// - Returns: nil for a name that is none.
    package init?(name: String) {
        guard let feature = QueryFeatures.names.first(where: { $0.0 == name }) else { return nil }
        self = feature.1
    }
}

/// Evaluates expressions over a source of series.
///
/// A node is evaluated for all steps of a range at once: it gives for each series a column with a value a step. An
/// instant query is a range of one step.
package struct QueryEngine: Sendable {
    /// How old the newest sample of a series may be to count at an instant (Prometheus' `--query.lookback-delta`).
    package var lookbackMs: Int64 = 300_000
    /// The most samples that one query may load or hold (Prometheus' `--query.max-samples`).
    package var maxSamples = 50_000_000
    /// The most steps of a range query (Prometheus' HTTP API has the same bound).
    package static let maxSteps = 11_000
    /// The step of a subquery that names none (Prometheus: the global evaluation interval).
    package var defaultSubqueryStepMs: Int64 = 60_000
    package var features: QueryFeatures = []

    package init(features: QueryFeatures = []) { self.features = features }

    /// Evaluates an expression at one time.
    ///
    /// - Throws: ``PromQLError``, or the source's error.
    package func instant(
        _ text: String, atMs: Int64, source: any SeriesSource, control: QueryControl = QueryControl()
    ) throws -> QueryResult {
        var result = try instant(
            try Parser.parse(text, features: features), atMs: atMs, source: source, control: control)
        result.annotations = result.annotations.map { $0.placed(in: text) }
        return result
    }

    /// Evaluates a parsed expression at one time.
    package func instant(
        _ expression: Expression, atMs: Int64, source: any SeriesSource, control: QueryControl = QueryControl()
    ) throws -> QueryResult {
        var evaluator = Evaluator(
            engine: self, source: source, steps: Steps(startMs: atMs, endMs: atMs, stepMs: 1), queryStartMs: atMs,
            queryEndMs: atMs, queryStepMs: 0, control: control)
        evaluator.share(expression)
        let value: QueryResult.Value
        if expression.type == .matrix {
            value = .matrix(try evaluator.ranges(expression).samplesAtFirstStep())
        } else {
            switch try evaluator.evaluate(expression) {
            case .scalar(let column): value = .scalar(column[0])
            case .string(let text): value = .string(text)
            case .vector(let vector):
                let columns =
                    vector.contains(where: \.dropsName)
                    ? try evaluator.collect(evaluator.named(ColumnStream(vector))) : vector
                value = .vector(columns.filter { !$0.values[0].isAbsent }.map { ($0.labels, $0.values[0]) })
            }
        }
        return QueryResult(value: value, timestampMs: atMs, annotations: evaluator.remarks.annotations)
    }

    /// Evaluates an expression at `startMs`, `startMs + stepMs`, … up to `endMs`.
    ///
    /// - Throws: ``PromQLError`` for a range of too many steps or an expression that is neither scalar nor vector;
    ///   the source's error.
    package func range(
        _ text: String, startMs: Int64, endMs: Int64, stepMs: Int64, source: any SeriesSource,
        control: QueryControl = QueryControl()
    ) throws -> QueryResult {
        let expression = try Parser.parse(text, features: features, stepMs: stepMs, rangeMs: endMs - startMs)
        guard expression.type == .vector || expression.type == .scalar else {
            throw PromQLError(
                .badData,
                "invalid expression type \"\(expression.type.words)\" for range query, must be Scalar or instant Vector"
            )
        }
        guard stepMs > 0 else {
            throw PromQLError(
                .badData, "zero or negative query resolution step widths are not accepted. Try a positive integer")
        }
        guard endMs >= startMs else { throw PromQLError(.badData, "end timestamp must not be before start time") }
        guard (endMs - startMs) / stepMs < Int64(QueryEngine.maxSteps) else {
            throw PromQLError(
                .badData,
                "exceeded maximum resolution of 11,000 points per timeseries. "
                    + "Try decreasing the query resolution (?step=XX)")
        }
        let steps = Steps(startMs: startMs, endMs: endMs, stepMs: stepMs)
        var evaluator = Evaluator(
            engine: self, source: source, steps: steps, queryStartMs: startMs, queryEndMs: endMs,
            queryStepMs: stepMs, control: control)
        evaluator.share(expression)
        var columns: [Column]
        switch try evaluator.evaluate(expression) {
        case .scalar(let values): columns = [Column(labels: Labels(), values: values)]
        case .vector(let vector):
            columns =
                vector.contains(where: \.dropsName)
                ? try evaluator.collect(evaluator.named(ColumnStream(vector))) : vector
        case .string: columns = []
        }
        var matrix: [SeriesSamples] = []
        matrix.reserveCapacity(columns.count)
        for index in columns.indices {
            let samples = columns[index].samples(steps)
            // Each column goes as its samples come.
            columns[index].values = []
            if !samples.timestampsMs.isEmpty { matrix.append(samples) }
        }
        matrix.sort { $0.labels < $1.labels }
        return QueryResult(
            value: .matrix(matrix), timestampMs: endMs,
            annotations: evaluator.remarks.annotations.map { $0.placed(in: text) })
    }
}

/// The times at which an expression is evaluated.
struct Steps {
    var startMs: Int64
    var endMs: Int64
    var stepMs: Int64

    var count: Int { endMs < startMs ? 0 : Int((endMs - startMs) / stepMs) + 1 }

    func timeMs(_ index: Int) -> Int64 { startMs + Int64(index) * stepMs }
}

extension Double {
    /// What stands in a column where a series has no value at a step: the staleness marker's bits, which no
    /// arithmetic gives.
    static var absent: Double { staleMarker }

    var isAbsent: Bool { isStaleMarker }
}

/// The values of one series at every step.
struct Column {
    var labels: Labels
    var values: [Double]
    /// Whether the name is to go at the query's end; it stands in the labels until then.
    var dropsName = false

    func samples(_ steps: Steps) -> SeriesSamples {
        var samples = SeriesSamples(labels: labels)
        samples.timestampsMs.reserveCapacity(values.count)
        samples.values.reserveCapacity(values.count)
        for (index, value) in values.enumerated() where !value.isAbsent {
            samples.timestampsMs.append(steps.timeMs(index))
            samples.values.append(value)
        }
        return samples
    }
}

/// What a node of an expression gives.
enum Columns {
    case scalar([Double])
    case string(String)
    case vector([Column])
}
