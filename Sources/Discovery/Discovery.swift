import Cluster
import Fetch
import Logging
import Scrape
import Series
import Synchronization

/// One way in which a job finds its targets (`*_sd_configs`).
package enum Discovery: Sendable {
    case file(FileDiscovery)
    case http(HTTPDiscovery)
    case kubernetes(KubernetesDiscovery)

    package var mechanism: String {
        switch self {
        case .file: "file"
        case .http: "http"
        case .kubernetes: "kubernetes"
        }
    }
}

/// What a discovery needs of the process.
package struct DiscoveryContext: Sendable {
    package var client: HTTPClient
    package var time: any TimeSource
    package var logger: Logger
    package var board: DiscoveryBoard
    /// Where the configuration says that the cluster's API is, for discoveries that name none.
    package var cluster: @Sendable () throws -> KubernetesEndpoint

    package init(
        client: HTTPClient, time: any TimeSource, logger: Logger, board: DiscoveryBoard,
        cluster: @escaping @Sendable () throws -> KubernetesEndpoint
    ) {
        self.client = client
        self.time = time
        self.logger = logger
        self.board = board
        self.cluster = cluster
    }

    /// Takes the groups of a discovery; `isWhole`: they are all that there are.
    package typealias Found = @Sendable (_ groups: [TargetGroup], _ isWhole: Bool) -> Void
}

extension Discovery {
    /// Finds targets until the task is cancelled.
    ///
    /// What can't be read is told, and leaves the targets that were found before.
    package func run(_ context: DiscoveryContext, found: @escaping DiscoveryContext.Found) async {
        switch self {
        case .file(let discovery): await discovery.run(context, found: found)
        case .http(let discovery): await discovery.run(context, found: found)
        case .kubernetes(let discovery): await discovery.run(context, found: found)
        }
    }
}

/// How the discoveries are doing, for metrics.
package final class DiscoveryBoard: Sendable {
    package struct Counters: Sendable, Equatable {
        /// Times that targets were read: of files and servers all, of objects a change.
        package var updates = 0
        package var failures = 0
    }

    private let rows = Mutex<[String: Counters]>([:])

    package init() {}

    func countUpdate(_ mechanism: String) { rows.withLock { $0[mechanism, default: Counters()].updates += 1 } }
    func countFailure(_ mechanism: String) { rows.withLock { $0[mechanism, default: Counters()].failures += 1 } }

    /// By mechanism, in its name's order.
    package var all: [(mechanism: String, counters: Counters)] {
        rows.withLock { $0.sorted { $0.key < $1.key }.map { ($0.key, $0.value) } }
    }
}
