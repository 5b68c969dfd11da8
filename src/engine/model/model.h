/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file model.h
 * A decoder of the Llama family (Touvron et al., 2023; Mistral: Jiang et al.,
 * 2023; Qwen: Yang et al., 2024 and 2025): its configuration and its
 * parameters, one contiguous float32 block on a backend.
 *
 * Names and shapes of configuration and tensors are those of Hugging Face.
 * The block holds the tensors in table order without gaps; q, k, v and gate,
 * up stand side by side, so each group multiplies as one matrix, and so do
 * their biases.
 *
 * Threads: a model belongs to the thread of its backend.
 */
#ifndef FM_ENGINE_MODEL_MODEL_H
#define FM_ENGINE_MODEL_MODEL_H

#include "base/json.h"
#include "engine/backend.h"

/** model_type: what the keys mean, and which of them there are. */
typedef enum fm_engine_family {
    FM_ENGINE_LLAMA,   /**< "llama": Llama 1 to 3.x, TinyLlama, … */
    FM_ENGINE_MISTRAL, /**< "mistral": window on every layer */
    FM_ENGINE_QWEN2,   /**< "qwen2": biases of q, k, v; window a layer */
    FM_ENGINE_QWEN3    /**< "qwen3": norms of query and key heads */
} fm_engine_family_t;

/** How rotation angles reach beyond the positions seen in training. */
typedef enum fm_engine_rope_type {
    FM_ENGINE_ROPE_DEFAULT,
    FM_ENGINE_ROPE_LINEAR, /**< all angles by 1/factor (Chen et al., 2023) */
    FM_ENGINE_ROPE_LLAMA3  /**< slow ones by 1/factor (Dubey et al., 2024) */
} fm_engine_rope_type_t;

typedef struct fm_engine_rope_scaling {
    fm_engine_rope_type_t type;
    double factor;           /**< 1 … 1e6; unless type is default */
    double low_freq_factor;  /**< llama3: > 0 */
    double high_freq_factor; /**< llama3: above the low one */
    size_t original_max_position_embeddings; /**< llama3 */
} fm_engine_rope_scaling_t;

/** Most layers of a model. */
#define FM_ENGINE_LAYER_LIMIT 1024

/** Key: allowed range (integers unless said otherwise).  What "absent" means
 *  differs by family, as it does in Hugging Face; 0 is absent. */
typedef struct fm_engine_config {
    fm_engine_family_t family;      /**< model_type; absent: llama */
    size_t vocab_size;              /**< 2 … 2^20 */
    size_t hidden_size;             /**< 2 … 65536 */
    size_t intermediate_size;       /**< 1 … 2^20 */
    size_t num_hidden_layers;       /**< 1 … FM_ENGINE_LAYER_LIMIT */
    size_t num_attention_heads;     /**< 1 … 1024 */
    size_t num_key_value_heads;     /**< divides heads; absent: as many, but
                                         8 for mistral, 32 for qwen */
    size_t head_dim;                /**< 2 … 1024, even; absent: hidden_size /
                                         num_attention_heads, 128 for qwen3 */
    size_t max_position_embeddings; /**< 1 … 2^22; absent: 2048, 131072 for
                                         mistral, 32768 for qwen */
    double rope_theta;              /**< real, 1 … 1e12; absent: 10000 */
    double rms_norm_eps;            /**< real, 1e-12 … 0.1; absent: 1e-6 */
    double initializer_range;       /**< real, 1e-9 … 1; absent: 0.02 */
    fm_engine_rope_scaling_t rope_scaling;
    size_t sliding_window; /**< positions a query sees, its own included;
                                0: all before it */
    uint64_t
        windowed[FM_ENGINE_LAYER_LIMIT / 64]; /**< bit l: layer l has the
                                                   window; none: all have */
    bool tie_word_embeddings;                 /**< absent: false */
    bool attention_bias; /**< llama, qwen3: biases of q, k, v, o */
    bool mlp_bias;       /**< llama: biases of gate, up, down */
} fm_engine_config_t;

/** Most parameters of a model: 2^36 (256 GiB of float32). */
#define FM_ENGINE_PARAM_LIMIT ((size_t)1 << 36)

/**
 * Read and check a config.json object, of transformers before or since its
 * version 5 (rope_parameters).  Keys that change the arithmetic in ways we do
 * not compute (another model_type, activation or scaling of rotations, dropout,
 * quantised weights) are refused; other keys are ignored.
 * @retval FM_ERR_INVALID      names the key and the allowed range.
 * @retval FM_ERR_UNSUPPORTED  names the key.
 */
FM_MUST_USE fm_status_t fm_engine_config_parse(const fm_json_t *json,
                                               fm_engine_config_t *config_out,
                                               fm_error_t *err);
/** All keys above, as transformers reads them; new reference or NULL. */
FM_MUST_USE fm_json_t *
fm_engine_config_to_json(const fm_engine_config_t *config);
/** The same checks for a configuration filled in by hand (0 = absent). */
FM_MUST_USE fm_status_t fm_engine_config_check(fm_engine_config_t *config,
                                               fm_error_t *err);
/** Parameters of a checked configuration. */
size_t fm_engine_config_param_count(const fm_engine_config_t *config);

/** One tensor of the block. */
typedef struct fm_engine_param {
    const char *name; /**< "model.layers.0.self_attn.q_proj.weight" */
    size_t rank;      /**< 1 or 2 */
    size_t shape[2];  /**< [out, in] of a matrix; shape[1] = 1 for rank 1 */
    size_t offset;    /**< first element in the block */
    size_t count;     /**< elements */
} fm_engine_param_t;

typedef struct fm_engine_model fm_engine_model_t;

/**
 * A model with all parameters zero.
 * @param config   checked; copied.
 * @param backend  kept; must outlive the model.  NULL: names and shapes alone,
 *                 nothing is allocated for parameters.
 */
FM_MUST_USE fm_status_t fm_engine_model_create(const fm_engine_config_t *config,
                                               fm_engine_backend_t *backend,
                                               fm_engine_model_t **model_out,
                                               fm_error_t *err);
fm_engine_model_t *fm_engine_model_destroy(fm_engine_model_t *model);

/**
 * Seeded initialisation: matrices from N(0, initializer_range²), those that
 * write into the residual stream divided by √(2·layers), norms one, biases
 * zero.  The same bits on every
 * machine with the same C library.
 */
FM_MUST_USE fm_status_t fm_engine_model_init(fm_engine_model_t *model,
                                             uint64_t seed, fm_error_t *err);

const fm_engine_config_t *
fm_engine_model_config(const fm_engine_model_t *model);
fm_engine_backend_t *fm_engine_model_backend(const fm_engine_model_t *model);
/** The tensors in block order; owned by the model. */
const fm_engine_param_t *fm_engine_model_params(const fm_engine_model_t *model,
                                                size_t *count_out);
/** NULL when there is no tensor of that name. */
const fm_engine_param_t *fm_engine_model_find(const fm_engine_model_t *model,
                                              const char *name);
/** Elements of the whole block. */
size_t fm_engine_model_size(const fm_engine_model_t *model);
/** The block itself: a device pointer, [fm_engine_model_size()] floats. */
float *fm_engine_model_data(const fm_engine_model_t *model);

/** Copy @p count elements from @p offset of the block to the host. */
FM_MUST_USE fm_status_t fm_engine_model_read(const fm_engine_model_t *model,
                                             size_t offset, size_t count,
                                             float *host, fm_error_t *err);
FM_MUST_USE fm_status_t fm_engine_model_write(fm_engine_model_t *model,
                                              size_t offset, size_t count,
                                              const float *host,
                                              fm_error_t *err);

#endif
