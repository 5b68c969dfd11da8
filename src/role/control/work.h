/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file work.h
 * How much work an item is, for the cost model and the scheduler.
 *
 * The unit is a token through a model for the engine's task types and a call
 * for all others.  Only placement depends on it, never a result.
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
 * @param info_out  [out] task index and class, longest item, model, deadline.
 */
double fm_work_describe(fm_cost_t *cost, const char *task_type,
                        const fm_json_t *params, const fm_json_t *hints,
                        const fm_vector_t *vector, fm_batch_info_t *info_out);

#endif
