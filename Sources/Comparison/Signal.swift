import Cluster
import PromQL
import Series
import StrictYAML

/// Something that is compared before and after an upgrade.
package struct Signal: Sendable {
    package enum Kind: Sendable {
        /// Events among all: the increase of one counter over that of another.
        case ratio(numerator: Selection, denominator: Selection)
        /// Events in time: the increase of a counter.
        case rate(counter: Selection)
        /// Events in time: how often a gauge falls.
        case drops(gauge: Selection)
        /// The level of an expression.
        case gauge(expression: String)
        /// The increase of one counter for each of another: the mean of a histogram's observations, say.
        case mean(sum: Selection, count: Selection)
        /// A quantile of a histogram's observations; the selection is of its `_bucket` series.
        case quantile(Double, histogram: Selection)

        /// Whether events are counted in time, rather than among requests.
        var isInTime: Bool {
            switch self {
            case .rate, .drops: true
            default: false
            }
        }
    }

    /// A selector of series.
    package struct Selection: Sendable {
        package var text: String
        package var matchers: [LabelMatcher]
    }

    /// Which way of change is bad.
    package enum Direction: String, Sendable, CaseIterable {
        case up, down
    }

    /// What is compared with the baseline.
    package enum Window: String, Sendable, CaseIterable {
        /// The time since the last step.
        case soak
        /// The time since the first step.
        case upgrade
    }

    package enum Severity: String, Sendable, CaseIterable {
        case critical, warning, info
    }

    package var name: String
    package var about: String
    /// The component that the signal watches, as in its targets' `job`; empty for none.
    package var component: String
    package var kind: Kind
    package var unit: String
    package var direction: Direction
    /// Labels by which the data is split; each split is compared by itself.
    package var by: [String]
    /// A change counts from this ratio of after to before on, or down to its inverse.
    package var relativeFloor: Double
    /// A change counts from this difference on, in the signal's unit.
    package var absoluteFloor: Double
    /// A steady growth counts from this part of the level an hour on; nil: growth is not looked for.
    package var slopeFloor: Double?
    /// A counter whose rate the level follows: what it explains is taken out.
    package var load: Selection?
    /// Fewer events afterwards say nothing.
    package var minEvents: Double
    /// Whether the verdict depends on it.
    package var isCritical: Bool
    /// Whether a cluster may do without its data: where it never was, the verdict does not wait for it.
    package var isOptional: Bool
    package var severity: Severity
    package var window: Window
    /// A split with as many events an hour in the baseline was in trouble before, whatever the rate does now; nil: no
    /// such rule.
    ///
    /// A baseline shorter than an hour counts as one.
    package var preexistingEvents: Double?
    /// What tells whether the data is there; nil: the metric itself.
    package var presentWhen: Selection?
    /// The minor versions of Kubernetes that have its data, from one through another; nil: all before, or after.
    package var versions: Versions

    /// A stretch of minor versions.
    package struct Versions: Sendable {
        package var from: KubernetesVersion?
        package var through: KubernetesVersion?

        /// Whether any of some versions is of it, as `v1.27.3` is; one that can't be read is.
        package func covers(_ versions: [String]) -> Bool {
            versions.contains { text in
                guard let version = KubernetesVersion(text) else { return true }
                let minor = (version.major, version.minor)
                return from.map { minor >= ($0.major, $0.minor) } ?? true
                    && through.map { minor <= ($0.major, $0.minor) } ?? true
            }
        }

        /// As in "1.19 and later".
        var words: String {
            switch (from, through) {
            case (let from?, let through?): "\(from) through \(through)"
            case (let from?, nil): "\(from) and later"
            case (nil, let through?): "through \(through)"
            case (nil, nil): "all versions"
            }
        }
    }

    /// What the signal's data hang on: the metric alone, without the further matchers, since a counter that never
    /// counted is not there; nil for an expression.
    package var presence: [LabelMatcher]? {
        if let presentWhen { return presentWhen.matchers }
        switch kind {
        case .ratio(_, let selection), .rate(let selection), .drops(let selection), .mean(_, let selection),
            .quantile(_, let selection):
            return selection.matchers.filter {
                $0.name == Labels.metricName || $0.name == "job" || $0.name == "component"
            }
        case .gauge: return nil
        }
    }

    /// The metric that counts the signal's events; nil for a level.
    package var counterName: String? {
        let counter: Selection
        switch kind {
        case .ratio(let numerator, _): counter = numerator
        case .rate(let selection), .drops(let selection): counter = selection
        case .gauge, .mean, .quantile: return nil
        }
        return counter.matchers.first { $0.name == Labels.metricName && $0.operator == .equal }?.value
    }

    /// The counter, where neither a version of Kubernetes nor the program itself is known to have it.
    package var unknownCounter: String? {
        counterName.flatMap { $0.hasPrefix("upgrade_watch_") || VersionCatalogue.builtIn.isKnown($0) ? nil : $0 }
    }

    /// Whether all instances are one: the control plane's, whose load goes from one to another as they are upgraded.
    var poolsUnits: Bool { !component.isEmpty && !Upgrade.nodeComponents.contains(component) }

    /// Whether events are counted, rather than a level measured.
    var countsEvents: Bool {
        switch kind {
        case .ratio, .rate, .drops: true
        case .gauge, .mean, .quantile: false
        }
    }

    /// The ratio that an interval must leave behind for a finding: half of the relative floor.
    var halfFloor: Double { 1 + (relativeFloor - 1) / 2 }

    /// Calls `body` with the matchers of all series that the signal is made from.
    package func eachSelector(_ body: ([LabelMatcher]) -> Void) {
        var selections = [presentWhen, load]
        switch kind {
        case .ratio(let numerator, let denominator): selections += [numerator, denominator]
        case .rate(let selection), .drops(let selection), .quantile(_, let selection): selections.append(selection)
        case .mean(let sum, let count): selections += [sum, count]
        case .gauge(let expression):
            // It was parsed when the signal was read.
            try? Parser.parse(expression).eachSelector { selector, _ in body(selector.matchers) }
        }
        for case let selection? in selections { body(selection.matchers) }
    }

    /// How many series of a time the signal can be made from; 0: it is blind.
    ///
    /// For an expression those of its selectors.
    /// - Throws: the source's error.
    package func series(in source: any SeriesSource, fromMs: Int64, throughMs: Int64) throws -> Int {
        if let presence { return try source.labels(presence, fromMs: fromMs, throughMs: throughMs).count }
        guard case .gauge(let expression) = kind else { return 0 }
        var selectors: [[LabelMatcher]] = []
        try Parser.parse(expression).eachSelector { selector, _ in selectors.append(selector.matchers) }
        return try selectors.reduce(0) { try $0 + source.labels($1, fromMs: fromMs, throughMs: throughMs).count }
    }

    /// The signals of a YAML file: a list under `signals`.
    ///
    /// - Throws: `YAMLProblems` with the place of every fault.
    package static func load(file: String) throws -> [Signal] {
        try load(YAMLDocument(file: file))
    }

    /// The signals of a document that was read already.
    package static func load(_ document: YAMLDocument) throws -> [Signal] {
        var signals: [Signal] = []
        document.root.fields { fields in
            for value in fields.list("signals") {
                guard let signal = value.fields({ signal(&$0) }) ?? nil else { continue }
                if signals.contains(where: { $0.name == signal.name }) {
                    value.report("the signal \(Labels.quoted(signal.name)) stands twice")
                }
                signals.append(signal)
            }
        }
        try document.finish()
        return signals
    }

    private static func signal(_ fields: inout YAMLFields) -> Signal? {
        let name = fields.required("name")?.string
        let kindValue = fields.required("kind")
        var kind: Kind?
        let names = [
            "numerator", "denominator", "counter", "gauge", "expression", "sum", "count", "histogram", "quantile",
        ]
        switch kindValue?.string {
        case "ratio":
            if let numerator = selection(&fields, "numerator"), let denominator = selection(&fields, "denominator") {
                kind = .ratio(numerator: numerator, denominator: denominator)
            }
        case "rate": kind = selection(&fields, "counter").map { .rate(counter: $0) }
        case "drops": kind = selection(&fields, "gauge").map { .drops(gauge: $0) }
        case "mean":
            if let sum = selection(&fields, "sum"), let count = selection(&fields, "count") {
                kind = .mean(sum: sum, count: count)
            }
        case "gauge":
            if let value = fields.required("expression"), let text = value.string {
                do {
                    if try Parser.parse(text).type != .vector {
                        value.report("the expression must give an instant vector")
                    }
                    kind = .gauge(expression: text)
                } catch {
                    value.report("\(error)")
                }
            }
        case "quantile":
            let quantile = fields.required("quantile")
            let q = quantile?.double ?? 0.99
            if q <= 0 || q >= 1 { quantile?.report("a quantile is between 0 and 1, as in 0.99") }
            kind = selection(&fields, "histogram").map { .quantile(q, histogram: $0) }
        case let other?:
            kindValue?.report(
                "unknown kind \(Labels.quoted(other)); known are ratio, rate, drops, gauge, mean and quantile")
            for name in names { _ = fields.take(name) }
        case nil: for name in names { _ = fields.take(name) }
        }
        let presentWhen = fields.take("present_when").flatMap { selection($0) }
        let load = fields.take("load").flatMap { selection($0) }
        let minEvents = least(&fields, "min_events")
        let preexistingEvents = least(&fields, "preexisting_events")
        let critical = fields.bool("critical") ?? false
        var relative = 1.25
        var absolute = 0.0
        var slope: Double?
        fields.take("floors")?.fields { floors in
            relative = floors.double("relative") ?? relative
            absolute = floors.double("absolute") ?? absolute
            slope = floors.double("slope")
            if relative < 1 { floors.value.report("the relative floor is a ratio of 1 and more") }
            if absolute < 0 || slope ?? 1 <= 0 { floors.value.report("floors are not negative, and a slope is over 0") }
            if relative == 1, absolute == 0 {
                floors.value.report("a relative floor of 1 needs an absolute one: any change would count")
            }
        }
        let severityValue = fields.take("severity")
        let severity =
            severityValue.flatMap { choice($0, "severity") as Severity? } ?? (critical ? .critical : .warning)
        if (severity == .critical) != critical {
            severityValue?.report(
                "critical findings are those of critical signals: set critical to true, or another severity")
        }
        var versions = Versions()
        fields.take("versions")?.fields { fields in
            versions = Versions(
                from: fields.take("from")?.kubernetesVersion, through: fields.take("through")?.kubernetesVersion)
            if let from = versions.from, let through = versions.through, from > through {
                fields.value.report("versions go from a lower one through a higher one")
            }
        }
        let signal = Signal(
            name: name ?? "", about: fields.string("about") ?? "", component: fields.string("component") ?? "",
            kind: kind ?? .gauge(expression: ""), unit: fields.string("unit") ?? "",
            direction: choice(&fields, "direction") ?? .up, by: fields.stringList("by"), relativeFloor: relative,
            absoluteFloor: absolute, slopeFloor: slope, load: load, minEvents: minEvents ?? 5,
            isCritical: critical, isOptional: fields.bool("optional") ?? false,
            severity: severity,
            window: choice(&fields, "window") ?? .soak, preexistingEvents: preexistingEvents,
            presentWhen: presentWhen, versions: versions)
        return name == nil || kind == nil ? nil : signal
    }

    /// A number of events, which is not negative.
    private static func least(_ fields: inout YAMLFields, _ name: String) -> Double? {
        guard let value = fields.take(name), let number = value.double else { return nil }
        if number < 0 { value.report("\(name) is a number of events: it is not negative") }
        return number
    }

    private static func selection(_ fields: inout YAMLFields, _ name: String) -> Selection? {
        fields.required(name).flatMap { selection($0) }
    }

    private static func selection(_ value: YAMLValue) -> Selection? {
        guard let text = value.string else { return nil }
        do {
            return Selection(text: text, matchers: try Parser.parseSelector(text))
        } catch {
            value.report("\(error)")
            return nil
        }
    }

    private static func choice<T: RawRepresentable & CaseIterable>(
        _ fields: inout YAMLFields, _ name: String
    ) -> T? where T.RawValue == String {
        fields.take(name).flatMap { choice($0, name) }
    }

    private static func choice<T: RawRepresentable & CaseIterable>(
        _ value: YAMLValue, _ name: String
    ) -> T? where T.RawValue == String {
        guard let text = value.string else { return nil }
        if let choice = T(rawValue: text) { return choice }
        value.report(
            "unknown \(name) \(Labels.quoted(text)); known are \(T.allCases.map(\.rawValue).joined(separator: ", "))")
        return nil
    }
}

extension YAMLValue {
    /// A version of Kubernetes; nil, and reported, where it is none.
    package var kubernetesVersion: KubernetesVersion? {
        guard let text = string else { return nil }
        if let version = KubernetesVersion(text) { return version }
        report("\(Labels.quoted(text)) is not a version; write it quoted, as in \"1.19\"")
        return nil
    }
}
