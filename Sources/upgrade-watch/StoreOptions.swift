import ArgumentParser
import Fetch
import PromQL
import Series
import Storage
import UpgradeWatch

/// Which store is read.
struct StoreOptions: ParsableArguments {
    @Option(help: "The directory of a store. Default: ./data.")
    var store: String?

    @Option(help: "A configuration file: its store is read, and the remote server that its storage names.")
    var config: String?

    func validate() throws {
        if store != nil, config != nil { throw ValidationError("--store and --config exclude each other") }
    }

    /// Whether any is named.
    var isGiven: Bool { store != nil || config != nil }

    /// The store's directory, and what is read of it.
    ///
    /// - Throws: `YAMLProblems` of the configuration.
    func resolved() throws -> (directory: String, joining: (Store) -> any SeriesSource) {
        guard let config else { return (store ?? "./data", { $0 }) }
        // Only what it says of the storage is asked for: its rules may need what this command's flags do not say.
        let storage = try Config.load(file: config, features: .all).storage
        return (storage.path, { storage.source($0, client: HTTPClient(), time: WallClock()) })
    }
}
