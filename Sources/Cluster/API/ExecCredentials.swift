import Fetch
import Foundation
import Series
import Synchronization

/// Credentials from an exec plugin, kept until they expire (client.authentication.k8s.io/v1 `ExecCredential`).
actor ExecCredentials {
    private struct Credential: Decodable {
        struct Status: Decodable {
            var token: String?
            var clientCertificateData: String?
            var clientKeyData: String?
            var expirationTimestamp: String?
        }
        var status: Status?
    }

    private let plugin: ExecPlugin
    private var kept: (status: Credential.Status, untilMs: Int64)?
    /// The run that all who ask meanwhile wait for.
    private var running: Task<Credential.Status, any Error>?

    /// Asked for again so long before they expire.
    private static let marginMs: Int64 = 30_000
    private static let timeoutSeconds = 60
    /// What a plugin prints is a few kilobytes.
    private static let maxBytes = 1 << 20

    init(_ plugin: ExecPlugin) { self.plugin = plugin }

    /// Takes in that the server did not take them: the next request asks for new ones.
    func forget() { kept = nil }

    /// Puts the credentials into a request.
    ///
    /// - Throws: ``KubernetesConfigError`` where the plugin fails.
    func applied(to request: FetchRequest, nowMs: Int64) async throws -> FetchRequest {
        let status = try await status(nowMs: nowMs)
        var request = request
        if let token = status.token {
            request.client.authentication = .authorization(type: "Bearer", credentials: .text(token))
        }
        if let cert = status.clientCertificateData, let key = status.clientKeyData {
            request.client.tls.cert = Secret(cert)
            request.client.tls.key = Secret(key)
            request.client.tls.certFile = nil
            request.client.tls.keyFile = nil
        }
        return request
    }

    private func status(nowMs: Int64) async throws -> Credential.Status {
        if let kept, kept.untilMs > nowMs { return kept.status }
        let task = running ?? Task { [plugin] in try await ExecCredentials.run(plugin) }
        running = task
        defer { running = nil }
        let status = try await withTaskCancellationHandler {
            try await task.value
        } onCancel: {
            task.cancel()
        }
        let untilMs = status.expirationTimestamp.flatMap { TimeFormat.milliseconds(rfc3339: $0) } ?? .max
        kept = (status, untilMs == .max ? .max : untilMs - ExecCredentials.marginMs)
        return status
    }

    private static func run(_ plugin: ExecPlugin) async throws -> Credential.Status {
        func fail(_ reason: String) -> KubernetesConfigError {
            let hint = plugin.installHint.isEmpty ? "" : "; \(plugin.installHint)"
            return KubernetesConfigError(file: "exec plugin \(plugin.command)", reason: reason + hint)
        }
        var environment = ProcessInfo.processInfo.environment.merging(plugin.environment) { $1 }
        environment["KUBERNETES_EXEC_INFO"] =
            #"{"apiVersion":"\#(plugin.apiVersion)","kind":"ExecCredential","spec":{"interactive":false}}"#
        let output = Collector()
        let errors = Collector()
        let id: pid_t
        do {
            id = try spawn(
                [plugin.command] + plugin.arguments, environment, output.pipe.fileHandleForWriting.fileDescriptor,
                errors.pipe.fileHandleForWriting.fileDescriptor)
        } catch {
            throw fail("can't be started: \(error.reason)")
        }
        try? output.pipe.fileHandleForWriting.close()
        try? errors.pipe.fileHandleForWriting.close()
        let watchdog = DispatchWorkItem { kill(-id, SIGKILL) }
        DispatchQueue.global().asyncAfter(deadline: .now() + .seconds(timeoutSeconds), execute: watchdog)
        let code = await withTaskCancellationHandler {
            await withCheckedContinuation { (continuation: CheckedContinuation<Int32, Never>) in
                // A thread of its own: it does nothing but wait.
                Thread { continuation.resume(returning: wait(for: id)) }.start()
            }
        } onCancel: {
            kill(-id, SIGKILL)
        }
        watchdog.cancel()
        // A child of the plugin may hold its output open: what the plugin itself wrote is there by now.
        let text = await output.bytes()
        let words = await errors.bytes()
        if Task.isCancelled { throw CancellationError() }
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

    private struct SpawnError: Error { var reason: String }

    /// Starts a program in a process group of its own, with all signals as they are by default.
    ///
    /// Foundation's `Process` waits for the program's children too, and passes ignored signals on.
    private static func spawn(
        _ words: [String], _ environment: [String: String], _ output: Int32, _ errors: Int32
    ) throws(SpawnError) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_adddup2(&actions, errors, 2)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var signals = sigset_t()
        sigfillset(&signals)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP))
        let arguments = words.map { strdup($0) }
        let variables = environment.map { strdup("\($0)=\($1)") }
        defer { (arguments + variables).forEach { free($0) } }
        var id = pid_t()
        let result = posix_spawnp(&id, words[0], &actions, &attributes, arguments + [nil], variables + [nil])
        guard result == 0 else { throw SpawnError(reason: String(cString: strerror(result))) }
        return id
    }

    /// Waits for a program's end; the exit code, or the negative number of the signal that ended it.
    private static func wait(for id: pid_t) -> Int32 {
        var status: Int32 = 0
        while waitpid(id, &status, 0) < 0, errno == EINTR {}
        return status & 0x7f == 0 ? (status >> 8) & 0xff : -(status & 0x7f)
    }

    /// Gathers what comes out of a pipe.
    private final class Collector: Sendable {
        let pipe = Pipe()
        private let state = Mutex((bytes: Data(), isAtEnd: false))

        init() {
            pipe.fileHandleForReading.readabilityHandler = { [weak self] handle in
                let chunk = handle.availableData
                self?.state.withLock { state in
                    if chunk.isEmpty { state.isAtEnd = true }
                    if state.bytes.count < ExecCredentials.maxBytes { state.bytes += chunk }
                }
                if chunk.isEmpty { handle.readabilityHandler = nil }
            }
        }

        /// What came, once the other side has closed it or had the time to.
        func bytes() async -> Data {
            for _ in 0..<50 {
                if state.withLock({ $0.isAtEnd }) { break }
                try? await Task.sleep(for: .milliseconds(10))
            }
            pipe.fileHandleForReading.readabilityHandler = nil
            return state.withLock { $0.bytes }
        }
    }
}
