import ArgumentParser
import Cluster
import Fetch
import Foundation
import Series
import UpgradeWatch
import WebAPI

/// `upgrade-watch mark`.
struct MarkCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mark",
        abstract: "Say by hand what could not be detected.",
        discussion: """
            Example:
              upgrade-watch mark start --from v1.32.1 --to v1.33.5
              upgrade-watch mark step --component kube-proxy --node node-7 --to v1.33.5
              upgrade-watch mark finish
              upgrade-watch mark extend --by 24h
              upgrade-watch mark list
            """)

    enum Action: String, ExpressibleByArgument, CaseIterable {
        case start, step, finish, rollback, extend, list
    }

    @Argument(help: "What happened, or list.")
    var action: Action

    @Option(help: "The directory of a store. Default: ./data.")
    var store: String?

    @OptionGroup var server: ServerOptions

    @Option(parsing: .unconditional, help: "When: RFC 3339, Unix seconds, or -5m. Default: now.")
    var time: String?

    @Option(help: "The component that went to another version.")
    var component: String?

    @Option(help: "The node where it runs.")
    var node: String?

    @Option(help: "The version before.")
    var from: String?

    @Option(help: "The version after.")
    var to: String?

    @Option(help: "By how much extend makes the soak longer, as in 24h.")
    var by: String?

    @Option(help: "A word for the reader.")
    var note: String?

    func validate() throws {
        if store != nil, server.url != nil { throw ValidationError("--store and --url exclude each other") }
        try QueryCommand.check(times: [time])
        if action == .step, component == nil { throw ValidationError("a step needs --component") }
        if action == .extend, by == nil { throw ValidationError("extend needs --by, as in --by 24h") }
        if action != .extend, by != nil { throw ValidationError("--by is for extend only") }
        if let by, byMs == nil { throw ValidationError("--by \(by) is not a duration of at most 60d, as in 24h") }
    }

    private var byMs: Int64? {
        by.flatMap(TimeFormat.durationMs).flatMap { UpgradeMark.extensions.contains($0) ? $0 : nil }
    }

    func run() async throws {
        try await reporting {
            guard let kind = UpgradeMark.Kind(rawValue: action.rawValue) else { return try await list() }
            let nowMs = WallClock().nowMs
            let mark = UpgradeMark(
                kind: kind, atMs: time.flatMap { QueryCommand.parse($0, nowMs: nowMs) } ?? nowMs, component: component,
                node: node, from: from, to: to, note: note, byMs: byMs)
            if server.url != nil {
                var request = try server.request("/api/v1/upgrades/marks")
                request.method = "POST"
                request.headers = [("Content-Type", "application/json")]
                request.body = Array(try JSONEncoder().encode(MarkMessage(mark)))
                _ = try await send(request)
            } else {
                let state = try StateDatabase(directory: store ?? "./data", readOnly: false)
                try state.cluster.add(mark)
                state.close()
            }
        }
    }

    private struct Answer: Decodable { var data: [MarkMessage] }

    private func list() async throws {
        let marks: [UpgradeMark]
        if server.url != nil {
            let body = try await send(server.request("/api/v1/upgrades/marks"))
            marks = try JSONDecoder().decode(Answer.self, from: Data(body)).data.compactMap { $0.mark(nowMs: 0) }
        } else {
            marks = try StateDatabase(directory: store ?? "./data", readOnly: true).cluster.marks()
        }
        for mark in marks {
            let words = [
                mark.component, mark.node, mark.from.map { "from \($0)" }, mark.to.map { "to \($0)" },
                mark.byMs.map { "by \(TimeFormat.duration(ms: $0))" }, mark.note,
            ]
            Output.text(
                "\(TimeFormat.rfc3339(ms: mark.atMs))  \(mark.kind.rawValue)  "
                    + words.compactMap { $0 }.joined(separator: " ") + "\n")
        }
    }

    private func send(_ request: FetchRequest) async throws -> [UInt8] {
        let response = try await HTTPClient().fetch(request)
        guard (200..<300).contains(response.status) else {
            let text = String(decoding: response.body.prefix(300), as: UTF8.self)
            throw ServerError(
                description: "\(FetchRequest.redacted(request.url)): HTTP status \(response.status): \(text)")
        }
        return response.body
    }
}
