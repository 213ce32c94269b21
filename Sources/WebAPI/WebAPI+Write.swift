import HTTPTypes
import Hummingbird
import Remote
import Series

extension WebAPI {
    /// The largest body of remote write that is read, compressed, and once it is plain: senders cut their requests to
    /// some thousands of samples.
    private static let maxWriteBytes = 16 << 20
    private static let maxPlainBytes = 64 << 20

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
                return written(try WriteRequest.decode(plain, message), message, to: receiver)
            } catch let error as RemoteError {
                return text("\(error)\n", status: .badRequest)
            } catch {
                return text(
                    "the body can't be read, or is larger than \(maxWriteBytes) bytes\n", status: .contentTooLarge)
            }
        }
    }

    private static func written(
        _ request: WriteRequest, _ message: WriteRequest.Message, to receiver: any SampleSink
    ) -> Response {
        var batch = SampleBatch()
        for (id, series) in zip(receiver.ids(for: request.series.map(\.labels)), request.series) {
            for (timestampMs, value) in zip(series.timestampsMs, series.values) {
                batch.append(id, timestampMs: timestampMs, value: value)
            }
        }
        receiver.setMetadata(request.metadata)
        let result = receiver.append(batch)
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
                "\(result.outOfOrder) of \(batch.count) samples are older than the newest of their series\n",
                status: .badRequest, headers: headers)
        }
        if request.histograms > 0 {
            return text("native histograms are not supported\n", status: .badRequest, headers: headers)
        }
        return text("", status: .noContent, headers: headers)
    }
}
