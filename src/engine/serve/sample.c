/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing a token.  The weights of a vocabulary are in (0, 1], the likeliest
 * token's is 1.  A cut-off counts them in buckets by the leading bits of the
 * float, which rise with its value, and sorts only the buckets that a cut can
 * reach: a few candidates instead of the vocabulary.
 */
#include "engine/serve/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/cpu/vec.h"

enum {
    BUCKET_SHIFT = 20, /* exponent and three bits of the fraction */
    BUCKETS = 1 << 10  /* weights are positive and at most 1 */
};

typedef struct candidate {
    float weight;
    int32_t id;
} candidate_t;

struct fm_engine_sampler {
    size_t vocab;
    float *weights;          /* [vocab] */
    candidate_t *candidates; /* [vocab] */
    float *saved;            /* [vocab]: logits before the penalty */
    size_t counts[BUCKETS];
    double sums[BUCKETS];
};

fm_status_t fm_engine_sampler_create(size_t vocab,
                                     fm_engine_sampler_t **sampler_out,
                                     fm_error_t *err)
{
    fm_engine_sampler_t *s = fm_calloc(1, sizeof(*s));

    if (!s) {
        return fm_no_memory(err);
    }
    s->vocab = vocab;
    s->weights = fm_calloc(vocab, sizeof(*s->weights));
    s->candidates = fm_calloc(vocab, sizeof(*s->candidates));
    s->saved = fm_calloc(vocab, sizeof(*s->saved));
    if (!s->weights || !s->candidates || !s->saved) {
        fm_engine_sampler_destroy(s);
        return fm_no_memory(err);
    }
    *sampler_out = s;
    return FM_OK;
}

fm_engine_sampler_t *fm_engine_sampler_destroy(fm_engine_sampler_t *sampler)
{
    if (sampler) {
        free(sampler->weights);
        free(sampler->candidates);
        free(sampler->saved);
        free(sampler);
    }
    return NULL;
}

void fm_engine_seen_fini(fm_engine_seen_t *seen)
{
    free(seen->ids);
    free(seen->bits);
    *seen = (fm_engine_seen_t){0};
}

fm_status_t fm_engine_seen_add(fm_engine_seen_t *seen, size_t vocab,
                               const int32_t *tokens, size_t count,
                               fm_error_t *err)
{
    if (!seen->bits &&
        !(seen->bits = fm_calloc((vocab + 63) / 64, sizeof(*seen->bits)))) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t *word = &seen->bits[(size_t)tokens[i] / 64];
        uint64_t bit = (uint64_t)1 << (size_t)tokens[i] % 64;
        if (*word & bit) {
            continue;
        }
        fm_status_t rc = fm_grow(&seen->ids, &seen->capacity, seen->count,
                                 sizeof(*seen->ids), err);
        if (rc < 0) {
            return rc;
        }
        *word |= bit;
        seen->ids[seen->count++] = tokens[i];
    }
    return FM_OK;
}

/* The first of the largest; with a NaN among them any. */
FM_VEC_CLONES
static size_t best_of(const float *logits, size_t vocab)
{
    vec_t best = vec_set(-INFINITY);
    float max = -INFINITY;
    size_t i = 0;

    for (; i + FM_VEC_LANES <= vocab; i += FM_VEC_LANES) {
        best = vec_max(best, vec_load(logits + i));
    }
    for (size_t lane = 0; lane < FM_VEC_LANES; lane++) {
        max = best[lane] > max ? best[lane] : max;
    }
    for (; i < vocab; i++) {
        max = logits[i] > max ? logits[i] : max;
    }
    for (i = 0; i + 1 < vocab && logits[i] != max; i++) {
    }
    return i;
}

/* weights = exp((logits − max) · rate), 0 far below; returns their sum.  The
 * tail beyond e⁻⁸⁷ has no share that a float64 sum of a vocabulary could see.
 */
FM_VEC_CLONES
static double weigh(float *weights, const float *logits, size_t vocab,
                    float max, float rate)
{
    enum { BLOCK = 4096 }; /* summed in float32 before it joins the total */
    double total = 0;

    for (size_t at = 0; at < vocab; at += BLOCK) {
        size_t end = vocab - at < BLOCK ? vocab : at + BLOCK;
        vec_t sums = {0};
        for (size_t i = at; i < end; i += FM_VEC_LANES) {
            vec_t gap = (vec_get(logits, i, end) - max) * rate;
            vec_t w = vec_select((vec_bits_t)(gap < -87.0F), (vec_t){0},
                                 vec_exp(gap));
            vec_put(weights, i, end, w);
            if (i + FM_VEC_LANES > end) { /* lanes past the end */
                w = vec_load_part(weights + i, end - i);
            }
            sums += w;
        }
        total += (double)vec_sum(sums);
    }
    return total;
}

/* Heavier first; equal weights in id order, so the cut is the same every
 * time. */
static int candidate_order(const void *left, const void *right)
{
    const candidate_t *a = left;
    const candidate_t *b = right;

    if (a->weight != b->weight) {
        return a->weight > b->weight ? -1 : 1;
    }
    return (a->id > b->id) - (a->id < b->id);
}

static size_t bucket_of(float weight)
{
    uint32_t bits;

    memcpy(&bits, &weight, sizeof(bits));
    return bits >> BUCKET_SHIFT;
}

/* The candidates that top_k or a mass of weights can reach, down to bucket
 * @p lowest, and perhaps a few more, sorted; returns how many. */
static size_t reach(fm_engine_sampler_t *s, size_t top_k, double mass,
                    size_t lowest)
{
    size_t count = 0;
    size_t bucket = BUCKETS;
    double sum = 0;

    memset(s->counts, 0, sizeof(s->counts));
    memset(s->sums, 0, sizeof(s->sums));
    for (size_t i = 0; i < s->vocab; i++) {
        size_t b = bucket_of(s->weights[i]);
        s->counts[b]++;
        s->sums[b] += (double)s->weights[i];
    }
    /* one bucket after the mass is there: the order of a sum is in its bits */
    for (bool spare = true; bucket > lowest && count < top_k;) {
        if (sum >= mass) {
            if (!spare) {
                break;
            }
            spare = false;
        }
        bucket--;
        count += s->counts[bucket];
        sum += s->sums[bucket];
    }
    count = 0;
    for (size_t i = 0; i < s->vocab; i++) {
        if (bucket_of(s->weights[i]) >= bucket) {
            s->candidates[count++] = (candidate_t){s->weights[i], (int32_t)i};
        }
    }
    qsort(s->candidates, count, sizeof(*s->candidates), candidate_order);
    return count;
}

/* Keep the top_k heaviest, of these the fewest whose weights reach top_p, of
 * these what min_p leaves; returns how many. */
static size_t candidates_cut(fm_engine_sampler_t *s, double total,
                             const fm_engine_generate_options_t *options)
{
    bool by_share = options->top_p > 0 && options->top_p < 1;
    bool by_count = options->top_k > 0 && options->top_k < s->vocab;
    const candidate_t *c = s->candidates;
    size_t count =
        reach(s, by_count ? options->top_k : s->vocab,
              by_share && !by_count ? options->top_p * total : INFINITY,
              by_count ? 0 : bucket_of((float)options->min_p));
    double kept = 0;

    if (by_count) {
        count = options->top_k < count ? options->top_k : count;
        total = 0;
        for (size_t i = 0; i < count; i++) {
            total += (double)c[i].weight;
        }
    }
    for (size_t i = 0; by_share && i < count; i++) {
        kept += (double)c[i].weight;
        if (kept >= options->top_p * total) {
            count = i + 1;
        }
    }
    while (count > 1 && (double)c[count - 1].weight < options->min_p) {
        count--;
    }
    return count;
}

/* One of @p count weights, @p stride floats apart, by its share. */
static size_t draw(const float *weights, size_t stride, size_t count,
                   fm_rng_t *rng)
{
    double total = 0;
    size_t last = 0; /* the last that can be drawn: rounding may pass the end */

    for (size_t i = 0; i < count; i++) {
        total += (double)weights[i * stride];
    }
    double point = fm_rng_uniform(rng) * total;
    for (size_t i = 0; i < count; i++) {
        double weight = (double)weights[i * stride];
        if (weight > 0) {
            last = i;
            if (point < weight) {
                break;
            }
        }
        point -= weight;
    }
    return last;
}

static int32_t choose(fm_engine_sampler_t *s, const float *logits,
                      const fm_engine_generate_options_t *options,
                      fm_rng_t *rng)
{
    size_t best = best_of(logits, s->vocab);
    bool cut = (options->top_p > 0 && options->top_p < 1) ||
               (options->top_k > 0 && options->top_k < s->vocab) ||
               options->min_p > 0;

    if (!(options->temperature > 0)) {
        return (int32_t)best;
    }
    double total = weigh(s->weights, logits, s->vocab, logits[best],
                         (float)(1 / options->temperature));
    if (!isfinite(total)) {
        return (int32_t)best;
    }
    if (!cut) {
        return (int32_t)draw(s->weights, 1, s->vocab, rng);
    }
    size_t count = candidates_cut(s, total, options);
    return s
        ->candidates[draw(&s->candidates[0].weight,
                          sizeof(*s->candidates) / sizeof(float), count, rng)]
        .id;
}

int32_t fm_engine_sample(fm_engine_sampler_t *sampler, float *logits,
                         const fm_engine_generate_options_t *options,
                         const fm_engine_seen_t *seen, fm_rng_t *rng,
                         float *logp_out)
{
    fm_engine_sampler_t *s = sampler;
    float penalty = (float)options->repetition_penalty;
    size_t penalised = penalty > 0 && penalty != 1 ? seen->count : 0;
    float max = logits[best_of(logits, s->vocab)];
    double total = weigh(s->weights, logits, s->vocab, max, 1);

    for (size_t i = 0; i < penalised; i++) {
        float *logit = &logits[seen->ids[i]];
        s->saved[i] = *logit;
        *logit = *logit > 0 ? *logit / penalty : *logit * penalty;
    }
    int32_t choice = choose(s, logits, options, rng);
    for (size_t i = 0; i < penalised; i++) {
        logits[seen->ids[i]] = s->saved[i];
    }
    *logp_out = (float)((double)logits[choice] - (double)max - log(total));
    return choice;
}
