/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker is taken for, and the configuration in force as JSON. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "plan/config/config.h"

#define CPU_ROW "cpu-core"

/* --- the class of a worker ------------------------------------------------ */

static bool one_matches(const char *patterns, const char *name)
{
    return !patterns || fm_cost_name_matches(patterns, name ? name : "");
}

static const fm_config_class_t *class_of(const fm_config_t *config,
                                         const fm_config_device_t *device)
{
    for (size_t i = 0; config && i < config->class_count; i++) {
        const fm_config_class_t *c = &config->classes[i];
        bool cpu = strcmp(device->kind, "cpu") == 0;
        if (one_matches(c->match, device->name) &&
            one_matches(c->hosts, device->host) &&
            one_matches(c->workers, device->worker) &&
            (!c->kind || (strcmp(c->kind, "cpu") == 0) == cpu)) {
            return c;
        }
    }
    return NULL;
}

static const fm_cost_catalogue_entry_t *
entry_of(const fm_config_class_t *c, const fm_config_device_t *device)
{
    if (c && c->entry) {
        return c->entry;
    }
    if (strcmp(device->kind, "cpu") == 0) {
        return fm_cost_catalogue_named(CPU_ROW); /* whatever its maker says */
    }
    return fm_cost_catalogue_find(device->name, device->memory_bytes);
}

static double first(double own, double configured, double listed)
{
    return own > 0 ? own : configured >= 0 ? configured : listed;
}

static void name_set(fm_config_worker_t *out, const char *name)
{
    /* '@' begins names that are no class (plan/cost) */
    (void)snprintf(out->name, sizeof(out->name), "%s%s",
                   *name == '@' ? "_" : "", name);
}

static void figures_set(fm_config_worker_t *out, const fm_config_class_t *c,
                        const fm_cost_catalogue_entry_t *entry,
                        const fm_config_device_t *device)
{
    static const fm_config_class_t unsaid = {
        .price_per_hour = -1, .watts = -1, .idle_watts = -1};

    c = c ? c : &unsaid;
    out->entry = entry;
    out->spec = entry ? fm_cost_catalogue_spec(entry) : (fm_cost_device_t){0};
    if (c->spec.flops_per_s > 0) {
        out->spec.flops_per_s = c->spec.flops_per_s;
    }
    if (c->spec.bytes_per_s > 0) {
        out->spec.bytes_per_s = c->spec.bytes_per_s;
    }
    out->spec.load_bytes_per_s = c->spec.load_bytes_per_s;
    out->memory_bytes = c->memory_bytes        ? c->memory_bytes
                        : device->memory_bytes ? device->memory_bytes
                        : entry                ? entry->memory_bytes
                                               : 0;
    out->price_per_hour = first(device->price_per_hour, c->price_per_hour,
                                entry ? entry->price_per_hour : 0);
    out->watts = first(device->watts, c->watts, entry ? entry->watts : 0);
    out->idle_watts = first(0, c->idle_watts, entry ? entry->idle_watts : 0);
    if (out->idle_watts > out->watts) {
        out->idle_watts = out->watts;
    }
    out->fetch_bytes_per_s = c->fetch_bytes_per_s;
    out->hazard_per_hour = c->hazard_per_hour;
}

void fm_config_worker(const fm_config_t *config,
                      const fm_config_device_t *device, fm_config_worker_t *out)
{
    const fm_config_class_t *c = class_of(config, device);
    const fm_cost_catalogue_entry_t *entry = entry_of(c, device);

    *out = (fm_config_worker_t){
        .class_index = c ? (uint32_t)(c - config->classes) : UINT32_MAX};
    name_set(out, c               ? c->name
                  : entry         ? entry->name
                  : *device->name ? device->name
                                  : device->kind);
    figures_set(out, c, entry, device);
}

void fm_config_class_site(const fm_config_t *config, const fm_config_class_t *c,
                          fm_config_worker_t *out)
{
    const fm_config_device_t none = {.kind = c->kind    ? c->kind
                                             : c->entry ? c->entry->kind
                                                        : "gpu",
                                     .name = ""};

    *out = (fm_config_worker_t){.class_index = (uint32_t)(c - config->classes)};
    name_set(out, c->name);
    figures_set(out, c, entry_of(c, &none), &none);
}

/* --- as JSON -------------------------------------------------------------- */

/* Members are added until one fails, which is told by the object being gone. */
struct writer {
    fm_json_t *object;
};

static void put(struct writer *w, const char *key, fm_json_t *value)
{
    if (!w->object) {
        fm_json_drop(value);
    } else if (!value || fm_json_set(w->object, key, value) < 0) {
        w->object = fm_json_drop(w->object);
    }
}

static void put_real(struct writer *w, const char *key, double value, bool said)
{
    if (said) {
        put(w, key, fm_json_real(value));
    }
}

static void put_int(struct writer *w, const char *key, uint64_t value)
{
    if (value > 0) {
        put(w, key, fm_json_int((int64_t)value));
    }
}

static void put_text(struct writer *w, const char *key, const char *value)
{
    if (value) {
        put(w, key, fm_json_string(value));
    }
}

static fm_json_t *scheduler_json(const fm_sched_options_t *sched)
{
    struct writer lambda = {fm_json_object()};
    struct writer w = {fm_json_object()};
    fm_json_t *without = fm_json_array();
    const struct {
        const char *name;
        bool on;
    } flags[] = {{"batching", sched->no_batching},
                 {"locality", sched->no_locality},
                 {"consolidation", sched->no_consolidation},
                 {"fair_share", sched->no_fair_share}};

    put_real(&lambda, "inference", sched->lambda[FM_SCHED_INFERENCE],
             sched->lambda[FM_SCHED_INFERENCE] > 0);
    put_real(&lambda, "training", sched->lambda[FM_SCHED_TRAINING],
             sched->lambda[FM_SCHED_TRAINING] > 0);
    put_real(&lambda, "other", sched->lambda[FM_SCHED_OTHER],
             sched->lambda[FM_SCHED_OTHER] > 0);
    put(&w, "lambda", lambda.object);
    put_real(&w, "energy_per_kwh", sched->energy_per_kwh,
             sched->energy_per_kwh > 0);
    put_real(&w, "age_scale", sched->age_scale_s, sched->age_scale_s > 0);
    put_real(&w, "grain", sched->grain_s, sched->grain_s > 0);
    put_real(&w, "patience", sched->patience, sched->patience > 0);
    for (size_t i = 0; without && i < FM_COUNT_OF(flags); i++) {
        if (flags[i].on &&
            fm_json_append(without, fm_json_string(flags[i].name)) < 0) {
            without = fm_json_drop(without);
        }
    }
    put(&w, "without", without);
    return w.object;
}

static fm_json_t *scale_json(const fm_scale_options_t *scale)
{
    struct writer w = {fm_json_object()};

    put_real(&w, "wait_dollars_per_hour", scale->wait_dollars_per_hour,
             scale->wait_dollars_per_hour > 0);
    put_real(&w, "late_factor", scale->late_factor, scale->late_factor > 0);
    put_real(&w, "age_scale", scale->age_scale_s, scale->age_scale_s > 0);
    put_real(&w, "margin", scale->margin, scale->margin > 0);
    put_real(&w, "keep", scale->keep, scale->keep > 0);
    put_real(&w, "grain", scale->grain_s, scale->grain_s > 0);
    put_int(&w, "workers_max", scale->workers_max);
    put_int(&w, "starts_max", scale->starts_max);
    return w.object;
}

static fm_json_t *class_json(const fm_config_class_t *c)
{
    struct writer w = {fm_json_object()};

    put_text(&w, "name", c->name);
    put_text(&w, "match", c->match);
    put_text(&w, "hosts", c->hosts);
    put_text(&w, "workers", c->workers);
    put_text(&w, "device", c->entry ? c->entry->name : NULL);
    put_text(&w, "kind", c->kind);
    put_int(&w, "memory", c->memory_bytes);
    put_real(&w, "flops_per_s", c->spec.flops_per_s, c->spec.flops_per_s > 0);
    put_real(&w, "bytes_per_s", c->spec.bytes_per_s, c->spec.bytes_per_s > 0);
    put_real(&w, "price_per_hour", c->price_per_hour, c->price_per_hour >= 0);
    put_real(&w, "watts", c->watts, c->watts >= 0);
    put_real(&w, "idle_watts", c->idle_watts, c->idle_watts >= 0);
    put_real(&w, "load_bytes_per_s", c->spec.load_bytes_per_s,
             c->spec.load_bytes_per_s > 0);
    put_real(&w, "fetch_bytes_per_s", c->fetch_bytes_per_s,
             c->fetch_bytes_per_s > 0);
    put_real(&w, "hazard_per_hour", c->hazard_per_hour, c->hazard_per_hour > 0);
    put_real(&w, "startup", c->startup_s, true);
    put_int(&w, "min", c->min);
    put_int(&w, "max", c->max);
    return w.object;
}

static fm_json_t *tenant_json(const fm_config_tenant_t *tenant)
{
    struct writer w = {fm_json_object()};

    put_text(&w, "name", tenant->name);
    put_real(&w, "weight", tenant->config.weight, tenant->config.weight > 0);
    put_int(&w, "devices_max", tenant->config.devices_max);
    put_int(&w, "queued_max", tenant->config.queued_max);
    put_real(&w, "dollars_max", tenant->config.dollars_max,
             tenant->config.dollars_max > 0);
    return w.object;
}

fm_json_t *fm_config_to_json(const fm_config_t *config)
{
    struct writer w = {fm_json_object()};
    fm_json_t *classes = fm_json_array();
    fm_json_t *tenants = fm_json_array();

    for (size_t i = 0; classes && i < config->class_count; i++) {
        if (fm_json_append(classes, class_json(&config->classes[i])) < 0) {
            classes = fm_json_drop(classes);
        }
    }
    for (size_t i = 0; tenants && i < config->tenant_count; i++) {
        if (fm_json_append(tenants, tenant_json(&config->tenants[i])) < 0) {
            tenants = fm_json_drop(tenants);
        }
    }
    put_text(&w, "apiVersion", "flowmesh/v1");
    put_text(&w, "kind", "Fabric");
    put_text(&w, "policy", fm_place_policy_name(config->place.policy));
    put(&w, "scheduler", scheduler_json(&config->place.sched));
    put(&w, "scale", scale_json(&config->scale));
    put(&w, "classes", classes);
    put(&w, "tenants", tenants);
    return w.object;
}
