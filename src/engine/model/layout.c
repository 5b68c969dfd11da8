/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/model/layout.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

fm_engine_heads_t fm_engine_config_heads(const fm_engine_config_t *config)
{
    return (fm_engine_heads_t){.heads = config->num_attention_heads,
                               .kv_heads = config->num_key_value_heads,
                               .head_dim = config->head_dim};
}

fm_engine_heads_t fm_engine_layer_heads(const fm_engine_config_t *config,
                                        size_t layer)
{
    fm_engine_heads_t heads = fm_engine_config_heads(config);

    if (config->windowed[layer / 64] >> layer % 64 & 1) {
        heads.window = config->sliding_window;
    }
    return heads;
}

size_t fm_engine_qkv_width(const fm_engine_config_t *config)
{
    fm_engine_heads_t h = fm_engine_config_heads(config);

    return (h.heads + 2 * h.kv_heads) * h.head_dim;
}

size_t fm_engine_mixed_width(const fm_engine_config_t *config)
{
    return config->num_attention_heads * config->head_dim;
}

/* Take @p count floats of the layer; 0 when it has no such tensor. */
static size_t take(fm_engine_layout_t *at, bool there, size_t count)
{
    size_t offset = at->layer;

    at->layer += there ? count : 0;
    return there ? offset : 0;
}

fm_engine_layout_t fm_engine_layout(const fm_engine_config_t *config)
{
    fm_engine_layout_t at = {0};
    size_t hidden = config->hidden_size;
    size_t inner = config->intermediate_size;
    size_t qkv = fm_engine_qkv_width(config);
    size_t table = config->vocab_size * hidden;
    bool qk_norm = config->family == FM_ENGINE_QWEN3;
    bool qkv_bias = config->attention_bias || config->family == FM_ENGINE_QWEN2;

    at.input_norm = take(&at, true, hidden);
    at.qkv = take(&at, true, qkv * hidden);
    at.qkv_bias = take(&at, qkv_bias, qkv);
    at.q_norm = take(&at, qk_norm, config->head_dim);
    at.k_norm = take(&at, qk_norm, config->head_dim);
    at.o = take(&at, true, hidden * fm_engine_mixed_width(config));
    at.o_bias = take(&at, config->attention_bias, hidden);
    at.post_norm = take(&at, true, hidden);
    at.gate_up = take(&at, true, 2 * inner * hidden);
    at.gate_up_bias = take(&at, config->mlp_bias, 2 * inner);
    at.down = take(&at, true, inner * hidden);
    at.down_bias = take(&at, config->mlp_bias, hidden);
    at.first_layer = table;
    at.norm = at.first_layer + config->num_hidden_layers * at.layer;
    at.head = config->tie_word_embeddings ? at.embedding : at.norm + hidden;
    at.size = at.norm + hidden + (config->tie_word_embeddings ? 0 : table);
    return at;
}

double fm_engine_rope_rate(const fm_engine_config_t *config, size_t i)
{
    const double turn = 6.283185307179586;
    const fm_engine_rope_scaling_t *scaling = &config->rope_scaling;
    double rate =
        pow(config->rope_theta, -2.0 * (double)i / (double)config->head_dim);

    if (scaling->type == FM_ENGINE_ROPE_LINEAR) {
        return rate / scaling->factor;
    }
    if (scaling->type == FM_ENGINE_ROPE_LLAMA3) {
        /* turns within the positions of the first training: many, and the
         * rate stays; few, and it is divided; a line in between */
        double low = scaling->low_freq_factor;
        double high = scaling->high_freq_factor;
        double turns =
            (double)scaling->original_max_position_embeddings * rate / turn;
        double keep = fmin(fmax((turns - low) / (high - low), 0), 1);
        return keep * rate + (1 - keep) * rate / scaling->factor;
    }
    return rate;
}

fm_status_t fm_engine_rotary_reach(fm_engine_rotary_t *rotary,
                                   fm_engine_backend_t *be,
                                   const fm_engine_config_t *config,
                                   size_t positions, fm_error_t *err)
{
    size_t half = config->head_dim / 2;

    if (positions <= rotary->positions) {
        return FM_OK;
    }
    size_t doubled = 2 * rotary->positions;
    size_t wanted = positions > doubled ? positions : doubled;
    size_t bytes = wanted * 2 * half * sizeof(float);
    float *host = fm_malloc(bytes);
    float *table = host ? be->ops->alloc(be, bytes) : NULL;
    if (!table) {
        free(host);
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < half; i++) {
        double rate = fm_engine_rope_rate(config, i);
        for (size_t p = 0; p < wanted; p++) {
            host[(2 * p) * half + i] = (float)cos((double)p * rate);
            host[(2 * p + 1) * half + i] = (float)sin((double)p * rate);
        }
    }
    be->ops->upload(be, table, host, bytes);
    free(host);
    be->ops->release(be, rotary->table);
    *rotary = (fm_engine_rotary_t){.table = table, .positions = wanted};
    return FM_OK;
}
