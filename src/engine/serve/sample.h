/* SPDX-License-Identifier: Apache-2.0 */
/** @file sample.h  Choosing a token from logits, on the host.  Private. */
#ifndef FM_ENGINE_SERVE_SAMPLE_H
#define FM_ENGINE_SERVE_SAMPLE_H

#include "base/rng.h"
#include "engine/serve/generate.h"

/** Work space for one vocabulary. */
typedef struct fm_engine_sampler fm_engine_sampler_t;

FM_MUST_USE fm_status_t fm_engine_sampler_create(
    size_t vocab, fm_engine_sampler_t **sampler_out, fm_error_t *err);
fm_engine_sampler_t *fm_engine_sampler_destroy(fm_engine_sampler_t *sampler);

/** The different tokens of a sequence so far, for the repetition penalty;
 *  zero-initialise it. */
typedef struct fm_engine_seen {
    int32_t *ids;
    size_t count;
    size_t capacity;
    uint64_t *bits; /**< one a vocabulary entry */
} fm_engine_seen_t;

void fm_engine_seen_fini(fm_engine_seen_t *seen);
FM_MUST_USE fm_status_t fm_engine_seen_add(fm_engine_seen_t *seen, size_t vocab,
                                           const int32_t *tokens, size_t count,
                                           fm_error_t *err);

/**
 * @param logits   [vocab]; the same again afterwards.
 * @param seen     what the repetition penalty falls on; may be empty.
 * @param rng      advanced by one draw unless greedy.
 * @param logp_out log-prob of the choice under softmax(logits); not finite
 *                 when a logit is NaN or +inf: then the choice means nothing.
 */
int32_t fm_engine_sample(fm_engine_sampler_t *sampler, float *logits,
                         const fm_engine_generate_options_t *options,
                         const fm_engine_seen_t *seen, fm_rng_t *rng,
                         float *logp_out);

#endif
