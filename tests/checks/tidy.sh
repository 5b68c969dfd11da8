#!/bin/sh
# clang-tidy over the C files of src/ and kernels/ that this build compiles.
# usage: tidy.sh SOURCE_DIR BUILD_DIR
#
# A file that passed is not read again until it, a header, .clang-tidy or the
# compile commands change: the digest of all these names its stamp in the
# build directory.
#
# clang-tidy 14 reads a file as often as the compile commands name it, and the
# second reading in one process takes every va_list for uninitialised: so it
# gets a copy that names each file once.
set -eu
source_dir=$1
build_dir=$2
command -v clang-tidy >/dev/null || {
    echo "clang-tidy is missing: apt-get install clang-tidy"; exit 1; }
cd "$source_dir"
stamps=$build_dir/tidy
mkdir -p "$stamps"
common=$({ cat .clang-tidy "$build_dir/compile_commands.json"
           find src include kernels -name '*.h' | LC_ALL=C sort | xargs cat
         } | sha256sum | cut -c1-64)
python3 - "$build_dir" "$stamps" <<'END'
import json, sys
build, stamps = sys.argv[1:]
entries = json.load(open(f"{build}/compile_commands.json"))
once = {entry["file"]: entry for entry in entries}
json.dump(list(once.values()), open(f"{stamps}/compile_commands.json", "w"))
END
files=$(sed -n 's/^ *"file": "\(.*\)",*$/\1/p' \
        "$build_dir/compile_commands.json" | LC_ALL=C sort -u |
        grep -E "^$source_dir/(src|kernels)/.*\.c$" || true)
[ -n "$files" ] || { echo "tidy: no files in compile_commands.json"; exit 1; }

one='
    stamp=$1/$( { echo "$2"; cat "$0"; } | sha256sum | cut -c1-64)
    [ -e "$stamp" ] && exit 0
    out=$(clang-tidy --quiet -p "$1" "$0" 2>/dev/null) &&
        { touch "$stamp"; exit 0; }
    printf "%s\n" "$out"
    exit 1'
status=0
for file in $files; do printf '%s\0' "$file"; done |
    xargs -0 -P 2 -I{} sh -c "$one" {} "$stamps" "$common" ||
    status=1
echo "tidy: $(printf '%s\n' "$files" | wc -l) files"
exit $status
