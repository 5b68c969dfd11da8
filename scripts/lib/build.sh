# SPDX-License-Identifier: Apache-2.0
# Configure and build steps that scripts/*.sh share.  Sourced from the source
# directory.

# fm_build PRESET [cmake options…]: configure unless it was done with the same
# options, then build what changed.
fm_build() {
    fm_preset=$1
    shift
    fm_stamp=build/$fm_preset/configured-with
    # A tree that was configured elsewhere (a copied checkout) is of no use.
    if [ -f "build/$fm_preset/CMakeCache.txt" ] &&
        ! grep -qx "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" \
            "build/$fm_preset/CMakeCache.txt"; then
        rm -rf "build/$fm_preset"
    fi
    if [ "$(cat "$fm_stamp" 2>/dev/null)" != "with $*" ]; then
        echo "==> cmake --preset $fm_preset $*"
        cmake --preset "$fm_preset" "$@"
        echo "with $*" >"$fm_stamp"
    fi
    echo "==> cmake --build --preset $fm_preset"
    cmake --build --preset "$fm_preset"
}

# mpirun refuses root unless told twice; containers and test machines are root.
fm_allow_root() {
    if [ "$(id -u)" -eq 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
}
