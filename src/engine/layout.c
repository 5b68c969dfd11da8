/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/layout.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

fm_engine_heads_t fm_engine_config_heads(const fm_engine_config_t *config)
{
    return (fm_engine_heads_t){.heads = config->num_attention_heads,
                               .kv_heads = config->num_key_value_heads,
                               .head_dim = config->hidden_size /
                                           config->num_attention_heads};
}

size_t fm_engine_qkv_width(const fm_engine_config_t *config)
{
    fm_engine_heads_t h = fm_engine_config_heads(config);

    return (h.heads + 2 * h.kv_heads) * h.head_dim;
}

fm_engine_layout_t fm_engine_layout(const fm_engine_config_t *config)
{
    fm_engine_layout_t at = {0};
    size_t hidden = config->hidden_size;
    size_t table = config->vocab_size * hidden;

    at.qkv = at.input_norm + hidden;
    at.o = at.qkv + fm_engine_qkv_width(config) * hidden;
    at.post_norm = at.o + hidden * hidden;
    at.gate_up = at.post_norm + hidden;
    at.down = at.gate_up + 2 * config->intermediate_size * hidden;
    at.layer = at.down + config->intermediate_size * hidden;
    at.first_layer = table;
    at.norm = at.first_layer + config->num_hidden_layers * at.layer;
    at.head = config->tie_word_embeddings ? at.embedding : at.norm + hidden;
    at.size = at.norm + hidden + (config->tie_word_embeddings ? 0 : table);
    return at;
}

fm_status_t fm_engine_rotary_reach(fm_engine_rotary_t *rotary,
                                   fm_engine_backend_t *be,
                                   const fm_engine_config_t *config,
                                   size_t positions, fm_error_t *err)
{
    size_t half = fm_engine_config_heads(config).head_dim / 2;

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
        double rate = pow(config->rope_theta, -(double)i / (double)half);
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
