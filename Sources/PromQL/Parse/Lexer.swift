import Foundation
import Series

/// Cuts an expression into tokens (prometheus.io/docs/prometheus/latest/querying/basics).
struct Lexer {
    /// Where in an expression it stands: what may come there differs.
    private enum Place {
        case expression
        case braces
        /// Within brackets, before a duration.
        case duration
        /// Within brackets, behind one.
        case range
    }

    private let bytes: [UInt8]
    private var at = 0
    /// Where the token begins that is read.
    private var start = 0
    private var place = Place.expression
    private var parentheses = 0
    private var hasColon = false

    /// All tokens; the last one is the end or what can't be read.
    static func tokens(of source: String) -> [Token] {
        var lexer = Lexer(bytes: Array(source.utf8))
        var tokens: [Token] = []
        while true {
            let token = lexer.next()
            tokens.append(token)
            switch token.kind {
            case .end, .error: return tokens
            default: break
            }
        }
    }

    private init(bytes: [UInt8]) { self.bytes = bytes }

    private mutating func next() -> Token {
        skipBlanksAndComments()
        start = at
        let kind =
            switch place {
            case .braces: inBraces()
            case .duration: inDuration()
            case .expression, .range: inExpression()
            }
        return Token(kind: kind, range: start..<max(start, at))
    }

    private mutating func skipBlanksAndComments() {
        while at < bytes.count {
            if bytes[at] == UInt8(ascii: "#") {
                while at < bytes.count, bytes[at] != 10, bytes[at] != 13 { at += 1 }
            } else if bytes[at] == 32 || bytes[at] == 9 || bytes[at] == 10 || bytes[at] == 13 {
                at += 1
            } else {
                return
            }
        }
    }

    // MARK: Places

    private mutating func inExpression() -> Token.Kind {
        guard at < bytes.count else {
            if parentheses != 0 { return .error("unclosed left parenthesis") }
            return place == .range ? .error("unclosed left bracket") : .end
        }
        let byte = bytes[at]
        switch byte {
        case UInt8(ascii: "="):
            if follows("=") { return symbol(2) }
            return follows("~") ? .error("unexpected character after '=': '~'") : symbol(1)
        case UInt8(ascii: "!"):
            if follows("=") { return symbol(2) }
            at += 1
            return .error("unexpected character after '!': \(character())")
        case UInt8(ascii: "<"), UInt8(ascii: ">"): return symbol(follows("=") ? 2 : 1)
        case UInt8(ascii: "("), UInt8(ascii: ")"): return parenthesis()
        case UInt8(ascii: "{"):
            place = .braces
            return symbol(1)
        case UInt8(ascii: "["):
            guard place == .expression else { return .error("unexpected left bracket '['") }
            (place, hasColon) = (.duration, false)
            return symbol(1)
        case UInt8(ascii: "]"):
            guard place == .range else { return .error("unexpected right bracket ']'") }
            place = .expression
            return symbol(1)
        case UInt8(ascii: ":") where place == .range:
            return hasColon ? .error("unexpected colon ':'") : colon()
        default: break
        }
        if "+-*/%^,@".utf8.contains(byte) { return symbol(1) }
        if isNumber { return number() }
        if isQuote(byte) { return string(quote: byte) }
        if place == .range, isLetter(byte) {
            return durationWord() ?? .error("unexpected character: \(character()), expected ':'")
        }
        if isLetter(byte) || byte == UInt8(ascii: ":") { return word(hasColons: true) }
        return .error("unexpected character: \(character())")
    }

    private mutating func inBraces() -> Token.Kind {
        guard at < bytes.count else { return .error("unexpected end of input inside braces") }
        let byte = bytes[at]
        switch byte {
        case UInt8(ascii: ","): return symbol(1)
        case UInt8(ascii: "="): return symbol(follows("~") ? 2 : 1)
        case UInt8(ascii: "!"):
            if follows("=") || follows("~") { return symbol(2) }
            at += 1
            return .error("unexpected character after '!' inside braces: \(character())")
        case UInt8(ascii: "{"): return .error("unexpected left brace '{'")
        case UInt8(ascii: "}"):
            place = .expression
            return symbol(1)
        default: break
        }
        if isLetter(byte) { return word(hasColons: false) }
        return isQuote(byte)
            ? string(quote: byte) : .error("unexpected character inside braces: \(character())")
    }

    /// Within brackets, where a duration is to come.
    private mutating func inDuration() -> Token.Kind {
        guard at < bytes.count else { return .error("unexpected end of input in duration expression") }
        let byte = bytes[at]
        if byte == UInt8(ascii: "]") {
            place = .expression
            return symbol(1)
        }
        if byte == UInt8(ascii: ":") {
            at += 1
            start = at
            return .error("unexpected colon before duration in duration expression")
        }
        if byte == UInt8(ascii: "(") || byte == UInt8(ascii: ")") { return parenthesis() }
        if "+-*/%^,".utf8.contains(byte) { return symbol(1) }
        if isNumber {
            place = .range
            return number()
        }
        if let word = durationWord() {
            // A duration that is a word alone stands before a colon as a number does.
            if word == .identifier("step") || word == .identifier("range") { place = .range }
            return word
        }
        return .error("unexpected character in duration expression: \(character())")
    }

    // MARK: Tokens

    private func follows(_ character: Character) -> Bool {
        at + 1 < bytes.count && bytes[at + 1] == character.asciiValue
    }

    private mutating func symbol(_ length: Int) -> Token.Kind {
        at += length
        return .symbol(String(decoding: bytes[start..<at], as: UTF8.self))
    }

    private mutating func parenthesis() -> Token.Kind {
        parentheses += bytes[at] == UInt8(ascii: "(") ? 1 : -1
        let kind = symbol(1)
        guard parentheses < 0 else { return kind }
        start = at
        return .error("unexpected right parenthesis ')'")
    }

    private mutating func colon() -> Token.Kind {
        hasColon = true
        return symbol(1)
    }

    private mutating func word(hasColons: Bool) -> Token.Kind {
        while at < bytes.count,
            isLetter(bytes[at]) || isDigit(bytes[at]) || hasColons && bytes[at] == UInt8(ascii: ":")
        { at += 1 }
        return .identifier(String(decoding: bytes[start..<at], as: UTF8.self))
    }

    /// A word that may stand in a duration; nil where none does.
    private mutating func durationWord() -> Token.Kind? {
        let letters = bytes[at...].prefix(while: isLetter)
        let word = String(decoding: letters, as: UTF8.self).lowercased()
        guard ["max", "max_of", "min", "min_of", "range", "step"].contains(word) else { return nil }
        at += letters.count
        return .identifier(word)
    }

    /// The character at the place, as Go's `%q` shows it.
    private func character() -> String {
        guard at < bytes.count else { return "'\u{FFFD}'" }
        let text = String(decoding: bytes[at...].prefix(4), as: UTF8.self)
        guard let scalar = text.unicodeScalars.first else { return "'\u{FFFD}'" }
        if scalar == "'" { return "'\\''" }
        return scalar == "\"" ? "'\"'" : "'\(Labels.quoted(String(scalar)).dropFirst().dropLast())'"
    }

    private var isNumber: Bool {
        isDigit(bytes[at])
            || bytes[at] == UInt8(ascii: ".") && at + 1 < bytes.count && isDigit(bytes[at + 1])
    }

    /// A number or a duration.
    private mutating func number() -> Token.Kind {
        if takeNumber() {
            let text = String(decoding: bytes[start..<at], as: UTF8.self)
            do throws(GoFloat.Failure) {
                return .number(try Lexer.double(text))
            } catch {
                return .error("error parsing number: \(error.words(text))")
            }
        }
        let isDuration = takeUnits()
        let text = String(decoding: bytes[start..<at], as: UTF8.self)
        guard isDuration else { return .error("bad number or duration syntax: \(Labels.quoted(text))") }
        return TimeFormat.durationMs(text).map { .duration($0) }
            ?? .error("not a valid duration string: \(Labels.quoted(text))")
    }

    private mutating func takeOne(of characters: StaticString) -> Bool {
        let known = UnsafeBufferPointer(start: characters.utf8Start, count: characters.utf8CodeUnitCount)
        guard at < bytes.count, known.contains(bytes[at]) else { return false }
        at += 1
        return true
    }

    /// Moves over a number: digits, which single underscores may part, one point and one exponent.
    ///
    /// - Returns: false where it is none: it has moved to what makes it none, and over that.
    private mutating func takeNumber() -> Bool {
        let isHexadecimal = takeOne(of: "0") && takeOne(of: "xX")
        if isHexadecimal { _ = takeOne(of: "_") }
        func isOwnDigit(_ byte: UInt8) -> Bool { isHexadecimal ? isHexadecimalDigit(byte) : isDigit(byte) }
        _ = takeOne(of: ".")
        if at < bytes.count, isOwnDigit(bytes[at]) { at += 1 }
        var (hasPoint, hasExponent) = (false, false)
        while at < bytes.count {
            if takeOne(of: ".") {
                guard !hasPoint, !takeOne(of: "_."), !isHexadecimal else { return false }
                hasPoint = true
            } else if takeOne(of: "eE") {
                guard !hasExponent else { return false }
                _ = takeOne(of: "+-")
                guard !takeOne(of: "._eE"), at < bytes.count else { return false }
                hasExponent = true
            } else if takeOne(of: "_") {
                guard !takeOne(of: "._eE"), at < bytes.count else { return false }
            } else if isOwnDigit(bytes[at]) {
                at += 1
            } else {
                break
            }
        }
        return at == bytes.count || !isLetter(bytes[at]) && !isDigit(bytes[at])
    }

    /// Moves over what stands behind a duration's first number: units, with numbers between.
    ///
    /// - Returns: false where it is none: it has moved to what makes it none, and over that.
    private mutating func takeUnits() -> Bool {
        guard takeOne(of: "smhdwy") else { return false }
        _ = takeOne(of: "s")
        while takeOne(of: "0123456789") {
            while takeOne(of: "0123456789") {}
            guard takeOne(of: "smhdw") else { return false }
            _ = takeOne(of: "s")
        }
        guard at < bytes.count, isLetter(bytes[at]) || isDigit(bytes[at]) else { return true }
        at += 1
        return false
    }

    /// A whole number as Go's `strconv.ParseInt` with base 0 reads it, or else what `ParseFloat` makes of it.
    private static func double(_ written: String) throws(GoFloat.Failure) -> Double {
        let isHexadecimal = written.lowercased().hasPrefix("0x")
        let digits = isHexadecimal ? written.dropFirst(2) : written[...]
        // An underscore may follow the prefix, and none another or the end.
        let parts = digits.split(separator: "_", omittingEmptySubsequences: false)
        let isOctal = !isHexadecimal && digits.count > 1 && digits.first == "0"
        let areParted = parts.enumerated().allSatisfy { !$1.isEmpty || $0 == 0 && isHexadecimal && parts.count > 1 }
        if areParted, let whole = Int64(parts.joined(), radix: isHexadecimal ? 16 : isOctal ? 8 : 10) {
            return Double(whole)
        }
        return try GoFloat.parse(written)
    }

    // MARK: Strings

    private mutating func string(quote: UInt8) -> Token.Kind {
        at += 1
        let isRaw = quote == UInt8(ascii: "`")
        var out: [UInt8] = []
        while true {
            guard at < bytes.count, isRaw || bytes[at] != 10 else {
                return .error(isRaw ? "unterminated raw string" : "unterminated quoted string")
            }
            let byte = bytes[at]
            // U+FFFD is what stands for what was no UTF-8.
            if byte == 0xEF, bytes[at...].starts(with: [0xEF, 0xBF, 0xBD]) { return .error("invalid UTF-8 rune") }
            at += 1
            if byte == quote { return .string(String(decoding: out, as: UTF8.self)) }
            guard byte == UInt8(ascii: "\\"), !isRaw else {
                out.append(byte)
                continue
            }
            // What stands after a backslash, as Go's `strconv.Unquote` reads it.
            do throws(GoEscape.Failure) {
                let (read, length) = try GoEscape.read(bytes[at...], quote: quote)
                out += read
                at += length
            } catch {
                return .error(escapeError(error))
            }
        }
    }

    private mutating func escapeError(_ failure: GoEscape.Failure) -> String {
        switch failure {
        case .cutOff: return "escape sequence not terminated"
        case .noCodePoint: return "escape sequence is an invalid Unicode code point"
        case .unknown: return "unknown escape sequence \(unicode())"
        case .illegal:
            // The first that is no digit; with none of these the number is too large.
            let isOctal = isDigit(bytes[at])
            let most = isOctal ? 3 : bytes[at] == UInt8(ascii: "x") ? 2 : bytes[at] == UInt8(ascii: "u") ? 4 : 8
            if !isOctal { at += 1 }
            let digits = bytes[at...].prefix(most).prefix {
                isOctal ? (48...55).contains($0) : isHexadecimalDigit($0)
            }
            guard digits.count < most else { return "escape sequence is an invalid Unicode code point" }
            at += digits.count
            return at < bytes.count
                ? "illegal character \(unicode()) in escape sequence" : "escape sequence not terminated"
        }
    }

    /// The character at the place, as Go's `%#U` shows it.
    private func unicode() -> String {
        let text = String(decoding: bytes[at...].prefix(4), as: UTF8.self)
        let value = text.unicodeScalars.first?.value ?? 0xFFFD
        return "U+\(String(format: "%04X", value)) \(character())"
    }

    private func isQuote(_ byte: UInt8) -> Bool { "\"'`".utf8.contains(byte) }

    private func isDigit(_ byte: UInt8) -> Bool { byte >= 48 && byte <= 57 }

    private func isHexadecimalDigit(_ byte: UInt8) -> Bool {
        isDigit(byte) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(byte | 0x20)
    }

    private func isLetter(_ byte: UInt8) -> Bool {
        (byte | 0x20 >= UInt8(ascii: "a") && byte | 0x20 <= UInt8(ascii: "z")) || byte == UInt8(ascii: "_")
    }
}
