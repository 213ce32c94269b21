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
    package var tls = TLSOptions()
    package var authentication = Authentication.none
    package var compression = true
    package var followRedirects = true

    package init(labels: Labels, url: String, intervalMs: Int64 = 15_000, timeoutMs: Int64 = 10_000) {
        self.labels = labels
        self.url = url
        self.intervalMs = intervalMs
        self.timeoutMs = timeoutMs
    }

    /// The request that a scrape sends; both formats are asked for, as Prometheus does.
    func request() -> FetchRequest {
        var request = FetchRequest(url: url)
        request.timeoutMs = timeoutMs
        request.maxBodyBytes = limits.bodyBytes
        request.tls = tls
        request.authentication = authentication
        request.compression = compression
        request.followRedirects = followRedirects
        let seconds = Double(timeoutMs) / 1000
        request.headers = [
            (
                "Accept",
                "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
            ),
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
