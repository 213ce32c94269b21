import Cluster
import Fetch
import Foundation
import Logging
import Scrape
import Series

/// Targets from the objects of a cluster (`kubernetes_sd_configs`).
package struct KubernetesDiscovery: Sendable {
    package enum Role: String, Sendable, CaseIterable {
        case node, pod, service, endpoints, endpointslice, ingress
    }

    /// Where the API is.
    package enum Connection: Sendable {
        /// What the configuration's `kubernetes` says, or else the process' own cluster.
        case configured
        case kubeconfig(path: String)
        case server(KubernetesEndpoint)
    }

    /// Which objects of a role are asked for.
    package struct Selector: Sendable, Equatable {
        package var role: Role
        package var label = ""
        package var field = ""

        package init(role: Role) { self.role = role }
    }

    package var role: Role
    package var connection = Connection.configured
    /// Empty: all.
    package var namespaces: [String] = []
    package var selectors: [Selector] = []
    /// Whether targets get the labels of their node, or of their namespace.
    package var attachesNode = false
    package var attachesNamespace = false

    package init(role: Role) { self.role = role }

    /// The namespace that the process runs in; nil outside of a cluster.
    package static func ownNamespace(root: String = "") -> String? {
        let path = root + "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
        return FileManager.default.contents(atPath: path).map {
            String(decoding: $0, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        }
    }

    /// What stands at which path of the API.
    private enum Kind: CaseIterable {
        case nodes, namespaces, pods, services, endpoints, slices, ingresses

        var group: String {
            switch self {
            case .nodes, .namespaces, .pods, .services, .endpoints: "/api/v1"
            case .slices: "/apis/discovery.k8s.io/v1"
            case .ingresses: "/apis/networking.k8s.io/v1"
            }
        }

        var resource: String {
            switch self {
            case .nodes: "nodes"
            case .namespaces: "namespaces"
            case .pods: "pods"
            case .services: "services"
            case .endpoints: "endpoints"
            case .slices: "endpointslices"
            case .ingresses: "ingresses"
            }
        }

        var role: Role? {
            switch self {
            case .nodes: .node
            case .namespaces: nil
            case .pods: .pod
            case .services: .service
            case .endpoints: .endpoints
            case .slices: .endpointslice
            case .ingresses: .ingress
            }
        }

        var isNamespaced: Bool { self != .nodes && self != .namespaces }
    }

    private var kinds: [Kind] {
        var kinds: [Kind] =
            switch role {
            case .node: [.nodes]
            case .pod: [.pods]
            case .service: [.services]
            case .endpoints: [.services, .pods, .endpoints]
            case .endpointslice: [.services, .pods, .slices]
            case .ingress: [.ingresses]
            }
        if attachesNode, role != .node { kinds.append(.nodes) }
        if attachesNamespace, role != .node { kinds.append(.namespaces) }
        return kinds
    }

    /// What is watched: each kind in each namespace.
    private func watched(_ kind: Kind) -> [WatchedKind] {
        let paths =
            kind.isNamespaced && !namespaces.isEmpty
            ? namespaces.map { "\(kind.group)/namespaces/\($0)/\(kind.resource)" } : ["\(kind.group)/\(kind.resource)"]
        let selector = selectors.first { $0.role == kind.role }
        return paths.map { path in
            var watched = WatchedKind(name: kind.resource, path: path)
            watched.labelSelector = selector?.label ?? ""
            watched.fieldSelector = selector?.field ?? ""
            return watched
        }
    }

    func run(_ context: DiscoveryContext, found: @escaping DiscoveryContext.Found) async {
        let endpoint: KubernetesEndpoint
        do {
            endpoint =
                switch connection {
                case .configured: try context.cluster()
                case .kubeconfig(let path): try Kubeconfig.endpoint(path: path)
                case .server(let endpoint): endpoint
                }
        } catch {
            context.board.countFailure("kubernetes")
            context.logger.error(
                "no targets are discovered: the API can't be reached",
                metadata: ["role": "\(role.rawValue)", "error": "\(error)"])
            return
        }
        let api = KubernetesAPI(endpoint: endpoint, client: context.client, time: context.time)
        let all = kinds.map { ($0, watched($0)) }
        let objects = KubernetesTargets(self, watched: all.flatMap(\.1), board: context.board, found: found)
        await withTaskGroup(of: Void.self) { group in
            for (kind, watched) in all {
                for one in watched { group.addTask { await watch(kind, one, api, context, objects) } }
            }
        }
    }

    private func watch(
        _ kind: Kind, _ watched: WatchedKind, _ api: KubernetesAPI, _ context: DiscoveryContext,
        _ objects: KubernetesTargets
    ) async {
        func watch<Object: DiscoveredObject>(
            _ take: @escaping @Sendable (ObjectEvent<Object>, WatchedKind) async -> Void
        ) async {
            await ObjectWatch<Object>(watched, api: api, time: context.time, logger: context.logger) { event in
                await take(event, watched)
            }.run()
        }
        switch kind {
        case .nodes: await watch { await objects.takeNode($0, $1) }
        case .namespaces: await watch { await objects.takeNamespace($0, $1) }
        case .pods: await watch { await objects.takePod($0, $1) }
        case .services: await watch { await objects.takeService($0, $1) }
        case .endpoints: await watch { await objects.takeEndpoints($0, $1) }
        case .slices: await watch { await objects.takeSlice($0, $1) }
        case .ingresses: await watch { await objects.takeIngress($0, $1) }
        }
    }
}
