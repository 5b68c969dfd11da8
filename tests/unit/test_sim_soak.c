/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim: what must hold of every run, under every policy and every failure:
 * workflows are done or failed, accounts add up, the same seed does the same.
 */
#include <math.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/rng.h"
#include "fmtest.h"
#include "role/sim/sim.h"

#define GIB (UINT64_C(1) << 30)
#define WORKFLOWS 40u

static const fm_sim_model_t models[] = {
    {.name = "1B",
     .parameters = 1.2e9,
     .weight_bytes = UINT64_C(2500000000),
     .adapter_bytes = 50000000},
    {.name = "3B", .parameters = 3.2e9, .weight_bytes = UINT64_C(6400000000)},
};

static const fm_sim_class_t classes[] = {
    {.name = "24g",
     .device = FM_SCHED_GPU,
     .spec = {.flops_per_s = 6e13, .bytes_per_s = 2.5e11},
     .memory_bytes = 24 * GIB,
     .price_per_hour = 0.8,
     .watts = 70,
     .idle_watts = 15,
     .load_bytes_per_s = 4e8,
     .startup_s = 40,
     .count = 3,
     .max = 4,
     .domain_size = 2},
    {.name = "48g",
     .device = FM_SCHED_GPU,
     .spec = {.flops_per_s = 1.5e14, .bytes_per_s = 6e11},
     .memory_bytes = 48 * GIB,
     .price_per_hour = 1.6,
     .watts = 300,
     .idle_watts = 30,
     .load_bytes_per_s = 4e8,
     .startup_s = 40,
     .count = 3,
     .max = 4,
     .domain_size = 2},
    {.name = "cpu",
     .device = FM_SCHED_CPU,
     .spec = {.flops_per_s = 1e12, .bytes_per_s = 5e10},
     .price_per_hour = 0.1,
     .watts = 50,
     .idle_watts = 10,
     .count = 2,
     .max = 2,
     .startup_s = 5},
};

/* --- random workflows --------------------------------------------------------
 */

struct source {
    fm_rng_t rng;
    uint32_t left;
    double at_s;
    fm_sim_stage_t stages[4];
    uint32_t deps[4];
    char tenant[8];
};

static fm_sim_stage_t stage(fm_sim_work_t work, uint32_t model, uint32_t items)
{
    static const fm_sched_kind_t kinds[] = {
        FM_SCHED_INFERENCE, FM_SCHED_INFERENCE, FM_SCHED_TRAINING,
        FM_SCHED_TRAINING, FM_SCHED_OTHER};

    return (fm_sim_stage_t){.work = work,
                            .kind = kinds[work],
                            .task_type = (uint32_t)work,
                            .model = work == FM_SIM_FIXED ? FM_SIM_NONE : model,
                            .model_of = FM_SIM_NONE,
                            .adapter_of = FM_SIM_NONE,
                            .items = items,
                            .tokens_in = 150,
                            .tokens_out = 60,
                            .spread = 0.4,
                            .samples = 100,
                            .sequence = 256,
                            .seconds = 2,
                            .input_bytes = 1e6,
                            .memory_bytes = work == FM_SIM_FIXED ? 0 : 20 * GIB,
                            .device = work == FM_SIM_FIXED ? FM_SCHED_CPU
                                                           : FM_SCHED_GPU};
}

static fm_status_t next(void *ctx, fm_sim_workflow_t *out, bool *more_out,
                        fm_error_t *err)
{
    struct source *s = ctx;
    uint32_t kind = (uint32_t)fm_rng_below(&s->rng, 4);
    uint32_t count = 2;

    (void)err;
    *more_out = s->left > 0;
    if (s->left == 0) {
        return FM_OK;
    }
    s->left--;
    s->at_s += 10 * fm_rng_uniform(&s->rng);
    (void)snprintf(s->tenant, sizeof(s->tenant), "t%u",
                   (unsigned)fm_rng_below(&s->rng, 3));
    s->stages[0] = stage(FM_SIM_INFERENCE, (uint32_t)fm_rng_below(&s->rng, 2),
                         1 + (uint32_t)fm_rng_below(&s->rng, 60));
    s->stages[0].dataset = 1;
    s->stages[0].first_row = fm_rng_below(&s->rng, 30);
    switch (kind) {
    case 0: /* draft, critique */
        s->stages[1] = stage(FM_SIM_INFERENCE, 0, s->stages[0].items);
        s->stages[1].form = FM_SIM_ROW_OF;
        s->stages[1].parameters = 1;
        break;
    case 1: /* adapter, inference with it */
        s->stages[1] = stage(FM_SIM_TRAIN_LORA, 0, 1);
        s->stages[1].form = FM_SIM_ALL_OF;
        s->stages[2] = stage(FM_SIM_INFERENCE, 0, 20);
        s->stages[2].adapter_of = 1;
        count = 3;
        break;
    case 2: /* data, training, inference with the result, scores */
        s->stages[1] = stage(FM_SIM_FIXED, 0, 3);
        s->stages[1].form = FM_SIM_ALL_OF;
        s->stages[2] = stage(FM_SIM_TRAIN, 0, 1);
        s->stages[2].form = FM_SIM_ALL_OF;
        s->stages[2].memory_bytes = 40 * GIB;
        s->stages[3] = stage(FM_SIM_FORWARD, 0, 25);
        s->stages[3].model_of = 2;
        count = 4;
        break;
    default:
        count = 1;
        break;
    }
    for (uint32_t i = 1; i < count; i++) {
        s->deps[i] = i - 1;
        s->stages[i].deps = &s->deps[i];
        s->stages[i].dep_count = 1;
    }
    *out = (fm_sim_workflow_t){.arrival_ns = (int64_t)(s->at_s * 1e9),
                               .tenant = s->tenant,
                               .category = kind == 0 ? "chat" : "post",
                               .priority = (int32_t)fm_rng_below(&s->rng, 2),
                               .stages = s->stages,
                               .stage_count = count};
    return FM_OK;
}

static fm_sim_input_t defaults(uint64_t seed)
{
    return (fm_sim_input_t){.seed = seed,
                            .models = models,
                            .model_count = FM_COUNT_OF(models),
                            .classes = classes,
                            .class_count = FM_COUNT_OF(classes),
                            .noise = 0.1,
                            .hidden = 0.2,
                            .horizon_s = 10 * 86400.0};
}

static fm_sim_result_t run(fm_sim_input_t input, uint32_t workflows)
{
    struct source source = {.left = workflows};
    fm_sim_result_t result = {0};
    fm_error_t err = {0};

    fm_rng_init(&source.rng, 11);
    input.source = next;
    input.source_ctx = &source;
    FM_ASSERT_OK(fm_sim_run(&input, &result, &err), &err);
    return result;
}

/* --- what must hold
 * ------------------------------------------------------------ */

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fmax(1, fabs(b));
}

static void check_sums(const fm_sim_result_t *r)
{
    double dollars = 0, joules = 0, up = 0, busy = 0;
    uint64_t ran = 0, shared = 0, done = 0, failed = 0, submitted = 0;
    uint64_t ends = 0;

    CU_ASSERT(r->complete && r->done + r->failed == r->submitted);
    CU_ASSERT(r->ran + r->shared + r->items_failed <= r->planned);
    CU_ASSERT(r->failed > 0 || r->ran + r->shared == r->planned);
    CU_ASSERT(r->busy_s <= r->up_s * (1 + 1e-9) && r->load_s <= r->busy_s);
    CU_ASSERT(r->wasted_s >= 0 && r->wasted_s <= r->busy_s);
    CU_ASSERT(r->executed >= r->ran);
    for (size_t c = 0; c < r->class_count; c++) {
        dollars += r->classes[c].dollars;
        joules += r->classes[c].joules;
        up += r->classes[c].up_s;
        busy += r->classes[c].busy_s;
    }
    CU_ASSERT(near(dollars, r->cost) && near(joules, r->joules));
    CU_ASSERT(near(up, r->up_s) && near(busy, r->busy_s));
    for (size_t t = 0; t < r->tenant_count; t++) {
        ran += r->tenants[t].ran;
        shared += r->tenants[t].shared;
        done += r->tenants[t].done;
        failed += r->tenants[t].failed;
        submitted += r->tenants[t].submitted;
    }
    CU_ASSERT(ran == r->ran && shared == r->shared);
    CU_ASSERT(done == r->done && failed == r->failed);
    CU_ASSERT(submitted == r->submitted);
    for (size_t l = 0; l < r->latency_count; l++) {
        const fm_sim_latency_t *at = &r->latencies[l];

        CU_ASSERT(at->total.p50 <= at->total.p95);
        CU_ASSERT(at->total.p95 <= at->total.p99);
        CU_ASSERT(at->total.p99 <= at->total.max);
        CU_ASSERT(near(at->queue.mean + at->run.mean, at->total.mean) ||
                  fabs(at->queue.mean + at->run.mean - at->total.mean) < 1e-2);
        ends += at->workflows ? at->total.count : 0;
    }
    CU_ASSERT(ends == r->done);
    CU_ASSERT(r->timeline_count <= FM_SIM_TIMELINE_MAX);
    for (size_t i = 1; i < r->timeline_count; i++) {
        CU_ASSERT(r->timeline[i].t_s > r->timeline[i - 1].t_s);
        CU_ASSERT(r->timeline[i].dollars >= r->timeline[i - 1].dollars);
        CU_ASSERT(r->timeline[i].busy <= r->timeline[i].up + 1e-6);
    }
}

static void test_policies_and_failures(void)
{
    static const fm_sim_failures_t failures[] = {
        {0},
        {.preempt_mean_s = 80, .warning_s = 5},
        {.preempt_mean_s = 80},
        {.node_loss_mean_s = 100, .repair_s = 30},
        {.flap_share = 0.4, .flap_up_s = 40, .flap_down_s = 30},
        {.task_error_share = 0.02},
        {.preempt_mean_s = 200,
         .node_loss_mean_s = 400,
         .flap_share = 0.2,
         .flap_up_s = 60,
         .task_error_share = 0.01},
    };

    for (fm_place_policy_t p = FM_PLACE_FLOWMESH; p < FM_PLACE_POLICIES; p++) {
        for (size_t f = 0; f < FM_COUNT_OF(failures); f++) {
            fm_sim_input_t input = defaults(f + 1);
            fm_sim_result_t r;

            input.policy = p;
            input.failures = failures[f];
            r = run(input, WORKFLOWS);
            if (!r.complete) {
                (void)fprintf(stderr, "%s, failures %zu: %llu of %llu done\n",
                              fm_place_policy_name(p), f,
                              (unsigned long long)r.done,
                              (unsigned long long)r.submitted);
            }
            check_sums(&r);
            CU_ASSERT(r.failed == 0 || failures[f].task_error_share > 0);
            CU_ASSERT(f == 0 || f == 5 || r.requeues > 0);
            fm_sim_result_fini(&r);
        }
    }
}

static void test_elastic(void)
{
    for (fm_place_policy_t p = FM_PLACE_FLOWMESH; p < FM_PLACE_POLICIES; p++) {
        fm_sim_input_t input = defaults(3);
        fm_sim_result_t r;

        input.policy = p;
        input.elastic = true;
        r = run(input, WORKFLOWS);
        check_sums(&r);
        CU_ASSERT(r.starts > 0 && r.failed == 0);
        fm_sim_result_fini(&r);
        input.failures.preempt_mean_s = 900;
        r = run(input, WORKFLOWS);
        check_sums(&r);
        fm_sim_result_fini(&r);
    }
}

static void test_ablations(void)
{
    static const fm_sim_ablation_t ablations[] = {
        {.no_batching = true},      {.no_dedup = true},
        {.no_locality = true},      {.no_elasticity = true},
        {.no_consolidation = true}, {.no_fair_share = true},
    };

    for (size_t a = 0; a < FM_COUNT_OF(ablations); a++) {
        fm_sim_input_t input = defaults(5);
        fm_sim_result_t r;

        input.ablation = ablations[a];
        input.elastic = true;
        r = run(input, WORKFLOWS);
        check_sums(&r);
        CU_ASSERT(r.failed == 0);
        CU_ASSERT((r.shared == 0) == ablations[a].no_dedup);
        CU_ASSERT((r.starts == 0) == ablations[a].no_elasticity);
        fm_sim_result_fini(&r);
    }
}

static void test_deterministic(void)
{
    fm_sim_input_t input = defaults(7);
    fm_sim_result_t a, b;

    input.failures.preempt_mean_s = 120;
    input.elastic = true;
    a = run(input, WORKFLOWS);
    b = run(input, WORKFLOWS);
    CU_ASSERT(a.digest == b.digest && a.cost == b.cost);
    CU_ASSERT(a.total.p95 == b.total.p95 && a.joules == b.joules);
    fm_sim_result_fini(&b);
    input.seed = 8;
    b = run(input, WORKFLOWS);
    CU_ASSERT(a.digest != b.digest);
    fm_sim_result_fini(&a);
    fm_sim_result_fini(&b);
}

static void test_quotas(void)
{
    const fm_sim_tenant_t tenants[] = {
        {"t0", {.weight = 2, .devices_max = 1}},
        {"t1", {.queued_max = 20}},
    };
    fm_sim_input_t input = defaults(9);
    fm_sim_result_t r;

    input.tenants = tenants;
    input.tenant_count = FM_COUNT_OF(tenants);
    r = run(input, WORKFLOWS);
    check_sums(&r);
    CU_ASSERT(r.refused > 0 && r.failed >= r.refused);
    fm_sim_result_fini(&r);
}

/* Memory runs out at any allocation: an error, nothing leaks. */
static void test_no_memory(void)
{
    fm_status_t rc = FM_ERR_NO_MEMORY;

    for (unsigned at = 1; rc == FM_ERR_NO_MEMORY; at += 1 + at / 8) {
        struct source source = {.left = 6};
        fm_sim_input_t input = defaults(1);
        fm_sim_result_t result = {0};
        fm_error_t err = {0};
        char spec[32];

        fm_rng_init(&source.rng, 2);
        input.source = next;
        input.source_ctx = &source;
        input.elastic = true;
        (void)snprintf(spec, sizeof(spec), "base.alloc:%u", at);
        CU_ASSERT_FATAL(fm_fault_arm(spec));
        rc = fm_sim_run(&input, &result, &err);
        CU_ASSERT_FATAL(fm_fault_arm(NULL));
        CU_ASSERT(rc == FM_OK || rc == FM_ERR_NO_MEMORY);
        CU_ASSERT(rc == FM_OK || result.timeline == NULL);
        fm_sim_result_fini(&result);
    }
}

static const fm_test_case_t cases[] = {
    {"every policy under every failure", test_policies_and_failures},
    {"elastic fleets", test_elastic},
    {"ablations", test_ablations},
    {"the same seed does the same", test_deterministic},
    {"quotas", test_quotas},
    {"fault: memory runs out", test_no_memory},
};

int main(void)
{
    return fm_test_main("sim_soak", cases, FM_COUNT_OF(cases));
}
