/* SPDX-License-Identifier: Apache-2.0 */
/* flowmesh devices: the catalogue of devices, and the configuration that a
 * fabric would run with. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "role/launch/launch.h"

static const fm_cli_option_t options[] = {
    {"config", "FILE",
     "the configuration; default $FLOWMESH_CONFIG, else DIR/fabric.yaml"},
    {"fabric", "DIR", "whose fabric.yaml; default $FLOWMESH_FABRIC"},
    {"sources", NULL, "say where each figure of the catalogue is from"},
    {"json", NULL, "catalogue and configuration as JSON"},
};

/* --- text ----------------------------------------------------------------- */

static void print_catalogue(bool sources)
{
    (void)printf("%-16s %-4s %7s %7s %7s %6s %5s %7s\n", "device", "kind", "GB",
                 "Tflop/s", "GB/s", "watts", "idle", "$/hour");
    for (size_t i = 0; i < fm_cost_catalogue_count(); i++) {
        const fm_cost_catalogue_entry_t *e = fm_cost_catalogue_at(i);
        (void)printf("%-16s %-4s %7.0f %7.4g %7.4g %6.4g %5.3g %7.3g\n",
                     e->name, e->kind, (double)e->memory_bytes / 1e9,
                     e->flops_per_s / 1e12, e->bytes_per_s / 1e9, e->watts,
                     e->idle_watts, e->price_per_hour);
        if (sources) {
            (void)printf("    %s\n", e->source);
        }
    }
    (void)printf("\nRates are what runs reach, not peaks.  Prices are list "
                 "prices; `--sources` says\nwhose and of when.\n");
}

/* Figures as they hold for a worker that says nothing itself. */
static void print_class(const fm_config_t *config, const fm_config_class_t *c)
{
    fm_config_worker_t site;

    fm_config_class_site(config, c, &site);
    (void)printf("%-16s %-16s %7.4g %6.4g %5.3g %4u %4u  ", c->name,
                 site.entry ? site.entry->name : "by name", site.price_per_hour,
                 site.watts, site.idle_watts, c->min, c->max);
    (void)printf("%s%s%s%s%s%s%s\n", c->match ? c->match : "",
                 c->match && (c->hosts || c->workers) ? ", " : "",
                 c->hosts ? "hosts " : "", c->hosts ? c->hosts : "",
                 c->hosts && c->workers ? ", " : "",
                 c->workers ? "workers " : "", c->workers ? c->workers : "");
}

static void print_tenant(const fm_config_tenant_t *tenant)
{
    const fm_tenant_config_t *c = &tenant->config;

    (void)printf("%-24s weight %g", tenant->name,
                 c->weight > 0 ? c->weight : 1);
    if (c->devices_max) {
        (void)printf(", at most %u devices", c->devices_max);
    }
    if (c->queued_max) {
        (void)printf(", %llu queued", (unsigned long long)c->queued_max);
    }
    if (c->dollars_max > 0) {
        (void)printf(", $%g", c->dollars_max);
    }
    (void)putchar('\n');
}

static void print_config(const fm_config_t *config)
{
    (void)printf("\nconfiguration: %s, policy %s\n",
                 *config->file ? config->file : "none, the defaults",
                 fm_place_policy_name(config->place.policy));
    if (config->class_count > 0) {
        (void)printf("\n%-16s %-16s %7s %6s %5s %4s %4s  %s\n", "class",
                     "device", "$/hour", "watts", "idle", "min", "max",
                     "workers whose device is");
    }
    for (size_t i = 0; i < config->class_count; i++) {
        print_class(config, &config->classes[i]);
    }
    if (config->tenant_count > 0) {
        (void)printf("\ntenant\n");
    }
    for (size_t i = 0; i < config->tenant_count; i++) {
        print_tenant(&config->tenants[i]);
    }
}

/* --- JSON ----------------------------------------------------------------- */

static fm_json_t *entry_json(const fm_cost_catalogue_entry_t *e)
{
    fm_json_t *row = fm_json_object();

    if (fm_json_set(row, "name", fm_json_string(e->name)) < 0 ||
        fm_json_set(row, "match", fm_json_string(e->match)) < 0 ||
        fm_json_set(row, "kind", fm_json_string(e->kind)) < 0 ||
        fm_json_set(row, "memory", fm_json_int((int64_t)e->memory_bytes)) < 0 ||
        fm_json_set(row, "flops_per_s", fm_json_real(e->flops_per_s)) < 0 ||
        fm_json_set(row, "bytes_per_s", fm_json_real(e->bytes_per_s)) < 0 ||
        fm_json_set(row, "watts", fm_json_real(e->watts)) < 0 ||
        fm_json_set(row, "idle_watts", fm_json_real(e->idle_watts)) < 0 ||
        fm_json_set(row, "price_per_hour", fm_json_real(e->price_per_hour)) <
            0 ||
        fm_json_set(row, "source", fm_json_string(e->source)) < 0) {
        return fm_json_drop(row);
    }
    return row;
}

static int print_json(const fm_config_t *config)
{
    fm_json_t *json = fm_json_object();
    fm_json_t *rows = fm_json_array();
    bool ok = rows != NULL;
    int status = FM_EXIT_FAILED;

    for (size_t i = 0; ok && i < fm_cost_catalogue_count(); i++) {
        ok = fm_json_append(rows, entry_json(fm_cost_catalogue_at(i))) >= 0;
    }
    if (!ok) {
        fm_json_drop(rows);
        rows = NULL;
    }
    if (fm_json_set(json, "catalogue", rows) < 0 ||
        fm_json_set(json, "file", fm_json_string(config->file)) < 0 ||
        fm_json_set(json, "configuration", fm_config_to_json(config)) < 0) {
        status = fm_cli_fail(FM_EXIT_FAILED, "out of memory");
    } else {
        status = fm_cli_print_json(json);
    }
    fm_json_drop(json);
    return status;
}

/* --- the command ---------------------------------------------------------- */

static int devices(const fm_cli_args_t *args)
{
    const char *dir = fm_cli_option(args, &fm_cli_devices, "fabric");
    fm_config_t *config = NULL;
    fm_error_t err = {0};
    int status = FM_EXIT_OK;

    dir = dir ? dir : getenv("FLOWMESH_FABRIC");
    if (fm_launch_config(fm_cli_option(args, &fm_cli_devices, "config"), dir,
                         &config, &err) < 0) {
        return fm_cli_fail(FM_EXIT_USAGE, "%s", err.text);
    }
    if (fm_cli_option(args, &fm_cli_devices, "json")) {
        status = print_json(config);
    } else {
        print_catalogue(fm_cli_option(args, &fm_cli_devices, "sources") !=
                        NULL);
        print_config(config);
    }
    fm_config_destroy(config);
    return status;
}

const fm_cli_command_t fm_cli_devices = {
    .name = "devices",
    .operands = "",
    .operand_min = 0,
    .operand_max = 0,
    .summary = "list known devices with their prices, and the configuration",
    .text =
        "Print the catalogue of devices (memory, rates, power, list price), "
        "and the configuration that a fabric would run with: the classes "
        "of workers with the figures in force, and the tenants.  A bad "
        "configuration is refused with its place, so this also checks one.",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .run = devices,
};
