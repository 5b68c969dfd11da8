/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file sched.h
 * THE utility function: which slice of which batch key runs on which worker.
 *
 *   T = wait + load + fetch + run                                   seconds
 *   V = items · work · tenant share · urgency
 *   P = probability that the worker lives through T
 *   U = λ · norm(V·P/T) − (1−λ) · norm((price + watts·energy)·(T−wait)/V)
 *
 * Work is counted in seconds on the fastest class that fits, so a token and a
 * training step compare.  Urgency = age · priority · deadline · critical path,
 * where age grows without bound, so nothing starves (fm_sched_age_bound_s()).
 *
 * norm(x) is on a logarithmic scale: ln(x / best), where best is the largest
 * gain (the smallest loss) among the candidates that lead their kind, whose
 * best one is chosen.  Ratios decide then, not differences: an outlier moves no
 * other candidate, and a saving of 1 % is worth 1 %, whoever else is there.
 * The best candidate has U = 0 where it is both the fastest and the cheapest.
 * On one worker this ranks by V/T (Smith's rule, 1956).  A price below 0.01
 * dollars an hour counts as that much in norm, since ratios need something.
 *
 * Candidates of a batch key: of every hardware class the soonest worker of
 * all, the soonest holder of each of its models, and the soonest worker in the
 * domain of its inputs; sizes 1, 2, 4 … limit.  Busy workers count at their
 * expected free time plus the work that waits for them: all ready work that
 * wants the same model over its holders (over all workers for a model-less
 * one).  Where a busy one is worth more than the best idle one, the batch
 * waits for it, but for no longer in all than patience · (load + fetch of the
 * idle one that it turned down): as long as the wait saves (ski rental, Karlin
 * et al., 1988).  Patience is with what waits: it starts anew when nothing of
 * the batch is left, or another worker has loaded for it.
 *
 * Slices: a batch key with n ready items and m idle workers is cut into 1, 2,
 * 4 … m slices (of the m that its part of all ready work entitles it to) by
 * the same U, taken for all n items at once: m workers are faster and pay
 * their loads and fixed costs m times.
 *
 * Structure: hardware classes; in each a heap of workers by free time, and
 * more heaps by (class, model) and (class, domain); what does not depend on
 * time is kept for each (batch key, class) until one of both changes.  A
 * decision costs O(batch keys + classes), never O(queued) or O(workers).
 *
 * Pure and deterministic: the same calls give the same choices.  Threads: one
 * at a time.
 */
#ifndef FM_PLAN_SCHED_SCHED_H
#define FM_PLAN_SCHED_SCHED_H

#include "base/hash.h"
#include "base/json.h"
#include "plan/cost/cost.h"

#define FM_SCHED_BATCHES_MAX 1000000u
#define FM_SCHED_WORKERS_MAX 100000u
#define FM_SCHED_CLASSES_MAX 65536u
#define FM_SCHED_MODELS_MAX 16u    /**< that one batch asks for */
#define FM_SCHED_RESIDENT_MAX 512u /**< that one worker holds */
#define FM_SCHED_AVOID_MAX 64u     /**< workers that one batch avoids */
#define FM_SCHED_GANG_MAX 64u
#define FM_SCHED_NONE UINT32_MAX

typedef enum fm_sched_kind {
    FM_SCHED_OTHER,     /**< λ 0.5 */
    FM_SCHED_INFERENCE, /**< λ 0.4 */
    FM_SCHED_TRAINING,  /**< λ 0.8 */
    FM_SCHED_KINDS
} fm_sched_kind_t;

typedef enum fm_sched_device_kind {
    FM_SCHED_ANY, /**< of a batch: any device will do */
    FM_SCHED_CPU,
    FM_SCHED_GPU
} fm_sched_device_kind_t;

/** A model or adapter that a worker must hold to run a batch. */
typedef struct fm_sched_object {
    fm_digest_t digest;
    uint64_t bytes;
} fm_sched_object_t;

/** Ready work of one batch key. */
typedef struct fm_sched_batch {
    fm_digest_t key; /**< for the caller; not read here */
    fm_sched_kind_t kind;
    uint32_t task_class; /**< of plan/cost */
    uint32_t task_type;  /**< bit of the workers' masks, < 64 */
    uint32_t ready;      /**< items, ≥ 1 */
    uint32_t size_max;   /**< items of one batch; 0: 1 */
    double item_work;    /**< mean units, > 0 */
    fm_sched_device_kind_t device;
    uint64_t memory_bytes;      /**< of each device, whatever the size */
    uint64_t item_memory_bytes; /**< for each item more */
    const fm_sched_object_t *models;
    size_t model_count;
    double item_input_bytes; /**< to fetch, where they are not near */
    uint32_t input_domain;   /**< where they are; FM_SCHED_NONE: anywhere */
    int64_t oldest_ns, deadline_ns; /**< deadline 0: none */
    int32_t priority;
    uint32_t tenant; /**< whose share counts: fm_sched_tenant_put() */
    uint32_t depth;  /**< chain of nodes that waits for it */
    bool checkpointable;
    uint32_t gang; /**< devices at once, of one class in one domain; 0: 1 */
    uint32_t nodes_max;    /**< for the caller; not read here */
    const uint32_t *avoid; /**< workers that failed it: used only when no
                                other worker fits */
    size_t avoid_count;
} fm_sched_batch_t;

typedef struct fm_sched_worker {
    uint32_t id;           /**< dense, < FM_SCHED_WORKERS_MAX */
    uint32_t device_class; /**< of plan/cost */
    fm_sched_device_kind_t device;
    uint64_t task_types;         /**< mask */
    uint64_t memory_bytes;       /**< of the device; 0: not limited */
    int64_t free_at_ns;          /**< for the caller; not read here */
    bool closed;                 /**< draining or lost: takes nothing */
    const fm_digest_t *resident; /**< models and adapters loaded */
    size_t resident_count;
    uint32_t domain; /**< locality domain, such as its node or cell; NONE:
                          near nothing, in no gang */
    int64_t walltime_end_ns; /**< 0: none; whole minutes count */
    double price_per_hour, watts;
    double idle_watts;                          /**< not read here */
    double hazard_per_hour;                     /**< expected preemptions */
    double load_bytes_per_s, fetch_bytes_per_s; /**< 0: 1 GB/s */
} fm_sched_worker_t;

/** Every term of one candidate, for records and `explain`. */
typedef struct fm_sched_terms {
    double wait_s, load_s, fetch_s, run_s;
    double total_s; /**< T */
    double work, share;
    double age, priority, deadline, path; /**< factors of urgency */
    double value;                         /**< V */
    double survival;                      /**< P */
    double dollars;                       /**< of T − wait, energy included */
    double joules;                        /**< of T − wait */
    double gain, loss;                    /**< V·P/T, dollars / V */
    double gain_norm, loss_norm;          /**< ≤ 0 and ≥ 0, 0 is the best */
    double lambda;
    double utility;     /**< U */
    bool avoid_waived;  /**< every worker that fits had failed it */
    uint32_t runner_up; /**< best worker of another class, or NONE */
    double runner_up_utility;
    uint32_t candidates; /**< of this batch */
    uint32_t classes;    /**< of workers */
} fm_sched_terms_t;

typedef enum fm_sched_verdict {
    FM_SCHED_PLACE,           /**< lease size items to worker now */
    FM_SCHED_WAIT_BUSY,       /**< the best worker is busy: wait for it */
    FM_SCHED_WAIT_WORKERS,    /**< no idle worker is left in this decision */
    FM_SCHED_WAIT_NO_WORKERS, /**< there are no workers */
    FM_SCHED_WAIT_TASK_TYPE,  /**< none runs this task type */
    FM_SCHED_WAIT_DEVICE,     /**< none has the device kind */
    FM_SCHED_WAIT_MEMORY,     /**< none has the memory for one item */
    FM_SCHED_WAIT_WALLTIME,   /**< none lives long enough for one item */
    FM_SCHED_WAIT_TURN,       /**< another batch is worth more there */
    FM_SCHED_WAIT_GANG,       /**< too few of one class and domain are idle */
    FM_SCHED_WAIT_NO_GANG,    /**< no domain has as many devices */
    FM_SCHED_WAIT_NO_WORK     /**< nothing of it is ready */
} fm_sched_verdict_t;
/** A sentence, such as "no worker has enough device memory". */
const char *fm_sched_verdict_text(fm_sched_verdict_t verdict);

typedef struct fm_sched_choice {
    fm_sched_verdict_t verdict;
    uint32_t batch;  /**< id */
    uint32_t worker; /**< id; NONE where none was chosen */
    uint32_t size;   /**< items; 0 where none was chosen */
    uint32_t gang;   /**< workers that run it together, ≥ 1 */
    uint32_t workers[FM_SCHED_GANG_MAX]; /**< gang of them, first worker */
    int64_t wake_ns; /**< when nothing was chosen: look again then; 0: at the
                          next change */
    fm_sched_terms_t terms; /**< zero where none was chosen */
} fm_sched_choice_t;

/* --- the scheduler ------------------------------------------------------- */

typedef struct fm_sched fm_sched_t;

/** {0} is the default. */
typedef struct fm_sched_options {
    double lambda[FM_SCHED_KINDS]; /**< 0: default; else (0, 1] */
    double energy_per_kwh;         /**< dollars; 0: 0.15 */
    double age_scale_s; /**< waiting this long doubles the value; 0: 60 */
    double grain_s;     /**< a slice that runs no longer is not cut; 0: 0.05 */
    double patience;    /**< longest wait for a busy worker while one is idle,
                             in load and fetch times of that one; 0: 1 */
    /* For ablations: */
    bool no_batching;      /**< one item a batch */
    bool no_locality;      /**< as if nothing were resident or near */
    bool no_consolidation; /**< never wait for a busy worker */
    bool no_fair_share;    /**< every tenant's share is 1 */
} fm_sched_options_t;

/**
 * @param opts  NULL for defaults; copied.
 * @param cost  borrowed, NULL: its defaults (fm_cost_estimate()).
 * @retval FM_ERR_INVALID  an option is out of range; the text names it.
 * @retval FM_ERR_NO_MEMORY
 */
FM_MUST_USE fm_status_t fm_sched_create(const fm_sched_options_t *opts,
                                        const fm_cost_t *cost, fm_sched_t **out,
                                        fm_error_t *err);
void *fm_sched_destroy(fm_sched_t *sched);

/**
 * Add a worker, or replace what is known of it; copies.  A new worker is
 * idle; a known one stays idle or busy as it is.
 * @retval FM_ERR_INVALID  a number makes no sense; nothing changed.
 * @retval FM_ERR_LIMIT    a bound above; nothing changed.
 * @retval FM_ERR_NO_MEMORY  nothing changed.
 */
FM_MUST_USE fm_status_t fm_sched_worker_put(fm_sched_t *sched,
                                            const fm_sched_worker_t *worker,
                                            fm_error_t *err);
/** It is busy and expected to be free at @p free_at_ns, or idle: INT64_MIN.
 *  One that is late stays busy until it is said to be idle.  Unknown ids are
 *  ignored. */
void fm_sched_worker_busy(fm_sched_t *sched, uint32_t id, int64_t free_at_ns);
/** Forget it; unknown ids are ignored. */
void fm_sched_worker_drop(fm_sched_t *sched, uint32_t id);

/**
 * Say what is ready of batch key @p id (dense, < FM_SCHED_BATCHES_MAX), or
 * replace it; copies.  ready = 0 is fm_sched_batch_drop().
 * Errors as of fm_sched_worker_put().
 */
FM_MUST_USE fm_status_t fm_sched_batch_put(fm_sched_t *sched, uint32_t id,
                                           const fm_sched_batch_t *batch,
                                           fm_error_t *err);
void fm_sched_batch_drop(fm_sched_t *sched, uint32_t id);
/** Share of a tenant, (0, 1]: 1 is owed most.  Unknown ones have 1; anything
 *  out of range counts as the nearest of 0.001 and 1.  Out of memory: it keeps
 *  the share it had. */
void fm_sched_tenant_put(fm_sched_t *sched, uint32_t tenant, double share);
/** Estimates have changed: they are taken anew. */
void fm_sched_cost_changed(fm_sched_t *sched);

/**
 * THE decision.  The caller leases out->size items of out->batch to
 * out->worker (a gang: to out->workers together), then says so with
 * fm_sched_batch_put() and fm_sched_worker_busy(), and asks again.  From the
 * choice on, the worker counts as a holder of the batch's models, until
 * fm_sched_worker_put() says what it holds.
 *
 * @param now_ns  never less than before.
 * @return false: nothing to place now; out->wake_ns says when to look again.
 */
bool fm_sched_next(fm_sched_t *sched, int64_t now_ns, fm_sched_choice_t *out);

/** A placement that was looked at. */
typedef struct fm_sched_candidate {
    uint32_t worker, size;
    bool idle; /**< else its terms.wait_s are to be waited */
    fm_sched_terms_t terms;
} fm_sched_candidate_t;

/**
 * Every candidate of a batch with all terms, best first; changes nothing.
 *
 * @param list  [out] room for @p cap; may be NULL where it is 0.
 * @param why   [out] FM_SCHED_PLACE where it would be placed now, else what it
 *              waits for.
 * @return how many candidates there are, maybe more than @p cap.
 */
size_t fm_sched_explain(fm_sched_t *sched, uint32_t batch, int64_t now_ns,
                        fm_sched_candidate_t *list, size_t cap,
                        fm_sched_verdict_t *why);

/** Memory held, in bytes. */
size_t fm_sched_bytes(const fm_sched_t *sched);

/* --- for records and tests ------------------------------------------------ */

/** Longest wait, in seconds, before a batch beats fresh rivals whose gain and
 *  whose loss are better by at most @p ratio (≥ 1) at equal age: its age
 *  factor 1 + wait / age_scale_s has then made up for the ratio. */
double fm_sched_age_bound_s(double ratio, double age_scale_s);

/** The terms as an object; new reference, NULL when memory is out. */
FM_MUST_USE fm_json_t *fm_sched_terms_json(const fm_sched_terms_t *terms);

#endif
