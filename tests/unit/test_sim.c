/* SPDX-License-Identifier: Apache-2.0 */
/* sim: cases with closed forms, then what must hold of every run. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "fmtest.h"
#include "role/sim/sim.h"

#define GIB (UINT64_C(1) << 30)
#define S INT64_C(1000000000)

static bool close_to(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fmax(1, fabs(b));
}

/* --- a source over an array -------------------------------------------------
 */

struct list {
    const fm_sim_workflow_t *workflows;
    size_t count, next;
};

static fm_status_t list_next(void *ctx, fm_sim_workflow_t *out, bool *more_out,
                             fm_error_t *err)
{
    struct list *list = ctx;

    (void)err;
    *more_out = list->next < list->count;
    if (*more_out) {
        *out = list->workflows[list->next++];
    }
    return FM_OK;
}

static fm_sim_result_t run(fm_sim_input_t input,
                           const fm_sim_workflow_t *workflows, size_t count)
{
    struct list list = {workflows, count, 0};
    fm_sim_result_t result = {0};
    fm_error_t err = {0};

    input.source = list_next;
    input.source_ctx = &list;
    FM_ASSERT_OK(fm_sim_run(&input, &result, &err), &err);
    return result;
}

/* --- one worker, exact numbers
 * ------------------------------------------------ */

static const fm_sim_class_t gpu = {
    .name = "gpu",
    .device = FM_SCHED_GPU,
    .spec = {.flops_per_s = 1e14, .bytes_per_s = 1e12},
    .memory_bytes = 24 * GIB,
    .price_per_hour = 3.6,
    .watts = 300,
    .idle_watts = 50,
    .load_bytes_per_s = 1e9,
    .count = 1};

static const fm_sim_model_t small = {.name = "small",
                                     .parameters = 1e9,
                                     .weight_bytes = UINT64_C(2000000000),
                                     .kv_bytes_per_token = 1};

static fm_sim_stage_t fixed(double seconds, uint32_t items)
{
    return (fm_sim_stage_t){.name = "fixed",
                            .work = FM_SIM_FIXED,
                            .kind = FM_SCHED_OTHER,
                            .model = FM_SIM_NONE,
                            .model_of = FM_SIM_NONE,
                            .adapter_of = FM_SIM_NONE,
                            .items = items,
                            .seconds = seconds};
}

static fm_sim_stage_t train(double samples)
{
    fm_sim_stage_t stage = fixed(0, 1);

    stage.work = FM_SIM_TRAIN;
    stage.kind = FM_SCHED_TRAINING;
    stage.task_type = 1;
    stage.model = 0;
    stage.samples = samples;
    stage.sequence = 256;
    stage.memory_bytes = 20 * GIB;
    return stage;
}

static fm_sim_stage_t infer(uint32_t items)
{
    fm_sim_stage_t stage = fixed(0, items);

    stage.work = FM_SIM_INFERENCE;
    stage.kind = FM_SCHED_INFERENCE;
    stage.task_type = 2;
    stage.model = 0;
    stage.tokens_in = 100;
    stage.tokens_out = 50;
    stage.memory_bytes = 10 * GIB;
    return stage;
}

static fm_sim_input_t one_worker(const fm_sim_class_t *class)
{
    return (fm_sim_input_t){.seed = 1,
                            .models = &small,
                            .model_count = 1,
                            .classes = class,
                            .class_count = 1};
}

static void test_one_stage(void)
{
    const fm_sim_stage_t stage = fixed(10, 1);
    const fm_sim_workflow_t workflow = {
        .tenant = "a", .stages = &stage, .stage_count = 1};
    fm_sim_result_t r = run(one_worker(&gpu), &workflow, 1);

    CU_ASSERT(r.complete && r.done == 1 && r.failed == 0);
    CU_ASSERT(close_to(r.makespan_s, 10) && close_to(r.cost, 0.01));
    CU_ASSERT(close_to(r.joules, 3000) && close_to(r.utilisation, 1));
    CU_ASSERT(r.planned == 1 && r.ran == 1 && r.leases == 1);
    CU_ASSERT(close_to(r.total.p50, 10));
    fm_sim_result_fini(&r);
}

static void test_inference(void)
{
    const fm_sim_stage_t stage = infer(8);
    const fm_sim_workflow_t workflow = {
        .tenant = "a", .stages = &stage, .stage_count = 1};
    fm_sim_input_t input = one_worker(&gpu);
    /* load; call; prefill 2·P·8·100 / F; 50 steps of weights and KV */
    double execute =
        0.05 + 2e9 * 800 / 1e14 + (50 * 2e9 + 8 * 50 * (100 + 25.0)) / 1e12;
    fm_sim_result_t r = run(input, &workflow, 1);

    CU_ASSERT(r.loads == 1 && close_to(r.load_bytes, 2e9));
    CU_ASSERT(close_to(r.load_s, 2) && close_to(r.makespan_s, 2 + execute));
    /* loading draws idle power */
    CU_ASSERT(close_to(r.joules, 2 * 50 + execute * 300));
    CU_ASSERT(r.leases == 1 && close_to(r.batch_mean, 8));
    CU_ASSERT(close_to(r.tokens, 400));
    fm_sim_result_fini(&r);
}

static void test_two_stages_wait(void)
{
    const uint32_t dep = 0;
    fm_sim_stage_t stages[2] = {fixed(4, 1), fixed(6, 1)};
    stages[1].deps = &dep;
    stages[1].dep_count = 1;
    stages[1].dataset = 1;
    const fm_sim_workflow_t workflows[2] = {
        {.tenant = "a", .stages = stages, .stage_count = 2},
        {.tenant = "a",
         .arrival_ns = 30 * S,
         .stages = stages,
         .stage_count = 2}};
    fm_sim_input_t input = one_worker(&gpu);
    fm_sim_result_t r;

    input.ablation.no_dedup = true;
    r = run(input, workflows, 2);
    CU_ASSERT(close_to(r.makespan_s, 40) && close_to(r.busy_s, 20));
    CU_ASSERT(close_to(r.joules, 20 * 300 + 20 * 50));
    CU_ASSERT(close_to(r.total.max, 10));
    fm_sim_result_fini(&r);
    /* the same work a second time is there at once */
    input.ablation.no_dedup = false;
    r = run(input, workflows, 2);
    CU_ASSERT(close_to(r.makespan_s, 30) && close_to(r.busy_s, 10));
    CU_ASSERT(r.planned == 4 && r.ran == 2 && r.shared == 2);
    fm_sim_result_fini(&r);
}

/* Rows 0 … 9 and 6 … 15 of one dataset: 4 are the same work. */
static void test_overlap(void)
{
    fm_sim_stage_t stages[2] = {fixed(1, 10), fixed(1, 10)};
    stages[1].first_row = 6;
    const fm_sim_workflow_t workflows[2] = {
        {.tenant = "a", .stages = &stages[0], .stage_count = 1},
        {.tenant = "b", .stages = &stages[1], .stage_count = 1}};
    fm_sim_input_t input = one_worker(&gpu);
    fm_sim_result_t r = run(input, workflows, 2);

    CU_ASSERT(r.planned == 20 && r.ran == 16 && r.shared == 4);
    CU_ASSERT(close_to(r.busy_s, 16) && r.tenant_count == 2);
    CU_ASSERT(close_to(r.tenants[0].device_s, 8));
    CU_ASSERT(close_to(r.tenants[1].device_s, 8));
    fm_sim_result_fini(&r);
    for (fm_place_policy_t p = FM_PLACE_STATIC_WORKER; p < FM_PLACE_POLICIES;
         p++) {
        input.policy = p;
        r = run(input, workflows, 2);
        CU_ASSERT(r.complete && r.ran == 20 && r.shared == 0);
        CU_ASSERT(close_to(r.busy_s, 20));
        fm_sim_result_fini(&r);
    }
}

/* Arrivals every 10 s, service 8 s: nobody waits; 12 s: each waits 2 s more
 * than the one before. */
static void test_queue(void)
{
    enum { N = 20 };
    static fm_sim_stage_t stages[N];
    static fm_sim_workflow_t workflows[N];
    const double service[] = {8, 12};

    for (size_t v = 0; v < 2; v++) {
        for (uint32_t i = 0; i < N; i++) {
            stages[i] = fixed(service[v], 1);
            stages[i].first_row = i;
            stages[i].batch_max = 1;
            workflows[i] = (fm_sim_workflow_t){.tenant = "a",
                                               .arrival_ns = 10 * S * i,
                                               .stages = &stages[i],
                                               .stage_count = 1};
        }
        fm_sim_result_t r = run(one_worker(&gpu), workflows, N);
        CU_ASSERT(r.complete && close_to(r.busy_s, N * service[v]));
        CU_ASSERT(close_to(r.total.max, v == 0 ? 8 : 12 + 2 * (N - 1)));
        CU_ASSERT(close_to(r.total.mean, v == 0 ? 8 : 12 + (N - 1)));
        fm_sim_result_fini(&r);
    }
}

/* --- failures
 * ------------------------------------------------------------------ */

/* A walltime of 100 s cuts a training of about 250 s: it goes on where it
 * stopped, after the checkpoint is read. */
static void test_walltime_resumes(void)
{
    fm_sim_class_t class = gpu;
    fm_sim_stage_t stage = train(16000);
    const fm_sim_workflow_t workflow = {
        .tenant = "a", .stages = &stage, .stage_count = 1};
    fm_sim_input_t input = one_worker(&class);
    double whole_s;
    fm_sim_result_t r;

    r = run(input, &workflow, 1);
    CU_ASSERT(r.complete && r.requeues == 0);
    whole_s = r.busy_s - r.load_s;
    fm_sim_result_fini(&r);
    class.walltime_s = 100;
    class.startup_s = 1;
    r = run(input, &workflow, 1);
    CU_ASSERT(r.complete && r.walltimes > 0 && r.requeues == r.walltimes);
    CU_ASSERT(close_to(r.busy_s - r.load_s, whole_s) && r.wasted_s <= 0);
    fm_sim_result_fini(&r);
}

static void test_preemption_repeats_what_was_lost(void)
{
    fm_sim_class_t class = gpu;
    fm_sim_stage_t stage = train(1000);
    const fm_sim_workflow_t workflow = {
        .tenant = "a", .stages = &stage, .stage_count = 1};
    fm_sim_input_t input = one_worker(&class);
    double whole_s;
    fm_sim_result_t r = run(input, &workflow, 1);

    whole_s = r.busy_s - r.load_s;
    fm_sim_result_fini(&r);
    input.checkpoint_s = 2;
    input.failures.preempt_mean_s = 15;
    r = run(input, &workflow, 1);
    CU_ASSERT(r.complete && r.preemptions > 0 && r.wasted_s > 0);
    CU_ASSERT(close_to(r.busy_s - r.load_s, whole_s + r.wasted_s));
    CU_ASSERT(r.wasted_s <= 2.0 * (double)r.requeues + 1e-6);
    fm_sim_result_fini(&r);
    /* warned in time, nothing is lost */
    input.failures.warning_s = 1;
    r = run(input, &workflow, 1);
    CU_ASSERT(r.complete && r.preemptions > 0 && r.wasted_s <= 0);
    CU_ASSERT(close_to(r.busy_s - r.load_s, whole_s));
    fm_sim_result_fini(&r);
}

static void test_nothing_fits(void)
{
    fm_sim_stage_t stage = infer(3);
    const fm_sim_workflow_t workflow = {
        .tenant = "a", .stages = &stage, .stage_count = 1};
    fm_sim_input_t input = one_worker(&gpu);
    fm_sim_result_t r;

    stage.memory_bytes = 40 * GIB;
    r = run(input, &workflow, 1);
    CU_ASSERT(!r.complete && r.done == 0 && r.leases == 0);
    fm_sim_result_fini(&r);
    input.failures.preempt_mean_s = 600; /* the fleet never rests */
    r = run(input, &workflow, 1);
    CU_ASSERT(!r.complete && r.done == 0);
    fm_sim_result_fini(&r);
}

static void test_task_errors_fail_in_the_end(void)
{
    const fm_sim_stage_t stage = fixed(1, 4);
    const fm_sim_workflow_t workflow = {
        .tenant = "a", .stages = &stage, .stage_count = 1};
    fm_sim_input_t input = one_worker(&gpu);
    fm_sim_result_t r;

    input.failures.task_error_share = 1;
    r = run(input, &workflow, 1);
    CU_ASSERT(r.complete && r.failed == 1 && r.done == 0);
    CU_ASSERT(r.task_errors >= 3 && r.executed == 0);
    fm_sim_result_fini(&r);
}

/* --- refusals
 * ------------------------------------------------------------------- */

static void refused(const fm_sim_input_t *input, fm_sim_stage_t stage,
                    const char *word)
{
    const fm_sim_workflow_t workflow = {
        .tenant = "a", .stages = &stage, .stage_count = 1};
    struct list list = {&workflow, 1, 0};
    fm_sim_input_t copy = *input;
    fm_sim_result_t result = {0};
    fm_error_t err = {0};

    copy.source = list_next;
    copy.source_ctx = &list;
    CU_ASSERT(fm_sim_run(&copy, &result, &err) < 0);
    CU_ASSERT(strstr(err.text, word) != NULL);
    CU_ASSERT(result.timeline == NULL);
}

static void test_refusals(void)
{
    fm_sim_class_t class = gpu;
    fm_sim_input_t input = one_worker(&class);
    fm_sim_stage_t stage = fixed(1, 1);
    uint32_t self = 0;

    stage.items = 0;
    refused(&input, stage, "workflow 0: stage 0");
    stage = fixed(1, 1);
    stage.model = 0;
    refused(&input, stage, "model");
    stage = infer(1);
    stage.model = 7;
    refused(&input, stage, "model");
    stage = fixed(1, 1);
    stage.deps = &self;
    stage.dep_count = 1;
    refused(&input, stage, "depends on stage 0");
    class.price_per_hour = -1;
    refused(&input, fixed(1, 1), "class gpu");
    class = gpu;
    class.count = 0;
    refused(&input, fixed(1, 1), "no worker");
    class = gpu;
    input.noise = NAN;
    refused(&input, fixed(1, 1), "input");
}

static const fm_test_case_t cases[] = {
    {"one worker, one stage: seconds, dollars, joules", test_one_stage},
    {"inference: load, prefill, decode", test_inference},
    {"two stages, idle between; equal work is shared", test_two_stages_wait},
    {"overlapping rows are shared, but not by baselines", test_overlap},
    {"a queue below and above its capacity", test_queue},
    {"training goes on after its walltime", test_walltime_resumes},
    {"preemption repeats what was lost", test_preemption_repeats_what_was_lost},
    {"what fits nowhere ends the run", test_nothing_fits},
    {"task errors fail an operator", test_task_errors_fail_in_the_end},
    {"bad input is refused", test_refusals},
};

int main(void)
{
    return fm_test_main("sim", cases, FM_COUNT_OF(cases));
}
