#!/bin/sh
# What no source file may hold: words that announce unfinished work, more than
# 900 lines, a missing licence line.
# usage: words.sh SOURCE_DIR
set -eu
cd "$1"
status=0
fail() { echo "$1"; status=1; }

if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    files=$(git ls-files --cached --others --exclude-standard)
else
    files=$(find . -type f -not -path './build/*' | sed 's|^\./||')
fi
code=$(printf '%s\n' "$files" |
       grep -E '\.(c|h|cu|cuh|py|sh|cmake|sbatch)$|(^|/)CMakeLists\.txt$' |
       grep -v '^tests/checks/words\.sh$')
[ -n "$code" ] || { echo "words: no source under $1"; exit 1; }

words='TODO|FIXME|XXX|[Ss]tub|STUB|[Pp]laceholder|PLACEHOLDER'
found=$(printf '%s\n' "$code" | xargs grep -nEwH "$words" 2>/dev/null || true)
[ -z "$found" ] || {
    printf '%s\n' "$found"
    fail "words: finish it, or leave it out and say so in an issue"
}
for file in $code; do
    [ -f "$file" ] || continue # deleted, not yet committed
    lines=$(wc -l <"$file")
    [ "$lines" -le 900 ] ||
        fail "$file: $lines lines: past 900 a file is two things"
    case $file in
    *.c | *.h | *.cu | *.cuh)
        head -n 1 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' ||
            fail "$file:1: the SPDX-License-Identifier line is missing" ;;
    esac
done
echo "words: $(printf '%s\n' "$code" | wc -l) files"
exit $status
