/* SPDX-License-Identifier: Apache-2.0 */
/* Events change the pool here, after fm_pool_check() let them pass.  Each
 * function first reserves all the memory it may need, then changes. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/pool/state.h"

typedef fm_status_t apply_fn(fm_pool_t *pool, const fm_pool_event_t *event,
                             fm_error_t *err);

/* --- submit -------------------------------------------------------------- */

static fm_status_t tenant_make(fm_pool_t *pool, const char *name,
                               uint32_t *tenant_out, fm_error_t *err)
{
    const uint64_t *known = fm_strmap_get(pool->tenant_ids, name);

    if (known) {
        *tenant_out = (uint32_t)*known;
        return FM_OK;
    }
    fm_status_t rc = fm_grow((void *)&pool->tenants, &pool->tenant_capacity,
                             pool->tenant_count, sizeof(struct tenant), err);
    char *copy = rc < 0 ? NULL : fm_strdup(name);
    if (!copy) {
        return fm_no_memory(err);
    }
    if ((rc = fm_strmap_put(pool->tenant_ids, name, pool->tenant_count, err)) <
        0) {
        free(copy);
        return rc;
    }
    *tenant_out = (uint32_t)pool->tenant_count;
    pool->tenants[pool->tenant_count++] = (struct tenant){.name = copy};
    return FM_OK;
}

/* Lay out deps, then dependents, of all nodes in one array. */
static void edges_fill(fm_pool_t *pool, const fm_pool_submit_t *submit,
                       uint32_t first, uint32_t *edges)
{
    uint32_t at = 0;

    for (uint32_t i = 0; i < submit->node_count; i++) {
        struct node *node = node_at(pool, first + i);
        const fm_pool_node_spec_t *spec = &submit->nodes[i];

        *node = (struct node){.workflow = submit->workflow,
                              .dep_first = at,
                              .dep_count = (uint32_t)spec->dep_count,
                              .deps_left = (uint32_t)spec->dep_count};
        for (size_t d = 0; d < spec->dep_count; d++) {
            edges[at++] = spec->deps[d];
            node_at(pool, first + spec->deps[d])->out_count++;
        }
    }
    for (uint32_t i = 0; i < submit->node_count; i++) {
        struct node *node = node_at(pool, first + i);
        node->out_first = at;
        at += node->out_count;
        node->out_count = 0;
    }
    for (uint32_t i = 0; i < submit->node_count; i++) {
        const struct node *node = node_at(pool, first + i);
        for (uint32_t d = 0; d < node->dep_count; d++) {
            struct node *above =
                node_at(pool, first + edges[node->dep_first + d]);
            edges[above->out_first + above->out_count++] = i;
        }
    }
    for (uint32_t i = (uint32_t)submit->node_count; i-- > 0;) {
        const struct node *node = node_at(pool, first + i);
        for (uint32_t d = 0; d < node->dep_count; d++) {
            struct node *above =
                node_at(pool, first + edges[node->dep_first + d]);
            if (above->depth < node->depth + 1) {
                above->depth = node->depth + 1;
            }
        }
    }
}

static fm_status_t submit_apply(fm_pool_t *pool, const fm_pool_event_t *event,
                                fm_error_t *err)
{
    const fm_pool_submit_t *submit = &event->submit;
    size_t edge_count = 0;
    uint32_t tenant = 0;
    uint32_t *edges = NULL;
    fm_status_t rc;

    for (size_t i = 0; i < submit->node_count; i++) {
        edge_count += 2 * submit->nodes[i].dep_count;
    }
    if ((rc = fm_grow((void *)&pool->workflows, &pool->workflow_capacity,
                      pool->workflow_count, sizeof(struct workflow), err)) <
            0 ||
        (rc = fm_pool_chunks_reserve(&pool->node_chunks,
                                     pool->node_used + submit->node_count,
                                     sizeof(struct node), err)) < 0 ||
        (rc = tenant_make(pool, submit->tenant, &tenant, err)) < 0) {
        return rc;
    }
    if (!(edges = fm_malloc(edge_count * sizeof(*edges)))) {
        return fm_no_memory(err);
    }
    uint32_t first = pool->node_used;
    edges_fill(pool, submit, first, edges);
    pool->node_used += (uint32_t)submit->node_count;
    pool->edge_bytes += edge_count * sizeof(*edges);
    pool->workflows[pool->workflow_count++] = (struct workflow){
        .edges = edges,
        .first_node = first,
        .node_count = (uint32_t)submit->node_count,
        .tenant = tenant,
        .priority = submit->priority,
        .deadline_ns = submit->deadline_ns ? submit->deadline_ns : INT64_MAX,
        .submitted_ns = submit->now_ns,
        .state = FM_POOL_RUNNING};
    for (uint32_t i = 0; i < submit->node_count; i++) {
        fm_pool_node_ready_test(pool, first + i);
    }
    return FM_OK;
}

/* --- expand -------------------------------------------------------------- */

static void item_share(fm_pool_t *pool, uint32_t node_id, struct item *item)
{
    item->state = ITEM_SHARED;
    node_at(pool, node_id)->shared++;
    workflow_of(pool, node_id)->shared++;
    pool->totals.shared++;
}

/* Hang a fresh item on the work of its key. */
static void item_want(fm_pool_t *pool, const fm_pool_expand_t *expand,
                      uint32_t batch, uint32_t node_id, uint32_t pos)
{
    uint32_t id = fm_pool_work_find(pool, &expand->keys[pos]);
    struct node *node = node_at(pool, node_id);

    if (id == NONE) {
        id = fm_pool_work_add(pool, &expand->keys[pos]);
    }
    struct work *work = work_at(pool, id);
    if (work->batch == NONE) {
        work->batch = batch;
        work->amount = expand->item_work;
        pool->batches[batch].works++;
    }
    fm_pool_item_attach(pool, id, node_id, pos);
    if (work->state == WORK_SETTLED) {
        item_share(pool, node_id, &node->items[pos]);
        return;
    }
    node->items[pos].state = ITEM_WAIT;
    node->unsettled++;
    if (work->waiters++ == 0) {
        fm_pool_work_lead(pool, id);
        if (work->state == WORK_LEASED) {
            pool->leases[work->lease].live++; /* an orphan is wanted again */
        } else {
            fm_pool_ready_push(pool, id, false);
        }
    } else {
        fm_pool_ready_hurry(pool, id, workflow_of(pool, node_id)->deadline_ns);
    }
}

static fm_status_t expand_apply(fm_pool_t *pool, const fm_pool_event_t *event,
                                fm_error_t *err)
{
    const fm_pool_expand_t *expand = &event->expand;
    struct workflow *workflow = &pool->workflows[expand->workflow];
    uint32_t node_id = workflow->first_node + expand->node;
    struct node *node = node_at(pool, node_id);
    struct item *items = NULL;
    uint32_t batch = NONE;
    fm_status_t rc;

    if (expand->count > 0) {
        if ((rc = fm_pool_work_reserve(pool, expand->count, err)) < 0 ||
            (rc = fm_pool_batch_make(pool, &expand->batch_key,
                                     expand->task_class, expand->workflow,
                                     expand->count, &batch, err)) < 0) {
            return rc;
        }
        if (!(items = fm_malloc(expand->count * sizeof(*items)))) {
            return fm_no_memory(err);
        }
        pool->batches[batch].task_class = expand->task_class;
    }
    node->items = items;
    node->item_count = (uint32_t)expand->count;
    node->arrival_ns = expand->now_ns;
    node->state = FM_POOL_RUNNING;
    workflow->items += expand->count;
    pool->totals.planned += expand->count;
    pool->item_bytes += expand->count * sizeof(*items);
    for (uint32_t i = 0; i < node->item_count; i++) {
        item_want(pool, expand, batch, node_id, i);
    }
    if (node->unsettled == 0) {
        fm_pool_node_done(pool, node_id, FM_POOL_DONE);
    }
    return FM_OK;
}

static fm_status_t skip_apply(fm_pool_t *pool, const fm_pool_event_t *event,
                              fm_error_t *err)
{
    (void)err;
    fm_pool_node_done(pool,
                      pool->workflows[event->node.workflow].first_node +
                          event->node.node,
                      FM_POOL_SKIPPED);
    return FM_OK;
}

static fm_status_t
node_fail_apply(fm_pool_t *pool, const fm_pool_event_t *event, fm_error_t *err)
{
    (void)err;
    fm_pool_node_fail(pool,
                      pool->workflows[event->node.workflow].first_node +
                          event->node.node,
                      FM_POOL_REASON_DRIVER, 0);
    return FM_OK;
}

/* --- lease --------------------------------------------------------------- */

static fm_status_t lease_make(fm_pool_t *pool, const fm_pool_lease_t *event,
                              uint32_t slot_count, uint32_t *lease_out,
                              fm_error_t *err)
{
    fm_digest_t key = fm_pool_lease_key(event->lease);
    uint32_t id = 0;
    fm_status_t rc;

    while (id < pool->lease_count && pool->leases[id].used) {
        id++;
    }
    if (id == pool->lease_count &&
        (rc = fm_grow((void *)&pool->leases, &pool->lease_capacity,
                      pool->lease_count, sizeof(struct lease), err)) < 0) {
        return rc;
    }
    uint32_t *slots = fm_malloc(slot_count * sizeof(*slots));
    if (!slots) {
        return fm_no_memory(err);
    }
    if ((rc = fm_map_put(pool->lease_ids, &key, id, err)) < 0) {
        free(slots);
        return rc;
    }
    pool->lease_count += id == pool->lease_count;
    pool->leases[id] = (struct lease){.id = event->lease,
                                      .worker = event->worker,
                                      .slots = slots,
                                      .granted_ns = event->now_ns,
                                      .expires_ns = event->expires_ns,
                                      .used = true};
    *lease_out = id;
    return FM_OK;
}

static fm_status_t lease_apply(fm_pool_t *pool, const fm_pool_event_t *event,
                               fm_error_t *err)
{
    const fm_pool_lease_t *grant = &event->lease;
    uint32_t batch = fm_pool_batch_find(pool, &grant->batch_key);
    uint32_t ready = pool->batches[batch].ready;
    uint32_t most = grant->max_items < ready ? grant->max_items : ready;
    uint32_t lease_id = NONE;
    fm_status_t rc = lease_make(pool, grant, most, &lease_id, err);

    if (rc < 0) {
        return rc;
    }
    struct lease *lease = &pool->leases[lease_id];
    lease->batch = batch;
    pool->totals.leases++;
    while (lease->count < most) {
        uint32_t id =
            fm_pool_ready_next(pool, batch, grant->worker, grant->ignore_avoid);
        if (id == NONE) {
            break;
        }
        struct work *work = work_at(pool, id);
        bool suspect = work->attempts > 0; /* P10: it goes alone */
        if (suspect && lease->count > 0) {
            break;
        }
        struct tenant *tenant =
            &pool->tenants[pool->batches[batch].groups[work->group].tenant];
        if (tenant->served > pool->served) {
            pool->served = tenant->served;
        }
        fm_pool_ready_pop(pool, id);
        tenant->served += (double)work->amount;
        work->state = WORK_LEASED;
        work->lease = lease_id;
        work->slot = lease->count;
        lease->slots[lease->count++] = id;
        lease->amount += (double)work->amount;
        pool->totals.leased_work++;
        if (suspect) {
            break;
        }
    }
    lease->open = lease->live = lease->count;
    return FM_OK;
}

/* --- results ------------------------------------------------------------- */

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
                item->state = ITEM_RAN;
                node->ran++;
                workflow_of(pool, node_id)->ran++;
                pool->totals.ran++;
                first = false;
            } else {
                item_share(pool, node_id, item);
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

/* Units come back to the tenant that was charged for them. */
static void work_refund(fm_pool_t *pool, const struct work *work)
{
    struct tenant *tenant =
        &pool->tenants[pool->batches[work->batch].groups[work->group].tenant];

    tenant->served -= (double)work->amount;
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

static fm_status_t result_apply(fm_pool_t *pool, const fm_pool_event_t *event,
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
        if (result->outcome == FM_POOL_INFRA_ERROR && lease_id != NONE) {
            work_refund(pool, work);
        }
        work_retry(pool, id, result->outcome);
    }
    if (lease_id != NONE) {
        lease_test(pool, lease_id, lease_id == own);
    }
    return FM_OK;
}

static fm_status_t
lease_end_apply(fm_pool_t *pool, const fm_pool_event_t *event, fm_error_t *err)
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
        fm_pool_slot_close(pool, id);
        work_refund(pool, work);
        work_retry(pool, id, fault ? FM_POOL_INFRA_ERROR : FM_POOL_OK);
    }
    fm_pool_lease_drop(pool, lease_id);
    return FM_OK;
}

static fm_status_t cancel_apply(fm_pool_t *pool, const fm_pool_event_t *event,
                                fm_error_t *err)
{
    (void)err;
    fm_pool_workflow_cancel(pool, event->cancel.workflow);
    return FM_OK;
}

/* --- forget -------------------------------------------------------------- */

static void item_reopen(fm_pool_t *pool, uint32_t node_id, struct item *item)
{
    struct node *node = node_at(pool, node_id);
    struct workflow *workflow = workflow_of(pool, node_id);

    if (item->state == ITEM_RAN) {
        node->ran--;
        workflow->ran--;
        pool->totals.ran--;
    } else {
        node->shared--;
        workflow->shared--;
        pool->totals.shared--;
    }
    item->state = ITEM_WAIT;
    node->unsettled++;
    pool->totals.reopened++;
    fm_pool_node_reopen(pool, node_id);
}

static fm_status_t forget_apply(fm_pool_t *pool, const fm_pool_event_t *event,
                                fm_error_t *err)
{
    uint32_t id = fm_pool_work_find(pool, &event->forget.key);
    struct work *work = work_at(pool, id);
    uint32_t node_id = work->head_node;
    uint32_t pos = work->head_pos;

    (void)err;
    work->state = WORK_VOID;
    work->output = (fm_digest_t){0};
    work->producer = 0;
    pool->totals.memo--;
    while (node_id != NONE) {
        struct item *item = item_at(pool, node_id, pos);

        if ((item->state == ITEM_RAN || item->state == ITEM_SHARED) &&
            fm_pool_node_needed(pool, node_id)) {
            item_reopen(pool, node_id, item);
            work->waiters++;
        }
        node_id = item->next_node;
        pos = item->next_pos;
    }
    if (work->waiters > 0) {
        fm_pool_work_lead(pool, id);
        fm_pool_ready_push(pool, id, false);
    } else {
        fm_pool_work_release(pool, id);
    }
    return FM_OK;
}

static apply_fn *const applies[FM_POOL_EVENT_KINDS] = {
    [FM_POOL_SUBMIT] = submit_apply,
    [FM_POOL_EXPAND] = expand_apply,
    [FM_POOL_SKIP] = skip_apply,
    [FM_POOL_NODE_FAIL] = node_fail_apply,
    [FM_POOL_LEASE] = lease_apply,
    [FM_POOL_RESULT] = result_apply,
    [FM_POOL_LEASE_END] = lease_end_apply,
    [FM_POOL_CANCEL] = cancel_apply,
    [FM_POOL_FORGET] = forget_apply,
};

fm_status_t fm_pool_apply(fm_pool_t *pool, const fm_pool_event_t *event,
                          fm_error_t *err)
{
    bool changes = false;
    fm_status_t rc = fm_pool_check(pool, event, &changes, err);

    if (rc < 0 || !changes) {
        return rc;
    }
    return applies[event->kind](pool, event, err);
}
