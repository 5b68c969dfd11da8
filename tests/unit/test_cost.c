/* SPDX-License-Identifier: Apache-2.0 */
/* cost: roofline first, then what was measured. */
#include <math.h>

#include "base/rng.h"
#include "fmtest.h"
#include "plan/cost/cost.h"

static bool close_to(double a, double b, double relative)
{
    return fabs(a - b) <= relative * fabs(b);
}

static fm_cost_t *make(uint32_t *task, uint32_t *device)
{
    fm_cost_t *cost = fm_cost_create();
    fm_error_t err = {0};

    CU_ASSERT_FATAL(cost != NULL);
    FM_ASSERT_OK(fm_cost_task_id(cost, "inference/1B",
                                 &(fm_cost_task_t){.flops_per_unit = 2e9,
                                                   .bytes_per_unit = 1e6,
                                                   .bytes_per_call = 2e9,
                                                   .overhead_s = 0.01},
                                 task, &err),
                 &err);
    FM_ASSERT_OK(fm_cost_device_id(cost, "gpu",
                                   &(fm_cost_device_t){.flops_per_s = 1e12,
                                                       .bytes_per_s = 1e11,
                                                       .overhead_s = 0.02},
                                   device, &err),
                 &err);
    return cost;
}

static void test_roofline(void)
{
    uint32_t t = 9;
    uint32_t d = 9;
    fm_cost_t *cost = make(&t, &d);
    fm_cost_estimate_t e;

    fm_cost_estimate(cost, t, d, 100, &e);
    /* 0.01 + 0.02 + 2e9/1e11 a call; max(2e9/1e12, 1e6/1e11) a unit */
    CU_ASSERT(close_to(e.seconds, 0.05 + 100 * 0.002, 1e-12));
    CU_ASSERT(close_to(e.stddev, e.seconds, 1e-9) && e.confidence <= 0);
    fm_cost_estimate(cost, 77, 77, 10, &e);
    CU_ASSERT(close_to(e.seconds, 0.02, 1e-12));
    fm_cost_estimate(NULL, 0, 0, 10, &e);
    CU_ASSERT(close_to(e.seconds, 0.02, 1e-12));
    CU_ASSERT(close_to(fm_cost_dollars(1800, 3), 1.5, 1e-12));
    CU_ASSERT(close_to(fm_cost_joules(2, 300), 600, 1e-12));
    fm_cost_destroy(cost);
}

static void feed(fm_cost_t *cost, uint32_t t, uint32_t d, fm_rng_t *rng,
                 int count, double a, double b)
{
    fm_error_t err = {0};

    for (int i = 0; i < count; i++) {
        double work = 1 + (double)fm_rng_below(rng, 500);
        double noise = 1 + 0.02 * fm_rng_normal(rng);
        FM_ASSERT_OK(
            fm_cost_learn(cost, t, d, work, (a + b * work) * noise, &err),
            &err);
    }
}

static void test_learning(void)
{
    uint32_t t;
    uint32_t d;
    fm_cost_t *cost = make(&t, &d);
    fm_cost_estimate_t e;
    fm_rng_t rng;
    fm_error_t err = {0};

    fm_rng_init(&rng, 3);
    feed(cost, t, d, &rng, 200, 0.3, 0.01);
    fm_cost_estimate(cost, t, d, 100, &e);
    CU_ASSERT(close_to(e.seconds, 1.3, 0.03));
    CU_ASSERT(e.stddev < 0.3 * e.seconds && e.confidence > 0.9);
    fm_cost_estimate(cost, t, d, 1, &e);
    CU_ASSERT(close_to(e.seconds, 0.31, 0.1));

    /* One stall moves it little; a lasting change is followed. */
    fm_cost_estimate(cost, t, d, 100, &e);
    double before = e.seconds;
    FM_ASSERT_OK(fm_cost_learn(cost, t, d, 100, 500, &err), &err);
    fm_cost_estimate(cost, t, d, 100, &e);
    CU_ASSERT(close_to(e.seconds, before, 0.05));
    feed(cost, t, d, &rng, 400, 0.6, 0.02);
    fm_cost_estimate(cost, t, d, 100, &e);
    CU_ASSERT(close_to(e.seconds, 2.6, 0.1));
    fm_cost_destroy(cost);
}

static void test_one_result_beats_a_wrong_roofline(void)
{
    uint32_t t;
    uint32_t d;
    fm_cost_t *cost = make(&t, &d);
    fm_cost_estimate_t e;
    fm_error_t err = {0};

    for (int i = 0; i < 5; i++) {
        FM_ASSERT_OK(fm_cost_learn(cost, t, d, 100, 25, &err), &err);
    }
    fm_cost_estimate(cost, t, d, 100, &e);
    CU_ASSERT(close_to(e.seconds, 25, 0.1));
    CU_ASSERT(fm_cost_learn(cost, 5, d, 1, 1, &err) == FM_ERR_INVALID);
    CU_ASSERT(fm_cost_learn(cost, t, d, 1, NAN, &err) == FM_ERR_INVALID);
    CU_ASSERT(fm_cost_learn(cost, t, d, -1, 1, &err) == FM_ERR_INVALID);
    fm_cost_destroy(cost);
}

static void test_json(void)
{
    uint32_t t;
    uint32_t d;
    fm_cost_t *cost = make(&t, &d);
    fm_rng_t rng;
    fm_error_t err = {0};
    fm_cost_estimate_t a;
    fm_cost_estimate_t b;

    fm_rng_init(&rng, 5);
    feed(cost, t, d, &rng, 50, 1, 0.1);
    fm_json_t *json = fm_cost_to_json(cost);
    CU_ASSERT_FATAL(json != NULL);
    fm_cost_estimate(cost, t, d, 42, &a);
    fm_cost_destroy(cost);
    cost = make(&t, &d);
    FM_ASSERT_OK(fm_cost_from_json(cost, json, &err), &err);
    fm_cost_estimate(cost, t, d, 42, &b);
    CU_ASSERT(close_to(a.seconds, b.seconds, 1e-12));
    CU_ASSERT(close_to(a.stddev, b.stddev, 1e-12));
    fm_json_t *row = fm_json_path(json, "models[0]");
    CU_ASSERT(fm_json_set(row, "xx", fm_json_int(-1)) == FM_OK);
    CU_ASSERT(fm_cost_from_json(cost, json, &err) == FM_ERR_INVALID);
    CU_ASSERT_STRING_EQUAL(err.text,
                           "models[0].xx: a number of 0 or more is needed");
    CU_ASSERT(fm_cost_from_json(cost, row, &err) == FM_ERR_INVALID);
    fm_json_drop(json);
    fm_cost_destroy(cost);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"roofline", test_roofline},
        {"learning", test_learning},
        {"wrong roofline", test_one_result_beats_a_wrong_roofline},
        {"json", test_json},
    };

    return fm_test_main("cost", cases, sizeof(cases) / sizeof(cases[0]));
}
