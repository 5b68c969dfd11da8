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
#   uninitvar              takes an array filled by one loop and read by the
#                          next for unset; compilers and clang-tidy check this
#   ctuPointerArith        takes the end of a buffer for its outside
# A line of code is excused only in place: // cppcheck-suppress ID
exec cppcheck --quiet -j2 --std=c11 --language=c --error-exitcode=1 \
    --enable=warning,performance,portability --inline-suppr \
    --cppcheck-build-dir="$2/cppcheck" \
    --suppress=missingIncludeSystem --suppress=unmatchedSuppression \
    --suppress=uninitvar --suppress=ctuPointerArith \
    -D_GNU_SOURCE -D__GNUC__ -DFM_FAULTS -Isrc -Iinclude -I"$2/include" -I. \
    --template='{file}:{line}:{column}: {severity}: {message} [{id}]' \
    src kernels
