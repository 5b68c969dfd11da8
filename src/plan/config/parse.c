/* SPDX-License-Identifier: Apache-2.0 */
/* Text to a configuration: the tables check what a value may be, here is what
 * values mean together. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/config/config.h"
#include "plan/config/tables.h"
#include "text/yaml/number.h"

#define NAMES_MAX 64u /* rows of the catalogue, and more */

struct fm_config_memory {
    fm_yaml_arena_t arena;
};

struct reader {
    fm_yaml_arena_t *arena;
    fm_config_t *config;
    fm_yaml_source_t source;
};

/* --- life ----------------------------------------------------------------- */

fm_config_t *fm_config_default(void)
{
    fm_config_t *config = fm_calloc(1, sizeof(*config));

    if (!config || !(config->memory = fm_calloc(1, sizeof(*config->memory)))) {
        free(config);
        return NULL;
    }
    config->file = "";
    return config;
}

void *fm_config_destroy(fm_config_t *config)
{
    if (config) {
        fm_yaml_arena_fini(&config->memory->arena);
        free(config->memory);
        free(config);
    }
    return NULL;
}

/* --- pieces --------------------------------------------------------------- */

static fm_status_t check(const struct reader *r,
                         const fm_yaml_section_t *section,
                         const fm_yaml_value_t *map, const char *path)
{
    const fm_json_t *json = NULL;

    if (map->type != FM_JSON_OBJECT) {
        return fm_yaml_fail(&r->source, map->line, map->column, FM_ERR_INVALID,
                            "%s is a map of its keys", section->name);
    }
    if (!(json = fm_yaml_json(r->arena, map))) {
        return fm_no_memory(r->source.err);
    }
    return fm_yaml_check(section, json, map, path, 0, NULL, &r->source);
}

static fm_status_t list_open(const struct reader *r,
                             const fm_yaml_value_t *list, const char *what,
                             size_t most, size_t bytes, void **rows_out)
{
    size_t count = list ? list->count : 0;

    if (count > most) {
        return fm_yaml_fail(&r->source, list->line, list->column, FM_ERR_LIMIT,
                            "%zu %s; allowed: at most %zu", count, what, most);
    }
    *rows_out = fm_yaml_alloc(r->arena, (count ? count : 1) * bytes);
    return *rows_out ? FM_OK : fm_no_memory(r->source.err);
}

/* A text member that is not empty and not too long; NULL where absent. */
static fm_status_t read_text(const struct reader *r, const fm_yaml_value_t *map,
                             const char *key, size_t most, const char **out)
{
    const fm_yaml_value_t *value = fm_yaml_get(map, key);
    const char *text = fm_yaml_str(value);

    assert(out);
    if (text && (!*text || strlen(text) > most)) {
        return fm_yaml_fail(
            &r->source, value->line, value->column, FM_ERR_INVALID,
            "%s has %zu bytes; allowed: 1 to %zu", key, strlen(text), most);
    }
    *out = text;
    return FM_OK;
}

/* --- scheduler and scale -------------------------------------------------- */

static fm_status_t read_without(const struct reader *r,
                                const fm_yaml_value_t *list,
                                fm_sched_options_t *sched)
{
    static const char *const names[] = {"batching", "locality", "consolidation",
                                        "fair_share"};
    bool *flags[] = {&sched->no_batching, &sched->no_locality,
                     &sched->no_consolidation, &sched->no_fair_share};

    for (size_t i = 0; list && i < list->count; i++) {
        const fm_yaml_value_t *value = list->members[i].value;
        const char *text = fm_yaml_str(value);
        size_t at = 0;
        while (at < FM_COUNT_OF(names) &&
               !(text && strcmp(text, names[at]) == 0)) {
            at++;
        }
        if (at == FM_COUNT_OF(names)) {
            return fm_yaml_fail(
                &r->source, value->line, value->column, FM_ERR_INVALID,
                "scheduler.without has %.60s; allowed: %s",
                value->text ? value->text : "no text", FM_CONFIG_WITHOUT);
        }
        *flags[at] = true;
    }
    return FM_OK;
}

static fm_status_t read_scheduler(const struct reader *r,
                                  const fm_yaml_value_t *map)
{
    static const char *const kinds[FM_SCHED_KINDS] = {
        [FM_SCHED_OTHER] = "other",
        [FM_SCHED_INFERENCE] = "inference",
        [FM_SCHED_TRAINING] = "training"};
    const fm_yaml_value_t *lambda = fm_yaml_get(map, "lambda");
    fm_sched_options_t *sched = &r->config->place.sched;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < FM_SCHED_KINDS; i++) {
        sched->lambda[i] = fm_yaml_real(lambda, kinds[i], 0);
    }
    sched->energy_per_kwh = fm_yaml_real(map, "energy_per_kwh", 0);
    sched->patience = fm_yaml_real(map, "patience", 0);
    if ((rc = fm_yaml_seconds(map, "age_scale", &sched->age_scale_s,
                              &r->source)) < 0 ||
        (rc = fm_yaml_seconds(map, "grain", &sched->grain_s, &r->source)) < 0) {
        return rc;
    }
    return read_without(r, fm_yaml_get(map, "without"), sched);
}

static fm_status_t read_scale(const struct reader *r,
                              const fm_yaml_value_t *map)
{
    fm_scale_options_t *scale = &r->config->scale;
    fm_status_t rc = FM_OK;

    scale->wait_dollars_per_hour =
        fm_yaml_real(map, "wait_dollars_per_hour", 0);
    scale->late_factor = fm_yaml_real(map, "late_factor", 0);
    scale->margin = fm_yaml_real(map, "margin", 0);
    scale->keep = fm_yaml_real(map, "keep", 0);
    scale->workers_max = (uint32_t)fm_yaml_int(map, "workers_max", 0);
    scale->starts_max = (uint32_t)fm_yaml_int(map, "starts_max", 0);
    /* one price of energy for both who reckon with it */
    scale->energy_per_kwh = r->config->place.sched.energy_per_kwh;
    if ((rc = fm_yaml_seconds(map, "age_scale", &scale->age_scale_s,
                              &r->source)) < 0) {
        return rc;
    }
    return fm_yaml_seconds(map, "grain", &scale->grain_s, &r->source);
}

/* --- classes of workers --------------------------------------------------- */

static fm_status_t read_device(const struct reader *r,
                               const fm_yaml_value_t *map,
                               fm_config_class_t *out)
{
    const fm_yaml_value_t *value = fm_yaml_get(map, "device");
    const char *names[NAMES_MAX];
    size_t count = 0;
    char hint[96];

    assert(out);
    if (!value || (out->entry = fm_cost_catalogue_named(value->text))) {
        return FM_OK;
    }
    while (count < NAMES_MAX && fm_cost_catalogue_at(count)) {
        names[count] = fm_cost_catalogue_at(count)->name;
        count++;
    }
    return fm_yaml_fail(
        &r->source, value->line, value->column, FM_ERR_INVALID,
        "device %.60s is not in the catalogue (`flowmesh devices` lists it)%s",
        value->text,
        fm_yaml_suggest(value->text, names, count, hint, sizeof(hint)));
}

static fm_status_t read_figures(const struct reader *r,
                                const fm_yaml_value_t *map,
                                fm_config_class_t *out)
{
    double memory = 0;
    fm_status_t rc = FM_OK;

    assert(out);
    out->kind = fm_yaml_str(fm_yaml_get(map, "kind"));
    out->spec.flops_per_s = fm_yaml_real(map, "flops_per_s", 0);
    out->spec.bytes_per_s = fm_yaml_real(map, "bytes_per_s", 0);
    out->spec.load_bytes_per_s = fm_yaml_real(map, "load_bytes_per_s", 0);
    out->fetch_bytes_per_s = fm_yaml_real(map, "fetch_bytes_per_s", 0);
    out->price_per_hour = fm_yaml_real(map, "price_per_hour", -1);
    out->watts = fm_yaml_real(map, "watts", -1);
    out->idle_watts = fm_yaml_real(map, "idle_watts", -1);
    out->hazard_per_hour = fm_yaml_real(map, "hazard_per_hour", 0);
    out->min = (uint32_t)fm_yaml_int(map, "min", 0);
    out->max = (uint32_t)fm_yaml_int(map, "max", 0);
    out->startup_s = FM_CONFIG_STARTUP_S;
    if ((rc = fm_yaml_bytes(map, "memory", &memory, &r->source)) < 0 ||
        (rc = fm_yaml_seconds(map, "startup", &out->startup_s, &r->source)) <
            0) {
        return rc;
    }
    out->memory_bytes = (uint64_t)memory;
    return FM_OK;
}

/* What a class is without: found by nothing, or against itself. */
static fm_status_t class_agree(const struct reader *r,
                               const fm_yaml_value_t *map,
                               const fm_config_class_t *c)
{
    if (!c->match && !c->hosts && !c->workers) {
        return fm_yaml_fail_at(
            &r->source, map,
            "a class that says not which workers are of it; allowed: match "
            "(device names), hosts, workers, or device (a catalogue name)");
    }
    if (c->watts >= 0 && c->idle_watts > c->watts) {
        return fm_yaml_fail_at(&r->source, fm_yaml_get(map, "idle_watts"),
                               "idle_watts above watts; allowed: at most them");
    }
    if (c->min > c->max) {
        return fm_yaml_fail_at(&r->source, fm_yaml_get(map, "min"),
                               "min above max; allowed: at most it");
    }
    for (const fm_config_class_t *other = r->config->classes; other < c;
         other++) {
        if (strcmp(other->name, c->name) == 0) {
            return fm_yaml_fail_at(&r->source, fm_yaml_get(map, "name"),
                                   "a second class of this name; allowed: one, "
                                   "its patterns parted by '|'");
        }
    }
    return FM_OK;
}

static fm_status_t read_class(const struct reader *r,
                              const fm_yaml_value_t *map,
                              fm_config_class_t *out)
{
    fm_status_t rc = FM_OK;

    if ((rc = check(r, &fm_config_class, map, "")) < 0 ||
        (rc = read_text(r, map, "name", FM_COST_NAME_BYTES_MAX, &out->name)) <
            0 ||
        (rc = read_text(r, map, "match", FM_CONFIG_PATTERN_BYTES_MAX,
                        &out->match)) < 0 ||
        (rc = read_text(r, map, "hosts", FM_CONFIG_PATTERN_BYTES_MAX,
                        &out->hosts)) < 0 ||
        (rc = read_text(r, map, "workers", FM_CONFIG_PATTERN_BYTES_MAX,
                        &out->workers)) < 0 ||
        (rc = read_device(r, map, out)) < 0 ||
        (rc = read_figures(r, map, out)) < 0) {
        return rc;
    }
    if (!out->name && !out->entry) {
        return fm_yaml_fail_at(&r->source, map, "a class wants a name");
    }
    out->name = out->name ? out->name : out->entry->name;
    if (*out->name == '@') {
        return fm_yaml_fail_at(&r->source, fm_yaml_get(map, "name"),
                               "a name that begins with @");
    }
    if (out->entry && !out->match && !out->hosts && !out->workers) {
        out->match = out->entry->match;
    }
    return class_agree(r, map, out);
}

static fm_status_t read_classes(const struct reader *r,
                                const fm_yaml_value_t *list)
{
    fm_config_class_t *rows = NULL;
    fm_status_t rc = list_open(r, list, "classes", FM_CONFIG_CLASSES_MAX,
                               sizeof(*rows), (void **)&rows);

    if (rc < 0) {
        return rc;
    }
    r->config->classes = rows;
    for (size_t i = 0; list && i < list->count && rc >= 0; i++) {
        rc = read_class(r, list->members[i].value, &rows[i]);
        r->config->class_count = i + 1;
    }
    return rc;
}

/* --- tenants -------------------------------------------------------------- */

static fm_status_t read_tenant(const struct reader *r,
                               const fm_yaml_value_t *map,
                               fm_config_tenant_t *out)
{
    fm_status_t rc = FM_OK;

    assert(out);
    if ((rc = check(r, &fm_config_tenant, map, "")) < 0 ||
        (rc = read_text(r, map, "name", FM_TENANT_NAME_BYTES_MAX, &out->name)) <
            0) {
        return rc;
    }
    if (!out->name) {
        return fm_yaml_fail_at(&r->source, map,
                               "a tenant wants a name; \"*\" is for all that "
                               "are not named");
    }
    for (const fm_config_tenant_t *other = r->config->tenants; other < out;
         other++) {
        if (strcmp(other->name, out->name) == 0) {
            return fm_yaml_fail_at(&r->source, fm_yaml_get(map, "name"),
                                   "a second tenant of this name");
        }
    }
    out->config = (fm_tenant_config_t){
        .weight = fm_yaml_real(map, "weight", 0),
        .devices_max = (uint32_t)fm_yaml_int(map, "devices_max", 0),
        .queued_max = (uint64_t)fm_yaml_int(map, "queued_max", 0),
        .dollars_max = fm_yaml_real(map, "dollars_max", 0),
    };
    return FM_OK;
}

static fm_status_t read_tenants(const struct reader *r,
                                const fm_yaml_value_t *list)
{
    fm_config_tenant_t *rows = NULL;
    fm_status_t rc = list_open(r, list, "tenants", FM_CONFIG_TENANTS_MAX,
                               sizeof(*rows), (void **)&rows);

    if (rc < 0) {
        return rc;
    }
    r->config->tenants = rows;
    for (size_t i = 0; list && i < list->count && rc >= 0; i++) {
        rc = read_tenant(r, list->members[i].value, &rows[i]);
        r->config->tenant_count = i + 1;
    }
    return rc;
}

/* --- all of it ------------------------------------------------------------ */

static fm_status_t read_root(const struct reader *r,
                             const fm_yaml_value_t *root)
{
    const char *policy = NULL;
    fm_status_t rc = check(r, &fm_config_root, root, "");

    if (rc < 0) {
        return rc;
    }
    if (!fm_yaml_get(root, "apiVersion") || !fm_yaml_get(root, "kind")) {
        return fm_yaml_fail_at(&r->source, root,
                               "a configuration begins with apiVersion: "
                               "flowmesh/v1 and kind: Fabric");
    }
    if ((policy = fm_yaml_str(fm_yaml_get(root, "policy")))) {
        (void)fm_place_policy_find(policy, &r->config->place.policy);
    }
    if ((rc = read_scheduler(r, fm_yaml_get(root, "scheduler"))) < 0 ||
        (rc = read_scale(r, fm_yaml_get(root, "scale"))) < 0 ||
        (rc = read_classes(r, fm_yaml_get(root, "classes"))) < 0) {
        return rc;
    }
    return read_tenants(r, fm_yaml_get(root, "tenants"));
}

fm_status_t fm_config_parse(const char *text, size_t len, const char *file,
                            fm_config_t **config_out, fm_error_t *err)
{
    fm_config_t *config = fm_config_default();
    const fm_yaml_value_t *root = NULL;
    fm_status_t rc = FM_OK;

    if (!config) {
        return fm_no_memory(err);
    }
    struct reader r = {.arena = &config->memory->arena,
                       .config = config,
                       .source = {file, err}};
    if (!(config->file = fm_yaml_text(r.arena, file, strlen(file)))) {
        rc = fm_no_memory(err);
    } else if (len > FM_CONFIG_TEXT_BYTES_MAX) {
        rc = fm_error_set(err, FM_ERR_LIMIT,
                          "%s: %zu bytes; allowed: at most %u", file, len,
                          FM_CONFIG_TEXT_BYTES_MAX);
    } else if ((rc = fm_yaml_parse(r.arena, text, len, &r.source, &root)) >=
               0) {
        rc = read_root(&r, root);
    }
    if (rc < 0) {
        fm_config_destroy(config);
        return rc;
    }
    *config_out = config;
    return FM_OK;
}
