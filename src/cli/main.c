/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flowmesh: one program for every role and command.  Its table of commands is
 * the only description of the command line.
 */
#include <flowmesh/version.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/cli.h"

static const fm_cli_command_t *const commands[] = {
    &fm_cli_run,          &fm_cli_join,
    &fm_cli_validate,     &fm_cli_result,
    &fm_cli_lineage,      &fm_cli_explain,
    &fm_cli_explain_miss, &fm_cli_tenants,
    &fm_cli_devices,      &fm_cli_slurm_template,
    &fm_cli_sim,          &fm_cli_cas_stat,
    &fm_cli_cas_ls,       &fm_cli_cas_get,
    &fm_cli_cas_verify,   &fm_cli_model_import,
    &fm_cli_model_export, &fm_cli_model_ls,
    &fm_cli_model_show,   &fm_cli_model_rm,
};

static const char about[] =
    "FlowMesh runs LLM workflows as graphs of operators on an HPC cluster: "
    "shared work runs once, everything is recorded, and a killed run goes on "
    "where it stopped.";

/* --- help ----------------------------------------------------------------- */

/* Break @p text at blanks so that lines end before column 79. */
static void print_wrapped(const char *text, FILE *out)
{
    size_t column = 0;

    while (*text) {
        size_t word = strcspn(text, " ");
        if (column > 0 && column + 1 + word > 78) {
            (void)fputc('\n', out);
            column = 0;
        }
        (void)fprintf(out, "%s%.*s", column ? " " : "", (int)word, text);
        column += word + (column ? 1 : 0);
        text += word;
        text += strspn(text, " ");
    }
    (void)fputc('\n', out);
}

static void print_options(const fm_cli_command_t *command, FILE *out)
{
    for (size_t i = 0; i < command->option_count; i++) {
        const fm_cli_option_t *option = &command->options[i];
        char left[40];
        (void)snprintf(left, sizeof(left), "--%s%s%s", option->name,
                       option->value ? " " : "",
                       option->value ? option->value : "");
        (void)fprintf(out, "  %-20s %s\n", left, option->help);
    }
    (void)fprintf(out, "  %-20s %s\n", "--help", "say this");
}

static int help_command(const fm_cli_command_t *command, FILE *out)
{
    (void)fprintf(out, "usage: flowmesh %s%s%s%s\n\n", command->name,
                  command->option_count ? " [options]" : "",
                  *command->operands ? " " : "", command->operands);
    print_wrapped(command->text, out);
    (void)fputc('\n', out);
    print_options(command, out);
    return FM_EXIT_OK;
}

/* The commands whose names start with @p prefix; false when there are none. */
static bool list_commands(const char *prefix, FILE *out)
{
    bool any = false;

    for (size_t i = 0; i < FM_COUNT_OF(commands); i++) {
        if (strncmp(commands[i]->name, prefix, strlen(prefix)) == 0) {
            (void)fprintf(out, "  %-15s %s\n", commands[i]->name,
                          commands[i]->summary);
            any = true;
        }
    }
    return any;
}

static int help(FILE *out)
{
    (void)fprintf(out, "usage: flowmesh COMMAND [options] [operands]\n\n");
    print_wrapped(about, out);
    (void)fputc('\n', out);
    (void)list_commands("", out);
    (void)fprintf(out, "\n`flowmesh COMMAND --help` says more.  "
                       "`flowmesh --version` names the version.\n");
    return FM_EXIT_OK;
}

/* `flowmesh cas`, `flowmesh cas --help`: the first word of several commands. */
static int help_group(char **argv)
{
    char *prefix = fm_asprintf("%s ", argv[1]);
    bool asked = argv[2] && strcmp(argv[2], "--help") == 0;
    bool group = prefix && list_commands(prefix, asked ? stdout : stderr);

    free(prefix);
    if (group) {
        return asked ? FM_EXIT_OK : FM_EXIT_USAGE;
    }
    return fm_cli_fail(FM_EXIT_USAGE,
                       "%s: no such command; `flowmesh --help` lists them",
                       argv[1]);
}

/* The man page, for the build to install. */
static int man_page(void)
{
    (void)printf(".TH FLOWMESH 1 \"\" \"flowmesh %s\"\n.SH NAME\nflowmesh \\- "
                 "service fabric for LLM workflows\n.SH SYNOPSIS\n"
                 ".B flowmesh\nCOMMAND [options] [operands]\n"
                 ".SH DESCRIPTION\n%s\n.SH COMMANDS\n",
                 FM_VERSION, about);
    for (size_t i = 0; i < FM_COUNT_OF(commands); i++) {
        const fm_cli_command_t *command = commands[i];
        (void)printf(".SS flowmesh %s %s\n%s\n", command->name,
                     command->operands, command->text);
        for (size_t k = 0; k < command->option_count; k++) {
            const fm_cli_option_t *option = &command->options[k];
            (void)printf(".TP\n.B \\-\\-%s%s%s\n%s\n", option->name,
                         option->value ? " " : "",
                         option->value ? option->value : "", option->help);
        }
    }
    (void)printf(
        ".SH EXIT STATUS\n0 done, 1 failed, 2 bad input or usage, "
        "3 no fabric or one that another process holds\n"
        ".SH ENVIRONMENT\n.TP\n.B FLOWMESH_FABRIC\nthe fabric "
        "directory\n.TP\n.B FLOWMESH_CONFIG\nthe "
        "configuration file\n.TP\n.B FM_LOG\nerror, warn, info or debug\n");
    return FM_EXIT_OK;
}

/* The first words of all names; of a group of commands, the second ones. */
static void print_words(const char *group)
{
    size_t skip = group ? strlen(group) + 1 : 0;

    for (size_t i = 0; i < FM_COUNT_OF(commands); i++) {
        const char *name = commands[i]->name;
        size_t len = strcspn(name, " ");
        if (group) { /* "group word" */
            if (len == skip - 1 && strncmp(name, group, len) == 0 &&
                name[len]) {
                (void)printf("%s ", name + skip);
            }
        } else if (i == 0 || strncmp(commands[i - 1]->name, name, len) != 0 ||
                   commands[i - 1]->name[len] != ' ') {
            (void)printf("%.*s ", (int)len, name); /* groups stand together */
        }
    }
}

/* Completion for bash, likewise. */
static int completion(void)
{
    static const char *const groups[] = {"cas", "model"};

    (void)printf("_flowmesh() {\n  local cur=${COMP_WORDS[COMP_CWORD]}\n"
                 "  local words\n  case \"${COMP_WORDS[*]:1:2}\" in\n");
    for (size_t i = 0; i < FM_COUNT_OF(commands); i++) {
        (void)printf("  \"%s\"|\"%s \"*) words=\"--help", commands[i]->name,
                     commands[i]->name);
        for (size_t k = 0; k < commands[i]->option_count; k++) {
            (void)printf(" --%s", commands[i]->options[k].name);
        }
        (void)printf("\" ;;\n");
    }
    for (size_t i = 0; i < FM_COUNT_OF(groups); i++) {
        (void)printf("  %s*) words=\"", groups[i]);
        print_words(groups[i]);
        (void)printf("\" ;;\n");
    }
    (void)printf("  *) words=\"");
    print_words(NULL);
    (void)printf("--help --version\" ;;\n  esac\n"
                 "  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
                 "  [ ${#COMPREPLY[@]} -gt 0 ] || "
                 "COMPREPLY=($(compgen -f -- \"$cur\"))\n}\n"
                 "complete -F _flowmesh flowmesh\n");
    return FM_EXIT_OK;
}

/* --- parsing -------------------------------------------------------------- */

static int parse_option(const fm_cli_command_t *command, char **argv,
                        int *index, fm_cli_args_t *args)
{
    const char *name = argv[*index] + 2;
    const char *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);

    for (size_t i = 0; i < command->option_count; i++) {
        const fm_cli_option_t *option = &command->options[i];
        if (strlen(option->name) != len ||
            strncmp(option->name, name, len) != 0) {
            continue;
        }
        if (!option->value) {
            if (equals) {
                return fm_cli_fail(FM_EXIT_USAGE, "--%s takes no value",
                                   option->name);
            }
            args->options[i] = "";
        } else if (equals) {
            args->options[i] = equals + 1;
        } else if (argv[*index + 1]) {
            args->options[i] = argv[++*index];
        } else {
            return fm_cli_fail(FM_EXIT_USAGE, "--%s wants a value: %s",
                               option->name, option->value);
        }
        if (command->many && strcmp(option->name, command->many) == 0) {
            if (args->many_count == FM_CLI_MANY_MAX) {
                return fm_cli_fail(FM_EXIT_USAGE, "--%s more than %u times",
                                   option->name, FM_CLI_MANY_MAX);
            }
            args->many[args->many_count++] = args->options[i];
        }
        return FM_EXIT_OK;
    }
    return fm_cli_fail(FM_EXIT_USAGE,
                       "%s: no such option; `flowmesh %s --help` lists them",
                       argv[*index], command->name);
}

static int run_command(const fm_cli_command_t *command, char **argv)
{
    fm_cli_args_t args = {0};
    bool only_operands = false;

    for (int i = 0; argv[i]; i++) {
        if (!only_operands && strcmp(argv[i], "--") == 0) {
            only_operands = true;
        } else if (!only_operands && (strcmp(argv[i], "--help") == 0 ||
                                      strcmp(argv[i], "-h") == 0)) {
            return help_command(command, stdout);
        } else if (!only_operands && argv[i][0] == '-' && argv[i][1]) {
            if (argv[i][1] != '-') {
                return fm_cli_fail(FM_EXIT_USAGE, "%s: options have two dashes",
                                   argv[i]);
            }
            int status = parse_option(command, argv, &i, &args);
            if (status != FM_EXIT_OK) {
                return status;
            }
        } else if (args.operand_count == command->operand_max) {
            return fm_cli_fail(FM_EXIT_USAGE, "%s: one operand too many",
                               argv[i]);
        } else {
            args.operands[args.operand_count++] = argv[i];
        }
    }
    if (args.operand_count < command->operand_min) {
        return fm_cli_fail(FM_EXIT_USAGE, "flowmesh %s wants %s", command->name,
                           command->operands);
    }
    return command->run(&args);
}

/* Words of a command's name that argv starts with; 0 when it is another. */
static int match(const char *name, char **argv)
{
    int words = 0;

    while (*name) {
        size_t len = strcspn(name, " ");
        if (!argv[words] || strlen(argv[words]) != len ||
            strncmp(argv[words], name, len) != 0) {
            return 0;
        }
        words++;
        name += len;
        name += *name == ' ' ? 1 : 0;
    }
    return words;
}

int main(int argc, char **argv)
{
    (void)signal(SIGPIPE, SIG_IGN); /* a dying peer must not kill us */
    if (argc < 2) {
        (void)help(stderr);
        return FM_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        (void)printf("flowmesh %s\n", FM_VERSION);
        return FM_EXIT_OK;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        return help(stdout);
    }
    if (strcmp(argv[1], "--man") == 0) {
        return man_page();
    }
    if (strcmp(argv[1], "--completion") == 0) {
        return completion();
    }
    for (size_t i = 0; i < FM_COUNT_OF(commands); i++) {
        int words = match(commands[i]->name, argv + 1);
        if (words > 0) {
            int status = run_command(commands[i], argv + 1 + words);
            return fflush(stdout) != 0 && status == FM_EXIT_OK ? FM_EXIT_FAILED
                                                               : status;
        }
    }
    return help_group(argv);
}
