/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One block a row; each thread sums the quads it owns, then the block.
 * The weight's gradient is a sum over rows: a block owns 32 columns, its 8
 * warps share the rows out, and the warps' partial sums are added in order.
 */
#include "kernels/rmsnorm.h"

#include "kernels/device.cuh"

namespace
{

using fm::kThreads;
using fm::kWarps;
using fm::kWarpSize;

/* x and out may be one array, so neither is __restrict__: a thread reads a
 * quad again before it writes that quad, and no thread touches another's. */
template <bool kVector>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(float *out, float *rstd, const float *x,
                   const float *__restrict__ weight, size_t rows, size_t cols,
                   float eps)
{
    __shared__ float scratch[kWarps];
    const size_t first = 4 * (size_t)threadIdx.x;

    for (size_t r = blockIdx.x; r < rows; r += gridDim.x) {
        const float *x_row = x + r * cols;
        float squares = 0.0f;
        for (size_t c = first; c < cols; c += 4 * (size_t)kThreads) {
            const float4 q = fm::load_quad<kVector>(x_row, c, cols);
            squares = fmaf(q.x, q.x, squares);
            squares = fmaf(q.y, q.y, squares);
            squares = fmaf(q.z, q.z, squares);
            squares = fmaf(q.w, q.w, squares);
        }
        const float mean = fm::block_sum(squares, scratch) / (float)cols;
        const float scale = 1.0f / sqrtf(mean + eps);
        for (size_t c = first; c < cols; c += 4 * (size_t)kThreads) {
            float4 q = fm::load_quad<kVector>(x_row, c, cols);
            const float4 w = fm::load_quad<kVector>(weight, c, cols);
            q.x = q.x * scale * w.x;
            q.y = q.y * scale * w.y;
            q.z = q.z * scale * w.z;
            q.w = q.w * scale * w.w;
            fm::store_quad<kVector>(out + r * cols, c, cols, q);
        }
        if (rstd && threadIdx.x == 0) {
            rstd[r] = scale;
        }
    }
}

/* dx and dout may be one array: the same rule as above. */
template <bool kVector>
__global__ void __launch_bounds__(kThreads)
    backward_input_kernel(float *dx, const float *dout,
                          const float *__restrict__ x,
                          const float *__restrict__ weight,
                          const float *__restrict__ rstd, size_t rows,
                          size_t cols)
{
    __shared__ float scratch[kWarps];
    const size_t first = 4 * (size_t)threadIdx.x;

    for (size_t r = blockIdx.x; r < rows; r += gridDim.x) {
        const float *x_row = x + r * cols;
        const float *dout_row = dout + r * cols;
        float dot = 0.0f;
        for (size_t c = first; c < cols; c += 4 * (size_t)kThreads) {
            const float4 q = fm::load_quad<kVector>(x_row, c, cols);
            const float4 d = fm::load_quad<kVector>(dout_row, c, cols);
            const float4 w = fm::load_quad<kVector>(weight, c, cols);
            dot = fmaf(d.x * w.x, q.x, dot);
            dot = fmaf(d.y * w.y, q.y, dot);
            dot = fmaf(d.z * w.z, q.z, dot);
            dot = fmaf(d.w * w.w, q.w, dot);
        }
        const float scale = rstd[r];
        const float mean =
            fm::block_sum(dot, scratch) * scale * scale / (float)cols;
        for (size_t c = first; c < cols; c += 4 * (size_t)kThreads) {
            const float4 q = fm::load_quad<kVector>(x_row, c, cols);
            const float4 w = fm::load_quad<kVector>(weight, c, cols);
            float4 d = fm::load_quad<kVector>(dout_row, c, cols);
            d.x = scale * fmaf(-q.x, mean, d.x * w.x);
            d.y = scale * fmaf(-q.y, mean, d.y * w.y);
            d.z = scale * fmaf(-q.z, mean, d.z * w.z);
            d.w = scale * fmaf(-q.w, mean, d.w * w.w);
            fm::store_quad<kVector>(dx + r * cols, c, cols, d);
        }
    }
}

/* Lane = column, so that every load of a warp is one run of memory. */
__global__ void __launch_bounds__(kThreads)
    backward_weight_kernel(float *__restrict__ dweight,
                           const float *__restrict__ dout,
                           const float *__restrict__ x,
                           const float *__restrict__ rstd, size_t rows,
                           size_t cols)
{
    __shared__ float partial[kWarps][kWarpSize];
    const size_t lane = threadIdx.x % kWarpSize;
    const size_t warp = threadIdx.x / kWarpSize;
    const size_t stride = (size_t)gridDim.x * kWarpSize;

    /* The bound is the block's first column: all threads loop alike, as
     * __syncthreads() wants. */
    for (size_t block_col = (size_t)blockIdx.x * kWarpSize; block_col < cols;
         block_col += stride) {
        const size_t c = block_col + lane;
        float sum = 0.0f;
        for (size_t r = warp; c < cols && r < rows; r += kWarps) {
            sum = fmaf(dout[r * cols + c] * rstd[r], x[r * cols + c], sum);
        }
        partial[warp][lane] = sum;
        __syncthreads();
        if (warp == 0 && c < cols) {
            float total = partial[0][lane];
            for (int w = 1; w < kWarps; w++) {
                total += partial[w][lane];
            }
            dweight[c] += total;
        }
        __syncthreads();
    }
}

/* A row starts aligned in every row only if cols is divisible by 4. */
bool rows_are_aligned(const void *a, const void *b, const void *c,
                      const void *d, size_t cols)
{
    return cols % 4 == 0 && fm::is_aligned16(a) && fm::is_aligned16(b) &&
           fm::is_aligned16(c) && fm::is_aligned16(d);
}

} // namespace

extern "C" int fm_kernels_rmsnorm_forward(float *out, float *rstd,
                                          const float *x, const float *weight,
                                          size_t rows, size_t cols, float eps,
                                          void *stream)
{
    if (rows == 0) {
        return cudaSuccess;
    }
    /* Written so that a NaN is refused too. */
    if (!out || !x || !weight || cols == 0 || !(eps >= 0.0f)) {
        return cudaErrorInvalidValue;
    }
    const unsigned grid = fm::grid_size(rows);
    const cudaStream_t queue = static_cast<cudaStream_t>(stream);
    if (rows_are_aligned(out, x, weight, weight, cols)) {
        forward_kernel<true><<<grid, kThreads, 0, queue>>>(out, rstd, x, weight,
                                                           rows, cols, eps);
    } else {
        forward_kernel<false><<<grid, kThreads, 0, queue>>>(
            out, rstd, x, weight, rows, cols, eps);
    }
    return cudaGetLastError();
}

extern "C" int fm_kernels_rmsnorm_backward(float *dx, float *dweight,
                                           const float *dout, const float *x,
                                           const float *weight,
                                           const float *rstd, size_t rows,
                                           size_t cols, void *stream)
{
    if (rows == 0) {
        return cudaSuccess;
    }
    if (!dx || !dout || !x || !weight || !rstd || cols == 0 ||
        (dweight && dx == dout)) {
        return cudaErrorInvalidValue;
    }
    const unsigned grid = fm::grid_size(rows);
    const cudaStream_t queue = static_cast<cudaStream_t>(stream);
    if (rows_are_aligned(dx, dout, x, weight, cols)) {
        backward_input_kernel<true><<<grid, kThreads, 0, queue>>>(
            dx, dout, x, weight, rstd, rows, cols);
    } else {
        backward_input_kernel<false><<<grid, kThreads, 0, queue>>>(
            dx, dout, x, weight, rstd, rows, cols);
    }
    const cudaError_t rc = cudaGetLastError();
    if (rc != cudaSuccess || !dweight) {
        return rc;
    }
    const size_t blocks = cols / kWarpSize + (cols % kWarpSize != 0);
    backward_weight_kernel<<<fm::grid_size(blocks), kThreads, 0, queue>>>(
        dweight, dout, x, rstd, rows, cols);
    return cudaGetLastError();
}
