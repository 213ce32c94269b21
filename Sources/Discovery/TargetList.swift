import Foundation
import Scrape
import Series
import StrictYAML

/// Target groups as files and servers list them: `[{"targets": ["host:port"], "labels": {"name": "value"}}]`
/// (prometheus.io, configuration, `file_sd_config` and `http_sd_config`).
struct TargetList {
    /// Each target with its group's labels, group by group.
    var groups: [[Labels]]

    /// Reads a file's text: YAML, or JSON, which is YAML as well.
    ///
    /// - Throws: `YAMLProblems` with the places of all faults.
    init(text: String, file: String) throws {
        let document = try YAMLDocument(text: text, file: file)
        var groups: [[Labels]] = []
        for entry in document.root.isNull ? [] : document.root.list {
            entry.fields { fields in
                let targets = fields.list("targets")
                let labels = fields.strings("labels")
                groups.append(
                    targets.compactMap { target in
                        target.string.map { TargetList.discovered($0, labels.map { ($0.name, $0.value) }) }
                    })
            }
        }
        try document.finish()
        self.groups = groups
    }

    /// Reads a server's answer.
    ///
    /// - Throws: `DecodingError` for one that is no list of groups.
    init(json: [UInt8]) throws {
        struct Group: Decodable {
            var targets: [String]
            var labels: [String: String]?
        }
        groups = try JSONDecoder().decode([Group].self, from: Data(json)).map { group in
            group.targets.map { TargetList.discovered($0, (group.labels ?? [:]).map { ($0.key, $0.value) }) }
        }
    }

    /// The groups, each named by its number, with a label that says where they are from.
    func targetGroups(source: String = "", from meta: Label) -> [TargetGroup] {
        groups.enumerated().map { number, targets in
            TargetGroup(source: "\(source)\(number)", targets: targets.map { $0.merging(Labels([meta])) })
        }
    }

    private static func discovered(_ address: String, _ labels: [(String, String)]) -> Labels {
        Labels(labels.map { Label($0.0, $0.1) } + [Label("__address__", address)])
    }
}
