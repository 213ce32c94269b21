import Foundation
import TestSupport
import Testing

@Suite struct PlanTests {
    private let directory = TemporaryDirectory()

    private func plan(_ arguments: String...) throws -> String {
        let result = try Binary.run(["plan"] + arguments, in: directory)
        #expect(result.code == 0, "\(result.errors)")
        return result.output
    }

    @Test func longWay_namesWhatHurtOnIt() throws {
        let text = try plan("--from", "1.10", "--to", "1.17")
        for words in [
            "1.16  extensions/v1beta1 Deployment: use apps/v1 Deployment",
            "kubelet_docker_operations_latency_microseconds is now kubelet_docker_operations_duration_seconds, its values divided by 1000000",
            "1.16  the new kubelet restarts containers in place, without a drain: all",
            "1.13  kube-controller-manager: TaintBasedEvictions is on: taint-based eviction is the default",
            "container_* has other labels: container_name is now container, pod_name is now pod",
        ] {
            #expect(text.contains(words), "\(words)")
        }
        let short = try plan("--from", "v1.30.4", "--to", "1.31")
        #expect(short.contains("1.31  the new kubelet restarts containers in place"))
        #expect(!short.contains("extensions/v1beta1"))
    }

    @Test func ownRulesDashboardsFlagsAndClients_areLookedAt() throws {
        let rules = try directory.write(
            "rules.yaml",
            """
            groups:
            - name: a
              rules:
              - {alert: Slow, expr: 'histogram_quantile(0.9, sum by (le) (rate(apiserver_request_slo_duration_seconds_bucket[5m]))) > 1'}
              - {alert: Fine, expr: 'sum(rate(apiserver_request_total[5m])) > 1e9'}
              - {record: work, expr: 'sum by (work) (scheduler_goroutines{work="bind"})'}
            """)
        let dashboard = try directory.write(
            "board.json",
            #"{"panels":[{"title":"Database","targets":[{"expr":"etcd_db_total_size_in_bytes{job=~\"$job\"}"},{"expr":"rate(up[$__rate_interval])"}]}]}"#
        )
        let unit = try directory.write(
            "kubelet.service",
            "ExecStart=/usr/bin/kubelet --pod-infra-container-image=a --container-runtime=remote \\\n  --feature-gates=CPUManager=true,Mine=false\n"
        )
        let config = try directory.write(
            "kubelet.yaml", "kind: KubeletConfiguration\nfeatureGates:\n  SeccompDefault: true\n")
        let audit = try directory.write(
            "audit.log",
            #"{"kind":"Event","stage":"ResponseComplete","requestURI":"/apis/autoscaling/v2beta2/x","verb":"list","user":{"username":"u"},"userAgent":"old/1","objectRef":{"resource":"horizontalpodautoscalers","apiGroup":"autoscaling","apiVersion":"v2beta2"},"responseStatus":{"code":200},"requestReceivedTimestamp":"2026-11-23T16:17:56.265844Z"}"#
                + "\n")
        let json = try plan(
            "--from", "1.25", "--to", "1.33", "--rules", rules, dashboard, "--flags", unit, "--config-file", config,
            "--audit-log", audit, "--format", "json")
        let plan = try #require(try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
        #expect(plan["schema"] as? String == "upgrade-watch/plan/v1")
        let changes = (plan["query_changes"] as? [[String: String]] ?? []).map {
            "\($0["name"] ?? ""): \($0["metric"] ?? "")"
        }
        #expect(
            changes == [
                "Slow: apiserver_request_slo_duration_seconds_bucket", "Database: etcd_db_total_size_in_bytes",
            ])
        let options = (plan["option_removals"] as? [[String: String]] ?? [])
            .map { "\($0["component"] ?? "") \($0["option"] ?? "") \($0["removed_in"] ?? "")" }
        #expect(
            options == [
                "kubelet --container-runtime 1.27", "kubelet feature gate CPUManager 1.33",
                "kubelet feature gate SeccompDefault 1.29",
            ])
        let clients = plan["clients"] as? [[String: Any]] ?? []
        #expect(clients.compactMap { $0["client"] as? String } == ["old/1"])
        #expect(clients.first?["group_version"] as? String == "autoscaling/v2beta2")
    }

    @Test func flags_belongToTheComponentTheyStandBehind() throws {
        let text = try directory.write(
            "ps.txt",
            """
            # kube-apiserver of the old days
            /usr/bin/kube-controller-manager --port=0 --pod-eviction-timeout=5m
            /usr/bin/kubelet --container-runtime=remote --feature-gates="CSIMigration=true,Mine=true"
            """)
        let manifest = try directory.write(
            "m.yaml",
            "spec:\n  containers:\n  - command:\n    - kube-apiserver\n    - --feature-gates\n    - CSIMigration=true\n"
        )
        let out = try plan("--from", "1.22", "--to", "1.31", "--flags", text, manifest)
        for words in [
            "ps.txt: kube-controller-manager: --pod-eviction-timeout is gone since 1.27",
            "ps.txt: kubelet: --container-runtime is gone since 1.27", "ps.txt: kubelet: feature gate CSIMigration",
            "m.yaml: kube-apiserver: feature gate CSIMigration",
        ] {
            #expect(out.contains(words), "\(words)")
        }
        #expect(!out.contains("kube-apiserver: --"))
        #expect(out.contains("Which of your rules and dashboards go silent is not known"))
        #expect(try Binary.run(["plan", "--from", "1.5", "--to", "1.20"], in: directory).code == 64)
    }

    @Test func wrongInput_isTold() throws {
        #expect(try Binary.run(["plan", "--from", "x", "--to", "1.2"], in: directory).code == 64)
        #expect(try Binary.run(["plan", "--from", "1.25.1", "--to", "1.25.1"], in: directory).code == 64)
        let none = try Binary.run(
            ["plan", "--from", "1.25", "--to", "1.26", "--flags", directory.path + "/none"], in: directory)
        #expect(none.code == 65 && none.errors == "upgrade-watch: \(directory.path)/none: can't be read\n")
        let bad = try directory.write("bad.json", "{")
        #expect(try Binary.run(["plan", "--from", "1.25", "--to", "1.26", "--rules", bad], in: directory).code == 65)
    }
}
