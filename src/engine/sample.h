/* SPDX-License-Identifier: Apache-2.0 */
/** @file sample.h  Choosing a token from logits, on the host.  Private. */
#ifndef FM_ENGINE_SAMPLE_H
#define FM_ENGINE_SAMPLE_H

#include "base/rng.h"
#include "engine/generate.h"

/** Work space of the sampler: one candidate a vocabulary entry. */
typedef struct fm_engine_candidate {
    double weight;
    int32_t id;
} fm_engine_candidate_t;

/**
 * @param logits  [vocab].
 * @param work    [vocab], overwritten.
 * @param rng     advanced by one draw unless greedy.
 * @param logp_out log-prob of the choice under softmax(logits); not finite
 *                when a logit is NaN or +inf: then the choice means nothing.
 */
int32_t fm_engine_sample(const float *logits, size_t vocab,
                         const fm_engine_generate_options_t *options,
                         fm_engine_candidate_t *work, fm_rng_t *rng,
                         float *logp_out);

#endif
