/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator, and with it the control plane's cost: operators a second
 * through pool, placement and tenants, by the size of the fleet.  Each peer is
 * the smallest fleet: a ratio of 1 is no growth of the cost an operator.
 *
 *   bench_sim            10, 100, 1 K and 10 K workers × 100 K operators
 *   bench_sim full       and 10 K workers × 1 M operators, with its memory
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "report/report.h"
#include "role/sim/sim.h"

#define GIB (UINT64_C(1) << 30)
#define ROUNDS 3
#define ITEMS 50u /* of a node */
#define BATCH 8u  /* of a lease at most: 125,000 leases of 1 M operators */
#define MODELS 32u
#define TENANTS 50u

/* Workflows of two inference nodes, the second over the first, of many users
 * and models; arrivals keep the fleet about 70 % busy. */
struct source {
    fm_rng_t rng;
    uint64_t left;
    uint64_t made[MODELS];
    double gap_ns, at_ns;
    fm_sim_stage_t stages[2];
    uint32_t dep;
    char tenant[16];
};

static fm_status_t next(void *ctx, fm_sim_workflow_t *out, bool *more_out,
                        fm_error_t *err)
{
    struct source *source = ctx;
    uint32_t model;

    (void)err;
    *more_out = source->left > 0;
    if (!*more_out) {
        return FM_OK;
    }
    source->left--;
    source->at_ns += source->gap_ns;
    model = (uint32_t)fm_rng_below(&source->rng, MODELS);
    (void)snprintf(source->tenant, sizeof(source->tenant), "user%u",
                   (unsigned)fm_rng_below(&source->rng, TENANTS));
    for (uint32_t s = 0; s < 2; s++) {
        source->stages[s] =
            (fm_sim_stage_t){.work = FM_SIM_INFERENCE,
                             .kind = FM_SCHED_INFERENCE,
                             .model = model,
                             .model_of = FM_SIM_NONE,
                             .adapter_of = FM_SIM_NONE,
                             .items = ITEMS,
                             .tokens_in = 200,
                             .tokens_out = 512,
                             .spread = 0.5,
                             .memory_bytes = 20 * GIB,
                             .batch_max = BATCH,
                             .form = s == 0 ? FM_SIM_ROWS : FM_SIM_ROW_OF,
                             .deps = &source->dep,
                             .dep_count = s,
                             .dataset = model,
                             .first_row = source->made[model] * ITEMS * 4 /
                                          5, /* a fifth overlaps */
                             .parameters = s};
    }
    source->made[model]++;
    *out = (fm_sim_workflow_t){.arrival_ns = (int64_t)source->at_ns,
                               .tenant = source->tenant,
                               .stages = source->stages,
                               .stage_count = 2};
    return FM_OK;
}

static int64_t clock_ns(void *ctx)
{
    (void)ctx;
    return fm_clock_mono_ns();
}

static fm_sim_result_t run(uint32_t workers, uint64_t operators)
{
    static fm_sim_model_t models[MODELS];
    static char names[MODELS][16];
    fm_sim_class_t classes[3] = {
        {.name = "24g", .memory_bytes = 24 * GIB, .price_per_hour = 0.8},
        {.name = "48g", .memory_bytes = 48 * GIB, .price_per_hour = 1.5},
        {.name = "80g", .memory_bytes = 80 * GIB, .price_per_hour = 3.5}};
    struct source source = {.left = operators / (2 * ITEMS),
                            .gap_ns = 20e9 / workers};
    fm_sim_input_t input = {.seed = 7,
                            .models = models,
                            .model_count = MODELS,
                            .classes = classes,
                            .class_count = 3,
                            .source = next,
                            .source_ctx = &source,
                            .noise = 0.1,
                            .hidden = 0.2,
                            .clock_ns = clock_ns};
    fm_sim_result_t result = {0};
    fm_error_t err = {0};

    fm_rng_init(&source.rng, 3);
    for (uint32_t m = 0; m < MODELS; m++) {
        (void)snprintf(names[m], sizeof(names[m]), "model%u", m);
        models[m] = (fm_sim_model_t){.name = names[m],
                                     .parameters = 1e9,
                                     .weight_bytes = UINT64_C(2000000000),
                                     .load_bytes = UINT64_C(8000000000)};
    }
    for (size_t c = 0; c < 3; c++) {
        classes[c].device = FM_SCHED_GPU;
        classes[c].spec =
            (fm_cost_device_t){.flops_per_s = 1e14 * (double)(c + 1),
                               .bytes_per_s = 6e11 * (double)(c + 1)};
        classes[c].watts = 300;
        classes[c].idle_watts = 50;
        classes[c].load_bytes_per_s = 2e9;
        classes[c].domain_size = 8;
        classes[c].count = workers / 3 + (c < workers % 3);
    }
    if (fm_sim_run(&input, &result, &err) < 0 || !result.complete) {
        (void)fprintf(stderr, "bench_sim: %s\n",
                      err.text[0] ? err.text : "not complete");
        exit(1);
    }
    return result;
}

static void print(uint32_t workers, const fm_sim_result_t *r, double seconds)
{
    double n = (double)r->planned;

    (void)printf("# %6u workers, %8.0f operators: %7.2f s, plan %6.2f s (%5.2f "
                 "us an operator, decisions %5.2f us each), ran %llu, %llu "
                 "leases of %.1f, %llu events, makespan %.0f s, "
                 "utilisation %.2f\n",
                 workers, n, seconds, r->plan_s, r->plan_s / n * 1e6,
                 r->decide_s / (double)r->decisions * 1e6,
                 (unsigned long long)r->ran, (unsigned long long)r->leases,
                 r->batch_mean, (unsigned long long)r->events, r->makespan_s,
                 r->utilisation);
}

static double timed(uint32_t workers, uint64_t operators, double *plan_us)
{
    int64_t start_ns = fm_clock_mono_ns();
    fm_sim_result_t r = run(workers, operators);
    double seconds = (double)(fm_clock_mono_ns() - start_ns) / 1e9;
    double rate = (double)r.planned / seconds;

    print(workers, &r, seconds);
    *plan_us = r.plan_s / (double)r.planned * 1e6;
    fm_sim_result_fini(&r);
    return rate;
}

static void full(void)
{
    fm_bench_series_t seconds = {0}, bytes = {0};
    struct rusage usage;
    double plan_us, rate = timed(10000, 1000000, &plan_us);

    fm_bench_add(&seconds, 1e6 / rate);
    (void)getrusage(RUSAGE_SELF, &usage);
    fm_bench_add(&bytes, (double)usage.ru_maxrss / 1024);
    fm_bench_print("sim.10k_workers_1m_operators", &seconds, "s", FM_BENCH_LESS,
                   NULL);
    fm_bench_print("sim.10k_workers_1m_operators_memory", &bytes, "MiB",
                   FM_BENCH_LESS, NULL);
}

int main(int argc, char **argv)
{
    static const uint32_t fleets[] = {10, 100, 1000, 10000};
    static fm_bench_series_t rates[4], costs[4];

    for (int round = 0; round < ROUNDS; round++) {
        for (size_t f = 0; f < FM_COUNT_OF(fleets); f++) {
            double plan_us, rate = timed(fleets[f], 100000, &plan_us);

            fm_bench_add(&rates[f], rate);
            fm_bench_add(&costs[f], plan_us);
        }
    }
    for (size_t f = 0; f < FM_COUNT_OF(fleets); f++) {
        char name[64];

        (void)snprintf(name, sizeof(name), "sim.operators_%u_workers",
                       fleets[f]);
        fm_bench_print(name, &rates[f], "op/s", FM_BENCH_MORE,
                       f ? &(fm_bench_peer_t){"10_workers", &rates[0]} : NULL);
        (void)snprintf(name, sizeof(name), "sim.plan_%u_workers", fleets[f]);
        fm_bench_print(name, &costs[f], "us/op", FM_BENCH_LESS,
                       f ? &(fm_bench_peer_t){"10_workers", &costs[0]} : NULL);
    }
    if (argc > 1 && strcmp(argv[1], "full") == 0) {
        full();
    }
    return 0;
}
