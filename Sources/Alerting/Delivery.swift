import Fetch
import Foundation
import Logging
import Series

/// Brings queued messages to their receivers, and keeps trying.
///
/// A message leaves the queue when the receiver has answered with a status of the 200s. If the process dies between
/// that answer and the queue's next write, the message is sent again with the same `X-Upgrade-Watch-Message-Id`.
package struct Delivery: Sendable {
    private let receivers: [Receiver]
    private let store: AlertStore
    private let client: HTTPClient
    private let logger: Logger

    /// The longest pause between two attempts.
    private static let maxBackoffMs: Int64 = 5 * 60_000
    /// A message is given up when it is this old: its news are no more.
    private static let giveUpMs: Int64 = 24 * 3_600_000

    package init(receivers: [Receiver], store: AlertStore, client: HTTPClient, logger: Logger) {
        self.receivers = receivers
        self.store = store
        self.client = client
        self.logger = logger
    }

    /// Sends the messages that are due.
    ///
    /// - Returns: How many were delivered and how many attempts failed.
    /// - Throws: the database's error.
    @discardableResult
    package func deliver(atMs: Int64) async throws -> (sent: Int, failed: Int) {
        var sent = 0
        var failed = 0
        var blocked: Set<String> = []
        for message in try store.due(atMs: atMs) {
            guard let receiver = receivers.first(where: { $0.name == message.receiver }),
                message.webhook < receiver.webhooks.count
            else {
                logger.error("receiver is no longer configured", metadata: ["receiver": "\(message.receiver)"])
                try store.remove(message.id)
                continue
            }
            // The messages of one webhook keep their order: a failed one holds those behind it.
            let lane = "\(message.receiver)/\(message.webhook)"
            guard !blocked.contains(lane) else { continue }
            let outcome = await send(message, to: receiver.webhooks[message.webhook])
            if case .delivered = outcome {
                try store.remove(message.id)
                sent += 1
                continue
            }
            failed += 1
            if case .refused(let reason) = outcome {
                // It would be refused again: better lost alone than with all that come after it.
                logger.error(
                    "notification refused", metadata: ["receiver": "\(message.receiver)", "error": "\(reason)"])
                try store.remove(message.id)
                continue
            }
            blocked.insert(lane)
            logger.warning(
                "notification failed",
                metadata: [
                    "receiver": "\(message.receiver)", "error": "\(outcome)", "attempt": "\(message.attempts + 1)",
                ])
            if atMs - message.createdMs > Delivery.giveUpMs {
                logger.error("notification given up after a day", metadata: ["receiver": "\(message.receiver)"])
                try store.remove(message.id)
            } else {
                let backoff = min(Delivery.maxBackoffMs, Int64(1000) << Int64(min(message.attempts, 10)))
                try store.retry(message.id, atMs: atMs + backoff)
            }
        }
        return (sent, failed)
    }

    /// How an attempt ended.
    ///
    /// The address is in none of the words: its path may be a secret.
    private enum Outcome: CustomStringConvertible {
        case delivered
        /// The receiver will never take it.
        case refused(String)
        case failed(String)

        var description: String {
            switch self {
            case .delivered: "delivered"
            case .refused(let reason), .failed(let reason): reason
            }
        }
    }

    private func send(_ message: QueuedMessage, to webhook: Webhook) async -> Outcome {
        var request = FetchRequest(url: webhook.url, client: webhook.client)
        request.method = "POST"
        request.body = Array(message.body.utf8)
        request.headers = [
            ("Content-Type", "application/json"), ("X-Upgrade-Watch-Message-Id", String(message.id)),
        ]
        request.timeoutMs = webhook.timeoutMs
        request.maxBodyBytes = 1 << 20
        do throws(FetchError) {
            let response = try await client.fetch(request)
            switch response.status {
            case 200..<300: return .delivered
            case 408, 429: return .failed("status \(response.status)")
            case 400..<500: return .refused("status \(response.status)")
            default: return .failed("status \(response.status)")
            }
        } catch {
            return .failed(error.reason)
        }
    }
}
