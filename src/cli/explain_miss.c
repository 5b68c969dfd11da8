/* SPDX-License-Identifier: Apache-2.0 */
/* flowmesh explain-miss: why two operators are not the same work. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "role/control/report.h"

static const fm_cli_option_t options[] = {
    {"fabric", "DIR", "the fabric; default $FLOWMESH_FABRIC, else the latest"},
    {"json", NULL, "keys and differences as JSON"},
};

/* Of a value: the place matters, not the whole text. */
#define SHOWN_BYTES 200

static void print_side(const char *side, const fm_json_t *value)
{
    char *text =
        fm_json_is(value, FM_JSON_NULL) ? NULL : fm_json_canonical(value);
    bool cut = text && strlen(text) > SHOWN_BYTES;

    (void)printf("  %s  %.*s%s\n", side, SHOWN_BYTES, text ? text : "(none)",
                 cut ? " ..." : "");
    free(text);
}

static int print_report(const fm_json_t *report)
{
    const fm_json_t *list = fm_json_get(report, "differences");

    if (fm_json_get_bool(report, "same", false)) {
        (void)printf("the same work: %s\n", fm_json_get_str(report, "a"));
    }
    for (size_t i = 0; i < fm_json_len(list); i++) {
        const fm_json_t *row = fm_json_at(list, i);
        (void)printf("%s\n", fm_json_get_str(row, "path"));
        print_side("A", fm_json_get(row, "a"));
        print_side("B", fm_json_get(row, "b"));
    }
    return FM_EXIT_OK;
}

static int explain_miss(const fm_cli_args_t *args)
{
    fm_fabric_t *fabric = NULL;
    fm_report_item_t items[2];
    fm_json_t *report = NULL;
    fm_error_t err = {0};
    int status = fm_cli_open_fabric(args, &fm_cli_explain_miss, &fabric);

    for (size_t i = 0; status == FM_EXIT_OK && i < 2; i++) {
        fm_cli_target_t target;
        status = fm_cli_target(fabric, args->operands[i], &target);
        if (status == FM_EXIT_OK && !target.has_node) {
            status = fm_cli_fail(FM_EXIT_USAGE,
                                 "%s: explain-miss wants "
                                 "WORKFLOW/NODE[/ITEM]",
                                 args->operands[i]);
        } else if (status == FM_EXIT_OK) {
            items[i] = (fm_report_item_t){target.run, target.node,
                                          target.has_item ? target.item : 0};
        }
    }
    if (status == FM_EXIT_OK &&
        fm_report_miss(fabric, items, &report, &err) < 0) {
        status = fm_cli_fail(FM_EXIT_FAILED, "%s", err.text);
    }
    if (status == FM_EXIT_OK) {
        status = fm_cli_option(args, &fm_cli_explain_miss, "json")
                     ? fm_cli_print_json(report)
                     : print_report(report);
    }
    fm_json_drop(report);
    fm_fabric_close(fabric);
    return status;
}

const fm_cli_command_t fm_cli_explain_miss = {
    .name = "explain-miss",
    .operands = "WORKFLOW/NODE[/ITEM] WORKFLOW/NODE[/ITEM]",
    .operand_min = 2,
    .operand_max = 2,
    .summary = "say why two operators did not share their work",
    .text = "Name every part in which the action keys of two items (A and B; "
            "item 0 unless given) differ, such as params.training.seed.  "
            "Items with equal keys are the same work and run once.",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .run = explain_miss,
};
