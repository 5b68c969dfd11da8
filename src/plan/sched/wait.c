/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Busy workers as candidates.  What is asked for is the last slice of the work
 * that waits for a model: the slices before it keep the holders busy, so one
 * more holder pays as soon as that wait is longer than its load.  Only holders
 * of the candidate's class share that work: those of a class that is turned
 * down take no part of it.
 */
#include <math.h>

#include "plan/sched/state.h"

double fm_sched_wait_s(const fm_sched_t *s, const struct batch *batch,
                       const struct pool *pool, uint32_t id)
{
    const struct worker *worker = &s->workers[id];
    int64_t free_ns =
        worker->held ? s->reservation.expires_ns : worker->free_at_ns;
    uint32_t slice =
        batch->ready < batch->size_max ? batch->ready : batch->size_max;
    bool model = pool->kind == POOL_MODEL;
    double backlog_s = model ? s->models[pool->owner].backlog_s : s->demand_s;
    uint32_t workers = pool->count;

    if (free_ns == IDLE) {
        return 0;
    }
    return fmax((double)(free_ns - s->now_ns) / NS_PER_S, 0) +
           fmax(backlog_s - slice * batch->item_s, 0) / workers;
}

/* The score of a cell after a wait. */
static double score_after(const fm_sched_t *s, const struct batch *batch,
                          uint32_t class, const struct cell *cell,
                          double wait_s)
{
    double total_s = wait_s + cell->busy_s;
    double alive =
        fm_sched_survival(batch, &s->classes[class], total_s, s->now_ns);
    double lambda = s->options.lambda[batch->kind];

    return alive > 0
               ? lambda * log(cell->size * batch->item_s * alive / total_s) -
                     (1 - lambda) * cell->loss
               : -INFINITY;
}

/* Whether the first of a pool is busy and worth more than the score. */
static bool worth_it(fm_sched_t *s, uint32_t slot, uint32_t id, double score,
                     double limit_s, struct later *out)
{
    const struct batch *batch = &s->batches[slot];
    const struct pool *pool = &s->pools[id];
    struct cell room;

    uint32_t worker = fm_sched_pool_pick(s, id, batch);
    if (worker == NONE ||
        (s->workers[worker].free_at_ns == IDLE && !s->workers[worker].held)) {
        return false;
    }
    double wait_s = fm_sched_wait_s(s, batch, pool, worker);
    if (wait_s > limit_s) {
        return false;
    }
    const struct cell *cell =
        pool->kind == POOL_CLASS
            ? fm_sched_cell(s, pool->class, slot, fm_sched_all_missing(batch),
                            batch->domain == NONE, &room)
            : fm_sched_cell_of(s, slot, worker, &room);
    if (cell->score <= score || /* no wait makes it better */
        score_after(s, batch, pool->class, cell, wait_s) <= score) {
        return false;
    }
    *out = (struct later){wait_s, worker};
    return true;
}

static bool any_worth_it(fm_sched_t *s, uint32_t slot, uint32_t first,
                         double score, double limit_s, struct later *out)
{
    for (uint32_t p = first; p != NONE; p = s->pools[p].next) {
        if (worth_it(s, slot, p, score, limit_s, out)) {
            return true;
        }
    }
    return false;
}

bool fm_sched_later_find(fm_sched_t *s, uint32_t slot, double score,
                         double limit_s, struct later *out)
{
    const struct batch *batch = &s->batches[slot];
    bool blind = s->options.no_locality;

    /* The likely ones first. */
    for (uint32_t n = 0; n < batch->need_count && !blind; n++) {
        if (any_worth_it(s, slot, s->models[batch->needs[n].model].pool_first,
                         score, limit_s, out)) {
            return true;
        }
    }
    if (batch->domain != NONE && !blind &&
        any_worth_it(s, slot, s->domains[batch->domain].pool_first, score,
                     limit_s, out)) {
        return true;
    }
    for (size_t i = 0; i < s->active_classes.count; i++) {
        if (worth_it(s, slot, s->classes[s->active_classes.at[i]].pool, score,
                     limit_s, out)) {
            return true;
        }
    }
    return false;
}
