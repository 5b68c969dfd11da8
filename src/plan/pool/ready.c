/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ready work by batch key.  Order within a batch: priority, then the tenant
 * with the least virtual time (start-time fair queueing, Goyal et al. 1996),
 * then arrival.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "plan/pool/state.h"

#define BATCHES_MAX (UINT32_MAX - 1)

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

/* --- batches and groups -------------------------------------------------- */

static fm_status_t batch_add(fm_pool_t *pool, const fm_digest_t *key,
                             uint32_t task_class, uint32_t *batch_out,
                             fm_error_t *err)
{
    fm_status_t rc = fm_grow((void *)&pool->batches, &pool->batch_capacity,
                             pool->batch_count, sizeof(struct batch), err);

    /* As many places for active batches as there are batches. */
    if (rc < 0 ||
        (rc = fm_grow((void *)&pool->active, &pool->active_capacity,
                      pool->batch_count, sizeof(*pool->active), err)) < 0 ||
        (rc = fm_map_put(pool->batch_ids, key, pool->batch_count, err)) < 0) {
        return rc;
    }
    *batch_out = (uint32_t)pool->batch_count;
    pool->batches[pool->batch_count++] =
        (struct batch){.key = *key, .task_class = task_class, .active = NONE};
    return FM_OK;
}

static uint32_t group_find(const struct batch *batch, uint32_t tenant,
                           int32_t priority, bool retry)
{
    for (size_t i = 0; i < batch->group_count; i++) {
        const struct group *group = &batch->groups[i];
        if (group->tenant == tenant && group->priority == priority &&
            group->retry == retry) {
            return (uint32_t)i;
        }
    }
    return NONE;
}

static fm_status_t dues_reserve(struct batch *batch, size_t count,
                                fm_error_t *err)
{
    size_t wanted = 2 * (batch->works + count);

    if (wanted <= batch->due_capacity) {
        return FM_OK;
    }
    struct due *dues = fm_realloc(batch->dues, wanted, sizeof(*dues));
    if (!dues) {
        return fm_no_memory(err);
    }
    batch->dues = dues;
    batch->due_capacity = wanted;
    return FM_OK;
}

fm_status_t fm_pool_batch_make(fm_pool_t *pool, const fm_digest_t *key,
                               uint32_t task_class, uint32_t workflow,
                               size_t count, uint32_t *batch_out,
                               fm_error_t *err)
{
    const struct workflow *owner = &pool->workflows[workflow];
    uint32_t id = fm_pool_batch_find(pool, key);
    fm_status_t rc = FM_OK;

    if (id == NONE && (rc = batch_add(pool, key, task_class, &id, err)) < 0) {
        return rc;
    }
    struct batch *batch = &pool->batches[id];
    for (int retry = 1; retry >= 0; retry--) { /* at a tie, retries first */
        if (group_find(batch, owner->tenant, owner->priority, retry) != NONE) {
            continue;
        }
        if ((rc = fm_grow((void *)&batch->groups, &batch->group_capacity,
                          batch->group_count, sizeof(struct group), err)) < 0) {
            return rc;
        }
        batch->groups[batch->group_count++] =
            (struct group){.tenant = owner->tenant,
                           .priority = owner->priority,
                           .retry = retry,
                           .head = NONE,
                           .tail = NONE};
    }
    if (owner->deadline_ns != INT64_MAX &&
        (rc = dues_reserve(batch, count, err)) < 0) {
        return rc;
    }
    *batch_out = id;
    return FM_OK;
}

static void batch_mark(fm_pool_t *pool, uint32_t id)
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

bool fm_pool_next_dirty(fm_pool_t *pool, uint32_t *batch_out)
{
    uint32_t id = pool->dirty.head;

    if (id == NONE) {
        return false;
    }
    pool->dirty.head = pool->batches[id].dirty_next;
    pool->batches[id].dirty = false;
    *batch_out = id;
    return true;
}

/* --- queues -------------------------------------------------------------- */

static void group_link(fm_pool_t *pool, struct group *group, uint32_t id,
                       bool front)
{
    struct work *work = work_at(pool, id);

    work->prev = front ? NONE : group->tail;
    work->next = front ? group->head : NONE;
    if (work->prev == NONE) {
        group->head = id;
    } else {
        work_at(pool, work->prev)->next = id;
    }
    if (work->next == NONE) {
        group->tail = id;
    } else {
        work_at(pool, work->next)->prev = id;
    }
    group->count++;
}

static void group_unlink(fm_pool_t *pool, struct group *group, uint32_t id)
{
    struct work *work = work_at(pool, id);

    if (work->prev == NONE) {
        group->head = work->next;
    } else {
        work_at(pool, work->prev)->next = work->next;
    }
    if (work->next == NONE) {
        group->tail = work->prev;
    } else {
        work_at(pool, work->next)->prev = work->prev;
    }
    work->next = work->prev = NONE;
    group->count--;
}

void fm_pool_ready_push(fm_pool_t *pool, uint32_t id, bool front)
{
    struct work *work = work_at(pool, id);
    struct batch *batch = &pool->batches[work->batch];
    uint32_t node = NONE;
    uint32_t pos = 0;

    (void)fm_pool_leader(pool, work, &node, &pos);
    const struct workflow *workflow = workflow_of(pool, node);
    struct tenant *tenant = &pool->tenants[workflow->tenant];
    work->group = group_find(batch, workflow->tenant, workflow->priority,
                             work->avoid_count > 0);
    group_link(pool, &batch->groups[work->group], id, front);
    work->state = WORK_READY;
    if (tenant->ready++ == 0 && tenant->served < pool->served) {
        tenant->served = pool->served; /* no credit for having been away */
    }
    uint32_t depth = node_at(pool, node)->depth;
    work->depth = (uint8_t)(depth < DEPTHS ? depth : DEPTHS - 1);
    batch->depths[work->depth]++;
    batch->amount += (double)work->amount;
    pool->ready_amount += (double)work->amount;
    pool->totals.ready_work++;
    if (batch->ready++ == 0) {
        batch->active = (uint32_t)pool->active_count;
        pool->active[pool->active_count++] = work->batch;
    }
    due_push(pool, work->batch, id);
    batch_mark(pool, work->batch);
}

void fm_pool_ready_pop(fm_pool_t *pool, uint32_t id)
{
    struct work *work = work_at(pool, id);
    struct batch *batch = &pool->batches[work->batch];
    struct group *group = &batch->groups[work->group];

    group_unlink(pool, group, id);
    work->state = WORK_VOID;
    pool->tenants[group->tenant].ready--;
    batch->depths[work->depth]--;
    batch->amount -= (double)work->amount;
    pool->ready_amount -= (double)work->amount;
    if (--pool->totals.ready_work == 0) {
        pool->ready_amount = 0; /* rounding does not add up for ever */
    }
    if (--batch->ready == 0) {
        uint32_t last = pool->active[--pool->active_count];

        batch->amount = 0;
        pool->active[batch->active] = last;
        pool->batches[last].active = batch->active;
        batch->active = NONE;
    }
    dues_clean(pool, work->batch);
    batch_mark(pool, work->batch);
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
        batch_mark(pool, work->batch);
    }
}

static bool work_avoids(const struct work *work, uint32_t worker)
{
    for (uint8_t i = 0; i < work->avoid_count; i++) {
        if (work->avoid[i] == worker) {
            return true;
        }
    }
    return false;
}

static uint32_t group_next(const fm_pool_t *pool, const struct group *group,
                           uint32_t worker, bool ignore_avoid)
{
    uint32_t id = group->head;

    for (uint32_t looks = 0; id != NONE && looks < AVOID_LOOKS; looks++) {
        const struct work *work = work_at(pool, id);
        if (ignore_avoid || !work_avoids(work, worker)) {
            return id;
        }
        id = work->next;
    }
    return NONE;
}

uint32_t fm_pool_ready_next(const fm_pool_t *pool, uint32_t batch_id,
                            uint32_t worker, bool ignore_avoid)
{
    const struct batch *batch = &pool->batches[batch_id];
    uint32_t best = NONE;
    const struct group *best_group = NULL;

    for (size_t i = 0; i < batch->group_count; i++) {
        const struct group *group = &batch->groups[i];
        uint32_t id = group_next(pool, group, worker, ignore_avoid);

        if (id == NONE) {
            continue;
        }
        if (best_group) {
            double served = pool->tenants[group->tenant].served;
            double least = pool->tenants[best_group->tenant].served;

            if (group->priority < best_group->priority ||
                (group->priority == best_group->priority &&
                 (served > least || (served <= least && served >= least &&
                                     work_at(pool, id)->arrival_ns >=
                                         work_at(pool, best)->arrival_ns)))) {
                continue;
            }
        }
        best = id;
        best_group = group;
    }
    return best;
}
