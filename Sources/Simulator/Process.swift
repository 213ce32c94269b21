/// What goes on in a simulated cluster: each process feeds the metrics by which it is seen.
package enum Process: String, Sendable, CaseIterable {
    // Nodes.
    case containerExits = "container_exits"
    case evictions
    case pressureEvictions = "pressure_evictions"
    case nodeFlaps = "node_flaps"
    case runtimeErrors = "runtime_errors"
    case sandboxFailures = "sandbox_failures"
    case imagePullFailures = "image_pull_failures"
    case volumeLatency = "volume_latency"
    case podStartLatency = "pod_start_latency"
    case plegLatency = "pleg_latency"
    case kubeletMemory = "kubelet_memory"
    case kubeletCPU = "kubelet_cpu"
    case logErrors = "log_errors"
    // The control plane.
    case apiserverErrors = "apiserver_errors"
    case unauthorized
    case notFound = "not_found"
    case apiserverLatency = "apiserver_latency"
    case apiserverCPU = "apiserver_cpu"
    case apiserverMemory = "apiserver_memory"
    case etcdLatency = "etcd_latency"
    case etcdFsync = "etcd_fsync"
    case webhookFailures = "webhook_failures"
    case clientFailures = "client_failures"
    case schedulerLatency = "scheduler_latency"
    case unschedulablePods = "unschedulable_pods"
    case autoscalerErrors = "autoscaler_errors"
    case queueRetries = "queue_retries"
    case dnsErrors = "dns_errors"

    /// The component whose step brings a fault of it; its metrics may be another's.
    package var component: String {
        switch self {
        case .containerExits, .evictions, .pressureEvictions, .nodeFlaps, .runtimeErrors, .sandboxFailures,
            .imagePullFailures, .volumeLatency, .podStartLatency, .plegLatency, .kubeletMemory, .kubeletCPU, .logErrors:
            "kubelet"
        case .apiserverErrors, .unauthorized, .notFound, .apiserverLatency, .apiserverCPU, .apiserverMemory,
            .webhookFailures, .clientFailures, .etcdLatency:
            "kube-apiserver"
        case .etcdFsync: "etcd"
        case .schedulerLatency, .unschedulablePods: "kube-scheduler"
        case .autoscalerErrors, .queueRetries: "kube-controller-manager"
        case .dnsErrors: "coredns"
        }
    }

    /// Whether each node has its own.
    var isOfNodes: Bool { component == "kubelet" }

    /// Whether it counts something that there can be more of; else it is a level, which only a ratio changes.
    var isCounted: Bool {
        switch self {
        case .volumeLatency, .podStartLatency, .plegLatency, .kubeletMemory, .kubeletCPU, .apiserverLatency,
            .apiserverCPU, .apiserverMemory, .etcdLatency, .etcdFsync, .schedulerLatency, .queueRetries:
            false
        default: true
        }
    }
}
