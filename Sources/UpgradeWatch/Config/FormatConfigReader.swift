import Exposition
import Scrape
import Series
import StrictYAML

/// Reads what `global` and `scrape_configs` say of the formats that targets are asked for.
enum FormatConfigReader {
    /// - Parameter target: has what holds where nothing is said.
    static func read(_ fields: inout YAMLFields, _ target: inout ScrapeTarget) {
        if let value = fields.take("scrape_protocols") { target.protocols = protocols(value) ?? target.protocols }
        if let value = fields.take("fallback_scrape_protocol"), let text = value.string {
            if let known = ScrapeProtocol(rawValue: text) {
                target.fallback = known.format
            } else {
                refuse(value, text)
            }
        }
        if let value = fields.take("metric_name_escaping_scheme"), let text = value.string {
            let known = ["allow-utf-8", "underscores", "dots", "values"]
            if known.contains(text) {
                target.escaping = text
            } else {
                value.report("\(value.path): \(Labels.quoted(text)) is none of \(known.joined(separator: ", "))")
            }
        }
        if let value = fields.take("metric_name_validation_scheme"), let text = value.string, text != "utf8" {
            value.report("\(value.path): \(Labels.quoted(text)): names are taken in UTF-8; write utf8")
        }
        histograms(&fields)
    }

    /// What native histograms have need of; as none are read, what would be done with them is nothing.
    private static func histograms(_ fields: inout YAMLFields) {
        for name in ["scrape_native_histograms", "convert_classic_histograms_to_nhcb"] {
            if let value = fields.take(name), value.bool == true {
                value.report("\(value.path): native histograms are not built; classic ones are always read")
            }
        }
        _ = fields.bool("always_scrape_classic_histograms")
        _ = fields.bool("scrape_classic_histograms")
        _ = fields.int("native_histogram_bucket_limit")
        _ = fields.double("native_histogram_min_bucket_factor")
    }

    private static func protocols(_ value: YAMLValue) -> [ScrapeProtocol]? {
        var found: [ScrapeProtocol] = []
        var names: Set<String> = []
        for entry in value.list {
            guard let text = entry.string else { continue }
            if !names.insert(text).inserted { entry.report("\(entry.path): \(text) stands twice") }
            if let known = ScrapeProtocol(rawValue: text) {
                found.append(known)
            } else if text != "PrometheusProto" {
                // The binary format may be among others: a target that has it has a text as well.
                refuse(entry, text)
            }
        }
        if found.isEmpty { refuse(value, names.sorted().joined(separator: ", ")) }
        return found.isEmpty ? nil : found
    }

    private static func refuse(_ value: YAMLValue, _ text: String) {
        let known = ScrapeProtocol.allCases.map(\.rawValue).joined(separator: ", ")
        value.report("\(value.path): \(Labels.quoted(text)) is not read; known are \(known)")
    }
}
