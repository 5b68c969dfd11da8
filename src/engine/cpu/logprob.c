/* SPDX-License-Identifier: Apache-2.0 */
/* Log-softmax of the target token, entropy, and their gradient in place. */
#include <math.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/vec.h"

FM_VEC_INLINE float row_max(const float *row, size_t count)
{
    vec_t best = vec_set(-INFINITY);
    float max = -INFINITY;
    size_t i = 0;

    for (; i + FM_VEC_LANES <= count; i += FM_VEC_LANES) {
        best = vec_max(best, vec_load(row + i));
    }
    for (size_t lane = 0; lane < FM_VEC_LANES; lane++) {
        max = best[lane] > max ? best[lane] : max;
    }
    for (; i < count; i++) {
        max = row[i] > max ? row[i] : max;
    }
    return max;
}

FM_VEC_CLONES
void fm_engine_cpu_logprob(fm_engine_backend_t *be, float *logp, float *logits,
                           const int32_t *targets, const float *scales,
                           size_t rows, size_t vocab)
{
    (void)be;
    for (size_t r = 0; r < rows; r++, logits += vocab) {
        float max = row_max(logits, vocab);
        float tail[FM_VEC_LANES];
        vec_t sums = {0};
        size_t i = 0;
        for (; i + FM_VEC_LANES <= vocab; i += FM_VEC_LANES) {
            sums += vec_exp(vec_load(logits + i) - max);
        }
        vec_store(tail, vec_exp(vec_get(logits, i, vocab) - max));
        float sum = vec_sum(sums);
        for (size_t lane = 0; i + lane < vocab; lane++) {
            sum += tail[lane];
        }
        logp[r] = logits[targets[r]] - max - logf(sum);
        if (!scales) {
            continue;
        }
        float factor = -scales[r] / sum;
        for (i = 0; i < vocab; i += FM_VEC_LANES) {
            vec_t p = vec_exp(vec_get(logits, i, vocab) - max);
            vec_put(logits, i, vocab, p * factor);
        }
        logits[targets[r]] += scales[r];
    }
}

/* With z = logit − max and S = Σ eᶻ: H = log S − Σ eᶻ z / S and
 * dH/dlogit = −p (log p + H). */
FM_VEC_CLONES
void fm_engine_cpu_logprob_entropy(fm_engine_backend_t *be, float *logp,
                                   float *entropy, float *logits,
                                   const int32_t *targets, const float *scales,
                                   const float *entropy_scales, size_t rows,
                                   size_t vocab)
{
    (void)be;
    for (size_t r = 0; r < rows; r++, logits += vocab) {
        float max = row_max(logits, vocab);
        float tail[2][FM_VEC_LANES];
        vec_t sums = {0};
        vec_t dots = {0};
        size_t i = 0;
        for (; i + FM_VEC_LANES <= vocab; i += FM_VEC_LANES) {
            vec_t z = vec_load(logits + i) - max;
            vec_t e = vec_exp(z);
            sums += e;
            dots += e * z;
        }
        vec_t z = vec_get(logits, i, vocab) - max;
        vec_store(tail[0], vec_exp(z));
        vec_store(tail[1], vec_exp(z) * z);
        float sum = vec_sum(sums);
        float dot = vec_sum(dots);
        for (size_t lane = 0; i + lane < vocab; lane++) {
            sum += tail[0][lane];
            dot += tail[1][lane];
        }
        float log_sum = logf(sum);
        logp[r] = logits[targets[r]] - max - log_sum;
        entropy[r] = log_sum - dot / sum;
        if (!scales) {
            continue;
        }
        float minus_h = log_sum - entropy[r]; /* log p + H = z − minus_h */
        for (i = 0; i < vocab; i += FM_VEC_LANES) {
            vec_t v = vec_get(logits, i, vocab) - max;
            vec_t slope = (v - minus_h) * entropy_scales[r] + scales[r];
            vec_put(logits, i, vocab, vec_exp(v) * slope * (-1 / sum));
        }
        logits[targets[r]] += scales[r];
    }
}
