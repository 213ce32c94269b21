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

    private func resolve(_ path: String) -> String { path.hasPrefix("/") ? path : folder + "/" + path }
}

/// Reads one entry of `scrape_configs`, with Prometheus' fields and meanings, into its targets.
struct ScrapeConfigReader {
    let global: GlobalConfig
    let folder: String

    func read(_ value: YAMLValue) -> [ScrapeTarget] {
        value.fields { fields in targets(&fields) } ?? []
    }

    private func targets(_ fields: inout YAMLFields) -> [ScrapeTarget] {
        let value = fields.value
        let job = fields.required("job_name")?.string ?? ""
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
        let relabelRules = rules(fields.take("relabel_configs"))
        template.metricRelabelRules = rules(fields.take("metric_relabel_configs"))
        for name in ["file", "http", "kubernetes", "dns", "consul", "ec2"] {
            if let discovery = fields.take("\(name)_sd_configs") {
                discovery.report(
                    "\(discovery.path): this kind of discovery is not built yet; list the targets under static_configs")
            }
        }
        var targets: [ScrapeTarget] = []
        for group in fields.list("static_configs") {
            group.fields { fields in
                let addresses = fields.list("targets")
                let labels = fields.strings("labels")
                for address in addresses {
                    guard let text = address.string else { continue }
                    if text.isEmpty || text.contains("/") {
                        address.report("\(address.path): \(Labels.quoted(text)) is not a host:port")
                        continue
                    }
                    var discovered: Labels = [
                        "__address__": text, "__scheme__": scheme, "__metrics_path__": path, "job": job,
                        "__scrape_interval__": TimeFormat.duration(ms: template.intervalMs),
                        "__scrape_timeout__": TimeFormat.duration(ms: template.timeoutMs),
                    ]
                    for parameter in parameters { discovered["__param_" + parameter.name] = parameter.value }
                    for label in labels { discovered[label.name] = label.value }
                    if let target = ScrapeConfigReader.target(discovered, relabelRules, template) {
                        targets.append(target)
                    }
                }
            }
        }
        return targets
    }

    /// The target of discovered labels, after relabelling; nil where a rule drops it.
    static func target(_ discovered: Labels, _ rules: [RelabelRule], _ template: ScrapeTarget) -> ScrapeTarget? {
        guard let relabelled = RelabelRule.apply(rules, to: discovered), let address = relabelled["__address__"] else {
            return nil
        }
        var target = template
        if let ms = relabelled["__scrape_interval__"].flatMap({ TimeFormat.durationMs($0) }), ms > 0 {
            target.intervalMs = ms
        }
        if let ms = relabelled["__scrape_timeout__"].flatMap({ TimeFormat.durationMs($0) }), ms > 0 {
            target.timeoutMs = ms
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
        _ = fields.int("modulus")
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
        return rule
    }
}
