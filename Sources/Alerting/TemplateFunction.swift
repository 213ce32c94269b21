import Foundation
import PromQL
import Series

/// The functions of the template language.
enum TemplateFunction {
    static let names: Set<String> = [
        "and", "args", "eq", "externalURL", "first", "ge", "graphLink", "gt", "html", "htmlEscape", "humanize",
        "humanize1024", "humanizeDuration", "humanizePercentage", "humanizeTimestamp", "index", "js", "label", "le",
        "len", "lt", "match", "ne", "not", "now", "or", "parseDuration", "pathPrefix", "print", "printf", "println",
        "query", "reReplaceAll", "safeHtml", "slice", "sortByLabel", "stripDomain", "stripPort", "strvalue",
        "tableLink", "title", "toDuration", "toLower", "toTime", "toUpper", "urlQueryEscape", "urlquery", "value",
    ]

    static func call(
        _ name: String, _ arguments: [TemplateValue], _ data: TemplateData
    ) throws(TemplateError) -> TemplateValue {
        switch name {
        case "humanize": return .string(Humanize.si(try number(name, arguments)))
        case "humanize1024": return .string(Humanize.binary(try number(name, arguments)))
        case "humanizeDuration", "toDuration": return .string(Humanize.duration(try number(name, arguments)))
        case "humanizePercentage": return .string("\(GoFormat.significant(try number(name, arguments) * 100, 4))%")
        case "humanizeTimestamp", "toTime": return .string(Humanize.time(try number(name, arguments)))
        case "now": return .number(Double(data.nowMs) / 1000)
        case "printf":
            guard case .string(let format)? = arguments.first else {
                throw TemplateError(reason: "printf needs a format")
            }
            return .string(GoFormat.printf(format, Array(arguments.dropFirst())))
        case "print": return .string(printed(arguments))
        case "println": return .string(arguments.map(\.text).joined(separator: " ") + "\n")
        case "title":
            return .string(
                try string(name, arguments).split(separator: " ", omittingEmptySubsequences: false)
                    .map { $0.prefix(1).uppercased() + $0.dropFirst() }.joined(separator: " "))
        case "toUpper": return .string(try string(name, arguments).uppercased())
        case "toLower": return .string(try string(name, arguments).lowercased())
        case "stripPort": return .string(host(of: try string(name, arguments)))
        case "stripDomain": return .string(withoutDomain(try string(name, arguments)))
        case "len", "index", "slice", "first", "sortByLabel", "label", "value", "strvalue", "query", "args":
            return try collection(name, arguments, data)
        case "parseDuration":
            let text = try string(name, arguments)
            guard let ms = TimeFormat.durationMs(text) else {
                throw TemplateError(reason: "not a duration: \(Labels.quoted(text))")
            }
            return .number(Double(ms) / 1000)
        case "match", "reReplaceAll": return try regular(name, arguments)
        case "externalURL": return .string(data.externalURL)
        case "pathPrefix":
            let path = URLComponents(string: data.externalURL)?.path ?? ""
            return .string(path)
        case "safeHtml": return .string(try string(name, arguments))
        case "html", "htmlEscape": return .string(escaped(printed(arguments)))
        case "js": return .string(printed(arguments).replacingOccurrences(of: "'", with: "\\'"))
        case "urlquery", "urlQueryEscape": return .string(queryEscaped(printed(arguments)))
        case "graphLink", "tableLink":
            let tab = name == "graphLink" ? 0 : 1
            return .string("/graph?g0.expr=\(queryEscaped(try string(name, arguments)))&g0.tab=\(tab)")
        default: return try logic(name, arguments)
        }
    }

    /// As Go's `fmt.Sprint`: a space between two that are no strings.
    private static func printed(_ arguments: [TemplateValue]) -> String {
        var out = ""
        var wasString = true
        for argument in arguments {
            var isString = false
            if case .string = argument { isString = true }
            if !isString, !wasString { out += " " }
            out += argument.text
            wasString = isString
        }
        return out
    }

    private static func host(of text: String) -> String {
        if text.hasPrefix("["), let end = text.firstIndex(of: "]") { return String(text[..<end].dropFirst()) }
        // An address of version 6 without a port has more than one colon.
        guard text.count(where: { $0 == ":" }) == 1 else { return text }
        return String(text.prefix { $0 != ":" })
    }

    private static func withoutDomain(_ text: String) -> String {
        let host = host(of: text)
        let port = text.dropFirst(host.count)
        let isAddress = host.contains(":") || host.split(separator: ".").allSatisfy { UInt8($0) != nil }
        return isAddress ? text : String(host.prefix { $0 != "." }) + port
    }

    private static func escaped(_ text: String) -> String {
        var out = ""
        for character in text {
            switch character {
            case "&": out += "&amp;"
            case "<": out += "&lt;"
            case ">": out += "&gt;"
            case "\"": out += "&#34;"
            case "'": out += "&#39;"
            default: out.append(character)
            }
        }
        return out
    }

    private static func queryEscaped(_ text: String) -> String {
        let allowed = CharacterSet(
            charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~ ")
        return (text.addingPercentEncoding(withAllowedCharacters: allowed) ?? text)
            .replacingOccurrences(of: " ", with: "+")
    }

    private static func collection(
        _ name: String, _ arguments: [TemplateValue], _ data: TemplateData
    ) throws(TemplateError) -> TemplateValue {
        switch (name, arguments.first, arguments.last) {
        case ("query", .string(let text)?, _) where arguments.count == 1:
            guard let query = data.query else { return .list([]) }
            do {
                return .list(try query(text).map { .sample($0.labels, $0.value) })
            } catch {
                throw TemplateError(reason: "error executing query \(Labels.quoted(text)): \(error)")
            }
        case ("first", .list(let list)?, _):
            guard let first = list.first else {
                throw TemplateError(reason: "first() called on vector with no elements")
            }
            return first
        case ("label", .string(let label)?, .sample(let labels, _)?): return .string(labels[label] ?? "")
        case ("value", .sample(_, let value)?, _): return .number(value)
        case ("strvalue", .sample(let labels, _)?, _): return .string(labels["__value__"] ?? "")
        case ("sortByLabel", .string(let label)?, .list(let list)?):
            let key = { (value: TemplateValue) in
                if case .sample(let labels, _) = value { labels[label] ?? "" } else { "" }
            }
            return .list(
                list.enumerated().sorted { (key($0.element), $0.offset) < (key($1.element), $1.offset) }.map(\.element))
        case ("args", _, _):
            return .map(Dictionary(arguments.enumerated().map { ("arg\($0)", $1) }) { $1 })
        case ("len", .list(let list)?, _): return .number(Double(list.count))
        case ("len", .map(let map)?, _): return .number(Double(map.count))
        case ("len", .string(let text)?, _): return .number(Double(text.utf8.count))
        case ("index", let base?, _):
            var value = base
            for place in arguments.dropFirst() {
                switch (value, place) {
                case (.map(let map), .string(let key)): value = map[key] ?? .string("")
                case (.list(let list), .number(let number)) where number >= 0 && number < Double(list.count):
                    value = list[Int(number)]
                default: throw TemplateError(reason: "error calling index: \(place.text) of \(value.text)")
                }
            }
            return value
        case ("slice", .string(let text)?, _):
            let bytes = Array(text.utf8)
            let bounds = arguments.dropFirst().compactMap(\.number)
            let low = bounds.first ?? 0
            let high = bounds.count > 1 ? bounds[1] : Double(bytes.count)
            guard low >= 0, low <= high, high <= Double(bytes.count) else {
                throw TemplateError(reason: "error calling slice: index out of range")
            }
            return .string(String(decoding: bytes[Int(low)..<Int(high)], as: UTF8.self))
        default: throw TemplateError(reason: "wrong arguments for \(name)")
        }
    }

    private static func logic(_ name: String, _ arguments: [TemplateValue]) throws(TemplateError) -> TemplateValue {
        switch name {
        case "not": return .boolean(!(arguments.first?.isTrue ?? false))
        case "and", "or":
            // Those before the last were not the answer already.
            guard let last = arguments.last else { throw TemplateError(reason: "wrong number of args for \(name)") }
            return last
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

    /// A time in seconds as Go prints it: `2015-06-23 13:19:44.128 +0000 UTC`.
    static func time(_ seconds: Double) -> String {
        guard abs(seconds) < 9e12 else { return GoFormat.significant(seconds, 4) }
        var text = TimeFormat.rfc3339(ms: Int64((seconds * 1000).rounded()))
        text = text.replacingOccurrences(of: "T", with: " ").replacingOccurrences(of: "Z", with: "")
        while text.contains("."), text.hasSuffix("0") { text.removeLast() }
        return text + " +0000 UTC"
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
