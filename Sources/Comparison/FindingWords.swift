import Cluster
import Foundation
import PromQL
import Series
import Statistics

/// What a worse signal is told as: where, since when, why and by which evidence.
extension SignalComparer {
    /// - Parameters:
    ///   - isPreexisting: it was so before what is compared went over.
    ///   - isOld: the split had been in trouble before the upgrade.
    func finding(
        _ signal: Signal, _ split: Labels, _ outcome: Outcome, isPreexisting: Bool, isOld: Bool
    ) throws -> Finding {
        let evidence = try evidence(signal, split, outcome)
        var onsetMs = isOld ? nil : outcome.onsetMs
        // Where nothing was before, the first line that shows it is nearer to the truth than the edge of a bin.
        if signal.countsEvents, outcome.eventsBefore == 0, let onset = onsetMs,
            let first = evidence.first(where: { $0.kind != .metric })?.firstMs
        {
            onsetMs = max(onset, first)
        }
        let component = signal.component.isEmpty ? split["job"] : signal.component
        var finding = Finding(
            signal: signal.name, severity: isPreexisting ? .info : signal.severity, summary: "",
            scope: FindingScope(
                component: component, node: split["node"] ?? (outcome.units.count == 1 ? outcome.units[0] : nil),
                namespace: split["namespace"], workload: split["workload"],
                labels: split.removing(["node", "namespace", "workload"])),
            unit: signal.unit, before: outcome.before?.value, after: outcome.after?.value, effect: outcome.effect,
            onsetMs: onsetMs, isExpected: false, cause: FindingCause(kind: .unknown, step: nil, explanation: ""),
            evidence: evidence, timeline: outcome.timeline)
        finding.summary = summary(signal, split, finding, outcome)
        if isOld {
            finding.cause = FindingCause(
                kind: .preexisting, step: nil,
                explanation: "it was so before the upgrade began; a restart of the kubelet begins its back-off anew, "
                    + "which changes the rate and is no new fault")
            finding.summary += "; it was in trouble before the upgrade"
        } else if outcome.beganBefore {
            finding.cause = FindingCause(
                kind: .preexisting, step: nil, explanation: "it began before what shows it went over to the new version"
            )
            finding.summary += "; it began before the new version came"
        } else {
            try blame(&finding, signal, split, outcome)
            finding.caveats += load(signal)
        }
        return finding
    }

    /// Whether the load changed as well: more of it makes levels higher and errors more.
    private func load(_ signal: Signal) -> [String] {
        guard let table = tables.table(of: signal), let lastMs = upgrade.steps.map(\.atMs).max() else { return [] }
        let bins = table.bins
        let change = table.loadChange(
            baseline: bins.complete(atMs: windows.baseline.throughMs), first: bins.firstIndex(from: lastMs),
            count: bins.complete(atMs: windows.nowMs))
        guard let change, change >= Confounding.loadRatio || change <= 1 / Confounding.loadRatio else { return [] }
        return ["the load since the upgrade is \(String(format: "%.2g", change)) times that of before"]
    }

    private func summary(_ signal: Signal, _ split: Labels, _ finding: Finding, _ outcome: Outcome) -> String {
        let change =
            "\(Units.text(finding.before, signal.unit)) before, \(Units.text(finding.after, signal.unit)) after"
            + (outcome.isAmongUnits && signal.kind.isInTime ? " on each node" : "")
        let about = signal.about.isEmpty ? signal.name : signal.about
        if let client = split["client"], let path = split["path"] {
            return "\(client): \(split["verb"] ?? "request") \(path): \(about): \(change)"
        }
        var places = split.pairs.map { "\($0.name) \($0.value)" }
        if !outcome.units.isEmpty {
            let shown = outcome.units.prefix(5).joined(separator: ", ")
            let more = outcome.units.count > 5 ? " and \(outcome.units.count - 5) more" : ""
            places.append("\(outcome.units.count == 1 ? "node" : "nodes") \(shown)\(more)")
        }
        return "\(about)\(places.isEmpty ? "" : " (\(places.joined(separator: ", ")))"): \(change)"
    }

    /// Says which step of the upgrade it began with.
    private func blame(_ finding: inout Finding, _ signal: Signal, _ split: Labels, _ outcome: Outcome) throws {
        let onset = finding.onsetMs ?? windows.nowMs
        let slackMs = 2 * tables.watched.bins.widthMs
        // Nodes are compared with one another: then the batch with most of it is to blame, at its first node.
        let batch = outcome.excess.filter { $0.value > 0 }.max { ($0.value, $1.key) < ($1.value, $0.key) }?.key
        var index = upgrade.step(
            before: onset, component: finding.scope.component, node: finding.scope.node, slackMs: slackMs)
        if finding.scope.node == nil, let batch {
            let ofBatch = upgrade.steps.indices.filter { upgrade.steps[$0].batch == batch && upgrade.steps[$0].isNode }
            let named = ofBatch.filter { outcome.units.contains(upgrade.steps[$0].node ?? "") }
            index =
                (named.isEmpty ? ofBatch : named).last { upgrade.steps[$0].atMs <= onset + slackMs }
                ?? ofBatch.first ?? index
            finding.scope.batch = batch
        }
        if index == nil, finding.scope.component == nil || finding.scope.node == nil {
            index = upgrade.step(before: onset, component: nil, node: nil, slackMs: slackMs)
        }
        guard let index else {
            finding.cause.explanation = "no step of the upgrade comes before it"
            return
        }
        let step = upgrade.steps[index]
        let place = step.node.map { " on \($0)" } ?? ""
        let what = "the step of \(step.component)\(place) from \(step.from) to \(step.to)"
        let seenMs = signal.treatedFromMs(Cohorts.Change(firstMs: step.atMs, lastMs: step.atMs)) + Comparison.promptMs
        let isLate = onset > seenMs + slackMs
        let distance = JudgedTime.wait(Double(onset - step.atMs))
        if outcome.hasNoStep, isLate {
            finding.cause.explanation = "began \(distance) after \(what), when nothing was upgraded, and lasts"
            return
        }
        var words = isLate ? "began \(distance) after \(what)" : "began with \(what)"
        if let removal = try removedAPI(split) { words += "; \(removal)" }
        finding.cause = FindingCause(kind: .upgradeStep, step: index, explanation: words)
        if finding.scope.batch == nil { finding.scope.batch = step.batch }
    }

    private func evidence(_ signal: Signal, _ split: Labels, _ outcome: Outcome) throws -> [Evidence] {
        let selection: Signal.Selection
        switch signal.kind {
        case .ratio(let numerator, _): selection = numerator
        case .rate(let counter): selection = counter
        case .drops(let gauge): return [metric("changes(\(gauge.text)[15m])")]
        case .mean(let sum, let count):
            return [metric("sum(rate(\(sum.text)[5m])) / sum(rate(\(count.text)[5m]))")]
        case .quantile(let q, let histogram):
            return [metric("histogram_quantile(\(GoFloat.text(q)), sum by (le) (rate(\(histogram.text)[5m])))")]
        case .gauge(let expression): return [metric(expression)]
        }
        let scoped = selection.matchers + split.pairs.map { .equal($0.name, $0.value) }
        var found: [Evidence] = []
        if selection.matchers.contains(where: { $0.name == Labels.metricName && $0.value.hasPrefix("upgrade_watch_") })
        {
            found = try input.logEvidence(scoped).map(\.evidence)
        }
        let names = split.pairs.map { "\($0.name)=\(Labels.quoted($0.value))" }
        let by = signal.by.isEmpty ? "" : " by (\(signal.by.joined(separator: ", ")))"
        let shown = names.isEmpty ? "" : " of \(names.joined(separator: ", "))"
        let count = outcome.after.map { Int($0.value * outcome.exposureAfter) } ?? 0
        found.append(metric("sum\(by) (increase(\(selection.text)[5m]))\(shown)", count: count))
        return found
    }

    private func metric(_ query: String, count: Int = 0) -> Evidence {
        Evidence(kind: .metric, text: query, count: count, firstMs: windows.baseline.throughMs, lastMs: windows.nowMs)
    }

    /// Whether the requests of a split went to an API version that the way of the upgrade has left behind, by what the
    /// old API server said of it (`apiserver_requested_deprecated_apis`, KEP-1693).
    private func removedAPI(_ split: Labels) throws -> String? {
        guard let version = split["version"], let resource = split["resource"],
            let from = KubernetesVersion(upgrade.from),
            let to = KubernetesVersion(upgrade.to)
        else { return nil }
        let group = split["group"] ?? ""
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
