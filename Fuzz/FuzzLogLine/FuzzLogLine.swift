import Cluster
import LogWatch
import Series

/// Any bytes as a line of every log format, and of an objects file.
private let pattern = try? Pattern("(?P<a>x+)y|bad (?P<b>\\w+)", mode: .search)

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let line = UnsafeRawBufferPointer(start: data, count: count)
    for format in LogFormat.allCases { _ = LogLineHead(line, format: format, nearMs: 1_795_453_080_000) }
    _ = AuditEvent(line)
    _ = pattern?.match(line) { $0.count }
    for kind in ["pods", "nodes", "events", "namespaces"] {
        guard let observations = try? ObjectObservation.decode(line, kind: kind) else { continue }
        var observer = ClusterObserver()
        for observation in observations { observer.observe(observation, atMs: 1000) }
        _ = observer.takeEntries(atMs: 100_000)
    }
    for component in ["kubelet", "kube-controller-manager", "audit"] {
        var observer = ClusterObserver()
        observer.observe(line: line, component: component, node: "n", atMs: 1000)
        _ = observer.takeEntries(atMs: 100_000)
    }
    return 0
}
