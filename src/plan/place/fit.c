/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hardware filters and the estimates of a baseline's task: all ready items
 * of a node, on one worker.  Memory rules a worker out where one item does not
 * fit; it does not cut the task, because the executor batches inside.
 */
#include "plan/place/internal.h"

#define NS_PER_S 1e9
#define RATE_DEFAULT 1e9    /* bytes/s where a worker states none */
#define ENERGY_DEFAULT 0.15 /* dollars a kWh */
#define JOULES_PER_KWH 3.6e6

static double or_default(double value, double fallback)
{
    return value > 0 ? value : fallback;
}

uint32_t fm_place_whole_size(const struct task *task, uint32_t ready)
{
    uint32_t most = FM_POOL_BATCH_MAX;

    if (task->needs.whole_max > 0 && task->needs.whole_max < most) {
        most = task->needs.whole_max;
    }
    return ready < most ? ready : most;
}

static double load_bytes(const struct task *task,
                         const fm_sched_worker_t *worker)
{
    double bytes = 0;

    for (size_t m = 0; m < task->needs.model_count; m++) {
        bool resident = false;
        for (size_t r = 0; r < worker->resident_count && !resident; r++) {
            resident =
                fm_digest_equal(&task->models[m].digest, &worker->resident[r]);
        }
        bytes += resident ? 0 : (double)task->models[m].bytes;
    }
    return bytes;
}

void fm_place_estimate(const fm_place_t *place, const struct entry *entry,
                       uint32_t worker, fm_sched_terms_t *terms)
{
    const fm_place_task_t *needs = &entry->task->needs;
    const fm_sched_worker_t *is = &place->workers[worker].is;
    uint32_t size = entry->span;
    bool near = needs->input_domain == FM_SCHED_NONE ||
                needs->input_domain == is->domain;
    fm_cost_estimate_t run;

    *terms = (fm_sched_terms_t){
        .work = entry->ready.work / entry->ready.ready * size,
        .load_s = load_bytes(entry->task, is) /
                  or_default(is->load_bytes_per_s, RATE_DEFAULT),
        .fetch_s = near ? 0
                        : size * needs->item_input_bytes /
                              or_default(is->fetch_bytes_per_s, RATE_DEFAULT),
        .survival = 1,
        .runner_up = FM_SCHED_NONE,
    };
    fm_cost_estimate(place->cost, needs->task_class, is->device_class,
                     terms->work, &run);
    terms->run_s = run.seconds;
    terms->total_s = terms->load_s + terms->fetch_s + terms->run_s;
    double above = is->watts > is->idle_watts ? is->watts - is->idle_watts : 0;
    terms->joules = fm_cost_joules(terms->total_s, above);
    terms->dollars =
        fm_cost_dollars(terms->total_s, is->price_per_hour) +
        terms->joules / JOULES_PER_KWH *
            or_default(place->options.sched.energy_per_kwh, ENERGY_DEFAULT);
}

static bool lives(const fm_place_t *place, const struct entry *entry,
                  uint32_t worker, int64_t now_ns)
{
    const fm_sched_worker_t *is = &place->workers[worker].is;
    fm_sched_terms_t terms;

    if (is->walltime_end_ns == 0) {
        return true;
    }
    double left_s = (double)(is->walltime_end_ns - now_ns) / NS_PER_S;
    if (left_s <= 0 || entry->task->needs.checkpointable) {
        return left_s > 0;
    }
    fm_place_estimate(place, entry, worker, &terms);
    return left_s >= terms.total_s;
}

fm_sched_verdict_t fm_place_fit(const fm_place_t *place,
                                const struct entry *entry, uint32_t worker,
                                int64_t now_ns)
{
    const fm_place_task_t *needs = &entry->task->needs;
    const fm_sched_worker_t *is = &place->workers[worker].is;

    if (!place->workers[worker].known || is->closed) {
        return FM_SCHED_WAIT_NO_WORKERS;
    }
    if (!(is->task_types >> needs->task_type & 1)) {
        return FM_SCHED_WAIT_TASK_TYPE;
    }
    if (needs->device != FM_SCHED_ANY && needs->device != is->device) {
        return FM_SCHED_WAIT_DEVICE;
    }
    if (is->memory_bytes != 0 &&
        (is->memory_bytes < needs->memory_bytes ||
         is->memory_bytes - needs->memory_bytes < needs->item_memory_bytes)) {
        return FM_SCHED_WAIT_MEMORY;
    }
    return lives(place, entry, worker, now_ns) ? FM_SCHED_PLACE
                                               : FM_SCHED_WAIT_WALLTIME;
}

bool fm_place_avoided(const struct entry *entry, uint32_t worker)
{
    for (uint32_t i = 0; i < entry->ready.avoid_count; i++) {
        if (entry->ready.avoid[i] == worker) {
            return true;
        }
    }
    return false;
}

/* Whether a worker fits that is none to avoid, busy ones too. */
static bool others_fit(const fm_place_t *place, const struct entry *entry,
                       int64_t now_ns)
{
    for (uint32_t w = 0; w < place->worker_count; w++) {
        if (!fm_place_avoided(entry, w) &&
            fm_place_fit(place, entry, w, now_ns) == FM_SCHED_PLACE) {
            return true;
        }
    }
    return false;
}

bool fm_place_takes(const fm_place_t *place, const struct entry *entry,
                    uint32_t worker, int64_t now_ns, bool *own_out)
{
    fm_sched_verdict_t fit = fm_place_fit(place, entry, worker, now_ns);

    if (fit != FM_SCHED_PLACE) {
        *own_out = *own_out || fit == FM_SCHED_WAIT_WALLTIME;
        return false;
    }
    if (fm_place_avoided(entry, worker) && others_fit(place, entry, now_ns)) {
        *own_out = true;
        return false;
    }
    return true;
}

uint32_t fm_place_gang(const fm_place_t *place, const struct entry *entry,
                       uint32_t leader, int64_t now_ns,
                       uint32_t workers[FM_SCHED_GANG_MAX])
{
    uint32_t wanted = entry->task->needs.gang ? entry->task->needs.gang : 1;
    const fm_sched_worker_t *is = &place->workers[leader].is;
    uint32_t count = 0;
    bool own = false;

    workers[count++] = leader;
    for (uint32_t w = fm_place_idle_next(place, 0);
         w != NONE && count < wanted && is->domain != FM_SCHED_NONE;
         w = fm_place_idle_next(place, w + 1)) {
        const fm_sched_worker_t *other = &place->workers[w].is;
        if (w != leader && other->domain == is->domain &&
            other->device_class == is->device_class &&
            place->policy->chooser->may_join(place, entry, w) &&
            fm_place_takes(place, entry, w, now_ns, &own)) {
            workers[count++] = w;
        }
    }
    return count;
}

bool fm_place_gang_complete(const fm_place_t *place, const struct entry *entry,
                            uint32_t leader, int64_t now_ns)
{
    uint32_t workers[FM_SCHED_GANG_MAX];
    uint32_t wanted = entry->task->needs.gang;

    return wanted <= 1 ||
           fm_place_gang(place, entry, leader, now_ns, workers) == wanted;
}

bool fm_place_usable(const fm_place_t *place, const struct entry *entry,
                     uint32_t worker, int64_t now_ns, bool *own_out)
{
    return place->policy->chooser->may_join(place, entry, worker) &&
           fm_place_takes(place, entry, worker, now_ns, own_out) &&
           fm_place_gang_complete(place, entry, worker, now_ns);
}
