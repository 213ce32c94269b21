import Alerting
import Cluster
import Discovery
import Fetch
import PromQL
import Scrape
import Series
import Storage
import WebAPI

/// The service's own metrics, in the text format.
struct SelfMetrics: Sendable {
    let version: String
    let store: Store
    let storage: StorageConfig
    let work: StoreWork
    let scraping: ScrapeManager
    let client: HTTPClient
    let discovery: DiscoveryBoard
    let watcher: Watcher
    let alerts: AlertStore
    let objects: ObjectBoard
    let runner: QueryRunner
    let deliveries: DeliveryWork
    let alertmanagers: AlertmanagerBoard
    let control: Control

    func text() async -> String {
        let stored = store.counters
        let watched = await watcher.statistics
        let targets = scraping.statuses
        var out = ""
        func add(_ name: String, _ type: String, _ help: String, _ value: Int) {
            out += metric(name, type, help, "\(value)")
        }
        add("upgrade_watch_store_series", "gauge", "Series in the store.", stored.series)
        add(
            "upgrade_watch_store_awake_series", "gauge", "Series in the store whose labels are in memory.",
            stored.seriesInMemory)
        add(
            "upgrade_watch_store_refused_series_total", "counter",
            "Times that a series could not be taken because the file could not be read or written, or has no place left.",
            stored.seriesRefused)
        add(
            "upgrade_watch_store_refused_metadata_total", "counter",
            "Times that a metric's type and help text were not taken because those of too many metrics were there.",
            stored.metadataRefused)
        add(
            "upgrade_watch_store_samples_appended_total", "counter", "Samples taken into the store.",
            stored.samplesAppended)
        add(
            "upgrade_watch_store_out_of_order_samples_total", "counter",
            "Samples refused because a newer one of their series was there.", stored.samplesOutOfOrder)
        add(
            "upgrade_watch_store_duplicate_samples_total", "counter",
            "Samples refused because one of their series and time was there.", stored.samplesDuplicate)
        add(
            "upgrade_watch_store_dropped_samples_total", "counter",
            "Samples dropped because too many waited to be written.", stored.samplesDropped)
        add("upgrade_watch_store_pending_samples", "gauge", "Samples that wait to be written.", stored.samplesPending)
        add("upgrade_watch_store_flushes_total", "counter", "Writes of the journal.", stored.flushes)
        add(
            "upgrade_watch_store_flushes_failed_total", "counter", "Writes of the journal that failed.",
            stored.flushesFailed)
        add(
            "upgrade_watch_store_checkpoints_total", "counter", "Times that the journal was moved into blocks.",
            stored.checkpoints)
        add("upgrade_watch_store_pending_bytes", "gauge", "Bytes that wait to be written.", stored.pendingBytes)
        add(
            "upgrade_watch_store_pending_limit_bytes", "gauge",
            "The bytes that may wait to be written before samples are dropped.", Store.maxPendingBytes)
        add("upgrade_watch_store_storage_bytes", "gauge", "Size of the store's file and its log.", store.fileBytes)
        add(
            "upgrade_watch_store_retention_limit_bytes", "gauge",
            "The bytes that samples may take before the oldest go; 0: any.", storage.retentionBytes ?? 0)
        add(
            "upgrade_watch_store_retention_limit_seconds", "gauge", "The age at which samples go.",
            Int(storage.retentionMs / 1000))
        for (kind, help) in [
            (StoreWork.Kind.flush, "How long good writes of the journal took."),
            (.checkpoint, "How long it took to move the journal into blocks."),
            (.retention, "How long it took to delete what is too old."),
        ] {
            let name = "upgrade_watch_store_\(kind)_duration_seconds"
            out += "# HELP \(name) \(help)\n# TYPE \(name) summary\n"
            out += "\(name)_sum \(GoFloat.text(work[kind].seconds))\n\(name)_count \(work[kind].count)\n"
        }
        let transfers = client.counts
        add("upgrade_watch_fetch_transfers", "gauge", "HTTP requests under way.", transfers.active)
        add("upgrade_watch_fetch_transfers_waiting", "gauge", "HTTP requests that wait for others.", transfers.waiting)
        add(
            "upgrade_watch_fetch_transfers_max", "gauge", "The most HTTP requests under way at a time.",
            client.maxTransfers)
        let queries = runner.counts
        add("upgrade_watch_engine_queries", "gauge", "Queries of the API that run.", queries.running)
        add(
            "upgrade_watch_engine_queries_waiting", "gauge", "Queries of the API that wait for others.", queries.waiting
        )
        add(
            "upgrade_watch_engine_queries_refused_total", "counter",
            "Queries of the API that were refused because too many waited.", queries.refused)
        add(
            "upgrade_watch_engine_queries_concurrent_max", "gauge", "The most queries of the API that run at a time.",
            runner.limits.maxConcurrency)
        add("upgrade_watch_targets", "gauge", "Targets that are scraped.", targets.count)
        add("upgrade_watch_scrapes_total", "counter", "Scrapes.", targets.reduce(0) { $0 + $1.scrapes })
        add(
            "upgrade_watch_scrapes_failed_total", "counter", "Scrapes without a usable answer.",
            targets.reduce(0) { $0 + $1.scrapesFailed })
        add(
            "upgrade_watch_scrapes_late_total", "counter", "Scrapes that began an interval late.",
            targets.reduce(0) { $0 + $1.scrapesLate })
        out += pools(scraping.pools)
        add("upgrade_watch_log_lines_read_total", "counter", "Lines read from logs.", watched.logLines)
        add(
            "upgrade_watch_log_gaps_total", "counter",
            "Rotations after which lines were in no file that could be read.", watched.logGaps)
        out += rules(await watcher.ruleStatus.runs)
        add("upgrade_watch_comparisons_total", "counter", "Comparisons with the baseline.", watched.comparisons)
        add(
            "upgrade_watch_notifications_queued_total", "counter", "Messages put into the queue.",
            watched.messagesQueued)
        add(
            "upgrade_watch_notifications_dropped_total", "counter", "Messages given up because too many waited.",
            watched.messagesDropped)
        let sent = deliveries.total
        add("upgrade_watch_notifications_sent_total", "counter", "Messages that receivers took.", sent.sent)
        add(
            "upgrade_watch_notifications_failed_total", "counter", "Attempts to send a message that failed.",
            sent.failed)
        add(
            "upgrade_watch_notifications_refused_total", "counter",
            "Messages given up because a receiver can't read them.", sent.refused)
        add("upgrade_watch_notifications_queue_length", "gauge", "Messages that wait.", (try? alerts.queued()) ?? 0)
        out += told(alertmanagers.counters)
        let kinds = objects.all
        func addKinds(_ name: String, _ help: String, _ value: KeyPath<WatchCounters, Int>) {
            out += family(name, "counter", help, kinds) { ("kind=\"\($0.kind)\"", "\($0.counters[keyPath: value])") }
        }
        addKinds("upgrade_watch_object_lists_total", "Lists of Kubernetes objects read to their end.", \.lists)
        addKinds("upgrade_watch_object_watches_total", "Watches of Kubernetes objects opened.", \.watches)
        addKinds("upgrade_watch_object_events_total", "Events of watches.", \.events)
        addKinds("upgrade_watch_object_errors_total", "Lists and watches that failed.", \.errors)
        addKinds("upgrade_watch_object_unreadable_total", "Objects that could not be read.", \.unreadable)
        let reload = control.lastReload
        add(
            "upgrade_watch_config_last_reload_successful", "gauge", "Whether the last configuration came up.",
            reload.isGood ? 1 : 0)
        add(
            "upgrade_watch_config_last_reload_success_timestamp_seconds", "gauge",
            "When a configuration came up last.", Int(reload.goodMs / 1000))
        out += family("upgrade_watch_build_info", "gauge", "The program's version.", [version]) {
            ("version=\(Labels.quoted($0))", "1")
        }
        return out + process()
    }

    /// A metric of one sample without labels.
    private func metric(_ name: String, _ type: String, _ help: String, _ value: String) -> String {
        "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n\(name) \(value)\n"
    }

    /// Of the process, as client libraries of Prometheus have them.
    private func process() -> String {
        guard let process = ProcessMetrics() else { return "" }
        let rows: [(name: String, type: String, help: String, value: String)] = [
            (
                "cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.",
                GoFloat.text(process.cpuSeconds)
            ),
            ("open_fds", "gauge", "Number of open file descriptors.", "\(process.openFiles)"),
            ("max_fds", "gauge", "Maximum number of open file descriptors.", "\(process.maxFiles)"),
            ("virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", "\(process.virtualBytes)"),
            ("resident_memory_bytes", "gauge", "Resident memory size in bytes.", "\(process.residentBytes)"),
            ("threads", "gauge", "Number of OS threads in the process.", "\(process.threads)"),
            (
                "start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.",
                GoFloat.text(process.startSeconds)
            ),
        ]
        return rows.map { metric("process_" + $0.name, $0.type, $0.help, $0.value) }.joined()
    }

    /// The samples of a metric, one a row; nothing where there are no rows.
    private func family<Row>(
        _ name: String, _ type: String, _ help: String, _ rows: [Row],
        _ sample: (Row) -> (labels: String, value: String)
    ) -> String {
        guard !rows.isEmpty else { return "" }
        let lines = rows.map(sample).map { "\(name){\($0.labels)} \($0.value)\n" }
        return "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n" + lines.joined()
    }

    /// Of jobs and of what they find, as Prometheus has them (`prometheus_target_scrape_pool_…`, `prometheus_sd_…`).
    private func pools(_ pools: [ScrapeManager.PoolStatus]) -> String {
        var out = ""
        func add<Row>(
            _ name: String, _ type: String, _ help: String, _ rows: [Row], _ text: (Row) -> (labels: String, value: Int)
        ) {
            out += family(name, type, help, rows) { row in
                let (labels, value) = text(row)
                return (labels, "\(value)")
            }
        }
        func job(_ pool: ScrapeManager.PoolStatus) -> String { "scrape_job=\(Labels.quoted(pool.job))" }
        add("upgrade_watch_scrape_pool_targets", "gauge", "Targets of a job.", pools) { (job($0), $0.active) }
        add("upgrade_watch_scrape_pool_dropped_targets", "gauge", "Targets that relabelling drops.", pools) {
            (job($0), $0.dropped)
        }
        add("upgrade_watch_scrape_pool_target_limit", "gauge", "The most targets of a job; 0: no limit.", pools) {
            (job($0), $0.targetLimit)
        }
        add(
            "upgrade_watch_scrape_pool_exceeded_target_limit", "gauge",
            "Whether a job has more targets than its limit, and so none is scraped.", pools
        ) { (job($0), $0.refusal == nil ? 0 : 1) }
        let discoveries = discovery.all
        add("upgrade_watch_sd_updates_total", "counter", "Times that targets were discovered.", discoveries) {
            ("mechanism=\(Labels.quoted($0.mechanism))", $0.counters.updates)
        }
        add("upgrade_watch_sd_failures_total", "counter", "Discoveries that failed.", discoveries) {
            ("mechanism=\(Labels.quoted($0.mechanism))", $0.counters.failures)
        }
        return out
    }

    /// Of Alertmanagers, with the label of Prometheus' own (`prometheus_notifications_…`).
    private func told(_ rows: [(url: String, counters: AlertmanagerBoard.Counters)]) -> String {
        var out = metric(
            "upgrade_watch_alertmanagers", "gauge", "Alertmanagers that are told of alerts.", "\(rows.count)")
        func add(_ name: String, _ type: String, _ help: String, _ value: (AlertmanagerBoard.Counters) -> String) {
            out += family("upgrade_watch_alertmanager_\(name)", type, help, rows) { row in
                ("alertmanager=\(Labels.quoted(FetchRequest.redacted(row.url)))", value(row.counters))
            }
        }
        add("alerts_sent_total", "counter", "Alerts that an Alertmanager took, each time that it was told.") {
            "\($0.sent)"
        }
        add("alerts_refused_total", "counter", "Alerts of requests that an Alertmanager could not read.") {
            "\($0.refused)"
        }
        add("requests_total", "counter", "Requests to an Alertmanager.") { "\($0.requests)" }
        add("requests_failed_total", "counter", "Requests to an Alertmanager that failed; they are repeated.") {
            "\($0.failed)"
        }
        add("request_seconds_total", "counter", "How long requests to an Alertmanager took.") {
            GoFloat.text($0.seconds)
        }
        return out
    }

    /// Of rule groups, with the labels of Prometheus' own (`prometheus_rule_group_…`).
    private func rules(_ runs: [RuleGroupRun]) -> String {
        var out = ""
        func add(_ name: String, _ type: String, _ help: String, _ value: (RuleGroupRun) -> String) {
            out += family(name, type, help, runs) { run in
                ("rule_group=\(Labels.quoted("\(run.group.file);\(run.group.name)"))", value(run))
            }
        }
        add("upgrade_watch_rule_group_iterations_total", "counter", "Evaluations of rule groups.") {
            "\($0.iterations)"
        }
        add(
            "upgrade_watch_rule_group_iterations_missed_total", "counter",
            "Evaluations of rule groups whose time passed without one."
        ) { "\($0.missed)" }
        add(
            "upgrade_watch_rule_group_last_duration_seconds", "gauge", "How long the last evaluation of the group took."
        ) { GoFloat.text($0.lastSeconds) }
        add(
            "upgrade_watch_rule_group_last_evaluation_timestamp_seconds", "gauge",
            "The time of the group's last evaluation."
        ) { GoFloat.text(Double($0.lastMs ?? 0) / 1000) }
        add("upgrade_watch_rule_evaluations_total", "counter", "Evaluations of rules.") { run in
            "\(run.health.reduce(0) { $0 + $1.evaluations })"
        }
        add("upgrade_watch_rule_evaluation_failures_total", "counter", "Evaluations of rules that failed.") { run in
            "\(run.health.reduce(0) { $0 + $1.failures })"
        }
        return out
    }
}
