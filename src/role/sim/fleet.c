/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers: started, ready, lost, repaired, drained; what they have loaded.
 *
 * Each worker draws its failures from a generator of its own, so that two
 * policies meet the same failures.  A worker is paid from its start (start-up
 * included) until it is gone; while it is away it costs nothing.
 */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "role/sim/internal.h"

static double exponential(fm_rng_t *rng, double mean_s)
{
    return -mean_s * log(1.0 - fm_rng_uniform(rng));
}

struct usage *fm_sim_usage(struct sim *sim, uint32_t class_index)
{
    struct usage *usage = &sim->usage[class_index];
    double seconds = seconds_of(sim->now_ns - usage->at_ns);

    usage->up_s += usage->up * seconds;
    usage->busy_s += usage->busy * seconds;
    usage->at_ns = sim->now_ns;
    return usage;
}

/* --- what is loaded
 * ----------------------------------------------------------- */

static void resident_remove(struct worker *at, uint32_t i)
{
    at->resident_bytes -= at->residents[i].bytes;
    at->resident_count--;
    at->objects[i] = at->objects[at->resident_count];
    at->residents[i] = at->residents[at->resident_count];
}

static fm_status_t resident_add(struct worker *at, const fm_digest_t *object,
                                uint64_t bytes, fm_error_t *err)
{
    if (at->resident_count == at->resident_capacity) {
        uint32_t capacity =
            at->resident_capacity ? at->resident_capacity * 2 : 4;
        fm_digest_t *objects;
        struct resident *residents;

        if (!(objects = fm_realloc(at->objects, capacity, sizeof(*objects)))) {
            return fm_no_memory(err);
        }
        at->objects = objects;
        if (!(residents =
                  fm_realloc(at->residents, capacity, sizeof(*residents)))) {
            return fm_no_memory(err);
        }
        at->residents = residents;
        at->resident_capacity = capacity;
    }
    at->objects[at->resident_count] = *object;
    at->residents[at->resident_count] = (struct resident){bytes, at->lease.id};
    at->resident_count++;
    at->resident_bytes += bytes;
    return FM_OK;
}

fm_status_t fm_sim_touch(struct sim *sim, uint32_t worker,
                         const fm_digest_t *object, uint64_t bytes,
                         bool *was_there, fm_error_t *err)
{
    struct worker *at = &sim->workers[worker];

    for (uint32_t i = 0; i < at->resident_count; i++) {
        if (fm_digest_equal(&at->objects[i], object)) {
            at->residents[i].used = at->lease.id;
            *was_there = true;
            return FM_OK;
        }
    }
    *was_there = false;
    return resident_add(at, object, bytes, err);
}

uint32_t fm_sim_evict(struct sim *sim, uint32_t worker, uint64_t need_bytes)
{
    struct worker *at = &sim->workers[worker];
    uint64_t memory = sim->classes[at->class_index].memory_bytes, in_use = 0;
    uint32_t evicted = 0;

    for (uint32_t i = 0; i < at->resident_count; i++) {
        in_use +=
            at->residents[i].used == at->lease.id ? at->residents[i].bytes : 0;
    }
    need_bytes = need_bytes > in_use ? need_bytes : in_use;
    while (at->resident_count > 0 &&
           ((memory > 0 && at->resident_bytes - in_use + need_bytes > memory) ||
            at->resident_count > FM_SIM_RESIDENT_MAX)) {
        uint32_t oldest = NONE;

        for (uint32_t i = 0; i < at->resident_count; i++) {
            if (at->residents[i].used != at->lease.id &&
                (oldest == NONE ||
                 at->residents[i].used < at->residents[oldest].used)) {
                oldest = i;
            }
        }
        if (oldest == NONE) {
            break; /* what runs now fits by itself, or it was not placed */
        }
        resident_remove(at, oldest);
        evicted++;
    }
    return evicted;
}

/* --- plan/place
 * ----------------------------------------------------------------- */

fm_status_t fm_sim_worker_tell(struct sim *sim, uint32_t worker,
                               fm_error_t *err)
{
    const struct worker *at = &sim->workers[worker];
    const fm_sim_class_t *class = &sim->classes[at->class_index];
    double hazard = class->hazard_per_hour;
    fm_status_t rc;

    hazard += sim->failures.preempt_mean_s > 0
                  ? 3600 / sim->failures.preempt_mean_s
                  : 0;
    hazard += sim->failures.node_loss_mean_s > 0
                  ? 3600 / sim->failures.node_loss_mean_s
                  : 0;
    rc = fm_place_worker_put(
        sim->place,
        &(fm_sched_worker_t){
            .id = worker,
            .device_class = sim->device_classes[at->class_index],
            .device = class->device,
            .task_types = class->task_types,
            .memory_bytes = class->memory_bytes,
            .free_at_ns = at->lease.id ? at->lease.begin_ns +
                                             fm_sim_ns(at->lease.expected_s)
                                       : INT64_MIN,
            .closed = at->draining || at->warned,
            .resident = at->objects,
            .resident_count = at->resident_count,
            .domain = at->domain,
            .walltime_end_ns = at->walltime_end_ns,
            .price_per_hour = class->price_per_hour,
            .watts = class->watts,
            .idle_watts = class->idle_watts,
            .hazard_per_hour = hazard,
            .load_bytes_per_s = class->load_bytes_per_s,
            .fetch_bytes_per_s = class->fetch_bytes_per_s,
        },
        err);
    sim->changed = true;
    return rc;
}

/* --- life
 * ------------------------------------------------------------------------ */

fm_status_t fm_sim_worker_start(struct sim *sim, uint32_t worker,
                                fm_error_t *err)
{
    struct worker *at = &sim->workers[worker];
    struct usage *usage = fm_sim_usage(sim, at->class_index);
    double startup_s = sim->classes[at->class_index].startup_s;

    at->state = WORKER_STARTING;
    at->life++;
    at->draining = at->warned = false;
    at->up_ns = sim->now_ns;
    at->ready_ns = sim->now_ns + fm_sim_ns(startup_s);
    usage->up++;
    usage->peak = usage->up > usage->peak ? usage->up : usage->peak;
    sim->coming++;
    return fm_sim_at(sim, at->ready_ns, EVENT_READY, worker, at->life, err);
}

/* When this life is going to end, as far as nature decides. */
static fm_status_t doom(struct sim *sim, uint32_t worker, fm_error_t *err)
{
    struct worker *at = &sim->workers[worker];
    const fm_sim_class_t *class = &sim->classes[at->class_index];
    const fm_sim_failures_t *failures = &sim->failures;
    double rate = class->hazard_per_hour / 3600;
    fm_status_t rc = FM_OK;

    rate += failures->preempt_mean_s > 0 ? 1 / failures->preempt_mean_s : 0;
    if (rate > 0) {
        double end_s = exponential(&at->rng, 1 / rate);
        double warn_s = fmax(0, end_s - failures->warning_s);

        if (failures->warning_s > 0) {
            rc = fm_sim_at(sim, sim->now_ns + fm_sim_ns(warn_s), EVENT_WARN,
                           worker, at->life, err);
        }
        if (rc == FM_OK) {
            rc = fm_sim_at(sim, sim->now_ns + fm_sim_ns(end_s), EVENT_PREEMPT,
                           worker, at->life, err);
        }
    }
    if (rc == FM_OK && at->flaps) {
        rc = fm_sim_at(
            sim,
            sim->now_ns + fm_sim_ns(exponential(&at->rng, failures->flap_up_s)),
            EVENT_FLAP, worker, at->life, err);
    }
    if (rc == FM_OK && class->walltime_s > 0) {
        at->walltime_end_ns = sim->now_ns + fm_sim_ns(class->walltime_s);
        rc = fm_sim_at(sim, at->walltime_end_ns, EVENT_WALL, worker, at->life,
                       err);
    }
    return rc;
}

static void capacity_tell(struct sim *sim, uint32_t class_index)
{
    fm_tenants_capacity(sim->tenants, sim->device_classes[class_index],
                        sim->usage[class_index].ready);
}

fm_status_t fm_sim_worker_ready(struct sim *sim, uint32_t worker,
                                fm_error_t *err)
{
    struct worker *at = &sim->workers[worker];
    fm_status_t rc;

    at->state = WORKER_UP;
    at->ready_ns = at->idle_ns = sim->now_ns;
    sim->coming--;
    sim->usage[at->class_index].ready++;
    if ((rc = doom(sim, worker, err)) < 0 ||
        (rc = fm_sim_worker_tell(sim, worker, err)) < 0) {
        return rc;
    }
    fm_place_worker_busy(sim->place, worker, INT64_MIN);
    capacity_tell(sim, at->class_index);
    return FM_OK;
}

/* Gone, with whatever it ran and had loaded; back after @p away_s, where the
 * fleet is fixed. */
static fm_status_t worker_gone(struct sim *sim, uint32_t worker,
                               fm_pool_lease_end_t how, bool saved,
                               double away_s, fm_error_t *err)
{
    struct worker *at = &sim->workers[worker];
    struct usage *usage = fm_sim_usage(sim, at->class_index);
    bool starting = at->state == WORKER_STARTING;
    fm_status_t rc;

    at->state = WORKER_OFF;
    at->life++;
    usage->up--;
    if (starting) {
        sim->coming--;
    } else {
        usage->ready--;
        fm_place_worker_drop(sim->place, worker);
        capacity_tell(sim, at->class_index);
    }
    if ((rc = fm_sim_cut(sim, worker, how, saved, err)) < 0) {
        return rc;
    }
    at->resident_count = 0;
    at->resident_bytes = 0;
    at->walltime_end_ns = 0;
    sim->changed = true;
    if (sim->elastic) {
        return FM_OK;
    }
    sim->coming++;
    return fm_sim_at(sim, sim->now_ns + fm_sim_ns(away_s), EVENT_START, worker,
                     at->life, err);
}

fm_status_t fm_sim_worker_idle(struct sim *sim, uint32_t worker,
                               fm_error_t *err)
{
    struct worker *at = &sim->workers[worker];

    sim->changed = true;
    if (at->draining) {
        return worker_gone(sim, worker, FM_POOL_END_DRAINED, true, 0, err);
    }
    fm_place_worker_busy(sim->place, worker, INT64_MIN);
    return FM_OK;
}

fm_status_t fm_sim_worker_drain(struct sim *sim, uint32_t worker, bool now,
                                fm_error_t *err)
{
    struct worker *at = &sim->workers[worker];

    sim->metrics.result.drains++;
    at->draining = true;
    if (now || at->state == WORKER_STARTING || at->lease.id == 0) {
        return worker_gone(sim, worker, FM_POOL_END_DRAINED, true, 0, err);
    }
    return fm_sim_worker_tell(sim, worker, err);
}

fm_status_t fm_sim_domain_arm(struct sim *sim, uint32_t domain, fm_error_t *err)
{
    double mean_s = sim->failures.node_loss_mean_s;

    if (mean_s <= 0) {
        return FM_OK;
    }
    return fm_sim_at(
        sim,
        sim->now_ns + fm_sim_ns(exponential(&sim->domains[domain].rng, mean_s)),
        EVENT_LOSS, domain, 0, err);
}

static fm_status_t domain_lost(struct sim *sim, uint32_t domain,
                               fm_error_t *err)
{
    const struct domain *at = &sim->domains[domain];
    bool hit = false;
    fm_status_t rc = FM_OK;

    for (uint32_t w = at->first; w < at->first + at->count && rc == FM_OK;
         w++) {
        if (sim->workers[w].state != WORKER_OFF) {
            hit = true;
            rc = worker_gone(sim, w, FM_POOL_END_FAULT, false,
                             sim->failures.repair_s, err);
        }
    }
    sim->metrics.result.losses += hit;
    return rc < 0 ? rc : fm_sim_domain_arm(sim, domain, err);
}

static fm_status_t warned(struct sim *sim, uint32_t worker, fm_error_t *err)
{
    sim->workers[worker].warned = true;
    return fm_sim_worker_tell(sim, worker, err);
}

fm_status_t fm_sim_fleet_event(struct sim *sim, const struct event *event,
                               fm_error_t *err)
{
    const fm_sim_failures_t *failures = &sim->failures;
    struct worker *at;
    double away_s;

    if (event->kind == EVENT_LOSS) {
        return domain_lost(sim, event->id, err);
    }
    at = &sim->workers[event->id];
    if (event->generation != at->life) {
        return FM_OK;
    }
    switch (event->kind) {
    case EVENT_READY:
        return fm_sim_worker_ready(sim, event->id, err);
    case EVENT_START:
        sim->coming--;
        return fm_sim_worker_start(sim, event->id, err);
    case EVENT_WARN:
        return warned(sim, event->id, err);
    case EVENT_PREEMPT: {
        bool told = failures->warning_s > 0;

        sim->metrics.result.preemptions++;
        return worker_gone(sim, event->id,
                           told ? FM_POOL_END_DRAINED : FM_POOL_END_FAULT, told,
                           failures->repair_s, err);
    }
    case EVENT_FLAP:
        sim->metrics.result.losses++;
        away_s = exponential(&at->rng, failures->flap_down_s);
        return worker_gone(sim, event->id, FM_POOL_END_FAULT, false, away_s,
                           err);
    case EVENT_WALL:
        sim->metrics.result.walltimes++;
        return worker_gone(sim, event->id, FM_POOL_END_DRAINED, true, 0, err);
    case EVENT_ARRIVE:
    case EVENT_PART:
    case EVENT_LOSS:
    case EVENT_SCALE:
    case EVENT_WAKE:
        break;
    }
    return fm_error_set(err, FM_ERR_INTERNAL, "event %u is no worker's",
                        (unsigned)event->kind);
}
