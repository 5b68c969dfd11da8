/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command: run a program in a fresh directory, inputs staged as files,
 * standard output and named files as results (docs/spec/workflow.md, W48).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "run/ops/internal.h"

#define ARGS_MAX 4096
#define FILE_BYTES_MAX ((size_t)1 << 30) /* staged through memory */
#define STDOUT_BYTES_MAX ((size_t)16 << 20)

static fm_status_t name_bad(fm_error_t *err, const char *what)
{
    return fm_error_set(err, FM_ERR_INVALID,
                        "%s: a relative file name without .. is allowed", what);
}

/* --- argv and env -------------------------------------------------------- */

typedef struct command {
    const char **argv; /* borrowed texts */
    char **env;        /* owned texts */
    size_t env_count;
} command_t;

static void command_fini(command_t *command)
{
    for (size_t i = 0; i < command->env_count; i++) {
        free(command->env[i]);
    }
    free(command->env);
    free(command->argv);
}

static fm_status_t argv_parse(const fm_json_t *list, command_t *command,
                              fm_error_t *err)
{
    size_t count = fm_json_len(list);

    if (!fm_json_is(list, FM_JSON_ARRAY) || count == 0 || count > ARGS_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "argv: a list of 1 to %d texts is needed",
                            ARGS_MAX);
    }
    if (!(command->argv = fm_calloc(count + 1, sizeof(char *)))) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < count; i++) {
        const fm_json_t *arg = fm_json_at(list, i);
        command->argv[i] = fm_json_str(arg);
        if (!command->argv[i] ||
            strlen(command->argv[i]) != fm_json_str_len(arg) ||
            (i == 0 && !command->argv[i][0])) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "argv[%zu]: a text without NUL is needed", i);
        }
    }
    return FM_OK;
}

static fm_status_t env_add(command_t *command, const char *name,
                           const fm_json_t *value, fm_error_t *err)
{
    const char *text = fm_json_str(value);
    char *number = NULL;

    if (!*name || strchr(name, '=') ||
        (text && strlen(text) != fm_json_str_len(value)) ||
        (!text && !fm_json_is_number(value))) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "env.%.80s: a name and a text or number are "
                            "needed",
                            name);
    }
    if (!text && !(number = fm_json_canonical(value))) {
        return fm_no_memory(err);
    }
    char *entry = fm_asprintf("%s=%s", name, text ? text : number);
    free(number);
    if (!entry) {
        return fm_no_memory(err);
    }
    command->env[command->env_count++] = entry;
    return FM_OK;
}

static fm_status_t env_parse(const fm_json_t *params, command_t *command,
                             fm_error_t *err)
{
    const fm_json_t *env = fm_json_get(params, "env");
    const fm_json_t *seed = fm_json_get(params, "seed");
    void *iterator = NULL;
    const char *name;
    fm_json_t *value;
    fm_status_t rc = FM_OK;

    if (fm_json_len(env) > ARGS_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT, "env: at most %d variables",
                            ARGS_MAX);
    }
    if (!(command->env = fm_calloc(fm_json_len(env) + 2, sizeof(char *)))) {
        return fm_no_memory(err);
    }
    if (fm_json_is(seed, FM_JSON_INT)) {
        rc = env_add(command, "FLOWMESH_SEED", seed, err);
    }
    while (rc >= 0 && fm_json_next(env, &iterator, &name, &value)) {
        rc = env_add(command, name, value, err);
    }
    return rc;
}

/* --- files --------------------------------------------------------------- */

/* One input: an object's bytes, a text as it is, or a value as JSON. */
static fm_status_t input_write(fm_ops_run_t *run, const char *path,
                               const fm_json_t *input, fm_error_t *err)
{
    const fm_json_t *value = fm_json_get(input, "value");
    fm_digest_t digest;
    fm_buf_t bytes = {0};
    fm_status_t rc;

    if (!value) {
        if ((rc = fm_ops_get_digest(input, "digest", &digest, err)) >= 0 &&
            (rc = fm_cas_get(run->ops->cas, &digest, &bytes, err)) >= 0) {
            rc = bytes.len > FILE_BYTES_MAX
                     ? fm_error_set(err, FM_ERR_LIMIT, "more than 1 GiB")
                     : fm_ops_file_write(path, bytes.data, bytes.len, err);
        }
        fm_buf_fini(&bytes);
        return rc;
    }
    if (fm_json_str(value)) {
        return fm_ops_file_write(path, fm_json_str(value),
                                 fm_json_str_len(value), err);
    }
    char *text = fm_json_canonical(value);
    rc = text ? fm_ops_file_write(path, text, strlen(text), err)
              : fm_no_memory(err);
    free(text);
    return rc;
}

static fm_status_t inputs_stage(fm_ops_run_t *run, const fm_json_t *inputs,
                                const char *workdir, fm_error_t *err)
{
    void *iterator = NULL;
    const char *name;
    fm_json_t *input;
    fm_status_t rc = FM_OK;

    while (rc >= 0 && fm_json_next(inputs, &iterator, &name, &input)) {
        char *path = fm_asprintf("%s/%s", workdir, name);
        if (!path) {
            rc = fm_no_memory(err);
        } else if (!fm_path_is_inside(name)) {
            rc = name_bad(err, "name");
        } else {
            rc = input_write(run, path, input, err);
        }
        free(path);
        if (rc < 0) {
            fm_error_wrap(err, "inputs.%.80s", name);
        }
    }
    return rc;
}

static fm_status_t output_store(fm_ops_run_t *run, const char *path,
                                fm_digest_t *digest_out, fm_error_t *err)
{
    fm_buf_t bytes = {0};
    struct stat st;
    fm_status_t rc;

    if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "the command did not write this file");
    }
    if ((rc = fm_file_read(path, FILE_BYTES_MAX, &bytes, err)) >= 0) {
        rc = fm_cas_put(run->ops->cas, FM_CAS_BLOB, bytes.data, bytes.len,
                        digest_out, err);
    }
    fm_buf_fini(&bytes);
    return rc;
}

static fm_status_t outputs_collect(fm_ops_run_t *run, const char *workdir,
                                   fm_json_t *files, fm_ops_output_t *output,
                                   fm_error_t *err)
{
    const fm_json_t *names = fm_json_get(run->params, "outputs");
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < fm_json_len(names); i++) {
        const char *name = fm_json_str(fm_json_at(names, i));
        char text[FM_DIGEST_TEXT_BYTES];
        fm_digest_t digest;
        char *path = NULL;

        if (!fm_path_is_inside(name)) {
            rc = name_bad(err, "name");
        } else if (!(path = fm_asprintf("%s/%s", workdir, name))) {
            rc = fm_no_memory(err);
        } else if ((rc = output_store(run, path, &digest, err)) >= 0 &&
                   (rc = fm_ops_output_object(output, &digest, err)) >= 0 &&
                   fm_json_set(
                       files, name,
                       fm_json_string(fm_digest_format(&digest, text))) < 0) {
            rc = fm_no_memory(err);
        }
        free(path);
        if (rc < 0) {
            fm_error_wrap(err, "outputs[%zu] (%.80s)", i, name ? name : "?");
        }
    }
    return rc;
}

/* {"stdout", "exit", "files"} */
static fm_status_t output_make(fm_ops_run_t *run, const char *workdir,
                               const fm_buf_t *out, fm_ops_output_t *output,
                               fm_error_t *err)
{
    fm_json_t *text =
        fm_json_stringn(out->len ? (const char *)out->data : "", out->len);
    fm_json_t *files = fm_json_object();
    fm_status_t rc;

    if (!text) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "standard output is not UTF-8: write it to a file "
                          "and name that in outputs");
        goto out;
    }
    if ((rc = outputs_collect(run, workdir, files, output, err)) < 0) {
        goto out;
    }
    if (!(output->value = fm_json_object()) ||
        fm_json_set(output->value, "stdout", fm_json_keep(text)) < 0 ||
        fm_json_set(output->value, "exit", fm_json_int(0)) < 0 ||
        fm_json_set(output->value, "files", fm_json_keep(files)) < 0) {
        rc = fm_no_memory(err);
    }
out:
    fm_json_drop(text);
    fm_json_drop(files);
    return rc;
}

fm_status_t fm_ops_command(fm_ops_run_t *run, size_t item,
                           fm_ops_output_t *output, fm_error_t *err)
{
    command_t command = {0};
    fm_buf_t out = {0};
    char *workdir = NULL;
    double timeout_s = 0;
    fm_status_t rc;

    if ((rc = argv_parse(fm_json_get(run->params, "argv"), &command, err)) <
            0 ||
        (rc = env_parse(run->params, &command, err)) < 0 ||
        (rc = fm_ops_get_real(run->hints, "timeout_s", 0, 1e9, 0, &timeout_s,
                              err)) < 0 ||
        (rc = fm_ops_workdir_make(run->ops, &workdir, err)) < 0 ||
        (rc = inputs_stage(run, fm_json_get(run->values[item], "inputs"),
                           workdir, err)) < 0) {
        goto out;
    }
    char **envp = command.env;
    fm_ops_process_t process = {.argv = command.argv,
                                .env = (const char *const *)envp,
                                .workdir = workdir,
                                .timeout_ns =
                                    (int64_t)(timeout_s * (double)FM_NS_PER_S),
                                .stdout_bytes_max = STDOUT_BYTES_MAX,
                                .stopping = run->sink->stopping,
                                .ctx = run->sink->ctx};
    if ((rc = fm_ops_process_run(&process, &out, err)) >= 0) {
        rc = output_make(run, workdir, &out, output, err);
    }
out:
    if (workdir && fm_file_remove_tree(workdir, rc < 0 ? NULL : err) < 0 &&
        rc >= 0) {
        rc = err ? err->status : FM_ERR_IO;
    }
    free(workdir);
    fm_buf_fini(&out);
    command_fini(&command);
    return rc;
}
