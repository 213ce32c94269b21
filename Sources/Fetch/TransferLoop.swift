import CCurl
import DequeModule
import Dispatch
import Foundation
import HeapModule
import Series
import Synchronization

/// The thread that drives curl's multi handle, runs the tasks that prefer it, and wakes its sleepers.
final class TransferLoop: TaskExecutor, @unchecked Sendable {
    typealias Completion = @Sendable (Result<FetchResponse, FetchError>) -> Void

    enum Command {
        case start(UInt64, FetchRequest, BytePipe?, Completion)
        case cancel(UInt64)
        /// The reader of a transfer's pipe has made room.
        case resume(UInt64)
        case run(UnownedJob)
        case sleep(Sleeper)
        case stop
    }

    /// A request, and who waits for its answer.
    private struct Start {
        var id: UInt64
        var request: FetchRequest
        var pipe: BytePipe?
        var completion: Completion
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
    private let maxTransfers: Int
    /// The number of the thread, once it runs.
    private let threadID = Atomic<UInt>(0)

    init(maxConnections: Int, maxTransfers: Int) {
        self.maxTransfers = max(1, maxTransfers)
        _ = TransferLoop.initialized
        multi = curl_multi_init()
        _ = uw_multi_setopt_long(multi, CURLMOPT_MAXCONNECTS, maxConnections)
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
            refuse(command)
        } else if threadID.load(ordering: .relaxed) != pthread_self() {
            // The thread itself looks into its inbox before it waits.
            curl_multi_wakeup(multi)
        }
    }

    func enqueue(_ job: consuming ExecutorJob) { submit(.run(UnownedJob(job))) }

    /// Answers what comes when the thread has ended.
    private func refuse(_ command: Command) {
        switch command {
        case .start(_, let request, _, let completion):
            completion(.failure(.cancelled(request, "the client was stopped")))
        case .run(let job):
            // A task goes on somewhere, or never ends.
            DispatchQueue.global().async { [self] in job.runSynchronously(on: asUnownedTaskExecutor()) }
        case .sleep(let sleeper): sleeper.wake(isCancelled: true)
        case .cancel, .resume, .stop: break
        }
    }

    func stop() { submit(.stop) }

    private func run() {
        threadID.store(pthread_self(), ordering: .relaxed)
        let executor = asUnownedTaskExecutor()
        var sleepers = Heap<Sleeper>()
        var transfers: [UnsafeMutableRawPointer: Transfer] = [:]
        var waiting: Deque<Start> = []
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
                    completion(.failure(.cancelled(request, "cancelled")))
                case .start(let id, let request, let pipe, let completion):
                    lastStarted = max(lastStarted, id)
                    waiting.append(Start(id: id, request: request, pipe: pipe, completion: completion))
                case .resume(let id):
                    if let transfer = transfers.values.first(where: { $0.id == id }) {
                        _ = uw_easy_continue(transfer.easy)
                    }
                case .cancel(let id):
                    if let transfer = transfers.values.first(where: { $0.id == id }) {
                        transfer.failure = transfer.error(.cancelled, "cancelled")
                        finish(transfer, CURLE_OK, &transfers)
                    } else if let index = waiting.firstIndex(where: { $0.id == id }) {
                        let start = waiting.remove(at: index)
                        start.completion(.failure(.cancelled(start.request, "cancelled")))
                    } else if id > lastStarted {
                        cancelled.insert(id)
                    }
                case .run(let job): job.runSynchronously(on: executor)
                case .sleep(let sleeper): sleepers.insert(sleeper)
                case .stop:
                    running = false
                }
            }
            let now = Sleeper.now
            while let first = sleepers.min, first.deadline <= now { sleepers.removeMin().wake(isCancelled: false) }
            while transfers.count < maxTransfers, let next = waiting.popFirst() { start(next, &transfers) }
            var active: Int32 = 0
            curl_multi_perform(multi, &active)
            var left: Int32 = 0
            while let message = curl_multi_info_read(multi, &left) {
                guard message.pointee.msg == CURLMSG_DONE, let easy = message.pointee.easy_handle,
                    let transfer = transfers[easy]
                else { continue }
                finish(transfer, uw_message_result(message), &transfers)
            }
            let hasRoom = transfers.count < maxTransfers && !waiting.isEmpty
            guard running, !hasRoom, inbox.withLock({ $0.commands.isEmpty }) else { continue }
            // A wake-up ends the wait; the time is only the longest that curl's own timers may wait.
            curl_multi_poll(multi, nil, 0, TransferLoop.waitMs(sleepers.min), nil)
        }
        threadID.store(0, ordering: .relaxed)
        let rest = inbox.withLock { inbox in
            inbox.stopped = true
            defer { inbox.commands.removeAll() }
            return inbox.commands
        }
        for command in rest { refuse(command) }
        for start in waiting { start.completion(.failure(.cancelled(start.request, "the client was stopped"))) }
        while let sleeper = sleepers.popMin() { sleeper.wake(isCancelled: true) }
        for transfer in Array(transfers.values) {
            transfer.failure = transfer.error(.cancelled, "the client was stopped")
            finish(transfer, CURLE_OK, &transfers)
        }
        curl_multi_cleanup(multi)
    }

    /// How long to wait for the next sleeper, in whole milliseconds, and a second at most.
    private static func waitMs(_ next: Sleeper?) -> Int32 {
        guard let next else { return 1000 }
        let now = Sleeper.now
        return next.deadline <= now ? 0 : Int32(min(1000, (next.deadline - now + 999_999) / 1_000_000))
    }

    private func start(_ start: Start, _ transfers: inout [UnsafeMutableRawPointer: Transfer]) {
        do throws(FetchError) {
            let id = start.id
            let transfer = try Transfer(
                id: id, request: start.request, pipe: start.pipe,
                resume: { [weak self] in self?.submit(.resume(id)) }, completion: start.completion)
            transfers[transfer.easy] = transfer
            curl_multi_add_handle(multi, transfer.easy)
        } catch {
            start.completion(.failure(error))
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

/// Somebody who waits on the thread until a time.
final class Sleeper: Comparable, Sendable {
    private enum State {
        case new, waiting(CheckedContinuation<Void, any Error>), over(isCancelled: Bool)
    }

    /// Of the monotonic clock, in nanoseconds.
    let deadline: UInt64
    private let state = Mutex(State.new)

    /// The time of that clock: curl's thread waits by it, whatever the world's is set to.
    static var now: UInt64 { DispatchTime.now().uptimeNanoseconds }

    init(deadline: UInt64) { self.deadline = deadline }

    /// Waits in the loop until the deadline.
    ///
    /// - Throws: `CancellationError` where the task was cancelled before.
    func wait(in loop: TransferLoop) async throws {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let isCancelled = state.withLock { state in
                    if case .over(let isCancelled) = state { return isCancelled }
                    state = .waiting(continuation)
                    return false
                }
                if isCancelled {
                    continuation.resume(throwing: CancellationError())
                } else {
                    loop.submit(.sleep(self))
                }
            }
        } onCancel: {
            wake(isCancelled: true)
        }
    }

    /// Ends the wait; a second time it does nothing.
    func wake(isCancelled: Bool) {
        let waiting = state.withLock { state -> CheckedContinuation<Void, any Error>? in
            defer { state = .over(isCancelled: isCancelled) }
            guard case .waiting(let continuation) = state else { return nil }
            return continuation
        }
        if isCancelled { waiting?.resume(throwing: CancellationError()) } else { waiting?.resume() }
    }

    static func == (left: Sleeper, right: Sleeper) -> Bool { left === right }
    static func < (left: Sleeper, right: Sleeper) -> Bool { left.deadline < right.deadline }
}

/// A clock whose sleepers wait on the loop's thread.
struct TransferClock: TimeSource {
    let base: any TimeSource
    let loop: TransferLoop

    var nowMs: Int64 { base.nowMs }

    func sleep(untilMs: Int64) async throws {
        // A sleep of a day is taken up again: the clock of the world may have been set meanwhile.
        while true {
            let ms = untilMs - nowMs
            if ms <= 0 { return try Task.checkCancellation() }
            let wait = UInt64(min(ms, 86_400_000)) * 1_000_000
            try await Sleeper(deadline: Sleeper.now + wait).wait(in: loop)
        }
    }
}
