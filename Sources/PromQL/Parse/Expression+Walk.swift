extension Expression {
    /// Calls `body` for every selector in the expression, with the labels that what stands around it names: of
    /// aggregations, and of the matching of operators.
    package func eachSelector(_ body: (Selector, _ labels: [String]) -> Void) { walk([], body) }

    /// Calls `body` for every aggregation that is evaluated at the expression's own steps: not for those in subqueries.
    func eachAggregate(_ body: (Aggregate) -> Void) {
        switch kind {
        case .number, .string, .selector, .rangeSelector, .subquery: break
        case .call(_, let arguments): for argument in arguments { argument.eachAggregate(body) }
        case .binary(let binary):
            binary.left.eachAggregate(body)
            binary.right.eachAggregate(body)
        case .aggregate(let aggregate):
            body(aggregate)
            aggregate.parameter?.eachAggregate(body)
            aggregate.inner.eachAggregate(body)
        case .negate(let inner), .parentheses(let inner): inner.eachAggregate(body)
        }
    }

    private func walk(_ labels: [String], _ body: (Selector, [String]) -> Void) {
        switch kind {
        case .number, .string: break
        case .selector(let selector), .rangeSelector(let selector, _): body(selector, labels)
        case .subquery(let subquery): subquery.inner.walk(labels, body)
        case .call(_, let arguments): for argument in arguments { argument.walk(labels, body) }
        case .binary(let binary):
            let named = labels + binary.matching.labels + binary.matching.include
            binary.left.walk(named, body)
            binary.right.walk(named, body)
        case .aggregate(let aggregate):
            aggregate.inner.walk(labels + aggregate.grouping, body)
            aggregate.parameter?.walk(labels, body)
        case .negate(let inner), .parentheses(let inner): inner.walk(labels, body)
        }
    }
}
