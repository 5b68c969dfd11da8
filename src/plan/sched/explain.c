/* SPDX-License-Identifier: Apache-2.0 */
/* Every candidate of a batch, and why it waits. */
#include <math.h>

#include "plan/sched/state.h"

struct table {
    fm_sched_candidate_t *list;
    size_t cap, count;
    struct norms norms;
};

static bool better(const fm_sched_candidate_t *a, const fm_sched_candidate_t *b)
{
    double ua = a->terms.utility;
    double ub = b->terms.utility;

    if (ua > ub || ua < ub) {
        return ua > ub;
    }
    return a->worker < b->worker ||
           (a->worker == b->worker && a->size > b->size);
}

/* Keep the best of them, in order. */
static void insert(struct table *t, const fm_sched_candidate_t *candidate)
{
    size_t at = t->count < t->cap ? t->count : t->cap;

    t->count++;
    if (at == t->cap && (at == 0 || !better(candidate, &t->list[at - 1]))) {
        return;
    }
    at = at == t->cap ? at - 1 : at;
    for (; at > 0 && better(candidate, &t->list[at - 1]); at--) {
        t->list[at] = t->list[at - 1];
    }
    t->list[at] = *candidate;
}

static void add_sizes(const fm_sched_t *s, const struct batch *batch,
                      const struct pool *pool, uint32_t worker, struct table *t)
{
    const struct class *class = &s->classes[pool->class];
    uint32_t cap = fm_sched_cap(batch, class);
    double wait_s = fm_sched_wait_s(s, batch, pool, worker);

    for (uint32_t size = 1; cap > 0; size = size > cap / 2 ? cap : size * 2) {
        fm_sched_candidate_t candidate = {
            .worker = worker,
            .size = size,
            .idle = s->workers[worker].free_at_ns == IDLE &&
                    !s->workers[worker].held};
        fm_sched_terms_make(s, batch, worker, size, wait_s, &candidate.terms);
        if (candidate.terms.survival > 0) {
            if (!isfinite(t->norms.gain)) {
                t->norms = (struct norms){log(candidate.terms.gain),
                                          log(candidate.terms.loss)};
            }
            fm_sched_norms_set(&t->norms, &candidate.terms);
            insert(t, &candidate);
        }
        if (size == cap) {
            break;
        }
    }
}

static bool seen(const fm_sched_t *s, const struct batch *batch, uint32_t id,
                 uint32_t worker)
{
    /* The pools of a class come first: its first worker is listed there. */
    return s->pools[id].kind != POOL_CLASS &&
           fm_sched_pool_pick(s, s->classes[s->pools[id].class].pool, batch) ==
               worker;
}

static void add_pool(const fm_sched_t *s, const struct batch *batch,
                     uint32_t id, struct table *t)
{
    uint32_t worker = fm_sched_pool_pick(s, id, batch);

    if (worker != NONE && !seen(s, batch, id, worker)) {
        add_sizes(s, batch, &s->pools[id], worker, t);
    }
}

static void add_all(const fm_sched_t *s, const struct batch *batch,
                    struct table *t)
{
    for (size_t i = 0; i < s->active_classes.count; i++) {
        add_pool(s, batch, s->classes[s->active_classes.at[i]].pool, t);
    }
    for (uint32_t n = 0; n < batch->need_count; n++) {
        for (uint32_t p = s->models[batch->needs[n].model].pool_first;
             p != NONE; p = s->pools[p].next) {
            add_pool(s, batch, p, t);
        }
    }
    if (batch->domain != NONE) {
        for (uint32_t p = s->domains[batch->domain].pool_first; p != NONE;
             p = s->pools[p].next) {
            add_pool(s, batch, p, t);
        }
    }
}

/* Why a batch that has no idle candidate waits: what rules out the most
 * lenient class, or that its workers are busy. */
static fm_sched_verdict_t
unfit_verdict(const fm_sched_t *s, const struct batch *batch, size_t candidates)
{
    fm_sched_verdict_t verdict = FM_SCHED_WAIT_NO_WORKERS;
    bool fits = false;
    bool room = false;

    for (size_t i = 0; i < s->active_classes.count; i++) {
        const struct class *class = &s->classes[s->active_classes.at[i]];
        fm_sched_verdict_t fit = fm_sched_class_verdict(batch, class);
        verdict = fit > verdict ? fit : verdict;
        if (fit != FM_SCHED_PLACE) {
            continue;
        }
        fits = true;
        for (uint32_t p = class->domain_first; p != NONE && !room;
             p = s->pools[p].class_next) {
            room = s->pools[p].count >= batch->gang;
        }
    }
    if (!fits) {
        return verdict;
    }
    if (candidates == 0) {
        return FM_SCHED_WAIT_WALLTIME;
    }
    if (batch->gang > 1) {
        return room ? FM_SCHED_WAIT_GANG : FM_SCHED_WAIT_NO_GANG;
    }
    return FM_SCHED_WAIT_WORKERS;
}

static fm_sched_verdict_t verdict_of(const fm_sched_t *s, uint32_t slot,
                                     const struct decision *d,
                                     size_t candidates)
{
    const struct batch *batch = &s->batches[slot];

    if (batch->best.pool == NONE) {
        return unfit_verdict(s, batch, candidates);
    }
    if (d->batch == slot) {
        return FM_SCHED_PLACE;
    }
    return batch->wait_check_ns > s->now_ns ? FM_SCHED_WAIT_BUSY
                                            : FM_SCHED_WAIT_TURN;
}

size_t fm_sched_explain(fm_sched_t *s, uint32_t id, int64_t now_ns,
                        fm_sched_candidate_t *list, size_t cap,
                        fm_sched_verdict_t *why)
{
    uint32_t slot = id < s->slots.count ? s->slots.at[id] : NONE;
    struct table t = {.list = list, .cap = cap};
    struct decision d;

    s->now_ns = now_ns > s->now_ns ? now_ns : s->now_ns;
    if (slot == NONE) {
        *why = FM_SCHED_WAIT_NO_WORK;
        return 0;
    }
    fm_sched_decision_make(s, true, &d);
    if (s->batches[slot].stale) {
        fm_sched_batch_refresh(s, slot);
    }
    t.norms = d.norms;
    add_all(s, &s->batches[slot], &t);
    *why = verdict_of(s, slot, &d, t.count);
    for (size_t i = 0; i < t.count && i < cap; i++) {
        list[i].terms.candidates = (uint32_t)t.count;
        if (i + 1 < t.count && i + 1 < cap) {
            list[i].terms.runner_up = list[i + 1].worker;
            list[i].terms.runner_up_utility = list[i + 1].terms.utility;
        }
    }
    return t.count;
}
