import Cluster
import Discovery
import Foundation
import Scrape
import Series
import TestSupport
import Testing

/// How targets follow the objects.
@Suite struct KubernetesDiscoveryTests {
    private func event(_ type: String, _ object: String) -> String { "{\"type\":\"\(type)\",\"object\":\(object)}" }

    private func pod(_ name: String, ip: String, port: Int, node: String = "node-1") -> String {
        """
        {"metadata":{"name":"\(name)","namespace":"default","resourceVersion":"101"},"spec":{"nodeName":"\(node)",\
        "containers":[{"name":"c","ports":[{"containerPort":\(port)}]}]},"status":{"podIP":"\(ip)","phase":"Running"}}
        """
    }

    @Test func targets_followTheObjects() async {
        let cluster = FakeCluster()
        let told = Told()
        let task = cluster.discover(KubernetesDiscovery(role: .pod), told)
        defer { task.cancel() }
        await told.wait { !$0.updates.isEmpty }
        #expect(told.updates.first?.isWhole == true)
        #expect(told.groups.count == 3)
        cluster.box.push("pods", event("ADDED", pod("new", ip: "10.1.0.9", port: 1)))
        await told.wait { $0.groups["pod/default/new"] != nil }
        #expect(told.groups["pod/default/new"]?.first?["__address__"] == "10.1.0.9:1")
        // What nobody sees of an object is no change.
        cluster.box.push("pods", event("MODIFIED", pod("new", ip: "10.1.0.9", port: 1)))
        cluster.box.push("pods", event("MODIFIED", pod("new", ip: "10.1.0.9", port: 2)))
        await told.wait { $0.groups["pod/default/new"]?.first?["__address__"] == "10.1.0.9:2" }
        cluster.box.push("pods", event("DELETED", pod("new", ip: "10.1.0.9", port: 2)))
        await told.wait { $0.groups["pod/default/new"] == nil }
        let changes = told.updates.dropFirst()
        #expect(changes.map(\.sources) == [["pod/default/new"], ["pod/default/new"], ["pod/default/new"]])
        #expect(changes.allSatisfy { !$0.isWhole })
    }

    /// A list after a gap: what is not in it is gone, though no watch told.
    @Test func targets_thatALaterListDoesNotHave_areGone() async {
        let cluster = FakeCluster()
        let told = Told()
        let task = cluster.discover(KubernetesDiscovery(role: .pod), told)
        defer { task.cancel() }
        await told.wait { !$0.updates.isEmpty }
        cluster.box.replace(
            "pods",
            "{\"metadata\":{\"resourceVersion\":\"200\"},\"items\":[\(pod("new", ip: "10.1.0.9", port: 1))]}")
        cluster.box.push("pods", "{\"type\":\"ERROR\",\"object\":{\"code\":410,\"message\":\"too old\"}}")
        await told.wait { Array($0.groups.keys) == ["pod/default/new"] }
        #expect(Array(told.groups.keys) == ["pod/default/new"])
    }

    @Test func endpoints_followTheirPodsServicesAndNodes() async {
        let cluster = FakeCluster()
        let told = Told()
        var discovery = KubernetesDiscovery(role: .endpoints)
        discovery.attachesNode = true
        let task = cluster.discover(discovery, told)
        defer { task.cancel() }
        await told.wait { !$0.updates.isEmpty }
        let meta = "__meta_kubernetes_"
        func first(_ told: Told, _ name: String) -> String? {
            told.groups["endpoints/default/web"]?.first?[meta + name]
        }
        cluster.box.push("pods", event("MODIFIED", pod("web-0", ip: "10.1.0.5", port: 8080)))
        await told.wait { first($0, "pod_container_name") == "c" }
        #expect(first(told, "pod_container_name") == "c")
        cluster.box.push(
            "services",
            event("MODIFIED", #"{"metadata":{"name":"web","namespace":"default","labels":{"app":"other"}},"spec":{}}"#))
        await told.wait { first($0, "service_label_app") == "other" }
        #expect(first(told, "service_label_app") == "other")
        cluster.box.push(
            "nodes", event("MODIFIED", #"{"metadata":{"name":"node-1","labels":{"pool":"green"}},"spec":{}}"#))
        await told.wait { first($0, "node_label_pool") == "green" }
        #expect(first(told, "node_label_pool") == "green")
        cluster.box.push(
            "services", event("DELETED", #"{"metadata":{"name":"web","namespace":"default"},"spec":{}}"#))
        await told.wait { first($0, "service_label_app") == nil }
        #expect(first(told, "service_name") == nil)
    }

    /// Namespaces and selectors are asked of the server.
    @Test func requests_nameNamespacesAndSelectors() async {
        let cluster = FakeCluster()
        let told = Told()
        var discovery = KubernetesDiscovery(role: .pod)
        discovery.namespaces = ["a", "b"]
        var selector = KubernetesDiscovery.Selector(role: .pod)
        selector.label = "app in (x, y)"
        selector.field = "spec.nodeName=node-1"
        discovery.selectors = [selector]
        let task = cluster.discover(discovery, told)
        defer { task.cancel() }
        await told.wait { !$0.updates.isEmpty }
        let selectors = "labelSelector=app%20in%20(x,%20y)&fieldSelector=spec.nodeName%3Dnode-1"
        for namespace in ["a", "b"] {
            #expect(
                cluster.server.heads.contains {
                    $0.hasPrefix("GET /api/v1/namespaces/\(namespace)/pods?limit=500&\(selectors) ")
                }, "\(cluster.server.heads)")
        }
    }
}
