import CCurl
import Dispatch
import Foundation
import Synchronization

/// Speaks HTTP through libcurl: one multi handle and one thread for all transfers.
///
/// Connections are kept and shared between requests to the same server. Everything of curl runs on the client's own
/// thread; callers hand over a request and wait for its answer.
package final class HTTPClient: Sendable {
    private let loop: TransferLoop

    /// - Parameter maxConnections: connections kept open at once; further requests wait for one.
    package init(maxConnections: Int = 512) {
        loop = TransferLoop(maxConnections: maxConnections)
    }

    deinit { loop.stop() }

    /// Sends a request and waits for the whole answer.
    ///
    /// - Throws: ``FetchError``; cancelling the task ends the transfer with the code `cancelled`.
    package func fetch(_ request: FetchRequest) async throws(FetchError) -> FetchResponse {
        try await run(request, into: nil)
    }

    /// Sends a request and holds the thread until the whole answer is there.
    ///
    /// For those who can't wait otherwise; the request's timeout bounds it.
    /// - Throws: ``FetchError``.
    package func fetchBlocking(_ request: FetchRequest) throws(FetchError) -> FetchResponse {
        let done = DispatchSemaphore(value: 0)
        let box = AnswerBox()
        loop.submit(
            .start(
                loop.nextID(), request, nil,
                { result in
                    box.put(result)
                    done.signal()
                }))
        done.wait()
        return try box.take(request).get()
    }

    /// Sends a request whose answer's body goes into a pipe as it comes, whatever its size.
    ///
    /// - Returns: Once the answer has ended. The body of an answer with another status than 200 is in it, not in the
    ///   pipe.
    /// - Throws: ``FetchError``; the pipe has ended then too.
    package func stream(_ request: FetchRequest, into pipe: BytePipe) async throws(FetchError) -> FetchResponse {
        defer { pipe.finish() }
        return try await run(request, into: pipe)
    }

    private func run(_ request: FetchRequest, into pipe: BytePipe?) async throws(FetchError) -> FetchResponse {
        let id = loop.nextID()
        let result: Result<FetchResponse, FetchError> = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                loop.submit(.start(id, request, pipe, { continuation.resume(returning: $0) }))
            }
        } onCancel: {
            loop.submit(.cancel(id))
        }
        return try result.get()
    }
}

/// Where an answer lies until it is taken.
private final class AnswerBox: Sendable {
    private let answer = Mutex<Result<FetchResponse, FetchError>?>(nil)

    func put(_ result: Result<FetchResponse, FetchError>) { answer.withLock { $0 = result } }

    func take(_ request: FetchRequest) -> Result<FetchResponse, FetchError> {
        answer.withLock { $0 }
            ?? .failure(FetchError(code: .cancelled, url: FetchRequest.redacted(request.url), reason: "no answer"))
    }
}

/// The thread that drives curl's multi handle.
private final class TransferLoop: @unchecked Sendable {
    typealias Completion = @Sendable (Result<FetchResponse, FetchError>) -> Void

    enum Command {
        case start(UInt64, FetchRequest, BytePipe?, Completion)
        case cancel(UInt64)
        /// The reader of a transfer's pipe has made room.
        case resume(UInt64)
        case stop
    }

    private struct Inbox {
        var commands: [Command] = []
        var stopped = false
        var lastID: UInt64 = 0
    }

    // The multi handle is used by the thread alone, but for curl_multi_wakeup, which curl allows from any thread:
    // hence unchecked.
    private let multi: UnsafeMutableRawPointer?
    private let inbox = Mutex(Inbox())

    init(maxConnections: Int) {
        _ = TransferLoop.initialized
        multi = curl_multi_init()
        _ = uw_multi_setopt_long(multi, CURLMOPT_MAXCONNECTS, maxConnections)
        _ = uw_multi_setopt_long(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, maxConnections)
        let thread = Thread { [self] in run() }
        thread.name = "fetch"
        thread.stackSize = 1 << 20
        thread.start()
    }

    /// curl's own set-up, once in a process.
    private static let initialized: Void = {
        curl_global_init(Int(CURL_GLOBAL_DEFAULT))
    }()

    func nextID() -> UInt64 {
        inbox.withLock { inbox in
            inbox.lastID += 1
            return inbox.lastID
        }
    }

    func submit(_ command: Command) {
        let stopped = inbox.withLock { inbox in
            if inbox.stopped { return true }
            inbox.commands.append(command)
            return false
        }
        if stopped {
            if case .start(_, let request, _, let completion) = command {
                let url = FetchRequest.redacted(request.url)
                completion(.failure(FetchError(code: .cancelled, url: url, reason: "the client was stopped")))
            }
            return
        }
        curl_multi_wakeup(multi)
    }

    func stop() { submit(.stop) }

    private func run() {
        var transfers: [UnsafeMutableRawPointer: Transfer] = [:]
        // Cancelled before their start arrived.
        var cancelled: Set<UInt64> = []
        var lastStarted: UInt64 = 0
        var running = true
        while running {
            let commands = inbox.withLock { inbox in
                defer { inbox.commands.removeAll() }
                return inbox.commands
            }
            for command in commands {
                switch command {
                case .start(let id, let request, _, let completion) where cancelled.remove(id) != nil:
                    let url = FetchRequest.redacted(request.url)
                    completion(.failure(FetchError(code: .cancelled, url: url, reason: "cancelled")))
                case .start(let id, let request, let pipe, let completion):
                    lastStarted = max(lastStarted, id)
                    start(id, request, pipe, completion, &transfers)
                case .resume(let id):
                    if let transfer = transfers.values.first(where: { $0.id == id }) {
                        _ = uw_easy_continue(transfer.easy)
                    }
                case .cancel(let id):
                    if let transfer = transfers.values.first(where: { $0.id == id }) {
                        transfer.failure = transfer.error(.cancelled, "cancelled")
                        finish(transfer, CURLE_OK, &transfers)
                    } else if id > lastStarted {
                        cancelled.insert(id)
                    }
                case .stop:
                    running = false
                }
            }
            var active: Int32 = 0
            curl_multi_perform(multi, &active)
            var left: Int32 = 0
            while let message = curl_multi_info_read(multi, &left) {
                guard message.pointee.msg == CURLMSG_DONE, let easy = message.pointee.easy_handle,
                    let transfer = transfers[easy]
                else { continue }
                finish(transfer, uw_message_result(message), &transfers)
            }
            // A wake-up ends the wait; the time is only the longest that curl's own timers may wait.
            if running { curl_multi_poll(multi, nil, 0, 1000, nil) }
        }
        let rest = inbox.withLock { inbox in
            inbox.stopped = true
            defer { inbox.commands.removeAll() }
            return inbox.commands
        }
        for command in rest {
            if case .start(_, let request, _, let completion) = command {
                let url = FetchRequest.redacted(request.url)
                completion(.failure(FetchError(code: .cancelled, url: url, reason: "the client was stopped")))
            }
        }
        for transfer in Array(transfers.values) {
            transfer.failure = transfer.error(.cancelled, "the client was stopped")
            finish(transfer, CURLE_OK, &transfers)
        }
        curl_multi_cleanup(multi)
    }

    private func start(
        _ id: UInt64, _ request: FetchRequest, _ pipe: BytePipe?, _ completion: @escaping Completion,
        _ transfers: inout [UnsafeMutableRawPointer: Transfer]
    ) {
        do throws(FetchError) {
            let transfer = try Transfer(
                id: id, request: request, pipe: pipe, resume: { [weak self] in self?.submit(.resume(id)) },
                completion: completion)
            transfers[transfer.easy] = transfer
            curl_multi_add_handle(multi, transfer.easy)
        } catch {
            completion(.failure(error))
        }
    }

    private func finish(
        _ transfer: Transfer, _ code: CURLcode, _ transfers: inout [UnsafeMutableRawPointer: Transfer]
    ) {
        curl_multi_remove_handle(multi, transfer.easy)
        transfers[transfer.easy] = nil
        transfer.completion(transfer.result(code))
    }
}
