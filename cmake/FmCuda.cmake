# CUDA: on where a compiler was found, unless it is turned off.  Asked for and
# missing is an error.
# FM_CUDA_ARCHITECTURES: compute capabilities to build for.
include_guard(GLOBAL)
set(FM_CUDA_ARCHITECTURES "80;90" CACHE STRING
    "GPU architectures of the CUDA kernels, such as 80;90")
if(NOT FM_CUDA)
    return()
endif()
find_program(CMAKE_CUDA_COMPILER nvcc
    HINTS ENV CUDACXX ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda
    PATH_SUFFIXES bin)
if(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "FM_CUDA is ON, but nvcc is neither on PATH nor under "
        "CUDA_HOME nor in /usr/local/cuda/bin: set CMAKE_CUDA_COMPILER, or "
        "configure with -DFM_CUDA=OFF")
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES ${FM_CUDA_ARCHITECTURES})
endif()
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
find_package(CUDAToolkit 12.0 REQUIRED)
target_compile_options(fm_options INTERFACE
    $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>
    $<$<AND:$<BOOL:${FM_WERROR}>,$<COMPILE_LANGUAGE:CUDA>>:-Werror=all-warnings>)
