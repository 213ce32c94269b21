import Storage

/// Any bytes as a block; what decodes is encoded and decoded again, to the same samples.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    var times: [Int64] = []
    var values: [Double] = []
    let bytes = Array(UnsafeBufferPointer(start: data, count: count))
    guard (try? BlockCodec.decode(bytes, timestampsMs: &times, values: &values)) != nil else { return 0 }
    var timesAgain: [Int64] = []
    var valuesAgain: [Double] = []
    let encoded = BlockCodec.encode(timestampsMs: times[...], values: values[...])
    guard (try? BlockCodec.decode(encoded, timestampsMs: &timesAgain, values: &valuesAgain)) != nil else {
        preconditionFailure("a block that was just encoded can't be decoded")
    }
    precondition(times == timesAgain && values.map(\.bitPattern) == valuesAgain.map(\.bitPattern))
    return 0
}
