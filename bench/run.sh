#!/bin/sh
# Run the benchmarks and print one table; bench/README.md says how to read it.
# usage: bench/run.sh [WORD…]     only those whose name contains a WORD
set -eu
cd "$(dirname "$0")/.."
build=${FM_BUILD:-build/release}
out=$build/bench
limit_s=600

case ${1:-} in
-h | --help) sed -n '2,3s/^# //p' bench/run.sh; exit 0 ;;
esac
[ -d "$build" ] || {
    echo "run.sh: $build: no such build:" \
        "cmake --preset release && cmake --build --preset release" >&2
    exit 2
}
mkdir -p "$out"

wanted() {
    name=$1
    shift
    [ $# -gt 0 ] || return 0
    for word; do
        case $name in *"$word"*) return 0 ;; esac
    done
    return 1
}

# What the figures depend on; a busy machine is not one to measure on.
state() {
    cpu=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
    commit=$(git describe --always --dirty 2>/dev/null || echo unknown)
    echo "$(nproc) cores of ${cpu:-unknown}, $(uname -sr), commit $commit," \
        "load $(cut -d' ' -f1 /proc/loadavg)"
}

ran=0
failed=
before=$(state)
table=$(mktemp)
trap 'rm -f "$table"' EXIT
for program in "$build"/bin/bench_* bench/*/bench_*.sh bench/*/bench_*.py; do
    [ -f "$program" ] && [ -x "$program" ] || continue
    name=$(basename "$program")
    wanted "$name" "$@" || continue
    ran=$((ran + 1))
    echo "== $name" >&2
    rc=0
    FM_BUILD=$build timeout "$limit_s" "$program" \
        >"$out/$name.txt" 2>"$out/$name.err" || rc=$?
    [ "$rc" -eq 0 ] || {
        failed="$failed $name"
        echo "run.sh: $name: exit $rc; the last lines of $out/$name.err:" >&2
        tail -n 5 "$out/$name.err" >&2
    }
    grep -E '^(BENCH|SKIP) ' "$out/$name.txt" >>"$table" ||
        echo "TEXT $name $out/$name.txt" >>"$table"
done
[ "$ran" -gt 0 ] || {
    echo "run.sh: no benchmark under $build/bin and bench/:" \
        "configure with -DFM_BENCH=ON and build" >&2
    exit 2
}
echo "$before before, $(cut -d' ' -f1 /proc/loadavg) after"
awk '
    BEGIN { printf "%-36s %14s %-11s %-16s %12s %7s\n",
            "benchmark", "value", "unit", "peer", "peer value", "ratio" }
    $1 == "BENCH" { printf "%-36s %14s %-11s %-16s %12s %7s\n",
                    $2, $3, $4, $5, $6, $7 }
    $1 == "SKIP" { name = $2; $1 = $2 = ""; sub(/^ +/, "")
                   printf "%-36s skipped: %s\n", name, $0 }
    $1 == "TEXT" { printf "%-36s prints text only: %s\n", $2, $3 }' "$table"
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
