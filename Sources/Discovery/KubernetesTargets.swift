import Cluster
import Scrape
import Series

/// The objects of one kind that are there, as far as the watches have told.
struct ObjectCache<Object: DiscoveredObject>: Sendable {
    private(set) var objects: [String: Object] = [:]
    /// Those that each watch has seen: a list that was read to its end ends the others.
    private var seen: [WatchedKind: Set<String>] = [:]

    subscript(key: String) -> Object? { objects[key] }

    /// Takes what a watch saw.
    ///
    /// - Returns: The keys of the objects that are other ones now, or gone.
    mutating func take(_ event: ObjectEvent<Object>, of watched: WatchedKind) -> [String] {
        switch event {
        case .present(let list):
            var changed: [String] = []
            for object in list {
                seen[watched, default: []].insert(object.identity)
                // Most changes are of what nobody asks for here: heartbeats, conditions, managed fields.
                guard objects[object.identity] != object else { continue }
                objects[object.identity] = object
                changed.append(object.identity)
            }
            return changed
        case .deleted(let object): return remove([object.identity], of: watched)
        case .listed(let identities, _): return remove(seen[watched, default: []].subtracting(identities), of: watched)
        case .failed: return []
        }
    }

    private mutating func remove(_ keys: Set<String>, of watched: WatchedKind) -> [String] {
        seen[watched]?.subtract(keys)
        return keys.filter { objects.removeValue(forKey: $0) != nil }
    }
}

/// Which objects name which others, both ways.
struct NamedObjects: Sendable {
    private var named: [String: Set<String>] = [:]
    private var naming: [String: Set<String>] = [:]

    /// Those that name one.
    func naming(_ key: String) -> Set<String> { naming[key] ?? [] }

    /// Takes in whom an object names now.
    mutating func set(_ keys: Set<String>, namedBy key: String) {
        for one in named[key] ?? [] {
            naming[one]?.remove(key)
            if naming[one]?.isEmpty == true { naming[one] = nil }
        }
        named[key] = keys.isEmpty ? nil : keys
        for one in keys { naming[one, default: []].insert(key) }
    }
}

/// The target groups of a cluster's objects, kept up to date while they change: one group an object of the role.
///
/// Nothing is told before every kind was listed once: endpoints whose pods are not known yet would lack their labels.
actor KubernetesTargets {
    private let discovery: KubernetesDiscovery
    private let board: DiscoveryBoard
    private let found: DiscoveryContext.Found
    private var waiting: Set<WatchedKind>
    private var isTold = false

    private var nodes = ObjectCache<DiscoveredNode>()
    private var namespaces = ObjectCache<DiscoveredNamespace>()
    private var pods = ObjectCache<DiscoveredPod>()
    private var services = ObjectCache<DiscoveredService>()
    private var endpoints = ObjectCache<DiscoveredEndpoints>()
    private var slices = ObjectCache<DiscoveredEndpointSlice>()
    private var ingresses = ObjectCache<DiscoveredIngress>()
    /// The pods that endpoints or slices name.
    private var podsNamed = NamedObjects()
    /// The services that slices name.
    private var servicesNamed = NamedObjects()

    init(
        _ discovery: KubernetesDiscovery, watched: [WatchedKind], board: DiscoveryBoard,
        found: @escaping DiscoveryContext.Found
    ) {
        self.discovery = discovery
        self.board = board
        self.found = found
        waiting = Set(watched)
    }

    // MARK: What the watches see

    func takeNode(_ event: ObjectEvent<DiscoveredNode>, _ watched: WatchedKind) {
        // A target on a node has its labels alone.
        var relabelled: Set<String> = []
        if discovery.role != .node, case .present(let list) = event {
            relabelled = Set(list.filter { nodes[$0.identity]?.metadata.labels != $0.metadata.labels }.map(\.identity))
        }
        let changed = nodes.take(event, of: watched)
        if discovery.role == .node { return tell(changed, after: event, of: watched) }
        let names = relabelled.union(changed.filter { nodes[$0] == nil })
        tell(names.isEmpty ? [] : keys { _, node in node.map(names.contains) ?? false }, after: event, of: watched)
    }

    func takeNamespace(_ event: ObjectEvent<DiscoveredNamespace>, _ watched: WatchedKind) {
        let names = Set(namespaces.take(event, of: watched))
        let changed = names.isEmpty ? [] : keys { key, _ in names.contains(String(key.prefix { $0 != "/" })) }
        tell(changed, after: event, of: watched)
    }

    func takePod(_ event: ObjectEvent<DiscoveredPod>, _ watched: WatchedKind) {
        let changed = pods.take(event, of: watched)
        tell(discovery.role == .pod ? changed : changed.flatMap { podsNamed.naming($0) }, after: event, of: watched)
    }

    func takeService(_ event: ObjectEvent<DiscoveredService>, _ watched: WatchedKind) {
        let changed = services.take(event, of: watched)
        let keys = discovery.role == .endpointslice ? changed.flatMap { servicesNamed.naming($0) } : changed
        tell(keys, after: event, of: watched)
    }

    func takeEndpoints(_ event: ObjectEvent<DiscoveredEndpoints>, _ watched: WatchedKind) {
        let changed = endpoints.take(event, of: watched)
        for key in changed {
            note((endpoints[key]?.addresses ?? []).compactMap(\.targetRef), of: key)
        }
        tell(changed, after: event, of: watched)
    }

    func takeSlice(_ event: ObjectEvent<DiscoveredEndpointSlice>, _ watched: WatchedKind) {
        let changed = slices.take(event, of: watched)
        for key in changed {
            note((slices[key]?.endpoints ?? []).compactMap(\.targetRef), of: key)
            servicesNamed.set(Set([slices[key]?.serviceKey].compactMap { $0 }), namedBy: key)
        }
        tell(changed, after: event, of: watched)
    }

    func takeIngress(_ event: ObjectEvent<DiscoveredIngress>, _ watched: WatchedKind) {
        tell(ingresses.take(event, of: watched), after: event, of: watched)
    }

    private func note(_ references: [DiscoveredReference], of key: String) {
        podsNamed.set(Set(references.compactMap(KubernetesTargets.podKey)), namedBy: key)
    }

    private static func podKey(_ reference: DiscoveredReference) -> String? {
        guard reference.kind == "Pod", let name = reference.name else { return nil }
        return "\(reference.namespace ?? "")/\(name)"
    }

    // MARK: What is told

    private func tell<Object: APIObject>(_ keys: [String], after event: ObjectEvent<Object>, of watched: WatchedKind) {
        switch event {
        case .listed: waiting.remove(watched)
        case .failed: board.countFailure("kubernetes")
        case .present, .deleted: break
        }
        guard waiting.isEmpty else { return }
        if !isTold {
            isTold = true
            found(self.keys { _, _ in true }.map(group), true)
            board.countUpdate("kubernetes")
        } else if !keys.isEmpty {
            found(Set(keys).map(group), false)
            board.countUpdate("kubernetes")
        }
    }

    /// The objects of the role for which a test by key and, for pods, the node's name holds.
    private func keys(where isWanted: (String, String?) -> Bool) -> [String] {
        switch discovery.role {
        case .node: nodes.objects.keys.filter { isWanted($0, $0) }
        case .pod: pods.objects.filter { isWanted($0.key, $0.value.spec?.nodeName) }.map(\.key)
        case .service: services.objects.keys.filter { isWanted($0, nil) }
        case .endpoints:
            endpoints.objects.filter { key, value in
                isWanted(key, nil)
                    || value.addresses.contains { isWanted(key, nodeName($0.targetRef, $0.nodeName)) }
            }.map(\.key)
        case .endpointslice:
            slices.objects.filter { key, value in
                isWanted(key, nil)
                    || (value.endpoints ?? []).contains { isWanted(key, nodeName($0.targetRef, $0.nodeName)) }
            }.map(\.key)
        case .ingress: ingresses.objects.keys.filter { isWanted($0, nil) }
        }
    }

    private func nodeName(_ reference: DiscoveredReference?, _ own: String?) -> String? {
        reference.flatMap(KubernetesTargets.podKey).flatMap { pods[$0]?.spec?.nodeName } ?? own
    }

    /// The group of an object; without targets where it is gone.
    private func group(_ key: String) -> TargetGroup {
        TargetGroup(source: "\(discovery.role.rawValue)/\(key)", targets: targets(key))
    }

    private func targets(_ key: String) -> [Labels] {
        let attached =
            discovery.attachesNamespace
            ? namespaces[String(key.prefix { $0 != "/" })]?.attached ?? MetaLabels() : MetaLabels()
        let node = { [nodes, discovery] (name: String?) -> MetaLabels in
            discovery.attachesNode ? name.flatMap { nodes[$0]?.attached } ?? MetaLabels() : MetaLabels()
        }
        let pod = { [pods] (reference: DiscoveredReference) in KubernetesTargets.podKey(reference).flatMap { pods[$0] }
        }
        switch discovery.role {
        case .node: return nodes[key]?.targets() ?? []
        case .pod:
            guard let object = pods[key] else { return [] }
            var common = attached
            common.merge(node(object.spec?.nodeName))
            return object.targets(common)
        case .service: return services[key]?.targets(attached) ?? []
        case .endpoints:
            guard let object = endpoints[key] else { return [] }
            var common = attached
            if let service = services[key] { common.merge(service.meta) }
            return object.targets(common, EndpointTargets(pod: pod, node: node))
        case .endpointslice:
            guard let object = slices[key] else { return [] }
            var common = attached
            if let service = object.serviceKey.flatMap({ services[$0] }) { common.merge(service.meta) }
            return object.targets(common, EndpointTargets(pod: pod, node: node))
        case .ingress: return ingresses[key]?.targets(attached) ?? []
        }
    }
}
