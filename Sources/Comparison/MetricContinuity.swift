import Cluster
import Series

/// What becomes of a metric on the way of an upgrade.
package struct MetricFate: Sendable, Equatable {
    package enum Kind: String, Sendable {
        /// Another metric has its place.
        case successor
        /// It is no longer exposed, and nothing has its place.
        case removed
        /// It belongs to the language's runtime, whose metrics change with its versions.
        case runtime
        /// Both versions have it: it shows once something has happened that it counts.
        case quiet
        /// The catalogue does not know it: gone, for a reason that is not known.
        case unknown
    }

    package var kind: Kind
    /// Empty where there is none.
    package var successor: String
    package var explanation: String
}

/// Follows metrics through the versions of an upgrade.
package struct MetricContinuity: Sendable {
    private let path: UpgradePath
    private let catalogue: VersionCatalogue
    /// What each metric at the end of the way was at its beginning.
    private var before: [String: [VersionCatalogue.MetricChange]] = [:]

    package init(path: UpgradePath, catalogue: VersionCatalogue = .builtIn) {
        self.path = path
        self.catalogue = catalogue
        for change in catalogue.metricChanges(on: path) {
            guard let last = successor(of: change.old), last.new != change.old,
                before[last.new]?.contains(where: { $0.old == change.old }) != true
            else { continue }
            before[last.new, default: []].append(last)
        }
    }

    /// What becomes of a metric that was exposed before and is not afterwards.
    ///
    /// - Parameter name: a family's.
    package func fate(of name: String) -> MetricFate {
        if name.hasPrefix("go_") || name.hasPrefix("process_") {
            return MetricFate(
                kind: .runtime, successor: "",
                explanation: "a metric of the Go runtime, which changes with the version of Go")
        }
        if let change = successor(of: name) {
            let names = change.labels.map { "\($0.old) is now \($0.new)" }
            var words = "since \(change.goneIn?.text ?? "?") it is \(change.new)"
            if change.factor != 1 { words += ", its values divided by \(Int(1 / change.factor))" }
            if !names.isEmpty { words += ", the label " + names.joined(separator: ", ") }
            switch change.kind {
            case .summaryToHistogram: words += "; a histogram instead of a summary: sum and count can be compared"
            case .approximate: words += "; it counts something else: the two can't be compared"
            default: break
            }
            return MetricFate(
                kind: .successor, successor: change.new, explanation: words)
        }
        let removal = catalogue.changes(of: name, on: path).first { $0.kind == .removed || $0.new.isEmpty }
        let lifetimes = catalogue.metrics[name] ?? []
        if let goneIn = removal?.goneIn ?? lifetimes.lazy.compactMap(\.goneIn).first(where: { path.crosses($0) }) {
            return MetricFate(
                kind: .removed, successor: "",
                explanation: "not exposed by default since \(goneIn), without a successor"
                    + (removal.map { $0.note.isEmpty ? "" : ": \($0.note)" } ?? ""))
        }
        if lifetimes.contains(where: { $0.goneIn.map { $0 > path.to } ?? true }) {
            return MetricFate(
                kind: .quiet, successor: name,
                explanation: "both versions have it; nothing that it counts has happened since the restart")
        }
        return MetricFate(
            kind: .unknown, successor: "",
            explanation: "not exposed any more; no successor is known")
    }

    /// The metric that has a metric's place at the end of the way, through all the versions between.
    package func successor(of name: String) -> VersionCatalogue.MetricChange? {
        var found: VersionCatalogue.MetricChange?
        var current = name
        // A chain of names is short; one that runs in a circle ends.
        for _ in 0..<8 {
            let next = catalogue.changes(of: current, on: path).first { change in
                !change.new.isEmpty && change.new != current && change.kind != .removed && change.kind != .labels
                    && change.kind != .buckets
            }
            guard let next else { break }
            if var chain = found {
                chain.new = next.new
                chain.factor *= next.factor
                chain.labels += next.labels
                if next.kind != .rename { chain.kind = next.kind }
                found = chain
            } else {
                found = next
            }
            current = next.new
        }
        return found
    }

    /// The labels of a metric that are named otherwise at the end of the way.
    package func labelRenames(of name: String) -> [(old: String, new: String)] {
        catalogue.changes(of: name, on: path).filter { $0.kind == .labels }.flatMap(\.labels)
    }

    /// The metrics at the beginning of the way whose place a metric has at its end.
    package func predecessors(of name: String) -> [VersionCatalogue.MetricChange] {
        before[name] ?? []
    }
}
