/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file place.h
 * From (pool, workers, cost model, now) to the next lease: the one thing that
 * the live control plane and the simulator both call.
 *
 * A policy decides.  `flowmesh` is THE utility function of plan/sched.  The
 * four others are baselines, as systems without a shared pool work:
 *
 *   static_worker   the whole workflow is bound to one worker, chosen for its
 *                   heaviest need; reserved until the workflow ends
 *   fixed_pipeline  workers are pinned to task types; a type holds at most
 *                   half of the live workers (at least 1); round-robin inside;
 *                   a binding ends after 60 s idle; steals from types with
 *                   nothing pending
 *   round_robin     rotates over the idle workers that fit
 *   adaptive        the worker with the best λ·throughput − (1−λ)·cost, min-max
 *                   normalised over the idle workers that fit; merges at most
 *                   4 ready tasks of one merge key
 *
 * All five share the hardware filters (task type, device kind, memory,
 * walltime, gang) and the cost model.  A baseline's task is a whole node: its
 * choice leases all ready items of the node; tasks go by priority, then in the
 * order of arrival, and one that no idle worker fits does not hold up those
 * behind it.  Baselines share no results between workflows: callers pass the
 * keys through fm_place_isolate() where fm_place_policy_isolates().
 *
 * The caller's loop, whenever anything changed or wake_ns has come:
 *
 *     while (fm_place_next(place, now, &choice)) {
 *         apply FM_POOL_LEASE {choice.worker, .batch_key, .max_items = .size,
 *                              .max_nodes, .ignore_avoid = .avoid_waived}
 *         fm_place_worker_busy(place, each of choice.workers, now + seconds);
 *     }
 *
 * The same choice comes again until the pool or a worker has changed, so a
 * caller that can not lease must drop or close the worker, or stop asking.
 *
 * Pure and deterministic.  Threads: one at a time, and not while the pool or
 * the cost model change.
 */
#ifndef FM_PLAN_PLACE_PLACE_H
#define FM_PLAN_PLACE_PLACE_H

#include "plan/pool/pool.h"
#include "plan/sched/sched.h"

#define FM_PLACE_NONE UINT32_MAX
#define FM_PLACE_MODELS_MAX                                                    \
    FM_SCHED_MODELS_MAX /**< of a task: a base and its adapters */
#define FM_PLACE_RESIDENT_MAX FM_SCHED_RESIDENT_MAX /**< of a worker */
#define FM_PLACE_WORKFLOWS_MAX (1u << 30)

typedef enum fm_place_policy {
    FM_PLACE_FLOWMESH,
    FM_PLACE_STATIC_WORKER,
    FM_PLACE_FIXED_PIPELINE,
    FM_PLACE_ROUND_ROBIN,
    FM_PLACE_ADAPTIVE,
    FM_PLACE_POLICIES
} fm_place_policy_t;

/** Such as "static_worker"; never NULL for a policy. */
const char *fm_place_policy_name(fm_place_policy_t policy);
/** False where there is no such name. */
bool fm_place_policy_find(const char *name, fm_place_policy_t *policy_out);
/** Whether workflows share no results and a task is a whole node: every
 *  baseline. */
bool fm_place_policy_isolates(fm_place_policy_t policy);
/** Whether tasks of several nodes may share one batch: then batch keys stay
 *  as they are, and only action keys are isolated (adaptive). */
bool fm_place_policy_merges(fm_place_policy_t policy);
/**
 * Another key for another workflow and node.  Action keys go through it with
 * their node, because one action key belongs to one batch key; so do the batch
 * keys of a policy that does not merge.
 * @param node  FM_PLACE_NONE: the same for all nodes of the workflow.
 */
fm_digest_t fm_place_isolate(const fm_digest_t *key, uint32_t workflow,
                             uint32_t node);

typedef struct fm_place_options {
    fm_place_policy_t policy;
    fm_sched_options_t sched; /**< lambda and energy price hold for adaptive
                                   too; the rest for flowmesh alone */
} fm_place_options_t;

typedef struct fm_place fm_place_t;

/**
 * @param opts  NULL: flowmesh with defaults; not kept.
 * @param pool, cost  borrowed; they outlive the placement.  @p cost may be
 *              NULL: fm_cost_estimate()'s default.
 * @param place_out  [out] owned by the caller; untouched on failure.
 * @retval FM_ERR_INVALID  no such policy, or options make no sense.
 * @retval FM_ERR_NO_MEMORY
 */
FM_MUST_USE fm_status_t fm_place_create(const fm_place_options_t *opts,
                                        fm_pool_t *pool, const fm_cost_t *cost,
                                        fm_place_t **place_out,
                                        fm_error_t *err);
void *fm_place_destroy(fm_place_t *place);

/** What the items of one batch key need. */
typedef struct fm_place_task {
    fm_sched_kind_t kind;
    uint32_t task_class; /**< of plan/cost */
    uint32_t task_type;  /**< bit of the workers' masks, < 64 */
    uint32_t size_max;   /**< items of one slice (flowmesh); 0: 1 */
    uint32_t whole_max;  /**< items that any lease can carry at all, whatever
                              the policy; 0: FM_POOL_BATCH_MAX */
    fm_sched_device_kind_t device;
    uint64_t memory_bytes;           /**< of the device, whatever the size */
    uint64_t item_memory_bytes;      /**< for each item more */
    const fm_sched_object_t *models; /**< copied; ≤ FM_PLACE_MODELS_MAX */
    size_t model_count;
    double item_input_bytes; /**< to fetch, where they are not near */
    uint32_t input_domain;   /**< FM_SCHED_NONE: anywhere */
    bool checkpointable;
    uint32_t gang; /**< devices at once in one domain; 0: 1 */
} fm_place_task_t;

/**
 * State the needs of a batch key, before its first item is ready: work of a
 * key without needs is not placed.  Replaces what was known of it.
 * @retval FM_ERR_INVALID  kind, task type or input bytes make no sense.
 * @retval FM_ERR_LIMIT    too many models.
 * @retval FM_ERR_NO_MEMORY
 */
FM_MUST_USE fm_status_t fm_place_task_put(fm_place_t *place,
                                          const fm_digest_t *batch_key,
                                          const fm_place_task_t *task,
                                          fm_error_t *err);
/**
 * State the largest device memory that any node of @p workflow needs, before
 * its first node is ready: static_worker chooses by it, others ignore it.
 */
FM_MUST_USE fm_status_t fm_place_workflow_put(fm_place_t *place,
                                              uint32_t workflow,
                                              uint64_t memory_bytes,
                                              fm_error_t *err);

/**
 * Add a worker or replace what is known of it: resident models, price, closed
 * and so on.  Copies.  free_at_ns is not read: a new worker is idle, a known
 * one stays as it is.  Ids are dense, below FM_SCHED_WORKERS_MAX.
 * @retval FM_ERR_INVALID  a number makes no sense; the text says which.
 * @retval FM_ERR_LIMIT    the id, or too many resident models.
 * @retval FM_ERR_NO_MEMORY
 */
FM_MUST_USE fm_status_t fm_place_worker_put(fm_place_t *place,
                                            const fm_sched_worker_t *worker,
                                            fm_error_t *err);
/** Busy until about @p until_ns: it stays busy until told otherwise, however
 *  late it gets.  INT64_MIN: idle.  Unknown ids are ignored. */
void fm_place_worker_busy(fm_place_t *place, uint32_t worker, int64_t until_ns);
void fm_place_worker_drop(fm_place_t *place, uint32_t worker);

/** The cost model has learned: estimates are taken anew. */
void fm_place_cost_changed(fm_place_t *place);

/** The next lease. */
typedef struct fm_place_choice {
    fm_digest_t batch_key;
    uint32_t worker; /**< id; of a gang the first */
    uint32_t gang;   /**< workers that run it together, ≥ 1 */
    uint32_t workers[FM_SCHED_GANG_MAX]; /**< gang of them; make all busy */
    uint32_t size;                       /**< items at most */
    uint32_t max_nodes; /**< distinct nodes at most; 0: any number */
    uint32_t resource;  /**< device class of the worker, to charge */
    bool avoid_waived;  /**< no other worker fits: lease what failed here too */
    double seconds; /**< expected, model load and fetch included, waiting not */
    double dollars; /**< of those seconds, energy included */
    double joules;
    fm_sched_terms_t terms; /**< every term of the decision; a baseline fills
                                 those that it looks at */
    int64_t wake_ns; /**< when there is no choice: look again then, though
                          nothing changes; 0: only at the next change */
} fm_place_choice_t;

/**
 * Decide.
 * @param choice_out  [out] true: the next lease; false: wake_ns alone.
 * Nothing is reserved by a choice but by the busy worker and the lease.
 */
bool fm_place_next(fm_place_t *place, int64_t now_ns,
                   fm_place_choice_t *choice_out);

/** Where a batch key stands. */
typedef struct fm_place_verdict {
    fm_sched_verdict_t verdict; /**< FM_SCHED_PLACE: the next decision for it
                                     places it */
    const char *text;           /**< a sentence, the policy's own words */
} fm_place_verdict_t;

/**
 * Every placement that is looked at for a batch key, best first, and why it
 * waits.  Changes nothing; costs O(workers) for a baseline.
 *
 * @param list  [out] room for @p cap; may be NULL where it is 0.
 * @return how many there are, maybe more than @p cap.
 */
size_t fm_place_explain(fm_place_t *place, const fm_digest_t *batch_key,
                        int64_t now_ns, fm_sched_candidate_t *list, size_t cap,
                        fm_place_verdict_t *why);

/** For static_worker: the workflow that @p worker is reserved for, or
 *  FM_PLACE_NONE. */
uint32_t fm_place_reserved_for(const fm_place_t *place, uint32_t worker);

#endif
