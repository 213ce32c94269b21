import HTTPTypes
import Hummingbird
import Remote
import Series

extension WebAPI {
    /// The largest body of remote write that is read, compressed, and once it is plain: senders cut their requests to
    /// some thousands of samples.
    private static let maxWriteBytes = 16 << 20
    private static let maxPlainBytes = 64 << 20
    /// Samples from further ahead are refused, as Prometheus does.
    private static let maxAheadMs: Int64 = 600_000

    /// The route to which another Prometheus writes.
    static func remoteWrite(_ router: Router<BasicRequestContext>, _ context: WebContext) {
        router.post("/api/v1/write") { request, _ in
            guard let receiver = context.receiver else {
                return text(
                    "remote write receiver needs to be enabled with --web.enable-remote-write-receiver\n",
                    status: .notFound)
            }
            guard
                let message = WriteRequest.Message(
                    contentType: request.headers[.contentType] ?? "application/x-protobuf")
            else {
                return text(
                    "the content type must be application/x-protobuf, with proto=prometheus.WriteRequest or "
                        + "proto=io.prometheus.write.v2.Request\n", status: .unsupportedMediaType)
            }
            guard request.headers[.contentEncoding] ?? "snappy" == "snappy" else {
                return text("the content encoding must be snappy\n", status: .unsupportedMediaType)
            }
            do {
                let body = try await request.body.collect(upTo: maxWriteBytes)
                let plain = try Snappy.decompress(Array(body.readableBytesView), most: maxPlainBytes)
                return written(
                    try WriteRequest.decode(plain, message), message, to: receiver, nowMs: context.time.nowMs)
            } catch let error as RemoteError {
                return text("\(error)\n", status: .badRequest)
            } catch {
                return text(
                    "the body can't be read, or is larger than \(maxWriteBytes) bytes\n", status: .contentTooLarge)
            }
        }
    }

    private static func written(
        _ request: WriteRequest, _ message: WriteRequest.Message, to receiver: any SampleSink, nowMs: Int64
    ) -> Response {
        receiver.setMetadata(request.metadata)
        let count = request.series.reduce(0) { $0 + $1.values.count }
        let result = append(request.series, to: receiver, latestMs: nowMs + maxAheadMs)
        var headers: [(String, String)] = []
        if message == .v2 {
            headers = [
                ("X-Prometheus-Remote-Write-Samples-Written", "\(result.accepted)"),
                ("X-Prometheus-Remote-Write-Histograms-Written", "0"),
                ("X-Prometheus-Remote-Write-Exemplars-Written", "0"),
            ]
        }
        if result.dropped > 0 {
            // The sender keeps what is not taken, and sends it again.
            return text(
                "too many samples wait to be written to disk\n", status: .serviceUnavailable, headers: headers)
        }
        if result.outOfOrder > 0 {
            return text(
                "\(result.outOfOrder) of \(count) samples are older than the newest of their series, or of no time that is\n",
                status: .badRequest, headers: headers)
        }
        if request.histograms > 0 {
            return text("native histograms are not supported\n", status: .badRequest, headers: headers)
        }
        return text("", status: .noContent, headers: headers)
    }

    /// Appends series by rows: those of one target most often share their times.
    ///
    /// What is from before 1970 or ahead of us counts as out of order: a series would take nothing else until then.
    private static func append(
        _ all: [SeriesSamples], to receiver: any SampleSink, latestMs: Int64
    ) -> AppendResult {
        struct Row: Hashable {
            var source: SampleSource
            var timestampMs: Int64
        }
        var result = AppendResult()
        var rows: [Row: (ids: [SeriesID], values: [Double])] = [:]
        var order: [Row] = []
        for (id, series) in zip(receiver.ids(for: all.map(\.labels)), all) {
            let source = receiver.source(series.labels.keeping(["instance", "job"]))
            for (timestampMs, value) in zip(series.timestampsMs, series.values) {
                guard (0...latestMs).contains(timestampMs) else {
                    result.outOfOrder += 1
                    continue
                }
                let row = Row(source: source, timestampMs: timestampMs)
                if rows[row] == nil { order.append(row) }
                rows[row, default: ([], [])].ids.append(id)
                rows[row, default: ([], [])].values.append(value)
            }
        }
        for row in order.sorted(by: { $0.timestampMs < $1.timestampMs }) {
            guard let samples = rows[row] else { continue }
            result += receiver.append(samples.values, of: samples.ids, from: row.source, atMs: row.timestampMs)
        }
        // Series had another number a moment ago: sent again, they are found.
        result.dropped += result.unknown
        return result
    }
}
