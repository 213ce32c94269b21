import Fetch
import Logging
import Scrape
import Series

/// Targets from a server that is asked again and again (`http_sd_configs`).
package struct HTTPDiscovery: Sendable, Equatable {
    package var url: String
    package var refreshMs: Int64 = 60_000
    package var client = ClientOptions()

    package init(url: String) { self.url = url }

    private static let timeoutMs: Int64 = 60_000
    private static let maxBytes = 64 << 20

    private struct Refused: Error, CustomStringConvertible { var description: String }

    func run(_ context: DiscoveryContext, found: DiscoveryContext.Found) async {
        var problem = ""
        while !Task.isCancelled {
            let nowMs = context.time.nowMs
            do {
                let groups = try await fetch(context.client)
                context.board.countUpdate("http")
                if !problem.isEmpty {
                    context.logger.notice("targets are listed again", metadata: ["url": "\(shown)"])
                }
                problem = ""
                found(groups, true)
            } catch {
                if Task.isCancelled { return }
                context.board.countFailure("http")
                if problem != "\(error)" {
                    context.logger.error(
                        "no list of targets, those that there were stay",
                        metadata: ["url": "\(shown)", "error": "\(error)"])
                }
                problem = "\(error)"
            }
            try? await context.time.sleep(untilMs: nowMs + refreshMs)
        }
    }

    private var shown: String { FetchRequest.redacted(url) }

    private func fetch(_ client: HTTPClient) async throws -> [TargetGroup] {
        var request = FetchRequest(url: url, client: self.client)
        request.timeoutMs = min(HTTPDiscovery.timeoutMs, max(1000, refreshMs))
        request.maxBodyBytes = HTTPDiscovery.maxBytes
        request.headers = [
            ("Accept", "application/json"),
            ("X-Prometheus-Refresh-Interval-Seconds", "\(Double(refreshMs) / 1000)"),
        ]
        let answer = try await client.fetch(request)
        guard answer.status == 200 else {
            throw Refused(description: "server returned HTTP status \(answer.status)")
        }
        let type = answer.headers["content-type"] ?? ""
        guard type.split(separator: ";").first?.lowercased() == "application/json" else {
            throw Refused(description: "unsupported content type \(Labels.quoted(type)): application/json is needed")
        }
        let list: TargetList
        do {
            list = try TargetList(json: answer.body)
        } catch {
            throw Refused(description: "the answer is no list of target groups: \(error)")
        }
        return list.targetGroups(from: Label("__meta_url", shown))
    }
}
