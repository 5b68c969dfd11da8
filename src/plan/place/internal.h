/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file internal.h
 * Shared by the files of plan/place.
 *
 * Invariant: bit i of idle is set iff worker i is known, open and not busy.
 */
#ifndef FM_PLAN_PLACE_INTERNAL_H
#define FM_PLAN_PLACE_INTERNAL_H

#include "base/map.h"
#include "plan/place/place.h"

#define NONE FM_PLACE_NONE

/** A worker as last put; its resident models are a copy. */
struct worker {
    fm_sched_worker_t is;
    fm_digest_t *resident;
    size_t resident_capacity;
    bool known, busy;
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
    uint64_t *idle; /* a bit for each worker */
    size_t idle_words;
    uint32_t live;        /* workers known and open */
    uint32_t *class_live; /* of them, by device class */
    size_t class_count, class_capacity;
    uint64_t version; /* changes when a worker may take what none could */
    struct task **tasks;
    size_t task_count, task_capacity;
    fm_map_t *task_ids;
};

/** What a policy does.  Each call comes after the tables above changed. */
struct policy {
    const char *name;
    bool isolates, merges;
    const struct chooser *chooser; /* of a baseline */
    size_t state_bytes;
    fm_status_t (*create)(fm_place_t *place, fm_error_t *err);
    void (*destroy)(fm_place_t *place);
    /* NULL where the policy does not care: */
    void (*task_put)(fm_place_t *place, const struct task *task);
    fm_status_t (*workflow_put)(fm_place_t *place, uint32_t workflow,
                                uint64_t memory_bytes, fm_error_t *err);
    fm_status_t (*worker_put)(fm_place_t *place, uint32_t worker,
                              fm_error_t *err);
    void (*worker_busy)(fm_place_t *place, uint32_t worker, int64_t until_ns);
    void (*worker_drop)(fm_place_t *place, uint32_t worker);
    void (*cost_changed)(fm_place_t *place);
    bool (*next)(fm_place_t *place, int64_t now_ns, fm_place_choice_t *choice);
    size_t (*explain)(fm_place_t *place, uint32_t batch, int64_t now_ns,
                      fm_sched_candidate_t *list, size_t cap,
                      fm_place_verdict_t *why);
    uint32_t (*reserved_for)(const fm_place_t *place, uint32_t worker);
};

extern const struct policy fm_place_flowmesh;
extern const struct policy fm_place_static_worker;
extern const struct policy fm_place_fixed_pipeline;
extern const struct policy fm_place_round_robin;
extern const struct policy fm_place_adaptive;

/** Needs of a batch key, or NULL. */
const struct task *fm_place_task_find(const fm_place_t *place,
                                      const fm_digest_t *batch_key);
/** The first idle worker with an id ≥ @p from, or NONE. */
uint32_t fm_place_idle_next(const fm_place_t *place, uint32_t from);
bool fm_place_is_idle(const fm_place_t *place, uint32_t worker);

/* --- queue.c: tasks of a baseline in the order of their arrival ---------- */

/** A batch key with ready work: for a baseline a task, that is a node. */
struct entry {
    const struct task *task;
    fm_pool_batch_t ready;
    uint32_t workflow; /* of the item leased next */
    uint32_t span;     /* items that one lease is expected to get */
    uint32_t line;     /* NONE: nothing is ready */
    uint32_t next, prev;
    uint32_t sibling; /* another of the same workflow, or NONE */
    bool seen;
};

/** Tasks that the same workers fit, in the order they are to be served. */
struct line {
    uint32_t head, tail, count;
    uint64_t failed; /* place->version when no idle worker fitted */
};

struct queue {
    struct entry *entries; /* by batch id */
    size_t entry_count, entry_capacity;
    struct line *lines;
    size_t line_count, line_capacity;
    fm_map_t *line_ids;
    bool missed; /* memory was out: take everything anew */
};

#define FM_PLACE_MARK_ALONE ((uint64_t)1 << 63)

/** How a baseline chooses.  NULL where it has nothing to say. */
struct chooser {
    /** Before a decision. */
    void (*begin)(fm_place_t *place, int64_t now_ns);
    /** The worker for @p entry, or NONE; *own_out: for a reason that is not
     *  shared by its line (walltime, workers that failed it). */
    uint32_t (*choose)(fm_place_t *place, const struct entry *entry,
                       int64_t now_ns, bool *own_out);
    /** The choice is made: for each worker of it. */
    void (*commit)(fm_place_t *place, const struct entry *entry,
                   uint32_t worker, int64_t now_ns);
    /** Whether an idle worker may take part in a lease of @p entry. */
    bool (*may_join)(const fm_place_t *place, const struct entry *entry,
                     uint32_t worker);
    /** What tells its line from others beyond the needs; with the bit
     *  FM_PLACE_MARK_ALONE instead of the needs. */
    uint64_t (*mark)(const fm_place_t *place, const struct entry *entry);
    /** A batch key is seen for the first time. */
    fm_status_t (*seen)(fm_place_t *place, uint32_t batch, fm_error_t *err);
    /** Why it waits although a worker fits: a sentence. */
    const char *(*blocked)(const fm_place_t *place, const struct entry *entry);
    /** When to look again though nothing changes; 0: never. */
    int64_t (*wake)(const fm_place_t *place);
    /** Release what the state holds beside the queue. */
    void (*fini)(fm_place_t *place);
    uint32_t max_nodes;
};

/* The calls of struct policy, for a policy with a chooser whose state has
 * struct queue as its first member. */
fm_status_t fm_place_baseline_create(fm_place_t *place, fm_error_t *err);
void fm_place_baseline_destroy(fm_place_t *place);
void fm_place_baseline_task_put(fm_place_t *place, const struct task *task);
bool fm_place_baseline_next(fm_place_t *place, int64_t now_ns,
                            fm_place_choice_t *choice);
size_t fm_place_baseline_explain(fm_place_t *place, uint32_t batch,
                                 int64_t now_ns, fm_sched_candidate_t *list,
                                 size_t cap, fm_place_verdict_t *why);
#define FM_PLACE_BASELINE                                                      \
    .isolates = true, .create = fm_place_baseline_create,                      \
    .destroy = fm_place_baseline_destroy,                                      \
    .task_put = fm_place_baseline_task_put, .next = fm_place_baseline_next,    \
    .explain = fm_place_baseline_explain

/** The mark of a task has changed: move it to its line. */
void fm_place_queue_move(fm_place_t *place, uint32_t batch);

/* --- fit.c: a baseline's task on a worker -------------------------------- */

/** Items of the task that one lease takes. */
uint32_t fm_place_whole_size(const struct task *task, uint32_t ready);
/** Terms of running it on @p worker, from the cost model. */
void fm_place_estimate(const fm_place_t *place, const struct entry *entry,
                       uint32_t worker, fm_sched_terms_t *terms);
/** Which hardware filter rules @p worker out; FM_SCHED_PLACE: none.  Gangs
 *  apart. */
fm_sched_verdict_t fm_place_fit(const fm_place_t *place,
                                const struct entry *entry, uint32_t worker,
                                int64_t now_ns);
/** Whether an idle worker takes it now: fits, and is none to avoid unless all
 *  are.  *own_out is set, and never cleared, as chooser.choose() says. */
bool fm_place_takes(const fm_place_t *place, const struct entry *entry,
                    uint32_t worker, int64_t now_ns, bool *own_out);
bool fm_place_avoided(const struct entry *entry, uint32_t worker);
/** Whether @p leader's gang for it is idle too. */
bool fm_place_gang_complete(const fm_place_t *place, const struct entry *entry,
                            uint32_t leader, int64_t now_ns);
/** fm_place_takes(), the policy lets it, and its gang is complete. */
bool fm_place_usable(const fm_place_t *place, const struct entry *entry,
                     uint32_t worker, int64_t now_ns, bool *own_out);
/** Idle workers of @p leader's class and domain that may run the gang with it,
 *  the leader first; up to the size of the gang.  Returns how many. */
uint32_t fm_place_gang(const fm_place_t *place, const struct entry *entry,
                       uint32_t leader, int64_t now_ns,
                       uint32_t workers[FM_SCHED_GANG_MAX]);

#endif
