/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters of a model: one block on the device, one table of names. */
#include "engine/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/layout.h"

struct fm_engine_model {
    fm_engine_config_t config;
    fm_engine_backend_t *be;
    float *data;
    size_t size;
    fm_engine_param_t *params;
    size_t param_count;
    char *names; /* all names, one after another */
};

enum { NAME_BYTES = 64, LAYER_PARAMS = 9 };

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

static void layer_add(fm_engine_model_t *model, size_t layer)
{
    const fm_engine_config_t *c = &model->config;
    fm_engine_heads_t heads = fm_engine_config_heads(c);
    size_t q = heads.heads * heads.head_dim;
    size_t kv = heads.kv_heads * heads.head_dim;
    const struct {
        const char *name;
        size_t rows;
        size_t columns;
    } rows[LAYER_PARAMS] = {
        {"input_layernorm", c->hidden_size, 0},
        {"self_attn.q_proj", q, c->hidden_size},
        {"self_attn.k_proj", kv, c->hidden_size},
        {"self_attn.v_proj", kv, c->hidden_size},
        {"self_attn.o_proj", c->hidden_size, q},
        {"post_attention_layernorm", c->hidden_size, 0},
        {"mlp.gate_proj", c->intermediate_size, c->hidden_size},
        {"mlp.up_proj", c->intermediate_size, c->hidden_size},
        {"mlp.down_proj", c->hidden_size, c->intermediate_size},
    };

    for (size_t i = 0; i < LAYER_PARAMS; i++) {
        char *name = model->names + NAME_BYTES * (layer * LAYER_PARAMS + i);
        (void)snprintf(name, NAME_BYTES, "model.layers.%zu.%s.weight", layer,
                       rows[i].name);
        param_add(model, name, rows[i].rows, rows[i].columns);
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
    if (!(model->data =
              backend->ops->alloc(backend, model->size * sizeof(float)))) {
        rc = fm_error_set(err, FM_ERR_NO_MEMORY, "no memory for %zu parameters",
                          model->size);
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
        model->be->ops->release(model->be, model->data);
        free(model->params);
        free(model->names);
        free(model);
    }
    return NULL;
}

/* One tensor's start values; each has a stream of its own, so a layer's do not
 * depend on how many layers there are. */
static void param_fill(const fm_engine_param_t *param, uint64_t seed,
                       double residual_scale, float *host)
{
    bool residual = strstr(param->name, "o_proj") != NULL ||
                    strstr(param->name, "down_proj") != NULL;
    double deviation = residual ? 0.02 * residual_scale : 0.02;
    fm_rng_t rng;

    fm_rng_init(&rng, seed ^ fm_hash64(param->name, strlen(param->name)));
    for (size_t i = 0; i < param->count; i++) {
        host[i] =
            param->rank == 1 ? 1.0F : (float)(deviation * fm_rng_normal(&rng));
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
        param_fill(param, seed, scale, host);
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
