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
    /// The firing alerts of the last message, by fingerprint.
    package var firing: [String: Alert]
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
            let labels = Labels(alert.labels)
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
        for (key, group) in groups where members[key] == nil {
            if group.firing.isEmpty {
                groups[key] = nil
                continue
            }
            // Nobody knows these alerts any more, because their rule is gone: they have ended.
            var last = route
            last.receiver = group.receiver
            let labels = Labels(group.labels)
            if let message = flush(key, last, labels, [], atMs: atMs) { notifications.append(message) }
        }
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
                receiver: route.receiver, labels: labels.values,
                createdMs: atMs, flushedMs: nil, notifiedMs: nil, firing: [:])
        }
        defer { groups[key] = group }
        let dueMs = group.flushedMs.map { $0 + route.groupIntervalMs } ?? group.createdMs + route.groupWaitMs
        guard atMs >= dueMs else { return nil }
        group.flushedMs = atMs
        let nowFiring = Dictionary(firing.map { ($0.fingerprint, $0) }) { $1 }
        // What was told as firing and is not any more has ended, whether its end is known or it is gone.
        let ends = Dictionary(alerts.filter { !$0.isFiring }.map { ($0.fingerprint, $0) }) { $1 }
        let ended = group.firing.filter { nowFiring[$0.key] == nil }.map { fingerprint, told in
            var alert = ends[fingerprint] ?? told
            if alert.endsAtMs == nil { alert.endsAtMs = atMs }
            return alert
        }
        let isNew = nowFiring.contains { group.firing[$0.key]?.startsAtMs != $0.value.startsAtMs }
        let repeats = group.notifiedMs.map { atMs - $0 >= route.repeatIntervalMs } ?? true
        guard isNew || !ended.isEmpty || (repeats && !firing.isEmpty) else { return nil }
        group.notifiedMs = atMs
        group.firing = nowFiring
        let sorted = (firing + ended).sorted { ($0.startsAtMs, $0.fingerprint) < ($1.startsAtMs, $1.fingerprint) }
        return GroupMessage(receiver: route.receiver, groupKey: key, groupLabels: group.labels, alerts: sorted)
    }
}
