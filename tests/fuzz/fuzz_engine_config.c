/* SPDX-License-Identifier: Apache-2.0 */
/* A model's configuration: what is accepted is within its limits, and what is
 * written of it says the same. */
#include "fuzz.h"

#include <math.h>
#include <stdlib.h>

#include "engine/model/layout.h"
#include "engine/model/model.h"

static void check_arithmetic(const fm_engine_config_t *c)
{
    size_t params = fm_engine_config_param_count(c);

    if (params == 0 || params > FM_ENGINE_PARAM_LIMIT || c->head_dim % 2 != 0 ||
        c->num_attention_heads % c->num_key_value_heads != 0) {
        abort();
    }
    for (size_t l = 0; l < c->num_hidden_layers; l++) {
        size_t window = fm_engine_layer_heads(c, l).window;
        if (window != 0 && window != c->sliding_window) {
            abort();
        }
    }
    for (size_t i = 0; i < c->head_dim / 2; i++) {
        double rate = fm_engine_rope_rate(c, i);
        if (!(rate > 0 && rate <= 1)) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fm_engine_config_t config;
    fm_engine_config_t again;
    fm_error_t err = {0};
    fm_json_t *json = NULL;

    if (fm_json_parse((const char *)data, size, "input", &json, &err) < 0) {
        return 0;
    }
    if (fm_engine_config_parse(json, &config, &err) < 0) {
        if (err.text[0] == '\0') {
            abort(); /* a refusal says why */
        }
        fm_json_drop(json);
        return 0;
    }
    check_arithmetic(&config);
    fm_json_t *written = fm_engine_config_to_json(&config);
    if (!written || fm_engine_config_parse(written, &again, &err) < 0) {
        abort();
    }
    fm_json_t *twice = fm_engine_config_to_json(&again);
    if (!twice || !fm_json_equal(written, twice) ||
        fm_engine_config_param_count(&config) !=
            fm_engine_config_param_count(&again)) {
        abort();
    }
    fm_json_drop(json);
    fm_json_drop(written);
    fm_json_drop(twice);
    return 0;
}
