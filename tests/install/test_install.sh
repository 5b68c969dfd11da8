#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs into a temporary prefix, moves it (an installation is relocatable),
# and builds a consumer with find_package and with pkg-config.
# usage: test_install.sh CMAKE BUILD_DIR SOURCE_DIR VERSION C_COMPILER C_FLAGS
set -eu
cmake=$1 build=$2 source=$3 version=$4 cc=$5 flags=$6
work=$(mktemp -d "${TMPDIR:-/tmp}/fm-install.XXXXXX")
trap 'rm -rf "$work"' EXIT

fail() {
    echo "FAIL: $*" >&2
    exit 1
}

"$cmake" --install "$build" --prefix "$work/first" >"$work/install.log"
prefix=$work/moved
mv "$work/first" "$prefix"

for file in include/flowmesh/error.h include/flowmesh/version.h \
    share/flowmesh/slurm/flowmesh.sbatch share/doc/flowmesh/LICENSE; do
    [ -s "$prefix/$file" ] || fail "$file is not installed"
done
for program in flowmesh flowmesh-engine; do
    [ ! -x "$build/bin/$program" ] || [ -x "$prefix/bin/$program" ] ||
        fail "bin/$program is not installed"
done

# The library exports what the headers declare FM_EXPORT, and only that.
library=$(find "$prefix" -name 'libflowmesh.so')
sed -n 's/^FM_EXPORT [^(]*[ *]\(fm_[a-z0-9_]*\)(.*/\1/p' \
    "$prefix"/include/flowmesh/*.h | sort >"$work/declared"
nm -D --defined-only "$library" | sed -n 's/.* T //p' | sort >"$work/exported"
[ -s "$work/declared" ] || fail "no FM_EXPORT function in the headers"
diff "$work/declared" "$work/exported" ||
    fail "headers (<) and $(basename "$library") (>) disagree"

for header in "$prefix"/include/flowmesh/*.h; do
    printf '#include <flowmesh/%s>\nextern int used;\n' "$(basename "$header")" |
        $cc -std=c17 -Wall -Wextra -Wpedantic -Werror -fsyntax-only \
            -I"$prefix/include" -x c - || fail "$header needs another header"
done

"$cmake" -S "$source/tests/install/consumer" -B "$work/by-cmake" \
    -DCMAKE_PREFIX_PATH="$prefix" -DFLOWMESH_VERSION="$version" \
    -DCMAKE_C_COMPILER="$cc" -DCMAKE_C_FLAGS="$flags" >"$work/cmake.log" ||
    fail "find_package: $(cat "$work/cmake.log")"
"$cmake" --build "$work/by-cmake" >"$work/cmake.log" ||
    fail "consumer: $(cat "$work/cmake.log")"
"$work/by-cmake/consumer" | grep "^$version not found: consumer: cause 7$"

PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name flowmesh.pc)")
export PKG_CONFIG_PATH
[ "$(pkg-config --modversion flowmesh)" = "$version" ] ||
    fail "pkg-config: version $(pkg-config --modversion flowmesh)"
# shellcheck disable=SC2046,SC2086  # words on purpose
$cc $flags "$source/tests/install/consumer/main.c" -o "$work/by-pc" \
    $(pkg-config --cflags --libs flowmesh)
LD_LIBRARY_PATH=$(pkg-config --variable=libdir flowmesh) "$work/by-pc" |
    grep "^$version not found: consumer: cause 7$"
