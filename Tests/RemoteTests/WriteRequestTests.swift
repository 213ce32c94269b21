import Remote
import Series
import TestSupport
import Testing

@Suite struct WriteRequestTests {
    private static func request() -> WriteRequest {
        var request = WriteRequest()
        request.series = [
            SeriesSamples(
                labels: ["__name__": "up", "job": "kubelet", "node": "ü-1"], timestampsMs: [-1, 0, 1_795_392_000_000],
                values: [1, -0.0, .infinity]),
            SeriesSamples(labels: ["__name__": "gone"], timestampsMs: [7], values: [staleMarker]),
            SeriesSamples(labels: ["__name__": "empty"]),
        ]
        request.metadata = [MetricMetadata(name: "up", type: "gauge", help: "h\nh", unit: "s")]
        return request
    }

    @Test func whatIsWritten_isReadBack() throws {
        let request = WriteRequestTests.request()
        #expect(try WriteRequest.decode(request.encoded(), .v1) == request)
        let compressed = Snappy.compress(request.encoded())
        #expect(try Snappy.decompress(compressed, most: 10_000) == request.encoded())
    }

    /// A message of version 2.0, byte by byte after the specification's `types.proto`.
    @Test func version2_namesLabelsBySymbols() throws {
        let symbols = ["", "__name__", "http_requests_total", "code", "200", "Requests."]
        var bytes: [UInt8] = []
        for symbol in symbols { bytes += [0x22, UInt8(symbol.utf8.count)] + symbol.utf8 }
        let sample: [UInt8] = [0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0xac, 0x02]
        let metadata: [UInt8] = [0x08, 1, 0x18, 5]
        var series: [UInt8] = [0x0a, 4, 1, 2, 3, 4]
        series += [0x12, UInt8(sample.count)] + sample
        series += [0x2a, UInt8(metadata.count)] + metadata
        bytes += [0x2a, UInt8(series.count)] + series
        let request = try WriteRequest.decode(bytes, .v2)
        #expect(
            request.series == [
                SeriesSamples(
                    labels: ["__name__": "http_requests_total", "code": "200"], timestampsMs: [300], values: [1])
            ])
        #expect(
            request.metadata == [MetricMetadata(name: "http_requests_total", type: "counter", help: "Requests.")])
    }

    @Test func messages_areToldByTheContentType() {
        let v2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
        #expect(WriteRequest.Message(contentType: "application/x-protobuf") == .v1)
        #expect(WriteRequest.Message(contentType: "application/x-protobuf; proto=prometheus.WriteRequest") == .v1)
        #expect(WriteRequest.Message(contentType: v2) == .v2)
        #expect(WriteRequest.Message(contentType: "application/json") == nil)
        #expect(WriteRequest.Message(contentType: "application/x-protobuf;proto=other") == nil)
    }

    @Test func whatIsNoMessage_isRefused() throws {
        #expect(throws: RemoteError.self) { try Snappy.decompress([1, 2, 3], most: 100) }
        #expect(throws: RemoteError.self) { try Snappy.decompress([], most: 100) }
        let large = Snappy.compress([UInt8](repeating: 0, count: 1000))
        let error = #expect(throws: RemoteError.self) { try Snappy.decompress(large, most: 999) }
        #expect(error?.reason == "the body has 1000 bytes, more than the 999 that are taken")
        var nameless = WriteRequest()
        nameless.series = [SeriesSamples(labels: ["job": "a"])]
        #expect(throws: RemoteError.self) { try WriteRequest.decode(nameless.encoded(), .v1) }
    }

    /// No bytes may crash it: those of messages with some of them changed, cut or doubled.
    @Test func damagedMessages_areRefusedOrRead() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        let whole = WriteRequestTests.request().encoded()
        for _ in 0..<5000 {
            var bytes = whole
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let place = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.removeSubrange(place...)
                default: bytes.insert(UInt8.random(in: 0...255, using: &random), at: place)
                }
                if bytes.isEmpty { break }
            }
            for message in WriteRequest.Message.allCases { _ = try? WriteRequest.decode(bytes, message) }
            _ = try? Snappy.decompress(bytes, most: 1 << 20)
        }
    }
}
