import PromQLReference

/// The bytes choose an expression and its series; the engine must say of them what the reference says.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = UnsafeBufferPointer(start: data, count: count)
    var place = 0
    // After the last byte the choices go on from a mix of all before, so that short inputs have long series too.
    var mixed: UInt64 = 0x9e37_79b9_7f4a_7c15
    func choose(_ limit: Int) -> Int {
        if place < bytes.count {
            mixed = (mixed ^ UInt64(bytes[place])) &* 0x0000_0100_0000_01b3
            place += 1
            return Int(bytes[place - 1]) % limit
        }
        mixed ^= mixed << 13
        mixed ^= mixed >> 7
        mixed ^= mixed << 17
        return Int(mixed >> 33) % limit
    }
    let question = EngineAgreement.Question(ExpressionGenerator(choose: choose), choose: choose)
    if case .different(let words) = EngineAgreement.ask(question) {
        fatalError(
            "\(question.text) from \(question.startMs) to \(question.endMs) by \(question.stepMs): \(words); series \(question.series)"
        )
    }
    return 0
}
