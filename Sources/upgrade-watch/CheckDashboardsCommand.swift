import ArgumentParser
import Cluster
import Comparison
import Foundation
import PromQL
import Series
import Storage
import UpgradeWatch

/// `upgrade-watch check dashboards`.
struct CheckDashboards: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dashboards", abstract: "Check Grafana dashboards, and whether a store has data for them.",
        discussion: """
            Every panel's expressions are parsed. With --store, those that select nothing are listed, and a metric that
            neither the store has nor the Kubernetes versions that were seen in it expose is a fault.

            Example:
              upgrade-watch check dashboards dashboards/*.json
              upgrade-watch check dashboards dashboards/*.json --store ./data
            """)

    @Argument(help: "Dashboards, as JSON.") var files: [String]

    @Option(help: "The directory of a store, in which each panel's series are looked for.")
    var store: String?

    @OptionGroup var language: FeatureOptions

    func run() async throws {
        let seen = try await reporting { try store.map { try Seen(directory: $0) } }
        try check(files) { file in
            let dashboard = try DashboardFile(file: file)
            guard !dashboard.title.isEmpty, dashboard.schemaVersion != nil else {
                throw InputError(description: "\(file): is no Grafana dashboard: title and schemaVersion are missing")
            }
            var problems: [String] = []
            var silent = 0
            for query in dashboard.queries {
                let place = "\(file): panel \(Labels.quoted(query.title))"
                let expression: PromQL.Expression
                do {
                    expression = try Parser.parse(query.text, features: language.features)
                } catch {
                    problems.append("\(place): \(error): \(Labels.quoted(query.text))")
                    continue
                }
                guard let seen else { continue }
                let unknown = seen.unknown(expression)
                problems += unknown.map { "\(place): unknown metric \($0)" }
                if unknown.isEmpty, try seen.selectsNothing(expression) {
                    silent += 1
                    Output.text("  \(place): selects nothing: \(query.text)\n")
                }
            }
            guard problems.isEmpty else { throw InputError(description: problems.joined(separator: "\n")) }
            let words = "\(dashboard.queries.count) expressions"
            return seen == nil ? words : words + ", \(dashboard.queries.count - silent) with data"
        }
    }
}

/// What a store has, and which metrics the versions that were seen in it expose.
private struct Seen {
    private let store: Store
    private let names: Set<String>
    private let versions: [KubernetesVersion]

    init(directory: String) throws {
        store = try Store(directory: directory, readOnly: true)
        let all = try store.labels([], fromMs: .min, throughMs: .max)
        names = Set(all.map(\.name))
        versions = Set(
            all.compactMap { $0.name == "kubernetes_build_info" ? $0["git_version"] ?? $0["gitVersion"] : nil }
        ).compactMap { KubernetesVersion($0) }
    }

    /// The metrics of an expression that are neither in the store nor, by the catalogue, in one of the versions; those that
    /// rules and the program itself make are known.
    func unknown(_ expression: PromQL.Expression) -> [String] {
        var unknown: [String] = []
        expression.eachSelector { selector, _ in
            let name = selector.metricName
            guard !name.isEmpty, !names.contains(name), !isExposed(name), !unknown.contains(name) else { return }
            unknown.append(name)
        }
        return unknown
    }

    private func isExposed(_ name: String) -> Bool {
        if name.hasPrefix("upgrade_watch") || name.contains(":") || name == "up" || name.hasPrefix("ALERTS") {
            return true
        }
        // What is not Kubernetes' own has no versions in the catalogue.
        let others = ["etcd_", "go_", "process_", "container_", "scrape_"]
        if others.contains(where: name.hasPrefix) { return true }
        let lifetimes =
            VersionCatalogue.builtIn.metrics[name]
            ?? VersionCatalogue.builtIn.metrics[VersionCatalogue.family(of: name).name] ?? []
        return lifetimes.contains { lifetime in
            versions.isEmpty
                || versions.contains { version in
                    (lifetime.since.map { $0 <= version } ?? true) && (lifetime.goneIn.map { version < $0 } ?? true)
                }
        }
    }

    /// Whether none of an expression's selectors has a series.
    func selectsNothing(_ expression: PromQL.Expression) throws -> Bool {
        var selectors: [[LabelMatcher]] = []
        expression.eachSelector { selector, _ in selectors.append(selector.matchers) }
        return try !selectors.isEmpty
            && selectors.allSatisfy { try store.labels($0, fromMs: .min, throughMs: .max).isEmpty }
    }
}
