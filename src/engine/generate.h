/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file generate.h
 * Sampling continuations with a key-value cache, many prompts at a time.
 *
 * A prompt's result is the same bits whatever else is in the call: prefill
 * runs each prompt alone, decoding uses row-invariant operations, and each
 * prompt draws from a random stream of its own, seeded by (seed, prompt,
 * sample).  Prompts beyond max_batch wait for a free slot.
 *
 * Threads: as the model.
 */
#ifndef FM_ENGINE_GENERATE_H
#define FM_ENGINE_GENERATE_H

#include "engine/model.h"

/** Zero means the default. */
typedef struct fm_engine_generate_options {
    size_t max_new_tokens; /**< default 128 */
    double temperature;    /**< 0: greedy (ties: the lowest id) */
    double top_p;          /**< (0, 1]; 0 or 1: off (Holtzman et al., 2020) */
    size_t top_k;          /**< 0: off; applied before top_p */
    uint64_t seed;
    size_t max_batch; /**< prompts decoded together; default 16, ≤ 4096 */
    const int32_t *stop_ids; /**< a sampled one ends the text; usually eos */
    size_t stop_count;       /**< ≤ 64 */
} fm_engine_generate_options_t;

typedef struct fm_engine_prompt {
    const int32_t *tokens; /**< host, not kept */
    size_t count;          /**< ≥ 1 */
    uint64_t sample;       /**< tells repeats of one prompt apart */
} fm_engine_prompt_t;

typedef enum fm_engine_finish {
    FM_ENGINE_FINISH_LENGTH, /**< max_new_tokens reached */
    FM_ENGINE_FINISH_STOP    /**< a stop id was sampled; it is not kept */
} fm_engine_finish_t;

/** What a prompt gave; owned by the caller (fm_engine_completion_fini()). */
typedef struct fm_engine_completion {
    int32_t *tokens;
    float *logp; /**< [count] log-prob of each under the model itself, before
                      temperature and cut-offs */
    size_t count;
    fm_engine_finish_t finish;
} fm_engine_completion_t;

void fm_engine_completion_fini(fm_engine_completion_t *completion);

/**
 * Continue every prompt.
 *
 * Cache memory: slots × longest (prompt + max_new_tokens) × layers × kv heads
 * × head_dim × 8 bytes, with slots = min(max_batch, prompts).
 *
 * @param options          NULL for defaults; not kept.
 * @param completions_out  [count], untouched on failure.
 * @retval FM_ERR_INVALID  an option outside its range, an empty prompt, a
 *                         token outside the vocabulary (the text has the
 *                         prompt's index), logits that are not finite.
 * @retval FM_ERR_LIMIT    prompt + max_new_tokens beyond
 *                         max_position_embeddings; the text says so.
 */
FM_MUST_USE fm_status_t
fm_engine_generate(fm_engine_model_t *model, const fm_engine_prompt_t *prompts,
                   size_t count, const fm_engine_generate_options_t *options,
                   fm_engine_completion_t *completions_out, fm_error_t *err);

#endif
