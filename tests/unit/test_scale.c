/* SPDX-License-Identifier: Apache-2.0 */
/* scale: each rule of docs/spec/scale.md.  Costs here are exact: a unit of
 * work takes a second on the slow device and a quarter on the fast one. */
#include <math.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/rng.h"
#include "fmtest.h"
#include "plan/scale/scale.h"

#define S 1000000000LL
#define NOW (10000 * S)
#define GIB (1ull << 30)
#define ACTIONS 512

enum { SLOW, FAST }; /* classes */

static fm_cost_t *cost;
static uint32_t task, slow_device, fast_device;
static const fm_digest_t model_a = {{0xa}};
static const fm_digest_t model_b = {{0xb}};

static bool make_cost(void)
{
    fm_error_t err = {0};
    const fm_cost_task_t work = {.flops_per_unit = 1e12, .overhead_s = 1e-6};
    const fm_cost_device_t slow = {.flops_per_s = 1e12, .overhead_s = 1e-6};
    const fm_cost_device_t fast = {.flops_per_s = 4e12, .overhead_s = 1e-6};

    cost = fm_cost_create();
    return cost && fm_cost_task_id(cost, "work", &work, &task, &err) == FM_OK &&
           fm_cost_device_id(cost, "slow", &slow, &slow_device, &err) ==
               FM_OK &&
           fm_cost_device_id(cost, "fast", &fast, &fast_device, &err) == FM_OK;
}

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

static void site_init(struct site *s, const fm_scale_options_t *opts)
{
    fm_error_t err = {0};

    *s = (struct site){.class_count = 2, .now_ns = NOW};
    s->classes[SLOW] = (fm_scale_class_t){
        .device_class = slow_device,
        .task_types = 1,
        .memory_bytes = 24 * GIB,
        .price_per_hour = 1,
        .startup_s = 60,
        .max = 100,
    };
    s->classes[FAST] = (fm_scale_class_t){
        .device_class = fast_device,
        .task_types = 3,
        .memory_bytes = 80 * GIB,
        .price_per_hour = 6,
        .startup_s = 60,
        .max = 100,
    };
    FM_ASSERT_OK(fm_scale_create(opts, cost, &s->scale, &err), &err);
}

static void site_fini(struct site *s)
{
    s->scale = fm_scale_destroy(s->scale);
}

static fm_scale_demand_t *add_row(struct site *s, uint32_t items,
                                  double item_work, double waiters)
{
    fm_scale_demand_t *row = &s->rows[s->row_count++];
    *row = (fm_scale_demand_t){
        .task_class = task,
        .items = items,
        .size_max = 1,
        .item_work = item_work,
        .waiters = waiters,
        .memory_bytes = 20 * GIB,
    };
    return row;
}

/* Idle for @p idle_s, or busy for as many seconds below 0. */
static fm_scale_worker_t *add_worker(struct site *s, uint32_t class_index,
                                     double idle_s)
{
    fm_scale_worker_t *w = &s->workers[s->worker_count];
    *w = (fm_scale_worker_t){
        .id = (uint32_t)(1000 + s->worker_count),
        .class_index = class_index,
        .free_at_ns = s->now_ns - (int64_t)(idle_s * 1e9),
        .idle_since_ns = s->now_ns - (int64_t)(idle_s * 1e9),
        .up_since_ns = s->now_ns - 3600 * S + (int64_t)s->worker_count,
        .task_class = task,
        .memory_bytes = 20 * GIB,
    };
    s->worker_count++;
    return w;
}

static fm_status_t try_decide(struct site *s, size_t cap, fm_error_t *err)
{
    fm_scale_input_t in = {.now_ns = s->now_ns,
                           .classes = s->classes,
                           .class_count = s->class_count,
                           .demands = s->rows,
                           .demand_count = s->row_count,
                           .workers = s->workers,
                           .worker_count = s->worker_count};
    return fm_scale_decide(s->scale, &in, s->actions, cap, &s->count, err);
}

static void decide(struct site *s)
{
    fm_error_t err = {0};
    FM_ASSERT_OK(try_decide(s, ACTIONS, &err), &err);
}

/* Workers that the decision starts (kind START) or drains in a class. */
static uint32_t total(const struct site *s, fm_scale_kind_t kind,
                      uint32_t class_index)
{
    uint32_t n = 0;
    for (size_t i = 0; i < s->count; i++) {
        if (s->actions[i].kind == kind &&
            s->actions[i].class_index == class_index) {
            n += s->actions[i].count;
        }
    }
    return n;
}

static const fm_scale_action_t *first(const struct site *s,
                                      fm_scale_kind_t kind)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->actions[i].kind == kind) {
            return &s->actions[i];
        }
    }
    return NULL;
}

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

/* Break-even is the start-up time; the last worker that can do its work stays
 * longer by what the next arrival would wait: 60 s · $2 / $1. */
static void test_tail(void)
{
    struct site s;

    site_init(&s, NULL);
    for (int i = 0; i < 4; i++) {
        add_worker(&s, SLOW, 0);
    }
    decide(&s);
    CU_ASSERT(s.count == 0);
    CU_ASSERT(fm_scale_wake_ns(s.scale) == NOW + 60 * S);
    s.now_ns = NOW + 59 * S;
    decide(&s);
    CU_ASSERT(s.count == 0);
    s.now_ns = fm_scale_wake_ns(s.scale);
    decide(&s);
    CU_ASSERT(total(&s, FM_SCALE_DRAIN, SLOW) == 3);
    CU_ASSERT(fm_scale_wake_ns(s.scale) == NOW + 180 * S);
    const fm_scale_action_t *a = first(&s, FM_SCALE_DRAIN);
    CU_ASSERT_FATAL(a != NULL);
    CU_ASSERT(a->reason == FM_SCALE_IDLE && a->now && a->idle_s >= 60 &&
              a->saves_dollars >= a->costs_dollars - 1e-12);
    /* Newest first: the oldest, id 1000, is the one that stays. */
    CU_ASSERT(a->worker == 1003);
    s.worker_count = 1;
    s.now_ns = NOW + 180 * S;
    decide(&s);
    CU_ASSERT(total(&s, FM_SCALE_DRAIN, SLOW) == 1);
    /* min keeps it. */
    s.classes[SLOW].min = 1;
    decide(&s);
    CU_ASSERT(s.count == 0);
    site_fini(&s);
}

static void test_wanted_model_stays(void)
{
    struct site s;

    /* A row wants model b soon enough for one worker; who holds it stays,
     * though it is the newest. */
    site_init(&s, NULL);
    for (int i = 0; i < 3; i++) {
        fm_scale_worker_t *w = add_worker(&s, SLOW, 500);
        w->resident = i == 2 ? &model_b : &model_a;
        w->resident_count = 1;
    }
    fm_scale_demand_t *row = add_row(&s, 1, 30, 1);
    row->model = &model_b;
    row->model_bytes = 20e9;
    row->ready_in_s = 40;
    decide(&s);
    CU_ASSERT(total(&s, FM_SCALE_DRAIN, SLOW) == 2);
    for (size_t i = 0; i < s.count; i++) {
        CU_ASSERT(s.actions[i].worker != 1002);
        /* A loaded worker is worth the load, too. */
        CU_ASSERT(fabs(s.actions[i].keep_s - 80) < 1e-9);
    }
    site_fini(&s);
}

static void test_rotation_hides_no_surplus(void)
{
    struct site s;
    uint32_t drained = 0;

    /* Ten workers, one busy at a time, each idle for 9 s at most: eight or
     * nine are surplus all the time, and go. */
    site_init(&s, NULL);
    for (int i = 0; i < 10; i++) {
        add_worker(&s, SLOW, 0);
    }
    for (int t = 0; t <= 70; t++) {
        s.now_ns = NOW + t * S;
        for (size_t i = 0; i < s.worker_count; i++) {
            int64_t idle = (t + 10 - (int64_t)i) % 10 * S;
            s.workers[i].idle_since_ns = idle < t * S ? s.now_ns - idle : NOW;
            s.workers[i].free_at_ns =
                t % 10 == (int)i ? s.now_ns + S : s.workers[i].idle_since_ns;
        }
        decide(&s);
        drained = total(&s, FM_SCALE_DRAIN, SLOW);
        if (drained) {
            CU_ASSERT(t == 60 && drained == 9);
            break;
        }
    }
    CU_ASSERT(drained == 9);
    site_fini(&s);
}

/* Apply the decision to a fluid fleet: starting workers come up, drained ones
 * go.  Returns the number of actions. */
static size_t apply(struct site *s)
{
    for (size_t i = 0; i < s->count; i++) {
        const fm_scale_action_t *a = &s->actions[i];
        for (uint32_t n = 0; a->kind == FM_SCALE_START && n < a->count; n++) {
            CU_ASSERT_FATAL(s->worker_count < FM_COUNT_OF(s->workers));
            fm_scale_worker_t *w = add_worker(s, a->class_index, -60);
            w->starting = true;
            w->id = (uint32_t)(s->now_ns / S * 100 + n);
            w->up_since_ns = w->idle_since_ns = w->free_at_ns;
        }
        for (size_t w = 0; a->kind == FM_SCALE_DRAIN && w < s->worker_count;
             w++) {
            if (s->workers[w].id == a->worker) {
                s->workers[w] = s->workers[--s->worker_count];
                break;
            }
        }
    }
    return s->count;
}

static void test_hysteresis(void)
{
    struct site s;
    fm_rng_t rng;
    size_t actions = 0;
    size_t early = 0;

    /* Tasks of a minute, each second one with probability ½ ± noise: about
     * thirty workers' worth, for two hours. */
    site_init(&s, NULL);
    s.class_count = 1;
    fm_rng_init(&rng, 11);
    uint32_t queue = 0;
    double busy = 0;
    double up = 0;
    for (int t = 0; t < 7200; t++) {
        s.now_ns += S;
        queue += fm_rng_uniform(&rng) < (t / 300 % 2 ? 0.6 : 0.4);
        for (size_t i = 0; i < s.worker_count; i++) {
            fm_scale_worker_t *w = &s.workers[i];
            if (w->free_at_ns <= s.now_ns) {
                w->starting = false;
                if (w->idle_since_ns < w->free_at_ns) {
                    w->idle_since_ns = w->free_at_ns;
                }
                if (queue) {
                    queue--;
                    w->free_at_ns = s.now_ns + 60 * S;
                }
            }
            busy += w->free_at_ns > s.now_ns && !w->starting;
            up++;
        }
        s.row_count = 0;
        if (queue) {
            add_row(&s, queue, 60, queue);
        }
        decide(&s);
        actions += apply(&s);
        early += t < 1200 ? s.count : 0;
        CU_ASSERT(queue < 75);
    }
    /* 240 tasks change level 12 times; few of them move the fleet. */
    CU_ASSERT(actions - early < 240);
    CU_ASSERT(busy / up > 0.6);
    site_fini(&s);
}

/* Random gaps between tasks: idle cost and restarts together are at most
 * twice what the best policy that knows the gaps would pay. */
static void test_ski_rental(void)
{
    struct site s;
    fm_rng_t rng;
    double ours = 0;
    double best = 0;

    site_init(&s, NULL);
    s.class_count = 1;
    s.classes[SLOW].min = 0;
    fm_rng_init(&rng, 4);
    const double even = 60 + 60 * 2; /* the last of its kind, as above */
    for (int i = 0; i < 300; i++) {
        double gap = 1 + 900 * pow(fm_rng_uniform(&rng), 3);
        s.worker_count = 0;
        add_worker(&s, SLOW, 0);
        int64_t end = s.now_ns + (int64_t)(gap * 1e9);
        int64_t begin = s.now_ns;
        bool gone = false;
        while (!gone) {
            decide(&s);
            gone = total(&s, FM_SCALE_DRAIN, SLOW) > 0;
            if (gone || fm_scale_wake_ns(s.scale) >= end) {
                break;
            }
            CU_ASSERT_FATAL(fm_scale_wake_ns(s.scale) > s.now_ns);
            s.now_ns = fm_scale_wake_ns(s.scale);
        }
        ours += gone ? (double)(s.now_ns - begin) * 1e-9 + even : gap;
        best += gap < even ? gap : even;
        s.now_ns = end;
    }
    CU_ASSERT(ours <= 2 * best && ours > best);
    site_fini(&s);
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

static void test_work_at_risk(void)
{
    struct site s;

    /* An hour is left on a $6 worker; idle $1 workers run as fast. */
    site_init(&s, NULL);
    s.classes[FAST].device_class = slow_device;
    fm_scale_worker_t *w = add_worker(&s, FAST, -3600);
    w->at_risk_s = 60;
    add_worker(&s, SLOW, 10);
    decide(&s);
    const fm_scale_action_t *a = first(&s, FM_SCALE_DRAIN);
    CU_ASSERT_FATAL(a != NULL && s.count == 1);
    CU_ASSERT(a->worker == w->id && a->reason == FM_SCALE_MOVE && a->now &&
              a->at_risk_s >= 60 && a->saves_dollars > 1.25 * a->costs_dollars);
    /* Where more would be lost than saved it goes on. */
    w->at_risk_s = 5 * 3600;
    decide(&s);
    CU_ASSERT(s.count == 0);
    w->at_risk_s = 60;
    w->free_at_ns = NOW + 20 * S;
    decide(&s);
    CU_ASSERT(s.count == 0);
    /* Nor where the cheap one has not the memory, or is needed. */
    w->free_at_ns = NOW + 3600 * S;
    w->memory_bytes = 46 * GIB;
    decide(&s);
    CU_ASSERT(s.count == 0);
    w->memory_bytes = 20 * GIB;
    add_row(&s, 1, 100, 1);
    decide(&s);
    CU_ASSERT(first(&s, FM_SCALE_DRAIN) == NULL);
    site_fini(&s);
}

static void test_above_max(void)
{
    struct site s;

    /* Six of at most two: idle, then starting, then the busy one with least
     * to lose, which ends its batch first. */
    site_init(&s, NULL);
    s.classes[SLOW].max = 2;
    for (int i = 0; i < 4; i++) {
        add_worker(&s, SLOW, -1000)->at_risk_s = 100 * (i + 1);
    }
    add_worker(&s, SLOW, 0);
    add_worker(&s, SLOW, -30)->starting = true;
    decide(&s);
    CU_ASSERT(s.count == 4);
    const uint32_t order[] = {1004, 1005, 1000, 1001};
    for (size_t i = 0; i < s.count; i++) {
        CU_ASSERT(s.actions[i].worker == order[i] &&
                  s.actions[i].reason == FM_SCALE_MAX &&
                  s.actions[i].now == (i < 2));
    }
    /* Those that drain count no more. */
    for (size_t i = 0; i < s.worker_count; i++) {
        s.workers[i].draining = i != 2 && i != 3;
    }
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

/* Random sites: the same twice, and within every bound. */
static void random_site(struct site *s, fm_rng_t *rng)
{
    s->row_count = fm_rng_below(rng, 20);
    size_t rows = s->row_count;
    s->row_count = 0;
    for (size_t i = 0; i < rows; i++) {
        fm_scale_demand_t *row = add_row(
            s, 1 + (uint32_t)fm_rng_below(rng, 500),
            0.01 + 100 * fm_rng_uniform(rng), (double)fm_rng_below(rng, 30));
        row->size_max = (uint32_t)fm_rng_below(rng, 64);
        row->task_type = (uint32_t)fm_rng_below(rng, 3);
        row->memory_bytes = fm_rng_below(rng, 90) * GIB;
        row->item_memory_bytes = fm_rng_below(rng, 2) * GIB;
        row->model = fm_rng_below(rng, 2) ? &model_a : &model_b;
        row->model_bytes = 1e9 * (double)fm_rng_below(rng, 100);
        row->ready_in_s =
            (double)fm_rng_below(rng, 2) * 300 * fm_rng_uniform(rng);
        row->oldest_ns = s->now_ns - (int64_t)fm_rng_below(rng, 500) * S;
        row->deadline_ns =
            fm_rng_below(rng, 3)
                ? 0
                : s->now_ns + (int64_t)fm_rng_below(rng, 900) * S;
    }
    s->worker_count = 0;
    for (uint64_t n = fm_rng_below(rng, 60); n > 0; n--) {
        fm_scale_worker_t *w = add_worker(s, (uint32_t)fm_rng_below(rng, 2),
                                          400 * fm_rng_uniform(rng) - 200);
        w->starting = fm_rng_below(rng, 8) == 0;
        w->draining = fm_rng_below(rng, 8) == 0;
        w->at_risk_s = 100 * fm_rng_uniform(rng);
        w->resident = &model_a;
        w->resident_count = fm_rng_below(rng, 2);
    }
    for (int c = 0; c < 2; c++) {
        s->classes[c].max = (uint32_t)fm_rng_below(rng, 60);
        s->classes[c].min = (uint32_t)fm_rng_below(rng, s->classes[c].max + 1);
    }
}

static void check_bounds(const struct site *s)
{
    int live[2] = {0};
    int all[2] = {0};

    for (size_t i = 0; i < s->worker_count; i++) {
        live[s->workers[i].class_index] += !s->workers[i].draining;
        all[s->workers[i].class_index]++;
    }
    for (uint32_t c = 0; c < 2; c++) {
        int starts = (int)total(s, FM_SCALE_START, c);
        int drains = (int)total(s, FM_SCALE_DRAIN, c);
        int max = (int)s->classes[c].max;
        int min = (int)s->classes[c].min;
        CU_ASSERT(starts == 0 || all[c] + starts <= max);
        CU_ASSERT(drains == 0 || live[c] - drains >= min);
        CU_ASSERT(live[c] - drains <= max);
        CU_ASSERT(live[c] + starts >= min || all[c] + starts >= max);
    }
    /* No worker twice; nobody's work is dropped but by a move that pays. */
    for (size_t i = 0; i < s->count; i++) {
        const fm_scale_action_t *a = &s->actions[i];
        for (size_t j = 0; a->kind == FM_SCALE_DRAIN && j < i; j++) {
            CU_ASSERT(s->actions[j].kind != FM_SCALE_DRAIN ||
                      s->actions[j].worker != a->worker);
        }
        CU_ASSERT(a->kind != FM_SCALE_DRAIN || !a->now || a->at_risk_s <= 0 ||
                  a->saves_dollars > a->costs_dollars);
    }
}

static void test_random(void)
{
    static struct site s;
    static struct site twin;
    fm_rng_t rng;

    site_init(&s, NULL);
    site_init(&twin, NULL);
    fm_rng_init(&rng, 77);
    for (int i = 0; i < 400; i++) {
        s.now_ns += (int64_t)fm_rng_below(&rng, 60) * S;
        random_site(&s, &rng);
        fm_scale_t *own = twin.scale;
        twin = s;
        twin.scale = own;
        decide(&s);
        decide(&twin);
        check_bounds(&s);
        CU_ASSERT(s.count == twin.count &&
                  fm_scale_wake_ns(s.scale) == fm_scale_wake_ns(twin.scale));
        for (size_t a = 0; a < s.count; a++) {
            char x[256];
            char y[256];
            fm_scale_action_text(&s.actions[a], NULL, x, sizeof(x));
            fm_scale_action_text(&twin.actions[a], NULL, y, sizeof(y));
            CU_ASSERT_STRING_EQUAL(x, y);
        }
    }
    site_fini(&s);
    site_fini(&twin);
}

static void test_no_memory(void)
{
    static struct site s;
    fm_rng_t rng;
    fm_error_t err = {0};
    fm_status_t rc = FM_ERR_NO_MEMORY;
    int failed = 0;

    site_init(&s, NULL);
    fm_rng_init(&rng, 5);
    random_site(&s, &rng);
    add_worker(&s, SLOW, 50);
    for (int n = 1; rc != FM_OK && n < 100; n++) {
        char spec[32];
        (void)snprintf(spec, sizeof(spec), "base.alloc:%d", n);
        s.count = 4711;
        (void)fm_fault_arm(spec);
        rc = try_decide(&s, ACTIONS, &err);
        (void)fm_fault_arm(NULL);
        CU_ASSERT(rc == FM_OK || (rc == FM_ERR_NO_MEMORY && s.count == 4711));
        failed += rc != FM_OK;
    }
    CU_ASSERT(rc == FM_OK && failed >= 6);
    site_fini(&s);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"from zero", test_from_zero},
        {"burst", test_burst},
        {"starting workers count", test_starting_counts},
        {"existing capacity first", test_idle_capacity_is_used_first},
        {"tail", test_tail},
        {"a wanted model stays", test_wanted_model_stays},
        {"rotation hides no surplus", test_rotation_hides_no_surplus},
        {"hysteresis under noise", test_hysteresis},
        {"ski rental", test_ski_rental},
        {"deadline", test_deadline},
        {"class choice", test_class_choice},
        {"spread or consolidate", test_spread_or_consolidate},
        {"successors", test_successors},
        {"work at risk", test_work_at_risk},
        {"above max", test_above_max},
        {"bounds", test_bounds},
        {"refused input", test_refused},
        {"random sites", test_random},
        {"fault: memory is out", test_no_memory},
    };
    int rc = 2;
    if (make_cost()) {
        rc = fm_test_main("scale", cases, sizeof(cases) / sizeof(cases[0]));
    }
    fm_cost_destroy(cost);
    return rc;
}
