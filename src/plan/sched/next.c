/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decision: bring every batch's best idle candidate up to date, which
 * looks only at what changed, then one pass over the batches.
 */
#include <math.h>

#include "base/mem.h"
#include "plan/sched/state.h"

#define FLIPS_MAX 8u /* classes offered one by one; more: all is looked at */
#define SWEEP 8u     /* batches whose estimates are taken anew, a decision */
/* A batch that waits looks again after an 8th of the wait, in these bounds. */
#define CHECK_PARTS 8
#define CHECK_MIN_S 0.01
#define CHECK_MAX_S 1.0

/* --- best idle candidates ------------------------------------------------ */

static void best_set(struct batch *batch, uint32_t pool, uint32_t worker,
                     const struct cell *cell)
{
    batch->best = (struct best){.score = cell->score,
                                .gain = cell->gain,
                                .loss = cell->loss,
                                .busy_s = cell->busy_s,
                                .until_ns = cell->until_ns,
                                .pool = pool,
                                .worker = worker,
                                .size = cell->size};
}

/* What any idle worker of a class gives: nothing resident, nothing near. */
static const struct cell *plain_cell(fm_sched_t *s, uint32_t class,
                                     uint32_t slot, struct cell *room)
{
    const struct batch *batch = &s->batches[slot];

    return fm_sched_cell(s, class, slot, fm_sched_all_missing(batch),
                         batch->domain == NONE, room);
}

/* Take the first idle worker of a pool where it is better than the best, which
 * may be a bound. */
static void consider(fm_sched_t *s, uint32_t slot, uint32_t id)
{
    struct batch *batch = &s->batches[slot];
    const struct pool *pool = &s->pools[id];
    struct cell room;

    if (pool->idle == 0) {
        return;
    }
    uint32_t worker =
        batch->restless ? fm_sched_pool_pick(s, id, batch) : pool->top;
    if (worker == NONE || s->workers[worker].free_at_ns != IDLE ||
        s->workers[worker].held) {
        return;
    }
    const struct cell *cell = pool->kind == POOL_CLASS
                                  ? plain_cell(s, pool->class, slot, &room)
                                  : fm_sched_cell_of(s, slot, worker, &room);
    if (cell->score > batch->best.score ||
        (batch->stale && cell->score >= batch->best.score)) {
        best_set(batch, id, worker, cell);
        batch->stale = false;
    }
}

static void consider_all(fm_sched_t *s, uint32_t slot,
                         const struct model *model)
{
    for (uint32_t p = model->idle > 0 ? model->pool_first : NONE; p != NONE;
         p = s->pools[p].next) {
        consider(s, slot, p);
    }
}

/* Avoid nobody where everybody that fits is to be avoided. */
static bool waive(const fm_sched_t *s, const struct batch *batch)
{
    uint32_t avoided = 0;
    uint32_t fitting = 0;

    for (uint32_t i = 0; i < batch->avoid_count; i++) {
        uint32_t id = batch->avoid[i];
        avoided += id < s->worker_capacity && s->workers[id].class != NONE &&
                   fm_sched_cap(batch, &s->classes[s->workers[id].class]) > 0;
    }
    for (size_t i = 0; avoided > 0 && i < s->active_classes.count; i++) {
        const struct class *class = &s->classes[s->active_classes.at[i]];
        fitting +=
            fm_sched_cap(batch, class) > 0 ? s->pools[class->pool].count : 0;
    }
    return avoided > 0 && avoided == fitting;
}

static void gang_refresh(fm_sched_t *s, uint32_t slot)
{
    struct batch *batch = &s->batches[slot];
    struct cell room;

    for (size_t i = 0; i < s->idle_classes.count; i++) {
        uint32_t class = s->idle_classes.at[i];
        uint32_t pool = fm_sched_gang_pool(s, batch, class);
        if (pool == NONE) {
            continue;
        }
        const struct cell *cell =
            fm_sched_cell_of(s, slot, s->pools[pool].top, &room);
        if (cell->score > batch->best.score) {
            best_set(batch, pool, s->pools[pool].top, cell);
        }
    }
}

void fm_sched_batch_refresh(fm_sched_t *s, uint32_t slot)
{
    struct batch *batch = &s->batches[slot];

    batch->best =
        (struct best){.score = -INFINITY, .pool = NONE, .until_ns = INT64_MAX};
    batch->stale = false;
    batch->waive = batch->avoid_count > 0 && waive(s, batch);
    if (batch->gang > 1) {
        gang_refresh(s, slot);
        return;
    }
    for (size_t i = 0; i < s->idle_classes.count; i++) {
        consider(s, slot, s->classes[s->idle_classes.at[i]].pool);
    }
    if (s->options.no_locality) {
        return;
    }
    for (uint32_t n = 0; n < batch->need_count; n++) {
        consider_all(s, slot, &s->models[batch->needs[n].model]);
    }
    if (batch->domain != NONE) {
        consider_all(s, slot, &s->domains[batch->domain]);
    }
}

/* Another worker, or none, is first among the idle of a pool.  A batch whose
 * best is gone or worse keeps its score as a bound, and looks for another one
 * only when that could lead. */
static void offer(fm_sched_t *s, uint32_t slot, uint32_t pool)
{
    struct batch *batch = &s->batches[slot];

    if (batch->restless) {
        return;
    }
    batch->stale = batch->stale || batch->best.pool == pool;
    consider(s, slot, pool);
}

static void offer_list(fm_sched_t *s, const struct list *batches, uint32_t pool)
{
    for (size_t i = 0; i < batches->count; i++) {
        offer(s, batches->at[i], pool);
    }
}

/* Tell the batches of models and domains; returns how many classes went idle
 * or ran out of idle workers, of which the first are in @p flips. */
static uint32_t touched_take(fm_sched_t *s, uint32_t *flips)
{
    uint32_t count = 0;

    for (size_t i = 0; i < s->touched.count; i++) {
        uint32_t id = s->touched.at[i];
        struct pool *pool = &s->pools[id];
        pool->touched = false;
        if (pool->kind == POOL_CLASS) {
            if (count < FLIPS_MAX) {
                flips[count] = id;
            }
            count++;
        } else if (pool->kind != POOL_FREE && !s->options.no_locality) {
            offer_list(s,
                       pool->kind == POOL_MODEL
                           ? &s->models[pool->owner].batches
                           : &s->domains[pool->owner].batches,
                       id);
        }
    }
    s->touched.count = 0;
    return count;
}

static void sweep(fm_sched_t *s)
{
    uint32_t count = (uint32_t)s->active.count;

    if (s->sweep_all) {
        for (uint32_t i = 0; i < count; i++) {
            fm_sched_batch_estimate(s, s->active.at[i]);
        }
        s->sweep_all = false;
        s->sweep = 0;
    }
    s->sweep = s->sweep < count ? s->sweep : count;
    for (uint32_t i = 0; i < SWEEP && s->sweep > 0; i++) {
        fm_sched_batch_estimate(s, s->active.at[--s->sweep]);
    }
}

static void bests_update(fm_sched_t *s)
{
    uint32_t flips[FLIPS_MAX];

    sweep(s);
    uint32_t flip_count = touched_take(s, flips);
    for (size_t i = 0; i < s->active.count; i++) {
        uint32_t slot = s->active.at[i];
        struct batch *batch = &s->batches[slot];
        for (uint32_t f = 0; f < flip_count && f < FLIPS_MAX; f++) {
            offer(s, slot, flips[f]);
        }
        if (batch->restless || flip_count > FLIPS_MAX) {
            fm_sched_batch_refresh(s, slot);
        }
    }
}

/* --- the pass ------------------------------------------------------------ */

static int64_t later_ns(int64_t now_ns, double seconds)
{
    return seconds < 1e9 ? now_ns + (int64_t)(seconds * NS_PER_S) + 1
                         : now_ns + INT64_C(1000000000000000000);
}

static void wake_min(struct decision *d, int64_t wake_ns)
{
    if (d->wake_ns == 0 || wake_ns < d->wake_ns) {
        d->wake_ns = wake_ns;
    }
}

/* Whether it is known that the batch would rather wait: what it turned down
 * was worth no less than what is idle now. */
static bool waits(const fm_sched_t *s, const struct batch *batch)
{
    return batch->wait_check_ns > s->now_ns &&
           batch->best.score <= batch->wait_score &&
           s->workers[batch->wait_worker].version == batch->wait_version;
}

/* What the best idle worker would have to load and fetch first: a wait pays
 * until it has taken as long (ski rental). */
static double saved_s(const fm_sched_t *s, const struct batch *batch)
{
    uint32_t worker = batch->best.worker;
    const struct class *class = &s->classes[s->workers[worker].class];

    return fm_sched_load_s(batch, class, fm_sched_missing(s, batch, worker)) +
           fm_sched_fetch_s(batch, class, fm_sched_near(s, batch, worker),
                            batch->best.size);
}

/* Whether the batch would rather wait for a busy worker. */
static bool declines(fm_sched_t *s, uint32_t slot, bool dry, struct decision *d)
{
    struct batch *batch = &s->batches[slot];
    struct later later;

    if (s->options.no_consolidation || batch->gang > 1) {
        return false;
    }
    int64_t until_ns =
        batch->wait_until_ns
            ? batch->wait_until_ns
            : later_ns(s->now_ns, s->options.patience * saved_s(s, batch));
    double limit_s = (double)(until_ns - s->now_ns) / NS_PER_S;
    if (limit_s <= 0 ||
        !fm_sched_later_find(s, slot, batch->best.score, limit_s, &later)) {
        return false;
    }
    double check_s =
        fmin(fmax(later.wait_s / CHECK_PARTS, CHECK_MIN_S), CHECK_MAX_S);
    int64_t check_ns = later_ns(s->now_ns, check_s);
    batch->wait_worker = later.worker;
    batch->wait_version = s->workers[later.worker].version;
    batch->wait_check_ns = check_ns < until_ns ? check_ns : until_ns;
    batch->wait_score = batch->best.score;
    batch->wait_until_ns = dry ? batch->wait_until_ns : until_ns;
    wake_min(d, until_ns);
    return true;
}

/* The best batch of a kind; between kinds the norms have to be known. */
struct leader {
    double score, gain, loss;
    uint32_t slot;
};

static bool leads(const fm_sched_t *s, const struct leader *leader,
                  double score, uint32_t slot)
{
    return leader->slot == NONE || score > leader->score ||
           (score >= leader->score &&
            s->batches[slot].id < s->batches[leader->slot].id);
}

static void leader_choose(const fm_sched_t *s, const struct leader *leaders,
                          struct decision *d)
{
    double best = -INFINITY;

    for (uint32_t k = 0; k < FM_SCHED_KINDS; k++) {
        if (leaders[k].slot != NONE) {
            d->norms.gain = fmax(d->norms.gain, leaders[k].gain);
            d->norms.loss = fmin(d->norms.loss, leaders[k].loss);
        }
    }
    for (uint32_t k = 0; k < FM_SCHED_KINDS; k++) {
        if (leaders[k].slot == NONE) {
            continue;
        }
        double lambda = s->options.lambda[k];
        double utility = lambda * (leaders[k].gain - d->norms.gain) -
                         (1 - lambda) * (leaders[k].loss - d->norms.loss);
        if (d->batch == NONE || utility > best ||
            (utility >= best &&
             s->batches[leaders[k].slot].id < s->batches[d->batch].id)) {
            best = utility;
            d->batch = leaders[k].slot;
        }
    }
}

/* What a gang is worth that has no place yet. */
static void gang_note(fm_sched_t *s, uint32_t slot, double *best,
                      struct decision *d)
{
    const struct batch *batch = &s->batches[slot];
    double urgency = fm_sched_urgency(s, batch);

    if (s->reservation.batch != NONE || batch->gang_after_ns > s->now_ns) {
        return;
    }
    if (d->gang_batch == NONE || urgency > *best) {
        *best = urgency;
        d->gang_batch = slot;
    }
}

/* Let a batch lead its kind where it is worth more than the one that does. */
static void compete(fm_sched_t *s, uint32_t slot, bool dry,
                    struct leader *leader, struct decision *d)
{
    struct batch *batch = &s->batches[slot];
    double urgency = fm_sched_urgency(s, batch);

    if (!leads(s, leader, urgency + batch->best.score, slot)) {
        return;
    }
    if (batch->stale || batch->best.until_ns <= s->now_ns) {
        fm_sched_batch_refresh(s, slot);
    }
    if (batch->best.pool == NONE) {
        return;
    }
    struct leader me = {urgency + batch->best.score, urgency + batch->best.gain,
                        batch->best.loss - urgency, slot};
    if (!leads(s, leader, me.score, slot)) {
        return;
    }
    if (waits(s, batch)) {
        wake_min(d, batch->wait_until_ns);
    } else if (!declines(s, slot, dry, d)) {
        *leader = me;
    }
}

void fm_sched_decision_make(fm_sched_t *s, bool dry, struct decision *d)
{
    struct leader leaders[FM_SCHED_KINDS];
    double gang_best = 0;

    *d = (struct decision){
        .batch = NONE, .gang_batch = NONE, .norms = {-INFINITY, INFINITY}};
    for (size_t k = 0; k < FM_SCHED_KINDS; k++) {
        leaders[k].slot = NONE;
    }
    bests_update(s);
    for (size_t i = 0; i < s->active.count; i++) {
        uint32_t slot = s->active.at[i];
        struct batch *batch = &s->batches[slot];
        if (batch->best.pool == NONE && !batch->stale) {
            if (batch->gang > 1) {
                gang_note(s, slot, &gang_best, d);
            }
        } else if (waits(s, batch)) {
            wake_min(d, batch->wait_until_ns);
        } else {
            compete(s, slot, dry, &leaders[batch->kind], d);
        }
    }
    leader_choose(s, leaders, d);
}

/* --- the choice ---------------------------------------------------------- */

/* The best worker of another class; busy ones at their free time. */
static void runner_up_find(fm_sched_t *s, uint32_t slot, uint32_t class,
                           const struct norms *norms, fm_sched_terms_t *terms)
{
    const struct batch *batch = &s->batches[slot];
    double urgency = fm_sched_urgency(s, batch);
    double best = -INFINITY;
    struct cell room;

    for (size_t i = 0; i < s->active_classes.count; i++) {
        uint32_t id = s->active_classes.at[i];
        const struct pool *pool = &s->pools[s->classes[id].pool];
        const struct cell *cell = plain_cell(s, id, slot, &room);
        if (cell->score <= -INFINITY) {
            continue;
        }
        terms->candidates += pool->count;
        if (id == class) {
            continue;
        }
        uint32_t worker = pool->heap[0].worker;
        double wait_s = fm_sched_wait_s(s, batch, pool, worker);
        double score =
            cell->score - terms->lambda * log1p(wait_s / cell->busy_s);
        if (score > best) {
            best = score;
            terms->runner_up = worker;
        }
    }
    terms->runner_up_utility = terms->runner_up == NONE
                                   ? 0
                                   : best + urgency -
                                         terms->lambda * norms->gain +
                                         (1 - terms->lambda) * norms->loss;
}

static void choice_make(fm_sched_t *s, uint32_t slot, uint32_t pool,
                        const struct norms *norms, fm_sched_choice_t *out)
{
    struct batch *batch = &s->batches[slot];
    /* All idle workers of a class are alike for whom it is the best. */
    uint32_t worker = batch->restless ? batch->best.worker : s->pools[pool].top;

    *out = (fm_sched_choice_t){.verdict = FM_SCHED_PLACE,
                               .batch = batch->id,
                               .worker = worker,
                               .gang = batch->gang,
                               .workers = {worker}};
    out->size = batch->gang > 1
                    ? batch->best.size
                    : fm_sched_slice(s, slot, worker, batch->best.size);
    if (batch->gang > 1) {
        fm_sched_gang_pick(s, batch, pool, out->workers);
        out->worker = out->workers[0];
    }
    fm_sched_terms_make(s, batch, out->worker, out->size, 0, &out->terms);
    fm_sched_norms_set(norms, &out->terms);
    runner_up_find(s, slot, s->workers[out->worker].class, norms, &out->terms);
    /* Patience is with what waits, not with one slice: a stream of work that
     * its holders never catch up with gets another holder. */
    if (out->terms.load_s > 0 || out->size >= batch->ready) {
        batch->wait_until_ns = 0;
    }
    batch->wait_check_ns = 0;
    for (uint32_t i = 0; i < out->gang; i++) {
        fm_sched_worker_load(s, out->workers[i], batch);
    }
}

bool fm_sched_next(fm_sched_t *s, int64_t now_ns, fm_sched_choice_t *out)
{
    struct decision d;

    s->now_ns = now_ns > s->now_ns ? now_ns : s->now_ns;
    fm_sched_reservation_expire(s);
    *out = (fm_sched_choice_t){
        .verdict = FM_SCHED_WAIT_WORKERS, .batch = NONE, .worker = NONE};
    uint32_t ready = fm_sched_reservation_ready(s);
    if (s->idle_count == 0 || s->active.count == 0) {
        out->wake_ns =
            s->reservation.batch == NONE ? 0 : s->reservation.expires_ns;
        return false;
    }
    fm_sched_decision_make(s, false, &d);
    if (ready == NONE && d.gang_batch != NONE &&
        fm_sched_reserve(s, d.gang_batch)) {
        fm_sched_decision_make(s, false, &d);
    }
    if (ready != NONE && s->batches[ready].best.pool != NONE) {
        d.batch = ready;
    }
    if (d.batch == NONE) {
        out->wake_ns = d.wake_ns;
        if (s->reservation.batch != NONE &&
            (out->wake_ns == 0 || s->reservation.expires_ns < out->wake_ns)) {
            out->wake_ns = s->reservation.expires_ns;
        }
        return false;
    }
    choice_make(s, d.batch, s->batches[d.batch].best.pool, &d.norms, out);
    return true;
}
