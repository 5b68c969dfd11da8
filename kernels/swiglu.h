/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file swiglu.h
 * The gated activation of Llama's feed-forward layer (Shazeer, 2020, "GLU
 * Variants Improve Transformer"):
 *
 *   out[i] = silu(gate[i]) * up[i],   silu(g) = g / (1 + exp(-g))
 *
 * Elementwise over float32 arrays of @p count elements, aligned to 4 bytes;
 * 16-byte aligned arrays take vector loads and give the same bits.
 * Deterministic.  Launchers take device pointers and queue on @p stream (a
 * cudaStream_t, NULL for the default) and return 0 or a cudaError_t value;
 * the twins (_ref) take host pointers, compute in double and cannot fail.
 *
 * Tolerance of launcher against twin, for each output b:
 * |a - b| <= 1e-5 * |b| + 1e-6 * M, where M is |up| for out, |dout * up| for
 * dgate and |dout| for dup.  Gates beyond +-88 saturate: silu gives the gate
 * itself, or zero.  A gate of -infinity gives NaN.
 *
 * Threads: safe for distinct outputs.
 */
#ifndef FM_KERNELS_SWIGLU_H
#define FM_KERNELS_SWIGLU_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/** @param out  =; may be @p gate or @p up itself. */
int fm_kernels_swiglu_forward(float *out, const float *gate, const float *up,
                              size_t count, void *stream);
void fm_kernels_swiglu_forward_ref(float *out, const float *gate,
                                   const float *up, size_t count);

/**
 * @param dgate  =; distinct from @p dup; may be any one of the inputs.
 * @param dup    =; may be any other one of the inputs.
 */
int fm_kernels_swiglu_backward(float *dgate, float *dup, const float *dout,
                               const float *gate, const float *up, size_t count,
                               void *stream);
void fm_kernels_swiglu_backward_ref(float *dgate, float *dup, const float *dout,
                                    const float *gate, const float *up,
                                    size_t count);

#ifdef __cplusplus
}
#endif
#endif
