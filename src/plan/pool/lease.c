/* SPDX-License-Identifier: Apache-2.0 */
/* Events of leases: grants, results, ends.  As in apply.c, each reserves all
 * the memory it may need, then changes. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/pool/state.h"

/* --- grants -------------------------------------------------------------- */

static fm_status_t lease_make(fm_pool_t *pool, const fm_pool_lease_t *event,
                              uint32_t slot_count, uint32_t *lease_out,
                              fm_error_t *err)
{
    fm_digest_t key = fm_pool_lease_key(event->lease);
    uint32_t id = pool->lease_free;
    fm_status_t rc;

    if (id == NONE &&
        (rc = fm_grow((void *)&pool->leases, &pool->lease_capacity,
                      pool->lease_count, sizeof(struct lease), err)) < 0) {
        return rc;
    }
    size_t slot_bytes = slot_count * (sizeof(uint32_t) + sizeof(uint16_t));
    uint32_t *slots = fm_malloc(slot_bytes);
    if (!slots) {
        return fm_no_memory(err);
    }
    if (id == NONE) {
        id = (uint32_t)pool->lease_count;
    }
    if ((rc = fm_map_put(pool->lease_ids, &key, id, err)) < 0) {
        free(slots);
        return rc;
    }
    if (id == pool->lease_count) {
        pool->lease_count++;
    } else {
        pool->lease_free = pool->leases[id].free_next;
    }
    pool->leases[id] =
        (struct lease){.id = event->lease,
                       .worker = event->worker,
                       .slots = slots,
                       .slot_bytes = slot_bytes,
                       .payers = (void *)(slots + slot_count),
                       .resource = event->resource,
                       .devices = event->devices ? event->devices : 1,
                       .granted_ns = event->now_ns,
                       .expires_ns = event->expires_ns,
                       .used = true};
    pool->list_bytes += slot_bytes;
    *lease_out = id;
    return FM_OK;
}

/* What was estimated for all that may be granted, a unit of work. */
static void rates_set(const fm_pool_t *pool, struct lease *lease,
                      const fm_pool_lease_t *grant, uint32_t most)
{
    const struct batch *batch = &pool->batches[lease->batch];
    double units = most * (batch->amount / batch->ready);

    lease->rate = (fm_tenant_cost_t){
        grant->seconds / units, grant->dollars / units, grant->joules / units};
    lease->virtual_rate =
        grant->seconds > 0
            ? fm_tenants_dominant(pool->options.tenants, grant->resource,
                                  grant->seconds) /
                  units
            : 1;
}

/* Counts the node of the next work; false when it would be one too many. */
static bool node_admit(fm_pool_t *pool, uint32_t id,
                       const fm_pool_lease_t *grant, uint32_t *nodes)
{
    uint32_t node_id = NONE;
    uint32_t pos = 0;

    (void)fm_pool_leader(pool, work_at(pool, id), &node_id, &pos);
    struct node *node = node_at(pool, node_id);
    if (node->stamp != pool->stamp) {
        if (grant->max_nodes > 0 && *nodes == grant->max_nodes) {
            return false;
        }
        node->stamp = pool->stamp;
        ++*nodes;
    }
    return true;
}

static void slot_fill(fm_pool_t *pool, uint32_t lease_id, uint32_t id)
{
    struct lease *lease = &pool->leases[lease_id];
    struct work *work = work_at(pool, id);
    uint32_t tenant = lane_at(pool, group_at(pool, work->group)->lane)->tenant;

    /* charged while its tenant still counts as having work */
    fm_pool_charge_grant(pool, lease, id, tenant);
    fm_pool_ready_pop(pool, id);
    work->state = WORK_LEASED;
    work->lease = lease_id;
    work->slot = lease->count;
    lease->slots[lease->count++] = id;
    lease->amount += (double)work->amount;
    pool->totals.leased_work++;
}

fm_status_t fm_pool_lease_apply(fm_pool_t *pool, const fm_pool_event_t *event,
                                fm_error_t *err)
{
    const fm_pool_lease_t *grant = &event->lease;
    uint32_t batch = fm_pool_batch_find(pool, &grant->batch_key);
    uint32_t ready = pool->batches[batch].ready;
    uint32_t most = grant->max_items < ready ? grant->max_items : ready;
    uint32_t lease_id = NONE;
    uint32_t nodes = 0;
    fm_status_t rc = lease_make(pool, grant, most, &lease_id, err);

    if (rc < 0) {
        return rc;
    }
    struct lease *lease = &pool->leases[lease_id];
    lease->batch = batch;
    rates_set(pool, lease, grant, most);
    pool->totals.leases++;
    pool->stamp++;
    fm_pool_order_begin(pool, batch, grant);
    while (lease->count < most) {
        uint32_t id = fm_pool_order_top(pool);
        bool suspect = id != NONE && work_at(pool, id)->attempts > 0;

        /* P10: a suspect goes alone */
        if (id == NONE || (suspect && lease->count > 0) ||
            !node_admit(pool, id, grant, &nodes)) {
            break;
        }
        slot_fill(pool, lease_id, id);
        if (suspect) {
            break;
        }
        fm_pool_order_next(pool, grant, grant->max_nodes ? pool->stamp : 0);
    }
    lease->open = lease->live = lease->count;
    fm_pool_charge_granted(pool, lease);
    return FM_OK;
}

/* --- results ------------------------------------------------------------- */

void fm_pool_item_share(fm_pool_t *pool, uint32_t node_id, struct item *item)
{
    struct workflow *workflow = workflow_of(pool, node_id);

    item->state = ITEM_SHARED;
    node_at(pool, node_id)->shared++;
    workflow->shared++;
    pool->totals.shared++;
    fm_tenants_items(pool->options.tenants, workflow->tenant, -1, 0, 1);
}

static void item_ran(fm_pool_t *pool, uint32_t node_id, struct item *item)
{
    struct workflow *workflow = workflow_of(pool, node_id);

    item->state = ITEM_RAN;
    node_at(pool, node_id)->ran++;
    workflow->ran++;
    pool->totals.ran++;
    fm_tenants_items(pool->options.tenants, workflow->tenant, -1, 1, 0);
}

static void work_settle(fm_pool_t *pool, uint32_t id,
                        const fm_pool_result_t *result)
{
    struct work *work = work_at(pool, id);
    bool first = true;

    work->state = WORK_SETTLED;
    work->output = result->output;
    work->producer = result->lease;
    work->avoid_count = 0;
    pool->totals.memo++;
    if (work->waiters == 0) {
        pool->totals.orphaned++;
    }
    work->waiters = 0;
    uint32_t node_id = work->head_node;
    uint32_t pos = work->head_pos;
    while (node_id != NONE) {
        struct node *node = node_at(pool, node_id);
        struct item *item = &node->items[pos];
        uint32_t next = item->next_node;

        if (item->state == ITEM_WAIT) {
            if (first) {
                item_ran(pool, node_id, item);
                first = false;
            } else {
                fm_pool_item_share(pool, node_id, item);
            }
            if (--node->unsettled == 0) {
                fm_pool_node_done(pool, node_id, FM_POOL_DONE);
            }
        }
        pos = item->next_pos;
        node_id = next;
    }
}

static void work_avoid(struct work *work, uint32_t worker)
{
    for (uint8_t i = 0; i < work->avoid_count; i++) {
        if (work->avoid[i] == worker) {
            return;
        }
    }
    if (work->avoid_count == FM_POOL_AVOID_MAX) { /* forget the oldest */
        memmove(work->avoid, work->avoid + 1,
                (FM_POOL_AVOID_MAX - 1) * sizeof(work->avoid[0]));
        work->avoid_count--;
    }
    work->avoid[work->avoid_count++] = worker;
}

/* The leader has failed for good: its node fails, a follower takes over. */
static void leader_fail(fm_pool_t *pool, uint32_t id, fm_pool_reason_t reason)
{
    struct work *work = work_at(pool, id);
    uint32_t node_id = NONE;
    uint32_t pos = 0;

    (void)fm_pool_leader(pool, work, &node_id, &pos);
    struct node *node = node_at(pool, node_id);
    fm_pool_item_detach(pool, node_id, pos);
    node->items[pos].state = ITEM_FAILED;
    node->failed++;
    node->unsettled--;
    work->waiters--;
    workflow_of(pool, node_id)->items_failed++;
    pool->totals.failed++;
    fm_tenants_items(pool->options.tenants, tenant_of(pool, node_id), -1, 0, 0);
    fm_pool_work_after_loss(pool, id, true);
    fm_pool_node_fail(pool, node_id, reason, pos);
}

/* A void work ran without a result: run it again, or fail its leader. */
static void work_retry(fm_pool_t *pool, uint32_t id, fm_pool_outcome_t outcome)
{
    struct work *work = work_at(pool, id);

    if (work->waiters == 0) {
        fm_pool_work_release(pool, id);
    } else if (outcome == FM_POOL_TASK_ERROR &&
               ++work->attempts >= pool->options.max_attempts) {
        leader_fail(pool, id, FM_POOL_REASON_TASK);
    } else if (outcome == FM_POOL_INFRA_ERROR &&
               ++work->infra >= pool->options.max_infra) {
        leader_fail(pool, id, FM_POOL_REASON_INFRA);
    } else {
        if (outcome == FM_POOL_TASK_ERROR) {
            pool->totals.retried_task++;
        } else if (outcome == FM_POOL_INFRA_ERROR) {
            pool->totals.retried_infra++;
        }
        /* a suspect waits for its batch mates to clear themselves (P10) */
        fm_pool_ready_push(pool, id, work->attempts == 0);
    }
}

/* After a result: a lease with nothing open is over; one with nothing wanted
 * is moot, unless its own last result just closed it. */
static void lease_test(fm_pool_t *pool, uint32_t lease_id, bool own)
{
    struct lease *lease = &pool->leases[lease_id];

    if (own && lease->open == 0) {
        fm_pool_lease_drop(pool, lease_id);
    } else if (lease->live == 0) {
        fm_pool_notice_lease(pool, lease_id);
    }
}

fm_status_t fm_pool_result_apply(fm_pool_t *pool, const fm_pool_event_t *event,
                                 fm_error_t *err)
{
    const fm_pool_result_t *result = &event->result;
    uint32_t own = fm_pool_lease_find(pool, result->lease);
    uint32_t id = fm_pool_work_find(pool, &result->key);
    fm_status_t rc;

    if (id == NONE) { /* late, and nobody asks: the memo may still use it */
        if ((rc = fm_pool_work_reserve(pool, 1, err)) < 0) {
            return rc;
        }
        id = fm_pool_work_add(pool, &result->key);
    }
    struct work *work = work_at(pool, id);
    uint32_t lease_id = work->state == WORK_LEASED ? work->lease : NONE;
    fm_pool_charge_result(pool, id, result,
                          lease_id != NONE && lease_id == own);
    if (lease_id != NONE) {
        if (lease_id == own && result->outcome != FM_POOL_OK) {
            work_avoid(work, pool->leases[lease_id].worker);
        }
        fm_pool_slot_close(pool, id);
    } else if (work->state == WORK_READY) {
        fm_pool_ready_pop(pool, id);
    }
    if (result->outcome == FM_POOL_OK) {
        work_settle(pool, id, result);
    } else {
        work_retry(pool, id, result->outcome);
    }
    if (lease_id != NONE) {
        lease_test(pool, lease_id, lease_id == own);
    }
    return FM_OK;
}

fm_status_t fm_pool_lease_end_apply(fm_pool_t *pool,
                                    const fm_pool_event_t *event,
                                    fm_error_t *err)
{
    uint32_t lease_id = fm_pool_lease_find(pool, event->lease_end.lease);
    bool fault = event->lease_end.how == FM_POOL_END_FAULT;
    struct lease *lease = &pool->leases[lease_id];

    (void)err;
    /* Backwards, because each goes to the front of its queue. */
    for (uint32_t i = lease->count; i-- > 0;) {
        uint32_t id = lease->slots[i];
        if (id == NONE) {
            continue;
        }
        struct work *work = work_at(pool, id);
        if (fault) {
            work_avoid(work, lease->worker);
        }
        fm_pool_charge_refund(pool, work);
        fm_pool_slot_close(pool, id);
        work_retry(pool, id, fault ? FM_POOL_INFRA_ERROR : FM_POOL_OK);
    }
    fm_pool_lease_drop(pool, lease_id);
    return FM_OK;
}
