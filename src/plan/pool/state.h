/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file state.h
 * The pool's data, private to plan/pool.
 *
 * Invariants:
 *  - a work is in one batch's ready queue iff it is WORK_READY, in one lease's
 *    slot iff it is WORK_LEASED;
 *  - a WORK_READY has at least one waiting item; a WORK_LEASED without one is
 *    an orphan;
 *  - an item that waits, ran or was shared hangs on its work's list, one that
 *    failed or was dropped does not;
 *  - whatever may fail for want of memory happens before the first change.
 */
#ifndef FM_PLAN_POOL_STATE_H
#define FM_PLAN_POOL_STATE_H

#include "base/map.h"
#include "plan/pool/pool.h"

#define NONE UINT32_MAX
#define CHUNK_BITS                                                             \
    12u /* works, nodes, lanes and groups come 4096 at a time                  \
         */
#define CHUNK (1u << CHUNK_BITS)
#define DEPTHS 32u /* deeper chains count as this deep */
#define WAITERS_SEEN                                                           \
    16                 /* items looked at for a deadline, and for a sponsor    \
                        */
#define PAYERS_MAX 16u /* beyond, a part is less than 6 %, and free (T8) */
#define AVOID_LOOKS                                                            \
    1024u /* retried works looked at for one that this worker                  \
             has not failed; more are left for later */

enum item_state { ITEM_WAIT, ITEM_RAN, ITEM_SHARED, ITEM_FAILED, ITEM_DROPPED };

/** An item of a node: node is a global number, pos its place there. */
struct item {
    uint32_t work; /* NONE once failed or dropped */
    uint32_t next_node, next_pos, prev_node, prev_pos; /* of the work's list */
    uint8_t state;
};

enum work_state { WORK_VOID, WORK_READY, WORK_LEASED, WORK_SETTLED };

struct work {
    fm_digest_t key;
    uint32_t head_node, head_pos, tail_node, tail_pos; /* its items */
    uint32_t waiters;
    uint32_t batch; /* NONE: only ever seen as a late result */
    float amount;   /* units of work */
    uint8_t state;
    uint8_t attempts;
    uint8_t avoid_count;
    uint8_t payer_count;
    /* a look-up and a follower end here: one line of cache */
    int64_t arrival_ns;   /* of the leader */
    int64_t deadline_ns;  /* nearest of the first waiters; INT64_MAX: none */
    uint32_t next, prev;  /* ready queue; next also the free list */
    uint32_t group;       /* while ready */
    uint32_t lease, slot; /* while leased */
    uint32_t avoid[FM_POOL_AVOID_MAX];
    uint16_t infra;
    uint8_t retry;                  /* in the retry queue of its group */
    uint8_t depth;                  /* as counted while ready */
    float seconds, dollars, joules; /* settled: what it cost ... */
    uint64_t producer;              /* ... the lease that settled it ... */
    fm_digest_t output;
    uint16_t payers[PAYERS_MAX]; /* ... and who has paid equal parts */
};

struct node {
    struct item *items;
    int64_t arrival_ns;
    uint32_t item_count, ran, shared, failed, unsettled;
    uint32_t workflow;
    uint32_t deps_left; /* deps never done so far */
    uint32_t blocked;   /* reopened nodes above it */
    uint32_t depth;
    uint32_t dep_first, dep_count, out_first, out_count; /* in edges */
    uint32_t failed_item;
    uint32_t notice_next;
    uint32_t group; /* once expanded */
    uint32_t stamp; /* of the last lease that counted it */
    uint8_t state, reason, queued, reopened, mark;
};

struct workflow {
    uint32_t *edges; /* deps of all nodes, then dependents of all nodes */
    uint32_t first_node, node_count;
    uint32_t tenant;
    int32_t priority;
    int64_t deadline_ns, submitted_ns; /* INT64_MAX: none */
    uint32_t done, skipped, failed;
    uint64_t items, ran, shared, items_failed;
    uint32_t notice_next;
    uint8_t state, queued;
};

enum queue_kind { QUEUE_RETRY, QUEUE_FRESH, QUEUES };

/** Ready works of one tenant and priority in one batch, in arrival order;
 *  retried ones apart, because only they have workers to avoid. */
struct group {
    uint32_t lane;
    int32_t priority;
    struct {
        uint32_t head, tail;
    } queues[QUEUES];
    uint32_t count;
    uint32_t prev, next; /* in the lane, while it has ready work */
};

/** What one tenant has in one batch.  What follows the amount is remembered
 *  from when it was last asked for. */
struct lane {
    uint32_t batch, tenant;
    uint32_t ready;
    uint32_t first;      /* group with ready work of the highest priority */
    uint32_t place;      /* in batch->lanes, while it has ready work */
    uint32_t prev, next; /* lanes of its tenant that have ready work */
    uint32_t pick;       /* next work, while a lease is made */
    double amount;       /* units of ready work */
    uint32_t head;       /* next work for any worker; NONE: ask again */
    bool head_retry;     /* it has workers to avoid */
    bool has_fresh;      /* some work has not */
    int32_t priority;    /* of the head: the highest */
    int64_t head_ns;     /* its arrival */
    int64_t oldest_ns;   /* of all ready work; INT64_MIN: ask again */
};

struct due {
    int64_t deadline_ns;
    uint32_t work;
};

struct batch {
    fm_digest_t key;
    uint32_t task_class;
    uint32_t works; /* that name it, settled ones too */
    uint32_t ready; /* of blocked tenants too */
    double amount;
    uint32_t *lanes; /* that have ready work */
    size_t lane_count, lane_capacity;
    uint32_t lanes_made; /* ever: the capacity holds them all */
    uint32_t dirty_next;
    bool dirty;       /* changed since it was taken */
    struct due *dues; /* binary heap, entries may be stale; the top is not */
    size_t due_count, due_capacity;
    uint32_t depths[DEPTHS]; /* ready works by depth */
};

struct lease {
    uint64_t id;
    uint32_t worker, batch;
    uint32_t *slots;  /* works; NONE once closed */
    uint16_t *payers; /* tenant of each slot; in the block of slots */
    size_t slot_bytes;
    uint32_t count, open;
    uint32_t live; /* open and waited for */
    uint32_t resource, devices;
    double amount;
    double virtual_rate;   /* estimates for a unit of work */
    fm_tenant_cost_t rate; /* ... */
    int64_t granted_ns, expires_ns;
    uint32_t notice_next, free_next;
    bool used, queued, dead; /* dead: freed when its notice is taken */
};

struct chunks {
    void **at;
    size_t count, capacity;
};

struct queue {
    uint32_t head, tail;
};

struct fm_pool {
    fm_pool_options_t options;
    fm_tenants_t *own_tenants; /* NULL: they are the caller's */
    struct chunks work_chunks;
    uint32_t work_used, work_free, work_free_count;
    uint64_t *table; /* key → work: see work.c */
    size_t table_size, table_count;
    struct chunks node_chunks;
    uint32_t node_used;
    struct workflow *workflows;
    size_t workflow_count, workflow_capacity;
    uint32_t *tenant_lanes; /* by tenant: first lane with ready work */
    size_t tenant_lane_count;
    struct chunks lane_chunks, group_chunks;
    uint32_t lane_used, group_used;
    fm_map_t *group_ids; /* (batch, tenant[, priority]) → lane or group */
    uint32_t *order;     /* heap of lanes, while a lease is made */
    size_t order_count, order_capacity;
    uint32_t stamp;                  /* of the last lease */
    uint32_t sweep_hand, sweep_left; /* works to look at: see groups.c */
    bool swept;
    uint64_t flips; /* as of the last look */
    struct batch *batches;
    size_t batch_count, batch_capacity;
    fm_map_t *batch_ids;
    struct lease *leases;
    size_t lease_count, lease_capacity;
    uint32_t lease_free;
    fm_map_t *lease_ids;
    struct queue node_notices, workflow_notices, lease_notices;
    struct queue dirty; /* batches */
    fm_pool_totals_t totals;
    size_t item_bytes, edge_bytes;
    size_t list_bytes; /* of batches and leases */
};

/* --- pool.c: access ------------------------------------------------------ */

static inline struct work *work_at(const fm_pool_t *pool, uint32_t id)
{
    struct work *chunk = pool->work_chunks.at[id >> CHUNK_BITS];
    return &chunk[id & (CHUNK - 1)];
}

static inline struct node *node_at(const fm_pool_t *pool, uint32_t id)
{
    struct node *chunk = pool->node_chunks.at[id >> CHUNK_BITS];
    return &chunk[id & (CHUNK - 1)];
}

static inline struct lane *lane_at(const fm_pool_t *pool, uint32_t id)
{
    struct lane *chunk = pool->lane_chunks.at[id >> CHUNK_BITS];
    return &chunk[id & (CHUNK - 1)];
}

static inline struct group *group_at(const fm_pool_t *pool, uint32_t id)
{
    struct group *chunk = pool->group_chunks.at[id >> CHUNK_BITS];
    return &chunk[id & (CHUNK - 1)];
}

static inline struct item *item_at(const fm_pool_t *pool, uint32_t node,
                                   uint32_t pos)
{
    return &node_at(pool, node)->items[pos];
}

static inline struct workflow *workflow_of(const fm_pool_t *pool, uint32_t node)
{
    return &pool->workflows[node_at(pool, node)->workflow];
}

static inline uint32_t tenant_of(const fm_pool_t *pool, uint32_t node)
{
    return workflow_of(pool, node)->tenant;
}

fm_status_t fm_pool_chunks_reserve(struct chunks *chunks, size_t elements,
                                   size_t bytes, fm_error_t *err);
fm_digest_t fm_pool_lease_key(uint64_t lease);
/** Index of a known lease, or NONE. */
uint32_t fm_pool_lease_find(const fm_pool_t *pool, uint64_t lease);
uint32_t fm_pool_batch_find(const fm_pool_t *pool, const fm_digest_t *key);
void fm_pool_notice_node(fm_pool_t *pool, uint32_t node);
void fm_pool_notice_workflow(fm_pool_t *pool, uint32_t workflow);
void fm_pool_notice_lease(fm_pool_t *pool, uint32_t lease);
/** Forget a lease whose slots are all closed. */
void fm_pool_lease_drop(fm_pool_t *pool, uint32_t lease);

/* --- work.c: keys, their items, settling --------------------------------- */

uint32_t fm_pool_work_find(const fm_pool_t *pool, const fm_digest_t *key);
/** A look-up waits for memory twice, for the table and for the work.  In a
 *  loop over many keys, ask ahead: for the slot of @p soon, and for the work of
 *  @p sooner, whose slot was asked for before. */
void fm_pool_work_prefetch(const fm_pool_t *pool, const fm_digest_t *soon,
                           const fm_digest_t *sooner);
/** Room for @p count works more. */
fm_status_t fm_pool_work_reserve(fm_pool_t *pool, size_t count,
                                 fm_error_t *err);
/** A new work, void; room was reserved. */
uint32_t fm_pool_work_add(fm_pool_t *pool, const fm_digest_t *key);
/** Free a void work that no item hangs on. */
void fm_pool_work_release(fm_pool_t *pool, uint32_t work);
void fm_pool_item_attach(fm_pool_t *pool, uint32_t work, uint32_t node,
                         uint32_t pos);
void fm_pool_item_detach(fm_pool_t *pool, uint32_t node, uint32_t pos);
/** First waiting item; false when none waits. */
bool fm_pool_leader(const fm_pool_t *pool, const struct work *work,
                    uint32_t *node_out, uint32_t *pos_out);
/** Take arrival, attempts and deadline from the present leader. */
void fm_pool_work_lead(fm_pool_t *pool, uint32_t work);
/** A waiting item was detached: make the next one lead, or give up. */
void fm_pool_work_after_loss(fm_pool_t *pool, uint32_t work, bool led);
/** Take a leased work out of its lease: the work is void. */
void fm_pool_slot_close(fm_pool_t *pool, uint32_t work);

/* --- groups.c: who has ready work where ----------------------------------- */

/** The batch of @p key with a group for the workflow's tenant and priority,
 *  and room for @p count works more; makes what is missing. */
fm_status_t fm_pool_batch_make(fm_pool_t *pool, const fm_digest_t *key,
                               uint32_t task_class, uint32_t workflow,
                               size_t count, uint32_t *batch_out,
                               uint32_t *group_out, fm_error_t *err);
/** Room for tenant @p tenant. */
fm_status_t fm_pool_tenant_reserve(fm_pool_t *pool, uint32_t tenant,
                                   fm_error_t *err);
/** The summary of @p batch has changed. */
void fm_pool_batch_mark(fm_pool_t *pool, uint32_t batch);
/** A work joined @p group, or left it. */
void fm_pool_group_joined(fm_pool_t *pool, uint32_t group, float amount);
void fm_pool_group_left(fm_pool_t *pool, uint32_t group, float amount);

/* --- ready.c: queues by batch key ---------------------------------------- */

void fm_pool_ready_push(fm_pool_t *pool, uint32_t work, bool front);
void fm_pool_ready_pop(fm_pool_t *pool, uint32_t work);
/** Whether the tenant in whose name it waits is at a quota. */
bool fm_pool_ready_blocked(const fm_pool_t *pool, const struct work *work);
/** Whether that is another than its leader's. */
bool fm_pool_ready_sponsored(const fm_pool_t *pool, const struct work *work);
/** Let it wait in the name of whom it should, now. */
void fm_pool_ready_move(fm_pool_t *pool, uint32_t work);
/** Look at up to @p steps works, and move those that wait in the name of a
 *  tenant at a quota although another could be served. */
void fm_pool_ready_sweep(fm_pool_t *pool, uint32_t steps);
/** A follower came that wants it by @p deadline_ns. */
void fm_pool_ready_hurry(fm_pool_t *pool, uint32_t work, int64_t deadline_ns);
/** Room for the deadlines of @p count works more. */
fm_status_t fm_pool_dues_reserve(fm_pool_t *pool, uint32_t batch, size_t count,
                                 fm_error_t *err);

/* --- order.c: what is leased next (P7) ------------------------------------ */

/** Next work of @p batch for @p worker, or NONE. */
uint32_t fm_pool_ready_next(const fm_pool_t *pool, uint32_t batch,
                            uint32_t worker, bool ignore_avoid);
/** Bring up to date what @p lane remembers of its next work, and of all. */
void fm_pool_lane_head(const fm_pool_t *pool, struct lane *lane);
void fm_pool_lane_oldest(const fm_pool_t *pool, struct lane *lane);
/** Whether lane @p a is served before lane @p b; both know their head. */
bool fm_pool_lane_before(const fm_pool_t *pool, uint32_t a, int64_t arrival_a,
                         uint32_t b, int64_t arrival_b);
/** For a lease: order what @p lease may take; then again and again the next
 *  work, or NONE, and once it was popped and charged go on. */
void fm_pool_order_begin(fm_pool_t *pool, uint32_t batch,
                         const fm_pool_lease_t *lease);
uint32_t fm_pool_order_top(fm_pool_t *pool);
/** @p stamp  not 0: stay with the tenant while its next work is of a node that
 *  bears it. */
void fm_pool_order_next(fm_pool_t *pool, const fm_pool_lease_t *lease,
                        uint32_t stamp);

/* --- lease.c: events of leases ------------------------------------------- */

typedef fm_status_t fm_pool_apply_fn(fm_pool_t *pool,
                                     const fm_pool_event_t *event,
                                     fm_error_t *err);
fm_pool_apply_fn fm_pool_lease_apply, fm_pool_result_apply,
    fm_pool_lease_end_apply;
/** An item has its output from another's run. */
void fm_pool_item_share(fm_pool_t *pool, uint32_t node, struct item *item);

/* --- check.c -------------------------------------------------------------- */

/** fm_pool_check() but for quotas. */
fm_status_t fm_pool_test(const fm_pool_t *pool, const fm_pool_event_t *event,
                         bool *changes_out, fm_error_t *err);

/* --- charge.c: who pays what (docs/spec/tenants.md) ----------------------- */

/** @p tenant's @p work goes into the next slot of @p lease. */
void fm_pool_charge_grant(fm_pool_t *pool, struct lease *lease, uint32_t work,
                          uint32_t tenant);
/** All slots are granted: each payer holds its part of a device. */
void fm_pool_charge_granted(fm_pool_t *pool, const struct lease *lease);
/** ... until the lease is dropped. */
void fm_pool_charge_dropped(fm_pool_t *pool, const struct lease *lease);
/** A leased work will not cost what was estimated. */
void fm_pool_charge_refund(fm_pool_t *pool, const struct work *work);
/** Before @p result changes @p work; @p own: by the lease that holds it. */
void fm_pool_charge_result(fm_pool_t *pool, uint32_t work,
                           const fm_pool_result_t *result, bool own);
/** An item of @p tenant finds @p work settled. */
void fm_pool_charge_share(fm_pool_t *pool, struct work *work, uint32_t tenant);

/* --- graph.c: nodes and workflows ---------------------------------------- */

void fm_pool_node_ready_test(fm_pool_t *pool, uint32_t node);
/** All items are settled (or skipped). */
void fm_pool_node_done(fm_pool_t *pool, uint32_t node, fm_pool_state_t state);
/** Fail it and everything below that is not finished. */
void fm_pool_node_fail(fm_pool_t *pool, uint32_t node, fm_pool_reason_t reason,
                       uint32_t item);
/** A settled item's output is lost: whether it has to be made again. */
bool fm_pool_node_needed(fm_pool_t *pool, uint32_t node);
void fm_pool_node_reopen(fm_pool_t *pool, uint32_t node);
void fm_pool_workflow_cancel(fm_pool_t *pool, uint32_t workflow);

static inline bool fm_pool_state_final(uint8_t state)
{
    return state >= FM_POOL_DONE;
}

#endif
