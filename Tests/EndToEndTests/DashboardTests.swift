import Foundation
import Series
import Storage
import TestSupport
import Testing

@Suite struct DashboardTests {
    private func check(_ arguments: [String], in directory: TemporaryDirectory) throws -> (
        code: Int32, output: String, errors: String
    ) {
        try Program.run(Binary.path, ["check", "dashboards"] + arguments, in: directory.path)
    }

    private func dashboard(_ expression: String) -> String {
        """
        {"title": "d", "schemaVersion": 38, "panels": [
          {"title": "p", "targets": [{"expr": "\(expression)"}]}]}
        """
    }

    @Test func ownDashboards_parse() throws {
        let folder = Shared.root + "/dashboards"
        let files = try FileManager.default.contentsOfDirectory(atPath: folder).map { folder + "/" + $0 }
        #expect(files.count == 7)
        let result = try check(files, in: TemporaryDirectory())
        #expect(result.code == 0, "\(result.output)\(result.errors)")
    }

    @Test(arguments: [
        ("sum(up", "panel \"p\": 1:7: parse error"),
        (
            "rate(x[$__rate_interval] offset $before) + up{a=~\\\"$a\\\", b!=\\\"${b:regex}\\\"} + sum_over_time(x[1h:$step])",
            ""
        ),
    ])
    func expressions_areParsedWithGrafanasVariables(expression: String, problem: String) throws {
        let directory = TemporaryDirectory()
        let file = try directory.write("d.json", dashboard(expression))
        let result = try check([file], in: directory)
        #expect(result.code == (problem.isEmpty ? 0 : 1), "\(result.errors)")
        #expect(problem.isEmpty || result.errors.contains(problem), "\(result.errors)")
    }

    @Test func metrics_areLookedForInTheStoreAndInItsVersions() throws {
        let directory = TemporaryDirectory()
        let store = try Store(directory: directory.path + "/store")
        store.append(
            [
                (["__name__": "kubernetes_build_info", "git_version": "v1.30.1"], 1),
                (["__name__": "own_metric", "node": "a"], 1),
            ], atMs: 1_000_000)
        try store.close()
        func run(_ expression: String) throws -> (code: Int32, output: String, errors: String) {
            let file = try directory.write("d.json", dashboard(expression))
            return try check([file, "--store", directory.path + "/store"], in: directory)
        }
        #expect(try run("own_metric{node=~\\\"$node\\\"}").output.contains("SUCCESS: 1 expressions, 1 with data"))
        // Exposed by that version, and not in the store.
        let silent = try run("kubelet_running_pods")
        #expect(silent.code == 0 && silent.output.contains("selects nothing: kubelet_running_pods"))
        // Exposed until 1.18 only, and never by any.
        for name in ["kubelet_running_pod_count", "no_such_metric"] {
            let unknown = try run(name)
            #expect(unknown.code == 1)
            #expect(unknown.errors.contains("unknown metric \(name)"), "\(unknown.errors)")
        }
    }

    @Test func whatIsNoDashboard_isRefused() throws {
        let directory = TemporaryDirectory()
        #expect(try check([directory.write("a.json", "[]")], in: directory).errors.contains("is no Grafana dashboard"))
        #expect(try check([directory.write("b.json", "{")], in: directory).errors.contains("is no JSON"))
        #expect(try check(["/nowhere.json"], in: directory).errors.contains("can't be read"))
    }
}
