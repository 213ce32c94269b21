import PromQL
import Series

/// Any text as an expression; what parses is evaluated over a few series.
private let store: MemorySeries = {
    let store = MemorySeries()
    for step in 0..<20 {
        store.append(
            [
                (["__name__": "a", "x": "1"], Double(step)), (["__name__": "a", "x": "2"], Double(step % 3)),
                (["__name__": "b_bucket", "le": "1"], 1), (["__name__": "b_bucket", "le": "+Inf"], 2),
            ], atMs: Int64(step) * 15_000)
    }
    return store
}()

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let text = String(decoding: UnsafeBufferPointer(start: data, count: count), as: UTF8.self)
    var engine = QueryEngine()
    engine.maxSamples = 100_000
    _ = try? engine.instant(text, atMs: 300_000, source: store)
    _ = try? engine.range(text, startMs: 0, endMs: 300_000, stepMs: 60_000, source: store)
    return 0
}
