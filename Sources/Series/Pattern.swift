import CPCRE2

/// A regular expression, compiled once by PCRE2 with its just-in-time compiler.
///
/// Used for label matchers, relabelling, and log rules. A pattern may be matched from many threads at once: what
/// a match needs beside the code is made per match. Matching is bounded by ``Pattern/matchLimit``: a pattern that
/// backtracks without end gives no match and never hangs the caller.
package final class Pattern: @unchecked Sendable {
    // The compiled code is not changed after init, which PCRE2 allows to be shared between threads (pcre2api,
    // "Multithreading"): hence unchecked.
    private let code: OpaquePointer
    private let context: OpaquePointer?
    /// The pattern as it was written.
    package let source: String
    /// The names of the groups, each with its number.
    package let groupNames: [(name: String, number: Int)]
    /// The number of groups, without the whole match.
    package let groupCount: Int

    /// The most backtracking steps that one match may take (PCRE2's `match_limit`).
    package static let matchLimit: UInt32 = 1_000_000
    /// The same for matchers, which are asked about all values of a label: some tenths of a millisecond.
    private static let anchoredMatchLimit: UInt32 = 100_000

    /// How a pattern is applied.
    package enum Mode: Sendable {
        /// The whole text must match, `.` matches line breaks too: Prometheus' matchers and relabelling.
        case anchored
        /// The pattern may match anywhere in bytes that need not be UTF-8: log rules.
        case search
    }

    /// Compiles a pattern.
    ///
    /// - Throws: ``PatternError`` with PCRE2's words and the offset in bytes where the pattern is wrong.
    package init(_ source: String, mode: Mode) throws(PatternError) {
        var options: UInt32 = 0
        switch mode {
        case .anchored: options = PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_DOTALL | PCRE2_UTF
        case .search: options = 0
        }
        var errorCode: Int32 = 0
        var errorOffset = 0
        let bytes = Array(source.utf8)
        guard
            let code = bytes.withUnsafeBufferPointer({ buffer in
                pcre2_compile_8(buffer.baseAddress, buffer.count, options, &errorCode, &errorOffset, nil)
            })
        else {
            throw PatternError(pattern: source, offset: errorOffset, reason: Pattern.message(errorCode))
        }
        // Without a JIT (a platform that has none) the interpreter matches the same, slower.
        _ = pcre2_jit_compile_8(code, PCRE2_JIT_COMPLETE)
        context = pcre2_match_context_create_8(nil)
        pcre2_set_match_limit_8(context, mode == .anchored ? Pattern.anchoredMatchLimit : Pattern.matchLimit)
        self.code = code
        self.source = source
        var count: UInt32 = 0
        pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_CAPTURECOUNT), &count)
        groupCount = Int(count)
        groupNames = Pattern.names(in: code)
    }

    deinit {
        pcre2_match_context_free_8(context)
        pcre2_code_free_8(code)
    }

    /// Whether the text matches.
    package func matches(_ text: String) -> Bool {
        var text = text
        return text.withUTF8 { match(UnsafeRawBufferPointer($0), validUTF8: true) { _ in true } ?? false }
    }

    /// Whether the text matches.
    ///
    /// - Throws: ``PatternError`` where that takes too many steps to be known.
    package func verdict(on text: String) throws(PatternError) -> Bool {
        guard let data = pcre2_match_data_create_from_pattern_8(code, nil) else { return false }
        defer { pcre2_match_data_free_8(data) }
        var text = text
        let result = text.withUTF8 { bytes in
            let empty: StaticString = ""
            return pcre2_match_8(
                code, bytes.baseAddress ?? empty.utf8Start, bytes.count, 0, UInt32(PCRE2_NO_UTF_CHECK), data, context)
        }
        if result == PCRE2_ERROR_NOMATCH { return false }
        guard result > 0 else {
            let shown = Labels.quoted(String(text.prefix(100)))
            throw PatternError(
                pattern: source, offset: nil, reason: "too many steps are needed to match it with \(shown)")
        }
        return true
    }

    /// Calls `body` with the byte offsets of the match when there is one: pairs of start and end, the whole match
    /// first, then each group; a group that took no part has -1 twice.
    ///
    /// - Returns: what `body` returns, nil where the bytes do not match or the match limit was reached.
    package func match<R>(_ bytes: UnsafeRawBufferPointer, validUTF8: Bool = false, _ body: ([Int]) -> R) -> R? {
        guard let data = pcre2_match_data_create_from_pattern_8(code, nil) else { return nil }
        defer { pcre2_match_data_free_8(data) }
        let options: UInt32 = validUTF8 ? UInt32(PCRE2_NO_UTF_CHECK) : 0
        let empty: StaticString = ""
        let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) ?? empty.utf8Start
        let result = pcre2_match_8(code, base, bytes.count, 0, options, data, context)
        guard result > 0, let vector = pcre2_get_ovector_pointer_8(data) else { return nil }
        // Groups behind the last that took part have no entry; one before it that took none has PCRE2_UNSET, all ones.
        var offsets = [Int](repeating: -1, count: (groupCount + 1) * 2)
        for index in 0..<Int(result) * 2 { offsets[index] = vector[index] }
        return body(offsets)
    }

    /// The groups of a match in a text, nil where it does not match; a group that took no part is empty.
    package func groups(in text: String) -> [String]? {
        let bytes = Array(text.utf8)
        return bytes.withUnsafeBytes { buffer in
            match(buffer, validUTF8: true) { offsets in
                stride(from: 0, to: offsets.count, by: 2).map { index in
                    guard offsets[index] >= 0 else { return "" }
                    return String(decoding: buffer[offsets[index]..<offsets[index + 1]], as: UTF8.self)
                }
            }
        }
    }

    /// The template with `$1`, `${1}`, `$name` and `${name}` replaced by the groups of a match, `$$` by `$`.
    ///
    /// The rules are those of Go's `Regexp.Expand`, which Prometheus' `replacement` fields follow: the longest run
    /// of letters, digits and underscores is the name; an unknown group is empty.
    package func expand(_ template: String, groups: [String]) -> String {
        guard template.contains("$") else { return template }
        var out = ""
        var rest = Substring(template)
        while let dollar = rest.firstIndex(of: "$") {
            out += rest[..<dollar]
            rest = rest[rest.index(after: dollar)...]
            if rest.first == "$" {
                out += "$"
                rest = rest.dropFirst()
                continue
            }
            let braced = rest.first == "{"
            let body = braced ? rest.dropFirst() : rest
            let name = body.prefix { $0 == "_" || ($0.isASCII && ($0.isLetter || $0.isNumber)) }
            let after = body[name.endIndex...]
            if name.isEmpty || (braced && after.first != "}") {
                out += "$"
                continue
            }
            rest = braced ? after.dropFirst() : after
            if let number = Int(name) {
                if number < groups.count { out += groups[number] }
            } else if let group = groupNames.first(where: { $0.name == name }), group.number < groups.count {
                out += groups[group.number]
            }
        }
        return out + rest
    }

    /// The text with every match replaced by a template, as ``expand(_:groups:)`` fills it in.
    package func replacingMatches(in text: String, with template: String) -> String {
        var out: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let found = rest.withUnsafeBytes { buffer in
                match(buffer) { offsets -> (range: Range<Int>, groups: [String]) in
                    let groups = stride(from: 0, to: offsets.count, by: 2).map { index in
                        guard offsets[index] >= 0 else { return "" }
                        return String(decoding: buffer[offsets[index]..<offsets[index + 1]], as: UTF8.self)
                    }
                    return (offsets[0]..<offsets[1], groups)
                }
            }
            guard let found else { break }
            out += rest.prefix(found.range.lowerBound) + Array(expand(template, groups: found.groups).utf8)
            // An empty match moves on by a byte, so that the search ends.
            let next = found.range.isEmpty ? found.range.upperBound + 1 : found.range.upperBound
            out += rest.dropFirst(found.range.upperBound).prefix(next - found.range.upperBound)
            rest = rest.dropFirst(next)
        }
        return String(decoding: out + rest, as: UTF8.self)
    }

    private static func message(_ code: Int32) -> String {
        var buffer = [UInt8](repeating: 0, count: 256)
        let length = pcre2_get_error_message_8(code, &buffer, buffer.count)
        return length > 0 ? String(decoding: buffer[..<Int(length)], as: UTF8.self) : "error \(code)"
    }

    private static func names(in code: OpaquePointer) -> [(name: String, number: Int)] {
        var count: UInt32 = 0
        var entrySize: UInt32 = 0
        var table: UnsafePointer<UInt8>?
        pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_NAMECOUNT), &count)
        pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_NAMEENTRYSIZE), &entrySize)
        pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_NAMETABLE), &table)
        guard let table else { return [] }
        return (0..<Int(count)).map { index in
            let entry = table + index * Int(entrySize)
            return (String(cString: entry + 2), Int(entry[0]) << 8 | Int(entry[1]))
        }
    }
}

/// A regular expression that PCRE2 does not accept, or that takes too long.
package struct PatternError: Error, Equatable, CustomStringConvertible {
    package var pattern: String
    /// Bytes from the pattern's start to where it is wrong; nil where it is not wrong.
    package var offset: Int?
    package var reason: String

    package var description: String {
        "regular expression \(Labels.quoted(pattern))\(offset.map { " at offset \($0)" } ?? ""): \(reason)"
    }
}
