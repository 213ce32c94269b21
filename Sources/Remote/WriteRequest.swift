import Series

/// What another Prometheus sends by remote write: series with their new samples
/// (prometheus.io/docs/specs/prw/remote_write_spec and remote_write_spec_2_0).
package struct WriteRequest: Sendable, Equatable {
    /// The messages of the protocol.
    package enum Message: Sendable, CaseIterable {
        /// `prometheus.WriteRequest`, of version 1.0.
        case v1
        /// `io.prometheus.write.v2.Request`, of version 2.0.
        case v2

        /// The message that a `Content-Type` names; nil for one that is none.
        package init?(contentType: String) {
            let parts = contentType.split(separator: ";").map { part in
                String(part.filter { $0 != " " && $0 != "\t" && $0 != "\"" })
            }
            guard parts.first?.lowercased() == "application/x-protobuf" else { return nil }
            switch parts.dropFirst().first(where: { $0.lowercased().hasPrefix("proto=") })?.dropFirst(6) {
            case nil, "prometheus.WriteRequest": self = .v1
            case "io.prometheus.write.v2.Request": self = .v2
            default: return nil
            }
        }
    }

    package var series: [SeriesSamples] = []
    package var metadata: [MetricMetadata] = []
    /// Native histograms and exemplars, which are not kept.
    package var histograms = 0
    package var exemplars = 0

    package init() {}

    /// The most labels of a series, and the most symbols of a request, that are read.
    private static let maxLabels = 10_000
    /// By their numbers, which are those of both versions.
    private static let types = [
        "unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset",
    ]

    /// Reads a message.
    ///
    /// - Throws: ``RemoteError`` for bytes that are none, and for series without a name or with labels that stand twice.
    package static func decode(_ bytes: [UInt8], _ message: Message) throws(RemoteError) -> WriteRequest {
        try bytes.withUnsafeBufferPointer { (buffer) throws(RemoteError) in
            let reader = ProtobufReader(UnsafeRawBufferPointer(buffer))
            return message == .v1 ? try version1(reader) : try version2(reader)
        }
    }

    // MARK: 1.0

    static func version1(_ message: ProtobufReader) throws(RemoteError) -> WriteRequest {
        var reader = message
        var request = WriteRequest()
        while let (number, wire) = try reader.next() {
            switch (number, wire) {
            case (1, .bytes): request.series.append(try series1(reader.nested(), &request))
            case (3, .bytes): request.metadata.append(try metadata1(reader.nested()))
            default: try reader.skip(wire)
            }
        }
        return request
    }

    private static func series1(
        _ message: ProtobufReader, _ request: inout WriteRequest
    ) throws(RemoteError) -> SeriesSamples {
        var reader = message
        var labels: [Label] = []
        var series = SeriesSamples(labels: Labels())
        while let (number, wire) = try reader.next() {
            switch (number, wire) {
            case (1, .bytes):
                var inner = try reader.nested()
                var label = Label("", "")
                while let (number, wire) = try inner.next() {
                    switch (number, wire) {
                    case (1, .bytes): label.name = try inner.string()
                    case (2, .bytes): label.value = try inner.string()
                    default: try inner.skip(wire)
                    }
                }
                labels.append(label)
            case (2, .bytes): try sample(reader.nested(), into: &series)
            case (3, .bytes):
                request.exemplars += 1
                try reader.skip(wire)
            case (4, .bytes):
                request.histograms += 1
                try reader.skip(wire)
            default: try reader.skip(wire)
            }
        }
        series.labels = try checked(labels)
        return series
    }

    private static func sample(_ message: ProtobufReader, into series: inout SeriesSamples) throws(RemoteError) {
        var reader = message
        var value = 0.0
        var timestampMs: UInt64 = 0
        while let (number, wire) = try reader.next() {
            switch (number, wire) {
            case (1, .fixed64): value = try reader.double()
            case (2, .varint): timestampMs = try reader.varint()
            default: try reader.skip(wire)
            }
        }
        series.timestampsMs.append(Int64(bitPattern: timestampMs))
        series.values.append(value)
    }

    private static func metadata1(_ message: ProtobufReader) throws(RemoteError) -> MetricMetadata {
        var reader = message
        var metadata = MetricMetadata(name: "", type: types[0], help: "")
        while let (number, wire) = try reader.next() {
            switch (number, wire) {
            case (1, .varint): metadata.type = type(try reader.varint())
            case (2, .bytes): metadata.name = try reader.string()
            case (4, .bytes): metadata.help = try reader.string()
            case (5, .bytes): metadata.unit = try reader.string()
            default: try reader.skip(wire)
            }
        }
        return metadata
    }

    private static func type(_ number: UInt64) -> String { number < types.count ? types[Int(number)] : types[0] }

    // MARK: 2.0

    private static func version2(_ message: ProtobufReader) throws(RemoteError) -> WriteRequest {
        var symbols: [String] = []
        // The symbols may stand behind the series that name them.
        var reader = message
        while let (number, wire) = try reader.next() {
            if number == 4, wire == .bytes { symbols.append(try reader.string()) } else { try reader.skip(wire) }
        }
        reader = message
        var request = WriteRequest()
        while let (number, wire) = try reader.next() {
            if number == 5, wire == .bytes {
                request.series.append(try series2(reader.nested(), symbols, &request))
            } else {
                try reader.skip(wire)
            }
        }
        return request
    }

    private static func series2(
        _ message: ProtobufReader, _ symbols: [String], _ request: inout WriteRequest
    ) throws(RemoteError) -> SeriesSamples {
        var reader = message
        var references: [UInt64] = []
        var series = SeriesSamples(labels: Labels())
        var metadata: MetricMetadata?
        while let (number, wire) = try reader.next() {
            switch (number, wire) {
            case (1, .bytes), (1, .varint): try reader.numbers(wire, into: &references)
            case (2, .bytes): try sample(reader.nested(), into: &series)
            case (3, .bytes):
                request.histograms += 1
                try reader.skip(wire)
            case (4, .bytes):
                request.exemplars += 1
                try reader.skip(wire)
            case (5, .bytes): metadata = try metadata2(reader.nested(), symbols)
            default: try reader.skip(wire)
            }
        }
        guard references.count % 2 == 0 else {
            throw RemoteError(.malformed, "a series has \(references.count) references of labels, an odd number")
        }
        var labels: [Label] = []
        for index in stride(from: 0, to: references.count, by: 2) {
            labels.append(Label(try symbol(references[index], symbols), try symbol(references[index + 1], symbols)))
        }
        series.labels = try checked(labels)
        if var metadata {
            metadata.name = series.labels.name
            // What the series of one metric say stands together.
            if request.metadata.last != metadata { request.metadata.append(metadata) }
        }
        return series
    }

    private static func symbol(_ reference: UInt64, _ symbols: [String]) throws(RemoteError) -> String {
        guard reference < symbols.count else {
            throw RemoteError(.malformed, "a series names symbol \(reference), and there are \(symbols.count)")
        }
        return symbols[Int(reference)]
    }

    private static func metadata2(
        _ message: ProtobufReader, _ symbols: [String]
    ) throws(RemoteError) -> MetricMetadata {
        var reader = message
        var metadata = MetricMetadata(name: "", type: types[0], help: "")
        while let (number, wire) = try reader.next() {
            switch (number, wire) {
            case (1, .varint): metadata.type = type(try reader.varint())
            case (3, .varint): metadata.help = try symbol(try reader.varint(), symbols)
            case (4, .varint): metadata.unit = try symbol(try reader.varint(), symbols)
            default: try reader.skip(wire)
            }
        }
        return metadata
    }

    // MARK: Labels

    private static func checked(_ labels: [Label]) throws(RemoteError) -> Labels {
        guard labels.count <= maxLabels else {
            throw RemoteError(.malformed, "a series has \(labels.count) labels; at most \(maxLabels) are taken")
        }
        let set = Labels(labels)
        guard !set.name.isEmpty else { throw RemoteError(.malformed, "a series has no name: \(set)") }
        guard set.pairs.count == labels.count(where: { !$0.value.isEmpty }) else {
            throw RemoteError(.malformed, "a series has a label twice: \(set)")
        }
        return set
    }

    // MARK: Writing

    /// The message of version 1.0.
    package func encoded() -> [UInt8] {
        var writer = ProtobufWriter()
        for series in series {
            writer.field(1) { message in
                for label in series.labels.pairs {
                    message.field(1) {
                        $0.field(1, label.name)
                        $0.field(2, label.value)
                    }
                }
                for (timestampMs, value) in zip(series.timestampsMs, series.values) {
                    message.sample(2, value, UInt64(bitPattern: timestampMs))
                }
            }
        }
        for entry in metadata {
            writer.field(3) {
                $0.field(1, UInt64(WriteRequest.types.firstIndex(of: entry.type) ?? 0))
                $0.field(2, entry.name)
                $0.field(4, entry.help)
                $0.field(5, entry.unit)
            }
        }
        return writer.bytes
    }
}
