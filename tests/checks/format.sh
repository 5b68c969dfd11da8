#!/bin/sh
# Every C, CUDA and header file is as clang-format 14 writes it.
set -eu
cd "$1"
command -v clang-format >/dev/null || {
    echo "clang-format is missing: apt-get install clang-format"; exit 1; }
find src include kernels tests bench examples \
    -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | xargs clang-format --dry-run -Werror
