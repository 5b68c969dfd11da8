/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools: binary heaps of workers, the idle ones first (those with the fewest
 * models, so that little is evicted, then by id), then by free time.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/sched/state.h"

fm_status_t fm_sched_list_push(struct list *list, uint32_t value,
                               fm_error_t *err)
{
    fm_status_t rc = fm_grow((void *)&list->at, &list->capacity, list->count,
                             sizeof(*list->at), err);

    if (rc == FM_OK) {
        list->at[list->count++] = value;
    }
    return rc;
}

int64_t fm_sched_worker_key(const struct worker *worker)
{
    if (worker->held) {
        return INT64_MAX;
    }
    return worker->free_at_ns == IDLE ? IDLE + worker->model_count
                                      : worker->free_at_ns;
}

static bool entry_before(const struct entry *a, const struct entry *b)
{
    return a->key < b->key || (a->key == b->key && a->worker < b->worker);
}

static void entry_set(fm_sched_t *s, struct pool *pool, uint32_t pos,
                      struct entry entry)
{
    pool->heap[pos] = entry;
    s->workers[entry.worker].seats[entry.slot].pos = pos;
}

static void sift(fm_sched_t *s, struct pool *pool, uint32_t pos)
{
    struct entry entry = pool->heap[pos];

    while (pos > 0 && entry_before(&entry, &pool->heap[(pos - 1) / 2])) {
        entry_set(s, pool, pos, pool->heap[(pos - 1) / 2]);
        pos = (pos - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * pos + 1;
        if (child + 1 < pool->count &&
            entry_before(&pool->heap[child + 1], &pool->heap[child])) {
            child++;
        }
        if (child >= pool->count || !entry_before(&pool->heap[child], &entry)) {
            break;
        }
        entry_set(s, pool, pos, pool->heap[child]);
        pos = child;
    }
    entry_set(s, pool, pos, entry);
}

static uint32_t *owner_idle(fm_sched_t *s, const struct pool *pool)
{
    return pool->kind == POOL_MODEL ? &s->models[pool->owner].idle
                                    : &s->domains[pool->owner].idle;
}

static void idle_count(fm_sched_t *s, struct pool *pool, int64_t key, int delta)
{
    if (key < IDLE_KEY_MAX) {
        pool->idle += (uint32_t)delta;
        if (pool->kind != POOL_CLASS) {
            *owner_idle(s, pool) += (uint32_t)delta;
        }
    }
}

static void idle_list_set(fm_sched_t *s, uint32_t class, bool idle)
{
    struct class *c = &s->classes[class];
    struct list *list = &s->idle_classes; /* room: as many as classes */

    if (idle && c->idle_pos == NONE) {
        c->idle_pos = (uint32_t)list->count;
        list->at[list->count++] = class;
    } else if (!idle && c->idle_pos != NONE) {
        uint32_t moved = list->at[--list->count];
        list->at[c->idle_pos] = moved;
        s->classes[moved].idle_pos = c->idle_pos;
        c->idle_pos = NONE;
    }
}

/* Note who is first in line now.  Batches see of a class whether any worker
 * is idle, of a model or domain also which one. */
static void top_note(fm_sched_t *s, uint32_t id)
{
    struct pool *pool = &s->pools[id];
    uint32_t top = pool->count > 0 && pool->heap[0].key < IDLE_KEY_MAX
                       ? pool->heap[0].worker
                       : NONE;
    bool same = pool->kind == POOL_CLASS ? (top == NONE) == (pool->top == NONE)
                                         : top == pool->top;

    pool->top = top;
    if (pool->kind == POOL_CLASS && !same) {
        idle_list_set(s, pool->class, top != NONE);
    }
    if (!same && !pool->touched) {
        pool->touched = true;
        s->touched.at[s->touched.count++] = id; /* room: as many as pools */
    }
}

void fm_sched_pool_push(fm_sched_t *s, uint32_t id, uint32_t worker,
                        uint32_t slot)
{
    struct pool *pool = &s->pools[id];
    struct entry entry = {fm_sched_worker_key(&s->workers[worker]), worker,
                          slot};

    idle_count(s, pool, entry.key, 1);
    s->workers[worker].seats[slot].pool = id;
    entry_set(s, pool, pool->count++, entry);
    sift(s, pool, pool->count - 1);
    top_note(s, id);
}

void fm_sched_pool_fix(fm_sched_t *s, struct seat seat)
{
    struct pool *pool = &s->pools[seat.pool];
    struct entry *entry = &pool->heap[seat.pos];

    idle_count(s, pool, entry->key, -1);
    entry->key = fm_sched_worker_key(&s->workers[entry->worker]);
    idle_count(s, pool, entry->key, 1);
    sift(s, pool, seat.pos);
    top_note(s, seat.pool);
}

/* --- making and freeing -------------------------------------------------- */

static uint32_t *owner_first(fm_sched_t *s, const struct pool *pool)
{
    return pool->kind == POOL_MODEL ? &s->models[pool->owner].pool_first
                                    : &s->domains[pool->owner].pool_first;
}

/* Batches that point at the pool must not find another one there. */
static void pool_forget(fm_sched_t *s, uint32_t id)
{
    for (size_t i = 0; i < s->active.count; i++) {
        struct batch *batch = &s->batches[s->active.at[i]];
        if (batch->best.pool == id) {
            batch->stale = true;
        }
    }
}

static void pool_unlink(fm_sched_t *s, uint32_t id)
{
    struct pool *pool = &s->pools[id];

    if (pool->kind == POOL_CLASS) {
        return;
    }
    uint32_t *link = owner_first(s, pool);
    while (*link != id) {
        link = &s->pools[*link].next;
    }
    *link = pool->next;
    if (pool->kind == POOL_DOMAIN) {
        link = &s->classes[pool->class].domain_first;
        while (*link != id) {
            link = &s->pools[*link].class_next;
        }
        *link = pool->class_next;
    }
}

void fm_sched_pool_remove(fm_sched_t *s, struct seat seat)
{
    struct pool *pool = &s->pools[seat.pool];

    idle_count(s, pool, pool->heap[seat.pos].key, -1);
    pool->count--;
    if (seat.pos < pool->count) {
        entry_set(s, pool, seat.pos, pool->heap[pool->count]);
        sift(s, pool, seat.pos);
    }
    top_note(s, seat.pool);
}

void fm_sched_pool_trim(fm_sched_t *s, uint32_t id)
{
    struct pool *pool = &s->pools[id];

    if (pool->kind == POOL_FREE || pool->count > 0) {
        return;
    }
    if (s->reservation.batch != NONE && s->reservation.pool == id) {
        fm_sched_reservation_drop(s);
    }
    pool_forget(s, id);
    pool_unlink(s, id);
    if (pool->kind == POOL_CLASS) {
        s->classes[pool->class].pool = NONE;
    }
    free(pool->heap);
    *pool = (struct pool){.kind = POOL_FREE,
                          .touched = pool->touched,
                          .next = s->pool_free,
                          .top = NONE};
    s->pool_free = id;
}

static uint32_t pool_find(const fm_sched_t *s, enum pool_kind kind,
                          uint32_t class, uint32_t owner)
{
    uint32_t id = kind == POOL_CLASS   ? s->classes[class].pool
                  : kind == POOL_MODEL ? s->models[owner].pool_first
                                       : s->domains[owner].pool_first;

    while (id != NONE && s->pools[id].class != class) {
        id = s->pools[id].next;
    }
    return id;
}

/* A slot for a pool, and room for it among the touched. */
static uint32_t pool_slot(fm_sched_t *s)
{
    if (s->pool_free != NONE) {
        uint32_t id = s->pool_free;
        s->pool_free = s->pools[id].next;
        return id;
    }
    if (fm_grow((void *)&s->pools, &s->pool_capacity, s->pool_count,
                sizeof(*s->pools), NULL) < 0) {
        return NONE;
    }
    if (s->touched.capacity < s->pool_capacity) {
        uint32_t *at = fm_realloc(s->touched.at, s->pool_capacity, sizeof(*at));
        if (!at) {
            return NONE;
        }
        s->touched.at = at;
        s->touched.capacity = s->pool_capacity;
    }
    s->pools[s->pool_count].touched = false;
    return (uint32_t)s->pool_count++;
}

uint32_t fm_sched_pool_make(fm_sched_t *s, enum pool_kind kind, uint32_t class,
                            uint32_t owner)
{
    uint32_t id = pool_find(s, kind, class, owner);

    if (id != NONE || (id = pool_slot(s)) == NONE) {
        return id;
    }
    struct pool *pool = &s->pools[id];
    *pool = (struct pool){.kind = (uint8_t)kind,
                          .class = class,
                          .owner = owner,
                          .top = NONE,
                          .next = NONE,
                          .class_next = NONE,
                          .touched = pool->touched};
    if (kind == POOL_CLASS) {
        s->classes[class].pool = id;
        return id;
    }
    uint32_t *first = owner_first(s, pool);
    pool->next = *first;
    *first = id;
    if (kind == POOL_DOMAIN) {
        pool->class_next = s->classes[class].domain_first;
        s->classes[class].domain_first = id;
    }
    return id;
}

bool fm_sched_pool_reserve(fm_sched_t *s, uint32_t id, uint32_t count)
{
    struct pool *pool = &s->pools[id];

    if (pool->capacity < count) {
        uint32_t capacity = count < 4 ? 4 : count + count / 2;
        struct entry *heap = fm_realloc(pool->heap, capacity, sizeof(*heap));
        if (!heap) {
            return false;
        }
        pool->heap = heap;
        pool->capacity = capacity;
    }
    return true;
}

/* --- looking ------------------------------------------------------------- */

static bool avoided(const struct batch *batch, uint32_t worker)
{
    for (uint32_t i = 0; i < batch->avoid_count; i++) {
        if (batch->avoid[i] == worker) {
            return true;
        }
    }
    return false;
}

/* Only below an avoided worker can there be another first one, so this looks
 * at no more than two for each that is avoided. */
static void pick_below(const struct pool *pool, const struct batch *batch,
                       uint32_t pos, const struct entry **first)
{
    if (pos >= pool->count) {
        return;
    }
    const struct entry *entry = &pool->heap[pos];
    if (avoided(batch, entry->worker)) {
        pick_below(pool, batch, 2 * pos + 1, first);
        pick_below(pool, batch, 2 * pos + 2, first);
    } else if (!*first || entry_before(entry, *first)) {
        *first = entry;
    }
}

uint32_t fm_sched_pool_pick(const fm_sched_t *s, uint32_t id,
                            const struct batch *batch)
{
    const struct pool *pool = &s->pools[id];
    const struct entry *first = NULL;

    if (pool->count == 0) {
        return NONE;
    }
    if (batch->avoid_count == 0 || batch->waive) {
        return pool->heap[0].worker;
    }
    pick_below(pool, batch, 0, &first);
    return first ? first->worker : NONE;
}
