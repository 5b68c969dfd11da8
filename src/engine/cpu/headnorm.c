/* SPDX-License-Identifier: Apache-2.0 */
/* Root-mean-square normalisation of query and key heads inside rows of qkv. */
#include <math.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/vec.h"

FM_VEC_CLONES
void fm_engine_cpu_head_norm_forward(fm_engine_backend_t *be, float *qkv,
                                     float *unit, float *rstd,
                                     const float *q_weight,
                                     const float *k_weight, float eps,
                                     size_t rows,
                                     const fm_engine_heads_t *heads)
{
    size_t dim = heads->head_dim;
    size_t normed = heads->heads + heads->kv_heads;
    size_t stride = (normed + heads->kv_heads) * dim;

    (void)be;
    for (size_t r = 0; r < rows; r++) {
        for (size_t h = 0; h < normed; h++) {
            const float *weight = h < heads->heads ? q_weight : k_weight;
            float *x = qkv + r * stride + h * dim;
            float scale = 1.0F / sqrtf(vec_dot(x, x, dim) / (float)dim + eps);
            for (size_t i = 0; i < dim; i += FM_VEC_LANES) {
                vec_t v = vec_get(x, i, dim) * scale;
                vec_put(x, i, dim, v * vec_get(weight, i, dim));
                if (unit) {
                    vec_put(unit + (r * normed + h) * dim, i, dim, v);
                }
            }
            if (rstd) {
                rstd[r * normed + h] = scale;
            }
        }
    }
}

/* With x̂ = unit: dx = rstd · (w·dout − x̂ · mean(w·dout·x̂)). */
FM_VEC_INLINE void head_backward(float *dx, float *dweight, const float *unit,
                                 float rstd, const float *weight, size_t dim)
{
    vec_t dots = {0};

    for (size_t i = 0; i < dim; i += FM_VEC_LANES) {
        vec_t d = vec_get(dx, i, dim) * vec_get(unit, i, dim);
        if (dweight) {
            vec_put(dweight, i, dim, vec_get(dweight, i, dim) + d);
        }
        dots += d * vec_get(weight, i, dim);
    }
    float mean = vec_sum(dots) / (float)dim;
    for (size_t i = 0; i < dim; i += FM_VEC_LANES) {
        vec_t d = vec_get(dx, i, dim) * vec_get(weight, i, dim);
        vec_put(dx, i, dim, (d - vec_get(unit, i, dim) * mean) * rstd);
    }
}

FM_VEC_CLONES
void fm_engine_cpu_head_norm_backward(fm_engine_backend_t *be, float *dqkv,
                                      float *dq_weight, float *dk_weight,
                                      const float *unit, const float *rstd,
                                      const float *q_weight,
                                      const float *k_weight, size_t rows,
                                      const fm_engine_heads_t *heads)
{
    size_t dim = heads->head_dim;
    size_t normed = heads->heads + heads->kv_heads;
    size_t stride = (normed + heads->kv_heads) * dim;

    (void)be;
    for (size_t r = 0; r < rows; r++) {
        for (size_t h = 0; h < normed; h++) {
            bool query = h < heads->heads;
            size_t at = r * normed + h;
            head_backward(dqkv + r * stride + h * dim,
                          query ? dq_weight : dk_weight, unit + at * dim,
                          rstd[at], query ? q_weight : k_weight, dim);
        }
    }
}
