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
    /// What the store made of them, of the scrape's own series, and of markers.
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
/// Successive scrapes have almost the same lines in the same order: the parser is given those of the last one, and confirms
/// each by one comparison. A series that stands elsewhere is looked up by hash, and only one that is new is read.
package struct ScrapeSession {
    /// A series as the target names it: 24 bytes, for a fleet has millions.
    private struct Entry {
        var start: Int32
        var length: Int32
        /// The scrape in which it was last seen, of those in which the series changed.
        var seen: Int32
        var hasTimestamp: Bool
        /// ``dropped`` for a series that relabelling drops.
        var id: SeriesID

        /// Another than ``SeriesID/none``, which is asked for again.
        static let dropped = SeriesID(rawValue: -2)
    }

    /// The samples of a scrape that has the same series as the one before.
    private struct Row {
        /// The scrape's own series, then the target's.
        var ids: [SeriesID]
        /// Which lines have them; nil for all.
        var lines: [Int32]?
    }

    /// A sample whose own time lies further ahead, or longer ago, is refused, as Prometheus does.
    private static let maxAheadMs: Int64 = 600_000
    private static let maxBehindMs: Int64 = 3_600_000

    private let target: ScrapeTarget
    private let sink: any SampleSink
    private let shared: SharedArrays
    private var source: SampleSource
    private var text: [UInt8] = []
    private var entries: [Entry] = []
    /// Entries by the hash of their bytes: open addressing, -1 for an empty place.
    private var table: [Int32] = []
    /// The entries of the last scrape, in order, and where their bytes are.
    private var order: [Int32] = []
    private var orderSpans: [ExpositionPrediction.Span] = []
    /// nil where the last scrape had samples with their own times.
    private var row: Row?
    private var commentText: [UInt8] = []
    private var comments: [ExpositionPrediction.Span] = []
    private var scrape: Int32 = 0
    /// When the target was scraped last; nil: it was not.
    private var lastMs: Int64?
    private var reportIDs: [SeriesID] = []

    /// - Parameter shared: of all sessions whose targets may be alike.
    package init(target: ScrapeTarget, sink: any SampleSink, shared: SharedArrays = SharedArrays()) {
        self.target = target
        self.sink = sink
        self.shared = shared
        source = sink.source(target.labels)
    }

    /// Whether no series is known yet.
    var isFresh: Bool { order.isEmpty }
    /// Whether the last scrape brought nothing.
    private(set) var hasFailed = false

    /// Takes in a body.
    ///
    /// - Throws: ``ExpositionError`` or ``ScrapeError``; nothing of the body is stored then, and ``fail(atMs:durationSeconds:)``
    ///   is the caller's next step.
    package mutating func ingest(
        _ body: [UInt8], format: ExpositionFormat, atMs: Int64, durationSeconds: Double
    ) throws -> ScrapeOutcome {
        hasFailed = false
        return try body.withUnsafeBufferPointer { bytes in
            var outcome = try ingest(
                parse(bytes, format), bytes, atMs: atMs, durationSeconds: durationSeconds)
            if outcome.result.unknown > 0 {
                // The store has given up series, or the source, that had no samples for long: all are asked for anew. What
                // was taken already is a duplicate now.
                forget()
                let taken = outcome.result.accepted
                outcome = try ingest(parse(bytes, format), bytes, atMs: atMs, durationSeconds: durationSeconds)
                outcome.result.accepted += taken
                outcome.result.duplicates -= taken
            }
            return outcome
        }
    }

    private func parse(_ bytes: UnsafeBufferPointer<UInt8>, _ format: ExpositionFormat) throws -> Exposition {
        try text.withUnsafeBufferPointer { text in
            try commentText.withUnsafeBufferPointer { commentText in
                try ExpositionParser.parse(
                    bytes, format: format,
                    prediction: ExpositionPrediction(
                        text: text, series: orderSpans, commentText: commentText, comments: comments),
                    filter: target.filter)
            }
        }
    }

    private mutating func ingest(
        _ exposition: Exposition, _ bytes: UnsafeBufferPointer<UInt8>, atMs: Int64, durationSeconds: Double
    ) throws -> ScrapeOutcome {
        var outcome = ScrapeOutcome()
        outcome.scraped = exposition.count + exposition.skipped
        if exposition.isAsPredicted, !exposition.hasTimestamps, exposition.count == order.count, let row {
            outcome.kept = row.ids.count - reportIDs.count
            var values = report(up: 1, outcome, durationSeconds)
            values.reserveCapacity(row.ids.count)
            if let lines = row.lines {
                for line in lines { values.append(exposition.values[Int(line)]) }
            } else {
                values += exposition.values
            }
            outcome.result = sink.append(values, of: row.ids, from: source, atMs: atMs)
        } else {
            try ingestChanged(exposition, bytes, atMs: atMs, durationSeconds: durationSeconds, &outcome)
        }
        remember(exposition, bytes)
        lastMs = atMs
        return outcome
    }

    private mutating func ingestChanged(
        _ exposition: Exposition, _ bytes: UnsafeBufferPointer<UInt8>, atMs: Int64, durationSeconds: Double,
        _ outcome: inout ScrapeOutcome
    ) throws {
        scrape += 1
        var exposition = exposition
        exposition.fillColumns()
        let before = order
        var fresh: [Fresh] = []
        let found = try resolve(exposition, bytes, &outcome, &fresh)
        let births = lastMs.map { zeros(of: fresh, exposition, afterMs: $0, beforeMs: atMs) } ?? SampleBatch()
        if !births.isEmpty { outcome.result += sink.append(births) }
        resolveReport()
        var outOfBounds = 0
        var ids: [SeriesID] = []
        var lines: [Int32] = []
        var timed = SampleBatch()
        ids.reserveCapacity(found.count)
        lines.reserveCapacity(found.count)
        for (index, entry) in found.enumerated() {
            let id = entries[Int(entry)].id
            guard id != Entry.dropped else { continue }
            let stamp = exposition.timestampsMs[index]
            let hasTimestamp = target.honorTimestamps && stamp != Exposition.noTimestamp
            entries[Int(entry)].hasTimestamp = hasTimestamp
            if !hasTimestamp {
                ids.append(id)
                lines.append(Int32(index))
            } else if stamp > atMs + ScrapeSession.maxAheadMs || stamp < atMs - ScrapeSession.maxBehindMs {
                outOfBounds += 1
            } else {
                timed.append(id, timestampMs: stamp, value: exposition.values[index])
            }
        }
        outcome.kept = ids.count + timed.count
        let gone = vanished(before)
        let values =
            report(up: 1, outcome, durationSeconds) + lines.map { exposition.values[Int($0)] }
            + gone.map { _ in staleMarker }
        let all = reportIDs + ids
        outcome.result += sink.append(values, of: gone.isEmpty ? all : all + gone, from: source, atMs: atMs)
        if !timed.isEmpty { outcome.result += sink.append(timed) }
        outcome.result.outOfOrder += outOfBounds
        order = found
        row = timed.isEmpty && outOfBounds == 0 ? Row(ids: all, lines: lines.count == found.count ? nil : lines) : nil
        forgetIfGrown()
        orderSpans = order.map { .init(start: entries[Int($0)].start, length: entries[Int($0)].length) }
        share(hasNew: !fresh.isEmpty)
    }

    /// Keeps what the series are named by where other sessions have it too.
    private mutating func share(hasNew: Bool) {
        order = shared.numbers(order)
        orderSpans = shared.spans(orderSpans)
        guard hasNew else { return }
        text = shared.text(text)
        table = shared.numbers(table)
        entries = SharedArrays.fitted(entries)
    }

    /// Keeps the comments for the next prediction, and hands on what they say.
    private mutating func remember(_ exposition: Exposition, _ bytes: UnsafeBufferPointer<UInt8>) {
        guard !exposition.hasPredictedComments else { return }
        if !exposition.metadata.isEmpty { sink.setMetadata(exposition.metadata) }
        commentText = []
        comments = exposition.comments.map { span in
            let start = Int(span.start)
            commentText += bytes[start..<start + Int(span.length)]
            return .init(start: Int32(commentText.count) - span.length, length: span.length)
        }
        commentText = shared.text(commentText)
        comments = shared.spans(comments)
    }

    /// Notes a scrape without a usable answer: every series of the one before ends, `up` is 0.
    package mutating func fail(atMs: Int64, durationSeconds: Double) {
        hasFailed = true
        endSeries(report: { $0.report(up: 0, ScrapeOutcome(), durationSeconds) }, atMs: atMs)
    }

    /// Ends every series of the target: it is scraped no more.
    package mutating func end(atMs: Int64) {
        endSeries(report: { $0.reportIDs.map { _ in staleMarker } }, atMs: atMs)
    }

    private mutating func endSeries(report: (ScrapeSession) -> [Double], atMs: Int64) {
        scrape += 1
        lastMs = atMs
        resolveReport()
        let ids = reportIDs + vanished(order)
        let own = report(self)
        let values = own + ids.dropFirst(own.count).map { _ in staleMarker }
        if sink.append(values, of: ids, from: source, atMs: atMs).unknown > 0 {
            source = sink.source(target.labels)
            reportIDs = []
            resolveReport()
            _ = sink.append(report(self), of: reportIDs, from: source, atMs: atMs)
        }
        order = []
        orderSpans = []
        row = nil
    }

    /// The series that are not in this scrape and end with it.
    private func vanished(_ before: [Int32]) -> [SeriesID] {
        before.compactMap { index in
            let entry = entries[Int(index)]
            // A series with its own timestamps says itself how old it is, and ends by the lookback.
            let endsItself = entry.hasTimestamp && !target.tracksTimestampsStaleness
            return entry.seen != scrape && !endsItself && entry.id != Entry.dropped ? entry.id : nil
        }
    }

    // MARK: Series that begin

    /// A series that the target had never before.
    private struct Fresh {
        var entry: Int32
        /// Which sample of the exposition is its first.
        var index: Int
        var labels: Labels
    }

    /// What a counter's or a histogram's series has behind its family's name (OpenMetrics 1.0, "Suffixes").
    package static let counted = ["_total", "_count", "_sum", "_bucket"]

    /// A zero for each new counter at the time at which it was created, where that is since the last scrape: what it
    /// counted until it was seen first is an increase too.
    ///
    /// OpenMetrics 1.0, "Created"; as Prometheus does it with its feature `created-timestamp-zero-ingestion`.
    private func zeros(of fresh: [Fresh], _ exposition: Exposition, afterMs: Int64, beforeMs: Int64) -> SampleBatch {
        var created: [Labels: Int64] = [:]
        for series in fresh where series.labels.name.hasSuffix("_created") {
            let ms = exposition.values[series.index] * 1000
            guard ms > Double(afterMs), ms < Double(beforeMs) else { continue }
            var labels = series.labels
            labels[Labels.metricName] = String(labels.name.dropLast("_created".count))
            created[labels] = Int64(ms)
        }
        var batch = SampleBatch()
        guard !created.isEmpty else { return batch }
        for series in fresh {
            let name = series.labels.name
            guard let suffix = ScrapeSession.counted.first(where: { name.hasSuffix($0) }) else { continue }
            var labels = suffix == "_bucket" ? series.labels.removing(["le"]) : series.labels
            labels[Labels.metricName] = String(name.dropLast(suffix.count))
            if let ms = created[labels] { batch.append(entries[Int(series.entry)].id, timestampMs: ms, value: 0) }
        }
        return batch
    }

    // MARK: Finding series

    /// The entry of each sample, in order.
    private mutating func resolve(
        _ exposition: Exposition, _ bytes: UnsafeBufferPointer<UInt8>, _ outcome: inout ScrapeOutcome,
        _ fresh: inout [Fresh]
    ) throws -> [Int32] {
        var found: [Int32] = []
        found.reserveCapacity(exposition.count)
        var newcomers: [Int32] = []
        let knownEntries = entries.count
        let knownText = text.count
        do {
            for index in 0..<exposition.count {
                let predicted = Int(exposition.predicted[index])
                var entry: Int32 = -1
                if predicted >= 0 {
                    entry = order[predicted]
                } else {
                    let series = UnsafeBufferPointer(
                        rebasing: bytes[Int(exposition.starts[index])..<Int(exposition.ends[index])])
                    entry = lookUp(series)
                    if entry < 0 { entry = try add(series, index, &fresh) }
                }
                let slot = Int(entry)
                if entries[slot].seen != scrape - 1, entries[slot].seen != scrape { newcomers.append(entry) }
                entries[slot].seen = scrape
                found.append(entry)
            }
            if target.limits.samples > 0 { try holdToLimit(found, new: Set(fresh.map(\.entry))) }
        } catch {
            // Take back what this scrape added, so that the next one starts from what is stored.
            forget(entriesFrom: knownEntries, textFrom: knownText)
            throw error
        }
        for (new, id) in zip(fresh, sink.ids(for: fresh.map(\.labels))) { entries[Int(new.entry)].id = id }
        outcome.added = newcomers.count { entries[Int($0)].id != Entry.dropped }
        return found
    }

    private func holdToLimit(_ found: [Int32], new: Set<Int32>) throws {
        let kept = found.count { entries[Int($0)].id != Entry.dropped || new.contains($0) }
        guard kept > target.limits.samples else { return }
        throw ScrapeError(
            reason: "the target has \(kept) samples, more than the sample_limit of \(target.limits.samples)")
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
        guard !table.isEmpty else { return -1 }
        let mask = table.count - 1
        var place = Int(truncatingIfNeeded: ExpositionParser.hash(series)) & mask
        while table[place] >= 0 {
            if isEntry(table[place], series) { return table[place] }
            place = (place + 1) & mask
        }
        return -1
    }

    private mutating func add(
        _ series: UnsafeBufferPointer<UInt8>, _ sample: Int, _ fresh: inout [Fresh]
    ) throws -> Int32 {
        let index = Int32(entries.count)
        let labels = try finalLabels(series)
        entries.append(
            Entry(
                start: Int32(text.count), length: Int32(series.count), seen: -2, hasTimestamp: false,
                id: Entry.dropped))
        text.append(contentsOf: series)
        if entries.count * 4 > table.count * 3 { rebuildTable() } else { enter(index) }
        if let labels { fresh.append(Fresh(entry: index, index: sample, labels: labels)) }
        return index
    }

    private mutating func rebuildTable() {
        var size = 16
        while size * 3 < entries.count * 4 { size *= 2 }
        table = [Int32](repeating: -1, count: size)
        for index in entries.indices { enter(Int32(index)) }
    }

    private mutating func enter(_ index: Int32) {
        let entry = entries[Int(index)]
        let hash = text.withUnsafeBufferPointer {
            ExpositionParser.hash(UnsafeBufferPointer(rebasing: $0[Int(entry.start)..<Int(entry.start + entry.length)]))
        }
        let mask = table.count - 1
        var place = Int(truncatingIfNeeded: hash) & mask
        while table[place] >= 0 { place = (place + 1) & mask }
        table[place] = index
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
        // The parser has passed over the others already, but for a name that stands in braces.
        guard series.first != UInt8(ascii: "{") || target.filter?.keeps(labels.name) ?? true,
            let relabelled = RelabelRule.apply(target.metricRelabelRules, to: labels), !relabelled.name.isEmpty
        else { return nil }
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

    private mutating func forget(entriesFrom first: Int, textFrom textStart: Int) {
        guard first < entries.count else { return }
        entries.removeSubrange(first...)
        text.removeSubrange(textStart...)
        rebuildTable()
    }

    /// Forgets all numbers of the store, and asks for the source's again.
    private mutating func forget() {
        source = sink.source(target.labels)
        reportIDs = []
        forget(entriesFrom: 0, textFrom: 0)
        order = []
        orderSpans = []
        row = nil
    }

    /// Starts over with what the last scrape had, once more is remembered of series that are gone than of those that
    /// are there.
    private mutating func forgetIfGrown() {
        guard entries.count > 2 * order.count + 1000 else { return }
        let oldText = text
        let old = entries
        var moved: [Int32: Int32] = [:]
        text = []
        entries = []
        for (place, index) in order.enumerated() {
            // A line may stand twice.
            if let known = moved[index] {
                order[place] = known
                continue
            }
            var entry = old[Int(index)]
            let series = oldText[Int(entry.start)..<Int(entry.start + entry.length)]
            entry.start = Int32(text.count)
            moved[index] = Int32(entries.count)
            order[place] = Int32(entries.count)
            entries.append(entry)
            text.append(contentsOf: series)
        }
        rebuildTable()
    }

    // MARK: The scrape's own series

    private static let reportNames = [
        "up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling",
        "scrape_series_added",
    ]

    private mutating func resolveReport() {
        guard reportIDs.isEmpty else { return }
        reportIDs = sink.ids(
            for: ScrapeSession.reportNames.map { name in
                var labels = target.labels
                labels[Labels.metricName] = name
                return labels
            })
    }

    private func report(up: Double, _ outcome: ScrapeOutcome, _ durationSeconds: Double) -> [Double] {
        [up, durationSeconds, Double(outcome.scraped), Double(outcome.kept), Double(outcome.added)]
    }
}
