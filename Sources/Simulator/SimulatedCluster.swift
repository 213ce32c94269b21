import Cluster
import Foundation
import Series

/// A cluster that a scenario and a seed give: its nodes, the plan of its upgrade, and all of its series.
package struct SimulatedCluster: Sendable {
    package struct Node: Sendable {
        package var name: String
        package var zone: Int
        package var pool: String
        /// nil: it is not upgraded.
        package var batch: Int?
        package var stepMs: Int64?
        /// How much more trouble than others it has.
        var trouble: Double
    }

    package let scenario: Scenario
    package let seed: UInt64
    /// When data begins, when the upgrade does, and when all is over.
    package let startMs: Int64
    package let upgradeMs: Int64
    package let endMs: Int64
    package let nodes: [Node]
    /// As it is known in the end.
    package let upgrade: Upgrade
    package let source: SimulatedSource
    /// When the first fault of the upgrade shows; nil without one.
    package let onsetMs: Int64?
    /// The batches whose nodes have a fault; empty where it is no fault of nodes.
    package let faultyBatches: Set<Int>

    /// Simulated time begins on a Monday at midnight, so that days and weeks have their place.
    static let epochMs: Int64 = 1_767_571_200_000

    package init(_ scenario: Scenario, seed: UInt64) {
        self.scenario = scenario
        self.seed = seed
        var random = SimulatedRandom(seed: seed, stream: "cluster")
        // Not always at the same hour: the time of day must not matter.
        startMs = SimulatedCluster.epochMs + Int64(random.uniform() * 168) * 3_600_000
        upgradeMs = startMs + scenario.preMs
        let plan = RollOutPlan(scenario, upgradeMs: upgradeMs, random: &random)
        nodes = plan.nodes
        upgrade = plan.upgrade
        endMs = plan.lastMs + scenario.soakMs
        let effects = Effects(scenario, nodes: plan.nodes, upgrade: plan.upgrade, random: &random)
        onsetMs = effects.onsetMs
        faultyBatches = effects.faultyBatches
        let generator = SeriesGenerator(
            scenario: scenario, seed: seed, nodes: plan.nodes, upgrade: plan.upgrade, effects: effects,
            startMs: startMs, endMs: endMs)
        source = SimulatedSource(generator.series(), range: startMs...endMs)
    }

    /// The upgrade as far as it has come at a time; nil before its first step.
    package func upgrade(atMs: Int64) -> Upgrade? {
        guard upgrade.startedMs <= atMs else { return nil }
        var known = upgrade
        known.steps = upgrade.steps.filter { $0.atMs <= atMs }
        if let finished = upgrade.finishedMs, finished > atMs { known.finishedMs = nil }
        if let back = upgrade.rolledBackMs, back > atMs { known.rolledBackMs = nil }
        return known
    }
}

/// Which node goes over when.
private struct RollOutPlan {
    var nodes: [SimulatedCluster.Node]
    var upgrade: Upgrade
    var lastMs: Int64

    init(_ scenario: Scenario, upgradeMs: Int64, random: inout SimulatedRandom) {
        let topology = scenario.topology
        let plan = scenario.rollOut
        nodes = (0..<topology.nodes).map { index in
            let isNoisy = random.uniform() < scenario.noise.noisyNodes
            let spread = exp(scenario.noise.nodeSpread * random.normal())
            return SimulatedCluster.Node(
                name: "node-\(index + 1)", zone: index % topology.zones + 1,
                pool: topology.pools[index / topology.zones % topology.pools.count], batch: nil, stepMs: nil,
                trouble: (isNoisy ? 10 : 1) * spread)
        }
        var steps: [UpgradeStep] = []
        var atMs = upgradeMs
        var batch = 0
        if plan.includesControlPlane {
            batch = 1
            for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
                for index in 0..<topology.controlPlanes {
                    let port = component == "kube-apiserver" ? 6443 : component == "kube-scheduler" ? 10259 : 10257
                    steps.append(
                        UpgradeStep(
                            atMs: atMs, component: component, instance: "master-\(index + 1):\(port)", node: nil,
                            from: plan.from, to: plan.to, batch: batch))
                    atMs += 120_000
                }
            }
            atMs += plan.gapMs
        }
        var order = Array(nodes.indices)
        switch plan.order {
        case .stratified: break
        case .zones:
            let zones = nodes.map(\.zone)
            order.sort { (zones[$0], $0) < (zones[$1], $1) }
        case .random: order.shuffle(using: &random)
        }
        var done = 0
        for (index, share) in plan.batches.enumerated() {
            batch += 1
            let end = max(done + 1, Int((share * Double(nodes.count)).rounded()))
            let members = order[min(done, order.count)..<min(end, order.count)]
            for (place, node) in members.enumerated() {
                let stepMs = atMs + plan.batchMs * Int64(place) / Int64(max(1, members.count))
                nodes[node].batch = batch
                nodes[node].stepMs = stepMs
                steps.append(
                    UpgradeStep(
                        atMs: stepMs, component: "kubelet", instance: "\(nodes[node].name):10250",
                        node: nodes[node].name, from: plan.from, to: plan.to, batch: batch))
            }
            done = end
            atMs += plan.batchMs + plan.gapMs
            if plan.pauseAfter == index + 1 { atMs += plan.pauseMs }
            if plan.rollbackAfter == index + 1 { break }
        }
        var rolledBackMs: Int64?
        if plan.rollbackAfter != nil {
            atMs += plan.rollbackMs
            rolledBackMs = atMs
            for step in steps {
                var back = step
                back.atMs = atMs
                (back.from, back.to) = (step.to, step.from)
                back.batch = batch + 1
                steps.append(back)
                atMs += 5000
            }
        }
        let first = steps[0].atMs
        lastMs = steps[steps.count - 1].atMs
        upgrade = Upgrade(
            id: "simulated", from: plan.from, to: plan.to, startedMs: first, finishedMs: lastMs,
            steps: steps, detectedBy: "metrics", rolledBackMs: rolledBackMs)
    }
}
