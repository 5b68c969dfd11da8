/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file lora.h
 * Where an adapter's matrices stand, and how they join the products of a
 * layer although q, k, v and gate, up are one matrix each.  Private to the
 * engine.
 */
#ifndef FM_ENGINE_MODEL_LORA_H
#define FM_ENGINE_MODEL_LORA_H

#include "engine/model/adapter.h"
#include "engine/model/project.h"

/** A target inside a product of a layer: columns [column, column + n). */
typedef struct fm_engine_lora_part {
    fm_engine_target_t target;
    size_t column;
    size_t n;
} fm_engine_lora_part_t;

enum { FM_ENGINE_LORA_PARTS_MAX = 3 };

/** The targets of @p matrix; returns how many, 1 to 3. */
size_t
fm_engine_lora_parts(const fm_engine_config_t *config,
                     fm_engine_matrix_t matrix,
                     fm_engine_lora_part_t parts[FM_ENGINE_LORA_PARTS_MAX]);

/** A and B of one matrix; a is NULL when it is not adapted or @p adapter is
 *  NULL.  Device pointers, valid as long as the adapter. */
fm_engine_lora_t fm_engine_adapter_lora(const fm_engine_adapter_t *adapter,
                                        size_t layer,
                                        fm_engine_target_t target);

/** Make room for the pass's adapter over @p rows; nothing without one. */
FM_MUST_USE fm_status_t fm_engine_lora_reach(fm_engine_pass_t *pass,
                                             size_t rows, fm_error_t *err);
/** out[rows, ldo] += the adapter's part of a product; x as its input. */
void fm_engine_lora_forward(fm_engine_pass_t *pass, size_t layer,
                            fm_engine_matrix_t matrix, float *out, size_t ldo,
                            const float *x, size_t k);
/** dx[rows, k] += …; the pass's adapter gradient += when there is one. */
void fm_engine_lora_backward(fm_engine_pass_t *pass, size_t layer,
                             fm_engine_matrix_t matrix, float *dx,
                             const float *dout, size_t ldo, const float *x,
                             size_t k);

#endif
