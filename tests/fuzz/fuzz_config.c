/* SPDX-License-Identifier: Apache-2.0 */
/* The fabric's configuration: what is accepted is within its bounds, and what
 * is written of it parses and says the same; what is refused says why. */
#include "fuzz.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/config/config.h"

static void check_sites(const fm_config_t *config)
{
    const fm_config_device_t device = {.kind = "gpu",
                                       .name = "NVIDIA H100 PCIe",
                                       .host = "n1",
                                       .worker = "w1"};
    fm_config_worker_t out;

    fm_config_worker(config, &device, &out);
    for (size_t i = 0; i < config->class_count; i++) {
        const fm_config_class_t *c = &config->classes[i];
        fm_config_class_site(config, c, &out);
        if (!c->name || !*out.name || !isfinite(out.price_per_hour) ||
            out.price_per_hour < 0 || out.watts < out.idle_watts ||
            c->min > c->max || !(c->startup_s >= 0)) {
            abort();
        }
    }
    for (size_t i = 0; i < config->tenant_count; i++) {
        if (!config->tenants[i].name ||
            !(config->tenants[i].config.weight >= 0)) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fm_config_t *config = NULL;
    fm_config_t *again = NULL;
    fm_error_t err = {0};

    if (fm_config_parse((const char *)data, size, "fuzz", &config, &err) < 0) {
        if (err.text[0] == '\0' || config) {
            abort();
        }
        return 0;
    }
    check_sites(config);
    fm_json_t *json = fm_config_to_json(config);
    char *text = json ? fm_json_canonical(json) : NULL;
    if (!text ||
        fm_config_parse(text, strlen(text), "again", &again, &err) < 0) {
        abort();
    }
    fm_json_t *twice = fm_config_to_json(again);
    if (!twice || !fm_json_equal(json, twice)) {
        abort();
    }
    fm_json_drop(json);
    fm_json_drop(twice);
    free(text);
    fm_config_destroy(config);
    fm_config_destroy(again);
    return 0;
}
