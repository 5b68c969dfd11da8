/* SPDX-License-Identifier: Apache-2.0 */
/* Works: the table of keys, and the items that hang on each. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/pool/state.h"

#define TABLE_MIN 64u /* a power of two, as every later size */

/*
 * The table: open addressing with linear probing, load ≤ 0.7.  A slot holds
 * the first 32 bits of a key over the number of its work, so that a look-up
 * goes to another work, which is elsewhere in memory, once in 2^32.
 */
#define SLOT_EMPTY UINT64_MAX

static uint32_t tag_of(const fm_digest_t *key)
{
    uint32_t tag = 0;

    memcpy(&tag, key->bytes, sizeof(tag));
    return tag;
}

static size_t home_of(uint64_t slot, size_t size)
{
    return (size_t)(slot >> 32) & (size - 1);
}

/* The slot that holds key, or the empty one where it belongs. */
static size_t table_slot(const fm_pool_t *pool, const fm_digest_t *key)
{
    uint32_t tag = tag_of(key);
    size_t i = tag & (pool->table_size - 1);

    for (;; i = (i + 1) & (pool->table_size - 1)) {
        uint64_t slot = pool->table[i];
        if (slot == SLOT_EMPTY ||
            (slot >> 32 == tag &&
             fm_digest_equal(&work_at(pool, (uint32_t)slot)->key, key))) {
            return i;
        }
    }
}

uint32_t fm_pool_work_find(const fm_pool_t *pool, const fm_digest_t *key)
{
    /* NONE is the low half of SLOT_EMPTY */
    return pool->table_count ? (uint32_t)pool->table[table_slot(pool, key)]
                             : NONE;
}

void fm_pool_work_prefetch(const fm_pool_t *pool, const fm_digest_t *soon,
                           const fm_digest_t *sooner)
{
    if (pool->table_size == 0) {
        return;
    }
    __builtin_prefetch(&pool->table[tag_of(soon) & (pool->table_size - 1)]);
    uint64_t slot = pool->table[tag_of(sooner) & (pool->table_size - 1)];
    if (slot != SLOT_EMPTY && slot >> 32 == tag_of(sooner)) {
        __builtin_prefetch(work_at(pool, (uint32_t)slot));
    }
}

static fm_status_t table_reserve(fm_pool_t *pool, size_t count, fm_error_t *err)
{
    size_t size = pool->table_size ? pool->table_size : TABLE_MIN;

    while ((pool->table_count + count) * 10 > size * 7) {
        size *= 2;
    }
    if (size == pool->table_size) {
        return FM_OK;
    }
    uint64_t *table = fm_malloc(size * sizeof(*table));
    if (!table) {
        return fm_no_memory(err);
    }
    memset(table, 0xFF, size * sizeof(*table));
    for (size_t i = 0; i < pool->table_size; i++) {
        if (pool->table[i] != SLOT_EMPTY) {
            size_t to = home_of(pool->table[i], size);
            while (table[to] != SLOT_EMPTY) {
                to = (to + 1) & (size - 1);
            }
            table[to] = pool->table[i];
        }
    }
    free(pool->table);
    pool->table = table;
    pool->table_size = size;
    return FM_OK;
}

fm_status_t fm_pool_work_reserve(fm_pool_t *pool, size_t count, fm_error_t *err)
{
    size_t fresh =
        count > pool->work_free_count ? count - pool->work_free_count : 0;
    fm_status_t rc = fm_pool_chunks_reserve(
        &pool->work_chunks, pool->work_used + fresh, sizeof(struct work), err);

    return rc < 0 ? rc : table_reserve(pool, count, err);
}

uint32_t fm_pool_work_add(fm_pool_t *pool, const fm_digest_t *key)
{
    uint32_t id = pool->work_free;

    if (id != NONE) {
        pool->work_free = work_at(pool, id)->next;
        pool->work_free_count--;
    } else {
        id = pool->work_used++;
    }
    *work_at(pool, id) = (struct work){.key = *key,
                                       .deadline_ns = INT64_MAX,
                                       .head_node = NONE,
                                       .tail_node = NONE,
                                       .batch = NONE,
                                       .next = NONE,
                                       .prev = NONE,
                                       .group = NONE,
                                       .lease = NONE};
    pool->table[table_slot(pool, key)] = (uint64_t)tag_of(key) << 32 | id;
    pool->table_count++;
    return id;
}

static void table_remove(fm_pool_t *pool, const fm_digest_t *key)
{
    size_t mask = pool->table_size - 1;
    size_t hole = table_slot(pool, key);

    for (size_t i = (hole + 1) & mask; pool->table[i] != SLOT_EMPTY;
         i = (i + 1) & mask) {
        size_t home = home_of(pool->table[i], pool->table_size);
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            pool->table[hole] = pool->table[i];
            hole = i;
        }
    }
    pool->table[hole] = SLOT_EMPTY;
    pool->table_count--;
}

void fm_pool_work_release(fm_pool_t *pool, uint32_t id)
{
    struct work *work = work_at(pool, id);

    if (work->state != WORK_VOID || work->head_node != NONE) {
        return;
    }
    table_remove(pool, &work->key);
    if (work->batch != NONE) {
        pool->batches[work->batch].works--;
        work->batch = NONE;
    }
    work->next = pool->work_free;
    pool->work_free = id;
    pool->work_free_count++;
}

void fm_pool_item_attach(fm_pool_t *pool, uint32_t id, uint32_t node,
                         uint32_t pos)
{
    struct work *work = work_at(pool, id);
    struct item *item = item_at(pool, node, pos);

    item->work = id;
    item->next_node = NONE;
    item->prev_node = work->tail_node;
    item->prev_pos = work->tail_pos;
    if (work->tail_node == NONE) {
        work->head_node = node;
        work->head_pos = pos;
    } else {
        struct item *last = item_at(pool, work->tail_node, work->tail_pos);
        last->next_node = node;
        last->next_pos = pos;
    }
    work->tail_node = node;
    work->tail_pos = pos;
}

void fm_pool_item_detach(fm_pool_t *pool, uint32_t node, uint32_t pos)
{
    struct item *item = item_at(pool, node, pos);
    struct work *work = work_at(pool, item->work);

    if (item->prev_node == NONE) {
        work->head_node = item->next_node;
        work->head_pos = item->next_pos;
    } else {
        struct item *prev = item_at(pool, item->prev_node, item->prev_pos);
        prev->next_node = item->next_node;
        prev->next_pos = item->next_pos;
    }
    if (item->next_node == NONE) {
        work->tail_node = item->prev_node;
        work->tail_pos = item->prev_pos;
    } else {
        struct item *next = item_at(pool, item->next_node, item->next_pos);
        next->prev_node = item->prev_node;
        next->prev_pos = item->prev_pos;
    }
    item->work = NONE;
}

bool fm_pool_leader(const fm_pool_t *pool, const struct work *work,
                    uint32_t *node_out, uint32_t *pos_out)
{
    uint32_t node = work->head_node;
    uint32_t pos = work->head_pos;

    while (node != NONE) {
        const struct item *item = item_at(pool, node, pos);
        if (item->state == ITEM_WAIT) {
            *node_out = node;
            *pos_out = pos;
            return true;
        }
        node = item->next_node;
        pos = item->next_pos;
    }
    return false;
}

void fm_pool_work_lead(fm_pool_t *pool, uint32_t id)
{
    struct work *work = work_at(pool, id);
    uint32_t node = NONE;
    uint32_t pos = 0;

    work->attempts = 0;
    work->infra = 0;
    work->deadline_ns = INT64_MAX;
    if (!fm_pool_leader(pool, work, &node, &pos)) {
        return;
    }
    work->arrival_ns = node_at(pool, node)->arrival_ns;
    for (int i = 0; node != NONE && i < WAITERS_SEEN; i++) {
        const struct item *item = item_at(pool, node, pos);
        int64_t deadline_ns = workflow_of(pool, node)->deadline_ns;

        if (item->state == ITEM_WAIT && deadline_ns < work->deadline_ns) {
            work->deadline_ns = deadline_ns;
        }
        node = item->next_node;
        pos = item->next_pos;
    }
}

void fm_pool_work_after_loss(fm_pool_t *pool, uint32_t id, bool led)
{
    struct work *work = work_at(pool, id);

    if (work->waiters == 0) {
        if (work->state == WORK_READY) {
            fm_pool_ready_pop(pool, id);
        } else if (work->state == WORK_LEASED) {
            struct lease *lease = &pool->leases[work->lease];
            if (--lease->live == 0) {
                fm_pool_notice_lease(pool, work->lease);
            }
        }
        fm_pool_work_release(pool, id);
    } else if (work->state == WORK_READY &&
               (led || fm_pool_ready_sponsored(pool, work))) {
        fm_pool_ready_pop(pool, id);
        if (led) {
            fm_pool_work_lead(pool, id);
        }
        fm_pool_ready_push(pool, id, false);
    } else if (led) {
        fm_pool_work_lead(pool, id);
        if (work->state == WORK_VOID) {
            fm_pool_ready_push(pool, id, false);
        }
    }
}

void fm_pool_slot_close(fm_pool_t *pool, uint32_t id)
{
    struct work *work = work_at(pool, id);
    struct lease *lease = &pool->leases[work->lease];

    lease->slots[work->slot] = NONE;
    lease->open--;
    if (work->waiters > 0) {
        lease->live--;
    }
    work->lease = NONE;
    work->state = WORK_VOID;
    pool->totals.leased_work--;
}
