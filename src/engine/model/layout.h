/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file layout.h
 * Where everything stands in a model's parameter block, and the table of
 * rotation angles.  Private to the engine.
 */
#ifndef FM_ENGINE_MODEL_LAYOUT_H
#define FM_ENGINE_MODEL_LAYOUT_H

#include "engine/model/model.h"

/** Offsets into the block, in floats. */
typedef struct fm_engine_layout {
    size_t embedding;   /**< [vocab, hidden] */
    size_t first_layer; /**< layers follow, `layer` floats each */
    size_t layer;
    size_t norm; /**< [hidden] */
    size_t head; /**< [vocab, hidden]; the embedding when tied */
    size_t size;
    /* within a layer; 0 where the model has no such bias or norm */
    size_t input_norm;   /**< [hidden]; the first: at 0 */
    size_t qkv;          /**< [(heads + 2·kv)·dim, hidden]: q, k, then v */
    size_t qkv_bias;     /**< [(heads + 2·kv)·dim] */
    size_t q_norm;       /**< [dim] */
    size_t k_norm;       /**< [dim] */
    size_t o;            /**< [hidden, heads·dim] */
    size_t o_bias;       /**< [hidden] */
    size_t post_norm;    /**< [hidden] */
    size_t gate_up;      /**< [2·intermediate, hidden]: gate, then up */
    size_t gate_up_bias; /**< [2·intermediate] */
    size_t down;         /**< [hidden, intermediate] */
    size_t down_bias;    /**< [hidden] */
} fm_engine_layout_t;

fm_engine_layout_t fm_engine_layout(const fm_engine_config_t *config);
/** Without a window: for shapes. */
fm_engine_heads_t fm_engine_config_heads(const fm_engine_config_t *config);
/** With the window of @p layer: for attention. */
fm_engine_heads_t fm_engine_layer_heads(const fm_engine_config_t *config,
                                        size_t layer);
/** Floats in a row of queries, keys and values. */
size_t fm_engine_qkv_width(const fm_engine_config_t *config);
/** Floats in a row of mixed values: heads·dim, what o_proj takes. */
size_t fm_engine_mixed_width(const fm_engine_config_t *config);

/** Radians a position of dimension pair @p i: theta^(−2i/dim), scaled. */
double fm_engine_rope_rate(const fm_engine_config_t *config, size_t i);

/** cos and sin of position·rate: device [positions, 2, dim/2]. */
typedef struct fm_engine_rotary {
    float *table;
    size_t positions;
} fm_engine_rotary_t;

/** Make the table reach @p positions; an entry never depends on the size. */
FM_MUST_USE fm_status_t fm_engine_rotary_reach(fm_engine_rotary_t *rotary,
                                               fm_engine_backend_t *be,
                                               const fm_engine_config_t *config,
                                               size_t positions,
                                               fm_error_t *err);

#endif
