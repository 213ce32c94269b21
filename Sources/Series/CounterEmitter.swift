/// Makes samples of counters that a component keeps itself.
///
/// A counter that is new since the last time gets a zero there: it was watched, and had counted nothing. So its first
/// count is an increase for queries and comparisons.
package struct CounterEmitter: Sendable {
    private var emitted: Set<Labels>
    private var lastMs: Int64?

    /// - Parameter known: counters that a process before this one has emitted already.
    package init(known: some Sequence<Labels> = EmptyCollection()) { emitted = Set(known) }

    /// Appends the values of all counters at a time.
    package mutating func emit(_ counters: [Labels: Double], to sink: any SampleSink, atMs: Int64) {
        var batch = SampleBatch()
        let all = Array(counters)
        for (id, entry) in zip(sink.ids(for: all.map(\.key)), all) {
            if emitted.insert(entry.key).inserted, let lastMs { batch.append(id, timestampMs: lastMs, value: 0) }
            batch.append(id, timestampMs: atMs, value: entry.value)
        }
        _ = sink.append(batch)
        lastMs = atMs
    }
}
