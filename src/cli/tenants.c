/* SPDX-License-Identifier: Apache-2.0 */
/* flowmesh tenants: who used what, and what they may use. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "role/control/explain.h"
#include "role/launch/launch.h"

static const fm_cli_option_t options[] = {
    {"fabric", "DIR", "the fabric; default $FLOWMESH_FABRIC, else the latest"},
    {"config", "FILE",
     "weights and quotas; default $FLOWMESH_CONFIG, else DIR/fabric.yaml"},
    {"json", NULL, "accounts, weights and quotas as JSON"},
};

int fm_cli_quotas(const fm_cli_args_t *args, const fm_cli_command_t *command,
                  fm_fabric_t *fabric)
{
    fm_tenants_t *tenants = fm_pool_tenants(fm_state_pool(fabric->state));
    fm_config_t *config = NULL;
    fm_error_t err = {0};
    fm_status_t rc = fm_launch_config(fm_cli_option(args, command, "config"),
                                      fabric->dir, &config, &err);

    for (size_t i = 0; rc >= 0 && i < config->tenant_count; i++) {
        rc = fm_tenants_configure(tenants, config->tenants[i].name,
                                  &config->tenants[i].config, &err);
    }
    fm_config_destroy(config);
    return rc < 0 ? fm_cli_fail(FM_EXIT_USAGE, "%s", err.text) : FM_EXIT_OK;
}

/* "12/40", or "12" without a quota. */
static const char *quota(char text[32], double used, double most)
{
    if (most > 0) {
        (void)snprintf(text, 32, "%.4g/%.4g", used, most);
    } else {
        (void)snprintf(text, 32, "%.4g", used);
    }
    return text;
}

static int print_table(const fm_json_t *list)
{
    char queued[32], devices[32], dollars[32];
    int width = 6;

    for (size_t i = 0; i < fm_json_len(list); i++) {
        int len = (int)strlen(fm_json_get_str(fm_json_at(list, i), "tenant"));
        width = len > width ? len : width;
    }
    (void)printf("%-*s %7s %9s %9s %12s %12s %10s %8s %8s\n", width, "tenant",
                 "weight", "queued", "devices", "device-s", "dollars", "joules",
                 "ran", "shared");
    for (size_t i = 0; i < fm_json_len(list); i++) {
        const fm_json_t *one = fm_json_at(list, i);
        (void)printf(
            "%-*s %7.4g %9s %9s %12.1f %12s %10.4g %8" PRId64 " %8" PRId64 "\n",
            width, fm_json_get_str(one, "tenant"),
            fm_json_get_real(one, "weight", 1),
            quota(queued, fm_json_get_real(one, "queued", 0),
                  fm_json_get_real(one, "queued_max", 0)),
            quota(devices, fm_json_get_real(one, "devices", 0),
                  fm_json_get_real(one, "devices_max", 0)),
            fm_json_get_real(one, "device_seconds", 0),
            quota(dollars, fm_json_get_real(one, "dollars", 0),
                  fm_json_get_real(one, "dollars_max", 0)),
            fm_json_get_real(one, "joules", 0), fm_json_get_int(one, "ran", 0),
            fm_json_get_int(one, "shared", 0));
    }
    return FM_EXIT_OK;
}

static int tenants(const fm_cli_args_t *args)
{
    fm_fabric_t *fabric = NULL;
    fm_json_t *list = NULL;
    fm_error_t err = {0};
    int status = fm_cli_open_fabric(args, &fm_cli_tenants, &fabric);

    if (status == FM_EXIT_OK) {
        status = fm_cli_quotas(args, &fm_cli_tenants, fabric);
    }
    if (status == FM_EXIT_OK && fm_explain_tenants(fabric, &list, &err) < 0) {
        status = fm_cli_fail(FM_EXIT_FAILED, "%s", err.text);
    }
    if (status == FM_EXIT_OK) {
        status = fm_cli_option(args, &fm_cli_tenants, "json")
                     ? fm_cli_print_json(list)
                     : print_table(list);
    }
    fm_json_drop(list);
    fm_fabric_close(fabric);
    return status;
}

const fm_cli_command_t fm_cli_tenants = {
    .name = "tenants",
    .operands = "",
    .operand_min = 0,
    .operand_max = 0,
    .summary = "say what each tenant has used, and its weight and quotas",
    .text = "Print the account of every tenant: items not settled, devices at "
            "work, device-seconds, dollars and joules paid, items that ran for "
            "it and items whose result it shared.  Where there is a quota, it "
            "stands behind the figure.  What several tenants wanted is charged "
            "to them in equal parts.",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .run = tenants,
};
