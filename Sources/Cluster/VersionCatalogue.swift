import Series

/// What is known of the differences between Kubernetes' minor versions, 1.10 to 1.36: the tables of `config/versions`.
package struct VersionCatalogue: Sendable {
    /// A kind of an API version that is no longer served.
    package struct APIRemoval: Sendable, Equatable {
        package var groupVersion: String
        package var kind: String
        package var removedIn: KubernetesVersion
        /// Empty where there is none.
        package var replacement: String
    }

    /// What became of a metric.
    package struct MetricChange: Sendable, Equatable {
        package enum Kind: String, Sendable {
            /// The same quantity under another name, perhaps in another unit.
            case rename
            /// The quantiles are gone; sum and count go on.
            case summaryToHistogram = "summary-to-histogram"
            /// Several metrics became one with a further label.
            case merge
            case removed
            /// There is something like it, which can't be compared with it.
            case approximate
            /// Other labels under the same name.
            case labels
            /// Other buckets under the same name.
            case buckets
        }

        /// The component that exposes it; `kubernetes` for all of Kubernetes' own.
        package var component: String
        /// A name, or one that begins or ends with `*`.
        package var old: String
        /// Empty for a metric that was removed.
        package var new: String
        package var kind: Kind
        /// The new value for an old one of 1: from microseconds to seconds 1e-6.
        package var factor: Double
        /// Old and new names of labels.
        package var labels: [(old: String, new: String)]
        /// The first version that does not expose the old metric by default; nil: unknown, or not a version of
        /// Kubernetes.
        package var goneIn: KubernetesVersion?
        package var newSince: KubernetesVersion?
        package var note: String

        package static func == (left: MetricChange, right: MetricChange) -> Bool {
            left.component == right.component && left.old == right.old && left.new == right.new
                && left.kind == right.kind && left.goneIn == right.goneIn
        }

        /// Whether a metric is one of those that it tells of.
        func names(_ name: String) -> Bool {
            if old.hasSuffix("*") { return name.hasPrefix(old.dropLast()) }
            return old.hasPrefix("*") ? name.hasSuffix(old.dropFirst()) : old == name
        }

        /// Whether it is of a component whose versions are Kubernetes' own.
        package var isOfKubernetes: Bool { component == "kubernetes" || component.hasPrefix("kube") }
    }

    /// Since when and until when a metric is exposed by default.
    package struct MetricLifetime: Sendable, Equatable {
        package var component: String
        package var since: KubernetesVersion?
        package var goneIn: KubernetesVersion?
    }

    package struct FeatureGate: Sendable, Equatable {
        package var name: String
        package var onSince: KubernetesVersion?
        /// A component that is given the gate does not start from here on.
        package var removedIn: KubernetesVersion?
    }

    package struct ComponentFlag: Sendable, Equatable {
        package var component: String
        package var flag: String
        package var removedIn: KubernetesVersion
    }

    /// A version whose kubelet computes another hash of a container's definition, and so restarts what it finds
    /// running.
    package struct RestartCause: Sendable, Equatable {
        package var version: KubernetesVersion
        /// Which containers: `all`, or those with some field.
        package var containers: String
        package var why: String
    }

    package struct BehaviourChange: Sendable, Equatable {
        package var version: KubernetesVersion
        package var component: String
        package var change: String
        package var consequence: String
    }

    package let apiRemovals: [APIRemoval]
    package let metricChanges: [MetricChange]
    /// The changes of each metric by its old name, and those of whole families of names.
    private let changesByName: [String: [MetricChange]]
    private let changesByPattern: [MetricChange]
    /// By name.
    package let metrics: [String: [MetricLifetime]]
    package let featureGates: [FeatureGate]
    package let componentFlags: [ComponentFlag]
    package let restartCauses: [RestartCause]
    package let behaviourChanges: [BehaviourChange]

    /// The tables that the program was built with.
    package static let builtIn = VersionCatalogue()

    private init() {
        apiRemovals = Table(PackageResources.api_removals_tsv).rows.compactMap { row in
            row.version("removed_in").map {
                APIRemoval(
                    groupVersion: row["group_version"], kind: row["kind"], removedIn: $0,
                    replacement: row["replacement"])
            }
        }
        metricChanges = Table(PackageResources.metric_continuity_tsv).rows.map { row in
            MetricChange(
                component: row["component"], old: row["old"], new: row["new"],
                kind: MetricChange.Kind(rawValue: row["kind"]) ?? .approximate, factor: Double(row["factor"]) ?? 1,
                labels: row["labels"].split(separator: ",").map { pair in
                    let names = pair.split(separator: "=").map(String.init)
                    return (names.first ?? "", names.last ?? "")
                }, goneIn: row.version("gone_in"), newSince: row.version("new_since"), note: row["note"])
        }
        changesByName = Dictionary(grouping: metricChanges.filter { !$0.old.contains("*") }, by: \.old)
        changesByPattern = metricChanges.filter { $0.old.contains("*") }
        metrics = Dictionary(
            grouping: Table(PackageResources.metrics_tsv).rows.map { row in
                (
                    row["metric"],
                    MetricLifetime(
                        component: row["component"], since: row.version("since"), goneIn: row.version("gone_in"))
                )
            }, by: \.0
        ).mapValues { $0.map(\.1) }
        featureGates = Table(PackageResources.feature_gates_tsv).rows.map { row in
            FeatureGate(name: row["gate"], onSince: row.version("on_since"), removedIn: row.version("removed_in"))
        }
        componentFlags = Table(PackageResources.component_flags_tsv).rows.compactMap { row in
            row.version("removed_in").map {
                ComponentFlag(component: row["component"], flag: row["flag"], removedIn: $0)
            }
        }
        restartCauses = Table(PackageResources.restart_causes_tsv).rows.compactMap { row in
            row.version("version").map { RestartCause(version: $0, containers: row["containers"], why: row["why"]) }
        }
        behaviourChanges = Table(PackageResources.behaviour_changes_tsv).rows.compactMap { row in
            row.version("version").map {
                BehaviourChange(
                    version: $0, component: row["component"], change: row["change"], consequence: row["consequence"])
            }
        }
    }

    /// What becomes of Kubernetes' own metrics on a way.
    package func metricChanges(on path: UpgradePath) -> [MetricChange] {
        metricChanges.filter { $0.isOfKubernetes && path.crosses($0.goneIn) }
    }

    /// What may have become of a metric on a way, in the order of the versions.
    ///
    /// - Parameter name: without a histogram's or a summary's suffix.
    package func changes(of name: String, on path: UpgradePath) -> [MetricChange] {
        let found = (changesByName[name] ?? []) + changesByPattern.filter { $0.names(name) }
        return found.filter { path.crosses($0.goneIn) && $0.isOfKubernetes }
    }

    /// Whether any version has a metric.
    ///
    /// - Parameter name: of a series: a histogram's or a summary's suffix may be there.
    package func isKnown(_ name: String) -> Bool {
        VersionCatalogue.familyNames(of: name).contains { metrics[$0] != nil } || !otherNames(of: name).isEmpty
    }

    /// The version that took a metric away from all components before another version; nil where one has it yet.
    package func goneIn(_ name: String, before version: KubernetesVersion) -> KubernetesVersion? {
        let lifetimes = VersionCatalogue.familyNames(of: name).flatMap { metrics[$0] ?? [] }
        let ends = lifetimes.compactMap(\.goneIn).filter { $0 <= version }
        return ends.count == lifetimes.count ? ends.max() : nil
    }

    /// The name of a family without the suffix of a histogram's or a summary's series.
    package static func family(of name: String) -> (name: String, suffix: String) {
        for suffix in ["_bucket", "_sum", "_count"] where name.hasSuffix(suffix) {
            return (String(name.dropLast(suffix.count)), suffix)
        }
        return (name, "")
    }

    /// A name, and that of its family where it has a suffix.
    private static func familyNames(of name: String) -> [String] {
        let family = family(of: name)
        return family.suffix.isEmpty ? [name] : [name, family.name]
    }

    /// What a metric was called before and is called afterwards, in any version and by any component.
    ///
    /// - Parameter name: of a series: a histogram's or a summary's suffix is kept.
    package func otherNames(of name: String) -> [String] {
        VersionCatalogue.familyNames(of: name).flatMap { family in
            let suffix = name.dropFirst(family.count)
            return metricChanges.flatMap { change -> [String] in
                guard !change.new.isEmpty, change.old == family || change.new == family else { return [] }
                return [change.old + suffix, change.new + suffix]
            }
        }
    }
}

/// The way of an upgrade, from one version to another: either may be the higher one.
package struct UpgradePath: Sendable, Equatable {
    package var from: KubernetesVersion
    package var to: KubernetesVersion

    package init(from: KubernetesVersion, to: KubernetesVersion) {
        self.from = from
        self.to = to
    }

    /// nil where a version can't be read.
    package init?(_ upgrade: Upgrade) {
        guard let from = KubernetesVersion(upgrade.from), let to = KubernetesVersion(upgrade.to) else { return nil }
        self.init(from: from, to: to)
    }

    package var isRollback: Bool { to < from }

    /// Whether the way leaves the versions before a minor version and arrives at it or beyond.
    package func crosses(_ minor: KubernetesVersion?) -> Bool {
        minor.map { KubernetesVersion.path(from: from, to: to, crosses: $0) } ?? false
    }

    /// The same, or the way back over it: a kubelet of the old version computes the old hash again.
    package func crossesEitherWay(_ minor: KubernetesVersion) -> Bool {
        crosses(minor) || KubernetesVersion.path(from: to, to: from, crosses: minor)
    }
}

/// A table: a head line and rows, their fields apart by tabs.
private struct Table {
    struct Row {
        let columns: [String: Int]
        let fields: [Substring]

        subscript(_ column: String) -> String {
            guard let index = columns[column], index < fields.count else { return "" }
            return String(fields[index])
        }

        func version(_ column: String) -> KubernetesVersion? { KubernetesVersion(self[column]) }
    }

    let rows: [Row]

    init(_ bytes: [UInt8]) {
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n")
        let split = { (line: Substring) in line.split(separator: "\t", omittingEmptySubsequences: false) }
        let columns = Dictionary(
            uniqueKeysWithValues: (lines.first.map(split) ?? []).enumerated().map { (String($1), $0) })
        rows = lines.dropFirst().map { Row(columns: columns, fields: split($0)) }
    }
}
