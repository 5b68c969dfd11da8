/* SPDX-License-Identifier: Apache-2.0 */
/* place: each baseline's definition, filters that all share, a random soak. */
#include <stdlib.h>

#include "base/fault.h"
#include "base/rng.h"
#include "fmtest.h"
#include "place_fixture.h"

static fix_t fix;

static fix_flow_t flow_of(uint32_t nodes, uint32_t items, uint64_t memory)
{
    fix_flow_t flow = {.node_count = nodes, .memory_bytes = memory};

    for (uint32_t n = 0; n < nodes; n++) {
        flow.nodes[n] = (fix_node_t){.task = {.kind = FM_SCHED_INFERENCE,
                                              .size_max = 16,
                                              .memory_bytes = memory},
                                     .items = items,
                                     .batch = n};
    }
    return flow;
}

static void fleet(fm_place_policy_t policy, uint32_t count, uint64_t memory)
{
    fix_open(&fix, policy);
    for (uint32_t w = 0; w < count; w++) {
        fix_put(&fix, fix_worker(w, memory));
    }
}

static void test_names(void)
{
    static const char *const names[] = {"flowmesh", "static_worker",
                                        "fixed_pipeline", "round_robin",
                                        "adaptive"};
    fm_place_policy_t found = FM_PLACE_POLICIES;

    for (uint32_t p = 0; p < FM_PLACE_POLICIES; p++) {
        fm_place_policy_t policy = (fm_place_policy_t)p;
        CU_ASSERT_STRING_EQUAL(fm_place_policy_name(policy), names[p]);
        CU_ASSERT(fm_place_policy_find(names[p], &found) && found == policy);
        CU_ASSERT_EQUAL(fm_place_policy_isolates(policy),
                        policy != FM_PLACE_FLOWMESH);
        CU_ASSERT_EQUAL(fm_place_policy_merges(policy),
                        policy == FM_PLACE_ADAPTIVE);
    }
    CU_ASSERT_FALSE(fm_place_policy_find("fifo", &found));
}

static void test_isolate(void)
{
    fm_digest_t key = fm_sha256("a", 1);
    fm_digest_t of[] = {
        key, fm_place_isolate(&key, 0, 0), fm_place_isolate(&key, 1, 0),
        fm_place_isolate(&key, 0, 1), fm_place_isolate(&key, 0, FM_PLACE_NONE)};
    fm_digest_t again = fm_place_isolate(&key, 0, 1);

    for (size_t i = 0; i < 5; i++) {
        for (size_t j = 0; j < i; j++) {
            CU_ASSERT_FALSE(fm_digest_equal(&of[i], &of[j]));
        }
    }
    CU_ASSERT_TRUE(fm_digest_equal(&of[3], &again));
}

/* --- what all baselines share -------------------------------------------- */

static const fm_place_policy_t baselines[] = {
    FM_PLACE_STATIC_WORKER, FM_PLACE_FIXED_PIPELINE, FM_PLACE_ROUND_ROBIN,
    FM_PLACE_ADAPTIVE};

static void test_whole_node(void)
{
    for (size_t p = 0; p < 4; p++) {
        fleet(baselines[p], 2, 24 * FIX_GB);
        fix_flow_t flow = flow_of(1, 60, 22 * FIX_GB);
        flow.nodes[0].task.item_memory_bytes = FIX_GB; /* two fit at once */
        (void)fix_submit(&fix, &flow);
        CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
        CU_ASSERT_EQUAL(fix.last.size, 60);
        CU_ASSERT_EQUAL(fix.workers[fix.last.worker].items, 60);
        CU_ASSERT_DOUBLE_EQUAL(fix.last.seconds, 240, 1); /* 0.25 a second */
        fix_close(&fix);
    }
}

static void test_whole_max(void)
{
    for (size_t p = 0; p < 4; p++) {
        fleet(baselines[p], 1, 24 * FIX_GB);
        fix_flow_t flow = flow_of(1, 60, 22 * FIX_GB);
        flow.nodes[0].task.whole_max = 25;
        uint32_t id = fix_submit(&fix, &flow);
        CU_ASSERT_TRUE(fix_place(&fix));
        CU_ASSERT_EQUAL(fix.workers[0].items, 25);
        fix_run(&fix);
        CU_ASSERT_EQUAL(fix_state(&fix, id), FM_POOL_DONE);
        CU_ASSERT_EQUAL(fix.lease_count, 3);
        fix_close(&fix);
    }
}

static void test_arrival_order(void)
{
    for (size_t p = 0; p < 4; p++) {
        fleet(baselines[p], 1, 24 * FIX_GB);
        for (uint32_t f = 0; f < 4; f++) {
            fix_flow_t flow = flow_of(1, 2, 0);
            flow.nodes[0].batch = f;
            flow.priority = f == 2 ? 7 : 0;
            fix.now_ns += FIX_S;
            (void)fix_submit(&fix, &flow);
        }
        static const uint32_t order[] = {2, 0, 1, 3};
        for (size_t i = 0; i < 4; i++) {
            CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
            CU_ASSERT_EQUAL(fix.workers[0].workflow, order[i]);
            fix_finish(&fix, 0, FM_POOL_OK);
        }
        fix_close(&fix);
    }
}

/* A task that nothing idle fits does not hold up the ones behind it. */
static void test_passes_over(void)
{
    for (size_t p = 0; p < 4; p++) {
        fleet(baselines[p], 2, 24 * FIX_GB);
        fix_flow_t large = flow_of(1, 2, 46 * FIX_GB);
        fix_flow_t small = flow_of(1, 2, 22 * FIX_GB);
        small.nodes[0].batch = 9;
        (void)fix_submit(&fix, &large);
        fix.now_ns += FIX_S;
        (void)fix_submit(&fix, &small);
        CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
        CU_ASSERT_EQUAL(fix.workers[fix.last.worker].workflow, 1);
        CU_ASSERT_EQUAL(fix_explain(&fix, 0, 0).verdict, FM_SCHED_WAIT_MEMORY);
        fix_close(&fix);
    }
}

/* Nor does one that is too long for the walltime that is left. */
static void test_passes_over_long(void)
{
    for (size_t p = 0; p < 4; p++) {
        fix_open(&fix, baselines[p]);
        fm_sched_worker_t worker = fix_worker(0, 0);
        worker.walltime_end_ns = 100 * FIX_S;
        fix_put(&fix, worker);
        for (uint32_t f = 0; f < 2; f++) {
            fix_flow_t flow = flow_of(1, f == 0 ? 60 : 2, 0);
            flow.nodes[0].batch = f;
            fix.now_ns += FIX_S;
            (void)fix_submit(&fix, &flow);
        }
        CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
        CU_ASSERT_EQUAL(fix.workers[0].workflow, 1);
        fix_close(&fix);
    }
}

static void test_retry_avoids(void)
{
    for (size_t p = 2; p < 4; p++) {
        fleet(baselines[p], 2, 24 * FIX_GB);
        fix_flow_t flow = flow_of(1, 2, 0);
        (void)fix_submit(&fix, &flow);
        CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
        uint32_t first = fix.last.worker;
        fix_finish(&fix, first, FM_POOL_TASK_ERROR);
        CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
        CU_ASSERT_EQUAL(fix.last.worker, 1 - first);
        CU_ASSERT_FALSE(fix.last.avoid_waived);
        fix_drop(&fix, 1 - first); /* no other is left: it may try again */
        CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
        CU_ASSERT_EQUAL(fix.last.worker, first);
        CU_ASSERT_TRUE(fix.last.avoid_waived);
        fix_close(&fix);
    }
}

/* --- the filters, under every policy ------------------------------------- */

struct filter {
    fm_sched_verdict_t verdict;
    fm_place_task_t task;
    fm_sched_worker_t unfit, fit;
};

static void filter_check(fm_place_policy_t policy, const struct filter *filter)
{
    fix_open(&fix, policy);
    fix_flow_t flow = flow_of(1, 2, 0);
    flow.nodes[0].task = filter->task;
    fix_put(&fix, filter->unfit);
    uint32_t id = fix_submit(&fix, &flow);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 0);
    CU_ASSERT_EQUAL(fix_explain(&fix, id, 0).verdict, filter->verdict);
    fix_put(&fix, filter->fit);
    fm_place_verdict_t why = fix_explain(&fix, id, 0);
    CU_ASSERT_EQUAL(why.verdict, FM_SCHED_PLACE);
    CU_ASSERT(why.text != NULL && why.text[0] != '\0');
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
    CU_ASSERT_EQUAL(fix.last.worker, 1);
    fix_close(&fix);
}

static void test_filters(void)
{
    fm_sched_worker_t base[2] = {fix_worker(0, 24 * FIX_GB),
                                 fix_worker(1, 24 * FIX_GB)};
    struct filter list[5] = {
        {.verdict = FM_SCHED_WAIT_TASK_TYPE, .task = {.task_type = 5}},
        {.verdict = FM_SCHED_WAIT_DEVICE, .task = {.device = FM_SCHED_GPU}},
        {.verdict = FM_SCHED_WAIT_MEMORY,
         .task = {.memory_bytes = 22 * FIX_GB,
                  .item_memory_bytes = 3 * FIX_GB}},
        {.verdict = FM_SCHED_WAIT_WALLTIME, .task = {.size_max = 2}},
        {.verdict = FM_SCHED_WAIT_NO_WORKERS, .task = {.task_type = 0}},
    };

    for (size_t i = 0; i < 5; i++) {
        list[i].unfit = base[0];
        list[i].fit = base[1];
    }
    list[0].unfit.task_types = 1;
    list[1].unfit.device = FM_SCHED_CPU;
    list[2].fit.memory_bytes = 25 * FIX_GB;
    list[3].unfit.walltime_end_ns = 3 * FIX_S; /* an item takes 4 s */
    list[3].fit.walltime_end_ns = 600 * FIX_S;
    list[4].unfit.closed = true;
    for (uint32_t p = 0; p < FM_PLACE_POLICIES; p++) {
        for (size_t i = 0; i < 5; i++) {
            filter_check((fm_place_policy_t)p, &list[i]);
        }
    }
}

static void test_walltime_checkpoint(void)
{
    for (uint32_t p = 0; p < FM_PLACE_POLICIES; p++) {
        fix_open(&fix, (fm_place_policy_t)p);
        fm_sched_worker_t worker = fix_worker(0, 0);
        worker.walltime_end_ns = 120 * FIX_S;
        fix_put(&fix, worker);
        fix_flow_t flow = flow_of(1, 60, 0);
        flow.nodes[0].task.size_max = 60;
        flow.nodes[0].task.checkpointable = true; /* 240 s, 119 are left */
        (void)fix_submit(&fix, &flow);
        CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
        fix_close(&fix);
    }
}

static void test_gang(void)
{
    for (uint32_t p = 0; p < FM_PLACE_POLICIES; p++) {
        fix_open(&fix, (fm_place_policy_t)p);
        fix_flow_t flow = flow_of(1, 1, 0);
        flow.nodes[0].task.gang = 3;
        fix_put(&fix, fix_worker(0, 0)); /* domains are of four */
        fix_put(&fix, fix_worker(1, 0));
        fix_put(&fix, fix_worker(4, 0));
        fix_put(&fix, fix_worker(5, 0));
        uint32_t id = fix_submit(&fix, &flow);
        CU_ASSERT_EQUAL(fix_place_all(&fix), 0);
        CU_ASSERT(fix_explain(&fix, id, 0).verdict >= FM_SCHED_WAIT_GANG);
        fix_put(&fix, fix_worker(6, 0));
        CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
        CU_ASSERT_EQUAL(fix.last.gang, 3);
        for (uint32_t i = 0; i < 3; i++) {
            CU_ASSERT(fix.last.workers[i] >= 4);
        }
        fix_run(&fix);
        CU_ASSERT_EQUAL(fix_state(&fix, id), FM_POOL_DONE);
        fix_close(&fix);
    }
}

/* --- static_worker ------------------------------------------------------- */

static void test_static_reserves(void)
{
    fleet(FM_PLACE_STATIC_WORKER, 1, 24 * FIX_GB);
    fix_flow_t flow = flow_of(2, 4, 22 * FIX_GB);
    uint32_t a = fix_submit(&fix, &flow);
    fix.now_ns += FIX_S;
    uint32_t b = fix_submit(&fix, &flow);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
    CU_ASSERT_EQUAL(fm_place_reserved_for(fix.place, 0), a);
    fix_finish(&fix, 0, FM_POOL_OK);
    /* idle between the stages, and b has waited longer than a's next stage */
    CU_ASSERT_STRING_EQUAL(fix_explain(&fix, b, 0).text,
                           "every worker that fits its workflow is busy or "
                           "reserved for another workflow");
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
    CU_ASSERT_EQUAL(fix.workers[0].workflow, a);
    CU_ASSERT_STRING_EQUAL(fix_explain(&fix, b, 0).text,
                           "every worker that fits its workflow is busy or "
                           "reserved for another workflow");
    fix_finish(&fix, 0, FM_POOL_OK);
    CU_ASSERT_EQUAL(fix_state(&fix, a), FM_POOL_DONE);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1); /* released */
    CU_ASSERT_EQUAL(fm_place_reserved_for(fix.place, 0), b);
    fix_run(&fix);
    CU_ASSERT_EQUAL(fix_state(&fix, b), FM_POOL_DONE);
    CU_ASSERT_EQUAL(fm_place_reserved_for(fix.place, 0), FM_PLACE_NONE);
    fix_close(&fix);
}

/* Bound to one worker even where others are idle, and never to a second. */
static void test_static_one_worker(void)
{
    fleet(FM_PLACE_STATIC_WORKER, 3, 24 * FIX_GB);
    fix_flow_t flow = flow_of(3, 4, 22 * FIX_GB);
    flow.nodes[1].apart = flow.nodes[2].apart = true;
    uint32_t id = fix_submit(&fix, &flow);
    for (uint32_t n = 0; n < 3; n++) {
        CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
        CU_ASSERT_EQUAL(fix.last.worker, 0);
        if (n < 2) {
            CU_ASSERT_STRING_EQUAL(
                fix_explain(&fix, id, 2).text,
                "the worker that its workflow is bound to is busy");
        }
        fix_finish(&fix, 0, FM_POOL_OK);
    }
    CU_ASSERT_EQUAL(fix_state(&fix, id), FM_POOL_DONE);
    fix_close(&fix);
}

/* The smallest that fits the heaviest need, not the need of the first node. */
static void test_static_heaviest_need(void)
{
    fix_open(&fix, FM_PLACE_STATIC_WORKER);
    fix_put(&fix, fix_worker(0, 80 * FIX_GB));
    fix_put(&fix, fix_worker(1, 24 * FIX_GB));
    fix_put(&fix, fix_worker(2, 48 * FIX_GB));
    fix_flow_t flow = flow_of(2, 4, 22 * FIX_GB);
    uint32_t small = fix_submit(&fix, &flow);
    flow.memory_bytes = flow.nodes[1].task.memory_bytes = 46 * FIX_GB;
    uint32_t large = fix_submit(&fix, &flow);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 2);
    CU_ASSERT_EQUAL(fm_place_reserved_for(fix.place, 1), small);
    CU_ASSERT_EQUAL(fm_place_reserved_for(fix.place, 2), large);
    CU_ASSERT_EQUAL(fm_place_reserved_for(fix.place, 0), FM_PLACE_NONE);
    fix_close(&fix);
}

static void test_static_released_by_cancel(void)
{
    fleet(FM_PLACE_STATIC_WORKER, 1, 0);
    fix_flow_t flow = flow_of(2, 4, 0);
    uint32_t a = fix_submit(&fix, &flow);
    uint32_t b = fix_submit(&fix, &flow);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
    fix_finish(&fix, 0, FM_POOL_OK);
    fix_cancel(&fix, a);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
    CU_ASSERT_EQUAL(fm_place_reserved_for(fix.place, 0), b);
    fix_close(&fix);
}

static void test_static_lost_worker(void)
{
    fleet(FM_PLACE_STATIC_WORKER, 2, 0);
    fix_flow_t flow = flow_of(2, 4, 0);
    uint32_t id = fix_submit(&fix, &flow);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
    fix_drop(&fix, 0);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
    CU_ASSERT_EQUAL(fix.last.worker, 1);
    fix_finish(&fix, 1, FM_POOL_OK);
    fm_sched_worker_t closed = fix_worker(1, 0); /* drains between stages */
    closed.closed = true;
    fix_put(&fix, closed);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 0);
    fix_put(&fix, fix_worker(2, 0));
    fix_run(&fix);
    CU_ASSERT_EQUAL(fix_state(&fix, id), FM_POOL_DONE);
    CU_ASSERT_EQUAL(fix.last.worker, 2);
    fix_close(&fix);
}

/* A worker that can not run the next stage is given up for one that can. */
static void test_static_bound_anew(void)
{
    fix_open(&fix, FM_PLACE_STATIC_WORKER);
    fm_sched_worker_t only[2] = {fix_worker(0, 0), fix_worker(1, 0)};
    only[0].task_types = 1;
    only[1].task_types = 2;
    fix_put(&fix, only[0]);
    fix_put(&fix, only[1]);
    fix_flow_t flow = flow_of(3, 4, 0);
    flow.nodes[1].task.task_type = 1;
    uint32_t id = fix_submit(&fix, &flow);
    fix_run(&fix);
    CU_ASSERT_EQUAL(fix_state(&fix, id), FM_POOL_DONE);
    fix_close(&fix);
}

/* --- fixed_pipeline ------------------------------------------------------ */

static uint32_t submit_type(uint32_t type, uint32_t items)
{
    fix_flow_t flow = flow_of(1, items, 0);

    flow.nodes[0].task.task_type = type;
    flow.nodes[0].batch = type;
    return fix_submit(&fix, &flow);
}

static void test_fixed_half(void)
{
    fleet(FM_PLACE_FIXED_PIPELINE, 5, 0);
    for (uint32_t f = 0; f < 6; f++) {
        (void)submit_type(0, 4 + f);
    }
    CU_ASSERT_EQUAL(fix_place_all(&fix), 2); /* half of five */
    CU_ASSERT_STRING_EQUAL(fix_explain(&fix, 3, 0).text,
                           "its task type holds half of the workers, all "
                           "busy");
    CU_ASSERT_EQUAL(fix_place_all(&fix), 0);
    fix_put(&fix, fix_worker(5, 0)); /* half of six */
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
    (void)submit_type(1, 4);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1); /* another type takes the rest */
    fix_run(&fix);
    CU_ASSERT_EQUAL(fix.lease_count, 7);
    fix_close(&fix);
    fleet(FM_PLACE_FIXED_PIPELINE, 1, 0);
    (void)submit_type(0, 1);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1); /* at least one */
    fix_close(&fix);
}

static void test_fixed_rotates(void)
{
    static const uint32_t order[] = {0, 1, 0, 1};

    fleet(FM_PLACE_FIXED_PIPELINE, 4, 0);
    (void)submit_type(0, 1);
    (void)submit_type(0, 1);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 2); /* workers 0 and 1 are bound */
    fix_finish(&fix, 0, FM_POOL_OK);
    fix_finish(&fix, 1, FM_POOL_OK);
    for (size_t i = 0; i < 4; i++) {
        (void)submit_type(0, 1);
        CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
        CU_ASSERT_EQUAL(fix.last.worker, order[i]);
        fix_finish(&fix, fix.last.worker, FM_POOL_OK);
    }
    fix_close(&fix);
}

static void test_fixed_steals(void)
{
    fleet(FM_PLACE_FIXED_PIPELINE, 2, 0);
    (void)submit_type(0, 4);
    (void)submit_type(1, 4);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 2); /* 0 has worker 0, 1 worker 1 */
    uint32_t third = submit_type(2, 4);
    uint32_t more = submit_type(0, 4);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 0);
    fix_finish(&fix, 0, FM_POOL_OK);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1); /* 0 has more: not robbed */
    CU_ASSERT_EQUAL(fix.workers[0].workflow, more);
    CU_ASSERT_STRING_EQUAL(fix_explain(&fix, third, 0).text,
                           "every worker that fits is busy or bound to a task "
                           "type that has work");
    fix_finish(&fix, 0, FM_POOL_OK);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1); /* nothing pending: robbed */
    CU_ASSERT_EQUAL(fix.last.worker, 0);
    CU_ASSERT_EQUAL(fix.workers[0].workflow, third);
    fix_close(&fix);
}

/* The last task that a type has waiting is cancelled: it may be robbed. */
static void test_fixed_steals_after_cancel(void)
{
    fleet(FM_PLACE_FIXED_PIPELINE, 2, 0);
    (void)submit_type(0, 4);
    (void)submit_type(1, 4);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 2);
    fix_flow_t large = flow_of(1, 4, 0);
    large.nodes[0].task.device = FM_SCHED_CPU; /* nobody has one */
    uint32_t waits = fix_submit(&fix, &large);
    uint32_t third = submit_type(2, 4);
    fix_finish(&fix, 0, FM_POOL_OK);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 0);
    fix_cancel(&fix, waits);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
    CU_ASSERT_EQUAL(fix.workers[0].workflow, third);
    fix_close(&fix);
}

/* The type holds its one worker, which failed the task: the other one is taken
 * when that binding ends. */
static void test_fixed_release(void)
{
    fleet(FM_PLACE_FIXED_PIPELINE, 2, 0);
    uint32_t id = submit_type(0, 1);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
    CU_ASSERT_EQUAL(fix.last.worker, 0);
    fix.now_ns = 100 * FIX_S;
    fix_finish(&fix, 0, FM_POOL_TASK_ERROR);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 0);
    CU_ASSERT_EQUAL(fix.wake_ns, 160 * FIX_S);
    fix.now_ns = 160 * FIX_S - 1;
    CU_ASSERT_EQUAL(fix_place_all(&fix), 0);
    fix.now_ns = 160 * FIX_S;
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
    CU_ASSERT_EQUAL(fix.last.worker, 1);
    fix_finish(&fix, 1, FM_POOL_OK);
    CU_ASSERT_EQUAL(fix_state(&fix, id), FM_POOL_DONE);
    fix_close(&fix);
}

static void test_fixed_misfit(void)
{
    fix_open(&fix, FM_PLACE_FIXED_PIPELINE);
    fix_put(&fix, fix_worker(0, 24 * FIX_GB));
    fix_put(&fix, fix_worker(1, 80 * FIX_GB));
    (void)submit_type(0, 1);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1); /* worker 0, all it may hold */
    fix_finish(&fix, 0, FM_POOL_OK);
    fix_flow_t large = flow_of(1, 1, 46 * FIX_GB);
    (void)fix_submit(&fix, &large);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
    CU_ASSERT_EQUAL(fix.last.worker, 1);
    (void)submit_type(0, 1); /* worker 0 was given back, so is free, but the
                                type holds its half again */
    CU_ASSERT_EQUAL(fix_place_all(&fix), 0);
    fix_close(&fix);
}

/* --- round_robin --------------------------------------------------------- */

static void test_round_robin(void)
{
    static const uint32_t order[] = {0, 1, 2, 0, 2, 0};

    fleet(FM_PLACE_ROUND_ROBIN, 3, 24 * FIX_GB);
    for (size_t i = 0; i < 6; i++) {
        if (i == 4) { /* worker 1 is too small for this one */
            fix_put(&fix, fix_worker(1, 8 * FIX_GB));
        }
        fix_flow_t flow = flow_of(1, 1, 22 * FIX_GB);
        (void)fix_submit(&fix, &flow);
        CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
        CU_ASSERT_EQUAL(fix.last.worker, order[i]);
        fix_finish(&fix, fix.last.worker, FM_POOL_OK);
    }
    fix_close(&fix);
}

/* --- adaptive ------------------------------------------------------------ */

/* Four times as fast and twelve times as dear: λ decides. */
static void test_adaptive_lambda(void)
{
    fix_open(&fix, FM_PLACE_ADAPTIVE);
    fm_sched_worker_t fast = fix_worker(1, 0);
    fast.device_class = fix.fast;
    fast.price_per_hour = 12;
    fix_put(&fix, fix_worker(0, 0));
    fix_put(&fix, fast);
    static const struct {
        fm_sched_kind_t kind;
        uint32_t worker;
    } cases[] = {{FM_SCHED_TRAINING, 1}, {FM_SCHED_INFERENCE, 0}};
    for (size_t i = 0; i < 2; i++) {
        fix_flow_t flow = flow_of(1, 4, 0);
        flow.nodes[0].task.kind = cases[i].kind;
        flow.nodes[0].batch = (uint32_t)i;
        (void)fix_submit(&fix, &flow);
        CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
        CU_ASSERT_EQUAL(fix.last.worker, cases[i].worker);
        fix_finish(&fix, fix.last.worker, FM_POOL_OK);
    }
    fix_close(&fix);
}

/* Locality is no term: the holder of the model is not preferred. */
static void test_adaptive_no_locality(void)
{
    fm_digest_t model = fm_sha256("m", 1);
    fm_sched_object_t object = {model, 10 * FIX_GB};

    fix_open(&fix, FM_PLACE_ADAPTIVE);
    fm_sched_worker_t holder = fix_worker(1, 0);
    holder.resident = &model;
    holder.resident_count = 1;
    fix_put(&fix, fix_worker(0, 0));
    fix_put(&fix, holder);
    fix_flow_t flow = flow_of(1, 4, 0);
    flow.nodes[0].task.models = &object;
    flow.nodes[0].task.model_count = 1;
    (void)fix_submit(&fix, &flow);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
    CU_ASSERT_EQUAL(fix.last.worker, 0);
    CU_ASSERT(fix.last.terms.load_s > 10); /* and the load is paid */
    fix_close(&fix);
}

static void test_adaptive_merges_four(void)
{
    fleet(FM_PLACE_ADAPTIVE, 1, 0);
    for (uint32_t f = 0; f < 6; f++) {
        fix_flow_t flow = flow_of(1, 5, 0); /* the same items for everybody */
        (void)fix_submit(&fix, &flow);
    }
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
    CU_ASSERT_EQUAL(fix.workers[0].items, 20);
    CU_ASSERT_DOUBLE_EQUAL(fix.last.seconds, 80, 1);
    fix_finish(&fix, 0, FM_POOL_OK);
    CU_ASSERT_EQUAL(fix_place_all(&fix), 1);
    CU_ASSERT_EQUAL(fix.workers[0].items, 10);
    fix_close(&fix);
}

/* --- soak ---------------------------------------------------------------- */

static void random_worker(fm_rng_t *rng, uint32_t id)
{
    static const uint64_t sizes[] = {24, 48, 80};
    uint64_t size = fm_rng_below(rng, 3);
    fm_sched_worker_t worker = fix_worker(id, sizes[size] * FIX_GB);

    worker.device_class = size == 2 ? fix.fast : fix.slow;
    worker.price_per_hour = 1 + (double)size;
    worker.hazard_per_hour = fm_rng_uniform(rng);
    fix_put(&fix, worker);
}

static void random_flow(fm_rng_t *rng)
{
    static const char *const tenants[] = {"a", "b", "c"};
    fix_flow_t flow = flow_of(1 + (uint32_t)fm_rng_below(rng, FIX_NODES), 1, 0);

    flow.priority = (int32_t)fm_rng_below(rng, 3);
    flow.tenant = tenants[fm_rng_below(rng, 3)];
    for (uint32_t n = 0; n < flow.node_count; n++) {
        fix_node_t *node = &flow.nodes[n];
        bool large = fm_rng_below(rng, 4) == 0;
        node->task.kind = (fm_sched_kind_t)fm_rng_below(rng, FM_SCHED_KINDS);
        node->task.task_type = (uint32_t)fm_rng_below(rng, 3);
        node->task.memory_bytes = (large ? 46 : 22) * FIX_GB;
        /* the needs belong to the batch key */
        node->batch =
            (uint32_t)node->task.kind * 16 + node->task.task_type * 4 + large;
        node->items = 1 + (uint32_t)fm_rng_below(rng, 20);
        node->row = (uint32_t)fm_rng_below(rng, 40);
        node->apart = fm_rng_below(rng, 4) == 0;
        if (node->task.memory_bytes > flow.memory_bytes) {
            flow.memory_bytes = node->task.memory_bytes;
        }
    }
    (void)fix_submit(&fix, &flow);
}

/* A type runs on no more than half of the live workers. */
static void half_check(void)
{
    uint32_t live = 0;
    uint32_t running[64] = {0};

    for (uint32_t w = 0; w < FIX_WORKERS; w++) {
        live += fix.workers[w].up;
        if (fix.workers[w].lease) {
            running[fix.workers[w].type]++;
        }
    }
    CU_ASSERT(running[fix.workers[fix.last.worker].type] <=
              (live / 2 > 1 ? live / 2 : 1));
}

static void soak_event(fm_rng_t *rng)
{
    uint32_t id = (uint32_t)fm_rng_below(rng, 8);

    switch (fm_rng_below(rng, 12)) {
    case 0:
        if (fix.workers[id].up) {
            fix_drop(&fix, id);
        }
        break;
    case 1:
    case 2:
        if (!fix.workers[id].up) {
            random_worker(rng, id);
        }
        break;
    case 3:
        if (fix.workers[id].lease) {
            fix_finish(&fix, id, FM_POOL_TASK_ERROR);
        }
        break;
    case 4:
        if (fix.flow_count > 0) {
            id = (uint32_t)fm_rng_below(rng, fix.flow_count);
            if (fix_state(&fix, id) == FM_POOL_RUNNING && id % 4 == 0) {
                fix_cancel(&fix, id);
            }
        }
        break;
    case 5:
    case 6:
        if (fix.flow_count < 120) {
            random_flow(rng);
        }
        break;
    default:
        (void)fix_step(&fix);
    }
}

static void soak_end(void)
{
    for (uint32_t w = 0; w < 8; w++) {
        if (!fix.workers[w].up) {
            fix_put(&fix, fix_worker(w, (w < 4 ? 24 : 80) * FIX_GB));
        }
    }
    fix_put(&fix, fix_worker(8, 80 * FIX_GB)); /* somebody fits everything */
    fix_run(&fix);
    for (uint32_t f = 0; f < fix.flow_count; f++) {
        fm_pool_state_t state = fix_state(&fix, f);
        CU_ASSERT(state == FM_POOL_DONE || state == FM_POOL_CANCELLED);
    }
}

static void test_soak(void)
{
    for (uint32_t p = 0; p < FM_PLACE_POLICIES; p++) {
        for (uint64_t seed = 1; seed <= 12; seed++) {
            fm_rng_t rng;
            fm_rng_init(&rng, seed);
            fix_open(&fix, (fm_place_policy_t)p);
            for (uint32_t w = 0; w < 8; w++) {
                random_worker(&rng, w);
            }
            for (uint32_t step = 0; step < 600; step++) {
                soak_event(&rng);
                while (fix_place(&fix)) {
                    if (fix.policy == FM_PLACE_FIXED_PIPELINE) {
                        half_check();
                    }
                }
            }
            soak_end();
            fix_close(&fix);
        }
    }
}

/* A stream of small tasks does not starve one that came before them. */
static void test_no_starvation(void)
{
    for (uint32_t p = 0; p < FM_PLACE_POLICIES; p++) {
        fleet((fm_place_policy_t)p, 2, 80 * FIX_GB);
        uint32_t rounds = 0;
        fix_flow_t old = flow_of(1, 8, 46 * FIX_GB);
        old.nodes[0].batch = 77;
        old.priority = -1;
        fix_flow_t young = flow_of(1, 4, 22 * FIX_GB);
        (void)fix_submit(&fix, &young);
        (void)fix_submit(&fix, &young);
        uint32_t id = fix_submit(&fix, &old);
        old.priority = 0;
        for (; rounds < 120 && fix_state(&fix, id) != FM_POOL_DONE; rounds++) {
            young.nodes[0].row = rounds * 4;
            young.priority = -1;
            (void)fix_submit(&fix, &young);
            (void)fix_place_all(&fix);
            (void)fix_step(&fix);
        }
        CU_ASSERT(rounds < 120);
        fix_close(&fix);
    }
}

/* Every allocation fails once; afterwards all is placed as if it had not. */
static void test_fault(void)
{
    for (uint32_t p = 0; p < FM_PLACE_POLICIES; p++) {
        for (int nth = 1; nth < 12; nth++) {
            char spec[32];
            fix_flow_t flow = flow_of(2, 4, 0);
            fix_open(&fix, (fm_place_policy_t)p);
            fix_put(&fix, fix_worker(0, 0));
            uint32_t id = fix_submit(&fix, &flow);
            (void)snprintf(spec, sizeof(spec), "base.alloc:%d", nth);
            fm_place_choice_t choice;
            CU_ASSERT_TRUE(fm_fault_arm(spec));
            (void)fm_place_next(fix.place, fix.now_ns, &choice);
            (void)fm_fault_arm(NULL);
            fix_run(&fix);
            CU_ASSERT_EQUAL(fix_state(&fix, id), FM_POOL_DONE);
            fix_close(&fix);
        }
    }
}

static void test_fault_create(void)
{
    for (uint32_t p = 0; p < FM_PLACE_POLICIES; p++) {
        fm_place_options_t opts = {.policy = (fm_place_policy_t)p};
        fm_pool_t *pool = fm_pool_create(NULL);
        fm_place_t *place = NULL;
        fm_status_t rc = FM_ERR_NO_MEMORY;
        int nth = 0;

        CU_ASSERT_FATAL(pool != NULL);
        while (rc < 0 && nth < 100) {
            char spec[32];
            fm_error_t err = {0};
            (void)snprintf(spec, sizeof(spec), "base.alloc:%d", ++nth);
            CU_ASSERT_TRUE(fm_fault_arm(spec));
            rc = fm_place_create(&opts, pool, NULL, &place, &err);
            (void)fm_fault_arm(NULL);
            CU_ASSERT(rc == FM_OK || (rc == FM_ERR_NO_MEMORY && !place));
        }
        CU_ASSERT(rc == FM_OK && nth > 2);
        fm_place_destroy(place);
        fm_pool_destroy(pool);
    }
}

static void test_refuses(void)
{
    fm_error_t err = {0};
    fm_digest_t key = fm_sha256("k", 1);

    fleet(FM_PLACE_ROUND_ROBIN, 0, 0);
    fm_sched_worker_t worker = fix_worker(FM_SCHED_WORKERS_MAX, 0);
    CU_ASSERT_EQUAL(fm_place_worker_put(fix.place, &worker, &err),
                    FM_ERR_LIMIT);
    worker = fix_worker(0, 0);
    worker.watts = -1;
    CU_ASSERT_EQUAL(fm_place_worker_put(fix.place, &worker, &err),
                    FM_ERR_INVALID);
    CU_ASSERT_EQUAL(fm_place_task_put(fix.place, &key,
                                      &(fm_place_task_t){.task_type = 64},
                                      &err),
                    FM_ERR_INVALID);
    CU_ASSERT_EQUAL(
        fm_place_task_put(
            fix.place, &key,
            &(fm_place_task_t){.model_count = FM_PLACE_MODELS_MAX + 1}, &err),
        FM_ERR_LIMIT);
    fm_place_worker_busy(fix.place, 17, INT64_MIN); /* unknown: ignored */
    fm_place_worker_drop(fix.place, 17);
    fix_close(&fix);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"names", test_names},
        {"isolate", test_isolate},
        {"refuses", test_refuses},
        {"whole node", test_whole_node},
        {"whole node, cut by what a lease carries", test_whole_max},
        {"arrival order, priority first", test_arrival_order},
        {"passes over what does not fit", test_passes_over},
        {"passes over what is too long", test_passes_over_long},
        {"a retry avoids", test_retry_avoids},
        {"filters", test_filters},
        {"walltime and checkpoints", test_walltime_checkpoint},
        {"gang", test_gang},
        {"static_worker: reserved until the end", test_static_reserves},
        {"static_worker: one worker", test_static_one_worker},
        {"static_worker: heaviest need", test_static_heaviest_need},
        {"static_worker: cancelled", test_static_released_by_cancel},
        {"static_worker: lost worker", test_static_lost_worker},
        {"static_worker: bound anew", test_static_bound_anew},
        {"fixed_pipeline: half", test_fixed_half},
        {"fixed_pipeline: rotates", test_fixed_rotates},
        {"fixed_pipeline: steals", test_fixed_steals},
        {"fixed_pipeline: steals after a cancel",
         test_fixed_steals_after_cancel},
        {"fixed_pipeline: released after 60 s", test_fixed_release},
        {"fixed_pipeline: a misfit gives way", test_fixed_misfit},
        {"round_robin", test_round_robin},
        {"adaptive: lambda", test_adaptive_lambda},
        {"adaptive: locality is no term", test_adaptive_no_locality},
        {"adaptive: merges four", test_adaptive_merges_four},
        {"no starvation", test_no_starvation},
        {"soak", test_soak},
        {"fault: deciding", test_fault},
        {"fault: creating", test_fault_create},
    };

    return fm_test_main("place", cases, sizeof(cases) / sizeof(cases[0]));
}
