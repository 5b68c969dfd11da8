/* SPDX-License-Identifier: Apache-2.0 */
/* The pool's lifecycle, its leases' table, and the notices.  Notices are
 * lists through the objects themselves, so giving one never needs memory. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/pool/state.h"

fm_pool_t *fm_pool_create(const fm_pool_options_t *opts)
{
    fm_pool_t *pool = fm_calloc(1, sizeof(*pool));

    if (!pool || !(pool->group_ids = fm_map_create()) ||
        !(pool->batch_ids = fm_map_create()) ||
        !(pool->lease_ids = fm_map_create())) {
        return fm_pool_destroy(pool);
    }
    if (opts) {
        pool->options = *opts;
    }
    if (pool->options.max_attempts == 0) {
        pool->options.max_attempts = FM_POOL_ATTEMPTS_DEFAULT;
    } else if (pool->options.max_attempts > UINT8_MAX) {
        pool->options.max_attempts = UINT8_MAX;
    }
    if (pool->options.max_infra == 0) {
        pool->options.max_infra = FM_POOL_INFRA_DEFAULT;
    } else if (pool->options.max_infra > UINT16_MAX) {
        pool->options.max_infra = UINT16_MAX;
    }
    if (!pool->options.tenants &&
        !(pool->options.tenants = pool->own_tenants = fm_tenants_create())) {
        return fm_pool_destroy(pool);
    }
    pool->work_free = pool->lease_free = NONE;
    pool->dirty = (struct queue){NONE, NONE};
    pool->node_notices = (struct queue){NONE, NONE};
    pool->workflow_notices = (struct queue){NONE, NONE};
    pool->lease_notices = (struct queue){NONE, NONE};
    return pool;
}

static void chunks_fini(struct chunks *chunks)
{
    for (size_t i = 0; i < chunks->count; i++) {
        free(chunks->at[i]);
    }
    free(chunks->at);
}

void *fm_pool_destroy(fm_pool_t *pool)
{
    if (!pool) {
        return NULL;
    }
    for (uint32_t i = 0; i < pool->node_used; i++) {
        free(node_at(pool, i)->items);
    }
    for (size_t i = 0; i < pool->workflow_count; i++) {
        free(pool->workflows[i].edges);
    }
    for (size_t i = 0; i < pool->batch_count; i++) {
        free(pool->batches[i].lanes);
        free(pool->batches[i].dues);
    }
    for (size_t i = 0; i < pool->lease_count; i++) {
        free(pool->leases[i].slots);
    }
    chunks_fini(&pool->work_chunks);
    chunks_fini(&pool->node_chunks);
    chunks_fini(&pool->lane_chunks);
    chunks_fini(&pool->group_chunks);
    free(pool->table);
    free(pool->workflows);
    free(pool->tenant_lanes);
    free(pool->order);
    free(pool->batches);
    free(pool->leases);
    fm_map_destroy(pool->group_ids);
    fm_map_destroy(pool->batch_ids);
    fm_map_destroy(pool->lease_ids);
    fm_tenants_destroy(pool->own_tenants);
    free(pool);
    return NULL;
}

fm_tenants_t *fm_pool_tenants(const fm_pool_t *pool)
{
    return pool->options.tenants;
}

fm_status_t fm_pool_chunks_reserve(struct chunks *chunks, size_t elements,
                                   size_t bytes, fm_error_t *err)
{
    while (chunks->count * CHUNK < elements) {
        fm_status_t rc = fm_grow((void *)&chunks->at, &chunks->capacity,
                                 chunks->count, sizeof(*chunks->at), err);
        if (rc < 0) {
            return rc;
        }
        if (!(chunks->at[chunks->count] = fm_calloc(CHUNK, bytes))) {
            return fm_no_memory(err);
        }
        chunks->count++;
    }
    return FM_OK;
}

fm_digest_t fm_pool_lease_key(uint64_t lease)
{
    fm_digest_t key = {0};

    memcpy(key.bytes, &lease, sizeof(lease));
    return key;
}

uint32_t fm_pool_lease_find(const fm_pool_t *pool, uint64_t lease)
{
    fm_digest_t key = fm_pool_lease_key(lease);
    const uint64_t *at = fm_map_get(pool->lease_ids, &key);

    return at ? (uint32_t)*at : NONE;
}

uint32_t fm_pool_batch_find(const fm_pool_t *pool, const fm_digest_t *key)
{
    const uint64_t *at = fm_map_get(pool->batch_ids, key);

    return at ? (uint32_t)*at : NONE;
}

static void lease_free(fm_pool_t *pool, uint32_t id)
{
    struct lease *lease = &pool->leases[id];

    lease->used = lease->dead = false;
    lease->free_next = pool->lease_free;
    pool->lease_free = id;
}

void fm_pool_lease_drop(fm_pool_t *pool, uint32_t id)
{
    struct lease *lease = &pool->leases[id];
    fm_digest_t key = fm_pool_lease_key(lease->id);

    fm_pool_charge_dropped(pool, lease);
    (void)fm_map_remove(pool->lease_ids, &key);
    free(lease->slots);
    lease->slots = NULL;
    pool->list_bytes -= lease->slot_bytes;
    pool->totals.leases--;
    if (lease->queued) {
        lease->dead = true;
    } else {
        lease_free(pool, id);
    }
}

/* --- notices ------------------------------------------------------------- */

void fm_pool_notice_node(fm_pool_t *pool, uint32_t id)
{
    struct node *node = node_at(pool, id);

    if (node->queued) {
        return;
    }
    node->queued = 1;
    node->notice_next = NONE;
    if (pool->node_notices.head == NONE) {
        pool->node_notices.head = id;
    } else {
        node_at(pool, pool->node_notices.tail)->notice_next = id;
    }
    pool->node_notices.tail = id;
}

void fm_pool_notice_workflow(fm_pool_t *pool, uint32_t id)
{
    struct workflow *workflow = &pool->workflows[id];

    if (workflow->queued) {
        return;
    }
    workflow->queued = 1;
    workflow->notice_next = NONE;
    if (pool->workflow_notices.head == NONE) {
        pool->workflow_notices.head = id;
    } else {
        pool->workflows[pool->workflow_notices.tail].notice_next = id;
    }
    pool->workflow_notices.tail = id;
}

void fm_pool_notice_lease(fm_pool_t *pool, uint32_t id)
{
    struct lease *lease = &pool->leases[id];

    if (lease->queued) {
        return;
    }
    lease->queued = true;
    lease->notice_next = NONE;
    if (pool->lease_notices.head == NONE) {
        pool->lease_notices.head = id;
    } else {
        pool->leases[pool->lease_notices.tail].notice_next = id;
    }
    pool->lease_notices.tail = id;
}

static bool next_node_notice(fm_pool_t *pool, fm_pool_notice_t *out)
{
    while (pool->node_notices.head != NONE) {
        uint32_t id = pool->node_notices.head;
        struct node *node = node_at(pool, id);
        const struct workflow *workflow = &pool->workflows[node->workflow];

        pool->node_notices.head = node->notice_next;
        node->queued = 0;
        if (node->state == FM_POOL_WAITING || node->state == FM_POOL_RUNNING ||
            node->state == FM_POOL_CANCELLED ||
            workflow->state == FM_POOL_CANCELLED) {
            continue; /* reopened above it, or cancelled meanwhile */
        }
        *out = (fm_pool_notice_t){
            .kind = node->state == FM_POOL_READY    ? FM_POOL_NODE_READY
                    : node->state == FM_POOL_FAILED ? FM_POOL_NODE_FAILED
                                                    : FM_POOL_NODE_DONE,
            .workflow = node->workflow,
            .node = id - workflow->first_node};
        return true;
    }
    return false;
}

/* A lease is moot only if nobody came to want it since: then its open works
 * are orphans, and go with it. */
static bool next_lease_notice(fm_pool_t *pool, fm_pool_notice_t *out)
{
    while (pool->lease_notices.head != NONE) {
        uint32_t id = pool->lease_notices.head;
        struct lease *lease = &pool->leases[id];

        pool->lease_notices.head = lease->notice_next;
        lease->queued = false;
        if (lease->dead) {
            lease_free(pool, id);
            continue;
        }
        if (lease->live > 0) {
            continue;
        }
        *out = (fm_pool_notice_t){.kind = FM_POOL_LEASE_MOOT,
                                  .lease = lease->id,
                                  .worker = lease->worker};
        for (uint32_t i = 0; i < lease->count; i++) {
            uint32_t work = lease->slots[i];
            if (work != NONE) {
                fm_pool_charge_refund(pool, work_at(pool, work));
                fm_pool_slot_close(pool, work);
                fm_pool_work_release(pool, work);
            }
        }
        fm_pool_lease_drop(pool, id);
        return true;
    }
    return false;
}

bool fm_pool_next_notice(fm_pool_t *pool, fm_pool_notice_t *notice_out)
{
    if (next_node_notice(pool, notice_out)) {
        return true;
    }
    if (pool->workflow_notices.head != NONE) {
        uint32_t id = pool->workflow_notices.head;
        struct workflow *workflow = &pool->workflows[id];

        pool->workflow_notices.head = workflow->notice_next;
        workflow->queued = 0;
        *notice_out = (fm_pool_notice_t){
            .kind = workflow->state == FM_POOL_DONE ? FM_POOL_WORKFLOW_DONE
                    : workflow->state == FM_POOL_FAILED
                        ? FM_POOL_WORKFLOW_FAILED
                        : FM_POOL_WORKFLOW_CANCELLED,
            .workflow = id};
        return true;
    }
    return next_lease_notice(pool, notice_out);
}
