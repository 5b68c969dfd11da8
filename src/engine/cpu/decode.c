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

/* Scores become exp(score − max); returns their sum. */
FM_VEC_INLINE float softmax(float *scores, size_t keys)
{
    float max = -INFINITY;
    float sum = 0;

    for (size_t j = 0; j < keys; j++) {
        max = scores[j] > max ? scores[j] : max;
    }
    for (size_t j = 0; j < keys; j += FM_VEC_LANES) {
        vec_put(scores, j, keys, vec_exp(vec_get(scores, j, keys) - max));
    }
    for (size_t j = 0; j < keys; j++) {
        sum += scores[j];
    }
    return sum;
}

/* One row's heads against @p keys rows of keys and values.  All heads at one
 * key before the next: keys and values, larger than the caches, are then read
 * front to back.  scores is [heads, keys]. */
FM_VEC_CLONES
static void decode_row(float *out, const float *q, const float *k,
                       const float *v, size_t keys,
                       const fm_engine_heads_t *heads, float *scores)
{
    size_t dim = heads->head_dim;
    size_t stride = heads->kv_heads * dim;
    size_t per_group = heads->heads / heads->kv_heads;
    float scale = 1.0F / sqrtf((float)dim);

    for (size_t j = 0; j < keys; j++) {
        for (size_t h = 0; h < heads->heads; h++) {
            const float *key = k + j * stride + h / per_group * dim;
            scores[h * keys + j] = vec_dot(q + h * dim, key, dim) * scale;
        }
    }
    for (size_t h = 0; h < heads->heads; h++) {
        float inverse = 1.0F / softmax(scores + h * keys, keys);
        for (size_t j = 0; j < keys; j++) {
            scores[h * keys + j] *= inverse;
        }
    }
    memset(out, 0, heads->heads * dim * sizeof(float));
    for (size_t j = 0; j < keys; j++) {
        for (size_t h = 0; h < heads->heads; h++) {
            const float *value = v + j * stride + h / per_group * dim;
            float *to = out + h * dim;
            for (size_t i = 0; i < dim; i += FM_VEC_LANES) {
                vec_t sum = vec_get(to, i, dim);
                sum += vec_get(value, i, dim) * scores[h * keys + j];
                vec_put(to, i, dim, sum);
            }
        }
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
    float *scores = fm_engine_cpu_scratch(be, heads->heads * cache->capacity);

    for (size_t r = 0; scores && r < rows; r++) {
        size_t seen = (size_t)positions[r] + 1;
        size_t keys =
            heads->window > 0 && seen > heads->window ? heads->window : seen;
        size_t base =
            ((size_t)slots[r] * cache->capacity + seen - keys) * kv_width;
        decode_row(out + r * heads->heads * dim, qkv + r * stride,
                   cache->keys + base, cache->values + base, keys, heads,
                   scores);
    }
}
