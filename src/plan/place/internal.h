/* SPDX-License-Identifier: Apache-2.0 */
/** @file internal.h  Shared by the files of plan/place. */
#ifndef FM_PLAN_PLACE_INTERNAL_H
#define FM_PLAN_PLACE_INTERNAL_H

#include "base/map.h"
#include "plan/place/place.h"

/** A worker as last put; its resident models are a copy. */
struct worker {
    fm_sched_worker_t is;
    fm_digest_t *resident;
    size_t resident_capacity;
    bool known;
    bool busy;
};

/** Needs of a batch key; its models are a copy. */
struct task {
    fm_digest_t key;
    fm_place_task_t needs;
    fm_sched_object_t models[];
};

struct policy;

struct fm_place {
    const struct policy *policy;
    void *state; /* the policy's own */
    fm_place_options_t options;
    fm_pool_t *pool;
    const fm_cost_t *cost;
    struct worker *workers; /* by id */
    size_t worker_count, worker_capacity;
    struct task **tasks;
    size_t task_count, task_capacity;
    fm_map_t *task_ids;
};

/** What a policy does.  Every call comes after the tables above changed. */
struct policy {
    const char *name;
    bool isolates, merges;
    fm_status_t (*create)(fm_place_t *place, fm_error_t *err);
    void (*destroy)(fm_place_t *place);
    fm_status_t (*task_put)(fm_place_t *place, const struct task *task,
                            fm_error_t *err);
    fm_status_t (*workflow_put)(fm_place_t *place, uint32_t workflow,
                                uint64_t memory_bytes, fm_error_t *err);
    fm_status_t (*worker_put)(fm_place_t *place, uint32_t worker,
                              fm_error_t *err);
    void (*worker_busy)(fm_place_t *place, uint32_t worker, int64_t until_ns);
    void (*worker_drop)(fm_place_t *place, uint32_t worker);
    void (*cost_changed)(fm_place_t *place);
    bool (*next)(fm_place_t *place, int64_t now_ns, fm_place_choice_t *choice);
};

extern const struct policy fm_place_flowmesh;
extern const struct policy fm_place_static_worker;
extern const struct policy fm_place_fixed_pipeline;
extern const struct policy fm_place_round_robin;
extern const struct policy fm_place_adaptive;

/** Needs of a batch key, or NULL. */
const struct task *fm_place_task_find(const fm_place_t *place,
                                      const fm_digest_t *batch_key);

/* --- fit.c: a baseline's task on a worker -------------------------------- */

/** Items of the node that one lease takes. */
uint32_t fm_place_whole_size(const struct task *task, uint32_t ready);
/** Terms of running them, from the cost model. */
void fm_place_estimate(const fm_place_t *place, const struct task *task,
                       const fm_pool_batch_t *ready,
                       const fm_sched_worker_t *worker,
                       fm_sched_terms_t *terms);
/** Which hardware filter rules @p worker out; FM_SCHED_PLACE: none. */
fm_sched_verdict_t fm_place_fit(const fm_place_t *place,
                                const struct task *task,
                                const fm_pool_batch_t *ready,
                                const struct worker *worker, int64_t now_ns);
/** The choice of a whole node on @p worker. */
void fm_place_whole(const fm_place_t *place, const struct task *task,
                    const fm_pool_batch_t *ready, uint32_t worker,
                    fm_place_choice_t *choice);

#endif
