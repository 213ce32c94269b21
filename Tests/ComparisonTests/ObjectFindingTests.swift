import Cluster
import Comparison
import Foundation
import Series
import Testing

@Suite struct ObjectFindingTests {
    private let startMs: Int64 = 1_700_000_000_000
    private let minute: Int64 = 60_000

    /// Objects as they are listed, every minute of two hours; the upgrade begins after one and is taken back after 90
    /// minutes.
    private func assess(_ objects: (Int64) -> [(kind: String, json: String)]) throws -> Assessment {
        let store = MemorySeries()
        var observer = ClusterObserver(startMs: startMs)
        for at in 0...120 {
            let atMs = startMs + Int64(at) * minute
            for (kind, json) in objects(Int64(at)) {
                let line = #"{"t":1,"list":{"metadata":{"resourceVersion":"1"},"items":[\#(json)]}}"#
                for observation in try Array(line.utf8).withUnsafeBytes({ try ObjectObservation.decode($0, kind: kind) }
                ) {
                    observer.observe(observation, atMs: atMs)
                }
            }
            observer.emit(to: store, atMs: atMs)
        }
        let stepMs = startMs + 60 * minute
        return try Comparison.assess(
            ComparisonInput(
                cluster: "lab", source: store,
                upgrade: Upgrade(
                    id: "u", from: "v1.30.0", to: "v1.31.0", startedMs: stepMs, finishedMs: stepMs,
                    steps: [
                        UpgradeStep(
                            atMs: stepMs, component: "kube-apiserver", instance: "i", node: nil, from: "v1.30.0",
                            to: "v1.31.0")
                    ], detectedBy: "metrics", rolledBackMs: startMs + 90 * minute), nowMs: startMs + 120 * minute,
                baselineMs: 86_400_000, soakMs: 86_400_000, signals: [], ledger: [], logEvidence: { _ in [] }))
    }

    @Test func whatARollbackLeavesBehind_isNamed() throws {
        let assessment = try assess { at in
            let stuck = at >= 95
            let phase = stuck ? "Terminating" : "Active"
            return [
                (
                    "namespaces",
                    #"{"metadata":{"name":"shop"},"status":{"phase":"\#(phase)","conditions":[{"type":"NamespaceDeletionDiscoveryFailure","status":"True","reason":"DiscoveryFailed","message":"no match for v1alpha9"}]}}"#
                ),
                (
                    "customresourcedefinitions",
                    #"{"metadata":{"name":"things.example.org"},"spec":{"versions":[{"name":"v1","served":true},{"name":"v2","served":\#(!stuck)}]},"status":{"storedVersions":["v1","v2"]}}"#
                ),
                (
                    "apiservices",
                    #"{"metadata":{"name":"v1beta1.metrics.k8s.io"},"status":{"conditions":[{"type":"Available","status":"\#(stuck ? "False" : "True")","reason":"FailedDiscoveryCheck","message":"503"}]}}"#
                ),
            ]
        }
        let found = assessment.findings.filter { $0.signal == "object_problems" }
        #expect(
            found.map(\.summary).sorted() == [
                "APIService v1beta1.metrics.k8s.io: not available: FailedDiscoveryCheck: 503",
                "CustomResourceDefinition things.example.org: objects are stored in the version v2, which is not served",
                "Namespace shop: Terminating; DiscoveryFailed: no match for v1alpha9",
            ])
        for finding in found {
            #expect(finding.onsetMs == startMs + 95 * minute)
            #expect(finding.cause.explanation.hasPrefix("began after the roll-back"))
            #expect(finding.severity == .warning)
        }
    }

    @Test func whatWasSoBefore_orPasses_isNoFaultOfTheUpgrade() throws {
        let old = try assess { _ in [("namespaces", #"{"metadata":{"name":"old"},"status":{"phase":"Terminating"}}"#)] }
        #expect(old.findings.map(\.cause.kind) == [.preexisting])
        let passing = try assess { at in
            [
                (
                    "namespaces",
                    #"{"metadata":{"name":"a"},"status":{"phase":"\#(at == 118 ? "Terminating" : "Active")"}}"#
                )
            ]
        }
        #expect(passing.findings.isEmpty)
    }
}
