/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration of rotations.  Before version 5 of transformers this was
 * rope_theta and rope_scaling side by side, since then it is rope_parameters
 * with the theta inside; both are read, the older form, which every version
 * reads, is written.
 */
#include <string.h>

#include "base/mem.h"
#include "engine/model/config.h"

static const char *const type_names[] = {
    [FM_ENGINE_ROPE_DEFAULT] = "default",
    [FM_ENGINE_ROPE_LINEAR] = "linear",
    [FM_ENGINE_ROPE_LLAMA3] = "llama3",
};

fm_status_t fm_engine_rope_check(fm_engine_config_t *config, fm_error_t *err)
{
    fm_engine_rope_scaling_t *s = &config->rope_scaling;

    if (s->type == FM_ENGINE_ROPE_DEFAULT) {
        *s = (fm_engine_rope_scaling_t){0};
        return FM_OK;
    }
    if (!(s->factor >= 1 && s->factor <= 1e6)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config: rope_scaling.factor: want a number from "
                            "1 to 1e6");
    }
    if (s->type != FM_ENGINE_ROPE_LLAMA3) {
        return FM_OK;
    }
    if (s->original_max_position_embeddings == 0) {
        s->original_max_position_embeddings = config->max_position_embeddings;
    }
    if (!(s->low_freq_factor > 0 && s->low_freq_factor <= 1e6) ||
        !(s->high_freq_factor > s->low_freq_factor &&
          s->high_freq_factor <= 1e6)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config: rope_scaling: want 0 < low_freq_factor < "
                            "high_freq_factor <= 1e6");
    }
    if (s->original_max_position_embeddings > (size_t)1 << 22) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config: rope_scaling."
                            "original_max_position_embeddings: want an integer "
                            "from 1 to %d",
                            1 << 22);
    }
    return FM_OK;
}

static fm_status_t type_read(const fm_json_t *scaling, const char *name,
                             fm_engine_rope_type_t *type_out, fm_error_t *err)
{
    const fm_json_t *value = fm_json_get(scaling, "rope_type");
    value = value ? value : fm_json_get(scaling, "type");
    const char *text = value ? fm_json_str(value) : "default";

    for (size_t i = 0; text && i < FM_COUNT_OF(type_names); i++) {
        if (strcmp(text, type_names[i]) == 0) {
            *type_out = (fm_engine_rope_type_t)i;
            return FM_OK;
        }
    }
    return fm_error_set(err, FM_ERR_UNSUPPORTED,
                        "config: %s: rope_type \"%s\" is not supported; want "
                        "default, linear or llama3",
                        name, text ? text : "(not a text)");
}

/* One dictionary a kind of layer is a model of another family. */
static fm_status_t nesting_check(const fm_json_t *scaling, const char *name,
                                 fm_error_t *err)
{
    static const char *const kinds[] = {"full_attention", "sliding_attention"};

    for (size_t i = 0; i < FM_COUNT_OF(kinds); i++) {
        if (fm_json_get(scaling, kinds[i])) {
            return fm_error_set(err, FM_ERR_UNSUPPORTED,
                                "config: %s.%s: only one rotation for all "
                                "layers is supported",
                                name, kinds[i]);
        }
    }
    if (fm_json_get_real(scaling, "partial_rotary_factor", 1) != 1) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "config: %s.partial_rotary_factor: only 1 is "
                            "supported",
                            name);
    }
    return FM_OK;
}

/* The position count may stand beside the dictionary, and then it counts. */
static fm_status_t original_read(const fm_json_t *json,
                                 const fm_json_t *scaling,
                                 fm_engine_rope_scaling_t *s, fm_error_t *err)
{
    static const char key[] = "original_max_position_embeddings";
    const fm_json_t *value = fm_json_get(json, key);

    value = value ? value : fm_json_get(scaling, key);
    if (!value || fm_json_is(value, FM_JSON_NULL)) {
        return FM_OK;
    }
    int64_t number = fm_json_int_or(value, 0);
    if (number < 1) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config: %s: want an integer from 1 to %d", key,
                            1 << 22);
    }
    s->original_max_position_embeddings = (size_t)number;
    return FM_OK;
}

static fm_status_t scaling_read(const fm_json_t *json, const fm_json_t *scaling,
                                const char *name, fm_engine_config_t *config,
                                fm_error_t *err)
{
    fm_engine_rope_scaling_t *s = &config->rope_scaling;
    const fm_json_t *theta = fm_json_get(scaling, "rope_theta");
    fm_status_t rc = FM_OK;

    if ((rc = type_read(scaling, name, &s->type, err)) < 0 ||
        (rc = nesting_check(scaling, name, err)) < 0) {
        return rc;
    }
    if (theta) {
        double number = fm_json_real_or(theta, -1);
        config->rope_theta = number > 0 ? number : -1; /* refused by range */
    }
    if (s->type == FM_ENGINE_ROPE_DEFAULT) {
        return FM_OK;
    }
    s->factor = fm_json_get_real(scaling, "factor", -1);
    s->low_freq_factor = fm_json_get_real(scaling, "low_freq_factor", -1);
    s->high_freq_factor = fm_json_get_real(scaling, "high_freq_factor", -1);
    return original_read(json, scaling, s, err);
}

fm_status_t fm_engine_rope_parse(const fm_json_t *json,
                                 fm_engine_config_t *config, fm_error_t *err)
{
    static const char *const names[] = {"rope_scaling", "rope_parameters"};

    for (size_t i = 0; i < FM_COUNT_OF(names); i++) {
        const fm_json_t *scaling = fm_json_get(json, names[i]);
        if (fm_json_is(scaling, FM_JSON_OBJECT) && fm_json_len(scaling) > 0) {
            return scaling_read(json, scaling, names[i], config, err);
        }
        if (scaling && !fm_json_is(scaling, FM_JSON_OBJECT) &&
            !fm_json_is(scaling, FM_JSON_NULL)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "config: %s: want an object or null", names[i]);
        }
    }
    return FM_OK;
}

fm_status_t fm_engine_rope_write(const fm_engine_config_t *config,
                                 fm_json_t *json)
{
    const fm_engine_rope_scaling_t *s = &config->rope_scaling;
    fm_json_t *scaling = NULL;
    bool good = true;

    if (s->type == FM_ENGINE_ROPE_DEFAULT) {
        return FM_OK;
    }
    good = (scaling = fm_json_object()) &&
           fm_json_set(scaling, "rope_type",
                       fm_json_string(type_names[s->type])) >= 0 &&
           fm_json_set(scaling, "factor", fm_json_real(s->factor)) >= 0;
    if (good && s->type == FM_ENGINE_ROPE_LLAMA3) {
        good =
            fm_json_set(scaling, "low_freq_factor",
                        fm_json_real(s->low_freq_factor)) >= 0 &&
            fm_json_set(scaling, "high_freq_factor",
                        fm_json_real(s->high_freq_factor)) >= 0 &&
            fm_json_set(
                scaling, "original_max_position_embeddings",
                fm_json_int((int64_t)s->original_max_position_embeddings)) >= 0;
    }
    if (!good) {
        fm_json_drop(scaling);
        return FM_ERR_NO_MEMORY;
    }
    return fm_json_set(json, "rope_scaling", scaling);
}
