/* SPDX-License-Identifier: Apache-2.0 */
/* flowmesh validate: is this a workflow, and what would it be? */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"

/* What a run would import before anything else. */
static void print_models(const fm_workflow_t *workflow)
{
    static const char *const kinds[] = {
        [FM_WORKFLOW_FILE_MODEL_PATH] = "model",
        [FM_WORKFLOW_FILE_MODEL_HUB] = "model of the Hugging Face cache",
        [FM_WORKFLOW_FILE_MODEL_NAME] = "model by name",
        [FM_WORKFLOW_FILE_ADAPTER_PATH] = "adapter"};

    for (size_t i = 0; i < fm_workflow_file_count(workflow); i++) {
        const fm_workflow_file_t *file = fm_workflow_file(workflow, i);
        if (file->kind != FM_WORKFLOW_FILE_DATA) {
            (void)printf("  %s %s%s%s, first of %s\n", kinds[file->kind],
                         file->path, file->revision ? " at " : "",
                         file->revision ? file->revision : "",
                         fm_workflow_node(workflow, file->node)->name);
        }
    }
}

static int validate(const fm_cli_args_t *args)
{
    const char *file = args->operands[0];
    fm_workflow_t *workflow = NULL;
    fm_buf_t buf = {0};
    fm_error_t err = {0};
    fm_status_t rc = fm_file_read(strcmp(file, "-") == 0 ? "/dev/stdin" : file,
                                  FM_WORKFLOW_TEXT_BYTES_MAX, &buf, &err);

    if (rc >= 0) {
        rc = fm_workflow_parse(buf.data ? (const char *)buf.data : "", buf.len,
                               file, &workflow, &err);
    }
    fm_buf_fini(&buf);
    if (rc < 0) {
        return fm_cli_fail(FM_EXIT_USAGE, "%s", err.text);
    }
    (void)printf("%s: %zu nodes, %zu trials\n", fm_workflow_name(workflow),
                 fm_workflow_node_count(workflow),
                 fm_workflow_trial_count(workflow));
    for (size_t i = 0; i < fm_workflow_node_count(workflow); i++) {
        const fm_workflow_node_t *node = fm_workflow_node(workflow, i);
        (void)printf("  %-40s %s", node->name, node->task_type);
        for (size_t k = 0; k < node->dep_count; k++) {
            (void)printf("%s%s", k ? ", " : "  after ",
                         fm_workflow_node(workflow, node->deps[k])->name);
        }
        (void)printf("\n");
    }
    print_models(workflow);
    fm_workflow_destroy(workflow);
    return FM_EXIT_OK;
}

const fm_cli_command_t fm_cli_validate = {
    .name = "validate",
    .operands = "FILE",
    .operand_min = 1,
    .operand_max = 1,
    .summary = "check a workflow and list its nodes",
    .text = "Read FILE (- is standard input) and check it as `run` would, "
            "without running anything.  An error names file, line and column.",
    .run = validate,
};
