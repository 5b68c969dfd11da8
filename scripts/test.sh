#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From a bare checkout to a verdict: installs what is missing, builds, and runs
# every test through ctest.
#
# usage: scripts/test.sh [ctest options…]      such as: -L unit, -R journal
#
# All tests run on the build with ASan, UBSan and fault points (preset dev);
# on the optimised build (preset release) run all but the checks of the source
# text, which do not depend on the build.  Exit 0 when both passed.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib/packages.sh
. scripts/lib/build.sh

case ${1:-} in
--help)
    sed -n '3,11s/^# \{0,1\}//p' scripts/test.sh
    exit 0
    ;;
esac
fm_packages_install build run test
fm_allow_root
fm_build release -DFM_TESTS=ON -DFM_BENCH=ON
fm_build dev

# run_tests PRESET [ctest options…]
run_tests() {
    preset=$1
    shift
    echo "==> ctest --preset $preset $*"
    ctest --preset "$preset" -j "$(nproc)" "$@"
}
status=0
run_tests dev "$@" || status=1
run_tests release -LE '^(check|lint)$' "$@" || status=1
if [ "$status" -ne 0 ]; then
    echo "==> some tests failed" >&2
else
    echo "==> all tests passed"
fi
exit "$status"
