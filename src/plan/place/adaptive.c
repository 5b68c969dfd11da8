/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The baseline `adaptive`: for the task at the head, the idle worker with the
 * best λ·throughput − (1−λ)·cost, each min-max normalised over the idle
 * workers that fit.  Throughput is work a second of running, cost the dollars
 * of running (price and energy): what a worker holds does not count.  One
 * lease merges the ready items of at most 4 nodes of one batch key.
 */
#include "plan/place/internal.h"
#include <math.h>

#define MERGE_MAX 4u

static const double lambdas[FM_SCHED_KINDS] = {[FM_SCHED_OTHER] = 0.5,
                                               [FM_SCHED_INFERENCE] = 0.4,
                                               [FM_SCHED_TRAINING] = 0.8};

struct state {
    struct queue queue;
};

struct range {
    double gain_min, gain_max, loss_min, loss_max;
};

static bool may_join(const fm_place_t *place, const struct entry *entry,
                     uint32_t worker)
{
    (void)entry;
    return fm_place_is_idle(place, worker);
}

static void commit(fm_place_t *place, const struct entry *entry,
                   uint32_t worker, int64_t now_ns)
{
    (void)place; /* what was chosen does not bind the next choice */
    (void)entry;
    (void)worker;
    (void)now_ns;
}

static const char *blocked(const fm_place_t *place, const struct entry *entry)
{
    (void)place;
    (void)entry;
    return "every worker that fits is busy";
}

static void rate(const fm_place_t *place, const struct entry *entry,
                 uint32_t worker, double *gain_out, double *loss_out)
{
    fm_sched_terms_t terms;

    fm_place_estimate(place, entry, worker, &terms);
    *gain_out = terms.work / terms.run_s;
    *loss_out = terms.dollars * terms.run_s / terms.total_s;
}

static double norm(double value, double min, double max)
{
    return max > min ? (value - min) / (max - min) : 0;
}

static uint32_t best_of(const fm_place_t *place, const struct entry *entry,
                        int64_t now_ns, const struct range *range)
{
    fm_sched_kind_t kind = entry->task->needs.kind;
    double given = place->options.sched.lambda[kind];
    double lambda = given > 0 ? given : lambdas[kind];
    uint32_t best = NONE;
    double best_score = -INFINITY;
    bool own = false;

    for (uint32_t w = fm_place_idle_next(place, 0); w != NONE;
         w = fm_place_idle_next(place, w + 1)) {
        double gain = 0;
        double loss = 0;
        if (!fm_place_usable(place, entry, w, now_ns, &own)) {
            continue;
        }
        rate(place, entry, w, &gain, &loss);
        double score =
            lambda * norm(gain, range->gain_min, range->gain_max) -
            (1 - lambda) * norm(loss, range->loss_min, range->loss_max);
        if (score > best_score) { /* ties: the lowest id */
            best = w;
            best_score = score;
        }
    }
    return best;
}

static uint32_t choose(fm_place_t *place, const struct entry *entry,
                       int64_t now_ns, bool *own_out)
{
    struct range range = {INFINITY, -INFINITY, INFINITY, -INFINITY};

    for (uint32_t w = fm_place_idle_next(place, 0); w != NONE;
         w = fm_place_idle_next(place, w + 1)) {
        double gain = 0;
        double loss = 0;
        if (!fm_place_usable(place, entry, w, now_ns, own_out)) {
            continue;
        }
        rate(place, entry, w, &gain, &loss);
        range.gain_min = fmin(range.gain_min, gain);
        range.gain_max = fmax(range.gain_max, gain);
        range.loss_min = fmin(range.loss_min, loss);
        range.loss_max = fmax(range.loss_max, loss);
    }
    return range.gain_max >= range.gain_min
               ? best_of(place, entry, now_ns, &range)
               : NONE;
}

static const struct chooser chooser = {
    .choose = choose,
    .commit = commit,
    .may_join = may_join,
    .blocked = blocked,
    .max_nodes = MERGE_MAX,
};

const struct policy fm_place_adaptive = {
    .name = "adaptive",
    .chooser = &chooser,
    .state_bytes = sizeof(struct state),
    FM_PLACE_BASELINE,
    .merges = true,
};
