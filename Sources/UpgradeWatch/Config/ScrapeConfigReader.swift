import Fetch
import Foundation
import Scrape
import Series
import StrictYAML

/// Reads one entry of `scrape_configs`, with Prometheus' fields and meanings.
struct ScrapeConfigReader {
    let global: GlobalConfig
    let folder: String

    func read(_ value: YAMLValue) -> JobConfig? {
        value.fields { fields in job(&fields) }
    }

    private func job(_ fields: inout YAMLFields) -> JobConfig {
        let value = fields.value
        let name = fields.required("job_name")?.string ?? ""
        var job = global.job
        job.name = name
        var template = job.template
        template.intervalMs = fields.durationMs("scrape_interval") ?? template.intervalMs
        template.timeoutMs = fields.durationMs("scrape_timeout") ?? min(template.timeoutMs, template.intervalMs)
        if template.timeoutMs > template.intervalMs {
            value.report("\(value.path): scrape_timeout is greater than scrape_interval")
        }
        if template.intervalMs <= 0 { value.report("\(value.path): scrape_interval must be greater than 0") }
        let path = fields.string("metrics_path") ?? "/metrics"
        let scheme = ClientConfigReader.scheme(&fields)
        let parameters = self.parameters(fields.take("params"))
        template.honorLabels = fields.bool("honor_labels") ?? false
        template.honorTimestamps = fields.bool("honor_timestamps") ?? true
        template.compression = fields.bool("enable_compression") ?? true
        template.tracksTimestampsStaleness = fields.bool("track_timestamps_staleness") ?? false
        FormatConfigReader.read(&fields, &template)
        template.client = ClientConfigReader(folder: folder).read(&fields)
        job.template = template
        ScrapeConfigReader.limits(&fields, &job)
        ScrapeConfigReader.refuse(&fields)
        job.relabelRules = RelabelConfigReader.read(fields.take("relabel_configs"))
        job.template.metricRelabelRules = RelabelConfigReader.read(fields.take("metric_relabel_configs"))
        var defaults: Labels = [
            "job": name, "__scheme__": scheme, "__metrics_path__": path,
            "__scrape_interval__": TimeFormat.duration(ms: template.intervalMs),
            "__scrape_timeout__": TimeFormat.duration(ms: template.timeoutMs),
        ]
        for parameter in parameters { defaults["__param_" + parameter.name] = parameter.value }
        job.defaults = defaults
        job.settings = value.text + global.settings
        job.staticTargets = ScrapeConfigReader.staticTargets(&fields)
        return JobConfig(
            job: job, keepsDeclared: ScrapeConfigReader.keepsDeclared(&fields) ?? global.keepsDeclared,
            discoveries: DiscoveryConfigReader(client: ClientConfigReader(folder: folder)).read(&fields))
    }

    /// What `global` and a job may say of how much there may be.
    static func limits(_ fields: inout YAMLFields, _ job: inout ScrapeJob) {
        var limits = job.template.limits
        if let bytes = fields.bytes("body_size_limit"), bytes > 0 { limits.bodyBytes = bytes }
        limits.samples = fields.int("sample_limit") ?? limits.samples
        if let number = fields.int("label_limit"), number > 0 { limits.labels = number }
        if let number = fields.int("label_name_length_limit"), number > 0 { limits.labelNameLength = number }
        if let number = fields.int("label_value_length_limit"), number > 0 { limits.labelValueLength = number }
        job.template.limits = limits
        job.targetLimit = max(0, fields.int("target_limit") ?? job.targetLimit)
        if let number = fields.int("keep_dropped_targets"), number > 0 { job.keptDroppedTargets = number }
    }

    /// Fields of Prometheus that there is nothing behind.
    static func refuse(_ fields: inout YAMLFields) {
        fields.refuse(
            "scrape_failure_log_file", "failed scrapes are in the program's own log and in /api/v1/targets")
        fields.refuse("extra_scrape_metrics", "the limits are in the configuration, and not stored for each target")
    }

    /// `keep_metrics`; nil where it is not said.
    static func keepsDeclared(_ fields: inout YAMLFields) -> Bool? {
        guard let value = fields.take("keep_metrics"), let text = value.string else { return nil }
        if text != "all", text != "declared" {
            value.report("\(value.path): \(Labels.quoted(text)) is neither all nor declared")
        }
        return text == "declared"
    }

    /// The targets of `static_configs`, with their labels.
    static func staticTargets(_ fields: inout YAMLFields) -> [Labels] {
        var found: [Labels] = []
        for group in fields.list("static_configs") {
            group.fields { fields in
                let addresses = fields.list("targets")
                let labels = Labels(fields.strings("labels").map { Label($0.name, $0.value) })
                for address in addresses {
                    guard let text = address.string else { continue }
                    if text.isEmpty || text.contains("/") {
                        address.report("\(address.path): \(Labels.quoted(text)) is not a host:port")
                        continue
                    }
                    found.append(labels.merging(["__address__": text]))
                }
            }
        }
        return found
    }

    private func parameters(_ value: YAMLValue?) -> [(name: String, value: String)] {
        guard let value else { return [] }
        var out: [(name: String, value: String)] = []
        value.fields { fields in
            for name in fields.names { out += fields.list(name).compactMap(\.string).map { (name, $0) } }
        }
        return out
    }
}
