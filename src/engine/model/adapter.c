/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The matrices of an adapter: one block on the device, one table of names:
 * layer by layer, the targets in the order of their bits, A (an even row of
 * the table) and then B.
 */
#include "engine/model/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/model/layout.h"
#include "engine/model/lora.h"

enum { NAME_BYTES = 96 };

struct fm_engine_adapter {
    fm_engine_adapter_config_t config;
    fm_engine_backend_t *be;
    float *data;
    size_t size;
    size_t layers;
    size_t per_layer; /* rows of the table: 2 a target */
    fm_engine_param_t *params;
    size_t param_count;
    char (*names)[NAME_BYTES];
};

/* By bit number; the module each lies in. */
static const struct {
    const char *name;
    const char *module;
} targets[FM_ENGINE_TARGETS] = {
    {"q_proj", "self_attn"}, {"k_proj", "self_attn"}, {"v_proj", "self_attn"},
    {"o_proj", "self_attn"}, {"gate_proj", "mlp"},    {"up_proj", "mlp"},
    {"down_proj", "mlp"}};

const char *fm_engine_target_name(fm_engine_target_t target)
{
    for (size_t i = 0; i < FM_ENGINE_TARGETS; i++) {
        if ((uint32_t)target == UINT32_C(1) << i) {
            return targets[i].name;
        }
    }
    return NULL;
}

/* --- configuration ------------------------------------------------------- */

static fm_status_t config_check(const fm_engine_adapter_config_t *config,
                                fm_error_t *err)
{
    const uint32_t all = (UINT32_C(1) << FM_ENGINE_TARGETS) - 1;
    const struct {
        const char *name;
        bool good;
        const char *range;
    } rules[] = {
        {"r", config->rank >= 1 && config->rank <= FM_ENGINE_ADAPTER_RANK_MAX,
         "an integer from 1 to 4096"},
        {"alpha", config->alpha > 0 && config->alpha <= 1e6,
         "above 0, at most 1e6"},
        {"dropout", config->dropout >= 0 && (float)config->dropout < 1,
         "at least 0, below 1"},
        {"target_modules",
         config->targets != 0 && (config->targets & ~all) == 0,
         "a list of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
         "down_proj"},
    };

    for (size_t i = 0; i < FM_COUNT_OF(rules); i++) {
        if (!rules[i].good) {
            return fm_error_set(err, FM_ERR_INVALID, "lora: %s: want %s",
                                rules[i].name, rules[i].range);
        }
    }
    return FM_OK;
}

/* 0 for what is not a target. */
static uint32_t target_bit(const fm_json_t *name)
{
    const char *text = fm_json_str(name);

    for (size_t i = 0; text && i < FM_ENGINE_TARGETS; i++) {
        if (strcmp(text, targets[i].name) == 0) {
            return UINT32_C(1) << i;
        }
    }
    return 0;
}

static fm_status_t targets_parse(const fm_json_t *list, uint32_t *targets_out,
                                 fm_error_t *err)
{
    uint32_t set = 0;

    if (!fm_json_is(list, FM_JSON_ARRAY)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "lora: target_modules: want a list of names");
    }
    for (size_t i = 0; i < fm_json_len(list); i++) {
        uint32_t bit = target_bit(fm_json_at(list, i));
        if (bit == 0 || (set & bit) != 0) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "lora: target_modules[%zu]: want one of "
                                "q_proj, k_proj, v_proj, o_proj, gate_proj, "
                                "up_proj, down_proj, each once",
                                i);
        }
        set |= bit;
    }
    *targets_out = set;
    return FM_OK;
}

/* Only known keys: a mistyped one must not be lost in silence. */
static fm_status_t keys_check(const fm_json_t *json, fm_error_t *err)
{
    static const char *const known[] = {"r", "alpha", "dropout",
                                        "target_modules"};
    void *iterator = NULL;
    const char *key;
    fm_json_t *value;

    if (!fm_json_is(json, FM_JSON_OBJECT)) {
        return fm_error_set(err, FM_ERR_INVALID, "lora: want an object");
    }
    while (fm_json_next(json, &iterator, &key, &value)) {
        bool found = false;
        for (size_t i = 0; i < FM_COUNT_OF(known); i++) {
            found = found || strcmp(key, known[i]) == 0;
        }
        if (!found) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "lora: %s: unknown; r, alpha, dropout and "
                                "target_modules are allowed",
                                key);
        }
    }
    return FM_OK;
}

fm_status_t
fm_engine_adapter_config_parse(const fm_json_t *json,
                               fm_engine_adapter_config_t *config_out,
                               fm_error_t *err)
{
    fm_status_t rc = keys_check(json, err);

    if (rc < 0) {
        return rc;
    }
    const fm_json_t *rank = fm_json_get(json, "r");
    const fm_json_t *alpha = fm_json_get(json, "alpha");
    const fm_json_t *dropout = fm_json_get(json, "dropout");
    const fm_json_t *list = fm_json_get(json, "target_modules");
    int64_t r = fm_json_int_or(rank, 0);
    fm_engine_adapter_config_t config = {
        .rank = r > 0 ? (size_t)r : 0,
        .alpha = alpha ? fm_json_real_or(alpha, NAN) : (double)r,
        .dropout = dropout ? fm_json_real_or(dropout, NAN) : 0,
        .targets = FM_ENGINE_TARGET_Q | FM_ENGINE_TARGET_V};
    if ((list && (rc = targets_parse(list, &config.targets, err)) < 0) ||
        (rc = config_check(&config, err)) < 0) {
        return rc;
    }
    *config_out = config;
    return FM_OK;
}

static int name_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

fm_json_t *
fm_engine_adapter_config_to_json(const fm_engine_adapter_config_t *config)
{
    const char *names[FM_ENGINE_TARGETS];
    size_t count = 0;
    fm_json_t *json = fm_json_object();
    fm_json_t *list = fm_json_array();
    bool ok = json && list;

    for (size_t i = 0; i < FM_ENGINE_TARGETS; i++) {
        if ((config->targets >> i & 1) != 0) {
            names[count++] = targets[i].name;
        }
    }
    qsort(names, count, sizeof(*names), name_compare);
    for (size_t i = 0; ok && i < count; i++) {
        ok = fm_json_append(list, fm_json_string(names[i])) >= 0;
    }
    ok = ok && fm_json_set(json, "r", fm_json_int((int64_t)config->rank)) >= 0;
    ok = ok && fm_json_set(json, "alpha", fm_json_real(config->alpha)) >= 0;
    ok = ok && fm_json_set(json, "dropout", fm_json_real(config->dropout)) >= 0;
    ok = ok && fm_json_set(json, "target_modules", fm_json_keep(list)) >= 0;
    fm_json_drop(list);
    return ok ? json : fm_json_drop(json);
}

/* --- the table ----------------------------------------------------------- */

/* The input width of a product. */
static size_t matrix_input(const fm_engine_config_t *c,
                           fm_engine_matrix_t matrix)
{
    return matrix == FM_ENGINE_O      ? fm_engine_mixed_width(c)
           : matrix == FM_ENGINE_DOWN ? c->intermediate_size
                                      : c->hidden_size;
}

static void param_add(fm_engine_adapter_t *adapter, size_t row, size_t layer,
                      fm_engine_target_t target, size_t rows, size_t columns)
{
    fm_engine_param_t *param = &adapter->params[row];
    size_t t = 0;

    while ((uint32_t)target >> t > 1) {
        t++;
    }
    (void)snprintf(adapter->names[row], NAME_BYTES,
                   "base_model.model.model.layers.%zu.%s.%s.lora_%c.weight",
                   layer, targets[t].module, targets[t].name,
                   row % 2 == 0 ? 'A' : 'B');
    *param = (fm_engine_param_t){.name = adapter->names[row],
                                 .rank = 2,
                                 .shape = {rows, columns},
                                 .offset = adapter->size,
                                 .count = rows * columns};
    adapter->size += param->count;
}

static void layer_add(fm_engine_adapter_t *adapter, const fm_engine_config_t *c,
                      size_t layer)
{
    for (int m = FM_ENGINE_QKV; m <= FM_ENGINE_DOWN; m++) {
        fm_engine_matrix_t matrix = (fm_engine_matrix_t)m;
        fm_engine_lora_part_t parts[FM_ENGINE_LORA_PARTS_MAX];
        size_t count = fm_engine_lora_parts(c, matrix, parts);
        for (size_t i = 0; i < count; i++) {
            if ((adapter->config.targets & (uint32_t)parts[i].target) == 0) {
                continue;
            }
            size_t row = adapter->param_count;
            param_add(adapter, row, layer, parts[i].target,
                      adapter->config.rank, matrix_input(c, matrix));
            param_add(adapter, row + 1, layer, parts[i].target, parts[i].n,
                      adapter->config.rank);
            adapter->param_count += 2;
        }
    }
}

fm_status_t fm_engine_adapter_create(const fm_engine_adapter_config_t *config,
                                     const fm_engine_model_t *model,
                                     fm_engine_adapter_t **adapter_out,
                                     fm_error_t *err)
{
    const fm_engine_config_t *c = fm_engine_model_config(model);
    fm_engine_adapter_t *adapter = NULL;
    fm_status_t rc = config_check(config, err);

    if (rc < 0) {
        return rc;
    }
    if (!(adapter = fm_calloc(1, sizeof(*adapter)))) {
        return fm_no_memory(err);
    }
    adapter->config = *config;
    adapter->be = fm_engine_model_backend(model);
    adapter->layers = c->num_hidden_layers;
    for (uint32_t set = config->targets; set != 0; set &= set - 1) {
        adapter->per_layer += 2;
    }
    size_t rows = adapter->layers * adapter->per_layer;
    if (!(adapter->params = fm_calloc(rows, sizeof(*adapter->params))) ||
        !(adapter->names = fm_calloc(rows, sizeof(*adapter->names)))) {
        rc = fm_no_memory(err);
        goto out;
    }
    for (size_t l = 0; l < adapter->layers; l++) {
        layer_add(adapter, c, l);
    }
    if (!(adapter->data = adapter->be->ops->alloc(
              adapter->be, adapter->size * sizeof(float)))) {
        rc = fm_error_set(err, FM_ERR_NO_MEMORY,
                          "no memory for an adapter of %zu parameters",
                          adapter->size);
        goto out;
    }
    *adapter_out = adapter;
    adapter = NULL;
out:
    fm_engine_adapter_destroy(adapter);
    return rc;
}

fm_engine_adapter_t *fm_engine_adapter_destroy(fm_engine_adapter_t *adapter)
{
    if (adapter) {
        adapter->be->ops->release(adapter->be, adapter->data);
        free(adapter->params);
        free(adapter->names);
        free(adapter);
    }
    return NULL;
}

fm_status_t fm_engine_adapter_init(fm_engine_adapter_t *adapter, uint64_t seed,
                                   fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < adapter->param_count; i++) {
        const fm_engine_param_t *param = &adapter->params[i];
        float *host = fm_calloc(param->count, sizeof(*host));
        if (!host) {
            return fm_no_memory(err);
        }
        if (i % 2 == 0) { /* an A; each has a stream of its own */
            double bound = 1 / sqrt((double)param->shape[1]);
            fm_rng_t rng;
            fm_rng_init(&rng,
                        seed ^ fm_hash64(param->name, strlen(param->name)));
            for (size_t j = 0; j < param->count; j++) {
                host[j] = (float)(bound * (2 * fm_rng_uniform(&rng) - 1));
            }
        }
        rc = fm_engine_adapter_write(adapter, param->offset, param->count, host,
                                     err);
        free(host);
    }
    return rc;
}

/* --- reading ------------------------------------------------------------- */

fm_engine_lora_t fm_engine_adapter_lora(const fm_engine_adapter_t *adapter,
                                        size_t layer, fm_engine_target_t target)
{
    fm_engine_lora_t lora = {0};

    if (!adapter || (adapter->config.targets & (uint32_t)target) == 0) {
        return lora;
    }
    uint32_t before = adapter->config.targets & ((uint32_t)target - 1);
    size_t row = layer * adapter->per_layer;
    for (; before != 0; before &= before - 1) {
        row += 2;
    }
    lora.a = adapter->data + adapter->params[row].offset;
    lora.b = adapter->data + adapter->params[row + 1].offset;
    lora.rank = adapter->config.rank;
    lora.scale = (float)(adapter->config.alpha / (double)adapter->config.rank);
    return lora;
}

const fm_engine_adapter_config_t *
fm_engine_adapter_config(const fm_engine_adapter_t *adapter)
{
    return &adapter->config;
}

const fm_engine_param_t *
fm_engine_adapter_params(const fm_engine_adapter_t *adapter, size_t *count_out)
{
    *count_out = adapter->param_count;
    return adapter->params;
}

const fm_engine_param_t *
fm_engine_adapter_find(const fm_engine_adapter_t *adapter, const char *name)
{
    for (size_t i = 0; i < adapter->param_count; i++) {
        if (strcmp(adapter->params[i].name, name) == 0) {
            return &adapter->params[i];
        }
    }
    return NULL;
}

size_t fm_engine_adapter_size(const fm_engine_adapter_t *adapter)
{
    return adapter->size;
}

float *fm_engine_adapter_data(const fm_engine_adapter_t *adapter)
{
    return adapter->data;
}

static fm_status_t range_check(const fm_engine_adapter_t *adapter,
                               size_t offset, size_t count, fm_error_t *err)
{
    if (offset > adapter->size || count > adapter->size - offset) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "elements %zu+%zu are outside the adapter of %zu",
                            offset, count, adapter->size);
    }
    return FM_OK;
}

fm_status_t fm_engine_adapter_read(const fm_engine_adapter_t *adapter,
                                   size_t offset, size_t count, float *host,
                                   fm_error_t *err)
{
    fm_status_t rc = range_check(adapter, offset, count, err);

    if (rc < 0) {
        return rc;
    }
    adapter->be->ops->download(adapter->be, host, adapter->data + offset,
                               count * sizeof(float));
    return adapter->be->ops->sync(adapter->be, err);
}

fm_status_t fm_engine_adapter_write(fm_engine_adapter_t *adapter, size_t offset,
                                    size_t count, const float *host,
                                    fm_error_t *err)
{
    fm_status_t rc = range_check(adapter, offset, count, err);

    if (rc < 0) {
        return rc;
    }
    adapter->be->ops->upload(adapter->be, adapter->data + offset, host,
                             count * sizeof(float));
    return adapter->be->ops->sync(adapter->be, err);
}
