/* SPDX-License-Identifier: Apache-2.0 */
/** @file internal.h  Shared by the files of plan/sched. */
#ifndef FM_PLAN_SCHED_INTERNAL_H
#define FM_PLAN_SCHED_INTERNAL_H

#include "base/map.h"
#include "plan/sched/sched.h"

/** Workers that no candidate can tell apart, but by when they are free. */
struct class
{
    uint32_t first, count; /* in classes->members */
    uint32_t next;         /* worker that is free first */
    int64_t free_at_ns;    /* of next; now when idle */
    uint32_t idle;
    uint32_t version; /* changes with every assignment */
};

struct classes {
    struct class *list;
    uint32_t count;
    uint32_t *members;   /* worker indices, class by class, ascending */
    int64_t *free_at_ns; /* by worker: the input's, then as assigned */
    uint32_t idle;       /* workers, in all classes */
};

fm_status_t fm_sched_classes_make(const fm_sched_input_t *input,
                                  struct classes *classes, fm_error_t *err);
void fm_sched_classes_fini(struct classes *classes);
/** The next worker of a class is busy until @p until_ns. */
void fm_sched_class_take(struct classes *classes, uint32_t id, int64_t now_ns,
                         int64_t until_ns);

/** What is the same for all candidates of a batch. */
struct view {
    const fm_sched_input_t *input;
    const fm_sched_batch_t *batch;
    double lambda, energy_per_kwh, grain_s;
    double share, age, priority, deadline, path;
    uint32_t fair; /* items each idle worker that fits would get */
    bool waive;    /* only workers to avoid fit */
};

void fm_sched_view_make(const fm_sched_input_t *input, uint32_t batch,
                        struct view *view);
/** Why a worker cannot take one item of a batch, FM_SCHED_PLACE if it can. */
fm_sched_verdict_t fm_sched_fit(const struct view *view,
                                const fm_sched_worker_t *worker);
bool fm_sched_avoided(const fm_sched_batch_t *batch, uint32_t worker_id);
/** Most items that one batch on @p worker may have. */
uint32_t fm_sched_size_cap(const struct view *view,
                           const fm_sched_worker_t *worker, uint32_t ready);
/** Raw terms of a candidate; false where the worker does not live to run it. */
bool fm_sched_score(const struct view *view, const fm_sched_worker_t *worker,
                    int64_t free_at_ns, uint32_t size, fm_sched_terms_t *terms);

#endif
