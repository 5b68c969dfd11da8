/* SPDX-License-Identifier: Apache-2.0 */
/* A fleet and its demand, for the tests of plan/scale.  Costs here are exact:
 * a unit of work takes a second on the slow device and a quarter on the fast
 * one. */
#ifndef SCALE_FIXTURE_H
#define SCALE_FIXTURE_H

#include "fmtest.h"
#include "plan/scale/scale.h"

#define S 1000000000LL
#define NOW (10000 * S)
#define GIB (1ull << 30)
#define ACTIONS 512

enum { SLOW, FAST }; /* classes */

extern fm_cost_t *cost;
extern uint32_t task, slow_device, fast_device;
extern const fm_digest_t model_a, model_b;

/* A fleet and its demand; tests change what they are about. */
struct site {
    fm_scale_t *scale;
    fm_scale_class_t classes[2];
    size_t class_count;
    fm_scale_demand_t rows[64];
    size_t row_count;
    fm_scale_worker_t workers[256];
    size_t worker_count;
    int64_t now_ns;
    fm_scale_action_t actions[ACTIONS];
    size_t count;
};

void site_init(struct site *s, const fm_scale_options_t *opts);
void site_fini(struct site *s);
fm_scale_demand_t *add_row(struct site *s, uint32_t items, double item_work,
                           double waiters);
/* Idle for @p idle_s, or busy for as many seconds below 0. */
fm_scale_worker_t *add_worker(struct site *s, uint32_t class_index,
                              double idle_s);
fm_status_t try_decide(struct site *s, size_t cap, fm_error_t *err);
void decide(struct site *s);
/* Workers that the decision starts (kind START) or drains in a class. */
uint32_t total(const struct site *s, fm_scale_kind_t kind,
               uint32_t class_index);
const fm_scale_action_t *first(const struct site *s, fm_scale_kind_t kind);

/** main() of a test program: the costs, then the tests. */
int scale_main(const char *suite, const fm_test_case_t *cases, size_t count);

#endif
