import Cluster
import Series

/// When each unit of a signal went over to the new version: before, it is a control of those that did.
struct Cohorts: Sendable {
    /// From when to when a unit has the new version in part; it is neither treated nor a control then.
    struct Change: Sendable, Equatable {
        /// It is a control until then.
        var firstMs: Int64
        /// It is treated from then on.
        var lastMs: Int64
        var batch: Int?
        /// It is judged no longer than until then.
        var untilMs = Int64.max
    }

    /// By node and by instance.
    private var own: [String: Change] = [:]
    /// For units that have no step of their own; nil: they stay as they are.
    private var pool: Change?
    /// Whether units go over one by one.
    let isStaggered: Bool
    /// Batches whose nodes are not judged once they went over: what they have, they had before.
    var unjudged: Set<Int> = []

    /// - Parameters:
    ///   - component: whose steps count; empty: those of nodes, else all.
    ///   - atMs: steps after it are not known yet.
    init(_ upgrade: Upgrade, component: String, atMs: Int64) {
        let steps = upgrade.steps.filter { $0.atMs <= atMs }
        let nodeSteps = steps.filter { $0.isNode && ($0.node ?? $0.instance) != nil }
        let isOfNodes = component.isEmpty || Upgrade.nodeComponents.contains(component)
        isStaggered = isOfNodes && !nodeSteps.isEmpty
        func span(_ steps: [UpgradeStep]) -> Change? {
            guard let first = steps.map(\.atMs).min(), let last = steps.map(\.atMs).max() else { return nil }
            return Change(firstMs: first, lastMs: last, batch: nil)
        }
        if isStaggered {
            pool = span(nodeSteps)
            let exact = nodeSteps.filter { $0.component == component }
            for step in exact.isEmpty ? nodeSteps : exact {
                nodes.insert(step.node ?? step.instance ?? "")
                for name in Set([step.node, step.instance].compactMap { $0 }) {
                    let known = own[name]
                    own[name] = Change(
                        firstMs: min(known?.firstMs ?? .max, step.atMs), lastMs: max(known?.lastMs ?? .min, step.atMs),
                        batch: known?.batch ?? step.batch)
                }
            }
        } else if !component.isEmpty, let steps = span(steps.filter { $0.component == component }) {
            pool = steps
        } else {
            pool = span(steps.filter { !$0.isNode }) ?? span(steps)
        }
        if !isStaggered, pool == nil {
            let last = upgrade.finishedMs.map { min($0, atMs) } ?? upgrade.startedMs
            pool = Change(firstMs: upgrade.startedMs, lastMs: last, batch: nil)
        }
    }

    /// All units together, as they go over with the control plane, for as long as what follows can be its doing; nil
    /// where it has no step.
    init?(controlPlane upgrade: Upgrade, atMs: Int64) {
        let times = upgrade.steps.filter { !$0.isNode && $0.atMs <= atMs }.map(\.atMs)
        guard let first = times.min(), let last = times.max() else { return nil }
        pool = Change(firstMs: first, lastMs: last, batch: nil, untilMs: last + Comparison.aftermathMs)
        isStaggered = false
    }

    /// From when on something is judged; nil: nothing has gone over.
    func judgedFromMs(_ signal: Signal) -> Int64? {
        (own.values.map { signal.treatedFromMs($0) } + [pool].compactMap { $0 }.map { signal.treatedFromMs($0) }).min()
    }

    /// When the first unit of each batch went over, or all did.
    ///
    /// - Parameter batch: only this one, where units went over in batches; nil: each.
    func startsMs(batch: Int? = nil) -> [Change] {
        var first: [Int?: Change] = [:]
        for change in own.values where change.lastMs < first[change.batch]?.lastMs ?? .max {
            if let batch, change.batch != batch { continue }
            first[change.batch] = change
        }
        return isStaggered ? Array(first.values) : [pool].compactMap { $0 }
    }

    /// When a unit went over; nil: it did not.
    ///
    /// What is of no unit goes over with all.
    func change(of unit: String) -> Change? { own[unit] ?? (unit.isEmpty || !isStaggered ? pool : nil) }

    /// The batches in which units went over.
    var batches: [Int] { Set(own.values.compactMap(\.batch)).sorted() }

    /// The names of the nodes that went over.
    private(set) var nodes: Set<String> = []

    /// The last of all changes.
    var lastMs: Int64? { own.values.map(\.lastMs).max() ?? pool?.lastMs }
}

extension Cohorts {
    /// When half of the units had gone over.
    var middleMs: Int64 {
        let times = nodes.compactMap { own[$0]?.lastMs }.sorted()
        return times.isEmpty ? pool?.lastMs ?? 0 : times[times.count / 2]
    }
}

extension Cohorts {
    /// When what shows since a bin began: with the step, where it shows as soon as it can be seen.
    ///
    /// - Parameter batch: the only one whose step is meant; nil: any.
    func onsetMs(ofBin bin: Int, _ bins: Bins, _ signal: Signal, batch: Int? = nil) -> Int64 {
        let starts = startsMs(batch: batch).filter { abs(bins.firstIndex(from: signal.treatedFromMs($0)) - bin) <= 1 }
        return starts.map(\.firstMs).min() ?? bins.startMs(bin)
    }
}

extension Cohorts {
    /// The steps of batches, or of all, whose doing may have begun at a time: it shows from the begin of a step to
    /// shortly after it can be seen.
    func steps(at atMs: Int64, _ bins: Bins, _ signal: Signal) -> [Change] {
        let slackMs = 2 * bins.widthMs
        return spans.filter { change in
            atMs >= change.firstMs - slackMs && atMs <= signal.treatedFromMs(change) + Comparison.promptMs + slackMs
        }
    }

    /// From the first to the last unit of each batch, or of all.
    private var spans: [Change] {
        guard isStaggered else { return [pool].compactMap { $0 } }
        return Dictionary(grouping: own.values, by: \.batch).values.compactMap { changes in
            guard let first = changes.map(\.firstMs).min(), let last = changes.map(\.lastMs).max() else { return nil }
            return Change(firstMs: first, lastMs: last, batch: changes[0].batch)
        }
    }

    /// Why what began with no step is not told as worse.
    func strayWords(sinceMs: Int64, nowMs: Int64) -> String {
        let at = { (ms: Int64) in TimeFormat.rfc3339(ms: ms / 60_000 * 60_000) }
        let untilMs = sinceMs + Comparison.lastingMs
        guard untilMs > nowMs else {
            return
                "it was worse since \(at(sinceMs)), when nothing was upgraded, and did not last: more time is needed "
                + "to see it settled"
        }
        return "it is worse since \(at(sinceMs)), when nothing was upgraded: it counts if it lasts until \(at(untilMs))"
    }
}

extension Cohorts {
    /// Where a unit stands by bin.
    struct Ranges {
        /// It is a control in these; all where it does not go over.
        var controls: Range<Int>
        /// It is judged in these; between them it is on its way over and counts on no side.
        var treated: Range<Int>
    }

    /// - Parameters:
    ///   - count: how many bins are over.
    ///   - batch: only this one is judged; nil: any.
    func ranges(of unit: String, _ signal: Signal, _ bins: Bins, count: Int, batch: Int?) -> Ranges {
        guard let change = change(of: unit) else { return Ranges(controls: 0..<count, treated: count..<count) }
        let controls = max(0, min(count, bins.complete(atMs: change.firstMs - Comparison.guardMs)))
        let isOther = change.batch.map { $0 != batch ?? $0 || unjudged.contains($0) } ?? false
        let from = isOther ? count : min(count, max(controls, bins.firstIndex(from: signal.treatedFromMs(change))))
        let end = change.untilMs == .max ? count : min(count, bins.complete(atMs: change.untilMs))
        return Ranges(controls: 0..<controls, treated: from..<max(from, end))
    }
}

extension Signal {
    /// From when on a unit that went over is judged.
    func treatedFromMs(_ change: Cohorts.Change) -> Int64 {
        switch window {
        case .upgrade: change.firstMs
        case .soak: change.lastMs + (countsEvents ? Comparison.settleMs : Comparison.levelSettleMs)
        }
    }
}
