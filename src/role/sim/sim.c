/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run: events in order of time; after all events of one moment, and only
 * if something changed, plan/place is asked for leases.
 */
#include <math.h>

#include "base/mem.h"
#include "role/sim/internal.h"

/* Nothing ran for so long, and workers come and go: nothing ever will. */
#define IDLE_LIMIT_S 86400.0

int64_t fm_sim_ns(double seconds)
{
    double ns = seconds * NS;

    if (!(ns > 0)) {
        return 0;
    }
    return ns < 4e18 ? (int64_t)llround(ns) : INT64_C(4000000000000000000);
}

fm_status_t fm_sim_at(struct sim *sim, int64_t at_ns, enum event_kind kind,
                      uint32_t id, uint32_t generation, fm_error_t *err)
{
    return fm_sim_queue_push(
        &sim->queue,
        (struct event){
            .at_ns = at_ns, .kind = kind, .id = id, .generation = generation},
        err);
}

int64_t fm_sim_clock(const struct sim *sim)
{
    return sim->input->clock_ns ? sim->input->clock_ns(sim->input->clock_ctx)
                                : 0;
}

fm_status_t fm_sim_event(struct sim *sim, const fm_pool_event_t *event,
                         fm_error_t *err)
{
    int64_t start_ns = fm_sim_clock(sim);
    bool changes = false;
    fm_status_t rc = fm_pool_check(sim->pool, event, &changes, err);

    if (rc == FM_OK && changes) {
        rc = fm_pool_apply(sim->pool, event, err);
        sim->changed = true;
    }
    sim->plan_ns += fm_sim_clock(sim) - start_ns;
    return rc;
}

static fm_status_t handle(struct sim *sim, const struct event *event,
                          fm_error_t *err)
{
    switch (event->kind) {
    case EVENT_ARRIVE:
        return fm_sim_arrive(sim, err);
    case EVENT_PART:
        return event->generation == sim->workers[event->id].generation
                   ? fm_sim_part(sim, event->id, err)
                   : FM_OK;
    case EVENT_SCALE:
        return fm_sim_elastic(sim, err);
    case EVENT_WAKE:
        if (event->at_ns == sim->wake_ns) {
            sim->wake_ns = INT64_MAX;
        }
        sim->changed = true;
        return FM_OK;
    case EVENT_READY:
    case EVENT_START:
    case EVENT_WARN:
    case EVENT_PREEMPT:
    case EVENT_FLAP:
    case EVENT_WALL:
    case EVENT_LOSS:
        break;
    }
    return fm_sim_fleet_event(sim, event, err);
}

/* All events of the next moment. */
static fm_status_t moment(struct sim *sim, fm_error_t *err)
{
    int64_t at_ns = fm_sim_queue_next_ns(&sim->queue);
    struct event event;
    fm_status_t rc = FM_OK;

    fm_sim_timeline(sim, at_ns);
    sim->now_ns = at_ns;
    while (rc == FM_OK && fm_sim_queue_next_ns(&sim->queue) == at_ns) {
        (void)fm_sim_queue_pop(&sim->queue, &event);
        sim->metrics.result.events++;
        rc = handle(sim, &event, err);
        if (rc == FM_OK) {
            rc = fm_sim_notices(sim, err);
        }
    }
    if (rc == FM_OK && sim->changed) {
        sim->changed = false;
        rc = fm_sim_place_all(sim, err);
        if (rc == FM_OK) {
            rc = fm_sim_notices(sim, err);
        }
    }
    return rc;
}

/* Whether something can still happen that ends a workflow: without work in
 * hand, workers on their way, arrivals or a fleet that decides, waiting is for
 * ever. */
static bool goes_on(const struct sim *sim)
{
    if ((!sim->more && sim->live == 0) ||
        fm_sim_queue_next_ns(&sim->queue) > sim->horizon_ns) {
        return false;
    }
    if (sim->more || sim->leased > 0) {
        return true;
    }
    return (sim->coming > 0 || sim->wake_ns != INT64_MAX || sim->elastic) &&
           sim->now_ns - sim->busy_ns < fm_sim_ns(IDLE_LIMIT_S);
}

static fm_status_t run(struct sim *sim, fm_error_t *err)
{
    fm_status_t rc;

    if ((rc = fm_sim_source_next(sim, err)) < 0) {
        return rc;
    }
    while (rc == FM_OK && goes_on(sim)) {
        rc = moment(sim, err);
    }
    return rc;
}

fm_status_t fm_sim_run(const fm_sim_input_t *input, fm_sim_result_t *out,
                       fm_error_t *err)
{
    struct sim *sim = fm_calloc(1, sizeof(*sim));
    fm_status_t rc;

    if (!sim) {
        return fm_no_memory(err);
    }
    if ((rc = fm_sim_setup(sim, input, err)) == FM_OK &&
        (rc = run(sim, err)) == FM_OK) {
        rc = fm_sim_result(sim, out, err);
    }
    fm_sim_teardown(sim);
    return rc;
}
