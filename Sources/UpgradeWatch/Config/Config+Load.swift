import Alerting
import Comparison
import Fetch
import Foundation
import LogWatch
import PromQL
import Remote
import Scrape
import Series
import StrictYAML
import WebAPI

extension Config {
    /// Reads a configuration file and the files that it names.
    ///
    /// - Parameter webFile: how the API is secured (``WebConfigFile``).
    /// - Throws: `YAMLProblems` with all faults of all files at once.
    package static func load(file: String, features: QueryFeatures = [], webFile: String? = nil) throws -> Config {
        var loader = ConfigLoader(folder: file.folderOfPath, features: features)
        var config = try loader.load(YAMLDocument(file: file))
        if let webFile { config.security = try WebConfigFile.load(file: webFile) }
        return config
    }

    /// The configuration of a replay without a file: the built-in signals, log rules and alerts.
    package static func builtIn(cluster: String) throws -> Config {
        var config = Config(cluster: cluster)
        config.logRules = try Defaults.logRules()
        config.signalsText = Defaults.signalsText
        config.signals = try Defaults.signals()
        config.ruleGroups = try Defaults.ruleGroups()
        return config
    }
}

/// The files of `config/` and `alerts/` that are built into the program.
package enum Defaults {
    package static var signalsText: String { String(decoding: PackageResources.signals_yaml, as: UTF8.self) }

    package static func signals() throws -> [Signal] {
        try Signal.load(YAMLDocument(text: signalsText, file: "config/signals.yaml"))
    }

    package static func logRules() throws -> [LogRule] {
        try LogRule.load(document(PackageResources.log_rules_yaml, "config/log-rules.yaml"))
    }

    package static func ruleGroups() throws -> [RuleGroup] {
        let files: [(name: String, bytes: [UInt8])] = [
            ("etcd", PackageResources.alerts_etcd_yaml),
            ("kube-apiserver", PackageResources.alerts_kube_apiserver_yaml),
            ("kube-controller-manager", PackageResources.alerts_kube_controller_manager_yaml),
            ("kube-scheduler", PackageResources.alerts_kube_scheduler_yaml),
            ("kubelet", PackageResources.alerts_kubelet_yaml), ("pods", PackageResources.alerts_pods_yaml),
        ]
        return try files.flatMap { try RuleFile.load(document($0.bytes, "alerts/\($0.name).yaml")) }
    }

    private static func document(_ bytes: [UInt8], _ name: String) throws -> YAMLDocument {
        try YAMLDocument(text: String(decoding: bytes, as: UTF8.self), file: name)
    }
}

/// Reads the parts of a configuration, gathering what is wrong with any of them.
private struct ConfigLoader {
    let folder: String
    let features: QueryFeatures
    var others: [YAMLProblem] = []
    var global = GlobalConfig()

    /// The fields whose values are secrets; a webhook's address often has a token in it.
    private static let secrets: Set<String> = [
        "password", "credentials", "bearer_token", "client_secret", "token", "url", "key", "cert", "ca",
        "secrets", "proxy_connect_header",
    ]

    /// Sections of Prometheus' configuration that there is something else for.
    private static let others = [
        ("remote_read", "another server's history is read by storage.remote"),
        ("remote_write", "samples are not sent on; another server may take them from /federate"),
        ("tracing", "traces are not sent"), ("otlp", "samples are not taken by OTLP"),
        ("runtime", "there is nothing to be set of the runtime"),
    ]

    init(folder: String, features: QueryFeatures) {
        self.folder = folder
        self.features = features
    }

    mutating func load(_ document: YAMLDocument) throws -> Config {
        var config = Config(cluster: "")
        config.features = features
        config.text = document.masked(fields: ConfigLoader.secrets)
        document.root.fields { fields in
            config.cluster = fields.required("cluster")?.string ?? ""
            storage(fields.take("storage"), &config)
            web(fields.take("web"), &config)
            global(fields.take("global"), &config)
            ConfigLoader.scrapeConfigs(&fields, global, folder: folder, &config)
            if let value = fields.take("scrape_config_files") { scrapeConfigFiles(value, &config) }
            for value in fields.list("log_sources") { logSource(value, &config) }
            if let value = fields.take("kubernetes") { config.kubernetes = kubernetes(value) }
            upgrade(fields.take("upgrade"), &config)
            signals(fields.take("signals"), &config)
            logRules(fields.take("log_rules"), &config)
            ruleFiles(fields.take("rule_files"), &config)
            AlertingConfigReader(folder: folder).read(&fields, &config)
            for (name, remedy) in ConfigLoader.others { fields.refuse(name, remedy) }
        }
        chooseMetrics(&config)
        var problems = others
        do { try document.finish() } catch let error as YAMLProblems { problems = error.problems + problems }
        if !problems.isEmpty { throw YAMLProblems(problems) }
        return config
    }

    /// Says of each job which metrics are read, once signals and rules are known.
    private func chooseMetrics(_ config: inout Config) {
        let declared =
            config.jobs.contains(where: \.keepsDeclared)
            ? DeclaredMetrics(signals: config.signals, groups: config.ruleGroups) : nil
        for index in config.jobs.indices {
            let names = config.jobs[index].keepsDeclared ? declared : nil
            config.jobs[index].job.template.filter = RelabelRule.filter(
                config.jobs[index].job.template.metricRelabelRules, isWanted: names?.contains)
            config.jobs[index].job.settings += names?.settings ?? ""
        }
    }

    private func resolve(_ path: String) -> String { ClientConfigReader(folder: folder).resolve(path) }

    private func storage(_ value: YAMLValue?, _ config: inout Config) {
        value?.fields { fields in
            if let path = fields.string("path") { config.storage.path = resolve(path) }
            if let ms = fields.durationMs("retention") { config.storage.retentionMs = ms }
            if let bytes = fields.bytes("retention_size"), bytes > 0 { config.storage.retentionBytes = bytes }
            if let remote = fields.take("remote") { config.storage.remote = self.remote(remote) }
        }
    }

    private func remote(_ value: YAMLValue) -> RemoteReadConfig? {
        value.fields { fields in
            let url = fields.required("url")
            var remote = RemoteReadConfig(url: url?.string ?? "")
            if let url, !remote.url.hasPrefix("http://"), !remote.url.hasPrefix("https://") {
                url.report(
                    "\(url.path): \(Labels.quoted(remote.url)) is no address; write it as in http://prometheus:9090")
            }
            if let kind = fields.take("protocol"), let text = kind.string {
                if let known = RemoteReadConfig.Kind(rawValue: text) {
                    remote.kind = known
                } else {
                    kind.report("\(kind.path): \(Labels.quoted(text)) is neither read nor export")
                }
            }
            if let ms = fields.durationMs("timeout") { remote.timeoutMs = max(1, ms) }
            if let most = fields.int("max_samples") { remote.maxSamples = max(1, most) }
            remote.client = ClientConfigReader(folder: folder).read(&fields)
            return remote
        }
    }

    private func kubernetes(_ value: YAMLValue) -> KubernetesConfig {
        var kubernetes = KubernetesConfig()
        value.fields { fields in
            kubernetes.kubeconfig = fields.string("kubeconfig").map(resolve)
            kubernetes.context = fields.string("context")
        }
        return kubernetes
    }

    private func web(_ value: YAMLValue?, _ config: inout Config) {
        value?.fields { fields in
            guard let listen = fields.take("listen"), let text = listen.string else { return }
            guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
                (0...65_535).contains(port)
            else {
                listen.report(
                    "web.listen: \(Labels.quoted(text)) is not an address; write host:port, as in 127.0.0.1:9095")
                return
            }
            let host = text[..<colon].trimmingCharacters(in: CharacterSet(charactersIn: "[]"))
            config.web.host = host.isEmpty ? "0.0.0.0" : host
            config.web.port = port
        }
    }

    private mutating func global(_ value: YAMLValue?, _ config: inout Config) {
        guard let value else { return }
        value.fields { fields in
            if let ms = fields.durationMs("scrape_interval") { global.job.template.intervalMs = ms }
            if let ms = fields.durationMs("scrape_timeout") { global.job.template.timeoutMs = ms }
            if let ms = fields.durationMs("evaluation_interval") { config.evaluationIntervalMs = max(100, ms) }
            config.externalLabels = Labels(fields.strings("external_labels").map { Label($0.name, $0.value) })
            ScrapeConfigReader.limits(&fields, &global.job)
            FormatConfigReader.read(&fields, &global.job.template)
            global.keepsDeclared = ScrapeConfigReader.keepsDeclared(&fields) ?? false
            global.queryOffsetMs = fields.durationMs("rule_query_offset") ?? 0
            fields.refuse("query_log_file", "no log of queries is written")
            ScrapeConfigReader.refuse(&fields)
        }
    }

    private func logSource(_ value: YAMLValue, _ config: inout Config) {
        value.fields { fields in
            let component = fields.required("component")?.string
            let node = fields.string("node") ?? ""
            let paths = fields.stringList("paths").map(resolve)
            var format = LogFormat.klog
            if let formatValue = fields.take("format"), let text = formatValue.string {
                if let known = LogFormat(rawValue: text) {
                    format = known
                } else {
                    formatValue.report(
                        "unknown log format \(Labels.quoted(text)); known are "
                            + LogFormat.allCases.map(\.rawValue).joined(separator: ", "))
                }
            }
            var timeZone: TimeZone?
            if let zone = fields.take("timezone"), let text = zone.string {
                timeZone = TimeZone(identifier: text)
                if timeZone == nil {
                    zone.report("unknown time zone \(Labels.quoted(text)); they are named as Europe/Berlin")
                }
            }
            if paths.isEmpty { value.report("\(value.path): a log source needs paths") }
            if let component {
                let source = LogSource(component: component, node: node, format: format, timeZone: timeZone)
                config.logSources.append(LogSourceConfig(source: source, paths: paths))
            }
        }
    }

    private func upgrade(_ value: YAMLValue?, _ config: inout Config) {
        value?.fields { fields in
            for (name, path) in [("baseline", \Config.upgrade.baselineMs), ("soak", \Config.upgrade.soakMs)] {
                guard let value = fields.take(name), let ms = value.durationMs else { continue }
                if !(60_000...365 * 86_400_000).contains(ms) { value.report("upgrade.\(name) must be in 1m...365d") }
                config[keyPath: path] = max(60_000, ms)
            }
            if let ms = fields.durationMs("batch_gap") { config.upgrade.batchGapMs = ms }
            if let ms = fields.durationMs("compare_interval") { config.upgrade.compareIntervalMs = max(1000, ms) }
            if let detect = fields.take("detect"), let text = detect.string {
                if text != "auto", text != "manual" {
                    detect.report("upgrade.detect: \(Labels.quoted(text)) is neither auto nor manual")
                }
                config.upgrade.detects = text == "auto"
            }
        }
    }

    private static func scrapeConfigs(
        _ fields: inout YAMLFields, _ global: GlobalConfig, folder: String, _ config: inout Config
    ) {
        for value in fields.list("scrape_configs") {
            guard let job = ScrapeConfigReader(global: global, folder: folder).read(value) else { continue }
            if config.jobs.contains(where: { $0.job.name == job.job.name }) {
                value.report("the job_name \(Labels.quoted(job.job.name)) stands twice")
            }
            config.jobs.append(job)
        }
    }

    // MARK: Other files

    /// More scrape configurations; paths in a file are relative to it.
    private mutating func scrapeConfigFiles(_ value: YAMLValue, _ config: inout Config) {
        let global = global
        for file in files(value) {
            gather {
                let document = try YAMLDocument(file: file)
                document.root.fields { ConfigLoader.scrapeConfigs(&$0, global, folder: file.folderOfPath, &config) }
                try document.finish()
            }
        }
    }

    private func files(_ value: YAMLValue) -> [String] {
        value.list.flatMap { entry -> [String] in
            guard let text = entry.string else { return [] }
            let path = resolve(text)
            let found = Glob.expand(path)
            if found.isEmpty { entry.report("no file \(path)") }
            return found
        }
    }

    private mutating func gather(_ body: () throws -> Void) {
        do {
            try body()
        } catch let error as YAMLProblems {
            others += error.problems
        } catch {
            others.append(YAMLProblem(file: folder, line: 1, column: 1, reason: "\(error)"))
        }
    }

    private mutating func signals(_ value: YAMLValue?, _ config: inout Config) {
        guard let value else {
            gather {
                config.signalsText = Defaults.signalsText
                config.signals = try Defaults.signals()
            }
            return
        }
        for file in files(value) {
            gather {
                config.signals += try Signal.load(file: file)
                config.signalsText +=
                    String(decoding: FileManager.default.contents(atPath: file) ?? Data(), as: UTF8.self) + "\n"
            }
        }
    }

    private mutating func logRules(_ value: YAMLValue?, _ config: inout Config) {
        guard let value else {
            gather { config.logRules = try Defaults.logRules() }
            return
        }
        for file in files(value) { gather { config.logRules += try LogRule.load(file: file) } }
    }

    private mutating func ruleFiles(_ value: YAMLValue?, _ config: inout Config) {
        guard let value else { return }
        let features = config.features
        for file in files(value) {
            gather { config.ruleGroups += try RuleFile.load(file: file, features: features) }
        }
        for index in config.ruleGroups.indices where config.ruleGroups[index].queryOffsetMs == nil {
            config.ruleGroups[index].queryOffsetMs = global.queryOffsetMs
        }
    }
}

/// Defaults of scrape configurations.
struct GlobalConfig {
    /// What a job and its targets have unless the job says otherwise.
    var job = ScrapeJob(name: "", template: ScrapeTarget(labels: Labels(), url: ""))
    var keepsDeclared = false
    /// Of rule groups that do not say theirs.
    var queryOffsetMs: Int64 = 0

    /// What makes a job another one when it changes.
    var settings: String { "\(job) \(keepsDeclared)" }
}
