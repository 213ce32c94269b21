import Alerting
import Fetch
import Foundation
import Scrape
import Series
import StrictYAML

/// Reads who is told of alerts: `alerting` as Prometheus has it, `receivers` and `route` as Alertmanager has them.
struct AlertingConfigReader {
    let folder: String

    func read(_ fields: inout YAMLFields, _ config: inout Config) {
        if let value = fields.take("alerting") { config.alerting = alerting(value) }
        for value in fields.list("receivers") { receiver(value, &config) }
        if let value = fields.take("route") { config.route = route(value, parent: nil, config.receivers) }
    }

    // MARK: Alertmanagers

    private func alerting(_ value: YAMLValue) -> AlertingConfig {
        var alerting = AlertingConfig()
        value.fields { fields in
            alerting.relabelRules = RelabelConfigReader.read(fields.take("alert_relabel_configs"))
            for entry in fields.list("alertmanagers") {
                entry.fields { alerting.alertmanagers.append(alertmanagers(&$0)) }
            }
        }
        return alerting
    }

    private func alertmanagers(_ fields: inout YAMLFields) -> AlertmanagerConfig {
        let reader = ClientConfigReader(folder: folder)
        var config = AlertmanagerConfig()
        config.scheme = ClientConfigReader.scheme(&fields)
        if let version = fields.take("api_version"), let text = version.string, text != "v2" {
            version.report(
                "\(version.path): \(Labels.quoted(text)) is not v2, which all Alertmanagers from 0.16 have; leave it out"
            )
        }
        config.pathPrefix = fields.string("path_prefix") ?? "/"
        if let ms = fields.durationMs("timeout"), ms > 0 { config.timeoutMs = ms }
        config.relabelRules = RelabelConfigReader.read(fields.take("relabel_configs"))
        config.alertRelabelRules = RelabelConfigReader.read(fields.take("alert_relabel_configs"))
        fields.refuse("sigv4", "requests are not signed for AWS; name an Alertmanager that is reached without")
        config.staticTargets = ScrapeConfigReader.staticTargets(&fields)
        config.discoveries = DiscoveryConfigReader(client: reader).read(&fields)
        config.client = reader.read(&fields)
        return config
    }

    // MARK: Webhooks

    private func receiver(_ value: YAMLValue, _ config: inout Config) {
        value.fields { fields in
            let name = fields.required("name")?.string ?? ""
            var webhooks: [Webhook] = []
            for entry in fields.list("webhook_configs") {
                entry.fields { fields in
                    guard let url = fields.required("url"), let text = url.string else { return }
                    ClientConfigReader.checkURL(text, url)
                    var webhook = Webhook(url: text)
                    webhook.sendsResolved = fields.bool("send_resolved") ?? true
                    webhook.maxAlerts = fields.int("max_alerts") ?? 0
                    if let ms = fields.durationMs("timeout"), ms > 0 { webhook.timeoutMs = ms }
                    fields.take("http_config")?.fields { http in
                        webhook.client = ClientConfigReader(folder: folder).read(&http)
                    }
                    webhooks.append(webhook)
                }
            }
            if config.receivers.contains(where: { $0.name == name }) {
                value.report("the receiver \(Labels.quoted(name)) stands twice")
            }
            config.receivers.append(Receiver(name: name, webhooks: webhooks))
        }
    }

    private func route(_ value: YAMLValue, parent: Route?, _ receivers: [Receiver]) -> Route {
        var route = parent ?? Route(receiver: "")
        route.routes = []
        route.matchers = []
        route.continues = false
        value.fields { fields in
            let receiver = parent == nil ? fields.required("receiver") : fields.take("receiver")
            if let receiver, let name = receiver.string {
                route.receiver = name
                if !receivers.contains(where: { $0.name == name }) {
                    receiver.report("\(value.path): there is no receiver named \(Labels.quoted(name))")
                }
            }
            if let by = fields.take("group_by") { route.groupBy = by.list.compactMap(\.string) }
            if let ms = fields.durationMs("group_wait") { route.groupWaitMs = ms }
            if let ms = fields.durationMs("group_interval") { route.groupIntervalMs = ms }
            if let ms = fields.durationMs("repeat_interval") { route.repeatIntervalMs = ms }
            route.continues = fields.bool("continue") ?? false
            for entry in fields.list("matchers") {
                if let text = entry.string, let matcher = matcher(text, entry) { route.matchers.append(matcher) }
            }
            // As Alertmanager had them before 0.22.
            for (name, op) in [("match", LabelMatcher.Operator.equal), ("match_re", .matches)] {
                guard let pairs = fields.take(name) else { continue }
                pairs.fields { pairs in
                    for label in pairs.names {
                        guard let value = pairs.take(label), let text = value.string else { continue }
                        do { route.matchers.append(try LabelMatcher(label, op, text)) } catch {
                            value.report("\(error)")
                        }
                    }
                }
            }
            let own = route
            for entry in fields.list("routes") { route.routes.append(self.route(entry, parent: own, receivers)) }
        }
        return route
    }

    /// A matcher as Alertmanager writes it: `name="value"`, the quotes may be left out.
    private func matcher(_ text: String, _ value: YAMLValue) -> LabelMatcher? {
        for symbol in ["=~", "!~", "!=", "="] {
            guard let range = text.range(of: symbol), let op = LabelMatcher.Operator(rawValue: symbol) else { continue }
            let name = text[..<range.lowerBound].trimmingCharacters(in: .whitespaces)
            let wanted = text[range.upperBound...].trimmingCharacters(in: CharacterSet(charactersIn: " \""))
            do {
                return try LabelMatcher(name, op, wanted)
            } catch {
                value.report("\(error)")
                return nil
            }
        }
        value.report("\(Labels.quoted(text)) is not a matcher; write name=\"value\", or with !=, =~ or !~")
        return nil
    }
}
