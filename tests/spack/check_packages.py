#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Three lists of dependencies say the same: CMake's, Spack's and Debian's.

usage: check_packages.py SOURCE_DIR

Runs the Spack recipe against recording stand-ins for Spack's directives, so a
recipe that would not load fails here, and compares what it declares with
cmake/FmPackages.cmake (the names CMake looks for), scripts/lib/packages.sh
(the Debian packages) and the project's version and options.
"""
import pathlib
import re
import subprocess
import sys
import types

# name in FmPackages.cmake: (Spack, Debian, only for +tests).  A None needs
# none of its own.
KNOWN = {
    "PkgConfig": ("pkgconfig", "pkg-config", False),
    "Threads": (None, "libc6-dev", False),
    "OpenSSL": ("openssl", "libssl-dev", False),
    "MPI": ("mpi", "libopenmpi-dev", False),
    "HDF5": ("hdf5", "libhdf5-openmpi-dev", False),
    "jansson": ("jansson", "libjansson-dev", False),
    "yaml-0.1": ("libyaml", "libyaml-dev", False),
    "libxxhash": ("xxhash", "libxxhash-dev", False),
    "libpcre2-8": ("pcre2", "libpcre2-dev", False),
    "libutf8proc": ("utf8proc", "libutf8proc-dev", False),
    "openblas": ("openblas", "libopenblas-dev", False),
    "hwloc": ("hwloc", "libhwloc-dev", False),
    "zlib": ("zlib-api", "zlib1g-dev", False),
    "libzmq": ("libzmq", "libzmq3-dev", False),
    "libcurl": ("curl", "libcurl4-openssl-dev", False),
    "libmicrohttpd": ("libmicrohttpd", "libmicrohttpd-dev", False),
    "pmix": ("pmix", "libpmix-dev", False),
    "cunit": ("cunit", "libcunit1-dev", True),
    "CUDAToolkit": (None, None, False),     # Spack's CudaPackage brings it
    "Python3": ("python", "python3", True),
}
BUILD_TOOLS = {"c", "cxx", "cmake"}         # no find_package speaks of them


def cmake_packages(root):
    """Names that CMake must find."""
    text = re.sub(r"#.*", "", (root / "cmake/FmPackages.cmake").read_text())
    text += re.sub(r"#.*", "", (root / "tests/checks/CMakeLists.txt")
                   .read_text())
    names = set(re.findall(r"find_package\((\w+)", text))
    for call in re.findall(r"pkg_check_modules\(([^)]*)\)", text):
        names |= {re.split(r"[<>=]", word)[0] for word in call.split()[1:]
                  if word not in ("REQUIRED", "IMPORTED_TARGET", "QUIET")}
    return names


class Recorder:
    """Stands for `spack.package`: keeps every directive's arguments."""

    def __init__(self):
        self.calls = []

    def module(self):
        module = types.ModuleType("spack.package")
        for name in ("depends_on", "variant", "version", "conflicts",
                     "generator", "license", "requires", "patch",
                     "maintainers", "provides"):
            setattr(module, name, lambda *args, _name=name, **kwargs:
                    self.calls.append((_name, args, kwargs)))

        class CMakePackage:
            def define(self, name, value):
                return name, value

            def define_from_variant(self, name, variant):
                return name, variant

        module.CMakePackage = CMakePackage
        module.CudaPackage = type("CudaPackage", (), {})
        return module

    def named(self, name):
        return [(args, kwargs) for n, args, kwargs in self.calls if n == name]


def load_recipe(root):
    recorder = Recorder()
    sys.modules["spack"] = types.ModuleType("spack")
    sys.modules["spack.package"] = recorder.module()
    path = root / "spack/packages/flowmesh/package.py"
    space = {}
    exec(compile(path.read_text(), str(path), "exec"), space)
    return recorder, space["Flowmesh"]


def recipe_options(cls, with_cuda):
    """Names of the CMake options that the recipe sets."""
    recipe = cls()
    cuda = types.SimpleNamespace(value=("90",))
    recipe.spec = types.SimpleNamespace(satisfies=lambda _: with_cuda,
                                        variants={"cuda_arch": cuda})
    return {name for name, _ in recipe.cmake_args()}


def main(source_dir):
    root = pathlib.Path(source_dir)
    errors = []
    names = cmake_packages(root)
    for name in sorted(names - KNOWN.keys()):
        errors.append(f"FmPackages.cmake: {name}: name its Spack and Debian "
                      f"package in {pathlib.Path(__file__).name}, in "
                      "package.py and in packages.sh")
    names &= KNOWN.keys()

    recorder, cls = load_recipe(root)
    spack = {re.split(r"[@+~ ]", args[0])[0]: kwargs
             for args, kwargs in recorder.named("depends_on")}
    want = {KNOWN[n][0]: KNOWN[n][2] for n in names if KNOWN[n][0]}
    for name in sorted(want.keys() - spack.keys()):
        errors.append(f"package.py: depends_on(\"{name}\") is missing")
    for name in sorted(spack.keys() - want.keys() - BUILD_TOOLS):
        errors.append(f"package.py: {name}: CMake looks for no such thing")
    for name in sorted(want.keys() & spack.keys()):
        if want[name] != (spack[name].get("when") == "+tests"):
            errors.append(f"package.py: {name}: when=\"+tests\" is wrong")

    debian = set(subprocess.run(
        ["sh", "-euc", ". \"$0\"; fm_packages_names build run test",
         str(root / "scripts/lib/packages.sh")],
        check=True, capture_output=True, text=True).stdout.split())
    for name in sorted(names):
        if KNOWN[name][1] and KNOWN[name][1] not in debian:
            errors.append(f"packages.sh: {KNOWN[name][1]} is missing")

    cmake = (root / "CMakeLists.txt").read_text()
    version = re.search(r"project\(flowmesh VERSION ([\d.]+)", cmake).group(1)
    versions = [args[0] for args, _ in recorder.named("version")]
    if version not in versions:
        errors.append(f"package.py: version {version} is missing: {versions}")
    minimum = re.search(r"cmake_minimum_required\(VERSION ([\d.]+)",
                        cmake).group(1)
    if not any(args[0] == f"cmake@{minimum}:"
               for args, _ in recorder.named("depends_on")):
        errors.append(f"package.py: CMakeLists.txt asks for cmake@{minimum}:")
    options = set(re.findall(r"option\((FM_\w+)", cmake))
    for with_cuda in (False, True):
        for name in sorted(recipe_options(cls, with_cuda)):
            if name.startswith("FM_") and name not in options:
                errors.append(f"package.py: {name} is no CMake option")
    if not re.search(r"^repo:\n  namespace: \w+$",
                     (root / "spack/repo.yaml").read_text(), re.M):
        errors.append("repo.yaml: no namespace")

    print(f"packages: {len(names)} from CMake, {len(spack)} in Spack, "
          f"{len(debian)} in Debian, {len(errors)} errors")
    print("\n".join(errors))
    return 1 if errors or not names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
