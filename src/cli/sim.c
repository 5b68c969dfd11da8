/* SPDX-License-Identifier: Apache-2.0 */
/* flowmesh sim: what would this fleet do with this work? */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "role/scenario/report.h"

static int64_t clock_ns(void *ctx)
{
    (void)ctx;
    return fm_clock_mono_ns();
}

static fm_status_t load(const fm_cli_args_t *args,
                        const fm_cli_command_t *command, fm_scenario_t **out,
                        fm_error_t *err)
{
    const char *file = args->operands[0];
    const char *trace = fm_cli_option(args, command, "trace");
    /* from here, not from the scenario's directory as paths inside it */
    char *absolute = trace ? realpath(trace, NULL) : NULL;
    const fm_scenario_options_t opts = {
        .sets = args->many,
        .set_count = args->many_count,
        .policies = fm_cli_option(args, command, "policy"),
        .seed = fm_cli_option(args, command, "seed"),
        .trace = absolute ? absolute : trace,
    };
    fm_buf_t text = {0};
    fm_status_t rc = fm_file_read(strcmp(file, "-") == 0 ? "/dev/stdin" : file,
                                  FM_SCENARIO_TEXT_BYTES_MAX, &text, err);

    if (rc >= 0) {
        rc = fm_scenario_parse(text.data ? (const char *)text.data : "",
                               text.len, file, &opts, out, err);
    }
    fm_buf_fini(&text);
    free(absolute);
    return rc;
}

static fm_status_t write_json(const fm_scenario_t *scenario,
                              const fm_sim_result_t *results, bool timed,
                              const char *path, fm_error_t *err)
{
    fm_json_t *json = fm_scenario_json(scenario, results, timed);
    char *text = json ? fm_json_dump_pretty(json) : NULL;
    fm_status_t rc = FM_OK;

    fm_json_drop(json);
    if (!text) {
        return fm_no_memory(err);
    }
    if (strcmp(path, "-") == 0) {
        (void)printf("%s\n", text);
    } else {
        rc = fm_file_replace(path, text, strlen(text), err);
    }
    free(text);
    return rc;
}

static fm_status_t report(const fm_scenario_t *scenario,
                          const fm_sim_result_t *results,
                          const fm_cli_args_t *args,
                          const fm_cli_command_t *command, fm_error_t *err)
{
    const char *json = fm_cli_option(args, command, "json");
    const char *plots = fm_cli_option(args, command, "plots");
    bool timed = fm_cli_option(args, command, "timed") != NULL;
    fm_buf_t table = {0};
    fm_status_t rc = FM_OK;

    if (!json || strcmp(json, "-") != 0) { /* one thing on standard output */
        rc = fm_scenario_table(scenario, results, &table, err);
        (void)fputs(fm_buf_cstr(&table), stdout);
        fm_buf_fini(&table);
    }
    if (rc == FM_OK && json) {
        rc = write_json(scenario, results, timed, json, err);
    }
    if (rc == FM_OK && plots) {
        rc = fm_scenario_plots(scenario, results, plots, err);
    }
    return rc;
}

static int simulate(const fm_cli_args_t *args, const fm_cli_command_t *command)
{
    fm_scenario_t *scenario = NULL;
    fm_sim_result_t *results = NULL;
    fm_error_t err = {0};
    size_t done = 0;
    int status = FM_EXIT_USAGE;
    fm_status_t rc = load(args, command, &scenario, &err);

    if (rc < 0) {
        goto out;
    }
    bool timed = fm_cli_option(args, command, "timed") != NULL;
    size_t count = fm_scenario_run_count(scenario);
    if (!(results = fm_calloc(count, sizeof(*results)))) {
        rc = fm_no_memory(&err);
        goto out;
    }
    for (; done < count; done++) {
        rc = fm_scenario_simulate(scenario, done, timed ? clock_ns : NULL,
                                  &results[done], &err);
        if (rc < 0) {
            if (count > 1) {
                fm_error_wrap(&err, "run %s",
                              fm_scenario_run_name(scenario, done));
            }
            status = rc == FM_ERR_NO_MEMORY ? FM_EXIT_FAILED : FM_EXIT_USAGE;
            goto out;
        }
    }
    status = FM_EXIT_FAILED;
    rc = report(scenario, results, args, command, &err);
out:
    while (done > 0) {
        fm_sim_result_fini(&results[--done]);
    }
    free(results);
    fm_scenario_destroy(scenario);
    return rc < 0 ? fm_cli_fail(status, "%s", err.text) : FM_EXIT_OK;
}

static int run(const fm_cli_args_t *args)
{
    return simulate(args, &fm_cli_sim);
}

static const fm_cli_option_t options[] = {
    {"policy", "P,...", "these policies instead of what compare lists"},
    {"seed", "N", "seed of every run"},
    {"set", "PATH=VALUE", "put VALUE at PATH of the scenario; may be repeated"},
    {"trace", "FILE", "the trace, instead of trace.path"},
    {"json", "FILE", "write everything counted (- is standard output)"},
    {"plots", "DIR", "draw cost, energy, latency, utilisation, timeline"},
    {"timed", NULL, "time the planner: in the JSON, seconds of real time"},
};

const fm_cli_command_t fm_cli_sim = {
    .name = "sim",
    .operands = "SCENARIO.yaml",
    .operand_min = 1,
    .operand_max = 1,
    .summary = "simulate workflows on a fleet, comparing policies",
    .text = "Simulate the scenario (- is standard input) under a virtual clock "
            "with the same placement code as a running fabric, and print cost, "
            "energy, latency and what was run and shared, one line a run.  "
            "The same scenario and seed give the same result.  "
            "docs/spec/scenario.md describes scenarios; examples/scenarios has "
            "some.",
    .options = options,
    .option_count = FM_COUNT_OF(options),
    .many = "set",
    .run = run,
};
