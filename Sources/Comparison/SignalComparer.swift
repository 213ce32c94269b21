import Cluster
import Foundation
import PromQL
import Series
import Statistics

/// Compares signals one after another over the same windows.
struct SignalComparer {
    let input: ComparisonInput
    let upgrade: Upgrade
    let windows: Windows
    /// nil where the upgrade's versions can't be read.
    let continuity: MetricContinuity?
    private let increments: Increments
    private let bins: Bins
    private let engine = QueryEngine()

    /// How far before a window a counter's last value is looked for.
    private static let silenceMs: Int64 = 600_000

    init(input: ComparisonInput, upgrade: Upgrade, windows: Windows, continuity: MetricContinuity?) throws {
        self.input = input
        self.continuity = continuity
        self.upgrade = upgrade
        self.windows = windows
        bins = windows.bins
        increments = try Increments(
            source: input.source, fromMs: windows.baseline.fromMs - SignalComparer.silenceMs, throughMs: windows.nowMs)
    }

    mutating func compare(_ signal: Signal) throws -> (SignalResult, [Finding]) {
        if let blind = try blindness(signal) { return (blind, []) }
        switch signal.kind {
        case .ratio(let numerator, let denominator):
            let events = try tally(numerator, signal)
            return try counts(signal, events, exposures: try tally(denominator, signal))
        case .rate(let counter):
            return try counts(signal, try tally(counter, signal), exposures: nil)
        case .gauge(let expression): return try levels(signal, try gauges(expression, signal))
        case .quantile(let q, let histogram): return try levels(signal, try quantiles(q, histogram, signal))
        }
    }

    // MARK: Missing data

    private func blindness(_ signal: Signal) throws -> SignalResult? {
        let after = windows.after(signal)
        var result = SignalResult(signal: signal, status: .blind, baseline: nil, soak: nil, effect: nil, needs: nil)
        guard windows.baseline.seconds >= 120 else {
            result.needs = "there is no baseline: data from before the first step is missing"
            return result
        }
        guard after.seconds >= 30 else {
            result.status = .inconclusive
            result.needs = "the time after the upgrade has only begun"
            return result
        }
        guard let matchers = signal.presence else { return nil }
        let before = try areThere(matchers, windows.baseline)
        let now = try areThere(matchers, after)
        if before, now { return nil }
        // Where a summary became a histogram, sum and count go on: the mean can be compared.
        if case .quantile(_, let histogram) = signal.kind, let counts = SignalComparer.part(of: histogram, "_count"),
            try areThere(counts, windows.baseline), try areThere(counts, after)
        {
            return nil
        }
        let name = matchers.first { $0.name == Labels.metricName }?.value ?? signal.name
        if before, try answers(signal.component, after) {
            result.status = .changed
            result.needs = "\(name) is not exposed any more: it can't be compared across these versions"
            if let fate = continuity?.fate(of: MetricContinuity.family(of: name).name) {
                if fate.kind != .unknown { result.needs = "\(name) can't be compared: \(fate.explanation)" }
            }
        } else if now {
            result.status = .changed
            result.needs = "\(name) was not exposed before the upgrade: there is nothing to compare with"
        } else {
            result.needs = "no data of \(name)\(SignalComparer.hint(name, signal.component))"
        }
        return result
    }

    /// Whether there are values of some series within a time.
    private func areThere(_ matchers: [LabelMatcher], _ span: TimeSpan) throws -> Bool {
        try input.source.select(matchers, fromMs: span.fromMs, throughMs: span.throughMs)
            .contains { $0.values.contains { !$0.isNaN } }
    }

    /// The matchers of another part of a histogram, from those of its `_bucket`.
    private static func part(of histogram: Signal.Selection, _ suffix: String) -> [LabelMatcher]? {
        guard let name = histogram.matchers.first(where: { $0.name == Labels.metricName })?.value,
            name.hasSuffix("_bucket")
        else { return nil }
        return histogram.matchers.map {
            $0.name == Labels.metricName ? .equal(Labels.metricName, name.dropLast("_bucket".count) + suffix) : $0
        }
    }

    /// Where the missing data of a metric would come from.
    private static func hint(_ name: String, _ component: String) -> String {
        if name.hasPrefix("upgrade_watch_audit") { return ": is the API server's audit log among the log sources?" }
        if name.hasPrefix("upgrade_watch_log") { return ": are logs among the log sources?" }
        if name.hasPrefix("upgrade_watch_") { return ": no Kubernetes objects were observed" }
        return component.isEmpty ? "" : ": is \(component) scraped?"
    }

    /// Whether a target of a component was scraped with success within a time.
    private func answers(_ component: String, _ span: TimeSpan) throws -> Bool {
        var matchers: [LabelMatcher] = [.equal(Labels.metricName, "up")]
        if !component.isEmpty { matchers.append(.equal("job", component)) }
        return try input.source.select(matchers, fromMs: span.fromMs, throughMs: span.throughMs)
            .contains { $0.values.contains(1) }
    }

    // MARK: Counts

    /// Increases of counters, split by the signal's labels.
    struct Tally {
        var before = 0.0
        var after = 0.0
        var bins: [Double]
    }

    private func tally(_ selection: Signal.Selection, _ signal: Signal) throws -> [Labels: Tally] {
        let after = windows.after(signal)
        let series = try input.source.select(
            selection.matchers, fromMs: windows.baseline.fromMs - SignalComparer.silenceMs, throughMs: windows.nowMs)
        var tallies: [Labels: Tally] = [:]
        for one in series {
            let key = one.labels.keeping(signal.by)
            var tally = tallies[key] ?? Tally(bins: [Double](repeating: 0, count: bins.count))
            increments.each(of: one, fromMs: windows.baseline.fromMs, throughMs: windows.nowMs) { atMs, increase in
                if windows.baseline.contains(atMs) { tally.before += increase }
                if after.contains(atMs) { tally.after += increase }
                if let index = bins.index(of: atMs) { tally.bins[index] += increase }
            }
            tallies[key] = tally
        }
        return tallies
    }

    private func counts(
        _ signal: Signal, _ events: [Labels: Tally], exposures: [Labels: Tally]?
    ) throws -> (SignalResult, [Finding]) {
        let none = Tally(bins: [Double](repeating: 0, count: bins.count))
        var findings: [Finding] = []
        var worst = SignalResult.Status.ok
        let level = 1 - (1 - Comparison.confidence) / Double(max(1, events.count))
        for (key, tally) in events.sorted(by: { $0.key < $1.key }) {
            let exposure = exposures.map { $0[key] ?? none }
            let outcome = judge(signal, tally, exposure, confidence: level)
            let isPreexisting = signal.preexistingEvents.map { tally.before >= $0 } ?? false
            guard outcome.status == .worse || (isPreexisting && tally.after >= 1) else { continue }
            if !isPreexisting { worst = .worse }
            findings.append(try countFinding(signal, key, outcome, tally, exposure, isPreexisting: isPreexisting))
        }
        var sum = none
        for tally in events.values { sum = SignalComparer.add(sum, tally) }
        let total = exposures.map { $0.values.reduce(none) { SignalComparer.add($0, $1) } }
        var result = judge(signal, sum, total, confidence: Comparison.confidence)
        if worst == .worse {
            result.status = .worse
        } else if result.status == .worse {
            // No split is worse by itself, or only what was in trouble before: the sum blames nobody.
            let blamed = findings.contains { $0.cause.kind == .preexisting }
            result.status = blamed || !signal.by.isEmpty ? .ok : .worse
            result.needs = nil
        } else if !signal.by.isEmpty, findings.contains(where: { $0.cause.kind == .preexisting }) {
            result.status = .ok
            result.needs = nil
        }
        return (result, findings)
    }

    private static func add(_ a: Tally, _ b: Tally) -> Tally {
        Tally(before: a.before + b.before, after: a.after + b.after, bins: zip(a.bins, b.bins).map { $0 + $1 })
    }

    private func judge(_ signal: Signal, _ events: Tally, _ exposure: Tally?, confidence: Double) -> SignalResult {
        let after = windows.after(signal)
        let exposureBefore = exposure?.before ?? windows.baseline.seconds
        let exposureAfter = exposure?.after ?? after.seconds
        var result = SignalResult(
            signal: signal, status: .inconclusive, baseline: nil, soak: nil, effect: nil, needs: nil)
        guard exposureAfter > 0, exposureBefore > 0 else {
            result.needs =
                exposureAfter > 0 ? "nothing happened before the upgrade to compare with" : "nothing happened since"
            if exposureBefore > 0 { result.baseline = .init(value: events.before / exposureBefore, n: exposureBefore) }
            if exposureAfter > 0 { result.soak = .init(value: events.after / exposureAfter, n: exposureAfter) }
            return result
        }
        let valueBefore = events.before / exposureBefore
        let valueAfter = events.after / exposureAfter
        result.baseline = .init(value: valueBefore, n: exposure == nil ? events.before : exposureBefore)
        result.soak = .init(value: valueAfter, n: exposure == nil ? events.after : exposureAfter)
        let dispersion = dispersion(events, exposure)
        guard
            let interval = RateRatio.interval(
                before: events.before, exposureBefore: exposureBefore, after: events.after,
                exposureAfter: exposureAfter, dispersion: dispersion, confidence: confidence)
        else { return result }
        result.effect = Effect(kind: .rateRatio, interval: interval)
        let difference = valueAfter - valueBefore
        let halfFloor = signal.halfFloor
        // The most that the rate afterwards may be, from its own count: what holds where the baseline has no events.
        let mostAfter =
            RateRatio.upperLimit(
                count: events.after / dispersion, exposure: exposureAfter, confidence: confidence) * dispersion
        let isSmall = mostAfter - valueBefore < signal.absoluteFloor
        switch signal.direction {
        case .up:
            if interval.estimate >= signal.relativeFloor, difference >= signal.absoluteFloor,
                interval.low > halfFloor, events.after >= signal.minEvents,
                isMore(signal, events, exposure, exposureBefore, dispersion, confidence: confidence)
            {
                result.status = .worse
            } else if interval.high < 1 / halfFloor {
                result.status = .better
            } else if interval.high < signal.relativeFloor || isSmall {
                result.status = .ok
            }
        case .down:
            if interval.estimate <= 1 / signal.relativeFloor, -difference >= signal.absoluteFloor,
                interval.high < 1 / halfFloor, events.before >= signal.minEvents
            {
                result.status = .worse
            } else if interval.low > halfFloor {
                result.status = .better
            } else if interval.low > 1 / signal.relativeFloor {
                result.status = .ok
            }
        }
        if result.status == .inconclusive {
            result.needs = needs(signal, events, exposureBefore, exposureAfter, after, isRate: exposure == nil)
        }
        return result
    }

    /// Whether the events since the upgrade are too many at any time at which one may look.
    ///
    /// A comparison is made again every minute or so; an interval for one look alone would some day miss its truth. The
    /// rate before is taken at its upper limit, for a tenth of the level.
    private func isMore(
        _ signal: Signal, _ events: Tally, _ exposure: Tally?, _ exposureBefore: Double, _ dispersion: Double,
        confidence: Double
    ) -> Bool {
        let after = windows.after(signal)
        let level = 1 - confidence
        let most =
            RateRatio.upperLimit(
                count: events.before / dispersion, exposure: exposureBefore, confidence: 1 - level / 10) * dispersion
        // Half of the floors is the null's; the whole of them the estimate must reach.
        let allowed = max(
            most * signal.halfFloor, events.before / exposureBefore + signal.absoluteFloor / 2)
        let soak = bins.firstIndex(from: after.fromMs)..<bins.count
        // For the whole soak, not for what has passed of it: the plan must not depend on when one looks.
        let planned = Int(input.soakMs / bins.widthMs)
        var process = CountEProcess(nullRatio: 1, dispersion: dispersion, plannedBins: planned)
        for index in soak {
            let end = min(bins.startMs(index) + bins.widthMs, bins.throughMs)
            let seen = exposure?.bins[index] ?? Double(end - bins.startMs(index)) / 1000
            process.add(treated: events.bins[index], expected: allowed * seen)
        }
        return process.logMaximum >= -log(level)
    }

    /// How much more data would decide.
    private func needs(
        _ signal: Signal, _ events: Tally, _ exposureBefore: Double, _ exposureAfter: Double, _ after: TimeSpan,
        isRate: Bool
    ) -> String {
        if events.before == 0, events.after == 0, signal.absoluteFloor > 0 {
            // Nothing happened: it takes this much exposure until the bound on the rate is under the margin.
            let limit = RateRatio.upperLimit(count: 0, exposure: 1, confidence: Comparison.confidence)
            let missing = limit / signal.absoluteFloor - exposureAfter
            let seconds = isRate ? missing : missing * after.seconds / exposureAfter
            return
                "no event so far; \(TimeFormat.duration(ms: max(60_000, Int64(seconds / 60) * 60_000))) more without one"
        }
        let share = exposureAfter / (exposureBefore + exposureAfter)
        let wanted = RateRatio.eventsNeeded(
            ratio: 1, bound: signal.relativeFloor, exposureShare: share, alpha: 1 - Comparison.confidence)
        let have = events.before + events.after
        guard wanted.isFinite, wanted > have else {
            return "the interval is still wider than the margin; more time is needed"
        }
        let more = Int((wanted - have).rounded(.up))
        guard events.after > 0 else { return "about \(more) more events" }
        let hours = (wanted - have) / (events.after / max(1, after.seconds)) / 3600
        return "about \(more) more events, which at the present rate take "
            + TimeFormat.duration(ms: max(60_000, Int64(hours * 60) * 60_000))
    }

    /// The overdispersion of the events before the upgrade.
    private func dispersion(_ events: Tally, _ exposure: Tally?) -> Double {
        let last = bins.index(of: windows.baseline.throughMs) ?? 0
        let counts = Array(events.bins[..<last])
        let exposures = exposure.map { Array($0.bins[..<last]) } ?? [Double](repeating: 1, count: last)
        return RateRatio.dispersion(counts: counts, exposures: exposures)
    }

    private func countFinding(
        _ signal: Signal, _ key: Labels, _ outcome: SignalResult, _ events: Tally, _ exposure: Tally?,
        isPreexisting: Bool
    ) throws -> Finding {
        let exposures = exposure?.bins ?? [Double](repeating: Double(bins.widthMs) / 1000, count: bins.count)
        let timeline = bins.timeline { exposures[$0] > 0 ? events.bins[$0] / exposures[$0] : nil }
        var onsetMs: Int64?
        if !isPreexisting, let index = ChangePoint.poissonStep(counts: events.bins, exposures: exposures) {
            onsetMs = bins.startMs(index)
        }
        let evidence = try evidence(signal, key, events)
        // Where nothing was before, the first line that shows it is nearer to the truth than the edge of a bin.
        if events.before == 0, let first = evidence.first(where: { $0.kind != .metric })?.firstMs, let onset = onsetMs {
            onsetMs = max(onset, first)
        }
        let finding = Finding(
            signal: signal.name, severity: isPreexisting ? .info : signal.severity, summary: "",
            scope: scope(signal, key, onsetMs), unit: signal.unit, before: outcome.baseline?.value,
            after: outcome.soak?.value, effect: outcome.effect, onsetMs: onsetMs, isExpected: false,
            cause: FindingCause(kind: .unknown, step: nil, explanation: ""),
            evidence: evidence, timeline: timeline)
        return try explain(finding, signal, key, isPreexisting: isPreexisting)
    }

    // MARK: Levels

    /// The values of a level in bins, before and after.
    private struct Level {
        var before: [Double] = []
        var after: [Double] = []
        /// Whether the comparison is of logarithms: of ratios.
        var isLogarithmic = false
        var timeline: [(atMs: Int64, value: Double)] = []

        /// Adds the value of a bin, to the side that it is of.
        mutating func add(_ value: Double, _ bins: Bins, _ index: Int, _ baseline: TimeSpan, _ soak: TimeSpan) {
            let start = bins.startMs(index)
            timeline.append((start, value))
            if start >= baseline.fromMs, start + bins.widthMs <= baseline.throughMs { before.append(log(value)) }
            if start >= soak.fromMs { after.append(log(value)) }
        }
    }

    private func gauges(_ expression: String, _ signal: Signal) throws -> [Labels: Level] {
        var levels: [Labels: Level] = [:]
        func run(_ span: TimeSpan, _ add: (inout Level, Double) -> Void) throws {
            guard span.seconds > 0 else { return }
            let result = try engine.range(
                expression, startMs: span.fromMs + bins.widthMs, endMs: span.throughMs, stepMs: bins.widthMs,
                source: input.source)
            guard case .matrix(let matrix) = result.value else { return }
            for series in matrix {
                for (atMs, value) in zip(series.timestampsMs, series.values) where value.isFinite {
                    add(&levels[series.labels, default: Level()], value)
                    levels[series.labels]?.timeline.append((atMs, value))
                }
            }
        }
        let after = windows.after(signal)
        if windows.baseline.seconds * 1000 > Double(bins.widthMs) { try run(windows.baseline) { $0.before.append($1) } }
        if after.seconds * 1000 > Double(bins.widthMs) { try run(after) { $0.after.append($1) } }
        return levels
    }

    private func quantiles(_ q: Double, _ histogram: Signal.Selection, _ signal: Signal) throws -> [Labels: Level] {
        let after = windows.after(signal)
        if try !areThere(histogram.matchers, windows.baseline) || !areThere(histogram.matchers, after) {
            return try means(histogram, signal)
        }
        let series = try input.source.select(
            histogram.matchers, fromMs: windows.baseline.fromMs - SignalComparer.silenceMs, throughMs: windows.nowMs)
        var buckets: [Labels: [Double: [Double]]] = [:]
        // The bounds that each side has: quantiles are compared on those of both, for a finer bucket alone moves them.
        var sides: [Labels: (before: Set<Double>, after: Set<Double>)] = [:]
        for one in series {
            guard let le = one.labels["le"], let upper = ClassicHistogram.bound(le) else { continue }
            let key = one.labels.keeping(signal.by)
            if one.timestampsMs.contains(where: windows.baseline.contains) {
                sides[key, default: ([], [])].before.insert(upper)
            }
            if one.timestampsMs.contains(where: after.contains) { sides[key, default: ([], [])].after.insert(upper) }
            var counts = buckets[key]?[upper] ?? [Double](repeating: 0, count: bins.count)
            increments.each(of: one, fromMs: windows.baseline.fromMs, throughMs: windows.nowMs) { atMs, increase in
                if let index = bins.index(of: atMs) { counts[index] += increase }
            }
            buckets[key, default: [:]][upper] = counts
        }
        var levels: [Labels: Level] = [:]
        for (key, byBound) in buckets {
            var bounds = byBound.keys.sorted()
            if let both = sides[key], !both.before.isEmpty, !both.after.isEmpty {
                bounds = both.before.intersection(both.after).sorted()
            }
            var level = Level(isLogarithmic: true)
            for index in 0..<bins.count {
                let list = bounds.map { ClassicHistogram.Bucket(upper: $0, count: byBound[$0]?[index] ?? 0) }
                guard let total = list.last?.count, total >= signal.minEvents else { continue }
                let value = ClassicHistogram.quantile(q, list).value
                guard value.isFinite, value > 0 else { continue }
                level.add(value, bins, index, windows.baseline, after)
            }
            levels[key] = level
        }
        return levels
    }

    /// The means of a histogram's observations, for one whose buckets are not on both sides.
    private func means(_ histogram: Signal.Selection, _ signal: Signal) throws -> [Labels: Level] {
        guard let sumMatchers = SignalComparer.part(of: histogram, "_sum"),
            let countMatchers = SignalComparer.part(of: histogram, "_count")
        else { return [:] }
        func increases(_ matchers: [LabelMatcher]) throws -> [Labels: [Double]] {
            var found: [Labels: [Double]] = [:]
            for one in try input.source.select(
                matchers, fromMs: windows.baseline.fromMs - SignalComparer.silenceMs, throughMs: windows.nowMs)
            {
                let key = one.labels.keeping(signal.by)
                var counts = found[key] ?? [Double](repeating: 0, count: bins.count)
                increments.each(of: one, fromMs: windows.baseline.fromMs, throughMs: windows.nowMs) { atMs, increase in
                    if let index = bins.index(of: atMs) { counts[index] += increase }
                }
                found[key] = counts
            }
            return found
        }
        let sums = try increases(sumMatchers)
        let after = windows.after(signal)
        var levels: [Labels: Level] = [:]
        for (key, counts) in try increases(countMatchers) {
            var level = Level(isLogarithmic: true)
            for index in 0..<bins.count where counts[index] >= signal.minEvents {
                let value = (sums[key]?[index] ?? 0) / counts[index]
                if value.isFinite, value > 0 { level.add(value, bins, index, windows.baseline, after) }
            }
            levels[key] = level
        }
        return levels
    }

    private func levels(_ signal: Signal, _ levels: [Labels: Level]) throws -> (SignalResult, [Finding]) {
        var findings: [Finding] = []
        var results: [SignalResult] = []
        let confidence = 1 - (1 - Comparison.confidence) / Double(max(1, levels.count))
        for (key, level) in levels.sorted(by: { $0.key < $1.key }) {
            let result = judge(signal, level, confidence: confidence)
            results.append(result)
            guard result.status == .worse else { continue }
            let cut = windows.after(signal).fromMs
            let finding = Finding(
                signal: signal.name, severity: signal.severity, summary: "", scope: scope(signal, key, cut),
                unit: signal.unit, before: result.baseline?.value, after: result.soak?.value, effect: result.effect,
                onsetMs: onset(signal, level), isExpected: false,
                cause: FindingCause(kind: .unknown, step: nil, explanation: ""),
                evidence: try evidence(signal, key, nil),
                timeline: level.timeline)
            findings.append(try explain(finding, signal, key, isPreexisting: false))
        }
        // The row of the signal is its worst split; all splits must be well for it to be.
        let order: [SignalResult.Status] = [.worse, .changed, .blind, .inconclusive, .ok, .better]
        let worst = results.min { (order.firstIndex(of: $0.status) ?? 0) < (order.firstIndex(of: $1.status) ?? 0) }
        let empty = SignalResult(
            signal: signal, status: .blind, baseline: nil, soak: nil, effect: nil, needs: "no data of the signal")
        return (worst ?? empty, findings)
    }

    private func judge(_ signal: Signal, _ level: Level, confidence: Double) -> SignalResult {
        var result = SignalResult(
            signal: signal, status: .inconclusive, baseline: nil, soak: nil, effect: nil, needs: nil)
        let value = { (values: [Double]) -> Double? in
            guard !values.isEmpty else { return nil }
            let mean = values.reduce(0, +) / Double(values.count)
            return level.isLogarithmic ? exp(mean) : mean
        }
        let before = value(level.before)
        let after = value(level.after)
        result.baseline = before.map { .init(value: $0, n: Double(level.before.count)) }
        result.soak = after.map { .init(value: $0, n: Double(level.after.count)) }
        guard let before, let after,
            let shift = MeanShift.interval(before: level.before, after: level.after, confidence: confidence)
        else {
            result.needs = "too few values on one side: \(level.before.count) before, \(level.after.count) after"
            return result
        }
        let difference: Interval
        if level.isLogarithmic {
            difference = Interval(
                estimate: after - before, low: before * (exp(shift.low) - 1), high: before * (exp(shift.high) - 1))
            result.effect = Effect(
                kind: .rateRatio,
                interval: Interval(estimate: exp(shift.estimate), low: exp(shift.low), high: exp(shift.high)))
        } else {
            difference = shift
            result.effect = Effect(kind: .difference, interval: shift)
        }
        // Turned so that more is worse.
        let sign: Double = signal.direction == .up ? 1 : -1
        let (low, high) = sign > 0 ? (difference.low, difference.high) : (-difference.high, -difference.low)
        let relative = abs(before) * (signal.relativeFloor - 1)
        let floor = max(relative, signal.absoluteFloor)
        if sign * difference.estimate >= floor, difference.estimate != 0, low > floor / 2 {
            result.status = .worse
        } else if high < -floor / 2 {
            result.status = .better
        } else if high < floor || (low == 0 && high == 0) {
            result.status = .ok
        } else {
            result.needs = "the interval is still wider than the margin; more time is needed"
        }
        return result
    }

    /// The time from which the level is nearer to that after than to that before.
    private func onset(_ signal: Signal, _ level: Level) -> Int64? {
        let mean = { (values: [Double]) in values.reduce(0, +) / Double(max(1, values.count)) }
        let middle = (mean(level.before) + mean(level.after)) / 2
        let isAfter = { (value: Double) in
            let scaled = level.isLogarithmic ? log(value) : value
            return signal.direction == .up ? scaled > middle : scaled < middle
        }
        return level.timeline.first { $0.atMs > windows.baseline.throughMs && isAfter($0.value) }?.atMs
    }

    // MARK: Words

    private func scope(_ signal: Signal, _ key: Labels, _ onsetMs: Int64?) -> FindingScope {
        var rest = key
        let node = rest["node"]
        let namespace = rest["namespace"]
        let workload = rest["workload"]
        rest = rest.removing(["node", "namespace", "workload"])
        let step = upgrade.steps.last { $0.node != nil && $0.node == node }
        return FindingScope(
            component: signal.component.isEmpty ? nil : signal.component, node: node, namespace: namespace,
            workload: workload, batch: step?.batch, labels: rest)
    }

    private func evidence(_ signal: Signal, _ key: Labels, _ events: Tally?) throws -> [Evidence] {
        let selection: Signal.Selection
        switch signal.kind {
        case .ratio(let numerator, _): selection = numerator
        case .rate(let counter): selection = counter
        case .quantile(let q, let histogram):
            return [metric("histogram_quantile(\(GoFloat.text(q)), sum by (le) (rate(\(histogram.text)[5m])))")]
        case .gauge(let expression): return [metric(expression)]
        }
        let scoped = selection.matchers + key.pairs.map { .equal($0.name, $0.value) }
        var found: [Evidence] = []
        if selection.matchers.contains(where: { $0.name == Labels.metricName && $0.value.hasPrefix("upgrade_watch_") })
        {
            found = try input.logEvidence(scoped).map(\.evidence)
        }
        let names = key.pairs.map { "\($0.name)=\(Labels.quoted($0.value))" }
        let by = signal.by.isEmpty ? "" : " by (\(signal.by.joined(separator: ", ")))"
        let shown = names.isEmpty ? "" : " of \(names.joined(separator: ", "))"
        found.append(metric("sum\(by) (increase(\(selection.text)[5m]))\(shown)", count: Int(events?.after ?? 0)))
        return found
    }

    private func metric(_ query: String, count: Int = 0) -> Evidence {
        Evidence(kind: .metric, text: query, count: count, firstMs: windows.baseline.throughMs, lastMs: windows.nowMs)
    }

    private func explain(_ finding: Finding, _ signal: Signal, _ key: Labels, isPreexisting: Bool) throws -> Finding {
        var finding = finding
        let change =
            "\(Units.text(finding.before, signal.unit)) before, \(Units.text(finding.after, signal.unit)) after"
        let about = signal.about.isEmpty ? signal.name : signal.about
        if let client = key["client"], let path = key["path"] {
            finding.summary = "\(client): \(key["verb"] ?? "request") \(path): \(about): \(change)"
        } else {
            let place = key.pairs.map { "\($0.name) \($0.value)" }.joined(separator: ", ")
            finding.summary = "\(about)\(place.isEmpty ? "" : " (\(place))"): \(change)"
        }
        if isPreexisting {
            finding.cause = FindingCause(
                kind: .preexisting, step: nil,
                explanation: "it was so before the upgrade began; a restart of the kubelet begins its back-off anew, "
                    + "which changes the rate and is no new fault")
            finding.summary += "; it was in trouble before the upgrade"
            return finding
        }
        let onset = finding.onsetMs ?? windows.after(signal).fromMs
        let component = signal.component.isEmpty ? nil : signal.component
        guard
            let index = upgrade.step(
                before: onset, component: component, node: finding.scope.node, slackMs: 2 * bins.widthMs)
        else {
            finding.cause.explanation = "no step of the upgrade comes before it"
            return finding
        }
        let step = upgrade.steps[index]
        let place2 = step.node.map { " on \($0)" } ?? ""
        var words = "began with the step of \(step.component)\(place2) from \(step.from) to \(step.to)"
        if let removal = try removedAPI(key) { words += "; \(removal)" }
        finding.cause = FindingCause(kind: .upgradeStep, step: index, explanation: words)
        if finding.scope.batch == nil { finding.scope.batch = step.batch }
        return finding
    }

    /// Whether the requests of a split went to an API version that the way of the upgrade has left behind, by what the
    /// old API server said of it (`apiserver_requested_deprecated_apis`, KEP-1693).
    private func removedAPI(_ key: Labels) throws -> String? {
        guard let version = key["version"], let resource = key["resource"], let from = KubernetesVersion(upgrade.from),
            let to = KubernetesVersion(upgrade.to)
        else { return nil }
        let group = key["group"] ?? ""
        let name = group.isEmpty ? version : "\(group)/\(version)"
        for series in try input.source.select(
            [
                .equal(Labels.metricName, "apiserver_requested_deprecated_apis"), .equal("group", group),
                .equal("version", version),
            ], fromMs: windows.baseline.fromMs, throughMs: windows.nowMs)
        {
            guard series.labels["resource"] == resource.split(separator: "/").first.map(String.init),
                let release = series.labels["removed_release"].flatMap({ KubernetesVersion($0) }),
                KubernetesVersion.path(from: from, to: to, crosses: release)
            else { continue }
            return "the API version \(name) is no longer served from \(release) on"
        }
        return nil
    }
}

extension Bins {
    /// The values of the bins that have one, with the middle of each bin.
    func timeline(_ value: (Int) -> Double?) -> [(atMs: Int64, value: Double)] {
        (0..<count).compactMap { index in value(index).map { (startMs(index) + widthMs / 2, $0) } }
    }
}

/// Values in words.
package enum Units {
    /// A value with its unit, in a form that people read.
    package static func text(_ value: Double?, _ unit: String) -> String {
        guard let value else { return "nothing" }
        switch unit {
        case "ratio": return "\(short(value * 100)) %"
        case "seconds": return value < 1 ? "\(short(value * 1000)) ms" : "\(short(value)) s"
        case "bytes": return value >= 1_048_576 ? "\(short(value / 1_048_576)) MiB" : "\(short(value / 1024)) KiB"
        case "1/s": return value > 0 && value < 0.1 ? "\(short(value * 3600)) an hour" : "\(short(value)) a second"
        case "": return short(value)
        default: return "\(short(value)) \(unit)"
        }
    }

    private static func short(_ value: Double) -> String {
        let text = String(format: "%.3g", value)
        return text.contains("e") ? String(format: "%.0f", value) : text
    }
}
