/* SPDX-License-Identifier: Apache-2.0 */
/* flowmesh result: the outputs of a workflow or one of its nodes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "role/control/report.h"

static const fm_cli_option_t options[] = {
    {"fabric", "DIR", "the fabric; default $FLOWMESH_FABRIC, else the latest"},
    {"json", NULL, "every node's items with output and digest"},
};

static void print_output(const fm_json_t *output)
{
    const char *text = fm_json_str(output);
    char *dump = text ? NULL : fm_json_canonical(output);

    (void)puts(text ? text : dump ? dump : "");
    free(dump);
}

static int print_node(fm_fabric_t *fabric, const fm_run_t *run, uint32_t node,
                      bool title)
{
    fm_json_t *items = NULL;
    fm_error_t err = {0};

    if (title) {
        (void)printf("== %s\n", fm_workflow_node(run->workflow, node)->name);
    }
    if (fm_report_items(fabric, run, node, &items, &err) < 0) {
        return fm_cli_fail(FM_EXIT_FAILED, "%s", err.text);
    }
    for (size_t i = 0; i < fm_json_len(items); i++) {
        print_output(fm_json_get(fm_json_at(items, i), "output"));
    }
    fm_json_drop(items);
    return FM_EXIT_OK;
}

/* {"name", "items"}, items null while the node has no result. */
static fm_json_t *node_json(fm_fabric_t *fabric, const fm_run_t *run,
                            uint32_t node)
{
    fm_json_t *object = fm_json_object();
    fm_json_t *items = NULL;

    if (fm_report_items(fabric, run, node, &items, NULL) < 0) {
        items = fm_json_null();
    }
    if (!object ||
        fm_json_set(
            object, "name",
            fm_json_string(fm_workflow_node(run->workflow, node)->name)) < 0 ||
        fm_json_set(object, "items", items) < 0) {
        return fm_json_drop(object);
    }
    return object;
}

static int print_all_json(fm_fabric_t *fabric, const fm_cli_target_t *target)
{
    const fm_run_t *run = target->run;
    fm_json_t *report = fm_json_object();
    fm_json_t *nodes = fm_json_array();
    bool ok = report && nodes;

    for (uint32_t i = 0; ok && i < run->node_count; i++) {
        if (!target->has_node || target->node == i) {
            ok = fm_json_append(nodes, node_json(fabric, run, i)) >= 0;
        }
    }
    ok = ok && fm_json_set(report, "workflow", fm_json_string(run->id)) >= 0 &&
         fm_json_set(report, "nodes", fm_json_keep(nodes)) >= 0;
    int status = ok ? fm_cli_print_json(report)
                    : fm_cli_fail(FM_EXIT_FAILED, "out of memory");
    fm_json_drop(nodes);
    fm_json_drop(report);
    return status;
}

static int result(const fm_cli_args_t *args)
{
    fm_fabric_t *fabric = NULL;
    fm_cli_target_t target;
    int status = fm_cli_open_fabric(args, &fm_cli_result, &fabric);

    if (status != FM_EXIT_OK) {
        return status;
    }
    status = fm_cli_target(fabric, args->operands[0], &target);
    if (status == FM_EXIT_OK && fm_cli_option(args, &fm_cli_result, "json")) {
        status = print_all_json(fabric, &target);
    } else if (status == FM_EXIT_OK && target.has_node) {
        status = print_node(fabric, target.run, target.node, false);
    } else if (status == FM_EXIT_OK) {
        for (uint32_t i = 0; i < target.run->node_count; i++) {
            int one = print_node(fabric, target.run, i, true);
            status = one != FM_EXIT_OK ? one : status;
        }
    }
    fm_fabric_close(fabric);
    return status;
}

const fm_cli_command_t fm_cli_result = {
    .name = "result",
    .operands = "WORKFLOW[/NODE]",
    .operand_min = 1,
    .operand_max = 1,
    .summary = "print the outputs of a workflow",
    .text = "Print the outputs of WORKFLOW (an id, or a name: its latest run) "
            "or of one NODE as text, an item a line; with --json as JSON.  "
            "Works while a fabric is running, and shows what is durable.",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .run = result,
};
