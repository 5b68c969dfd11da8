/* SPDX-License-Identifier: Apache-2.0 */
/* scale: what is started, and where (docs/spec/scale.md E1 to E8, E13). */
#include <math.h>

#include "base/mem.h"
#include "scale_fixture.h"

static void test_from_zero(void)
{
    struct site s;
    char text[200];

    site_init(&s, NULL);
    decide(&s);
    CU_ASSERT(s.count == 0 && fm_scale_wake_ns(s.scale) == INT64_MAX);
    add_row(&s, 1, 5, 1);
    decide(&s);
    const fm_scale_action_t *a = first(&s, FM_SCALE_START);
    CU_ASSERT_FATAL(s.count == 1 && a != NULL);
    CU_ASSERT(a->class_index == SLOW && a->count == 1 &&
              a->reason == FM_SCALE_BACKLOG && a->demand == 0);
    CU_ASSERT(isinf(a->saves_s) && fabs(a->costs_dollars - 60. / 3600) < 1e-9);
    fm_scale_action_text(a, "small", text, sizeof(text));
    CU_ASSERT_STRING_EQUAL(text, "start 1 small: ready work would wait too "
                                 "long: nothing else would run it; costs "
                                 "$0.0167 to start");
    site_fini(&s);
}

static void test_burst(void)
{
    struct site s;
    uint32_t before = 0;

    /* More work, more workers, less than one each, up to max. */
    for (uint32_t n = 1; n <= 1024; n *= 4) {
        site_init(&s, NULL);
        add_row(&s, n, 60, n);
        decide(&s);
        uint32_t starts =
            total(&s, FM_SCALE_START, SLOW) + total(&s, FM_SCALE_START, FAST);
        CU_ASSERT(starts >= before && starts <= n);
        CU_ASSERT(n == 1 || n > 256 || starts > before);
        before = starts;
        site_fini(&s);
    }
    CU_ASSERT(before > 100);
    /* One user who waits for long work is worth fewer than many users. */
    uint32_t starts[2];
    for (int i = 0; i < 2; i++) {
        site_init(&s, NULL);
        add_row(&s, 64, 20, i ? 64 : 1);
        decide(&s);
        starts[i] =
            total(&s, FM_SCALE_START, SLOW) + total(&s, FM_SCALE_START, FAST);
        site_fini(&s);
    }
    CU_ASSERT(starts[0] < starts[1]);
}

static void test_starting_counts(void)
{
    struct site s;

    site_init(&s, NULL);
    add_row(&s, 64, 60, 64);
    decide(&s);
    for (uint32_t c = 0; c < 2; c++) {
        for (uint32_t n = total(&s, FM_SCALE_START, c); n > 0; n--) {
            fm_scale_worker_t *w = add_worker(&s, c, -60);
            w->starting = true;
        }
    }
    CU_ASSERT(s.worker_count > 4);
    for (int t = 0; t < 6; t++) {
        decide(&s);
        CU_ASSERT(first(&s, FM_SCALE_START) == NULL);
        CU_ASSERT(first(&s, FM_SCALE_DRAIN) == NULL);
        s.now_ns += 12 * S; /* late ones are still on their way */
    }
    site_fini(&s);
}

static void test_idle_capacity_is_used_first(void)
{
    struct site s;

    site_init(&s, NULL);
    for (int i = 0; i < 8; i++) {
        add_worker(&s, SLOW, 5);
    }
    add_row(&s, 8, 20, 8);
    decide(&s);
    CU_ASSERT(s.count == 0);
    /* Busy ones that come free before a new one could be there, too. */
    for (int i = 0; i < 8; i++) {
        s.workers[i].free_at_ns = s.now_ns + 30 * S;
    }
    decide(&s);
    CU_ASSERT(s.count == 0);
    /* Those that are busy for an hour are no help. */
    for (int i = 0; i < 8; i++) {
        s.workers[i].free_at_ns = s.now_ns + 3600 * S;
    }
    decide(&s);
    CU_ASSERT(first(&s, FM_SCALE_START) != NULL);
    /* Nor is one whose walltime ends before a new one could be there. */
    struct site t;
    site_init(&t, NULL);
    add_worker(&t, SLOW, 0)->ends_ns = NOW + 59 * S;
    add_row(&t, 1, 20, 1);
    decide(&t);
    CU_ASSERT(total(&t, FM_SCALE_START, SLOW) == 1);
    t.workers[0].ends_ns = NOW + 600 * S;
    decide(&t);
    CU_ASSERT(t.count == 0);
    site_fini(&t);
    site_fini(&s);
}

/* Seconds until a worker is added where two are always busy and @p tasks wait,
 * which would be done before it came; fewer by @p less each ten seconds. */
static int overload(uint32_t tasks, uint32_t less)
{
    struct site s;
    int at = -1;

    site_init(&s, NULL);
    s.class_count = 1;
    add_worker(&s, SLOW, 0);
    add_worker(&s, SLOW, 0);
    for (int t = 0; t < 400 && at < 0; t += 10) {
        s.now_ns = NOW + t * S;
        s.workers[0].free_at_ns = s.workers[1].free_at_ns = s.now_ns + 5 * S;
        s.row_count = 0;
        uint32_t done = (uint32_t)t / 10 * less;
        if (done < tasks) {
            add_row(&s, tasks - done, 10, tasks - done);
        }
        decide(&s);
        const fm_scale_action_t *a = first(&s, FM_SCALE_START);
        if (a) {
            CU_ASSERT(a->reason == FM_SCALE_QUEUE && a->count == 1 &&
                      a->saves_dollars >= a->costs_dollars);
            at = t;
        }
    }
    site_fini(&s);
    return at;
}

static void test_steady_overload(void)
{
    /* A start costs $0.0167 · 1.25; of three workers' queue the third part is
     * saved, $2 / 3600 · 4 / 3 a second: after 28.1 s of queueing. */
    CU_ASSERT(overload(4, 0) == 30);
    CU_ASSERT(overload(2, 0) == 60);
    CU_ASSERT(overload(6, 1) == -1); /* a queue that goes down */
    CU_ASSERT(overload(0, 0) == -1);
}

static void test_deadline(void)
{
    struct site s;

    /* 300 s of work on the slow, 75 s on the fast class. */
    site_init(&s, NULL);
    fm_scale_demand_t *row = add_row(&s, 1, 300, 0.1);
    decide(&s);
    CU_ASSERT(total(&s, FM_SCALE_START, SLOW) == 1 &&
              total(&s, FM_SCALE_START, FAST) == 0);
    row->deadline_ns = NOW + 150 * S;
    row->waiters = 1;
    s.classes[FAST].price_per_hour = 20;
    decide(&s);
    CU_ASSERT(total(&s, FM_SCALE_START, SLOW) == 0 &&
              total(&s, FM_SCALE_START, FAST) == 1);
    row->deadline_ns = NOW + 400 * S;
    decide(&s);
    CU_ASSERT(total(&s, FM_SCALE_START, SLOW) == 1);
    /* A busy worker would do, but too late: another is started for it. */
    row->deadline_ns = 0;
    s.classes[SLOW].price_per_hour = 20;
    s.classes[FAST].max = 0;
    add_worker(&s, SLOW, -200);
    decide(&s);
    CU_ASSERT(s.count == 0);
    row->deadline_ns = NOW + 400 * S;
    decide(&s);
    const fm_scale_action_t *a = first(&s, FM_SCALE_START);
    CU_ASSERT_FATAL(a != NULL);
    CU_ASSERT(a->reason == FM_SCALE_DEADLINE && a->class_index == SLOW);
    site_fini(&s);
}

static void test_class_choice(void)
{
    struct site s;

    /* Per unit the fast class costs 1.5 times as much; one waiter of a long
     * task is worth it, one of a tenth is not. */
    site_init(&s, NULL);
    fm_scale_demand_t *row = add_row(&s, 1, 600, 0.05);
    decide(&s);
    CU_ASSERT(total(&s, FM_SCALE_START, SLOW) == 1);
    row->waiters = 5;
    decide(&s);
    CU_ASSERT(total(&s, FM_SCALE_START, FAST) == 1 &&
              total(&s, FM_SCALE_START, SLOW) == 0);
    /* Memory and task type are hard. */
    row->waiters = 0.05;
    row->memory_bytes = 46 * GIB;
    decide(&s);
    CU_ASSERT(total(&s, FM_SCALE_START, FAST) == 1);
    row->memory_bytes = 20 * GIB;
    row->task_type = 1;
    decide(&s);
    CU_ASSERT(total(&s, FM_SCALE_START, FAST) == 1);
    row->task_type = 2;
    decide(&s);
    CU_ASSERT(s.count == 1 && s.actions[0].kind == FM_SCALE_HOLD &&
              s.actions[0].reason == FM_SCALE_NO_CLASS &&
              s.actions[0].demand == 0);
    /* One key fills both classes where the first has not enough. */
    row->task_type = 0;
    *row = (fm_scale_demand_t){.items = 400,
                               .size_max = 1,
                               .task_class = task,
                               .item_work = 60,
                               .waiters = 400};
    s.classes[SLOW].max = s.classes[FAST].max = 4;
    decide(&s);
    CU_ASSERT(total(&s, FM_SCALE_START, SLOW) == 4 &&
              total(&s, FM_SCALE_START, FAST) == 4);
    site_fini(&s);
}

static void test_spread_or_consolidate(void)
{
    struct site s;
    uint32_t starts[2];

    /* The same work, with a model of a second and of five minutes to load. */
    for (int i = 0; i < 2; i++) {
        site_init(&s, NULL);
        s.class_count = 1;
        fm_scale_demand_t *row = add_row(&s, 32, 10, 8);
        row->model = &model_a;
        row->model_bytes = i ? 300e9 : 1e9;
        decide(&s);
        starts[i] = total(&s, FM_SCALE_START, SLOW);
        site_fini(&s);
    }
    CU_ASSERT(starts[1] >= 1 && starts[0] >= 2 * starts[1]);
    /* A holder that is busy for a while is better than a load elsewhere. */
    site_init(&s, NULL);
    s.class_count = 1;
    fm_scale_demand_t *row = add_row(&s, 1, 10, 1);
    row->model = &model_a;
    row->model_bytes = 300e9;
    fm_scale_worker_t *w = add_worker(&s, SLOW, -90);
    decide(&s);
    CU_ASSERT(s.count == 0);
    w->free_at_ns = NOW + 600 * S;
    decide(&s);
    CU_ASSERT(total(&s, FM_SCALE_START, SLOW) == 1);
    w->resident = &model_a;
    w->resident_count = 1;
    w->free_at_ns = NOW + 350 * S;
    decide(&s);
    CU_ASSERT(s.count == 0);
    site_fini(&s);
}

static void test_successors(void)
{
    struct site s;

    /* Ready in 200 s: a start of 60 s is due in 140. */
    site_init(&s, NULL);
    fm_scale_demand_t *row = add_row(&s, 4, 100, 4);
    row->ready_in_s = 200;
    decide(&s);
    CU_ASSERT(s.count == 0);
    CU_ASSERT(fm_scale_wake_ns(s.scale) == NOW + 140 * S);
    s.now_ns += 140 * S;
    row->ready_in_s = 60;
    decide(&s);
    const fm_scale_action_t *a = first(&s, FM_SCALE_START);
    CU_ASSERT_FATAL(a != NULL);
    CU_ASSERT(a->reason == FM_SCALE_SUCCESSORS && a->count >= 2);
    /* An idle worker past break-even stays for what comes soon, and goes
     * where that is further off than a start. */
    s.classes[SLOW].max = s.classes[FAST].max = 2;
    for (int i = 0; i < 2; i++) {
        add_worker(&s, SLOW, 1000);
    }
    row->waiters = 1;
    row->ready_in_s = 50;
    decide(&s);
    CU_ASSERT(first(&s, FM_SCALE_DRAIN) == NULL);
    row->ready_in_s = 300;
    decide(&s);
    CU_ASSERT(total(&s, FM_SCALE_DRAIN, SLOW) == 2);
    /* The work that runs first keeps them until then. */
    for (int i = 0; i < 2; i++) {
        s.workers[i].free_at_ns = s.now_ns + 40 * S;
    }
    row->ready_in_s = 40;
    decide(&s);
    CU_ASSERT(s.count == 0);
    site_fini(&s);
}

static void test_bounds(void)
{
    struct site s;
    fm_error_t err = {0};

    site_init(&s, NULL);
    s.classes[FAST].min = 3;
    decide(&s);
    CU_ASSERT(s.count == 1 && s.actions[0].reason == FM_SCALE_MIN &&
              s.actions[0].class_index == FAST && s.actions[0].count == 3);
    s.classes[FAST].min = s.classes[FAST].max = 0;
    s.classes[SLOW].max = 5;
    add_row(&s, 400, 60, 400);
    decide(&s);
    CU_ASSERT(total(&s, FM_SCALE_START, SLOW) == 5);
    const fm_scale_action_t *a = first(&s, FM_SCALE_HOLD);
    CU_ASSERT_FATAL(a != NULL);
    CU_ASSERT(a->reason == FM_SCALE_MAX && a->class_index == SLOW &&
              a->saves_s > 0);
    /* Nothing at all may run it. */
    s.classes[SLOW].max = 0;
    decide(&s);
    CU_ASSERT(s.count == 1 && s.actions[0].kind == FM_SCALE_HOLD &&
              isinf(s.actions[0].waits_s));
    site_fini(&s);

    site_init(&s, &(fm_scale_options_t){.starts_max = 7, .workers_max = 10});
    add_row(&s, 400, 60, 400);
    decide(&s);
    CU_ASSERT(
        total(&s, FM_SCALE_START, SLOW) + total(&s, FM_SCALE_START, FAST) == 7);
    for (int i = 0; i < 7; i++) {
        add_worker(&s, SLOW, -600);
    }
    decide(&s);
    CU_ASSERT(
        total(&s, FM_SCALE_START, SLOW) + total(&s, FM_SCALE_START, FAST) == 3);
    /* Room for no action: nothing is written. */
    FM_ASSERT_OK(try_decide(&s, 0, &err), &err);
    CU_ASSERT(s.count == 0);
    site_fini(&s);
}

static void test_refused(void)
{
    struct site s;
    fm_error_t err = {0};

    site_init(&s, NULL);
    fm_scale_demand_t *row = add_row(&s, 1, 1, 1);
    row->item_work = NAN;
    CU_ASSERT(try_decide(&s, 9, &err) == FM_ERR_INVALID);
    row->item_work = 1;
    row->task_type = 64;
    CU_ASSERT(try_decide(&s, 9, &err) == FM_ERR_INVALID);
    row->task_type = 0;
    row->ready_in_s = -1;
    CU_ASSERT(try_decide(&s, 9, &err) == FM_ERR_INVALID);
    row->ready_in_s = 0;
    row->items = 0;
    CU_ASSERT(try_decide(&s, 9, &err) == FM_ERR_INVALID);
    row->items = 1;
    s.classes[SLOW].startup_s = INFINITY;
    CU_ASSERT(try_decide(&s, 9, &err) == FM_ERR_INVALID);
    s.classes[SLOW].startup_s = 1;
    s.classes[SLOW].min = 101;
    CU_ASSERT(try_decide(&s, 9, &err) == FM_ERR_INVALID);
    CU_ASSERT_STRING_EQUAL(err.text, "class 0: min 101 is more than max 100");
    s.classes[SLOW].min = 0;
    add_worker(&s, 2, 0);
    CU_ASSERT(try_decide(&s, 9, &err) == FM_ERR_INVALID);
    s.worker_count = 0;
    s.class_count = FM_SCALE_CLASSES_MAX + 1;
    CU_ASSERT(try_decide(&s, 9, &err) == FM_ERR_LIMIT);
    CU_ASSERT(fm_scale_create(&(fm_scale_options_t){.keep = -1}, cost, &s.scale,
                              &err) == FM_ERR_INVALID);
    site_fini(&s);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"from zero", test_from_zero},
        {"burst", test_burst},
        {"starting workers count", test_starting_counts},
        {"existing capacity first", test_idle_capacity_is_used_first},
        {"steady overload", test_steady_overload},
        {"deadline", test_deadline},
        {"class choice", test_class_choice},
        {"spread or consolidate", test_spread_or_consolidate},
        {"successors", test_successors},
        {"bounds", test_bounds},
        {"refused input", test_refused},
    };

    return scale_main("scale", cases, FM_COUNT_OF(cases));
}
