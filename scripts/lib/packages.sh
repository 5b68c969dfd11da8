# SPDX-License-Identifier: Apache-2.0
# Debian packages FlowMesh is built, tested and run with, one a line, each
# with its reason.  Sourced by scripts/*.sh; docs/install.md and the Spack
# recipe name the same things for other systems.
#
# fm_packages_install LIST…  installs what is missing of the named lists
# (build run test), and calls apt only when something is.

FM_PACKAGES_build="
gcc                   # C17 compiler
libc6-dev             # the C library's headers
cmake                 # 3.25 or newer
ninja-build           # generator of every preset
pkg-config            # how CMake finds most of the libraries below
libopenmpi-dev        # MPI: the ranks of one cell
libhdf5-openmpi-dev   # parallel HDF5: segments of the object store
libzmq3-dev           # ZeroMQ with CURVE: cells that join
libhwloc-dev          # cores, memory and devices of a host
zlib1g-dev            # compressed traces of the simulator
libjansson-dev        # JSON, fenced into src/base
libyaml-dev           # workflow files
libssl-dev            # SHA-256 of objects, keys
libxxhash-dev         # XXH3: hash of in-memory tables
libpcre2-dev          # split patterns of tokenizers
libutf8proc-dev       # Unicode normal forms and categories of tokenizers
libopenblas-dev       # matrix products of the CPU backend
"
FM_PACKAGES_run="
openmpi-bin           # mpirun
python3               # operators of type python
"
FM_PACKAGES_test="
libcunit1-dev         # CUnit: every C test program
clang-format          # the format check (version 14)
clang-tidy            # the check tidy (label lint)
cppcheck              # the check cppcheck (label lint)
gnuplot-nox           # plots of flowmesh sim
slurm-wlm             # a real slurmctld and slurmd for label slurm
munge                 # authentication of that cluster
iproute2              # network namespaces: its hosts
util-linux            # unshare, nsenter, setpriv
libpmix-dev           # libpmix.so, which srun --mpi=pmix loads by that name
"

# Names of the packages in the given lists, one a line.
fm_packages_names() {
    for list in "$@"; do
        eval "printf '%s\n' \"\$FM_PACKAGES_$list\""
    done | sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d'
}

# Those of them that dpkg does not know as installed, on one line.
fm_packages_missing() {
    fm_packages_names "$@" | while read -r package; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null |
            grep -q '^ii' || printf '%s ' "$package"
    done
}

fm_packages_install() {
    command -v dpkg-query >/dev/null || {
        echo "not a Debian system: install what docs/install.md names;" \
             "going on with what is here" >&2
        return 0
    }
    fm_missing=$(fm_packages_missing "$@")
    [ -n "$fm_missing" ] || return 0
    fm_command="apt-get install -y --no-install-recommends $fm_missing"
    if [ "$(id -u)" -ne 0 ]; then
        echo "packages are missing; run this as root, then start again:" >&2
        echo "    $fm_command" >&2
        return 1
    fi
    echo "==> $fm_command"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # a list of names
    $fm_command >/dev/null || {     # perhaps only the lists are old or absent
        apt-get update -q >/dev/null && $fm_command >/dev/null
    }
}
