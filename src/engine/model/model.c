/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters of a model: one block on the device, one table of names. */
#include "engine/model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/model/layout.h"

struct fm_engine_model {
    fm_engine_config_t config;
    fm_engine_backend_t *be;
    float *data;
    size_t size;
    fm_engine_param_t *params;
    size_t param_count;
    char *names; /* all names, one after another */
};

enum { NAME_BYTES = 64, LAYER_PARAMS = 18 };

/* Append a row to the table; its tensor follows the one before it. */
static void param_add(fm_engine_model_t *model, const char *name, size_t rows,
                      size_t columns)
{
    fm_engine_param_t *param = &model->params[model->param_count++];

    param->name = name;
    param->rank = columns ? 2 : 1;
    param->shape[0] = rows;
    param->shape[1] = columns ? columns : 1;
    param->count = rows * param->shape[1];
    param->offset = model->size;
    model->size += param->count;
}

/* The tensors of a layer, in the order of fm_engine_layout(). */
static void layer_add(fm_engine_model_t *model, size_t layer)
{
    const fm_engine_config_t *c = &model->config;
    fm_engine_layout_t at = fm_engine_layout(c);
    size_t q = fm_engine_mixed_width(c);
    size_t kv = c->num_key_value_heads * c->head_dim;
    size_t hidden = c->hidden_size;
    size_t inner = c->intermediate_size;
    const struct {
        bool there;
        const char *name;
        size_t rows;
        size_t columns;
    } rows[LAYER_PARAMS] = {
        {true, "input_layernorm.weight", hidden, 0},
        {true, "self_attn.q_proj.weight", q, hidden},
        {true, "self_attn.k_proj.weight", kv, hidden},
        {true, "self_attn.v_proj.weight", kv, hidden},
        {at.qkv_bias > 0, "self_attn.q_proj.bias", q, 0},
        {at.qkv_bias > 0, "self_attn.k_proj.bias", kv, 0},
        {at.qkv_bias > 0, "self_attn.v_proj.bias", kv, 0},
        {at.q_norm > 0, "self_attn.q_norm.weight", c->head_dim, 0},
        {at.k_norm > 0, "self_attn.k_norm.weight", c->head_dim, 0},
        {true, "self_attn.o_proj.weight", hidden, q},
        {at.o_bias > 0, "self_attn.o_proj.bias", hidden, 0},
        {true, "post_attention_layernorm.weight", hidden, 0},
        {true, "mlp.gate_proj.weight", inner, hidden},
        {true, "mlp.up_proj.weight", inner, hidden},
        {at.gate_up_bias > 0, "mlp.gate_proj.bias", inner, 0},
        {at.gate_up_bias > 0, "mlp.up_proj.bias", inner, 0},
        {true, "mlp.down_proj.weight", hidden, inner},
        {at.down_bias > 0, "mlp.down_proj.bias", hidden, 0},
    };

    for (size_t i = 0; i < LAYER_PARAMS; i++) {
        if (rows[i].there) {
            char *name = model->names + NAME_BYTES * (layer * LAYER_PARAMS + i);
            (void)snprintf(name, NAME_BYTES, "model.layers.%zu.%s", layer,
                           rows[i].name);
            param_add(model, name, rows[i].rows, rows[i].columns);
        }
    }
}

static void table_fill(fm_engine_model_t *model)
{
    const fm_engine_config_t *c = &model->config;

    param_add(model, "model.embed_tokens.weight", c->vocab_size,
              c->hidden_size);
    for (size_t l = 0; l < c->num_hidden_layers; l++) {
        layer_add(model, l);
    }
    param_add(model, "model.norm.weight", c->hidden_size, 0);
    if (!c->tie_word_embeddings) {
        param_add(model, "lm_head.weight", c->vocab_size, c->hidden_size);
    }
}

fm_status_t fm_engine_model_create(const fm_engine_config_t *config,
                                   fm_engine_backend_t *backend,
                                   fm_engine_model_t **model_out,
                                   fm_error_t *err)
{
    fm_engine_model_t *model = fm_calloc(1, sizeof(*model));
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!model) {
        return fm_no_memory(err);
    }
    model->config = *config;
    model->be = backend;
    if ((rc = fm_engine_config_check(&model->config, err)) < 0) {
        goto out;
    }
    size_t rows = LAYER_PARAMS * model->config.num_hidden_layers;
    if (!(model->params = fm_calloc(rows + 3, sizeof(*model->params))) ||
        !(model->names = fm_calloc(rows, NAME_BYTES))) {
        rc = fm_no_memory(err);
        goto out;
    }
    table_fill(model);
    if (backend && !(model->data = backend->ops->alloc(
                         backend, model->size * sizeof(float)))) {
        rc = fm_error_set(err, FM_ERR_NO_MEMORY,
                          "no memory for a model of %zu parameters: they take "
                          "%.1f GiB in float32",
                          model->size, (double)model->size * 4 / 0x1p30);
        goto out;
    }
    *model_out = model;
    model = NULL;
out:
    fm_engine_model_destroy(model);
    return rc;
}

fm_engine_model_t *fm_engine_model_destroy(fm_engine_model_t *model)
{
    if (model) {
        if (model->be) {
            model->be->ops->release(model->be, model->data);
        }
        free(model->params);
        free(model->names);
        free(model);
    }
    return NULL;
}

static bool name_ends(const char *name, const char *end)
{
    size_t length = strlen(name);
    size_t part = strlen(end);

    return length >= part && strcmp(name + length - part, end) == 0;
}

/* One tensor's start values; each has a stream of its own, so a layer's do not
 * depend on how many layers there are. */
static void param_fill(const fm_engine_param_t *param, uint64_t seed,
                       double deviation, double residual_scale, float *host)
{
    float constant = name_ends(param->name, ".bias") ? 0.0F : 1.0F;
    fm_rng_t rng;

    if (name_ends(param->name, "o_proj.weight") ||
        name_ends(param->name, "down_proj.weight")) {
        deviation *= residual_scale;
    }
    fm_rng_init(&rng, seed ^ fm_hash64(param->name, strlen(param->name)));
    for (size_t i = 0; i < param->count; i++) {
        host[i] = param->rank == 1 ? constant
                                   : (float)(deviation * fm_rng_normal(&rng));
    }
}

fm_status_t fm_engine_model_init(fm_engine_model_t *model, uint64_t seed,
                                 fm_error_t *err)
{
    double scale = 1.0 / sqrt(2.0 * (double)model->config.num_hidden_layers);
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < model->param_count; i++) {
        const fm_engine_param_t *param = &model->params[i];
        float *host = fm_malloc(param->count * sizeof(float));
        if (!host) {
            return fm_no_memory(err);
        }
        param_fill(param, seed, model->config.initializer_range, scale, host);
        rc = fm_engine_model_write(model, param->offset, param->count, host,
                                   err);
        free(host);
    }
    return rc;
}

const fm_engine_config_t *fm_engine_model_config(const fm_engine_model_t *model)
{
    return &model->config;
}

fm_engine_backend_t *fm_engine_model_backend(const fm_engine_model_t *model)
{
    return model->be;
}

const fm_engine_param_t *fm_engine_model_params(const fm_engine_model_t *model,
                                                size_t *count_out)
{
    *count_out = model->param_count;
    return model->params;
}

const fm_engine_param_t *fm_engine_model_find(const fm_engine_model_t *model,
                                              const char *name)
{
    for (size_t i = 0; i < model->param_count; i++) {
        if (strcmp(model->params[i].name, name) == 0) {
            return &model->params[i];
        }
    }
    return NULL;
}

size_t fm_engine_model_size(const fm_engine_model_t *model)
{
    return model->size;
}

float *fm_engine_model_data(const fm_engine_model_t *model)
{
    return model->data;
}

static fm_status_t range_check(const fm_engine_model_t *model, size_t offset,
                               size_t count, fm_error_t *err)
{
    if (offset > model->size || count > model->size - offset) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "elements %zu+%zu are outside the block of %zu",
                            offset, count, model->size);
    }
    return FM_OK;
}

fm_status_t fm_engine_model_read(const fm_engine_model_t *model, size_t offset,
                                 size_t count, float *host, fm_error_t *err)
{
    fm_status_t rc = range_check(model, offset, count, err);

    if (rc < 0) {
        return rc;
    }
    model->be->ops->download(model->be, host, model->data + offset,
                             count * sizeof(float));
    return model->be->ops->sync(model->be, err);
}

fm_status_t fm_engine_model_write(fm_engine_model_t *model, size_t offset,
                                  size_t count, const float *host,
                                  fm_error_t *err)
{
    fm_status_t rc = range_check(model, offset, count, err);

    if (rc < 0) {
        return rc;
    }
    model->be->ops->upload(model->be, model->data + offset, host,
                           count * sizeof(float));
    return model->be->ops->sync(model->be, err);
}
