/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file scale.h
 * The elastic policy: how many workers of which class.
 *
 * Cost minimisation with a price on waiting.  Work is laid, most urgent per
 * second first (Smith, 1956), over the fleet that exists and is starting; for
 * each row every class that fits is tried at widths 1, 2, 4 …, from existing
 * workers alone and with new ones added, and the cheapest is taken:
 *
 *   J = price · (start-up + load + run)  +  wait price · waiters · wait
 *       (+ late price · waiters · seconds past the deadline)
 *
 * New workers in the cheapest plan are started.  An idle worker that no plan
 * needs is kept until its idle cost equals what getting it back would cost
 * (ski rental, 2-competitive: Karlin, Manasse, Rudolph, Sleator, 1988), then
 * drained.  docs/spec/scale.md numbers the rules.
 *
 * Pure and deterministic: time is an argument.  The handle holds options and
 * what hysteresis remembers, nothing else.  O(workers + rows × classes × log
 * width) a decision.  Threads: one at a time.
 */
#ifndef FM_PLAN_SCALE_SCALE_H
#define FM_PLAN_SCALE_SCALE_H

#include "base/hash.h"
#include "plan/cost/cost.h"

#define FM_SCALE_CLASSES_MAX 256u
#define FM_SCALE_WORKERS_MAX 100000u
#define FM_SCALE_DEMANDS_MAX 100000u
#define FM_SCALE_NONE UINT32_MAX

typedef struct fm_scale fm_scale_t;

/** Zeros mean the defaults. */
typedef struct fm_scale_options {
    double wait_dollars_per_hour; /**< of one waiter; 0: 2 */
    double late_factor;    /**< a second past the deadline, in waits; 0: 10 */
    double age_scale_s;    /**< waited this long: counts double; 0: 600 */
    double energy_per_kwh; /**< dollars; 0: 0.15 */
    double margin;  /**< a start must save this part more than it costs, and
                         a move likewise; 0: 0.25 */
    double keep;    /**< idle time allowed, in break-even times; 0: 1 */
    double grain_s; /**< no worker is added for a slice shorter than this;
                         0: 1 */
    uint32_t workers_max; /**< of all classes together; 0: no limit */
    uint32_t starts_max;  /**< in one decision; 0: no limit */
} fm_scale_options_t;

/** A worker class; its place in the array is its number, the same in every
 *  call on one handle. */
typedef struct fm_scale_class {
    uint32_t device_class;        /**< of plan/cost */
    uint32_t device;              /**< device kind, as in fm_scale_demand_t */
    uint64_t task_types;          /**< mask */
    uint64_t memory_bytes;        /**< 0: not limited */
    double price_per_hour, watts; /**< dollars; when busy */
    double startup_s;        /**< from START to the first batch, the wait in a
                                  site's queue included */
    double load_bytes_per_s; /**< of models; 0: 1 GB/s */
    uint32_t min, max;       /**< workers, starting ones included; max 0: none
                                  is ever started */
} fm_scale_class_t;

/** Work of one batch key, ready now or queued behind nodes that are not done.
 *  Ready and queued work of one key are two rows. */
typedef struct fm_scale_demand {
    uint32_t task_class;        /**< of plan/cost */
    uint32_t task_type;         /**< bit of the classes' masks, < 64 */
    uint32_t device;            /**< kind it needs; 0: any */
    uint64_t memory_bytes;      /**< of the device, for a batch of one */
    uint64_t item_memory_bytes; /**< for each item more */
    uint32_t items;             /**< ≥ 1 */
    uint32_t size_max;          /**< items of one batch; 0: 1 */
    double item_work;           /**< mean units an item, > 0 */
    const fm_digest_t *model;   /**< what must be loaded; NULL: nothing */
    double model_bytes;
    double waiters;      /**< nodes that wait for these items; 0: 1 */
    double ready_in_s;   /**< expected; 0: ready now */
    int64_t oldest_ns;   /**< since when the oldest waits; 0: now */
    int64_t deadline_ns; /**< 0: none */
} fm_scale_demand_t;

typedef struct fm_scale_worker {
    uint32_t id;
    uint32_t class_index;
    bool starting;         /**< not up yet: free_at_ns is when it should be */
    bool draining;         /**< takes nothing more */
    int64_t free_at_ns;    /**< ≤ now: idle */
    int64_t idle_since_ns; /**< of an idle one: end of its last batch, or when
                                it came up */
    int64_t up_since_ns;
    int64_t ends_ns;  /**< walltime; 0: none */
    double at_risk_s; /**< work of a busy one since its last checkpoint */
    uint32_t task_class, task_type; /**< of a busy one: what it runs */
    uint64_t memory_bytes;          /**< … and its need */
    const fm_digest_t *resident;    /**< models loaded */
    size_t resident_count;
} fm_scale_worker_t;

typedef struct fm_scale_input {
    int64_t now_ns;
    const fm_scale_class_t *classes;
    size_t class_count;
    const fm_scale_demand_t *demands;
    size_t demand_count;
    const fm_scale_worker_t *workers; /**< up, starting and draining */
    size_t worker_count;
} fm_scale_input_t;

typedef enum fm_scale_kind {
    FM_SCALE_START, /**< count workers of class_index */
    FM_SCALE_DRAIN, /**< worker: takes nothing more and leaves; at once where
                         `now`, else when its batch is done */
    FM_SCALE_HOLD   /**< nothing to do: says what is wanted and cannot be */
} fm_scale_kind_t;

typedef enum fm_scale_reason {
    FM_SCALE_MIN,        /**< START: fewer than the class's min */
    FM_SCALE_BACKLOG,    /**< START: ready work would wait too long */
    FM_SCALE_SUCCESSORS, /**< START: queued work will be ready by then */
    FM_SCALE_DEADLINE,   /**< START: a deadline would be missed */
    FM_SCALE_IDLE,       /**< DRAIN: idle past break-even, not needed */
    FM_SCALE_MAX,        /**< DRAIN: more than max; HOLD: more would pay */
    FM_SCALE_MOVE,       /**< DRAIN: an idle cheaper worker ends it for less,
                              the lost work counted */
    FM_SCALE_NO_CLASS,   /**< HOLD: no class can run this row */
    FM_SCALE_QUEUE       /**< START: queueing has cost what a start costs */
} fm_scale_reason_t;

typedef struct fm_scale_action {
    fm_scale_kind_t kind;
    fm_scale_reason_t reason;
    uint32_t class_index;  /**< NONE with NO_CLASS */
    uint32_t count;        /**< workers */
    uint32_t worker;       /**< id of DRAIN; else NONE */
    bool now;              /**< of DRAIN */
    uint32_t demand;       /**< row that weighed most; or NONE */
    double waits_s;        /**< START, HOLD: waiter-seconds without it */
    double saves_s;        /**< … and how many of them it saves */
    double saves_dollars;  /**< START: their price; DRAIN: of what is not run */
    double costs_dollars;  /**< START: what it spends more (start-up and loads,
                                where nothing else would run the work); DRAIN:
                                getting one back, or the work that is lost */
    double idle_s, keep_s; /**< DRAIN: idle so long; break-even */
    double at_risk_s;      /**< DRAIN */
} fm_scale_action_t;

/** @param cost  borrowed; NULL: the default estimates. */
FM_MUST_USE fm_status_t fm_scale_create(const fm_scale_options_t *opts,
                                        const fm_cost_t *cost,
                                        fm_scale_t **scale_out,
                                        fm_error_t *err);
void *fm_scale_destroy(fm_scale_t *scale);

/**
 * Decide.  Starts come first, then drains, then holds.
 *
 * @param actions    [out] room for @p cap; beyond it the rest is left for the
 *                   next decision.  class_count + worker_count always holds
 *                   every start and drain.
 * @param count_out  [out] actions made.
 * @retval FM_ERR_INVALID  a number of the input makes no sense; says which.
 * @retval FM_ERR_LIMIT    beyond a bound above.
 * @retval FM_ERR_NO_MEMORY
 */
FM_MUST_USE fm_status_t fm_scale_decide(fm_scale_t *scale,
                                        const fm_scale_input_t *input,
                                        fm_scale_action_t *actions, size_t cap,
                                        size_t *count_out, fm_error_t *err);

/** When the last decision would change by time alone (a keep period ends, a
 *  start for queued work is due); INT64_MAX: never. */
int64_t fm_scale_wake_ns(const fm_scale_t *scale);

const char *fm_scale_kind_name(fm_scale_kind_t kind);
const char *fm_scale_reason_text(fm_scale_reason_t reason);
/** A line with the numbers, for logs and `--dry-run`; @p class_name NULL: the
 *  number.  Cut at @p bytes, always terminated. */
void fm_scale_action_text(const fm_scale_action_t *action,
                          const char *class_name, char *text, size_t bytes);

#endif
