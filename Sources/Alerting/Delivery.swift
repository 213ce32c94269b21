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

    /// What became of messages.
    package struct Result: Sendable, Equatable {
        package var sent = 0
        /// Attempts that failed.
        package var failed = 0
        /// Messages that were given up because their receiver can't read them.
        package var refused = 0

        package init(sent: Int = 0, failed: Int = 0, refused: Int = 0) {
            self.sent = sent
            self.failed = failed
            self.refused = refused
        }

        package static func += (left: inout Result, right: Result) {
            left.sent += right.sent
            left.failed += right.failed
            left.refused += right.refused
        }
    }

    /// Sends the messages that are due, to each webhook one after another, to all webhooks at once.
    ///
    /// Where the task is cancelled, it ends with the messages that are under way.
    /// - Throws: the database's error.
    @discardableResult
    package func deliver(atMs: Int64) async throws -> Result {
        let lanes = Dictionary(grouping: try store.due(atMs: atMs)) { Lane(receiver: $0.receiver, webhook: $0.webhook) }
        // A database that can't be written ends no request of another webhook.
        let outcomes = await withTaskGroup(of: Swift.Result<Result, any Error>.self) { group in
            for (lane, messages) in lanes {
                group.addTask {
                    do {
                        return .success(try await deliver(messages, on: lane, atMs: atMs))
                    } catch {
                        return .failure(error)
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        return try outcomes.reduce(into: Result()) { $0 += try $1.get() }
    }

    private struct Lane: Hashable {
        var receiver: String
        var webhook: Int
    }

    /// The messages of one webhook keep their order: a failed one holds those behind it.
    private func deliver(_ messages: [QueuedMessage], on lane: Lane, atMs: Int64) async throws -> Result {
        var result = Result()
        let name: Logger.Metadata = ["receiver": "\(lane.receiver)"]
        guard let receiver = receivers.first(where: { $0.name == lane.receiver }),
            lane.webhook < receiver.webhooks.count
        else {
            logger.error("receiver is no longer configured", metadata: name)
            for message in messages { try store.remove(message.id) }
            return result
        }
        for message in messages where !Task.isCancelled {
            let outcome = await send(message, to: receiver.webhooks[lane.webhook])
            switch outcome {
            case .delivered:
                try store.remove(message.id)
                result.sent += 1
            case .refused(let reason):
                // It would be refused again: better lost alone than with all that come after it.
                logger.error("notification refused", metadata: name.merging(["error": "\(reason)"]) { $1 })
                try store.remove(message.id)
                result.refused += 1
            case .failed where Task.isCancelled: return result
            case .failed(let reason):
                result.failed += 1
                logger.warning(
                    "notification failed",
                    metadata: name.merging(["error": "\(reason)", "attempt": "\(message.attempts + 1)"]) { $1 })
                guard atMs - message.createdMs <= Delivery.giveUpMs else {
                    logger.error("notification given up after a day", metadata: name)
                    try store.remove(message.id)
                    return result
                }
                let backoff = min(Delivery.maxBackoffMs, Int64(1000) << Int64(min(message.attempts, 10)))
                try store.retry(message.id, atMs: atMs + backoff)
                return result
            }
        }
        return result
    }

    private func send(_ message: QueuedMessage, to webhook: Webhook) async -> DeliveryOutcome {
        var request = FetchRequest(url: webhook.url, client: webhook.client)
        request.body = Array(message.body.utf8)
        request.headers = [("X-Upgrade-Watch-Message-Id", String(message.id))]
        request.timeoutMs = webhook.timeoutMs
        return await .post(request, by: client)
    }
}

/// How an attempt to deliver something ended.
///
/// The address is in none of the words: its path may be a secret.
package enum DeliveryOutcome: Sendable, Equatable {
    case delivered
    /// The receiver will never take it.
    case refused(String)
    case failed(String)

    /// Sends JSON.
    ///
    /// - Parameter request: with the address and the body.
    static func post(_ request: FetchRequest, by client: HTTPClient) async -> DeliveryOutcome {
        var request = request
        request.method = "POST"
        request.headers.append(("Content-Type", "application/json"))
        request.maxBodyBytes = 1 << 20
        do throws(FetchError) {
            let response = try await client.fetch(request)
            if (200..<300).contains(response.status) { return .delivered }
            let reason = "status \(response.status)"
            // What is wrong with the message itself stays so. Other faults are of the way there, which is mended: a route that
            // is not there yet, a token that was changed.
            return [400, 413, 415, 422].contains(response.status) ? .refused(reason) : .failed(reason)
        } catch {
            return .failed(error.reason)
        }
    }
}
