/* SPDX-License-Identifier: Apache-2.0 */
/* cost: roofline first, then what was measured. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "fmtest.h"
#include "plan/cost/cost.h"

/* the numbers of a saved model, but for its recent samples */
#define NUMBERS                                                                \
    "{\"n\": 1, \"s\": 1, \"x\": 1, \"xx\": 1, \"y\": 1, \"xy\": 1, "          \
    "\"squares\": 1, \"call\": 1, \"unit\": 1, \"side\": 0"

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
    CU_ASSERT(memcmp(&a, &b, sizeof(a)) == 0); /* bit for bit */
    fm_json_t *row = fm_json_path(json, "models[0]");
    CU_ASSERT(fm_json_set(row, "xx", fm_json_int(-1)) == FM_OK);
    CU_ASSERT(fm_cost_from_json(cost, json, &err) == FM_ERR_INVALID);
    CU_ASSERT_STRING_EQUAL(err.text,
                           "models[0].xx: a number from 0 to inf is needed");
    CU_ASSERT(fm_cost_from_json(cost, row, &err) == FM_ERR_INVALID);
    fm_json_drop(json);
    fm_cost_destroy(cost);
}

/* --- hard cases ----------------------------------------------------------- */

static double seconds_of(const fm_cost_t *cost, uint32_t t, uint32_t d,
                         double work)
{
    fm_cost_estimate_t e;

    fm_cost_estimate(cost, t, d, work, &e);
    return e.seconds;
}

static void learn_one(fm_cost_t *cost, uint32_t t, uint32_t d, double work,
                      double seconds)
{
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_cost_learn(cost, t, d, work, seconds, &err), &err);
}

/* The first run loads, compiles, fills caches: 600 times the others. */
static void test_cold_start(void)
{
    uint32_t t;
    uint32_t d;
    fm_cost_t *cost = make(&t, &d);

    learn_one(cost, t, d, 100, 60);
    CU_ASSERT(close_to(seconds_of(cost, t, d, 100), 60, 1e-9));
    for (int i = 0; i < 2; i++) {
        learn_one(cost, t, d, 100, 0.1);
    }
    CU_ASSERT(close_to(seconds_of(cost, t, d, 100), 0.1, 0.01));
    for (int i = 0; i < 3; i++) {
        learn_one(cost, t, d, 100, 0.1);
    }
    CU_ASSERT(close_to(seconds_of(cost, t, d, 100), 0.1, 0.3));
    for (int i = 0; i < 40; i++) {
        learn_one(cost, t, d, 100, 0.1);
    }
    CU_ASSERT(close_to(seconds_of(cost, t, d, 100), 0.1, 0.03));
    fm_cost_destroy(cost);
}

/* A tenth of the results is a stall of 20 times, or a clock that stood. */
static void test_outliers(void)
{
    uint32_t t;
    uint32_t d;
    fm_cost_t *cost = make(&t, &d);
    fm_rng_t rng;

    fm_rng_init(&rng, 11);
    for (int i = 0; i < 600; i++) {
        double work = 1 + (double)fm_rng_below(&rng, 500);
        double seconds = (0.3 + 0.01 * work) * (1 + 0.02 * fm_rng_normal(&rng));
        uint64_t luck = fm_rng_below(&rng, 20);
        learn_one(cost, t, d, work,
                  luck == 0   ? 0
                  : luck == 1 ? seconds * 20
                              : seconds);
    }
    CU_ASSERT(close_to(seconds_of(cost, t, d, 100), 1.3, 0.15));
    CU_ASSERT(close_to(seconds_of(cost, t, d, 400), 4.3, 0.15));
    fm_cost_destroy(cost);
}

/* A lasting change is followed within seven results, up as well as down. */
static void test_change(void)
{
    static const double factors[] = {100, 0.01, 3, 0.4};

    for (size_t f = 0; f < sizeof(factors) / sizeof(factors[0]); f++) {
        uint32_t t;
        uint32_t d;
        fm_cost_t *cost = make(&t, &d);
        fm_rng_t rng;

        fm_rng_init(&rng, 13);
        feed(cost, t, d, &rng, 200, 0.3, 0.01);
        feed(cost, t, d, &rng, 7, 0.3 * factors[f], 0.01 * factors[f]);
        CU_ASSERT(
            close_to(seconds_of(cost, t, d, 100), 1.3 * factors[f], 0.25));
        feed(cost, t, d, &rng, 100, 0.3 * factors[f], 0.01 * factors[f]);
        CU_ASSERT(
            close_to(seconds_of(cost, t, d, 100), 1.3 * factors[f], 0.05));
        fm_cost_destroy(cost);
    }
}

/* Slow drift, 0.5 % a result: never far behind. */
static void test_drift(void)
{
    uint32_t t;
    uint32_t d;
    fm_cost_t *cost = make(&t, &d);
    fm_rng_t rng;
    double level = 1;

    fm_rng_init(&rng, 17);
    feed(cost, t, d, &rng, 100, 0.3, 0.01);
    for (int i = 0; i < 400; i++) {
        level *= 1.005;
        feed(cost, t, d, &rng, 1, 0.3 * level, 0.01 * level);
        CU_ASSERT(close_to(seconds_of(cost, t, d, 200), 2.3 * level, 0.35));
    }
    fm_cost_destroy(cost);
}

/* All batches of one size say nothing of the ratio of call to unit: there the
 * roofline's shape stands. */
static void test_ridge(void)
{
    uint32_t t;
    uint32_t d;
    fm_cost_t *cost = make(&t, &d);

    for (int i = 0; i < 30; i++) {
        learn_one(cost, t, d, 100, 2.5); /* ten times the roofline's 0.25 */
    }
    CU_ASSERT(close_to(seconds_of(cost, t, d, 100), 2.5, 0.001));
    CU_ASSERT(close_to(seconds_of(cost, t, d, 200), 4.5, 0.1));
    CU_ASSERT(close_to(seconds_of(cost, t, d, 1), 0.52, 0.1));
    fm_cost_destroy(cost);
}

/* A wrong shape is unlearned: the roofline has 0.05 + 0.002, the truth is a
 * call and nothing else. */
static void test_wrong_shape(void)
{
    uint32_t t;
    uint32_t d;
    fm_cost_t *cost = make(&t, &d);
    fm_rng_t rng;

    fm_rng_init(&rng, 19);
    feed(cost, t, d, &rng, 300, 8, 1e-6);
    CU_ASSERT(close_to(seconds_of(cost, t, d, 1), 8, 0.05));
    CU_ASSERT(close_to(seconds_of(cost, t, d, 500), 8, 0.05));
    fm_cost_destroy(cost);
}

static void test_confidence(void)
{
    uint32_t t;
    uint32_t d;
    fm_cost_t *cost = make(&t, &d);
    fm_cost_estimate_t e;
    double last = -1;

    for (int i = 0; i < 30; i++) {
        fm_cost_estimate(cost, t, d, 100, &e);
        CU_ASSERT(e.confidence > last && e.confidence < 1);
        last = e.confidence;
        learn_one(cost, t, d, 100, i % 2 ? 1.0 : 1.1);
    }
    CU_ASSERT(last > 0.8);
    CU_ASSERT(e.stddev < 0.3 * e.seconds);
    fm_cost_destroy(cost);
}

static void test_loads(void)
{
    uint32_t t;
    uint32_t d;
    fm_cost_t *cost = make(&t, &d);
    fm_cost_estimate_t e;
    fm_error_t err = {0};

    fm_cost_load(cost, d, 2e9, &e);
    CU_ASSERT(close_to(e.seconds, 2.01, 1e-9) && e.confidence <= 0);
    for (int i = 1; i <= 20; i++) {
        FM_ASSERT_OK(fm_cost_learn_load(cost, d, i * 1e8, 0.2 + i * 0.02, &err),
                     &err);
    }
    fm_cost_load(cost, d, 5e9, &e);
    CU_ASSERT(close_to(e.seconds, 1.2, 0.05) && e.confidence > 0.7);
    /* loads and runs do not touch each other */
    CU_ASSERT(close_to(seconds_of(cost, t, d, 100), 0.25, 1e-9));
    CU_ASSERT(fm_cost_learn_load(cost, 9, 1, 1, &err) == FM_ERR_INVALID);
    CU_ASSERT(fm_cost_learn(cost, UINT32_MAX, d, 1, 1, &err) == FM_ERR_INVALID);
    /* and survive a restart under a name that no class may have */
    fm_json_t *json = fm_cost_to_json(cost);
    fm_cost_destroy(cost);
    cost = make(&t, &d);
    FM_ASSERT_OK(fm_cost_from_json(cost, json, &err), &err);
    fm_cost_estimate_t again;
    fm_cost_load(cost, d, 5e9, &again);
    CU_ASSERT(memcmp(&again, &e, sizeof(e)) == 0);
    CU_ASSERT(fm_cost_task_id(cost, "@load", NULL, &t, &err) == FM_ERR_INVALID);
    CU_ASSERT(fm_cost_task_count(cost) == 1);
    CU_ASSERT_STRING_EQUAL(fm_cost_device_name(cost, d), "gpu");
    CU_ASSERT(!fm_cost_task_name(cost, 1) && !fm_cost_device_name(cost, 1));
    fm_json_drop(json);
    fm_cost_destroy(cost);
}

/* Whatever was saved in the midst of learning goes on as if nothing was. */
static void test_restart_goes_on(void)
{
    for (int at = 0; at < 60; at += 3) {
        uint32_t t;
        uint32_t d;
        fm_cost_t *whole = make(&t, &d);
        fm_cost_t *parted = make(&t, &d);
        fm_cost_estimate_t a;
        fm_cost_estimate_t b;
        fm_rng_t rng;
        fm_error_t err = {0};

        fm_rng_init(&rng, 23);
        for (int i = 0; i < 60; i++) {
            double work = 1 + (double)fm_rng_below(&rng, 99);
            double seconds =
                (i > 30 ? 7 : 1) * work * (1 + 0.1 * fm_rng_normal(&rng));
            seconds = fmax(seconds, 0);
            learn_one(whole, t, d, work, seconds);
            learn_one(parted, t, d, work, seconds);
            if (i == at) {
                fm_json_t *json = fm_cost_to_json(parted);
                char *text = fm_json_dump(json);
                fm_json_drop(json);
                fm_cost_destroy(parted);
                parted = make(&t, &d);
                CU_ASSERT_FATAL(text != NULL);
                FM_ASSERT_OK(
                    fm_json_parse(text, strlen(text), "t", &json, &err), &err);
                FM_ASSERT_OK(fm_cost_from_json(parted, json, &err), &err);
                fm_json_drop(json);
                free(text);
            }
        }
        fm_cost_estimate(whole, t, d, 42, &a);
        fm_cost_estimate(parted, t, d, 42, &b);
        CU_ASSERT(memcmp(&a, &b, sizeof(a)) == 0);
        fm_cost_destroy(whole);
        fm_cost_destroy(parted);
    }
}

/* JSON from outside: refused by name, or harmless. */
static void test_hostile_json(void)
{
    static const char *const refused[][2] = {
        {"[]", "v must be 2"},
        {"{\"v\": 2}", "models a list"},
        {"{\"v\": 2, \"models\": [7]}", "models[0].n"},
        {"{\"v\": 2, \"models\": [{\"n\": 1e9}]}", "models[0].n"},
        {"{\"v\": 2, \"models\": [{\"n\": \"1\"}]}", "models[0].n"},
        {"{\"v\": 2, \"models\": [{\"n\": 1, \"s\": 1, \"x\": 1, \"xx\": 1,"
         "\"y\": 1, \"xy\": 1, \"squares\": 1, \"call\": 0}]}",
         "models[0].call"},
        {"{\"v\": 2, \"models\": [" NUMBERS "}]}", "models[0].recent"},
        {"{\"v\": 2, \"models\": [" NUMBERS
         ", \"recent\": [[1, 2], [3, -4]]}]}",
         "models[0].recent[1]"},
        {"{\"v\": 2, \"models\": [" NUMBERS
         ", \"recent\": [[], [], [], [], [], []]}]}",
         "models[0].recent"},
        {"{\"v\": 2, \"models\": [" NUMBERS ", \"recent\": []}]}",
         "task and device are missing"},
        {"{\"v\": 2, \"models\": [" NUMBERS
         ", \"recent\": [], \"task\": \"\", \"device\": \"d\"}]}",
         "models[0]: cost: a class name has 0 bytes"},
    };
    static const char *const harmless =
        "{\"v\": 2, \"models\": [{\"n\": 50, \"s\": 1e300, \"x\": 1e300, "
        "\"xx\": 1e-300, \"y\": 1e300, \"xy\": 0, \"squares\": 0, \"call\": "
        "1e-30, \"unit\": 1e300, \"side\": -5, \"recent\": [[0, 0], [1e30, "
        "1e30], [0, 1e30]], \"task\": \"inference/1B\", \"device\": "
        "\"gpu\"}]}";
    uint32_t t;
    uint32_t d;
    fm_cost_t *cost = make(&t, &d);
    fm_error_t err = {0};
    fm_json_t *json = NULL;

    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        FM_ASSERT_OK(fm_json_parse(refused[i][0], strlen(refused[i][0]), "t",
                                   &json, &err),
                     &err);
        CU_ASSERT(fm_cost_from_json(cost, json, &err) == FM_ERR_INVALID);
        if (!strstr(err.text, refused[i][1])) {
            CU_FAIL("another text");
            printf("\n%zu: %s\n", i, err.text);
        }
        json = fm_json_drop(json);
    }
    FM_ASSERT_OK(fm_json_parse(harmless, strlen(harmless), "t", &json, &err),
                 &err);
    FM_ASSERT_OK(fm_cost_from_json(cost, json, &err), &err);
    for (int i = 0; i < 20; i++) {
        double seconds = seconds_of(cost, t, d, i * 1e3);
        CU_ASSERT(isfinite(seconds) && seconds > 0);
        learn_one(cost, t, d, i * 1e3, i);
    }
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
        {"cold start", test_cold_start},
        {"outliers", test_outliers},
        {"change", test_change},
        {"drift", test_drift},
        {"ridge", test_ridge},
        {"wrong shape", test_wrong_shape},
        {"confidence", test_confidence},
        {"loads", test_loads},
        {"restart goes on", test_restart_goes_on},
        {"hostile json", test_hostile_json},
    };

    return fm_test_main("cost", cases, sizeof(cases) / sizeof(cases[0]));
}
