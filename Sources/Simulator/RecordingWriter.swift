import CZstd
import Cluster
import Foundation
import PromQL
import Series

/// Writes a simulated upgrade as a recording: what its components would have exposed, logged and been seen as.
///
/// A replay sends it through the whole pipeline, parsers and detection included. There is one file
/// a target and a log, each compressed by zstd.
package struct RecordingWriter {
    private let cluster: SimulatedCluster
    private let directory: String

    /// - Throws: an error of the file system.
    package static func write(_ cluster: SimulatedCluster, to directory: String) throws {
        let writer = RecordingWriter(cluster: cluster, directory: directory)
        for folder in ["metrics", "logs", "objects"] {
            try FileManager.default.createDirectory(
                atPath: "\(directory)/\(folder)", withIntermediateDirectories: true)
        }
        let series = cluster.source.all
        let targets = try writer.writeTargets(series)
        let logs = try writer.writeLogs(series)
        let objects = try writer.writeObjects(series)
        let manifest: [String: Any] = [
            "format": 1, "cluster": cluster.scenario.name, "start_ms": cluster.startMs, "end_ms": cluster.endMs,
            "targets": targets, "logs": logs, "objects": objects,
        ]
        let data = try JSONSerialization.data(
            withJSONObject: manifest, options: [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes])
        try data.write(to: URL(fileURLWithPath: "\(directory)/recording.json"))
    }

    /// Whether a directory is not there or empty.
    ///
    /// - Throws: an error of the file system.
    package static func isFree(_ directory: String) throws -> Bool {
        let manager = FileManager.default
        return try !manager.fileExists(atPath: directory) || manager.contentsOfDirectory(atPath: directory).isEmpty
    }

    /// A file that is written piece by piece, compressed by zstd.
    private final class Output {
        private let handle: FileHandle
        private let context: OpaquePointer
        private var buffer: [UInt8] = []
        private var packed = [UInt8](repeating: 0, count: 1 << 17)

        init(_ path: String) throws {
            try Data().write(to: URL(fileURLWithPath: path))
            handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
            guard let context = ZSTD_createCCtx() else { throw CocoaError(.fileWriteUnknown) }
            self.context = context
            ZSTD_CCtx_setParameter(context, ZSTD_c_enableLongDistanceMatching, 1)
            ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, 27)
        }

        deinit { ZSTD_freeCCtx(context) }

        func write(_ text: String) throws {
            buffer += Array(text.utf8)
            if buffer.count > 1 << 20 { try pack(ZSTD_e_continue) }
        }

        private func pack(_ mode: ZSTD_EndDirective) throws {
            var offset = 0
            while true {
                let (left, taken, made) = buffer.withUnsafeBytes { source in
                    packed.withUnsafeMutableBytes { target in
                        var input = ZSTD_inBuffer(src: source.baseAddress, size: source.count, pos: offset)
                        var output = ZSTD_outBuffer(dst: target.baseAddress, size: target.count, pos: 0)
                        let left = ZSTD_compressStream2(context, &output, &input, mode)
                        return (left, input.pos, output.pos)
                    }
                }
                guard ZSTD_isError(left) == 0 else { throw CocoaError(.fileWriteUnknown) }
                offset = taken
                try handle.write(contentsOf: packed[..<made])
                if offset == buffer.count, mode == ZSTD_e_continue || left == 0 { break }
            }
            buffer.removeAll(keepingCapacity: true)
        }

        func close() throws {
            try pack(ZSTD_e_end)
            try handle.close()
        }
    }

    private static let own: Set<String> = ["kubernetes-objects", "logs", "audit"]

    // MARK: Expositions

    private func writeTargets(_ series: [SeriesSamples]) throws -> [[String: Any]] {
        let scraped = series.filter { !RecordingWriter.own.contains($0.labels["job"] ?? "") }
        let byTarget = Dictionary(grouping: scraped) { $0.labels.keeping(["job", "instance", "node"]) }
        return try byTarget.sorted { $0.key < $1.key }.map { labels, list in
            let (job, instance) = (labels["job"] ?? "", labels["instance"] ?? "")
            let file = "metrics/\(job)-\(instance.split(separator: ":")[0]).prom.zst"
            try writeTarget(job, instance, list, file)
            var target: [String: Any] = ["job": job, "instance": instance, "metrics_path": "/metrics", "file": file]
            target["node"] = labels["node"]
            return target
        }
    }

    private struct Exposed {
        var series: SeriesSamples
        var family: String
        var type: String
        var head: String
        var next = 0
    }

    private func writeTarget(_ job: String, _ instance: String, _ list: [SeriesSamples], _ file: String) throws {
        guard let up = list.first(where: { $0.labels.name == "up" }) else { return }
        let names = Set(list.map(\.labels.name))
        var exposed = list.filter { $0.labels.name != "up" }.map { series -> Exposed in
            let name = series.labels.name
            var family = name
            var type =
                name.hasSuffix("_bytes") || name.hasPrefix("workqueue_depth") || name.hasSuffix("_pods")
                ? "gauge" : "counter"
            for suffix in ["_bucket", "_count", "_sum"] where name.hasSuffix(suffix) {
                let stem = String(name.dropLast(suffix.count))
                guard names.contains(stem + "_count") else { continue }
                family = stem
                type = names.contains(stem + "_bucket") ? "histogram" : "summary"
            }
            let labels = series.labels.removing(["job", "instance", "node", Labels.metricName]).pairs
            let text = labels.map { "\($0.name)=\(Labels.quoted($0.value))" }.joined(separator: ",")
            return Exposed(series: series, family: family, type: type, head: text.isEmpty ? name : "\(name){\(text)}")
        }
        // The buckets of one histogram lie together and rise.
        let bound = { (labels: Labels) in labels["le"].flatMap { ClassicHistogram.bound($0) } ?? -1 }
        exposed.sort { a, b in
            if a.family != b.family { return a.family < b.family }
            let (x, y) = (a.series.labels, b.series.labels)
            if x.name != y.name { return x.name < y.name }
            let (left, right) = (x.removing(["le"]), y.removing(["le"]))
            return left == right ? bound(x) < bound(y) : left < right
        }
        let output = try Output("\(directory)/\(file)")
        let steps = steps(job, instance)
        for (atMs, value) in zip(up.timestampsMs, up.values) {
            guard value == 1 else {
                try output.write("# scrape \(atMs) 0 0\n")
                continue
            }
            var body = ""
            if let version = version(job, steps, atMs) {
                body += "# TYPE kubernetes_build_info gauge\nkubernetes_build_info{git_version=\"\(version)\"} 1\n"
            }
            // The process before an upgrade is as old as the cluster.
            let startedMs = steps.last { $0.atMs <= atMs }?.atMs ?? cluster.startMs
            body += "# TYPE process_start_time_seconds gauge\n"
            body += "process_start_time_seconds \(GoFloat.text(Double(startedMs) / 1000))\n"
            var family = ""
            for index in exposed.indices {
                let series = exposed[index].series
                guard exposed[index].next < series.timestampsMs.count,
                    series.timestampsMs[exposed[index].next] == atMs
                else { continue }
                if exposed[index].family != family {
                    family = exposed[index].family
                    body += "# TYPE \(family) \(exposed[index].type)\n"
                }
                body += "\(exposed[index].head) \(GoFloat.text(series.values[exposed[index].next]))\n"
                exposed[index].next += 1
            }
            try output.write("# scrape \(atMs) 200 \(body.utf8.count)\n\(body)")
        }
        try output.close()
    }

    /// What a component says of its version; nil for one that has none of Kubernetes' own.
    private func version(_ component: String, _ steps: [UpgradeStep], _ atMs: Int64) -> String? {
        let last = steps.last { $0.atMs <= atMs }
        let known = ["kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler"].contains(component)
        return last?.to ?? steps.first?.from ?? (known ? cluster.upgrade.from : nil)
    }

    private func steps(_ component: String, _ instance: String) -> [UpgradeStep] {
        cluster.upgrade.steps.filter { $0.component == component && $0.instance == instance }
    }

    // MARK: Logs

    private func writeLogs(_ series: [SeriesSamples]) throws -> [[String: Any]] {
        var files: [[String: Any]] = []
        let lines = series.filter { $0.labels.name == "upgrade_watch_log_lines_total" }
        for (node, list) in Dictionary(grouping: lines, by: { $0.labels["node"] ?? "" }).sorted(by: { $0.key < $1.key })
        {
            var told: [(atMs: Int64, text: String)] = []
            for one in list {
                let isError = one.labels["severity"] == "error"
                eachCount(one) { atMs, place, count in
                    let text =
                        isError
                        ? "pod_workers.go:1301] \"Error syncing pod, skipping\" err=\"timed out\""
                        : "kubelet.go:2421] \"SyncLoop (PLEG): event for pod\""
                    let at = atMs + Int64(place * 1000 / max(1, count))
                    told.append((at, RecordingWriter.klog(isError ? "E" : "I", at) + text))
                }
            }
            let file = "logs/kubelet-\(node).log.zst"
            try write(told, to: file)
            files.append(["component": "kubelet", "node": node, "file": file, "format": "klog"])
        }
        var audited: [(atMs: Int64, text: String)] = []
        for one in series where one.labels.name == "upgrade_watch_audit_requests_total" {
            let labels = one.labels
            let text = { (name: String) in labels[name] ?? "" }
            eachCount(one) { atMs, place, _ in
                let time = TimeFormat.rfc3339(ms: atMs).replacing("Z", with: "")
                let head = time.split(separator: ".")[0]
                let micros = String(1_000_000 + place % 1_000_000).dropFirst()
                audited.append(
                    (
                        atMs,
                        "{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\","
                            + "\"stage\":\"ResponseComplete\",\"requestURI\":\"\(text("path"))\",\"verb\":\"\(text("verb"))\","
                            + "\"user\":{\"username\":\"\(text("client").split(separator: "/")[0])\"},"
                            + "\"userAgent\":\"\(text("client"))\",\"objectRef\":{\"resource\":\"\(text("resource"))\","
                            + "\"apiGroup\":\"\(text("group"))\",\"apiVersion\":\"\(text("version"))\"},"
                            + "\"responseStatus\":{\"code\":\(text("code"))},"
                            + "\"requestReceivedTimestamp\":\"\(head).\(micros)Z\",\"stageTimestamp\":\"\(head).\(micros)Z\"}"
                    ))
            }
        }
        if !audited.isEmpty {
            try write(audited, to: "logs/audit.log.zst")
            files.append([
                "component": "kube-apiserver", "node": "master-1", "file": "logs/audit.log.zst", "format": "audit",
            ])
        }
        return files
    }

    /// Calls `body` for each event that a counter counts: the time of the sample before, and the event's place among so
    /// many.
    private func eachCount(_ series: SeriesSamples, _ body: (Int64, Int, Int) -> Void) {
        var last = 0.0
        for (atMs, value) in zip(series.timestampsMs, series.values) {
            let count = Int(max(0, value - last))
            last = value
            for place in 0..<count { body(atMs - 1000, place, count) }
        }
    }

    private static func klog(_ severity: String, _ atMs: Int64) -> String {
        // 2026-01-05T00:00:00.250Z
        let time = TimeFormat.rfc3339(ms: atMs)
        let date = time.dropFirst(5).prefix(5).filter { $0 != "-" }
        let clock = time.dropFirst(11).prefix(8)
        let millis = String(1000 + atMs % 1000).dropFirst()
        return "\(severity)\(date) \(clock).\(millis)000    1234 "
    }

    private func write(_ lines: [(atMs: Int64, text: String)], to file: String) throws {
        let output = try Output("\(directory)/\(file)")
        for line in lines.enumerated().sorted(by: { ($0.element.atMs, $0.offset) < ($1.element.atMs, $1.offset) }) {
            try output.write(line.element.text + "\n")
        }
        try output.close()
    }

    // MARK: Objects

    private func writeObjects(_ series: [SeriesSamples]) throws -> [[String: Any]] {
        try write(nodeLists(series), to: "objects/nodes.list.jsonl.zst")
        try write(podChanges(series), to: "objects/pods.watch.jsonl.zst")
        return [
            ["kind": "nodes", "mode": "list", "file": "objects/nodes.list.jsonl.zst"],
            ["kind": "pods", "mode": "watch", "file": "objects/pods.watch.jsonl.zst"],
        ]
    }

    /// A list of all nodes whenever one of them is another, and every ten minutes.
    private func nodeLists(_ series: [SeriesSamples]) -> [(atMs: Int64, text: String)] {
        let ready = series.filter { $0.labels.name == "upgrade_watch_node_ready" }
        guard let times = ready.first?.timestampsMs else { return [] }
        var lists: [(atMs: Int64, text: String)] = []
        var last = ""
        for (tick, atMs) in times.enumerated() {
            let items = ready.map { one -> String in
                let name = one.labels["node"] ?? ""
                let isReady = one.values[tick] == 1
                let version = version("kubelet", steps("kubelet", "\(name):10250"), atMs) ?? ""
                return "{\"metadata\":{\"name\":\"\(name)\"},\"spec\":{},\"status\":{\"nodeInfo\":{\"kubeletVersion\":"
                    + "\"\(version)\"},\"conditions\":[{\"type\":\"Ready\",\"status\":\"\(isReady ? "True" : "False")\"}]}}"
            }.joined(separator: ",")
            guard items != last || tick % 10 == 0 else { continue }
            last = items
            lists.append(
                (
                    atMs,
                    "{\"t\":\(atMs),\"list\":{\"kind\":\"NodeList\",\"apiVersion\":\"v1\",\"metadata\":{},"
                        + "\"items\":[\(items)]}}"
                ))
        }
        return lists
    }

    /// A pod for each workload on each node where something happens, its containers' ends, and evictions.
    private func podChanges(_ series: [SeriesSamples]) -> [(atMs: Int64, text: String)] {
        var changes: [(atMs: Int64, text: String)] = []
        func change(_ atMs: Int64, _ type: String, _ pod: Pod, _ status: String, deleted: Bool = false) {
            let gone = deleted ? ",\"deletionTimestamp\":\"\(TimeFormat.rfc3339(ms: atMs))\"" : ""
            changes.append(
                (
                    atMs,
                    "{\"t\":\(atMs),\"watch\":{\"type\":\"\(type)\",\"object\":{\"kind\":\"Pod\",\"apiVersion\":\"v1\","
                        + "\"metadata\":{\"name\":\"\(pod.name)\",\"namespace\":\"\(pod.namespace)\",\"uid\":\"\(pod.uid)\","
                        + "\"resourceVersion\":\"\(changes.count + 1)\"\(gone),\"labels\":{\"pod-template-hash\":\"5d4f8\"},"
                        + "\"ownerReferences\":[{\"kind\":\"ReplicaSet\",\"name\":\"\(pod.workload)-5d4f8\",\"controller\":true}]},"
                        + "\"spec\":{\"nodeName\":\"\(pod.node)\",\"restartPolicy\":\"Always\",\"containers\":[{\"name\":\"app\","
                        + "\"image\":\"app:1\"}]},\"status\":\(status)}}}"
                ))
        }
        for one in series where one.labels.name == "upgrade_watch_container_exits_total" {
            let pod = Pod(
                namespace: one.labels["namespace"] ?? "default", workload: one.labels["workload"] ?? "app",
                node: one.labels["node"] ?? "", number: 0)
            change(cluster.startMs + 500, "ADDED", pod, pod.running(restarts: 0, lastEndMs: nil))
            var restarts = 0
            eachCount(one) { atMs, place, _ in
                restarts += 1
                change(atMs + Int64(place), "MODIFIED", pod, pod.running(restarts: restarts, lastEndMs: atMs))
            }
        }
        for one in series where one.labels.name == "upgrade_watch_pod_evictions_total" && one.labels["cause"] == "taint"
        {
            var pod = Pod(namespace: "default", workload: "roamer", node: one.labels["node"] ?? "", number: 0)
            change(cluster.startMs + 500, "ADDED", pod, pod.running(restarts: 0, lastEndMs: nil))
            eachCount(one) { atMs, place, _ in
                let at = atMs + Int64(place) * 3
                let evicted =
                    "{\"phase\":\"Running\",\"conditions\":[{\"type\":\"DisruptionTarget\",\"status\":\"True\","
                    + "\"reason\":\"DeletionByTaintManager\",\"message\":\"Taint manager: deleting due to NoExecute taint\"}]}"
                change(at, "MODIFIED", pod, evicted, deleted: true)
                change(at + 1, "DELETED", pod, evicted, deleted: true)
                pod.number += 1
                change(at + 2, "ADDED", pod, pod.running(restarts: 0, lastEndMs: nil))
            }
        }
        return changes
    }

    private struct Pod {
        var namespace: String
        var workload: String
        var node: String
        var number: Int

        var name: String { "\(workload)-5d4f8-\(node)-\(number)" }
        var uid: String { "\(namespace)/\(name)" }

        func running(restarts: Int, lastEndMs: Int64?) -> String {
            let end = lastEndMs.map {
                ",\"lastState\":{\"terminated\":{\"exitCode\":1,\"reason\":\"Error\",\"finishedAt\":"
                    + "\"\(TimeFormat.rfc3339(ms: $0 / 1000 * 1000))\",\"containerID\":\"containerd://\(uid)/\(restarts)\"}}"
            }
            return "{\"phase\":\"Running\",\"containerStatuses\":[{\"name\":\"app\",\"restartCount\":\(restarts),"
                + "\"state\":{\"running\":{}}\(end ?? "")}]}"
        }
    }
}
