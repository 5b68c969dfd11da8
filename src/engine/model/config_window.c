/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration of sliding windows: Mistral has one on every layer, Qwen
 * on those that layer_types or max_window_layers names, Llama on none.
 */
#include <string.h>

#include "base/mem.h"
#include "engine/model/config.h"

static const size_t window_absent = 4096;     /* Mistral and Qwen */
static const int64_t full_layers_absent = 28; /* max_window_layers */
static const char full[] = "full_attention";
static const char sliding[] = "sliding_attention";

static void bit_set(fm_engine_config_t *c, size_t layer)
{
    c->windowed[layer / 64] |= (uint64_t)1 << layer % 64;
}

static bool bit_get(const fm_engine_config_t *c, size_t layer)
{
    return c->windowed[layer / 64] >> layer % 64 & 1;
}

static bool any_windowed(const fm_engine_config_t *c)
{
    bool any = false;

    for (size_t l = 0; l < c->num_hidden_layers; l++) {
        any = any || bit_get(c, l);
    }
    return any;
}

static bool has_layer_windows(const fm_engine_config_t *c)
{
    return c->family == FM_ENGINE_QWEN2 || c->family == FM_ENGINE_QWEN3;
}

fm_status_t fm_engine_window_check(fm_engine_config_t *config, fm_error_t *err)
{
    bool all = !has_layer_windows(config) || !any_windowed(config);
    uint64_t keep[FM_COUNT_OF(config->windowed)];

    if (config->sliding_window > (size_t)1 << 30) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config: sliding_window: want an integer from 1 to "
                            "%d",
                            1 << 30);
    }
    if (config->sliding_window > 0 && config->family == FM_ENGINE_LLAMA) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config: sliding_window: a llama has none");
    }
    memcpy(keep, config->windowed, sizeof(keep));
    memset(config->windowed, 0, sizeof(config->windowed));
    for (size_t l = 0;
         config->sliding_window > 0 && l < config->num_hidden_layers; l++) {
        if (all || keep[l / 64] >> l % 64 & 1) {
            bit_set(config, l);
        }
    }
    return FM_OK;
}

/* @p *window_out: 0 for null. */
static fm_status_t window_read(const fm_json_t *json, size_t *window_out,
                               fm_error_t *err)
{
    const fm_json_t *value = fm_json_get(json, "sliding_window");
    int64_t number = fm_json_int_or(value, -1);

    if (!value || fm_json_is(value, FM_JSON_NULL)) {
        *window_out = value ? 0 : window_absent;
        return FM_OK;
    }
    if (number < 1 || number > 1 << 30) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config: sliding_window: want null or an integer "
                            "from 1 to %d",
                            1 << 30);
    }
    *window_out = (size_t)number;
    return FM_OK;
}

/* Which layers have a window, by layer_types. */
static fm_status_t types_read(const fm_json_t *types, fm_engine_config_t *c,
                              fm_error_t *err)
{
    if (!fm_json_is(types, FM_JSON_ARRAY) ||
        fm_json_len(types) != c->num_hidden_layers) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config: layer_types: want a list of %zu texts, "
                            "one a layer",
                            c->num_hidden_layers);
    }
    for (size_t l = 0; l < c->num_hidden_layers; l++) {
        const char *type = fm_json_str(fm_json_at(types, l));
        if (!type || (strcmp(type, full) != 0 && strcmp(type, sliding) != 0)) {
            return fm_error_set(err, FM_ERR_UNSUPPORTED,
                                "config: layer_types: layer %zu: only \"%s\" "
                                "and \"%s\" are supported",
                                l, full, sliding);
        }
        if (strcmp(type, sliding) == 0) {
            bit_set(c, l);
        }
    }
    return FM_OK;
}

/* Llama and Mistral have no layer_types: one that says otherwise is a model
 * we do not know. */
static fm_status_t types_match(const fm_json_t *types,
                               const fm_engine_config_t *c, fm_error_t *err)
{
    fm_engine_config_t said = {.num_hidden_layers = c->num_hidden_layers};
    fm_status_t rc = types_read(types, &said, err);

    for (size_t l = 0; rc >= 0 && l < c->num_hidden_layers; l++) {
        if (bit_get(&said, l) != (c->sliding_window > 0)) {
            rc = fm_error_set(err, FM_ERR_UNSUPPORTED,
                              "config: layer_types: layer %zu differs from "
                              "what all layers of this model_type are",
                              l);
        }
    }
    return rc;
}

static fm_status_t layers_read(const fm_json_t *json, const fm_json_t *types,
                               fm_engine_config_t *c, fm_error_t *err)
{
    int64_t first =
        fm_json_get_int(json, "max_window_layers", full_layers_absent);
    fm_status_t rc = types ? types_read(types, c, err) : FM_OK;

    for (size_t l = 0; !types && l < c->num_hidden_layers; l++) {
        if (c->sliding_window > 0 && (int64_t)l >= first) {
            bit_set(c, l);
        }
    }
    if (rc >= 0 && any_windowed(c) && c->sliding_window == 0) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "config: layer_types: \"%s\" without "
                          "use_sliding_window and sliding_window",
                          sliding);
    }
    if (!any_windowed(c)) {
        c->sliding_window = 0; /* for no layer: none */
    }
    return rc;
}

fm_status_t fm_engine_window_parse(const fm_json_t *json,
                                   fm_engine_config_t *config, fm_error_t *err)
{
    const fm_json_t *types = fm_json_get(json, "layer_types");
    bool layered = has_layer_windows(config);
    bool wanted = layered ? fm_json_get_bool(json, "use_sliding_window", false)
                          : config->family == FM_ENGINE_MISTRAL;
    fm_status_t rc = FM_OK;

    if (fm_json_is(types, FM_JSON_NULL)) {
        types = NULL;
    }
    if (wanted && (rc = window_read(json, &config->sliding_window, err)) < 0) {
        return rc;
    }
    if (layered) {
        return layers_read(json, types, config, err);
    }
    return types ? types_match(types, config, err) : FM_OK;
}

static fm_json_t *types_list(const fm_engine_config_t *c, size_t *first_out)
{
    fm_json_t *types = fm_json_array();

    *first_out = c->num_hidden_layers;
    for (size_t l = 0; types && l < c->num_hidden_layers; l++) {
        bool windowed = bit_get(c, l);
        if (windowed && *first_out == c->num_hidden_layers) {
            *first_out = l;
        }
        if (fm_json_append(types, fm_json_string(windowed ? sliding : full)) <
            0) {
            return fm_json_drop(types);
        }
    }
    return types;
}

fm_status_t fm_engine_window_write(const fm_engine_config_t *config,
                                   fm_json_t *json)
{
    bool windowed = config->sliding_window > 0;
    fm_status_t rc = FM_OK;

    if (config->family == FM_ENGINE_LLAMA) {
        return FM_OK;
    }
    fm_json_t *window = windowed ? fm_json_int((int64_t)config->sliding_window)
                                 : fm_json_null();
    if ((rc = fm_json_set(json, "sliding_window", window)) < 0 ||
        !has_layer_windows(config)) {
        return rc;
    }
    size_t first = 0;
    fm_json_t *types = types_list(config, &first);
    if ((rc = fm_json_set(json, "layer_types", types)) < 0 ||
        (rc = fm_json_set(json, "max_window_layers",
                          fm_json_int((int64_t)first))) < 0) {
        return rc;
    }
    return fm_json_set(json, "use_sliding_window", fm_json_bool(windowed));
}
