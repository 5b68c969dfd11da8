/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slices: the utility function for all ready items of a batch key at once, as
 * done by m workers in parallel, with m = 1, 2, 4 … what it is entitled to.
 */
#include <math.h>

#include "plan/sched/state.h"

/* Idle workers that fit, and those of them that hold its largest model. */
static uint32_t sharers(fm_sched_t *s, uint32_t slot, uint32_t *holders_out)
{
    const struct batch *batch = &s->batches[slot];
    uint32_t idle = 0;
    uint32_t largest = NONE;
    uint64_t bytes = 0;

    for (size_t i = 0; i < s->idle_classes.count; i++) {
        const struct class *class = &s->classes[s->idle_classes.at[i]];
        idle += fm_sched_cap(batch, class) > 0 ? s->pools[class->pool].idle : 0;
    }
    for (uint32_t n = 0; n < batch->need_count; n++) {
        if (largest == NONE || batch->needs[n].bytes > bytes) {
            largest = batch->needs[n].model;
            bytes = batch->needs[n].bytes;
        }
    }
    *holders_out = 0;
    for (uint32_t p = largest == NONE ? NONE : s->models[largest].pool_first;
         p != NONE; p = s->pools[p].next) {
        *holders_out += s->pools[p].idle;
    }
    if (s->demand_s > batch->demand_s) {
        double part = batch->demand_s / s->demand_s;
        idle = (uint32_t)(idle * part + 0.5);
    }
    return idle > 1 ? idle : 1;
}

struct cut {
    uint32_t size;
    double run_s, score;
};

/* n items on m workers that start now. */
static struct cut cut_make(const fm_sched_t *s, const struct batch *batch,
                           uint32_t worker, uint32_t m, uint32_t limit,
                           uint32_t holders)
{
    uint32_t id = s->workers[worker].class;
    const struct class *class = &s->classes[id];
    uint32_t n = batch->ready;
    uint32_t size = n / m + (n % m != 0);

    size = size < limit ? size : limit;
    uint32_t slices = n / size + (n % size != 0);
    uint32_t rounds = slices / m + (slices % m != 0);
    double own_s =
        fm_sched_load_s(batch, class, fm_sched_missing(s, batch, worker));
    double full_s = fm_sched_load_s(batch, class, fm_sched_all_missing(batch));
    double run_s =
        fm_sched_run_s(s, batch, class, size) +
        fm_sched_fetch_s(batch, class, fm_sched_near(s, batch, worker), size);
    uint32_t held = own_s > 0 ? holders + 1 : (holders ? holders : 1);
    double load_s = m > held ? full_s : own_s;
    double loads_s = own_s + (m > held ? (m - held) * full_s : 0);
    double total_s = load_s + rounds * run_s;
    double lambda = s->options.lambda[batch->kind];
    double alive = exp(-class->traits.hazard * (load_s + run_s) / 3600);

    return (struct cut){size, run_s,
                        lambda * log(alive / total_s) -
                            (1 - lambda) * log(loads_s + slices * run_s)};
}

uint32_t fm_sched_slice(fm_sched_t *s, uint32_t slot, uint32_t worker,
                        uint32_t limit)
{
    const struct batch *batch = &s->batches[slot];
    uint32_t holders = 0;
    uint32_t most = sharers(s, slot, &holders);
    struct cut best = cut_make(s, batch, worker, 1, limit, holders);
    struct cut cut = best;

    for (uint32_t m = 2; cut.size > 1 && cut.run_s > s->options.grain_s;
         m *= 2) {
        cut = cut_make(s, batch, worker, m < most ? m : most, limit, holders);
        if (cut.score > best.score) {
            best = cut;
        }
        if (m >= most) {
            break;
        }
    }
    return best.size;
}
