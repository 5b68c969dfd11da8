/* SPDX-License-Identifier: Apache-2.0 */
/* sched: each term moves the choice as computed by hand; nothing starves. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fmtest.h"
#include "plan/sched/sched.h"

#define S INT64_C(1000000000)
#define NOW (1000 * S)
#define GIB (UINT64_C(1) << 30)
#define IDLE INT64_MIN

/* Without a cost model a batch takes 10 ms + 1 ms a unit. */
static fm_sched_batch_t batch_make(void)
{
    return (fm_sched_batch_t){.kind = FM_SCHED_INFERENCE,
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
                               .domain = FM_SCHED_NONE,
                               .price_per_hour = 3.6};
}

static fm_sched_t *sched_make(const fm_sched_options_t *options)
{
    fm_sched_t *s = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_sched_create(options, NULL, &s, &err), &err);
    return s;
}

static void put(fm_sched_t *s, uint32_t id, const fm_sched_batch_t *batch)
{
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_sched_batch_put(s, id, batch, &err), &err);
}

static void put_worker(fm_sched_t *s, const fm_sched_worker_t *worker)
{
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_sched_worker_put(s, worker, &err), &err);
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b));
}

static void test_terms(void)
{
    const fm_sched_object_t model = {{{9}}, 10000000000u};
    fm_sched_batch_t b = batch_make();
    fm_sched_worker_t w = worker_make(7);
    fm_sched_t *s = sched_make(NULL);
    fm_sched_choice_t c;

    b.models = &model;
    b.model_count = 1;
    b.item_input_bytes = 5e8;
    b.input_domain = 1;
    b.tenant = 3;
    b.priority = 25;
    b.depth = 10;
    b.oldest_ns = NOW - 30 * S;
    b.deadline_ns = NOW + 3300 * S; /* 300 s for each of 11 stages: half way */
    w.load_bytes_per_s = 5e9;
    w.domain = 2;
    w.watts = 360;
    w.hazard_per_hour = 1;
    put(s, 4, &b);
    put_worker(s, &w);
    fm_sched_tenant_put(s, 3, 0.5);
    CU_ASSERT_FATAL(fm_sched_next(s, NOW, &c));
    const fm_sched_terms_t *t = &c.terms;
    CU_ASSERT(c.batch == 4 && c.worker == 7 && c.size == 1 && c.gang == 1);
    CU_ASSERT(near(t->wait_s, 0) && near(t->load_s, 2));
    CU_ASSERT(near(t->fetch_s, 0.5) && near(t->run_s, 1.01));
    CU_ASSERT(near(t->total_s, 3.51) && near(t->work, 1.01));
    CU_ASSERT(near(t->age, 1.5) && near(t->priority, 2));
    CU_ASSERT(near(t->deadline, 2.5) && near(t->path, 2));
    CU_ASSERT(near(t->value, 1.01 * 0.5 * 1.5 * 2 * 2.5 * 2));
    CU_ASSERT(near(t->survival, exp(-3.51 / 3600)));
    CU_ASSERT(near(t->dollars, 3.51 * 0.001 + 3.51 * 360 / 3.6e6 * 0.15));
    CU_ASSERT(near(t->joules, 3.51 * 360));
    CU_ASSERT(near(t->gain, t->value * t->survival / 3.51));
    CU_ASSERT(near(t->loss, t->dollars / t->value));
    CU_ASSERT(fabs(t->utility) < 1e-9 && near(t->lambda, 0.4));
    fm_json_t *json = fm_sched_terms_json(t);
    CU_ASSERT(near(fm_json_get_real(json, "fetch_s", 0), 0.5));
    CU_ASSERT(fm_json_get_int(json, "candidates", 0) == 1);
    fm_json_drop(json);
    fm_sched_destroy(s);
}

/* One batch, two workers, 1 and 2: which takes it; 0: it waits. */
static uint32_t chosen_after(const fm_sched_batch_t *b,
                             const fm_sched_worker_t *w, int64_t second_free_ns,
                             const fm_sched_options_t *options)
{
    fm_sched_t *s = sched_make(options);
    fm_sched_choice_t c;

    put(s, 0, b);
    put_worker(s, &w[0]);
    put_worker(s, &w[1]);
    fm_sched_worker_busy(s, 2, second_free_ns);
    uint32_t worker = fm_sched_next(s, NOW, &c) ? c.worker : 0;
    fm_sched_destroy(s);
    return worker;
}

static uint32_t chosen(const fm_sched_batch_t *b, const fm_sched_worker_t *w)
{
    return chosen_after(b, w, IDLE, NULL);
}

static void test_each_term_decides(void)
{
    const fm_sched_object_t model = {{{9}}, 20 * GIB};
    const fm_digest_t resident = {{9}};
    fm_sched_batch_t b = batch_make();
    fm_sched_worker_t w[2] = {worker_make(1), worker_make(2)};

    CU_ASSERT(chosen(&b, w) == 1); /* equal: the first */
    b.models = &model;
    b.model_count = 1;
    w[1].resident = &resident;
    w[1].resident_count = 1;
    CU_ASSERT(chosen(&b, w) == 2); /* less to load */

    b = batch_make();
    b.input_domain = 5;
    b.item_input_bytes = 1e10;
    w[1] = worker_make(2);
    w[1].domain = 5;
    CU_ASSERT(chosen(&b, w) == 2); /* nearer */

    b = batch_make();
    w[1] = worker_make(2);
    w[1].price_per_hour = 1;
    CU_ASSERT(chosen(&b, w) == 2); /* cheaper */
    w[1] = worker_make(2);
    w[0].watts = 5000;
    CU_ASSERT(chosen(&b, w) == 2); /* less energy */
    w[0] = worker_make(1);
    w[0].hazard_per_hour = 3000;
    CU_ASSERT(chosen(&b, w) == 2); /* lives longer */
    w[0] = worker_make(1);
    w[0].walltime_end_ns = NOW + S;
    CU_ASSERT(chosen(&b, w) == 2); /* does not live */
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"terms", test_terms},
        {"each term decides", test_each_term_decides},
    };

    return fm_test_main("sched", cases, sizeof(cases) / sizeof(cases[0]));
}
