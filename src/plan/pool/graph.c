/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes and workflows: readiness, completion, failure downstream, reopening. */
#include "plan/pool/state.h"

/* Nodes are in topological order, so one pass marks all that is below a node:
 * afterwards node->mark says so, for every node after it. */
static void mark_below(fm_pool_t *pool, uint32_t id)
{
    const struct workflow *workflow = workflow_of(pool, id);
    uint32_t end = workflow->first_node + workflow->node_count;

    node_at(pool, id)->mark = 1;
    for (uint32_t i = id + 1; i < end; i++) {
        struct node *node = node_at(pool, i);

        node->mark = 0;
        for (uint32_t d = 0; d < node->dep_count && !node->mark; d++) {
            uint32_t dep =
                workflow->first_node + workflow->edges[node->dep_first + d];
            node->mark = dep >= id && node_at(pool, dep)->mark;
        }
    }
}

void fm_pool_node_ready_test(fm_pool_t *pool, uint32_t id)
{
    struct node *node = node_at(pool, id);

    if (node->state == FM_POOL_WAITING && node->deps_left == 0 &&
        node->blocked == 0) {
        node->state = FM_POOL_READY;
        fm_pool_notice_node(pool, id);
    }
}

static void workflow_test(fm_pool_t *pool, uint32_t id)
{
    struct workflow *workflow = &pool->workflows[id];

    if (workflow->state == FM_POOL_RUNNING &&
        workflow->done + workflow->skipped + workflow->failed ==
            workflow->node_count) {
        workflow->state = workflow->failed ? FM_POOL_FAILED : FM_POOL_DONE;
        fm_pool_notice_workflow(pool, id);
    }
}

static void unblock_below(fm_pool_t *pool, uint32_t id)
{
    const struct workflow *workflow = workflow_of(pool, id);
    uint32_t end = workflow->first_node + workflow->node_count;

    node_at(pool, id)->reopened = 0;
    mark_below(pool, id);
    for (uint32_t i = id + 1; i < end; i++) {
        struct node *node = node_at(pool, i);
        if (node->mark) {
            node->blocked--;
            fm_pool_node_ready_test(pool, i);
        }
    }
}

void fm_pool_node_done(fm_pool_t *pool, uint32_t id, fm_pool_state_t state)
{
    struct node *node = node_at(pool, id);
    struct workflow *workflow = workflow_of(pool, id);

    node->state = (uint8_t)state;
    if (state == FM_POOL_SKIPPED) {
        workflow->skipped++;
    } else {
        workflow->done++;
    }
    fm_pool_notice_node(pool, id);
    if (node->reopened) {
        unblock_below(pool, id);
    } else {
        for (uint32_t i = 0; i < node->out_count; i++) {
            uint32_t below =
                workflow->first_node + workflow->edges[node->out_first + i];
            node_at(pool, below)->deps_left--;
            fm_pool_node_ready_test(pool, below);
        }
    }
    workflow_test(pool, node->workflow);
}

/* Its waiting items want nothing any more. */
static void node_abandon(fm_pool_t *pool, uint32_t id)
{
    struct node *node = node_at(pool, id);

    for (uint32_t i = 0; i < node->item_count && node->unsettled > 0; i++) {
        struct item *item = &node->items[i];
        if (item->state != ITEM_WAIT) {
            continue;
        }
        uint32_t work_id = item->work;
        struct work *work = work_at(pool, work_id);
        uint32_t lead_node = NONE;
        uint32_t lead_pos = 0;
        bool led = fm_pool_leader(pool, work, &lead_node, &lead_pos) &&
                   lead_node == id && lead_pos == i;

        fm_pool_item_detach(pool, id, i);
        item->state = ITEM_DROPPED;
        node->unsettled--;
        pool->totals.dropped++;
        fm_tenants_items(pool->options.tenants, tenant_of(pool, id), -1, 0, 0);
        work->waiters--;
        fm_pool_work_after_loss(pool, work_id, led);
    }
}

static void node_end(fm_pool_t *pool, uint32_t id, fm_pool_state_t state,
                     fm_pool_reason_t reason)
{
    struct node *node = node_at(pool, id);

    node->state = (uint8_t)state;
    node->reason = (uint8_t)reason;
    node_abandon(pool, id);
    if (state == FM_POOL_FAILED) {
        workflow_of(pool, id)->failed++;
        fm_pool_notice_node(pool, id);
    }
}

void fm_pool_node_fail(fm_pool_t *pool, uint32_t id, fm_pool_reason_t reason,
                       uint32_t item)
{
    struct node *node = node_at(pool, id);
    const struct workflow *workflow = workflow_of(pool, id);
    uint32_t end = workflow->first_node + workflow->node_count;

    node->failed_item = item;
    node_end(pool, id, FM_POOL_FAILED, reason);
    if (node->out_count > 0) {
        mark_below(pool, id);
        for (uint32_t i = id + 1; i < end; i++) {
            if (node_at(pool, i)->mark &&
                !fm_pool_state_final(node_at(pool, i)->state)) {
                node_end(pool, i, FM_POOL_FAILED, FM_POOL_REASON_UPSTREAM);
            }
        }
    }
    workflow_test(pool, node->workflow);
}

bool fm_pool_node_needed(fm_pool_t *pool, uint32_t id)
{
    const struct node *node = node_at(pool, id);
    const struct workflow *workflow = workflow_of(pool, id);
    uint32_t end = workflow->first_node + workflow->node_count;

    if (node->state == FM_POOL_RUNNING) {
        return true;
    }
    if (node->state != FM_POOL_DONE || node->out_count == 0 ||
        workflow->state != FM_POOL_RUNNING) {
        return false;
    }
    mark_below(pool, id);
    for (uint32_t i = id + 1; i < end; i++) {
        const struct node *below = node_at(pool, i);
        if (below->mark && !fm_pool_state_final(below->state)) {
            return true;
        }
    }
    return false;
}

void fm_pool_node_reopen(fm_pool_t *pool, uint32_t id)
{
    struct node *node = node_at(pool, id);
    struct workflow *workflow = workflow_of(pool, id);
    uint32_t end = workflow->first_node + workflow->node_count;

    if (node->state != FM_POOL_DONE) {
        return;
    }
    node->state = FM_POOL_RUNNING;
    node->reopened = 1;
    workflow->done--;
    mark_below(pool, id);
    for (uint32_t i = id + 1; i < end; i++) {
        struct node *below = node_at(pool, i);
        if (below->mark) {
            below->blocked++;
            if (below->state == FM_POOL_READY) {
                below->state = FM_POOL_WAITING;
            }
        }
    }
}

void fm_pool_workflow_cancel(fm_pool_t *pool, uint32_t id)
{
    struct workflow *workflow = &pool->workflows[id];

    workflow->state = FM_POOL_CANCELLED;
    for (uint32_t i = 0; i < workflow->node_count; i++) {
        uint32_t node = workflow->first_node + i;
        if (!fm_pool_state_final(node_at(pool, node)->state)) {
            node_end(pool, node, FM_POOL_CANCELLED, FM_POOL_REASON_NONE);
        }
    }
    fm_pool_notice_workflow(pool, id);
}
