import Storage

/// Any bytes as a frame of a block and as a journal row; what a frame says is encoded and decoded again, to the same
/// samples.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: data, count: count))
    _ = try? BlockCodec.samples(inJournal: bytes)
    let rows = (0..<1000).map { Int64($0) * 15_000 }
    guard let series = try? BlockCodec.columns(ofFrame: bytes, rows: rows) else { return 0 }
    // A damaged stream may have times that do not ascend; no store writes those.
    let whole = series.filter { zip($0.timestampsMs, $0.timestampsMs.dropFirst()).allSatisfy { $0 < $1 } }
    do {
        let frame = try BlockCodec.frame(of: whole, rows: rows)
        let again = try BlockCodec.columns(ofFrame: frame, rows: rows)
        precondition(again == whole.filter { !$0.values.isEmpty })
    } catch {
        preconditionFailure("a frame that was just encoded can't be decoded")
    }
    return 0
}
