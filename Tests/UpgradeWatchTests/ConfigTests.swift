import Alerting
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

    private func load(_ text: String) throws -> Config { try Config.load(file: directory.write("c.yaml", text)) }

    private func problems(_ text: String) -> String? {
        let problems = #expect(throws: YAMLProblems.self) { try load(text) }
        return problems?.description.replacingOccurrences(of: directory.path + "/", with: "")
    }

    @Test func theExample_isGood() throws {
        let config = try Config.load(file: Shared.root + "/config/upgrade-watch.yaml")
        #expect(config.cluster == "prod-a" && config.targets.count == 4 && config.receivers.count == 1)
        #expect(config.route?.routes.count == 1)
        #expect(config.upgrade.soakMs == 86_400_000)
        let kubelet = try #require(config.targets.first { $0.labels["job"] == "kubelet" })
        #expect(kubelet.url == "https://10.0.1.1:10250/metrics")
        #expect(kubelet.labels["metrics_path"] == "/metrics" && kubelet.labels["node"] == "node-1")
        #expect(
            kubelet.authentication
                == .authorizationFile(type: "Bearer", path: "/var/run/secrets/kubernetes.io/serviceaccount/token"))
        #expect(kubelet.limits.bodyBytes == 64 << 20)
    }

    @Test func smallestConfig_hasTheDefaults() throws {
        let config = try load("cluster: a\n")
        #expect(config.signals.count > 15 && config.logRules.count > 15)
        #expect(config.ruleGroups.isEmpty)
        #expect(config.web.port == 9095 && config.storage.retentionMs == 30 * 86_400_000)
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
                  kubernetes_sd_configs: [{role: node}]
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
                    c.yaml:8:26: scrape_configs[0].kubernetes_sd_configs: this kind of discovery is not built yet; list the targets under static_configs
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
        #expect(config.targets.map(\.url) == ["http://h:1/t/1/metrics?module=a%20b"])
        #expect(config.targets[0].intervalMs == 5000)
        #expect(config.targets[0].labels == ["instance": "h:1", "job": "j", "x": "y"])
    }

    @Test func missingFile_isToldSo() {
        let problems = #expect(throws: YAMLProblems.self) { try Config.load(file: "/nowhere/c.yaml") }
        #expect(problems?.description == "/nowhere/c.yaml:1:1: the file can't be read")
    }
}
