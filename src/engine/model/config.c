/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration of a model: one table of families, one of keys; read,
 * checked, written.  What an absent key means is what Hugging Face's class of
 * that model_type says.
 */
#include "engine/model/config.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "engine/model/layout.h"

struct family {
    const char *model_type;
    size_t kv_heads; /* when absent; 0: as many as heads */
    size_t head_dim; /* when absent; 0: hidden_size / heads */
    size_t positions;
    bool attention_bias; /* has the key */
    bool mlp_bias;
};

static const struct family families[] = {
    [FM_ENGINE_LLAMA] = {.model_type = "llama",
                         .positions = 2048,
                         .attention_bias = true,
                         .mlp_bias = true},
    [FM_ENGINE_MISTRAL] = {.model_type = "mistral",
                           .kv_heads = 8,
                           .positions = 131072},
    [FM_ENGINE_QWEN2] = {.model_type = "qwen2",
                         .kv_heads = 32,
                         .positions = 32768},
    [FM_ENGINE_QWEN3] = {.model_type = "qwen3",
                         .kv_heads = 32,
                         .head_dim = 128,
                         .positions = 32768,
                         .attention_bias = true},
};

struct count_key {
    const char *name;
    size_t offset; /* of the field in fm_engine_config_t */
    size_t min;
    size_t max;
    bool required;
};

#define FIELD(field) #field, offsetof(fm_engine_config_t, field)

static const struct count_key count_keys[] = {
    {FIELD(vocab_size), 2, (size_t)1 << 20, true},
    {FIELD(hidden_size), 2, 65536, true},
    {FIELD(intermediate_size), 1, (size_t)1 << 20, true},
    {FIELD(num_hidden_layers), 1, FM_ENGINE_LAYER_LIMIT, true},
    {FIELD(num_attention_heads), 1, 1024, true},
    {FIELD(num_key_value_heads), 1, 1024, false},
    {FIELD(head_dim), 2, 1024, false},
    {FIELD(max_position_embeddings), 1, (size_t)1 << 22, false},
};

struct real_key {
    const char *name;
    size_t offset;
    double min;
    double max;
    double absent;
};

static const struct real_key real_keys[] = {
    {FIELD(rope_theta), 1, 1e12, 10000},
    {FIELD(rms_norm_eps), 1e-12, 0.1, 1e-6},
    {FIELD(initializer_range), 1e-9, 1, 0.02},
};

struct flag_key {
    const char *name;
    size_t offset;
};

static const struct flag_key flag_keys[] = {
    {FIELD(tie_word_embeddings)},
    {FIELD(attention_bias)},
    {FIELD(mlp_bias)},
};

static void *field_at(fm_engine_config_t *config, size_t offset)
{
    return (char *)config + offset;
}

static size_t *count_at(fm_engine_config_t *config, const struct count_key *key)
{
    return field_at(config, key->offset);
}

static double *real_at(fm_engine_config_t *config, const struct real_key *key)
{
    return field_at(config, key->offset);
}

static bool *flag_at(fm_engine_config_t *config, const struct flag_key *key)
{
    return field_at(config, key->offset);
}

/* --- check -------------------------------------------------------------- */

static fm_status_t counts_check(fm_engine_config_t *c, fm_error_t *err)
{
    for (size_t i = 0; i < FM_COUNT_OF(count_keys); i++) {
        const struct count_key *key = &count_keys[i];
        size_t value = *count_at(c, key);
        if (value < key->min || value > key->max) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "config: %s: want an integer from %zu to %zu",
                                key->name, key->min, key->max);
        }
    }
    return FM_OK;
}

static fm_status_t reals_check(fm_engine_config_t *c, fm_error_t *err)
{
    for (size_t i = 0; i < FM_COUNT_OF(real_keys); i++) {
        const struct real_key *key = &real_keys[i];
        double *value = real_at(c, key);
        if (*value == 0) {
            *value = key->absent;
        }
        if (!(*value >= key->min && *value <= key->max)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "config: %s: want a number from %g to %g",
                                key->name, key->min, key->max);
        }
    }
    return FM_OK;
}

/* What is absent becomes what the family makes of that. */
static fm_status_t absent_fill(fm_engine_config_t *c, fm_error_t *err)
{
    const struct family *family = &families[c->family];
    bool even = c->num_attention_heads > 0 &&
                c->hidden_size % (2 * c->num_attention_heads) == 0;

    if (c->num_key_value_heads == 0) {
        c->num_key_value_heads =
            family->kv_heads ? family->kv_heads : c->num_attention_heads;
    }
    if (c->max_position_embeddings == 0) {
        c->max_position_embeddings = family->positions;
    }
    if (c->head_dim == 0 && family->head_dim == 0 && !even) {
        return fm_error_set(
            err, FM_ERR_INVALID,
            "config: hidden_size: %zu is not a multiple of 2 x "
            "num_attention_heads (%zu): heads need an even, whole width",
            c->hidden_size, c->num_attention_heads);
    }
    if (c->head_dim == 0) {
        c->head_dim = family->head_dim
                          ? family->head_dim
                          : c->hidden_size / c->num_attention_heads;
    }
    return FM_OK;
}

static fm_status_t heads_check(const fm_engine_config_t *c, fm_error_t *err)
{
    if (c->head_dim % 2 != 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config: head_dim: %zu is odd: rotations turn "
                            "pairs",
                            c->head_dim);
    }
    if (c->num_attention_heads % c->num_key_value_heads != 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config: num_key_value_heads: %zu does not divide "
                            "num_attention_heads (%zu)",
                            c->num_key_value_heads, c->num_attention_heads);
    }
    return FM_OK;
}

static fm_status_t biases_check(const fm_engine_config_t *c, fm_error_t *err)
{
    const struct family *family = &families[c->family];
    bool attention = c->attention_bias && !family->attention_bias;

    if (attention || (c->mlp_bias && !family->mlp_bias)) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "config: %s: a %s has no such key; want false or "
                            "no such key",
                            attention ? "attention_bias" : "mlp_bias",
                            family->model_type);
    }
    return FM_OK;
}

fm_status_t fm_engine_config_check(fm_engine_config_t *config, fm_error_t *err)
{
    fm_engine_config_t c = *config;
    fm_status_t rc = FM_OK;

    if ((size_t)c.family >= FM_COUNT_OF(families)) {
        return fm_error_set(err, FM_ERR_INVALID, "config: unknown family %d",
                            (int)c.family);
    }
    if ((rc = absent_fill(&c, err)) < 0 || (rc = counts_check(&c, err)) < 0 ||
        (rc = reals_check(&c, err)) < 0 || (rc = heads_check(&c, err)) < 0 ||
        (rc = biases_check(&c, err)) < 0 ||
        (rc = fm_engine_rope_check(&c, err)) < 0 ||
        (rc = fm_engine_window_check(&c, err)) < 0) {
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

size_t fm_engine_config_param_count(const fm_engine_config_t *config)
{
    return fm_engine_layout(config).size;
}

/* --- read --------------------------------------------------------------- */

static fm_status_t family_read(const fm_json_t *json, fm_engine_config_t *c,
                               fm_error_t *err)
{
    const fm_json_t *value = fm_json_get(json, "model_type");
    const char *text = value ? fm_json_str(value) : "llama";

    for (size_t i = 0; text && i < FM_COUNT_OF(families); i++) {
        if (strcmp(text, families[i].model_type) == 0) {
            c->family = (fm_engine_family_t)i;
            return FM_OK;
        }
    }
    return fm_error_set(err, FM_ERR_UNSUPPORTED,
                        "config: model_type: \"%s\" is not supported; want "
                        "\"llama\", \"mistral\", \"qwen2\" or \"qwen3\"",
                        text ? text : "(not a text)");
}

/* Keys that would change the arithmetic: only the value we compute passes. */
static fm_status_t foreign_check(const fm_json_t *json, fm_error_t *err)
{
    static const struct {
        const char *key;
        double value;
    } numbers[] = {{"attention_dropout", 0}, {"partial_rotary_factor", 1}};
    static const char *const off[] = {"quantization_config", "use_mrope"};
    const fm_json_t *act = fm_json_get(json, "hidden_act");

    if (act && (!fm_json_str(act) || strcmp(fm_json_str(act), "silu") != 0)) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "config: hidden_act: only \"silu\" is supported");
    }
    for (size_t i = 0; i < FM_COUNT_OF(numbers); i++) {
        const fm_json_t *value = fm_json_get(json, numbers[i].key);
        if (value && !fm_json_is(value, FM_JSON_NULL) &&
            fm_json_real_or(value, -1) != numbers[i].value) {
            return fm_error_set(err, FM_ERR_UNSUPPORTED,
                                "config: %s: only %g is supported",
                                numbers[i].key, numbers[i].value);
        }
    }
    for (size_t i = 0; i < FM_COUNT_OF(off); i++) {
        const fm_json_t *value = fm_json_get(json, off[i]);
        if (value && !fm_json_is(value, FM_JSON_NULL) &&
            !(fm_json_is(value, FM_JSON_BOOL) &&
              !fm_json_bool_or(value, true))) {
            return fm_error_set(err, FM_ERR_UNSUPPORTED,
                                "config: %s is not supported; want no such key",
                                off[i]);
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
        if (!key->required && (!value || fm_json_is(value, FM_JSON_NULL))) {
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
    /* null is not absent: it is what Llama makes of absent */
    if (fm_json_is(fm_json_get(json, "num_key_value_heads"), FM_JSON_NULL)) {
        c->num_key_value_heads = c->num_attention_heads;
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

static fm_status_t flags_read(const fm_json_t *json, fm_engine_config_t *c,
                              fm_error_t *err)
{
    for (size_t i = 0; i < FM_COUNT_OF(flag_keys); i++) {
        const struct flag_key *key = &flag_keys[i];
        const fm_json_t *value = fm_json_get(json, key->name);
        if (value && !fm_json_is(value, FM_JSON_BOOL) &&
            !fm_json_is(value, FM_JSON_NULL)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "config: %s: want true or false", key->name);
        }
        *flag_at(c, key) = fm_json_bool_or(value, false);
    }
    return FM_OK;
}

fm_status_t fm_engine_config_parse(const fm_json_t *json,
                                   fm_engine_config_t *config_out,
                                   fm_error_t *err)
{
    fm_engine_config_t c = {0};
    fm_status_t rc = FM_OK;

    if (!fm_json_is(json, FM_JSON_OBJECT)) {
        return fm_error_set(err, FM_ERR_INVALID, "config: want an object");
    }
    if ((rc = family_read(json, &c, err)) < 0 ||
        (rc = foreign_check(json, err)) < 0 ||
        (rc = counts_read(json, &c, err)) < 0 ||
        (rc = reals_read(json, &c, err)) < 0 ||
        (rc = flags_read(json, &c, err)) < 0 ||
        (rc = fm_engine_rope_parse(json, &c, err)) < 0 ||
        (rc = fm_engine_window_parse(json, &c, err)) < 0 ||
        (rc = fm_engine_config_check(&c, err)) < 0) {
        return rc;
    }
    *config_out = c;
    return FM_OK;
}

/* --- write -------------------------------------------------------------- */

static bool plain_write(fm_engine_config_t *c, fm_json_t *json)
{
    bool good = true;

    for (size_t i = 0; good && i < FM_COUNT_OF(count_keys); i++) {
        good = fm_json_set(
                   json, count_keys[i].name,
                   fm_json_int((int64_t)*count_at(c, &count_keys[i]))) >= 0;
    }
    for (size_t i = 0; good && i < FM_COUNT_OF(real_keys); i++) {
        good = fm_json_set(json, real_keys[i].name,
                           fm_json_real(*real_at(c, &real_keys[i]))) >= 0;
    }
    for (size_t i = 0; good && i < FM_COUNT_OF(flag_keys); i++) {
        const struct family *family = &families[c->family];
        size_t at = flag_keys[i].offset;
        bool known =
            (at != offsetof(fm_engine_config_t, attention_bias) ||
             family->attention_bias) &&
            (at != offsetof(fm_engine_config_t, mlp_bias) || family->mlp_bias);
        good = !known ||
               fm_json_set(json, flag_keys[i].name,
                           fm_json_bool(*flag_at(c, &flag_keys[i]))) >= 0;
    }
    return good;
}

fm_json_t *fm_engine_config_to_json(const fm_engine_config_t *config)
{
    fm_engine_config_t c = *config;
    fm_json_t *json = fm_json_object();
    bool good =
        json &&
        fm_json_set(json, "model_type",
                    fm_json_string(families[c.family].model_type)) >= 0 &&
        fm_json_set(json, "hidden_act", fm_json_string("silu")) >= 0 &&
        plain_write(&c, json) && fm_engine_rope_write(&c, json) >= 0 &&
        fm_engine_window_write(&c, json) >= 0;

    return good ? json : fm_json_drop(json);
}
