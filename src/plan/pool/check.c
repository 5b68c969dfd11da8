/* SPDX-License-Identifier: Apache-2.0 */
/* Which event may be applied in which state.  Changes nothing. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "plan/pool/state.h"

#define AHEAD 16 /* keys: their look-ups overlap in memory */

typedef fm_status_t check_fn(const fm_pool_t *pool,
                             const fm_pool_event_t *event, bool *changes,
                             fm_error_t *err);

static fm_status_t deps_check(const fm_pool_submit_t *submit, fm_error_t *err)
{
    size_t edges = 0;

    for (size_t i = 0; i < submit->node_count; i++) {
        const fm_pool_node_spec_t *node = &submit->nodes[i];

        edges += node->dep_count;
        if (node->dep_count > i || edges > UINT32_MAX / 4) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "node %zu has more dependencies than nodes "
                                "before it",
                                i);
        }
        for (size_t d = 0; d < node->dep_count; d++) {
            if (node->deps[d] >= i) {
                return fm_error_set(err, FM_ERR_INVALID,
                                    "node %zu depends on node %u, which is not "
                                    "before it",
                                    i, node->deps[d]);
            }
            if (d > 0 && node->deps[d] <= node->deps[d - 1]) {
                return fm_error_set(err, FM_ERR_INVALID,
                                    "node %zu: dependencies must ascend "
                                    "without repeats",
                                    i);
            }
        }
    }
    return FM_OK;
}

static fm_status_t submit_check(const fm_pool_t *pool,
                                const fm_pool_event_t *event, bool *changes,
                                fm_error_t *err)
{
    const fm_pool_submit_t *submit = &event->submit;
    size_t tenant_len = submit->tenant ? strlen(submit->tenant) : 0;

    *changes = true;
    if (submit->workflow != pool->workflow_count) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "workflow number %u: the next is %zu",
                            submit->workflow, pool->workflow_count);
    }
    if (tenant_len == 0 || tenant_len > FM_TENANT_NAME_BYTES_MAX ||
        strcmp(submit->tenant, "*") == 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "a tenant name has 1 to %u bytes and is not \"*\"",
                            FM_TENANT_NAME_BYTES_MAX);
    }
    if (fm_tenants_find(pool->options.tenants, submit->tenant) == NONE &&
        fm_tenants_count(pool->options.tenants) >= FM_TENANT_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT, "more than %u tenants",
                            FM_TENANT_MAX);
    }
    if (submit->node_count == 0 || submit->node_count > FM_POOL_NODES_MAX ||
        pool->node_used > NONE - FM_POOL_NODES_MAX - 1) {
        return fm_error_set(err,
                            submit->node_count ? FM_ERR_LIMIT : FM_ERR_INVALID,
                            "a workflow has 1 to %u nodes, not %zu",
                            FM_POOL_NODES_MAX, submit->node_count);
    }
    if (submit->deadline_ns < 0) {
        return fm_error_set(err, FM_ERR_INVALID, "the deadline is negative");
    }
    return deps_check(submit, err);
}

static fm_status_t node_find(const fm_pool_t *pool, uint32_t workflow,
                             uint32_t node, const struct node **node_out,
                             fm_error_t *err)
{
    if (workflow >= pool->workflow_count ||
        node >= pool->workflows[workflow].node_count) {
        return fm_error_set(err, FM_ERR_NOT_FOUND,
                            "there is no node %u in workflow %u", node,
                            workflow);
    }
    *node_out = node_at(pool, pool->workflows[workflow].first_node + node);
    return FM_OK;
}

static fm_status_t ready_check(const fm_pool_t *pool, uint32_t workflow,
                               uint32_t node, fm_error_t *err)
{
    const struct node *found = NULL;
    fm_status_t rc = node_find(pool, workflow, node, &found, err);

    if (rc == FM_OK && found->state != FM_POOL_READY) {
        rc = fm_error_set(
            err, FM_ERR_INVALID, "node %u of workflow %u is %s, not ready",
            node, workflow, fm_pool_state_name((fm_pool_state_t)found->state));
    }
    return rc;
}

static fm_status_t expand_check(const fm_pool_t *pool,
                                const fm_pool_event_t *event, bool *changes,
                                fm_error_t *err)
{
    const fm_pool_expand_t *expand = &event->expand;
    fm_status_t rc = ready_check(pool, expand->workflow, expand->node, err);

    *changes = true;
    if (rc < 0) {
        return rc;
    }
    if (expand->count > FM_POOL_ITEMS_MAX ||
        pool->table_count + expand->count > FM_POOL_WORK_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "%zu items: at most %u a node, %u keys in all",
                            expand->count, FM_POOL_ITEMS_MAX, FM_POOL_WORK_MAX);
    }
    if (!isfinite(expand->item_work) || expand->item_work <= 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "the work of an item must be positive, not %g",
                            (double)expand->item_work);
    }
    uint32_t batch = fm_pool_batch_find(pool, &expand->batch_key);
    for (size_t i = 0; i < expand->count; i++) {
        if (expand->count - i > AHEAD) {
            fm_pool_work_prefetch(pool, &expand->keys[i + AHEAD],
                                  &expand->keys[i + AHEAD / 2]);
        }
        uint32_t work = fm_pool_work_find(pool, &expand->keys[i]);
        if (work != NONE && work_at(pool, work)->batch != NONE &&
            work_at(pool, work)->batch != batch) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "item %zu: its key is known with another batch "
                                "key",
                                i);
        }
    }
    return FM_OK;
}

static fm_status_t skip_check(const fm_pool_t *pool,
                              const fm_pool_event_t *event, bool *changes,
                              fm_error_t *err)
{
    *changes = true;
    return ready_check(pool, event->node.workflow, event->node.node, err);
}

static fm_status_t node_fail_check(const fm_pool_t *pool,
                                   const fm_pool_event_t *event, bool *changes,
                                   fm_error_t *err)
{
    const struct node *node = NULL;
    fm_status_t rc =
        node_find(pool, event->node.workflow, event->node.node, &node, err);

    *changes = true;
    if (rc == FM_OK && fm_pool_state_final(node->state)) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "node %u of workflow %u is %s already",
                          event->node.node, event->node.workflow,
                          fm_pool_state_name((fm_pool_state_t)node->state));
    }
    return rc;
}

static bool cost_valid(double seconds, double dollars, double joules)
{
    return seconds >= 0 && seconds <= FM_POOL_COST_MAX && dollars >= 0 &&
           dollars <= FM_POOL_COST_MAX && joules >= 0 &&
           joules <= FM_POOL_COST_MAX;
}

static fm_status_t lease_check(const fm_pool_t *pool,
                               const fm_pool_event_t *event, bool *changes,
                               fm_error_t *err)
{
    const fm_pool_lease_t *lease = &event->lease;

    *changes = true;
    if (lease->lease == 0 || lease->max_items == 0 ||
        lease->max_items > FM_POOL_BATCH_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "a lease has a number and 1 to %u items, not %u",
                            FM_POOL_BATCH_MAX, lease->max_items);
    }
    if (!cost_valid(lease->seconds, lease->dollars, lease->joules)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "lease %llu: an estimate is negative or no number",
                            (unsigned long long)lease->lease);
    }
    if (fm_pool_lease_find(pool, lease->lease) != NONE) {
        return fm_error_set(err, FM_ERR_EXISTS, "lease %llu is in use",
                            (unsigned long long)lease->lease);
    }
    uint32_t batch = fm_pool_batch_find(pool, &lease->batch_key);
    if (batch == NONE || fm_pool_ready_next(pool, batch, lease->worker,
                                            lease->ignore_avoid) == NONE) {
        return fm_error_set(err, FM_ERR_NOT_FOUND,
                            "no ready item of that batch key that worker %u "
                            "may take, of a tenant below its quotas",
                            lease->worker);
    }
    return FM_OK;
}

static fm_status_t result_check(const fm_pool_t *pool,
                                const fm_pool_event_t *event, bool *changes,
                                fm_error_t *err)
{
    const fm_pool_result_t *result = &event->result;
    uint32_t lease_id = fm_pool_lease_find(pool, result->lease);
    uint32_t work = fm_pool_work_find(pool, &result->key);

    if (result->outcome == FM_POOL_OK && fm_digest_is_zero(&result->output)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "a result without an output digest");
    }
    if (lease_id != NONE) {
        const struct lease *lease = &pool->leases[lease_id];

        if (result->position >= lease->count) {
            return fm_error_set(err, FM_ERR_PROTOCOL,
                                "lease %llu has %u items, none at position %u",
                                (unsigned long long)lease->id, lease->count,
                                result->position);
        }
        uint32_t leased = lease->slots[result->position];
        if (leased != NONE && leased != work) {
            return fm_error_set(err, FM_ERR_PROTOCOL,
                                "lease %llu, position %u: another key was "
                                "leased there",
                                (unsigned long long)lease->id,
                                result->position);
        }
        if (leased != NONE) {
            *changes = true;
            return FM_OK;
        }
    }
    if (result->outcome == FM_POOL_OK) {
        if (work == NONE && pool->table_count >= FM_POOL_WORK_MAX) {
            return fm_error_set(err, FM_ERR_LIMIT, "more than %u keys",
                                FM_POOL_WORK_MAX);
        }
        *changes = work == NONE || work_at(pool, work)->state != WORK_SETTLED;
    } else {
        *changes = result->replayed && work != NONE &&
                   work_at(pool, work)->state == WORK_READY;
    }
    return FM_OK;
}

static fm_status_t lease_end_check(const fm_pool_t *pool,
                                   const fm_pool_event_t *event, bool *changes,
                                   fm_error_t *err)
{
    (void)err; /* ending a lease that is over is a repeat, no mistake */
    *changes = fm_pool_lease_find(pool, event->lease_end.lease) != NONE;
    return FM_OK;
}

static fm_status_t cancel_check(const fm_pool_t *pool,
                                const fm_pool_event_t *event, bool *changes,
                                fm_error_t *err)
{
    if (event->cancel.workflow >= pool->workflow_count) {
        return fm_error_set(err, FM_ERR_NOT_FOUND, "there is no workflow %u",
                            event->cancel.workflow);
    }
    uint8_t state = pool->workflows[event->cancel.workflow].state;
    if (state == FM_POOL_DONE || state == FM_POOL_FAILED) {
        return fm_error_set(err, FM_ERR_INVALID, "workflow %u is %s already",
                            event->cancel.workflow,
                            fm_pool_state_name((fm_pool_state_t)state));
    }
    *changes = state == FM_POOL_RUNNING;
    return FM_OK;
}

static fm_status_t forget_check(const fm_pool_t *pool,
                                const fm_pool_event_t *event, bool *changes,
                                fm_error_t *err)
{
    uint32_t work = fm_pool_work_find(pool, &event->forget.key);

    (void)err; /* what is not remembered is forgotten */
    *changes = work != NONE && work_at(pool, work)->state == WORK_SETTLED;
    return FM_OK;
}

static check_fn *const checks[FM_POOL_EVENT_KINDS] = {
    [FM_POOL_SUBMIT] = submit_check,
    [FM_POOL_EXPAND] = expand_check,
    [FM_POOL_SKIP] = skip_check,
    [FM_POOL_NODE_FAIL] = node_fail_check,
    [FM_POOL_LEASE] = lease_check,
    [FM_POOL_RESULT] = result_check,
    [FM_POOL_LEASE_END] = lease_end_check,
    [FM_POOL_CANCEL] = cancel_check,
    [FM_POOL_FORGET] = forget_check,
};

fm_status_t fm_pool_test(const fm_pool_t *pool, const fm_pool_event_t *event,
                         bool *changes_out, fm_error_t *err)
{
    if ((unsigned)event->kind >= FM_POOL_EVENT_KINDS) {
        return fm_error_set(err, FM_ERR_INVALID, "unknown event %d",
                            (int)event->kind);
    }
    return checks[event->kind](pool, event, changes_out, err);
}

/* Whether the tenant may queue what the event brings (T5). */
static fm_status_t admit(const fm_pool_t *pool, const fm_pool_event_t *event,
                         fm_error_t *err)
{
    const fm_tenants_t *tenants = pool->options.tenants;

    if (event->kind == FM_POOL_SUBMIT) {
        uint64_t items = event->submit.items;
        return fm_tenants_admit(tenants,
                                fm_tenants_find(tenants, event->submit.tenant),
                                items > 0 ? items : 1, err);
    }
    if (event->kind == FM_POOL_EXPAND) {
        const fm_pool_expand_t *expand = &event->expand;
        uint32_t tenant = pool->workflows[expand->workflow].tenant;
        uint64_t items = 0;

        if (fm_tenants_admit(tenants, tenant, expand->count, NULL) == FM_OK) {
            return FM_OK;
        }
        for (size_t i = 0; i < expand->count; i++) {
            uint32_t work = fm_pool_work_find(pool, &expand->keys[i]);
            items += work == NONE || work_at(pool, work)->state != WORK_SETTLED;
        }
        return items ? fm_tenants_admit(tenants, tenant, items, err) : FM_OK;
    }
    return FM_OK;
}

fm_status_t fm_pool_check(const fm_pool_t *pool, const fm_pool_event_t *event,
                          bool *changes_out, fm_error_t *err)
{
    bool changes = false;
    fm_status_t rc = fm_pool_test(pool, event, &changes, err);

    if (rc < 0 || (rc = admit(pool, event, err)) < 0) {
        return rc;
    }
    if (changes_out) {
        *changes_out = changes;
    }
    return rc;
}
