/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands share. */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "role/launch/launch.h"

const char *fm_cli_option(const fm_cli_args_t *args,
                          const fm_cli_command_t *command, const char *name)
{
    for (size_t i = 0; i < command->option_count; i++) {
        if (strcmp(command->options[i].name, name) == 0) {
            return args->options[i];
        }
    }
    return NULL;
}

int fm_cli_fail(int status, const char *format, ...)
{
    va_list args;

    (void)fflush(stdout);
    (void)fprintf(stderr, "flowmesh: ");
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    return status;
}

int fm_cli_print_json(const fm_json_t *value)
{
    char *text = fm_json_dump_pretty(value);

    if (!text) {
        return fm_cli_fail(FM_EXIT_FAILED, "out of memory");
    }
    (void)puts(text);
    free(text);
    return FM_EXIT_OK;
}

int fm_cli_open_fabric(const fm_cli_args_t *args,
                       const fm_cli_command_t *command,
                       fm_fabric_t **fabric_out)
{
    fm_fabric_options_t opts = {.read_only = true};
    fm_error_t err = {0};
    char *dir = NULL;
    fm_status_t rc = fm_launch_fabric_dir(
        fm_cli_option(args, command, "fabric"), &dir, &err);

    if (rc >= 0) {
        rc = fm_fabric_open(dir, &opts, fabric_out, &err);
    }
    free(dir);
    return rc < 0 ? fm_cli_fail(FM_EXIT_NO_FABRIC, "%s", err.text) : FM_EXIT_OK;
}

/* Node names hold slashes ("dpo/reference"), so the longest name wins. */
static bool find_node(const fm_run_t *run, const char *text, size_t len,
                      uint32_t *node_out)
{
    char *name = fm_strndup(text, len);
    bool found = name && fm_workflow_find(run->workflow, name, node_out);

    free(name);
    return found;
}

static int unknown_node(const fm_run_t *run, const char *text)
{
    (void)fprintf(stderr, "flowmesh: %s has no node %s; it has:\n", run->id,
                  text);
    for (uint32_t i = 0; i < run->node_count; i++) {
        (void)fprintf(stderr, "  %s\n",
                      fm_workflow_node(run->workflow, i)->name);
    }
    return FM_EXIT_USAGE;
}

static int unknown_run(const fm_fabric_t *fabric, const char *name)
{
    (void)fprintf(stderr, "flowmesh: no workflow %s in %s; it has:\n", name,
                  fabric->dir);
    for (uint32_t i = 0; i < fm_state_run_count(fabric->state); i++) {
        const fm_run_t *run = fm_state_run(fabric->state, i);
        (void)fprintf(stderr, "  %s (%s)\n", run->id,
                      fm_workflow_name(run->workflow));
    }
    return FM_EXIT_USAGE;
}

int fm_cli_target(const fm_fabric_t *fabric, const char *text,
                  fm_cli_target_t *target_out)
{
    fm_cli_target_t target = {0};
    size_t len = strcspn(text, "/");
    char *name = fm_strndup(text, len);

    if (!name) {
        return fm_cli_fail(FM_EXIT_FAILED, "out of memory");
    }
    if (!(target.run = fm_state_find(fabric->state, name))) {
        int status = unknown_run(fabric, name);
        free(name);
        return status;
    }
    free(name);
    const char *node = text + len + (text[len] == '/' ? 1 : 0);
    if (*node) {
        const char *slash = strrchr(node, '/');
        target.has_node = true;
        if (!find_node(target.run, node, strlen(node), &target.node)) {
            char *end = NULL;
            if (!slash || !find_node(target.run, node, (size_t)(slash - node),
                                     &target.node)) {
                return unknown_node(target.run, node);
            }
            unsigned long item = strtoul(slash + 1, &end, 10);
            if (end == slash + 1 || *end || item > UINT32_MAX) {
                return fm_cli_fail(FM_EXIT_USAGE, "%s: an item is a number",
                                   slash + 1);
            }
            target.has_item = true;
            target.item = (uint32_t)item;
        }
    }
    *target_out = target;
    return FM_EXIT_OK;
}
