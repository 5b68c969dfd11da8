/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary position embedding, in place; the gradient is the inverse turn. */
#include "engine/cpu/cpu.h"
#include "engine/cpu/vec.h"

FM_VEC_CLONES
void fm_engine_cpu_rope(fm_engine_backend_t *be, float *qkv, const float *table,
                        const int32_t *positions, size_t rows,
                        const fm_engine_heads_t *heads, bool back)
{
    size_t half = heads->head_dim / 2;
    size_t stride = (heads->heads + 2 * heads->kv_heads) * heads->head_dim;
    float sign = back ? -1.0F : 1.0F;

    (void)be;
    for (size_t r = 0; r < rows; r++) {
        const float *cosines = table + (size_t)positions[r] * 2 * half;
        const float *sines = cosines + half;
        float *head = qkv + r * stride;
        for (size_t h = 0; h < heads->heads + heads->kv_heads; h++) {
            for (size_t i = 0; i < half; i += FM_VEC_LANES) {
                vec_t c = vec_get(cosines, i, half);
                vec_t s = vec_get(sines, i, half) * sign;
                vec_t a = vec_get(head, i, half);
                vec_t b = vec_get(head + half, i, half);
                vec_put(head, i, half, a * c - b * s);
                vec_put(head + half, i, half, b * c + a * s);
            }
            head += heads->head_dim;
        }
    }
}
