/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cost model: classes by name, the roofline of a pair, and what was learned
 * of it (fit.c).  Loads of models are a task class of their own, whose unit is
 * a byte; its name begins with a mark that no other may have.
 */
#include "plan/cost/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define NUMBER_MAX 1e30 /* larger is no measurement */
#define DEFAULT_CALL_S 0.01
#define DEFAULT_UNIT_S 0.001
#define DEFAULT_LOAD_BYTES_PER_S 1e9

fm_cost_t *fm_cost_create(void)
{
    fm_cost_t *cost = fm_calloc(1, sizeof(*cost));

    if (!cost || !(cost->task_ids = fm_strmap_create()) ||
        !(cost->device_ids = fm_strmap_create()) ||
        !(cost->model_ids = fm_map_create())) {
        return fm_cost_destroy(cost);
    }
    return cost;
}

void *fm_cost_destroy(fm_cost_t *cost)
{
    if (!cost) {
        return NULL;
    }
    for (size_t i = 0; i < cost->task_count; i++) {
        free(cost->tasks[i].name);
    }
    for (size_t i = 0; i < cost->device_count; i++) {
        free(cost->devices[i].name);
    }
    free(cost->tasks);
    free(cost->devices);
    free(cost->models);
    fm_strmap_destroy(cost->task_ids);
    fm_strmap_destroy(cost->device_ids);
    fm_map_destroy(cost->model_ids);
    free(cost);
    return NULL;
}

static fm_status_t name_check(const char *name, size_t count, fm_error_t *err)
{
    size_t len = strlen(name);

    if (name[0] == FM_COST_MARK) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "cost: a class name begins with %c", FM_COST_MARK);
    }
    if (len == 0 || len > FM_COST_NAME_BYTES_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "cost: a class name has %zu bytes, allowed are 1 "
                            "to %u",
                            len, FM_COST_NAME_BYTES_MAX);
    }
    return count < FM_COST_CLASSES_MAX
               ? FM_OK
               : fm_error_set(err, FM_ERR_LIMIT, "cost: more than %u classes",
                              FM_COST_CLASSES_MAX);
}

bool fm_cost_number_ok(double value)
{
    return isfinite(value) && value >= 0 && value <= NUMBER_MAX;
}

fm_status_t fm_cost_task_id(fm_cost_t *cost, const char *name,
                            const fm_cost_task_t *spec, uint32_t *id_out,
                            fm_error_t *err)
{
    const uint64_t *known = fm_strmap_get(cost->task_ids, name);
    fm_status_t rc;

    if (spec && (!fm_cost_number_ok(spec->flops_per_unit) ||
                 !fm_cost_number_ok(spec->bytes_per_unit) ||
                 !fm_cost_number_ok(spec->bytes_per_call) ||
                 !fm_cost_number_ok(spec->overhead_s))) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "cost: task class %s has a negative number", name);
    }
    if (!known) {
        struct fm_cost_task_class fresh = {0};

        if ((rc = name_check(name, cost->task_count, err)) < 0 ||
            (rc = fm_grow((void *)&cost->tasks, &cost->task_capacity,
                          cost->task_count, sizeof(fresh), err)) < 0) {
            return rc;
        }
        if (!(fresh.name = fm_strdup(name))) {
            return fm_no_memory(err);
        }
        if ((rc = fm_strmap_put(cost->task_ids, name, cost->task_count, err)) <
            0) {
            free(fresh.name);
            return rc;
        }
        cost->tasks[cost->task_count++] = fresh;
    }
    uint32_t id = known ? (uint32_t)*known : (uint32_t)(cost->task_count - 1);
    if (spec) {
        cost->tasks[id].spec = *spec;
    }
    *id_out = id;
    return FM_OK;
}

fm_status_t fm_cost_device_id(fm_cost_t *cost, const char *name,
                              const fm_cost_device_t *spec, uint32_t *id_out,
                              fm_error_t *err)
{
    const uint64_t *known = fm_strmap_get(cost->device_ids, name);
    fm_status_t rc;

    if (spec && (!fm_cost_number_ok(spec->flops_per_s) ||
                 !fm_cost_number_ok(spec->bytes_per_s) ||
                 !fm_cost_number_ok(spec->overhead_s) ||
                 !fm_cost_number_ok(spec->load_bytes_per_s))) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "cost: device class %s has a negative number",
                            name);
    }
    if (!known) {
        struct fm_cost_device_class fresh = {0};

        if ((rc = name_check(name, cost->device_count, err)) < 0 ||
            (rc = fm_grow((void *)&cost->devices, &cost->device_capacity,
                          cost->device_count, sizeof(fresh), err)) < 0) {
            return rc;
        }
        if (!(fresh.name = fm_strdup(name))) {
            return fm_no_memory(err);
        }
        if ((rc = fm_strmap_put(cost->device_ids, name, cost->device_count,
                                err)) < 0) {
            free(fresh.name);
            return rc;
        }
        cost->devices[cost->device_count++] = fresh;
    }
    uint32_t id = known ? (uint32_t)*known : (uint32_t)(cost->device_count - 1);
    if (spec) {
        cost->devices[id].spec = *spec;
    }
    *id_out = id;
    return FM_OK;
}

static fm_cost_line_t load_prior(const fm_cost_t *cost, uint32_t device)
{
    double rate = cost && device < cost->device_count
                      ? cost->devices[device].spec.load_bytes_per_s
                      : 0;

    return (fm_cost_line_t){DEFAULT_CALL_S,
                            1 / (rate > 0 ? rate : DEFAULT_LOAD_BYTES_PER_S)};
}

/* Roofline of a pair. */
static fm_cost_line_t prior_of(const fm_cost_t *cost, uint32_t task,
                               uint32_t device)
{
    double call = 0;
    double unit = 0;

    if (task == FM_COST_TASK_LOAD) {
        return load_prior(cost, device);
    }
    if (cost && task < cost->task_count && device < cost->device_count) {
        const fm_cost_task_t *t = &cost->tasks[task].spec;
        const fm_cost_device_t *d = &cost->devices[device].spec;

        call = t->overhead_s + d->overhead_s;
        if (d->bytes_per_s > 0) {
            call += t->bytes_per_call / d->bytes_per_s;
            unit = t->bytes_per_unit / d->bytes_per_s;
        }
        if (d->flops_per_s > 0) {
            unit = fmax(unit, t->flops_per_unit / d->flops_per_s);
        }
    }
    return (fm_cost_line_t){call > 0 ? call : DEFAULT_CALL_S,
                            unit > 0 ? unit : DEFAULT_UNIT_S};
}

static fm_digest_t pair_key(uint32_t task, uint32_t device)
{
    fm_digest_t key = {0};

    for (size_t i = 0; i < 4; i++) {
        key.bytes[i] = (uint8_t)(device >> (8 * i));
        key.bytes[i + 4] = (uint8_t)(task >> (8 * i));
    }
    /* The map takes the first bytes for a hash: spread the pair over them. */
    uint64_t hash = fm_hash64(key.bytes, 8);
    memcpy(key.bytes + 16, key.bytes, 8);
    memcpy(key.bytes, &hash, sizeof(hash));
    return key;
}

static struct fm_cost_model *model_find(const fm_cost_t *cost, uint32_t task,
                                        uint32_t device)
{
    fm_digest_t key = pair_key(task, device);
    const uint64_t *at = cost ? fm_map_get(cost->model_ids, &key) : NULL;

    return at ? &cost->models[*at] : NULL;
}

static void estimate(const fm_cost_t *cost, uint32_t task, uint32_t device,
                     double work, fm_cost_estimate_t *out)
{
    const struct fm_cost_model *m = model_find(cost, task, device);
    fm_cost_line_t prior = prior_of(cost, task, device);
    double relative = 0;
    double n = m ? m->fit.n : 0;

    out->seconds =
        fm_cost_fit_seconds(m ? &m->fit : NULL, &prior, work, &relative);
    out->stddev = out->seconds * relative;
    out->confidence = n / (n + 4);
}

void fm_cost_estimate(const fm_cost_t *cost, uint32_t task, uint32_t device,
                      double work, fm_cost_estimate_t *out)
{
    /* the loads' own number is no class to others */
    estimate(cost, task == FM_COST_TASK_LOAD ? task - 1 : task, device, work,
             out);
}

void fm_cost_load(const fm_cost_t *cost, uint32_t device, double bytes,
                  fm_cost_estimate_t *out)
{
    estimate(cost, FM_COST_TASK_LOAD, device, bytes, out);
}

fm_status_t fm_cost_model_make(fm_cost_t *cost, uint32_t task, uint32_t device,
                               struct fm_cost_model **model_out,
                               fm_error_t *err)
{
    struct fm_cost_model *m = model_find(cost, task, device);

    if (!m) {
        fm_digest_t key = pair_key(task, device);
        fm_status_t rc = fm_grow((void *)&cost->models, &cost->model_capacity,
                                 cost->model_count, sizeof(*m), err);
        if (rc < 0 || (rc = fm_map_put(cost->model_ids, &key, cost->model_count,
                                       err)) < 0) {
            return rc;
        }
        m = &cost->models[cost->model_count++];
        *m = (struct fm_cost_model){.task = task, .device = device};
    }
    *model_out = m;
    return FM_OK;
}

static fm_status_t learn(fm_cost_t *cost, uint32_t task, uint32_t device,
                         double work, double seconds, fm_error_t *err)
{
    struct fm_cost_model *m = NULL;
    fm_status_t rc;

    if ((task != FM_COST_TASK_LOAD && task >= cost->task_count) ||
        device >= cost->device_count) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "cost: no task class %u or device class %u", task,
                            device);
    }
    if (!fm_cost_number_ok(work) || !fm_cost_number_ok(seconds)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "cost: %g units in %g s is no measurement", work,
                            seconds);
    }
    if ((rc = fm_cost_model_make(cost, task, device, &m, err)) < 0) {
        return rc;
    }
    fm_cost_line_t prior = prior_of(cost, task, device);
    fm_cost_fit_learn(&m->fit, &prior, work, seconds);
    return FM_OK;
}

fm_status_t fm_cost_learn(fm_cost_t *cost, uint32_t task, uint32_t device,
                          double work, double seconds, fm_error_t *err)
{
    return learn(cost, task == FM_COST_TASK_LOAD ? task - 1 : task, device,
                 work, seconds, err);
}

fm_status_t fm_cost_learn_load(fm_cost_t *cost, uint32_t device, double bytes,
                               double seconds, fm_error_t *err)
{
    return learn(cost, FM_COST_TASK_LOAD, device, bytes, seconds, err);
}

size_t fm_cost_task_count(const fm_cost_t *cost)
{
    return cost->task_count;
}

size_t fm_cost_device_count(const fm_cost_t *cost)
{
    return cost->device_count;
}

const char *fm_cost_task_name(const fm_cost_t *cost, uint32_t task)
{
    return task < cost->task_count ? cost->tasks[task].name : NULL;
}

const char *fm_cost_device_name(const fm_cost_t *cost, uint32_t device)
{
    return device < cost->device_count ? cost->devices[device].name : NULL;
}

double fm_cost_dollars(double seconds, double price_per_hour)
{
    return seconds * price_per_hour / 3600;
}

double fm_cost_joules(double seconds, double watts)
{
    return seconds * watts;
}
