import Foundation

/// Values in words.
package enum Units {
    /// A value with its unit, in a form that people read.
    package static func text(_ value: Double?, _ unit: String) -> String {
        guard let value else { return "nothing" }
        switch unit {
        case "ratio": return "\(short(value * 100)) %"
        case "seconds": return value < 1 ? "\(short(value * 1000)) ms" : "\(short(value)) s"
        case "bytes": return value >= 1_048_576 ? "\(short(value / 1_048_576)) MiB" : "\(short(value / 1024)) KiB"
        case "1/s": return value > 0 && value < 0.1 ? "\(short(value * 3600)) an hour" : "\(short(value)) a second"
        case "": return short(value)
        default: return "\(short(value)) \(unit)"
        }
    }

    private static func short(_ value: Double) -> String {
        let text = String(format: "%.3g", value)
        return text.contains("e") ? String(format: "%.0f", value) : text
    }
}
