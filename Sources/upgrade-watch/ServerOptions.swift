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
            "How the service is asked: basic_auth, authorization and tls_config, as promtool's.", valueName: "file"))
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
        guard let httpConfig else { return request }
        let folder = (httpConfig as NSString).deletingLastPathComponent
        let document = try YAMLDocument(file: httpConfig)
        document.root.fields { fields in
            (request.tls, request.authentication) =
                ClientConfigReader(folder: folder.isEmpty ? "." : folder).read(&fields)
        }
        try document.finish()
        return request
    }
}
