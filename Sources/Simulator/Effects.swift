import Cluster
import Foundation

/// The effects of a scenario with their places and times: how much each process differs from its normal.
struct Effects: Sendable {
    /// How much a process differs: ratio, added, and since when it grows.
    struct Change: Sendable {
        var ratio: Double
        var add: Double
        var growth: Double
        var fromMs: Int64
        var throughMs: Int64
    }

    private var ofNodes: [Process: [Int: [Change]]] = [:]
    private var ofAll: [Process: [Change]] = [:]
    private(set) var onsetMs: Int64?
    private(set) var faultyBatches: Set<Int> = []

    init(_ scenario: Scenario, nodes: [SimulatedCluster.Node], upgrade: Upgrade, random: inout SimulatedRandom) {
        for fault in scenario.faults {
            add(fault, isFault: true, nodes: nodes, upgrade: upgrade, random: &random)
        }
        for nuisance in scenario.nuisances {
            add(nuisance, isFault: false, nodes: nodes, upgrade: upgrade, random: &random)
        }
    }

    private mutating func add(
        _ effect: Scenario.Effect, isFault: Bool, nodes: [SimulatedCluster.Node], upgrade: Upgrade,
        random: inout SimulatedRandom
    ) {
        func change(since stepMs: Int64) -> Change {
            let from = (effect.atMs.map { upgrade.startedMs + $0 } ?? stepMs) + effect.delayMs
            return Change(
                ratio: effect.ratio, add: effect.add, growth: effect.growth, fromMs: from,
                throughMs: min(
                    effect.durationMs.map { from + $0 } ?? .max,
                    // What the new version does wrong ends with it.
                    effect.atMs == nil ? upgrade.rolledBackMs ?? .max : .max))
        }
        func note(_ change: Change, _ batch: Int?) {
            guard isFault else { return }
            onsetMs = min(onsetMs ?? .max, change.fromMs)
            if let batch { faultyBatches.insert(batch) }
        }
        guard effect.process.isOfNodes else {
            let step = upgrade.steps.first { $0.component == effect.process.component } ?? upgrade.steps[0]
            let change = change(since: step.atMs)
            note(change, nil)
            ofAll[effect.process, default: []].append(change)
            return
        }
        let place = effect.place
        var left: [(index: Int, change: Change)] = []
        var chosen: [(index: Int, change: Change)] = []
        for (index, node) in nodes.enumerated() {
            let isChosen = random.uniform() < place.share
            if let zone = place.zone, node.zone != zone { continue }
            if let pool = place.pool, node.pool != pool { continue }
            if !place.batches.isEmpty, !place.batches.contains(node.batch ?? 0) { continue }
            let isTimed = effect.atMs != nil
            guard isTimed || node.stepMs != nil else { continue }
            let change = change(since: node.stepMs ?? upgrade.startedMs)
            if place.controlsOnly, let step = node.stepMs, step <= change.fromMs { continue }
            if isChosen { chosen.append((index, change)) } else { left.append((index, change)) }
        }
        // A part of the nodes is one of them at least.
        if chosen.isEmpty, place.share > 0, let first = left.first { chosen = [first] }
        for (index, change) in chosen {
            note(change, nodes[index].batch)
            ofNodes[effect.process, default: [:]][index, default: []].append(change)
        }
    }

    /// The changes of a process, of a node where it is of nodes.
    func changes(_ process: Process, node: Int? = nil) -> [Change] {
        node.map { ofNodes[process]?[$0] ?? [] } ?? ofAll[process] ?? []
    }
}

extension [Effects.Change] {
    /// Times as much at a time.
    func ratio(_ atMs: Int64) -> Double {
        var product = 1.0
        for change in self where atMs >= change.fromMs && atMs < change.throughMs {
            product *= change.ratio
            if change.growth != 0 { product *= 1 + change.growth * Double(atMs - change.fromMs) / 3_600_000 }
        }
        return product
    }

    /// How much more at a time.
    func added(_ atMs: Int64) -> Double {
        var sum = 0.0
        for change in self where atMs >= change.fromMs && atMs < change.throughMs { sum += change.add }
        return sum
    }
}
