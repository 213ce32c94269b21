import Series

extension Evaluator {
    /// The labels by which series and info metrics belong together.
    private static let identifying = ["instance", "job"]

    /// `info(v, {…})`: adds the labels of info metrics that belong to the same target
    /// (prometheus.io/docs/prometheus/latest/querying/functions, `info`).
    mutating func info(_ arguments: [Expression]) throws -> [Column] {
        let base = try vector(arguments[0])
        var asked: [LabelMatcher] = []
        if arguments.count > 1, case .selector(let selector) = arguments[1].kind { asked = selector.matchers }
        var names = asked.filter { $0.name == Labels.metricName }
        let data = asked.filter { $0.name != Labels.metricName }
        if names.isEmpty {
            names = [.equal(Labels.metricName, "target_info")]
        } else if names.allSatisfy({ $0.operator == .notEqual || $0.operator == .notMatches }) {
            names.append(try LabelMatcher(Labels.metricName, .matches, ".+_info"))
        }
        var shift: TimeShift?
        arguments[0].eachSelector { selector, _ in shift = shift ?? selector.shift }
        let selector = Selector(matchers: names + data, shift: TimeShift(offsetMs: shift?.offsetMs ?? 0))
        // Of several series of one info metric the one with the newest sample counts: the values are their times.
        let newest = try collect(try instantStream(selector, timestamps: true))
        var byTarget: [Labels: [Int]] = [:]
        for (place, column) in newest.enumerated() {
            byTarget[column.labels.keeping(Evaluator.identifying), default: []].append(place)
        }
        let wanted = Set(data.map(\.name))
        let needsMatch = data.contains { !$0.accepts("") }
        var out: [Column] = []
        for column in base {
            try control.check()
            // Info metrics themselves are left as they are.
            if names.allSatisfy({ $0.accepts(column.labels) }) {
                out.append(column)
                continue
            }
            let key = column.labels.keeping(Evaluator.identifying)
            let infos = key.isEmpty ? [] : byTarget[key] ?? []
            var results: [Labels: [Double]] = [:]
            var order: [Labels] = []
            for step in 0..<steps.count where !column.values[step].isAbsent {
                var latest: [String: Int] = [:]
                for place in infos where !newest[place].values[step].isAbsent {
                    let name = newest[place].labels.name
                    if let known = latest[name] {
                        let (before, now) = (newest[known].values[step], newest[place].values[step])
                        guard before != now else {
                            throw PromQLError(
                                .execution,
                                "found duplicate series for info metric: existing \(newest[known].labels.braced) "
                                    + "@ \(Int64((before * 1000).rounded())), new \(newest[place].labels.braced) "
                                    + "@ \(Int64((now * 1000).rounded()))")
                        }
                        if before > now { continue }
                    }
                    latest[name] = place
                }
                guard !latest.isEmpty || !needsMatch else { continue }
                let labels = try enriched(column.labels, latest.values.map { newest[$0].labels }, wanted)
                if results[labels] == nil {
                    results[labels] = [Double](repeating: .absent, count: steps.count)
                    order.append(labels)
                }
                results[labels]?[step] = column.values[step]
            }
            out += order.map { Column(labels: $0, values: results[$0] ?? [], dropsName: column.dropsName) }
        }
        return try unique(out)
    }

    private func enriched(_ base: Labels, _ infos: [Labels], _ wanted: Set<String>) throws -> Labels {
        var added: [String: String] = [:]
        for label in infos.flatMap(\.pairs) {
            guard label.name != Labels.metricName, !Evaluator.identifying.contains(label.name),
                wanted.isEmpty || wanted.contains(label.name), base[label.name] == nil
            else { continue }
            if let known = added[label.name], known != label.value {
                throw PromQLError(.execution, "conflicting label: \(label.name)")
            }
            added[label.name] = label.value
        }
        return base.merging(Labels(added))
    }
}
