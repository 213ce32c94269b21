import Fetch
import Foundation
import Logging
import Series

/// An object of the API, as far as it is read.
package protocol APIObject: Decodable, Sendable {
    /// What names it in a list.
    var identity: String { get }
}

/// A kind of objects that is listed and watched.
package struct WatchedKind: Sendable, Hashable {
    /// As recordings name it: `pods`.
    package var name: String
    /// The path of all of them, in all namespaces or in one.
    package var path: String
    /// Only those that it fits (`labelSelector`); empty: all.
    package var labelSelector = ""
    /// Only those that it fits (`fieldSelector`); empty: all.
    package var fieldSelector = ""

    package init(name: String, path: String) {
        self.name = name
        self.path = path
    }

    var selectors: [(String, String)] {
        [("labelSelector", labelSelector), ("fieldSelector", fieldSelector)].filter { !$0.1.isEmpty }
    }

    package static let pods = WatchedKind(name: "pods", path: "/api/v1/pods")
    package static let nodes = WatchedKind(name: "nodes", path: "/api/v1/nodes")
    package static let events = WatchedKind(name: "events", path: "/api/v1/events")
    package static let namespaces = WatchedKind(name: "namespaces", path: "/api/v1/namespaces")
    package static let customResourceDefinitions = WatchedKind(
        name: "customresourcedefinitions", path: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    package static let replicaSets = WatchedKind(name: "replicasets", path: "/apis/apps/v1/replicasets")
    /// Those of the control plane's leaders: every node has one as well, which changes every ten seconds.
    package static let leases = WatchedKind(
        name: "leases", path: "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases")
    package static let apiServices = WatchedKind(
        name: "apiservices", path: "/apis/apiregistration.k8s.io/v1/apiservices")
}

/// What a watch sees.
package enum ObjectEvent<Object: APIObject>: Sendable {
    /// Objects as they are now: a page of a list, or one that was added or changed.
    case present([Object])
    /// As it was when it was deleted.
    case deleted(Object)
    /// The list was read to its end: what is known and not among these is gone.
    case listed(Set<String>, version: UInt64?)
    /// The watch failed; it is taken up again.
    case failed(String)
}

/// What a watch has done so far.
package struct WatchCounters: Sendable, Equatable {
    package var lists = 0
    package var watches = 0
    package var events = 0
    package var errors = 0
    /// Objects that could not be read, or were too large.
    package var unreadable = 0

    package init() {}
}

/// Keeps a kind of objects in view: lists them in pages, then watches, and takes the watch up again where it ended.
///
/// What client-go's reflector does (`k8s.io/client-go/tools/cache`): bookmarks move the version from which a watch is
/// taken up; 410 Gone means a new list; faults are waited out with growing pauses, as long as the server asks where it
/// asks. An object that can't be read is told and passed over.
package struct ObjectWatch<Object: APIObject>: Sendable {
    private let api: KubernetesAPI
    private let kind: WatchedKind
    private let time: any TimeSource
    private let logger: Logger
    private let observe: @Sendable (ObjectEvent<Object>) async -> Void
    private let count: @Sendable (WatchCounters) -> Void

    private static var pageSize: Int { 500 }
    /// How long the server keeps one watch open.
    private static var watchSeconds: Int64 { 300 }
    private static var firstPauseMs: Int64 { 500 }
    private static var longestPauseMs: Int64 { 30_000 }
    private static var longestRelistPauseMs: Int64 { 300_000 }
    /// etcd refuses larger requests than 1.5 MB by default; some clusters allow more.
    private static var maxObjectBytes: Int { 32 << 20 }

    /// - Parameters:
    ///   - observe: gets what was seen, in order; the watch goes on when it returns.
    ///   - count: gets the counters when they change.
    package init(
        _ kind: WatchedKind, api: KubernetesAPI, time: any TimeSource, logger: Logger,
        count: @escaping @Sendable (WatchCounters) -> Void = { _ in },
        observe: @escaping @Sendable (ObjectEvent<Object>) async -> Void
    ) {
        self.kind = kind
        self.api = api
        self.time = time
        self.logger = logger
        self.count = count
        self.observe = observe
    }

    /// Why a watch ended.
    private enum End {
        /// Go on from the last version.
        case over
        /// The version is too old: list again.
        case gone
    }

    /// Lists and watches until the task is cancelled.
    package func run() async {
        var counters = WatchCounters()
        var version: String?
        var pauseMs = ObjectWatch.firstPauseMs
        var relistPauseMs = ObjectWatch.firstPauseMs
        var problem = ""
        func nextRelistPauseMs() -> Int64 {
            defer { relistPauseMs = min(relistPauseMs * 2, ObjectWatch.longestRelistPauseMs) }
            return relistPauseMs
        }
        while !Task.isCancelled {
            let startedMs = time.nowMs
            do {
                if let known = version {
                    switch try await watch(from: known, &version, &counters) {
                    case .over:
                        // A server that ends every watch at once is asked with pauses.
                        let isQuick = time.nowMs - startedMs < 1000
                        pauseMs = isQuick ? min(pauseMs * 2, ObjectWatch.longestPauseMs) : ObjectWatch.firstPauseMs
                        if isQuick { try? await time.sleep(untilMs: time.nowMs + pauseMs) }
                    case .gone:
                        version = nil
                        // One list now and then is due; list after list is not.
                        if time.nowMs - startedMs > ObjectWatch.longestPauseMs {
                            relistPauseMs = ObjectWatch.firstPauseMs
                        }
                        try? await time.sleep(untilMs: time.nowMs + nextRelistPauseMs())
                        continue
                    }
                } else {
                    version = try await list(&counters)
                    pauseMs = ObjectWatch.firstPauseMs
                }
                if !problem.isEmpty { logger.notice("\(kind.name) are seen again") }
                problem = ""
            } catch {
                if Task.isCancelled { return }
                counters.errors += 1
                count(counters)
                var waitMs = pauseMs
                if let refusal = error as? KubernetesAPIError {
                    if refusal.status == 410 {
                        version = nil
                        waitMs = nextRelistPauseMs()
                    }
                    if let asked = refusal.retryAfterMs { waitMs = max(waitMs, asked) }
                }
                if problem != "\(error)" {
                    logger.warning("\(kind.name) can't be watched", metadata: ["error": "\(error)"])
                    await observe(.failed("\(error)"))
                }
                problem = "\(error)"
                pauseMs = min(pauseMs * 2, ObjectWatch.longestPauseMs)
                try? await time.sleep(untilMs: time.nowMs + waitMs)
            }
        }
    }

    // MARK: List

    /// Lists all objects, page by page.
    ///
    /// - Returns: The version to watch from.
    private func list(_ counters: inout WatchCounters) async throws -> String {
        var names: Set<String> = []
        var isWhole = true
        var continuation: String?
        var version = ""
        repeat {
            var query = [("limit", String(ObjectWatch.pageSize))] + kind.selectors
            if let continuation { query.append(("continue", continuation)) }
            let body = try await api.get(kind.path, query: query)
            let page = try ObjectPage<Object>(body, path: kind.path)
            names.formUnion(page.objects.map(\.identity))
            counters.unreadable += page.unreadable
            if page.unreadable > 0 { isWhole = false }
            version = page.version
            continuation = page.continuation
            await observe(.present(page.objects))
        } while continuation != nil && !Task.isCancelled
        counters.lists += 1
        count(counters)
        // What could not be read is not gone.
        if isWhole { await observe(.listed(names, version: UInt64(version))) }
        return version
    }

    // MARK: Watch

    private func watch(from known: String, _ version: inout String?, _ counters: inout WatchCounters) async throws
        -> End
    {
        let pipe = BytePipe()
        counters.watches += 1
        count(counters)
        let query =
            [
                ("watch", "1"), ("allowWatchBookmarks", "true"), ("resourceVersion", known),
                ("timeoutSeconds", String(ObjectWatch.watchSeconds)),
            ] + kind.selectors
        async let transfer: Void = api.watch(
            kind.path, query: query, timeoutMs: (ObjectWatch.watchSeconds + 30) * 1000, into: pipe)
        var splitter = LineSplitter(maxLineBytes: ObjectWatch.maxObjectBytes)
        var end = End.over
        reading: while let bytes = await pipe.next() {
            for line in splitter.add(bytes) {
                switch WatchLine<Object>(line) {
                case .object(let event, let newVersion):
                    counters.events += 1
                    await observe(event)
                    if let newVersion { version = newVersion }
                case .bookmark(let newVersion): if !newVersion.isEmpty { version = newVersion }
                case .error(let status, let message):
                    if status == 410 {
                        end = .gone
                        break reading
                    }
                    throw KubernetesAPIError(path: kind.path, status: status, message: message)
                case .unreadable(let reason):
                    counters.unreadable += 1
                    logger.warning(
                        "an object of the watch can't be read",
                        metadata: [
                            "kind": "\(kind.name)", "error": "\(reason)",
                        ])
                    // What it said may matter: the list tells the state in which it left things.
                    end = .gone
                    break reading
                }
            }
            if splitter.tooLong > 0 {
                counters.unreadable += 1
                logger.warning("an object of the watch is too large", metadata: ["kind": "\(kind.name)"])
                end = .gone
                break reading
            }
        }
        count(counters)
        // Leaving early cancels the transfer; a transfer that ended by itself tells how.
        if end == .over { try await transfer }
        return end
    }
}
