/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file cli.h
 * The command table of `flowmesh`: help, man page and completion are made
 * from it, so they cannot differ from what is parsed.
 */
#ifndef FM_CLI_CLI_H
#define FM_CLI_CLI_H

#include "base/json.h"
#include "role/control/fabric.h"

/* Exit statuses (docs/operations.md). */
#define FM_EXIT_OK 0
#define FM_EXIT_FAILED 1    /**< the workflow, or what was asked, failed */
#define FM_EXIT_USAGE 2     /**< bad input or usage: nothing was run */
#define FM_EXIT_NO_FABRIC 3 /**< no fabric, or another process holds it */

typedef struct fm_cli_option {
    const char *name;  /**< without dashes */
    const char *value; /**< name of its value in help; NULL: a switch */
    const char *help;
} fm_cli_option_t;

#define FM_CLI_OPTION_MAX 12u
#define FM_CLI_OPERAND_MAX 256u
#define FM_CLI_MANY_MAX 64u

/** What was given; options by their position in the command's table. */
typedef struct fm_cli_args {
    const char *options[FM_CLI_OPTION_MAX]; /**< value, "" for a switch */
    const char *operands[FM_CLI_OPERAND_MAX];
    size_t operand_count;
    const char *many[FM_CLI_MANY_MAX]; /**< values of command->many */
    size_t many_count;
} fm_cli_args_t;

typedef struct fm_cli_command {
    const char *name;     /**< "cas verify" is two words */
    const char *operands; /**< as shown in the usage line */
    size_t operand_min;
    size_t operand_max;
    const char *summary; /**< one line */
    const char *text;    /**< a paragraph for help and the man page */
    const fm_cli_option_t *options;
    size_t option_count;
    const char *many; /**< the option that may be given several times */
    int (*run)(const fm_cli_args_t *args);
} fm_cli_command_t;

/* One file a command group; the table of all is in main.c. */
extern const fm_cli_command_t fm_cli_run;
extern const fm_cli_command_t fm_cli_join;
extern const fm_cli_command_t fm_cli_validate;
extern const fm_cli_command_t fm_cli_result;
extern const fm_cli_command_t fm_cli_lineage;
extern const fm_cli_command_t fm_cli_explain;
extern const fm_cli_command_t fm_cli_explain_miss;
extern const fm_cli_command_t fm_cli_slurm_template;
extern const fm_cli_command_t fm_cli_sim;
extern const fm_cli_command_t fm_cli_tenants;
extern const fm_cli_command_t fm_cli_cas_stat;
extern const fm_cli_command_t fm_cli_cas_ls;
extern const fm_cli_command_t fm_cli_cas_get;
extern const fm_cli_command_t fm_cli_cas_verify;
extern const fm_cli_command_t fm_cli_model_import;
extern const fm_cli_command_t fm_cli_model_export;
extern const fm_cli_command_t fm_cli_model_ls;
extern const fm_cli_command_t fm_cli_model_show;
extern const fm_cli_command_t fm_cli_model_rm;
extern const fm_cli_command_t fm_cli_devices;

/** Value of an option, NULL when it was not given. */
const char *fm_cli_option(const fm_cli_args_t *args,
                          const fm_cli_command_t *command, const char *name);
/** Print "flowmesh: text" to stderr; returns @p status. */
int fm_cli_fail(int status, const char *format, ...) FM_PRINTF(2, 3);
/** Print @p value, indented, to stdout; FM_EXIT_OK or FM_EXIT_FAILED. */
int fm_cli_print_json(const fm_json_t *value);

/**
 * Open the fabric that --fabric names, read-only.
 * @return FM_EXIT_OK, or the exit status after saying why not.
 */
int fm_cli_open_fabric(const fm_cli_args_t *args,
                       const fm_cli_command_t *command,
                       fm_fabric_t **fabric_out);

/**
 * Give the tenants of @p fabric the weights and quotas of its configuration
 * (--config of @p command, else the fabric's own).
 * @return FM_EXIT_OK, or the exit status after saying what is wrong with it.
 */
int fm_cli_quotas(const fm_cli_args_t *args, const fm_cli_command_t *command,
                  fm_fabric_t *fabric);

/** fm_launch_options_t.resolve: imports what a workflow names into the fabric,
 *  saying on stderr what it did; @p ctx is not used. */
FM_MUST_USE fm_status_t fm_cli_resolve(void *ctx, const char *dir,
                                       const fm_workflow_file_t *file,
                                       const char *path, const char *base,
                                       fm_digest_t *digest_out,
                                       fm_error_t *err);

/** "WORKFLOW[/NODE[/ITEM]]", taken apart; node names may hold slashes. */
typedef struct fm_cli_target {
    const fm_run_t *run;
    bool has_node;
    uint32_t node;
    bool has_item;
    uint32_t item;
} fm_cli_target_t;

/** @return FM_EXIT_OK, or FM_EXIT_USAGE after naming what does exist. */
int fm_cli_target(const fm_fabric_t *fabric, const char *text,
                  fm_cli_target_t *target_out);

#endif
