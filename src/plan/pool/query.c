/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the pool. */
#include <stdlib.h>

#include "base/mem.h"
#include "plan/pool/state.h"

const char *fm_pool_state_name(fm_pool_state_t state)
{
    static const char *const names[] = {"waiting", "ready",  "running",  "done",
                                        "skipped", "failed", "cancelled"};

    return (unsigned)state < FM_COUNT_OF(names) ? names[state] : "unknown";
}

const char *fm_pool_reason_name(fm_pool_reason_t reason)
{
    static const char *const names[] = {"none", "task error",
                                        "infrastructure faults", "driver",
                                        "upstream failure"};

    return (unsigned)reason < FM_COUNT_OF(names) ? names[reason] : "unknown";
}

uint32_t fm_pool_workflow_count(const fm_pool_t *pool)
{
    return (uint32_t)pool->workflow_count;
}

fm_status_t fm_pool_workflow_get(const fm_pool_t *pool, uint32_t id,
                                 fm_pool_workflow_t *out)
{
    if (id >= pool->workflow_count) {
        return FM_ERR_NOT_FOUND;
    }
    const struct workflow *workflow = &pool->workflows[id];
    fm_tenant_info_t tenant;
    if (fm_tenants_get(pool->options.tenants, workflow->tenant, &tenant) < 0) {
        return FM_ERR_NOT_FOUND;
    }
    *out = (fm_pool_workflow_t){
        .state = (fm_pool_state_t)workflow->state,
        .tenant = tenant.name,
        .tenant_id = workflow->tenant,
        .priority = workflow->priority,
        .deadline_ns =
            workflow->deadline_ns == INT64_MAX ? 0 : workflow->deadline_ns,
        .submitted_ns = workflow->submitted_ns,
        .nodes = workflow->node_count,
        .nodes_done = workflow->done,
        .nodes_skipped = workflow->skipped,
        .nodes_failed = workflow->failed,
        .items = workflow->items,
        .ran = workflow->ran,
        .shared = workflow->shared,
        .failed = workflow->items_failed};
    return FM_OK;
}

static const struct node *node_find(const fm_pool_t *pool, uint32_t workflow,
                                    uint32_t node)
{
    return workflow < pool->workflow_count &&
                   node < pool->workflows[workflow].node_count
               ? node_at(pool, pool->workflows[workflow].first_node + node)
               : NULL;
}

fm_status_t fm_pool_node_get(const fm_pool_t *pool, uint32_t workflow,
                             uint32_t id, fm_pool_node_t *out)
{
    const struct node *node = node_find(pool, workflow, id);

    if (!node) {
        return FM_ERR_NOT_FOUND;
    }
    *out = (fm_pool_node_t){.state = (fm_pool_state_t)node->state,
                            .reason = (fm_pool_reason_t)node->reason,
                            .failed_item = node->failed_item,
                            .items = node->item_count,
                            .ran = node->ran,
                            .shared = node->shared,
                            .failed = node->failed,
                            .depth = node->depth};
    return FM_OK;
}

static fm_pool_item_state_t wait_state(const fm_pool_t *pool,
                                       const struct work *work,
                                       const struct item *item)
{
    uint32_t node = NONE;
    uint32_t pos = 0;

    (void)fm_pool_leader(pool, work, &node, &pos);
    if (item_at(pool, node, pos) != item) {
        return FM_POOL_ITEM_FOLLOWS;
    }
    return work->state == WORK_LEASED ? FM_POOL_ITEM_LEASED
                                      : FM_POOL_ITEM_READY;
}

fm_status_t fm_pool_item_get(const fm_pool_t *pool, uint32_t workflow,
                             uint32_t node_id, uint32_t pos,
                             fm_pool_item_t *out)
{
    const struct node *node = node_find(pool, workflow, node_id);

    if (!node || pos >= node->item_count) {
        return FM_ERR_NOT_FOUND;
    }
    const struct item *item = &node->items[pos];
    *out = (fm_pool_item_t){.state = item->state == ITEM_FAILED
                                         ? FM_POOL_ITEM_FAILED
                                         : FM_POOL_ITEM_DROPPED};
    if (item->work == NONE) {
        return FM_OK;
    }
    const struct work *work = work_at(pool, item->work);
    out->key = work->key;
    out->output = work->output;
    out->has_output = work->state == WORK_SETTLED;
    out->attempts = work->attempts;
    out->lease = work->state == WORK_LEASED ? pool->leases[work->lease].id
                                            : work->producer;
    out->state = item->state == ITEM_RAN      ? FM_POOL_ITEM_RAN
                 : item->state == ITEM_SHARED ? FM_POOL_ITEM_SHARED
                                              : wait_state(pool, work, item);
    return FM_OK;
}

bool fm_pool_memo_get(const fm_pool_t *pool, const fm_digest_t *key,
                      fm_digest_t *output_out, uint64_t *lease_out)
{
    uint32_t id = fm_pool_work_find(pool, key);

    if (id == NONE || work_at(pool, id)->state != WORK_SETTLED) {
        return false;
    }
    *output_out = work_at(pool, id)->output;
    if (lease_out) {
        *lease_out = work_at(pool, id)->producer;
    }
    return true;
}

bool fm_pool_wanted(const fm_pool_t *pool, const fm_digest_t *key)
{
    uint32_t id = fm_pool_work_find(pool, key);

    return id != NONE && work_at(pool, id)->waiters > 0;
}

static fm_pool_ref_t ref_make(const fm_pool_t *pool, uint32_t node_id,
                              uint32_t pos, const fm_digest_t *key)
{
    uint32_t workflow = node_at(pool, node_id)->workflow;

    return (fm_pool_ref_t){.workflow = workflow,
                           .node =
                               node_id - pool->workflows[workflow].first_node,
                           .item = pos,
                           .key = *key};
}

size_t fm_pool_sharers(const fm_pool_t *pool, const fm_digest_t *key,
                       fm_pool_ref_t *refs, size_t cap)
{
    uint32_t id = fm_pool_work_find(pool, key);
    size_t count = 0;

    if (id == NONE) {
        return 0;
    }
    const struct work *work = work_at(pool, id);
    uint32_t node = work->head_node;
    uint32_t pos = work->head_pos;
    for (; node != NONE; count++) {
        const struct item *item = item_at(pool, node, pos);
        if (count < cap) {
            refs[count] = ref_make(pool, node, pos, key);
        }
        node = item->next_node;
        pos = item->next_pos;
    }
    return count;
}

static size_t bytes_held(const fm_pool_t *pool)
{
    return sizeof(*pool) +
           pool->work_chunks.count * CHUNK * sizeof(struct work) +
           pool->node_chunks.count * CHUNK * sizeof(struct node) +
           pool->table_size * sizeof(*pool->table) +
           pool->workflow_capacity * sizeof(struct workflow) +
           pool->lane_chunks.count * CHUNK * sizeof(struct lane) +
           pool->group_chunks.count * CHUNK * sizeof(struct group) +
           (pool->tenant_lane_count + pool->order_capacity) * sizeof(uint32_t) +
           fm_tenants_bytes(pool->options.tenants) +
           pool->batch_capacity * sizeof(struct batch) +
           pool->lease_capacity * sizeof(struct lease) + pool->item_bytes +
           pool->edge_bytes + pool->list_bytes;
}

void fm_pool_totals(const fm_pool_t *pool, fm_pool_totals_t *out)
{
    *out = pool->totals;
    out->waiting =
        out->planned - out->ran - out->shared - out->failed - out->dropped;
    out->bytes = bytes_held(pool);
}

/* --- batches ------------------------------------------------------------- */

/* Workers that every work of a retry queue has failed on: shrinks fast, so
 * this rarely looks at more than a few works. */
static void avoid_intersect(const fm_pool_t *pool, uint32_t head, bool *begun,
                            fm_pool_batch_t *out)
{
    uint32_t id = head;

    while (id != NONE && (!*begun || out->avoid_count > 0)) {
        const struct work *work = work_at(pool, id);
        uint32_t kept = 0;

        if (!*begun) {
            for (kept = 0; kept < work->avoid_count; kept++) {
                out->avoid[kept] = work->avoid[kept];
            }
            *begun = true;
        } else {
            for (uint32_t i = 0; i < out->avoid_count; i++) {
                for (uint32_t k = 0; k < work->avoid_count; k++) {
                    if (out->avoid[i] == work->avoid[k]) {
                        out->avoid[kept++] = out->avoid[i];
                        break;
                    }
                }
            }
        }
        out->avoid_count = kept;
        id = work->next;
    }
}

static void batch_avoid(const fm_pool_t *pool, const struct batch *batch,
                        fm_pool_batch_t *out)
{
    bool begun = false;

    for (size_t i = 0; i < batch->lane_count; i++) {
        const struct lane *lane = lane_at(pool, batch->lanes[i]);
        if (fm_tenants_is_blocked(pool->options.tenants, lane->tenant)) {
            continue;
        }
        for (uint32_t g = lane->first; g != NONE; g = group_at(pool, g)->next) {
            avoid_intersect(pool, group_at(pool, g)->queues[QUEUE_RETRY].head,
                            &begun, out);
        }
    }
}

uint32_t fm_pool_batch_ids(const fm_pool_t *pool)
{
    return (uint32_t)pool->batch_count;
}

uint32_t fm_pool_batch_id(const fm_pool_t *pool, const fm_digest_t *key)
{
    return fm_pool_batch_find(pool, key);
}

/* Add what one tenant has there. */
static void lane_add(const fm_pool_t *pool, struct lane *lane,
                     fm_pool_batch_t *out)
{
    fm_pool_lane_head(pool, lane);
    fm_pool_lane_oldest(pool, lane);
    out->ready += lane->ready;
    out->work += lane->amount;
    out->tenants++;
    out->oldest_ns =
        lane->oldest_ns < out->oldest_ns ? lane->oldest_ns : out->oldest_ns;
    out->priority =
        lane->priority > out->priority ? lane->priority : out->priority;
}

/* Sums over the tenants there; the lane that is served next, or NONE. */
static uint32_t lanes_add(const fm_pool_t *pool, const struct batch *batch,
                          fm_pool_batch_t *out, bool *fresh)
{
    uint32_t best = NONE;

    for (size_t i = 0; i < batch->lane_count; i++) {
        uint32_t id = batch->lanes[i];
        struct lane *lane = lane_at(pool, id);

        if (fm_tenants_is_blocked(pool->options.tenants, lane->tenant)) {
            out->blocked += lane->ready;
            continue;
        }
        lane_add(pool, lane, out);
        *fresh = *fresh || lane->has_fresh;
        if (best == NONE || fm_pool_lane_before(pool, id, lane->head_ns, best,
                                                lane_at(pool, best)->head_ns)) {
            best = id;
        }
    }
    return best;
}

bool fm_pool_batch_get(const fm_pool_t *pool, uint32_t id, fm_pool_batch_t *out)
{
    bool fresh = false;

    *out = (fm_pool_batch_t){0};
    if (id >= pool->batch_count) {
        return false;
    }
    const struct batch *batch = &pool->batches[id];
    out->key = batch->key;
    out->id = id;
    out->task_class = batch->task_class;
    out->oldest_ns = INT64_MAX;
    out->priority = INT32_MIN;
    uint32_t next = lanes_add(pool, batch, out, &fresh);
    if (next == NONE) {
        out->oldest_ns = 0;
        out->priority = 0;
        return false;
    }
    out->tenant = lane_at(pool, next)->tenant;
    out->share = fm_tenants_share(pool->options.tenants, out->tenant);
    out->deadline_ns = batch->due_count ? batch->dues[0].deadline_ns : 0;
    for (uint32_t depth = DEPTHS; depth-- > 0 && out->depth == 0;) {
        out->depth = batch->depths[depth] ? depth : 0;
    }
    if (!fresh) {
        batch_avoid(pool, batch, out);
    }
    return true;
}

fm_pool_ref_t fm_pool_batch_next(const fm_pool_t *pool, uint32_t batch)
{
    const struct work *work =
        work_at(pool, fm_pool_ready_next(pool, batch, NONE, true));
    uint32_t node = NONE;
    uint32_t pos = 0;

    (void)fm_pool_leader(pool, work, &node, &pos);
    return ref_make(pool, node, pos, &work->key);
}

/* --- leases -------------------------------------------------------------- */

bool fm_pool_lease_get(const fm_pool_t *pool, uint64_t number,
                       fm_pool_lease_info_t *out)
{
    uint32_t id = fm_pool_lease_find(pool, number);

    if (id == NONE) {
        return false;
    }
    const struct lease *lease = &pool->leases[id];
    const struct batch *batch = &pool->batches[lease->batch];
    *out = (fm_pool_lease_info_t){.lease = lease->id,
                                  .worker = lease->worker,
                                  .items = lease->count,
                                  .open = lease->open,
                                  .batch_key = batch->key,
                                  .task_class = batch->task_class,
                                  .work = lease->amount,
                                  .granted_ns = lease->granted_ns,
                                  .expires_ns = lease->expires_ns};
    return true;
}

bool fm_pool_lease_item(const fm_pool_t *pool, uint64_t number,
                        uint32_t position, fm_pool_ref_t *out)
{
    uint32_t id = fm_pool_lease_find(pool, number);
    uint32_t node = NONE;
    uint32_t pos = 0;

    if (id == NONE || position >= pool->leases[id].count ||
        pool->leases[id].slots[position] == NONE) {
        return false;
    }
    const struct work *work = work_at(pool, pool->leases[id].slots[position]);
    if (!fm_pool_leader(pool, work, &node, &pos)) {
        return false;
    }
    *out = ref_make(pool, node, pos, &work->key);
    return true;
}

bool fm_pool_lease_renew(fm_pool_t *pool, uint64_t number, int64_t expires_ns)
{
    uint32_t id = fm_pool_lease_find(pool, number);

    if (id == NONE) {
        return false;
    }
    pool->leases[id].expires_ns = expires_ns;
    return true;
}

/* Put number into the ascending list of at most cap. */
static void list_insert(uint64_t *list, size_t count, size_t cap,
                        uint64_t number)
{
    size_t i = count < cap ? count : cap;

    if (i == cap && (cap == 0 || list[cap - 1] < number)) {
        return;
    }
    i = i == cap ? cap - 1 : i;
    for (; i > 0 && list[i - 1] > number; i--) {
        list[i] = list[i - 1];
    }
    list[i] = number;
}

size_t fm_pool_leases_expired(const fm_pool_t *pool, int64_t now_ns,
                              uint64_t *leases, size_t cap)
{
    size_t count = 0;

    for (size_t i = 0; i < pool->lease_count; i++) {
        const struct lease *lease = &pool->leases[i];
        if (lease->used && !lease->dead && lease->expires_ns != 0 &&
            lease->expires_ns <= now_ns) {
            list_insert(leases, count++, cap, lease->id);
        }
    }
    return count;
}

size_t fm_pool_leases_of(const fm_pool_t *pool, uint32_t worker,
                         uint64_t *leases, size_t cap)
{
    size_t count = 0;

    for (size_t i = 0; i < pool->lease_count; i++) {
        const struct lease *lease = &pool->leases[i];
        if (lease->used && !lease->dead && lease->worker == worker) {
            list_insert(leases, count++, cap, lease->id);
        }
    }
    return count;
}
