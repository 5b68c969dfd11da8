/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file cost.h
 * Seconds, dollars and joules of a batch on a device: bootstrapped from
 * specifications, then learned from results.
 *
 * For each pair (task class, device class): seconds ≈ a + b · work.  Before
 * any result a and b come from the roofline model (Williams et al., 2009):
 * b = max(flops / peak, bytes / bandwidth) per unit, a = overhead of a call and
 * what it reads once.  Results then fit the line; fit.h says how: the first
 * ones scale the roofline by their median, from the fifth on weighted least
 * squares on relative error forget 2 % a result, outliers are clipped (Huber,
 * 1964), and five of them in a row on one side are a change that is followed at
 * once.  Loads of models are learned apart, seconds ≈ a + bytes / rate per
 * device class.  The same results in the same order give the same estimates,
 * bit for bit, and so does what was saved as JSON.
 *
 * Pure.  Threads: one at a time.
 */
#ifndef FM_PLAN_COST_COST_H
#define FM_PLAN_COST_COST_H

#include "base/json.h"

#define FM_COST_NAME_BYTES_MAX 127u /**< of a class */
#define FM_COST_CLASSES_MAX 65536u  /**< task classes, and device classes */

typedef struct fm_cost fm_cost_t;

/** What a unit of work asks of a device; zeros mean unknown. */
typedef struct fm_cost_task {
    double flops_per_unit;
    double bytes_per_unit; /**< memory traffic */
    double bytes_per_call; /**< such as weights read once a batch */
    double overhead_s;     /**< a call, whatever the device */
} fm_cost_task_t;

/** What a device offers; zeros mean unknown. */
typedef struct fm_cost_device {
    double flops_per_s, bytes_per_s; /**< achievable, not peak */
    double overhead_s;               /**< a call */
    double load_bytes_per_s; /**< models from storage; unknown: 1 GB/s */
} fm_cost_device_t;

typedef struct fm_cost_estimate {
    double seconds;    /**< > 0 */
    double stddev;     /**< seconds */
    double confidence; /**< 0: specifications alone, → 1 with results */
} fm_cost_estimate_t;

FM_MUST_USE fm_cost_t *fm_cost_create(void); /**< NULL: memory is out */
void *fm_cost_destroy(fm_cost_t *cost);

/** Id of a task class, dense from 0; a new name is added with @p spec, a known
 *  one gets @p spec for its prior.  NULL @p spec: leave, or unknown. */
FM_MUST_USE fm_status_t fm_cost_task_id(fm_cost_t *cost, const char *name,
                                        const fm_cost_task_t *spec,
                                        uint32_t *id_out, fm_error_t *err);
/** As fm_cost_task_id(), for a device class such as "cpu-f32", "h100-bf16". */
FM_MUST_USE fm_status_t fm_cost_device_id(fm_cost_t *cost, const char *name,
                                          const fm_cost_device_t *spec,
                                          uint32_t *id_out, fm_error_t *err);

/** Estimate a batch of @p work units in total.  Ids out of range, and classes
 *  nothing is known of, give the default: 10 ms a call, 1 ms a unit.  NULL
 *  @p cost gives that too. */
void fm_cost_estimate(const fm_cost_t *cost, uint32_t task, uint32_t device,
                      double work, fm_cost_estimate_t *out);
/**
 * Learn from a batch that succeeded.
 * @retval FM_ERR_INVALID  an id out of range; seconds or work negative or not
 *                         finite.
 */
FM_MUST_USE fm_status_t fm_cost_learn(fm_cost_t *cost, uint32_t task,
                                      uint32_t device, double work,
                                      double seconds, fm_error_t *err);

/** Seconds to load @p bytes of models on a device class: learned apart from
 *  what runs on it, since a model is loaded once and run often. */
void fm_cost_load(const fm_cost_t *cost, uint32_t device, double bytes,
                  fm_cost_estimate_t *out);
/** Learn from a load that took @p seconds; as fm_cost_learn(). */
FM_MUST_USE fm_status_t fm_cost_learn_load(fm_cost_t *cost, uint32_t device,
                                           double bytes, double seconds,
                                           fm_error_t *err);

size_t fm_cost_task_count(const fm_cost_t *cost);
size_t fm_cost_device_count(const fm_cost_t *cost);
/** Name of a class, borrowed; NULL when there is no such id. */
const char *fm_cost_task_name(const fm_cost_t *cost, uint32_t task);
const char *fm_cost_device_name(const fm_cost_t *cost, uint32_t device);

/** Dollars of @p seconds at @p price_per_hour. */
double fm_cost_dollars(double seconds, double price_per_hour);
/** Joules of @p seconds at @p watts. */
double fm_cost_joules(double seconds, double watts);

/** What was learned: {"v": 2, "models": [{"task", "device", …}, …]}, sorted; a
 *  new reference, NULL when memory is out.  Specifications are not in it.  A
 *  model that is read back gives the same estimates bit for bit. */
FM_MUST_USE fm_json_t *fm_cost_to_json(const fm_cost_t *cost);
/**
 * Take over what fm_cost_to_json() wrote, replacing models of the same pair.
 * @retval FM_ERR_INVALID  the text names the member; models before it are
 *                         kept, the rest is as it was.
 */
FM_MUST_USE fm_status_t fm_cost_from_json(fm_cost_t *cost,
                                          const fm_json_t *json,
                                          fm_error_t *err);

#endif
