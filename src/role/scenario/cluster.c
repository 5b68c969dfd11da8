/* SPDX-License-Identifier: Apache-2.0 */
/* Models, classes of workers, what fails: docs/spec/scenario.md §3 to §5. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "plan/cost/catalogue.h"
#include "plan/cost/llm.h"
#include "role/scenario/internal.h"

#define CATALOGUE_MAX 64u
#define STARTUP_S 90.0       /* of an elastic worker: job start and program */
#define LOAD_BYTES_PER_S 1e9 /* models from storage; start is given at it */
#define ENGINE_START_S 20.0  /* of an inference engine, its weights apart */
#define ADAPTER_BYTES 5e7    /* LoRA of rank 16 on a 1B model, 16 bits */

static const char *const task_names[TASKS] = {
    [TASK_INFERENCE] = "inference",
    [TASK_FORWARD] = "forward",
    [TASK_SFT] = "sft",
    [TASK_LORA_SFT] = "lora_sft",
    [TASK_DPO] = "dpo",
    [TASK_PPO] = "ppo",
    [TASK_SCRIPT] = "script",
};

bool fm_scenario_task_find(const char *name, task_t *task_out)
{
    for (size_t i = 0; i < TASKS; i++) {
        if (strcmp(task_names[i], name) == 0) {
            *task_out = (task_t)i;
            return true;
        }
    }
    return false;
}

/* --- models --------------------------------------------------------------- */

size_t fm_scenario_model_find(const run_t *run, const char *name)
{
    size_t i = run->input.model_count; /* the last of a name is the one meant */

    assert(name);
    while (i > 0) {
        if (strcmp(run->models[--i].name, name) == 0) {
            return i;
        }
    }
    return run->input.model_count;
}

static fm_status_t read_model(const reader_t *r, const fm_yaml_value_t *map,
                              double load_scale, fm_sim_model_t *out)
{
    double start = ENGINE_START_S;
    double adapter = ADAPTER_BYTES;
    fm_status_t rc = FM_OK;

    if ((rc = fm_scenario_check(r, &fm_scenario_model, map, "a model")) < 0 ||
        (rc = fm_yaml_seconds(map, "start", &start, &r->source)) < 0 ||
        (rc = fm_yaml_bytes(map, "adapter", &adapter, &r->source)) < 0) {
        return rc;
    }
    const char *name = fm_yaml_str(fm_yaml_get(map, "name"));
    double parameters = fm_yaml_real(map, "parameters", 0);
    if (!name || !*name || parameters == 0) {
        return fm_yaml_fail_at(&r->source, map,
                               "a model wants name and parameters");
    }
    double weights = parameters * fm_yaml_real(map, "bytes_per_parameter", 2);
    if (weights > 1e15) {
        return fm_yaml_fail_at(&r->source, map,
                               "a model of more than 1e15 bytes");
    }
    *out = (fm_sim_model_t){
        .name = name,
        .parameters = parameters,
        .weight_bytes = (uint64_t)weights,
        .load_bytes = (uint64_t)fmax(1, (weights + start * LOAD_BYTES_PER_S) *
                                            load_scale),
        .kv_bytes_per_token = fm_yaml_real(map, "kv_bytes_per_token",
                                           fm_cost_llm_kv_bytes(parameters)),
        .adapter_bytes = (uint64_t)fmax(1, adapter * load_scale),
    };
    return FM_OK;
}

/* The scenario's models after the built-in ones, so that a name of theirs may
 * be taken over. */
fm_status_t fm_scenario_read_models(reader_t *r, const fm_yaml_value_t *root)
{
    const fm_yaml_value_t *lists[] = {
        fm_yaml_get(r->scenario->builtin, "models"),
        fm_yaml_get(root, "models"),
    };
    double load_scale =
        fm_yaml_real(fm_yaml_get(root, "execution"), "load_scale", 1);
    size_t counts[2] = {0};
    fm_status_t rc = FM_OK;

    for (size_t l = 0; l < 2 && rc == FM_OK; l++) {
        rc = fm_scenario_list(r, lists[l], "models", FM_SIM_MODELS_MAX - 64,
                              &counts[l]);
    }
    fm_sim_model_t *models =
        rc == FM_OK
            ? fm_scenario_alloc(r, counts[0] + counts[1], sizeof(*models))
            : NULL;
    if (!models) {
        return rc == FM_OK ? FM_ERR_NO_MEMORY : rc;
    }
    r->run->models = models;
    r->run->input.models = models;
    for (size_t l = 0; l < 2 && rc == FM_OK; l++) {
        for (size_t i = 0; i < counts[l] && rc == FM_OK; i++) {
            fm_sim_model_t model = {0};
            rc = read_model(r, lists[l]->members[i].value, load_scale, &model);
            if (rc == FM_OK && model.name) {
                size_t at = fm_scenario_model_find(r->run, model.name);
                models[at] = model;
                r->run->input.model_count +=
                    at == r->run->input.model_count ? 1 : 0;
            }
        }
    }
    return rc;
}

/* --- classes of workers --------------------------------------------------- */

static fm_status_t fail_device(const reader_t *r, const fm_yaml_value_t *at)
{
    const char *names[CATALOGUE_MAX];
    size_t count = 0;

    while (count < CATALOGUE_MAX && fm_cost_catalogue_at(count)) {
        names[count] = fm_cost_catalogue_at(count)->name;
        count++;
    }
    return fm_scenario_unknown(r, at, "device of the catalogue", names, count);
}

/* What the catalogue knows of the device, as a class. */
static fm_status_t from_catalogue(const reader_t *r, const fm_yaml_value_t *map,
                                  fm_sim_class_t *out)
{
    const fm_yaml_value_t *device = fm_yaml_get(map, "device");
    const fm_cost_catalogue_entry_t *entry = NULL;

    *out = (fm_sim_class_t){.device = FM_SCHED_GPU};
    if (!device) {
        return FM_OK;
    }
    if (!(entry = fm_cost_catalogue_named(device->text))) {
        return fail_device(r, device);
    }
    *out = (fm_sim_class_t){
        .name = entry->name,
        .device = strcmp(entry->kind, "cpu") == 0 ? FM_SCHED_CPU : FM_SCHED_GPU,
        .spec = fm_cost_catalogue_spec(entry),
        .memory_bytes = entry->memory_bytes,
        .price_per_hour = entry->price_per_hour,
        .watts = entry->watts,
        .idle_watts = entry->idle_watts,
    };
    return FM_OK;
}

/* Task types it runs, as a mask; 0 where the list is absent: all. */
static fm_status_t read_tasks(const reader_t *r, const fm_yaml_value_t *list,
                              uint64_t *mask_out)
{
    uint64_t mask = 0;

    for (size_t i = 0; list && i < list->count; i++) {
        const fm_yaml_value_t *name = list->members[i].value;
        task_t task = TASKS;
        if (!fm_scenario_task_find(fm_scenario_written(name), &task)) {
            return fm_scenario_unknown(r, name, "task", task_names, TASKS);
        }
        mask |= UINT64_C(1) << task;
    }
    *mask_out = mask;
    return FM_OK;
}

/* Members that replace what the catalogue says. */
static void read_figures(const fm_yaml_value_t *map, double count_scale,
                         fm_sim_class_t *out)
{
    const char *kind = fm_yaml_str(fm_yaml_get(map, "kind"));
    const char *name = fm_yaml_str(fm_yaml_get(map, "name"));
    int64_t count = fm_yaml_int(map, "count", 0);

    if (kind) {
        out->device = strcmp(kind, "cpu") == 0 ? FM_SCHED_CPU : FM_SCHED_GPU;
    }
    if (name && *name) {
        out->name = name;
    }
    out->spec.flops_per_s =
        fm_yaml_real(map, "flops_per_s", out->spec.flops_per_s);
    out->spec.bytes_per_s =
        fm_yaml_real(map, "bytes_per_s", out->spec.bytes_per_s);
    out->price_per_hour =
        fm_yaml_real(map, "price_per_hour", out->price_per_hour);
    out->watts = fm_yaml_real(map, "watts", out->watts);
    out->idle_watts =
        fm_yaml_real(map, "idle_watts", fmin(out->idle_watts, out->watts));
    out->load_bytes_per_s =
        fm_yaml_real(map, "load_bytes_per_s", LOAD_BYTES_PER_S);
    out->fetch_bytes_per_s =
        fm_yaml_real(map, "fetch_bytes_per_s", LOAD_BYTES_PER_S);
    out->hazard_per_hour = fm_yaml_real(map, "hazard_per_hour", 0);
    out->count =
        (uint32_t)fmin(ceil((double)count * count_scale), FM_SIM_WORKERS_MAX);
    out->min = (uint32_t)fm_yaml_int(map, "min", 0);
    out->max = fm_yaml_get(map, "max") ? (uint32_t)fm_yaml_int(map, "max", 0)
                                       : out->count;
    out->warm = (uint32_t)fm_yaml_int(map, "warm", 0);
    out->domain_size = (uint32_t)fm_yaml_int(map, "domain", 1);
}

static fm_status_t read_class(const reader_t *r, const fm_yaml_value_t *map,
                              double count_scale, fm_sim_class_t *out)
{
    double memory = 0;
    fm_status_t rc = FM_OK;

    if ((rc = fm_scenario_check(r, &fm_scenario_class, map,
                                "a class of workers")) < 0 ||
        (rc = from_catalogue(r, map, out)) < 0) {
        return rc;
    }
    read_figures(map, count_scale, out);
    out->startup_s = STARTUP_S;
    memory = (double)out->memory_bytes;
    if ((rc = fm_yaml_bytes(map, "memory", &memory, &r->source)) < 0 ||
        (rc = fm_yaml_seconds(map, "startup", &out->startup_s, &r->source)) <
            0 ||
        (rc = fm_yaml_seconds(map, "walltime", &out->walltime_s, &r->source)) <
            0 ||
        (rc = read_tasks(r, fm_yaml_get(map, "tasks"), &out->task_types)) < 0) {
        return rc;
    }
    out->memory_bytes = (uint64_t)memory;
    if (!out->name || out->spec.flops_per_s <= 0 ||
        out->spec.bytes_per_s <= 0) {
        return fm_yaml_fail_at(
            &r->source, map,
            "a class wants the device's name in the catalogue, or name, "
            "memory, flops_per_s and bytes_per_s");
    }
    if (out->watts < out->idle_watts) {
        return fm_yaml_fail_at(&r->source, map,
                               "idle_watts above watts; allowed: at most them");
    }
    if (out->max < out->min || out->max < out->warm || out->max == 0) {
        return fm_yaml_fail_at(&r->source, map,
                               "a class without workers; allowed: count of a "
                               "fixed fleet, min and max of an elastic one, "
                               "min and warm at most max");
    }
    return FM_OK;
}

static fm_status_t read_classes(reader_t *r, const fm_yaml_value_t *cluster,
                                size_t count)
{
    const fm_yaml_value_t *list = fm_yaml_get(cluster, "classes");
    double count_scale = fm_yaml_real(cluster, "count_scale", 1);
    fm_sim_class_t *classes = fm_scenario_alloc(r, count, sizeof(*classes));
    fm_status_t rc = FM_OK;
    double workers = 0;

    if (!classes) {
        return FM_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < count && rc == FM_OK; i++) {
        rc = read_class(r, list->members[i].value, count_scale, &classes[i]);
        workers += r->run->input.elastic ? classes[i].max : classes[i].count;
    }
    if (rc == FM_OK && !(workers >= 1 && workers <= FM_SIM_WORKERS_MAX)) {
        return fm_yaml_fail(&r->source, list->line, list->column, FM_ERR_LIMIT,
                            "%s fleet of %.0f workers; allowed: 1 to %u",
                            r->run->input.elastic ? "an elastic" : "a fixed",
                            workers, FM_SIM_WORKERS_MAX);
    }
    r->run->classes = classes;
    r->run->input.classes = classes;
    r->run->input.class_count = count;
    return rc;
}

/* --- failures ------------------------------------------------------------- */

static fm_status_t read_failures(reader_t *r, const fm_yaml_value_t *map)
{
    const fm_yaml_value_t *flap = fm_yaml_get(map, "flapping");
    fm_sim_failures_t *f = &r->run->input.failures;
    fm_status_t rc = FM_OK;

    f->task_error_share = fm_yaml_real(map, "task_errors", 0);
    f->flap_share = fm_yaml_real(flap, "share", 0);
    if ((rc = fm_yaml_seconds(map, "preemption", &f->preempt_mean_s,
                              &r->source)) < 0 ||
        (rc = fm_yaml_seconds(map, "warning", &f->warning_s, &r->source)) < 0 ||
        (rc = fm_yaml_seconds(map, "node_loss", &f->node_loss_mean_s,
                              &r->source)) < 0 ||
        (rc = fm_yaml_seconds(map, "repair", &f->repair_s, &r->source)) < 0 ||
        (rc = fm_yaml_seconds(flap, "up", &f->flap_up_s, &r->source)) < 0) {
        return rc;
    }
    return fm_yaml_seconds(flap, "down", &f->flap_down_s, &r->source);
}

/* --- all of it ------------------------------------------------------------ */

/* by_policy: a system with a shared pool sizes its fleet, baselines do not. */
static bool is_elastic(const run_t *run, const fm_yaml_value_t *cluster)
{
    const char *fleet = fm_yaml_str(fm_yaml_get(cluster, "fleet"));

    if (run->input.ablation.no_elasticity ||
        (fleet && strcmp(fleet, "fixed") == 0)) {
        return false;
    }
    return (fleet && strcmp(fleet, "elastic") == 0) ||
           run->input.policy == FM_PLACE_FLOWMESH;
}

fm_status_t fm_scenario_read_cluster(reader_t *r, const fm_yaml_value_t *root)
{
    const fm_yaml_value_t *cluster = fm_yaml_get(root, "cluster");
    const fm_yaml_value_t *list = fm_yaml_get(cluster, "classes");
    size_t count = 0;
    fm_status_t rc = fm_scenario_list(r, list, "classes of workers",
                                      FM_SIM_CLASSES_MAX, &count);

    if (rc < 0) {
        return rc;
    }
    if (count == 0) {
        return fm_yaml_fail_at(&r->source, cluster ? cluster : root,
                               "cluster.classes is missing; allowed: a list of "
                               "classes of workers");
    }
    r->run->input.elastic = is_elastic(r->run, cluster);
    if ((rc = fm_yaml_seconds(cluster, "scale_interval",
                              &r->run->input.scale_interval_s, &r->source)) <
            0 ||
        (rc = read_failures(r, fm_yaml_get(root, "failures"))) < 0) {
        return rc;
    }
    return read_classes(r, cluster, count);
}
