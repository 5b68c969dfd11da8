/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file generate.h
 * Sampling continuations with a key-value cache, many prompts at a time.
 *
 * A prompt's result is the same bits whatever else is in the call, in the
 * cache or in other adapters: prompts and continuations use row-invariant
 * operations only, and each prompt draws from a random stream of its own.
 * fm_engine_generate() is for one call; what serves many calls with one cache
 * is in server.h.
 *
 * Threads: as the model.
 */
#ifndef FM_ENGINE_SERVE_GENERATE_H
#define FM_ENGINE_SERVE_GENERATE_H

#include "base/hash.h"
#include "engine/model/adapter.h"
#include "engine/model/model.h"
#include "text/tokenizer/tokenizer.h"

/** Zero means the default. */
typedef struct fm_engine_generate_options {
    size_t max_new_tokens; /**< default 128 */
    double temperature;    /**< 0: greedy (ties: the lowest id) */
    double top_p;          /**< (0, 1]; 0 or 1: off (Holtzman et al., 2020) */
    size_t top_k;          /**< 0: off; applied before top_p */
    double min_p;          /**< [0, 1]: least share of the likeliest token's
                                probability; 0: off (Nguyen et al., 2024) */
    /** > 0; 0 or 1: off.  Logits of tokens in prompt or continuation are
     *  divided by it when positive, else multiplied, once each (Keskar et al.,
     *  2019, as in transformers). */
    double repetition_penalty;
    uint64_t seed;
    size_t max_batch; /**< prompts decoded together; default 16, ≤ 1024 */
    const int32_t *stop_ids; /**< a sampled one ends the text; usually eos */
    size_t stop_count;       /**< ≤ 64 */
    bool keep_stop;          /**< keep the stop id as the last token */
    /** Completions get a text; NULL: tokens only. */
    const fm_tokenizer_t *tokenizer;
    /** Texts that end the continuation as soon as they stand in its text,
     *  which is cut before the first of them; need the tokenizer. */
    const char *const *stop_texts;
    size_t stop_text_count; /**< ≤ 64, each of 1 to 1024 bytes */
} fm_engine_generate_options_t;

/** Zero-initialise what you do not set. */
typedef struct fm_engine_prompt {
    const int32_t *tokens; /**< host, not kept */
    size_t count;          /**< ≥ 1 */
    uint64_t sample;       /**< tells repeats of one prompt apart */
    uint64_t seed;         /**< of this prompt, beside that of the options */
    const fm_engine_adapter_t *adapter; /**< of the model; NULL: none */
    /** What the adapter is, for caches that outlive the call: equal digests
     *  mean equal parameters.  NULL: nothing of it is kept. */
    const fm_digest_t *adapter_digest;
} fm_engine_prompt_t;

typedef enum fm_engine_finish {
    FM_ENGINE_FINISH_LENGTH, /**< max_new_tokens reached */
    FM_ENGINE_FINISH_STOP    /**< a stop id was sampled, a stop text stood */
} fm_engine_finish_t;

/** What a prompt gave; owned by the caller (fm_engine_completion_fini()). */
typedef struct fm_engine_completion {
    int32_t *tokens; /**< all that were sampled, but a stop id: see keep_stop */
    float *logp; /**< [count] log-prob of each under the model itself, before
                      penalty, temperature and cut-offs */
    size_t count;
    char *text; /**< UTF-8, NUL-terminated, cut before a stop text; NULL
                     without a tokenizer */
    size_t text_len;
    fm_engine_finish_t finish;
} fm_engine_completion_t;

void fm_engine_completion_fini(fm_engine_completion_t *completion);

/**
 * Continue every prompt.
 *
 * Cache memory: at most 1 GiB, or what the longest prompt needs, and never
 * more than min(max_batch, prompts) of the longest sequences.
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
