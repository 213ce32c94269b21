/// A version of Kubernetes, such as `v1.25.10`, ordered by its numbers.
package struct KubernetesVersion: Sendable, Hashable, Comparable, CustomStringConvertible {
    package var major: Int
    package var minor: Int
    package var patch: Int
    /// As the component wrote it, with what follows the numbers (`v1.27.3-gke.100`).
    package var text: String

    /// Reads a version with or without a leading `v`; nil for a text without at least two numbers.
    package init?(_ text: String) {
        let plain = text.hasPrefix("v") ? text.dropFirst() : Substring(text)
        let numbers = plain.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false)
            .map { part in Int(part.prefix { $0.isASCII && $0.isNumber }) }
        guard numbers.count >= 2, let major = numbers[0], let minor = numbers[1] else { return nil }
        self.major = major
        self.minor = minor
        patch = numbers.count > 2 ? numbers[2] ?? 0 : 0
        self.text = text
    }

    package var description: String { text }

    package static func < (left: KubernetesVersion, right: KubernetesVersion) -> Bool {
        (left.major, left.minor, left.patch, left.text) < (right.major, right.minor, right.patch, right.text)
    }

    /// Whether the way from one version to another crosses a minor version: leaves one below it and arrives at it or
    /// beyond.
    package static func path(from: KubernetesVersion, to: KubernetesVersion, crosses minor: KubernetesVersion) -> Bool {
        (from.major, from.minor) < (minor.major, minor.minor) && (to.major, to.minor) >= (minor.major, minor.minor)
    }
}
