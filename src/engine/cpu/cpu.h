/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file cpu.h
 * The CPU backend's operations; contracts are in engine/backend.h.
 */
#ifndef FM_ENGINE_CPU_CPU_H
#define FM_ENGINE_CPU_CPU_H

#include "engine/backend.h"

typedef struct fm_engine_cpu {
    fm_engine_backend_t base; /* first: the vtable passes this address */
    fm_status_t failed;       /* sticks until sync() */
    float *scratch;           /* attention tiles; grows */
    size_t scratch_count;
} fm_engine_cpu_t;

/** At least @p count floats, content undefined; NULL (and failed) without. */
float *fm_engine_cpu_scratch(fm_engine_backend_t *be, size_t count);

void fm_engine_cpu_gather(fm_engine_backend_t *be, float *out,
                          const float *table, const int32_t *ids, size_t rows,
                          size_t width);
void fm_engine_cpu_scatter_add(fm_engine_backend_t *be, float *dtable,
                               const float *dout, const int32_t *ids,
                               size_t rows, size_t width);
void fm_engine_cpu_rmsnorm_forward(fm_engine_backend_t *be, float *out,
                                   float *rstd, const float *x,
                                   const float *weight, float eps, size_t rows,
                                   size_t width);
void fm_engine_cpu_rmsnorm_backward(fm_engine_backend_t *be, float *dx,
                                    float *dweight, const float *dout,
                                    const float *x, const float *weight,
                                    const float *rstd, size_t rows,
                                    size_t width);
void fm_engine_cpu_lora_forward(fm_engine_backend_t *be, float *out, size_t ldo,
                                const float *x, const fm_engine_lora_t *lora,
                                float *scratch, size_t rows, size_t k,
                                size_t n);
void fm_engine_cpu_lora_backward(fm_engine_backend_t *be, float *dx, float *da,
                                 float *db, const float *dout, size_t ldo,
                                 const float *x, const fm_engine_lora_t *lora,
                                 float *scratch, size_t rows, size_t k,
                                 size_t n);
void fm_engine_cpu_dropout(fm_engine_backend_t *be, float *out, const float *x,
                           const fm_engine_mask_t *mask, size_t rows,
                           size_t width, bool add);
void fm_engine_cpu_linear_forward(fm_engine_backend_t *be, float *out,
                                  const float *x, const float *weight,
                                  size_t rows, size_t k, size_t n, bool add);
void fm_engine_cpu_linear_rows(fm_engine_backend_t *be, float *out,
                               const float *x, const float *weight, size_t rows,
                               size_t k, size_t n, bool add);
/** linear_rows with rows of @p out @p ldo floats apart. */
void fm_engine_cpu_linear_strided(float *out, size_t ldo, const float *x,
                                  const float *weight, size_t rows, size_t k,
                                  size_t n, bool add);
void fm_engine_cpu_linear_backward(fm_engine_backend_t *be, float *dx,
                                   float *dweight, const float *dout,
                                   const float *x, const float *weight,
                                   size_t rows, size_t k, size_t n);
void fm_engine_cpu_bias_add(fm_engine_backend_t *be, float *x,
                            const float *bias, size_t rows, size_t n);
void fm_engine_cpu_bias_backward(fm_engine_backend_t *be, float *dbias,
                                 const float *dout, size_t rows, size_t n);
void fm_engine_cpu_head_norm_forward(fm_engine_backend_t *be, float *qkv,
                                     float *unit, float *rstd,
                                     const float *q_weight,
                                     const float *k_weight, float eps,
                                     size_t rows,
                                     const fm_engine_heads_t *heads);
void fm_engine_cpu_head_norm_backward(fm_engine_backend_t *be, float *dqkv,
                                      float *dq_weight, float *dk_weight,
                                      const float *unit, const float *rstd,
                                      const float *q_weight,
                                      const float *k_weight, size_t rows,
                                      const fm_engine_heads_t *heads);
void fm_engine_cpu_rope(fm_engine_backend_t *be, float *qkv, const float *table,
                        const int32_t *positions, size_t rows,
                        const fm_engine_heads_t *heads, bool back);
void fm_engine_cpu_attention_forward(fm_engine_backend_t *be, float *out,
                                     float *lse, const float *qkv,
                                     const fm_engine_pack_t *pack,
                                     const fm_engine_heads_t *heads);
void fm_engine_cpu_attention_backward(fm_engine_backend_t *be, float *dqkv,
                                      const float *dout, const float *out,
                                      const float *qkv, const float *lse,
                                      const fm_engine_pack_t *pack,
                                      const fm_engine_heads_t *heads);
void fm_engine_cpu_cache_store(fm_engine_backend_t *be,
                               const fm_engine_cache_t *cache, const float *qkv,
                               const fm_engine_paging_t *paging, size_t rows,
                               const fm_engine_heads_t *heads);
void fm_engine_cpu_attention_pages(fm_engine_backend_t *be, float *out,
                                   const float *qkv,
                                   const fm_engine_cache_t *cache,
                                   const fm_engine_paging_t *paging,
                                   size_t rows, const fm_engine_heads_t *heads);
void fm_engine_cpu_lora_rows(fm_engine_backend_t *be, float *out, size_t ldo,
                             const float *x, size_t rows, size_t k, size_t n,
                             const fm_engine_lora_t *adapters,
                             const int32_t *which);
void fm_engine_cpu_swiglu_forward(fm_engine_backend_t *be, float *out,
                                  const float *gate_up, size_t rows,
                                  size_t width);
void fm_engine_cpu_swiglu_backward(fm_engine_backend_t *be, float *dgate_up,
                                   const float *dout, const float *gate_up,
                                   size_t rows, size_t width);
void fm_engine_cpu_logprob_entropy(fm_engine_backend_t *be, float *logp,
                                   float *entropy, float *logits,
                                   const int32_t *targets, const float *scales,
                                   const float *entropy_scales, size_t rows,
                                   size_t vocab);
void fm_engine_cpu_logprob(fm_engine_backend_t *be, float *logp, float *logits,
                           const int32_t *targets, const float *scales,
                           size_t rows, size_t vocab);
void fm_engine_cpu_sum_squares(fm_engine_backend_t *be, double *sum,
                               const float *x, size_t count);
void fm_engine_cpu_adamw(fm_engine_backend_t *be, float *param,
                         const float *grad, float *m, float *v, size_t count,
                         const fm_engine_adamw_t *update);

#endif
