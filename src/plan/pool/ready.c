/* SPDX-License-Identifier: Apache-2.0 */
/* Queues of ready work, and the nearest deadline of each batch. */
#include <stdlib.h>

#include "base/mem.h"
#include "plan/pool/state.h"

/* --- deadlines: a heap with stale entries -------------------------------- */

static bool due_valid(const fm_pool_t *pool, uint32_t batch,
                      const struct due *due)
{
    const struct work *work = work_at(pool, due->work);

    return work->state == WORK_READY && work->batch == batch &&
           work->deadline_ns == due->deadline_ns;
}

static bool due_before(const struct due *a, const struct due *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns
                                            : a->work < b->work;
}

static void due_sift_down(struct batch *batch, size_t i)
{
    for (;;) {
        size_t least = i;

        for (size_t child = 2 * i + 1;
             child <= 2 * i + 2 && child < batch->due_count; child++) {
            if (due_before(&batch->dues[child], &batch->dues[least])) {
                least = child;
            }
        }
        if (least == i) {
            return;
        }
        struct due swap = batch->dues[i];
        batch->dues[i] = batch->dues[least];
        batch->dues[least] = swap;
        i = least;
    }
}

static void dues_compact(const fm_pool_t *pool, uint32_t id)
{
    struct batch *batch = &pool->batches[id];
    size_t kept = 0;

    for (size_t i = 0; i < batch->due_count; i++) {
        if (due_valid(pool, id, &batch->dues[i])) {
            batch->dues[kept++] = batch->dues[i];
        }
    }
    batch->due_count = kept;
    for (size_t i = kept / 2; i-- > 0;) {
        due_sift_down(batch, i);
    }
}

/* The deadline is a hint: where a repeat finds no room, it is not noted. */
static void due_push(const fm_pool_t *pool, uint32_t id, uint32_t work)
{
    struct batch *batch = &pool->batches[id];
    struct due due = {work_at(pool, work)->deadline_ns, work};

    if (due.deadline_ns == INT64_MAX) {
        return;
    }
    if (batch->due_count == batch->due_capacity) {
        dues_compact(pool, id);
    }
    if (batch->due_count == batch->due_capacity) {
        return;
    }
    size_t i = batch->due_count++;
    while (i > 0 && due_before(&due, &batch->dues[(i - 1) / 2])) {
        batch->dues[i] = batch->dues[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    batch->dues[i] = due;
}

static void dues_clean(const fm_pool_t *pool, uint32_t id)
{
    struct batch *batch = &pool->batches[id];

    while (batch->due_count > 0 && !due_valid(pool, id, &batch->dues[0])) {
        batch->dues[0] = batch->dues[--batch->due_count];
        due_sift_down(batch, 0);
    }
}

fm_status_t fm_pool_dues_reserve(fm_pool_t *pool, uint32_t id, size_t count,
                                 fm_error_t *err)
{
    struct batch *batch = &pool->batches[id];
    size_t needed = batch->works + count;
    size_t wanted = 2 * needed; /* so it grows, and compacts, seldom */

    if (needed + needed / 4 <= batch->due_capacity) {
        return FM_OK;
    }
    struct due *dues = fm_realloc(batch->dues, wanted, sizeof(*dues));
    if (!dues) {
        return fm_no_memory(err);
    }
    batch->dues = dues;
    pool->list_bytes += (wanted - batch->due_capacity) * sizeof(*dues);
    batch->due_capacity = wanted;
    return FM_OK;
}

/* --- queues -------------------------------------------------------------- */

static void queue_link(fm_pool_t *pool, struct group *group, uint32_t id,
                       bool front)
{
    struct work *work = work_at(pool, id);
    uint32_t *head =
        &group->queues[work->retry ? QUEUE_RETRY : QUEUE_FRESH].head;
    uint32_t *tail =
        &group->queues[work->retry ? QUEUE_RETRY : QUEUE_FRESH].tail;

    work->prev = front ? NONE : *tail;
    work->next = front ? *head : NONE;
    if (work->prev == NONE) {
        *head = id;
    } else {
        work_at(pool, work->prev)->next = id;
    }
    if (work->next == NONE) {
        *tail = id;
    } else {
        work_at(pool, work->next)->prev = id;
    }
}

static void queue_unlink(fm_pool_t *pool, struct group *group, uint32_t id)
{
    struct work *work = work_at(pool, id);
    enum queue_kind kind = work->retry ? QUEUE_RETRY : QUEUE_FRESH;

    if (work->prev == NONE) {
        group->queues[kind].head = work->next;
    } else {
        work_at(pool, work->prev)->next = work->next;
    }
    if (work->next == NONE) {
        group->queues[kind].tail = work->prev;
    } else {
        work_at(pool, work->next)->prev = work->prev;
    }
    work->next = work->prev = NONE;
}

static bool node_blocked(const fm_pool_t *pool, uint32_t node)
{
    return fm_tenants_is_blocked(pool->options.tenants, tenant_of(pool, node));
}

/* The node in whose name a work waits: of its leader, unless that one's tenant
 * is at a quota and another who waits is not. */
static uint32_t sponsor_of(const fm_pool_t *pool, const struct work *work)
{
    uint32_t leader = NONE;
    uint32_t pos = 0;

    (void)fm_pool_leader(pool, work, &leader, &pos);
    uint32_t node = leader;
    for (int i = 0; node != NONE && i < WAITERS_SEEN; i++) {
        const struct item *item = item_at(pool, node, pos);

        if (item->state == ITEM_WAIT && !node_blocked(pool, node)) {
            return node;
        }
        node = item->next_node;
        pos = item->next_pos;
    }
    return leader;
}

bool fm_pool_ready_blocked(const fm_pool_t *pool, const struct work *work)
{
    const struct lane *lane = lane_at(pool, group_at(pool, work->group)->lane);

    return fm_tenants_is_blocked(pool->options.tenants, lane->tenant);
}

bool fm_pool_ready_sponsored(const fm_pool_t *pool, const struct work *work)
{
    uint32_t node = NONE;
    uint32_t pos = 0;

    return fm_pool_leader(pool, work, &node, &pos) &&
           lane_at(pool, group_at(pool, work->group)->lane)->tenant !=
               tenant_of(pool, node);
}

void fm_pool_ready_push(fm_pool_t *pool, uint32_t id, bool front)
{
    struct work *work = work_at(pool, id);
    struct batch *batch = &pool->batches[work->batch];
    uint32_t node = sponsor_of(pool, work);
    uint32_t depth = node_at(pool, node)->depth;

    work->group = node_at(pool, node)->group;
    work->retry = work->avoid_count > 0;
    work->depth = (uint8_t)(depth < DEPTHS ? depth : DEPTHS - 1);
    work->state = WORK_READY;
    queue_link(pool, group_at(pool, work->group), id, front);
    fm_pool_group_joined(pool, work->group, work->amount);
    batch->depths[work->depth]++;
    batch->amount += (double)work->amount;
    pool->totals.ready_work++;
    batch->ready++;
    due_push(pool, work->batch, id);
}

void fm_pool_ready_pop(fm_pool_t *pool, uint32_t id)
{
    struct work *work = work_at(pool, id);
    struct batch *batch = &pool->batches[work->batch];

    queue_unlink(pool, group_at(pool, work->group), id);
    fm_pool_group_left(pool, work->group, work->amount);
    work->state = WORK_VOID;
    batch->depths[work->depth]--;
    batch->amount -= (double)work->amount;
    pool->totals.ready_work--;
    if (--batch->ready == 0) {
        batch->amount = 0; /* rounding does not add up for ever */
    }
    dues_clean(pool, work->batch);
}

void fm_pool_ready_move(fm_pool_t *pool, uint32_t id)
{
    fm_pool_ready_pop(pool, id);
    fm_pool_ready_push(pool, id, false);
}

void fm_pool_ready_sweep(fm_pool_t *pool, uint32_t steps)
{
    for (; steps > 0 && pool->sweep_left > 0; steps--, pool->sweep_left--) {
        uint32_t next = pool->sweep_hand + 1;
        uint32_t id = next < pool->work_used ? next : 0;
        const struct work *work = work_at(pool, id);

        pool->sweep_hand = id;
        if (work->state == WORK_READY && work->waiters > 1 &&
            fm_pool_ready_blocked(pool, work) &&
            !node_blocked(pool, sponsor_of(pool, work))) {
            fm_pool_ready_move(pool, id);
        }
    }
}

void fm_pool_ready_hurry(fm_pool_t *pool, uint32_t id, int64_t deadline_ns)
{
    struct work *work = work_at(pool, id);

    if (deadline_ns >= work->deadline_ns) {
        return;
    }
    work->deadline_ns = deadline_ns;
    if (work->state == WORK_READY) {
        due_push(pool, work->batch, id);
        dues_clean(pool, work->batch);
        fm_pool_batch_mark(pool, work->batch);
    }
}
