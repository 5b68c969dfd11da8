/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file state.h
 * What the scheduler keeps between decisions, private to plan/sched.
 *
 * Invariants:
 *  - a worker that is open is in the pool of its class, in one for each model
 *    that it holds and in the one of its domain; a closed one is in none;
 *  - pool.top is the idle worker that the batches last heard of, or a touched
 *    mark says that they have to hear of a change;
 *  - a batch's best is its best idle candidate, unless a pool is touched or
 *    it is stale: then best.score is no less than that of any idle candidate;
 *  - model.backlog_s is the sum of demand_s of the batches that want it.
 */
#ifndef FM_PLAN_SCHED_STATE_H
#define FM_PLAN_SCHED_STATE_H

#include "base/map.h"
#include "plan/sched/sched.h"

#define NONE FM_SCHED_NONE
#define IDLE INT64_MIN
#define IDLE_KEY_MAX (INT64_MIN / 2) /* keys of a heap below: idle */
#define MASKS 4u /* of missing models, kept for batches of up to two */
#define VARIANTS (2 * MASKS)
#define NS_PER_S 1e9

/** Workers by free time, the idle ones first. */
struct entry {
    int64_t key;
    uint32_t worker, slot; /* worker->seats[slot] points back */
};

enum pool_kind { POOL_FREE, POOL_CLASS, POOL_MODEL, POOL_DOMAIN };

struct pool {
    struct entry *heap;
    uint32_t count, capacity, idle;
    uint32_t class, owner; /* owner: model or domain */
    uint32_t top;          /* idle worker first in line, or NONE */
    uint32_t next;         /* of the same model or domain */
    uint32_t class_next;   /* POOL_DOMAIN: of the same class */
    uint8_t kind;
    bool touched;
};

/** Place of a worker in a pool. */
struct seat {
    uint32_t pool, pos;
};

enum { SEAT_CLASS, SEAT_DOMAIN, SEAT_MODEL };

struct worker {
    int64_t free_at_ns; /* IDLE, or when */
    uint32_t class;     /* NONE: unknown id, or closed */
    uint32_t domain;    /* index, or NONE */
    uint32_t version;   /* changes with every change of it */
    uint32_t model_count;
    uint32_t *models;   /* indices, oldest first */
    struct seat *seats; /* SEAT_CLASS, SEAT_DOMAIN, then the models' */
    uint64_t memory_bytes;
    bool known, held; /* held: kept for a gang, out of sight of others */
};

/** What a batch asks of a class, without the time. */
struct cell {
    double score;      /* λ·gain − (1−λ)·loss; −INFINITY: unfit */
    double gain, loss; /* logarithms, of work instead of value */
    double busy_s;     /* T − wait */
    int64_t until_ns;  /* holds until then */
    uint32_t size;     /* of the full slice */
    uint32_t stamp;    /* version of the batch */
};

/* Hashed, so it has no padding. */
struct traits {
    uint64_t task_types, memory_bytes;
    int64_t end_ns; /* walltime, rounded down; 0: none */
    double price, watts, hazard, load, fetch;
    uint32_t device_class, device;
};

struct class
{
    struct traits traits;
    fm_digest_t digest;
    struct cell *cells[VARIANTS]; /* by batch slot; NULL until asked for */
    double rate;                  /* dollars a second, energy included … */
    double rate_min;              /* … no less than PRICE_MIN */
    uint32_t pool, domain_first;
    uint32_t active, idle_pos; /* positions in the lists, or NONE */
    bool used;
};

struct list {
    uint32_t *at;
    size_t count, capacity;
};

/** A model or a domain: the workers that have it, the batches that want it. */
struct model {
    fm_digest_t digest;
    uint32_t pool_first, holders, idle, refs;
    struct list batches;
    double backlog_s;
    uint64_t bytes;
};

struct need {
    uint32_t model, pos; /* pos: in its list of batches */
    uint64_t bytes;
};

/** The best idle candidate of a batch. */
struct best {
    double score, gain, loss, busy_s;
    int64_t until_ns;
    uint32_t pool, worker, size; /* pool NONE: none */
};

struct batch {
    struct best best;
    double urgency; /* ln(priority · path) */
    double stages;
    int64_t oldest_ns, deadline_ns;
    int64_t wait_until_ns; /* patience ends; 0: turned no idle worker down */
    int64_t wait_check_ns; /* looks again, at the latest */
    double wait_score;     /* the most that it turned down */
    uint32_t wait_worker, wait_version;
    uint32_t id, tenant, version, ready;
    uint8_t kind;
    bool used, stale, restless, waive;
    bool checkpointable;
    uint8_t task_type, device;
    uint32_t task_class, size_max, domain, domain_pos, depth, gang;
    int32_t priority;
    uint32_t active;
    double item_work, item_input_bytes;
    uint64_t memory_bytes, item_memory_bytes;
    double item_s;         /* an item on the fastest class, in a full slice */
    double demand_s;       /* ready · item_s */
    int64_t gang_after_ns; /* no reservation before */
    struct need *needs;
    uint32_t *avoid;
    uint32_t need_count, avoid_count;
};

/** Idle workers kept for a gang. */
struct reservation {
    uint32_t batch, pool; /* batch NONE: none */
    uint32_t count;
    uint32_t workers[FM_SCHED_GANG_MAX];
    int64_t made_ns, expires_ns;
};

struct fm_sched {
    fm_sched_options_t options; /* defaults filled in */
    const fm_cost_t *cost;
    int64_t now_ns;
    struct worker *workers; /* by id */
    size_t worker_capacity;
    uint32_t worker_count; /* open */
    uint32_t idle_count;
    struct pool *pools;
    size_t pool_count, pool_capacity;
    uint32_t pool_free;
    struct list touched; /* pools */
    struct class *classes;
    size_t class_count, class_capacity;
    struct list active_classes, idle_classes;
    fm_map_t *class_ids, *model_ids, *domain_ids;
    struct model *models, *domains;
    size_t model_count, model_capacity, domain_count, domain_capacity;
    struct list free_models, free_domains, free_classes, free_batches;
    struct list slots; /* batch id → slot, or NONE */
    struct batch *batches;
    size_t batch_count, batch_capacity;
    struct list active; /* slots with ready work */
    double *shares;     /* ln, by tenant */
    size_t share_count, share_capacity;
    double demand_s;
    uint32_t versions;
    uint32_t sweep; /* active batches whose estimates are to be taken anew */
    bool sweep_all; /* … before the next decision */
    struct reservation reservation;
};

/* --- pools.c ------------------------------------------------------------- */

fm_status_t fm_sched_list_push(struct list *list, uint32_t value,
                               fm_error_t *err);
/** Find or make the pool; NONE: out of memory. */
uint32_t fm_sched_pool_make(fm_sched_t *s, enum pool_kind kind, uint32_t class,
                            uint32_t owner);
/** Room for @p count workers. */
bool fm_sched_pool_reserve(fm_sched_t *s, uint32_t pool, uint32_t count);
void fm_sched_pool_push(fm_sched_t *s, uint32_t pool, uint32_t worker,
                        uint32_t slot);
void fm_sched_pool_remove(fm_sched_t *s, struct seat seat);
/** Free it where nobody is left in it. */
void fm_sched_pool_trim(fm_sched_t *s, uint32_t pool);
/** The key of the worker has changed. */
void fm_sched_pool_fix(fm_sched_t *s, struct seat seat);
int64_t fm_sched_worker_key(const struct worker *worker);
/** First worker of the pool that the batch does not avoid, or NONE. */
uint32_t fm_sched_pool_pick(const fm_sched_t *s, uint32_t pool,
                            const struct batch *batch);

/* --- workers.c ----------------------------------------------------------- */

/** The model or domain named by @p digest, made when there is none. */
uint32_t fm_sched_model_make(fm_sched_t *s, const fm_digest_t *digest);
uint32_t fm_sched_domain_make(fm_sched_t *s, uint32_t domain);
void fm_sched_model_release(fm_sched_t *s, uint32_t model);
void fm_sched_domain_release(fm_sched_t *s, uint32_t domain);
/** The worker is about to load what the batch needs. */
void fm_sched_worker_load(fm_sched_t *s, uint32_t worker,
                          const struct batch *batch);
/** Hide an idle worker from all but its gang, or show it again. */
void fm_sched_worker_hold(fm_sched_t *s, uint32_t worker, bool held);

/* --- batches.c ----------------------------------------------------------- */

/** Take the estimates of a batch anew. */
void fm_sched_batch_estimate(fm_sched_t *s, uint32_t slot);
/** Grow the cells of every class to the capacity of batches. */
bool fm_sched_cells_grow(fm_sched_t *s, size_t capacity);

/* --- score.c ------------------------------------------------------------- */

/** Most items of one batch on the class; 0: it does not fit. */
uint32_t fm_sched_cap(const struct batch *batch, const struct class *class);
fm_sched_verdict_t fm_sched_class_verdict(const struct batch *batch,
                                          const struct class *class);
double fm_sched_run_s(const fm_sched_t *s, const struct batch *batch,
                      const struct class *class, uint32_t size);
/** Bits of the needs that the worker lacks; the 32nd need and beyond: none. */
uint32_t fm_sched_missing(const fm_sched_t *s, const struct batch *batch,
                          uint32_t worker);
bool fm_sched_near(const fm_sched_t *s, const struct batch *batch,
                   uint32_t worker);
double fm_sched_load_s(const struct batch *batch, const struct class *class,
                       uint32_t missing);
double fm_sched_fetch_s(const struct batch *batch, const struct class *class,
                        bool near, uint32_t size);
/** Kept, or made in @p room. */
const struct cell *fm_sched_cell(fm_sched_t *s, uint32_t class, uint32_t slot,
                                 uint32_t missing, bool near,
                                 struct cell *room);
/** The cell of a worker as it is, or as it seems without locality. */
const struct cell *fm_sched_cell_of(fm_sched_t *s, uint32_t slot,
                                    uint32_t worker, struct cell *room);
uint32_t fm_sched_all_missing(const struct batch *batch);
double fm_sched_survival(const struct batch *batch, const struct class *class,
                         double total_s, int64_t now_ns);
/** ln of the factors of urgency that change, and of the share. */
double fm_sched_urgency(const fm_sched_t *s, const struct batch *batch);
/** Terms but for the norms. */
void fm_sched_terms_make(const fm_sched_t *s, const struct batch *batch,
                         uint32_t worker, uint32_t size, double wait_s,
                         fm_sched_terms_t *terms);

/* --- next.c -------------------------------------------------------------- */

struct norms {
    double gain, loss; /* ln of the best */
};
/** Find the best idle candidate anew. */
void fm_sched_batch_refresh(fm_sched_t *s, uint32_t slot);
void fm_sched_norms_set(const struct norms *norms, fm_sched_terms_t *terms);

/** What a decision finds; batch NONE: nothing to place. */
struct decision {
    struct norms norms;
    uint32_t batch, size;
    int64_t wake_ns;
    uint32_t gang_batch; /* that would like a reservation, or NONE */
};
/** @param dry  leave no trace of batches that wait. */
void fm_sched_decision_make(fm_sched_t *s, bool dry, struct decision *d);

/* --- wait.c -------------------------------------------------------------- */

/** A busy candidate. */
struct later {
    double wait_s;
    uint32_t worker;
};
/** Seconds until a worker of the pool is free for this batch. */
double fm_sched_wait_s(const fm_sched_t *s, const struct batch *batch,
                       const struct pool *pool, uint32_t worker);
/** A busy candidate that is worth more than @p score and free within
 *  @p limit_s; false: there is none. */
bool fm_sched_later_find(fm_sched_t *s, uint32_t slot, double score,
                         double limit_s, struct later *out);

/* --- slice.c ------------------------------------------------------------- */

/** How many items to put on a worker, of at most the cell's size. */
uint32_t fm_sched_slice(fm_sched_t *s, uint32_t slot, uint32_t worker,
                        uint32_t limit);

/* --- gang.c -------------------------------------------------------------- */

/** The pool where a gang can start now, or NONE. */
uint32_t fm_sched_gang_pool(const fm_sched_t *s, const struct batch *batch,
                            uint32_t class);
/** Its members: idle ones, those that lack least first. */
void fm_sched_gang_pick(const fm_sched_t *s, const struct batch *batch,
                        uint32_t pool, uint32_t *workers);
/** False where no domain will ever do. */
bool fm_sched_reserve(fm_sched_t *s, uint32_t slot);
void fm_sched_reservation_drop(fm_sched_t *s);
/** A worker became idle: keep it where it is waited for. */
void fm_sched_reservation_offer(fm_sched_t *s, uint32_t worker);
/** A worker is not idle any more, or gone. */
void fm_sched_reservation_lose(fm_sched_t *s, uint32_t worker);
void fm_sched_reservation_expire(fm_sched_t *s);
/** The batch whose gang is complete, which is given its workers; or NONE. */
uint32_t fm_sched_reservation_ready(fm_sched_t *s);

#endif
