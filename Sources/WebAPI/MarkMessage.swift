import Cluster
import Series

/// A mark as the API and `upgrade-watch mark` exchange it.
package struct MarkMessage: Codable, Sendable {
    package var kind: UpgradeMark.Kind
    /// RFC 3339; nil: when the message arrives.
    package var at: String?
    package var component: String?
    package var node: String?
    package var from: String?
    package var to: String?
    package var note: String?
    /// By how much an `extend` makes the soak longer, as Prometheus writes durations.
    package var by: String?

    package init(_ mark: UpgradeMark) {
        kind = mark.kind
        at = TimeFormat.rfc3339(ms: mark.atMs)
        component = mark.component
        node = mark.node
        from = mark.from
        to = mark.to
        note = mark.note
        by = mark.byMs.map { TimeFormat.duration(ms: $0) }
    }

    /// The mark; nil where the time or the duration is none.
    package func mark(nowMs: Int64) -> UpgradeMark? {
        var atMs = nowMs
        if let at {
            guard let ms = TimeFormat.milliseconds(rfc3339: at) else { return nil }
            atMs = ms
        }
        var byMs: Int64?
        if kind == .extend {
            guard let ms = by.flatMap(TimeFormat.durationMs), UpgradeMark.extensions.contains(ms) else {
                return nil
            }
            byMs = ms
        }
        return UpgradeMark(
            kind: kind, atMs: atMs, component: component, node: node, from: from, to: to, note: note, byMs: byMs)
    }
}
