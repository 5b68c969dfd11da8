#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From a bare checkout to a running fabric: installs what is missing, builds,
# and runs a sweep of RLHF trials that share their common work.
#
# usage: scripts/demo.sh [WORKFLOW [flowmesh-run options…]]
#
# The fabric directory is build/demo-fabric; FLOWMESH_FABRIC names another.  It
# is kept: a second run answers from it what has been computed already.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib/packages.sh
. scripts/lib/build.sh

case ${1:-} in
-h | --help)
    sed -n '3,9s/^# \{0,1\}//p' scripts/demo.sh
    exit 0
    ;;
esac
workflow=${1:-examples/rlhf_sweep.yaml}
[ $# -eq 0 ] || shift
[ -r "$workflow" ] || {
    echo "demo.sh: $workflow: no such workflow file" >&2
    exit 2
}
fm_packages_install build run
fm_build release -DFM_TESTS=OFF -DFM_BENCH=OFF
fm_allow_root
fabric=${FLOWMESH_FABRIC:-$PWD/build/demo-fabric}
echo "==> flowmesh run $workflow --fabric $fabric"
exec build/release/bin/flowmesh run "$workflow" --fabric "$fabric" "$@"
