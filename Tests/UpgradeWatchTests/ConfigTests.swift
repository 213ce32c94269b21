import Alerting
import Discovery
import Exposition
import Fetch
import Foundation
import Scrape
import Series
import StrictYAML
import TestSupport
import Testing
import UpgradeWatch

@Suite struct ConfigTests {
    private let directory = TemporaryDirectory()

    private func load(_ text: String, beside files: [String: String] = [:]) throws -> Config {
        for (name, text) in files { _ = try directory.write(name, text) }
        return try Config.load(file: directory.write("c.yaml", text))
    }

    private func problems(_ text: String) -> String? {
        let problems = #expect(throws: YAMLProblems.self) { try load(text) }
        return problems?.description.replacingOccurrences(of: directory.path + "/", with: "")
    }

    @Test func theExample_isGood() throws {
        let config = try Config.load(file: Shared.root + "/config/upgrade-watch.yaml")
        #expect(config.cluster == "prod-a" && config.staticTargets.count == 4 && config.receivers.count == 1)
        #expect(config.route?.routes.count == 1)
        #expect(config.upgrade.soakMs == 86_400_000)
        let kubelet = try #require(config.staticTargets.first { $0.labels["job"] == "kubelet" })
        #expect(kubelet.url == "https://10.0.1.1:10250/metrics")
        #expect(kubelet.labels["metrics_path"] == "/metrics" && kubelet.labels["node"] == "node-1")
        #expect(
            kubelet.client.authentication
                == .authorization(
                    type: "Bearer", credentials: .file("/var/run/secrets/kubernetes.io/serviceaccount/token")))
        #expect(kubelet.limits.bodyBytes == 64 << 20)
    }

    @Test func theExampleForACluster_isGood() throws {
        let config = try Config.load(file: Shared.root + "/config/in-cluster.yaml")
        #expect(config.staticTargets.isEmpty)
        #expect(
            config.jobs.map(\.job.name) == [
                "kube-apiserver", "kubelet", "kube-scheduler", "kube-controller-manager", "etcd", "coredns",
            ])
        #expect(config.jobs.allSatisfy { $0.discoveries.map(\.mechanism) == ["kubernetes"] })
        // As the objects of a kubeadm cluster make them.
        let scheduler = try #require(config.jobs.first { $0.job.name == "kube-scheduler" }?.job)
        let target = scheduler.target(of: [
            "__address__": "10.0.0.1", "__meta_kubernetes_pod_ip": "10.0.0.1",
            "__meta_kubernetes_pod_label_component": "kube-scheduler", "__meta_kubernetes_pod_node_name": "node-1",
        ])
        #expect(target?.url == "https://10.0.0.1:10259/metrics")
        #expect(target?.labels == ["job": "kube-scheduler", "instance": "10.0.0.1:10259", "node": "node-1"])
        #expect(
            scheduler.target(of: ["__address__": "x", "__meta_kubernetes_pod_label_component": "etcd"]) == nil)
    }

    @Test func discoveries_areChecked() {
        #expect(
            problems(
                """
                cluster: a
                scrape_configs:
                - job_name: j
                  file_sd_configs: [{files: [a.txt]}, {}]
                  http_sd_configs: [{url: "ftp://u:p@x/y"}]
                  kubernetes_sd_configs:
                  - {role: deployment}
                  - {role: pod, api_server: "https://x", kubeconfig_file: y}
                  - {role: pod, bearer_token_file: t}
                  - {role: pod, namespaces: {own_namespace: true}}
                  dns_sd_configs: [{names: [x]}]
                - job_name: j

                """) == """
                    c.yaml:4:30: scrape_configs[0].file_sd_configs[0].files[0]: "a.txt" must end with .json, .yml or .yaml, and may have * in its last part
                    c.yaml:4:39: scrape_configs[0].file_sd_configs[1]: files must name at least one file
                    c.yaml:5:27: scrape_configs[0].http_sd_configs[0].url: "ftp://x/y" is not a URL of http or https
                    c.yaml:7:12: scrape_configs[0].kubernetes_sd_configs[0].role: unknown role "deployment"; known are node, pod, service, endpoints, endpointslice, ingress
                    c.yaml:8:29: scrape_configs[0].kubernetes_sd_configs[1].api_server: api_server and kubeconfig_file exclude each other
                    c.yaml:9:5: scrape_configs[0].kubernetes_sd_configs[2]: TLS and credentials are for an api_server, which is not named here
                    c.yaml:10:45: scrape_configs[0].kubernetes_sd_configs[3].namespaces.own_namespace: the process runs in no cluster, and so in no namespace; name it under names
                    c.yaml:11:19: scrape_configs[0].dns_sd_configs: this kind of discovery is not built; write the targets to a file for file_sd_configs, or list them under static_configs
                    c.yaml:12:3: the job_name "j" stands twice
                    """)
    }

    /// Prometheus' fields, as they stand in configurations that operators and charts write.
    @Test func scrapeConfigs_ofPrometheus_areTakenAsTheyAre() throws {
        let config = try load(
            """
            cluster: a
            global:
              scrape_protocols: [PrometheusProto, OpenMetricsText1.0.0, OpenMetricsText0.0.1, PrometheusText1.0.0]
              metric_name_validation_scheme: utf8
              metric_name_escaping_scheme: allow-utf-8
              scrape_native_histograms: false
              always_scrape_classic_histograms: true
              convert_classic_histograms_to_nhcb: false
              target_limit: 7
              keep_dropped_targets: 9
              rule_query_offset: 30s
            rule_files: [rules.yaml]
            scrape_configs:
            - job_name: plain
            - job_name: own
              scrape_protocols: [PrometheusText0.0.4]
              fallback_scrape_protocol: OpenMetricsText1.0.0
              track_timestamps_staleness: true
              native_histogram_bucket_limit: 0
              native_histogram_min_bucket_factor: 1.1
              target_limit: 3
              enable_http2: false
              follow_redirects: false
              proxy_url: http://user:word@proxy:3128
              no_proxy: 10.0.0.0/8,.cluster.local
              proxy_connect_header: {X-Tenant: [a]}
              http_headers: {X-Scope: {values: [v], secrets: [s], files: [h]}}
              basic_auth: {username_file: u, password: p}
              tls_config: {ca: CA, cert: CERT, key_file: k, min_version: TLS12, max_version: TLS13}
            """, beside: ["rules.yaml": "groups:\n- {name: g, rules: []}\n- {name: h, query_offset: 1s, rules: []}\n"])
        let (plain, own) = (config.jobs[0].job, config.jobs[1].job)
        #expect(plain.template.protocols == [.openMetrics1, .openMetrics0, .prometheus1])
        #expect(plain.template.escaping == "allow-utf-8" && plain.template.client == ClientOptions())
        #expect(plain.targetLimit == 7 && own.targetLimit == 3 && own.keptDroppedTargets == 9)
        #expect(own.template.protocols == [.prometheus0] && own.template.fallback == .openMetrics)
        #expect(own.template.tracksTimestampsStaleness)
        let client = own.template.client
        #expect(!client.offersHTTP2 && !client.followRedirects)
        #expect(client.proxy.choice == .server(Secret("http://user:word@proxy:3128")))
        #expect(client.proxy.exceptions == "10.0.0.0/8,.cluster.local,localhost,127.0.0.0/8,::1")
        #expect(client.proxy.connectHeaders == [HeaderField(name: "X-Tenant", values: [.text("a")])])
        let file = directory.path + "/h"
        #expect(client.headers == [HeaderField(name: "X-Scope", values: [.text("v"), .text("s"), .file(file)])])
        #expect(client.authentication == .basic(username: .file(directory.path + "/u"), password: .text("p")))
        #expect(client.tls.ca == Secret("CA") && client.tls.keyFile == directory.path + "/k")
        #expect(client.tls.minVersion == .tls12 && client.tls.maxVersion == .tls13)
        #expect(config.ruleGroups.map(\.queryOffsetMs) == [30_000, 1000])
        for secret in ["user:word", "- s\n", "CERT", "X-Tenant"] { #expect(!config.text.contains(secret), "\(secret)") }
    }

    @Test func scrapeConfigs_ofOtherFiles_areRelativeToThem() throws {
        try FileManager.default.createDirectory(atPath: directory.path + "/jobs", withIntermediateDirectories: true)
        _ = try directory.write(
            "jobs/a.yaml",
            "scrape_configs: [{job_name: b, tls_config: {ca_file: ca.pem}}, {job_name: c, scrape_interval: 1m}]\n")
        let text = """
            cluster: a
            global: {scrape_interval: 20s}
            scrape_configs: [{job_name: a}]
            scrape_config_files: [jobs/*.yaml]
            """
        let jobs = try load(text).jobs.map(\.job)
        #expect(jobs.map(\.name) == ["a", "b", "c"])
        #expect(jobs.map(\.template.intervalMs) == [20_000, 20_000, 60_000])
        #expect(jobs[1].template.client.tls.caFile == directory.path + "/jobs/ca.pem")
        _ = try directory.write("jobs/b.yaml", "scrape_configs: [{job_name: a}]\nrule_files: []\n")
        #expect(
            problems(text + "\nremote_write: []\n") == """
                c.yaml:5:15: remote_write: samples are not sent on; another server may take them from /federate
                jobs/b.yaml:1:18: the job_name "a" stands twice
                jobs/b.yaml:2:1: unknown field "rule_files"; known fields: scrape_configs
                """)
    }

    @Test func alertmanagers_areRead() throws {
        let text = """
            cluster: a
            alerting:
              alert_relabel_configs: [{regex: replica, action: labeldrop}]
              alertmanagers:
              - static_configs: [{targets: ["a:9093", "[::1]:9093"], labels: {team: x}}]
              - scheme: https
                path_prefix: /am/
                timeout: 3s
                api_version: v2
                basic_auth: {username: u, password_file: gone.txt}
                file_sd_configs: [{files: [sd.json]}]
                relabel_configs: [{source_labels: [__address__], target_label: __alerts_path__, replacement: /x}]
                alert_relabel_configs: [{source_labels: [severity], regex: info, action: drop}]
            """
        let config = try load(text)
        #expect(config.alerting.relabelRules.map(\.action) == [.labeldrop])
        let first = try #require(config.alerting.alertmanagers.first)
        #expect(
            first.staticTargets.map { AlertmanagerConfig.url(of: first.completed($0)) } == [
                "http://a:9093/api/v2/alerts", "http://[::1]:9093/api/v2/alerts",
            ])
        #expect(first.timeoutMs == 10_000)
        let second = try #require(config.alerting.alertmanagers.last)
        let labels = second.completed(["__address__": "b"])
        #expect(AlertmanagerConfig.url(of: labels) == "https://b/am/api/v2/alerts")
        #expect(
            RelabelRule.apply(second.relabelRules, to: labels).flatMap(AlertmanagerConfig.url) == "https://b/x")
        #expect(AlertmanagerConfig.url(of: ["__address__": "b", "__alerts_path__": "x"]) == "http://b/x")
        #expect(AlertmanagerConfig.url(of: ["__address__": "b/x", "__alerts_path__": "/x"]) == nil)
        #expect(second.timeoutMs == 3000 && second.alertRelabelRules.count == 1)
        #expect(second.discoveries.map(\.mechanism) == ["file"])
        // The files of credentials are among those that `check config` looks for.
        #expect(config.unreadableFiles == [directory.path + "/gone.txt"])
        #expect(
            problems(
                """
                cluster: a
                alerting:
                  alertmanagers:
                  - {scheme: ftp, api_version: v1, static_configs: [{targets: ["http://a/"]}], sigv4: {}}
                  - {dns_sd_configs: [], target: x}
                """) == """
                    c.yaml:4:14: alerting.alertmanagers[0].scheme: "ftp" is neither http nor https
                    c.yaml:4:32: alerting.alertmanagers[0].api_version: "v1" is not v2, which all Alertmanagers from 0.16 have; leave it out
                    c.yaml:4:64: alerting.alertmanagers[0].static_configs[0].targets[0]: "http://a/" is not a host:port
                    c.yaml:4:87: alerting.alertmanagers[0].sigv4: requests are not signed for AWS; name an Alertmanager that is reached without
                    c.yaml:5:22: alerting.alertmanagers[1].dns_sd_configs: this kind of discovery is not built; write the targets to a file for file_sd_configs, or list them under static_configs
                    c.yaml:5:26: unknown field "target" in alerting.alertmanagers[1]; known fields: alert_relabel_configs, api_version, authorization, basic_auth, bearer_token, bearer_token_file, enable_http2, file_sd_configs, follow_redirects, http_headers, http_sd_configs, kubernetes_sd_configs, no_proxy, oauth2, path_prefix, proxy_connect_header, proxy_from_environment, proxy_url, relabel_configs, scheme, static_configs, timeout, tls_config
                    """)
    }

    @Test func oauth2_isRead() throws {
        let config = try load(
            """
            cluster: a
            receivers:
            - name: r
              webhook_configs:
              - url: http://x
                http_config:
                  oauth2:
                    client_id: id
                    client_secret_file: s
                    token_url: https://issuer/token
                    scopes: [a, b]
                    endpoint_params: {audience: x}
                    tls_config: {insecure_skip_verify: true}
                    proxy_from_environment: true
            """)
        var options = OAuth2Options(
            tokenURL: "https://issuer/token", clientID: "id", clientSecret: .file(directory.path + "/s"))
        options.scopes = ["a", "b"]
        options.parameters = ["audience": "x"]
        options.tls.insecureSkipVerify = true
        options.proxy = ProxyOptions(.environment)
        #expect(config.receivers[0].webhooks[0].client.authentication == .oauth2(options))
    }

    @Test func clientOptions_areChecked() {
        #expect(
            problems(
                """
                cluster: a
                global: {query_log_file: x, extra_scrape_metrics: true}
                scrape_configs:
                - job_name: j
                  scrape_protocols: [PrometheusProto]
                  fallback_scrape_protocol: Text
                  metric_name_validation_scheme: legacy
                  metric_name_escaping_scheme: none
                  convert_classic_histograms_to_nhcb: true
                  scrape_failure_log_file: x
                  proxy_url: ftp://u:p@x
                  proxy_from_environment: true
                  http_headers: {authorization: {values: [x]}, "a b": {values: [x]}}
                  basic_auth: {password: p, password_file: f}
                  authorization: {type: basic, credentials: x}
                  oauth2: {client_id: x, token_url: issuer}
                  tls_config: {cert_file: c, min_version: SSL3}
                - job_name: k
                  no_proxy: x

                """) == """
                    c.yaml:2:26: global.query_log_file: no log of queries is written
                    c.yaml:2:51: global.extra_scrape_metrics: the limits are in the configuration, and not stored for each target
                    c.yaml:4:3: scrape_configs[0]: at most one of basic_auth, authorization, oauth2 and bearer_token may be there
                    c.yaml:5:21: scrape_configs[0].scrape_protocols: "PrometheusProto" is not read; known are OpenMetricsText1.0.0, OpenMetricsText0.0.1, PrometheusText1.0.0, PrometheusText0.0.4
                    c.yaml:6:29: scrape_configs[0].fallback_scrape_protocol: "Text" is not read; known are OpenMetricsText1.0.0, OpenMetricsText0.0.1, PrometheusText1.0.0, PrometheusText0.0.4
                    c.yaml:7:34: scrape_configs[0].metric_name_validation_scheme: "legacy": names are taken in UTF-8; write utf8
                    c.yaml:8:32: scrape_configs[0].metric_name_escaping_scheme: "none" is none of allow-utf-8, underscores, dots, values
                    c.yaml:9:39: scrape_configs[0].convert_classic_histograms_to_nhcb: native histograms are not built; classic ones are always read
                    c.yaml:10:28: scrape_configs[0].scrape_failure_log_file: failed scrapes are in the program's own log and in /api/v1/targets
                    c.yaml:11:14: scrape_configs[0].proxy_url: "ftp://x" is not the address of a proxy; it begins with http://, https:// or socks5://
                    c.yaml:11:14: proxy_from_environment is true: proxy_url must not be there
                    c.yaml:13:33: scrape_configs[0].http_headers.authorization: the header field authorization is set by the client itself
                    c.yaml:13:55: scrape_configs[0].http_headers.a b: "a b" is not the name of a header field
                    c.yaml:14:44: scrape_configs[0].basic_auth.password_file: at most one of password and password_file may be there
                    c.yaml:15:25: authorization.type: for Basic there is basic_auth
                    c.yaml:16:11: scrape_configs[0].oauth2: client_secret or client_secret_file is missing
                    c.yaml:16:37: scrape_configs[0].oauth2.token_url: "issuer" is not a URL of http or https
                    c.yaml:17:15: scrape_configs[0].tls_config: a certificate and its key must be there together
                    c.yaml:17:43: scrape_configs[0].tls_config.min_version: "SSL3" is none of TLS10, TLS11, TLS12, TLS13
                    c.yaml:19:13: scrape_configs[1].no_proxy: there is no proxy_url that this is an exception of
                    """)
    }

    @Test func smallestConfig_hasTheDefaults() throws {
        let config = try load("cluster: a\n")
        #expect(config.signals.count > 15 && config.logRules.count > 15)
        #expect(config.ruleGroups.isEmpty)
        #expect(config.web.port == 9095 && config.storage.retentionMs == 30 * 86_400_000)
    }

    @Test func declaredMetrics_areThoseOfSignalsAndRules_underAllTheirNames() throws {
        _ = try directory.write(
            "rules.yaml",
            """
            groups:
            - {name: g, rules: [{alert: A, expr: 'rate(mine_total[5m]) > 0 and on () {__name__=~"some_.*"}'}]}
            """)
        let config = try load(
            """
            cluster: a
            global: {keep_metrics: declared}
            rule_files: [rules.yaml]
            scrape_configs:
            - {job_name: kubelet}
            - {job_name: all, keep_metrics: all}
            """)
        let filter = try #require(config.jobs[0].job.template.filter)
        for name in [
            "mine_total", "some_gauge", "kubernetes_build_info", "kubelet_runtime_operations_errors_total",
            // What it was called before 1.19.
            "kubelet_runtime_operations_errors", "kubelet_pleg_relist_duration_seconds_sum",
        ] { #expect(filter.keeps(name), "\(name)") }
        for name in ["go_goroutines_nobody_asks_for", "kubelet_node_name", "mine"] { #expect(!filter.keeps(name)) }
        #expect(config.jobs[1].job.template.filter == nil)
        #expect(
            problems("cluster: a\nglobal: {keep_metrics: some}\n")
                == "c.yaml:2:24: global.keep_metrics: \"some\" is neither all nor declared")
    }

    @Test func typoInYAML_isToldByLineAndColumn() {
        #expect(
            problems("cluster: a\nglobal: {scrape_interval: 15s\nweb:\n  listen: x\n")
                == "c.yaml:3:4: not valid YAML: did not find expected ',' or '}'")
    }

    @Test func unknownField_isToldWithWhatMayBeMeant() {
        #expect(
            problems("cluster: a\nglobal:\n  scrape_intervall: 15s\n")
                == "c.yaml:3:3: unknown field \"scrape_intervall\" in global; did you mean \"scrape_interval\"?")
    }

    @Test(arguments: ["baseline", "soak"]) func timesOfNothing_areRefused(field: String) {
        #expect(
            problems("cluster: a\nupgrade: {\(field): 0s}\n")
                == "c.yaml:2:\(field.count + 13): upgrade.\(field) must be in 1m...365d")
    }

    @Test func allFaults_areToldAtOnce() {
        #expect(
            problems(
                """
                storage: {retention: 5x}
                web: {listen: nowhere}
                scrape_configs:
                - job_name: a
                  scrape_interval: 5s
                  scrape_timeout: 10s
                  static_configs: [{targets: ["http://x/"]}]
                  dns_sd_configs: [{names: [x]}]
                  relabel_configs: [{action: hashmod, regex: "(", target_label: x}]
                log_sources: [{component: k, format: text, paths: [a]}]
                upgrade: {detect: maybe}
                route: {receiver: nobody}
                rule_files: [missing.yaml]
                """)
                    == """
                    c.yaml:1:1: the field "cluster" is missing
                    c.yaml:1:22: storage.retention: "5x" is not a duration; write a number with a unit of ms, s, m, h, d, w or y, as in 15s or 1h30m
                    c.yaml:2:15: web.listen: "nowhere" is not an address; write host:port, as in 127.0.0.1:9095
                    c.yaml:4:3: scrape_configs[0]: scrape_timeout is greater than scrape_interval
                    c.yaml:7:31: scrape_configs[0].static_configs[0].targets[0]: "http://x/" is not a host:port
                    c.yaml:8:19: scrape_configs[0].dns_sd_configs: this kind of discovery is not built; write the targets to a file for file_sd_configs, or list them under static_configs
                    c.yaml:9:46: regular expression "(" at offset 1: missing closing parenthesis
                    c.yaml:10:38: unknown log format "text"; known are klog, json, logfmt, audit
                    c.yaml:11:19: upgrade.detect: "maybe" is neither auto nor manual
                    c.yaml:12:19: route: there is no receiver named "nobody"
                    c.yaml:13:14: no file FOLDER/missing.yaml
                    """.replacingOccurrences(of: "FOLDER/", with: ""))
    }

    @Test func labelsOfATarget_setItsPath_asInPrometheus() throws {
        let config = try load(
            """
            cluster: a
            scrape_configs:
            - job_name: j
              params: {module: [a b]}
              static_configs:
              - {targets: ["h:1"], labels: {__metrics_path__: /t/1/metrics, __scrape_interval__: 5s, x: y}}
            """)
        #expect(config.staticTargets.map(\.url) == ["http://h:1/t/1/metrics?module=a%20b"])
        #expect(config.staticTargets[0].intervalMs == 5000)
        #expect(config.staticTargets[0].labels == ["instance": "h:1", "job": "j", "x": "y"])
    }

    @Test func missingFile_isToldSo() {
        let problems = #expect(throws: YAMLProblems.self) { try Config.load(file: "/nowhere/c.yaml") }
        #expect(problems?.description == "/nowhere/c.yaml:1:1: the file can't be read")
    }

    /// Routes of an Alertmanager before 0.22, and of one since.
    @Test func routesOfBothForms_areRead() throws {
        let file = try directory.write(
            "routes.yaml",
            """
            cluster: a
            receivers: [{name: r, webhook_configs: [{url: "http://127.0.0.1:1/"}]}]
            route:
              receiver: r
              routes:
              - match: {severity: page}
                match_re: {team: "a|b"}
              - matchers: ['severity="page"', 'team=~"a|b"']
            """)
        let routes = try #require(try Config.load(file: file).route).routes
        #expect(routes[0].matchers == routes[1].matchers && routes[0].matchers.count == 2)
        let bad = try directory.write(
            "bad.yaml",
            "cluster: a\nreceivers: [{name: r}]\nroute:\n  receiver: r\n  routes: [{match_re: {team: '('}}]\n")
        let problems = #expect(throws: YAMLProblems.self) { try Config.load(file: bad) }
        #expect(problems.map { "\($0)" }?.contains("regular expression") == true)
    }

    /// What is read when it is used is looked for by a check alone.
    @Test func filesThatAreNotThere_areNamed() throws {
        let there = try directory.write("token", "x")
        let file = try directory.write(
            "files.yaml",
            """
            cluster: a
            storage: {remote: {url: "http://127.0.0.1:1", basic_auth: {username: u, password_file: gone/password}}}
            kubernetes: {kubeconfig: gone/kubeconfig}
            scrape_configs:
            - job_name: kubelet
              bearer_token_file: token
              tls_config: {ca_file: gone/ca}
              http_sd_configs: [{url: "http://127.0.0.1:1", authorization: {credentials_file: gone/credentials}}]
            """)
        let config = try Config.load(file: file)
        #expect(
            config.unreadableFiles.map { String($0.dropFirst(directory.path.count + 1)) }
                == ["gone/ca", "gone/credentials", "gone/kubeconfig", "gone/password"])
        #expect(FileManager.default.isReadableFile(atPath: there) && config.missingJobs == ["kube-apiserver"])
    }
}
