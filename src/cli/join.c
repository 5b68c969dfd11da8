/* SPDX-License-Identifier: Apache-2.0 */
/* flowmesh join: be a worker of a fabric that another job runs. */
#include <stdlib.h>

#include "cli/cli.h"
#include "role/launch/launch.h"

#define WAIT_DEFAULT_S 60.0
#define WAIT_MAX_S 1e6

static const fm_cli_option_t options[] = {
    {"fabric", "DIR",
     "fabric directory; default: $FLOWMESH_FABRIC, else the "
     "latest"},
    {"executor", "COMMAND", "what runs the tasks; default: flowmesh-engine"},
    {"wait", "SECONDS",
     "how long to wait for a control plane, at first and "
     "after one has vanished; default 60"},
};

static int join(const fm_cli_args_t *args)
{
    const char *wait = fm_cli_option(args, &fm_cli_join, "wait");
    char *end = NULL;
    fm_error_t err = {0};
    fm_join_options_t opts = {
        .fabric_dir = fm_cli_option(args, &fm_cli_join, "fabric"),
        .executor = fm_cli_option(args, &fm_cli_join, "executor"),
        .wait_s = wait ? strtod(wait, &end) : WAIT_DEFAULT_S,
    };

    if (wait && (end == wait || *end || !(opts.wait_s >= 0) ||
                 opts.wait_s > WAIT_MAX_S)) {
        return fm_cli_fail(FM_EXIT_USAGE, "--wait wants seconds: %s", wait);
    }
    fm_launch_outcome_t outcome = fm_launch_join(&opts, &err);
    if (outcome == FM_LAUNCH_DONE) {
        return FM_EXIT_OK;
    }
    return fm_cli_fail(outcome == FM_LAUNCH_NO_FABRIC ? FM_EXIT_NO_FABRIC
                                                      : FM_EXIT_FAILED,
                       "%s", err.text);
}

const fm_cli_command_t fm_cli_join = {
    .name = "join",
    .operands = "",
    .operand_max = 0,
    .summary = "work for a fabric that another job runs",
    .text = "Be a worker of the fabric in DIR, whose control plane runs in "
            "another job: start it with --listen there.  Every process that "
            "srun or mpirun starts is one worker.  It leaves when the control "
            "plane ends or on SIGTERM, handing back what it has not done.",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .run = join,
};
