#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Install the task systems that bench_real.py compares with, into a virtual
# environment of their own.  usage: bench/paper/peers.sh [DIRECTORY]
set -eu
cd "$(dirname "$0")/../.."
dir=${1:-${FM_PEERS:-build/peers}}
python3 -m venv "$dir" || {
    echo "peers.sh: python3 -m venv failed: apt-get install python3-venv" >&2
    exit 1
}
for package in ray parsl distributed; do
    "$dir/bin/pip" install --quiet "$package" ||
        echo "peers.sh: $package could not be installed; it will be skipped" >&2
done
echo "peers in $dir:"
"$dir/bin/pip" list 2>/dev/null | grep -iE '^(ray|parsl|distributed) ' ||
    { echo "peers.sh: none could be installed" >&2; exit 1; }
