/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key-value cache and attention of single queries against it.  Each row
 * is computed by itself, key after key, so it never depends on other rows.
 */
#include <math.h>
#include <string.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/vec.h"

void fm_engine_cpu_cache_store(fm_engine_backend_t *be,
                               const fm_engine_cache_t *cache, const float *qkv,
                               const int32_t *slots, const int32_t *positions,
                               size_t rows, const fm_engine_heads_t *heads)
{
    size_t width = heads->kv_heads * heads->head_dim;
    size_t q_width = heads->heads * heads->head_dim;

    (void)be;
    for (size_t r = 0; r < rows; r++) {
        size_t at =
            ((size_t)slots[r] * cache->capacity + (size_t)positions[r]) * width;
        const float *k = qkv + r * (q_width + 2 * width) + q_width;
        memcpy(cache->keys + at, k, width * sizeof(float));
        memcpy(cache->values + at, k + width, width * sizeof(float));
    }
}

/* One query against @p keys rows of keys and values, `stride` apart. */
FM_VEC_CLONES
static void decode_head(float *out, const float *q, const float *k,
                        const float *v, size_t keys, size_t stride, size_t dim,
                        float *scores)
{
    float scale = 1.0F / sqrtf((float)dim);
    float max = -INFINITY;
    float sum = 0;

    for (size_t j = 0; j < keys; j++) {
        scores[j] = vec_dot(q, k + j * stride, dim) * scale;
        max = scores[j] > max ? scores[j] : max;
    }
    for (size_t j = 0; j < keys; j += FM_VEC_LANES) {
        vec_put(scores, j, keys, vec_exp(vec_get(scores, j, keys) - max));
    }
    for (size_t j = 0; j < keys; j++) {
        sum += scores[j];
    }
    float inverse = 1.0F / sum;
    for (size_t i = 0; i < dim; i += FM_VEC_LANES) {
        vec_t total = {0};
        for (size_t j = 0; j < keys; j++) {
            total += vec_get(v + j * stride, i, dim) * scores[j];
        }
        vec_put(out, i, dim, total * inverse);
    }
}

void fm_engine_cpu_attention_decode(fm_engine_backend_t *be, float *out,
                                    const float *qkv,
                                    const fm_engine_cache_t *cache,
                                    const int32_t *slots,
                                    const int32_t *positions, size_t rows,
                                    const fm_engine_heads_t *heads)
{
    size_t dim = heads->head_dim;
    size_t kv_width = heads->kv_heads * dim;
    size_t stride = heads->heads * dim + 2 * kv_width;
    size_t per_group = heads->heads / heads->kv_heads;
    float *scores = fm_engine_cpu_scratch(be, cache->capacity);

    for (size_t r = 0; scores && r < rows; r++) {
        size_t base = (size_t)slots[r] * cache->capacity * kv_width;
        for (size_t h = 0; h < heads->heads; h++) {
            size_t at = base + h / per_group * dim;
            decode_head(out + (r * heads->heads + h) * dim,
                        qkv + r * stride + h * dim, cache->keys + at,
                        cache->values + at, (size_t)positions[r] + 1, kv_width,
                        dim, scores);
        }
    }
}
