/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flowmesh slurm-template: a batch script of slurm/ with the site's values in
 * it.  The scripts themselves are files, installed beside the program or in
 * the source tree; only #SBATCH lines and two defaults are filled in.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"

#define TEMPLATE_BYTES_MAX (1u << 20)

static const fm_cli_option_t options[] = {
    {"set", "KEY=VALUE",
     "an option of sbatch, such as partition=gpu or time=04:00:00; may be "
     "repeated"},
    {"fabric", "DIR", "default of FLOWMESH_FABRIC in the script"},
};

/* Where installation and source tree keep them, seen from the program. */
static const char *const places[] = {"../share/flowmesh/slurm",
                                     "../../../slurm"};

static int template_read(const char *name, fm_buf_t *out)
{
    char *bin = fm_file_program_dir();
    fm_error_t err = {0};
    int status = FM_EXIT_FAILED;

    for (size_t i = 0; bin && status != FM_EXIT_OK && i < FM_COUNT_OF(places);
         i++) {
        char *path = fm_asprintf("%s/%s/%s.sbatch", bin, places[i], name);
        if (path && fm_file_read(path, TEMPLATE_BYTES_MAX, out, &err) >= 0) {
            status = FM_EXIT_OK;
        }
        free(path);
    }
    free(bin);
    return status == FM_EXIT_OK
               ? status
               : fm_cli_fail(FM_EXIT_FAILED,
                             "%s: no such template beside this program (%s); "
                             "there are flowmesh and join",
                             name, err.text);
}

/* "partition=gpu": the length of its key; 0: not of that form. */
static size_t key_length(const char *setting)
{
    size_t len = strspn(setting, "abcdefghijklmnopqrstuvwxyz-");

    if (len == 0 || setting[len] != '=' || setting[len + 1] == '\0' ||
        *setting == '-') {
        return 0;
    }
    for (const char *at = setting + len; *at; at++) {
        if (iscntrl((unsigned char)*at)) {
            return 0;
        }
    }
    return len;
}

/* Whether a line sets the same option as @p setting. */
static bool sets_same(const char *line, size_t len, const char *setting)
{
    static const char head[] = "#SBATCH --";
    size_t key = key_length(setting);
    size_t want = sizeof(head) - 1 + key;

    return len >= want && strncmp(line, head, sizeof(head) - 1) == 0 &&
           strncmp(line + sizeof(head) - 1, setting, key) == 0 &&
           (len == want || line[want] == '=' || line[want] == ' ');
}

static void print_quoted(const char *text)
{
    (void)putchar('\'');
    for (; *text; text++) {
        if (*text == '\'') {
            (void)fputs("'\\''", stdout);
        } else {
            (void)putchar(*text);
        }
    }
    (void)putchar('\'');
}

/* What the environment may still overrule. */
static void print_defaults(const char *fabric)
{
    char *bin = fm_file_program_dir();

    if (bin) {
        (void)fputs("[[ -n ${FLOWMESH:-} ]] || export FLOWMESH=", stdout);
        print_quoted(bin);
        (void)puts("/flowmesh");
    }
    if (fabric) {
        (void)fputs("[[ -n ${FLOWMESH_FABRIC:-} ]] || export FLOWMESH_FABRIC=",
                    stdout);
        print_quoted(fabric);
        (void)puts("");
    }
    free(bin);
}

static void print_filled(const fm_buf_t *text, const fm_cli_args_t *args,
                         const char *fabric)
{
    bool used[FM_CLI_MANY_MAX] = {false};
    bool options_over = false;
    const char *at = (const char *)text->data;
    const char *end = at + text->len;

    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t len = stop ? (size_t)(stop - at) : (size_t)(end - at);
        const char *instead = NULL;
        if (!options_over && len > 0 && *at != '#') {
            options_over = true;
            for (size_t i = 0; i < args->many_count; i++) {
                if (!used[i]) {
                    (void)printf("#SBATCH --%s\n", args->many[i]);
                }
            }
            print_defaults(fabric);
        }
        for (size_t i = 0; !options_over && i < args->many_count; i++) {
            if (sets_same(at, len, args->many[i])) {
                instead = args->many[i]; /* the last one given counts */
                used[i] = true;
            }
        }
        if (instead) {
            (void)printf("#SBATCH --%s\n", instead);
        } else {
            (void)printf("%.*s\n", (int)len, at);
        }
        at += len + 1;
    }
}

static int print_template(const fm_cli_args_t *args)
{
    const char *name = args->operand_count ? args->operands[0] : "flowmesh";
    const char *fabric = fm_cli_option(args, &fm_cli_slurm_template, "fabric");
    fm_buf_t text = {0};

    if (strchr(name, '/')) {
        return fm_cli_fail(FM_EXIT_USAGE, "%s: flowmesh or join", name);
    }
    for (size_t i = 0; i < args->many_count; i++) {
        if (key_length(args->many[i]) == 0) {
            return fm_cli_fail(FM_EXIT_USAGE,
                               "--set %s: KEY=VALUE, with a long option of "
                               "sbatch as the key, is wanted",
                               args->many[i]);
        }
    }
    int status = template_read(name, &text);
    if (status == FM_EXIT_OK) {
        print_filled(&text, args, fabric);
    }
    fm_buf_fini(&text);
    return status;
}

const fm_cli_command_t fm_cli_slurm_template = {
    .name = "slurm-template",
    .operands = "[NAME]",
    .operand_max = 1,
    .summary = "a batch script for this site",
    .text = "Print the batch script NAME: flowmesh (a run; the default) or "
            "join (workers for a run of another job), with options of sbatch "
            "and this program's place filled in.  Its comments state every "
            "variable that it reads.",
    .options = options,
    .option_count = FM_COUNT_OF(options),
    .many = "set",
    .run = print_template,
};
