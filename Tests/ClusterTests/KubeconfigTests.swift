import Cluster
import Fetch
import Foundation
import Series
import TestSupport
import Testing

@Suite struct KubeconfigTests {
    private let directory = TemporaryDirectory()

    private func config(_ user: String, cluster: String = "server: https://127.0.0.1:6443/", more: String = "") throws
        -> String
    {
        try directory.write(
            "config",
            """
            apiVersion: v1
            kind: Config
            current-context: main
            preferences: {}
            contexts:
            - {name: main, context: {cluster: prod, user: admin, namespace: x}}
            - {name: other, context: {cluster: prod, user: nobody}}
            clusters:
            - name: prod
              cluster: {\(cluster)}
            users:
            - name: admin
              user: {\(user)}
            \(more)
            """)
    }

    @Test func certificates_areTakenAsDataOrAsFilesBesideTheConfig() throws {
        let pem = Data("PEM".utf8).base64EncodedString()
        let data = try Kubeconfig.endpoint(
            path: config(
                "client-certificate-data: \(pem), client-key-data: \(pem)",
                cluster: "server: https://a:6443/, certificate-authority-data: \(pem)"))
        #expect(data.server == "https://a:6443")
        #expect(
            data.client.tls.ca?.value == "PEM" && data.client.tls.cert?.value == "PEM"
                && data.client.tls.key?.value == "PEM")
        let files = try Kubeconfig.endpoint(
            path: config(
                "client-certificate: c.crt, client-key: /k/c.key",
                cluster: "server: https://a, certificate-authority: ca.crt, tls-server-name: api, "
                    + "insecure-skip-tls-verify: false"))
        #expect(
            files.client.tls.caFile == directory.path + "/ca.crt"
                && files.client.tls.certFile == directory.path + "/c.crt")
        #expect(
            files.client.tls.keyFile == "/k/c.key" && files.client.tls.serverName == "api"
                && !files.client.tls.insecureSkipVerify)
    }

    @Test func tokens_areNeverPrinted() throws {
        let endpoint = try Kubeconfig.endpoint(path: config("token: s3cret"))
        #expect(endpoint.client.authentication == .authorization(type: "Bearer", credentials: .text("s3cret")))
        #expect(!"\(endpoint)".contains("s3cret"))
        let file = try Kubeconfig.endpoint(path: config("tokenFile: t"))
        #expect(file.client.authentication == .authorization(type: "Bearer", credentials: .file(directory.path + "/t")))
    }

    @Test func proxy_isTheClusters_orTheEnvironments() throws {
        let named = try Kubeconfig.endpoint(
            path: config("token: a", cluster: "server: https://a, proxy-url: 'socks5://proxy:1080'"))
        #expect(named.client.proxy.choice == .server(Secret("socks5://proxy:1080")))
        #expect(try Kubeconfig.endpoint(path: config("token: a")).client.proxy.choice == .environment)
    }

    @Test func faults_areNamed() throws {
        func fault(_ body: () throws -> KubernetesEndpoint) -> String {
            do {
                _ = try body()
                return "none"
            } catch {
                return "\(error)".replacing(directory.path, with: "")
            }
        }
        let path = try config("token: a")
        #expect(
            fault { try Kubeconfig.endpoint(path: path, context: "test") }
                == "/config: has no context test; it has main, other")
        #expect(
            fault { try Kubeconfig.endpoint(path: path, context: "other") }
                == "/config: the context other names the user nobody, which is not there")
        #expect(
            fault { try Kubeconfig.endpoint(path: directory.path + "/none") }
                == "/none: can't be read; name a kubeconfig with kubernetes.kubeconfig")
        let bad = try config("client-certificate-data: '%%'")
        #expect(fault { try Kubeconfig.endpoint(path: bad) } == "/config: client-certificate-data is not base64")
        let noServer = try config("token: a", cluster: "proxy-url: x")
        #expect(fault { try Kubeconfig.endpoint(path: noServer) }.contains("server is missing"))
        let proxied = try config("token: a", cluster: "server: https://a, proxy-url: 'ftp://u:p@x'")
        #expect(
            fault { try Kubeconfig.endpoint(path: proxied) }
                == "/config: proxy-url is ftp://x; it must begin with http://, https:// or socks5://")
        let empty = try directory.write("empty", "\n")
        #expect(fault { try Kubeconfig.endpoint(path: empty) } == "/empty: is empty")
    }

    @Test func serviceAccount_isFoundInAPod() throws {
        let folder = directory.path + "/var/run/secrets/kubernetes.io/serviceaccount"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try "token".write(toFile: folder + "/token", atomically: true, encoding: .utf8)
        let environment = ["KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"]
        let endpoint = try #require(Kubeconfig.inCluster(environment: environment, root: directory.path))
        #expect(endpoint.server == "https://[fd00::1]:443")
        #expect(endpoint.client.tls.caFile == folder + "/ca.crt")
        #expect(Kubeconfig.inCluster(environment: [:], root: directory.path) == nil)
    }

    @Test func execPlugin_isAskedOnceUntilItsCredentialsExpire() async throws {
        let script = try directory.write(
            "script",
            """
            echo x >> \(directory.path)/calls
            case "$KUBERNETES_EXEC_INFO" in *v1beta1*) ;; *) echo "no info" >&2; exit 3;; esac
            [ "$1" = get ] && [ "$ROLE" = reader ] || exit 4
            printf '{"kind":"ExecCredential","status":{"token":"from-plugin","expirationTimestamp":"1970-01-01T00:10:00Z"}}'
            """)
        // A program that was just written can't be started while another thread's child has it open: the shell can.
        try FileManager.default.createSymbolicLink(
            atPath: directory.path + "/plugin", withDestinationPath: "/bin/sh")
        let server = RawServer { _, connection in connection.answer("{}") }
        let endpoint = try Kubeconfig.endpoint(
            path: config(
                "exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: ./plugin, args: [\(script), get], env: [{name: ROLE, value: reader}]}",
                cluster: "server: '\(server.url)'"))
        let api = KubernetesAPI(endpoint: endpoint, client: HTTPClient(), time: FixedTime(nowMs: 1000))
        _ = try await api.get("/version")
        _ = try await api.get("/version")
        #expect(server.heads.allSatisfy { $0.contains("Authorization: Bearer from-plugin\r\n") })
        #expect(try String(contentsOfFile: directory.path + "/calls", encoding: .utf8) == "x\n")
        let late = KubernetesAPI(endpoint: endpoint, client: HTTPClient(), time: FixedTime(nowMs: 580_000))
        _ = try await late.get("/version")
        _ = try await late.get("/version")
        #expect(try String(contentsOfFile: directory.path + "/calls", encoding: .utf8) == "x\nx\nx\n")
    }

    @Test func execPluginThatFails_isToldWithItsWords() async throws {
        let endpoint = try Kubeconfig.endpoint(
            path: config("exec: {command: sh, args: ['-c', 'echo go away >&2; exit 7'], installHint: install it}"))
        let api = KubernetesAPI(endpoint: endpoint, client: HTTPClient(), time: FixedTime(nowMs: 0))
        await #expect(
            throws: KubernetesConfigError(
                file: "exec plugin sh", reason: "ended with the exit code 7: go away; install it")
        ) { try await api.get("/version") }
    }

    @Test func watchWithoutCredentials_endsWithTheReason() async throws {
        let endpoint = try Kubeconfig.endpoint(path: config("exec: {command: /nowhere/plugin}"))
        let api = KubernetesAPI(endpoint: endpoint, client: HTTPClient(), time: FixedTime(nowMs: 0))
        let pipe = BytePipe()
        let watch = Task { try await api.watch("/api/v1/pods", query: [], timeoutMs: 1000, into: pipe) }
        #expect(await pipe.next() == nil)
        await #expect(throws: KubernetesConfigError.self) { try await watch.value }
    }

    @Test func execPluginWhoseChildHoldsItsOutput_holdsNobodyUp() async throws {
        let mark = directory.path + "/ended"
        let endpoint = try Kubeconfig.endpoint(
            path: config("exec: {command: sh, args: ['-c', '(sleep 300; touch \(mark)) & echo no >&2; exit 3']}"))
        let api = KubernetesAPI(endpoint: endpoint, client: HTTPClient(), time: FixedTime(nowMs: 0))
        await #expect(throws: KubernetesConfigError(file: "exec plugin sh", reason: "ended with the exit code 3: no")) {
            try await api.get("/version")
        }
        // The child is still at it.
        #expect(!FileManager.default.fileExists(atPath: mark))
    }

    private struct FixedTime: TimeSource {
        var nowMs: Int64
        func sleep(untilMs: Int64) async throws {}
    }
}
