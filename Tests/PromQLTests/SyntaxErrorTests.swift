import PromQL
import Testing

/// What is said of expressions that are none, in Prometheus' words and at its places.
@Suite struct SyntaxErrorTests {
    @Test(
        arguments: [
            ("", "1:1: parse error: no expression found in input"),
            ("# nothing\n", "1:1: parse error: no expression found in input"),
            ("1.", nil), (".5", nil), ("1_000", nil), ("0x1F", nil), ("1e-3", nil), ("+Inf", nil), ("nan", nil),
            (".", "1:1: parse error: unexpected character: '.'"),
            ("2.5.", "1:1: parse error: bad number or duration syntax: \"2.5.\""),
            ("1e", "1:1: parse error: bad number or duration syntax: \"1e\""),
            ("0deadbeef", "1:1: parse error: bad number or duration syntax: \"0de\""),
            ("100..4", "1:1: parse error: bad number or duration syntax: \"100..\""),
            ("5m5h", "1:1: parse error: not a valid duration string: \"5m5h\""),
            ("1h30m", nil), ("0x1E", "1:1: parse error: bad number or duration syntax: \"0x1E\""), ("0x1E5", nil),
            (".5.5", "1:1: parse error: error parsing number: strconv.ParseFloat: parsing \".5.5\": invalid syntax"),
            ("1 /", "1:4: parse error: unexpected end of input"),
            ("*1", "1:1: parse error: unexpected <op:*>"),
            ("(1", "1:3: parse error: unclosed left parenthesis"),
            ("((1)", "1:5: parse error: unclosed left parenthesis"),
            ("(1))", "1:5: parse error: unexpected right parenthesis ')'"),
            (")", "1:2: parse error: unexpected right parenthesis ')'"),
            ("(", "1:2: parse error: unclosed left parenthesis"),
            ("-=", "1:2: parse error: unexpected \"=\""),
            ("++-++-+-+-<", "1:11: parse error: unexpected <op:<>"),
            ("a ? b", "1:3: parse error: unexpected character: '?'"),
            ("a !~ b", "1:3: parse error: unexpected character after '!': '~'"),
            ("a =~ b", "1:3: parse error: unexpected character after '=': '~'"),
            ("a b", "1:3: parse error: unexpected identifier \"b\""),
            ("a c:d", "1:3: parse error: unexpected metric identifier \"c:d\""),
            ("a \"b\"", "1:3: parse error: unexpected string \"\\\"b\\\"\""),
            ("a \"a long text\"", "1:3: parse error: unexpected string \"\\\"a long te\"..."),
            ("a 5m", "1:3: parse error: unexpected duration \"5m\""),
            ("a 5", "1:3: parse error: unexpected number \"5\""),
            ("a inf", "1:3: parse error: unexpected number \"inf\""),
            ("a on (b)", "1:3: parse error: unexpected <on>"),
            ("a sum", "1:3: parse error: unexpected <aggr:sum>"),
            ("a start", "1:3: parse error: unexpected \"start\""),
            ("a and", "1:6: parse error: unexpected end of input"),
            ("a - on(b) ignoring(c) d", "1:11: parse error: unexpected <ignoring>"),
            ("a or on(b) group_left(c) d", "1:12: parse error: no grouping allowed for \"or\" operation"),
            ("{", "1:2: parse error: unexpected end of input inside braces"),
            ("some{", "1:6: parse error: unexpected end of input inside braces"),
            ("some}", "1:5: parse error: unexpected character: '}'"),
            ("a{b=c}", "1:5: parse error: unexpected identifier \"c\" in label matching, expected string"),
            ("a{b:c=\"d\"}", "1:4: parse error: unexpected character inside braces: ':'"),
            ("a{b*\"c\"}", "1:4: parse error: unexpected character inside braces: '*'"),
            ("a{b!c}", "1:4: parse error: unexpected character after '!' inside braces: 'c'"),
            ("a{1}", "1:3: parse error: unexpected character inside braces: '1'"),
            ("a{b}", "1:4: parse error: unexpected \"}\" in label matching, expected label matching operator"),
            (
                "a{b sum}",
                "1:5: parse error: unexpected identifier \"sum\" in label matching, expected label matching operator"
            ),
            ("a{,}", "1:3: parse error: unexpected \",\" in label matching, expected identifier or \"}\""),
            (
                "a{b=\"c\" d}",
                "1:9: parse error: unexpected identifier \"d\" in label matching, expected \",\" or \"}\""
            ),
            ("a{{}", "1:3: parse error: unexpected left brace '{'"),
            ("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
            ("a{b=\"\u{FFFD}\"}", "1:5: parse error: invalid UTF-8 rune"),
            ("\"\\c\"", "1:1: parse error: unknown escape sequence U+0063 'c'"),
            ("\"\\x.\"", "1:1: parse error: illegal character U+002E '.' in escape sequence"),
            ("\"\\400\"", "1:1: parse error: escape sequence is an invalid Unicode code point"),
            ("\"\\ud800\"", "1:1: parse error: escape sequence is an invalid Unicode code point"),
            ("\"\\", "1:1: parse error: escape sequence not terminated"),
            ("\"open", "1:1: parse error: unterminated quoted string"),
            ("`open", "1:1: parse error: unterminated raw string"),
            (
                "a[]",
                "1:3: parse error: unexpected \"]\" in subquery or range selector, expected number, duration, step(), or range()"
            ),
            ("a[", "1:3: parse error: unexpected end of input in duration expression"),
            ("a[5m", "1:5: parse error: unclosed left bracket"),
            ("a[5m 5m]", "1:6: parse error: unexpected duration \"5m\" in subquery or range, expected \":\" or \"]\""),
            ("a[b]", "1:3: parse error: unexpected character in duration expression: 'b'"),
            ("a[5m b]", "1:6: parse error: unexpected character: 'b', expected ':'"),
            ("a[:5m]", "1:4: parse error: unexpected colon before duration in duration expression"),
            ("a[5m:5m:5m]", "1:8: parse error: unexpected colon ':'"),
            ("a[5m[", "1:5: parse error: unexpected left bracket '['"),
            ("a]", "1:2: parse error: unexpected right bracket ']'"),
            ("a[5m] OFFSET 1mm", "1:14: parse error: bad number or duration syntax: \"1mm\""),
            (
                "a[5m] OFFSET",
                "1:13: parse error: unexpected end of input in offset, expected number, duration, step(), or range()"
            ),
            ("a @", "1:4: parse error: unexpected end of input in @, expected timestamp"),
            ("a @ 5m", nil), ("a @ Inf", "1:5: parse error: timestamp out of bounds for @ modifier: +Inf"),
            ("a offset NaN", "1:10: parse error: duration out of range"),
            ("a offset 1m[5m]", "1:12: parse error: no offset modifiers allowed before range"),
            ("a @ start()[5m]", "1:12: parse error: no @ modifiers allowed before range"),
            ("(a + b)[5m]", "1:8: parse error: ranges only allowed for vector selectors"),
            ("sum without(==)(a)", "1:13: parse error: unexpected <op:==> in grouping opts, expected label"),
            ("sum without(,)(a)", "1:13: parse error: unexpected \",\" in grouping opts, expected label"),
            ("sum (a) by b", "1:12: parse error: unexpected identifier \"b\" in grouping opts, expected \"(\""),
            (
                "sum by (b c) (a)",
                "1:11: parse error: unexpected identifier \"c\" in grouping opts, expected \",\" or \")\""
            ),
            ("sum a by (b)", "1:5: parse error: unexpected identifier \"a\""),
            ("sum()", "1:1: parse error: no arguments for aggregate expression provided"),
            (
                "topk(a)",
                "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1"
            ),
            ("topk(5, a,)", "1:10: parse error: trailing commas not allowed in function call args"),
            ("rate(a[5m],)", "1:11: parse error: trailing commas not allowed in function call args"),
            ("rate(a[5m] b)", "1:12: parse error: unexpected identifier \"b\""),
            (
                "rate(a)",
                "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector"
            ),
            ("floor()", "1:1: parse error: expected 1 argument(s) in call to \"floor\", got 0"),
            ("b()", "1:1: parse error: unknown function with name \"b\""),
            ("by(a)", "1:3: parse error: unexpected \"(\""), ("atan2", "1:1: parse error: unexpected <op:atan2>"),
            ("bool + 1", "1:1: parse error: unexpected <bool>"),
        ] as [(String, String?)])
    func error_isThatOfPrometheus(source: String, words: String?) {
        var found: String?
        do {
            _ = try Parser.parse(source)
        } catch {
            found = "\(error)"
        }
        #expect(found == words)
    }
}
