import Alerting
import Cluster
import Comparison
import Discovery
import Fetch
import Foundation
import LogWatch
import PromQL
import Remote
import Scrape
import Series
import Storage
import WebAPI

/// The configuration, read and checked.
package struct Config: Sendable {
    package var cluster: String
    /// The file as YAML without secrets, for those who ask the service for it.
    package var text = ""
    /// Which of the configurations that the running service was asked to take it is, counted from 0.
    package var revision = 0
    package var storage = StorageConfig()
    package var web = WebConfig()
    /// Of the file that the command line names.
    package var security = WebConfigFile()
    package var evaluationIntervalMs: Int64 = 15_000
    package var externalLabels = Labels()
    package var jobs: [JobConfig] = []
    package var logSources: [LogSourceConfig] = []
    package var logRules: [LogRule] = []
    /// nil: no objects are watched.
    package var kubernetes: KubernetesConfig?
    package var upgrade = UpgradeConfig()
    package var signals: [Signal] = []
    /// The text of the signals' files: a report made from the store reads it from there.
    package var signalsText = ""
    package var ruleGroups: [RuleGroup] = []
    /// What expressions may have beside the stable language; said on the command line, as to Prometheus.
    package var features: QueryFeatures = []
    package var alerting = AlertingConfig()
    package var receivers: [Receiver] = []
    /// nil: alerts are kept and shown, and no receiver is told.
    package var route: Route?

    package init(cluster: String) { self.cluster = cluster }

    /// The targets that the configuration itself names.
    package var staticTargets: [ScrapeTarget] {
        jobs.flatMap { job in job.job.staticTargets.compactMap { job.job.target(of: $0) } }
    }
}

/// One entry of `scrape_configs`.
package struct JobConfig: Sendable {
    package var job: ScrapeJob
    /// Whether only metrics are read that signals and rules ask for.
    package var keepsDeclared = false
    package var discoveries: [Discovery] = []
}

/// `alerting`.
package struct AlertingConfig: Sendable {
    package var alertmanagers: [AlertmanagerConfig] = []
    /// Of the alerts that Alertmanagers are told; one that a rule drops is told to none.
    package var relabelRules: [RelabelRule] = []
}

/// One entry of `alerting.alertmanagers`: Alertmanagers that are found together.
package struct AlertmanagerConfig: Sendable {
    package var scheme = "http"
    package var pathPrefix = "/"
    package var timeoutMs: Int64 = 10_000
    package var client = ClientOptions()
    /// Of what is discovered.
    package var relabelRules: [RelabelRule] = []
    /// Of the alerts for these, after those for all.
    package var alertRelabelRules: [RelabelRule] = []
    package var staticTargets: [Labels] = []
    package var discoveries: [Discovery] = []

    /// What relabelling sees of a discovered Alertmanager (`notifier/notifier.go`, `AlertmanagerFromGroup`).
    package func completed(_ discovered: Labels) -> Labels {
        let prefix = pathPrefix.split(separator: "/").map { "/" + $0 }.joined()
        return Labels([Label("__scheme__", scheme), Label("__alerts_path__", prefix + "/api/v2/alerts")])
            .merging(discovered)
    }

    /// The address that completed labels stand for, after relabelling; nil where they have none, or one with a path.
    package static func url(of labels: Labels) -> String? {
        guard let address = labels["__address__"], !address.isEmpty, !address.contains("/") else { return nil }
        let path = labels["__alerts_path__"] ?? ""
        return "\(labels["__scheme__"] ?? "http")://\(address)\(path.hasPrefix("/") ? "" : "/")\(path)"
    }
}

/// `storage`.
package struct StorageConfig: Sendable, Equatable {
    package var path = "./data"
    package var retentionMs: Int64 = 30 * 86_400_000
    /// What the store's file may hold before the oldest samples are deleted early; nil: any size.
    package var retentionBytes: Int?
    /// A server whose history is read beside the store's.
    package var remote: RemoteReadConfig?

    package init() {}

    /// The store's series, with those of the remote server where there is one.
    ///
    /// - Parameter isTolerant: whether that need not be there for what is no older than all that the store has.
    package func source(
        _ store: Store, client: HTTPClient, time: any TimeSource, isTolerant: Bool = false
    ) -> any SeriesSource {
        guard let remote else { return store }
        return JoinedSource(
            store, RemoteSource(remote, client: client, time: time, reachMs: retentionMs),
            tolerantBy: isTolerant ? time : nil)
    }
}

/// `web`.
package struct WebConfig: Sendable, Equatable {
    package var host = "127.0.0.1"
    /// 0: any free one.
    package var port = 9095

    package init() {}

    /// The address of the API without TLS.
    package var url: String { url(scheme: "http", host: host) }

    package func url(scheme: String, host: String) -> String {
        "\(scheme)://\(host.contains(":") ? "[\(host)]" : host):\(port)"
    }

    /// Whether it listens at all addresses of the machine.
    package var isEverywhere: Bool { ["0.0.0.0", "::", ""].contains(host) }
}

/// `kubernetes`.
package struct KubernetesConfig: Sendable, Equatable {
    /// nil: the service account of the pod that the process runs in, or else what kubectl would take.
    package var kubeconfig: String?
    /// nil: the kubeconfig's current one.
    package var context: String?

    package init() {}

    /// The API server and what opens it.
    ///
    /// - Throws: `KubernetesConfigError`.
    package func endpoint(environment: [String: String]) throws -> KubernetesEndpoint {
        if let kubeconfig { return try Kubeconfig.endpoint(path: kubeconfig, context: context) }
        if context == nil, let endpoint = Kubeconfig.inCluster(environment: environment) { return endpoint }
        let path =
            environment["KUBECONFIG"].flatMap { $0.split(separator: ":").first.map(String.init) }
            ?? (environment["HOME"] ?? "") + "/.kube/config"
        return try Kubeconfig.endpoint(path: path, context: context)
    }
}

/// `upgrade`.
package struct UpgradeConfig: Sendable, Equatable, Codable {
    package var baselineMs: Int64 = 72 * 3_600_000
    package var soakMs: Int64 = 24 * 3_600_000
    /// Steps further apart than this are of different batches.
    package var batchGapMs: Int64 = 300_000
    /// Whether steps are found by themselves, or only said by `mark`.
    package var detects = true
    /// How often the comparison is made while an upgrade goes on or is soaked.
    package var compareIntervalMs: Int64 = 60_000

    package init() {}
}

/// One entry of `log_sources`.
package struct LogSourceConfig: Sendable {
    package var source: LogSource
    /// Paths, with `*` and `?` in the last part.
    package var paths: [String]
}
