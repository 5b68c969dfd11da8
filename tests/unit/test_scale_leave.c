/* SPDX-License-Identifier: Apache-2.0 */
/* scale: who leaves, hysteresis, and bounds on random sites (docs/spec/scale.md
 * E8 to E12). */
#include <math.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/rng.h"
#include "scale_fixture.h"

/* Break-even is the start-up time; the last worker that can do its work stays
 * longer by what the next arrival would wait: 60 s · $2 / $1. */
static void test_tail(void)
{
    struct site s;

    site_init(&s, NULL);
    for (int i = 0; i < 4; i++) {
        add_worker(&s, SLOW, 0);
    }
    add_row(&s, 4, 5, 4); /* what has been asked for once may come again */
    decide(&s);
    s.row_count = 0;
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

/* Both classes stand idle, and both could do what has been asked for: the
 * dearer one goes, the cheaper waits for the next.  Where only the dearer can,
 * it is the one that stays. */
static void test_last_of_its_kind(void)
{
    struct site s;

    for (int big = 0; big < 2; big++) {
        site_init(&s, NULL);
        add_worker(&s, SLOW, 0);
        add_worker(&s, FAST, 0);
        add_row(&s, 1, 5, 1)->memory_bytes = (big ? 46 : 20) * GIB;
        decide(&s);
        s.row_count = 0;
        s.now_ns += 60 * S;
        decide(&s);
        CU_ASSERT(total(&s, FM_SCALE_DRAIN, FAST) == (big ? 0 : 1));
        CU_ASSERT(total(&s, FM_SCALE_DRAIN, SLOW) == (big ? 1 : 0));
        site_fini(&s);
    }
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
        {"tail", test_tail},
        {"a wanted model stays", test_wanted_model_stays},
        {"rotation hides no surplus", test_rotation_hides_no_surplus},
        {"hysteresis under noise", test_hysteresis},
        {"ski rental", test_ski_rental},
        {"last of its kind", test_last_of_its_kind},
        {"work at risk", test_work_at_risk},
        {"above max", test_above_max},
        {"random sites", test_random},
        {"fault: memory is out", test_no_memory},
    };

    return scale_main("scale leave", cases, FM_COUNT_OF(cases));
}
