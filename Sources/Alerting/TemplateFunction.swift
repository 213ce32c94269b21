import Foundation
import PromQL
import Series

/// The functions of the template language.
enum TemplateFunction {
    static let names: Set<String> = [
        "humanize", "humanize1024", "humanizeDuration", "humanizePercentage", "humanizeTimestamp", "printf", "print",
        "title", "toUpper", "toLower", "match", "reReplaceAll", "stripPort", "stripDomain", "eq", "ne", "lt", "le",
        "gt",
        "ge", "and", "or", "not", "len", "parseDuration",
    ]

    static func call(_ name: String, _ arguments: [TemplateValue]) throws(TemplateError) -> TemplateValue {
        switch name {
        case "humanize": return .string(Humanize.si(try number(name, arguments)))
        case "humanize1024": return .string(Humanize.binary(try number(name, arguments)))
        case "humanizeDuration": return .string(Humanize.duration(try number(name, arguments)))
        case "humanizePercentage": return .string("\(GoFormat.significant(try number(name, arguments) * 100, 4))%")
        case "humanizeTimestamp":
            let seconds = try number(name, arguments)
            guard abs(seconds) < 9e12 else { return .string(GoFormat.shortest(seconds)) }
            return .string(TimeFormat.rfc3339(ms: Int64((seconds * 1000).rounded())))
        case "printf":
            guard case .string(let format)? = arguments.first else {
                throw TemplateError(reason: "printf needs a format")
            }
            return .string(GoFormat.printf(format, Array(arguments.dropFirst())))
        case "print": return .string(arguments.map(\.text).joined())
        case "title":
            return .string(
                try string(name, arguments).split(separator: " ", omittingEmptySubsequences: false)
                    .map { $0.prefix(1).uppercased() + $0.dropFirst() }.joined(separator: " "))
        case "toUpper": return .string(try string(name, arguments).uppercased())
        case "toLower": return .string(try string(name, arguments).lowercased())
        case "stripPort": return .string(String(try string(name, arguments).prefix { $0 != ":" }))
        case "stripDomain": return .string(String(try string(name, arguments).prefix { $0 != "." }))
        case "len": return .number(Double(try string(name, arguments).utf8.count))
        case "parseDuration":
            let text = try string(name, arguments)
            guard let ms = TimeFormat.durationMs(text) else {
                throw TemplateError(reason: "not a duration: \(Labels.quoted(text))")
            }
            return .number(Double(ms) / 1000)
        case "match", "reReplaceAll": return try regular(name, arguments)
        default: return try logic(name, arguments)
        }
    }

    private static func logic(_ name: String, _ arguments: [TemplateValue]) throws(TemplateError) -> TemplateValue {
        switch name {
        case "not": return .boolean(!(arguments.first?.isTrue ?? false))
        case "and": return arguments.first { !$0.isTrue } ?? arguments.last ?? .boolean(true)
        case "or": return arguments.first { $0.isTrue } ?? arguments.last ?? .boolean(false)
        default: break
        }
        guard arguments.count >= 2 else { throw TemplateError(reason: "\(name) needs two arguments") }
        switch name {
        case "eq": return .boolean(arguments.dropFirst().contains { $0 == arguments[0] })
        case "ne": return .boolean(arguments[0] != arguments[1])
        default: break
        }
        let order: (Bool, Bool)
        if case .string(let a) = arguments[0], case .string(let b) = arguments[1] {
            order = (a < b, a == b)
        } else if let a = arguments[0].number, let b = arguments[1].number {
            order = (a < b, a == b)
        } else {
            throw TemplateError(reason: "\(name): incompatible types for comparison")
        }
        switch name {
        case "lt": return .boolean(order.0)
        case "le": return .boolean(order.0 || order.1)
        case "gt": return .boolean(!order.0 && !order.1)
        default: return .boolean(!order.0)
        }
    }

    private static func regular(_ name: String, _ arguments: [TemplateValue]) throws(TemplateError) -> TemplateValue {
        guard let source = arguments.first?.text, let subject = arguments.last?.text,
            arguments.count == (name == "match" ? 2 : 3)
        else { throw TemplateError(reason: "wrong number of arguments for \(name)") }
        let pattern: Pattern
        do {
            pattern = try Pattern(source, mode: .search)
        } catch {
            throw TemplateError(reason: error.description)
        }
        if name == "match" { return .boolean(pattern.matches(subject)) }
        return .string(pattern.replacingMatches(in: subject, with: arguments[1].text))
    }

    private static func number(_ name: String, _ arguments: [TemplateValue]) throws(TemplateError) -> Double {
        guard arguments.count == 1, let number = arguments[0].number else {
            throw TemplateError(reason: "\(name) needs one number")
        }
        return number
    }

    private static func string(_ name: String, _ arguments: [TemplateValue]) throws(TemplateError) -> String {
        guard arguments.count == 1, case .string(let text) = arguments[0] else {
            throw TemplateError(reason: "\(name) needs one string")
        }
        return text
    }
}

/// Numbers as people read them, in the forms of Prometheus' `template/template.go`.
enum Humanize {
    /// With a prefix of the metric system: `1.235k`.
    static func si(_ value: Double) -> String {
        guard value != 0, value.isFinite else { return GoFormat.significant(value, 4) }
        var value = value
        if abs(value) >= 1 {
            for prefix in ["", "k", "M", "G", "T", "P", "E", "Z", "Y"] {
                if abs(value) < 1000 || prefix == "Y" { return GoFormat.significant(value, 4) + prefix }
                value /= 1000
            }
        }
        for prefix in ["", "m", "u", "n", "p", "f", "a", "z", "y"] {
            if abs(value) >= 1 || prefix == "y" { return GoFormat.significant(value, 4) + prefix }
            value *= 1000
        }
        return GoFormat.significant(value, 4)
    }

    /// With a prefix of powers of 1024: `1.5ki`.
    static func binary(_ value: Double) -> String {
        guard abs(value) > 1, value.isFinite else { return GoFormat.significant(value, 4) }
        var value = value
        for prefix in ["", "ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi"] {
            if abs(value) < 1024 { return GoFormat.significant(value, 4) + prefix }
            value /= 1024
        }
        return GoFormat.significant(value, 4) + "Yi"
    }

    /// Seconds as `1d 2h 3m 4s`, below a second as `12.5ms`.
    static func duration(_ value: Double) -> String {
        guard abs(value) < 9e15 else { return GoFormat.significant(value, 4) }
        if value == 0 { return "0s" }
        if abs(value) >= 1 {
            let sign = value < 0 ? "-" : ""
            let seconds = Int64(abs(value))
            let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60)
            if days > 0 { return "\(sign)\(days)d \(hours)h \(minutes)m \(seconds % 60)s" }
            if hours > 0 { return "\(sign)\(hours)h \(minutes)m \(seconds % 60)s" }
            if minutes > 0 { return "\(sign)\(minutes)m \(seconds % 60)s" }
            return sign + GoFormat.significant(abs(value), 4) + "s"
        }
        return si(value) + "s"
    }
}

/// Numbers in Go's formats.
enum GoFormat {
    /// `%.Ng`.
    static func significant(_ value: Double, _ digits: Int) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value > 0 ? "+Inf" : "-Inf" }
        return String(format: "%.\(digits)g", value)
    }

    /// `%v` of a float: the shortest form, with an exponent for the very small and the very large.
    static func shortest(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value > 0 ? "+Inf" : "-Inf" }
        let magnitude = abs(value)
        if magnitude != 0, magnitude < 1e-4 || magnitude >= 1e21 {
            let parts = "\(value)".split(separator: "e")
            if parts.count == 2, let exponent = Int(parts[1]) {
                let mantissa = parts[0].hasSuffix(".0") ? parts[0].dropLast(2) : parts[0]
                return "\(mantissa)e\(exponent < 0 ? "-" : "+")\(abs(exponent) < 10 ? "0" : "")\(abs(exponent))"
            }
        }
        return GoFloat.text(value)
    }

    /// Go's `fmt.Sprintf` for the verbs that annotations use: `%s %v %q %d %f %e %g %t %%`, with flags, width and
    /// precision.
    static func printf(_ format: String, _ arguments: [TemplateValue]) -> String {
        var out = ""
        var next = 0
        var rest = Substring(format)
        while let percent = rest.firstIndex(of: "%") {
            out += rest[..<percent]
            rest = rest[rest.index(after: percent)...]
            let flags = rest.prefix { "+-# 0123456789.".contains($0) }
            rest = rest[flags.endIndex...]
            guard let verb = rest.popFirst() else { return out + "%!(NOVERB)" }
            if verb == "%" {
                out += "%"
                continue
            }
            guard next < arguments.count else {
                out += "%!\(verb)(MISSING)"
                continue
            }
            let argument = arguments[next]
            next += 1
            switch verb {
            case "f", "F", "e", "g":
                guard let number = argument.number else { out += "%!\(verb)(\(argument.text))"; continue }
                out += number.isFinite ? String(format: "%\(flags)\(verb)", number) : shortest(number)
            case "d":
                guard let number = argument.number, abs(number) < 9e18 else { out += "%!d(\(argument.text))"; continue }
                out += String(format: "%\(flags)lld", Int64(number))
            case "q": out += Labels.quoted(argument.text)
            case "s", "v", "t": out += argument.text
            default: out += "%!\(verb)(\(argument.text))"
            }
        }
        return out + rest
    }
}
