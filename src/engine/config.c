/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of a model: one table of keys, read, checked, written. */
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "engine/layout.h"
#include "engine/model.h"

struct count_key {
    const char *name;
    size_t offset; /* of the field in fm_engine_config_t */
    size_t min;
    size_t max;
    size_t fallback; /* 0: the key is required */
};

#define FIELD(field) #field, offsetof(fm_engine_config_t, field)

static const struct count_key count_keys[] = {
    {FIELD(vocab_size), 2, (size_t)1 << 20, 0},
    {FIELD(hidden_size), 2, 65536, 0},
    {FIELD(intermediate_size), 1, (size_t)1 << 20, 0},
    {FIELD(num_hidden_layers), 1, 1024, 0},
    {FIELD(num_attention_heads), 1, 1024, 0},
    {FIELD(num_key_value_heads), 1, 1024, SIZE_MAX}, /* as many as heads */
    {FIELD(max_position_embeddings), 1, (size_t)1 << 20, 2048},
};

struct real_key {
    const char *name;
    size_t offset;
    double min;
    double max;
    double fallback;
};

static const struct real_key real_keys[] = {
    {FIELD(rope_theta), 1, 1e9, 10000},
    {FIELD(rms_norm_eps), 1e-12, 0.1, 1e-6},
};

static size_t *count_at(fm_engine_config_t *config, const struct count_key *key)
{
    return (size_t *)(void *)((char *)config + key->offset);
}

static double *real_at(fm_engine_config_t *config, const struct real_key *key)
{
    return (double *)(void *)((char *)config + key->offset);
}

static fm_status_t count_check(const struct count_key *key, size_t *value,
                               fm_error_t *err)
{
    if (*value == 0 && key->fallback != 0) {
        *value = key->fallback;
    }
    bool open = *value == SIZE_MAX && key->fallback == SIZE_MAX;
    if (!open && (*value < key->min || *value > key->max)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config: %s: want an integer from %zu to %zu",
                            key->name, key->min, key->max);
    }
    return FM_OK;
}

static fm_status_t real_check(const struct real_key *key, double *value,
                              fm_error_t *err)
{
    if (*value == 0) {
        *value = key->fallback;
    }
    if (!(*value >= key->min && *value <= key->max)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config: %s: want a number from %g to %g",
                            key->name, key->min, key->max);
    }
    return FM_OK;
}

static fm_status_t heads_check(fm_engine_config_t *c, fm_error_t *err)
{
    if (c->num_key_value_heads == SIZE_MAX) {
        c->num_key_value_heads = c->num_attention_heads;
    }
    if (c->hidden_size % (2 * c->num_attention_heads) != 0) {
        return fm_error_set(
            err, FM_ERR_INVALID,
            "config: hidden_size: %zu is not a multiple of 2 x "
            "num_attention_heads (%zu): heads need an even, whole width",
            c->hidden_size, c->num_attention_heads);
    }
    if (c->num_attention_heads % c->num_key_value_heads != 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config: num_key_value_heads: %zu does not divide "
                            "num_attention_heads (%zu)",
                            c->num_key_value_heads, c->num_attention_heads);
    }
    return FM_OK;
}

fm_status_t fm_engine_config_check(fm_engine_config_t *config, fm_error_t *err)
{
    fm_engine_config_t c = *config;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < FM_COUNT_OF(count_keys); i++) {
        const struct count_key *key = &count_keys[i];
        if ((rc = count_check(key, count_at(&c, key), err)) < 0) {
            return rc;
        }
    }
    for (size_t i = 0; i < FM_COUNT_OF(real_keys); i++) {
        const struct real_key *key = &real_keys[i];
        if ((rc = real_check(key, real_at(&c, key), err)) < 0) {
            return rc;
        }
    }
    if ((rc = heads_check(&c, err)) < 0) {
        return rc;
    }
    if (fm_engine_config_param_count(&c) > FM_ENGINE_PARAM_LIMIT) {
        return fm_error_set(
            err, FM_ERR_LIMIT, "config: %zu parameters: the limit is %zu",
            fm_engine_config_param_count(&c), FM_ENGINE_PARAM_LIMIT);
    }
    *config = c;
    return FM_OK;
}

/* Keys that would change the arithmetic: only the value we compute passes. */
static fm_status_t foreign_check(const fm_json_t *json, fm_error_t *err)
{
    static const char *const off[] = {"attention_bias", "mlp_bias",
                                      "rope_scaling"};
    static const struct {
        const char *key;
        const char *value;
    } fixed[] = {{"hidden_act", "silu"}, {"model_type", "llama"}};

    for (size_t i = 0; i < FM_COUNT_OF(off); i++) {
        const fm_json_t *value = fm_json_get(json, off[i]);
        if (value && !fm_json_is(value, FM_JSON_NULL) &&
            !(fm_json_is(value, FM_JSON_BOOL) &&
              !fm_json_bool_or(value, true))) {
            return fm_error_set(err, FM_ERR_UNSUPPORTED,
                                "config: %s is not supported; want false, "
                                "null or no such key",
                                off[i]);
        }
    }
    for (size_t i = 0; i < FM_COUNT_OF(fixed); i++) {
        const fm_json_t *value = fm_json_get(json, fixed[i].key);
        const char *text = fm_json_str(value);
        if (value && (!text || strcmp(text, fixed[i].value) != 0)) {
            return fm_error_set(err, FM_ERR_UNSUPPORTED,
                                "config: %s: only \"%s\" is supported",
                                fixed[i].key, fixed[i].value);
        }
    }
    return FM_OK;
}

static fm_status_t counts_read(const fm_json_t *json, fm_engine_config_t *c,
                               fm_error_t *err)
{
    for (size_t i = 0; i < FM_COUNT_OF(count_keys); i++) {
        const struct count_key *key = &count_keys[i];
        const fm_json_t *value = fm_json_get(json, key->name);
        int64_t number = fm_json_int_or(value, -1);
        if (!value && key->fallback) {
            continue;
        }
        if (!fm_json_is(value, FM_JSON_INT) || number < (int64_t)key->min ||
            number > (int64_t)key->max) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "config: %s: %s; want an integer from %zu to "
                                "%zu",
                                key->name, value ? "bad value" : "missing",
                                key->min, key->max);
        }
        *count_at(c, key) = (size_t)number;
    }
    return FM_OK;
}

static fm_status_t reals_read(const fm_json_t *json, fm_engine_config_t *c,
                              fm_error_t *err)
{
    for (size_t i = 0; i < FM_COUNT_OF(real_keys); i++) {
        const struct real_key *key = &real_keys[i];
        const fm_json_t *value = fm_json_get(json, key->name);
        double number = fm_json_real_or(value, -1);
        if (!value) {
            continue;
        }
        if (!fm_json_is_number(value) ||
            !(number >= key->min && number <= key->max)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "config: %s: want a number from %g to %g",
                                key->name, key->min, key->max);
        }
        *real_at(c, key) = number;
    }
    return FM_OK;
}

fm_status_t fm_engine_config_parse(const fm_json_t *json,
                                   fm_engine_config_t *config_out,
                                   fm_error_t *err)
{
    fm_engine_config_t c = {0};
    const fm_json_t *tied = fm_json_get(json, "tie_word_embeddings");
    const fm_json_t *width = fm_json_get(json, "head_dim");
    fm_status_t rc = FM_OK;

    if (!fm_json_is(json, FM_JSON_OBJECT)) {
        return fm_error_set(err, FM_ERR_INVALID, "config: want an object");
    }
    if (tied && !fm_json_is(tied, FM_JSON_BOOL)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config: tie_word_embeddings: want true or false");
    }
    c.tie_word_embeddings = fm_json_bool_or(tied, false);
    if ((rc = foreign_check(json, err)) < 0 ||
        (rc = counts_read(json, &c, err)) < 0 ||
        (rc = reals_read(json, &c, err)) < 0 ||
        (rc = fm_engine_config_check(&c, err)) < 0) {
        return rc;
    }
    if (width && !fm_json_is(width, FM_JSON_NULL) &&
        fm_json_int_or(width, -1) !=
            (int64_t)(c.hidden_size / c.num_attention_heads)) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "config: head_dim: only hidden_size / "
                            "num_attention_heads (%zu) is supported",
                            c.hidden_size / c.num_attention_heads);
    }
    *config_out = c;
    return FM_OK;
}

fm_json_t *fm_engine_config_to_json(const fm_engine_config_t *config)
{
    fm_engine_config_t c = *config;
    fm_json_t *json = fm_json_object();
    bool good =
        json && fm_json_set(json, "model_type", fm_json_string("llama")) >= 0;

    for (size_t i = 0; good && i < FM_COUNT_OF(count_keys); i++) {
        good = fm_json_set(
                   json, count_keys[i].name,
                   fm_json_int((int64_t)*count_at(&c, &count_keys[i]))) >= 0;
    }
    for (size_t i = 0; good && i < FM_COUNT_OF(real_keys); i++) {
        good = fm_json_set(json, real_keys[i].name,
                           fm_json_real(*real_at(&c, &real_keys[i]))) >= 0;
    }
    good = good && fm_json_set(json, "tie_word_embeddings",
                               fm_json_bool(c.tie_word_embeddings)) >= 0;
    return good ? json : fm_json_drop(json);
}

size_t fm_engine_config_param_count(const fm_engine_config_t *config)
{
    return fm_engine_layout(config).size;
}
