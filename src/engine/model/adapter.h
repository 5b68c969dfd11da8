/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file adapter.h
 * A LoRA adapter (Hu et al., 2021): for some matrices W [out, in] of a model
 * an update (alpha / r) · B·A with A [r, in] and B [out, r], all of them one
 * contiguous float32 block on the model's backend.
 *
 * Names, shapes and start values are those of Hugging Face PEFT, so that an
 * adapter goes there and back unchanged.  An adapter holds no pointer to a
 * model's parameters: it serves any model of the configuration it was made
 * for.
 *
 * Threads: an adapter belongs to the thread of its backend.
 */
#ifndef FM_ENGINE_MODEL_ADAPTER_H
#define FM_ENGINE_MODEL_ADAPTER_H

#include "engine/model/model.h"

/** Matrices that can be adapted; bits of a set. */
typedef enum fm_engine_target {
    FM_ENGINE_TARGET_Q = 1,     /**< q_proj */
    FM_ENGINE_TARGET_K = 2,     /**< k_proj */
    FM_ENGINE_TARGET_V = 4,     /**< v_proj */
    FM_ENGINE_TARGET_O = 8,     /**< o_proj */
    FM_ENGINE_TARGET_GATE = 16, /**< gate_proj */
    FM_ENGINE_TARGET_UP = 32,   /**< up_proj */
    FM_ENGINE_TARGET_DOWN = 64  /**< down_proj */
} fm_engine_target_t;

enum { FM_ENGINE_TARGETS = 7, FM_ENGINE_ADAPTER_RANK_MAX = 4096 };

typedef struct fm_engine_adapter_config {
    size_t rank;      /**< "r", 1 … 4096 */
    double alpha;     /**< above 0, at most 1e6; the scale is alpha / rank */
    double dropout;   /**< of A's input while training; at least 0, below 1 */
    uint32_t targets; /**< at least one fm_engine_target_t */
} fm_engine_adapter_config_t;

/** "q_proj" … "down_proj"; NULL for anything but one target. */
const char *fm_engine_target_name(fm_engine_target_t target);

/**
 * Read {"r", "alpha", "dropout", "target_modules"}; an absent alpha is r, an
 * absent dropout 0, absent target_modules are q_proj and v_proj.
 * @retval FM_ERR_INVALID  names the key and what it may be; an unknown key.
 */
FM_MUST_USE fm_status_t fm_engine_adapter_config_parse(
    const fm_json_t *json, fm_engine_adapter_config_t *config_out,
    fm_error_t *err);
/** All four keys, target_modules sorted by name; new reference or NULL. */
FM_MUST_USE fm_json_t *
fm_engine_adapter_config_to_json(const fm_engine_adapter_config_t *config);

typedef struct fm_engine_adapter fm_engine_adapter_t;

/**
 * An adapter with all parameters zero: it changes nothing.
 * @param model  gives shapes and backend; only the backend is kept.
 * @retval FM_ERR_INVALID  a value of @p config is outside its range.
 */
FM_MUST_USE fm_status_t fm_engine_adapter_create(
    const fm_engine_adapter_config_t *config, const fm_engine_model_t *model,
    fm_engine_adapter_t **adapter_out, fm_error_t *err);
fm_engine_adapter_t *fm_engine_adapter_destroy(fm_engine_adapter_t *adapter);

/** Seeded start: A uniform in ±1/√in (Kaiming with a = √5), B zero. */
FM_MUST_USE fm_status_t fm_engine_adapter_init(fm_engine_adapter_t *adapter,
                                               uint64_t seed, fm_error_t *err);

const fm_engine_adapter_config_t *
fm_engine_adapter_config(const fm_engine_adapter_t *adapter);
/** The matrices in block order, such as "base_model.model.model.layers.0.
 *  self_attn.q_proj.lora_A.weight"; owned by the adapter. */
const fm_engine_param_t *
fm_engine_adapter_params(const fm_engine_adapter_t *adapter, size_t *count_out);
/** NULL when there is no matrix of that name. */
const fm_engine_param_t *
fm_engine_adapter_find(const fm_engine_adapter_t *adapter, const char *name);
/** Elements of the whole block. */
size_t fm_engine_adapter_size(const fm_engine_adapter_t *adapter);
/** The block itself: a device pointer. */
float *fm_engine_adapter_data(const fm_engine_adapter_t *adapter);
/** Copy @p count elements from @p offset of the block to the host. */
FM_MUST_USE fm_status_t
fm_engine_adapter_read(const fm_engine_adapter_t *adapter, size_t offset,
                       size_t count, float *host, fm_error_t *err);
FM_MUST_USE fm_status_t fm_engine_adapter_write(fm_engine_adapter_t *adapter,
                                                size_t offset, size_t count,
                                                const float *host,
                                                fm_error_t *err);

#endif
