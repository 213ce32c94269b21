import Series

/// Evaluates the nodes of one expression over one row of steps.
struct Evaluator {
    let engine: QueryEngine
    let source: any SeriesSource
    let steps: Steps
    let queryStartMs: Int64
    let queryEndMs: Int64
    /// That of a range query; 0 for an instant one.
    let queryStepMs: Int64
    let control: QueryControl
    let remarks: Remarks
    /// What stands more than once in the expression, by its text, once it is evaluated.
    private var shared: [String: [Column]?] = [:]

    init(
        engine: QueryEngine, source: any SeriesSource, steps: Steps, queryStartMs: Int64, queryEndMs: Int64,
        queryStepMs: Int64, control: QueryControl, remarks: Remarks = Remarks()
    ) {
        self.engine = engine
        self.source = source
        self.steps = steps
        self.queryStartMs = queryStartMs
        self.queryEndMs = queryEndMs
        self.queryStepMs = queryStepMs
        self.control = control
        self.remarks = remarks
    }

    /// - Parameter expression: what the remark is about.
    func note(
        _ level: Annotation.Level, _ text: String, at expression: Expression, lifted: Annotation.Lifted? = nil
    ) {
        remarks.add(Annotation(level: level, text: text, offset: expression.range.lowerBound, lifted: lifted))
    }

    mutating func evaluate(_ expression: Expression) throws -> Columns {
        try control.check()
        switch expression.kind {
        case .number(let value): return .scalar([Double](repeating: value, count: steps.count))
        case .string(let text): return .string(text)
        case .parentheses(let inner): return try evaluate(inner)
        case .negate(let inner) where inner.type == .scalar: return .scalar(try scalar(inner).map { -$0 })
        case .binary(let binary) where binary.left.type == .scalar && binary.right.type == .scalar:
            return .scalar(BinaryMath.columns(binary.operator, try scalar(binary.left), try scalar(binary.right)))
        case .call(let function, let arguments) where function.result == .scalar:
            return .scalar(try scalarCall(function, arguments))
        case .binary(let binary) where binary.left.type == .vector && binary.right.type == .vector:
            return .vector(try holding { try $0.matched(binary) })
        case .aggregate(let aggregate): return .vector(try once(aggregate))
        case .call(let function, let arguments) where !Evaluator.streams(function):
            return .vector(try holding { try $0.call(expression, function, arguments) })
        default: return .vector(try collect(try stream(expression)))
        }
    }

    /// The vector that an expression gives, series after series; what can't be made so is made here at once.
    mutating func stream(_ expression: Expression) throws -> ColumnStream {
        switch expression.kind {
        case .parentheses(let inner): return try stream(inner)
        case .selector(let selector): return try instantStream(selector, timestamps: false)
        case .negate(let inner) where inner.type == .vector:
            return try nameless(try stream(inner)) { values in
                for step in values.indices where !values[step].isAbsent { values[step] = -values[step] }
            }
        case .binary(let binary) where binary.left.type == .scalar && binary.right.type == .vector:
            return try withScalar(binary, try stream(binary.right), try scalar(binary.left), scalarOnLeft: true)
        case .binary(let binary) where binary.left.type == .vector && binary.right.type == .scalar:
            return try withScalar(binary, try stream(binary.left), try scalar(binary.right), scalarOnLeft: false)
        case .call(let function, let arguments) where Evaluator.streams(function):
            return try streamedCall(function, arguments)
        case .rangeSelector, .subquery:
            throw PromQLError(.execution, "a range vector can't be evaluated without a function")
        default:
            guard case .vector(let columns) = try evaluate(expression) else {
                throw PromQLError(.execution, "expected an instant vector")
            }
            return ColumnStream(columns)
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

    // MARK: What stands more than once

    /// Sees to it that aggregations that stand more than once in an expression are evaluated once: the groups of a ratio's
    /// two sides, the sum under several quantiles.
    ///
    /// Only aggregations: their results are small, and are held until the query's end.
    mutating func share(_ expression: Expression) {
        var seen: Set<String> = []
        expression.eachAggregate { if !seen.insert($0.description).inserted { shared[$0.description] = .some(nil) } }
    }

    private mutating func once(_ aggregate: Aggregate) throws -> [Column] {
        let key = shared.isEmpty ? "" : aggregate.description
        if let known = shared[key], let known { return known }
        let noted = remarks.added
        let columns = try holding { try $0.evaluate(aggregate) }
        // What has a remark is evaluated again, so that the remark is made of each place.
        if shared[key] != nil, remarks.added == noted { shared[key] = columns }
        return columns
    }

    // MARK: What is held

    /// All columns of a stream, which are held from then on.
    func collect(_ stream: ColumnStream) throws -> [Column] {
        let (control, most) = (control, engine.maxSamples)
        return try stream.collect { try control.hold($0, most: most) }
    }

    /// Evaluates, and lets go of what that held beside its result.
    private mutating func holding(_ body: (inout Evaluator) throws -> [Column]) throws -> [Column] {
        let before = control.samplesHeld
        let columns = try body(&self)
        control.release(to: before)
        try control.hold(columns.count * steps.count, most: engine.maxSamples)
        return columns
    }

    // MARK: Names

    /// A stream of what a function made of another: without names, now or at the query's end.
    ///
    /// - Parameter transform: changes the values in place.
    func nameless(
        _ stream: ColumnStream, _ transform: @escaping @Sendable (UnsafeMutableBufferPointer<Double>) -> Void = { _ in }
    ) throws -> ColumnStream {
        if engine.features.contains(.delayedNameRemoval) {
            return stream.map(heads: stream.heads.map { ColumnHead(labels: $0.labels, dropsName: true) }, transform)
        }
        let heads = stream.heads.map { ColumnHead(labels: $0.labels.withoutMetadata) }
        return stream.haveOneName ? stream.map(heads: heads, transform) : try renamed(stream.map(transform), heads)
    }

    /// The stream under other heads; columns that come to have the same labels are joined.
    func renamed(_ stream: ColumnStream, _ heads: [ColumnHead]) throws -> ColumnStream {
        let renamed = stream.map(heads: heads) { _ in }
        guard Set(heads.map(\.labels)).count < heads.count else { return renamed }
        return ColumnStream(try unique(try collect(renamed)))
    }

    /// The stream without the names that were to go.
    func named(_ stream: ColumnStream) throws -> ColumnStream {
        guard stream.heads.contains(where: \.dropsName) else { return stream }
        return try renamed(
            stream, stream.heads.map { ColumnHead(labels: $0.dropsName ? $0.labels.withoutMetadata : $0.labels) })
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
                guard out[known].values[step].isAbsent else { throw Evaluator.sameLabels }
                out[known].values[step] = column.values[step]
            }
        }
        return out
    }

    static let sameLabels = PromQLError(.execution, "vector cannot contain metrics with the same labelset")
}

extension Labels {
    /// What says which metric it is, of which type and in which unit (Prometheus' `schema.IsMetadataLabel`).
    private static let metadata = [metricName, "__type__", "__unit__"]

    /// The labels of what a function makes of a series: it is that metric no more.
    var withoutMetadata: Labels { removing(Labels.metadata) }

    /// Whether more than the name would go.
    var hasTypeOrUnit: Bool {
        pairs.contains { $0.name.utf8.count == 8 && ($0.name == "__type__" || $0.name == "__unit__") }
    }
}
