/* SPDX-License-Identifier: Apache-2.0 */
/* The terms of one candidate, and what rules a worker out. */
#include <math.h>

#include "plan/sched/internal.h"

#define NS_PER_S 1e9
#define RATE_DEFAULT 1e9       /* bytes/s where a worker states none */
#define ENERGY_DEFAULT 0.15    /* dollars a kWh */
#define AGE_SCALE_DEFAULT 60.0 /* s */
#define GRAIN_DEFAULT 0.05     /* s */
#define PRIORITY_MAX 100
#define PRIORITY_DOUBLES 25.0    /* so 100 is worth 16 times 0 */
#define DEADLINE_HORIZON_S 600.0 /* a stage with more slack is not urgent */
#define DEADLINE_GAIN 3.0        /* factor 1 far off … 4 when it is due */
#define DEPTH_MAX 32u
#define DEPTH_GAIN 0.1 /* each node that waits below */

static const double lambdas[FM_SCHED_KINDS] = {[FM_SCHED_OTHER] = 0.5,
                                               [FM_SCHED_INFERENCE] = 0.4,
                                               [FM_SCHED_TRAINING] = 0.8};

static double or_default(double value, double fallback)
{
    return value > 0 ? value : fallback;
}

static double deadline_factor(const fm_sched_batch_t *batch, int64_t now_ns)
{
    if (batch->deadline_ns == 0) {
        return 1;
    }
    double slack_s = (double)(batch->deadline_ns - now_ns) / NS_PER_S;
    double stage_s = slack_s / (batch->depth + 1.0);
    double left = fmin(fmax(stage_s / DEADLINE_HORIZON_S, 0), 1);

    return 1 + DEADLINE_GAIN * (1 - left);
}

void fm_sched_view_make(const fm_sched_input_t *input, uint32_t index,
                        struct view *view)
{
    const fm_sched_batch_t *batch = &input->batches[index];
    double age_s = (double)(input->now_ns - batch->oldest_ns) / NS_PER_S;
    int32_t priority = batch->priority;
    uint32_t depth = batch->depth < DEPTH_MAX ? batch->depth : DEPTH_MAX;

    priority = priority > PRIORITY_MAX    ? PRIORITY_MAX
               : priority < -PRIORITY_MAX ? -PRIORITY_MAX
                                          : priority;
    *view = (struct view){
        .input = input,
        .batch = batch,
        .lambda = or_default(input->lambda[batch->kind], lambdas[batch->kind]),
        .energy_per_kwh = or_default(input->energy_per_kwh, ENERGY_DEFAULT),
        .grain_s = or_default(input->grain_s, GRAIN_DEFAULT),
        .share = or_default(batch->share, 1),
        .age = 1 + fmax(age_s, 0) /
                       or_default(input->age_scale_s, AGE_SCALE_DEFAULT),
        .priority = exp2(priority / PRIORITY_DOUBLES),
        .deadline = deadline_factor(batch, input->now_ns),
        .path = 1 + DEPTH_GAIN * depth,
    };
}

bool fm_sched_avoided(const fm_sched_batch_t *batch, uint32_t worker_id)
{
    for (size_t i = 0; i < batch->avoid_count; i++) {
        if (batch->avoid[i] == worker_id) {
            return true;
        }
    }
    return false;
}

fm_sched_verdict_t fm_sched_fit(const struct view *view,
                                const fm_sched_worker_t *worker)
{
    const fm_sched_batch_t *batch = view->batch;

    if (!(worker->task_types >> batch->task_type & 1)) {
        return FM_SCHED_WAIT_TASK_TYPE;
    }
    if (batch->device != FM_SCHED_ANY && batch->device != worker->device) {
        return FM_SCHED_WAIT_DEVICE;
    }
    return fm_sched_size_cap(view, worker, 1) == 0 ? FM_SCHED_WAIT_MEMORY
                                                   : FM_SCHED_PLACE;
}

uint32_t fm_sched_size_cap(const struct view *view,
                           const fm_sched_worker_t *worker, uint32_t ready)
{
    const fm_sched_batch_t *batch = view->batch;
    uint32_t cap = batch->size_max ? batch->size_max : 1;

    cap = ready < cap ? ready : cap;
    if (worker->memory_bytes == 0) {
        return cap;
    }
    if (worker->memory_bytes < batch->memory_bytes) {
        return 0;
    }
    if (batch->item_memory_bytes > 0) {
        uint64_t items = (worker->memory_bytes - batch->memory_bytes) /
                         batch->item_memory_bytes;
        cap = items < cap ? (uint32_t)items : cap;
    }
    return cap;
}

static double load_bytes(const fm_sched_batch_t *batch,
                         const fm_sched_worker_t *worker)
{
    double bytes = 0;

    for (size_t m = 0; m < batch->model_count; m++) {
        bool resident = false;
        for (size_t r = 0; r < worker->resident_count && !resident; r++) {
            resident =
                fm_digest_equal(&batch->models[m].digest, &worker->resident[r]);
        }
        bytes += resident ? 0 : (double)batch->models[m].bytes;
    }
    return bytes;
}

/* Probability to live through total_s; 0 rules the worker out. */
static double survival(const struct view *view, const fm_sched_worker_t *worker,
                       double total_s)
{
    double alive = exp(-worker->hazard_per_hour * total_s / 3600);

    if (worker->walltime_end_ns == 0) {
        return alive;
    }
    double left_s =
        (double)(worker->walltime_end_ns - view->input->now_ns) / NS_PER_S;
    if (left_s >= total_s) {
        return alive;
    }
    /* What is done by then is kept in a checkpoint, or lost. */
    return view->batch->checkpointable && left_s > 0 ? alive * left_s / total_s
                                                     : 0;
}

bool fm_sched_score(const struct view *view, const fm_sched_worker_t *worker,
                    int64_t free_at_ns, uint32_t size, fm_sched_terms_t *terms)
{
    const fm_sched_batch_t *batch = view->batch;
    fm_cost_estimate_t run;
    double work = size * batch->item_work;
    bool near = batch->input_domain == FM_SCHED_NONE ||
                batch->input_domain == worker->domain;

    fm_cost_estimate(view->input->cost, batch->task_class, worker->device_class,
                     work, &run);
    double wait_s = (double)(free_at_ns - view->input->now_ns) / NS_PER_S;
    double load_s = load_bytes(batch, worker) /
                    or_default(worker->load_bytes_per_s, RATE_DEFAULT);
    double fetch_s =
        near ? 0
             : size * batch->item_input_bytes /
                   or_default(worker->fetch_bytes_per_s, RATE_DEFAULT);
    double busy_s = load_s + fetch_s + run.seconds;
    double alive = survival(view, worker, wait_s + busy_s);
    if (alive <= 0) {
        return false;
    }
    *terms = (fm_sched_terms_t){
        .wait_s = wait_s,
        .load_s = load_s,
        .fetch_s = fetch_s,
        .run_s = run.seconds,
        .total_s = wait_s + busy_s,
        .work = work,
        .share = view->share,
        .age = view->age,
        .priority = view->priority,
        .deadline = view->deadline,
        .path = view->path,
        .value = work * view->share * view->age * view->priority *
                 view->deadline * view->path,
        .survival = alive,
        .dollars = fm_cost_dollars(busy_s, worker->price_per_hour) +
                   fm_cost_joules(busy_s, worker->watts) / 3.6e6 *
                       view->energy_per_kwh,
        .lambda = view->lambda,
        .avoid_waived = view->waive,
        .runner_up = FM_SCHED_NONE,
    };
    terms->gain = terms->value * alive / terms->total_s;
    terms->loss = terms->dollars / terms->value;
    return true;
}

double fm_sched_age_bound_s(double ratio, double age_scale_s)
{
    return (fmax(ratio, 1) - 1) * or_default(age_scale_s, AGE_SCALE_DEFAULT);
}
