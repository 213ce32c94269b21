import ArgumentParser
import Fetch
import Foundation
import StrictYAML
import UpgradeWatch

/// Which running service is asked, and with what credentials.
struct ServerOptions: ParsableArguments {
    @Option(help: "The address of a running service, instead of a store.")
    var url: String?

    @Option(
        name: .customLong("http.config.file"),
        help: ArgumentHelp(
            "How the service is asked: basic_auth, authorization, tls_config, proxy_url and so on, as promtool's.",
            valueName: "file"))
    var httpConfig: String?

    func validate() throws {
        if httpConfig != nil, url == nil { throw ValidationError("--http.config.file is for --url") }
    }

    /// A request for a path of the service.
    ///
    /// - Throws: `YAMLProblems` of the file.
    func request(_ path: String) throws -> FetchRequest {
        let base = url ?? ""
        var request = FetchRequest(url: (base.hasSuffix("/") ? String(base.dropLast()) : base) + path)
        request.client = try ServerOptions.client(file: httpConfig)
        return request
    }

    /// How servers are asked, by a file of `--http.config.file`; without one as `promtool` does, by the environment's
    /// proxies.
    ///
    /// - Throws: `YAMLProblems` of the file.
    static func client(file: String?) throws -> ClientOptions {
        var client = ClientOptions()
        client.proxy = ProxyOptions(.environment)
        guard let file else { return client }
        let document = try YAMLDocument(file: file)
        document.root.fields { client = ClientConfigReader(folder: file.folderOfPath).read(&$0) }
        try document.finish()
        return client
    }
}
