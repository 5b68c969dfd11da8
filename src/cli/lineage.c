/* SPDX-License-Identifier: Apache-2.0 */
/* flowmesh lineage: where a result came from. */
#include <stdlib.h>

#include "cli/cli.h"
#include "role/control/report.h"

static const fm_cli_option_t options[] = {
    {"fabric", "DIR", "the fabric; default $FLOWMESH_FABRIC, else the latest"},
};

static int print_lineage(fm_fabric_t *fabric, const fm_cli_target_t *target)
{
    const fm_vector_t *vector = target->run->vectors[target->node];
    uint32_t first = target->has_item ? target->item : 0;
    uint32_t end = target->has_item ? first + 1 : vector ? vector->count : 0;
    fm_json_t *list = fm_json_array();
    fm_json_t *one = NULL;
    fm_error_t err = {0};
    int status = FM_EXIT_OK;

    for (uint32_t i = first; status == FM_EXIT_OK && i < end; i++) {
        if (fm_report_lineage(fabric, target->run, target->node, i, &one,
                              &err) < 0) {
            status = fm_cli_fail(FM_EXIT_FAILED, "%s", err.text);
        } else if (fm_json_append(list, one) < 0) {
            status = fm_cli_fail(FM_EXIT_FAILED, "out of memory");
        }
    }
    if (status == FM_EXIT_OK) {
        status =
            fm_cli_print_json(target->has_item ? fm_json_at(list, 0) : list);
    }
    fm_json_drop(list);
    return status;
}

static int lineage(const fm_cli_args_t *args)
{
    fm_fabric_t *fabric = NULL;
    fm_cli_target_t target;
    int status = fm_cli_open_fabric(args, &fm_cli_lineage, &fabric);

    if (status != FM_EXIT_OK) {
        return status;
    }
    status = fm_cli_target(fabric, args->operands[0], &target);
    if (status == FM_EXIT_OK && !target.has_node) {
        status = fm_cli_fail(FM_EXIT_USAGE,
                             "lineage wants a node: WORKFLOW/NODE[/ITEM]");
    }
    if (status == FM_EXIT_OK) {
        status = print_lineage(fabric, &target);
    }
    fm_fabric_close(fabric);
    return status;
}

const fm_cli_command_t fm_cli_lineage = {
    .name = "lineage",
    .operands = "WORKFLOW/NODE[/ITEM]",
    .operand_min = 1,
    .operand_max = 1,
    .summary = "say where a result came from",
    .text = "Print, as JSON, how each item of a node (or one ITEM, counted "
            "from 0) came to be: operator, parameters, inputs, model, seed, "
            "worker, device, start, duration, joules, dollars, why it was "
            "placed there, and who shares it.",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .run = lineage,
};
