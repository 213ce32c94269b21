import Cluster
import PromQL
import Series

/// What to expect on the way from one version to another, before it is gone.
package struct UpgradePlan: Sendable {
    /// A client that asks for API versions, and how often it was seen to.
    package struct APIClient: Sendable, Equatable {
        package var client: String
        package var groupVersion: String
        package var resource: String
        package var requests: Int

        package init(client: String, groupVersion: String, resource: String, requests: Int) {
            self.client = client
            self.groupVersion = groupVersion
            self.resource = resource
            self.requests = requests
        }
    }

    /// A rule or a panel of a user's own.
    package struct Query: Sendable {
        package var file: String
        package var name: String
        package var text: String

        package init(file: String, name: String, text: String) {
            self.file = file
            self.name = name
            self.text = text
        }
    }

    /// Flags and feature gates that a component is given.
    package struct ComponentOptions: Sendable {
        package var file: String
        /// Empty where the file does not tell.
        package var component: String
        package var flags: [String]
        package var gates: [String]

        package init(file: String, component: String, flags: [String], gates: [String]) {
            self.file = file
            self.component = component
            self.flags = flags
            self.gates = gates
        }
    }

    /// A query that will give nothing, or something else.
    package struct QueryChange: Sendable, Equatable {
        package var file: String
        package var name: String
        package var metric: String
        package var words: String
    }

    /// A flag or gate with which a component does not start.
    package struct OptionRemoval: Sendable, Equatable {
        package var file: String
        package var component: String
        /// `--name`, or `feature gate Name`.
        package var option: String
        package var removedIn: KubernetesVersion
    }

    package let path: UpgradePath
    package let apiRemovals: [VersionCatalogue.APIRemoval]
    /// Those that ask for what is removed.
    package let clients: [APIClient]
    /// Metrics of Kubernetes' own whose name, unit or labels change.
    package let metricChanges: [VersionCatalogue.MetricChange]
    package let queryChanges: [QueryChange]
    package let optionRemovals: [OptionRemoval]
    package let restarts: [VersionCatalogue.RestartCause]
    package let behaviourChanges: [VersionCatalogue.BehaviourChange]
    /// What the version-skew policy says of the way.
    package let warnings: [String]

    package init(
        path: UpgradePath, clients: [APIClient] = [], queries: [Query] = [], options: [ComponentOptions] = [],
        catalogue: VersionCatalogue = .builtIn
    ) {
        self.path = path
        apiRemovals = catalogue.apiRemovals.filter { path.crosses($0.removedIn) }.map { removal in
            // What took its place may be gone on the way as well.
            var removal = removal
            while let next = catalogue.apiRemovals.first(where: {
                "\($0.groupVersion) \($0.kind)" == removal.replacement
            }),
                path.crosses(next.removedIn)
            {
                removal.replacement = next.replacement
            }
            return removal
        }
        let removed = Set(apiRemovals.map(\.groupVersion))
        // The control plane's own parts come to their new version with it.
        let own: Set<String> = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"]
        self.clients = clients.filter { removed.contains($0.groupVersion) && !own.contains($0.client) }.sorted {
            $0.requests > $1.requests
        }
        metricChanges = catalogue.metricChanges(on: path)
        let continuity = MetricContinuity(path: path, catalogue: catalogue)
        queryChanges = queries.flatMap { UpgradePlan.changes(of: $0, continuity, catalogue, path) }
        optionRemovals = options.flatMap { UpgradePlan.removals(of: $0, catalogue, path) }
        restarts = catalogue.restartCauses.filter { path.crossesEitherWay($0.version) }
        behaviourChanges = catalogue.behaviourChanges.filter { path.crosses($0.version) }
        warnings = UpgradePlan.warnings(path)
    }

    private static func changes(
        of query: Query, _ continuity: MetricContinuity, _ catalogue: VersionCatalogue, _ path: UpgradePath
    ) -> [QueryChange] {
        guard let expression = try? Parser.parse(query.text, features: .all) else { return [] }
        var changes: [QueryChange] = []
        expression.eachSelector { selector, labels in
            let name = selector.metricName
            guard !name.isEmpty else { return }
            let family = VersionCatalogue.family(of: name).name
            func add(_ words: String) {
                let change = QueryChange(file: query.file, name: query.name, metric: name, words: words)
                if !changes.contains(change) { changes.append(change) }
            }
            // A metric may be named like a histogram's series and be none.
            for metric in Set([name, family]).sorted() {
                let isKnown = catalogue.metrics[metric] != nil || !catalogue.changes(of: metric, on: path).isEmpty
                guard isKnown else { continue }
                let fate = continuity.fate(of: metric)
                if fate.kind == .successor || fate.kind == .removed {
                    add("goes silent: \(metric) \(fate.explanation)")
                }
                let used = Set(selector.matchers.map(\.name) + labels)
                for rename in continuity.labelRenames(of: metric) where used.contains(rename.old) {
                    add("groups or filters by nothing: the label \(rename.old) is now \(rename.new)")
                }
            }
        }
        return changes
    }

    private static func removals(
        of options: ComponentOptions, _ catalogue: VersionCatalogue, _ path: UpgradePath
    ) -> [OptionRemoval] {
        let flags = options.flags.flatMap { flag in
            catalogue.componentFlags.filter {
                $0.flag == flag && path.crosses($0.removedIn)
                    && (options.component.isEmpty || $0.component == options.component)
            }.map {
                OptionRemoval(file: options.file, component: $0.component, option: "--\(flag)", removedIn: $0.removedIn)
            }
        }
        let gates = options.gates.flatMap { gate in
            catalogue.featureGates.filter { $0.name == gate && path.crosses($0.removedIn) }.compactMap { known in
                known.removedIn.map {
                    OptionRemoval(
                        file: options.file, component: options.component, option: "feature gate \(gate)", removedIn: $0)
                }
            }
        }
        return flags + gates
    }

    /// kubernetes.io/releases/version-skew-policy: API servers go up by one minor version at a time; kubelets may be
    /// three behind since 1.28, two before.
    private static func warnings(_ path: UpgradePath) -> [String] {
        let distance = path.to.minor - path.from.minor
        var warnings: [String] = []
        if path.isRollback {
            warnings.append(
                "this is a way back: what was stored in a version that \(path.from) brought is not understood any more")
            warnings.append(
                "the tables tell the way forward: APIs, metrics, flags and gates that only \(path.from) has go away as well"
            )
        } else if distance > 1 {
            warnings.append(
                "\(distance) minor versions at once: the version-skew policy wants API servers to go up by one at a time"
            )
        }
        let allowed = path.to.minor >= 28 ? 3 : 2
        if distance > allowed {
            warnings.append(
                "kubelets of \(path.from) are too old for an API server of \(path.to): at most \(allowed) minor versions are allowed"
            )
        }
        return warnings
    }
}
