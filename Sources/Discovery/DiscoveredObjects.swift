import Cluster
import Foundation

/// The metadata of an object that targets are made of.
struct DiscoveredMetadata: Decodable, Hashable, Sendable {
    struct Owner: Decodable, Hashable, Sendable {
        var kind: String
        var name: String
        var controller: Bool?
    }
    var name: String
    var namespace: String?
    var uid: String?
    var labels: [String: String]?
    var annotations: [String: String]?
    var ownerReferences: [Owner]?

    /// `namespace/name`, or the name of what has no namespace.
    var key: String { namespace.map { "\($0)/\(name)" } ?? name }
}

/// An object that targets are made of: what of it is read is what makes it another one.
protocol DiscoveredObject: APIObject, Hashable {
    var metadata: DiscoveredMetadata { get }
}

extension DiscoveredObject {
    var identity: String { metadata.key }
}

/// `v1.Node`.
struct DiscoveredNode: DiscoveredObject {
    struct Spec: Decodable, Hashable, Sendable { var providerID: String? }
    struct Status: Decodable, Hashable, Sendable {
        struct Address: Decodable, Hashable, Sendable {
            var type: String
            var address: String
        }
        struct Endpoints: Decodable, Hashable, Sendable {
            struct Endpoint: Decodable, Hashable, Sendable {
                var port: Int?
                enum CodingKeys: String, CodingKey { case port = "Port" }
            }
            var kubeletEndpoint: Endpoint?
        }
        var addresses: [Address]?
        var daemonEndpoints: Endpoints?
    }
    var metadata: DiscoveredMetadata
    var spec: Spec?
    var status: Status?
}

/// `v1.Namespace`.
struct DiscoveredNamespace: DiscoveredObject {
    var metadata: DiscoveredMetadata
}

/// `v1.Pod`.
struct DiscoveredPod: DiscoveredObject {
    struct Port: Decodable, Hashable, Sendable {
        var name: String?
        var containerPort: Int
        var `protocol`: String?
    }
    struct Container: Decodable, Hashable, Sendable {
        var name: String
        var image: String?
        var ports: [Port]?
    }
    struct Spec: Decodable, Hashable, Sendable {
        var nodeName: String?
        var containers: [Container]?
        var initContainers: [Container]?
    }
    struct Status: Decodable, Hashable, Sendable {
        struct Condition: Decodable, Hashable, Sendable {
            var type: String
            var status: String
        }
        struct ContainerStatus: Decodable, Hashable, Sendable {
            var name: String
            var containerID: String?
        }
        var podIP: String?
        var hostIP: String?
        var phase: String?
        var conditions: [Condition]?
        var containerStatuses: [ContainerStatus]?
        var initContainerStatuses: [ContainerStatus]?
    }
    var metadata: DiscoveredMetadata
    var spec: Spec?
    var status: Status?
}

/// A port of a service or of its endpoints.
struct DiscoveredPort: Decodable, Hashable, Sendable {
    var name: String?
    var port: Int
    var `protocol`: String?
}

/// `v1.Service`.
struct DiscoveredService: DiscoveredObject {
    struct Spec: Decodable, Hashable, Sendable {
        var type: String?
        var clusterIP: String?
        var externalName: String?
        var loadBalancerIP: String?
        var ports: [DiscoveredPort]?
    }
    var metadata: DiscoveredMetadata
    var spec: Spec?
}

/// What an endpoint stands for.
struct DiscoveredReference: Decodable, Hashable, Sendable {
    var kind: String?
    var name: String?
    var namespace: String?
}

/// `v1.Endpoints`.
struct DiscoveredEndpoints: DiscoveredObject {
    struct Address: Decodable, Hashable, Sendable {
        var ip: String
        var hostname: String?
        var nodeName: String?
        var targetRef: DiscoveredReference?
    }
    struct Subset: Decodable, Hashable, Sendable {
        var addresses: [Address]?
        var notReadyAddresses: [Address]?
        var ports: [DiscoveredPort]?
    }
    var metadata: DiscoveredMetadata
    var subsets: [Subset]?

    /// All of them, ready or not.
    var addresses: [Address] { (subsets ?? []).flatMap { ($0.addresses ?? []) + ($0.notReadyAddresses ?? []) } }
}

/// `discovery.k8s.io/v1.EndpointSlice`.
struct DiscoveredEndpointSlice: DiscoveredObject {
    struct Conditions: Decodable, Hashable, Sendable {
        var ready: Bool?
        var serving: Bool?
        var terminating: Bool?
    }
    struct Endpoint: Decodable, Hashable, Sendable {
        var addresses: [String]?
        var conditions: Conditions?
        var hostname: String?
        var nodeName: String?
        var zone: String?
        var targetRef: DiscoveredReference?
        var deprecatedTopology: [String: String]?
    }
    struct Port: Decodable, Hashable, Sendable {
        var name: String?
        var port: Int?
        var `protocol`: String?
        var appProtocol: String?
    }
    var metadata: DiscoveredMetadata
    var addressType: String?
    var endpoints: [Endpoint]?
    var ports: [Port]?
}

/// `networking.k8s.io/v1.Ingress`.
struct DiscoveredIngress: DiscoveredObject {
    struct Rule: Decodable, Hashable, Sendable {
        struct Paths: Decodable, Hashable, Sendable { var paths: [Path]? }
        struct Path: Decodable, Hashable, Sendable { var path: String? }
        var host: String?
        var http: Paths?
    }
    struct TLS: Decodable, Hashable, Sendable { var hosts: [String]? }
    struct Spec: Decodable, Hashable, Sendable {
        var ingressClassName: String?
        var tls: [TLS]?
        var rules: [Rule]?
    }
    var metadata: DiscoveredMetadata
    var spec: Spec?
}
