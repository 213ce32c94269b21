import Cluster
import Fetch
import Logging
import Series
import ServiceLifecycle
import Synchronization

/// Watches the Kubernetes API's objects for the watcher.
struct ObjectService: Service {
    let api: KubernetesAPI
    let watcher: Watcher
    let board: ObjectBoard
    let time: any TimeSource
    let logger: Logger

    /// What is watched: the versions of nodes, the ends of pods, what explains them, and what a version leaves behind.
    static let kinds: [WatchedKind] = [
        .nodes, .replicaSets, .pods, .events, .leases, .namespaces, .customResourceDefinitions, .apiServices,
    ]

    func run() async throws {
        logger.info("watching objects", metadata: ["server": "\(api.server)"])
        await cancelWhenGracefulShutdown {
            await withTaskGroup(of: Void.self) { group in
                for kind in ObjectService.kinds {
                    group.addTask {
                        await ObjectObservation.watch(
                            kind, api: api, time: time, logger: logger,
                            count: { [board] in board.set($0, for: kind.name) },
                            observe: { [watcher, time] in await watcher.observe($0, atMs: time.nowMs) })
                    }
                }
            }
        }
    }
}

/// How the watches of objects are doing, for metrics.
final class ObjectBoard: Sendable {
    private let counters = Mutex<[String: WatchCounters]>([:])

    func set(_ value: WatchCounters, for kind: String) { counters.withLock { $0[kind] = value } }

    /// By kind.
    var all: [(kind: String, counters: WatchCounters)] {
        counters.withLock { $0.map { ($0.key, $0.value) } }.sorted { $0.kind < $1.kind }
    }
}
