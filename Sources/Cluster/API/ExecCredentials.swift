import Fetch
import Foundation
import Series
import Synchronization

/// Credentials from an exec plugin, kept until they expire (client.authentication.k8s.io/v1 `ExecCredential`).
final class ExecCredentials: Sendable {
    private struct Credential: Decodable {
        struct Status: Decodable {
            var token: String?
            var clientCertificateData: String?
            var clientKeyData: String?
            var expirationTimestamp: String?
        }
        var status: Status?
    }

    private struct Kept {
        var status: Credential.Status
        var untilMs: Int64
    }

    private let plugin: ExecPlugin
    private let kept = Mutex<Kept?>(nil)

    /// Asked for again so long before they expire.
    private static let marginMs: Int64 = 30_000
    private static let timeoutMs: Int64 = 60_000

    init(_ plugin: ExecPlugin) { self.plugin = plugin }

    /// The server did not take them: the next request asks for new ones.
    func forget() { kept.withLock { $0 = nil } }

    /// Puts the credentials into a request.
    ///
    /// - Throws: ``KubernetesConfigError`` where the plugin fails.
    func apply(to request: inout FetchRequest, nowMs: Int64) async throws {
        let status: Credential.Status
        if let kept = kept.withLock({ $0 }), kept.untilMs > nowMs {
            status = kept.status
        } else {
            status = try await run()
            let untilMs = status.expirationTimestamp.flatMap { TimeFormat.milliseconds(rfc3339: $0) } ?? .max
            kept.withLock { $0 = Kept(status: status, untilMs: untilMs - ExecCredentials.marginMs) }
        }
        if let token = status.token {
            request.authentication = .authorization(type: "Bearer", credentials: Secret(token))
        }
        if let cert = status.clientCertificateData, let key = status.clientKeyData {
            request.tls.cert = Secret(cert)
            request.tls.key = Secret(key)
            request.tls.certFile = nil
            request.tls.keyFile = nil
        }
    }

    private func run() async throws -> Credential.Status {
        func fail(_ reason: String) -> KubernetesConfigError {
            let hint = plugin.installHint.isEmpty ? "" : "; \(plugin.installHint)"
            return KubernetesConfigError(file: "exec plugin \(plugin.command)", reason: reason + hint)
        }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [plugin.command] + plugin.arguments
        var environment = ProcessInfo.processInfo.environment.merging(plugin.environment) { $1 }
        environment["KUBERNETES_EXEC_INFO"] =
            #"{"apiVersion":"\#(plugin.apiVersion)","kind":"ExecCredential","spec":{"interactive":false}}"#
        process.environment = environment
        process.standardInput = FileHandle.nullDevice
        let output = Pipe()
        let errors = Pipe()
        process.standardOutput = output
        process.standardError = errors
        let code: Int32
        let text: Data
        let words: Data
        do {
            let ended = AsyncStream<Int32>.makeStream()
            process.terminationHandler = { process in
                ended.continuation.yield(process.terminationStatus)
                ended.continuation.finish()
            }
            try process.run()
            let watchdog = DispatchWorkItem { kill(process.processIdentifier, SIGKILL) }
            DispatchQueue.global().asyncAfter(
                deadline: .now() + .milliseconds(Int(ExecCredentials.timeoutMs)), execute: watchdog)
            defer { watchdog.cancel() }
            async let first = ExecCredentials.read(output.fileHandleForReading)
            async let second = ExecCredentials.read(errors.fileHandleForReading)
            (text, words) = await (first, second)
            var status: Int32 = -1
            for await value in ended.stream { status = value }
            code = status
        } catch {
            throw fail("can't be started: \(error.localizedDescription)")
        }
        guard code == 0 else {
            // What a plugin prints to standard error is for people; what it prints to standard output is secret.
            let line = String(decoding: words.prefix(400), as: UTF8.self).split(separator: "\n").first ?? ""
            throw fail("ended with the exit code \(code)\(line.isEmpty ? "" : ": \(line)")")
        }
        guard let credential = try? JSONDecoder().decode(Credential.self, from: text), let status = credential.status,
            status.token != nil || status.clientCertificateData != nil
        else { throw fail("printed no ExecCredential with a status") }
        return status
    }

    private static func read(_ handle: FileHandle) async -> Data {
        await withCheckedContinuation { continuation in
            DispatchQueue.global().async {
                continuation.resume(returning: (try? handle.readToEnd()) ?? Data())
            }
        }
    }
}
