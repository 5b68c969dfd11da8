/* SPDX-License-Identifier: Apache-2.0 */
/* What a candidate is worth: the terms, and the parts of them that do not
 * depend on the time, kept for each (batch, class). */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "plan/sched/state.h"

#define DEADLINE_HORIZON_S 600.0 /* a stage with more slack is not urgent */
#define DEADLINE_GAIN 3.0        /* factor 1 far off … 4 when it is due */
/* A batch that a walltime cuts short is scored anew when a 64th of what is
 * left has gone. */
#define LEFT_PARTS 64

uint32_t fm_sched_cap(const struct batch *batch, const struct class *class)
{
    uint32_t cap =
        batch->ready < batch->size_max ? batch->ready : batch->size_max;
    uint64_t memory = class->traits.memory_bytes;

    if (!(class->traits.task_types >> batch->task_type & 1) ||
        (batch->device != FM_SCHED_ANY &&
         batch->device != class->traits.device)) {
        return 0;
    }
    if (memory == 0) {
        return cap;
    }
    if (memory < batch->memory_bytes) {
        return 0;
    }
    if (batch->item_memory_bytes > 0) {
        uint64_t items =
            (memory - batch->memory_bytes) / batch->item_memory_bytes;
        cap = items < cap ? (uint32_t)items : cap;
    }
    return cap;
}

fm_sched_verdict_t fm_sched_class_verdict(const struct batch *batch,
                                          const struct class *class)
{
    if (!(class->traits.task_types >> batch->task_type & 1)) {
        return FM_SCHED_WAIT_TASK_TYPE;
    }
    if (batch->device != FM_SCHED_ANY &&
        batch->device != class->traits.device) {
        return FM_SCHED_WAIT_DEVICE;
    }
    return fm_sched_cap(batch, class) == 0 ? FM_SCHED_WAIT_MEMORY
                                           : FM_SCHED_PLACE;
}

double fm_sched_run_s(const fm_sched_t *s, const struct batch *batch,
                      const struct class *class, uint32_t size)
{
    fm_cost_estimate_t run;

    fm_cost_estimate(s->cost, batch->task_class, class->traits.device_class,
                     size * batch->item_work, &run);
    return run.seconds;
}

uint32_t fm_sched_all_missing(const struct batch *batch)
{
    return (1u << batch->need_count) - 1; /* FM_SCHED_MODELS_MAX < 32 */
}

uint32_t fm_sched_missing(const fm_sched_t *s, const struct batch *batch,
                          uint32_t id)
{
    const struct worker *worker = &s->workers[id];
    uint32_t missing = fm_sched_all_missing(batch);

    for (uint32_t n = 0; n < batch->need_count; n++) {
        for (uint32_t i = 0; i < worker->model_count; i++) {
            if (worker->models[i] == batch->needs[n].model) {
                missing &= ~(1u << n);
                break;
            }
        }
    }
    return missing;
}

bool fm_sched_near(const fm_sched_t *s, const struct batch *batch, uint32_t id)
{
    return batch->domain == NONE || batch->domain == s->workers[id].domain;
}

double fm_sched_load_s(const struct batch *batch, const struct class *class,
                       uint32_t missing)
{
    double bytes = 0;

    for (uint32_t n = 0; n < batch->need_count; n++) {
        bytes += missing >> n & 1 ? (double)batch->needs[n].bytes : 0;
    }
    return bytes / class->traits.load;
}

double fm_sched_fetch_s(const struct batch *batch, const struct class *class,
                        bool near, uint32_t size)
{
    return near ? 0 : size * batch->item_input_bytes / class->traits.fetch;
}

/* Probability to live through total_s; 0 rules the worker out. */
double fm_sched_survival(const struct batch *batch, const struct class *class,
                         double total_s, int64_t now_ns)
{
    double hazard = class->traits.hazard;
    double alive = hazard > 0 ? exp(-hazard * total_s / 3600) : 1;

    if (class->traits.end_ns == 0) {
        return alive;
    }
    double left_s = (double)(class->traits.end_ns - now_ns) / NS_PER_S;
    if (left_s >= total_s) {
        return alive;
    }
    /* What is done by then is kept in a checkpoint, or lost. */
    return batch->checkpointable && left_s > 0 ? alive * left_s / total_s : 0;
}

/* Until when a cell holds whose T is busy_s. */
static int64_t cell_until(const struct class *class, double busy_s,
                          int64_t now_ns)
{
    int64_t end_ns = class->traits.end_ns;

    if (end_ns == 0) {
        return INT64_MAX;
    }
    double left_ns = (double)(end_ns - now_ns);
    return busy_s * NS_PER_S <= left_ns
               ? end_ns - (int64_t)(busy_s * NS_PER_S)
               : now_ns + (int64_t)(left_ns / LEFT_PARTS) + 1;
}

static void cell_try(const fm_sched_t *s, const struct batch *batch,
                     const struct class *class, double load_s, bool near,
                     uint32_t size, struct cell *cell)
{
    double busy_s = load_s + fm_sched_fetch_s(batch, class, near, size) +
                    fm_sched_run_s(s, batch, class, size);
    double alive = fm_sched_survival(batch, class, busy_s, s->now_ns);
    double lambda = s->options.lambda[batch->kind];

    if (alive <= 0) {
        return;
    }
    double work = log(size * batch->item_s);
    double gain = work + log(alive / busy_s);
    double loss = log(class->rate_min * batch->gang * busy_s) - work;
    double score = lambda * gain - (1 - lambda) * loss;
    if (score > cell->score) {
        *cell = (struct cell){.score = score,
                              .gain = gain,
                              .loss = loss,
                              .busy_s = busy_s,
                              .until_ns = cell_until(class, busy_s, s->now_ns),
                              .size = size};
    }
}

/* The size that is worth most, of the powers of two and the cap.  Where
 * nothing can kill the batch that is the cap: T / V falls with the size. */
static void cell_fill(const fm_sched_t *s, const struct batch *batch,
                      const struct class *class, uint32_t missing, bool near,
                      struct cell *cell)
{
    uint32_t cap = fm_sched_cap(batch, class);
    double load_s = fm_sched_load_s(batch, class, missing);

    *cell = (struct cell){.score = -INFINITY, .until_ns = INT64_MAX};
    if (cap == 0) {
        return;
    }
    cell_try(s, batch, class, load_s, near, cap, cell);
    if (class->traits.hazard > 0 || class->traits.end_ns != 0) {
        for (uint32_t size = 1; size < cap && size != 0; size *= 2) {
            cell_try(s, batch, class, load_s, near, size, cell);
        }
    }
}

const struct cell *fm_sched_cell(fm_sched_t *s, uint32_t class, uint32_t slot,
                                 uint32_t missing, bool near, struct cell *room)
{
    struct class *c = &s->classes[class];
    const struct batch *batch = &s->batches[slot];
    struct cell *cell = room;

    if (missing < MASKS) {
        struct cell **cells = &c->cells[missing + (near ? MASKS : 0)];
        if (!*cells) {
            *cells = fm_calloc(s->batch_capacity, sizeof(**cells));
        }
        /* Out of memory: it is not kept. */
        cell = *cells ? &(*cells)[slot] : room;
        if (*cells && cell->stamp == batch->version &&
            cell->until_ns > s->now_ns) {
            return cell;
        }
    }
    cell_fill(s, batch, c, missing, near, cell);
    cell->stamp = batch->version;
    return cell;
}

const struct cell *fm_sched_cell_of(fm_sched_t *s, uint32_t slot, uint32_t id,
                                    struct cell *room)
{
    const struct batch *batch = &s->batches[slot];
    bool blind = s->options.no_locality;
    uint32_t missing =
        blind ? fm_sched_all_missing(batch) : fm_sched_missing(s, batch, id);
    bool near = blind ? batch->domain == NONE : fm_sched_near(s, batch, id);

    return fm_sched_cell(s, s->workers[id].class, slot, missing, near, room);
}

/* --- urgency ------------------------------------------------------------- */

static double age_factor(const fm_sched_t *s, const struct batch *batch)
{
    double age_s = (double)(s->now_ns - batch->oldest_ns) / NS_PER_S;

    return 1 + (age_s > 0 ? age_s / s->options.age_scale_s : 0);
}

static double deadline_factor(const fm_sched_t *s, const struct batch *batch)
{
    if (batch->deadline_ns == 0) {
        return 1;
    }
    double slack_s = (double)(batch->deadline_ns - s->now_ns) / NS_PER_S;
    double stage_s = slack_s / batch->stages;
    double left = fmin(fmax(stage_s / DEADLINE_HORIZON_S, 0), 1);

    return 1 + DEADLINE_GAIN * (1 - left);
}

static double share_ln(const fm_sched_t *s, const struct batch *batch)
{
    return batch->tenant < s->share_count && !s->options.no_fair_share
               ? s->shares[batch->tenant]
               : 0;
}

double fm_sched_urgency(const fm_sched_t *s, const struct batch *batch)
{
    return batch->urgency + share_ln(s, batch) +
           log(age_factor(s, batch) * deadline_factor(s, batch));
}

/* --- terms --------------------------------------------------------------- */

void fm_sched_terms_make(const fm_sched_t *s, const struct batch *batch,
                         uint32_t worker, uint32_t size, double wait_s,
                         fm_sched_terms_t *terms)
{
    const struct class *class = &s->classes[s->workers[worker].class];
    double load_s =
        fm_sched_load_s(batch, class, fm_sched_missing(s, batch, worker));
    double fetch_s =
        fm_sched_fetch_s(batch, class, fm_sched_near(s, batch, worker), size);
    double run_s = fm_sched_run_s(s, batch, class, size);
    double busy_s = load_s + fetch_s + run_s;
    double urgency = fm_sched_urgency(s, batch);
    double work = size * batch->item_s;

    *terms = (fm_sched_terms_t){
        .wait_s = wait_s,
        .load_s = load_s,
        .fetch_s = fetch_s,
        .run_s = run_s,
        .total_s = wait_s + busy_s,
        .work = work,
        .share = exp(share_ln(s, batch)),
        .age = age_factor(s, batch),
        .priority = exp2(batch->priority / 25.0),
        .deadline = deadline_factor(s, batch),
        .path = 1 + 0.1 * batch->depth,
        .value = work * exp(urgency),
        .survival = fm_sched_survival(batch, class, wait_s + busy_s, s->now_ns),
        .dollars = class->rate * batch->gang * busy_s,
        .joules = class->traits.watts * batch->gang * busy_s,
        .lambda = s->options.lambda[batch->kind],
        .avoid_waived = batch->waive,
        .runner_up = NONE,
        .classes = (uint32_t)s->active_classes.count,
    };
    terms->gain = terms->value * terms->survival / terms->total_s;
    terms->loss = class->rate_min * batch->gang * busy_s / terms->value;
}

void fm_sched_norms_set(const struct norms *norms, fm_sched_terms_t *terms)
{
    terms->gain_norm = log(terms->gain) - norms->gain;
    terms->loss_norm = log(terms->loss) - norms->loss;
    terms->utility = terms->lambda * terms->gain_norm -
                     (1 - terms->lambda) * terms->loss_norm;
}
