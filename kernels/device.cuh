/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernels share: four elements at a time, sums in a fixed order and
 * the shape of a launch.  For .cu files of this directory only.
 *
 * Every kernel is written over quads, four consecutive elements owned by one
 * thread.  The vector and the scalar variant give each thread the same
 * elements in the same order, so alignment never changes a result's bits.
 */
#ifndef FM_KERNELS_DEVICE_CUH
#define FM_KERNELS_DEVICE_CUH

#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

namespace fm
{

/* 8 warps: enough to hide latency, and 8 adds close a block's sum. */
constexpr int kThreads = 256;
constexpr int kWarpSize = 32;
constexpr int kWarps = kThreads / kWarpSize;
/* Grids are capped and threads stride: 2^16 blocks fill any device many times
 * over and stay below every grid limit. */
constexpr size_t kMaxBlocks = 65536;

inline unsigned grid_size(size_t blocks)
{
    return (unsigned)(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

inline bool is_aligned16(const void *pointer)
{
    return ((uintptr_t)pointer & 15u) == 0;
}

/* Elements [base, base + 4) of @p data, zero from @p count on. */
template <bool kVector>
__device__ __forceinline__ float4 load_quad(const float *data, size_t base,
                                            size_t count)
{
    if (kVector) {
        return *reinterpret_cast<const float4 *>(data + base);
    }
    float4 quad = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    quad.x = data[base];
    if (base + 1 < count) {
        quad.y = data[base + 1];
    }
    if (base + 2 < count) {
        quad.z = data[base + 2];
    }
    if (base + 3 < count) {
        quad.w = data[base + 3];
    }
    return quad;
}

/* The reverse; nothing is written from @p count on. */
template <bool kVector>
__device__ __forceinline__ void store_quad(float *data, size_t base,
                                           size_t count, float4 quad)
{
    if (kVector) {
        *reinterpret_cast<float4 *>(data + base) = quad;
        return;
    }
    data[base] = quad.x;
    if (base + 1 < count) {
        data[base + 1] = quad.y;
    }
    if (base + 2 < count) {
        data[base + 2] = quad.z;
    }
    if (base + 3 < count) {
        data[base + 3] = quad.w;
    }
}

/*
 * Sum of @p value over the block, the same bits in every thread.  Butterfly
 * inside a warp (addition commutes, so all lanes agree), then the warps in
 * order.  All kThreads threads must call it; @p scratch holds kWarps floats
 * and is free again on return.
 */
__device__ __forceinline__ float block_sum(float value, float *scratch)
{
#pragma unroll
    for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    }
    if (threadIdx.x % kWarpSize == 0) {
        scratch[threadIdx.x / kWarpSize] = value;
    }
    __syncthreads();
    float sum = scratch[0];
#pragma unroll
    for (int warp = 1; warp < kWarps; warp++) {
        sum += scratch[warp];
    }
    __syncthreads();
    return sum;
}

} // namespace fm

#endif
