/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file value.h
 * A scalar head: one number from a final hidden state, weight · hidden, with
 * no bias.  At the last token it is the score of a reward model (as in
 * LlamaForSequenceClassification), at every token a critic's value.
 *
 * Threads: a head belongs to the thread of its backend.
 */
#ifndef FM_ENGINE_MODEL_VALUE_H
#define FM_ENGINE_MODEL_VALUE_H

#include "engine/model/model.h"

typedef struct fm_engine_value fm_engine_value_t;

/**
 * A head with all weights zero.
 * @param model  gives width and backend; only the backend is kept.
 */
FM_MUST_USE fm_status_t fm_engine_value_create(const fm_engine_model_t *model,
                                               fm_engine_value_t **value_out,
                                               fm_error_t *err);
fm_engine_value_t *fm_engine_value_destroy(fm_engine_value_t *value);
/** Seeded start: N(0, 0.02²). */
FM_MUST_USE fm_status_t fm_engine_value_init(fm_engine_value_t *value,
                                             uint64_t seed, fm_error_t *err);
/** The one tensor, "score.weight" [1, hidden_size]. */
const fm_engine_param_t *fm_engine_value_param(const fm_engine_value_t *value);
/** hidden_size. */
size_t fm_engine_value_size(const fm_engine_value_t *value);
/** The weights: a device pointer. */
float *fm_engine_value_data(const fm_engine_value_t *value);
FM_MUST_USE fm_status_t fm_engine_value_read(const fm_engine_value_t *value,
                                             size_t offset, size_t count,
                                             float *host, fm_error_t *err);
FM_MUST_USE fm_status_t fm_engine_value_write(fm_engine_value_t *value,
                                              size_t offset, size_t count,
                                              const float *host,
                                              fm_error_t *err);

#endif
