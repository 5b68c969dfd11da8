/* SPDX-License-Identifier: Apache-2.0 */
/* sched: each term moves the choice as computed by hand; nothing starves. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "fmtest.h"
#include "plan/sched/sched.h"

#define S INT64_C(1000000000)
#define NOW (1000 * S)
#define GIB (UINT64_C(1) << 30)

/* Without a cost model a batch takes 10 ms + 1 ms a unit. */
static fm_sched_batch_t batch_make(uint8_t key)
{
    return (fm_sched_batch_t){.key = {{key}},
                              .kind = FM_SCHED_INFERENCE,
                              .ready = 1,
                              .size_max = 16,
                              .item_work = 1000,
                              .input_domain = FM_SCHED_NONE,
                              .oldest_ns = NOW};
}

static fm_sched_worker_t worker_make(uint32_t id)
{
    return (fm_sched_worker_t){.id = id,
                               .device = FM_SCHED_GPU,
                               .task_types = 1,
                               .free_at_ns = NOW,
                               .price_per_hour = 3.6};
}

static size_t decide(const fm_sched_batch_t *batches, size_t batch_count,
                     const fm_sched_worker_t *workers, size_t worker_count,
                     fm_sched_choice_t *choices)
{
    fm_error_t err = {0};
    size_t count = 0;
    fm_sched_input_t input = {.now_ns = NOW,
                              .batches = batches,
                              .batch_count = batch_count,
                              .workers = workers,
                              .worker_count = worker_count};

    FM_ASSERT_OK(fm_sched_decide(&input, choices, batch_count + worker_count,
                                 &count, &err),
                 &err);
    return count;
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b));
}

static void test_terms(void)
{
    const fm_sched_object_t model = {{{9}}, 10000000000u};
    fm_sched_batch_t b = batch_make(1);
    fm_sched_worker_t w = worker_make(7);
    fm_sched_choice_t c[2];

    b.models = &model;
    b.model_count = 1;
    b.item_input_bytes = 5e8;
    b.input_domain = 1;
    b.share = 0.5;
    b.priority = 25;
    b.depth = 10;
    b.oldest_ns = NOW - 30 * S;
    b.deadline_ns = NOW + 3300 * S; /* 300 s for each of 11 stages: half way */
    w.load_bytes_per_s = 5e9;
    w.domain = 2;
    w.watts = 360;
    w.hazard_per_hour = 1;
    CU_ASSERT_FATAL(decide(&b, 1, &w, 1, c) == 1);
    const fm_sched_terms_t *t = &c[0].terms;
    CU_ASSERT(c[0].verdict == FM_SCHED_PLACE && c[0].size == 1);
    CU_ASSERT(near(t->wait_s, 0) && near(t->load_s, 2));
    CU_ASSERT(near(t->fetch_s, 0.5) && near(t->run_s, 1.01));
    CU_ASSERT(near(t->total_s, 3.51));
    CU_ASSERT(near(t->age, 1.5) && near(t->priority, 2));
    CU_ASSERT(near(t->deadline, 2.5) && near(t->path, 2));
    CU_ASSERT(near(t->value, 1000 * 0.5 * 1.5 * 2 * 2.5 * 2));
    CU_ASSERT(near(t->survival, exp(-3.51 / 3600)));
    CU_ASSERT(near(t->dollars, 3.51 * 0.001 + 3.51 * 360 / 3.6e6 * 0.15));
    CU_ASSERT(near(t->gain, t->value * t->survival / 3.51));
    CU_ASSERT(near(t->loss, t->dollars / t->value));
    CU_ASSERT(near(t->utility, 0.4) && near(t->lambda, 0.4));
    fm_json_t *json = fm_sched_terms_json(t);
    CU_ASSERT(near(fm_json_get_real(json, "fetch_s", 0), 0.5));
    CU_ASSERT(fm_json_get_int(json, "candidates", 0) == 1);
    fm_json_drop(json);
}

/* Two workers that differ in one thing: which is chosen for one item. */
static uint32_t chosen(const fm_sched_batch_t *b, const fm_sched_worker_t *w,
                       fm_sched_verdict_t verdict)
{
    fm_sched_choice_t c[3];

    CU_ASSERT_FATAL(decide(b, 1, w, 2, c) == 1);
    CU_ASSERT(c[0].verdict == verdict);
    return c[0].worker;
}

static void test_each_term_decides(void)
{
    const fm_sched_object_t model = {{{9}}, 20 * GIB};
    const fm_digest_t resident = {{9}};
    fm_sched_batch_t b = batch_make(1);
    fm_sched_worker_t w[2] = {worker_make(1), worker_make(2)};

    CU_ASSERT(chosen(&b, w, FM_SCHED_PLACE) == 0); /* equal: the first */
    b.models = &model;
    b.model_count = 1;
    w[1].resident = &resident;
    w[1].resident_count = 1;
    CU_ASSERT(chosen(&b, w, FM_SCHED_PLACE) == 1); /* less load */
    w[1].free_at_ns = NOW + 3 * S;
    CU_ASSERT(chosen(&b, w, FM_SCHED_WAIT_BUSY) == 1); /* still dearer */
    w[1].free_at_ns = NOW + 3000 * S;
    w[1].price_per_hour = 400;
    CU_ASSERT(chosen(&b, w, FM_SCHED_PLACE) == 0); /* not for ever */

    b = batch_make(1);
    b.input_domain = 5;
    b.item_input_bytes = 1e10;
    w[0] = worker_make(1);
    w[1] = worker_make(2);
    w[1].domain = 5;
    CU_ASSERT(chosen(&b, w, FM_SCHED_PLACE) == 1); /* nearer */

    b = batch_make(1);
    w[1] = worker_make(2);
    w[1].price_per_hour = 1;
    CU_ASSERT(chosen(&b, w, FM_SCHED_PLACE) == 1); /* cheaper */
    w[1] = worker_make(2);
    w[0].watts = 5000;
    CU_ASSERT(chosen(&b, w, FM_SCHED_PLACE) == 1); /* less energy */
    w[0] = worker_make(1);
    w[0].hazard_per_hour = 3000;
    CU_ASSERT(chosen(&b, w, FM_SCHED_PLACE) == 1); /* lives longer */
    w[0] = worker_make(1);
    w[0].walltime_end_ns = NOW + S;
    CU_ASSERT(chosen(&b, w, FM_SCHED_PLACE) == 1); /* does not live */
}

static void test_hard_constraints(void)
{
    fm_sched_batch_t b = batch_make(1);
    fm_sched_worker_t w = worker_make(1);
    fm_sched_choice_t c[2];
    uint32_t avoid = 1;

    CU_ASSERT(decide(&b, 1, NULL, 0, c) == 1);
    CU_ASSERT(c[0].verdict == FM_SCHED_WAIT_NO_WORKERS);
    w.task_types = 2;
    CU_ASSERT(decide(&b, 1, &w, 1, c) == 1);
    CU_ASSERT(c[0].verdict == FM_SCHED_WAIT_TASK_TYPE);
    w.task_types = 1;
    b.device = FM_SCHED_CPU;
    CU_ASSERT(decide(&b, 1, &w, 1, c) == 1);
    CU_ASSERT(c[0].verdict == FM_SCHED_WAIT_DEVICE);
    b.device = FM_SCHED_GPU;
    b.memory_bytes = 20 * GIB;
    b.item_memory_bytes = GIB;
    w.memory_bytes = 20 * GIB;
    CU_ASSERT(decide(&b, 1, &w, 1, c) == 1);
    CU_ASSERT(c[0].verdict == FM_SCHED_WAIT_MEMORY);
    w.memory_bytes = 23 * GIB;
    b.ready = 16;
    CU_ASSERT(decide(&b, 1, &w, 1, c) == 2);
    CU_ASSERT(c[0].verdict == FM_SCHED_PLACE && c[0].size == 3);
    CU_ASSERT(c[1].verdict == FM_SCHED_WAIT_WORKERS);
    w.walltime_end_ns = NOW + S / 2;
    CU_ASSERT(decide(&b, 1, &w, 1, c) == 1);
    CU_ASSERT(c[0].verdict == FM_SCHED_WAIT_WALLTIME);
    b.checkpointable = true;
    CU_ASSERT(decide(&b, 1, &w, 1, c) == 2);
    CU_ASSERT(c[0].terms.survival < 0.6);
    w = worker_make(1);
    b = batch_make(1);
    b.avoid = &avoid;
    b.avoid_count = 1;
    CU_ASSERT(decide(&b, 1, &w, 1, c) == 1);
    CU_ASSERT(c[0].verdict == FM_SCHED_PLACE && c[0].terms.avoid_waived);
    fm_sched_worker_t two[2] = {worker_make(1), worker_make(2)};
    CU_ASSERT(chosen(&b, two, FM_SCHED_PLACE) == 1);
    w.closed = true;
    CU_ASSERT(decide(&b, 1, &w, 1, c) == 1);
    CU_ASSERT(c[0].verdict == FM_SCHED_WAIT_NO_WORKERS);
}

/* Of two batches and one worker, which goes first. */
static uint32_t first_of(const fm_sched_batch_t *b)
{
    fm_sched_worker_t w = worker_make(1);
    fm_sched_choice_t c[3];

    CU_ASSERT_FATAL(decide(b, 2, &w, 1, c) == 2);
    CU_ASSERT(c[0].verdict == FM_SCHED_PLACE);
    CU_ASSERT(c[1].verdict == FM_SCHED_WAIT_WORKERS);
    return c[0].batch;
}

static void test_urgency(void)
{
    fm_sched_batch_t b[2] = {batch_make(1), batch_make(2)};

    CU_ASSERT(first_of(b) == 0);
    b[1].oldest_ns = NOW - S;
    CU_ASSERT(first_of(b) == 1);
    b[0].priority = 1;
    CU_ASSERT(first_of(b) == 0);
    b[1].deadline_ns = NOW + 60 * S;
    CU_ASSERT(first_of(b) == 1);
    b[1] = batch_make(2);
    b[0] = batch_make(1);
    b[1].depth = 2;
    CU_ASSERT(first_of(b) == 1);
    b[1].share = 0.2;
    CU_ASSERT(first_of(b) == 0);
}

static void test_sizes(void)
{
    fm_sched_batch_t b = batch_make(1);
    fm_sched_worker_t w[4];
    fm_sched_choice_t c[5];

    for (uint32_t i = 0; i < 4; i++) {
        w[i] = worker_make(i);
    }
    b.ready = 8; /* seconds an item: shared by the idle workers */
    CU_ASSERT(decide(&b, 1, w, 4, c) == 4);
    for (uint32_t i = 0; i < 4; i++) {
        CU_ASSERT(c[i].size == 2 && c[i].verdict == FM_SCHED_PLACE);
    }
    b.item_work = 0.01; /* nothing: one message is dearer than the work */
    b.size_max = 512;
    CU_ASSERT(decide(&b, 1, w, 4, c) == 1);
    CU_ASSERT(c[0].size == 8);
}

static void test_determinism_and_sanity(void)
{
    enum { B = 50, W = 40 };
    static fm_sched_batch_t b[B];
    static fm_sched_worker_t w[W];
    static fm_sched_choice_t one[B + W];
    static fm_sched_choice_t two[B + W];
    static fm_digest_t models[4] = {{{1}}, {{2}}, {{3}}, {{4}}};
    static fm_sched_object_t objects[4];
    fm_rng_t rng;

    fm_rng_init(&rng, 11);
    for (int i = 0; i < 4; i++) {
        objects[i] = (fm_sched_object_t){models[i], GIB};
    }
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < B; i++) {
            b[i] = batch_make((uint8_t)i);
            b[i].kind = (fm_sched_kind_t)fm_rng_below(&rng, 3);
            b[i].ready = 1 + (uint32_t)fm_rng_below(&rng, 100);
            b[i].item_work = 1 + (double)fm_rng_below(&rng, 1000);
            b[i].models = &objects[fm_rng_below(&rng, 4)];
            b[i].model_count = 1;
            b[i].oldest_ns = NOW - (int64_t)fm_rng_below(&rng, 1000) * S;
            b[i].device = (fm_sched_device_kind_t)fm_rng_below(&rng, 3);
        }
        for (uint32_t i = 0; i < W; i++) {
            w[i] = worker_make(i);
            w[i].device = 1 + (fm_sched_device_kind_t)fm_rng_below(&rng, 2);
            w[i].resident = &models[fm_rng_below(&rng, 4)];
            w[i].resident_count = 1;
            w[i].free_at_ns = NOW + (int64_t)fm_rng_below(&rng, 3) * S;
            w[i].price_per_hour = (double)fm_rng_below(&rng, 3);
        }
        memset(one, 0, sizeof(one));
        memset(two, 0, sizeof(two));
        size_t n = decide(b, B, w, W, one);
        CU_ASSERT_FATAL(decide(b, B, w, W, two) == n);
        CU_ASSERT(memcmp(one, two, sizeof(one)) == 0);
        uint32_t left[B];
        bool used[W] = {false};
        for (int i = 0; i < B; i++) {
            left[i] = b[i].ready;
        }
        for (size_t i = 0; i < n && one[i].verdict == FM_SCHED_PLACE; i++) {
            CU_ASSERT(!used[one[i].worker]);
            used[one[i].worker] = true;
            CU_ASSERT(w[one[i].worker].free_at_ns <= NOW);
            CU_ASSERT(one[i].size >= 1 && one[i].size <= left[one[i].batch]);
            left[one[i].batch] -= one[i].size;
            CU_ASSERT(b[one[i].batch].device == FM_SCHED_ANY ||
                      b[one[i].batch].device == w[one[i].worker].device);
            CU_ASSERT(one[i].terms.utility >= -1 && one[i].terms.utility <= 1);
        }
    }
}

/* One worker, an unending stream of fresh batches of 16 times the priority:
 * the weak batch goes within the bound, plus the batch then running. */
static void test_no_starvation(void)
{
    fm_sched_worker_t w = worker_make(1);
    fm_sched_batch_t b[2] = {batch_make(1), batch_make(2)};
    double bound_s = fm_sched_age_bound_s(16, 60);
    double waited_s = 0;
    bool served = false;

    CU_ASSERT(near(bound_s, 15 * 60));
    b[1].priority = 100;
    for (int step = 0; step < 5000 && !served; step++) {
        fm_sched_choice_t c[3];
        b[0].oldest_ns = NOW - (int64_t)(waited_s * 1e9);
        CU_ASSERT_FATAL(decide(b, 2, &w, 1, c) == 2);
        served = c[0].batch == 0;
        waited_s += served ? 0 : c[0].terms.total_s;
    }
    CU_ASSERT(served);
    CU_ASSERT(waited_s > 10 && waited_s <= bound_s + 1.01);
}

static void test_refusals(void)
{
    fm_sched_batch_t b = batch_make(1);
    fm_sched_worker_t w = worker_make(1);
    fm_sched_choice_t c[2];
    fm_error_t err = {0};
    size_t count = 77;
    fm_sched_input_t input = {.now_ns = NOW,
                              .batches = &b,
                              .batch_count = 1,
                              .workers = &w,
                              .worker_count = 1};

    b.item_work = NAN;
    CU_ASSERT(fm_sched_decide(&input, c, 2, &count, &err) == FM_ERR_INVALID);
    b = batch_make(1);
    w.watts = -1;
    CU_ASSERT(fm_sched_decide(&input, c, 2, &count, &err) == FM_ERR_INVALID);
    w = worker_make(1);
    input.lambda[0] = 2;
    CU_ASSERT(fm_sched_decide(&input, c, 2, &count, &err) == FM_ERR_INVALID);
    CU_ASSERT(count == 77);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"terms", test_terms},
        {"each term decides", test_each_term_decides},
        {"hard constraints", test_hard_constraints},
        {"urgency", test_urgency},
        {"sizes", test_sizes},
        {"determinism", test_determinism_and_sanity},
        {"no starvation", test_no_starvation},
        {"refusals", test_refusals},
    };

    return fm_test_main("sched", cases, sizeof(cases) / sizeof(cases[0]));
}
