/* SPDX-License-Identifier: Apache-2.0 */
/* An adapter's configuration: what is accepted makes an adapter, and what is
 * written of it says the same. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "engine/model/adapter.h"

static const fm_engine_config_t shape = {.vocab_size = 8,
                                         .hidden_size = 4,
                                         .intermediate_size = 6,
                                         .num_hidden_layers = 1,
                                         .num_attention_heads = 2,
                                         .num_key_value_heads = 1,
                                         .max_position_embeddings = 8};

static void check_adapter(const fm_engine_adapter_config_t *config)
{
    fm_engine_backend_t *be = NULL;
    fm_engine_model_t *model = NULL;
    fm_engine_adapter_t *adapter = NULL;
    fm_error_t err = {0};
    size_t count = 0;

    if (fm_engine_backend_create_cpu(&be, &err) < 0 ||
        fm_engine_model_create(&shape, be, &model, &err) < 0 ||
        fm_engine_adapter_create(config, model, &adapter, &err) < 0) {
        abort();
    }
    (void)fm_engine_adapter_params(adapter, &count);
    if (count == 0 || fm_engine_adapter_size(adapter) < 2 * config->rank) {
        abort();
    }
    fm_engine_adapter_destroy(adapter);
    fm_engine_model_destroy(model);
    fm_engine_backend_destroy(be);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fm_engine_adapter_config_t config;
    fm_engine_adapter_config_t again;
    fm_error_t err = {0};
    fm_json_t *json = NULL;

    if (fm_json_parse((const char *)data, size, "input", &json, &err) < 0) {
        return 0;
    }
    if (fm_engine_adapter_config_parse(json, &config, &err) < 0) {
        if (err.text[0] == '\0') {
            abort(); /* a refusal says why */
        }
        fm_json_drop(json);
        return 0;
    }
    check_adapter(&config);
    fm_json_t *written = fm_engine_adapter_config_to_json(&config);
    if (!written || fm_engine_adapter_config_parse(written, &again, &err) < 0 ||
        again.rank != config.rank || again.alpha != config.alpha ||
        again.dropout != config.dropout || again.targets != config.targets) {
        abort();
    }
    fm_json_drop(written);
    fm_json_drop(json);
    return 0;
}
