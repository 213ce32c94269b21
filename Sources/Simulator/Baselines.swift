import Comparison
import Foundation
import Statistics

/// The judges that others use, written plainly, on the same series: what ours must be better than.
///
/// Each looks every hour after the last step at one series a signal, of the whole cluster, as their users do.
package enum Baseline: String, Sendable, CaseIterable {
    /// Thresholds like those of the kubernetes-mixin's alerts.
    case thresholds
    /// Kayenta's NetflixACAJudge at its defaults: the last hour against the hour before the upgrade.
    case kayenta
    /// A two-sample Kolmogorov-Smirnov test on the same windows, at 1 %.
    case ks
    /// More than 5 % above the mean of the time before.
    case fivePercent = "five_percent"

    /// What a judge sees of a signal.
    struct Series {
        var signal: Signal
        var values: [(atMs: Int64, value: Double)]

        func values(fromMs: Int64, throughMs: Int64) -> [Double] {
            values.filter { $0.atMs > fromMs && $0.atMs <= throughMs }.map(\.value)
        }
    }

    private static let hourMs: Int64 = 3_600_000

    /// What the judge says of a simulated upgrade.
    func judge(_ series: [Series], upgradeMs: Int64, lastStepMs: Int64, endMs: Int64) -> JudgedRun {
        var run = JudgedRun()
        var isFailing = false
        var atMs = lastStepMs + Baseline.hourMs
        while atMs <= endMs {
            let bad = failing(series, upgradeMs: upgradeMs, atMs: atMs)
            if let first = bad.first {
                if !isFailing { run.pagesMs.append(atMs) }
                // What an alert says when it comes is what its reader goes by.
                run.blame =
                    run.blame
                    ?? .init(
                        component: first.signal.component.isEmpty ? nil : first.signal.component, batch: nil,
                        onsetMs: atMs)
            }
            isFailing = !bad.isEmpty
            run.verdict = isFailing ? .fail : .pass
            atMs += Baseline.hourMs
        }
        return run
    }

    private func failing(_ series: [Series], upgradeMs: Int64, atMs: Int64) -> [Series] {
        switch self {
        case .thresholds: series.filter { Baseline.isOverThreshold($0, atMs: atMs) }
        case .kayenta: Baseline.kayenta(series, upgradeMs: upgradeMs, atMs: atMs)
        case .ks:
            series.filter { one in
                let before = one.values(fromMs: upgradeMs - Baseline.hourMs, throughMs: upgradeMs)
                let after = one.values(fromMs: atMs - Baseline.hourMs, throughMs: atMs)
                return Baseline.ksPValue(before, after) < 0.01 && Baseline.mean(after) > Baseline.mean(before)
            }
        case .fivePercent:
            series.filter { one in
                let before = Baseline.mean(one.values(fromMs: .min, throughMs: upgradeMs))
                let after = Baseline.mean(one.values(fromMs: atMs - Baseline.hourMs, throughMs: atMs))
                return after > 1.05 * before && after > 0
            }
        }
    }

    /// The thresholds of the kubernetes-mixin's and the etcd and CoreDNS mixins' alerts that page or warn, for the signals
    /// that they have an alert for; what they say of a single instance is said of the cluster here.
    private static let limits: [String: Double] = [
        // KubeAPIErrorBudgetBurn and its latency part, KubeAggregatedAPIDown, KubeClientCertificateExpiration.
        "apiserver_errors": 0.01, "apiserver_read_latency_p99": 1, "apiserver_write_latency_p99": 1,
        "apiservices_unavailable": 0.5, "client_certificates_expiring": 0,
        // KubeClientErrors.
        "component_client_errors": 0.01,
        // etcdHighFsyncDurations, etcdHighCommitDurations, and four and five in a quarter of an hour of
        // etcdHighNumberOfLeaderChanges and etcdHighNumberOfFailedProposals.
        "etcd_fsync_p99": 0.5, "etcd_commit_p99": 0.25, "etcd_leader_changes": 4.0 / 900,
        "etcd_failed_proposals": 5.0 / 900,
        // KubeNodeNotReady, KubeNodeReadinessFlapping, KubeletPlegDurationHigh, KubeletPodStartUpLatencyHigh,
        // KubeletClientCertificateRenewalErrors.
        "nodes_not_ready": 0.5, "node_flaps": 2.0 / 900, "kubelet_pleg_relist": 10, "pod_start_latency": 60,
        "kubelet_certificate_renewals": 0,
        // CoreDNSErrorsHigh.
        "dns_errors": 0.03,
    ]

    /// Whether a signal was over its threshold for all of a quarter of an hour.
    private static func isOverThreshold(_ one: Series, atMs: Int64) -> Bool {
        let values = one.values(fromMs: atMs - 900_000, throughMs: atMs)
        guard !values.isEmpty, let limit = limits[one.signal.name] else { return false }
        return values.allSatisfy { $0 > limit }
    }

    /// High where the interval of the shift is over a quarter of its estimate.
    ///
    /// FAIL where the score, the part of signals with data that pass, is under the marginal threshold of 75. By default
    /// no metric is critical by itself.
    private static func kayenta(_ series: [Series], upgradeMs: Int64, atMs: Int64) -> [Series] {
        var judged = 0
        let high = series.filter { one in
            let before = one.values(fromMs: upgradeMs - hourMs, throughMs: upgradeMs)
            let after = one.values(fromMs: atMs - hourMs, throughMs: atMs)
            guard !before.isEmpty, !after.isEmpty else { return false }
            judged += 1
            guard let (low, estimate) = shift(before, after) else { return false }
            let ratio = mean(after) / mean(before)
            return low > 0.25 * abs(estimate) && (ratio.isNaN || ratio >= 1)
        }
        return 100 * (judged - high.count) < 75 * judged ? high : []
    }

    /// The lower end of the 98 % interval of the Mann-Whitney shift, and its estimate (Hodges and Lehmann 1963).
    private static func shift(_ before: [Double], _ after: [Double]) -> (low: Double, estimate: Double)? {
        guard before.count >= 5, after.count >= 5, before.sorted() != after.sorted() else { return nil }
        var differences: [Double] = []
        for x in after { for y in before { differences.append(x - y) } }
        differences.sort()
        let (m, n) = (Double(after.count), Double(before.count))
        let spread = (m * n * (m + n + 1) / 12).squareRoot()
        let rank = Int((m * n / 2 - 2.326 * spread).rounded(.down))
        return (differences[max(0, rank)], differences[differences.count / 2])
    }

    private static func mean(_ values: [Double]) -> Double {
        values.isEmpty ? 0 : values.reduce(0, +) / Double(values.count)
    }

    /// The asymptotic p-value of the two-sample statistic (Smirnov 1939).
    private static func ksPValue(_ a: [Double], _ b: [Double]) -> Double {
        guard a.count >= 5, b.count >= 5 else { return 1 }
        let (x, y) = (a.sorted(), b.sorted())
        var (i, j, distance) = (0, 0, 0.0)
        while i < x.count, j < y.count {
            let value = min(x[i], y[j])
            while i < x.count, x[i] <= value { i += 1 }
            while j < y.count, y[j] <= value { j += 1 }
            distance = max(distance, abs(Double(i) / Double(x.count) - Double(j) / Double(y.count)))
        }
        let size = (Double(x.count * y.count) / Double(x.count + y.count)).squareRoot()
        let lambda = (size + 0.12 + 0.11 / size) * distance
        guard lambda > 0.2 else { return 1 }
        var sum = 0.0
        for k in 1...50 {
            let term = exp(-2 * Double(k * k) * lambda * lambda)
            sum += k % 2 == 1 ? term : -term
        }
        return min(1, max(0, 2 * sum))
    }
}
