/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file rmsnorm.h
 * Root mean square normalisation of rows (Zhang and Sennrich, 2019,
 * "Root Mean Square Layer Normalization").
 *
 *   rstd[r]   = 1 / sqrt(mean over c of x[r][c]^2 + eps)
 *   out[r][c] = x[r][c] * rstd[r] * weight[c]
 *
 * All arrays are float32, row-major and contiguous: x, out, dout, dx are
 * (rows, cols); weight, dweight are (cols); rstd is (rows).  Any alignment of
 * 4 bytes and any cols work; 16-byte aligned arrays with cols divisible by 4
 * take vector loads and give the same bits.
 *
 * Launchers take device pointers, queue on @p stream (a cudaStream_t; NULL is
 * the default stream) and return at once: 0, or a cudaError_t value when an
 * argument is refused or the launch fails.  They allocate nothing.  The twins
 * (_ref) take host pointers, accumulate in double and cannot fail.
 *
 * Deterministic: every sum has a fixed order and there are no atomics, so the
 * same input gives the same bits on the same device class, whatever the grid.
 *
 * Tolerance of launcher against twin: |a - b| <= 1e-5 * (1 + |b|) for out and
 * rstd; for dx and dweight, which cancel, 1e-5 * (|b| + T), where T is the
 * same formula over the absolute values of its terms.
 *
 * Threads: safe for distinct outputs.
 */
#ifndef FM_KERNELS_RMSNORM_H
#define FM_KERNELS_RMSNORM_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * out = normalised rows.
 * @param out   (rows, cols) =; may be @p x itself, must not overlap otherwise.
 * @param rstd  (rows) =; NULL when no backward pass follows.
 * @param rows  0 is a no-op.
 * @param cols  > 0.
 * @param eps   >= 0; 0 makes an all-zero row NaN.
 */
int fm_kernels_rmsnorm_forward(float *out, float *rstd, const float *x,
                               const float *weight, size_t rows, size_t cols,
                               float eps, void *stream);
void fm_kernels_rmsnorm_forward_ref(float *out, float *rstd, const float *x,
                                    const float *weight, size_t rows,
                                    size_t cols, float eps);

/**
 * Gradients of the forward pass, from the rstd it stored.
 * @param dx       (rows, cols) =; may be @p dout itself only when @p dweight
 *                 is NULL, since dweight reads dout after dx is written.
 * @param dweight  (cols) +=; NULL when the weight is frozen.
 */
int fm_kernels_rmsnorm_backward(float *dx, float *dweight, const float *dout,
                                const float *x, const float *weight,
                                const float *rstd, size_t rows, size_t cols,
                                void *stream);
void fm_kernels_rmsnorm_backward_ref(float *dx, float *dweight,
                                     const float *dout, const float *x,
                                     const float *weight, const float *rstd,
                                     size_t rows, size_t cols);

#ifdef __cplusplus
}
#endif
#endif
