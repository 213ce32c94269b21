import Foundation
import Series

/// Targets that were discovered together, and that come and go together.
package struct TargetGroup: Sendable, Equatable {
    /// What names the group among those of its discovery: `pod/default/web-0`.
    package var source: String
    /// What each target was discovered with: `__address__`, meta labels, and labels to keep.
    package var targets: [Labels]

    package init(source: String, targets: [Labels]) {
        self.source = source
        self.targets = targets
    }
}

/// One entry of `scrape_configs`: how its targets are scraped, and how they are made of what is discovered.
package struct ScrapeJob: Sendable {
    package var name: String
    /// What all targets have in common; its labels and its URL are empty.
    package var template: ScrapeTarget
    package var relabelRules: [RelabelRule] = []
    /// What a discovered target has unless the discovery says otherwise: `job`, `__scheme__`, `__param_<name>`, ….
    package var defaults = Labels()
    /// More targets than these fail all of them; 0 is no limit.
    package var targetLimit = 0
    /// How many targets that relabelling dropped are kept to be shown; all are counted.
    package var keptDroppedTargets = 1000
    /// Those of `static_configs`.
    package var staticTargets: [Labels] = []
    /// What the job was read from: a job with the same text goes on over a reload as it was.
    package var settings = ""

    package init(name: String, template: ScrapeTarget) {
        self.name = name
        self.template = template
    }

    /// The target of discovered labels; nil where a rule drops it, or leaves it without an address.
    ///
    /// As Prometheus does it (`scrape/target.go`, `PopulateLabels`): what the discovery says precedes the job's
    /// defaults, rules may change all, and labels that begin with two underscores are left behind.
    package func target(of discovered: Labels) -> ScrapeTarget? {
        guard let relabelled = RelabelRule.apply(relabelRules, to: completed(discovered)),
            let address = relabelled["__address__"], !address.isEmpty
        else { return nil }
        var target = template
        if let ms = relabelled["__scrape_interval__"].flatMap({ TimeFormat.durationMs($0) }), ms > 0 {
            target.intervalMs = ms
        }
        if let ms = relabelled["__scrape_timeout__"].flatMap({ TimeFormat.durationMs($0) }), ms > 0 {
            target.timeoutMs = min(ms, target.intervalMs)
        }
        let path = relabelled["__metrics_path__"] ?? "/metrics"
        let query = relabelled.pairs.filter { $0.name.hasPrefix("__param_") }.map { label in
            let allowed = CharacterSet.urlQueryAllowed.subtracting(CharacterSet(charactersIn: "&=+?"))
            let value = label.value.addingPercentEncoding(withAllowedCharacters: allowed) ?? label.value
            return "\(label.name.dropFirst("__param_".count))=\(value)"
        }
        target.url =
            "\(relabelled["__scheme__"] ?? "http")://\(address)\(path.hasPrefix("/") ? "" : "/")\(path)"
            + (query.isEmpty ? "" : "?" + query.joined(separator: "&"))
        var labels = Labels(sorted: relabelled.pairs.filter { !$0.name.hasPrefix("__") })
        if labels["instance"] == nil { labels["instance"] = address }
        target.labels = labels
        return target
    }

    /// Discovered labels with the job's defaults for what they do not say: what relabelling sees.
    package func completed(_ discovered: Labels) -> Labels {
        var labels = discovered
        for label in defaults.pairs where labels[label.name] == nil { labels[label.name] = label.value }
        return labels
    }
}
