# SPDX-License-Identifier: Apache-2.0
"""Spack recipe.  From a checkout:

    spack repo add $PWD/spack
    spack dev-build flowmesh@0.1.0
"""
from spack.package import *


class Flowmesh(CMakePackage, CudaPackage):
    """A service fabric for LLM workflows on Slurm GPU clusters: cuts workflows
    into fine-grained operators, runs every distinct piece of work once,
    batches what fits together and survives preemption."""

    license("Apache-2.0")

    # Built from a checkout (see above): there is no release archive to name.
    version("0.1.0")

    variant("tests", default=False, description="Build the tests")

    generator("ninja")

    depends_on("c", type="build")
    depends_on("cxx", type="build", when="+cuda")   # nvcc's host compiler
    depends_on("cmake@3.25:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi@3:")
    depends_on("hdf5@1.10: +mpi")
    depends_on("libzmq@4.3:+libsodium")
    depends_on("hwloc@2:")
    depends_on("zlib-api")
    depends_on("jansson@2.13:")
    depends_on("libyaml")
    depends_on("openblas")
    depends_on("openssl@3:")
    depends_on("pcre2@10.30:+jit")
    depends_on("utf8proc")
    depends_on("xxhash@0.8:")
    depends_on("cunit", when="+tests", type=("build", "link"))
    depends_on("python@3.9:", when="+tests", type=("build", "test"))

    conflicts("cuda_arch=none", when="+cuda",
              msg="name the GPUs, such as cuda_arch=90 for H100")

    def cmake_args(self):
        args = [
            self.define_from_variant("FM_CUDA", "cuda"),
            self.define_from_variant("FM_TESTS", "tests"),
            self.define("FM_BENCH", False),
        ]
        if self.spec.satisfies("+cuda"):
            args.append(self.define("CMAKE_CUDA_ARCHITECTURES",
                                    self.spec.variants["cuda_arch"].value))
        return args
