import PromQL
import Series

/// Whether the engine and the reference say the same of an expression.
package enum EngineAgreement {
    /// What both were asked.
    package struct Question {
        package var text: String
        package var series: [SeriesSamples]
        package var startMs: Int64
        package var endMs: Int64
        package var stepMs: Int64

        package init(text: String, series: [SeriesSamples], startMs: Int64, endMs: Int64, stepMs: Int64) {
            self.text = text
            self.series = series
            self.startMs = startMs
            self.endMs = endMs
            self.stepMs = stepMs
        }

        /// A question out of a generator's choices.
        package init(_ generator: ExpressionGenerator, choose: (Int) -> Int) {
            text = generator.vector(choose(4))
            startMs = Int64(choose(20)) * 60_000 + Int64(choose(3)) * 7000
            stepMs = [1, 17_000, 60_000, 150_000][choose(4)]
            let steps = stepMs == 1 ? 0 : Int64(choose(12))
            endMs = startMs + stepMs * steps
            series = generator.series()
        }
    }

    package enum Outcome: Equatable {
        case same
        /// The reference can't tell, or the text is no expression.
        case unknown
        case different(String)
    }

    package static func ask(_ question: Question) -> Outcome {
        guard let expression = try? Parser.parse(question.text) else { return .unknown }
        let store = MemorySeries()
        let ids = store.ids(for: question.series.map(\.labels))
        var batch = SampleBatch()
        for (id, one) in zip(ids, question.series) {
            for (atMs, value) in zip(one.timestampsMs, one.values) {
                batch.append(id, timestampMs: atMs, value: value)
            }
        }
        _ = store.append(batch)
        let expected: [Labels: [Int64: Double]]
        let evaluator = ReferenceEvaluator(
            text: question.text, series: question.series, queryStartMs: question.startMs, queryEndMs: question.endMs)
        do {
            expected = try reference(expression, question, evaluator)
        } catch let failure as ReferenceEvaluator.Failure {
            let engine = try? QueryEngine().range(
                question.text, startMs: question.startMs, endMs: question.endMs, stepMs: question.stepMs, source: store)
            return engine == nil ? .same : .different("the reference fails: \(failure.description)")
        } catch {
            return .unknown
        }
        do {
            let result = try QueryEngine().range(
                question.text, startMs: question.startMs, endMs: question.endMs, stepMs: question.stepMs, source: store)
            guard case .matrix(let matrix) = result.value else { return .different("no matrix") }
            return difference(matrix, expected, largest: evaluator.largest).map { .different($0) } ?? .same
        } catch let error as PromQLError
            where "\(error)".contains("same labelset") && question.startMs != question.endMs
        {
            // A range's series must differ over all its steps; the reference looks at one after another.
            return .unknown
        } catch let error as PromQLError
            where isOfSeries(error) && question.startMs != question.endMs && question.text.contains(":")
        {
            // A subquery is evaluated at all of its steps from the first window to the last, as in Prometheus; the reference
            // looks at those in a window.
            return .unknown
        } catch {
            return .different("the engine fails: \(error)")
        }
    }

    /// Whether an error is about series that are there at a step.
    private static func isOfSeries(_ error: PromQLError) -> Bool {
        ["found duplicate series", "multiple matches for labels"].contains { error.reason.hasPrefix($0) }
    }

    private static func reference(
        _ expression: PromQL.Expression, _ question: Question, _ evaluator: ReferenceEvaluator
    ) throws -> [Labels: [Int64: Double]] {
        var found: [Labels: [Int64: Double]] = [:]
        for atMs in stride(from: question.startMs, through: question.endMs, by: Int(question.stepMs)) {
            switch try evaluator.evaluate(expression, atMs: atMs) {
            case .scalar(let value): found[Labels(), default: [:]][atMs] = value
            case .vector(let vector): for one in vector { found[one.labels, default: [:]][atMs] = one.value }
            }
        }
        return found
    }

    private static func difference(
        _ matrix: [SeriesSamples], _ expected: [Labels: [Int64: Double]], largest: Double
    ) -> String? {
        var rest = expected
        for series in matrix {
            guard let points = rest.removeValue(forKey: series.labels) else {
                return "\(series.labels) is only the engine's: \(series.values.prefix(3))"
            }
            guard points.count == series.values.count else {
                return "\(series.labels): the engine has \(series.values.count) points, the reference \(points.count)"
            }
            for (atMs, value) in zip(series.timestampsMs, series.values) {
                guard let other = points[atMs] else { return "\(series.labels): a point only of the engine at \(atMs)" }
                if !areEqual(value, other, largest) {
                    return "\(series.labels) at \(atMs): engine \(value), reference \(other)"
                }
            }
        }
        return rest.first.map { "\($0.key) is only the reference's: \($0.value)" }
    }

    private static func areEqual(_ a: Double, _ b: Double, _ largest: Double) -> Bool {
        a == b || a.isNaN && b.isNaN || abs(a - b) <= 1e-9 * max(abs(a), abs(b), 1, largest * 1e-4)
    }
}
