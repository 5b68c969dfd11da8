/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file place_fixture.h
 * A small fabric under virtual time: a pool, workers that run what a policy
 * leases to them, and checks that hold for every policy.
 */
#ifndef PLACE_FIXTURE_H
#define PLACE_FIXTURE_H

#include "plan/place/place.h"

#define FIX_WORKERS 32u
#define FIX_FLOWS 256u
#define FIX_NODES 4u
#define FIX_ITEMS 64u
#define FIX_S INT64_C(1000000000)
#define FIX_GB (UINT64_C(1) << 30)

/** A node of a workflow; nodes form a chain, or stand alone with .apart. */
typedef struct fix_node {
    fm_place_task_t
        task; /* kind, type, memory …; task_class is the fixture's */
    uint32_t items;
    uint32_t batch; /* the same number: the same batch key */
    uint32_t row;   /* identity of the first item, for work that is shared */
    bool apart;     /* depends on nothing */
} fix_node_t;

typedef struct fix_flow {
    fix_node_t nodes[FIX_NODES];
    uint32_t node_count;
    uint64_t memory_bytes;
    int32_t priority;
    const char *tenant; /* NULL: "t" */
} fix_flow_t;

/** What a worker does. */
typedef struct fix_worker {
    fm_sched_worker_t is;
    bool up;
    uint64_t lease;   /* 0: idle */
    uint64_t gang_of; /* lease of a gang that it helps with */
    uint32_t workflow, node, type, items; /* of the lease's first item */
    int64_t end_ns;
} fix_worker_t;

typedef struct fix {
    fm_place_policy_t policy;
    fm_pool_t *pool;
    fm_cost_t *cost;
    fm_place_t *place;
    int64_t now_ns;
    uint32_t fast, slow; /* device classes: 1 and 0.25 units a second */
    uint32_t class;      /* of tasks */
    fix_worker_t workers[FIX_WORKERS];
    fix_flow_t flows[FIX_FLOWS];
    uint32_t flow_count;
    uint64_t lease_count;
    int64_t wake_ns;
    fm_place_choice_t last;  /* choice */
    uint32_t longest_wait_s; /* of an item, from ready to lease */
} fix_t;

void fix_open(fix_t *fix, fm_place_policy_t policy);
void fix_close(fix_t *fix);
/** A worker that takes every task type, on the slow class. */
fm_sched_worker_t fix_worker(uint32_t id, uint64_t memory_bytes);
void fix_put(fix_t *fix, fm_sched_worker_t worker);
void fix_drop(fix_t *fix, uint32_t worker); /* its lease ends with a fault */
uint32_t fix_submit(fix_t *fix, const fix_flow_t *flow);
void fix_cancel(fix_t *fix, uint32_t workflow);
/** Read notices, expand what is ready. */
void fix_drain(fix_t *fix);
/** One decision; true: leased, and .last says what. */
bool fix_place(fix_t *fix);
/** All decisions of this moment; how many leases. */
uint32_t fix_place_all(fix_t *fix);
/** End the lease of a worker: every item has @p outcome. */
void fix_finish(fix_t *fix, uint32_t worker, fm_pool_outcome_t outcome);
/** To the next end of a lease, finish it; or to the wake-up.  False: neither.
 */
bool fix_step(fix_t *fix);
/** Steps until nothing moves. */
void fix_run(fix_t *fix);
fm_pool_state_t fix_state(const fix_t *fix, uint32_t workflow);
fm_place_verdict_t fix_explain(fix_t *fix, uint32_t workflow, uint32_t node);
/** The batch key of a node under the fixture's policy. */
fm_digest_t fix_batch_key(const fix_t *fix, uint32_t workflow, uint32_t node);

#endif
