/* SPDX-License-Identifier: Apache-2.0 */
/* What was learned, as JSON and back: exact, since every number is written
 * with all its digits. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/cost/internal.h"

#define LOAD_NAME "@load"
#define SAMPLES_MAX                                                            \
    51 /* what forgetting leaves of endless results, and more                  \
        */

/* The numbers of a model, by the name they have in JSON, and their range. */
static const struct field {
    const char *name;
    size_t offset;
    double min, max;
} fields[] = {
    {"n", offsetof(fm_cost_fit_t, n), 0, SAMPLES_MAX},
    {"s", offsetof(fm_cost_fit_t, s), 0, INFINITY},
    {"x", offsetof(fm_cost_fit_t, x), 0, INFINITY},
    {"xx", offsetof(fm_cost_fit_t, xx), 0, INFINITY},
    {"y", offsetof(fm_cost_fit_t, y), 0, INFINITY},
    {"xy", offsetof(fm_cost_fit_t, xy), 0, INFINITY},
    {"squares", offsetof(fm_cost_fit_t, squares), 0, SAMPLES_MAX},
    {"call", offsetof(fm_cost_fit_t, call), 1e-30, INFINITY},
    {"unit", offsetof(fm_cost_fit_t, unit), 1e-30, INFINITY},
    {"side", offsetof(fm_cost_fit_t, side), -(double)FM_COST_RECENT,
     FM_COST_RECENT},
};

/* --- writing -------------------------------------------------------------- */

static int model_compare(const void *a, const void *b)
{
    const struct fm_cost_model *x = a;
    const struct fm_cost_model *y = b;

    if (x->task != y->task) {
        return x->task < y->task ? -1 : 1;
    }
    return (x->device > y->device) - (x->device < y->device);
}

static fm_json_t *recent_to_json(const fm_cost_fit_t *fit)
{
    fm_json_t *list = fm_json_array();

    for (size_t i = 0; i < (size_t)fit->count; i++) {
        fm_json_t *pair = fm_json_array();
        if (fm_json_append(pair, fm_json_real(fit->work[i])) < 0 ||
            fm_json_append(pair, fm_json_real(fit->seconds[i])) < 0) {
            fm_json_drop(pair);
            return fm_json_drop(list);
        }
        if (fm_json_append(list, pair) < 0) {
            return fm_json_drop(list);
        }
    }
    return list;
}

static fm_json_t *model_to_json(const fm_cost_t *cost,
                                const struct fm_cost_model *m)
{
    const char *task =
        m->task == FM_COST_TASK_LOAD ? LOAD_NAME : cost->tasks[m->task].name;
    fm_json_t *row = fm_json_object();

    if (fm_json_set(row, "task", fm_json_string(task)) < 0 ||
        fm_json_set(row, "device",
                    fm_json_string(cost->devices[m->device].name)) < 0 ||
        fm_json_set(row, "recent", recent_to_json(&m->fit)) < 0) {
        return fm_json_drop(row);
    }
    for (size_t i = 0; i < FM_COUNT_OF(fields); i++) {
        double value;

        memcpy(&value, (const char *)&m->fit + fields[i].offset, sizeof(value));
        if (fm_json_set(row, fields[i].name, fm_json_real(value)) < 0) {
            return fm_json_drop(row);
        }
    }
    return row;
}

fm_json_t *fm_cost_to_json(const fm_cost_t *cost)
{
    struct fm_cost_model *sorted =
        fm_malloc((cost->model_count + 1) * sizeof(*sorted));
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
    if (fm_json_set(json, "v", fm_json_int(2)) < 0 ||
        fm_json_set(json, "models", handed) < 0) {
        goto fail;
    }
    return json;
fail:
    free(sorted);
    fm_json_drop(models);
    return fm_json_drop(json);
}

/* --- reading -------------------------------------------------------------- */

static fm_status_t recent_from_json(const fm_json_t *row, size_t index,
                                    fm_cost_fit_t *fit, fm_error_t *err)
{
    const fm_json_t *list = fm_json_get(row, "recent");
    size_t count = fm_json_len(list);

    if (!fm_json_is(list, FM_JSON_ARRAY) || count > FM_COST_RECENT) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "models[%zu].recent: a list of at most %u pairs "
                            "is needed",
                            index, FM_COST_RECENT);
    }
    for (size_t i = 0; i < count; i++) {
        const fm_json_t *pair = fm_json_at(list, i);
        double work = fm_json_real_or(fm_json_at(pair, 0), -1);
        double seconds = fm_json_real_or(fm_json_at(pair, 1), -1);

        if (fm_json_len(pair) != 2 || !fm_cost_number_ok(work) ||
            !fm_cost_number_ok(seconds)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "models[%zu].recent[%zu]: two numbers of 0 or "
                                "more are needed",
                                index, i);
        }
        fit->work[i] = work;
        fit->seconds[i] = seconds;
    }
    fit->count = (double)count;
    return FM_OK;
}

static fm_status_t fit_from_json(const fm_json_t *row, size_t index,
                                 fm_cost_fit_t *fit, fm_error_t *err)
{
    for (size_t i = 0; i < FM_COUNT_OF(fields); i++) {
        const struct field *field = &fields[i];
        double value = fm_json_get_real(row, field->name, NAN);

        if (!isfinite(value) || value < field->min || value > field->max) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "models[%zu].%s: a number from %g to %g is "
                                "needed",
                                index, field->name, field->min, field->max);
        }
        memcpy((char *)fit + field->offset, &value, sizeof(value));
    }
    return recent_from_json(row, index, fit, err);
}

static fm_status_t model_from_json(fm_cost_t *cost, const fm_json_t *row,
                                   size_t index, fm_error_t *err)
{
    const char *task_name = fm_json_get_str(row, "task");
    const char *device_name = fm_json_get_str(row, "device");
    fm_cost_fit_t fit = {0};
    struct fm_cost_model *m = NULL;
    uint32_t task = FM_COST_TASK_LOAD;
    uint32_t device = 0;
    fm_status_t rc = fit_from_json(row, index, &fit, err);

    if (rc < 0) {
        return rc;
    }
    if (!task_name || !device_name) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "models[%zu]: task and device are missing", index);
    }
    if (strcmp(task_name, LOAD_NAME) != 0) {
        rc = fm_cost_task_id(cost, task_name, NULL, &task, err);
    }
    if (rc < 0 ||
        (rc = fm_cost_device_id(cost, device_name, NULL, &device, err)) < 0 ||
        (rc = fm_cost_model_make(cost, task, device, &m, err)) < 0) {
        fm_error_wrap(err, "models[%zu]", index);
        return rc;
    }
    m->fit = fit;
    return FM_OK;
}

fm_status_t fm_cost_from_json(fm_cost_t *cost, const fm_json_t *json,
                              fm_error_t *err)
{
    const fm_json_t *models = fm_json_get(json, "models");

    if (fm_json_get_int(json, "v", 0) != 2 ||
        !fm_json_is(models, FM_JSON_ARRAY)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "cost model: v must be 2 and models a list");
    }
    for (size_t i = 0; i < fm_json_len(models); i++) {
        fm_status_t rc = model_from_json(cost, fm_json_at(models, i), i, err);
        if (rc < 0) {
            return rc;
        }
    }
    return FM_OK;
}
