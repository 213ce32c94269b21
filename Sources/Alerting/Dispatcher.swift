import Foundation
import Series

/// A message to one receiver about one group of alerts.
package struct GroupMessage: Sendable, Equatable {
    package var receiver: String
    package var groupKey: String
    package var groupLabels: [String: String]
    package var alerts: [Alert]

    package init(receiver: String, groupKey: String, groupLabels: [String: String], alerts: [Alert]) {
        self.receiver = receiver
        self.groupKey = groupKey
        self.groupLabels = groupLabels
        self.alerts = alerts
    }
}

/// What was told of one group of alerts.
package struct NotificationGroup: Sendable, Equatable, Codable {
    package var receiver: String
    package var labels: [String: String]
    package var createdMs: Int64
    /// When the group was last looked at for sending.
    package var flushedMs: Int64?
    package var notifiedMs: Int64?
    /// The firing alerts of the last message, by fingerprint, with when they began.
    package var firing: [String: Int64]
    /// The resolved ones.
    package var resolved: [String: Int64]
}

/// Decides when which alerts are told to whom: groups them, waits, repeats.
///
/// A pure state machine with Alertmanager's rules: a new group waits `group_wait`; after a message further ones are
/// `group_interval` apart, and only go out for an alert that is new or resolved, or after `repeat_interval`.
package struct Dispatcher: Sendable {
    private let route: Route
    package private(set) var groups: [String: NotificationGroup] = [:]

    package init(route: Route) { self.route = route }

    /// Takes back the groups that a process before this one wrote down.
    package mutating func restore(_ groups: [String: NotificationGroup]) { self.groups = groups }

    /// Looks at all alerts at a time.
    ///
    /// - Returns: The messages that are due. The state is that after sending them.
    package mutating func dispatch(_ alerts: [Alert], atMs: Int64) -> [GroupMessage] {
        var members: [String: (route: Route, labels: Labels, alerts: [Alert])] = [:]
        for alert in alerts {
            let labels = Labels(alert.labels.map { Label($0.key, $0.value) })
            for (route, path) in route.matching(labels) {
                let grouped = route.groupBy == ["..."] ? labels : labels.keeping(route.groupBy)
                members["\(path):\(grouped)", default: (route, grouped, [])].alerts.append(alert)
            }
        }
        var notifications: [GroupMessage] = []
        for (key, member) in members.sorted(by: { $0.key < $1.key }) {
            if let notification = flush(key, member.route, member.labels, member.alerts, atMs: atMs) {
                notifications.append(notification)
            }
        }
        for (key, group) in groups where members[key] == nil && group.firing.isEmpty { groups[key] = nil }
        return notifications
    }

    private mutating func flush(
        _ key: String, _ route: Route, _ labels: Labels, _ alerts: [Alert], atMs: Int64
    ) -> GroupMessage? {
        let firing = alerts.filter(\.isFiring)
        var group: NotificationGroup
        if let known = groups[key] {
            group = known
        } else {
            // A group begins with an alert that fires: one that ended untold is not worth a message.
            guard !firing.isEmpty else { return nil }
            group = NotificationGroup(
                receiver: route.receiver, labels: Dictionary(labels.pairs.map { ($0.name, $0.value) }) { $1 },
                createdMs: atMs, flushedMs: nil, notifiedMs: nil, firing: [:], resolved: [:])
        }
        defer { groups[key] = group }
        let dueMs = group.flushedMs.map { $0 + route.groupIntervalMs } ?? group.createdMs + route.groupWaitMs
        guard atMs >= dueMs else { return nil }
        group.flushedMs = atMs
        let nowFiring = Dictionary(firing.map { ($0.fingerprint, $0.startsAtMs) }) { $1 }
        // What was told as firing and no longer is, ended; what is unknown by now ended as well.
        let ended = alerts.filter {
            !$0.isFiring && group.firing[$0.fingerprint] != nil && nowFiring[$0.fingerprint] == nil
        }
        let isNew = nowFiring.contains { group.firing[$0.key] != $0.value }
        let repeats = group.notifiedMs.map { atMs - $0 >= route.repeatIntervalMs } ?? true
        guard isNew || !ended.isEmpty || (repeats && !firing.isEmpty) else { return nil }
        group.notifiedMs = atMs
        group.firing = nowFiring
        group.resolved = Dictionary(ended.map { ($0.fingerprint, $0.startsAtMs) }) { $1 }
        let sorted = (firing + ended).sorted { ($0.startsAtMs, $0.fingerprint) < ($1.startsAtMs, $1.fingerprint) }
        return GroupMessage(receiver: route.receiver, groupKey: key, groupLabels: group.labels, alerts: sorted)
    }
}
