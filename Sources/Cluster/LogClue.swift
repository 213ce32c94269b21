import Series

/// What a line of a component's log, or an audited request, tells of the end of a container or a pod.
enum LogClue: Equatable {
    case pod(uid: String, namespace: String, name: String)
    case containerOf(uid: String, container: String)
    /// The ID is of a pod's sandbox, not of a container.
    case sandbox(id: String)
    case finished(uid: String, id: String, exitCode: Int, line: String)
    /// A container or a sandbox is dead; where the kubelet says `finished` too, that is the better word.
    case died(uid: String, id: String, line: String)
    case willRestart(uid: String?, id: String, container: String, message: String, line: String)
    case killing(uid: String, id: String, container: String, line: String)
    /// The kubelet wants a resource back.
    case reclaims(resource: String)
    /// Something removes a pod.
    case removal(namespace: String, name: String, cause: LedgerCause, detail: String, line: String)
    /// The kubelet knows of a pod's removal.
    case gone(namespace: String, name: String, line: String)
    /// Somebody asked the API to delete or evict a pod.
    case requested(namespace: String, name: String, isEviction: Bool, user: String, line: String)
}

/// Reads clues from lines: of the kubelet, the controller manager and the API server's audit log, in the words that
/// Kubernetes 1.10 to 1.36 use.
struct LogClueReader {
    private struct Rule: Sendable {
        let pattern: Pattern
        /// Makes clues of the named groups of a match.
        let make: @Sendable (_ group: (String) -> String, _ line: String) -> [LogClue]

        init(
            _ source: String, _ make: @escaping @Sendable (_ group: (String) -> String, _ line: String) -> [LogClue]
        ) {
            do {
                pattern = try Pattern(source, mode: .search)
            } catch {
                preconditionFailure("\(error)")
            }
            self.make = make
        }
    }

    /// The resource that a node's kubelet last evicted for.
    private var pressure: [String: String] = [:]

    /// The clues in a line.
    ///
    /// - Parameter component: whose log it is; `audit` for the API server's audit log.
    mutating func read(_ line: UnsafeRawBufferPointer, component: String, node: String) -> [LogClue] {
        switch component {
        case "kubelet":
            guard LogClueReader.passes(LogClueReader.kubeletGate, line) else { return [] }
            return LogClueReader.firstMatch(LogClueReader.kubelet, line).map { clue in
                switch clue {
                case .reclaims(let resource):
                    pressure[node] = resource
                    return clue
                case .removal(let namespace, let name, .pressureEviction, _, let line):
                    return .removal(
                        namespace: namespace, name: name, cause: .pressureEviction, detail: pressure[node] ?? "",
                        line: line)
                default: return clue
                }
            }
        case "kube-controller-manager":
            guard LogClueReader.passes(LogClueReader.managerGate, line) else { return [] }
            return LogClueReader.firstMatch(LogClueReader.manager, line)
        case "audit":
            guard LogClueReader.passes(LogClueReader.auditGate, line) else { return [] }
            return LogClueReader.match(LogClueReader.audit, line) ?? []
        default: return []
        }
    }

    private static func passes(_ gate: Pattern, _ line: UnsafeRawBufferPointer) -> Bool {
        gate.match(line) { _ in true } ?? false
    }

    /// The clues of the first rule that matches; a lazy collection would match it twice.
    private static func firstMatch(_ rules: [Rule], _ line: UnsafeRawBufferPointer) -> [LogClue] {
        for rule in rules {
            if let clues = match(rule, line) { return clues }
        }
        return []
    }

    private static func match(_ rule: Rule, _ line: UnsafeRawBufferPointer) -> [LogClue]? {
        rule.pattern.match(line) { offsets in
            func group(_ name: String) -> String {
                for entry in rule.pattern.groupNames where entry.name == name && offsets[entry.number * 2] >= 0 {
                    return String(
                        decoding: line[offsets[entry.number * 2]..<offsets[entry.number * 2 + 1]], as: UTF8.self)
                }
                return ""
            }
            return rule.make(group, String(decoding: line.prefix(400), as: UTF8.self))
        }
    }

    /// `namespace/name`; nil for another form.
    private static func pod(_ reference: String) -> (namespace: String, name: String)? {
        let parts = reference.split(separator: "/", omittingEmptySubsequences: false)
        return parts.count == 2 ? (String(parts[0]), String(parts[1])) : nil
    }

    private static let uid = "(?<uid>[0-9a-f-]{32,36})"

    private static func gate(_ source: String) -> Pattern {
        do {
            return try Pattern(source, mode: .search)
        } catch {
            preconditionFailure("\(error)")
        }
    }

    /// Most lines have none of these words: one pass over them decides.
    private static let kubeletGate = gate(
        "PLEG|Container for pod|Container of pod|Killing container|found in pod's|failed container=|containerName=|"
            + "[Ee]viction manager|SyncLoop (?:REMOVE|\\(REMOVE)|spec hash changed|of pod ")
    private static let managerGate = gate("aint|PodGC")
    private static let auditGate = gate("\"resource\":\"pods\"")

    private static let kubelet: [Rule] = [
        Rule(
            #""Generic \(PLEG\): container finished" podID="?\#(uid)"? containerID="(?<id>[^"]+)" exitCode=(?<code>-?\d+)"#
        ) { group, line in
            [.finished(uid: group("uid"), id: group("id"), exitCode: Int(group("code")) ?? 0, line: line)]
        },
        // "event={"ID":"…","Type":"ContainerDied","Data":"…"}" since 1.26, "event=&{ID:… Type:… Data:…}" before.
        Rule(
            #"SyncLoop \(PLEG\): event for pod" pod="(?<pod>[^"]+)" event=.{0,8}ID"?:"?\#(uid)"?,? ?"?Type"?:"?(?<type>\w+)"?,? ?"?Data"?:"?(?<id>[0-9a-f]+)"#
        ) { group, line in
            lifecycle(pod(group("pod")), group("uid"), group("type"), group("id"), line)
        },
        Rule(
            #"SyncLoop \(PLEG\): "(?<name>[^_"]+)_(?<namespace>[^("]+)\(\#(uid)\)", event: &pleg\.PodLifecycleEvent\{ID:"[^"]*", Type:"(?<type>\w+)", Data:"(?<id>[0-9a-f]+)""#
        ) { group, line in
            lifecycle((group("namespace"), group("name")), group("uid"), group("type"), group("id"), line)
        },
        Rule(
            #""Message for Container of pod" containerName="(?<container>[^"]+)" containerStatusID=.{0,60}?ID"?:"?(?<id>[0-9a-f]+).*? pod="(?<pod>[^"]+)" containerMessage="(?<message>[^"]*)"#
        ) { group, line in
            [
                .willRestart(
                    uid: nil, id: group("id"), container: group("container"), message: group("message"), line: line)
            ]
        },
        // Until 1.20: Container "web" ({"docker" "…"}) of pod web_default(uid): Container spec hash changed …
        Rule(
            #"Container "(?<container>[^"]+)" \(\{"?\w+"? "?(?<id>[0-9a-f]+)"?\}\) of pod (?<name>[^_\s]+)_(?<namespace>[^(\s]+)\(\#(uid)\): (?<message>.*)$"#
        ) { group, line in
            [
                .pod(uid: group("uid"), namespace: group("namespace"), name: group("name")),
                .willRestart(
                    uid: group("uid"), id: group("id"), container: group("container"), message: group("message"),
                    line: line),
            ]
        },
        Rule(
            #""Killing container with a grace period(?: override)?" pod="(?<pod>[^"]+)" podUID="?\#(uid)"? containerName="(?<container>[^"]+)" containerID="(?<id>[^"]+)""#
        ) { group, line in
            let id = LedgerKeeper.plainID(group("id"))
            var clues: [LogClue] = [.killing(uid: group("uid"), id: id, container: group("container"), line: line)]
            if let pod = pod(group("pod")) {
                clues.insert(.pod(uid: group("uid"), namespace: pod.namespace, name: pod.name), at: 0)
            }
            return clues
        },
        Rule(#"Container (?:not|"?\w+"? not) found in pod's containers"?.*?(?:containerID=")?(?<id>[0-9a-f]{32,64})"#) {
            group, _ in [.sandbox(id: group("id"))]
        },
        Rule(#"failed container=(?<container>\S+) pod=(?<name>[^_\s]+)_(?<namespace>[^(\s]+)\(\#(uid)\)"#) { group, _ in
            [
                .pod(uid: group("uid"), namespace: group("namespace"), name: group("name")),
                .containerOf(uid: group("uid"), container: group("container")),
            ]
        },
        Rule(#"podUID="?\#(uid)"? containerName="(?<container>[^"]+)""#) { group, _ in
            [.containerOf(uid: group("uid"), container: group("container"))]
        },
        Rule(
            #"[Ee]viction manager: pod (?:(?<name>[^_\s"]+)_(?<namespace>[^(\s]+)\([^)]*\) )?is evicted successfully(?:" pod="(?<pod>[^"]+)")?"#
        ) { group, line in
            guard let pod = pod(group("pod")) ?? (group("name").isEmpty ? nil : (group("namespace"), group("name")))
            else { return [] }
            return [
                .removal(namespace: pod.namespace, name: pod.name, cause: .pressureEviction, detail: "", line: line)
            ]
        },
        Rule(
            #"[Ee]viction manager: (?:must evict pod\(s\) to reclaim|attempting to reclaim)"?(?: resourceName="| )(?<resource>[\w.-]+)"#
        ) { group, _ in [.reclaims(resource: group("resource"))] },
        // "SyncLoop REMOVE" source="api" pods=["ns/a","ns/b"], and SyncLoop (REMOVE, "api"): "a_ns(uid), …" before 1.21.
        Rule(#""SyncLoop REMOVE" source="[^"]*" pods=\[(?<pods>[^\]]*)\]"#) { group, line in
            group("pods").split(whereSeparator: { ",\" ".contains($0) }).compactMap { pod(String($0)) }
                .map { .gone(namespace: $0.namespace, name: $0.name, line: line) }
        },
        Rule(#"SyncLoop \(REMOVE, "[^"]*"\): "(?<name>[^_"]+)_(?<namespace>[^("]+)\("#) { group, line in
            [.gone(namespace: group("namespace"), name: group("name"), line: line)]
        },
    ]

    private static func lifecycle(
        _ pod: (namespace: String, name: String)?, _ uid: String, _ type: String, _ id: String, _ line: String
    ) -> [LogClue] {
        var clues: [LogClue] = []
        if let pod { clues.append(.pod(uid: uid, namespace: pod.namespace, name: pod.name)) }
        if type == "ContainerDied" { clues.append(.died(uid: uid, id: id, line: line)) }
        return clues
    }

    private static let manager: [Rule] = [
        Rule(
            #"NoExecuteTaintManager is deleting [Pp]od(?:: (?<plain>\S+)|" pod="(?<pod>[^"]+)")|"Deleting pod" (?:logger="[^"]*" )?controller="taint-eviction-controller" pod="(?<pod2>[^"]+)""#
        ) { group, line in
            guard let pod = [group("plain"), group("pod"), group("pod2")].lazy.compactMap({ pod($0) }).first else {
                return []
            }
            return [.removal(namespace: pod.namespace, name: pod.name, cause: .taintEviction, detail: "", line: line)]
        },
        Rule(#"PodGC is force deleting Pod(?:: (?<plain>\S+)|" pod="(?<pod>[^"]+)")"#) { group, line in
            guard let pod = [group("plain"), group("pod")].lazy.compactMap({ pod($0) }).first else { return [] }
            return [
                .removal(
                    namespace: pod.namespace, name: pod.name, cause: .podGarbageCollected, detail: "", line: line)
            ]
        },
    ]

    private static let audit = Rule(
        #"(?s)"stage":"ResponseComplete","requestURI":"(?<uri>[^"]*)","verb":"(?<verb>delete|create)","user":\{"username":"(?<user>[^"]*)".*?"objectRef":\{"resource":"pods","namespace":"(?<namespace>[^"]*)","name":"(?<name>[^"]*)"(?<rest>[^}]*)\}.*?"code":2\d\d"#
    ) { group, line in
        guard !group("uri").contains("dryRun=") else { return [] }
        let isEviction = group("rest").contains("\"subresource\":\"eviction\"")
        guard isEviction || (group("verb") == "delete" && !group("rest").contains("subresource")) else { return [] }
        let words = "\(group("user")) \(isEviction ? "evicted" : "deleted") pod \(group("namespace"))/\(group("name"))"
        return [
            .requested(
                namespace: group("namespace"), name: group("name"), isEviction: isEviction, user: group("user"),
                line: words)
        ]
    }
}
