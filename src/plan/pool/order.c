/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is leased next (P7): of the tenants that are not at a quota the one
 * with the least virtual time, and of its works the one of highest priority,
 * then retries, then the oldest.  A lease takes many works while virtual times
 * move, so it keeps the lanes in a heap.
 */
#include "plan/pool/state.h"

static bool work_avoids(const struct work *work, uint32_t worker)
{
    for (uint8_t i = 0; i < work->avoid_count; i++) {
        if (work->avoid[i] == worker) {
            return true;
        }
    }
    return false;
}

static uint32_t retry_next(const fm_pool_t *pool, uint32_t head,
                           uint32_t worker)
{
    uint32_t id = head;

    for (uint32_t looks = 0; id != NONE && looks < AVOID_LOOKS; looks++) {
        const struct work *work = work_at(pool, id);
        if (!work_avoids(work, worker)) {
            return id;
        }
        id = work->next;
    }
    return NONE;
}

void fm_pool_lane_head(const fm_pool_t *pool, struct lane *lane)
{
    if (lane->head != NONE) {
        return;
    }
    const struct group *group = group_at(pool, lane->first);
    uint32_t retry = group->queues[QUEUE_RETRY].head;
    lane->priority = group->priority;
    lane->head_retry = retry != NONE;
    lane->head = retry != NONE ? retry : group->queues[QUEUE_FRESH].head;
    lane->head_ns = work_at(pool, lane->head)->arrival_ns;
}

void fm_pool_lane_oldest(const fm_pool_t *pool, struct lane *lane)
{
    if (lane->oldest_ns != INT64_MIN) {
        return;
    }
    lane->oldest_ns = INT64_MAX;
    lane->has_fresh = false;
    for (uint32_t g = lane->first; g != NONE; g = group_at(pool, g)->next) {
        const struct group *group = group_at(pool, g);

        for (int q = 0; q < QUEUES; q++) {
            uint32_t head = group->queues[q].head;
            if (head != NONE &&
                work_at(pool, head)->arrival_ns < lane->oldest_ns) {
                lane->oldest_ns = work_at(pool, head)->arrival_ns;
            }
        }
        lane->has_fresh =
            lane->has_fresh || group->queues[QUEUE_FRESH].head != NONE;
    }
}

static uint32_t lane_next(const fm_pool_t *pool, struct lane *lane,
                          uint32_t worker, bool ignore_avoid)
{
    if (lane->ready == 0 ||
        fm_tenants_is_blocked(pool->options.tenants, lane->tenant)) {
        return NONE;
    }
    fm_pool_lane_head(pool, lane);
    if (ignore_avoid || !lane->head_retry) {
        return lane->head;
    }
    for (uint32_t g = lane->first; g != NONE; g = group_at(pool, g)->next) {
        const struct group *group = group_at(pool, g);
        uint32_t retry =
            retry_next(pool, group->queues[QUEUE_RETRY].head, worker);

        if (retry != NONE) {
            return retry;
        }
        if (group->queues[QUEUE_FRESH].head != NONE) {
            return group->queues[QUEUE_FRESH].head;
        }
    }
    return NONE;
}

bool fm_pool_lane_before(const fm_pool_t *pool, uint32_t a, int64_t arrival_a,
                         uint32_t b, int64_t arrival_b)
{
    double served_a =
        fm_tenants_served(pool->options.tenants, lane_at(pool, a)->tenant);
    double served_b =
        fm_tenants_served(pool->options.tenants, lane_at(pool, b)->tenant);

    if (served_a < served_b || served_a > served_b) {
        return served_a < served_b;
    }
    return arrival_a != arrival_b ? arrival_a < arrival_b : a < b;
}

uint32_t fm_pool_ready_next(const fm_pool_t *pool, uint32_t id, uint32_t worker,
                            bool ignore_avoid)
{
    const struct batch *batch = &pool->batches[id];
    uint32_t best = NONE;
    uint32_t best_lane = NONE;

    for (size_t i = 0; i < batch->lane_count; i++) {
        uint32_t lane = batch->lanes[i];
        uint32_t work =
            lane_next(pool, lane_at(pool, lane), worker, ignore_avoid);

        if (work != NONE &&
            (best == NONE ||
             fm_pool_lane_before(pool, lane, work_at(pool, work)->arrival_ns,
                                 best_lane, work_at(pool, best)->arrival_ns))) {
            best = work;
            best_lane = lane;
        }
    }
    return best;
}

/* --- the heap of a lease -------------------------------------------------- */

static bool order_before(const fm_pool_t *pool, size_t a, size_t b)
{
    uint32_t lane_a = pool->order[a];
    uint32_t lane_b = pool->order[b];

    return fm_pool_lane_before(
        pool, lane_a, work_at(pool, lane_at(pool, lane_a)->pick)->arrival_ns,
        lane_b, work_at(pool, lane_at(pool, lane_b)->pick)->arrival_ns);
}

static void order_sift_down(fm_pool_t *pool, size_t i)
{
    for (;;) {
        size_t least = i;

        for (size_t child = 2 * i + 1;
             child <= 2 * i + 2 && child < pool->order_count; child++) {
            if (order_before(pool, child, least)) {
                least = child;
            }
        }
        if (least == i) {
            return;
        }
        uint32_t swap = pool->order[i];
        pool->order[i] = pool->order[least];
        pool->order[least] = swap;
        i = least;
    }
}

void fm_pool_order_begin(fm_pool_t *pool, uint32_t id,
                         const fm_pool_lease_t *lease)
{
    const struct batch *batch = &pool->batches[id];

    pool->order_count = 0;
    for (size_t i = 0; i < batch->lane_count; i++) {
        struct lane *lane = lane_at(pool, batch->lanes[i]);

        lane->pick = lane_next(pool, lane, lease->worker, lease->ignore_avoid);
        if (lane->pick != NONE) {
            pool->order[pool->order_count++] = batch->lanes[i];
        }
    }
    for (size_t i = pool->order_count / 2; i-- > 0;) {
        order_sift_down(pool, i);
    }
}

uint32_t fm_pool_order_top(fm_pool_t *pool)
{
    return pool->order_count ? lane_at(pool, pool->order[0])->pick : NONE;
}

static uint32_t stamp_of(const fm_pool_t *pool, uint32_t work)
{
    uint32_t node = NONE;
    uint32_t pos = 0;

    (void)fm_pool_leader(pool, work_at(pool, work), &node, &pos);
    return node_at(pool, node)->stamp;
}

void fm_pool_order_next(fm_pool_t *pool, const fm_pool_lease_t *lease,
                        uint32_t stamp)
{
    struct lane *lane = lane_at(pool, pool->order[0]);

    lane->pick = lane_next(pool, lane, lease->worker, lease->ignore_avoid);
    if (lane->pick == NONE) {
        pool->order[0] = pool->order[--pool->order_count];
    } else if (stamp != 0 && stamp_of(pool, lane->pick) == stamp) {
        return;
    }
    order_sift_down(pool, 0);
}
