import Series

/// The labels of discovered objects, by the names that Prometheus gives them (prometheus.io, configuration,
/// `kubernetes_sd_config`), and the targets that each role makes of its objects.
///
/// An endpoint's or a pod's address is an IP address; one of IPv6 stands in brackets where a port follows.
struct MetaLabels {
    private static let prefix = "__meta_kubernetes_"
    private(set) var values: [String: String] = [:]

    init() {}

    var labels: Labels { Labels(values) }

    subscript(name: String) -> String? {
        get { values[MetaLabels.prefix + name] }
        set { values[MetaLabels.prefix + name] = newValue }
    }

    /// `__address__`.
    mutating func setAddress(_ host: String, port: Int? = nil) {
        values["__address__"] = port.map { "\(host.contains(":") ? "[\(host)]" : host):\($0)" } ?? host
    }

    /// A label of the target itself.
    mutating func set(_ name: String, _ value: String) { values[name] = value }

    mutating func merge(_ other: MetaLabels) { values.merge(other.values) { $1 } }

    /// The name, the labels and the annotations of an object, and its namespace.
    mutating func add(_ metadata: DiscoveredMetadata, as role: String) {
        if let namespace = metadata.namespace { self["namespace"] = namespace }
        self["\(role)_name"] = metadata.name
        add(metadata.labels, as: "\(role)_label")
        add(metadata.annotations, as: "\(role)_annotation")
    }

    private mutating func add(_ map: [String: String]?, as kind: String) {
        for (name, value) in map ?? [:] {
            let name = MetaLabels.sanitized(name)
            self["\(kind)_\(name)"] = value
            self["\(kind)present_\(name)"] = "true"
        }
    }

    /// A name with an underscore for each byte that a label's name can't have.
    static func sanitized(_ name: String) -> String {
        String(
            decoding: name.utf8.map { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"):
                    byte
                default: UInt8(ascii: "_")
                }
            }, as: UTF8.self)
    }
}

// MARK: Nodes

extension DiscoveredNode {
    /// One target: the kubelet.
    func targets() -> [Labels] {
        var meta = MetaLabels()
        meta.add(metadata, as: "node")
        meta["node_provider_id"] = spec?.providerID
        let addresses = status?.addresses ?? []
        for address in addresses.reversed() {
            meta["node_address_\(MetaLabels.sanitized(address.type))"] = address.address
        }
        let order = ["InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "LegacyHostIP", "Hostname"]
        guard let address = order.lazy.compactMap({ type in addresses.first { $0.type == type } }).first else {
            return []
        }
        meta.setAddress(address.address, port: status?.daemonEndpoints?.kubeletEndpoint?.port ?? 0)
        meta.set("instance", metadata.name)
        return [meta.labels]
    }

    /// What a target on the node gets of it, where `attach_metadata` asks for it.
    var attached: MetaLabels {
        var meta = MetaLabels()
        meta.add(DiscoveredMetadata(name: metadata.name, labels: metadata.labels), as: "node")
        return meta
    }
}

extension DiscoveredNamespace {
    /// What a target in the namespace gets of it, where `attach_metadata` asks for it.
    var attached: MetaLabels {
        var meta = MetaLabels()
        meta.add(
            DiscoveredMetadata(name: metadata.name, labels: metadata.labels, annotations: metadata.annotations),
            as: "namespace")
        meta["namespace_name"] = nil
        return meta
    }
}

// MARK: Pods

extension DiscoveredPod {
    /// What all targets of the pod have.
    var meta: MetaLabels {
        var meta = MetaLabels()
        meta.add(metadata, as: "pod")
        let ready = status?.conditions?.first { $0.type == "Ready" }?.status ?? "Unknown"
        meta["pod_ip"] = status?.podIP
        meta["pod_ready"] = ready.lowercased()
        meta["pod_phase"] = status?.phase
        meta["pod_node_name"] = spec?.nodeName
        meta["pod_host_ip"] = status?.hostIP
        meta["pod_uid"] = metadata.uid
        if let owner = metadata.ownerReferences?.first(where: { $0.controller == true }) {
            meta["pod_controller_kind"] = owner.kind
            meta["pod_controller_name"] = owner.name
        }
        return meta
    }

    /// A target for each port of each container, and one without a port for each container that has none.
    func targets(_ attached: MetaLabels) -> [Labels] {
        // A pod without an address does not run yet.
        guard let ip = status?.podIP, !ip.isEmpty else { return [] }
        var common = meta
        common.merge(attached)
        var targets: [Labels] = []
        for (containers, statuses, isInit) in [
            (spec?.containers, status?.containerStatuses, false),
            (spec?.initContainers, status?.initContainerStatuses, true),
        ] {
            for container in containers ?? [] {
                var target = common
                target["pod_container_id"] = statuses?.first { $0.name == container.name }?.containerID
                target["pod_container_init"] = isInit ? "true" : "false"
                guard let ports = container.ports, !ports.isEmpty else {
                    target.setAddress(ip)
                    target.add(container, port: nil)
                    targets.append(target.labels)
                    continue
                }
                for port in ports {
                    var target = target
                    target.setAddress(ip, port: port.containerPort)
                    target.add(container, port: port)
                    targets.append(target.labels)
                }
            }
        }
        return targets
    }
}

extension MetaLabels {
    /// Adds a container, and the port of it that the target is at.
    mutating func add(_ container: DiscoveredPod.Container, port: DiscoveredPod.Port?) {
        self["pod_container_name"] = container.name
        self["pod_container_image"] = container.image
        guard let port else { return }
        self["pod_container_port_number"] = String(port.containerPort)
        self["pod_container_port_name"] = port.name
        self["pod_container_port_protocol"] = port.protocol ?? "TCP"
    }
}

// MARK: Services

extension DiscoveredService {
    /// What targets behind the service get of it.
    var meta: MetaLabels {
        var meta = MetaLabels()
        meta.add(metadata, as: "service")
        return meta
    }

    /// A target for each port, by the service's name in the cluster's DNS.
    func targets(_ attached: MetaLabels) -> [Labels] {
        (spec?.ports ?? []).map { port in
            var meta = meta
            meta.merge(attached)
            meta.setAddress("\(metadata.name).\(metadata.namespace ?? "").svc", port: port.port)
            meta["service_port_name"] = port.name
            meta["service_port_number"] = String(port.port)
            meta["service_port_protocol"] = port.protocol ?? "TCP"
            let type = spec?.type ?? "ClusterIP"
            meta["service_type"] = type
            if type == "ExternalName" {
                meta["service_external_name"] = spec?.externalName
            } else {
                meta["service_cluster_ip"] = spec?.clusterIP
            }
            if type == "LoadBalancer" { meta["service_loadbalancer_ip"] = spec?.loadBalancerIP }
            return meta.labels
        }
    }
}

// MARK: Endpoints

/// The targets at the addresses of endpoints, and at the further ports of the pods behind them.
struct EndpointTargets {
    /// The pod that a reference names.
    let pod: (DiscoveredReference) -> DiscoveredPod?
    /// What a target on a node gets of it.
    let node: (String?) -> MetaLabels
    private var targets: [Labels] = []
    private var seen: [String: (pod: DiscoveredPod, ports: Set<Int>)] = [:]
    private var order: [String] = []

    init(pod: @escaping (DiscoveredReference) -> DiscoveredPod?, node: @escaping (String?) -> MetaLabels) {
        self.pod = pod
        self.node = node
    }

    /// Adds the target at an address and a port, with what it gets of its node and its pod.
    mutating func append(_ target: MetaLabels, port: Int?, of reference: DiscoveredReference?, on nodeName: String?) {
        var target = target
        let behind = reference.flatMap(pod)
        target.merge(node(behind?.spec?.nodeName ?? nodeName))
        if let behind { add(behind, port: port, to: &target) }
        targets.append(target.labels)
    }

    private mutating func add(_ pod: DiscoveredPod, port: Int?, to target: inout MetaLabels) {
        let key = pod.metadata.key
        if seen[key] == nil {
            seen[key] = (pod, [])
            order.append(key)
        }
        target.merge(pod.meta)
        guard let port else { return }
        seen[key]?.ports.insert(port)
        for container in pod.spec?.containers ?? [] {
            guard let own = container.ports?.first(where: { $0.containerPort == port }) else { continue }
            target.add(container, port: own)
            return
        }
    }

    /// All targets, with those of the containers' ports that no endpoint has.
    func all(_ common: MetaLabels) -> [Labels] {
        targets
            + order.flatMap { key -> [Labels] in
                guard let (pod, ports) = seen[key], let ip = pod.status?.podIP, !ip.isEmpty else { return [] }
                var onPod = common
                onPod.merge(pod.meta)
                onPod.merge(node(pod.spec?.nodeName))
                return (pod.spec?.containers ?? []).flatMap { container in
                    (container.ports ?? []).filter { !ports.contains($0.containerPort) }.map { port in
                        var target = onPod
                        target.setAddress(ip, port: port.containerPort)
                        target.add(container, port: port)
                        return target.labels
                    }
                }
            }
    }
}

extension DiscoveredEndpoints {
    /// A target for each address and port, and for each further port of the pods behind them.
    ///
    /// - Parameters:
    ///   - common: what all get: of the service, and of the namespace where it is asked for.
    ///   - targets: none yet.
    func targets(_ common: MetaLabels, _ targets: EndpointTargets) -> [Labels] {
        var (common, targets) = (common, targets)
        common.add(metadata, as: "endpoints")
        for subset in subsets ?? [] {
            for port in subset.ports ?? [] {
                for (addresses, ready) in [(subset.addresses, "true"), (subset.notReadyAddresses, "false")] {
                    for address in addresses ?? [] {
                        var target = common
                        target.setAddress(address.ip, port: port.port)
                        target["endpoint_port_name"] = port.name
                        target["endpoint_port_protocol"] = port.protocol ?? "TCP"
                        target["endpoint_ready"] = ready
                        target["endpoint_address_target_kind"] = address.targetRef?.kind
                        target["endpoint_address_target_name"] = address.targetRef?.name
                        target["endpoint_node_name"] = address.nodeName
                        target["endpoint_hostname"] = address.hostname
                        targets.append(target, port: port.port, of: address.targetRef, on: address.nodeName)
                    }
                }
            }
        }
        return targets.all(common)
    }
}

extension DiscoveredEndpointSlice {
    /// The service's name, by which its slices are found.
    var serviceKey: String? {
        metadata.labels?["kubernetes.io/service-name"].map { "\(metadata.namespace ?? "")/\($0)" }
    }

    /// As ``DiscoveredEndpoints/targets(_:_:)``.
    func targets(_ common: MetaLabels, _ targets: EndpointTargets) -> [Labels] {
        var (common, targets) = (common, targets)
        common.add(metadata, as: "endpointslice")
        common["endpointslice_address_type"] = addressType
        for port in ports ?? [] {
            for endpoint in endpoints ?? [] {
                for address in endpoint.addresses ?? [] {
                    var target = common
                    target.setAddress(address, port: port.port)
                    target["endpointslice_port_name"] = port.name
                    target["endpointslice_port_protocol"] = port.protocol ?? "TCP"
                    target["endpointslice_port"] = port.port.map(String.init)
                    target["endpointslice_port_app_protocol"] = port.appProtocol
                    target.addEndpoint(endpoint)
                    targets.append(target, port: port.port, of: endpoint.targetRef, on: endpoint.nodeName)
                }
            }
        }
        return targets.all(common)
    }
}

extension MetaLabels {
    fileprivate mutating func addEndpoint(_ endpoint: DiscoveredEndpointSlice.Endpoint) {
        let conditions = endpoint.conditions
        self["endpointslice_endpoint_conditions_ready"] = conditions?.ready.map { "\($0)" }
        self["endpointslice_endpoint_conditions_serving"] = conditions?.serving.map { "\($0)" }
        self["endpointslice_endpoint_conditions_terminating"] = conditions?.terminating.map { "\($0)" }
        self["endpointslice_endpoint_hostname"] = endpoint.hostname
        self["endpointslice_endpoint_node_name"] = endpoint.nodeName
        self["endpointslice_endpoint_zone"] = endpoint.zone
        self["endpointslice_address_target_kind"] = endpoint.targetRef?.kind
        self["endpointslice_address_target_name"] = endpoint.targetRef?.name
        for (name, value) in endpoint.deprecatedTopology ?? [:] {
            let name = MetaLabels.sanitized(name)
            self["endpointslice_endpoint_topology_\(name)"] = value
            self["endpointslice_endpoint_topology_present_\(name)"] = "true"
        }
    }
}

// MARK: Ingresses

extension DiscoveredIngress {
    /// A target for each path of each host.
    func targets(_ attached: MetaLabels) -> [Labels] {
        var common = attached
        common.add(metadata, as: "ingress")
        common["ingress_class_name"] = spec?.ingressClassName
        let secured = (spec?.tls ?? []).flatMap { $0.hosts ?? [] }
        return (spec?.rules ?? []).flatMap { rule in
            let host = rule.host ?? ""
            let isSecured = secured.contains { DiscoveredIngress.fits(host, $0) }
            let paths = (rule.http?.paths ?? []).map { $0.path ?? "" }.map { $0.isEmpty ? "/" : $0 }
            return (paths.isEmpty ? ["/"] : paths).map { path in
                var target = common
                target.setAddress(host)
                target["ingress_scheme"] = isSecured ? "https" : "http"
                target["ingress_host"] = host
                target["ingress_path"] = path
                return target.labels
            }
        }
    }

    /// Whether a host is one of a pattern, whose first part may be a `*`.
    private static func fits(_ host: String, _ pattern: String) -> Bool {
        if pattern == host { return true }
        guard pattern.hasPrefix("*.") else { return false }
        let parts = host.split(separator: ".", maxSplits: 1)
        return parts.count == 2 && parts[1] == pattern.dropFirst(2)
    }
}
