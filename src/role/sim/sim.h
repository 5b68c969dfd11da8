/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file sim.h
 * Discrete-event simulator of a fabric: plan/pool, plan/place, plan/tenant,
 * plan/cost and plan/scale as the live control plane calls them, under a
 * virtual clock, against modelled workers.
 *
 * Everything about policy is plan's; here is only what a cluster does: run
 * times (roofline with hidden efficiency and noise), loads of models and
 * adapters, transfers, start-up, preemption, loss, repair, walltime, watts and
 * dollars.  docs/spec/sim.md states the model (rules S1 …).
 *
 * Pure: no clock, no I/O; deterministic for an input and its seed.  Threads:
 * runs are independent.  Times are ns of virtual time from 0, money dollars,
 * energy joules, sizes bytes.
 */
#ifndef FM_ROLE_SIM_SIM_H
#define FM_ROLE_SIM_SIM_H

#include "plan/cost/cost.h"
#include "plan/place/place.h"
#include "plan/scale/scale.h"
#include "plan/tenant/tenant.h"

#define FM_SIM_NONE UINT32_MAX
#define FM_SIM_MODELS_MAX 4096u
#define FM_SIM_CLASSES_MAX 256u
#define FM_SIM_WORKERS_MAX 100000u /**< as plan/sched */
#define FM_SIM_STAGES_MAX 4096u    /**< of one workflow */
#define FM_SIM_TIMELINE_MAX 512u   /**< samples; the interval doubles to fit */

/* --- what is there -------------------------------------------------------- */

/** A base model. */
typedef struct fm_sim_model {
    const char *name;          /**< identity: equal names are one model */
    double parameters;         /**< weights, count */
    uint64_t weight_bytes;     /**< resident on a device */
    uint64_t load_bytes;       /**< read to load it (an engine's start may be
                                    put in bytes); 0: weight_bytes */
    double kv_bytes_per_token; /**< of context; 0: fm_cost_llm_kv_bytes() */
    uint64_t adapter_bytes;    /**< of a LoRA adapter over it */
} fm_sim_model_t;

/** A class of identical workers. */
typedef struct fm_sim_class {
    const char *name;
    fm_sched_device_kind_t device; /**< FM_SCHED_CPU or _GPU */
    fm_cost_device_t spec;         /**< achievable rates */
    uint64_t memory_bytes;
    uint64_t task_types; /**< mask of task types it runs; 0: all */
    double price_per_hour, watts, idle_watts;
    double load_bytes_per_s;  /**< models, adapters; 0: 1 GB/s */
    double fetch_bytes_per_s; /**< inputs from another domain; 0: 1 GB/s */
    double startup_s;         /**< paid time from start to ready */
    uint32_t count;           /**< of a fixed fleet: all ready at time 0 */
    uint32_t min, max;        /**< of an elastic fleet; max 0: count */
    uint32_t warm;            /**< of an elastic fleet: ready at time 0 */
    double walltime_s;        /**< a worker's life; 0: no end */
    double hazard_per_hour;   /**< preemptions expected of one worker */
    uint32_t domain_size;     /**< workers of one locality and failure domain
                                   (a node); 0: 1 */
} fm_sim_class_t;

/** Failures, beside the hazard of classes.  Means of exponential times; 0:
 *  never. */
typedef struct fm_sim_failures {
    double preempt_mean_s;   /**< of a worker's up time */
    double warning_s;        /**< before a preemption: training saves a
                                  checkpoint; 0: none comes */
    double node_loss_mean_s; /**< of a domain: all its workers, no warning */
    double repair_s;   /**< a lost worker of a fixed fleet starts again after
                            this; 0: 60 */
    double flap_share; /**< of workers that flap, chosen by the seed */
    double flap_up_s, flap_down_s; /**< means; such a worker is lost without
                                        warning; 0: 60, 30 */
    double task_error_share;       /**< executions of an item that fail by
                                        themselves */
} fm_sim_failures_t;

/* --- what is asked for ---------------------------------------------------- */

/** What an operator does to a device. */
typedef enum fm_sim_work {
    FM_SIM_INFERENCE,  /**< prefill, then decode in continuous batches */
    FM_SIM_FORWARD,    /**< scores, log-probabilities: prefill alone */
    FM_SIM_TRAIN,      /**< all weights; gives a model */
    FM_SIM_TRAIN_LORA, /**< an adapter over a frozen base; gives an adapter */
    FM_SIM_FIXED       /**< seconds an item, on any device */
} fm_sim_work_t;

/** How items of a stage depend on the stages before it. */
typedef enum fm_sim_input_form {
    FM_SIM_ROWS,   /**< item i is dataset row first_row + i, alone; deps order
                        stages but feed nothing */
    FM_SIM_ROW_OF, /**< item i reads item i of stage `source` */
    FM_SIM_ALL_OF  /**< every item reads all items of all deps, besides its
                        own row */
} fm_sim_input_form_t;

/**
 * One node of a workflow: `items` operators.
 *
 * Two items are the same work iff their work, model (with its training, if it
 * was trained here), adapter, `parameters`, input and row are equal, whoever
 * wants them.  Items whose work, task_type, model and `parameters` agree have
 * one batch key; adapters may differ in it.
 */
typedef struct fm_sim_stage {
    const char *name;     /**< for reports; not identity */
    const char *category; /**< of latency, such as "inference"; NULL: work */
    fm_sim_work_t work;
    uint32_t task_type;   /**< < 64 */
    fm_sched_kind_t kind; /**< λ */
    uint32_t model;       /**< base; FM_SIM_NONE: none (FIXED) */
    uint32_t model_of;    /**< TRAIN stage before it that made the model;
                               FM_SIM_NONE: `model` as it is */
    uint32_t adapter_of;  /**< TRAIN_LORA stage before it; FM_SIM_NONE: none */
    uint32_t items;       /**< ≥ 1; of training 1 is usual */
    double tokens_in, tokens_out; /**< mean of an item (INFERENCE, FORWARD) */
    double spread; /**< sigma of the log of tokens_out of an item, by its key:
                        the same work has the same length; 0: all equal */
    double samples, epochs, sequence; /**< TRAIN*: tokens = their product;
                                           epochs 0: 1 */
    double seconds;                   /**< FIXED: of an item */
    double input_bytes;    /**< of an item, fetched where it is not near */
    uint64_t memory_bytes; /**< device memory it asks for, at least; a hard
                                constraint */
    fm_sched_device_kind_t device;
    uint32_t batch_max; /**< items an executor runs at once; 0: 256 (1 for
                             training) */
    uint32_t gang;      /**< devices at once in one domain; 0: 1 */
    fm_sim_input_form_t form;
    uint32_t source; /**< of ROW_OF */
    const uint32_t *deps;
    size_t dep_count;
    uint64_t dataset, first_row; /**< equal (dataset, row): equal input */
    uint32_t common_items; /**< the first items are rows 0 … of the dataset,
                                which every user asks for, not first_row + i */
    uint64_t parameters;   /**< hash of everything else that decides results */
} fm_sim_stage_t;

typedef struct fm_sim_workflow {
    int64_t arrival_ns;   /**< ≥ 0, never before the one before */
    const char *tenant;   /**< not empty */
    const char *category; /**< mix, of latency; NULL: "workflow" */
    int32_t priority;
    int64_t deadline_ns;          /**< absolute; 0: none */
    const fm_sim_stage_t *stages; /**< a stage depends on earlier ones only */
    size_t stage_count;
} fm_sim_workflow_t;

/**
 * Give the next workflow, in the order of arrival.
 *
 * @param out       [out] valid until the next call (everything is copied).
 * @param more_out  [out] false: there are no more, @p out is not used.
 */
typedef fm_status_t (*fm_sim_source_fn)(void *ctx, fm_sim_workflow_t *out,
                                        bool *more_out, fm_error_t *err);

typedef struct fm_sim_tenant {
    const char *name; /**< "*": all without a row */
    fm_tenant_config_t config;
} fm_sim_tenant_t;

/** FlowMesh without one of its parts. */
typedef struct fm_sim_ablation {
    bool no_batching;      /**< a batch holds items of one node only */
    bool no_dedup;         /**< every item runs for itself */
    bool no_locality;      /**< loads and transfers are not scored */
    bool no_elasticity;    /**< fixed fleet */
    bool no_consolidation; /**< never waits for a busy worker */
    bool no_fair_share;
} fm_sim_ablation_t;

typedef struct fm_sim_input {
    uint64_t seed;
    const fm_sim_model_t *models;
    size_t model_count;
    const fm_sim_class_t *classes;
    size_t class_count;
    const fm_sim_tenant_t *tenants; /**< without a row: weight 1, no quota */
    size_t tenant_count;
    fm_sim_source_fn source;
    void *source_ctx;
    fm_sim_failures_t failures;

    fm_place_policy_t policy;
    fm_sched_options_t sched; /**< of every policy; the ablations are set in
                                   it */
    fm_sim_ablation_t ablation;
    bool elastic; /**< plan/scale decides the fleet */
    fm_scale_options_t scale;
    double scale_interval_s; /**< 0: 10 */
    double energy_per_kwh;   /**< of decisions; 0: 0.15.  Cost counts worker
                                  prices alone */

    double noise;  /**< sigma of the log of a batch's run time */
    double hidden; /**< sigma of the log of a hidden efficiency factor of each
                        (batch key's work and model, class) */
    bool know;     /**< decisions know the hidden factors; else they are learned
                        from results */
    double checkpoint_s;   /**< training saves this often; 0: 300 */
    double call_s;         /**< overhead of a batch in the executor; 0: 0.05 */
    uint32_t settle_parts; /**< an executor reports finished items in at most
                                this many steps of a batch; 0: 4 */
    double horizon_s;      /**< give up at this virtual time; 0: 90 days */

    /** Real ns, to time plan code; NULL: not timed. */
    int64_t (*clock_ns)(void *ctx);
    void *clock_ctx;
} fm_sim_input_t;

/* --- what came out -------------------------------------------------------- */

/** Seconds of a set of samples. */
typedef struct fm_sim_spread {
    uint64_t count;
    double mean, p50, p95, p99, max;
} fm_sim_spread_t;

/** Latency of the finished workflows or stages of one category.  queue:
 *  arrival (of a stage: ready) → first lease; run: → done; total: both. */
typedef struct fm_sim_latency {
    char *category;
    bool workflows; /**< of workflows; else of stages */
    fm_sim_spread_t queue, run, total;
} fm_sim_latency_t;

typedef struct fm_sim_class_result {
    char *name;
    double up_s, busy_s, load_s; /**< worker-seconds; load is part of busy */
    double dollars, joules;
    uint64_t leases, items;
    uint32_t peak; /**< most up at once */
} fm_sim_class_result_t;

typedef struct fm_sim_tenant_result {
    char *name;
    uint64_t submitted, done, failed; /**< workflows */
    uint64_t items, ran, shared;
    double device_s, dollars, joules; /**< charged: shared work in equal
                                           parts */
    fm_sim_spread_t total;            /**< latency of its workflows */
} fm_sim_tenant_result_t;

/** State at a moment, or the mean since the sample before (dollars, joules:
 *  so far). */
typedef struct fm_sim_sample {
    double t_s;
    double up, busy;       /**< workers, mean */
    double ready, running; /**< items ready; workflows not finished */
    double done;           /**< workflows finished so far */
    double dollars, joules;
} fm_sim_sample_t;

typedef struct fm_sim_result {
    bool complete;     /**< every workflow is done or failed */
    double makespan_s; /**< first arrival → last end */
    double cost;       /**< dollars: Σ up time × price */
    double joules;     /**< watts × busy + idle_watts × (up − busy) */
    double up_s, busy_s, load_s, wasted_s; /**< worker-seconds; wasted: run,
                                                but lost to failures */
    double utilisation;                    /**< busy / up */
    uint64_t submitted, done, failed;      /**< workflows */
    uint64_t refused; /**< of those failed: at a queue quota, on arrival */
    uint64_t planned, ran, shared, items_failed; /**< operators */
    uint64_t executed;         /**< operators run to an end, repeats included */
    double tokens;             /**< made and trained on, by what was executed */
    uint64_t leases, requeues; /**< requeues: leases cut short */
    double batch_mean;         /**< items of a lease */
    uint64_t loads;            /**< models and adapters loaded */
    double load_bytes;
    uint64_t preemptions, losses, walltimes, task_errors;
    uint64_t starts, drains;           /**< of workers, by plan/scale */
    fm_sim_spread_t queue, run, total; /**< latency of all workflows */
    float *totals_s;                   /**< the samples of total, ascending */
    size_t total_count;
    fm_sim_latency_t *latencies;
    size_t latency_count;
    fm_sim_class_result_t *classes; /**< as the input's */
    size_t class_count;
    fm_sim_tenant_result_t *tenants;
    size_t tenant_count;
    fm_sim_sample_t *timeline;
    size_t timeline_count;
    uint64_t events, decisions; /**< decisions: calls of fm_place_next() */
    double plan_s;              /**< real seconds in plan code; 0: not timed */
    double decide_s;            /**< of them in decisions */
    size_t pool_bytes;          /**< at the end */
    uint64_t digest; /**< of every lease and every end, in order: two runs
                          with one digest did the same */
} fm_sim_result_t;

/**
 * Run until every workflow is done or failed, or nothing can go on.
 *
 * Memory: O(workers + live workflows + distinct items); samples of latency
 * take 12 bytes a stage.
 *
 * @param out  [out] owned by the caller (fm_sim_result_fini()); untouched on
 *             failure.
 * @retval FM_ERR_INVALID  the input makes no sense; the text names the place.
 * @retval FM_ERR_LIMIT    a bound above.
 * @retval FM_ERR_NO_MEMORY
 * @retval other           what the source returned.
 */
FM_MUST_USE fm_status_t fm_sim_run(const fm_sim_input_t *input,
                                   fm_sim_result_t *out, fm_error_t *err);
void fm_sim_result_fini(fm_sim_result_t *result);

#endif
