/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file work.h
 * How much work an item is, and what it ran on, for the cost model.
 *
 * The unit is a token through a model for the engine's task types and a call
 * for all others.  A task class is what one line of seconds over work makes
 * sense for:
 *
 *   inference/1.1B/128     task type, parameters (two digits), tokens to decode
 *                          (the power of two above max_tokens: each is a pass
 *                          over the weights)
 *   sft/360M, score/1.1B   task type, parameters
 *   python/9c1f03ab        task type and program: a digest of its code, or of
 *                          the first two words of its command
 *   echo                   task type alone
 *
 * A class's name decides its roofline, so the same journal gives the same
 * estimates.  Only placement depends on any of it, never a result.
 */
#ifndef FM_ROLE_CONTROL_WORK_H
#define FM_ROLE_CONTROL_WORK_H

#include "role/control/state.h"

/** Seed @p cost with this build's task types and the device class. */
FM_MUST_USE fm_status_t fm_work_seed_cost(fm_cost_t *cost,
                                          const char *device_class,
                                          uint32_t *device_out,
                                          fm_error_t *err);
/**
 * Units of one item, > 0, and what its batch has in common.
 * @param hints     may be NULL.
 * @param info_out  [out] task index and class, longest item, model, deadline,
 *                  memory.
 */
double fm_work_describe(fm_cost_t *cost, const char *task_type,
                        const fm_json_t *params, const fm_json_t *hints,
                        const fm_vector_t *vector, fm_batch_info_t *info_out);

/** What a lease ran on and loaded: journalled with its placement, so that a
 *  replay learns what was learned, whatever the configuration says by then. */
typedef struct fm_work_site {
    const char *device_class; /**< of plan/cost; NULL: not known */
    fm_cost_device_t spec;
    double load_s, load_bytes; /**< of models, before the first result */
} fm_work_site_t;

/** @p placement (JSON text, or "") with the site as its member "on"; free()
 *  it.  NULL: memory is out. */
FM_MUST_USE char *fm_work_site_note(const char *placement,
                                    const fm_work_site_t *site);
/** Read it back; false where it names no device class.
 *  @param json_out  [out] owns the strings of @p site_out; fm_json_drop(). */
bool fm_work_site_read(const char *placement, fm_work_site_t *site_out,
                       fm_json_t **json_out);

#endif
