/// One label: a name and its value.
package struct Label: Hashable, Sendable {
    package var name: String
    package var value: String

    package init(_ name: String, _ value: String) {
        self.name = name
        self.value = value
    }
}

/// A set of labels that names a series, sorted by label name.
///
/// A label with an empty value is the same as no label, as in Prometheus' data model: such labels are dropped.
package struct Labels: Hashable, Sendable {
    /// The labels in ascending order of their names; no name occurs twice and no value is empty.
    package private(set) var pairs: [Label]

    /// The name of the label that holds a metric's name.
    package static let metricName = "__name__"

    package init() { pairs = [] }

    /// Makes a set out of labels in any order; of labels with the same name the last one counts.
    package init(_ labels: some Sequence<Label>) {
        pairs = labels.sorted { $0.name < $1.name }
        if zip(pairs, pairs.dropFirst()).contains(where: { $0.name == $1.name }) {
            var last: [Label] = []
            for label in pairs {
                if last.last?.name == label.name { last.removeLast() }
                last.append(label)
            }
            pairs = last
        }
        pairs.removeAll { $0.value.isEmpty }
    }

    /// Makes a set out of values by their names.
    package init(_ values: [String: String]) { self.init(values.map { Label($0.key, $0.value) }) }

    /// Makes a set of labels that is known to be sorted by name, without repetition or empty values.
    package init(sorted pairs: [Label]) { self.pairs = pairs }

    /// The values by their names.
    package var values: [String: String] { Dictionary(uniqueKeysWithValues: pairs.map { ($0.name, $0.value) }) }

    /// The metric's name, or an empty string.
    package var name: String { self[Labels.metricName] ?? "" }

    /// The value of a label, nil where the set has no such label; setting nil or an empty string removes it.
    ///
    /// - Complexity: O(n): label sets are short, a scan beats a search.
    package subscript(_ name: String) -> String? {
        get {
            for label in pairs where label.name == name { return label.value }
            return nil
        }
        set {
            let value = newValue ?? ""
            let index = pairs.firstIndex { $0.name >= name } ?? pairs.endIndex
            if index < pairs.endIndex, pairs[index].name == name {
                if value.isEmpty { pairs.remove(at: index) } else { pairs[index].value = value }
            } else if !value.isEmpty {
                pairs.insert(Label(name, value), at: index)
            }
        }
    }

    /// The labels without the metric's name.
    package var withoutName: Labels { removing([Labels.metricName]) }

    /// The labels whose names are in `names`.
    package func keeping(_ names: [String]) -> Labels {
        Labels(sorted: pairs.filter { names.contains($0.name) })
    }

    /// The labels whose names are not in `names`.
    package func removing(_ names: [String]) -> Labels {
        Labels(sorted: pairs.filter { !names.contains($0.name) })
    }

    /// These labels with those of `other` laid over them.
    package func merging(_ other: Labels) -> Labels {
        var merged = self
        for label in other.pairs { merged[label.name] = label.value }
        return merged
    }

    package var isEmpty: Bool { pairs.isEmpty }
}

extension Labels: ExpressibleByDictionaryLiteral {
    package init(dictionaryLiteral elements: (String, String)...) {
        self.init(elements.map { Label($0.0, $0.1) })
    }
}

extension Labels: Comparable {
    /// Orders label sets as Prometheus does: label by label, name before value, a shorter prefix first.
    package static func < (left: Labels, right: Labels) -> Bool {
        for (a, b) in zip(left.pairs, right.pairs) {
            if a.name != b.name { return a.name < b.name }
            if a.value != b.value { return a.value < b.value }
        }
        return left.pairs.count < right.pairs.count
    }
}

extension Labels: CustomStringConvertible {
    /// The set as PromQL writes it: `name{label="value", …}`.
    package var description: String {
        let name = self.name
        let isPlain = Labels.isMetricName(name)
        var parts: [String] = []
        if !name.isEmpty, !isPlain { parts.append(Labels.quoted(name)) }
        for label in pairs where label.name != Labels.metricName {
            let shown = Labels.isLabelName(label.name) ? label.name : Labels.quoted(label.name)
            parts.append("\(shown)=\(Labels.quoted(label.value))")
        }
        let plainName = isPlain ? name : ""
        if parts.isEmpty { return plainName.isEmpty ? "{}" : plainName }
        return plainName + "{" + parts.joined(separator: ", ") + "}"
    }

    /// The set with the name among the labels: `{__name__="name", label="value", …}`.
    package var braced: String {
        "{"
            + pairs.map { label in
                (Labels.isLabelName(label.name) ? label.name : Labels.quoted(label.name))
                    + "=\(Labels.quoted(label.value))"
            }.joined(separator: ", ") + "}"
    }

    /// A string in double quotes, with `\`, `"` and line breaks escaped.
    package static func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": out += "\\\\"
            case "\"": out += "\\\""
            case "\n": out += "\\n"
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }

    /// Whether a name can stand in an expression without quotes as a metric's name: `[a-zA-Z_:][a-zA-Z0-9_:]*`.
    package static func isMetricName(_ name: String) -> Bool {
        isName(name, colons: true)
    }

    /// Whether a name can stand in an expression without quotes as a label's name: `[a-zA-Z_][a-zA-Z0-9_]*`.
    package static func isLabelName(_ name: String) -> Bool {
        isName(name, colons: false)
    }

    private static func isName(_ name: String, colons: Bool) -> Bool {
        var first = true
        for byte in name.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "_"): break
            case UInt8(ascii: ":") where colons: break
            case UInt8(ascii: "0")...UInt8(ascii: "9") where !first: break
            default: return false
            }
            first = false
        }
        return !first
    }
}
