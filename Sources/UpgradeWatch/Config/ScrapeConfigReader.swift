import Fetch
import Foundation
import Scrape
import Series
import StrictYAML

/// Reads `tls_config`, `authorization` and `basic_auth`, as they stand in scrape configurations and `http_config`.
package struct ClientConfigReader {
    /// What relative paths are relative to.
    let folder: String

    package init(folder: String) { self.folder = folder }

    package func read(_ fields: inout YAMLFields) -> (tls: TLSOptions, authentication: Authentication) {
        var tls = TLSOptions()
        fields.take("tls_config")?.fields { fields in
            tls.caFile = fields.string("ca_file").map(resolve)
            tls.certFile = fields.string("cert_file").map(resolve)
            tls.keyFile = fields.string("key_file").map(resolve)
            tls.serverName = fields.string("server_name")
            tls.insecureSkipVerify = fields.bool("insecure_skip_verify") ?? false
        }
        var authentication = Authentication.none
        fields.take("basic_auth")?.fields { fields in
            let username = fields.string("username") ?? ""
            if let file = fields.string("password_file") {
                authentication = .basicFile(username: username, passwordFile: resolve(file))
            } else {
                authentication = .basic(username: username, password: Secret(fields.string("password") ?? ""))
            }
        }
        fields.take("authorization")?.fields { fields in
            let type = fields.string("type") ?? "Bearer"
            if let file = fields.string("credentials_file") {
                authentication = .authorizationFile(type: type, path: resolve(file))
            } else if let secret = fields.string("credentials") {
                authentication = .authorization(type: type, credentials: Secret(secret))
            }
        }
        if let file = fields.string("bearer_token_file") {
            authentication = .authorizationFile(type: "Bearer", path: resolve(file))
        }
        return (tls, authentication)
    }

    /// A path, relative to the folder unless it begins with a slash.
    func resolve(_ path: String) -> String { path.hasPrefix("/") ? path : folder + "/" + path }
}

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
        var template = ScrapeTarget(labels: Labels(), url: "")
        template.limits = global.limits
        template.intervalMs = fields.durationMs("scrape_interval") ?? global.intervalMs
        template.timeoutMs = fields.durationMs("scrape_timeout") ?? min(global.timeoutMs, template.intervalMs)
        if template.timeoutMs > template.intervalMs {
            value.report("\(value.path): scrape_timeout is greater than scrape_interval")
        }
        if template.intervalMs <= 0 { value.report("\(value.path): scrape_interval must be greater than 0") }
        let path = fields.string("metrics_path") ?? "/metrics"
        let scheme = fields.string("scheme") ?? "http"
        if scheme != "http", scheme != "https" { value.report("\(value.path): scheme must be http or https") }
        let parameters = self.parameters(fields.take("params"))
        template.honorLabels = fields.bool("honor_labels") ?? false
        template.honorTimestamps = fields.bool("honor_timestamps") ?? true
        template.compression = fields.bool("enable_compression") ?? true
        template.followRedirects = fields.bool("follow_redirects") ?? true
        if let bytes = fields.bytes("body_size_limit"), bytes > 0 { template.limits.bodyBytes = bytes }
        template.limits.samples = fields.int("sample_limit") ?? template.limits.samples
        if let number = fields.int("label_limit"), number > 0 { template.limits.labels = number }
        if let number = fields.int("label_name_length_limit"), number > 0 { template.limits.labelNameLength = number }
        if let number = fields.int("label_value_length_limit"), number > 0 { template.limits.labelValueLength = number }
        (template.tls, template.authentication) = ClientConfigReader(folder: folder).read(&fields)
        var job = ScrapeJob(name: name, template: template)
        job.targetLimit = max(0, fields.int("target_limit") ?? 0)
        if let number = fields.int("keep_dropped_targets"), number > 0 { job.keptDroppedTargets = number }
        job.relabelRules = rules(fields.take("relabel_configs"))
        job.template.metricRelabelRules = rules(fields.take("metric_relabel_configs"))
        var defaults: Labels = [
            "job": name, "__scheme__": scheme, "__metrics_path__": path,
            "__scrape_interval__": TimeFormat.duration(ms: template.intervalMs),
            "__scrape_timeout__": TimeFormat.duration(ms: template.timeoutMs),
        ]
        for parameter in parameters { defaults["__param_" + parameter.name] = parameter.value }
        job.defaults = defaults
        job.settings = value.text + global.settings
        job.staticTargets = staticTargets(&fields)
        return JobConfig(
            job: job, keepsDeclared: ScrapeConfigReader.keepsDeclared(&fields) ?? global.keepsDeclared,
            discoveries: DiscoveryConfigReader(client: ClientConfigReader(folder: folder)).read(&fields))
    }

    /// `keep_metrics`; nil where it is not said.
    static func keepsDeclared(_ fields: inout YAMLFields) -> Bool? {
        guard let value = fields.take("keep_metrics"), let text = value.string else { return nil }
        if text != "all", text != "declared" {
            value.report("\(value.path): \(Labels.quoted(text)) is neither all nor declared")
        }
        return text == "declared"
    }

    private func staticTargets(_ fields: inout YAMLFields) -> [Labels] {
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

    private func rules(_ value: YAMLValue?) -> [RelabelRule] {
        (value?.list ?? []).compactMap { value in value.fields { rule(&$0) } ?? nil }
    }

    private func rule(_ fields: inout YAMLFields) -> RelabelRule? {
        let value = fields.value
        let regex = fields.take("regex")
        let pattern: Pattern
        do {
            pattern = try Pattern(regex?.string ?? "(.*)", mode: .anchored)
        } catch {
            regex?.report("\(error)")
            for name in ["source_labels", "separator", "target_label", "replacement", "action", "modulus"] {
                _ = fields.take(name)
            }
            return nil
        }
        var rule = RelabelRule(pattern: pattern)
        rule.sourceLabels = fields.stringList("source_labels")
        rule.separator = fields.string("separator") ?? ";"
        rule.targetLabel = fields.string("target_label") ?? ""
        rule.replacement = fields.string("replacement") ?? "$1"
        rule.modulus = fields.int("modulus").map { UInt64(clamping: $0) } ?? 0
        if let action = fields.take("action"), let text = action.string {
            if let known = RelabelRule.Action(rawValue: text.lowercased()) {
                rule.action = known
            } else {
                let known = RelabelRule.Action.allCases.map(\.rawValue).joined(separator: ", ")
                action.report("unknown action \(Labels.quoted(text)); known are \(known)")
            }
        }
        let needsTarget: Set<RelabelRule.Action> = [.replace, .lowercase, .uppercase, .keepequal, .dropequal]
        if needsTarget.contains(rule.action), rule.targetLabel.isEmpty {
            value.report("\(value.path): the action \(rule.action.rawValue) needs a target_label")
        }
        if rule.action == .hashmod, rule.modulus == 0 || rule.targetLabel.isEmpty {
            value.report("\(value.path): the action hashmod needs a target_label and a modulus")
        }
        return rule
    }
}
