import Dispatch
import Glibc
import Series
import Synchronization

/// Speaks HTTP through libcurl: one thread for all transfers.
///
/// Connections are kept and shared between requests to the same server. Everything of curl runs on the client's own
/// thread; callers hand over a request and wait for its answer.
package final class HTTPClient: Sendable {
    private let loop: TransferLoop
    private let tokens: OAuth2Tokens

    /// - Parameters:
    ///   - maxConnections: connections kept open for further requests.
    ///   - maxTransfers: requests under way at once; more wait, and their timeouts do not run yet. A handshake takes
    ///     milliseconds: were thousands under way, none would end before its time is over.
    package init(maxConnections: Int = 512, maxTransfers: Int = 1024) {
        let loop = TransferLoop(maxConnections: maxConnections, maxTransfers: maxTransfers)
        self.loop = loop
        tokens = OAuth2Tokens { await HTTPClient.send($0, into: nil, on: loop) }
    }

    /// As many connections as the process may have, but for what other files and those who ask the process need.
    ///
    /// Raises the process's soft limit of open files to the hard one, as Go's runtime does; nothing here uses `select`.
    package static func mostConnections() -> Int {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 512 }
        limit.rlim_cur = limit.rlim_max
        _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        return max(64, min(65_536, Int(clamping: limit.rlim_cur) / 4 * 3))
    }

    deinit { loop.stop() }

    /// Requests that are under way, and those that wait for others to end.
    package var counts: (active: Int, waiting: Int) {
        (loop.active.load(ordering: .relaxed), loop.waiting.load(ordering: .relaxed))
    }

    /// The most requests under way at once.
    package var maxTransfers: Int { loop.maxTransfers }

    /// Runs tasks on the client's own thread: what they ask for begins there, and what comes goes on there, without a
    /// thread waking another.
    ///
    /// For tasks that mostly wait: while one computes, nothing is transferred.
    package var executor: any TaskExecutor { loop }

    /// A clock that goes like another one and whose sleepers wait on the client's thread.
    ///
    /// - Parameter base: one whose time goes as the world's does.
    package func clock(_ base: any TimeSource) -> any TimeSource { TransferClock(base: base, loop: loop) }

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
        @Sendable func finish(_ result: Result<FetchResponse, FetchError>) {
            box.put(result)
            done.signal()
        }
        if case .oauth2 = request.client.authentication {
            Task {
                do throws(FetchError) { finish(.success(try await fetch(request))) } catch { finish(.failure(error)) }
            }
        } else {
            loop.submit(.start(loop.nextID(), request, nil, finish))
        }
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
        guard case .oauth2(let options) = request.client.authentication else {
            return try await HTTPClient.send(request, into: pipe, on: loop).get()
        }
        var request = request
        // How long a token lasts is counted by the clock that curl waits by, whatever the world's is set to.
        request.client.authentication = try await tokens.authentication(options, now: Sleeper.now)
        let answer = try await HTTPClient.send(request, into: pipe, on: loop).get()
        if answer.status == 401 { await tokens.forget(options) }
        return answer
    }

    private static func send(
        _ request: FetchRequest, into pipe: BytePipe?, on loop: TransferLoop
    ) async -> Result<FetchResponse, FetchError> {
        let id = loop.nextID()
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                loop.submit(.start(id, request, pipe, { continuation.resume(returning: $0) }))
            }
        } onCancel: {
            loop.submit(.cancel(id))
        }
    }
}

/// Where an answer lies until it is taken.
private final class AnswerBox: Sendable {
    private let answer = Mutex<Result<FetchResponse, FetchError>?>(nil)

    func put(_ result: Result<FetchResponse, FetchError>) { answer.withLock { $0 = result } }

    func take(_ request: FetchRequest) -> Result<FetchResponse, FetchError> {
        answer.withLock { $0 }
            ?? .failure(.cancelled(request, "no answer"))
    }
}
