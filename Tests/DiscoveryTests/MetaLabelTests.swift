import Cluster
import Discovery
import Fetch
import Foundation
import Logging
import Scrape
import Series
import Synchronization
import TestSupport
import Testing

/// What a discovery told, and the groups that are there after it.
final class Told: Sendable {
    private struct State {
        var groups: [String: [Labels]] = [:]
        var updates: [(sources: [String], isWhole: Bool)] = []
    }

    private let state = Mutex(State())

    var take: DiscoveryContext.Found {
        { @Sendable [self] groups, isWhole in
            state.withLock { state in
                if isWhole { state.groups = [:] }
                for group in groups {
                    state.groups[group.source] = group.targets.isEmpty ? nil : group.targets
                }
                state.updates.append((groups.map(\.source).sorted(), isWhole))
            }
        }
    }

    var groups: [String: [Labels]] { state.withLock { $0.groups } }
    var updates: [(sources: [String], isWhole: Bool)] { state.withLock { $0.updates } }

    /// Waits until something holds, for at most ten seconds.
    func wait(until done: (Told) -> Bool) async {
        for _ in 0..<2000 where !done(self) { try? await Task.sleep(for: .milliseconds(5)) }
    }
}

/// A clock that leaps to the time that is waited for, where it is asked to.
final class StepClock: TimeSource {
    private let now = Mutex<Int64>(1_000_000)
    var nowMs: Int64 { now.withLock { $0 } }

    func sleep(untilMs: Int64) async throws {
        // The real time that this takes is no part of what is tested.
        try await Task.sleep(for: .milliseconds(2))
        now.withLock { $0 = max($0, untilMs) }
    }
}

func context(
    _ clock: any TimeSource = StepClock(), endpoint: KubernetesEndpoint? = nil, board: DiscoveryBoard = DiscoveryBoard()
)
    -> DiscoveryContext
{
    DiscoveryContext(
        client: HTTPClient(), time: clock, logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }),
        board: board,
        cluster: {
            guard let endpoint else { throw KubernetesConfigError(file: "test", reason: "no cluster") }
            return endpoint
        })
}

/// An API server with the objects of `Fixtures/cluster`, whose watches bring what a test pushes.
final class FakeCluster: Sendable {
    private let pushed = Mutex<[String: [String]]>([:])
    let server: RawServer

    init() {
        let box = Box()
        self.box = box
        server = RawServer { head, connection in
            let target = head.split(separator: " ")[1].split(separator: "?", maxSplits: 1)
            let name = target[0].split(separator: "/").last.map(String.init) ?? ""
            guard target.count == 2, target[1].contains("watch=1") else {
                guard let body = FileManager.default.contents(atPath: Shared.fixture("cluster/\(name).json")) else {
                    return connection.answer("{}", status: "404 Not Found")
                }
                return connection.answer(
                    box.replaced(name) ?? String(decoding: body, as: UTF8.self),
                    headers: "Content-Type: application/json\r\n")
            }
            connection.write(
                Array(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".utf8))
            var sent = 0
            // Until the other side goes away, or the test ends.
            for _ in 0..<4000 {
                let lines = box.lines(name)
                for line in lines.dropFirst(sent) {
                    let bytes = line.utf8.count + 1
                    guard connection.write(Array("\(String(bytes, radix: 16))\r\n\(line)\n\r\n".utf8)) else { return }
                }
                sent = lines.count
                Thread.sleep(forTimeInterval: 0.005)
                if box.isOver { return }
            }
        }
    }

    final class Box: Sendable {
        private let state = Mutex((lines: [String: [String]](), lists: [String: String](), isOver: false))
        func lines(_ kind: String) -> [String] { state.withLock { $0.lines[kind] ?? [] } }
        func push(_ kind: String, _ line: String) { state.withLock { $0.lines[kind, default: []].append(line) } }
        func replaced(_ kind: String) -> String? { state.withLock { $0.lists[kind] } }
        func replace(_ kind: String, _ list: String) { state.withLock { $0.lists[kind] = list } }
        func end() { state.withLock { $0.isOver = true } }
        var isOver: Bool { state.withLock { $0.isOver } }
    }

    let box: Box

    deinit { box.end() }

    func discover(_ discovery: KubernetesDiscovery, _ told: Told) -> Task<Void, Never> {
        let context = context(endpoint: KubernetesEndpoint(server: server.url))
        return Task { await Discovery.kubernetes(discovery).run(context, found: told.take) }
    }
}

/// The labels that each role gives its targets.
@Suite struct MetaLabelTests {
    /// The targets of a role, each as its address and its labels without their common prefix.
    private func targets(_ role: KubernetesDiscovery.Role, node: Bool = false, namespace: Bool = false) async
        -> [String: [Labels]]
    {
        let cluster = FakeCluster()
        let told = Told()
        var discovery = KubernetesDiscovery(role: role)
        discovery.attachesNode = node
        discovery.attachesNamespace = namespace
        let task = cluster.discover(discovery, told)
        await told.wait { !$0.updates.isEmpty }
        task.cancel()
        return told.groups.mapValues { $0.map(short) }
    }

    private func short(_ labels: Labels) -> Labels {
        Labels(
            labels.pairs.map {
                Label(
                    $0.name.hasPrefix("__meta_kubernetes_") ? String($0.name.dropFirst(18)) : $0.name, $0.value)
            })
    }

    @Test func node_isTheKubeletsAddress() async {
        let found = await targets(.node)
        #expect(
            found["node/node-1"] == [
                [
                    "__address__": "10.0.0.1:10250", "instance": "node-1", "node_name": "node-1",
                    "node_provider_id": "kind://node-1", "node_label_kubernetes_io_hostname": "node-1",
                    "node_labelpresent_kubernetes_io_hostname": "true", "node_label_topology_kubernetes_io_zone": "a",
                    "node_labelpresent_topology_kubernetes_io_zone": "true", "node_label_pool": "blue",
                    "node_labelpresent_pool": "true", "node_annotation_node_alpha_kubernetes_io_ttl": "0",
                    "node_annotationpresent_node_alpha_kubernetes_io_ttl": "true", "node_address_Hostname": "node-1",
                    "node_address_ExternalIP": "192.0.2.1", "node_address_InternalIP": "10.0.0.1",
                ]
            ])
        #expect(found["node/node-2"]?.first?["__address__"] == "[fd00::2]:10250")
        #expect(found.count == 2)
    }

    @Test func pod_isATargetForEachPort_andOneForEachContainerWithoutPorts() async {
        let found = await targets(.pod, node: true, namespace: true)
        let web = found["pod/default/web-0"] ?? []
        #expect(
            web.compactMap { $0["__address__"] } == [
                "10.1.0.5:8080", "10.1.0.5:9090", "10.1.0.5:5353", "10.1.0.5", "10.1.0.5",
            ])
        let common: Labels = [
            "namespace": "default", "pod_name": "web-0", "pod_ip": "10.1.0.5", "pod_host_ip": "10.0.0.1",
            "pod_ready": "true", "pod_phase": "Running", "pod_node_name": "node-1", "pod_uid": "p0",
            "pod_controller_kind": "StatefulSet", "pod_controller_name": "web",
            "pod_label_app_kubernetes_io_name": "web", "pod_labelpresent_app_kubernetes_io_name": "true",
            "pod_label_statefulset_kubernetes_io_pod_name": "web-0",
            "pod_labelpresent_statefulset_kubernetes_io_pod_name": "true",
            "pod_annotation_prometheus_io_scrape": "true", "pod_annotationpresent_prometheus_io_scrape": "true",
            "node_name": "node-1", "node_label_kubernetes_io_hostname": "node-1",
            "node_labelpresent_kubernetes_io_hostname": "true", "node_label_topology_kubernetes_io_zone": "a",
            "node_labelpresent_topology_kubernetes_io_zone": "true", "node_label_pool": "blue",
            "node_labelpresent_pool": "true", "namespace_label_team": "core", "namespace_labelpresent_team": "true",
            "namespace_label_kubernetes_io_metadata_name": "default",
            "namespace_labelpresent_kubernetes_io_metadata_name": "true", "namespace_annotation_owner": "x",
            "namespace_annotationpresent_owner": "true",
        ]
        #expect(
            web.first
                == common.merging([
                    "__address__": "10.1.0.5:8080", "pod_container_name": "web", "pod_container_image": "web:1",
                    "pod_container_id": "containerd://w0", "pod_container_init": "false",
                    "pod_container_port_name": "http", "pod_container_port_number": "8080",
                    "pod_container_port_protocol": "TCP",
                ]))
        #expect(
            web.last
                == common.merging([
                    "__address__": "10.1.0.5", "pod_container_name": "init", "pod_container_image": "init:1",
                    "pod_container_id": "containerd://i0", "pod_container_init": "true",
                ]))
        #expect(found["pod/default/web-1"]?.first?["__address__"] == "[fd00:1::7]:8080")
        #expect(found["pod/default/web-1"]?.first?["pod_ready"] == "false")
        // It has no address yet.
        #expect(found["pod/default/waiting"] == nil)
        #expect(found["pod/kube-system/kube-scheduler-node-1"]?.first?["pod_ready"] == "unknown")
    }

    @Test func service_isATargetForEachPort() async {
        let found = await targets(.service)
        #expect(
            found["service/default/web"] == [
                [
                    "__address__": "web.default.svc:80", "namespace": "default", "service_name": "web",
                    "service_label_app": "web", "service_labelpresent_app": "true",
                    "service_annotation_a_b_c_d": "x y", "service_annotationpresent_a_b_c_d": "true",
                    "service_port_name": "http", "service_port_number": "80", "service_port_protocol": "TCP",
                    "service_type": "LoadBalancer", "service_cluster_ip": "10.96.0.9",
                    "service_loadbalancer_ip": "192.0.2.9",
                ],
                [
                    "__address__": "web.default.svc:53", "namespace": "default", "service_name": "web",
                    "service_label_app": "web", "service_labelpresent_app": "true",
                    "service_annotation_a_b_c_d": "x y", "service_annotationpresent_a_b_c_d": "true",
                    "service_port_name": "dns", "service_port_number": "53", "service_port_protocol": "UDP",
                    "service_type": "LoadBalancer", "service_cluster_ip": "10.96.0.9",
                    "service_loadbalancer_ip": "192.0.2.9",
                ],
            ])
        #expect(
            found["service/kube-system/elsewhere"] == [
                [
                    "__address__": "elsewhere.kube-system.svc:5432", "namespace": "kube-system",
                    "service_name": "elsewhere", "service_port_number": "5432", "service_port_protocol": "TCP",
                    "service_type": "ExternalName", "service_external_name": "db.example.com",
                ]
            ])
    }

    @Test func endpoints_haveTheLabelsOfTheirServiceAndOfTheirPods() async {
        let found = await targets(.endpoints, node: true)
        #expect(
            found["endpoints/default/kubernetes"] == [
                [
                    "__address__": "10.0.0.1:6443", "namespace": "default", "endpoints_name": "kubernetes",
                    "endpoints_label_endpointslice_kubernetes_io_skip_mirror": "true",
                    "endpoints_labelpresent_endpointslice_kubernetes_io_skip_mirror": "true",
                    "service_name": "kubernetes", "service_label_component": "apiserver",
                    "service_labelpresent_component": "true", "service_label_provider": "kubernetes",
                    "service_labelpresent_provider": "true", "endpoint_port_name": "https",
                    "endpoint_port_protocol": "TCP", "endpoint_ready": "true",
                ]
            ])
        let web = found["endpoints/default/web"] ?? []
        // Two addresses with two ports, and the pod's two ports that no endpoint has.
        #expect(
            web.compactMap { $0["__address__"] } == [
                "10.1.0.5:8080", "[fd00:1::7]:8080", "10.1.0.5:7000", "[fd00:1::7]:7000", "10.1.0.5:9090",
                "10.1.0.5:5353",
            ])
        let first = web.first ?? Labels()
        for (name, value) in [
            ("service_label_app", "web"), ("endpoint_ready", "true"), ("endpoint_hostname", "web-0"),
            ("endpoint_node_name", "node-1"), ("endpoint_address_target_kind", "Pod"),
            ("endpoint_address_target_name", "web-0"), ("pod_name", "web-0"), ("pod_container_name", "web"),
            ("pod_container_port_name", "http"), ("node_label_pool", "blue"),
        ] { #expect(first[name] == value, "\(name)") }
        #expect(web[1]["endpoint_ready"] == "false" && web[1]["pod_ready"] == "false")
        #expect(web[2]["pod_name"] == "web-0" && web[2]["pod_container_name"] == nil)
        #expect(web[4]["endpoint_ready"] == nil && web[4]["pod_container_port_name"] == "metrics")
        #expect(web[4]["service_name"] == "web" && web[4]["node_label_pool"] == "blue")
        #expect(found["endpoints/kube-system/nobody"]?.first?["__address__"] == "10.9.9.9:1234")
        #expect(found["endpoints/kube-system/nobody"]?.first?["node_label_pool"] == "blue")
    }

    @Test func endpointSlices_haveTheirConditions() async {
        let found = await targets(.endpointslice)
        let web = found["endpointslice/default/web-abc"] ?? []
        #expect(
            web.compactMap { $0["__address__"] } == [
                "10.1.0.5:8080", "10.1.0.6:8080", "10.1.0.8:8080", "10.1.0.5:9090", "10.1.0.5:5353",
            ])
        let first = web.first ?? Labels()
        for (name, value) in [
            ("namespace", "default"), ("endpointslice_name", "web-abc"), ("endpointslice_address_type", "IPv4"),
            ("endpointslice_label_kubernetes_io_service_name", "web"), ("endpointslice_annotation_x", "y"),
            ("endpointslice_annotationpresent_x", "true"), ("endpointslice_port", "8080"),
            ("endpointslice_port_name", "http"), ("endpointslice_port_protocol", "TCP"),
            ("endpointslice_port_app_protocol", "http"), ("endpointslice_endpoint_conditions_ready", "true"),
            ("endpointslice_endpoint_conditions_serving", "true"),
            ("endpointslice_endpoint_conditions_terminating", "false"),
            ("endpointslice_endpoint_hostname", "web-0"), ("endpointslice_endpoint_node_name", "node-1"),
            ("endpointslice_endpoint_zone", "a"), ("endpointslice_address_target_kind", "Pod"),
            ("endpointslice_address_target_name", "web-0"), ("service_label_app", "web"), ("pod_name", "web-0"),
        ] { #expect(first[name] == value, "\(name)") }
        #expect(web[2]["endpointslice_endpoint_conditions_ready"] == "false")
        #expect(web[2]["endpointslice_endpoint_topology_kubernetes_io_hostname"] == "node-2")
        #expect(web[2]["endpointslice_endpoint_topology_present_kubernetes_io_hostname"] == "true")
    }

    @Test func ingress_isATargetForEachPath() async {
        let found = await targets(.ingress)["ingress/default/web"] ?? []
        let rows = found.map { labels in
            ["__address__", "ingress_scheme", "ingress_path"].map { labels[$0] ?? "" }.joined(separator: " ")
        }
        #expect(rows == ["web.example.com https /api", "web.example.com https /", "plain.example.org http /"])
        #expect(found.first?["ingress_class_name"] == "nginx" && found.first?["ingress_name"] == "web")
        #expect(found.first?["ingress_label_app"] == "web" && found.first?["ingress_annotation_a_b"] == "c")
    }
}
