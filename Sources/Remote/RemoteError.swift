/// A message of the remote write or read protocol that can't be taken.
package struct RemoteError: Error, Equatable, CustomStringConvertible {
    package enum Code: Sendable {
        /// Not compressed as the protocol says.
        case compression
        /// More than is taken, or than the other side gives at once.
        case tooMuch
        /// Not a message of the protocol.
        case malformed
        /// The other side answered with an error, or not at all.
        case unavailable
    }

    package var code: Code
    package var reason: String

    package init(_ code: Code, _ reason: String) {
        self.code = code
        self.reason = reason
    }

    package var description: String { reason }
}
