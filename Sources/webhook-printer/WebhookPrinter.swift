import ArgumentParser
import Foundation
import HTTPTypes
import Hummingbird
import Logging

/// A receiver of webhooks for demonstrations: answers every message with 200 and prints it.
@main
struct WebhookPrinter: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "webhook-printer",
        abstract: "Print the webhook messages that arrive.",
        discussion: "Example:\n  webhook-printer --port 9096")

    @Option(help: "The port on the loopback address; 0 takes any free one.")
    var port = 9096

    @Option(help: "Write the address to this file once it is listened on.")
    var addressFile: String?

    @Flag(help: "Print each message as it came, a line each.")
    var raw = false

    func run() async throws {
        var logger = Logger(label: "webhook-printer", factory: { StreamLogHandler.standardError(label: $0) })
        logger.logLevel = .error
        let router = Router()
        let raw = raw
        let receive: @Sendable (Request, BasicRequestContext) async throws -> HTTPResponse.Status = { request, _ in
            let body = try await request.body.collect(upTo: 16 << 20)
            let text = String(buffer: body)
            FileHandle.standardOutput.write(Data((raw ? text + "\n" : Self.describe(text)).utf8))
            return .ok
        }
        router.post("/", use: receive)
        router.post("/**", use: receive)
        let addressFile = addressFile
        let app = Application(
            router: router, configuration: .init(address: .hostname("127.0.0.1", port: port)),
            onServerRunning: { channel in
                let address = "127.0.0.1:\(channel.localAddress?.port ?? 0)"
                if let addressFile {
                    try? Data(address.utf8).write(to: URL(fileURLWithPath: addressFile), options: .atomic)
                } else {
                    FileHandle.standardError.write(Data("listening on \(address)\n".utf8))
                }
            }, logger: logger)
        try await app.runService()
    }

    private struct Message: Decodable {
        struct Alert: Decodable {
            var status: String
            var labels: [String: String]
            var annotations: [String: String]
            var startsAt: String
        }
        var receiver: String
        var status: String
        var alerts: [Alert]
    }

    private static func describe(_ text: String) -> String {
        guard let message = try? JSONDecoder().decode(Message.self, from: Data(text.utf8)) else {
            return "webhook: not a message of version 4: \(text.prefix(200))\n"
        }
        return "webhook for \(message.receiver), \(message.status), \(message.alerts.count) alerts\n"
            + message.alerts.map { alert in
                "  \(alert.status) \(alert.labels["alertname"] ?? "") [\(alert.labels["severity"] ?? "")] "
                    + "since \(alert.startsAt): \(alert.annotations["summary"] ?? "")\n"
            }.joined()
    }
}
