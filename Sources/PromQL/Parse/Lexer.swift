import Foundation
import Series

/// A word of an expression, with where it stands.
struct Token {
    enum Kind: Equatable {
        case identifier(String)
        case string(String)
        case number(Double)
        /// A duration literal, in milliseconds.
        case duration(Int64)
        /// An operator or bracket, as written.
        case symbol(String)
        case end
    }

    var kind: Kind
    /// Offsets in bytes from the expression's start.
    var range: Range<Int>
}

/// Cuts an expression into tokens (prometheus.io/docs/prometheus/latest/querying/basics).
struct Lexer {
    private let bytes: [UInt8]
    private let source: String
    private var at = 0
    private var brackets = 0

    static func tokens(of source: String) throws(PromQLError) -> [Token] {
        var lexer = Lexer(bytes: Array(source.utf8), source: source)
        var tokens: [Token] = []
        while true {
            let token = try lexer.next()
            tokens.append(token)
            if token.kind == .end { return tokens }
        }
    }

    private init(bytes: [UInt8], source: String) {
        self.bytes = bytes
        self.source = source
    }

    private mutating func next() throws(PromQLError) -> Token {
        skipBlanksAndComments()
        let start = at
        guard at < bytes.count else { return Token(kind: .end, range: start..<start) }
        let byte = bytes[at]
        let kind: Token.Kind
        if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "'") || byte == UInt8(ascii: "`") {
            kind = .string(try string(quote: byte))
        } else if isDigit(byte) || (byte == UInt8(ascii: ".") && at + 1 < bytes.count && isDigit(bytes[at + 1])) {
            kind = try number()
        } else if isLetter(byte) || (byte == UInt8(ascii: ":") && brackets == 0) {
            kind = .identifier(identifier())
        } else {
            kind = .symbol(try symbol())
        }
        return Token(kind: kind, range: start..<at)
    }

    private mutating func skipBlanksAndComments() {
        while at < bytes.count {
            if bytes[at] == UInt8(ascii: "#") {
                while at < bytes.count, bytes[at] != 10 { at += 1 }
            } else if bytes[at] == 32 || (bytes[at] >= 9 && bytes[at] <= 13) {
                at += 1
            } else {
                return
            }
        }
    }

    private mutating func symbol() throws(PromQLError) -> String {
        let rest = bytes[at...].prefix(2)
        for two in ["==", "!=", "=~", "!~", ">=", "<="] where rest.elementsEqual(two.utf8) {
            at += 2
            return two
        }
        let character = bytes[at]
        guard "+-*/%^=<>(){}[],:@".utf8.contains(character) else {
            let shown = String(decoding: bytes[at...].prefix(8), as: UTF8.self).prefix(1)
            throw PromQLError("unexpected character: \(Labels.quoted(String(shown)))", at: at..<at + 1, in: source)
        }
        if character == UInt8(ascii: "[") { brackets += 1 }
        if character == UInt8(ascii: "]") { brackets -= 1 }
        at += 1
        return String(decoding: [character], as: UTF8.self)
    }

    private mutating func identifier() -> String {
        let start = at
        while at < bytes.count,
            isLetter(bytes[at]) || isDigit(bytes[at]) || (bytes[at] == UInt8(ascii: ":") && brackets == 0)
        { at += 1 }
        return String(decoding: bytes[start..<at], as: UTF8.self)
    }

    private mutating func number() throws(PromQLError) -> Token.Kind {
        let start = at
        if let ms = duration() { return .duration(ms) }
        at = start
        if bytes[at] == UInt8(ascii: "0"), at + 1 < bytes.count, bytes[at + 1] | 0x20 == UInt8(ascii: "x") {
            at += 2
            while at < bytes.count, isLetter(bytes[at]) || isDigit(bytes[at]) { at += 1 }
        } else {
            while at < bytes.count, isDigit(bytes[at]) || bytes[at] == UInt8(ascii: ".") || isBetweenDigits(at) {
                at += 1
            }
            if at < bytes.count, bytes[at] | 0x20 == UInt8(ascii: "e") {
                at += 1
                if at < bytes.count, bytes[at] == UInt8(ascii: "+") || bytes[at] == UInt8(ascii: "-") { at += 1 }
                while at < bytes.count, isDigit(bytes[at]) { at += 1 }
            }
        }
        let followed = at < bytes.count && isLetter(bytes[at])
        let text = String(decoding: bytes[start..<at], as: UTF8.self)
        guard !followed, let value = Lexer.double(text) else {
            while at < bytes.count, isLetter(bytes[at]) || isDigit(bytes[at]) { at += 1 }
            let shown = String(decoding: bytes[start..<at], as: UTF8.self)
            throw PromQLError("bad number or duration syntax: \(Labels.quoted(shown))", at: start..<at, in: source)
        }
        guard value.isFinite else {
            throw PromQLError(
                "error parsing number: \(Labels.quoted(text)): value out of range", at: start..<at, in: source)
        }
        return .number(value)
    }

    /// Whether an underscore stands there that only parts digits, for those who read them.
    private func isBetweenDigits(_ place: Int) -> Bool {
        bytes[place] == UInt8(ascii: "_") && isDigit(bytes[place - 1]) && place + 1 < bytes.count
            && isDigit(bytes[place + 1])
    }

    private static func double(_ written: String) -> Double? {
        if written.lowercased().hasPrefix("0x") {
            // An underscore may follow the prefix, and none another or the end.
            let parts = written.dropFirst(2).split(separator: "_", omittingEmptySubsequences: false)
            guard parts.enumerated().allSatisfy({ !$1.isEmpty || $0 == 0 && parts.count > 1 }) else { return nil }
            return UInt64(parts.joined(), radix: 16).map { Double($0) }
        }
        let text = written.replacing("_", with: "")
        // An octal number, as Go's strconv.ParseInt with base 0 reads it.
        if text.count > 1, text.first == "0", text.allSatisfy({ ("0"..."7").contains($0) }) {
            return UInt64(text, radix: 8).map { Double($0) }
        }
        return Double(text.hasSuffix(".") ? text + "0" : text)
    }

    private mutating func duration() -> Int64? {
        let start = at
        while at < bytes.count, isDigit(bytes[at]) || isLetter(bytes[at]) { at += 1 }
        let text = String(decoding: bytes[start..<at], as: UTF8.self)
        guard text.contains(where: { $0.isLetter }), !text.hasPrefix("0x"), !text.hasPrefix("0X") else { return nil }
        return TimeFormat.durationMs(text)
    }

    private mutating func string(quote: UInt8) throws(PromQLError) -> String {
        let start = at
        at += 1
        var out: [UInt8] = []
        while true {
            guard at < bytes.count, quote == UInt8(ascii: "`") || bytes[at] != 10 else {
                throw PromQLError("unterminated quoted string", at: start..<at, in: source)
            }
            let byte = bytes[at]
            at += 1
            if byte == quote { return String(decoding: out, as: UTF8.self) }
            if byte == UInt8(ascii: "\\"), quote != UInt8(ascii: "`") {
                try escape(into: &out, start: start, quote: quote)
            } else {
                out.append(byte)
            }
        }
    }

    /// Reads what stands after a backslash, as Go's `strconv.Unquote` does.
    private mutating func escape(into out: inout [UInt8], start: Int, quote: UInt8) throws(PromQLError) {
        let slash = at - 1
        do throws(GoEscape.Failure) {
            let (read, length) = try GoEscape.read(bytes[at...], quote: quote)
            out += read
            at += length
        } catch {
            switch error {
            case .cutOff: throw PromQLError("unterminated quoted string", at: start..<at, in: source)
            case .unknown: throw PromQLError("unknown escape sequence in a string", at: slash..<at + 1, in: source)
            case .illegal: throw PromQLError("illegal escape sequence in a string", at: slash..<at + 1, in: source)
            case .noCodePoint:
                throw PromQLError("escape sequence is not a Unicode code point", at: slash..<at + 1, in: source)
            }
        }
    }

    private func isDigit(_ byte: UInt8) -> Bool { byte >= 48 && byte <= 57 }

    private func isLetter(_ byte: UInt8) -> Bool {
        (byte | 0x20 >= UInt8(ascii: "a") && byte | 0x20 <= UInt8(ascii: "z")) || byte == UInt8(ascii: "_")
    }
}
