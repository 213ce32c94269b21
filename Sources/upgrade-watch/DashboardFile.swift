import Foundation

/// What a Grafana dashboard asks for: every `expr` of its JSON, with the title of the panel that it stands in.
struct DashboardFile {
    struct Query {
        var title: String
        /// With Grafana's variables replaced by what parses and selects all.
        var text: String
    }

    var title: String
    var schemaVersion: Int?
    var queries: [Query]

    /// - Throws: ``InputError`` for a file that is no JSON.
    init(file: String) throws {
        guard let data = FileManager.default.contents(atPath: file) else {
            throw InputError(description: "\(file): can't be read")
        }
        guard let json = try? JSONSerialization.jsonObject(with: data) else {
            throw InputError(description: "\(file): is no JSON; rule files end in .yaml or .yml")
        }
        let object = json as? [String: Any]
        title = object?["title"] as? String ?? ""
        schemaVersion = object?["schemaVersion"] as? Int
        queries = DashboardFile.queries(json, title: "")
    }

    private static func queries(_ json: Any, title: String) -> [Query] {
        if let object = json as? [String: Any] {
            let own = object["title"] as? String ?? title
            let text = (object["expr"] as? String).map { [Query(title: own, text: plain($0))] } ?? []
            return text + object.sorted { $0.key < $1.key }.flatMap { queries($0.value, title: own) }
        }
        return (json as? [Any])?.flatMap { queries($0, title: title) } ?? []
    }

    /// Variables stand for durations in brackets and behind `offset`, and elsewhere for values of labels.
    private static func plain(_ text: String) -> String {
        text.replacing(/\[\s*\$\{?\w+\}?\s*([\]:])/) { "[5m\($0.1)" }
            .replacing(/offset\s+\$\{?\w+\}?/, with: "offset 1d")
            .replacing(/:\s*\$\{?\w+\}?\s*\]/, with: ":1m]")
            .replacing(/(!=|!~|=~|=)\s*"\$\{?\w+(:\w+)?\}?"/) { $0.1.hasPrefix("!") ? "!=\"\"" : "=~\".*\"" }
            .replacing(/\$\{?\w+(:\w+)?\}?/, with: "x")
    }
}
