/* SPDX-License-Identifier: Apache-2.0 */
/* A decision from end to end: check, fleet, plan, starts, drains, holds. */
#include "plan/scale/scale.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "plan/scale/internal.h"

/* Longer than this between two decisions says nothing of a queue. */
#define QUEUE_STEP_S 60

static double or_default(double value, double otherwise)
{
    return value > 0 ? value : otherwise;
}

static bool amount(double v)
{
    return v >= 0 && isfinite(v);
}

fm_status_t fm_scale_create(const fm_scale_options_t *opts,
                            const fm_cost_t *cost, fm_scale_t **scale_out,
                            fm_error_t *err)
{
    fm_scale_options_t o = opts ? *opts : (fm_scale_options_t){0};
    fm_scale_t *scale = NULL;

    if (!amount(o.wait_dollars_per_hour) || !amount(o.late_factor) ||
        !amount(o.age_scale_s) || !amount(o.energy_per_kwh) ||
        !amount(o.margin) || !amount(o.keep) || !amount(o.grain_s)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "scale options: a number of 0 or more is needed");
    }
    if (!(scale = fm_calloc(1, sizeof(*scale)))) {
        return fm_no_memory(err);
    }
    o.wait_dollars_per_hour = or_default(o.wait_dollars_per_hour, 2);
    o.late_factor = or_default(o.late_factor, 10);
    o.age_scale_s = or_default(o.age_scale_s, 600);
    o.energy_per_kwh = or_default(o.energy_per_kwh, 0.15);
    o.margin = or_default(o.margin, 0.25);
    o.keep = or_default(o.keep, 1);
    o.grain_s = or_default(o.grain_s, 1);
    scale->opts = o;
    scale->cost = cost;
    scale->wake_ns = INT64_MAX;
    *scale_out = scale;
    return FM_OK;
}

void *fm_scale_destroy(fm_scale_t *scale)
{
    if (scale) {
        for (size_t c = 0; c < scale->memory_count; c++) {
            free(scale->memory[c].since_ns);
        }
        free(scale->memory);
        free(scale);
    }
    return NULL;
}

int64_t fm_scale_wake_ns(const fm_scale_t *scale)
{
    return scale->wake_ns;
}

static fm_status_t check_class(const fm_scale_class_t *c, size_t at,
                               fm_error_t *err)
{
    if (!amount(c->price_per_hour) || !amount(c->watts) ||
        !amount(c->startup_s) || !amount(c->load_bytes_per_s)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "class %zu: price, watts, start-up or load rate "
                            "is not a number of 0 or more",
                            at);
    }
    if (c->min > c->max) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "class %zu: min %u is more than max %u", at, c->min,
                            c->max);
    }
    return FM_OK;
}

static fm_status_t check_demand(const fm_scale_demand_t *r, size_t at,
                                fm_error_t *err)
{
    if (r->items == 0 || r->task_type >= 64) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "demand %zu: %u items of task type %u: at least 1 "
                            "item and a type below 64 are needed",
                            at, r->items, r->task_type);
    }
    if (!(r->item_work > 0) || !isfinite(r->item_work) ||
        !amount(r->model_bytes) || !amount(r->waiters) ||
        !amount(r->ready_in_s)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "demand %zu: work, model bytes, waiters or time "
                            "until ready is not a number of 0 or more",
                            at);
    }
    return FM_OK;
}

static fm_status_t check(const fm_scale_input_t *in, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    if (in->class_count > FM_SCALE_CLASSES_MAX ||
        in->demand_count > FM_SCALE_DEMANDS_MAX ||
        in->worker_count > FM_SCALE_WORKERS_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "%zu classes, %zu demands, %zu workers: at most "
                            "%u, %u and %u",
                            in->class_count, in->demand_count, in->worker_count,
                            FM_SCALE_CLASSES_MAX, FM_SCALE_DEMANDS_MAX,
                            FM_SCALE_WORKERS_MAX);
    }
    for (size_t c = 0; rc == FM_OK && c < in->class_count; c++) {
        rc = check_class(&in->classes[c], c, err);
    }
    for (size_t i = 0; rc == FM_OK && i < in->demand_count; i++) {
        rc = check_demand(&in->demands[i], i, err);
    }
    for (size_t w = 0; rc == FM_OK && w < in->worker_count; w++) {
        const fm_scale_worker_t *worker = &in->workers[w];
        if (worker->class_index >= in->class_count || worker->task_type >= 64 ||
            !amount(worker->at_risk_s)) {
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "worker %u: its class, task type or work at "
                              "risk makes no sense",
                              worker->id);
        }
    }
    return rc;
}

static fm_status_t know_classes(fm_scale_t *scale, size_t count,
                                fm_error_t *err)
{
    if (count <= scale->memory_count) {
        return FM_OK;
    }
    struct memory *more =
        fm_realloc(scale->memory, count, sizeof(*scale->memory));
    if (!more) {
        return fm_no_memory(err);
    }
    for (size_t c = scale->memory_count; c < count; c++) {
        more[c] = (struct memory){0};
    }
    scale->memory = more;
    scale->memory_count = count;
    return FM_OK;
}

bool fm_scale_act(struct decision *d, const fm_scale_action_t *action)
{
    if (d->count >= d->cap) {
        return false;
    }
    d->actions[d->count++] = *action;
    return true;
}

/*
 * A steady overload shows in no single plan: what is queued now would be done
 * before a new worker came, and so it is the next time.  So what queueing has
 * cost and one more worker would have saved is summed up while there is a
 * queue that is not below its mean; when it reaches what a start costs, one is
 * started (ski rental).
 */
static void start_for_queue(struct decision *d, uint32_t class_index,
                            double since_s)
{
    struct fleet_class *class = &d->classes[class_index];
    struct memory *m = &d->scale->memory[class_index];
    double startup_s = class->spec->startup_s + m->load_s;
    double price = class->price_s * startup_s * (1 + d->scale->opts.margin);

    bool grew = m->queue_s > 0 && class->queue_s >= m->queue_s;
    double weight = since_s / (since_s + fmax(startup_s, 1));
    m->queue_s = m->queue_s > 0 && class->queue_s > 0
                     ? m->queue_s + (class->queue_s - m->queue_s) * weight
                     : class->queue_s;
    /* What was started is still to come: nothing more is known by then. */
    if (class->regret_rate <= 0 || class->planned > 0 || class->starting > 0) {
        m->regret = 0;
        return;
    }
    m->regret += grew ? class->regret_rate * since_s : 0;
    if (m->regret < price || class->room == 0 || d->total_room == 0) {
        return;
    }
    class->planned++;
    class->room--;
    d->total_room--;
    class->start.count = 1;
    class->start.reason = FM_SCALE_QUEUE;
    class->start.demand = class->regret_demand;
    class->start.saves_dollars = m->regret;
    class->start.costs_dollars = price / (1 + d->scale->opts.margin);
    m->regret = 0;
}

static void start_for_queues(struct decision *d)
{
    fm_scale_t *scale = d->scale;
    double since_s =
        scale->decided ? ((double)d->in->now_ns - (double)scale->last_ns) * 1e-9
                       : 0;

    since_s = fmin(fmax(since_s, 0), QUEUE_STEP_S);
    for (uint32_t c = 0; c < d->in->class_count; c++) {
        start_for_queue(d, c, since_s);
    }
    scale->last_ns = d->in->now_ns;
    scale->decided = true;
}

static void start(struct decision *d)
{
    for (uint32_t c = 0; c < d->in->class_count; c++) {
        struct fleet_class *class = &d->classes[c];
        fm_scale_action_t action = class->start;
        uint32_t have = class->live + class->planned;
        uint32_t more = class->spec->min > have ? class->spec->min - have : 0;

        more = more < class->room ? more : class->room;
        more = more < d->total_room ? more : d->total_room;
        if (action.count + more == 0) {
            continue;
        }
        if (action.count == 0) {
            action.reason = FM_SCALE_MIN;
            action.demand = FM_SCALE_NONE;
        }
        action.kind = FM_SCALE_START;
        action.class_index = c;
        action.worker = FM_SCALE_NONE;
        action.count += more;
        action.costs_dollars += class->price_s * more * class->spec->startup_s;
        class->room -= more;
        d->total_room -= more;
        (void)fm_scale_act(d, &action);
    }
}

static bool fits_any(const struct decision *d, const fm_scale_demand_t *row)
{
    for (size_t c = 0; c < d->in->class_count; c++) {
        if (fm_scale_fits(&d->in->classes[c], row->task_type, row->device,
                          row->memory_bytes)) {
            return true;
        }
    }
    return false;
}

static void hold(struct decision *d)
{
    for (uint32_t c = 0; c < d->in->class_count; c++) {
        fm_scale_action_t action = d->classes[c].hold;
        if (action.count) {
            action.kind = FM_SCALE_HOLD;
            action.reason = FM_SCALE_MAX;
            action.class_index = c;
            action.worker = FM_SCALE_NONE;
            (void)fm_scale_act(d, &action);
        }
    }
    for (size_t i = 0; i < d->in->demand_count; i++) {
        if (!fits_any(d, &d->in->demands[i])) {
            (void)fm_scale_act(d, &(fm_scale_action_t){
                                      .kind = FM_SCALE_HOLD,
                                      .reason = FM_SCALE_NO_CLASS,
                                      .class_index = FM_SCALE_NONE,
                                      .worker = FM_SCALE_NONE,
                                      .demand = (uint32_t)i,
                                      .waits_s = INFINITY,
                                  });
        }
    }
}

fm_status_t fm_scale_decide(fm_scale_t *scale, const fm_scale_input_t *input,
                            fm_scale_action_t *actions, size_t cap,
                            size_t *count_out, fm_error_t *err)
{
    struct decision d = {
        .scale = scale, .in = input, .actions = actions, .cap = cap};
    fm_status_t rc = check(input, err);

    if (rc < 0 || (rc = know_classes(scale, input->class_count, err)) < 0) {
        return rc;
    }
    scale->wake_ns = INT64_MAX;
    if ((rc = fm_scale_fleet_make(&d, err)) < 0 ||
        (rc = fm_scale_plan(&d, err)) < 0) {
        goto out;
    }
    for (size_t c = 0; c < input->class_count; c++) {
        if (d.classes[c].load_s > 0) {
            scale->memory[c].load_s = d.classes[c].load_s;
        }
    }
    start_for_queues(&d);
    start(&d);
    if ((rc = fm_scale_drain(&d, err)) < 0) {
        goto out;
    }
    hold(&d);
    *count_out = d.count;
out:
    fm_scale_fleet_fini(&d);
    return rc;
}
