import Series

/// What a template's expression gives.
enum TemplateValue: Sendable, Equatable {
    case none
    case string(String)
    case number(Double)
    case boolean(Bool)
    case list([TemplateValue])
    /// By key, in the order of the keys; a key that is not there gives an empty string.
    case map([String: TemplateValue])
    /// What `query` gives: labels and a value.
    case sample(Labels, Double)

    static func labels(_ labels: Labels) -> TemplateValue {
        .map(Dictionary(labels.pairs.map { ($0.name, .string($0.value)) }) { $1 })
    }

    /// As Go's `fmt.Sprint` prints it.
    var text: String {
        switch self {
        case .none: "<no value>"
        case .string(let text): text
        case .number(let number): GoFormat.shortest(number)
        case .boolean(let flag): flag ? "true" : "false"
        case .list(let list): "[" + list.map(\.text).joined(separator: " ") + "]"
        case .map(let map):
            "map[" + map.sorted { $0.key < $1.key }.map { "\($0.key):\($0.value.text)" }.joined(separator: " ") + "]"
        case .sample(let labels, let value):
            "{\(TemplateValue.labels(labels).text) \(GoFormat.shortest(value))}"
        }
    }

    /// Whether Go takes it for true: what is not empty and not zero.
    var isTrue: Bool {
        switch self {
        case .none: false
        case .string(let text): !text.isEmpty
        case .number(let number): number != 0
        case .boolean(let flag): flag
        case .list(let list): !list.isEmpty
        case .map(let map): !map.isEmpty
        case .sample: true
        }
    }

    var number: Double? {
        switch self {
        case .number(let number): number
        case .string(let text): Double(text)
        default: nil
        }
    }

    /// A part of a value by its name.
    func field(_ name: String) throws(TemplateError) -> TemplateValue {
        switch self {
        case .map(let map): return map[name] ?? .string("")
        case .sample(let labels, _) where name == "Labels": return .labels(labels)
        case .sample(_, let value) where name == "Value": return .number(value)
        case .none: throw TemplateError(reason: "nil has no field \(name)")
        default: throw TemplateError(reason: "can't evaluate field \(name) in \(text)")
        }
    }
}
