/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file internal.h
 * The simulator's data, private to role/sim.
 *
 * Invariants:
 *  - a worker runs at most one lease, kept in its record;
 *  - an event that names a worker holds its generation, which changes when
 *    what it was scheduled for is over: stale events are dropped;
 *  - integrals (up, busy, executing worker-seconds) are brought up to now
 *    before a count changes.
 */
#ifndef FM_ROLE_SIM_INTERNAL_H
#define FM_ROLE_SIM_INTERNAL_H

#include <string.h>

#include "base/map.h"
#include "base/rng.h"
#include "plan/cost/llm.h"
#include "plan/pool/pool.h"
#include "plan/scale/scale.h"
#include "role/sim/sim.h"

#define NONE UINT32_MAX
#define NS 1e9
#define BATCH_MAX_DEFAULT 256u
#define PARTS_MAX 64u
#define FM_SIM_RESIDENT_MAX 256u /* objects on a worker; less than plan's */

/* --- queue.c: events in order of time, then of scheduling ----------------- */

enum event_kind {
    EVENT_ARRIVE,  /* the pending workflow */
    EVENT_PART,    /* worker: items of its lease are done */
    EVENT_READY,   /* worker: start-up is over */
    EVENT_START,   /* worker of a fixed fleet: repaired */
    EVENT_WARN,    /* worker: preemption is coming */
    EVENT_PREEMPT, /* worker */
    EVENT_FLAP,    /* worker: lost, unwarned */
    EVENT_WALL,    /* worker: its walltime is over */
    EVENT_LOSS,    /* domain */
    EVENT_SCALE,   /* decide the fleet */
    EVENT_WAKE     /* decide placements though nothing changed */
};

struct event {
    int64_t at_ns;
    uint64_t order;
    uint32_t id; /* worker or domain */
    uint32_t generation;
    enum event_kind kind;
};

/* A 4-ary heap: shallower than a binary one, four children share a line. */
struct queue {
    struct event *heap;
    size_t count, capacity;
    uint64_t order;
};

fm_status_t fm_sim_queue_push(struct queue *queue, struct event event,
                              fm_error_t *err);
/** False when there is none. */
bool fm_sim_queue_pop(struct queue *queue, struct event *out);
/** INT64_MAX when there is none. */
int64_t fm_sim_queue_next_ns(const struct queue *queue);

/* --- what is known of work ------------------------------------------------ */

/** One batch key. */
struct task {
    fm_digest_t key;
    fm_digest_t model; /* object a worker must hold; see has_model */
    bool has_model;
    uint32_t base;  /* index of the base model, or NONE */
    uint32_t shape; /* sim->shapes */
    fm_sim_work_t work;
    uint32_t task_type;
    fm_sched_device_kind_t device;
    fm_sched_kind_t kind;
    uint32_t batch_max;
    uint64_t memory_bytes, item_memory_bytes;
    double kv_item_bytes; /* of a whole context */
    double input_bytes;
    uint32_t input_domain;
    uint32_t pool_id;      /* batch of the pool, or NONE so far */
    bool listed;           /* in sim->listed */
    uint32_t open_nodes;   /* expanded and not done */
    uint64_t queued_items; /* of nodes not expanded yet */
    uint32_t queued_nodes;
    double queued_ready_s; /* sum over those nodes of when they may be ready */
};

/** What run times depend on: one task class of plan/cost. */
struct shape {
    fm_cost_task_t spec;
    uint32_t task_class;
    double item_work; /* units, mean */
    double *factor;   /* [class_count] hidden efficiency */
};

struct node {
    fm_digest_t base, identity; /* keys.c */
    int64_t ready_ns, first_ns; /* first_ns < 0: not leased yet */
    double likely_ready_s;      /* elastic only: guessed at arrival */
    uint32_t task;
    uint32_t domain;       /* where its last result was made */
    bool expanded, closed; /* closed: done */
};

/** A workflow that is not finished. */
struct flow {
    fm_sim_stage_t *stages; /* with deps copied; names are not kept */
    uint32_t *deps;
    uint32_t *categories; /* of the stages */
    struct node *nodes;
    uint32_t count;
    uint32_t category, tenant;
    int64_t arrival_ns, first_ns; /* first_ns < 0: nothing was leased yet */
};

/* --- the fleet ------------------------------------------------------------ */

enum worker_state { WORKER_OFF, WORKER_STARTING, WORKER_UP };

/** What is loaded; its digest stands in worker->objects. */
struct resident {
    uint64_t bytes;
    uint64_t used; /* lease that used it last */
};

/** Tokens of the item at a position of a lease. */
struct length {
    float tokens;
    uint32_t position;
};

/** What a worker runs. */
struct lease {
    uint64_t id; /* 0: none */
    uint32_t task;
    uint32_t items, settled;
    int64_t begin_ns;   /* granted */
    int64_t execute_ns; /* after loads and fetches */
    double run_s;       /* of all its items, from execute_ns */
    double expected_s;
    double work;
    double progress;   /* training: part done before */
    double load_bytes; /* models and adapters */
    double load_s, tokens;
    uint32_t part_count, part;
    uint32_t part_end[PARTS_MAX]; /* items done with each part */
    double part_s[PARTS_MAX];     /* its end, after execute_ns */
    uint32_t *order;              /* [items] positions, the shortest first */
    size_t order_capacity;
    bool ordered; /* order is used: lengths differ */
};

struct worker {
    enum worker_state state;
    uint32_t class_index, domain;
    uint32_t life;       /* generation of its start */
    uint32_t generation; /* of its lease */
    bool draining, warned, flaps;
    int64_t up_ns;    /* paid since */
    int64_t ready_ns; /* end of start-up, expected while it lasts */
    int64_t idle_ns, walltime_end_ns;
    fm_rng_t rng; /* failures of this worker alone: the same whatever the
                     policy does */
    struct lease lease;
    fm_digest_t *objects; /* [resident_count] */
    struct resident *residents;
    uint32_t resident_count, resident_capacity;
    uint64_t resident_bytes;
};

struct domain {
    uint32_t first, count; /* workers */
    fm_rng_t rng;
};

/** Worker-seconds of a class so far. */
struct usage {
    int64_t at_ns;
    uint32_t up, busy, peak; /* up: paid for, start-up included */
    uint32_t ready;          /* up and not starting */
    double up_s, busy_s;
    double execute_s, load_s; /* added when a lease ends */
    uint64_t leases, items;
};

/* --- metrics.c ------------------------------------------------------------ */

struct latency {
    float queue_s, run_s, total_s;
};

struct samples {
    char *category;
    bool workflows;
    struct latency *list;
    size_t count, capacity;
};

struct tenant_samples {
    uint64_t submitted, done, failed;
    float *total_s;
    size_t count, capacity;
};

struct metrics {
    fm_sim_result_t result; /* being filled */
    struct samples *categories;
    size_t category_count, category_capacity;
    fm_strmap_t *category_ids; /* "w:" or "s:" + name */
    struct tenant_samples *tenants;
    size_t tenant_count, tenant_capacity;
    fm_sim_sample_t timeline[FM_SIM_TIMELINE_MAX];
    size_t timeline_count;
    int64_t sample_ns, interval_ns; /* next one, and between two */
    double sampled_up_s, sampled_busy_s, sampled_at_s;
    uint64_t digest;
};

/* --- the whole ------------------------------------------------------------ */

struct sim {
    const fm_sim_input_t *input;
    fm_sim_class_t *classes; /* defaults filled in */
    size_t class_count;
    fm_digest_t *model_digests;
    uint32_t *device_classes;
    fm_sim_failures_t failures;
    double checkpoint_s, call_s;
    uint32_t settle_parts;
    bool elastic;
    bool whole;    /* the policy's task is a whole node */
    bool merges;   /* … or several nodes of one batch key */
    bool unshared; /* a key is another one in every node */
    int64_t horizon_ns, scale_interval_ns;

    int64_t now_ns;
    struct queue queue;
    int64_t wake_ns; /* earliest EVENT_WAKE in the queue; INT64_MAX: none */
    bool changed;    /* since placements were last asked for */

    fm_tenants_t *tenants;
    fm_pool_t *pool;
    fm_cost_t *cost;
    fm_place_t *place;
    fm_scale_t *scale;
    int64_t plan_ns, decide_ns;
    uint64_t learned, told; /* results since the start; when place was told */

    fm_sim_workflow_t pending; /* the source's next; stages are its own */
    bool more;
    struct flow **flows; /* by workflow number; NULL once finished */
    size_t flow_count, flow_capacity;
    uint64_t live;
    int64_t first_arrival_ns, last_end_ns;
    int64_t busy_ns; /* when something ran last */

    struct task *tasks;
    size_t task_count, task_capacity;
    fm_map_t *task_ids;
    uint32_t *listed; /* tasks that may have ready or queued work: elastic */
    size_t listed_count, listed_capacity;
    struct shape *shapes;
    size_t shape_count, shape_capacity;
    fm_strmap_t *shape_ids;
    fm_map_t *progress; /* action key of unfinished training → part done, as
                           bits of a double */

    struct worker *workers;
    uint32_t worker_count;
    uint32_t *class_first; /* [class_count + 1] */
    struct domain *domains;
    uint32_t domain_count;
    struct usage *usage; /* by class */
    uint64_t lease_number;
    uint32_t leased; /* workers with a lease */
    uint32_t coming; /* workers that start or are being repaired */

    fm_digest_t *keys; /* scratch of an expansion */
    size_t key_capacity;
    struct length *lengths; /* scratch of a lease */
    size_t length_capacity;

    /* scratch of plan/scale */
    fm_scale_class_t *scale_classes;
    fm_scale_demand_t *demands;
    size_t demand_capacity;
    fm_scale_worker_t *scale_workers;
    fm_scale_action_t *actions;
    size_t action_capacity;

    struct metrics metrics;
};

static inline double seconds_of(int64_t ns)
{
    return (double)ns / NS;
}

/* A double in a map of integers. */
static inline uint64_t fm_sim_bits(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static inline double fm_sim_real(uint64_t bits)
{
    double value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline double fm_sim_kv_bytes(const fm_sim_model_t *model)
{
    return model->kv_bytes_per_token > 0
               ? model->kv_bytes_per_token
               : fm_cost_llm_kv_bytes(model->parameters);
}

static inline uint64_t fm_sim_load_bytes(const fm_sim_model_t *model)
{
    return model->load_bytes ? model->load_bytes : model->weight_bytes;
}

/** Seconds as ns, at least 0, far below overflow. */
int64_t fm_sim_ns(double seconds);
fm_status_t fm_sim_at(struct sim *sim, int64_t at_ns, enum event_kind kind,
                      uint32_t id, uint32_t generation, fm_error_t *err);
/** Check, then apply. */
fm_status_t fm_sim_event(struct sim *sim, const fm_pool_event_t *event,
                         fm_error_t *err);
int64_t fm_sim_clock(const struct sim *sim);

/* --- setup.c: from the input ---------------------------------------------- */

fm_status_t fm_sim_setup(struct sim *sim, const fm_sim_input_t *input,
                         fm_error_t *err);
void fm_sim_teardown(struct sim *sim);
fm_status_t fm_sim_check_workflow(const struct sim *sim,
                                  const fm_sim_workflow_t *workflow,
                                  fm_error_t *err);

/* --- keys.c: identity ----------------------------------------------------- */

fm_digest_t fm_sim_digest(uint64_t a, uint64_t b, uint64_t c, uint64_t d);
/** A digest and a number more. */
fm_digest_t fm_sim_mix(const fm_digest_t *digest, uint64_t salt);
fm_digest_t fm_sim_mix2(const fm_digest_t *a, const fm_digest_t *b,
                        uint64_t salt);
/** Uniform in [0, 1), of a key. */
double fm_sim_uniform(const fm_digest_t *key, uint64_t salt);
double fm_sim_normal(const fm_digest_t *key, uint64_t salt);
/** Set base and identity of a node; its upstream nodes have theirs. */
void fm_sim_node_identify(const struct sim *sim, struct flow *flow,
                          uint32_t workflow, uint32_t node);
/** The object a stage's device must hold; false: none. */
bool fm_sim_node_model(const struct sim *sim, const struct flow *flow,
                       uint32_t node, fm_digest_t *out);
bool fm_sim_node_adapter(const struct flow *flow, uint32_t node,
                         fm_digest_t *out);
/** Action key of item @p row of a node. */
fm_digest_t fm_sim_item_key(const struct flow *flow, uint32_t node,
                            uint32_t row);
fm_digest_t fm_sim_batch_key(const struct sim *sim, const struct flow *flow,
                             uint32_t workflow, uint32_t node);

/* --- task.c: batch keys and their run times ------------------------------- */

/** The task of a node, made when it is new. */
fm_status_t fm_sim_task_of(struct sim *sim, const struct flow *flow,
                           uint32_t workflow, uint32_t node, uint32_t *task_out,
                           fm_error_t *err);
/** Tell plan/place of it. */
fm_status_t fm_sim_task_place(struct sim *sim, struct task *task,
                              fm_error_t *err);
double fm_sim_item_tokens(const fm_sim_stage_t *stage, const fm_digest_t *key);

/** Sums over the items of a lease. */
struct sums {
    double items, in, out, out_max;
    double context; /* tokens of context that decode steps read */
    double train, fixed_s;
};
void fm_sim_sums_add(const fm_sim_stage_t *stage, double out,
                     struct sums *sums);
/** What plan/cost thinks @p items take on the class that does them soonest,
 *  without loads. */
double fm_sim_likely_s(const struct sim *sim, uint32_t task, uint32_t items);
/** Seconds to execute, without noise. */
double fm_sim_truth(const struct sim *sim, const struct task *task,
                    uint32_t class_index, const struct sums *sums);

/* --- flow.c: workflows -----------------------------------------------------
 */

fm_status_t fm_sim_source_next(struct sim *sim, fm_error_t *err);
fm_status_t fm_sim_arrive(struct sim *sim, fm_error_t *err);
/** Act on the pool's notices until there are none. */
fm_status_t fm_sim_notices(struct sim *sim, fm_error_t *err);
void fm_sim_flow_destroy(struct flow *flow);

/* --- lease.c ----------------------------------------------------------------
 */

/** Lease until there is nothing to place. */
fm_status_t fm_sim_place_all(struct sim *sim, fm_error_t *err);
fm_status_t fm_sim_part(struct sim *sim, uint32_t worker, fm_error_t *err);
/**
 * The lease of a worker, if it has one, ends before its time.
 * @param saved  training keeps all it did, not only its last checkpoint.
 */
fm_status_t fm_sim_cut(struct sim *sim, uint32_t worker,
                       fm_pool_lease_end_t how, bool saved, fm_error_t *err);

/* --- fleet.c ----------------------------------------------------------------
 */

/** Tell plan/place what a worker is now. */
fm_status_t fm_sim_worker_tell(struct sim *sim, uint32_t worker,
                               fm_error_t *err);
fm_status_t fm_sim_worker_start(struct sim *sim, uint32_t worker,
                                fm_error_t *err);
fm_status_t fm_sim_worker_ready(struct sim *sim, uint32_t worker,
                                fm_error_t *err);
/** It takes nothing more and leaves when its lease is done. */
fm_status_t fm_sim_worker_drain(struct sim *sim, uint32_t worker, bool now,
                                fm_error_t *err);
/** Idle again; leaves when it drains. */
fm_status_t fm_sim_worker_idle(struct sim *sim, uint32_t worker,
                               fm_error_t *err);
fm_status_t fm_sim_fleet_event(struct sim *sim, const struct event *event,
                               fm_error_t *err);
/** A domain's next loss. */
fm_status_t fm_sim_domain_arm(struct sim *sim, uint32_t domain,
                              fm_error_t *err);
/** The running lease uses an object.  @p was_there false: it is now, and its
 *  load is to be paid. */
fm_status_t fm_sim_touch(struct sim *sim, uint32_t worker,
                         const fm_digest_t *object, uint64_t bytes,
                         bool *was_there, fm_error_t *err);
/** Drop objects that the running lease does not use, the least recently used
 *  first, until they fit beside its @p need_bytes; how many. */
uint32_t fm_sim_evict(struct sim *sim, uint32_t worker, uint64_t need_bytes);
/** Integrals up to now. */
struct usage *fm_sim_usage(struct sim *sim, uint32_t class_index);

/* --- elastic.c ---------------------------------------------------------------
 */

fm_status_t fm_sim_elastic(struct sim *sim, fm_error_t *err);

/* --- metrics.c
 * ---------------------------------------------------------------- */

fm_status_t fm_sim_metrics_init(struct sim *sim, fm_error_t *err);
void fm_sim_metrics_fini(struct sim *sim);
fm_status_t fm_sim_category(struct sim *sim, const char *name, bool workflows,
                            uint32_t *id_out, fm_error_t *err);
fm_status_t fm_sim_latency_add(struct sim *sim, uint32_t category,
                               int64_t ready_ns, int64_t first_ns,
                               int64_t end_ns, fm_error_t *err);
fm_status_t fm_sim_tenant_grow(struct sim *sim, uint32_t tenant,
                               fm_error_t *err);
fm_status_t fm_sim_tenant_done(struct sim *sim, uint32_t tenant, double total_s,
                               bool failed, fm_error_t *err);
/** Take the timeline's samples that are due by @p to_ns. */
void fm_sim_timeline(struct sim *sim, int64_t to_ns);
void fm_sim_mark(struct sim *sim, uint64_t what, uint64_t who, uint64_t size);
fm_status_t fm_sim_result(struct sim *sim, fm_sim_result_t *out,
                          fm_error_t *err);

#endif
