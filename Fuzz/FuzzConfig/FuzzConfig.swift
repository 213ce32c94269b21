import Alerting
import Comparison
import LogWatch
import Series
import Simulator
import StrictYAML

/// Any text as a rule file, a signal file, a file of log rules and a scenario.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let text = String(decoding: UnsafeBufferPointer(start: data, count: count), as: UTF8.self)
    if let document = try? YAMLDocument(text: text, file: "fuzz") { _ = try? RuleFile.load(document) }
    if let document = try? YAMLDocument(text: text, file: "fuzz") { _ = try? Signal.load(document) }
    if let document = try? YAMLDocument(text: text, file: "fuzz") { _ = try? LogRule.load(document) }
    _ = try? Scenario.load(text: text, file: "fuzz")
    _ = try? Template(text).expand(TemplateData(labels: ["a": "b"], value: 1.5))
    return 0
}
