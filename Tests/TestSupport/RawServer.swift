import Foundation
import Synchronization

/// A server on the loopback address that answers every connection with bytes of a test's choice: for answers that no
/// decent server gives.
package final class RawServer: Sendable {
    package let port: Int
    private let socketDescriptor: Int32
    private let requests = Mutex<[String]>([])

    /// - Parameter handle: gets the head of the request and writes the answer; the connection is closed afterwards.
    package init(_ handle: @escaping @Sendable (String, Connection) -> Void) {
        signal(SIGPIPE, SIG_IGN)
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                _ = bind(descriptor, $0, length)
                _ = listen(descriptor, 64)
                _ = getsockname(descriptor, $0, &length)
            }
        }
        socketDescriptor = descriptor
        port = Int(UInt16(bigEndian: address.sin_port))
        weak let server = self
        let thread = Thread {
            while true {
                let client = accept(descriptor, nil, nil)
                guard client >= 0 else {
                    // Closed here and not where it is shut down: its number could be another server's by now.
                    close(descriptor)
                    return
                }
                let connection = Connection(descriptor: client)
                let worker = Thread {
                    let head = connection.readHead()
                    // Who goes before asking is no request.
                    if !head.isEmpty {
                        server?.note(head)
                        handle(head, connection)
                    }
                    shutdown(client, Int32(SHUT_RDWR))
                    close(client)
                }
                worker.start()
            }
        }
        thread.start()
    }

    deinit {
        shutdown(socketDescriptor, Int32(SHUT_RDWR))
    }

    private func note(_ head: String) { requests.withLock { $0.append(head) } }

    package var url: String { "http://127.0.0.1:\(port)" }

    /// The heads of the requests so far.
    package var heads: [String] { requests.withLock { $0 } }

    package struct Connection: Sendable {
        let descriptor: Int32

        /// The next request; empty once the other side is gone.
        package func readHead() -> String {
            var bytes: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 65_536)
            while true {
                let count = recv(descriptor, &buffer, buffer.count, 0)
                if count <= 0 { break }
                bytes += buffer[..<count]
                let text = String(decoding: bytes, as: UTF8.self)
                guard let end = text.range(of: "\r\n\r\n") else { continue }
                let length =
                    text.lowercased().split(separator: "\r\n").first { $0.hasPrefix("content-length:") }
                    .flatMap { Int($0.dropFirst(15).trimmingCharacters(in: .whitespaces)) } ?? 0
                if text[end.upperBound...].utf8.count >= length { break }
            }
            return String(decoding: bytes, as: UTF8.self)
        }

        /// Writes bytes; false once the other side is gone.
        @discardableResult
        package func write(_ bytes: [UInt8]) -> Bool {
            var at = 0
            while at < bytes.count {
                let count = bytes[at...].withUnsafeBytes {
                    send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                }
                if count <= 0 { return false }
                at += count
            }
            return true
        }

        /// Writes a whole answer.
        package func answer(_ body: String, status: String = "200 OK", headers: String = "Content-Type: text/plain\r\n")
        {
            answer(bytes: Array(body.utf8), status: status, headers: headers)
        }

        package func answer(bytes: [UInt8], status: String = "200 OK", headers: String = "") {
            let head = "HTTP/1.1 \(status)\r\n\(headers)Content-Length: \(bytes.count)\r\nConnection: close\r\n\r\n"
            write(Array(head.utf8) + bytes)
        }
    }
}
