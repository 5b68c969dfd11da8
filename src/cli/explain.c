/* SPDX-License-Identifier: Apache-2.0 */
/* flowmesh explain: why an operator ran where it ran, and why it waits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "role/control/explain.h"
#include "role/launch/launch.h"

static const fm_cli_option_t options[] = {
    {"run", "WORKFLOW", "id or name; default the latest that has the operator"},
    {"fabric", "DIR", "the fabric; default $FLOWMESH_FABRIC, else the latest"},
    {"config", "FILE",
     "quotas; default $FLOWMESH_CONFIG, else DIR/fabric.yaml"},
    {"all", NULL, "all terms of every candidate that was kept"},
    {"json", NULL, "the same as JSON"},
};

/* --- the operator --------------------------------------------------------- */

/* "NODE" or "NODE[ITEM]" of @p run; false where it has no such node. */
static bool find_in(const fm_run_t *run, const char *text,
                    fm_cli_target_t *target)
{
    const char *bracket = strrchr(text, '[');
    char *end = NULL;

    *target = (fm_cli_target_t){.run = run, .has_node = true};
    if (fm_workflow_find(run->workflow, text, &target->node)) {
        return true;
    }
    unsigned long item = bracket ? strtoul(bracket + 1, &end, 10) : 0;
    if (!bracket || end == bracket + 1 || strcmp(end, "]") != 0 ||
        item >= FM_EXPLAIN_ALL) {
        return false;
    }
    char *name = fm_strndup(text, (size_t)(bracket - text));
    bool found = name && fm_workflow_find(run->workflow, name, &target->node);
    free(name);
    target->has_item = true;
    target->item = (uint32_t)item;
    return found;
}

/* Of --run, else of the latest workflow that has it, else WORKFLOW/NODE. */
static int find_operator(const fm_fabric_t *fabric, const char *text,
                         const char *run, fm_cli_target_t *target)
{
    fm_cli_target_t found;

    if (run) {
        int status = fm_cli_target(fabric, run, &found);
        if (status == FM_EXIT_OK && !find_in(found.run, text, target)) {
            char *both = fm_asprintf("%s/%s", found.run->id, text);
            status = both ? fm_cli_target(fabric, both, target)
                          : fm_cli_fail(FM_EXIT_FAILED, "out of memory");
            free(both);
        }
        return status;
    }
    for (uint32_t i = fm_state_run_count(fabric->state); i > 0; i--) {
        if (find_in(fm_state_run(fabric->state, i - 1), text, target)) {
            return FM_EXIT_OK;
        }
    }
    if (strchr(text, '/')) {
        int status = fm_cli_target(fabric, text, target);
        return status != FM_EXIT_OK || target->has_node
                   ? status
                   : fm_cli_fail(FM_EXIT_USAGE, "%s: explain wants a node",
                                 text);
    }
    return fm_cli_fail(FM_EXIT_USAGE,
                       "no workflow of %s has a node %s; `flowmesh result "
                       "WORKFLOW` lists nodes",
                       fabric->dir, text);
}

/* --- text ----------------------------------------------------------------- */

static double term(const fm_json_t *terms, const char *name)
{
    return fm_json_get_real(terms, name, 0);
}

static void print_times(const fm_json_t *terms)
{
    (void)printf("      T %.4g s = wait %.4g + load %.4g + fetch %.4g + run "
                 "%.4g\n",
                 term(terms, "total_s"), term(terms, "wait_s"),
                 term(terms, "load_s"), term(terms, "fetch_s"),
                 term(terms, "run_s"));
}

static void print_terms(const fm_json_t *terms)
{
    print_times(terms);
    (void)printf("      V %.4g = work %.4g x share %.4g x age %.4g x priority "
                 "%.4g x deadline %.4g x path %.4g\n",
                 term(terms, "value"), term(terms, "work"),
                 term(terms, "share"), term(terms, "age"),
                 term(terms, "priority"), term(terms, "deadline"),
                 term(terms, "path"));
    (void)printf("      P %.4g   cost %.4g dollars, %.4g J\n",
                 term(terms, "survival"), term(terms, "dollars"),
                 term(terms, "joules"));
    (void)printf("      U %.4g = %.2f x gain %.4g (%.4g/s) - %.2f x loss %.4g "
                 "(%.4g)\n",
                 term(terms, "utility"), term(terms, "lambda"),
                 term(terms, "gain_norm"), term(terms, "gain"),
                 1 - term(terms, "lambda"), term(terms, "loss_norm"),
                 term(terms, "loss"));
}

static void print_candidates(const fm_json_t *row, bool placed, bool all)
{
    const fm_json_t *list = fm_json_get(row, "candidates");

    for (size_t i = 0; i < fm_json_len(list); i++) {
        const fm_json_t *one = fm_json_at(list, i);
        const fm_json_t *terms = fm_json_get(one, "terms");
        (void)printf("    %s %s (%lld item%s%s): U %.4g",
                     placed && i == 0 ? "runner-up" : "looked at",
                     fm_json_get_str(one, "worker"),
                     (long long)fm_json_get_int(one, "items", 0),
                     fm_json_get_int(one, "items", 0) == 1 ? "" : "s",
                     fm_json_get_bool(one, "idle", false) ? "" : ", busy",
                     term(terms, "utility"));
        if (placed) {
            (void)printf(", lost by %.4g", fm_json_get_real(one, "lost_by", 0));
        }
        (void)fputc('\n', stdout);
        if (all) {
            print_terms(terms);
        } else {
            print_times(terms);
        }
    }
}

static void print_placement(const fm_json_t *row, bool all)
{
    const fm_json_t *waited = fm_json_get(row, "waited_s");
    int64_t devices = fm_json_get_int(row, "devices", 1);

    (void)printf("  %.1f s  placed on %s: %lld of its items in a batch of "
                 "%lld",
                 fm_json_get_real(row, "after_s", 0),
                 fm_json_get_str(row, "worker") ? fm_json_get_str(row, "worker")
                                                : "?",
                 (long long)fm_json_get_int(row, "items", 0),
                 (long long)fm_json_get_int(row, "batch_items", 0));
    if (devices > 1) {
        (void)printf(", %lld devices", (long long)devices);
    }
    if (fm_json_is_number(waited)) {
        (void)printf(", after %.3g s of waiting", fm_json_real_or(waited, 0));
    }
    (void)printf("; policy %s\n", fm_json_get_str(row, "policy"));
    if (fm_json_get_str(row, "device")) {
        (void)printf("    ran %.4g s on %s, %.4g dollars, %.4g J\n",
                     fm_json_get_real(row, "seconds", 0),
                     fm_json_get_str(row, "device"),
                     fm_json_get_real(row, "dollars", 0),
                     fm_json_get_real(row, "joules", 0));
    } else {
        (void)printf("    %s\n", fm_json_get_str(row, "outcome"));
    }
    print_terms(fm_json_get(row, "terms"));
    print_candidates(row, true, all);
}

static void print_wait(const fm_json_t *row, bool all)
{
    (void)printf("  %.1f s  waits: %s\n", fm_json_get_real(row, "after_s", 0),
                 fm_json_get_str(row, "why"));
    if (all) {
        print_candidates(row, false, true);
    }
}

/* Waits and placements in the order of time. */
static void print_history(const fm_json_t *report, bool all)
{
    const fm_json_t *placements = fm_json_get(report, "placements");
    const fm_json_t *waits = fm_json_get(report, "waits");
    size_t p = 0, w = 0;

    while (p < fm_json_len(placements) || w < fm_json_len(waits)) {
        const fm_json_t *placement = fm_json_at(placements, p);
        const fm_json_t *wait = fm_json_at(waits, w);
        if (!placement ||
            (wait && fm_json_get_real(wait, "after_s", 0) <=
                         fm_json_get_real(placement, "after_s", 0))) {
            print_wait(wait, all);
            w++;
        } else {
            print_placement(placement, all);
            p++;
        }
    }
    int64_t more = fm_json_get_int(report, "placement_count", 0) -
                   (int64_t)fm_json_len(placements);
    if (more > 0) {
        (void)printf("  and %lld placements more\n", (long long)more);
    }
}

static int print_report(const fm_json_t *report, bool all)
{
    const fm_json_t *now = fm_json_get(report, "now");
    size_t shared = fm_json_len(fm_json_get(report, "shared"));

    (void)printf("%s/%s", fm_json_get_str(report, "workflow"),
                 fm_json_get_str(report, "node"));
    if (fm_json_is_number(fm_json_get(report, "item"))) {
        (void)printf("[%lld]", (long long)fm_json_get_int(report, "item", 0));
    }
    (void)printf(
        " (%s, tenant %s): %s; times since its submission, %s\n",
        fm_json_get_str(report, "task"), fm_json_get_str(report, "tenant"),
        fm_json_get_str(report, "state"), fm_json_get_str(report, "submitted"));
    print_history(report, all);
    if (fm_json_get_int(report, "placement_count", 0) == 0 &&
        fm_json_get_int(report, "ran", 0) > 0 &&
        !fm_json_is_number(fm_json_get(report, "item"))) {
        (void)printf("  %lld of its items ran; where was not recorded (an "
                     "older version did not)\n",
                     (long long)fm_json_get_int(report, "ran", 0));
    }
    if (shared > 0) {
        (void)printf("  %zu%s of its items took the result of the same work "
                     "elsewhere (flowmesh lineage)\n",
                     shared, shared >= FM_EXPLAIN_ROWS_MAX ? " or more" : "");
    }
    if (fm_json_get_str(now, "why")) {
        (void)printf("  now: %s\n", fm_json_get_str(now, "why"));
    }
    if (fm_json_get_str(now, "mend")) {
        (void)printf("  to mend: %s\n", fm_json_get_str(now, "mend"));
    }
    return FM_EXIT_OK;
}

/* --- command -------------------------------------------------------------- */

static int explain(const fm_cli_args_t *args)
{
    fm_fabric_t *fabric = NULL;
    fm_cli_target_t target = {0};
    fm_json_t *report = NULL;
    fm_error_t err = {0};
    int status = fm_cli_open_fabric(args, &fm_cli_explain, &fabric);

    if (status == FM_EXIT_OK) {
        status = fm_cli_quotas(args, &fm_cli_explain, fabric);
    }
    if (status == FM_EXIT_OK) {
        status =
            find_operator(fabric, args->operands[0],
                          fm_cli_option(args, &fm_cli_explain, "run"), &target);
    }
    if (status == FM_EXIT_OK &&
        fm_explain(fabric, target.run, target.node,
                   target.has_item ? target.item : FM_EXPLAIN_ALL, &report,
                   &err) < 0) {
        status = fm_cli_fail(FM_EXIT_USAGE, "%s", err.text);
    }
    if (status == FM_EXIT_OK) {
        status = fm_cli_option(args, &fm_cli_explain, "json")
                     ? fm_cli_print_json(report)
                     : print_report(report, fm_cli_option(args, &fm_cli_explain,
                                                          "all") != NULL);
    }
    fm_json_drop(report);
    fm_fabric_close(fabric);
    return status;
}

const fm_cli_command_t fm_cli_explain = {
    .name = "explain",
    .operands = "NODE[ITEM]",
    .operand_min = 1,
    .operand_max = 1,
    .summary = "say why an operator ran where it ran, and why it waits",
    .text = "Name every placement of a node, or of one of its items as in "
            "train[3] (counted from 0): the worker, every term of its utility, "
            "what else was looked at and by how much it lost; what the node "
            "waited for and when; and for one that waits now what would mend "
            "it.  Reads the journal, so it works beside a running fabric and "
            "after it.",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .run = explain,
};
