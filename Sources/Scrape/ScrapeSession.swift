import Exposition
import Foundation
import Series

/// What a scrape came to.
package struct ScrapeOutcome: Sendable, Equatable {
    /// Samples that the target sent.
    package var scraped = 0
    /// Samples left after relabelling.
    package var kept = 0
    /// Series that the scrape before did not have.
    package var added = 0
    package var result = AppendResult()
}

/// A scrape that is refused as a whole.
package struct ScrapeError: Error, Equatable, CustomStringConvertible {
    package var reason: String

    package init(reason: String) { self.reason = reason }

    package var description: String { reason }
}

/// The state of one target between scrapes: which series it had, by the bytes that name them.
///
/// Successive scrapes have almost the same lines in the same order. Each line's series is therefore first held
/// against the one that came next in the scrape before, then looked up by hash, and only then read.
package struct ScrapeSession {
    private struct Entry {
        var start: Int32
        var length: Int32
        /// nil for a series that relabelling drops.
        var id: SeriesID?
        /// The scrape in which it was last seen.
        var seen: Int
        /// Where it stood in that scrape.
        var position: Int32
        /// The next entry with the same hash; -1 ends the chain.
        var next: Int32
        var hasTimestamp: Bool
    }

    /// A sample whose own time lies further ahead is refused, as Prometheus does.
    private static let maxAheadMs: Int64 = 600_000

    private let target: ScrapeTarget
    private let sink: any SampleSink
    private var text: [UInt8] = []
    private var entries: [Entry] = []
    private var byHash: [UInt64: Int32] = [:]
    /// The entries of the last scrape, in order.
    private var order: [Int32] = []
    private var scrape = 0
    private var metadataSeen: [String: MetricMetadata] = [:]
    private var reportIDs: [SeriesID] = []

    package init(target: ScrapeTarget, sink: any SampleSink) {
        self.target = target
        self.sink = sink
    }

    /// Takes in a body.
    ///
    /// - Throws: ``ExpositionError`` or ``ScrapeError``; nothing of the body is stored then, and ``fail(atMs:durationSeconds:)``
    ///   is the caller's next step.
    package mutating func ingest(
        _ body: [UInt8], format: ExpositionFormat, atMs: Int64, durationSeconds: Double
    ) throws -> ScrapeOutcome {
        try body.withUnsafeBufferPointer { bytes in
            let exposition = try ExpositionParser.parse(bytes, format: format)
            return try ingest(exposition, bytes, atMs: atMs, durationSeconds: durationSeconds)
        }
    }

    private mutating func ingest(
        _ exposition: Exposition, _ bytes: UnsafeBufferPointer<UInt8>, atMs: Int64, durationSeconds: Double
    ) throws -> ScrapeOutcome {
        scrape += 1
        var outcome = ScrapeOutcome()
        outcome.scraped = exposition.count
        let found = try resolve(exposition, bytes, &outcome)
        var ahead = 0
        var batch = SampleBatch()
        batch.ids.reserveCapacity(found.count)
        batch.timestampsMs.reserveCapacity(found.count)
        batch.values.reserveCapacity(found.count)
        for (index, entry) in found.enumerated() {
            guard let id = entries[Int(entry)].id else { continue }
            let stamp = exposition.timestampsMs[index]
            let hasTimestamp = target.honorTimestamps && stamp != Exposition.noTimestamp
            entries[Int(entry)].hasTimestamp = hasTimestamp
            if hasTimestamp, stamp > atMs + ScrapeSession.maxAheadMs {
                ahead += 1
                continue
            }
            batch.append(id, timestampMs: hasTimestamp ? stamp : atMs, value: exposition.values[index])
        }
        outcome.kept = batch.count
        appendStaleMarkers(to: &batch, atMs: atMs)
        order = found
        outcome.result = sink.append(batch)
        outcome.result.outOfOrder += ahead
        let news = exposition.metadata.filter { metadataSeen.updateValue($0, forKey: $0.name) != $0 }
        if !news.isEmpty { sink.setMetadata(news) }
        forgetIfGrown()
        report(up: 1, outcome, atMs: atMs, durationSeconds: durationSeconds)
        return outcome
    }

    /// Notes a scrape without a usable answer: every series of the one before ends, `up` is 0.
    package mutating func fail(atMs: Int64, durationSeconds: Double) {
        scrape += 1
        var batch = SampleBatch()
        appendStaleMarkers(to: &batch, atMs: atMs)
        order = []
        _ = sink.append(batch)
        report(up: 0, ScrapeOutcome(), atMs: atMs, durationSeconds: durationSeconds)
    }

    /// Ends every series of the target: it is scraped no more.
    package mutating func end(atMs: Int64) {
        scrape += 1
        var batch = SampleBatch()
        appendStaleMarkers(to: &batch, atMs: atMs)
        for id in reportIDs { batch.append(id, timestampMs: atMs, value: staleMarker) }
        order = []
        _ = sink.append(batch)
    }

    private func appendStaleMarkers(to batch: inout SampleBatch, atMs: Int64) {
        for index in order {
            let entry = entries[Int(index)]
            // A series with its own timestamps says itself how old it is, and ends by the lookback.
            if entry.seen != scrape, !entry.hasTimestamp, let id = entry.id {
                batch.append(id, timestampMs: atMs, value: staleMarker)
            }
        }
    }

    // MARK: Finding series

    /// The entry of each sample, in order.
    private mutating func resolve(
        _ exposition: Exposition, _ bytes: UnsafeBufferPointer<UInt8>, _ outcome: inout ScrapeOutcome
    ) throws -> [Int32] {
        var found: [Int32] = []
        found.reserveCapacity(exposition.count)
        var fresh: [(entry: Int32, labels: Labels)] = []
        let knownEntries = entries.count
        let knownText = text.count
        var expected = 0
        do {
            for index in 0..<exposition.count {
                let series = UnsafeBufferPointer(
                    rebasing: bytes[Int(exposition.starts[index])..<Int(exposition.ends[index])])
                var entry: Int32 = -1
                if expected < order.count, isEntry(order[expected], series) {
                    entry = order[expected]
                } else {
                    entry = lookUp(series)
                }
                if entry < 0 {
                    entry = try add(series, &fresh)
                }
                let slot = Int(entry)
                if entries[slot].seen != scrape - 1 { outcome.added += 1 }
                expected = entries[slot].seen == scrape - 1 ? Int(entries[slot].position) + 1 : expected
                entries[slot].seen = scrape
                entries[slot].position = Int32(found.count)
                found.append(entry)
            }
            let kept = found.count { entries[Int($0)].id != nil || Int($0) >= knownEntries }
            if target.limits.samples > 0, kept > target.limits.samples {
                throw ScrapeError(
                    reason: "the target has \(kept) samples, more than the sample_limit of \(target.limits.samples)")
            }
        } catch {
            // Take back what this scrape added, so that the next one starts from what is stored.
            forget(entriesFrom: knownEntries, textFrom: knownText)
            throw error
        }
        for (new, id) in zip(fresh, sink.ids(for: fresh.map(\.labels))) { entries[Int(new.entry)].id = id }
        return found
    }

    private func isEntry(_ index: Int32, _ series: UnsafeBufferPointer<UInt8>) -> Bool {
        let entry = entries[Int(index)]
        guard Int(entry.length) == series.count, let other = series.baseAddress else { return false }
        return text.withUnsafeBufferPointer { text in
            guard let base = text.baseAddress else { return false }
            return memcmp(base + Int(entry.start), other, series.count) == 0
        }
    }

    private func lookUp(_ series: UnsafeBufferPointer<UInt8>) -> Int32 {
        var index = byHash[ScrapeSession.hash(series)] ?? -1
        while index >= 0 {
            if isEntry(index, series) { return index }
            index = entries[Int(index)].next
        }
        return -1
    }

    private mutating func add(
        _ series: UnsafeBufferPointer<UInt8>, _ fresh: inout [(entry: Int32, labels: Labels)]
    ) throws -> Int32 {
        let index = Int32(entries.count)
        let hash = ScrapeSession.hash(series)
        let labels = try finalLabels(series)
        entries.append(
            Entry(
                start: Int32(text.count), length: Int32(series.count), id: nil, seen: -1, position: -1,
                next: byHash[hash] ?? -1, hasTimestamp: false))
        text.append(contentsOf: series)
        byHash[hash] = index
        if let labels { fresh.append((index, labels)) }
        return index
    }

    /// The labels as stored: the target's laid over the series' own, then relabelled; nil where they are dropped.
    private func finalLabels(_ series: UnsafeBufferPointer<UInt8>) throws -> Labels? {
        var labels = try ExpositionParser.labels(of: series)
        for label in target.labels.pairs {
            if let own = labels[label.name] {
                if target.honorLabels { continue }
                labels["exported_" + label.name] = own
            }
            labels[label.name] = label.value
        }
        guard let relabelled = RelabelRule.apply(target.metricRelabelRules, to: labels), !relabelled.name.isEmpty else {
            return nil
        }
        let limits = target.limits
        guard relabelled.pairs.count <= limits.labels else {
            throw ScrapeError(
                reason: "the series \(relabelled) has more labels than the label_limit of \(limits.labels)")
        }
        for label in relabelled.pairs
        where label.name.utf8.count > limits.labelNameLength || label.value.utf8.count > limits.labelValueLength {
            throw ScrapeError(
                reason: "the label \(label.name) of \(relabelled.name) is longer than the limits for names and values")
        }
        return relabelled
    }

    private static func hash(_ bytes: UnsafeBufferPointer<UInt8>) -> UInt64 {
        // FNV-1a over words: label sets are long, and a byte at a time is slow. A collision is found by comparison.
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        let raw = UnsafeRawBufferPointer(bytes)
        var at = 0
        while at + 8 <= raw.count {
            hash = (hash ^ raw.loadUnaligned(fromByteOffset: at, as: UInt64.self)) &* 0x100_0000_01b3
            hash ^= hash >> 29
            at += 8
        }
        while at < raw.count {
            hash = (hash ^ UInt64(raw[at])) &* 0x100_0000_01b3
            at += 1
        }
        return hash
    }

    private mutating func forget(entriesFrom first: Int, textFrom textStart: Int) {
        for index in (first..<entries.count).reversed() {
            let entry = entries[index]
            let hash = text.withUnsafeBufferPointer {
                ScrapeSession.hash(
                    UnsafeBufferPointer(rebasing: $0[Int(entry.start)..<Int(entry.start + entry.length)]))
            }
            byHash[hash] = entry.next >= 0 ? entry.next : nil
        }
        entries.removeSubrange(first...)
        text.removeSubrange(textStart...)
    }

    /// Starts over with what the last scrape had, once more is remembered of series that are gone than of those that
    /// are there.
    private mutating func forgetIfGrown() {
        guard entries.count > 2 * order.count + 1000 else { return }
        let oldText = text
        let old = order.map { entries[Int($0)] }
        text = []
        entries = []
        byHash = [:]
        for entry in old {
            let series = oldText[Int(entry.start)..<Int(entry.start + entry.length)]
            let hash = series.withUnsafeBufferPointer { ScrapeSession.hash($0) }
            var moved = entry
            moved.start = Int32(text.count)
            moved.next = byHash[hash] ?? -1
            byHash[hash] = Int32(entries.count)
            entries.append(moved)
            text.append(contentsOf: series)
        }
        order = entries.indices.map { Int32($0) }
    }

    // MARK: The scrape's own series

    private static let reportNames = [
        "up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling",
        "scrape_series_added",
    ]

    private mutating func report(up: Double, _ outcome: ScrapeOutcome, atMs: Int64, durationSeconds: Double) {
        if reportIDs.isEmpty {
            reportIDs = sink.ids(
                for: ScrapeSession.reportNames.map { name in
                    var labels = target.labels
                    labels[Labels.metricName] = name
                    return labels
                })
        }
        var batch = SampleBatch()
        let values = [up, durationSeconds, Double(outcome.scraped), Double(outcome.kept), Double(outcome.added)]
        for (id, value) in zip(reportIDs, values) { batch.append(id, timestampMs: atMs, value: value) }
        _ = sink.append(batch)
    }
}
