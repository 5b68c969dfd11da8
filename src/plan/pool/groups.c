/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches, the lanes of tenants in them, and the groups of one priority in a
 * lane.  A batch lists its lanes with ready work, a tenant likewise, and a
 * lane its groups by falling priority; empty ones cost nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/pool/state.h"

#define SWEEP_STEPS 256u

/* --- making --------------------------------------------------------------- */

static fm_status_t batch_add(fm_pool_t *pool, const fm_digest_t *key,
                             uint32_t task_class, uint32_t *batch_out,
                             fm_error_t *err)
{
    fm_status_t rc = fm_grow((void *)&pool->batches, &pool->batch_capacity,
                             pool->batch_count, sizeof(struct batch), err);

    if (rc < 0 ||
        (rc = fm_map_put(pool->batch_ids, key, pool->batch_count, err)) < 0) {
        return rc;
    }
    *batch_out = (uint32_t)pool->batch_count;
    pool->batches[pool->batch_count++] =
        (struct batch){.key = *key, .task_class = task_class};
    return FM_OK;
}

/* A map spreads by the first eight bytes of its keys. */
static fm_digest_t group_key(uint32_t batch, uint32_t tenant, int32_t priority,
                             uint32_t is_lane)
{
    fm_digest_t key = {0};
    const uint32_t parts[] = {batch, tenant, (uint32_t)priority, is_lane};
    uint64_t head = 0;

    for (size_t i = 0; i < FM_COUNT_OF(parts); i++) { /* splitmix64 */
        head += parts[i] + UINT64_C(0x9E3779B97F4A7C15);
        head = (head ^ (head >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
        head = (head ^ (head >> 27)) * UINT64_C(0x94D049BB133111EB);
        head ^= head >> 31;
    }
    memcpy(key.bytes, &head, sizeof(head));
    memcpy(key.bytes + sizeof(head), parts, sizeof(parts));
    return key;
}

static fm_status_t lane_make(fm_pool_t *pool, uint32_t batch_id,
                             uint32_t tenant, uint32_t *lane_out,
                             fm_error_t *err)
{
    struct batch *batch = &pool->batches[batch_id];
    fm_digest_t key = group_key(batch_id, tenant, 0, 1);
    const uint64_t *known = fm_map_get(pool->group_ids, &key);
    size_t before = batch->lane_capacity;
    fm_status_t rc;

    if (known) {
        *lane_out = (uint32_t)*known;
        return FM_OK;
    }
    if ((rc = fm_grow((void *)&batch->lanes, &batch->lane_capacity,
                      batch->lanes_made, sizeof(*batch->lanes), err)) < 0) {
        return rc;
    }
    pool->list_bytes += (batch->lane_capacity - before) * sizeof(*batch->lanes);
    if ((rc = fm_pool_chunks_reserve(&pool->lane_chunks, pool->lane_used + 1u,
                                     sizeof(struct lane), err)) < 0 ||
        (rc = fm_grow((void *)&pool->order, &pool->order_capacity,
                      batch->lanes_made, sizeof(*pool->order), err)) < 0 ||
        (rc = fm_map_put(pool->group_ids, &key, pool->lane_used, err)) < 0) {
        return rc;
    }
    *lane_out = pool->lane_used++;
    batch->lanes_made++;
    *lane_at(pool, *lane_out) = (struct lane){.batch = batch_id,
                                              .tenant = tenant,
                                              .first = NONE,
                                              .place = NONE,
                                              .prev = NONE,
                                              .next = NONE,
                                              .pick = NONE,
                                              .head = NONE,
                                              .oldest_ns = INT64_MIN};
    return FM_OK;
}

static fm_status_t group_make(fm_pool_t *pool, uint32_t batch, uint32_t tenant,
                              int32_t priority, uint32_t *group_out,
                              fm_error_t *err)
{
    fm_digest_t key = group_key(batch, tenant, priority, 0);
    const uint64_t *known = fm_map_get(pool->group_ids, &key);
    uint32_t lane = NONE;
    fm_status_t rc;

    if (known) {
        *group_out = (uint32_t)*known;
        return FM_OK;
    }
    if ((rc = lane_make(pool, batch, tenant, &lane, err)) < 0 ||
        (rc = fm_pool_chunks_reserve(&pool->group_chunks, pool->group_used + 1u,
                                     sizeof(struct group), err)) < 0 ||
        (rc = fm_map_put(pool->group_ids, &key, pool->group_used, err)) < 0) {
        return rc;
    }
    *group_out = pool->group_used++;
    *group_at(pool, *group_out) = (struct group){
        .lane = lane,
        .priority = priority,
        .queues = {[QUEUE_RETRY] = {NONE, NONE}, [QUEUE_FRESH] = {NONE, NONE}},
        .prev = NONE,
        .next = NONE};
    return FM_OK;
}

fm_status_t fm_pool_batch_make(fm_pool_t *pool, const fm_digest_t *key,
                               uint32_t task_class, uint32_t workflow,
                               size_t count, uint32_t *batch_out,
                               uint32_t *group_out, fm_error_t *err)
{
    const struct workflow *owner = &pool->workflows[workflow];
    uint32_t id = fm_pool_batch_find(pool, key);
    fm_status_t rc = FM_OK;

    if ((id == NONE && (rc = batch_add(pool, key, task_class, &id, err)) < 0) ||
        (rc = group_make(pool, id, owner->tenant, owner->priority, group_out,
                         err)) < 0 ||
        (owner->deadline_ns != INT64_MAX &&
         (rc = fm_pool_dues_reserve(pool, id, count, err)) < 0)) {
        return rc;
    }
    *batch_out = id;
    return FM_OK;
}

fm_status_t fm_pool_tenant_reserve(fm_pool_t *pool, uint32_t tenant,
                                   fm_error_t *err)
{
    size_t count = pool->tenant_lane_count;
    size_t wanted = count * 2 > tenant ? count * 2 : (size_t)tenant + 8;

    if (tenant < count) {
        return FM_OK;
    }
    uint32_t *lanes = fm_realloc(pool->tenant_lanes, wanted, sizeof(*lanes));
    if (!lanes) {
        return fm_no_memory(err);
    }
    memset(lanes + count, 0xFF, (wanted - count) * sizeof(*lanes));
    pool->tenant_lanes = lanes;
    pool->tenant_lane_count = wanted;
    return FM_OK;
}

/* --- what has ready work -------------------------------------------------- */

static void lane_show(fm_pool_t *pool, uint32_t id)
{
    struct lane *lane = lane_at(pool, id);
    struct batch *batch = &pool->batches[lane->batch];
    uint32_t *first = &pool->tenant_lanes[lane->tenant];

    lane->place = (uint32_t)batch->lane_count;
    batch->lanes[batch->lane_count++] = id;
    lane->prev = NONE;
    lane->next = *first;
    if (*first != NONE) {
        lane_at(pool, *first)->prev = id;
    }
    *first = id;
}

static void lane_hide(fm_pool_t *pool, uint32_t id)
{
    struct lane *lane = lane_at(pool, id);
    struct batch *batch = &pool->batches[lane->batch];
    uint32_t last = batch->lanes[--batch->lane_count];

    batch->lanes[lane->place] = last;
    lane_at(pool, last)->place = lane->place;
    lane->place = NONE;
    lane->amount = 0; /* rounding does not add up for ever */
    if (lane->prev == NONE) {
        pool->tenant_lanes[lane->tenant] = lane->next;
    } else {
        lane_at(pool, lane->prev)->next = lane->next;
    }
    if (lane->next != NONE) {
        lane_at(pool, lane->next)->prev = lane->prev;
    }
}

static void group_show(fm_pool_t *pool, uint32_t id)
{
    struct group *group = group_at(pool, id);
    struct lane *lane = lane_at(pool, group->lane);
    uint32_t before = NONE;
    uint32_t after = lane->first;

    while (after != NONE && group_at(pool, after)->priority > group->priority) {
        before = after;
        after = group_at(pool, after)->next;
    }
    group->prev = before;
    group->next = after;
    if (before == NONE) {
        lane->first = id;
    } else {
        group_at(pool, before)->next = id;
    }
    if (after != NONE) {
        group_at(pool, after)->prev = id;
    }
}

static void group_hide(fm_pool_t *pool, uint32_t id)
{
    struct group *group = group_at(pool, id);

    if (group->prev == NONE) {
        lane_at(pool, group->lane)->first = group->next;
    } else {
        group_at(pool, group->prev)->next = group->next;
    }
    if (group->next != NONE) {
        group_at(pool, group->next)->prev = group->prev;
    }
}

static void lane_changed(struct lane *lane)
{
    lane->head = NONE;
    lane->oldest_ns = INT64_MIN;
}

void fm_pool_group_joined(fm_pool_t *pool, uint32_t id, float amount)
{
    struct group *group = group_at(pool, id);
    struct lane *lane = lane_at(pool, group->lane);

    if (group->count++ == 0) {
        group_show(pool, id);
    }
    if (lane->ready++ == 0) {
        lane_show(pool, group->lane);
    }
    lane->amount += (double)amount;
    lane_changed(lane);
    fm_tenants_ready(pool->options.tenants, lane->tenant, 1);
    fm_pool_batch_mark(pool, lane->batch);
}

void fm_pool_group_left(fm_pool_t *pool, uint32_t id, float amount)
{
    struct group *group = group_at(pool, id);
    struct lane *lane = lane_at(pool, group->lane);

    lane->amount -= (double)amount;
    lane_changed(lane);
    if (--group->count == 0) {
        group_hide(pool, id);
    }
    if (--lane->ready == 0) {
        lane_hide(pool, group->lane);
    }
    fm_tenants_ready(pool->options.tenants, lane->tenant, -1);
    fm_pool_batch_mark(pool, lane->batch);
}

/* --- what has changed ----------------------------------------------------- */

void fm_pool_batch_mark(fm_pool_t *pool, uint32_t id)
{
    struct batch *batch = &pool->batches[id];

    if (batch->dirty) {
        return;
    }
    batch->dirty = true;
    batch->dirty_next = NONE;
    if (pool->dirty.head == NONE) {
        pool->dirty.head = id;
    } else {
        pool->batches[pool->dirty.tail].dirty_next = id;
    }
    pool->dirty.tail = id;
}

/* A tenant met a quota or left it: that is looked at here and not at once, so
 * one that is there and back between two looks costs nothing. */
static void flips_mark(fm_pool_t *pool)
{
    uint32_t tenant = 0;

    while (fm_tenants_next_flipped(pool->options.tenants, &tenant)) {
        uint32_t id = tenant < pool->tenant_lane_count
                          ? pool->tenant_lanes[tenant]
                          : NONE;
        for (; id != NONE; id = lane_at(pool, id)->next) {
            fm_pool_batch_mark(pool, lane_at(pool, id)->batch);
        }
    }
    if (pool->flips != fm_tenants_flips(pool->options.tenants)) {
        pool->flips = fm_tenants_flips(pool->options.tenants);
        pool->sweep_left = pool->work_used;
    }
}

/*
 * A work that waits in the name of a tenant at a quota may be wanted by another
 * that is not.  So after a flip all works are looked at, some whenever all else
 * was told, so that a tenant which flips all the time costs little; and all
 * that are left when no tenant has work to lease and no lease is out, because
 * then nothing else would bring the next call.
 */
static void sweep(fm_pool_t *pool)
{
    bool idle = pool->totals.leases == 0 &&
                fm_tenants_active(pool->options.tenants) == 0;

    fm_pool_ready_sweep(pool, idle ? UINT32_MAX : SWEEP_STEPS);
}

bool fm_pool_next_dirty(fm_pool_t *pool, uint32_t *batch_out)
{
    flips_mark(pool);
    if (pool->dirty.head == NONE && !pool->swept) {
        pool->swept = true; /* once until all is told */
        sweep(pool);
    }
    uint32_t id = pool->dirty.head;
    if (id == NONE) {
        pool->swept = false;
        return false;
    }
    pool->dirty.head = pool->batches[id].dirty_next;
    pool->batches[id].dirty = false;
    *batch_out = id;
    return true;
}
