import Exposition
import Fetch
import Series

/// One endpoint that is scraped.
package struct ScrapeTarget: Sendable {
    /// `job`, `instance` and what else every series of the target carries.
    package var labels: Labels
    package var url: String
    package var intervalMs: Int64
    package var timeoutMs: Int64
    package var limits = ScrapeLimits()
    package var honorLabels = false
    package var honorTimestamps = true
    package var metricRelabelRules: [RelabelRule] = []
    /// Which metrics are read at all; nil: all.
    package var filter: MetricFilter?
    package var client = ClientOptions()
    package var compression = true
    /// The formats that are asked for, the best first.
    package var protocols = ScrapeProtocol.all
    /// How an answer is read whose `Content-Type` is missing or none of a known format; nil: it is refused, but where it
    /// is missing.
    package var fallback: ExpositionFormat?
    /// `escaping` of the formats that are asked for; nil: it is not said.
    package var escaping: String?
    /// Whether a series that is gone is marked as ended although its samples had times of their own.
    package var tracksTimestampsStaleness = false

    package init(labels: Labels, url: String, intervalMs: Int64 = 15_000, timeoutMs: Int64 = 10_000) {
        self.labels = labels
        self.url = url
        self.intervalMs = intervalMs
        self.timeoutMs = timeoutMs
    }

    /// The request that a scrape sends.
    package func request() -> FetchRequest {
        var request = FetchRequest(url: url, client: client)
        request.timeoutMs = timeoutMs
        request.turn = .usual
        request.maxBodyBytes = limits.bodyBytes
        request.compression = compression
        let seconds = Double(timeoutMs) / 1000
        request.headers = [
            ("Accept", ScrapeProtocol.accept(protocols, escaping: escaping)),
            ("X-Prometheus-Scrape-Timeout-Seconds", "\(seconds)"),
        ]
        return request
    }
}

/// What one scrape may bring; more fails the scrape.
package struct ScrapeLimits: Sendable, Equatable {
    /// Bytes after decompression.
    ///
    /// An apiserver of a large cluster answers with tens of megabytes.
    package var bodyBytes = 128 << 20
    /// After relabelling; 0 is no limit.
    package var samples = 0
    /// Labels of a series.
    package var labels = 64
    package var labelNameLength = 1024
    package var labelValueLength = 16_384

    package init() {}
}
