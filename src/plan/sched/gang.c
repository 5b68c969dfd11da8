/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gangs: several devices of one class in one domain at once.  Where too few
 * are idle, the idle ones of the domain that is complete first are kept for
 * the gang (one gang at a time, as in EASY backfilling, Lifka 1995), until a
 * bound; then others get their turn for as long.
 */
#include <assert.h>
#include <math.h>

#include "plan/sched/state.h"

#define NS INT64_C(1000000000)
#define HOLD_MIN_NS (10 * NS)
#define HOLD_MAX_NS (600 * NS)

uint32_t fm_sched_gang_pool(const fm_sched_t *s, const struct batch *batch,
                            uint32_t class)
{
    uint32_t best = NONE;

    if (s->pools[s->classes[class].pool].idle < batch->gang) {
        return NONE;
    }
    /* The domain with the fewest to spare. */
    for (uint32_t p = s->classes[class].domain_first; p != NONE;
         p = s->pools[p].class_next) {
        if (s->pools[p].idle >= batch->gang &&
            (best == NONE || s->pools[p].idle < s->pools[best].idle)) {
            best = p;
        }
    }
    return best;
}

static bool picked(const uint32_t *workers, uint32_t count, uint32_t id)
{
    for (uint32_t i = 0; i < count; i++) {
        if (workers[i] == id) {
            return true;
        }
    }
    return false;
}

static uint32_t bits(uint32_t mask)
{
    uint32_t count = 0;

    for (; mask; mask &= mask - 1) {
        count++;
    }
    return count;
}

void fm_sched_gang_pick(const fm_sched_t *s, const struct batch *batch,
                        uint32_t id, uint32_t *workers)
{
    const struct pool *pool = &s->pools[id];

    for (uint32_t g = 0; g < batch->gang; g++) {
        uint32_t best = NONE;
        uint32_t lacks = UINT32_MAX;
        for (uint32_t i = 0; i < pool->count; i++) {
            uint32_t worker = pool->heap[i].worker;
            uint32_t lack = bits(fm_sched_missing(s, batch, worker));
            if (pool->heap[i].key < IDLE_KEY_MAX &&
                !picked(workers, g, worker) &&
                (lack < lacks || (lack == lacks && worker < best))) {
                best = worker;
                lacks = lack;
            }
        }
        workers[g] = best;
    }
}

/* --- the reservation ----------------------------------------------------- */

/* When the g-th worker of a pool is free; INT64_MAX: it has fewer. */
static int64_t complete_ns(const fm_sched_t *s, const struct pool *pool,
                           uint32_t gang)
{
    int64_t first[FM_SCHED_GANG_MAX] = {0};
    uint32_t count = 0;

    assert(gang > 0 && gang <= FM_SCHED_GANG_MAX);
    for (uint32_t i = 0; i < pool->count; i++) {
        int64_t free_ns = s->workers[pool->heap[i].worker].free_at_ns;
        free_ns = free_ns > s->now_ns ? free_ns : s->now_ns;
        uint32_t at = count < gang ? count++ : gang;
        if (at == gang) {
            if (first[gang - 1] <= free_ns) {
                continue;
            }
            at = gang - 1;
        }
        for (; at > 0 && first[at - 1] > free_ns; at--) {
            first[at] = first[at - 1];
        }
        first[at] = free_ns;
    }
    return count < gang ? INT64_MAX : first[gang - 1];
}

bool fm_sched_reserve(fm_sched_t *s, uint32_t slot)
{
    struct batch *batch = &s->batches[slot];
    uint32_t best = NONE;
    int64_t best_ns = INT64_MAX;

    for (size_t i = 0; i < s->active_classes.count; i++) {
        const struct class *class = &s->classes[s->active_classes.at[i]];
        uint32_t p =
            fm_sched_cap(batch, class) > 0 ? class->domain_first : NONE;
        for (; p != NONE; p = s->pools[p].class_next) {
            int64_t free_ns = complete_ns(s, &s->pools[p], batch->gang);
            if (free_ns < best_ns) {
                best_ns = free_ns;
                best = p;
            }
        }
    }
    if (best == NONE) {
        return false;
    }
    int64_t hold_ns =
        2 *
        (best_ns - s->now_ns < HOLD_MAX_NS ? best_ns - s->now_ns : HOLD_MAX_NS);
    hold_ns = hold_ns < HOLD_MIN_NS   ? HOLD_MIN_NS
              : hold_ns > HOLD_MAX_NS ? HOLD_MAX_NS
                                      : hold_ns;
    s->reservation = (struct reservation){.batch = slot,
                                          .pool = best,
                                          .made_ns = s->now_ns,
                                          .expires_ns = s->now_ns + hold_ns};
    while (s->pools[best].top != NONE && s->reservation.count < batch->gang) {
        uint32_t worker = s->pools[best].top;
        s->reservation.workers[s->reservation.count++] = worker;
        fm_sched_worker_hold(s, worker, true);
    }
    return true;
}

void fm_sched_reservation_drop(fm_sched_t *s)
{
    struct reservation gone = s->reservation;

    s->reservation.batch = NONE;
    s->reservation.count = 0;
    for (uint32_t i = 0; gone.batch != NONE && i < gone.count; i++) {
        fm_sched_worker_hold(s, gone.workers[i], false);
    }
}

void fm_sched_reservation_offer(fm_sched_t *s, uint32_t id)
{
    struct reservation *r = &s->reservation;

    if (r->batch == NONE || s->workers[id].domain == NONE ||
        s->workers[id].seats[SEAT_DOMAIN].pool != r->pool ||
        r->count >= s->batches[r->batch].gang) {
        return;
    }
    r->workers[r->count++] = id;
    fm_sched_worker_hold(s, id, true);
}

void fm_sched_reservation_lose(fm_sched_t *s, uint32_t id)
{
    struct reservation *r = &s->reservation;

    for (uint32_t i = 0; i < r->count; i++) {
        if (r->workers[i] == id) {
            r->workers[i] = r->workers[--r->count];
            break;
        }
    }
    fm_sched_worker_hold(s, id, false);
}

void fm_sched_reservation_expire(fm_sched_t *s)
{
    struct reservation *r = &s->reservation;

    if (r->batch != NONE && r->expires_ns <= s->now_ns) {
        s->batches[r->batch].gang_after_ns =
            s->now_ns + (r->expires_ns - r->made_ns);
        fm_sched_reservation_drop(s);
    }
}

uint32_t fm_sched_reservation_ready(fm_sched_t *s)
{
    uint32_t batch = s->reservation.batch;

    if (batch == NONE || s->reservation.count < s->batches[batch].gang) {
        return NONE;
    }
    fm_sched_reservation_drop(s);
    return batch;
}
