import Exposition

/// Any bytes as a scrape's body, in both formats, with the labels of what parses.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = UnsafeBufferPointer(start: data, count: count)
    for format in [ExpositionFormat.prometheus, .openMetrics] {
        guard let exposition = try? ExpositionParser.parse(bytes, format: format) else { continue }
        for index in 0..<exposition.count {
            let range = Int(exposition.starts[index])..<Int(exposition.ends[index])
            _ = try? ExpositionParser.labels(of: UnsafeBufferPointer(rebasing: bytes[range]))
        }
    }
    return 0
}
