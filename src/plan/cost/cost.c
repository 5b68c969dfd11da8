/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cost model.  Fits minimise the squared *relative* error, because a
 * batch of seconds and one of hours must weigh the same.
 *
 * A model keeps five weighted sums; the prior enters when it is solved, not
 * when it is fed, so a better specification corrects what was learned little.
 */
#include "plan/cost/cost.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/map.h"
#include "base/mem.h"

#define FORGET 0.98       /* weight of the past at each sample: ~50 samples */
#define PRIOR_SAMPLES 0.5 /* the roofline is worth half a result */
#define PRIOR_STDDEV 1.0  /* relative, of a bare roofline */
#define CLIP_STDDEVS 4.0
#define CLIP_STDDEV_MIN 0.05 /* below 5 % a deviation is no outlier */
#define DEFAULT_CALL_S 0.01
#define DEFAULT_UNIT_S 0.001
#define SECONDS_MIN 1e-7 /* nothing takes no time: T divides */
#define NUMBER_MAX 1e30  /* larger is no measurement */

struct task_class {
    char *name;
    fm_cost_task_t spec;
};

struct device_class {
    char *name;
    fm_cost_device_t spec;
};

struct model {
    uint32_t task, device;
    double n;               /* forgotten count of samples */
    double s, x, xx, y, xy; /* sums of w, w·work, …, w = 1/seconds² */
    double squares;         /* forgotten sum of squared relative residuals */
};

struct fm_cost {
    struct task_class *tasks;
    size_t task_count, task_capacity;
    struct device_class *devices;
    size_t device_count, device_capacity;
    fm_strmap_t *task_ids;
    fm_strmap_t *device_ids;
    struct model *models;
    size_t model_count, model_capacity;
    fm_map_t *model_ids; /* (task, device) → index */
};

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

static bool number_ok(double value)
{
    return isfinite(value) && value >= 0 && value <= NUMBER_MAX;
}

fm_status_t fm_cost_task_id(fm_cost_t *cost, const char *name,
                            const fm_cost_task_t *spec, uint32_t *id_out,
                            fm_error_t *err)
{
    const uint64_t *known = fm_strmap_get(cost->task_ids, name);
    fm_status_t rc;

    if (spec &&
        (!number_ok(spec->flops_per_unit) || !number_ok(spec->bytes_per_unit) ||
         !number_ok(spec->bytes_per_call) || !number_ok(spec->overhead_s))) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "cost: task class %s has a negative number", name);
    }
    if (!known) {
        struct task_class fresh = {0};

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

    if (spec &&
        (!number_ok(spec->flops_per_s) || !number_ok(spec->bytes_per_s) ||
         !number_ok(spec->overhead_s))) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "cost: device class %s has a negative number",
                            name);
    }
    if (!known) {
        struct device_class fresh = {0};

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

/* Roofline of a pair: seconds of a call, seconds of a unit. */
static void prior_get(const fm_cost_t *cost, uint32_t task, uint32_t device,
                      double *call_out, double *unit_out)
{
    double call = 0;
    double unit = 0;

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
    *call_out = call > 0 ? call : DEFAULT_CALL_S;
    *unit_out = unit > 0 ? unit : DEFAULT_UNIT_S;
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

static struct model *model_find(const fm_cost_t *cost, uint32_t task,
                                uint32_t device)
{
    fm_digest_t key = pair_key(task, device);
    const uint64_t *at = cost ? fm_map_get(cost->model_ids, &key) : NULL;

    return at ? &cost->models[*at] : NULL;
}

/*
 * Solve the 2×2 normal equations with the prior as a ridge on (a, b); where a
 * parameter comes out negative, it is zero and the other is fitted alone.
 * The prior is scaled to the results first: a roofline is wrong by a factor
 * far more often than in the ratio of its two parts.
 */
static void model_solve(const struct model *m, double call, double unit,
                        double *a_out, double *b_out)
{
    double scale =
        (call * m->y + unit * m->xy) /
        (call * call * m->s + 2 * call * unit * m->x + unit * unit * m->xx);

    call *= scale;
    unit *= scale;
    double ka = PRIOR_SAMPLES / (call * call);
    double kb = PRIOR_SAMPLES / (unit * unit);
    double aa = m->s + ka;
    double bb = m->xx + kb;
    double ya = m->y + ka * call;
    double yb = m->xy + kb * unit;
    double det = aa * bb - m->x * m->x;
    double a = det > 0 ? (ya * bb - yb * m->x) / det : ya / aa;
    double b = det > 0 ? (yb * aa - ya * m->x) / det : 0;

    if (a < 0) {
        a = 0;
        b = yb / bb;
    } else if (b < 0) {
        b = 0;
        a = ya / aa;
    }
    *a_out = a;
    *b_out = b;
}

void fm_cost_estimate(const fm_cost_t *cost, uint32_t task, uint32_t device,
                      double work, fm_cost_estimate_t *out)
{
    const struct model *m = model_find(cost, task, device);
    double a = 0;
    double b = 0;
    double n = 0;
    double squares = 0;

    prior_get(cost, task, device, &a, &b);
    if (m && m->n > 0 && m->s > 0 && m->y > 0) {
        model_solve(m, a, b, &a, &b);
        n = m->n;
        squares = m->squares;
    }
    out->seconds = fmax(a + b * work, SECONDS_MIN);
    out->stddev = out->seconds *
                  sqrt((squares + PRIOR_SAMPLES * PRIOR_STDDEV * PRIOR_STDDEV) /
                       (n + PRIOR_SAMPLES));
    out->confidence = n / (n + 4);
}

static fm_status_t model_make(fm_cost_t *cost, uint32_t task, uint32_t device,
                              struct model **model_out, fm_error_t *err)
{
    struct model *m = model_find(cost, task, device);

    if (!m) {
        fm_digest_t key = pair_key(task, device);
        fm_status_t rc = fm_grow((void *)&cost->models, &cost->model_capacity,
                                 cost->model_count, sizeof(*m), err);
        if (rc < 0 || (rc = fm_map_put(cost->model_ids, &key, cost->model_count,
                                       err)) < 0) {
            return rc;
        }
        m = &cost->models[cost->model_count++];
        *m = (struct model){.task = task, .device = device};
    }
    *model_out = m;
    return FM_OK;
}

fm_status_t fm_cost_learn(fm_cost_t *cost, uint32_t task, uint32_t device,
                          double work, double seconds, fm_error_t *err)
{
    struct model *m = NULL;
    fm_cost_estimate_t now;
    fm_status_t rc;

    if (task >= cost->task_count || device >= cost->device_count) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "cost: no task class %u or device class %u", task,
                            device);
    }
    if (!number_ok(work) || !number_ok(seconds)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "cost: %g units in %g s is no measurement", work,
                            seconds);
    }
    if ((rc = model_make(cost, task, device, &m, err)) < 0) {
        return rc;
    }
    fm_cost_estimate(cost, task, device, work, &now);
    double measured = fmax(seconds, SECONDS_MIN);
    double residual = measured / now.seconds - 1;
    double bound =
        CLIP_STDDEVS * fmax(now.stddev / now.seconds, CLIP_STDDEV_MIN);
    /* Before a few results the roofline is the outlier, not the result. */
    if (m->n >= 3 && fabs(residual) > bound) {
        residual = copysign(bound, residual);
        measured = fmax(now.seconds * (1 + residual), SECONDS_MIN);
    }
    double w = 1 / (measured * measured);
    m->n = FORGET * m->n + 1;
    m->s = FORGET * m->s + w;
    m->x = FORGET * m->x + w * work;
    m->xx = FORGET * m->xx + w * work * work;
    m->y = FORGET * m->y + w * measured;
    m->xy = FORGET * m->xy + w * work * measured;
    /* The first residuals measure the roofline, not the spread. */
    double square = fmin(residual * residual, 1);
    m->squares = FORGET * m->squares + square;
    return FM_OK;
}

double fm_cost_dollars(double seconds, double price_per_hour)
{
    return seconds * price_per_hour / 3600;
}

double fm_cost_joules(double seconds, double watts)
{
    return seconds * watts;
}

static int model_compare(const void *a, const void *b)
{
    const struct model *x = a;
    const struct model *y = b;

    if (x->task != y->task) {
        return x->task < y->task ? -1 : 1;
    }
    return (x->device > y->device) - (x->device < y->device);
}

/* The numbers of a model, by the name they have in JSON. */
static const struct field {
    const char *name;
    size_t offset;
} fields[] = {
    {"n", offsetof(struct model, n)},
    {"s", offsetof(struct model, s)},
    {"x", offsetof(struct model, x)},
    {"xx", offsetof(struct model, xx)},
    {"y", offsetof(struct model, y)},
    {"xy", offsetof(struct model, xy)},
    {"squares", offsetof(struct model, squares)},
};

static fm_json_t *model_to_json(const fm_cost_t *cost, const struct model *m)
{
    fm_json_t *row = fm_json_object();

    if (fm_json_set(row, "task", fm_json_string(cost->tasks[m->task].name)) <
            0 ||
        fm_json_set(row, "device",
                    fm_json_string(cost->devices[m->device].name)) < 0) {
        return fm_json_drop(row);
    }
    for (size_t i = 0; i < FM_COUNT_OF(fields); i++) {
        double value;

        memcpy(&value, (const char *)m + fields[i].offset, sizeof(value));
        if (fm_json_set(row, fields[i].name, fm_json_real(value)) < 0) {
            return fm_json_drop(row);
        }
    }
    return row;
}

fm_json_t *fm_cost_to_json(const fm_cost_t *cost)
{
    struct model *sorted = fm_malloc((cost->model_count + 1) * sizeof(*sorted));
    fm_json_t *json = fm_json_object();
    fm_json_t *models = fm_json_array();

    if (!sorted || !json || !models) {
        goto fail;
    }
    if (cost->model_count) {
        memcpy(sorted, cost->models, cost->model_count * sizeof(*sorted));
    }
    qsort(sorted, cost->model_count, sizeof(*sorted), model_compare);
    for (size_t i = 0; i < cost->model_count; i++) {
        if (fm_json_append(models, model_to_json(cost, &sorted[i])) < 0) {
            goto fail;
        }
    }
    free(sorted);
    sorted = NULL;
    fm_json_t *handed = models;
    models = NULL;
    if (fm_json_set(json, "v", fm_json_int(1)) < 0 ||
        fm_json_set(json, "models", handed) < 0) {
        goto fail;
    }
    return json;
fail:
    free(sorted);
    fm_json_drop(models);
    return fm_json_drop(json);
}

static fm_status_t model_from_json(fm_cost_t *cost, const fm_json_t *row,
                                   size_t index, fm_error_t *err)
{
    const char *task_name = fm_json_get_str(row, "task");
    const char *device_name = fm_json_get_str(row, "device");
    struct model read = {0};
    struct model *m = NULL;
    fm_status_t rc;

    for (size_t i = 0; i < FM_COUNT_OF(fields); i++) {
        double value = fm_json_get_real(row, fields[i].name, -1);

        if (!number_ok(value)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "models[%zu].%s: a number of 0 or more is "
                                "needed",
                                index, fields[i].name);
        }
        memcpy((char *)&read + fields[i].offset, &value, sizeof(value));
    }
    if (!task_name || !device_name) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "models[%zu]: task and device are missing", index);
    }
    if ((rc = fm_cost_task_id(cost, task_name, NULL, &read.task, err)) < 0 ||
        (rc = fm_cost_device_id(cost, device_name, NULL, &read.device, err)) <
            0 ||
        (rc = model_make(cost, read.task, read.device, &m, err)) < 0) {
        fm_error_wrap(err, "models[%zu]", index);
        return rc;
    }
    *m = read;
    return FM_OK;
}

fm_status_t fm_cost_from_json(fm_cost_t *cost, const fm_json_t *json,
                              fm_error_t *err)
{
    const fm_json_t *models = fm_json_get(json, "models");

    if (fm_json_get_int(json, "v", 0) != 1 ||
        !fm_json_is(models, FM_JSON_ARRAY)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "cost model: v must be 1 and models a list");
    }
    for (size_t i = 0; i < fm_json_len(models); i++) {
        fm_status_t rc = model_from_json(cost, fm_json_at(models, i), i, err);
        if (rc < 0) {
            return rc;
        }
    }
    return FM_OK;
}
