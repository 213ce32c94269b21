import Alerting
import Discovery
import Fetch
import Foundation
import Remote
import Scrape

extension Config {
    /// The files with certificates, keys, passwords, tokens and clusters that the configuration names and that can't be read, once
    /// each.
    ///
    /// They are read when they are used, and may change; a check can tell that they are not there.
    package var unreadableFiles: [String] {
        var clients = jobs.map(\.job.template.client) + receivers.flatMap { $0.webhooks.map(\.client) }
        if let remote = storage.remote { clients.append(remote.client) }
        clients += alerting.alertmanagers.map(\.client)
        let discoveries = jobs.flatMap(\.discoveries) + alerting.alertmanagers.flatMap(\.discoveries)
        for case .http(let discovery) in discoveries { clients.append(discovery.client) }
        let named = clients.flatMap(\.files) + [kubernetes?.kubeconfig].compactMap(\.self)
        return Set(named).sorted().filter { !FileManager.default.isReadableFile(atPath: $0) }
    }

    /// Jobs whose names the built-in signals look for, and that are not there under any name that can be told beforehand.
    package var missingJobs: [String] {
        let renames = jobs.contains { job in
            (job.job.relabelRules + job.job.template.metricRelabelRules).contains { $0.targetLabel == "job" }
        }
        guard !renames else { return [] }
        return ["kube-apiserver", "kubelet"].filter { name in !jobs.contains { $0.job.name == name } }
    }
}
