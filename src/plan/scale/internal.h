/* SPDX-License-Identifier: Apache-2.0 */
/** @file internal.h  Shared by the files of plan/scale. */
#ifndef FM_PLAN_SCALE_INTERNAL_H
#define FM_PLAN_SCALE_INTERNAL_H

#include "base/map.h"
#include "plan/scale/scale.h"

/** Workers of a class by when they are free: bucket 0 is now, then four an
 *  octave from an eighth of a second to twelve days. */
#define FM_SCALE_BUCKETS 94u

struct bucket {
    uint32_t count;
    double sum_s; /* of their free times: the mean stays exact */
};

/** What one decision knows and plans of a class. */
struct fleet_class {
    const fm_scale_class_t *spec;
    double price_s; /* dollars a busy second, energy included */
    struct bucket buckets[FM_SCALE_BUCKETS];
    uint32_t live;     /* up or starting, not draining */
    uint32_t idle;     /* of live */
    uint32_t starting; /* of live */
    uint32_t room;     /* may still be started */
    uint32_t planned;
    uint32_t needed; /* idle ones that the plan uses, now or soon enough */
    double load_s;   /* longest load the plan does here */
    fm_scale_action_t start, hold; /* reasons so far; hold.count 0: none */
    double weight;                 /* dollars of start.demand */
    double hold_weight;            /* waiter-seconds of hold.demand */
    /* Dollars a second that queueing costs and one more worker here would
     * save, and the row that queues most. */
    double regret_rate, regret_waiters;
    double queue_s; /* of work, on one worker here */
    uint32_t regret_demand;
};

/** What hysteresis remembers of a class. */
struct memory {
    int64_t *since_ns; /* [k]: since when more than k were unneeded */
    size_t count, capacity;
    double load_s;  /* of the models that were last wanted here */
    double regret;  /* dollars that one more worker would have saved since
                       there was last no queue */
    double queue_s; /* of work that queued, a moving mean */
};

/** What has been asked for: some worker that can do it stays longest. */
#define FM_SCALE_NEEDS_MAX 64u
struct need {
    uint32_t task_type, device;
    uint64_t memory_bytes;
    int64_t seen_ns; /* last */
};

struct fm_scale {
    fm_scale_options_t opts; /* defaults filled in */
    const fm_cost_t *cost;
    struct memory *memory; /* one a class */
    size_t memory_count;
    struct need needs[FM_SCALE_NEEDS_MAX]; /* the least recent gives way */
    size_t need_count;
    int64_t last_ns; /* of the decision before; valid with decided */
    bool decided;
    int64_t wake_ns;
};

/** One decision. */
struct decision {
    fm_scale_t *scale;
    const fm_scale_input_t *in;
    struct fleet_class *classes;
    fm_map_t *models;    /* digest → row of holders */
    uint32_t *holders;   /* [model · class_count + class]: live holders */
    uint32_t total_room; /* under workers_max and starts_max */
    fm_scale_action_t *actions;
    size_t cap, count;
};

/** Seconds from the decision's now; ≥ 0. */
double fm_scale_seconds(const struct decision *d, int64_t at_ns);
int64_t fm_scale_later(int64_t now_ns, double seconds);

fm_status_t fm_scale_fleet_make(struct decision *d, fm_error_t *err);
void fm_scale_fleet_fini(struct decision *d);
uint32_t fm_scale_bucket(double seconds);
/** Row of @p model in holders, or NONE. */
uint32_t fm_scale_model(const struct decision *d, const fm_digest_t *model);
bool fm_scale_fits(const fm_scale_class_t *class, uint32_t task_type,
                   uint32_t device, uint64_t memory_bytes);
double fm_scale_load_s(const fm_scale_class_t *class, double bytes);

/** Lay the demand over the fleet: fills planned, needed and the reasons. */
fm_status_t fm_scale_plan(struct decision *d, fm_error_t *err);
fm_status_t fm_scale_drain(struct decision *d, fm_error_t *err);
/** Append; false when the room is used up. */
bool fm_scale_act(struct decision *d, const fm_scale_action_t *action);

#endif
