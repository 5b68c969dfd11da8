/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file score.h
 * What a model makes of a whole text: log-probability of a completion given
 * its prompt, the scalar of a reward model, an embedding.
 *
 * Each sequence runs alone, so its result depends on model, adapter and
 * sequence only.
 * Threads: as the model.
 */
#ifndef FM_ENGINE_SERVE_SCORE_H
#define FM_ENGINE_SERVE_SCORE_H

#include "engine/model/adapter.h"
#include "engine/model/model.h"

/** What to score; host memory, not kept. */
typedef struct fm_engine_score_input {
    const int32_t *prompt;
    size_t prompt_count; /**< ≥ 1: begin with bos when there is none */
    const int32_t *completion;
    size_t completion_count; /**< ≥ 1 */
} fm_engine_score_input_t;

typedef struct fm_engine_score {
    double sum;   /**< Σ log p(completion token | what is before it) */
    double mean;  /**< sum / count; exp(−mean) is the perplexity */
    size_t count; /**< tokens of the completion */
} fm_engine_score_t;

typedef struct fm_engine_scorer fm_engine_scorer_t;

/** @param model  kept; must outlive the scorer; may be trained meanwhile. */
FM_MUST_USE fm_status_t fm_engine_scorer_create(fm_engine_model_t *model,
                                                fm_engine_scorer_t **scorer_out,
                                                fm_error_t *err);
fm_engine_scorer_t *fm_engine_scorer_destroy(fm_engine_scorer_t *scorer);

/** Score with an adapter from now on; @p adapter as in
 *  fm_engine_pass_set_adapter(). */
void fm_engine_scorer_set_adapter(fm_engine_scorer_t *scorer,
                                  const fm_engine_adapter_t *adapter);

/**
 * @param logp_out  host [completion_count], log-prob of each token; or NULL.
 * @retval FM_ERR_INVALID  an empty part, a token outside the vocabulary, a
 *                         result that is not finite.
 * @retval FM_ERR_LIMIT    longer than max_position_embeddings.
 */
FM_MUST_USE fm_status_t fm_engine_score(fm_engine_scorer_t *scorer,
                                        const fm_engine_score_input_t *input,
                                        fm_engine_score_t *score_out,
                                        float *logp_out, fm_error_t *err);

/**
 * The scalar head at the last token: hidden · @p weight.
 * @param weight  device [hidden_size] (fm_engine_value_data()).
 * @retval FM_ERR_INVALID, FM_ERR_LIMIT  as fm_engine_score().
 */
FM_MUST_USE fm_status_t fm_engine_score_value(fm_engine_scorer_t *scorer,
                                              const int32_t *tokens,
                                              size_t count, const float *weight,
                                              double *value_out,
                                              fm_error_t *err);

typedef enum fm_engine_pooling {
    FM_ENGINE_POOL_MEAN, /**< of the states of all tokens */
    FM_ENGINE_POOL_LAST  /**< the state of the last one */
} fm_engine_pooling_t;

/**
 * One vector of a text, from its final hidden states after the last norm.
 * @param normalize   to length 1; a vector of zeros stays.
 * @param vector_out  host [hidden_size].
 * @retval FM_ERR_INVALID, FM_ERR_LIMIT  as fm_engine_score().
 */
FM_MUST_USE fm_status_t fm_engine_embed(fm_engine_scorer_t *scorer,
                                        const int32_t *tokens, size_t count,
                                        fm_engine_pooling_t pooling,
                                        bool normalize, float *vector_out,
                                        fm_error_t *err);

#endif
