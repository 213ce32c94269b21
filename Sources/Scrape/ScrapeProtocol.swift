import Exposition

/// A format that a target may be asked for, by the name that `scrape_protocols` gives it.
package enum ScrapeProtocol: String, Sendable, CaseIterable {
    case openMetrics1 = "OpenMetricsText1.0.0"
    case openMetrics0 = "OpenMetricsText0.0.1"
    case prometheus1 = "PrometheusText1.0.0"
    case prometheus0 = "PrometheusText0.0.4"

    /// What targets are asked for unless it is said otherwise.
    package static let all: [ScrapeProtocol] = [.openMetrics1, .prometheus0]

    /// How the format is read.
    package var format: ExpositionFormat {
        switch self {
        case .openMetrics1, .openMetrics0: .openMetrics
        case .prometheus1, .prometheus0: .prometheus
        }
    }

    private var mediaType: String {
        switch self {
        case .openMetrics1: "application/openmetrics-text;version=1.0.0"
        case .openMetrics0: "application/openmetrics-text;version=0.0.1"
        case .prometheus1: "text/plain;version=1.0.0"
        case .prometheus0: "text/plain;version=0.0.4"
        }
    }

    /// The header field `Accept` of a scrape, each format preferred to the next, as Prometheus writes it
    /// (`scrape/scrape.go`, `acceptHeader`).
    ///
    /// - Parameter escaping: how names are to be written that the format of old does not allow; only the formats 1.0.0
    ///   know of that.
    static func accept(_ protocols: [ScrapeProtocol], escaping: String?) -> String {
        let types = protocols.enumerated().map { place, one in
            let knowsEscaping = one == .openMetrics1 || one == .prometheus1
            let way = knowsEscaping ? escaping.map { ";escaping=\($0)" } ?? "" : ""
            return "\(one.mediaType)\(way);q=0.\(min(9, protocols.count + 4) - place)"
        }
        return (types + ["*/*;q=0.1"]).joined(separator: ",")
    }
}
