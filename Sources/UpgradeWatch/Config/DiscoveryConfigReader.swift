import Cluster
import Discovery
import Fetch
import Foundation
import Series
import StrictYAML

/// Reads the `*_sd_configs` of an entry of `scrape_configs`.
struct DiscoveryConfigReader {
    let client: ClientConfigReader

    /// Those that Prometheus has and this program has not.
    private static let others = [
        "azure", "consul", "digitalocean", "dns", "docker", "dockerswarm", "ec2", "eureka", "gce", "hetzner", "ionos",
        "kuma", "lightsail", "linode", "marathon", "nerve", "nomad", "openstack", "ovhcloud", "puppetdb", "scaleway",
        "serverset", "stackit", "triton", "uyuni", "vultr",
    ]

    func read(_ fields: inout YAMLFields) -> [Discovery] {
        for name in DiscoveryConfigReader.others {
            fields.refuse(
                "\(name)_sd_configs",
                "this kind of discovery is not built; write the targets to a file for file_sd_configs, or list them "
                    + "under static_configs")
        }
        var found: [Discovery] = []
        for entry in fields.list("file_sd_configs") {
            entry.fields { fields in found.append(.file(file(&fields))) }
        }
        for entry in fields.list("http_sd_configs") {
            entry.fields { fields in found.append(.http(http(&fields))) }
        }
        for entry in fields.list("kubernetes_sd_configs") {
            entry.fields { fields in if let one = kubernetes(&fields) { found.append(.kubernetes(one)) } }
        }
        return found
    }

    private func file(_ fields: inout YAMLFields) -> FileDiscovery {
        let files = fields.list("files")
        if files.isEmpty { fields.value.report("\(fields.value.path): files must name at least one file") }
        for file in files {
            guard let text = file.string else { continue }
            let suffixes = [".json", ".yml", ".yaml"]
            if !suffixes.contains(where: { text.lowercased().hasSuffix($0) }) {
                file.report(
                    "\(file.path): \(Labels.quoted(text)) must end with .json, .yml or .yaml, and may have * in its last part"
                )
            }
        }
        var discovery = FileDiscovery(files: files.compactMap(\.string).map(client.resolve))
        if let ms = fields.durationMs("refresh_interval"), ms > 0 { discovery.refreshMs = ms }
        return discovery
    }

    private func http(_ fields: inout YAMLFields) -> HTTPDiscovery {
        let url = fields.required("url")
        let text = url?.string ?? ""
        if let url { ClientConfigReader.checkURL(text, url) }
        var discovery = HTTPDiscovery(url: text)
        if let ms = fields.durationMs("refresh_interval"), ms > 0 { discovery.refreshMs = ms }
        discovery.client = client.read(&fields)
        return discovery
    }

    private func kubernetes(_ fields: inout YAMLFields) -> KubernetesDiscovery? {
        let role = fields.required("role").flatMap(self.role)
        var discovery = KubernetesDiscovery(role: role ?? .node)
        let server = fields.take("api_server")
        let kubeconfig = fields.take("kubeconfig_file")
        let options = client.read(&fields)
        if let server, let url = server.string {
            ClientConfigReader.checkURL(url, server)
            if kubeconfig != nil { server.report("\(server.path): api_server and kubeconfig_file exclude each other") }
            discovery.connection = .server(KubernetesEndpoint(server: url, client: options))
        } else if let path = kubeconfig?.string {
            discovery.connection = .kubeconfig(path: client.resolve(path))
        } else if options.tls != TLSOptions() || options.authentication != .none {
            fields.value.report(
                "\(fields.value.path): TLS and credentials are for an api_server, which is not named here")
        }
        fields.take("namespaces")?.fields { fields in
            discovery.namespaces = fields.stringList("names")
            guard let own = fields.take("own_namespace"), own.bool == true else { return }
            if let name = KubernetesDiscovery.ownNamespace() {
                discovery.namespaces.append(name)
            } else {
                own.report("\(own.path): the process runs in no cluster, and so in no namespace; name it under names")
            }
        }
        for entry in fields.list("selectors") {
            entry.fields { fields in
                guard let role = fields.required("role").flatMap(self.role) else { return }
                var selector = KubernetesDiscovery.Selector(role: role)
                selector.label = fields.string("label") ?? ""
                selector.field = fields.string("field") ?? ""
                discovery.selectors.append(selector)
            }
        }
        fields.take("attach_metadata")?.fields { fields in
            discovery.attachesNode = fields.bool("node") ?? false
            discovery.attachesNamespace = fields.bool("namespace") ?? false
        }
        return role == nil ? nil : discovery
    }

    private func role(_ value: YAMLValue) -> KubernetesDiscovery.Role? {
        guard let text = value.string else { return nil }
        if let role = KubernetesDiscovery.Role(rawValue: text.lowercased()) { return role }
        value.report(
            "\(value.path): unknown role \(Labels.quoted(text)); known are "
                + KubernetesDiscovery.Role.allCases.map(\.rawValue).joined(separator: ", "))
        return nil
    }
}
