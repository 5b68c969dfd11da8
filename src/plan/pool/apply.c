/* SPDX-License-Identifier: Apache-2.0 */
/* Events change the pool here, after fm_pool_check() let them pass.  Each
 * function first reserves all the memory it may need, then changes. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/pool/state.h"

/* --- submit -------------------------------------------------------------- */

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
                              .deps_left = (uint32_t)spec->dep_count,
                              .group = NONE};
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
        (rc = fm_tenants_id(pool->options.tenants, submit->tenant, &tenant,
                            err)) < 0 ||
        (rc = fm_pool_tenant_reserve(pool, tenant, err)) < 0) {
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
        fm_pool_item_share(pool, node_id, &node->items[pos]);
        fm_pool_charge_share(pool, work, tenant_of(pool, node_id));
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
        if (work->state == WORK_READY && fm_pool_ready_blocked(pool, work) &&
            !fm_tenants_is_blocked(pool->options.tenants,
                                   tenant_of(pool, node_id))) {
            fm_pool_ready_move(pool, id);
        }
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
    uint32_t group = NONE;
    fm_status_t rc;

    if (expand->count > 0) {
        if ((rc = fm_pool_work_reserve(pool, expand->count, err)) < 0 ||
            (rc = fm_pool_batch_make(pool, &expand->batch_key,
                                     expand->task_class, expand->workflow,
                                     expand->count, &batch, &group, err)) < 0) {
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
    node->group = group;
    node->state = FM_POOL_RUNNING;
    workflow->items += expand->count;
    pool->totals.planned += expand->count;
    pool->item_bytes += expand->count * sizeof(*items);
    fm_tenants_items(pool->options.tenants, workflow->tenant,
                     (int64_t)expand->count, 0, 0);
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
    bool ran = item->state == ITEM_RAN;

    fm_tenants_items(pool->options.tenants, workflow->tenant, 1, -ran, -!ran);
    if (ran) {
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
    work->seconds = work->dollars = work->joules = 0;
    work->payer_count = 0; /* what runs again is charged again */
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

static fm_pool_apply_fn *const applies[FM_POOL_EVENT_KINDS] = {
    [FM_POOL_SUBMIT] = submit_apply,
    [FM_POOL_EXPAND] = expand_apply,
    [FM_POOL_SKIP] = skip_apply,
    [FM_POOL_NODE_FAIL] = node_fail_apply,
    [FM_POOL_LEASE] = fm_pool_lease_apply,
    [FM_POOL_RESULT] = fm_pool_result_apply,
    [FM_POOL_LEASE_END] = fm_pool_lease_end_apply,
    [FM_POOL_CANCEL] = cancel_apply,
    [FM_POOL_FORGET] = forget_apply,
};

fm_status_t fm_pool_apply(fm_pool_t *pool, const fm_pool_event_t *event,
                          fm_error_t *err)
{
    bool changes = false;
    fm_status_t rc = fm_pool_test(pool, event, &changes, err);

    if (rc < 0 || !changes) {
        return rc;
    }
    return applies[event->kind](pool, event, err);
}
