/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flowmesh run: a workflow from its text to its result table.  Progress goes
 * to stderr as it happens, the tables (or one JSON object) to stdout at the
 * end.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "role/control/report.h"
#include "role/launch/launch.h"

static const fm_cli_option_t options[] = {
    {"fabric", "DIR",
     "where state and results live; default $FLOWMESH_FABRIC, else a new one"},
    {"config", "FILE",
     "prices, quotas, policy; default $FLOWMESH_CONFIG, else DIR/fabric.yaml"},
    {"policy", "NAME",
     "flowmesh, static_worker, fixed_pipeline, round_robin or adaptive; "
     "default: the configuration's"},
    {"without", "LIST",
     "for comparison, of batching, locality, consolidation, fair_share, "
     "sharing"},
    {"workers", "N", "embedded workers; default one a core"},
    {"listen", "INTERFACE",
     "let `flowmesh join` in other jobs work for this run: an interface, auto "
     "or off; default $FLOWMESH_LISTEN, else auto in a Slurm job"},
    {"executor", "COMMAND", "the executor to run; default flowmesh-engine"},
    {"json", NULL, "print one JSON object at the end"},
    {"quiet", NULL, "no progress"},
    {"volatile", NULL, "keep no journal: for benchmarks"},
};

/* Nodes that wait for what no worker has; a sweep may have thousands. */
#define WAITS_SHOWN 10u
/* Between two progress lines of one node. */
#define PROGRESS_NS (2 * FM_NS_PER_S)

struct run {
    bool json;
    bool quiet;
    bool many; /* more than one workflow */
    const fm_fabric_t *fabric;
    int64_t start_ns;
    int64_t progress_ns; /* of the last progress line */
    unsigned wait_count; /* lines about nodes that wait */
};

static double elapsed(const struct run *run)
{
    return (double)(fm_clock_mono_ns() - run->start_ns) / 1e9;
}

/* --- progress ------------------------------------------------------------- */

static void on_start(void *ctx, const fm_fabric_t *fabric,
                     const fm_run_t *state)
{
    struct run *run = ctx;
    fm_pool_workflow_t info = {0};

    run->fabric = fabric;
    run->start_ns = fm_clock_mono_ns();
    if (run->quiet) {
        return;
    }
    (void)!fm_pool_workflow_get(fm_state_pool(fabric->state), state->index,
                                &info);
    (void)fprintf(stderr, "%s (%s): %u nodes, fabric %s\n", state->id,
                  fm_workflow_name(state->workflow), info.nodes, fabric->dir);
    if (info.nodes_done > 0) {
        (void)fprintf(stderr, "going on: %u nodes are done already\n",
                      info.nodes_done);
    }
    if (fabric->lost_count > 0) {
        (void)fprintf(stderr,
                      "the store has lost %llu outputs: they run again when "
                      "they are needed\n",
                      (unsigned long long)fabric->lost_count);
    }
}

static void on_node(void *ctx, const fm_run_t *state, uint32_t node)
{
    const struct run *run = ctx;
    fm_pool_node_t info = {0};

    if (run->quiet) {
        return;
    }
    (void)!fm_pool_node_get(fm_state_pool(run->fabric->state), state->index,
                            node, &info);
    if (info.reason == FM_POOL_REASON_UPSTREAM) {
        return; /* the node that failed has been told of */
    }
    if (fm_workflow_node(state->workflow, node)->internal &&
        info.state == FM_POOL_DONE) {
        return; /* its owner is told of; an iteration is seen by its progress */
    }
    (void)fprintf(stderr, "[%7.1fs] %-9s %s%s%-48s %u ran, %u shared\n",
                  elapsed(run), fm_pool_state_name(info.state),
                  run->many ? state->id : "", run->many ? "/" : "",
                  fm_workflow_node(state->workflow, node)->name, info.ran,
                  info.shared);
    if (info.state == FM_POOL_FAILED && state->errors[node]) {
        (void)fprintf(stderr, "           %s\n", state->errors[node]);
    }
}

/* {"loss": 2.0539749, "step": 42} as "loss 2.054  step 42". */
static void print_metrics(const char *metrics, FILE *out)
{
    fm_json_t *values = NULL;
    const char *name = NULL;
    fm_json_t *value = NULL;
    void *at = NULL;

    if (fm_json_parse(metrics, strlen(metrics), "metrics", &values, NULL) < 0) {
        return; /* a foreign executor's: nothing a table could hold */
    }
    while (fm_json_next(values, &at, &name, &value)) {
        if (fm_json_is_number(value)) {
            (void)fprintf(out, "  %s %.4g", name, fm_json_real_or(value, 0));
        }
    }
    fm_json_drop(values);
}

static void on_progress(void *ctx, const fm_run_t *state, uint32_t node,
                        double fraction, const char *metrics)
{
    struct run *run = ctx;
    int64_t now = fm_clock_mono_ns();

    if (run->quiet || now - run->progress_ns < PROGRESS_NS) {
        return;
    }
    run->progress_ns = now;
    (void)fprintf(stderr, "[%7.1fs] %8.0f%% %-48s", elapsed(run),
                  100 * fraction,
                  fm_workflow_node(state->workflow, node)->name);
    print_metrics(metrics, stderr);
    (void)fputc('\n', stderr);
}

static void on_worker(void *ctx, const char *name, bool up, const char *why)
{
    const struct run *run = ctx;

    if (!run->quiet && !up) {
        (void)fprintf(stderr, "[%7.1fs] worker %s lost: %s\n", elapsed(run),
                      name, why);
    }
}

static void on_wait(void *ctx, const fm_run_t *state, uint32_t node,
                    const char *text)
{
    struct run *run = ctx;
    const char *name = fm_workflow_node(state->workflow, node)->name;

    if (run->quiet || run->wait_count > WAITS_SHOWN) {
        return;
    }
    if (run->wait_count++ == WAITS_SHOWN) {
        (void)fprintf(stderr,
                      "[%7.1fs] more nodes wait for what is not there: "
                      "flowmesh explain NODE\n",
                      elapsed(run));
        return;
    }
    (void)fprintf(stderr,
                  "[%7.1fs] waits     %s/%s: %s (flowmesh explain %s --run "
                  "%s)\n",
                  elapsed(run), state->id, name, text, name, state->id);
}

/* --- tables --------------------------------------------------------------- */

/* What a row of the table counts: a node and the internal ones it owns. */
static const char *const counts[] = {"items", "ran", "shared"};

static const char *owner_of(const fm_json_t *node)
{
    const char *owner = fm_json_get_str(node, "owner");

    return owner ? owner : fm_json_get_str(node, "name");
}

/* Internal nodes stand next to their owner, before or after it: those with
 * the same owner as @p first are one row, which ends before the index
 * returned. */
static size_t print_node(const fm_json_t *nodes, size_t first, int width)
{
    const char *upstream = fm_pool_reason_name(FM_POOL_REASON_UPSTREAM);
    const char *name = owner_of(fm_json_at(nodes, first));
    const char *state = "";
    long long sums[FM_COUNT_OF(counts)] = {0};
    size_t end = first;

    for (; end < fm_json_len(nodes) &&
           strcmp(owner_of(fm_json_at(nodes, end)), name) == 0;
         end++) {
        const fm_json_t *node = fm_json_at(nodes, end);
        for (size_t k = 0; k < FM_COUNT_OF(counts); k++) {
            sums[k] += (long long)fm_json_get_int(node, counts[k], 0);
        }
        if (!fm_json_get_str(node, "owner")) {
            state = fm_json_get_bool(node, "skipped", false)
                        ? "skipped"
                        : fm_json_get_str(node, "state");
        }
    }
    (void)printf("%-*s  %-9s %7lld %7lld %7lld\n", width, name, state, sums[0],
                 sums[1], sums[2]);
    for (size_t i = first; i < end; i++) {
        const fm_json_t *node = fm_json_at(nodes, i);
        const char *error = fm_json_get_str(node, "error");
        const char *part = fm_json_get_str(node, "owner")
                               ? fm_json_get_str(node, "name")
                               : NULL;
        if (error && strcmp(error, upstream) != 0) {
            (void)printf("    %s%s%s\n", part ? part : "", part ? ": " : "",
                         error);
        }
    }
    return end;
}

static void print_nodes(const fm_json_t *report)
{
    const fm_json_t *nodes = fm_json_get(report, "nodes");
    int width = 4;

    for (size_t i = 0; i < fm_json_len(nodes); i++) {
        int len = (int)strlen(owner_of(fm_json_at(nodes, i)));
        width = len > width ? len : width;
    }
    (void)printf("%-*s  %-9s %7s %7s %7s\n", width, "node", "state", counts[0],
                 counts[1], counts[2]);
    for (size_t i = 0; i < fm_json_len(nodes);) {
        i = print_node(nodes, i, width);
    }
}

/* The table by trial has a column for each "stage.metric" of any row. */
#define COLUMN_MAX 32u

struct columns {
    const char *stage[COLUMN_MAX];
    const char *metric[COLUMN_MAX];
    size_t count;
};

static void columns_add(struct columns *columns, const fm_json_t *metrics)
{
    void *at_stage = NULL;
    const char *stage = NULL;
    fm_json_t *values = NULL;

    while (fm_json_next(metrics, &at_stage, &stage, &values)) {
        void *at = NULL;
        const char *metric = NULL;
        fm_json_t *value = NULL;
        while (fm_json_next(values, &at, &metric, &value)) {
            size_t i = 0;
            while (i < columns->count &&
                   (strcmp(columns->stage[i], stage) != 0 ||
                    strcmp(columns->metric[i], metric) != 0)) {
                i++;
            }
            if (i == columns->count && i < COLUMN_MAX) {
                columns->stage[i] = stage;
                columns->metric[i] = metric;
                columns->count++;
            }
        }
    }
}

static int column_width(const struct columns *columns, size_t i)
{
    return (int)(strlen(columns->stage[i]) + strlen(columns->metric[i]) + 1);
}

static void print_row(const char *label, int width,
                      const struct columns *columns, const fm_json_t *metrics)
{
    (void)printf("%-*s", width, label);
    for (size_t i = 0; i < columns->count; i++) {
        const fm_json_t *value = fm_json_get(
            fm_json_get(metrics, columns->stage[i]), columns->metric[i]);
        if (fm_json_is_number(value)) {
            (void)printf("  %*.4f", column_width(columns, i),
                         fm_json_real_or(value, 0));
        } else {
            (void)printf("  %*s", column_width(columns, i), "-");
        }
    }
    (void)printf("\n");
}

static void print_trials(const fm_json_t *report)
{
    static const char all[] = "(before the sweep)";
    const fm_json_t *shared = fm_json_get(report, "metrics");
    const fm_json_t *trials = fm_json_get(report, "trials");
    struct columns columns = {0};
    int width = (int)strlen(all);

    columns_add(&columns, shared);
    for (size_t i = 0; i < fm_json_len(trials); i++) {
        const fm_json_t *trial = fm_json_at(trials, i);
        int len = (int)strlen(fm_json_get_str(trial, "trial"));
        width = len > width ? len : width;
        columns_add(&columns, fm_json_get(trial, "metrics"));
    }
    if (columns.count == 0) {
        return;
    }
    (void)printf("\n%-*s", width, "trial");
    for (size_t i = 0; i < columns.count; i++) {
        (void)printf("  %s.%s", columns.stage[i], columns.metric[i]);
    }
    (void)printf("\n");
    print_row(all, width, &columns, shared);
    for (size_t i = 0; i < fm_json_len(trials); i++) {
        const fm_json_t *trial = fm_json_at(trials, i);
        print_row(fm_json_get_str(trial, "trial"), width, &columns,
                  fm_json_get(trial, "metrics"));
    }
}

static void print_table(const fm_json_t *report)
{
    const fm_json_t *operators = fm_json_get(report, "operators");
    const fm_json_t *account = fm_json_get(report, "account");

    print_nodes(report);
    print_trials(report);
    (void)printf("\n%s (%s) %s in %.1f s: %lld operators planned, %lld ran, "
                 "%lld shared\n",
                 fm_json_get_str(report, "workflow"),
                 fm_json_get_str(report, "name"),
                 fm_json_get_str(report, "state"),
                 fm_json_get_real(report, "seconds", 0),
                 (long long)fm_json_get_int(operators, "planned", 0),
                 (long long)fm_json_get_int(operators, "ran", 0),
                 (long long)fm_json_get_int(operators, "shared", 0));
    if (account) {
        (void)printf("tenant %s has used %.4g device-seconds, %.4g dollars and "
                     "%.4g J so far (flowmesh tenants)\n",
                     fm_json_get_str(account, "tenant"),
                     fm_json_get_real(account, "device_seconds", 0),
                     fm_json_get_real(account, "dollars", 0),
                     fm_json_get_real(account, "joules", 0));
    }
}

static fm_json_t *report_of(fm_fabric_t *fabric, const fm_launch_run_t *run,
                            fm_error_t *err)
{
    fm_json_t *report = NULL;

    if (fm_report_run(fabric, run->run, &report, err) < 0 ||
        fm_json_set(report, "seconds", fm_json_real(run->seconds)) < 0 ||
        fm_json_set(report, "fabric", fm_json_string(fabric->dir)) < 0) {
        fm_json_drop(report);
        return NULL;
    }
    return report;
}

/* One workflow's report alone, several in a list with the time of all. */
static void on_end(void *ctx, fm_fabric_t *fabric, const fm_launch_run_t *runs,
                   size_t count, double seconds)
{
    const struct run *run = ctx;
    fm_json_t *all = fm_json_object();
    fm_json_t *list = fm_json_array();
    fm_json_t *report = NULL;
    fm_error_t err = {0};
    bool ok = all && list;

    for (size_t i = 0; ok && i < count; i++) {
        ok = (report = report_of(fabric, &runs[i], &err)) != NULL;
        if (ok && !run->json) {
            (void)printf("%s", i > 0 ? "\n" : "");
            print_table(report);
        }
        if (ok && run->many) {
            ok = fm_json_append(list, report) >= 0;
            report = NULL; /* the list has it, whether it was pushed or not */
        }
    }
    if (ok && run->json && !run->many) {
        (void)fm_cli_print_json(report);
    } else if (ok && run->json) {
        ok = fm_json_set(all, "workflows", list) >= 0 &&
             fm_json_set(all, "seconds", fm_json_real(seconds)) >= 0 &&
             fm_json_set(all, "fabric", fm_json_string(fabric->dir)) >= 0;
        list = NULL; /* as above */
        if (ok) {
            (void)fm_cli_print_json(all);
        }
    }
    if (!ok) {
        (void)fm_cli_fail(FM_EXIT_FAILED, "report: %s",
                          err.status < 0 ? err.text : "out of memory");
    }
    fm_json_drop(report);
    fm_json_drop(list);
    fm_json_drop(all);
}

/* --- command -------------------------------------------------------------- */

static bool parse_workers(const char *text, uint32_t *workers_out)
{
    char *end = NULL;
    unsigned long value = text ? strtoul(text, &end, 10) : 0;

    if (text && (end == text || *end || value < 1 || value > 256)) {
        return false;
    }
    *workers_out = (uint32_t)value;
    return true;
}

static int exit_status(fm_launch_outcome_t outcome)
{
    switch (outcome) {
    case FM_LAUNCH_DONE:
        return FM_EXIT_OK;
    case FM_LAUNCH_FAILED:
    case FM_LAUNCH_INTERRUPTED:
        return FM_EXIT_FAILED;
    case FM_LAUNCH_REFUSED:
        return FM_EXIT_USAGE;
    case FM_LAUNCH_NO_FABRIC:
        break;
    }
    return FM_EXIT_NO_FABRIC;
}

static int run_workflow(const fm_cli_args_t *args)
{
    bool unclean = false;
    struct run run = {
        .json = fm_cli_option(args, &fm_cli_run, "json") != NULL,
        .quiet = fm_cli_option(args, &fm_cli_run, "quiet") != NULL,
        .many = args->operand_count > 1,
    };
    fm_launch_options_t opts = {
        .files = args->operands,
        .file_count = args->operand_count,
        .config = fm_cli_option(args, &fm_cli_run, "config"),
        .policy = fm_cli_option(args, &fm_cli_run, "policy"),
        .without = fm_cli_option(args, &fm_cli_run, "without"),
        .fabric_dir = fm_cli_option(args, &fm_cli_run, "fabric"),
        .listen = fm_cli_option(args, &fm_cli_run, "listen"),
        .executor = fm_cli_option(args, &fm_cli_run, "executor"),
        .is_volatile = fm_cli_option(args, &fm_cli_run, "volatile") != NULL,
        .on_start = on_start,
        .events = {.on_node = on_node,
                   .on_progress = on_progress,
                   .on_worker = on_worker,
                   .on_wait = on_wait,
                   .ctx = &run},
        .on_end = on_end,
        .resolve = fm_cli_resolve,
        .unclean_out = &unclean,
        .ctx = &run,
    };
    fm_error_t err = {0};

    if (!parse_workers(fm_cli_option(args, &fm_cli_run, "workers"),
                       &opts.workers)) {
        return fm_cli_fail(FM_EXIT_USAGE, "--workers wants 1 to 256");
    }
    fm_launch_outcome_t outcome = fm_launch_run(&opts, &err);
    if (err.status < 0 && outcome != FM_LAUNCH_DONE) {
        (void)fm_cli_fail(0, "%s", err.text);
    }
    if (unclean) {
        (void)fflush(NULL);
        _exit(exit_status(outcome));
    }
    return exit_status(outcome);
}

const fm_cli_command_t fm_cli_run = {
    .name = "run",
    .operands = "FILE...",
    .operand_min = 1,
    .operand_max = FM_CLI_OPERAND_MAX,
    .summary = "run workflows to their end",
    .text = "Run the workflow in FILE (- is standard input), or several at "
            "once: embedded when started alone, over MPI under mpirun or "
            "srun.  A run that was killed goes on where it stopped when the "
            "same command is given again; work that the fabric has done "
            "before, or does for another workflow, is shared, not repeated.",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .run = run_workflow,
};
