#!/bin/sh
# cppcheck over src/ and kernels/.
# usage: cppcheck.sh SOURCE_DIR BUILD_DIR
set -eu
command -v cppcheck >/dev/null || {
    echo "cppcheck is missing: apt-get install cppcheck"; exit 1; }
cd "$1"
mkdir -p "$2/cppcheck"
# Suppressed, each for a reason:
#   missingIncludeSystem   system headers are not parsed, on purpose
#   normalCheckLevel…      a remark about effort, no finding
# A line of code is excused only in place: // cppcheck-suppress ID
exec cppcheck --quiet -j2 --std=c11 --language=c --error-exitcode=1 \
    --enable=warning,performance,portability --inline-suppr \
    --cppcheck-build-dir="$2/cppcheck" \
    --suppress=missingIncludeSystem --suppress=unmatchedSuppression \
    -D_GNU_SOURCE -D__GNUC__ -DFM_FAULTS -Isrc -Iinclude -I"$2/include" -I. \
    --template='{file}:{line}:{column}: {severity}: {message} [{id}]' \
    src kernels
