/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of plan/cost share. */
#ifndef FM_PLAN_COST_INTERNAL_H
#define FM_PLAN_COST_INTERNAL_H

#include "base/map.h"
#include "plan/cost/cost.h"
#include "plan/cost/fit.h"

#define FM_COST_TASK_LOAD UINT32_MAX /* past all ids: loads of models */
#define FM_COST_MARK '@'             /* begins names that are not classes */

struct fm_cost_task_class {
    char *name;
    fm_cost_task_t spec;
};

struct fm_cost_device_class {
    char *name;
    fm_cost_device_t spec;
};

struct fm_cost_model {
    uint32_t task, device;
    fm_cost_fit_t fit;
};

struct fm_cost {
    struct fm_cost_task_class *tasks;
    size_t task_count, task_capacity;
    struct fm_cost_device_class *devices;
    size_t device_count, device_capacity;
    fm_strmap_t *task_ids;
    fm_strmap_t *device_ids;
    struct fm_cost_model *models;
    size_t model_count, model_capacity;
    fm_map_t *model_ids; /* (task, device) → index */
};

/** Finite, ≥ 0 and no larger than a measurement can be. */
bool fm_cost_number_ok(double value);
/** The model of a pair, made if need be; until the next one is made. */
FM_MUST_USE fm_status_t fm_cost_model_make(fm_cost_t *cost, uint32_t task,
                                           uint32_t device,
                                           struct fm_cost_model **model_out,
                                           fm_error_t *err);

#endif
