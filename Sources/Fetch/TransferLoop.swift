import CCurl
import DequeModule
import Dispatch
import Foundation
import HeapModule
import Series
import Synchronization

/// The thread that drives curl's multi handles, runs the tasks that prefer it, and wakes its sleepers.
final class TransferLoop: TaskExecutor {
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

    private let inbox = Mutex(Inbox())
    private let maxConnections: Int
    let maxTransfers: Int
    private let epoll: Int32
    /// An eventfd: what is written to it ends a wait.
    private let signal: Int32
    /// The number of the thread, once it runs.
    private let threadID = Atomic<UInt>(0)
    /// How many transfers there are, and how many wait for others to end.
    let active = Atomic<Int>(0)
    let waiting = Atomic<Int>(0)

    /// Each end of a transfer takes a look at all connections of a handle.
    private static let connectionsPerMulti = 256
    /// As many as there are bits in a word.
    private static let mostMultis = 64

    init(maxConnections: Int, maxTransfers: Int) {
        self.maxConnections = max(1, maxConnections)
        self.maxTransfers = max(1, maxTransfers)
        _ = TransferLoop.initialized
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        signal = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        var event = epoll_event()
        event.events = EPOLLIN.rawValue
        event.data.u64 = .max
        precondition(epoll_ctl(epoll, EPOLL_CTL_ADD, signal, &event) == 0, "no file is left for what HTTP needs")
        let thread = Thread { [self] in run() }
        thread.name = "fetch"
        thread.stackSize = 1 << 20
        thread.start()
    }

    deinit {
        close(epoll)
        close(signal)
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
        let (stopped, isFirst) = inbox.withLock { inbox in
            if inbox.stopped { return (true, false) }
            inbox.commands.append(command)
            return (false, inbox.commands.count == 1)
        }
        if stopped {
            refuse(command)
        } else if isFirst, threadID.load(ordering: .relaxed) != pthread_self() {
            // The thread itself looks into its inbox before it waits.
            eventfd_write(signal, 1)
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
        let count = max(1, min(TransferLoop.mostMultis, maxConnections / TransferLoop.connectionsPerMulti))
        let memory = UnsafeMutablePointer<UInt64>.allocate(capacity: count)
        defer { memory.deallocate() }
        let deadlines = UnsafeMutableBufferPointer(start: memory, count: count)
        deadlines.initialize(repeating: Multi.never)
        let multis = deadlines.indices.map {
            Multi(number: $0, epoll: epoll, maxConnections: maxConnections / count, deadline: memory + $0)
        }
        // A bit for each handle whose transfers may have ended.
        var touched: UInt64 = 0
        var events = [epoll_event](repeating: epoll_event(), count: 64)
        var sleepers = Heap<Sleeper>()
        var transfers: [UInt64: Transfer] = [:]
        var waiting = Waiting()
        var handles = Handles()
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
                    if let transfer = transfers[id] { _ = uw_easy_continue(transfer.easy) }
                case .cancel(let id):
                    if let transfer = transfers[id] {
                        transfer.failure = transfer.error(.cancelled, "cancelled")
                        waiting.ended(transfer.turn)
                        finish(transfer, CURLE_OK, &transfers, &handles)
                    } else if let start = waiting.remove(id) {
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
            while transfers.count < maxTransfers, let next = waiting.next(mostLast: maxTransfers / 2) {
                if !start(next, multis, &transfers, &handles) { waiting.ended(next.request.turn) }
            }
            for number in deadlines.indices where deadlines[number] <= now {
                multis[number].onDeadline()
                touched |= 1 << UInt64(number)
            }
            while touched != 0 {
                let multi = multis[touched.trailingZeroBitCount]
                touched &= touched - 1
                while let (id, code) = multi.nextEnded() {
                    guard let transfer = transfers[id] else { continue }
                    waiting.ended(transfer.turn)
                    finish(transfer, code, &transfers, &handles)
                }
            }
            active.store(transfers.count, ordering: .relaxed)
            self.waiting.store(waiting.count, ordering: .relaxed)
            let hasRoom = transfers.count < maxTransfers && waiting.hasNext(mostLast: maxTransfers / 2)
            guard running, !hasRoom, inbox.withLock({ $0.commands.isEmpty }) else { continue }
            let deadline = min(deadlines.min() ?? Multi.never, sleepers.min?.deadline ?? Multi.never)
            touched = wait(until: deadline, multis, &events)
        }
        threadID.store(0, ordering: .relaxed)
        let rest = inbox.withLock { inbox in
            inbox.stopped = true
            defer { inbox.commands.removeAll() }
            return inbox.commands
        }
        for command in rest { refuse(command) }
        for start in waiting.all { start.completion(.failure(.cancelled(start.request, "the client was stopped"))) }
        while let sleeper = sleepers.popMin() { sleeper.wake(isCancelled: true) }
        for transfer in Array(transfers.values) {
            transfer.failure = transfer.error(.cancelled, "the client was stopped")
            finish(transfer, CURLE_OK, &transfers, &handles)
        }
    }

    /// Waits for news of sockets, a signal or a deadline, and hands on what came.
    ///
    /// - Returns: a bit for each handle that had news.
    private func wait(until deadline: UInt64, _ multis: [Multi], _ events: inout [epoll_event]) -> UInt64 {
        var touched: UInt64 = 0
        let count = epoll_wait(epoll, &events, Int32(events.count), TransferLoop.waitMs(deadline))
        for event in events.prefix(Int(max(0, count))) {
            if event.data.u64 == .max {
                var value: eventfd_t = 0
                eventfd_read(signal, &value)
            } else {
                let socket = Int32(bitPattern: UInt32(truncatingIfNeeded: event.data.u64))
                multis[Int(event.data.u64 >> 32)].onEvents(event.events, of: socket)
                touched |= 1 << (event.data.u64 >> 32)
            }
        }
        return touched
    }

    /// How long to wait for a deadline, in whole milliseconds, and a minute at most.
    private static func waitMs(_ deadline: UInt64) -> Int32 {
        guard deadline != Multi.never else { return 60_000 }
        let now = Sleeper.now
        return deadline <= now ? 0 : Int32(min(60_000, (deadline - now + 999_999) / 1_000_000))
    }

    /// - Returns: false where it could not begin; its completion knows.
    private func start(
        _ start: Start, _ multis: [Multi], _ transfers: inout [UInt64: Transfer], _ handles: inout Handles
    ) -> Bool {
        let id = start.id
        let number = multis.count == 1 ? 0 : Int(start.request.serverHash.magnitude % UInt(multis.count))
        guard let easy = handles.take() else {
            let url = FetchRequest.redacted(start.request.url)
            let reason = "curl has no memory for another transfer"
            start.completion(.failure(FetchError(code: .broken, url: url, reason: reason)))
            return false
        }
        do throws(FetchError) {
            let transfer = try Transfer(
                id: id, easy: easy, on: multis[number], request: start.request, pipe: start.pipe,
                resume: { [weak self] in self?.submit(.resume(id)) }, completion: start.completion)
            transfers[id] = transfer
            transfer.multi.add(transfer)
            return true
        } catch {
            handles.give(easy)
            start.completion(.failure(error))
            return false
        }
    }

    private func finish(
        _ transfer: Transfer, _ code: CURLcode, _ transfers: inout [UInt64: Transfer], _ handles: inout Handles
    ) {
        transfer.multi.remove(transfer)
        transfers[transfer.id] = nil
        let result = transfer.result(code)
        handles.give(transfer.easy)
        transfer.completion(result)
    }

    /// Requests that wait for others to end, by their turns.
    private struct Waiting {
        private var queues = [Deque<Start>](repeating: [], count: FetchRequest.Turn.allCases.count)
        /// Those of the last turn that are under way.
        private var last = 0

        var count: Int { queues.reduce(0) { $0 + $1.count } }
        var all: [Start] { queues.flatMap { Array($0) } }

        mutating func append(_ start: Start) { queues[start.request.turn.rawValue].append(start) }

        func hasNext(mostLast: Int) -> Bool {
            queues.dropLast().contains { !$0.isEmpty } || last < max(1, mostLast) && queues.last?.isEmpty == false
        }

        mutating func next(mostLast: Int) -> Start? {
            guard hasNext(mostLast: mostLast), let place = queues.firstIndex(where: { !$0.isEmpty }) else { return nil }
            if place == FetchRequest.Turn.last.rawValue { last += 1 }
            return queues[place].popFirst()
        }

        mutating func ended(_ turn: FetchRequest.Turn) { if turn == .last { last -= 1 } }

        mutating func remove(_ id: UInt64) -> Start? {
            for place in queues.indices {
                if let index = queues[place].firstIndex(where: { $0.id == id }) {
                    return queues[place].remove(at: index)
                }
            }
            return nil
        }
    }

    /// curl's handles for transfers: some are kept for the next ones, for each comes with a buffer and hundreds of settings.
    private struct Handles: ~Copyable {
        private var idle: [UnsafeMutableRawPointer] = []
        private static let most = 16

        deinit { for easy in idle { curl_easy_cleanup(easy) } }

        /// A handle without settings.
        mutating func take() -> UnsafeMutableRawPointer? { idle.popLast() ?? curl_easy_init() }

        mutating func give(_ easy: UnsafeMutableRawPointer) {
            guard idle.count < Handles.most else { return curl_easy_cleanup(easy) }
            curl_easy_reset(easy)
            idle.append(easy)
        }
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
    static var now: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

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
