import ArgumentParser
import PromQL

/// `--enable-feature`, as Prometheus has it.
struct FeatureOptions: ParsableArguments {
    @Option(
        name: .customLong("enable-feature"),
        help: ArgumentHelp(
            "Parts of PromQL that are not stable, divided by commas: \(QueryFeatures.known.joined(separator: ", ")).",
            valueName: "features"))
    var names: [String] = []

    private var words: [String] { names.flatMap { $0.split(separator: ",").map(String.init) } }

    var features: QueryFeatures { QueryFeatures(words.compactMap { QueryFeatures(name: $0) }) }

    func validate() throws {
        if let unknown = words.first(where: { QueryFeatures(name: $0) == nil }) {
            throw ValidationError(
                "unknown feature \(unknown); known are \(QueryFeatures.known.joined(separator: ", "))")
        }
    }
}
