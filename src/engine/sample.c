/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/sample.h"

#include <math.h>
#include <stdlib.h>

static size_t best_of(const float *logits, size_t vocab)
{
    size_t best = 0;

    for (size_t i = 1; i < vocab; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

/* Heavier first; equal weights in id order, so the cut is the same every
 * time. */
static int candidate_order(const void *left, const void *right)
{
    const fm_engine_candidate_t *a = left;
    const fm_engine_candidate_t *b = right;

    if (a->weight != b->weight) {
        return a->weight > b->weight ? -1 : 1;
    }
    return (a->id > b->id) - (a->id < b->id);
}

/* Keep the top_k heaviest, then the fewest whose weights reach top_p of what
 * is left; returns how many. */
static size_t candidates_cut(fm_engine_candidate_t *work, size_t count,
                             const fm_engine_generate_options_t *options)
{
    bool by_share = options->top_p > 0 && options->top_p < 1;
    double total = 0;
    double kept = 0;

    if (!by_share && (options->top_k == 0 || options->top_k >= count)) {
        return count;
    }
    qsort(work, count, sizeof(*work), candidate_order);
    if (options->top_k > 0 && options->top_k < count) {
        count = options->top_k;
    }
    for (size_t i = 0; i < count; i++) {
        total += work[i].weight;
    }
    for (size_t i = 0; by_share && i < count; i++) {
        kept += work[i].weight;
        if (kept >= options->top_p * total) {
            return i + 1;
        }
    }
    return count;
}

static int32_t draw(const fm_engine_candidate_t *work, size_t count,
                    fm_rng_t *rng)
{
    double total = 0;

    for (size_t i = 0; i < count; i++) {
        total += work[i].weight;
    }
    double point = fm_rng_uniform(rng) * total;
    size_t last = 0; /* the last that can be drawn: rounding may pass the end */
    for (size_t i = 0; i < count; i++) {
        if (work[i].weight > 0) {
            last = i;
            if (point < work[i].weight) {
                break;
            }
        }
        point -= work[i].weight;
    }
    return work[last].id;
}

int32_t fm_engine_sample(const float *logits, size_t vocab,
                         const fm_engine_generate_options_t *options,
                         fm_engine_candidate_t *work, fm_rng_t *rng,
                         float *logp_out)
{
    size_t best = best_of(logits, vocab);
    double max = (double)logits[best];
    size_t choice = best;
    double total = 0;

    for (size_t i = 0; i < vocab; i++) {
        total += exp((double)logits[i] - max);
    }
    if (options->temperature > 0 && isfinite(total)) {
        for (size_t i = 0; i < vocab; i++) {
            double gap = (double)logits[i] - max;
            work[i] = (fm_engine_candidate_t){
                .weight = exp(gap / options->temperature), .id = (int32_t)i};
        }
        choice = (size_t)draw(work, candidates_cut(work, vocab, options), rng);
    }
    *logp_out = (float)((double)logits[choice] - max - log(total));
    return (int32_t)choice;
}
