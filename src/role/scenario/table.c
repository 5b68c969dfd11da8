/* SPDX-License-Identifier: Apache-2.0 */
/* The runs of a scenario as two tables: what was paid, and what was done. */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "role/scenario/report.h"

#define NAME_COLUMNS_MAX 48u

/* this / first; 1 where both are nothing. */
static double ratio(double value, double first)
{
    return first > 0 ? value / first : 1;
}

static int name_width(const fm_scenario_t *scenario)
{
    size_t widest = strlen("run");

    for (size_t i = 0; i < fm_scenario_run_count(scenario); i++) {
        size_t len = strlen(fm_scenario_run_name(scenario, i));
        widest = len > widest ? len : widest;
    }
    return (int)(widest < NAME_COLUMNS_MAX ? widest : NAME_COLUMNS_MAX);
}

static void print_paid(const fm_scenario_t *scenario,
                       const fm_sim_result_t *results, int width, fm_buf_t *out)
{
    const fm_sim_result_t *first = &results[0];

    fm_buf_printf(out, "%-*s %10s %6s %10s %6s %8s %8s %8s %6s %8s %6s\n",
                  width, "run", "cost $", "x", "energy kWh", "x", "p50 s",
                  "p95 s", "p99 s", "x p95", "queue95", "util %");
    for (size_t i = 0; i < fm_scenario_run_count(scenario); i++) {
        const fm_sim_result_t *r = &results[i];
        fm_buf_printf(
            out,
            "%-*.*s %10.4f %6.2f %10.4f %6.2f %8.1f %8.1f %8.1f %6.2f %8.1f "
            "%6.1f\n",
            width, width, fm_scenario_run_name(scenario, i), r->cost,
            ratio(r->cost, first->cost), r->joules / 3.6e6,
            ratio(r->joules, first->joules), r->total.p50, r->total.p95,
            r->total.p99, ratio(r->total.p95, first->total.p95), r->queue.p95,
            100 * r->utilisation);
    }
}

static void print_done(const fm_scenario_t *scenario,
                       const fm_sim_result_t *results, int width, fm_buf_t *out)
{
    fm_buf_printf(out, "\n%-*s %9s %11s %10s %10s %10s %8s %7s %8s %8s %9s\n",
                  width, "run", "workflows", "failed", "operators", "run",
                  "shared", "batch", "loads", "requeues", "wasted s",
                  "makespan s");
    for (size_t i = 0; i < fm_scenario_run_count(scenario); i++) {
        const fm_sim_result_t *r = &results[i];
        fm_buf_printf(
            out,
            "%-*.*s %9llu %11llu %10llu %10llu %10llu %8.1f %7llu %8llu %8.0f "
            "%9.0f\n",
            width, width, fm_scenario_run_name(scenario, i),
            (unsigned long long)r->done, (unsigned long long)r->failed,
            (unsigned long long)r->planned, (unsigned long long)r->ran,
            (unsigned long long)r->shared, r->batch_mean,
            (unsigned long long)r->loads, (unsigned long long)r->requeues,
            r->wasted_s, r->makespan_s);
    }
}

fm_status_t fm_scenario_table(const fm_scenario_t *scenario,
                              const fm_sim_result_t *results, fm_buf_t *out,
                              fm_error_t *err)
{
    int width = name_width(scenario);

    print_paid(scenario, results, width, out);
    print_done(scenario, results, width, out);
    for (size_t i = 0; i < fm_scenario_run_count(scenario); i++) {
        const fm_sim_result_t *r = &results[i];
        uint64_t ended = r->done + r->failed;
        if (!r->complete) {
            fm_buf_printf(out,
                          "%s: gave up with %" PRIu64 " of %" PRIu64
                          " workflows finished\n",
                          fm_scenario_run_name(scenario, i), ended,
                          r->submitted);
        }
    }
    return out->failed ? fm_no_memory(err) : FM_OK;
}
