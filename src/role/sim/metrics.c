/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is measured: latency samples by category and tenant, a timeline of
 * bounded length, and at the end the result.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "role/sim/internal.h"

#define CATEGORIES_MAX 4096u

fm_status_t fm_sim_metrics_init(struct sim *sim, fm_error_t *err)
{
    struct metrics *metrics = &sim->metrics;

    metrics->interval_ns = fm_sim_ns(1);
    metrics->sample_ns = metrics->interval_ns;
    if (!(metrics->category_ids = fm_strmap_create())) {
        return fm_no_memory(err);
    }
    return FM_OK;
}

void fm_sim_metrics_fini(struct sim *sim)
{
    struct metrics *metrics = &sim->metrics;

    for (size_t i = 0; i < metrics->category_count; i++) {
        free(metrics->categories[i].category);
        free(metrics->categories[i].list);
    }
    for (size_t i = 0; i < metrics->tenant_count; i++) {
        free(metrics->tenants[i].total_s);
    }
    free(metrics->categories);
    free(metrics->tenants);
    fm_strmap_destroy(metrics->category_ids);
    fm_sim_result_fini(&metrics->result);
}

void fm_sim_mark(struct sim *sim, uint64_t what, uint64_t who, uint64_t size)
{
    const uint64_t words[5] = {sim->metrics.result.digest,
                               (uint64_t)sim->now_ns, what, who, size};

    sim->metrics.result.digest = fm_hash64(words, sizeof(words));
}

/* --- samples
 * -------------------------------------------------------------------- */

fm_status_t fm_sim_category(struct sim *sim, const char *name, bool workflows,
                            uint32_t *id_out, fm_error_t *err)
{
    struct metrics *metrics = &sim->metrics;
    char key[256];
    const uint64_t *at;
    struct samples samples = {.workflows = workflows};
    fm_status_t rc;

    (void)snprintf(key, sizeof(key), "%c:%s", workflows ? 'w' : 's', name);
    if ((at = fm_strmap_get(metrics->category_ids, key))) {
        *id_out = (uint32_t)*at;
        return FM_OK;
    }
    if (metrics->category_count == CATEGORIES_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT, "more than %u categories",
                            CATEGORIES_MAX);
    }
    if ((rc = fm_grow(&metrics->categories, &metrics->category_capacity,
                      metrics->category_count, sizeof(*metrics->categories),
                      err)) < 0 ||
        (rc = fm_strmap_put(metrics->category_ids, key, metrics->category_count,
                            err)) < 0) {
        return rc;
    }
    if (!(samples.category = fm_strdup(name))) {
        fm_strmap_remove(metrics->category_ids, key);
        return fm_no_memory(err);
    }
    *id_out = (uint32_t)metrics->category_count;
    metrics->categories[metrics->category_count++] = samples;
    return FM_OK;
}

fm_status_t fm_sim_latency_add(struct sim *sim, uint32_t category,
                               int64_t ready_ns, int64_t first_ns,
                               int64_t end_ns, fm_error_t *err)
{
    struct samples *samples = &sim->metrics.categories[category];
    fm_status_t rc = fm_grow(&samples->list, &samples->capacity, samples->count,
                             sizeof(*samples->list), err);

    if (rc < 0) {
        return rc;
    }
    if (first_ns < ready_ns) { /* nothing was run for it: all of it waiting */
        first_ns = first_ns < 0 ? end_ns : ready_ns;
    }
    samples->list[samples->count++] = (struct latency){
        .queue_s = (float)seconds_of(first_ns - ready_ns),
        .run_s = (float)seconds_of(end_ns - first_ns),
        .total_s = (float)seconds_of(end_ns - ready_ns),
    };
    return FM_OK;
}

fm_status_t fm_sim_tenant_grow(struct sim *sim, uint32_t tenant,
                               fm_error_t *err)
{
    struct metrics *metrics = &sim->metrics;

    while (metrics->tenant_count <= tenant) {
        fm_status_t rc =
            fm_grow(&metrics->tenants, &metrics->tenant_capacity,
                    metrics->tenant_count, sizeof(*metrics->tenants), err);

        if (rc < 0) {
            return rc;
        }
        metrics->tenants[metrics->tenant_count++] = (struct tenant_samples){0};
    }
    return FM_OK;
}

fm_status_t fm_sim_tenant_done(struct sim *sim, uint32_t tenant, double total_s,
                               bool failed, fm_error_t *err)
{
    struct tenant_samples *at = &sim->metrics.tenants[tenant];
    fm_status_t rc;

    if (failed) {
        at->failed++;
        sim->metrics.result.failed++;
        return FM_OK;
    }
    if ((rc = fm_grow(&at->total_s, &at->capacity, at->count,
                      sizeof(*at->total_s), err)) < 0) {
        return rc;
    }
    at->total_s[at->count++] = (float)total_s;
    at->done++;
    sim->metrics.result.done++;
    return FM_OK;
}

/* --- timeline
 * ---------------------------------------------------------------------- */

static double joules_of(const fm_sim_class_t *class, const struct usage *usage)
{
    return class->watts * usage->execute_s +
           class->idle_watts * fmax(0, usage->up_s - usage->execute_s);
}

/* Every second sample goes; means over two intervals stay means. */
static void timeline_halve(struct metrics *metrics)
{
    size_t count = metrics->timeline_count / 2;

    for (size_t i = 0; i < count; i++) {
        const fm_sim_sample_t *a = &metrics->timeline[2 * i], *b = a + 1;
        fm_sim_sample_t sample = *b;

        sample.up = (a->up + b->up) / 2;
        sample.busy = (a->busy + b->busy) / 2;
        metrics->timeline[i] = sample;
    }
    metrics->timeline_count = count;
    metrics->interval_ns *= 2;
}

static void sample_take(struct sim *sim, int64_t at_ns)
{
    struct metrics *metrics = &sim->metrics;
    fm_sim_sample_t sample = {.t_s = seconds_of(at_ns)};
    double up_s = 0, busy_s = 0, span_s;
    fm_pool_totals_t totals;

    for (size_t c = 0; c < sim->class_count; c++) {
        struct usage *usage = fm_sim_usage(sim, (uint32_t)c);

        up_s += usage->up_s;
        busy_s += usage->busy_s;
        sample.dollars +=
            fm_cost_dollars(usage->up_s, sim->classes[c].price_per_hour);
        sample.joules += joules_of(&sim->classes[c], usage);
    }
    fm_pool_totals(sim->pool, &totals);
    span_s = sample.t_s - metrics->sampled_at_s;
    sample.up = (up_s - metrics->sampled_up_s) / span_s;
    sample.busy = (busy_s - metrics->sampled_busy_s) / span_s;
    sample.ready = (double)totals.ready_work;
    sample.running = (double)sim->live;
    sample.done = (double)metrics->result.done;
    metrics->sampled_up_s = up_s;
    metrics->sampled_busy_s = busy_s;
    metrics->sampled_at_s = sample.t_s;
    metrics->timeline[metrics->timeline_count++] = sample;
}

void fm_sim_timeline(struct sim *sim, int64_t to_ns)
{
    struct metrics *metrics = &sim->metrics;

    while (metrics->sample_ns <= to_ns) {
        if (metrics->timeline_count == FM_SIM_TIMELINE_MAX) {
            timeline_halve(metrics);
            metrics->sample_ns =
                (int64_t)(metrics->timeline_count + 1) * metrics->interval_ns;
            continue;
        }
        sim->now_ns = metrics->sample_ns;
        sample_take(sim, metrics->sample_ns);
        metrics->sample_ns += metrics->interval_ns;
    }
}

/* --- result
 * ------------------------------------------------------------------------- */

static int by_value(const void *left, const void *right)
{
    float a = *(const float *)left, b = *(const float *)right;

    return a < b ? -1 : a > b;
}

/* Nearest rank.  Sorts @p values. */
static fm_sim_spread_t spread_of(float *values, size_t count)
{
    fm_sim_spread_t spread = {.count = count};
    double sum = 0;

    if (count == 0) {
        return spread;
    }
    qsort(values, count, sizeof(*values), by_value);
    for (size_t i = 0; i < count; i++) {
        sum += values[i];
    }
    spread.mean = sum / (double)count;
    spread.p50 = values[(size_t)ceil(0.50 * (double)count) - 1];
    spread.p95 = values[(size_t)ceil(0.95 * (double)count) - 1];
    spread.p99 = values[(size_t)ceil(0.99 * (double)count) - 1];
    spread.max = values[count - 1];
    return spread;
}

static fm_status_t latencies_fill(struct sim *sim, fm_sim_result_t *result,
                                  fm_error_t *err)
{
    struct metrics *metrics = &sim->metrics;
    size_t most = 1;
    float *values;

    for (size_t i = 0; i < metrics->category_count; i++) {
        most = metrics->categories[i].count > most
                   ? metrics->categories[i].count
                   : most;
    }
    values = fm_calloc(most, sizeof(*values));
    result->latencies =
        fm_calloc(metrics->category_count, sizeof(*result->latencies));
    if (!values || (metrics->category_count > 0 && !result->latencies)) {
        free(values);
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < metrics->category_count; i++) {
        struct samples *from = &metrics->categories[i];
        fm_sim_latency_t *to = &result->latencies[i];

        *to = (fm_sim_latency_t){.category = from->category,
                                 .workflows = from->workflows};
        from->category = NULL; /* handed over */
        result->latency_count++;
        for (size_t n = 0; n < from->count; n++) {
            values[n] = from->list[n].queue_s;
        }
        to->queue = spread_of(values, from->count);
        for (size_t n = 0; n < from->count; n++) {
            values[n] = from->list[n].run_s;
        }
        to->run = spread_of(values, from->count);
        for (size_t n = 0; n < from->count; n++) {
            values[n] = from->list[n].total_s;
        }
        to->total = spread_of(values, from->count);
    }
    free(values);
    return FM_OK;
}

enum { QUEUE, RUN, TOTAL };

/* One figure of all workflows, whatever their category; NULL: memory is out. */
static float *workflows_of(const struct metrics *metrics, int figure,
                           size_t *count_out)
{
    size_t count = 0;

    for (size_t i = 0; i < metrics->category_count; i++) {
        count +=
            metrics->categories[i].workflows ? metrics->categories[i].count : 0;
    }
    float *values = fm_calloc(count + 1, sizeof(*values));
    size_t at = 0;
    for (size_t i = 0; values && i < metrics->category_count; i++) {
        const struct samples *from = &metrics->categories[i];
        for (size_t n = 0; from->workflows && n < from->count; n++) {
            const struct latency *l = &from->list[n];
            values[at++] = figure == QUEUE ? l->queue_s
                           : figure == RUN ? l->run_s
                                           : l->total_s;
        }
    }
    *count_out = count;
    return values;
}

static fm_status_t workflows_fill(const struct sim *sim,
                                  fm_sim_result_t *result, fm_error_t *err)
{
    fm_sim_spread_t *spreads[] = {[QUEUE] = &result->queue,
                                  [RUN] = &result->run,
                                  [TOTAL] = &result->total};

    for (int figure = QUEUE; figure <= TOTAL; figure++) {
        size_t count = 0;
        float *values = workflows_of(&sim->metrics, figure, &count);
        if (!values) {
            return fm_no_memory(err);
        }
        *spreads[figure] = spread_of(values, count);
        if (figure == TOTAL) {
            result->totals_s = values;
            result->total_count = count;
        } else {
            free(values);
        }
    }
    return FM_OK;
}

static fm_status_t classes_fill(struct sim *sim, fm_sim_result_t *result,
                                fm_error_t *err)
{
    result->classes = fm_calloc(sim->class_count, sizeof(*result->classes));
    if (!result->classes) {
        return fm_no_memory(err);
    }
    for (size_t c = 0; c < sim->class_count; c++) {
        const fm_sim_class_t *class = &sim->classes[c];
        const struct usage *usage = fm_sim_usage(sim, (uint32_t)c);
        fm_sim_class_result_t *to = &result->classes[c];

        *to = (fm_sim_class_result_t){
            .name = fm_strdup(class->name),
            .up_s = usage->up_s,
            .busy_s = usage->busy_s,
            .load_s = usage->load_s,
            .dollars = fm_cost_dollars(usage->up_s, class->price_per_hour),
            .joules = joules_of(class, usage),
            .leases = usage->leases,
            .items = usage->items,
            .peak = usage->peak};
        result->class_count++;
        if (!to->name) {
            return fm_no_memory(err);
        }
        result->up_s += to->up_s;
        result->busy_s += to->busy_s;
        result->load_s += to->load_s;
        result->cost += to->dollars;
        result->joules += to->joules;
    }
    result->utilisation = result->up_s > 0 ? result->busy_s / result->up_s : 0;
    return FM_OK;
}

static fm_status_t tenants_fill(struct sim *sim, fm_sim_result_t *result,
                                fm_error_t *err)
{
    struct metrics *metrics = &sim->metrics;
    fm_tenant_info_t info;
    fm_status_t rc;

    result->tenants =
        fm_calloc(metrics->tenant_count + 1, sizeof(*result->tenants));
    if (!result->tenants) {
        return fm_no_memory(err);
    }
    for (size_t t = 0; t < metrics->tenant_count; t++) {
        struct tenant_samples *from = &metrics->tenants[t];
        fm_sim_tenant_result_t *to = &result->tenants[t];

        if ((rc = fm_tenants_get(sim->tenants, (uint32_t)t, &info)) < 0 ||
            !(to->name = fm_strdup(info.name))) {
            return rc < 0 ? fm_error_set(err, rc, "tenant %zu", t)
                          : fm_no_memory(err);
        }
        result->tenant_count++;
        to->submitted = from->submitted;
        to->done = from->done;
        to->failed = from->failed;
        to->ran = info.items_ran;
        to->shared = info.items_shared;
        to->items = info.items_ran + info.items_shared;
        to->device_s = info.device_seconds;
        to->dollars = info.dollars;
        to->joules = info.joules;
        to->total = spread_of(from->total_s, from->count);
    }
    return FM_OK;
}

static void totals_fill(const struct sim *sim, fm_sim_result_t *result)
{
    fm_pool_totals_t totals;

    fm_pool_totals(sim->pool, &totals);
    result->planned = totals.planned;
    result->ran = totals.ran;
    result->shared = totals.shared;
    result->items_failed = totals.failed;
    result->pool_bytes = totals.bytes;
    result->complete = sim->live == 0 && !sim->more;
    result->makespan_s = seconds_of(sim->last_end_ns - sim->first_arrival_ns);
    result->plan_s = seconds_of(sim->plan_ns + sim->decide_ns);
    result->decide_s = seconds_of(sim->decide_ns);
}

fm_status_t fm_sim_result(struct sim *sim, fm_sim_result_t *out,
                          fm_error_t *err)
{
    fm_sim_result_t *result = &sim->metrics.result;
    uint64_t items = 0;
    fm_status_t rc;

    totals_fill(sim, result);
    if ((rc = latencies_fill(sim, result, err)) < 0 ||
        (rc = workflows_fill(sim, result, err)) < 0 ||
        (rc = classes_fill(sim, result, err)) < 0 ||
        (rc = tenants_fill(sim, result, err)) < 0) {
        return rc;
    }
    for (size_t c = 0; c < sim->class_count; c++) {
        items += sim->usage[c].items;
    }
    result->batch_mean =
        result->leases > 0 ? (double)items / (double)result->leases : 0;
    result->timeline_count = sim->metrics.timeline_count;
    result->timeline =
        fm_calloc(result->timeline_count + 1, sizeof(*result->timeline));
    if (!result->timeline) {
        return fm_no_memory(err);
    }
    memcpy(result->timeline, sim->metrics.timeline,
           result->timeline_count * sizeof(*result->timeline));
    *out = *result;
    *result = (fm_sim_result_t){0}; /* handed over */
    return FM_OK;
}

void fm_sim_result_fini(fm_sim_result_t *result)
{
    for (size_t i = 0; i < result->latency_count; i++) {
        free(result->latencies[i].category);
    }
    for (size_t i = 0; i < result->class_count; i++) {
        free(result->classes[i].name);
    }
    for (size_t i = 0; i < result->tenant_count; i++) {
        free(result->tenants[i].name);
    }
    free(result->latencies);
    free(result->classes);
    free(result->tenants);
    free(result->timeline);
    free(result->totals_s);
    *result = (fm_sim_result_t){0};
}
