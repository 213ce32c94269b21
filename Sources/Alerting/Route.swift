import Series

/// Where alerts go: Alertmanager's `route` (prometheus.io/docs/alerting/latest/configuration).
package struct Route: Sendable {
    package var receiver: String
    package var groupBy: [String]
    package var groupWaitMs: Int64
    package var groupIntervalMs: Int64
    package var repeatIntervalMs: Int64
    package var matchers: [LabelMatcher]
    /// Whether routes after this one are tried as well.
    package var continues: Bool
    package var routes: [Route]

    /// Alertmanager's defaults.
    package init(receiver: String) {
        self.receiver = receiver
        groupBy = []
        groupWaitMs = 30_000
        groupIntervalMs = 300_000
        repeatIntervalMs = 4 * 3_600_000
        matchers = []
        continues = false
        routes = []
    }

    /// The routes that take an alert, each with the path that names it.
    func matching(_ labels: Labels, path: String = "{}") -> [(route: Route, path: String)] {
        guard matchers.allSatisfy({ $0.accepts(labels) }) else { return [] }
        var found: [(route: Route, path: String)] = []
        for (index, child) in routes.enumerated() {
            let inner = "\(path)/{\(child.matchers.map(\.description).joined(separator: ","))}/\(index)"
            let taken = child.matching(labels, path: inner)
            found += taken
            if !taken.isEmpty, !child.continues { break }
        }
        return found.isEmpty ? [(self, path)] : found
    }
}

/// A receiver of notifications, with its webhooks.
package struct Receiver: Sendable {
    package var name: String
    package var webhooks: [Webhook]

    package init(name: String, webhooks: [Webhook]) {
        self.name = name
        self.webhooks = webhooks
    }
}
