/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hardware filters and the estimates of a baseline's task: a whole node on
 * one worker.
 */
#include "plan/place/internal.h"

#define NS_PER_S 1e9
#define RATE_DEFAULT 1e9    /* bytes/s where a worker states none */
#define ENERGY_DEFAULT 0.15 /* dollars a kWh */

uint32_t fm_place_whole_size(const struct task *task, uint32_t ready)
{
    uint32_t most =
        task->needs.whole_max && task->needs.whole_max < FM_POOL_BATCH_MAX
            ? task->needs.whole_max
            : FM_POOL_BATCH_MAX;

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

void fm_place_estimate(const fm_place_t *place, const struct task *task,
                       const fm_pool_batch_t *ready,
                       const fm_sched_worker_t *worker, fm_sched_terms_t *terms)
{
    const fm_place_task_t *needs = &task->needs;
    uint32_t size = fm_place_whole_size(task, ready->ready);
    double work = ready->work / ready->ready * size;
    double energy = place->options.sched.energy_per_kwh;
    bool near = needs->input_domain == FM_SCHED_NONE ||
                needs->input_domain == worker->domain;
    fm_cost_estimate_t run;

    fm_cost_estimate(place->cost, needs->task_class, worker->device_class, work,
                     &run);
    *terms = (fm_sched_terms_t){
        .load_s = load_bytes(task, worker) / (worker->load_bytes_per_s > 0
                                                  ? worker->load_bytes_per_s
                                                  : RATE_DEFAULT),
        .fetch_s = near ? 0
                        : size * needs->item_input_bytes /
                              (worker->fetch_bytes_per_s > 0
                                   ? worker->fetch_bytes_per_s
                                   : RATE_DEFAULT),
        .run_s = run.seconds,
        .work = work,
        .survival = 1,
        .runner_up = FM_SCHED_NONE,
    };
    terms->total_s = terms->load_s + terms->fetch_s + terms->run_s;
    terms->dollars = fm_cost_dollars(terms->total_s, worker->price_per_hour) +
                     fm_cost_joules(terms->total_s, worker->watts) / 3.6e6 *
                         (energy > 0 ? energy : ENERGY_DEFAULT);
}

static fm_sched_verdict_t walltime_fit(const fm_place_t *place,
                                       const struct task *task,
                                       const fm_pool_batch_t *ready,
                                       const fm_sched_worker_t *worker,
                                       int64_t now_ns)
{
    fm_sched_terms_t terms;

    if (worker->walltime_end_ns == 0) {
        return FM_SCHED_PLACE;
    }
    double left_s = (double)(worker->walltime_end_ns - now_ns) / NS_PER_S;
    fm_place_estimate(place, task, ready, worker, &terms);
    return left_s >= terms.total_s || (task->needs.checkpointable && left_s > 0)
               ? FM_SCHED_PLACE
               : FM_SCHED_WAIT_WALLTIME;
}

fm_sched_verdict_t fm_place_fit(const fm_place_t *place,
                                const struct task *task,
                                const fm_pool_batch_t *ready,
                                const struct worker *worker, int64_t now_ns)
{
    const fm_place_task_t *needs = &task->needs;
    const fm_sched_worker_t *is = &worker->is;

    if (!worker->known || is->closed) {
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
    return walltime_fit(place, task, ready, is, now_ns);
}

void fm_place_whole(const fm_place_t *place, const struct task *task,
                    const fm_pool_batch_t *ready, uint32_t worker,
                    fm_place_choice_t *choice)
{
    const fm_sched_worker_t *is = &place->workers[worker].is;

    *choice = (fm_place_choice_t){
        .batch_key = task->key,
        .worker = worker,
        .size = fm_place_whole_size(task, ready->ready),
        .max_nodes = 1,
        .resource = is->device_class,
        .avoid_waived = true,
    };
    fm_place_estimate(place, task, ready, is, &choice->terms);
    choice->seconds = choice->terms.total_s;
    choice->dollars = choice->terms.dollars;
    choice->joules = fm_cost_joules(choice->seconds, is->watts);
}
