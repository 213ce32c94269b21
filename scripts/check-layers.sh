#!/usr/bin/env bash
# Holds the imports of every module against the table in docs/architecture.md.
set -euo pipefail
cd "$(dirname "$0")/.."
awk -F'|' '
    # Rows of the table: | level | `module` | owns | may import |
    FNR == NR {
        if ($2 ~ /^ *[0-9]+ *$/) {
            gsub(/[ `]/, "", $3)
            module = $3; level[module] = $2 + 0
            gsub(/[`,]/, " ", $5)
            n = split($5, words, " ")
            for (i = 1; i <= n; i++) allowed[module, words[i]] = 1
            if ($5 ~ /all below/) everything[module] = 1
        }
        next
    }
    FNR == 1 { split(FILENAME, path, "/"); own = path[2] }
    /^ *(public |package |internal |private |fileprivate |@testable )*import / {
        name = $0
        sub(/^.*import +((struct|class|enum|func|protocol|typealias|let|var) +)?/, "", name)
        sub(/[ .].*$/, "", name)
        if (!(own in level)) { print FILENAME ": the module " own " is not in docs/architecture.md"; bad = 1; nextfile }
        if (!(name in level)) next
        if (level[name] >= level[own]) {
            print FILENAME ": " own " (level " level[own] ") imports " name " (level " level[name] "): not below it"; bad = 1
        } else if (!(own in everything) && !((own, name) in allowed)) {
            print FILENAME ": " own " may not import " name " (docs/architecture.md)"; bad = 1
        }
    }
    END { exit bad }
' docs/architecture.md $(git ls-files --cached --others --exclude-standard 'Sources/*.swift')
