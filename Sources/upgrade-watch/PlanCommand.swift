import Alerting
import ArgumentParser
import Cluster
import Comparison
import Foundation
import LogWatch
import PromQL
import Report
import Series
import Storage
import StrictYAML
import UpgradeWatch
import Yams

/// `upgrade-watch plan`.
struct PlanCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan",
        abstract: "Tell what to expect on the way from one version to another.",
        discussion: """
            API versions that disappear and who uses them, metrics and labels that change and which of your rules and
            dashboards go silent, flags and feature gates that stop a component, restarts, changed behaviour. Versions
            from 1.10 to 1.36 are known.

            Example:
              upgrade-watch plan --from 1.25 --to 1.33 --store data --rules alerts/*.yaml
              upgrade-watch plan --from 1.30 --to 1.31 --flags /etc/kubernetes/manifests/*.yaml
            """)

    @Option(help: "The version that runs.") var from: String
    @Option(help: "The version to come.") var to: String
    @Option(help: "A store, or an audit log with the next option: whose clients are named.") var store: String?
    @Option(
        name: .customLong("audit-log"), parsing: .upToNextOption, help: "Audit logs of the API server, uncompressed.")
    var auditLogs: [String] = []
    @Option(
        parsing: .upToNextOption, help: "Your Prometheus rule files and Grafana dashboards (JSON).")
    var rules: [String] = []
    @Option(
        parsing: .upToNextOption,
        help: "Files with command lines of components: static pod manifests, systemd units, or text.")
    var flags: [String] = []
    @Option(
        name: .customLong("config-file"), parsing: .upToNextOption,
        help: "Configuration files of components, such as KubeletConfiguration.")
    var configFiles: [String] = []
    @Option(help: "text or json.") var format: PlanFormat = .text

    enum PlanFormat: String, ExpressibleByArgument { case text, json }

    func validate() throws {
        for version in [from, to] where KubernetesVersion(version) == nil {
            throw ValidationError("\(version) is not a version; write it as in 1.25")
        }
        for version in [from, to].compactMap({ KubernetesVersion($0) })
        where version.major != 1 || !(10...36).contains(version.minor) {
            throw ValidationError("nothing is known of \(version): versions from 1.10 to 1.36 are")
        }
        if KubernetesVersion(from) == KubernetesVersion(to) {
            throw ValidationError("--from and --to are the same version")
        }
    }

    func run() async throws {
        try await reporting {
            guard let from = KubernetesVersion(from), let to = KubernetesVersion(to) else { return }
            var clients = try auditLogs.flatMap(PlanInput.clients(auditLog:))
            if let store { clients += try PlanInput.clients(store: store) }
            let plan = UpgradePlan(
                path: UpgradePath(from: from, to: to), clients: clients,
                queries: try rules.flatMap(PlanInput.queries),
                options: try (flags + configFiles).flatMap(PlanInput.options))
            switch format {
            case .text:
                let text = PlanText(
                    plan, hasClients: store != nil || !auditLogs.isEmpty, hasRules: !rules.isEmpty,
                    hasOptions: !(flags + configFiles).isEmpty)
                Output.text(text.text)
            case .json: Output.text(try JSONReport.text(PlanJSON(plan)))
            }
        }
    }
}

/// Reads what a plan looks at.
enum PlanInput {
    /// - Throws: ``InputError``.
    static func text(_ file: String) throws -> String {
        guard let data = FileManager.default.contents(atPath: file) else {
            throw InputError(description: "\(file): can't be read")
        }
        return String(decoding: data, as: UTF8.self)
    }

    static func clients(auditLog file: String) throws -> [UpgradePlan.APIClient] {
        guard let data = FileManager.default.contents(atPath: file) else {
            throw InputError(description: "\(file): can't be read")
        }
        var counts: [[String]: Int] = [:]
        var events = 0
        for line in data.split(separator: UInt8(ascii: "\n")) {
            guard let event = Array(line).withUnsafeBytes({ AuditEvent($0) }) else { continue }
            events += 1
            let groupVersion = event.group.isEmpty ? event.version : "\(event.group)/\(event.version)"
            counts[[event.client, groupVersion, event.resource], default: 0] += 1
        }
        guard events > 0 else {
            throw InputError(description: "\(file): has no event of an audit log (audit.k8s.io/v1, one a line)")
        }
        return clients(counts)
    }

    static func clients(store directory: String) throws -> [UpgradePlan.APIClient] {
        let store = try Store(directory: directory, readOnly: true)
        defer { try? store.close() }
        guard let range = try store.timeRange() else { return [] }
        var counts: [[String]: Int] = [:]
        for series in try store.select(
            [.equal(Labels.metricName, LogTally.auditMetric)], fromMs: range.lowerBound, throughMs: range.upperBound)
        {
            let group = series.labels["group"] ?? ""
            let version = series.labels["version"] ?? ""
            let key = [
                series.labels["client"] ?? "", group.isEmpty ? version : "\(group)/\(version)",
                series.labels["resource"] ?? "",
            ]
            counts[key, default: 0] += Int(series.values.last { !$0.isNaN } ?? 0)
        }
        for series in try store.select(
            [.equal(Labels.metricName, "apiserver_requested_deprecated_apis")], fromMs: range.lowerBound,
            throughMs: range.upperBound) where series.values.contains(1)
        {
            let group = series.labels["group"] ?? ""
            let version = series.labels["version"] ?? ""
            let groupVersion = group.isEmpty ? version : "\(group)/\(version)"
            let resource = series.labels["resource"] ?? ""
            // The API server knows that somebody asks; the audit log knows who.
            if counts.keys.contains(where: { $0[1] == groupVersion }) { continue }
            counts[["an unknown client", groupVersion, resource]] = 0
        }
        return clients(counts)
    }

    private static func clients(_ counts: [[String]: Int]) -> [UpgradePlan.APIClient] {
        counts.sorted { $0.key.lexicographicallyPrecedes($1.key) }.map {
            .init(client: $0.key[0], groupVersion: $0.key[1], resource: $0.key[2], requests: $0.value)
        }
    }

    /// The expressions of a rule file, or of a dashboard: all that its JSON has under `expr`.
    static func queries(_ file: String) throws -> [UpgradePlan.Query] {
        if file.hasSuffix(".json") {
            return try DashboardFile(file: file).queries.map { .init(file: file, name: $0.title, text: $0.text) }
        }
        return try RuleFile.load(file: file, features: .all).flatMap { group in
            group.rules.map { .init(file: file, name: $0.name, text: $0.text) }
        }
    }

    private static let components = [
        "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet",
    ]

    /// Flags and gates: whatever looks like a flag, and what stands under `featureGates`.
    ///
    /// A component's flags are those behind its name: a file may hold the command lines of several.
    static func options(_ file: String) throws -> [UpgradePlan.ComponentOptions] {
        // Comments name components too, and a list of YAML puts a flag's value on a line of its own.
        let text = try text(file).split(separator: "\n", omittingEmptySubsequences: false)
            .map { line in line.drop { $0 == " " }.hasPrefix("#") ? "" : line }.joined(separator: "\n")
        var found: [String: UpgradePlan.ComponentOptions] = [:]
        let kinds = ["KubeletConfiguration": "kubelet", "KubeProxyConfiguration": "kube-proxy"]
        var component = kinds.first { text.contains("kind: \($0.key)") }?.value ?? ""
        if component.isEmpty { component = components.first { text.contains($0) } ?? "" }
        func add(flag: String? = nil, gates: [String] = []) {
            var options =
                found[component] ?? .init(file: file, component: component, flags: [], gates: [])
            if let flag { options.flags.append(flag) }
            options.gates += gates
            found[component] = options
        }
        let tokens =
            /(?:^|[\/\s"'\[,])(?<name>kube-apiserver|kube-controller-manager|kube-scheduler|kube-proxy|kubelet)(?=["'\s,\]]|$)|(?:^|[\s"'\[,=])--(?<flag>[a-z0-9][a-z0-9-]*)(?:(?:[= ]|["']?,?\s*\n\s*-\s+)["']?(?<value>[^\s"']*))?/
            .anchorsMatchLineEndings()
        for match in text.matches(of: tokens) {
            if let name = match.output.name {
                component = String(name)
            } else if let flag = match.output.flag {
                let value = match.output.value ?? ""
                let gates = value.split(separator: ",").compactMap { $0.split(separator: "=").first.map(String.init) }
                add(flag: String(flag), gates: flag == "feature-gates" ? gates : [])
            }
        }
        if let object = try? Yams.load(yaml: text) as? [String: Any], let map = object["featureGates"] as? [String: Any]
        {
            add(gates: map.keys.sorted())
        }
        return found.values.sorted { $0.component < $1.component }
    }
}

/// A file that a command can't use.
struct InputError: Error, CustomStringConvertible {
    var description: String
}

/// A plan for people.
private struct PlanText {
    private(set) var text = ""

    init(_ plan: UpgradePlan, hasClients: Bool, hasRules: Bool, hasOptions: Bool) {
        text = "From \(plan.path.from) to \(plan.path.to)\n"
        for warning in plan.warnings { text += "  - \(warning)\n" }
        section(
            "API versions that are no longer served",
            plan.apiRemovals.map { removal in
                let way = removal.replacement.isEmpty ? "without a replacement" : "use \(removal.replacement)"
                return "\(removal.removedIn)  \(removal.groupVersion) \(removal.kind): \(way)"
            })
        if hasClients {
            section(
                "Clients that still use them",
                plan.clients.map {
                    "\($0.client): \($0.groupVersion) \($0.resource), seen \($0.requests) times"
                })
        } else {
            text += "\nWho still uses them is not known: name a store with --store, or an audit log with --audit-log.\n"
        }
        if hasRules {
            section(
                "Rules and dashboards that change", plan.queryChanges.map { "\($0.file): \($0.name): \($0.words)" })
        } else {
            text += "\nWhich of your rules and dashboards go silent is not known: name them with --rules.\n"
        }
        if hasOptions {
            section(
                "Flags and feature gates that stop a component (as the sources have it: confirm with --help of the new version)",
                plan.optionRemovals.map {
                    "\($0.file): \($0.component.isEmpty ? "" : $0.component + ": ")\($0.option) is gone since \($0.removedIn)"
                })
        } else {
            text +=
                "\nWhich flags and feature gates stop a component is not known: name its manifest or unit with --flags, "
                + "its configuration with --config-file.\n"
        }
        section(
            "Restarts to expect",
            plan.restarts.map {
                "\($0.version)  the new kubelet restarts containers in place, without a drain: \($0.containers) (\($0.why))"
            })
        section(
            "Changed behaviour",
            plan.behaviourChanges.map {
                "\($0.version)  \($0.component): \($0.change): \($0.consequence)"
            })
        section(
            "Metrics that change",
            plan.metricChanges.map { change in
                let version = change.goneIn?.text ?? ""
                switch change.kind {
                case .removed: return "\(version)  \(change.component): \(change.old) is gone"
                case .labels:
                    let names = change.labels.map { "\($0.old) is now \($0.new)" }
                    return "\(version)  \(change.component): \(change.old) has other labels"
                        + (names.isEmpty ? "" : ": " + names.joined(separator: ", "))
                case .buckets: return "\(version)  \(change.component): \(change.old) has other buckets"
                default:
                    let unit = change.factor == 1 ? "" : ", its values divided by \(Int(1 / change.factor))"
                    let new = change.new.isEmpty ? "gone, with no equal" : "now \(change.new)\(unit)"
                    return "\(version)  \(change.component): \(change.old) is \(new)"
                }
            })
    }

    private mutating func section(_ title: String, _ lines: [String]) {
        text += "\n\(title)\n"
        for line in lines.isEmpty ? ["none"] : lines { text += "  - \(line)\n" }
    }
}

/// A plan for programs, schema `upgrade-watch/plan/v1`.
private struct PlanJSON: Encodable {
    struct API: Encodable { var groupVersion, kind, removedIn, replacement: String }
    struct Client: Encodable {
        var client, groupVersion, resource: String
        var requests: Int
    }
    struct Metric: Encodable {
        var component, old, new, kind, goneIn, note: String
        var factor: Double
        var labels: [String: String]
    }
    struct Query: Encodable { var file, name, metric, change: String }
    struct Option: Encodable { var file, component, option, removedIn: String }
    struct Restart: Encodable { var version, containers, why: String }
    struct Behaviour: Encodable { var version, component, change, consequence: String }

    let schema = "upgrade-watch/plan/v1"
    let from, to: String
    let warnings: [String]
    let apiRemovals: [API]
    let clients: [Client]
    let metricChanges: [Metric]
    let queryChanges: [Query]
    let optionRemovals: [Option]
    let restarts: [Restart]
    let behaviourChanges: [Behaviour]

    init(_ plan: UpgradePlan) {
        from = plan.path.from.text
        to = plan.path.to.text
        warnings = plan.warnings
        apiRemovals = plan.apiRemovals.map {
            API(groupVersion: $0.groupVersion, kind: $0.kind, removedIn: $0.removedIn.text, replacement: $0.replacement)
        }
        clients = plan.clients.map {
            Client(client: $0.client, groupVersion: $0.groupVersion, resource: $0.resource, requests: $0.requests)
        }
        metricChanges = plan.metricChanges.map {
            Metric(
                component: $0.component, old: $0.old, new: $0.new, kind: $0.kind.rawValue,
                goneIn: $0.goneIn?.text ?? "",
                note: $0.note, factor: $0.factor, labels: Dictionary($0.labels.map { ($0.old, $0.new) }) { $1 })
        }
        queryChanges = plan.queryChanges.map {
            Query(file: $0.file, name: $0.name, metric: $0.metric, change: $0.words)
        }
        optionRemovals = plan.optionRemovals.map {
            Option(file: $0.file, component: $0.component, option: $0.option, removedIn: $0.removedIn.text)
        }
        restarts = plan.restarts.map { Restart(version: $0.version.text, containers: $0.containers, why: $0.why) }
        behaviourChanges = plan.behaviourChanges.map {
            Behaviour(
                version: $0.version.text, component: $0.component, change: $0.change, consequence: $0.consequence)
        }
    }
}
