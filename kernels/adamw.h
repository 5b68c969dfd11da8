/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file adamw.h
 * One AdamW step in one pass (Loshchilov and Hutter, 2019, "Decoupled Weight
 * Decay Regularization"; the decay is scaled by the learning rate, as training
 * frameworks do):
 *
 *   g    = grad_scale * grad
 *   m    = beta1 * m + (1 - beta1) * g
 *   v    = beta2 * v + (1 - beta2) * g^2
 *   mhat = m / (1 - beta1^step),   vhat = v / (1 - beta2^step)
 *   p    = p - lr * (mhat / (sqrt(vhat) + eps) + weight_decay * p)
 *
 * Elementwise over float32 arrays of @p count elements, aligned to 4 bytes;
 * 16-byte aligned arrays take vector loads and give the same bits.
 * Deterministic.  The launcher takes device pointers, queues on @p stream (a
 * cudaStream_t, NULL for the default) and returns 0 or a cudaError_t value;
 * the twin takes host pointers, computes in double and cannot fail.
 *
 * Tolerance of launcher against twin after one step:
 * |a - b| <= 1e-6 * |b| + 1e-6 * T, where T sums the absolute values of the
 * terms of the update above: for p, of lr * (..); for m and v, of the right
 * hand side.
 *
 * Threads: safe for distinct arrays.
 */
#ifndef FM_KERNELS_ADAMW_H
#define FM_KERNELS_ADAMW_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Hyper-parameters of one step; all are stated, there are no defaults. */
typedef struct fm_kernels_adamw {
    float lr;           /**< >= 0 */
    float beta1;        /**< [0, 1) */
    float beta2;        /**< [0, 1) */
    float eps;          /**< > 0 */
    float weight_decay; /**< >= 0 */
    float grad_scale;   /**< finite; 1, or what clipping and accumulation ask */
    int64_t step;       /**< of this update, from 1 */
} fm_kernels_adamw_t;

/**
 * @param param  in place.
 * @param m      first moment, in place; zero before step 1.
 * @param v      second moment, in place; zero before step 1.
 * @param grad   read only.
 * The four arrays must not overlap.
 */
int fm_kernels_adamw_step(float *param, float *m, float *v, const float *grad,
                          size_t count, const fm_kernels_adamw_t *options,
                          void *stream);
void fm_kernels_adamw_step_ref(float *param, float *m, float *v,
                               const float *grad, size_t count,
                               const fm_kernels_adamw_t *options);

#ifdef __cplusplus
}
#endif
#endif
