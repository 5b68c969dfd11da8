/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file pool.h
 * The operator pool: workflows, vector operators, work by key, leases, memo.
 *
 * Changes go through events: fm_pool_check() is pure and may refuse;
 * fm_pool_apply() of an event that was checked against the same state fails
 * only with FM_ERR_NO_MEMORY, and then has changed nothing.  What follows
 * from an event is read afterwards as notices.  docs/spec/pool.md states
 * every state and transition (rules P1 …).
 *
 * An item wants one action key.  All items that want the same key, whatever
 * their workflow, hang on one piece of *work*: it is ready, leased, or settled
 * (in the memo).  The first waiting item leads; the others follow.
 *
 * Pure: time is an argument.  Threads: one at a time.  Ids: workflows are
 * dense from 0, nodes and items are positions in their workflow and node.
 */
#ifndef FM_PLAN_POOL_POOL_H
#define FM_PLAN_POOL_POOL_H

#include "base/hash.h"
#include "plan/tenant/tenant.h"

#define FM_POOL_NODES_MAX 200000u  /**< nodes of one workflow */
#define FM_POOL_ITEMS_MAX 1000000u /**< items of one node */
#define FM_POOL_WORK_MAX 50000000u /**< keys known at once: ~8 GB */
#define FM_POOL_BATCH_MAX 65536u   /**< items of one lease */
#define FM_POOL_COST_MAX 1e15      /**< of a lease or result, in any unit */
#define FM_POOL_ATTEMPTS_DEFAULT 3u
#define FM_POOL_INFRA_DEFAULT                                                  \
    1000u                    /**< a platform that fails one item this          \
                                  often is not going to run it */
#define FM_POOL_AVOID_MAX 3u /**< workers remembered that failed an item */

typedef struct fm_pool fm_pool_t;

typedef struct fm_pool_options {
    fm_tenants_t *tenants; /**< borrowed, outlives the pool; NULL: its own,
                                without quotas */
    uint32_t max_attempts; /**< task errors that fail an item; 0: default,
                                255 at most */
    uint32_t max_infra;    /**< infrastructure faults; 0: default, 65535 at
                                most */
} fm_pool_options_t;

/** @p opts NULL for defaults.  NULL when memory is out. */
FM_MUST_USE fm_pool_t *fm_pool_create(const fm_pool_options_t *opts);
void *fm_pool_destroy(fm_pool_t *pool);
/** Its tenants: shares, quotas, accounts. */
fm_tenants_t *fm_pool_tenants(const fm_pool_t *pool);

/* --- events -------------------------------------------------------------- */

typedef enum fm_pool_event_kind {
    FM_POOL_SUBMIT,    /**< a workflow enters */
    FM_POOL_EXPAND,    /**< a ready node gets its items */
    FM_POOL_SKIP,      /**< a ready node's condition is unmet: done, skipped */
    FM_POOL_NODE_FAIL, /**< a live node cannot go on; downstream fails too */
    FM_POOL_LEASE,     /**< a worker takes a slice of a batch key */
    FM_POOL_RESULT,    /**< one item's outcome, by key */
    FM_POOL_LEASE_END, /**< the lease is over; open items are ready again */
    FM_POOL_CANCEL,    /**< a workflow is no longer wanted */
    FM_POOL_FORGET,    /**< the output of a key is lost */
    FM_POOL_EVENT_KINDS
} fm_pool_event_kind_t;

typedef enum fm_pool_outcome {
    FM_POOL_OK,         /**< output digest given */
    FM_POOL_TASK_ERROR, /**< the work itself failed: counts as an attempt */
    FM_POOL_INFRA_ERROR /**< the platform failed: counted apart */
} fm_pool_outcome_t;

typedef enum fm_pool_lease_end {
    FM_POOL_END_FAULT,  /**< worker lost: infrastructure fault of open items */
    FM_POOL_END_DRAINED /**< preempted, drained, never sent: not counted */
} fm_pool_lease_end_t;

typedef struct fm_pool_node_spec {
    const uint32_t *deps; /**< direct upstream nodes, each < own index,
                               without repeats */
    size_t dep_count;
} fm_pool_node_spec_t;

typedef struct fm_pool_submit {
    uint32_t workflow;   /**< = fm_pool_workflow_count() */
    const char *tenant;  /**< not empty */
    int32_t priority;    /**< larger is sooner, inside the tenant */
    uint64_t items;      /**< known so far, for the queue quota; 0: unknown */
    int64_t deadline_ns; /**< 0: none */
    int64_t now_ns;
    const fm_pool_node_spec_t *nodes;
    size_t node_count; /**< ≥ 1 */
} fm_pool_submit_t;

typedef struct fm_pool_expand {
    uint32_t workflow, node;
    fm_digest_t batch_key;
    uint32_t task_class;     /**< caller's id, handed back in batch summaries */
    float item_work;         /**< abstract units an item, > 0, such as tokens */
    const fm_digest_t *keys; /**< action keys in item order */
    size_t count;            /**< 0: the node is done at once */
    int64_t now_ns;
} fm_pool_expand_t;

typedef struct fm_pool_lease {
    uint64_t lease; /**< not 0; never used before */
    uint32_t worker;
    fm_digest_t batch_key;
    uint32_t max_items;
    uint32_t max_nodes; /**< at most that many (workflow, node); 0: any */
    bool ignore_avoid;  /**< no other worker can: take what failed here too */
    int64_t now_ns;
    int64_t expires_ns; /**< 0: never by time */
    uint32_t resource;  /**< device class, as of fm_tenants_capacity() */
    uint32_t devices;   /**< of it, at once; 0: 1 */
    double seconds;     /**< estimate for max_items (or all that are ready), of
                             all its devices together: charged at once, corrected
                             by results.  0: units of work count as seconds */
    double dollars, joules; /**< likewise */
} fm_pool_lease_t;

typedef struct fm_pool_result {
    uint64_t lease;
    uint32_t position; /**< in the lease */
    fm_digest_t key;
    fm_pool_outcome_t outcome;
    fm_digest_t output; /**< when ok */
    bool replayed; /**< from the journal: count it although its lease is gone */
    int64_t now_ns;
    double seconds, dollars, joules; /**< this item's part of the batch, of all
                                          devices together; 0, and what cannot
                                          be true: as estimated */
} fm_pool_result_t;

/** One change, tagged by kind. */
typedef struct fm_pool_event {
    fm_pool_event_kind_t kind;
    union {
        fm_pool_submit_t submit;
        fm_pool_expand_t expand;
        struct {
            uint32_t workflow, node;
        } node; /**< SKIP, NODE_FAIL */
        fm_pool_lease_t lease;
        fm_pool_result_t result;
        struct {
            uint64_t lease;
            fm_pool_lease_end_t how;
            int64_t now_ns;
        } lease_end;
        struct {
            uint32_t workflow;
        } cancel;
        struct {
            fm_digest_t key;
            int64_t now_ns;
        } forget;
    };
} fm_pool_event_t;

/**
 * Whether @p event may be applied now.  Changes nothing.
 *
 * @param changes_out  [out] may be NULL.  False: a repeat or a late report
 *                     that would change nothing: acknowledge it, do not
 *                     journal it.
 * @retval FM_ERR_NOT_FOUND  no such workflow, node, batch key; a lease finds
 *                           no item that this worker may take.
 * @retval FM_ERR_INVALID    wrong state or malformed; the text says which.
 * @retval FM_ERR_EXISTS     the lease number is in use.
 * @retval FM_ERR_PROTOCOL   the key is not the one leased at that position.
 * @retval FM_ERR_LIMIT      a bound above, or the tenant's queue quota.  Quotas
 *                           refuse here only: fm_pool_apply() of an event from
 *                           the journal, admitted long ago, does not ask.
 */
FM_MUST_USE fm_status_t fm_pool_check(const fm_pool_t *pool,
                                      const fm_pool_event_t *event,
                                      bool *changes_out, fm_error_t *err);
/**
 * Apply a checked event.
 * @retval FM_ERR_NO_MEMORY  nothing was changed.
 */
FM_MUST_USE fm_status_t fm_pool_apply(fm_pool_t *pool,
                                      const fm_pool_event_t *event,
                                      fm_error_t *err);

/* --- consequences -------------------------------------------------------- */

typedef enum fm_pool_notice_kind {
    FM_POOL_NODE_READY,  /**< deps done: evaluate the condition, expand */
    FM_POOL_NODE_DONE,   /**< done or skipped */
    FM_POOL_NODE_FAILED, /**< see fm_pool_node_t.reason */
    FM_POOL_WORKFLOW_DONE,
    FM_POOL_WORKFLOW_FAILED,
    FM_POOL_WORKFLOW_CANCELLED,
    FM_POOL_LEASE_MOOT /**< nobody wants what is left of it: tell the worker */
} fm_pool_notice_kind_t;

typedef struct fm_pool_notice {
    fm_pool_notice_kind_t kind;
    uint32_t workflow, node;
    uint64_t lease;  /**< LEASE_MOOT; the lease is gone from the pool */
    uint32_t worker; /**< LEASE_MOOT */
} fm_pool_notice_t;

/** Take the next notice; false when there is none.  A node that changed twice
 *  since it was last read gives one notice, of its present state; nodes of
 *  cancelled workflows give none. */
bool fm_pool_next_notice(fm_pool_t *pool, fm_pool_notice_t *notice_out);

/* --- queries ------------------------------------------------------------- */

typedef enum fm_pool_state {
    FM_POOL_WAITING, /**< deps are not done */
    FM_POOL_READY,   /**< to be expanded or skipped */
    FM_POOL_RUNNING, /**< expanded; a workflow: not finished */
    FM_POOL_DONE,
    FM_POOL_SKIPPED,
    FM_POOL_FAILED,
    FM_POOL_CANCELLED
} fm_pool_state_t;
const char *fm_pool_state_name(fm_pool_state_t state);

typedef enum fm_pool_reason {
    FM_POOL_REASON_NONE,
    FM_POOL_REASON_TASK,    /**< an item used up its attempts */
    FM_POOL_REASON_INFRA,   /**< an item met max_infra platform faults */
    FM_POOL_REASON_DRIVER,  /**< NODE_FAIL named this node */
    FM_POOL_REASON_UPSTREAM /**< a node it depends on failed */
} fm_pool_reason_t;
const char *fm_pool_reason_name(fm_pool_reason_t reason);

typedef struct fm_pool_node {
    fm_pool_state_t state;
    fm_pool_reason_t reason;             /**< when failed */
    uint32_t failed_item;                /**< when reason is TASK or INFRA */
    uint32_t items, ran, shared, failed; /**< the rest is unsettled, or was
                                              dropped with its node */
    uint32_t depth;                      /**< longest chain of nodes below it */
} fm_pool_node_t;

typedef struct fm_pool_workflow {
    fm_pool_state_t state; /**< RUNNING, DONE, FAILED or CANCELLED */
    const char *tenant;    /**< borrowed */
    uint32_t tenant_id;
    int32_t priority;
    int64_t deadline_ns, submitted_ns;
    uint32_t nodes, nodes_done, nodes_skipped, nodes_failed;
    uint64_t items, ran, shared, failed;
} fm_pool_workflow_t;

typedef enum fm_pool_item_state {
    FM_POOL_ITEM_READY,
    FM_POOL_ITEM_LEASED,
    FM_POOL_ITEM_FOLLOWS, /**< waits for the leader's result */
    FM_POOL_ITEM_RAN,
    FM_POOL_ITEM_SHARED,
    FM_POOL_ITEM_FAILED,
    FM_POOL_ITEM_DROPPED /**< its node failed or was cancelled first */
} fm_pool_item_state_t;

typedef struct fm_pool_item {
    fm_pool_item_state_t state;
    bool has_output; /**< false for a settled item whose output is lost */
    fm_digest_t key; /**< zero once failed or dropped */
    fm_digest_t output;
    uint64_t lease;    /**< that produced the output, or that runs it; or 0 */
    uint32_t attempts; /**< task errors so far, of the leader */
} fm_pool_item_t;

uint32_t fm_pool_workflow_count(const fm_pool_t *pool);
/* FM_ERR_NOT_FOUND where there is no such workflow, node or item. */
FM_MUST_USE fm_status_t fm_pool_workflow_get(const fm_pool_t *pool,
                                             uint32_t workflow,
                                             fm_pool_workflow_t *out);
FM_MUST_USE fm_status_t fm_pool_node_get(const fm_pool_t *pool,
                                         uint32_t workflow, uint32_t node,
                                         fm_pool_node_t *out);
FM_MUST_USE fm_status_t fm_pool_item_get(const fm_pool_t *pool,
                                         uint32_t workflow, uint32_t node,
                                         uint32_t item, fm_pool_item_t *out);
/** The memo: false when @p key has no known output.  @p lease_out may be
 *  NULL. */
bool fm_pool_memo_get(const fm_pool_t *pool, const fm_digest_t *key,
                      fm_digest_t *output_out, uint64_t *lease_out);
/** Whether some item waits for @p key. */
bool fm_pool_wanted(const fm_pool_t *pool, const fm_digest_t *key);

/** An item, and the key it wants. */
typedef struct fm_pool_ref {
    uint32_t workflow, node, item;
    fm_digest_t key;
} fm_pool_ref_t;
/** Items that want or share @p key, first the leader: up to @p cap of them;
 *  returns how many there are. */
size_t fm_pool_sharers(const fm_pool_t *pool, const fm_digest_t *key,
                       fm_pool_ref_t *refs, size_t cap);

typedef struct fm_pool_totals {
    uint64_t planned; /**< items of all expansions */
    uint64_t ran;     /**< executed for this item */
    uint64_t shared;  /**< from the memo or another's lease */
    uint64_t failed;
    uint64_t dropped; /**< their node failed or was cancelled first */
    uint64_t retried_task, retried_infra; /**< executions that were repeated */
    uint64_t orphaned; /**< results that nobody wanted, but the memo */
    uint64_t reopened; /**< settled items that had to run again */
    uint64_t waiting; /**< = planned − ran − shared − failed − dropped */
    uint64_t ready_work, leased_work, memo; /**< keys in each state */
    uint32_t leases;
    size_t bytes; /**< memory held by the pool */
} fm_pool_totals_t;
void fm_pool_totals(const fm_pool_t *pool, fm_pool_totals_t *out);

/* --- for the scheduler --------------------------------------------------- */

/** Ready work of one batch key.  O(tenants with ready work there) to make.
 *  Tenants at a quota take no part, but in depth and deadline. */
typedef struct fm_pool_batch {
    fm_digest_t key;
    uint32_t id; /**< dense, never changes */
    uint32_t task_class;
    uint32_t ready;       /**< keys ready to lease; followers not counted */
    uint32_t blocked;     /**< ready keys beside, of tenants at a quota */
    double work;          /**< units, of those counted in ready */
    int64_t oldest_ns;    /**< expansion of the oldest */
    int32_t priority;     /**< highest */
    int64_t deadline_ns;  /**< nearest; 0: none */
    uint32_t tenant;      /**< that is served next there, now */
    double share;         /**< of that tenant, (0, 1]: see fm_tenants_get() */
    uint32_t tenants;     /**< with ready work */
    uint32_t depth;       /**< longest chain of nodes that waits for it */
    uint32_t avoid_count; /**< workers that failed every ready key */
    uint32_t avoid[FM_POOL_AVOID_MAX];
} fm_pool_batch_t;

/** Take a batch key whose summary may have changed since it was last taken, in
 *  order of change; false when there is none.  Amortised O(1); a tenant that
 *  met or left a quota costs O(its batch keys with ready work), once.  What
 *  only moved between tenants (fields tenant, share) is not told. */
bool fm_pool_next_dirty(fm_pool_t *pool, uint32_t *batch_out);
/** False when nothing there may be leased: @p out then has the key, the id, the
 *  class and blocked alone.  All zero for an unknown id. */
bool fm_pool_batch_get(const fm_pool_t *pool, uint32_t batch,
                       fm_pool_batch_t *out);
/** Batch keys ever seen: all ids are below. */
uint32_t fm_pool_batch_ids(const fm_pool_t *pool);
/** The id of @p key; UINT32_MAX when it was never seen. */
uint32_t fm_pool_batch_id(const fm_pool_t *pool, const fm_digest_t *key);
/** The item that would be leased next, so that the caller can look up its
 *  parameters.  Only where fm_pool_batch_get() is true. */
fm_pool_ref_t fm_pool_batch_next(const fm_pool_t *pool, uint32_t batch);

/* --- leases -------------------------------------------------------------- */

typedef struct fm_pool_lease_info {
    uint64_t lease;
    uint32_t worker;
    uint32_t items; /**< granted */
    uint32_t open;  /**< unsettled */
    fm_digest_t batch_key;
    uint32_t task_class;
    double work; /**< units granted */
    int64_t granted_ns, expires_ns;
} fm_pool_lease_info_t;

/** False when the lease is not, or no longer, known. */
bool fm_pool_lease_get(const fm_pool_t *pool, uint64_t lease,
                       fm_pool_lease_info_t *out);
/** The item leased at @p position, with its present leader; false where that
 *  position is settled, orphaned (nobody waits) or out of range. */
bool fm_pool_lease_item(const fm_pool_t *pool, uint64_t lease,
                        uint32_t position, fm_pool_ref_t *out);
/** Extend a lease; leases are volatile, so this is no event.  False when it is
 *  not known. */
bool fm_pool_lease_renew(fm_pool_t *pool, uint64_t lease, int64_t expires_ns);
/** Lease numbers that expired by @p now_ns, ascending; up to @p cap of them;
 *  returns how many there are. */
size_t fm_pool_leases_expired(const fm_pool_t *pool, int64_t now_ns,
                              uint64_t *leases, size_t cap);
/** Leases of @p worker, ascending; as above. */
size_t fm_pool_leases_of(const fm_pool_t *pool, uint32_t worker,
                         uint64_t *leases, size_t cap);

#endif
