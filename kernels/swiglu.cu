/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bandwidth-bound: each thread owns quads, strided by the grid.  Outputs may
 * be inputs, so no pointer is __restrict__ and a thread loads all of a quad
 * before it stores any.
 */
#include "kernels/swiglu.h"

#include "kernels/device.cuh"

namespace
{

using fm::kThreads;

__device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

__device__ __forceinline__ float silu_slope(float gate)
{
    const float s = sigmoid(gate);
    return s * fmaf(gate, 1.0f - s, 1.0f);
}

template <bool kVector>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(float *out, const float *gate, const float *up, size_t count)
{
    const size_t stride = 4 * (size_t)gridDim.x * kThreads;

    for (size_t i = 4 * ((size_t)blockIdx.x * kThreads + threadIdx.x);
         i < count; i += stride) {
        const float4 g = fm::load_quad<kVector>(gate, i, count);
        float4 u = fm::load_quad<kVector>(up, i, count);
        u.x *= g.x * sigmoid(g.x);
        u.y *= g.y * sigmoid(g.y);
        u.z *= g.z * sigmoid(g.z);
        u.w *= g.w * sigmoid(g.w);
        fm::store_quad<kVector>(out, i, count, u);
    }
}

template <bool kVector>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(float *dgate, float *dup, const float *dout,
                    const float *gate, const float *up, size_t count)
{
    const size_t stride = 4 * (size_t)gridDim.x * kThreads;

    for (size_t i = 4 * ((size_t)blockIdx.x * kThreads + threadIdx.x);
         i < count; i += stride) {
        const float4 g = fm::load_quad<kVector>(gate, i, count);
        const float4 u = fm::load_quad<kVector>(up, i, count);
        const float4 d = fm::load_quad<kVector>(dout, i, count);
        float4 dg;
        float4 du;
        dg.x = d.x * u.x * silu_slope(g.x);
        dg.y = d.y * u.y * silu_slope(g.y);
        dg.z = d.z * u.z * silu_slope(g.z);
        dg.w = d.w * u.w * silu_slope(g.w);
        du.x = d.x * g.x * sigmoid(g.x);
        du.y = d.y * g.y * sigmoid(g.y);
        du.z = d.z * g.z * sigmoid(g.z);
        du.w = d.w * g.w * sigmoid(g.w);
        fm::store_quad<kVector>(dgate, i, count, dg);
        fm::store_quad<kVector>(dup, i, count, du);
    }
}

unsigned grid_of(size_t count)
{
    const size_t per_block = 4 * (size_t)kThreads;
    return fm::grid_size(count / per_block + (count % per_block != 0));
}

} // namespace

extern "C" int fm_kernels_swiglu_forward(float *out, const float *gate,
                                         const float *up, size_t count,
                                         void *stream)
{
    if (count == 0) {
        return cudaSuccess;
    }
    if (!out || !gate || !up) {
        return cudaErrorInvalidValue;
    }
    const cudaStream_t queue = static_cast<cudaStream_t>(stream);
    if (count % 4 == 0 && fm::is_aligned16(out) && fm::is_aligned16(gate) &&
        fm::is_aligned16(up)) {
        forward_kernel<true>
            <<<grid_of(count), kThreads, 0, queue>>>(out, gate, up, count);
    } else {
        forward_kernel<false>
            <<<grid_of(count), kThreads, 0, queue>>>(out, gate, up, count);
    }
    return cudaGetLastError();
}

extern "C" int fm_kernels_swiglu_backward(float *dgate, float *dup,
                                          const float *dout, const float *gate,
                                          const float *up, size_t count,
                                          void *stream)
{
    if (count == 0) {
        return cudaSuccess;
    }
    if (!dgate || !dup || !dout || !gate || !up || dgate == dup) {
        return cudaErrorInvalidValue;
    }
    const cudaStream_t queue = static_cast<cudaStream_t>(stream);
    if (count % 4 == 0 && fm::is_aligned16(dgate) && fm::is_aligned16(dup) &&
        fm::is_aligned16(dout) && fm::is_aligned16(gate) &&
        fm::is_aligned16(up)) {
        backward_kernel<true><<<grid_of(count), kThreads, 0, queue>>>(
            dgate, dup, dout, gate, up, count);
    } else {
        backward_kernel<false><<<grid_of(count), kThreads, 0, queue>>>(
            dgate, dup, dout, gate, up, count);
    }
    return cudaGetLastError();
}
