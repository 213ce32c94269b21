import Series

/// A request of Prometheus' remote read (prometheus.io/docs/prometheus/latest/querying/remote_read_api, `remote.proto`):
/// one query, answered by samples.
struct ReadRequest {
    var matchers: [LabelMatcher]
    var fromMs: Int64
    var throughMs: Int64

    func encoded() -> [UInt8] {
        var writer = ProtobufWriter()
        writer.field(1) { query in
            query.field(1, UInt64(bitPattern: fromMs))
            query.field(2, UInt64(bitPattern: throughMs))
            for matcher in matchers {
                let type: UInt64 =
                    switch matcher.operator {
                    case .equal: 0
                    case .notEqual: 1
                    case .matches: 2
                    case .notMatches: 3
                    }
                query.field(3) {
                    $0.field(1, type)
                    $0.field(2, matcher.name)
                    $0.field(3, matcher.value)
                }
            }
        }
        return writer.bytes
    }
}

/// The answer: the series of the first query.
enum ReadResponse {
    /// - Throws: ``RemoteError`` for bytes that are no such message, and for series without a name.
    static func decode(_ bytes: [UInt8]) throws(RemoteError) -> [SeriesSamples] {
        // A query's result has the shape of a write request: series with labels and samples.
        try bytes.withUnsafeBufferPointer { (buffer) throws(RemoteError) in
            var reader = ProtobufReader(UnsafeRawBufferPointer(buffer))
            var series: [SeriesSamples] = []
            while let (number, wire) = try reader.next() {
                if number == 1, wire == .bytes {
                    series += try WriteRequest.version1(reader.nested()).series
                } else {
                    try reader.skip(wire)
                }
            }
            return series
        }
    }
}
