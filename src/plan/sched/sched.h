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
 * over every batch, every worker that fits (busy ones at their free time) and
 * sizes 1, 2, 4 … limit; norm is min-max over the candidates of the decision.
 * Urgency = age · priority · deadline · critical path, where age grows without
 * bound, so nothing starves (docs: fm_sched_age_bound_s()).
 *
 * A decision costs O(batches × worker classes × log size): workers that differ
 * in nothing the candidates can see collapse into a class.
 *
 * Pure and deterministic: the same input gives the same output.  Threads: any.
 */
#ifndef FM_PLAN_SCHED_SCHED_H
#define FM_PLAN_SCHED_SCHED_H

#include "base/hash.h"
#include "base/json.h"
#include "plan/cost/cost.h"

#define FM_SCHED_BATCHES_MAX 1000000u
#define FM_SCHED_WORKERS_MAX 100000u
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
    fm_digest_t key;
    fm_sched_kind_t kind;
    uint32_t task_class; /**< of plan/cost */
    uint32_t task_type;  /**< bit of the workers' masks, < 64 */
    uint32_t ready;      /**< items, ≥ 1 */
    uint32_t size_max;   /**< items of one batch; 0: 1 */
    double item_work;    /**< mean units, > 0 */
    fm_sched_device_kind_t device;
    uint64_t memory_bytes;      /**< of the device, whatever the size */
    uint64_t item_memory_bytes; /**< for each item more */
    const fm_sched_object_t *models;
    size_t model_count;
    double item_input_bytes; /**< to fetch, where they are not near */
    uint32_t input_domain;   /**< where they are; FM_SCHED_NONE: anywhere */
    int64_t oldest_ns, deadline_ns; /**< deadline 0: none */
    int32_t priority;
    double share;   /**< (0, 1]; 0: 1 */
    uint32_t depth; /**< chain of nodes that waits for it */
    bool checkpointable;
    const uint32_t *avoid; /**< workers that failed it: used only when no
                                other worker fits */
    size_t avoid_count;
} fm_sched_batch_t;

typedef struct fm_sched_worker {
    uint32_t id;
    uint32_t device_class; /**< of plan/cost */
    fm_sched_device_kind_t device;
    uint64_t task_types;         /**< mask */
    uint64_t memory_bytes;       /**< of the device; 0: not limited */
    int64_t free_at_ns;          /**< ≤ now: idle */
    bool closed;                 /**< draining or lost: takes nothing */
    const fm_digest_t *resident; /**< models and adapters loaded */
    size_t resident_count;
    uint32_t domain;         /**< locality domain, such as its node or cell */
    int64_t walltime_end_ns; /**< 0: none */
    double price_per_hour, watts;
    double hazard_per_hour;                     /**< expected preemptions */
    double load_bytes_per_s, fetch_bytes_per_s; /**< 0: 1 GB/s */
} fm_sched_worker_t;

typedef struct fm_sched_input {
    int64_t now_ns;
    const fm_sched_batch_t *batches;
    size_t batch_count;
    const fm_sched_worker_t *workers;
    size_t worker_count;
    const fm_cost_t *cost;
    double lambda[FM_SCHED_KINDS]; /**< 0: default; else (0, 1] */
    double energy_per_kwh;         /**< dollars; 0: 0.15 */
    double age_scale_s; /**< waiting this long doubles the value; 0: 60 */
    double grain_s;     /**< a slice longer than this is not made while idle
                             workers could share it; 0: 0.05 */
} fm_sched_input_t;

/** Every term of one candidate, for records and `explain`. */
typedef struct fm_sched_terms {
    double wait_s, load_s, fetch_s, run_s;
    double total_s; /**< T */
    double work, share;
    double age, priority, deadline, path; /**< factors of urgency */
    double value;                         /**< V */
    double survival;                      /**< P */
    double dollars;                       /**< of T − wait, energy included */
    double gain, loss;                    /**< V·P/T and dollars / V */
    double gain_norm, loss_norm;
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
    FM_SCHED_WAIT_WALLTIME    /**< none lives long enough for one item */
} fm_sched_verdict_t;
/** A sentence, such as "no worker has enough device memory". */
const char *fm_sched_verdict_text(fm_sched_verdict_t verdict);

typedef struct fm_sched_choice {
    fm_sched_verdict_t verdict;
    uint32_t batch;  /**< index in the input */
    uint32_t worker; /**< index in the input; NONE where none was chosen */
    uint32_t size;   /**< items; 0 where none was chosen */
    fm_sched_terms_t terms; /**< zero where none was chosen */
} fm_sched_choice_t;

/**
 * Decide.  Placements come first, in the order of their utility; after them
 * at most one line for each batch that has items left, saying why.
 *
 * @param choices    [out] room for @p cap; worker_count + batch_count is
 *                   always enough.  When it fills, the decision ends there.
 * @param count_out  [out] choices made.
 * @retval FM_ERR_INVALID  a number of the input makes no sense; says which.
 * @retval FM_ERR_LIMIT    more batches or workers than the bounds above.
 * @retval FM_ERR_NO_MEMORY
 */
FM_MUST_USE fm_status_t fm_sched_decide(const fm_sched_input_t *input,
                                        fm_sched_choice_t *choices, size_t cap,
                                        size_t *count_out, fm_error_t *err);

/** Longest wait, in seconds, before a batch beats fresh rivals whose gain and
 *  whose loss are better by at most @p ratio (≥ 1) at equal age: its age
 *  factor 1 + wait / age_scale_s has then made up for the ratio. */
double fm_sched_age_bound_s(double ratio, double age_scale_s);

/** The terms as an object; new reference, NULL when memory is out. */
FM_MUST_USE fm_json_t *fm_sched_terms_json(const fm_sched_terms_t *terms);

#endif
