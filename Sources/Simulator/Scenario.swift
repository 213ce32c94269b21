import Cluster
import Comparison
import Series
import StrictYAML

/// A cluster, its upgrade, and what goes wrong on the way, as a file describes it: `docs/soakbench.md`.
package struct Scenario: Sendable {
    /// What the verdict should be.
    package enum Expectation: String, Sendable, CaseIterable {
        case pass, fail, blind
        /// Any but FAIL: what there is to see is not the upgrade's.
        case notFail = "not_fail"
        /// Too small to be asked for: it is measured and counts nowhere.
        case any
    }

    package struct Topology: Sendable {
        package var nodes = 60
        package var zones = 3
        /// Names of instance types, given to nodes in turn.
        package var pools = ["general"]
        package var workloads = 30
        package var controlPlanes = 3
    }

    package struct Load: Sendable {
        /// How far the rate goes up and down within a day and a week, as parts of its mean.
        package var daily = 0.3
        package var weekly = 0.1
        /// The standard deviation of its slow noise.
        package var noise = 0.05
        /// Requests a second of each API server, on the mean.
        package var requestsPerSecond = 50.0
    }

    package struct Noise: Sendable {
        /// Variance over mean of restarts, evictions and errors.
        package var dispersion = 2.0
        /// The part of nodes with ten times as much trouble as others.
        package var noisyNodes = 0.02
        /// The standard deviation of what all nodes of a zone have in common.
        package var zoneShocks = 0.05
        /// The standard deviation between nodes.
        package var nodeSpread = 0.2
    }

    package enum Order: String, Sendable, CaseIterable {
        /// Each batch has its share of every zone.
        case stratified
        /// Zone after zone.
        case zones
        case random
    }

    package struct RollOut: Sendable {
        /// The versions, as components write them.
        package var from = "v1.32.9"
        package var to = "v1.33.5"
        /// Whether the control plane goes first.
        package var includesControlPlane = true
        /// The part of nodes that is upgraded with each batch and all before it; empty: none is.
        package var batches = [0.05, 0.2, 0.5, 1]
        package var gapMs: Int64 = 1_800_000
        /// How long the nodes of a batch take.
        package var batchMs: Int64 = 600_000
        package var order = Order.stratified
        /// After this batch nothing happens for a while.
        package var pauseAfter: Int?
        package var pauseMs: Int64 = 14_400_000
        /// After this batch all goes back to the old version, when it was watched for so long.
        package var rollbackAfter: Int?
        package var rollbackMs: Int64 = 7_200_000
    }

    /// Which nodes, or which other places, an effect has.
    package struct Place: Sendable, Equatable {
        package var batches: [Int] = []
        package var zone: Int?
        package var pool: String?
        /// The part of the nodes that are left.
        package var share = 1.0
        /// Only nodes that have not been upgraded at the time of the effect's beginning.
        package var controlsOnly = false
    }

    /// Something that changes what a process does: a fault of the upgrade, or a nuisance.
    package struct Effect: Sendable {
        package var process: Process
        /// Times as many, as long, as large.
        package var ratio = 1.0
        /// More: events an hour, or a part of requests.
        package var add = 0.0
        /// Growth in an hour, as a part.
        package var growth = 0.0
        package var place = Place()
        /// Since the step of each node, or of the component.
        package var delayMs: Int64 = 0
        /// Since the upgrade's begin, not each step; nil: since the steps.
        package var atMs: Int64?
        package var durationMs: Int64?
    }

    /// A nuisance that is no process's.
    package enum Disturbance: Sendable {
        /// Requests, times so many.
        case traffic(factor: Double, atMs: Int64, durationMs: Int64)
        /// Scrapes fail: this part of them.
        case scrapeGaps(share: Double)
        /// Processes start anew so often a day.
        case counterResets(perDay: Double)
        /// Nodes' clocks go wrong by up to this much.
        case clockSkew(ms: Int64)
        /// Workloads get new pods, and with them new series, at a time.
        case churn(share: Double, atMs: Int64)
        /// The control plane's histograms have other buckets after the upgrade.
        case bucketChange
        /// A job's targets can't be scraped any more since the upgrade.
        case blind(job: String)
    }

    package var name: String
    package var file: String
    package var preMs: Int64 = 72 * 3_600_000
    package var soakMs: Int64 = 24 * 3_600_000
    package var scrapeMs: Int64 = 60_000
    /// How often somebody looks while the upgrade goes on and for two hours after; later a third as often.
    package var lookMs: Int64 = 300_000
    package var topology = Topology()
    package var load = Load()
    package var noise = Noise()
    package var rollOut = RollOut()
    package var faults: [Effect] = []
    package var nuisances: [Effect] = []
    package var disturbances: [Disturbance] = []
    package var expectation = Expectation.pass
    /// The components that may be blamed; empty: that of the faults' processes.
    package var components: [String] = []
    /// With how many seeds it is run where only the first one is asked for.
    package var seeds = 3

    /// - Throws: `YAMLProblems` with the place of every fault.
    package static func load(file: String) throws -> Scenario { try load(YAMLDocument(file: file), file: file) }

    package static func load(text: String, file: String) throws -> Scenario {
        try load(YAMLDocument(text: text, file: file), file: file)
    }

    private static func load(_ document: YAMLDocument, file: String) throws -> Scenario {
        let stem = file.split(separator: "/").last.map(String.init) ?? file
        var scenario = Scenario(name: stem.replacing(".yaml", with: ""), file: file)
        _ = document.root.fields { scenario.read(&$0) }
        try document.finish()
        return scenario
    }

    private mutating func read(_ fields: inout YAMLFields) {
        name = fields.string("name") ?? name
        _ = fields.string("about")
        preMs = Scenario.positive(&fields, "pre") ?? preMs
        soakMs = Scenario.positive(&fields, "soak") ?? soakMs
        scrapeMs = Scenario.positive(&fields, "scrape_interval") ?? scrapeMs
        lookMs = Scenario.positive(&fields, "look_interval") ?? lookMs
        fields.take("topology")?.fields { fields in
            topology.nodes = Scenario.count(&fields, "nodes", 1...20_000) ?? topology.nodes
            topology.zones = Scenario.count(&fields, "zones", 1...100) ?? topology.zones
            let pools = fields.stringList("pools")
            if !pools.isEmpty { topology.pools = pools }
            topology.workloads = Scenario.count(&fields, "workloads", 1...10_000) ?? topology.workloads
            topology.controlPlanes = Scenario.count(&fields, "control_planes", 1...9) ?? topology.controlPlanes
        }
        fields.take("load")?.fields { fields in
            load.daily = Scenario.part(&fields, "daily") ?? load.daily
            load.weekly = Scenario.part(&fields, "weekly") ?? load.weekly
            load.noise = Scenario.part(&fields, "noise") ?? load.noise
            load.requestsPerSecond = Scenario.number(&fields, "requests_per_second", 0...1e6) ?? load.requestsPerSecond
        }
        fields.take("noise")?.fields { fields in
            noise.dispersion = Scenario.number(&fields, "dispersion", 1...1000) ?? noise.dispersion
            noise.noisyNodes = Scenario.part(&fields, "noisy_nodes") ?? noise.noisyNodes
            noise.zoneShocks = Scenario.part(&fields, "zone_shocks") ?? noise.zoneShocks
            noise.nodeSpread = Scenario.part(&fields, "node_spread") ?? noise.nodeSpread
        }
        fields.take("rollout")?.fields { readRollOut(&$0) }
        for value in fields.list("faults") {
            guard let effect = value.fields({ Scenario.effect(&$0, value) }) ?? nil else { continue }
            check(effect, value)
            faults.append(effect)
        }
        for value in fields.list("nuisances") { readNuisance(value) }
        expectation = faults.isEmpty ? .pass : .fail
        if let value = fields.take("expect"), let text = value.string {
            if let known = Expectation(rawValue: text) {
                expectation = known
            } else {
                value.report(
                    "unknown verdict \(Labels.quoted(text)); known are "
                        + Expectation.allCases.map(\.rawValue).joined(separator: ", "))
            }
            if expectation == .fail, faults.isEmpty { value.report("nothing fails: there are no faults") }
        }
        for value in fields.list("components") {
            guard let name = value.string else { continue }
            if !Scenario.jobs.contains(name) { value.report(Scenario.unknown("component", name, Scenario.jobs)) }
            components.append(name)
        }
        seeds = Scenario.count(&fields, "seeds", 1...1_000_000) ?? seeds
    }

    private mutating func readRollOut(_ fields: inout YAMLFields) {
        rollOut.from = fields.take("from")?.kubernetesVersion?.text ?? rollOut.from
        rollOut.to = fields.take("to")?.kubernetesVersion?.text ?? rollOut.to
        if let from = KubernetesVersion(rollOut.from), let to = KubernetesVersion(rollOut.to), from >= to {
            fields.value.report("it goes from \(rollOut.from) to \(rollOut.to), which is not a later version")
        }
        rollOut.includesControlPlane = fields.bool("control_plane") ?? true
        if let value = fields.take("batches") {
            rollOut.batches = value.list.compactMap(\.double)
            let isRising = zip(rollOut.batches, rollOut.batches.dropFirst()).allSatisfy { $0 < $1 }
            if !isRising || rollOut.batches.contains(where: { $0 <= 0 || $0 > 1 }) {
                value.report("batches are rising parts of all nodes, as in [0.05, 0.5, 1]")
            }
        }
        rollOut.gapMs = Scenario.duration(&fields, "gap") ?? rollOut.gapMs
        rollOut.batchMs = Scenario.duration(&fields, "batch_duration") ?? rollOut.batchMs
        if let value = fields.take("order"), let text = value.string {
            if let order = Order(rawValue: text) {
                rollOut.order = order
            } else {
                value.report("unknown order \(Labels.quoted(text)); known are stratified, zones and random")
            }
        }
        let batches = 1...max(1, rollOut.batches.count)
        rollOut.pauseAfter = Scenario.count(&fields, "pause_after", batches)
        rollOut.pauseMs = Scenario.duration(&fields, "pause") ?? rollOut.pauseMs
        rollOut.rollbackAfter = Scenario.count(&fields, "rollback_after", batches)
        rollOut.rollbackMs = Scenario.duration(&fields, "rollback_delay") ?? rollOut.rollbackMs
        if !rollOut.includesControlPlane, rollOut.batches.isEmpty {
            fields.value.report("nothing is upgraded: neither the control plane nor any batch")
        }
    }

    private mutating func readNuisance(_ value: YAMLValue) {
        value.fields { fields in
            let kind = fields.required("kind")
            switch kind?.string {
            case "traffic":
                let at = begin(&fields) ?? 0
                let factor = Scenario.number(&fields, "factor", 0...1000, isRequired: true) ?? 1
                let ms = Scenario.positive(&fields, "duration") ?? 365 * 86_400_000
                disturbances.append(.traffic(factor: factor, atMs: at, durationMs: ms))
            case "scrape_gaps":
                disturbances.append(.scrapeGaps(share: Scenario.share(&fields)))
            case "counter_resets":
                let perDay = Scenario.number(
                    &fields, "per_day", .leastNonzeroMagnitude...1440, isRequired: true,
                    words: "per_day is over 0 and up to 1440")
                disturbances.append(.counterResets(perDay: perDay ?? 1))
            case "clock_skew":
                disturbances.append(.clockSkew(ms: Scenario.positive(&fields, "by", isRequired: true) ?? 0))
            case "churn":
                disturbances.append(.churn(share: Scenario.share(&fields), atMs: begin(&fields) ?? 0))
            case "bucket_change": disturbances.append(.bucketChange)
            case "blind":
                let job = fields.required("job")
                if let job, let name = job.string {
                    if !Scenario.jobs.contains(name) {
                        job.report(Scenario.unknown("job", name, Scenario.jobs))
                    }
                    disturbances.append(.blind(job: name))
                }
            case "effect":
                if let process = Scenario.process(&fields, "process") {
                    let effect = Scenario.effect(&fields, process: process, atMs: Scenario.duration(&fields, "at"))
                    Scenario.checkChange(effect, value)
                    check(effect, value)
                    nuisances.append(effect)
                }
            case let other?:
                kind?.report(
                    "unknown nuisance \(Labels.quoted(other)); known are traffic, scrape_gaps, counter_resets, "
                        + "clock_skew, churn, bucket_change, blind and effect")
            case nil: break
            }
        }
    }

    private static func effect(_ fields: inout YAMLFields, _ value: YAMLValue) -> Effect? {
        guard let process = process(&fields, "kind") else { return nil }
        let at = Scenario.duration(&fields, "at")
        let effect = effect(&fields, process: process, atMs: at)
        checkChange(effect, value)
        return effect
    }

    private static func checkChange(_ effect: Effect, _ value: YAMLValue) {
        if effect.ratio == 1, effect.add == 0, effect.growth == 0 {
            value.report("the effect changes nothing: give it a ratio, add or growth")
        }
    }

    /// When a nuisance begins, since the first step; nil where it is not said.
    private func begin(_ fields: inout YAMLFields) -> Int64? {
        let at = Scenario.duration(&fields, "at")
        if let at { checkBegin(at, fields.value) }
        return at
    }

    private func checkBegin(_ atMs: Int64, _ value: YAMLValue) {
        guard atMs >= rollOutMs + soakMs else { return }
        let length = TimeFormat.duration(ms: rollOutMs + soakMs)
        value.report("it begins when all is over: the roll-out and the soak take \(length)")
    }

    /// Reports an effect that would have no place or no meaning.
    private func check(_ effect: Effect, _ value: YAMLValue) {
        let (process, place) = (effect.process, effect.place)
        checkBegin(effect.atMs ?? effect.delayMs, value)
        if effect.add != 0, !process.isCounted {
            value.report("\(process.rawValue) is a level: it has a ratio or growth, and no add")
        }
        guard process.isOfNodes else {
            if place != Place() { value.report("\(process.rawValue) is of no node: it has no where") }
            return
        }
        let batches =
            (rollOut.includesControlPlane ? 2 : 1)..<(rollOut.includesControlPlane ? 2 : 1) + rollOut.batches.count
        if let batch = place.batches.first(where: { !batches.contains($0) }) {
            value.report(
                batches.isEmpty
                    ? "no node is upgraded: there is no batch \(batch)"
                    : "no nodes are in batch \(batch): those of nodes are \(batches.lowerBound) to \(batches.upperBound - 1)"
            )
        }
        if let zone = place.zone, !(1...topology.zones).contains(zone) {
            value.report("there is no zone \(zone): zones are 1 to \(topology.zones)")
        }
        if let pool = place.pool, !topology.pools.contains(pool) {
            value.report("there is no pool \(Labels.quoted(pool)): pools are \(topology.pools.joined(separator: ", "))")
        }
        if effect.atMs == nil, rollOut.batches.isEmpty {
            value.report("no node is upgraded, and the effect begins with a node's step: give it at")
        }
    }

    /// How long the roll-out takes at most, from the first step to the last.
    private var rollOutMs: Int64 {
        let steps: Int64 = rollOut.includesControlPlane ? 3 * Int64(topology.controlPlanes) * 120_000 : 0
        return steps + Int64(rollOut.batches.count + 1) * (rollOut.batchMs + rollOut.gapMs)
            + (rollOut.pauseAfter == nil ? 0 : rollOut.pauseMs)
            + (rollOut.rollbackAfter == nil ? 0 : rollOut.rollbackMs)
    }

    /// The jobs of the targets that are simulated.
    private static let jobs = [
        "kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "kubelet", "coredns",
    ]

    private static func unknown(_ what: String, _ name: String, _ known: [String]) -> String {
        "unknown \(what) \(Labels.quoted(name)); known are \(known.joined(separator: ", "))"
    }

    private static func process(_ fields: inout YAMLFields, _ name: String) -> Process? {
        guard let value = fields.required(name), let text = value.string else { return nil }
        if let process = Process(rawValue: text) { return process }
        value.report(
            "unknown process \(Labels.quoted(text)); known are "
                + Process.allCases.map(\.rawValue).joined(separator: ", "))
        return nil
    }

    private static func effect(_ fields: inout YAMLFields, process: Process, atMs: Int64?) -> Effect {
        var effect = Effect(process: process)
        effect.ratio = number(&fields, "ratio", 0...1e6) ?? 1
        effect.add = number(&fields, "add", 0...1e6) ?? 0
        effect.growth = number(&fields, "growth", -1...1e3) ?? 0
        if let delay = fields.take("delay") {
            if atMs != nil { delay.report("delay is since each step, at since the first one: give one of them") }
            effect.delayMs = delay.durationMs ?? 0
        }
        effect.atMs = atMs
        effect.durationMs = positive(&fields, "duration")
        fields.take("where")?.fields { fields in
            effect.place.batches = fields.list("batches").compactMap(\.int)
            effect.place.zone = fields.int("zone")
            effect.place.pool = fields.string("pool")
            if let share = fields.take("share"), let number = share.double {
                if number <= 0 || number > 1 { share.report("share is a part of the nodes, over 0 and up to 1") }
                effect.place.share = min(1, max(0, number))
            }
            effect.place.controlsOnly = fields.bool("controls_only") ?? false
        }
        return effect
    }

    private static func positive(_ fields: inout YAMLFields, _ name: String, isRequired: Bool = false) -> Int64? {
        guard let value = isRequired ? fields.required(name) : fields.take(name), let ms = value.durationMs else {
            return nil
        }
        if ms <= 0 || ms > longestMs { value.report("\(name) must be longer than nothing and at most 60d") }
        return min(longestMs, max(1, ms))
    }

    /// No time of a scenario is longer.
    private static let longestMs: Int64 = 60 * 86_400_000

    private static func duration(_ fields: inout YAMLFields, _ name: String) -> Int64? {
        guard let value = fields.take(name), let ms = value.durationMs else { return nil }
        if ms > longestMs { value.report("\(name) must be at most 60d") }
        return min(longestMs, ms)
    }

    private static func count(_ fields: inout YAMLFields, _ name: String, _ range: ClosedRange<Int>) -> Int? {
        guard let value = fields.take(name), let number = value.int else { return nil }
        if !range.contains(number) { value.report("\(name) must be in \(range.lowerBound)...\(range.upperBound)") }
        return min(range.upperBound, max(range.lowerBound, number))
    }

    /// - Parameter words: what is said of a number that is not in the range.
    private static func number(
        _ fields: inout YAMLFields, _ name: String, _ range: ClosedRange<Double>, isRequired: Bool = false,
        words: String? = nil
    ) -> Double? {
        guard let value = isRequired ? fields.required(name) : fields.take(name), let number = value.double else {
            return nil
        }
        if !range.contains(number) {
            value.report(words ?? "\(name) must be in \(Int(range.lowerBound))...\(Int(range.upperBound))")
        }
        return min(range.upperBound, max(range.lowerBound, number))
    }

    /// How much of something, which is some of it.
    private static func share(_ fields: inout YAMLFields) -> Double {
        number(
            &fields, "share", .leastNonzeroMagnitude...1, isRequired: true, words: "share is a part, over 0 and up to 1"
        )
            ?? 1
    }

    private static func part(_ fields: inout YAMLFields, _ name: String, isRequired: Bool = false) -> Double? {
        number(&fields, name, 0...1, isRequired: isRequired, words: "\(name) is a part, in 0...1")
    }
}
